"""The last step of `gtm demo`: what clients get behind a recursive resolver that we did not write.

Left out, in a line that says why, where unbound is not there or can't run; else it must hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec.structs import replace

from gtm.errors import StartError

from .digs import Answer, Question, ask, poll
from .recursion import Recursion, World
from .stage import ACCESS, NAME, TTL_S, Broken, Expected, gives, line

DEADLINE_S = 20.0
"""For the resolver's answers to follow, beyond the TTL."""


def moves(
    world: World | None,
    folder: Path,
    clients: Mapping[str, Question],
    fault: Callable[[], float],
    before: Expected,
    wanted: Expected,
) -> None:
    """Ask unbound for each of `clients` before and after `fault`; raises Broken.

    `fault` returns when our resolvers answer as `wanted`, with the seconds that it took them.
    """
    if world is None:
        line("left out", "it needs unbound on the PATH (Debian: apt install unbound)")
        return
    try:
        with Recursion(folder, world, NAME, ACCESS):
            line("servers", world.told(ACCESS))
            _moves(str(world.recursive), clients, fault, before, wanted)
    except StartError as error:
        line("left out", f"unbound does not run here: {error}")


def _moves(
    server: str,
    clients: Mapping[str, Question],
    fault: Callable[[], float],
    before: Expected,
    wanted: Expected,
) -> None:
    clients = {who: replace(question, recurse=True) for who, question in clients.items()}

    def asked(who: str, want: tuple[str, ...]) -> Answer:
        answer = ask(server, clients[who])
        if not gives([answer], want):
            raise Broken(
                f"clients of {who} should get {' '.join(want)} of unbound, but\n"
                f"      {clients[who].dig(server)}  says  {answer}"
            )
        return answer

    for who in clients:
        line(who, clients[who].dig(server))
        answer = asked(who, getattr(before, who))
        line("  answered", f"{answer}; unbound keeps it for {answer.ttl} s")
    began = time.monotonic()
    line("fault", f"our resolvers follow after {fault():.2f} s")
    kept = ask(server, clients["mainland"])
    if gives([kept], before.mainland):
        line("meanwhile", f"unbound keeps its answer for {kept.ttl} s more: {kept}")

    def moved() -> bool:
        asked("others", wanted.others)
        return gives([ask(server, clients["mainland"])], wanted.mainland)

    poll(moved, TTL_S + DEADLINE_S)
    for who in clients:
        line(who, clients[who].dig(server))
        line("  answered", str(asked(who, getattr(wanted, who))))
    line("time", f"{time.monotonic() - began:.2f} s from the fault, with a TTL of {TTL_S} s")
