"""Plans a request against a view: fills it in, lets the policy judge the whole, cuts the chain.

Reads ids from the store and asks the policy; writes nothing. `apply` writes what comes out. What
takes time grows with all that is stored, so it is done in threads: the lease and the streams go on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from gtm import codec, heap, keys
from gtm.config import EXPECT, Variants, read_plain
from gtm.errors import GtmError
from gtm.expect import Expectation
from gtm.model import Resources
from gtm.ports import Effects, Policy, Problem, Review
from gtm.state import Force, Identity
from gtm.store import Delete, Store
from gtm.view import View

from . import brake, plan, touched
from .plan import Change, Link, Plain, Unit

log = logging.getLogger("coordinator")


class Request(Struct, frozen=True, kw_only=True):
    """What is asked: resources that come (`given`, as in files) and that go (`removed`).

    `forget` names regions that shall not count as met any more; `expectations` must hold of the
    whole set after it. `generation` is that of the plan that was looked at (0: none was), `who` and
    `why` are for the audit trail.
    """

    given: Plain = {}
    expectations: tuple[Expectation, ...] = ()
    removed: tuple[tuple[str, str], ...] = ()
    forget: tuple[str, ...] = ()
    prune: bool = False
    atomic: bool = False
    allow_mass_change: bool = False
    request_id: str = ""
    generation: int = 0
    who: str = ""
    why: str = ""


class Planned(Struct, frozen=True, kw_only=True):
    """A plan against `view`; without links where nothing differs or something is wrong."""

    view: View
    problems: tuple[Problem, ...] = ()
    links: tuple[Link, ...] = ()
    refusal: str = ""

    @property
    def wrong(self) -> bool:
        """Whether a problem refuses the whole."""
        return any(problem.severity == "error" for problem in self.problems)

    @property
    def changes(self) -> tuple[Change, ...]:
        """Every change of the plan, in order."""
        return tuple(change for link in self.links for change in link.changes)


class Planner:
    """Makes plans; `draw()` is a random number below 10^8 for new ids."""

    def __init__(
        self,
        store: Store,
        policy: Policy,
        *,
        draw: Callable[[], int] = lambda: random.SystemRandom().randrange(10**8),
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._policy = store, policy
        self._draw, self._wall_s = draw, wall_s

    async def plan(self, view: View, request: Request, *, braked: bool = True) -> Planned:
        """The plan for `request` on `view`. Raises StoreError, TimeoutError."""
        with heap.uncollected():
            return (await self._plan(view, request, braked=braked, told=False))[0]

    async def shown(self, view: View, request: Request) -> tuple[Planned, Effects]:
        """The plan, and what it changes in answers as far as that can be told in time."""
        with heap.uncollected():
            return await self._plan(view, request, braked=True, told=True)

    async def _plan(
        self, view: View, request: Request, *, braked: bool, told: bool
    ) -> tuple[Planned, Effects]:
        now_s = self._wall_s()
        ids, forces = await self._ids(request), await self._forces()
        whole, problems = await asyncio.to_thread(
            plan.would_be, view, request.given, ids, now_s, self._draw, prune=request.prune
        )
        for kind, name in request.removed:
            whole.get(kind, {}).pop(name, None)
        review = await self._judged(whole, request)
        wanted = review.resources
        problems += review.problems
        if wanted is None or any(problem.severity == "error" for problem in problems):
            return Planned(view=view, problems=tuple(problems)), Effects()
        effects = asyncio.ensure_future(self._effects(view, wanted if told else None))
        try:  # the policy's process works beside us
            found = await asyncio.to_thread(_links, view, wanted, request, ids, forces, now_s)
            if isinstance(found, Problem):
                return Planned(view=view, problems=(*problems, found)), Effects()
            refusal = ""
            if request.atomic and len(found) > 1:
                refusal = (
                    f"the change takes {len(found)} transactions and --atomic allows one: "
                    "apply it in parts, or without --atomic"
                )
            elif braked and not request.allow_mass_change:
                refusal = brake.refusal(view, wanted)
            problems += await self._broken_prefix(view, found)
            planned = Planned(view=view, problems=tuple(problems), links=found, refusal=refusal)
            return planned, await effects
        finally:
            effects.cancel()

    async def _effects(self, view: View, wanted: Resources | None) -> Effects:
        """What changes in answers when `wanted` stands."""
        if wanted is None:
            return Effects()
        seen = await asyncio.to_thread(touched.touched, touched.stored(view), wanted)
        if not seen.names:
            return Effects(leaving=seen.leaving)
        try:
            changed = await self._policy.effects(seen.before, seen.after, seen.names)
        except (GtmError, TimeoutError) as error:
            log.warning("the effects of a plan could not be told: %s", error)
            return Effects(skipped=len(seen.names) + seen.skipped, leaving=seen.leaving)
        return Effects(changed=changed, skipped=seen.skipped, leaving=seen.leaving)

    async def _judged(self, whole: Plain, request: Request) -> Review:
        if not request.expectations:
            return await self._policy.problems(whole)
        return await self._policy.problems(whole, request.expectations)

    async def _ids(self, request: Request) -> dict[str, Identity]:
        if not request.given.get("instances"):
            return {}
        listing = await self._store.list(keys.IDS)
        return {
            item.key.removeprefix(keys.IDS): codec.decode(item.value, Identity)
            for item in listing.items
        }

    async def _forces(self) -> tuple[Force, ...]:
        """The operators' forces as they are stored; those on what goes end with it."""
        listing = await self._store.list(keys.FORCES)
        return tuple(codec.decode(item.value, Force) for item in listing.items)

    async def _broken_prefix(self, view: View, links: tuple[Link, ...]) -> list[Problem]:
        """What is wrong with a chain one of whose prefixes would not be valid alone.

        Resources that only come, or only go, are in an order whose prefixes are valid; where some
        change in place, each prefix is put before the policy.
        """
        changes = [change for link in links for change in link.changes]
        if len(links) < 2 or all(change.action != "update" for change in changes):
            return []
        whole = await asyncio.to_thread(plan.plain, view)
        for number, link in enumerate(links[:-1], start=1):
            for change in link.changes:
                if change.after:
                    whole[change.kind][change.name] = msgspec.json.decode(change.after)
                else:
                    whole[change.kind].pop(change.name, None)
            review = await self._policy.problems(whole)
            if review.errors:
                return [
                    Problem(
                        text=f"the change takes {len(links)} transactions, and what stands after "
                        f"number {number} would be refused ({review.errors[0]}): "
                        "apply it in parts that are each valid"
                    )
                ]
        return []


def _links(
    view: View,
    wanted: Resources,
    request: Request,
    ids: Mapping[str, Identity],
    forces: tuple[Force, ...],
    now_s: float,
) -> tuple[Link, ...] | Problem:
    """The chain from `view` to `wanted`; a problem where a unit fits no transaction."""
    try:
        units = plan.units(view, wanted, _names(view, request), ids, now_s, forces)
        return plan.chain([*units, *(_forgotten(view, region) for region in request.forget)])
    except ValueError as error:
        return Problem(text=str(error))


def _names(view: View, request: Request) -> dict[str, set[str]]:
    """The names that may change: those given and removed, and with prune all."""
    names: dict[str, set[str]] = {}
    for kind in plan.KINDS:
        names[kind] = {*request.given.get(kind, {})}
        names[kind].update(name for of, name in request.removed if of == kind)
        if request.prune:
            names[kind].update(plan.stored(view, kind))
    return names


def _forgotten(view: View, region: str) -> Unit:
    """Ends that `region` counts as met; a change of its own only where it is not declared."""
    change = Change(action="delete", kind="regions", name=region, before="{}")
    return Unit(
        ops=(Delete(keys.region(region)),), change=None if region in view.regions else change
    )


def expected(resources: Any) -> tuple[tuple[Expectation, ...], list[Problem]]:
    """The expectations beside resources in decoded JSON, and what is wrong with them."""
    if not isinstance(resources, Mapping) or not resources.get(EXPECT):
        return (), []
    reading = read_plain({EXPECT: resources[EXPECT]}, Variants({}, {}))
    return reading.expectations, list(reading.problems)


def given(resources: Any) -> tuple[Plain, list[Problem]]:
    """Decoded JSON as kind -> name -> plain data, and what is wrong with its outer shape."""
    if not isinstance(resources, Mapping):
        return {}, [Problem(text="resources must be a mapping of kinds: {zones: ..., pools: ...}")]
    found: Plain = {}
    problems = []
    for kind, named in resources.items():
        if named is None or kind == EXPECT:
            continue
        if isinstance(named, Mapping):
            found[kind] = dict(named)
        else:
            problems.append(Problem(path=kind, text="must be a mapping of names to resources"))
    return found, problems
