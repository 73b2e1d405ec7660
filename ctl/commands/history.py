"""`gtm history`: what changed, with the clock of each change; and the audit trail, verified."""

from __future__ import annotations

import argparse
import asyncio
import time
from itertools import zip_longest

from msgspec import Struct

from gtm import codec
from gtm.audit import Stored, Verifier, account
from gtm.errors import StartError
from gtm.state import AuditEntry, AuditHead, HistoryEntry
from gtm.units import Duration
from gtm.v1 import operator_pb2 as pb

from .. import client, show

SINCE = "24h"
"""How far back it looks when nothing else is said."""


def add(command: str, parser: argparse.ArgumentParser) -> None:
    """Flags."""
    parser.description = "what changed, from the first failed probe to every resolver"
    parser.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        default="",
        help="an address, POOL, POOL/ADDRESS, INSTANCE, INSTANCE/RULE, a check or region:NAME",
    )
    parser.add_argument("--since", default=SINCE, metavar="TIME", help=f"default: {SINCE}")
    parser.add_argument("--audit", action="store_true", help="what operators did, instead")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="check the audit trail's chain, and that it accounts for what is stored; else 1",
    )
    parser.add_argument("-o", dest="form", choices=("table", "json"), default="table")
    client.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Ask and show."""
    if args.verify:
        return asyncio.run(_verify(args))
    return asyncio.run(_audit(args) if args.audit else _history(args))


def _since(text: str) -> float:
    try:
        return time.time() - Duration.parse(text).s
    except ValueError as error:
        raise StartError(f"--since {error}", 2) from None


# ---- history ---------------------------------------------------------------------------------


async def _history(args: argparse.Namespace) -> int:
    request = pb.HistoryRequest(target=args.target, since=_since(args.since))
    found: list[HistoryEntry] = []
    async with client.Client.of(args) as asked:
        while True:
            answer = await asked.history(request)
            found += [codec.decode(text.encode(), HistoryEntry) for text in answer.entries]
            if not answer.next:
                break
            request.cursor = answer.next
    if args.form == "json":
        print(show.as_json([codec.plain(entry) for entry in found]))
    elif found:
        print(show.table(("TIME", "WHAT", "CHANGE", "CLOCK", "WHY"), [_row(one) for one in found]))
    else:
        about = f" of {args.target}" if args.target else ""
        print(f"nothing{about} changed within {args.since}")
    return 0


def _row(entry: HistoryEntry) -> tuple[str, str, str, str, str]:
    change = f"{entry.before} -> {entry.after}"
    return (show.clock(entry.time), entry.target, change, clock(entry), entry.why)


def clock(entry: HistoryEntry) -> str:
    """The clock of a change, relative to its decision."""
    told = []
    if entry.detected:
        told.append(f"failed {_relative(entry.detected - entry.time)}")
    if entry.committed:
        told.append(f"committed {_relative(entry.committed - entry.time)}")
    told += [
        f"{resolver} {_relative(at - entry.time)}" for resolver, at in sorted(entry.served.items())
    ]
    return ", ".join(told)


def _relative(seconds: float) -> str:
    if abs(seconds) < 1:
        return f"{seconds * 1000:+.0f} ms"
    return f"{seconds:+.2f} s"


# ---- audit -----------------------------------------------------------------------------------


class _Trail(Struct):
    """The head as it was first, the entries, when each was written, and what can't be read."""

    head: AuditHead
    entries: list[AuditEntry]
    revisions: list[int]
    broken: list[str]


async def _trail(asked: client.Client) -> _Trail:
    found, seq = _Trail(AuditHead(), [], [], []), 0
    while True:
        answer = await asked.audit(seq)
        if not seq and answer.head:
            found.head = codec.decode(answer.head.encode(), AuditHead)
        for text, revision in zip_longest(answer.entries, answer.revisions):
            try:
                found.entries.append(codec.decode(text.encode(), AuditEntry))
                found.revisions.append(revision)
            except ValueError:
                found.broken.append(f"what stands after {len(found.entries)} entries is no entry")
        seq = answer.next
        if not seq:
            return found


async def _verify(args: argparse.Namespace) -> int:
    """The chain, then what is stored: that is read first, so that no change since is held wrong."""
    as_of = 0
    there: list[Stored] = []
    async with client.Client.of(args) as asked:
        async for part in asked.stored():
            as_of = part.revision
            there += [Stored(one.kind, one.name, one.digest, one.revision) for one in part.objects]
        trail = await _trail(asked)
    verifier = Verifier(trail.head)
    wrong = [*trail.broken, *verifier.take(trail.entries), *verifier.end()]
    found = account(zip(trail.entries, trail.revisions, strict=True), there, as_of)
    wrong += found.wrong
    if args.form == "json":
        told = {"entries": verifier.checked, "last": trail.head.hash}
        told |= {"covered": found.covered, "older": found.older, "wrong": wrong}
        print(show.as_json(told))
    elif wrong:
        print("\n".join(wrong))
    else:
        print(
            f"{verifier.checked} entries, each follows the one before; last hash {trail.head.hash}"
        )
        older = f"; {found.older} older than the trail, not covered" if found.older else ""
        print(f"{found.covered} resources in etcd, each as the trail left it{older}")
    return 1 if wrong else 0


async def _audit(args: argparse.Namespace) -> int:
    since = _since(args.since)
    async with client.Client.of(args) as asked:
        trail = await _trail(asked)
    found = [one for one in trail.entries if one.time >= since and _about(one, args.target)]
    if args.form == "json":
        print(show.as_json([codec.plain(entry) for entry in found]))
    elif found:
        rows = [(show.clock(one.time), one.who, one.what, _named(one), one.why) for one in found]
        print(show.table(("TIME", "WHO", "DID", "TO", "WHY"), rows))
    else:
        print(f"nobody changed anything within {args.since}")
    if trail.broken:
        raise StartError(f"the trail has what is no entry: {trail.broken[0]}; see --verify", 1)
    return 0


def _about(entry: AuditEntry, target: str) -> bool:
    return not target or any(
        target in (one.name, f"{one.kind}/{one.name}") for one in entry.changes
    )


def _named(entry: AuditEntry) -> str:
    names = [f"{one.action} {one.kind}/{one.name}" for one in entry.changes[:3]]
    rest = len(entry.changes) - len(names) + entry.more
    return ", ".join(names) + (f" and {rest} more" if rest else "")
