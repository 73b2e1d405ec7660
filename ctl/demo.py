"""`gtm demo`: fail-over and recovery as a user would see it, on real parts, step by step.

Starts `gtm up` with a configuration of its own over real HTTP origins, hurts it, and asks its
resolvers over UDP what clients get. Each step says what was asked, answered and expected, and how
long the answers took to follow. A step that does not hold ends the story.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from gtm.errors import UnreachableError

from . import recursion, show
from .client import Client
from .demo_recursion import moves
from .digs import Answer, Question, ask, poll
from .origins import Origins
from .recursion import World
from .running import Running
from .stage import (
    ACCESS,
    NAME,
    REGIONS,
    A,
    B,
    Broken,
    C,
    Expected,
    configuration,
    gives,
    line,
    networks,
)

DEADLINE_S = 20.0
"""For the answers to follow a fault."""
HOLD_S = 0.5
"""How long they must then stay so."""
CUT_S = 7.0
"""How long a region is cut off: longer than the grace of its votes (3 x interval + timeout)."""
GONE_S = 3.0
"""How long the coordinator is away: longer than its verdict on the dead origin would take."""
RETURN_S = 3.0
"""How long is looked on after its return."""


class Demo:
    """The story over one running system."""

    def __init__(
        self,
        origins: Origins,
        running: Running,
        world: World | None,
        mainland: str,
        others: str,
    ) -> None:
        self._origins = origins
        self._running = running
        self._world = world
        self._clients = {
            "mainland": Question(NAME, mainland),
            "others": Question(NAME, others),
        }

    def tell(self) -> None:
        """The seven steps, and one with a stranger; raises Broken where one does not hold."""
        usual = Expected(A, B)
        self._step(1, "The name resolves by region: the mainland to pool A, others to pool B")
        self._follows(usual, None, usual)

        self._step(2, f"One origin of A stops ({A[0]}): its address leaves, nothing else changes")
        self._follows(Expected(A[1:], B), lambda: self._origins.stop(A[0]), usual)

        self._step(3, "All of A stops: the mainland gets pool C, its backup")
        self._follows(Expected(C, B), lambda: self._origins.stop(*A), Expected(A[1:], B))

        self._step(4, "B stops as well: everybody gets pool C")
        self._follows(Expected(C, C), lambda: self._origins.stop(*B), Expected(C, B))

        self._step(5, "All return: everybody is back")
        self._follows(usual, lambda: self._origins.start(*A, *B), Expected(C, C))

        self._step(6, f"Region {REGIONS[-1]} is cut off, and comes back: nothing changes")
        self._cut_off(usual)

        self._step(7, f"The coordinator is killed, {B[0]} stops meanwhile, the coordinator returns")
        self._coordinator_dies(usual, Expected(A, B[1:]))

        self._step(
            8, f"A recursive resolver follows {NAME} from the root, and moves when {A[0]} stops"
        )
        self._recursion(Expected(A, B[1:]), Expected(A[1:], B[1:]))

    # ---- steps -------------------------------------------------------------------------------

    def _follows(
        self, wanted: Expected, fault: Callable[[], None] | None, before: Expected
    ) -> None:
        """Do `fault` and wait until every client gets what is wanted on every resolver.

        Clients of whom nothing new is wanted must never see anything else.
        """
        began = time.monotonic()
        if fault is not None:
            fault()
        self._until(wanted, before)
        took_s = time.monotonic() - began
        self._hold(wanted, HOLD_S)
        self._show(wanted)
        if fault is not None:
            line("time", f"{took_s:.2f} s until every resolver gave the new answer")

    def _cut_off(self, wanted: Expected) -> None:
        region = REGIONS[-1]
        pid = self._running.pid(f"agent-{region}")
        line("fault", f"the agent of {region} (process {pid}) is stopped for {CUT_S:g} s")
        os.kill(pid, signal.SIGSTOP)
        try:
            self._hold(wanted, CUT_S)
            votes = self._votes(region)
            silent = sum(vote == "none" for vote in votes)
            line("meanwhile", f"{region} has lost its vote on {silent} of {len(votes)} targets")
            if silent < len(votes):
                raise Broken(f"the votes of {region} did not lapse, so nothing was tested")
        finally:
            os.kill(pid, signal.SIGCONT)
        self._hold(wanted, RETURN_S)
        self._show(wanted)
        if poll(lambda: "none" not in self._votes(region), DEADLINE_S, 0.2) is None:
            raise Broken(f"region {region} did not get its votes back")
        line("time", f"no answer changed in {CUT_S + RETURN_S:g} s; {region} votes again")

    def _coordinator_dies(self, before: Expected, wanted: Expected) -> None:
        pid, supervisor = self._running.pid("coordinator"), self._running.up_pid
        os.kill(supervisor, signal.SIGSTOP)  # else the coordinator would be back at once
        try:
            os.kill(pid, signal.SIGKILL)
            self._origins.stop(B[0])
            died = time.monotonic()
            line("fault", f"kill -9 {pid}, the coordinator; then {B[0]} stops")
            self._hold(before, GONE_S)
            line("meanwhile", f"the answers stay as they were for {GONE_S:g} s: nobody judges")
        finally:
            os.kill(supervisor, signal.SIGCONT)
        again = time.monotonic()
        back: list[float] = []

        def look() -> None:
            if not back and self._running.pid("coordinator") not in (0, pid) and self._answers():
                back.append(time.monotonic())

        self._until(wanted, before, look)
        followed = time.monotonic()
        self._hold(wanted, HOLD_S)
        self._show(wanted)
        back_s = f"{back[0] - again:.2f} s" if back else "no time"
        line(
            "time",
            f"{followed - died:.2f} s from the fault to the new answer on every resolver, "
            f"{followed - again:.2f} s after it was let start again (answering after {back_s})",
        )

    def _recursion(self, before: Expected, wanted: Expected) -> None:
        def stops() -> float:
            began = time.monotonic()
            self._origins.stop(A[0])
            self._until(wanted, before)
            return time.monotonic() - began

        folder = self._running.folder / "recursion"
        moves(self._world, folder, self._clients, stops, before, wanted)

    # ---- asking ------------------------------------------------------------------------------

    def _asked(self, who: str) -> list[Answer]:
        return [ask(server, self._clients[who]) for server in self._running.dns]

    def _until(
        self,
        wanted: Expected,
        before: Expected,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        seen: dict[str, list[Answer]] = {}

        def all_as_wanted() -> bool:
            look()
            good = True
            for who in self._clients:
                seen[who] = self._asked(who)
                want, was = getattr(wanted, who), getattr(before, who)
                if want == was and not gives(seen[who], want):
                    raise Broken(self._seen_instead(who, want, seen[who]))
                good = good and gives(seen[who], want)
            return good

        if poll(all_as_wanted, DEADLINE_S) is None:
            who = next(who for who in seen if not gives(seen[who], getattr(wanted, who)))
            raise Broken(self._seen_instead(who, getattr(wanted, who), seen[who]))

    def _hold(self, wanted: Expected, for_s: float) -> None:
        """Every answer is as wanted, again and again for `for_s` seconds."""
        end = time.monotonic() + for_s
        while time.monotonic() < end:
            for who in self._clients:
                want, answers = getattr(wanted, who), self._asked(who)
                if not gives(answers, want):
                    raise Broken(self._seen_instead(who, want, answers))
            time.sleep(0.05)

    def _votes(self, region: str) -> list[str]:
        """What the coordinator holds as the region's vote on each target."""

        async def listed() -> list[str]:
            from .commands.health import vote_word

            async with Client(self._running.server) as client:
                verdicts = (await client.verdicts()).verdicts
            return [
                vote_word(vote)
                for verdict in verdicts
                for vote in verdict.regions
                if vote.region == region
            ]

        return asyncio.run(listed())

    def _answers(self) -> bool:
        async def answers() -> bool:
            async with Client(self._running.server) as client:
                try:
                    return bool((await client.status()).coordinator_id)
                except UnreachableError:
                    return False

        return asyncio.run(answers())

    # ---- telling -----------------------------------------------------------------------------

    def _step(self, number: int, title: str) -> None:
        print(f"\n{show.colour(f'({number}) {title}', 'bold')}", flush=True)

    def _show(self, wanted: Expected) -> None:
        for who, question in self._clients.items():
            answers = self._asked(who)
            line(who, question.dig(self._running.dns[0]))
            line("  answered", str(answers[0]))
            want = getattr(wanted, who)
            if not gives(answers, want):
                raise Broken(self._seen_instead(who, want, answers))
            good = show.colour(f"yes, on {len(answers)} of {len(answers)} resolvers", "green")
            line("  expected", f"{' '.join(want)}: {good}")

    def _seen_instead(self, who: str, want: tuple[str, ...], answers: list[Answer]) -> str:
        question = self._clients[who]
        lines = [f"clients {question.client} ({who}) should get {' '.join(want)}, but"]
        for server, answer in zip(self._running.dns, answers, strict=True):
            lines.append(f"      {question.dig(server)}  says  {answer}")
        return "\n".join(lines)


def run(*, keep: bool = False, geo: tuple[str, ...] = ()) -> int:
    """Tell the story; 0 only if every step held."""
    mainland, others = networks(geo)
    folder = Path(tempfile.mkdtemp(prefix="gtm-demo-"))
    held = False
    try:
        with ExitStack() as stack:
            origins = stack.enter_context(Origins((*A, *B, *C)))
            resources = folder / "demo.yaml"
            world = World.found() if recursion.program() else None
            at = world.ours if world is not None else None
            config = configuration(origins.port, at.host) if at else configuration(origins.port)
            resources.write_text(show.as_yaml(config) + "\n")
            print(
                f"Real parts on this machine: {len(A + B + C)} HTTP origins, etcd, a coordinator, "
                f"{len(REGIONS)} agents, 2 resolvers.\n"
                f"{NAME} is a CNAME to {ACCESS}.\n"
                f"Pool A {' '.join(A)}\nPool B {' '.join(B)}\nPool C {' '.join(C)}\n"
                "Each is probed every second by every agent; 2 failures in a row are a vote down.",
                flush=True,
            )
            began = time.monotonic()
            running = stack.enter_context(
                Running(folder, config=resources, regions=REGIONS, geo=geo, at=str(at or ""))
            )
            print(f"ready after {time.monotonic() - began:.1f} s", flush=True)
            try:
                Demo(origins, running, world, mainland, others).tell()
                held = True
            except Broken as error:
                print(show.colour(f"    FAILED      {error}", "red"), flush=True)
                print(f"\nThe story broke off; logs are in {folder / 'data' / 'logs'}", flush=True)
            else:
                print(show.colour("\nEvery step held.", "green"), flush=True)
            if keep:
                _keep(running, resources)
    finally:
        if held:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if held else 1


def _keep(running: Running, resources: Path) -> None:
    """Leave everything running until SIGINT or SIGTERM."""
    print(
        f"\nIt keeps running until Ctrl-C. Its configuration is {resources}. Try\n"
        f"  export {' '.join(f'{name}={text}' for name, text in running.environ.items())}\n"
        f"  gtm health\n"
        f"  gtm status\n"
        f"  gtm explain {NAME} --client 202.96.128.1\n"
        f"  {Question(NAME, '202.96.128.0/24').dig(running.dns[0])}",
        flush=True,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass
