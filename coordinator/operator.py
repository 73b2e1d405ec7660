"""The `Operator` service: what operators and tools ask, put to the parts that know.

Translates and names errors, one sentence each; decides nothing.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from typing import Any, TypeVar

import grpc
import grpc.aio
import msgspec

from gtm import codec, keys, links, view
from gtm.errors import Compacted, GtmError, OutcomeUnknown, StoreDenied, StoreError
from gtm.ports import Policy, Question
from gtm.state import VerdictRecord
from gtm.store import Store
from gtm.v1 import operator_pb2 as pb
from gtm.v1.operator_pb2_grpc import OperatorServicer
from gtm.view import View

from . import callers, listing, plan, planner, stored, wire
from .apply import Applier, Busy, Outcome
from .behind import behind_at, with_records, with_votes
from .chronicle import MAX_AGE_S
from .events import TargetKey
from .judge import Judge
from .mirror import Mirror
from .overrides import MAX_CHARS, Overrides, Unfit
from .planner import Request
from .status import Status
from .stored import MAX_PART_BYTES
from .views import VerdictView
from .watchers import MAX_WAITING, MAX_WATCHERS, Gone, TooSlow, Watcher

MAX_HISTORY_PARTS = 200
"""Parts of the history (`keys.history_part`) that one answer looks through."""
MAX_RECENT = 20_000
"""Targets whose recent results one call gives."""
MAX_SINCE_S = 30 * 86_400.0
"""How far back recent results are asked for."""
MAX_RECENT = 20_000
"""Targets whose recent results one call gets."""
RECENT_AT_ONCE = 500
"""Targets whose results are gathered in one look at the ring."""
REQUEST_ID_CHARS = 128
"""The longest request id."""
FRESH_S = 2.0
"""How long a Get waits for the store before it answers from memory."""

Code = grpc.StatusCode
M = TypeVar("M")
log = logging.getLogger("coordinator")


class Refused(Exception):
    """A call ends with a status code and a sentence."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


def _call(
    method: Callable[[Any, Any, Any], Awaitable[M]],
) -> Callable[[Any, Any, Any], Awaitable[M]]:
    """Ends a call that raises with the code and the sentence that its error means."""

    @functools.wraps(method)
    async def called(self: Any, request: Any, context: Any) -> M:
        try:
            return await method(self, request, context)
        except Refused as refused:
            code, sentence = refused.code, refused.sentence
        except Busy:
            code, sentence = Code.RESOURCE_EXHAUSTED, "too many applies wait: try again later"
        except TimeoutError as error:
            said = str(error) or "the store did not answer in time: try again"
            code, sentence = Code.DEADLINE_EXCEEDED, said
        except StoreDenied as error:
            code, sentence = Code.FAILED_PRECONDITION, f"etcd refuses the coordinator: {error}"
        except OutcomeUnknown as error:
            code, sentence = (
                Code.UNAVAILABLE,
                f"whether it took effect is unknown ({error}): repeat it under its request id",
            )
        except StoreError as error:
            code, sentence = Code.UNAVAILABLE, f"the coordinator cannot reach etcd: {error}"
        except GtmError as error:
            code, sentence = Code.INTERNAL, str(error)
        raise AssertionError(await context.abort(code, sentence, trailing_metadata=links.SPOKEN))

    return called


class Operator(OperatorServicer):
    """Answers operators."""

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        applier: Applier,
        overrides: Overrides,
        judge: Judge,
        policy: Policy,
        status: Status,
    ) -> None:
        self._store, self._mirror, self._applier = store, mirror, applier
        self._overrides = overrides
        self._judge, self._policy, self._status = judge, policy, status

    # ---- resources -----------------------------------------------------------------------------

    @_call
    async def Plan(self, request: pb.ApplyRequest, context: Any) -> pb.PlanResponse:
        """What Apply would do."""
        asked, wrong = _request(request, "")
        if wrong:
            return pb.PlanResponse(problems=wire.problems(wrong))
        found, effects = await self._applier.plan(asked)
        return pb.PlanResponse(
            problems=wire.problems(found.problems),
            changes=wire.changes(found.changes),
            refusal=found.refusal,
            transactions=found.transactions,
            generation=found.generation,
            effects=wire.effects(effects.changed),
            not_compared=effects.skipped,
            addresses_leaving=effects.leaving,
        )

    @_call
    async def Apply(self, request: pb.ApplyRequest, context: Any) -> pb.ApplyResponse:
        """Make the stored resources those given."""
        asked, wrong = _request(request, callers.who(context, request.who))
        if wrong:
            return pb.ApplyResponse(problems=wire.problems(wrong))
        return _applied(await self._carried_out(asked))

    @_call
    async def Delete(self, request: pb.DeleteRequest, context: Any) -> pb.ApplyResponse:
        """Delete one resource; what still refers to it refuses that."""
        kind, name = _kind(request.kind), request.name
        now = await self._mirror.fresh()
        forget: tuple[str, ...] = ()
        if kind == "regions" and await self._store.get(keys.region(name)) is not None:
            forget = (name,)
        if name not in plan.stored(now, kind) and not forget:
            raise Refused(Code.NOT_FOUND, f"there is no {kind.removesuffix('s')} {name!r}")
        outcome = await self._carried_out(
            Request(
                removed=((kind, name),),
                forget=forget,
                allow_mass_change=request.allow_mass_change,
                request_id=_id(request.request_id),
                who=callers.who(context, request.who),
                why=_why(request.why),
            )
        )
        return _applied(outcome)

    async def _carried_out(self, request: Request) -> Outcome:
        """The apply, brought to its end even when the caller goes away."""
        return await asyncio.shield(asyncio.ensure_future(self._applier.apply(request)))

    @_call
    async def Get(self, request: pb.GetRequest, context: Any) -> pb.GetResponse:
        """Resources as users write them."""
        kinds = plan.KINDS if request.kind in ("", "all") else (_kind(request.kind),)
        try:
            now = await self._mirror.fresh(FRESH_S)
        except (StoreError, TimeoutError):
            now = self._mirror.view  # what is known; `revision` says of when
        found = await asyncio.to_thread(_found, now, kinds, request.name)
        if request.name and not found:
            what = request.kind.removesuffix("s") if request.kind not in ("", "all") else "resource"
            raise Refused(Code.NOT_FOUND, f"there is no {what} {request.name!r}")
        text = msgspec.json.encode(found).decode()
        return pb.GetResponse(resources=text, revision=now.revision)

    # ---- forces --------------------------------------------------------------------------------

    @_call
    async def Force(self, request: pb.ForceRequest, context: Any) -> pb.ForceResponse:
        """Have a force stand until its time is up or it is released."""
        try:
            force = await self._overrides.force(
                request.target,
                request.action,
                tier=request.tier,
                who=callers.who(context, request.who),
                why=request.why,
                for_s=request.for_s,
            )
        except Unfit as unfit:
            raise Refused(Code.INVALID_ARGUMENT, str(unfit)) from None
        except LookupError as unknown:
            raise Refused(Code.NOT_FOUND, str(unknown.args[0])) from None
        return pb.ForceResponse(force=wire.force(force))

    @_call
    async def Release(self, request: pb.ReleaseRequest, context: Any) -> pb.ReleaseResponse:
        """End a force, a hold of the guard or a manual failback."""
        try:
            released = await self._overrides.release(
                request.target, who=callers.who(context, request.who), why=request.why
            )
        except Unfit as unfit:
            raise Refused(Code.INVALID_ARGUMENT, str(unfit)) from None
        except LookupError as unknown:
            raise Refused(Code.NOT_FOUND, str(unknown.args[0])) from None
        force = None if released.force is None else wire.force(released.force)
        return pb.ReleaseResponse(force=force, failback=released.failback, hold=released.hold)

    # ---- what was done -------------------------------------------------------------------------

    @_call
    async def History(self, request: pb.HistoryRequest, context: Any) -> pb.HistoryResponse:
        """What changed since a time, part by part, in order."""
        names = {request.target}
        instance = self._mirror.view.instances.get(request.target)
        if instance is not None:
            names.update(instance.pools())
        now_ms = round(time.time() * 1000) + keys.HISTORY_MS
        oldest_ms = now_ms - round(MAX_AGE_S * 1000) - keys.HISTORY_MS
        at_ms = max(request.cursor, round(request.since * 1000), oldest_ms, 0)
        found: list[str] = []
        size, last_ms, parts = 0, 0, 0
        while at_ms <= now_ms and parts < MAX_HISTORY_PARTS:
            parts += 1
            listing = await self._store.list(keys.history_part(at_ms))
            for item in listing.items:
                ms = keys.history_ms(item.key)
                if ms < at_ms or not _about(item.value, names):
                    continue
                if size > MAX_PART_BYTES and ms > last_ms:
                    return pb.HistoryResponse(entries=found, next=ms)
                found.append(item.value.decode(errors="replace"))
                size += len(item.value)
                last_ms = ms
            at_ms = (at_ms // keys.HISTORY_MS + 1) * keys.HISTORY_MS
        return pb.HistoryResponse(entries=found, next=at_ms if at_ms <= now_ms else 0)

    @_call
    async def Audit(self, request: pb.AuditRequest, context: Any) -> pb.AuditResponse:
        """Entries of the audit trail from one on, as many as fit, and its head."""
        return await stored.audit(self._store, request.seq)

    @_call
    async def Stored(self, request: pb.StoredRequest, context: Any) -> None:
        """Digests of what configuration is stored, part by part."""
        async for part in stored.configuration(self._store):
            await context.write(part)

    # ---- what stands ---------------------------------------------------------------------------

    @_call
    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:
        """Members, revisions, alarms."""
        return await self._status.answer()

    @_call
    async def ListVerdicts(
        self, request: pb.ListVerdictsRequest, context: Any
    ) -> pb.ListVerdictsResponse:
        """Verdicts with every region's vote and evidence, a page of them."""
        engine = self._judge.engine
        try:
            named = engine.named(_filter(request.filter))
            keys, token = listing.page(named, request.page_token, request.page_size)
        except ValueError as error:
            raise Refused(Code.INVALID_ARGUMENT, str(error)) from None
        answer = pb.ListVerdictsResponse(next_page_token=token)
        async for one in listing.views(engine, keys, lambda: self._judge.now):
            answer.verdicts.append(wire.verdict(one))
        return answer

    @_call
    async def WatchVerdicts(self, request: pb.ListVerdictsRequest, context: Any) -> None:
        """What ListVerdicts says, then each verdict that changes."""
        watchers = self._judge.watchers
        if watchers.full:
            raise Refused(Code.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} watchers are open already")
        keys, watcher = self._judge.watch(_filter(request.filter))
        watchers.add(watcher)
        views = listing.views(self._judge.engine, keys, lambda: self._judge.now)
        tasks = {
            asyncio.create_task(_tell(context, views, watcher)),
            asyncio.create_task(watcher.overrun()),  # also while a write waits for the reader
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except TooSlow:
            raise Refused(
                Code.RESOURCE_EXHAUSTED,
                f"more than {MAX_WAITING} changes waited to be read: watch again",
            ) from None
        finally:
            watchers.remove(watcher)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @_call
    async def Explain(self, request: pb.ExplainRequest, context: Any) -> pb.ExplainResponse:
        """Why a client gets the answer that it gets."""
        if request.client:
            try:
                ipaddress.ip_network(request.client, strict=False)
            except ValueError:
                raise Refused(
                    Code.INVALID_ARGUMENT,
                    f"client {request.client!r} is no IP address or network",
                ) from None
        now = await self._at(request.revision) if request.revision else self._mirror.view
        question = Question(
            name=request.name, qtype=(request.type or "A").upper(), client=request.client
        )
        try:
            text = await self._policy.explain(now, question)
            if request.revision:
                text = await self._with_records(text, now, request.revision)
            else:
                text = with_votes(text, self._judge.engine.behind)
            return pb.ExplainResponse(json=text)
        except LookupError as error:
            said = str(error.args[0]) if error.args else ""
            raise Refused(
                Code.NOT_FOUND, said or f"no instance has the name {request.name!r}"
            ) from None
        except ValueError as error:
            raise Refused(Code.INVALID_ARGUMENT, str(error)) from None

    @_call
    async def Recent(self, request: pb.RecentRequest, context: Any) -> None:
        """The recent results of a check's targets, one target a message."""
        check = self._mirror.view.checks.get(request.check)
        if check is None:
            raise Refused(Code.NOT_FOUND, f"there is no check {request.check!r}")
        recent, now = self._judge.recent, self._judge.now
        text, voters = codec.encode(check).decode(), self._judge.engine.voters(request.check)
        keys_ = recent.of_check(request.check)[:MAX_RECENT]
        since_ms = int(min(request.since_s, MAX_SINCE_S) * 1000) or int(MAX_SINCE_S * 1000)
        for start in range(0, len(keys_), RECENT_AT_ONCE):
            some = keys_[start : start + RECENT_AT_ONCE]
            for key, runs in recent.runs_of(some, now.mono_ms, since_ms).items():
                await context.write(
                    pb.RecentTarget(
                        check=key.check,
                        address=key.address,
                        port=key.port,
                        now=now.wall_s,
                        agents=runs.agents,
                        agent=runs.agent,
                        outcome=runs.outcome,
                        count=runs.count,
                        began_ms=runs.began_ms,
                        ended_ms=runs.ended_ms,
                        check_json=text,
                        voters=voters,
                        dropped=recent.dropped,
                    )
                )

    async def _with_records(self, text: str, then: View, revision: int) -> str:
        """An explanation of `revision` with the votes that the store had then."""
        targets = behind_at(text, then)
        records: dict[TargetKey, VerdictRecord] = {}
        for check, address in sorted(
            {(k.check, k.address) for some in targets.values() for k in some}
        ):
            listing = await self._store.list(keys.verdicts(check, address), revision=revision)
            for item in listing.items:
                key = TargetKey(*keys.verdict_target(item.key))
                records[key] = codec.decode(item.value, VerdictRecord)
        return with_records(text, targets, records)

    async def _at(self, revision: int) -> View:
        if revision > self._mirror.view.revision:
            item = await self._store.list(keys.HEAD, keys_only=True)
            if revision > item.revision:
                raise Refused(
                    Code.OUT_OF_RANGE, f"etcd is at revision {item.revision}, not {revision} yet"
                )
        try:
            return view.rebuild(await self._store.list(keys.SERVE, revision=revision))
        except Compacted as error:
            raise Refused(
                Code.OUT_OF_RANGE, f"revision {revision} is gone; the oldest is {error.revision}"
            ) from None


async def _tell(context: Any, views: AsyncIterator[VerdictView], watcher: Watcher) -> None:
    """Write the first listing, then what changes, until cancelled."""
    async for view_ in views:
        await context.write(pb.WatchVerdictsResponse(verdict=wire.verdict(view_), initial=True))
    while True:
        news = await watcher.next()
        if isinstance(news, Gone):
            answer = pb.WatchVerdictsResponse(verdict=wire.target(news.target), gone=True)
        else:
            answer = pb.WatchVerdictsResponse(verdict=wire.verdict(news))
        await context.write(answer)


def _found(now: View, kinds: Iterable[str], name: str) -> dict[str, dict[str, Any]]:
    """The stored resources of `kinds`, or those called `name`; a large set takes seconds."""
    found: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        names = [one for one in sorted(plan.stored(now, kind)) if name in ("", one)]
        if names:
            found[kind] = {one: codec.plain(plan.resource(now, kind, one)) for one in names}
    return found


def _request(request: pb.ApplyRequest, who: str) -> tuple[Request, list[Any]]:
    try:
        data = msgspec.json.decode(request.resources or "{}")
    except ValueError as error:
        raise Refused(Code.INVALID_ARGUMENT, f"resources are not JSON: {error}") from None
    expectations, wrong = planner.expected(data)
    given, more = planner.given(data)
    wrong += more
    asked = Request(
        given=given,
        expectations=expectations,
        prune=request.prune,
        atomic=request.atomic,
        allow_mass_change=request.allow_mass_change,
        request_id=_id(request.request_id),
        generation=request.generation,
        who=who,
        why=_why(request.why),
    )
    return asked, wrong


def _why(text: str) -> str:
    if len(text) > MAX_CHARS or not text.isprintable():
        raise Refused(Code.INVALID_ARGUMENT, f"why is at most {MAX_CHARS} plain characters")
    return text


def _about(value: bytes, names: Collection[str]) -> bool:
    """Whether an entry of the history is about one of these; "" stands for everything."""
    if "" in names:
        return True
    target: str = msgspec.json.decode(value).get("target", "")
    return any(name == target or name in target.split("/") for name in names)


def _id(request_id: str) -> str:
    if len(request_id) > REQUEST_ID_CHARS or not request_id.isprintable():
        raise Refused(
            Code.INVALID_ARGUMENT, f"a request id is at most {REQUEST_ID_CHARS} plain characters"
        )
    return request_id


def _kind(kind: str) -> str:
    plural = kind if kind in plan.KINDS else f"{kind}s"
    if plural not in plan.KINDS:
        known = ", ".join(plan.KINDS)
        raise Refused(Code.INVALID_ARGUMENT, f"{kind!r} is no kind of resource: {known}")
    return plural


def _filter(text: str) -> str:
    """A filter as the engine knows names: addresses in their canonical text."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _applied(outcome: Outcome) -> pb.ApplyResponse:
    return pb.ApplyResponse(
        applied=outcome.applied,
        problems=wire.problems(outcome.problems),
        changes=wire.changes(outcome.changes),
        refusal=outcome.refusal,
        generation=outcome.generation,
        revision=outcome.revision,
    )
