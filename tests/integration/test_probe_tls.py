"""The probe tls against real TLS servers: good certificates, every kind of bad one, and no TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import trustme
from cryptography import x509

from agent.guard import Guard
from agent.named import by_name
from agent.probes import tls
from agent.probes._tls import expiry
from agent.probes.base import Kind, Outcome, Reason, Target, read_settings
from gtm.names import Names
from tests.name_server import name_server

pytestmark = pytest.mark.integration

NAME = "www.example.com"
PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime(2099, 1, 1, tzinfo=UTC)


class Authority:
    """A certificate authority, the file that a check names, and the names that servers heard."""

    def __init__(self, place: Path) -> None:
        self.ca = trustme.CA()
        self.path = str(place / "ca.pem")
        self.ca.cert_pem.write_to_path(self.path)
        self.heard: list[str | None] = []

    @contextlib.asynccontextmanager
    async def serving(
        self, *names: str, host: str = "127.0.0.1", **how: datetime
    ) -> AsyncIterator[int]:
        """A TLS server with a certificate for `names` on a free port."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names, **how).configure_cert(made)
        made.sni_callback = lambda _socket, name, _context: self.heard.append(name)

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                await reader.read(-1)
            writer.close()

        server = await asyncio.start_server(handle, host, 0, ssl=made)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def target(port: int, address: str = "127.0.0.1", timeout: int = 2000, **options: object) -> Target:
    text = msgspec.json.encode(options).decode()
    settings = read_settings(tls.Settings, text, port)
    return Target("c", address, port, "tls", text, 15_000, timeout, settings=settings)


def head(outcome: Outcome) -> tuple[Kind, Reason]:
    return outcome.kind, outcome.reason


def ending(days: float) -> datetime:
    """A moment so many days from now."""
    return datetime.now(UTC) + timedelta(days=days)


async def test_a_good_certificate_is_a_success_with_its_phases(authority: Authority) -> None:
    async with authority.serving(NAME) as port:
        outcome = await tls.probe(target(port, sni=NAME, ca=authority.path))
    assert outcome.kind is Kind.SUCCESS, outcome
    assert outcome.phases is not None
    assert outcome.phases.connect_us > 0
    assert outcome.phases.tls_us > 0
    assert outcome.phases.first_byte_us == 0
    assert outcome.rtt_us >= outcome.phases.connect_us + outcome.phases.tls_us
    assert authority.heard == [NAME]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_without_sni_the_certificate_must_name_the_address(
    authority: Authority, address: str
) -> None:
    async with authority.serving(address, host=address) as port:
        good = await tls.probe(target(port, address, ca=authority.path))
    async with authority.serving(NAME, host=address) as port:
        bad = await tls.probe(target(port, address, ca=authority.path))
    assert good.kind is Kind.SUCCESS, good
    assert head(bad) == (Kind.FAILURE, Reason.HOSTNAME)
    assert authority.heard == [None, None]  # an address is no name to ask for


WRONG = [
    ((NAME,), {"not_after": PAST}, True, Reason.EXPIRED),
    ((NAME,), {"not_before": FUTURE, "not_after": FUTURE}, True, Reason.NOT_YET_VALID),
    (("other.example.com",), {}, True, Reason.HOSTNAME),
    ((NAME,), {}, False, Reason.UNTRUSTED),
]


@pytest.mark.parametrize(("names", "how", "known", "reason"), WRONG)
async def test_what_is_wrong_with_a_certificate_is_said_unless_nobody_verifies(
    authority: Authority,
    names: tuple[str, ...],
    how: dict[str, datetime],
    known: bool,
    reason: Reason,
) -> None:
    async with authority.serving(*names, **how) as port:
        ca = {"ca": authority.path} if known else {}
        outcome = await tls.probe(target(port, sni=NAME, **ca))
        blind = await tls.probe(target(port, sni=NAME, verify=False))
    assert head(outcome) == (Kind.FAILURE, reason), outcome
    assert blind.kind is Kind.SUCCESS, blind


DAYS = [
    (20.0, 14, Reason.NONE),
    (14.01, 14, Reason.NONE),
    (13.99, 14, Reason.EXPIRING),
    (0.01, 1, Reason.EXPIRING),
    (0.01, 0, Reason.NONE),
    (-0.01, 1, Reason.EXPIRED),
]


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(("left", "wanted", "reason"), DAYS)
async def test_a_certificate_must_last_as_long_as_the_check_wants(
    authority: Authority, left: float, wanted: int, reason: Reason, verify: bool
) -> None:
    how = {"ca": authority.path} if verify else {"verify": False}
    end = ending(left)
    async with authority.serving(NAME, not_before=PAST, not_after=end) as port:
        outcome = await tls.probe(target(port, sni=NAME, min_days_left=wanted, **how))
    assert outcome.reason is reason, outcome
    if reason is Reason.EXPIRING:
        assert outcome.detail == f"on {end:%Y-%m-%d}, in less than {wanted} days"


@pytest.mark.parametrize("end", [datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), FUTURE])
def test_the_end_of_a_certificate_is_read_as_its_issuer_wrote_it(end: datetime) -> None:
    pem = trustme.CA().issue_cert(NAME, not_after=end).cert_chain_pems[0].bytes()
    assert expiry(ssl.PEM_cert_to_DER_cert(pem.decode())) == end
    assert x509.load_pem_x509_certificate(pem).not_valid_after_utc == end


def test_a_certificate_that_is_cut_short_is_none() -> None:
    pem = trustme.CA().issue_cert(NAME).cert_chain_pems[0].bytes().decode()
    der = ssl.PEM_cert_to_DER_cert(pem)
    end = der.index(b"Z", der.index(b"Z") + 1)
    for size in range(end):
        with pytest.raises(ValueError, match=r"."):
            expiry(der[:size])


async def test_a_server_without_tls_and_one_that_hangs_up_say_so() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await writer.drain()
        writer.close()

    async def bye(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    for behave in (greet, bye):
        server = await asyncio.start_server(behave, "127.0.0.1", 0)
        outcome = await tls.probe(target(server.sockets[0].getsockname()[1]))
        server.close()
        assert outcome.kind is Kind.FAILURE
        assert outcome.reason in (Reason.TLS, Reason.RESET), outcome


async def test_authorities_that_the_agent_does_not_have_are_its_own_trouble(
    authority: Authority,
) -> None:
    async with authority.serving(NAME) as port:
        outcome = await tls.probe(target(port, sni=NAME, ca="/nowhere/ca.pem"))
    assert head(outcome) == (Kind.NO_OPINION, Reason.SETTINGS)


async def test_a_member_that_is_a_name_is_asked_for_and_verified_by_it(
    authority: Authority,
) -> None:
    async with name_server() as server, authority.serving("app.test") as port:
        server.rows["app.test"] = ["A 127.0.0.1"]
        server.rows["alias.test"] = ["CNAME app.test."]
        probe = by_name(Names(server.address), Guard())(target(port, "app.test"))
        assert probe is not None
        good = await probe(target(port, "app.test", ca=authority.path))
        bad = await probe(target(port, "alias.test", ca=authority.path))
    assert good.kind is Kind.SUCCESS, good
    assert good.phases is not None
    assert good.phases.dns_us > 0
    assert head(bad) == (Kind.FAILURE, Reason.HOSTNAME)
    assert authority.heard == ["app.test", "alias.test"]
