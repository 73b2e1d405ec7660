"""Who may call what: a table of callers and methods, and refusals on real links with TLS."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from coordinator import callers, metrics
from coordinator.callers import Caller, Denied, Refusal, Refusals, misfit, permitted
from coordinator.part import Coordinator
from coordinator.tokens import Tokens, read
from gtm import links
from gtm.errors import StartError
from gtm.memory import MemoryStore
from gtm.v1 import agent_pb2
from gtm.v1 import operator_pb2 as pb
from gtm.v1.agent_pb2_grpc import AgentsStub
from gtm.v1.operator_pb2_grpc import OperatorStub, ReplicasStub
from tests.certificates import DAY_S, Authority

METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["Operator"].methods]
READ = Caller(kind="operator", name="rita", role="read")
OPERATE = Caller(kind="operator", name="olaf", role="operate")
ADMIN = Caller(kind="operator", name="anna", role="admin")
AGENT = Caller(kind="agent", region="eu", name="a1")
RESOLVER = Caller(kind="resolver", name="ns1")
COORDINATOR = Caller(kind="coordinator", name="c1")

ALLOWED = [
    #  method             read   operate admin  agent  resolver coordinator
    ("Operator/Get",      True,  True,  True,  False, False, True),
    ("Operator/Status",   True,  True,  True,  False, False, True),
    ("Operator/Plan",     True,  True,  True,  False, False, True),
    ("Operator/Force",    False, True,  True,  False, False, False),
    ("Operator/Release",  False, True,  True,  False, False, False),
    ("Operator/Apply",    False, False, True,  False, False, False),
    ("Operator/Delete",   False, False, True,  False, False, False),
    ("Operator/Unheard",  False, False, True,  False, False, False),
    ("Agents/Connect",    False, False, False, True,  False, False),
    ("Replicas/Report",   False, False, False, False, True,  False),
]  # fmt: skip


@pytest.mark.parametrize("row", ALLOWED, ids=lambda row: row[0])
def test_a_caller_may_do_what_its_certificate_is_for(row: tuple[Any, ...]) -> None:
    method, *expected = row
    for caller, allowed in zip(
        (READ, OPERATE, ADMIN, AGENT, RESOLVER, COORDINATOR), expected, strict=True
    ):
        if allowed:
            permitted(caller, f"/gtm.v1.{method}")
            continue
        with pytest.raises(Denied) as denied:
            permitted(caller, f"/gtm.v1.{method}")
        assert denied.value.code is grpc.StatusCode.PERMISSION_DENIED
    permitted(Caller(), f"/gtm.v1.{method}")


def test_every_method_of_operators_says_what_it_needs() -> None:
    assert set(METHODS) <= callers.ROLE_OF.keys()


@pytest.mark.parametrize(
    ("caller", "region", "agent", "why"),
    [
        (AGENT, "eu", "a1", ""),
        (AGENT, "us", "a1", "for region eu, it may not vote for us"),
        (AGENT, "eu", "a2", "for agent a1, it may not speak for a2"),
        (Caller(kind="agent", region="eu"), "EU", "any", ""),
        (Caller(), "us", "a2", ""),
    ],
)
def test_a_hello_must_fit_the_certificate(
    caller: Caller, region: str, agent: str, why: str
) -> None:
    assert misfit(caller, region, agent).endswith(why)
    assert bool(misfit(caller, region, agent)) is bool(why)


def test_who_changes_something_is_who_is_proved_and_only_else_who_was_said() -> None:
    assert OPERATE.who("root@host") == "olaf"
    assert Caller().who("root@host") == "root@host"
    assert AGENT.who("root@host") == "agent eu/a1"


def test_the_same_refusal_is_counted_each_time_and_told_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now, audited = [0.0], []
    refusals = Refusals(audited.append, lambda: now[0])
    before = metrics.REFUSED_CALLS.labels("role")._value.get()
    with caplog.at_level(logging.WARNING):
        for port in range(5):
            refusals.note(refusal("rita", port))
        assert (len(caplog.records), len(audited)) == (1, 1)
        now[0] += callers.AGAIN_S
        refusals.note(refusal("rita", 9))
        assert (len(caplog.records), len(audited)) == (2, 2)
        for number in range(callers.MAX_REMEMBERED + 10):
            refusals.note(refusal(f"x{number}", 1))
    assert len(refusals._told) == callers.MAX_REMEMBERED
    assert metrics.REFUSED_CALLS.labels("role")._value.get() - before == 6 + 1010


def refusal(who: str, port: int) -> Refusal:
    return Refusal(
        who=who, peer=f"ipv4:127.0.0.1:{port}", method="Apply", reason="role", sentence="no"
    )


# ---- on real links -------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "stranger", "another authority")


@pytest.fixture
async def made(helpers: Any, authority: Authority) -> AsyncIterator[Coordinator]:
    tls = authority.coordinator()
    async with helpers.coordinator(
        MemoryStore(), ca=tls.ca, cert=tls.cert, key=tls.key
    ) as coordinator:
        yield coordinator


@asynccontextmanager
async def channel(made: Coordinator, tls: links.Tls) -> AsyncIterator[Any]:
    async with links.channel(f"127.0.0.1:{made.port}", tls) as to:
        yield to


def status(to: Any) -> Any:
    return OperatorStub(to).Status(pb.StatusRequest(), timeout=10)


@pytest.fixture
def refused(caplog: pytest.LogCaptureFixture) -> Any:
    """The fields of the log lines of refusals."""
    caplog.set_level(logging.WARNING)

    def lines() -> list[dict[str, Any]]:
        return [vars(one)["fields"] for one in caplog.records if one.getMessage() == "refused"]

    return lines


async def test_an_operator_may_do_what_its_role_allows_and_no_more(
    made: Coordinator, authority: Authority, refused: Any
) -> None:
    async with channel(made, authority.issue("gtm://operator/rita?role=read")) as to:
        assert (await status(to)).coordinator_id == "c1"
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await OperatorStub(to).Apply(pb.ApplyRequest(resources="{}"), timeout=10)
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert error.value.details() == "rita has the role read, this needs admin"
    (line,) = refused()
    assert (line["who"], line["method"]) == ("operator rita", "Apply")
    async with channel(made, authority.issue("gtm://operator/anna?role=admin")) as to:
        answer = await OperatorStub(to).Apply(pb.ApplyRequest(resources="{}"), timeout=10)
        assert answer.applied


async def test_a_force_names_who_the_certificate_names(
    made: Coordinator, authority: Authority, helpers: Any
) -> None:
    import json

    async with channel(made, authority.issue("gtm://operator/anna?role=admin")) as to:
        ask = OperatorStub(to)
        asked = pb.ApplyRequest(resources=json.dumps(helpers.SMALL), allow_mass_change=True)
        assert (await ask.Apply(asked, timeout=10)).applied
        answer = await ask.Force(
            pb.ForceRequest(target="a", action="down", who="somebody else", why="test"), timeout=10
        )
    assert answer.force.who == "anna"


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        (("us", "a1"), "its certificate is for region eu, it may not vote for us"),
        (("eu", "a2"), "its certificate is for agent a1, it may not speak for a2"),
    ],
)
async def test_an_agent_of_another_region_is_refused_with_one_line(
    made: Coordinator, authority: Authority, refused: Any, hello: tuple[str, str], why: str
) -> None:
    before = metrics.REFUSED_CALLS.labels("region")._value.get()
    async with channel(made, authority.issue("gtm://agent/eu/a1")) as to:
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await welcomed(to, *hello)
            assert error.value.details() == why
    assert [(line["who"], line["why"]) for line in refused()] == [("agent eu/a1", why)]
    assert metrics.REFUSED_CALLS.labels("region")._value.get() - before == 3
    assert not made.gateway.streams


async def test_an_agent_of_the_region_is_welcome_and_may_do_nothing_else(
    made: Coordinator, authority: Authority, refused: Any
) -> None:
    async with channel(made, authority.issue("gtm://agent/eu")) as to:
        call = await welcomed(to, "eu", "any")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await status(to)
        assert error.value.details() == "an agent may not do what is an operator's"
        call.cancel()
    async with channel(made, authority.issue("gtm://resolver/ns1")) as to:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await welcomed(to, "eu", "any")
        assert error.value.details() == "a resolver may not do what is an agent's"
        await ReplicasStub(to).Report(pb.ReportRequest(id="ns1"), timeout=10)
    assert [line["why"] for line in refused()] == [
        "an agent may not do what is an operator's",
        "a resolver may not do what is an agent's",
    ]


async def test_a_stream_ends_with_its_certificate(
    made: Coordinator, authority: Authority, refused: Any
) -> None:
    ends = time.time() + 3
    async with channel(made, authority.issue("gtm://agent/eu/a1", for_s=3)) as to:
        call = await welcomed(to, "eu", "a1")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await asyncio.wait_for(to_the_end(call), 20)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert error.value.details() == "its certificate has ended: renew it"
    assert time.time() >= ends - 1.0
    assert [line["why"] for line in refused()] == ["its certificate has ended: renew it"]


async def to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def welcomed(to: Any, region: str, agent: str) -> Any:
    call = AgentsStub(to).Connect(timeout=60)
    hello = agent_pb2.Hello(
        region=region,
        agent_id=agent,
        version="1",
        capabilities=["type:http", "family:ipv4"],
        incarnation="i",
    )
    await call.write(agent_pb2.FromAgent(hello=hello))
    assert (await call.read()).WhichOneof("message") == "welcome"
    return call


@pytest.mark.parametrize("case", ["another authority", "expired", "none", "in the clear"])
async def test_who_shows_no_good_certificate_does_not_come_in(
    made: Coordinator, authority: Authority, stranger: Authority, case: str
) -> None:
    anna = "gtm://operator/anna?role=admin"
    tls = {
        "another authority": stranger.issue(anna),
        "expired": authority.issue(anna, for_s=DAY_S, ago_s=DAY_S + 1),
        "none": links.Tls(ca=str(authority.ca)),
        "in the clear": links.Tls(),
    }[case]
    shown = links.Tls(ca=str(authority.ca), cert=tls.cert, key=tls.key) if tls else tls
    async with channel(made, shown) as to:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await status(to)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_does_not_speak_to_a_coordinator_of_another_authority(
    made: Coordinator, stranger: Authority
) -> None:
    async with channel(made, stranger.issue("gtm://operator/anna?role=admin")) as to:
        with pytest.raises(grpc.aio.AioRpcError, match="CERTIFICATE_VERIFY_FAILED"):
            await status(to)


async def test_a_certificate_without_an_identity_is_nobody(
    made: Coordinator, tmp_path: Path, authority: Authority, refused: Any
) -> None:
    import trustme

    other = trustme.CA()
    made_ = other.issue_cert("127.0.0.1")
    made_.private_key_pem.write_to_path(str(tmp_path / "key"))
    made_.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    both = authority.pair.cert + other.cert_pem.bytes()
    authority.ca.write_bytes(both)  # read again by the next handshake
    tls = links.Tls(ca=str(authority.ca), cert=str(tmp_path / "cert"), key=str(tmp_path / "key"))
    async with channel(made, tls) as to:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await status(to)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "0 identities of the form gtm://KIND/NAME" in error.value.details()
    assert len(refused()) == 1


# ---- tokens --------------------------------------------------------------------------------------


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def test_a_token_names_an_operator_at_the_door_for_tokens_alone(
    helpers: Any, authority: Authority, tmp_path: Path, refused: Any
) -> None:
    from tests.etcds import free_port

    file = tmp_path / "tokens"
    file.write_text(f"# who role hash\nrita read {hashed('good')}  # since May\n")
    tls = authority.coordinator()
    door = f"127.0.0.1:{free_port()}"
    async with (
        helpers.coordinator(
            MemoryStore(), ca=tls.ca, cert=tls.cert, key=tls.key, operators=door, tokens=str(file)
        ) as made,
        links.channel(door, links.Tls(ca=str(authority.ca))) as to,
    ):
        ask = OperatorStub(to)

        async def answer(token: str, method: Any, request: Any) -> Any:
            given = (("authorization", f"Bearer {token}"),) if token else ()
            return await method(request, timeout=10, metadata=given)

        assert (await answer("good", ask.Status, pb.StatusRequest())).coordinator_id == "c1"
        for token, method, request, why in (
            ("bad", ask.Status, pb.StatusRequest(), "the token is not known here"),
            ("", ask.Status, pb.StatusRequest(), "neither a certificate nor a token"),
            ("good", ask.Apply, pb.ApplyRequest(), "rita has the role read, this needs admin"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await answer(token, method, request)
            assert error.value.details() == why
        with pytest.raises(grpc.aio.AioRpcError):
            await welcomed(to, "eu", "a1")
        file.write_text(f"rita admin {hashed('better')}\n")
        assert (await answer("better", ask.Apply, pb.ApplyRequest(resources="{}"))).applied
        with pytest.raises(grpc.aio.AioRpcError):
            await answer("good", ask.Status, pb.StatusRequest())
        file.write_text("nonsense\n")
        assert (await answer("better", ask.Status, pb.StatusRequest())).coordinator_id == "c1"
    assert [line["who"] for line in refused()][:3] == ["unknown", "unknown", "operator rita"]
    assert made.port


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rita\n", ":1: not NAME read|operate|admin SHA256"),
        (f"\nrita root {'0' * 64}\n", ":2: not NAME"),
        (f"rita read {'0' * 63}\n", ":1: not NAME"),
        (f"/ read {'0' * 64}\n", ":1: '/' is no name"),
    ],
)
def test_a_file_of_tokens_that_is_none_is_refused_with_its_line(
    tmp_path: Path, text: str, why: str
) -> None:
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(StartError, match="tokens") as error:
        read(str(tmp_path / "tokens"))
    assert why in str(error.value)
    with pytest.raises(StartError, match="cannot read the tokens"):
        Tokens(str(tmp_path / "missing")).load()


def test_a_certificate_that_ends_soon_is_an_alarm_until_it_is_renewed() -> None:
    from coordinator.engine import Engine
    from coordinator.events import ClearAlarm, Configured, Now, RaiseAlarm, Restored, Tick
    from coordinator.expiry import Certificate
    from gtm.model import Resources

    engine = Engine()
    engine.handle(Configured(resources=Resources(), generation=1, head_revision=1), Now(0, 1000.0))
    engine.handle(Restored(verdicts={}, pools={}, routes={}), Now(0, 1000.0))
    engine.certificates = (
        Certificate(group="agents", whose="agent eu/a1", begins=0.0, ends=1100.0),
    )
    [raised] = engine.handle(Tick(), Now(1000, 1001.0))
    assert isinstance(raised, RaiseAlarm)
    assert raised.id == "certificates-end/agents"
    assert "agent eu/a1 on 1970-01-01 00:18 UTC" in raised.text
    assert engine.handle(Tick(), Now(2000, 1002.0)) == []
    engine.certificates = (
        Certificate(group="agents", whose="agent eu/a1", begins=1000.0, ends=2200.0),
    )
    [cleared] = engine.handle(Tick(), Now(3000, 1003.0))
    assert isinstance(cleared, ClearAlarm)
