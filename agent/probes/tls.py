"""Probe type `tls`: a TLS handshake, the chain and the name of the certificate, and its expiry.

Connects to the target's address, asks for `sni` (RFC 6066, section 3), else for the name of a
target that has one, and ends after the handshake: no byte of any protocol above is sent. TLS 1.2
and 1.3.

With `verify` the chain must lead to an authority and the certificate must name `sni`, else the
target's name, else its address (RFC 6125, section 6). `min_days_left` is compared with the end of
the server's own certificate (RFC 5280, section 4.1.2.5), with and without `verify`; it goes by this
agent's wall clock, as every judgement of certificates does.
"""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from msgspec import Meta

from ._tls import context, expiry
from ._wire import Stages, Wire
from .base import Fault, Kind, Outcome, ProbeSettings, Reason, Target, failed

MAX_DAYS = 825
"""The longest that `min_days_left` may ask for, in days: longer lives no certificate of the web."""

_NAME = re.compile(r"[A-Za-z0-9._\-]{1,253}")


class Settings(ProbeSettings, frozen=True, kw_only=True):
    """Settings of a tls check."""

    port: Annotated[int, Meta(ge=1, le=65535, description="port to connect to")] = 443
    sni: Annotated[str, Meta(description="name asked for and verified; default: the target's")] = ""
    min_days_left: Annotated[
        int, Meta(ge=0, le=MAX_DAYS, description="fails when the certificate ends in fewer days")
    ] = 0
    verify: Annotated[
        bool,
        Meta(
            description="whether chain and dates of the certificate must be valid and it must name "
            "sni, else the target: its name, or its address, which few do, so that is warned of"
        ),
    ] = True
    ca: Annotated[
        str,
        Meta(description="authorities: a PEM file on the agents, or PEM text; default: system's"),
    ] = ""

    def __post_init__(self) -> None:
        if self.sni and not _NAME.fullmatch(self.sni):
            raise ValueError(f"sni {self.sni!r} is not a name")
        if self.ca and not self.verify:
            raise ValueError("ca without verify: nothing would be verified against it")

    @property
    def names_address(self) -> bool:
        """Whether the certificate of a target without a name must name its address."""
        return self.verify and not self.sni


async def probe(target: Target) -> Outcome:
    """Probe once; `rtt_us` is the whole probe."""
    settings = target.settings
    assert isinstance(settings, Settings)
    stages = Stages()
    wire: Wire | None = None
    try:
        async with asyncio.timeout(target.timeout_ms / 1000):
            wire = await Wire.connect(target.address, target.port)
            stages.end("connect", "in the TLS handshake")
            chosen = context(verify=settings.verify, ca=settings.ca)
            await wire.start_tls(chosen, settings.sni or target.host)
            stages.end("tls", "done")
        if settings.min_days_left:
            _judge(wire.certificate(), settings.min_days_left)
    except TimeoutError:
        return failed(Reason.TIMEOUT, stages.now).outcome(0, stages.phases())
    except Fault as fault:
        return fault.outcome(0, stages.phases())
    finally:
        if wire is not None:
            wire.close()
    return Outcome(Kind.SUCCESS, rtt_us=stages.elapsed_us(), phases=stages.phases())


def _judge(certificate: bytes, days: int) -> None:
    """Fault where the certificate ends in less than `days`."""
    try:
        end = expiry(certificate)
    except ValueError as error:
        raise failed(Reason.TLS, f"a certificate that can't be read: {error}") from error
    left = end - datetime.now(UTC)
    if left <= timedelta():
        raise failed(Reason.EXPIRED, f"on {end:%Y-%m-%d}")
    if left < timedelta(days=days):
        raise failed(Reason.EXPIRING, f"on {end:%Y-%m-%d}, in less than {days} days")
