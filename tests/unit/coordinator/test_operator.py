"""The operators' and resolvers' doors over real gRPC, codes and sentences included."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordinator import listing, replicas, watchers
from coordinator.events import AgentFound, Digest
from coordinator.replicas import Replicas
from coordinator.watchers import TooSlow, Watcher
from gtm import keys, links
from gtm.memory import MemoryStore
from gtm.units import Duration
from gtm.v1 import operator_pb2 as pb
from gtm.v1.operator_pb2_grpc import OperatorStub, ReplicasStub

Code = grpc.StatusCode
PROTO = Path(__file__).resolve().parents[3] / "proto"


@contextlib.asynccontextmanager
async def stub(made: Any, type_: Any = OperatorStub) -> AsyncIterator[Any]:
    async with links.channel(f"127.0.0.1:{made.port}", links.Tls()) as channel:
        yield type_(channel)


def apply_request(given: Any, **more: Any) -> pb.ApplyRequest:
    return pb.ApplyRequest(resources=json.dumps(given), **more)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def judged(made: Any, outcome: int, streak: int = 2) -> None:
    """Two regions' agents say `outcome` of every target."""
    np = importlib.import_module("numpy")
    numbers = [one.number for one in made.engine.targets().values()]

    def column(value: int) -> Any:
        return np.full(len(numbers), value, dtype=np.int64)

    for region in ("eu", "us"):
        if not any(one.region == region for one in made.engine.agents()):
            made.judge.handle(AgentFound(region=region, agent="x"))
        made.judge.handle(
            Digest(
                region=region,
                agent="x",
                target=np.array(numbers, dtype=np.int64),
                outcome=column(outcome),
                streak=column(streak),
                age_ms=column(0),
                rtt_us=column(1_000),
                reason=column(0),
            )
        )


# ---- resources -----------------------------------------------------------------------------


async def test_plan_touches_nothing_and_apply_does_what_it_said(helpers: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        plan = await ask.Plan(apply_request(helpers.SMALL))
        assert (await ask.Get(pb.GetRequest(kind="all"))).resources == "{}"
        done = await ask.Apply(apply_request(helpers.SMALL))
        assert done.applied
        assert plan.transactions == done.generation == 1
        named = [(one.action, one.kind, one.name) for one in plan.changes]
        assert [(one.action, one.kind, one.name) for one in done.changes] == named


async def test_get_gives_back_what_was_applied(helpers: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        await ask.Apply(apply_request(helpers.SMALL))
        got = await ask.Get(pb.GetRequest(kind="all"))
        whole = json.loads(got.resources)
        assert set(whole) == set(helpers.SMALL)
        given = helpers.SMALL["zones"]["gtm.test"]
        assert whole["zones"]["gtm.test"]["records"] == given["records"]
        assert not {"serial", "bits"} & set(whole["zones"]["gtm.test"])
        again = await ask.Plan(apply_request(whole))
        assert list(again.changes) == []
        for kind in ("pool", "pools"):
            one = await ask.Get(pb.GetRequest(kind=kind, name="a"))
            assert list(json.loads(one.resources)["pools"]) == ["a"]


async def test_get_without_a_store_answers_from_memory(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    async with helpers.coordinator(store) as made, stub(made) as ask:
        await ask.Apply(apply_request(helpers.SMALL))
        store.cut()
        got = await ask.Get(pb.GetRequest(kind="checks"))
        assert list(json.loads(got.resources)["checks"]) == ["web"]
        code, sentence = await refused(ask.Apply(apply_request(helpers.SMALL)))
        assert (code, "cannot reach etcd" in sentence) == (Code.UNAVAILABLE, True)
        status = await ask.Status(pb.StatusRequest())
        assert "cut" in status.store.error
        assert status.pools == 1
        store.mend()


async def test_delete_names_what_is_missing_and_what_still_refers(helpers: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        await ask.Apply(apply_request(helpers.SMALL))
        assert await refused(ask.Delete(pb.DeleteRequest(kind="pool", name="zz"))) == (
            Code.NOT_FOUND,
            "there is no pool 'zz'",
        )
        kept = await ask.Delete(pb.DeleteRequest(kind="pool", name="a"))
        assert not kept.applied
        assert [one.text for one in kept.problems] == ["no pool 'a'"]
        gone = await ask.Delete(pb.DeleteRequest(kind="instance", name="shop"))
        assert gone.applied
        assert [(one.action, one.name) for one in gone.changes] == [("delete", "shop")]


async def test_deleting_a_region_ends_that_it_was_met(helpers: Any) -> None:
    store = MemoryStore()
    async with helpers.coordinator(store) as made, stub(made) as ask:
        made.publisher.met("far")
        await helpers.until(lambda: store.get(keys.region("far")))
        gone = await ask.Delete(pb.DeleteRequest(kind="region", name="far"))
        assert gone.applied
        assert [(one.action, one.kind, one.name) for one in gone.changes] == [
            ("delete", "regions", "far")
        ]
        assert await store.get(keys.region("far")) is None
        code, _ = await refused(ask.Delete(pb.DeleteRequest(kind="region", name="far")))
        assert code is Code.NOT_FOUND


BAD_CALLS: dict[str, tuple[str, Any, grpc.StatusCode]] = {
    "resources are not JSON": ("Apply", pb.ApplyRequest(resources="{"), Code.INVALID_ARGUMENT),
    "a request id is at most": (
        "Plan",
        pb.ApplyRequest(request_id="x" * 129),
        Code.INVALID_ARGUMENT,
    ),
    "'dog' is no kind": ("Get", pb.GetRequest(kind="dog"), Code.INVALID_ARGUMENT),
    "there is no pool 'a'": ("Get", pb.GetRequest(kind="pool", name="a"), Code.NOT_FOUND),
    "no instance has the name 'x'": ("Explain", pb.ExplainRequest(name="x"), Code.NOT_FOUND),
    "client 'me' is no IP": (
        "Explain",
        pb.ExplainRequest(name="x", client="me"),
        Code.INVALID_ARGUMENT,
    ),
    "etcd is at revision": (
        "Explain",
        pb.ExplainRequest(name="x", revision=10**9),
        Code.OUT_OF_RANGE,
    ),
}


@pytest.mark.parametrize("sentence", BAD_CALLS)
async def test_a_bad_call_gets_a_code_and_one_sentence(helpers: Any, sentence: str) -> None:
    method, request, wanted = BAD_CALLS[sentence]
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        code, details = await refused(getattr(ask, method)(request))
        assert code is wanted
        assert sentence in details


async def test_resources_of_a_wrong_shape_are_problems(helpers: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        for given, text in (([], "mapping of kinds"), ({"pools": []}, "mapping of names")):
            done = await ask.Apply(apply_request(given))
            assert not done.applied
            assert text in done.problems[0].text


async def test_a_policy_that_takes_too_long_is_a_deadline(helpers: Any) -> None:
    policy = helpers.Accepting()
    async with helpers.coordinator(MemoryStore(), policy) as made, stub(made) as ask:
        policy.slow = True
        assert (await refused(ask.Apply(apply_request(helpers.SMALL))))[0] is Code.DEADLINE_EXCEEDED
        explain = ask.Explain(pb.ExplainRequest(name="shop"))
        assert (await refused(explain))[0] is Code.DEADLINE_EXCEEDED


async def test_explain_answers_now_and_of_an_earlier_revision(helpers: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        first = await ask.Apply(apply_request(helpers.SMALL))
        await ask.Delete(pb.DeleteRequest(kind="instance", name="shop"))
        assert (await refused(ask.Explain(pb.ExplainRequest(name="shop"))))[0] is Code.NOT_FOUND
        then = await ask.Explain(pb.ExplainRequest(name="shop", revision=first.revision))
        assert json.loads(then.json) == {"qname": "shop", "revision": first.revision}


async def test_explain_has_the_votes_behind_each_candidate_of_now_and_of_then(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = [
        {"address": "192.0.2.1", "pool": "a", "in": True},
        {"address": "192.0.2.9", "pool": "elsewhere", "in": False},
    ]

    async def explain(self: Any, view: Any, question: Any) -> str:
        return json.dumps({"qname": question.name, "candidates": candidates})

    store = MemoryStore()
    async with helpers.coordinator(store) as made, stub(made) as ask:
        monkeypatch.setattr(type(made._policy), "explain", explain)
        applied = await ask.Apply(apply_request(helpers.SMALL))
        judged(made, 1)
        told = json.loads((await ask.Explain(pb.ExplainRequest(name="shop"))).json)
        (check,) = told["candidates"][0]["checks"]
        assert (check["check"], check["verdict"]) == ("web", "up")
        assert {one["region"]: one["vote"] for one in check["regions"]} == {
            "eu": "up", "us": "up", "as": "none",
        }  # fmt: skip
        assert told["candidates"][1]["checks"] == []
        then = await ask.Explain(pb.ExplainRequest(name="shop", revision=applied.revision))
        assert json.loads(then.json)["candidates"][0]["checks"] == []  # judged by nobody then
        key = keys.verdict("web", "192.0.2.1", 80)
        last = (await helpers.until(lambda: store.get(key))).mod_revision
        then = await ask.Explain(pb.ExplainRequest(name="shop", revision=last))
        known, unknown = json.loads(then.json)["candidates"]
        (check,) = known["checks"]
        assert (check["check"], check["port"], check["verdict"]) == ("web", 80, "up")
        assert {one["region"]: one["vote"] for one in check["regions"]} == {
            "eu": "up", "us": "up", "as": "none",
        }  # fmt: skip
        assert unknown["checks"] == []


# ---- verdicts ------------------------------------------------------------------------------


async def test_verdicts_carry_every_regions_vote(helpers: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        await ask.Apply(apply_request(helpers.SMALL))
        judged(made, 1)
        found = (await ask.ListVerdicts(pb.ListVerdictsRequest())).verdicts
        assert [(one.address, one.verdict) for one in found] == [
            ("192.0.2.1", pb.HEALTH_UP),
            ("192.0.2.2", pb.HEALTH_UP),
        ]
        assert {(vote.region, vote.vote) for vote in found[0].regions} == {
            ("eu", pb.HEALTH_UP),
            ("us", pb.HEALTH_UP),
            ("as", pb.HEALTH_UNKNOWN),
        }
        for filter_, number in (("a", 2), ("shop", 2), ("web", 2), ("192.0.2.1", 1), ("zz", 0)):
            request = pb.ListVerdictsRequest(filter=filter_)
            assert len((await ask.ListVerdicts(request)).verdicts) == number, filter_


async def test_more_verdicts_than_one_answer_holds_come_page_by_page(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_PAGE", 1)
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        await ask.Apply(apply_request(helpers.SMALL))
        first = await ask.ListVerdicts(pb.ListVerdictsRequest(page_size=9))
        token = first.next_page_token
        second = await ask.ListVerdicts(pb.ListVerdictsRequest(page_token=token))
        pages = [[one.address for one in page.verdicts] for page in (first, second)]
        assert pages == [["192.0.2.1"], ["192.0.2.2"]]
        assert not second.next_page_token
        for wrong in ("x", "a/b/c"):
            request = pb.ListVerdictsRequest(page_token=wrong)
            code, sentence = await refused(ask.ListVerdicts(request))
            assert (code, "page token" in sentence) == (Code.INVALID_ARGUMENT, True)


async def test_a_long_listing_lets_everything_else_run(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "HELPING", 1)
    async with helpers.coordinator(MemoryStore()) as made:
        async with stub(made) as ask:
            await ask.Apply(apply_request(helpers.SMALL))
        keys, turns = made.engine.named(), 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(others())
        seen = [(one.target, turns) async for one in listing.views(made.engine, keys, lambda: None)]
        other.cancel()
        assert [target for target, _ in seen] == keys
        assert [turn for _, turn in seen] == [0, 1]


async def test_a_watcher_sees_the_first_listing_changes_and_ends(helpers: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        await ask.Apply(apply_request(helpers.SMALL))
        judged(made, 1)
        watch = ask.WatchVerdicts(pb.ListVerdictsRequest(filter="shop"))
        first = [await watch.read() for _ in range(2)]
        assert [(one.initial, one.verdict.verdict) for one in first] == [(True, pb.HEALTH_UP)] * 2
        await helpers.until(lambda: len(made.judge.watchers))
        judged(made, 2)
        changed = [await watch.read() for _ in range(2)]
        assert [(one.initial, one.verdict.verdict) for one in changed] == [
            (False, pb.HEALTH_DOWN)
        ] * 2
        await ask.Apply(apply_request({"pools": {"a": helpers.pool("192.0.2.2", checks=["web"])}}))
        gone = await watch.read()
        assert (gone.gone, gone.verdict.address) == (True, "192.0.2.1")
        watch.cancel()
        await helpers.until(lambda: not len(made.judge.watchers))


async def test_a_watcher_that_reads_too_slowly_is_ended() -> None:
    from coordinator.events import TargetKey
    from coordinator.views import VerdictView

    target = TargetKey("web", "192.0.2.1", 80)
    view = VerdictView(
        target=target,
        pools=(),
        why=(),
        verdict="up",
        pending=False,
        wavering=False,
        since=0.0,
        rule="",
        regions=(),
    )
    watcher = Watcher(lambda view: True, ())
    for _ in range(watchers.MAX_WAITING):
        watcher.changed(target, view)
    assert await watcher.next() is view
    watcher.changed(target, view)
    watcher.changed(target, view)
    with pytest.raises(TooSlow):
        await watcher.overrun()


async def test_an_ended_watcher_is_told_why(helpers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "MAX_WAITING", 3)
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        await ask.Apply(apply_request(helpers.SMALL))
        watch = ask.WatchVerdicts(pb.ListVerdictsRequest())
        for _ in range(2):
            await watch.read()
        for outcome in (1, 2, 1, 2):  # nobody can read in between
            judged(made, outcome)

        async def drained() -> None:
            while await watch.read() is not grpc.aio.EOF:
                pass

        code, sentence = await refused(drained())
        assert (code, "watch again" in sentence) == (Code.RESOURCE_EXHAUSTED, True)
        await helpers.until(lambda: not len(made.judge.watchers))


async def test_watchers_beyond_the_bound_are_refused(
    helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "MAX_WATCHERS", 0)
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        watch = ask.WatchVerdicts(pb.ListVerdictsRequest())
        assert (await refused(watch.read()))[0] is Code.RESOURCE_EXHAUSTED


# ---- status, replicas, health, reflection ---------------------------------------------------


async def test_status_tells_members_leader_pools_and_lag(helpers: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        done = await ask.Apply(apply_request(helpers.SMALL))
        async with stub(made, ReplicasStub) as reports:
            answer = await reports.Report(
                pb.ReportRequest(
                    id="r1", served_revision=done.revision - 1, listen=["127.0.0.1:53"]
                )
            )
            assert list(answer.coordinators) == [f"127.0.0.1:{made.port}"]

        async def leads() -> Any:
            status = await ask.Status(pb.StatusRequest())
            return status if status.leader_id and status.coordinators else None

        status = await helpers.until(leads)
        assert (status.coordinator_id, status.leader_id) == ("c1", "c1")
        assert [(one.id, one.leader) for one in status.coordinators] == [("c1", True)]
        assert (status.pools, status.pools_published, status.targets) == (1, 0, 2)
        assert status.generation == 1
        assert status.serve_revision == done.revision
        assert [(one.id, one.lag) for one in status.replicas] == [("r1", 1)]
        assert {one.name for one in status.regions} == {"eu", "us", "as"}
        assert status.store.version == "memory"

        judged(made, 1)

        async def published() -> Any:
            status = await ask.Status(pb.StatusRequest())
            return status.pools_published == 1 and status.serve_revision > done.revision

        await helpers.until(published)


async def test_a_coordinator_that_is_cut_off_names_no_leader_that_it_cannot_vouch_for(
    helpers: Any,
) -> None:
    store = MemoryStore()
    quick = {"lease": Duration(2_000)}
    async with (
        helpers.coordinator(store, id="c1", **quick) as first,
        stub(first) as ask_first,
    ):

        async def leader(ask: Any, wanted: str, *, marked: bool = False) -> Any:
            status = await ask.Status(pb.StatusRequest())
            as_told = status.leader_id == wanted and bool(status.leader_as_of) == marked
            return status if as_told else None

        await helpers.until(lambda: leader(ask_first, "c1"))
        link = store.client()
        async with helpers.coordinator(link, id="c2", **quick) as second, stub(second) as ask:
            await helpers.until(lambda: leader(ask, "c1"))
            cut = time.time()
            link.cut()
            of_another = await helpers.until(lambda: leader(ask, "c1", marked=True))
            assert cut - 2.0 <= of_another.leader_as_of <= time.time()
            link.mend()
            await helpers.until(lambda: leader(ask, "c1"))

            store.cut()
            await helpers.until(lambda: first.leadership.fence == 0)
            alone = await ask_first.Status(pb.StatusRequest())
            assert (alone.leader_id, alone.leader_as_of) == ("", 0.0)
            assert not any(one.leader for one in alone.coordinators)
            await helpers.until(lambda: leader(ask, "c2"))
            store.mend()
            await helpers.until(lambda: leader(ask_first, "c2"))


async def test_replicas_are_bounded_and_forgotten_after_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Aborted(Exception):
        pass

    class Context:
        async def abort(self, code: grpc.StatusCode, details: str) -> None:
            raise Aborted(code)

    now = 0.0
    monkeypatch.setattr(replicas, "MAX_REPLICAS", 2)
    made = Replicas(lambda: (), lambda: now)
    for id_ in ("a", "b", "a"):
        await made.Report(pb.ReportRequest(id=id_), Context())
    with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
        await made.Report(pb.ReportRequest(id="c"), Context())
    for bad in (pb.ReportRequest(), pb.ReportRequest(id="x" * 200)):
        with pytest.raises(Aborted, match="INVALID_ARGUMENT"):
            await made.Report(bad, Context())
    now = replicas.SILENCE_S + 1
    assert made.statuses(0) == []
    await made.Report(pb.ReportRequest(id="c"), Context())
    assert [one.id for one in made.statuses(0)] == ["c"]


async def test_health_and_reflection_are_on(helpers: Any) -> None:
    async with helpers.coordinator(MemoryStore()) as made:
        async with stub(made, health_pb2_grpc.HealthStub) as health:

            async def serving() -> bool:
                request = health_pb2.HealthCheckRequest(service="gtm.v1.Operator")
                try:
                    answer = await health.Check(request)
                except grpc.aio.AioRpcError:
                    return False
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            await helpers.until(serving)
        async with stub(made, reflection_pb2_grpc.ServerReflectionStub) as reflected:
            call = reflected.ServerReflectionInfo()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            answer = await call.read()
            await call.done_writing()
            assert {one.name for one in answer.list_services_response.service} == {
                "gtm.v1.Agents",
                "gtm.v1.Operator",
                "gtm.v1.Replicas",
                "grpc.health.v1.Health",
                "grpc.reflection.v1alpha.ServerReflection",
            }


CLIENT = """
import sys
sys.path.insert(0, sys.argv[1])
import grpc
from gtm.v1 import operator_pb2, operator_pb2_grpc
with grpc.insecure_channel(sys.argv[2]) as channel:
    found = operator_pb2_grpc.OperatorStub(channel).ListVerdicts(
        operator_pb2.ListVerdictsRequest(), timeout=10
    )
print(operator_pb2.__file__)
for one in found.verdicts:
    print(one.address, operator_pb2.Health.Name(one.verdict), len(one.regions))
"""


def generator() -> str:
    """The interpreter that has grpcio-tools: the one of `make proto`, else our own."""
    for python in (Path(sys.prefix) / "proto" / "bin" / "python", Path(sys.executable)):
        asked = [str(python), "-c", "import grpc_tools.protoc"]
        if python.exists() and not subprocess.run(asked, capture_output=True).returncode:
            return str(python)
    pytest.skip("no grpcio-tools here: run make proto")


async def test_a_client_generated_from_proto_alone_lists_verdicts(
    helpers: Any, tmp_path: Path
) -> None:
    command = [await asyncio.to_thread(generator), "-m", "grpc_tools.protoc", f"-I{PROTO}"]
    command += [f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    files = sorted(str(one.relative_to(PROTO)) for one in PROTO.glob("gtm/v1/*.proto"))
    await asyncio.to_thread(subprocess.run, [*command, *files], check=True)
    async with helpers.coordinator(MemoryStore()) as made, stub(made) as ask:
        await ask.Apply(apply_request(helpers.SMALL))
        judged(made, 1)
        asked = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CLIENT,
            str(tmp_path),
            f"127.0.0.1:{made.port}",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asked.communicate()
        lines = out.decode().splitlines()
        assert lines[0].startswith(str(tmp_path))
        assert lines[1:] == ["192.0.2.1 HEALTH_UP 3", "192.0.2.2 HEALTH_UP 3"]
