"""The commands against a scripted coordinator: shapes, words, exit statuses."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ctl.commands.explain import render as explained
from ctl.commands.health import render as told_health
from ctl.diff import differ
from ctl.main import main
from gtm import links
from gtm.v1 import operator_pb2 as pb
from gtm.v1.operator_pb2_grpc import OperatorServicer, add_OperatorServicer_to_server

FILE = """\
checks:
  web: {type: http, port: 80, interval: 15s}
pools:
  a:
    type: ipv4
    checks: [web]
    addresses:
      - {value: 192.0.2.1}
"""

VERDICT = pb.Verdict(
    check="web",
    address="192.0.2.1",
    port=80,
    pools=["a", "b"],
    why=["up", "online"],
    verdict=pb.HEALTH_DOWN,
    pending=True,
    wavering=True,
    since=1_700_000_000.5,
    rule="2 of 3 regions say down",
    regions=[
        pb.RegionVote(
            region="r1", vote=pb.HEALTH_DOWN, streak=3, reason="refused", rtt_us=1500, age_s=0.25
        ),
        pb.RegionVote(region="r2", vote=pb.HEALTH_UNKNOWN, age_s=-1.0),
    ],
)

STATUS = pb.StatusResponse(
    coordinator_id="c1",
    leader_id="c1",
    version="0.1.0",
    store=pb.StoreStatus(endpoints=["127.0.0.1:7379"], version="3.4.23", revision=9,
        size_bytes=20480),
    generation=2,
    serve_revision=8,
    pools=2,
    pools_published=1,
    targets=3,
    coordinators=[pb.CoordinatorStatus(id="c1", address="127.0.0.1:7400", leader=True)],
    agents=[pb.AgentStatus(id="a1", region="r1", connected=True, targets=3, heard_s=0.5)],
    replicas=[pb.ReplicaStatus(id="d1", listen=["127.0.0.1:5300"], served_revision=6, lag=2)],
    regions=[pb.RegionStatus(name="r1", declared=True, met=True, agents=1, votes=True)],
    forces=[pb.StandingForce(target="a/192.0.2.1", action="drain", who="ops", why="new disk")],
    alarms=[
        pb.Alarm(id="region-without-agent/eu", kind="region-without-agent", severity="warning",
                 text="no agent serves eu", since=1.0),
    ],
)  # fmt: skip

EXPLAINED: dict[str, Any] = {
    "qname": "gtm12345678.gtm-000.test",
    "qtype": "A",
    "client": "202.96.128.1",
    "line": "country:CN",
    "instance": "shop",
    "rule": "mainland",
    "tier": 2,
    "pools": ["c"],
    "candidates": [
        {"address": "192.0.2.1", "in": False, "why": "judged down", "pool": "a"},
        {"address": "192.0.2.9", "in": True, "why": "up", "pool": "c"},
    ],
    "possible_answers": [["192.0.2.9"]],
    "ttl": 60,
    "scope": 18,
    "revision": 12,
    "place": "AS CN",
    "through": ["www.example.com"],
    "path": ["rule mainland matches by line country:CN"],
}

CREATE = pb.Change(action="create", kind="pools", name="a", after='{"type": "ipv4"}')
UPDATE = pb.Change(
    action="update",
    kind="checks",
    name="web",
    before='{"fall": 2, "type": "http"}',
    after='{"fall": 3, "type": "http"}',
)


class Scripted(OperatorServicer):
    """Answers as told; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.plan = pb.PlanResponse(changes=[CREATE, UPDATE], transactions=1)
        self.applied = pb.ApplyResponse(
            applied=True, changes=[CREATE, UPDATE], generation=3, revision=12
        )
        self.resources: dict[str, Any] = {}
        self.verdicts = [VERDICT]
        self.fails: list[tuple[grpc.StatusCode, str]] = []
        self.speaks = False

    async def _note(self, request: Any, context: Any) -> None:
        self.asked.append(request)
        if self.fails:
            marks = links.SPOKEN if self.speaks else ()
            await context.abort(*self.fails.pop(0), trailing_metadata=marks)

    async def Plan(self, request: Any, context: Any) -> pb.PlanResponse:
        await self._note(request, context)
        return self.plan

    async def Apply(self, request: Any, context: Any) -> pb.ApplyResponse:
        await self._note(request, context)
        return self.applied

    async def Delete(self, request: Any, context: Any) -> pb.ApplyResponse:
        await self._note(request, context)
        return self.applied

    async def Get(self, request: Any, context: Any) -> pb.GetResponse:
        await self._note(request, context)
        return pb.GetResponse(resources=json.dumps(self.resources), revision=5)

    async def Force(self, request: Any, context: Any) -> pb.ForceResponse:
        await self._note(request, context)
        return pb.ForceResponse(
            force=pb.StandingForce(
                target=request.target,
                action=request.action,
                tier=request.tier,
                who=request.who,
                why=request.why,
                since=1.0,
                until=time.time() + request.for_s if request.for_s else 0.0,
            )
        )

    async def Release(self, request: Any, context: Any) -> pb.ReleaseResponse:
        await self._note(request, context)
        force = pb.StandingForce(target=request.target, action="pin", tier=2)
        return pb.ReleaseResponse(force=force, failback=True)

    async def Status(self, request: Any, context: Any) -> pb.StatusResponse:
        await self._note(request, context)
        return STATUS

    async def ListVerdicts(self, request: Any, context: Any) -> pb.ListVerdictsResponse:
        await self._note(request, context)
        return pb.ListVerdictsResponse(verdicts=self.verdicts)

    async def WatchVerdicts(
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.WatchVerdictsResponse]:
        self.asked.append(request)
        yield pb.WatchVerdictsResponse(verdict=VERDICT, initial=True)
        yield pb.WatchVerdictsResponse(verdict=VERDICT, gone=True)

    async def Explain(self, request: Any, context: Any) -> pb.ExplainResponse:
        await self._note(request, context)
        return pb.ExplainResponse(json=json.dumps(EXPLAINED))


class Coordinator:
    """A scripted coordinator, and `gtm` run against it."""

    def __init__(self, script: Scripted, address: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.script = script
        self.address = address
        self._capsys = capsys

    async def gtm(self, *arguments: str) -> tuple[int, str, str]:
        """(exit status, stdout, stderr) of one command."""
        status = await asyncio.to_thread(main, ["--server", self.address, *arguments])
        out = self._capsys.readouterr()
        return status, out.out, out.err


@pytest.fixture
async def coordinator(capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Coordinator]:
    script = Scripted()
    server = links.server()
    add_OperatorServicer_to_server(script, server)
    port = links.listen(server, "127.0.0.1:0", links.Tls())
    await server.start()
    yield Coordinator(script, f"127.0.0.1:{port}", capsys)
    await server.stop(None)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "shop.yaml"
    path.write_text(FILE)
    return str(path)


async def test_health_as_json_has_the_stable_shape(coordinator: Coordinator) -> None:
    status, out, _ = await coordinator.gtm("health", "-o", "json", "a")
    assert status == 0
    verdict, other = json.loads(out)
    assert (other["pool"], other["why"]) == ("b", "online")
    assert coordinator.script.asked[0].filter == "a"
    assert {key: verdict[key] for key in list(verdict)[:10]} == {
        "pool": "a",
        "address": "192.0.2.1",
        "port": 80,
        "check": "web",
        "verdict": "down",
        "pending": True,
        "wavering": True,
        "since": 1_700_000_000.5,
        "forced": False,
        "held": False,
    }
    assert verdict["regions"] == [
        {
            "region": "r1",
            "vote": "down",
            "streak": 3,
            "reason": "refused",
            "rtt_us": 1500,
            "age_s": 0.25,
        },
        {
            "region": "r2",
            "vote": "none",
            "streak": 0,
            "reason": "",
            "rtt_us": 0,
            "age_s": None,
        },
    ]


def test_health_as_text_tells_verdict_flags_and_evidence_of_each_region() -> None:
    head, first, second = told_health(VERDICT).splitlines()
    assert head.startswith("down    192.0.2.1:80  check web, in a (up), b (online) for ")
    assert head.endswith("(pending, wavering); 2 of 3 regions say down")
    assert first.split() == ["r1", "down", "x3", "1.5ms", "250ms", "ago:", "refused"]
    assert second.split() == ["r2", "none", "x0", "-", "no", "result", "yet"]


async def test_health_of_an_unknown_name_is_a_no(coordinator: Coordinator) -> None:
    coordinator.script.verdicts = []
    assert (await coordinator.gtm("health", "nobody"))[:2] == (
        1,
        "no target is named 'nobody'\n",
    )
    assert (await coordinator.gtm("health", "-o", "json"))[:2] == (0, "[]\n")


@pytest.mark.parametrize(
    ("asked", "filter_", "found"),
    [
        ("192.0.2.1:80", "192.0.2.1", True),
        ("192.0.2.1:81", "192.0.2.1", False),
        ("[2001:DB8::1]:80", "2001:db8::1", True),
        ("2001:db8::1:80", "2001:db8::1:80", True),
    ],
)
async def test_a_target_may_be_named_with_its_port_as_health_shows_it(
    coordinator: Coordinator, asked: str, filter_: str, found: bool
) -> None:
    status, out, _ = await coordinator.gtm("health", "-o", "json", asked)
    assert coordinator.script.asked[0].filter == filter_
    assert (status, bool(json.loads(out))) == (0 if found else 1, found)
    status, out, _ = await coordinator.gtm("health", "--watch", "-o", "json", asked)
    assert bool(out) == found


async def test_what_is_there_but_has_nothing_probed_is_no_unknown_name(
    coordinator: Coordinator,
) -> None:
    coordinator.script.verdicts = []
    coordinator.script.resources = {"pools": {"plain": {"type": "ipv4"}}}
    assert (await coordinator.gtm("health", "plain"))[:2] == (0, "nothing of plain is probed\n")
    assert (await coordinator.gtm("health", "plain", "-o", "json"))[:2] == (0, "[]\n")


async def test_health_watch_prints_a_json_line_for_each_message_and_pool(
    coordinator: Coordinator,
) -> None:
    status, out, _ = await coordinator.gtm("health", "--watch", "-o", "json")
    assert status == 0
    first, _, second, _ = map(json.loads, out.splitlines())
    assert (first["initial"], first["gone"], second["initial"], second["gone"]) == (
        True,
        False,
        False,
        True,
    )


def test_why_a_region_has_no_vote_is_said_alone() -> None:
    silent = pb.RegionVote(region="r2", reason="no agent", age_s=-1.0)
    _, row = told_health(pb.Verdict(address="192.0.2.1", regions=[silent])).splitlines()
    assert row.split() == ["r2", "none", "x0", "-", "no", "agent"]


async def test_a_resolver_that_never_heard_the_store_is_stale_since_ever(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = pb.StatusResponse(
        replicas=[pb.ReplicaStatus(id="d1", stale=True, snapshot_age_s=float("inf"))]
    )
    monkeypatch.setattr(sys.modules[__name__], "STATUS", never)
    _, out, _ = await coordinator.gtm("status", "-o", "json")
    shape = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert shape["resolvers"][0]["snapshot_age_s"] is None
    assert "nothing heard yet" in (await coordinator.gtm("status"))[1]


async def test_status_as_json_and_as_text_tell_the_lag_of_each_resolver(
    coordinator: Coordinator,
) -> None:
    _, out, _ = await coordinator.gtm("status", "-o", "json")
    shape = json.loads(out)
    assert shape["leader"] == "c1"
    assert shape["resolvers"][0]["lag"] == 2
    assert shape["store"]["revision"] == 9
    assert shape["alarms"] == [
        {
            "id": "region-without-agent/eu",
            "kind": "region-without-agent",
            "severity": "warning",
            "text": "no agent serves eu",
            "since": 1.0,
        }
    ]
    _, text, _ = await coordinator.gtm("status")
    rows = [line.split() for line in text.splitlines()]
    assert ["d1", "127.0.0.1:5300", "6", "2", "fresh", "0", "0ms"] in rows
    assert ["r1", "declared", "met", "1", "yes"] in rows
    assert "3.4.23 at 127.0.0.1:7379, revision 9, 20.0 KiB" in text
    assert "\x1b[" not in text


async def test_explain_as_json_is_what_the_coordinator_said(coordinator: Coordinator) -> None:
    status, out, _ = await coordinator.gtm(
        "explain", "www.example.com", "--client", "202.96.128.1", "--type", "aaaa", "-o", "json"
    )
    assert status == 0
    assert json.loads(out) == EXPLAINED
    asked = coordinator.script.asked[0]
    assert (asked.name, asked.client, asked.type) == ("www.example.com", "202.96.128.1", "AAAA")


def test_explain_as_text_goes_from_the_client_to_the_answer() -> None:
    assert explained(EXPLAINED) == (
        "gtm12345678.gtm-000.test A for 202.96.128.1 (AS CN)\n"
        "  through   www.example.com -> gtm12345678.gtm-000.test\n"
        "  instance  shop\n"
        "  line      country:CN\n"
        "  rule      mainland\n"
        "  tier      2\n"
        "  pools     c\n"
        "  because   rule mainland matches by line country:CN\n"
        "  members   out 192.0.2.1  a: judged down\n"
        "            in  192.0.2.9  c: up\n"
        "  answer    192.0.2.9\n"
        "            TTL 60 s, ECS scope /18, revision 12"
    )


def test_answers_that_differ_in_their_order_alone_are_shown_as_one() -> None:
    told = {**EXPLAINED, "possible_answers": [["a", "b"], ["b", "a"]], "chances": ["1/2", "1/2"]}
    assert "  answer    a b, in turning order, each order with chance 1/2\n" in explained(told)
    told["ttl_from"] = "the instance's ttl"
    assert "TTL 60 s (the instance's ttl), ECS scope" in explained(told)
    told["possible_answers"] = [["a"], ["b"]]
    assert "  answer    a  (chance 1/2)\n            b  (chance 1/2)\n" in explained(told)


async def test_plan_shows_what_changes_field_by_field(coordinator: Coordinator, file: str) -> None:
    status, out, err = await coordinator.gtm("plan", file)
    assert (status, err) == (0, "")
    assert out == (
        "+ create pools/a\n"
        '    type: "ipv4"\n'
        "~ update checks/web\n"
        "    fall: 2 -> 3\n"
        "1 to create, 1 to update\n"
    )
    sent = json.loads(coordinator.script.asked[0].resources)
    assert sent["pools"]["a"]["addresses"] == [{"value": "192.0.2.1"}]


async def test_a_plan_that_refuses_itself_is_a_no_with_the_flag_to_add(
    coordinator: Coordinator, file: str
) -> None:
    coordinator.script.plan = pb.PlanResponse(
        changes=[CREATE], refusal="it takes 9 of 10 addresses away: give --allow-mass-change"
    )
    status, _, err = await coordinator.gtm("plan", file)
    assert status == 1
    assert err == ("gtm: refused: it takes 9 of 10 addresses away: give --allow-mass-change\n")
    status, out, _ = await coordinator.gtm("plan", file, "-o", "json")
    assert status == 1
    assert json.loads(out)["refusal"].startswith("it takes 9 of 10")


@pytest.mark.parametrize("command", [("plan",), ("apply", "--yes")])
async def test_a_refusal_is_told_in_the_coordinators_words_alone(
    coordinator: Coordinator, file: str, command: tuple[str, ...]
) -> None:
    coordinator.script.plan = pb.PlanResponse(changes=[CREATE], refusal="--atomic allows one")
    status, _, err = await coordinator.gtm(*command, file)
    assert (status, err) == (1, "gtm: refused: --atomic allows one\n")


async def test_problems_that_the_coordinator_finds_are_shown_where_they_were_written(
    coordinator: Coordinator, file: str
) -> None:
    coordinator.script.plan = pb.PlanResponse(
        problems=[
            pb.Problem(severity="error", path="pools.a.addresses[0].value", text="no such address")
        ]
    )
    status, out, err = await coordinator.gtm("plan", file)
    assert (status, out) == (1, "")
    assert err == (f"{file}:8: pools.a.addresses[0].value: no such address\ngtm: 1 error\n")


async def test_apply_off_a_terminal_wants_yes_and_touches_nothing(
    coordinator: Coordinator, file: str
) -> None:
    status, _, err = await coordinator.gtm("apply", file)
    assert status == 2
    assert err == "gtm: apply asks before it changes anything: give --yes off a terminal\n"
    assert coordinator.script.asked == []


async def test_apply_shows_the_plan_and_then_what_was_done(
    coordinator: Coordinator, file: str
) -> None:
    status, out, _ = await coordinator.gtm("apply", file, "--yes", "--prune")
    assert status == 0
    assert out.splitlines()[-1] == "1 created, 1 updated (generation 3)"
    plan, apply = coordinator.script.asked
    assert plan.prune
    assert apply.prune
    assert plan.request_id == apply.request_id != ""


async def test_apply_without_changes_applies_nothing(coordinator: Coordinator, file: str) -> None:
    coordinator.script.plan = pb.PlanResponse()
    assert (await coordinator.gtm("apply", file, "--yes"))[:2] == (0, "nothing to change\n")
    assert len(coordinator.script.asked) == 1


async def test_an_apply_whose_answer_is_lost_is_sent_again_under_the_same_id(
    coordinator: Coordinator, file: str
) -> None:
    coordinator.script.fails = [(grpc.StatusCode.UNAVAILABLE, "socket closed")]
    status, out, _ = await coordinator.gtm("apply", file, "--yes", "-o", "json")
    assert status == 0
    assert json.loads(out)["generation"] == 3
    first, second = coordinator.script.asked
    assert first.request_id == second.request_id


@pytest.mark.parametrize(
    ("code", "said", "known"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", False),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect: Connection refused", True),
    ],
)
async def test_who_lost_the_coordinator_is_told_what_is_unknown_and_how_to_find_out(
    coordinator: Coordinator,
    file: str,
    monkeypatch: pytest.MonkeyPatch,
    code: grpc.StatusCode,
    said: str,
    known: bool,
) -> None:
    monkeypatch.setattr("ctl.client.RETRY_S", 0.0)
    refused = (grpc.StatusCode.UNAVAILABLE, "failed to connect: Connection refused")
    coordinator.script.fails = [(code, said), refused, refused]
    status, _, err = await coordinator.gtm("apply", file, "--yes", "-o", "json")
    assert status == 3
    assert ("could not reach a coordinator" in err) is known
    assert ("whether the apply took effect is unknown" in err) is not known
    assert ("gtm plan has nothing to change if it did" in err) is not known
    coordinator.script.fails = [(code, said)]
    status, _, err = await coordinator.gtm("delete", "pool", "a")
    assert status == 3
    assert ("whether the delete took effect is unknown" in err) is not known


async def test_an_apply_that_broke_off_says_what_was_done(
    coordinator: Coordinator, file: str
) -> None:
    coordinator.script.applied = pb.ApplyResponse(changes=[CREATE])
    status, _, err = await coordinator.gtm("apply", file, "--yes")
    assert status == 1
    assert "done before it broke off:\n+ create pools/a" in err
    assert err.endswith("gtm: not applied; run it again\n")


async def test_wrong_files_are_reported_before_anybody_is_asked(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("pools:\n  a: {type: ipv4, adresses: []}\nchecks:\n  w: {type: htp}\n")
    for command in (("plan",), ("apply", "--yes"), ("validate",)):
        arguments = (command[0], str(path), *command[1:])
        status = await asyncio.to_thread(main, list(arguments))
        assert status == 1
        err = coordinator._capsys.readouterr().err
        assert f"{path}:2: pools.a" in err
        assert "addresses" in err
        assert f"{path}:4: checks.w" in err
    assert coordinator.script.asked == []


async def test_get_exports_yaml_that_reads_back(coordinator: Coordinator, tmp_path: Path) -> None:
    coordinator.script.resources = {
        "pools": {"a": {"type": "ipv4", "addresses": [{"value": "192.0.2.1", "note": "NO: 1:30"}]}}
    }
    status, out, _ = await coordinator.gtm("get", "all", "-o", "yaml")
    assert status == 0
    (tmp_path / "export.yaml").write_text(out)
    assert await asyncio.to_thread(main, ["validate", str(tmp_path / "export.yaml")]) == 0
    assert "NO: 1:30" in out
    _, out, _ = await coordinator.gtm("get", "pool", "a")
    assert out.splitlines()[-1].split() == ["pools", "a", "ipv4:", "192.0.2.1"]
    assert coordinator.script.asked[-1].kind == "pools"


async def test_get_of_nothing_is_a_no(coordinator: Coordinator) -> None:
    status, _, err = await coordinator.gtm("get", "pools", "zzz")
    assert (status, err) == (1, "gtm: there is no 'zzz' among the pools; see gtm get pools\n")


async def test_an_unknown_kind_names_the_nearest(coordinator: Coordinator) -> None:
    status, _, err = await coordinator.gtm("delete", "pol", "a")
    assert (status, err) == (2, "gtm: there is no kind 'pol'; did you mean 'pool'\n")


async def test_delete_says_what_was_deleted(coordinator: Coordinator) -> None:
    coordinator.script.applied = pb.ApplyResponse(
        applied=True,
        changes=[pb.Change(action="delete", kind="pools", name="a", before="{}")],
        generation=4,
    )
    status, out, _ = await coordinator.gtm("delete", "pool", "a")
    assert (status, out) == (0, "1 deleted (generation 4)\n")


async def test_force_says_what_stands_and_for_how_long(coordinator: Coordinator) -> None:
    asked = coordinator.script.asked
    for more, words, seconds in (
        (("drain",), "a/192.0.2.1: drain, for 24h\n", 86_400),
        (("up", "--for", "3h"), "a/192.0.2.1: up, for 3h\n", 10_800),
        (("down", "--keep"), "a/192.0.2.1: down, until it is released\n", 0),
        (("pin", "2", "--for", "90m"), "a/192.0.2.1: pin 2, for 90m\n", 5_400),
    ):
        status, out, _ = await coordinator.gtm("force", "a/192.0.2.1", *more, "--why", "new disk")
        assert status == 0
        assert out == words
        assert (asked[-1].why, asked[-1].for_s) == ("new disk", seconds)
        assert asked[-1].who


async def test_force_as_json_has_the_stable_shape(coordinator: Coordinator) -> None:
    _, out, _ = await coordinator.gtm("force", "a", "down", "--why", "x", "--keep", "-o", "json")
    told = json.loads(out)
    assert list(told) == ["target", "action", "tier", "who", "why", "since", "until"]
    assert told["until"] == 0


async def test_release_says_what_it_ended(coordinator: Coordinator) -> None:
    status, out, _ = await coordinator.gtm("release", "shop/world")
    assert (status, out) == (
        0,
        "shop/world: pin 2 is over\nshop/world: the first available tier takes over\n",
    )
    _, out, _ = await coordinator.gtm("release", "shop/world", "-o", "json")
    assert json.loads(out)["failback"] is True


async def test_status_says_as_of_when_it_knows_the_leader_while_etcd_is_silent(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = await coordinator.gtm("status")
    assert "leader     c1 (asked: c1" in out
    told = pb.StatusResponse()
    told.CopyFrom(STATUS)
    told.leader_id, told.leader_as_of = "c2", time.time() - 30
    monkeypatch.setattr(sys.modules[__name__], "STATUS", told)
    _, out, _ = await coordinator.gtm("status")
    assert "leader     c2, as of 30s ago, etcd is silent (asked: c1" in out
    _, out, _ = await coordinator.gtm("status", "-o", "json")
    assert json.loads(out)["leader_as_of"] == told.leader_as_of


async def test_status_shows_the_forces_with_who_and_why(coordinator: Coordinator) -> None:
    _, out, _ = await coordinator.gtm("status")
    line = next(line for line in out.splitlines() if line.startswith("a/192.0.2.1"))
    assert "drain   until it is released" in line
    assert line.endswith("ops  new disk")
    _, out, _ = await coordinator.gtm("status", "-o", "json")
    assert json.loads(out)["forces"][0]["why"] == "new disk"


ANSWERS = [
    (grpc.StatusCode.NOT_FOUND, "there is no instance 'x'", 1, "there is no instance 'x'"),
    (grpc.StatusCode.INVALID_ARGUMENT, "'x' is no address", 2, "'x' is no address"),
    (grpc.StatusCode.UNAVAILABLE, "etcd is away", 3, "could not reach a coordinator"),
    (grpc.StatusCode.INTERNAL, "", 3, "failed (no reason given); see its log"),
    (grpc.StatusCode.UNIMPLEMENTED, "", 3, "no coordinator of this version"),
]


@pytest.mark.parametrize(("code", "details", "status", "words"), ANSWERS)
async def test_each_answer_of_a_coordinator_has_its_exit_status_and_sentence(
    coordinator: Coordinator, code: grpc.StatusCode, details: str, status: int, words: str
) -> None:
    coordinator.script.fails = [(code, details)]
    got, _, err = await coordinator.gtm("explain", "x")
    assert got == status
    assert words in err
    assert err.startswith("gtm: ")
    assert "unexpected" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
async def test_what_a_coordinator_itself_says_of_an_outage_is_not_taken_for_a_broken_link(
    coordinator: Coordinator, code: grpc.StatusCode
) -> None:
    coordinator.script.speaks = True
    coordinator.script.fails = [(code, "the coordinator cannot reach etcd: no (more) answer")]
    status, _, err = await coordinator.gtm("get", "all")
    assert (status, err) == (3, "gtm: the coordinator cannot reach etcd: no (more) answer\n")


def test_nobody_there_is_status_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--server", "127.0.0.1:1", "status"]) == 3
    err = capsys.readouterr().err
    assert err.startswith("gtm: could not reach a coordinator at 127.0.0.1:1 (connection refused)")
    assert err.count("\n") == 1


WRONG_USE = [
    (["stats"], "there is no command 'stats'; did you mean 'status'"),
    (["plan"], "the following arguments are required: PATH"),
    (["status", "--serv", "a:1"], "unrecognized arguments: --serv a:1"),
    (["--server", "nonsense", "status"], "--server 'nonsense' is not HOST:PORT"),
    (["--token", "secret", "status"], "--token wants --ca: a token in the clear is anybody's"),
    (["--ca", "ca.pem", "status"], "--insecure and certificates exclude each other"),
    (["explain", "x", "-o", "yaml"], "invalid choice: 'yaml'"),
    (["force", "a", "down"], "the following arguments are required: --why"),
    (["force", "a", "mute", "--why", "x"], "only a region can be muted: region:NAME"),
    (["force", "region:eu", "down", "--why", "x"], "a region can only be muted"),
    (["force", "a", "pin", "--why", "x"], "pin takes the number of a tier"),
    (["force", "a", "down", "2", "--why", "x"], "down takes no number"),
    (["force", "a", "down", "--why", "x", "--for", "soon"], "'soon' is not a duration"),
    (["force", "a", "down", "--why", "x", "--for", "0s"], "say --keep"),
    (["force", "a", "down", "--why", "x", "--for", "2h", "--keep"], "not allowed with argument"),
    (["get", "all", "a"], "`gtm get all` takes no name"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG_USE)
def test_wrong_use_is_one_sentence_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_the_server_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GTM_SERVER", "127.0.0.1:2")
    assert main(["status"]) == 3
    assert "127.0.0.1:2" in capsys.readouterr().err


def test_what_nobody_expected_is_one_line_and_the_way_to_the_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise KeyError("x")

    monkeypatch.setattr("ctl.commands.version.run", fail)
    assert main(["version"]) == 1
    assert capsys.readouterr().err == (
        "gtm: unexpected KeyError: 'x'; run it again with GTM_DEBUG=1 for the trace\n"
    )
    monkeypatch.setenv("GTM_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["version"])


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    words = capsys.readouterr().out.split()
    assert {"up", "demo", "coordinator", "agent", "resolver", "apply", "health"} <= {*words}
    assert main([]) == 2


DIFFERENCES = [
    ({"a": 1}, {"a": 1}, []),
    ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3, "d": 4}}, [("b.c", 2, 3), ("b.d", None, 4)]),
    (
        {"m": [{"value": "x", "weight": 1}, {"value": "y"}]},
        {"m": [{"value": "x", "weight": 2}, {"value": "z"}]},
        [("m[x].weight", 1, 2), ("m[y]", {"value": "y"}, None), ("m[z]", None, {"value": "z"})],
    ),
    (
        {"m": [{"name": "x"}, {"name": "y"}]},
        {"m": [{"name": "y"}, {"name": "x"}]},
        [("m (order)", ["x", "y"], ["y", "x"])],
    ),
    ({"l": ["a", "b"]}, {"l": ["b"]}, [("l", ["a", "b"], ["b"])]),
    ({"m": [{"value": "x"}] * 2}, {"m": []}, [("m", [{"value": "x"}] * 2, [])]),
]


@pytest.mark.parametrize(("before", "after", "found"), DIFFERENCES)
def test_a_difference_names_the_deepest_field_that_changed(
    before: Any, after: Any, found: list[Any]
) -> None:
    assert list(differ(before, after)) == found
