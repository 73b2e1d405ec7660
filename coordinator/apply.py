"""Applies and deletes: reads, plans, writes the links of the chain, and knows what took effect.

Every transaction compares `serve/head` and writes it, so that applies of all coordinators follow
one another, and carries its entry of the audit trail (`trail`); whoever loses reads again and plans
again. An answer that got lost is found again by the request id in the head. Ids are written by
these transactions alone, so the same comparison makes an allocated id unique.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import OrderedDict

from msgspec import Struct

from gtm import codec, keys
from gtm.errors import GtmError, OutcomeUnknown, StoreError
from gtm.ports import Effects, Problem
from gtm.state import Head
from gtm.store import Compare, Get, Item, Store, packed
from gtm.telemetry import transition
from gtm.view import View

from . import metrics, plan, trail
from .mirror import Mirror
from .plan import Change, Link
from .planner import Planned, Planner, Request
from .trail import Said, Trail

MAX_ROUNDS = 16
"""How often one apply is planned again because somebody else's came first."""
MAX_WAITING = 64
"""Applies in one coordinator, the one at work included; they take turns."""
MAX_REMEMBERED = 256
"""Request ids whose outcome is remembered."""
SETTLE_S = 10.0
"""How long a lost answer is looked for."""
SHOWN_S = 2.0
"""How long an apply waits for its own coordinator to see it."""

log = logging.getLogger("coordinator")


class Outcome(Struct, frozen=True, kw_only=True):
    """How an apply ended; `changes` are those done (`plan`: those that would be)."""

    applied: bool = False
    problems: tuple[Problem, ...] = ()
    changes: tuple[Change, ...] = ()
    refusal: str = ""
    generation: int = 0
    revision: int = 0
    transactions: int = 0


class Busy(Exception):
    """Too many applies wait already."""


class Applier:
    """Plans and applies sets of resources, one at a time in this coordinator."""

    def __init__(self, store: Store, mirror: Mirror, planner: Planner) -> None:
        self._store, self._mirror, self._planner = store, mirror, planner
        self._trail = Trail(store)
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._remembered: OrderedDict[str, Outcome] = OrderedDict()

    async def plan(self, request: Request) -> tuple[Outcome, Effects]:
        """What `apply` would do, and to answers. Raises StoreError, TimeoutError."""
        view = await self._mirror.fresh()
        found, effects = await self._planner.shown(view, request)
        outcome = Outcome(
            problems=found.problems,
            changes=found.changes,
            refusal=found.refusal,
            generation=view.head.generation,
            revision=view.revision,
            transactions=len(found.links),
        )
        return outcome, effects

    async def apply(self, request: Request) -> Outcome:
        """Make it so. Raises StoreError or TimeoutError where nothing was done, and Busy."""
        if self._waiting >= MAX_WAITING:
            raise Busy
        self._waiting += 1
        try:
            async with self._turn:
                outcome = await self._apply(request, request.request_id or uuid.uuid4().hex)
        finally:
            self._waiting -= 1
        metrics.APPLIES.labels("applied" if outcome.applied else "refused").inc()
        return outcome

    async def _apply(self, request: Request, name: str) -> Outcome:
        if name in self._remembered:
            return self._remembered[name]
        view = await self._mirror.fresh()
        if _finished(view.head, name):
            return Outcome(
                applied=True, generation=view.head.generation, revision=view.head_revision
            )
        run = _Run(self._store, self._mirror, self._planner, self._trail, request, name)
        outcome = await run.run(view)
        if outcome.applied:
            self._remembered[name] = outcome
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
            try:
                await self._mirror.caught_up(outcome.revision, SHOWN_S)
            except TimeoutError:
                pass  # it is applied; only our own view is late
        return outcome


class _Run:
    """One apply: rounds of planning and writing until nothing is left to do."""

    def __init__(
        self,
        store: Store,
        mirror: Mirror,
        planner: Planner,
        trail: Trail,
        request: Request,
        name: str,
    ) -> None:
        self._store, self._mirror, self._planner, self._trail = store, mirror, planner, trail
        self._request, self._name = request, name
        self._done: dict[tuple[str, str], Change] = {}
        self._maybe: tuple[Change, ...] = ()
        self._written = 0
        self._revision = 0

    async def run(self, view: View) -> Outcome:
        for _ in range(MAX_ROUNDS):
            try:
                if moved := self._moved(view):
                    return Outcome(
                        refusal=moved,
                        generation=view.head.generation,
                        revision=view.head_revision,
                    )
                found = await self._planner.plan(view, self._request, braked=not self._written)
                self._settle(found)
                if found.wrong or found.refusal:
                    return self._ended(view, found)
                if (head := await self._write(found)) is not None:
                    return self._ended(view, found, head)
                view = await self._mirror.fresh()
            except (GtmError, TimeoutError) as error:
                if not self._written and not self._maybe:
                    raise
                return self._broken(view, str(error) or "no answer in time")
        return self._broken(view, "others kept changing the configuration")

    def _moved(self, view: View) -> str:
        """Why the plan that was looked at says nothing any more; "" where it does."""
        planned, now = self._request.generation, view.head.generation
        if not planned or self._written or self._maybe or planned == now:
            return ""
        return (
            f"the configuration changed since the plan (generation {planned}, now {now}): "
            "plan again, look at it, then apply"
        )

    def _settle(self, found: Planned) -> None:
        """What was written without an answer and needs no writing any more is done."""
        planned = {(change.kind, change.name) for change in found.changes}
        for change in self._maybe:
            if (change.kind, change.name) not in planned:
                self._note(change)
        self._maybe = ()

    def _note(self, change: Change) -> None:
        self._done[change.kind, change.name] = change
        transition(log, f"{change.action} {change.kind}/{change.name}", request=self._name)

    def _ended(self, view: View, found: Planned, head: Head | None = None) -> Outcome:
        return Outcome(
            applied=head is not None,
            problems=found.problems,
            changes=tuple(self._done.values()),
            refusal=found.refusal,
            generation=(head or view.head).generation,
            revision=self._revision or view.head_revision,
            transactions=self._written,
        )

    def _broken(self, view: View, cause: str) -> Outcome:
        unsure = "; one more may have taken effect" if self._maybe else ""
        return Outcome(
            changes=tuple(self._done.values()),
            refusal=f"stopped after {self._written} transaction(s) and {len(self._done)} "
            f"changed resource(s){unsure}: {cause}; what is stored is valid, apply again to go on",
            generation=view.head.generation,
            revision=self._revision,
            transactions=self._written,
        )

    async def _write(self, found: Planned) -> Head | None:
        """Write the links and return the last head; None where somebody else came first."""
        head, compared = found.view.head, found.view.head_revision
        for number, link in enumerate(found.links, start=1):
            mark = f"{self._name}#{number}/{len(found.links)}"
            head = Head(generation=head.generation + 1, request_id=mark)
            won = await self._commit(link, head, compared)
            if won is None:
                return None
            compared = self._revision = won
            self._written += 1
            for change in link.changes:
                self._note(change)
        return head

    async def _commit(self, link: Link, head: Head, compared: int) -> int | None:
        """The revision of the link's transaction; None where the head was not as compared."""
        compare = Compare(keys.HEAD, "mod", "=", compared)
        changes, more = trail.changes(link.changes)
        what = "delete" if self._request.removed or self._request.forget else "apply"
        said = Said(
            who=self._request.who, what=what, why=self._request.why, changes=changes, more=more
        )
        for _ in range(MAX_ROUNDS):
            audited, noted = self._trail.entry(await self._trail.place(), said)
            ops = packed((*link.ops, plan.head_put(head), *noted))
            try:
                done = await self._store.txn([compare, audited], ops, [Get(keys.HEAD)])
            except OutcomeUnknown as error:
                transition(log, "an apply's answer was lost", logging.WARNING, cause=str(error))
                self._maybe = link.changes
                item = await self._settled()
                if item is None or codec.decode(item.value, Head) != head:
                    return None
                self._maybe = ()
                return item.mod_revision
            if done.succeeded:
                return done.revision
            [there] = done.reads
            if (there[0].mod_revision if there else 0) != compared:
                return None  # else only the audit trail went on: a force came between
        return None

    async def _settled(self) -> Item | None:
        """The head after an unknown outcome, read as soon as the store can be reached."""
        async with asyncio.timeout(SETTLE_S):
            while True:
                try:
                    return await self._store.get(keys.HEAD)
                except StoreError:
                    await asyncio.sleep(0.2)


def _finished(head: Head, request_id: str) -> bool:
    """Whether `head` was written by the last link of `request_id`."""
    name, _, link = head.request_id.rpartition("#")
    number, _, total = link.partition("/")
    return name == request_id and number == total
