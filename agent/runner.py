"""Runs the schedule: a bounded number of probes at once, each with a hard deadline.

Decides what a probe that misbehaves means (no opinion) and when this agent was too slow to judge;
keeps for each target where the agent stands. Never judges a target itself: that is the
coordinator's. Sits between `schedule` (what is due) and `uplink` (who hears of results).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum

from gtm.telemetry import transition
from gtm.variants import variants

from . import metrics
from .deadlines import Deadlines
from .probes.base import STALLED_MS, Identity, Kind, Outcome, Probe, Reason, Target
from .results import ProbeResult
from .schedule import Schedule

TICK_MS = 10
"""Probes begin at multiples of that: those of one tick share a turn of the loop."""
HARD_MS = 1000
"""A probe that has not ended so long after its own deadline is cancelled."""
LATE_MS = 100
"""A probe that began so long after it was due is counted as late."""
PATIENCE_MS = 2000
"""A result that says what the ones before it said waits so long, at most a quarter of an interval,
so that several travel together: a message costs both ends far more than a row in it."""
CONFIRM_SHARE = 4
"""A target is confirmed once in the n-th part of its interval, however many coordinators ask."""
CONFIRM_GAP_MS = 100
"""From the end of a failure to the probe that confirms it: what lasts less is no outage, and the
result is on its way meanwhile."""
REALIGN_MS = 50
"""The shared clock moves by at least this much, or not at all: estimates of it tremble."""
SMOOTHING = 8
"""Each new round trip moves the smoothed one by the n-th part of their difference (RFC 6298)."""

log = logging.getLogger("agent")


class Opinion(IntEnum):
    """What the agent would say of a target by itself."""

    NONE = 0
    UP = 1
    DOWN = 2


class Standing:
    """Where the agent stands with one target; the runner alone changes it."""

    __slots__ = (
        "asked_ms",
        "before",
        "began_ms",
        "begun",
        "confirming",
        "dropped",
        "due_ms",
        "ended_ms",
        "identity",
        "opinion",
        "outcome",
        "overran",
        "probe",
        "smoothed_us",
        "span_ms",
        "streak",
        "target",
        "task",
    )

    def __init__(self, target: Target) -> None:
        self.target = target
        self.identity = target.identity
        self.probe: Probe | None = None
        """What probes the target as it is; None until it is first due."""
        self.outcome: Outcome | None = None
        self.streak = 0
        self.ended_ms = 0
        self.smoothed_us = 0
        """Smoothed round trip of successes in microseconds; 0: none yet."""
        self.opinion = Opinion.NONE
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        """Whether that has had its first turn."""
        self.began_ms = self.span_ms = 0
        """Of the probe under way, or of the last one."""
        self.overran = False
        """Whether the probe under way was given up, which was told already."""
        self.dropped = False
        """Whether nobody wants to know any more."""
        self.due_ms = 0
        self.confirming = 0
        """Probes that may still be added to confirm a failure."""
        self.asked_ms = -(1 << 62)
        """When it was last to be confirmed."""
        self.before = False
        """Whether a probe that began before it was asked for is still under way."""

    @property
    def repeats(self) -> bool:
        """Whether the last result only goes on with a streak that had turned the vote already."""
        target, outcome = self.target, self.outcome
        turning = target.rise if outcome and outcome.kind is Kind.SUCCESS else target.fall
        return self.streak > turning

    def take(self, outcome: Outcome, ended_ms: int) -> Opinion:
        """Count an outcome in; returns the opinion before it."""
        same = self.outcome is not None and self.outcome.kind == outcome.kind
        self.streak = self.streak + 1 if same else 1
        self.outcome, self.ended_ms = outcome, ended_ms
        before = self.opinion
        if outcome.kind is Kind.SUCCESS:
            former = self.smoothed_us or outcome.rtt_us
            self.smoothed_us = former + (outcome.rtt_us - former) // SMOOTHING
            if before is Opinion.NONE or self.streak >= self.target.rise:
                self.opinion = Opinion.UP
        elif outcome.kind is Kind.FAILURE and self.streak >= self.target.fall:
            self.opinion = Opinion.DOWN
        return before


def probe_of(target: Target) -> Probe | None:
    """The probe of a target, None where this agent has none for it."""
    module = variants("agent.probes").get(target.type)
    return None if module is None or target.unfit else module.probe


class Runner:
    """Probes the assigned targets and hands each result to `on_result`.

    `probe_of` gives the probe of a target, None where this agent has none for it.
    """

    def __init__(
        self,
        agent_id: str,
        max_probes: int,
        on_result: Callable[[ProbeResult], None],
        probe_of: Callable[[Target], Probe | None] = probe_of,
    ) -> None:
        self._schedule = Schedule(agent_id)
        self._max_probes = max_probes
        self._on_result = on_result
        self._probe_of = probe_of
        self._standings: dict[Identity, Standing] = {}
        self._waiting: deque[Standing] = deque()  # at most one entry a target
        self._running: set[Standing] = set()
        self._hard: Deadlines[Standing] = Deadlines(asyncio.get_running_loop(), self._overrun)
        self._timer: asyncio.TimerHandle | None = None
        self._armed_ms = 0
        self._loop = asyncio.get_running_loop()
        self._closed = self._draining = False
        self._aligned: tuple[int, int, int] | None = None
        self.blind = ""
        """Why nothing that is seen means anything; "" while it does."""
        self._faults: set[str] = set()  # types whose fault was logged
        metrics.RUNNING.set_function(lambda: len(self._running))

    def now_ms(self) -> int:
        """The clock of all that the agent does: the loop's monotonic one."""
        return int(self._loop.time() * 1000)

    def assign(self, targets: Mapping[Identity, Target]) -> None:
        """Probe exactly `targets` from now on; those that stay keep phase and standing."""
        now = self.now_ms()
        for identity in [one for one in self._standings if one not in targets]:
            gone = self._standings.pop(identity)
            self._schedule.remove(identity)
            self._drop(gone)
        for identity, target in targets.items():
            standing = self._standings.get(identity)
            if standing is None:
                self._standings[identity] = Standing(target)
            elif standing.target != target:
                standing.target, standing.probe = target, None
            self._schedule.set(
                identity,
                target.interval_ms,
                now,
                gap_ms=target.gap_ms,
                slot=target.slot,
                slots=target.slots,
            )
        metrics.TARGETS.set(len(self._standings))
        self._arm()

    def align(self, base_ms: int, rank: int, agents: int) -> None:
        """Slots lie on the clock that shows 0 at `base_ms`; agent `rank` of `agents` is this."""
        if self._aligned is not None:
            former_ms, *place = self._aligned
            if abs(base_ms - former_ms) < REALIGN_MS:
                if place == [rank, agents]:
                    return
                base_ms = former_ms
        self._aligned = (base_ms, rank, agents)
        self._schedule.align(base_ms, rank, agents)

    def confirm(self, identities: Iterable[Identity]) -> None:
        """Probe these at once, and on until their failures turn the opinion or end."""
        now = self.now_ms()
        for identity in identities:
            standing = self._standings.get(identity)
            if standing is None or standing.opinion is Opinion.DOWN or standing.confirming:
                continue
            if now - standing.asked_ms < standing.target.interval_ms // CONFIRM_SHARE:
                continue
            standing.asked_ms = now
            standing.confirming = standing.target.fall
            if self._schedule.hasten(identity, now):
                standing.confirming += 1  # the probe under way may have begun before the failure
                standing.before = True
            metrics.CONFIRMATIONS.inc()
        self._arm()

    def standing(self, identity: Identity) -> Standing | None:
        """Where the agent stands with a target; None where it is not assigned."""
        return self._standings.get(identity)

    def __len__(self) -> int:
        return len(self._standings)

    @property
    def running(self) -> int:
        """Probes under way."""
        return len(self._running)

    async def drain(self, seconds: float) -> None:
        """Begin no probe any more, and let those under way end, within so many seconds."""
        self._draining = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        tasks = [one.task for one in self._standings.values() if one.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def close(self) -> None:
        """End all probes; their outcomes are not reported."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._hard.close()
        for one in self._standings.values():
            self._drop(one)
        tasks = [one.task for one in self._running if one.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=HARD_MS / 1000)

    # ---- the clockwork -------------------------------------------------------------------------

    def _arm(self) -> None:
        due_ms = self._schedule.next_ms()
        if due_ms is None or self._closed or self._draining:
            return
        if self._timer is not None and self._armed_ms <= due_ms:
            return  # a timer that is early finds nothing due and arms again
        if self._timer is not None:
            self._timer.cancel()
        self._armed_ms = due_ms
        at_ms = due_ms + -due_ms % TICK_MS
        self._timer = self._loop.call_at(at_ms / 1000 + 0.0005, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self.now_ms()
        before, deferred = self._schedule.skipped, self._schedule.deferred
        for identity in self._schedule.due(now):
            standing = self._standings[identity]
            standing.due_ms = now
            self._waiting.append(standing)
        metrics.SKIPPED.inc(self._schedule.skipped - before)
        metrics.DEFERRED.inc(self._schedule.deferred - deferred)
        self._start()
        self._arm()

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._max_probes and not self._closed:
            standing = self._waiting.popleft()
            if standing.dropped:
                continue  # removed while it waited
            now = self.now_ms()
            if now - standing.due_ms >= LATE_MS:
                metrics.LATE.inc()
            standing.overran = False
            target = standing.target
            if standing.probe is None:
                standing.probe = self._probe_of(target)
            if standing.probe is None:
                unfit = Outcome(Kind.NO_OPINION, Reason.SETTINGS, target.unfit)
                self._loop.call_soon(self._record, standing, unfit)
                continue
            standing.began_ms, standing.span_ms = now, target.span_ms
            standing.begun = False
            self._running.add(standing)
            self._hard.set(standing, (now + standing.span_ms + HARD_MS) / 1000)
            standing.task = self._loop.create_task(self._run(standing, standing.probe))

    async def _run(self, standing: Standing, probe: Probe) -> None:
        """One probe from its beginning to its result, as a task."""
        standing.begun = True
        outcome = Outcome(Kind.NO_OPINION, Reason.FAULT, "cancelled")
        if not standing.dropped:
            target = standing.target
            try:
                outcome = self._fair(standing, await probe(target))
            except asyncio.CancelledError:
                pass  # `_drop` and `_overrun` do that, and nobody else
            except Exception as error:  # a shell: whatever it is, the others go on
                if target.type not in self._faults:
                    self._faults.add(target.type)
                    log.error("a probe of type %s raised", target.type, exc_info=error)
                text = f"{type(error).__name__}: {error}"
                outcome = Outcome(Kind.NO_OPINION, Reason.FAULT, text)
        self._running.discard(standing)
        self._hard.forget(standing)
        standing.task = None
        self._record(standing, outcome)
        if self._waiting:
            self._start()

    def _fair(self, standing: Standing, outcome: Outcome) -> Outcome:
        """What a probe says, unless this agent is to blame for it."""
        if outcome.reason is Reason.TIMEOUT:
            late_ms = self.now_ms() - standing.began_ms - standing.span_ms
            if late_ms > STALLED_MS:
                text = f"the time-out was noticed {late_ms} ms late"
                return Outcome(Kind.NO_OPINION, Reason.STALLED, text)
        return outcome

    def _overrun(self, standing: Standing) -> None:
        """Tell at once; the target and its slot stay busy until the probe has really ended."""
        metrics.OVERRUN.inc()
        standing.overran = True
        if standing.task is not None:
            standing.task.cancel()
        if not standing.dropped:
            self._report(standing, Outcome(Kind.NO_OPINION, Reason.OVERRUN))

    def _drop(self, standing: Standing) -> None:
        """Have nothing to do with it any more; a task that has not begun must, to end in order."""
        standing.dropped = True
        if standing.task is not None and standing.begun:
            standing.task.cancel()

    def _record(self, standing: Standing, outcome: Outcome) -> None:
        if standing.dropped:
            return
        if not standing.overran:
            self._report(standing, outcome)
        self._free(standing)

    def _free(self, standing: Standing) -> None:
        if standing.confirming:
            self._confirm_on(standing)
        opinion = standing.opinion is not Opinion.NONE
        self._schedule.ended(standing.identity, self.now_ms(), opinion)
        self._arm()

    def _confirm_on(self, standing: Standing) -> None:
        """After a probe of a target that is being confirmed: another one, or the end of it."""
        standing.confirming -= 1
        if standing.before:
            standing.before = False
            return  # the next one is due already
        outcome = standing.outcome
        if (
            outcome is None
            or outcome.kind is not Kind.FAILURE
            or standing.opinion is Opinion.DOWN
            or not standing.confirming
        ):
            standing.confirming = 0
            return
        self._schedule.hasten(standing.identity, self.now_ms() + CONFIRM_GAP_MS)

    def _report(self, standing: Standing, outcome: Outcome) -> None:
        target = standing.target
        if self.blind and outcome.kind is not Kind.NO_OPINION:
            outcome = Outcome(Kind.NO_OPINION, Reason.CANARIES, self.blind)
        metrics.ended(target.type, outcome)
        now = self.now_ms()
        before = standing.take(outcome, now)
        if before is not standing.opinion:
            metrics.TRANSITIONS.labels(standing.opinion.name.lower()).inc()
            transition(
                log,
                f"target {standing.opinion.name.lower()}",
                check=target.check,
                address=target.address,
                port=target.port,
                reason=outcome.text,
            )
        repeats = standing.repeats
        # Not at all while the streak may turn a vote.
        patience_ms = min(PATIENCE_MS, target.interval_ms // 4) if repeats else 0
        self._on_result(ProbeResult(standing.identity, outcome, now, patience_ms, repeats))
