"""`gtm history`: what changed, with the clock of each change; and the audit trail, verified."""

from __future__ import annotations

import argparse
import asyncio
import time

from gtm import codec
from gtm.audit import Verifier
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
        "--verify", action="store_true", help="check the audit trail's chain; 1 where it is broken"
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


async def _trail(args: argparse.Namespace) -> tuple[AuditHead, list[AuditEntry], list[str]]:
    """The head as it was first, the entries, and those of them that can't be read."""
    head, found, broken, seq = AuditHead(), [], [], 0
    async with client.Client.of(args) as asked:
        while True:
            answer = await asked.audit(seq)
            if not seq and answer.head:
                head = codec.decode(answer.head.encode(), AuditHead)
            for text in answer.entries:
                try:
                    found.append(codec.decode(text.encode(), AuditEntry))
                except ValueError:
                    broken.append(f"what stands after {len(found)} entries is no entry")
            seq = answer.next
            if not seq:
                return head, found, broken


async def _verify(args: argparse.Namespace) -> int:
    head, entries, broken = await _trail(args)
    verifier = Verifier(head)
    wrong = [*broken, *verifier.take(entries), *verifier.end()]
    if args.form == "json":
        print(show.as_json({"entries": verifier.checked, "last": head.hash, "wrong": wrong}))
    elif wrong:
        print("\n".join(wrong))
    else:
        print(f"{verifier.checked} entries, each follows the one before; last hash {head.hash}")
    return 1 if wrong else 0


async def _audit(args: argparse.Namespace) -> int:
    since = _since(args.since)
    _, entries, broken = await _trail(args)
    found = [one for one in entries if one.time >= since and _about(one, args.target)]
    if args.form == "json":
        print(show.as_json([codec.plain(entry) for entry in found]))
    elif found:
        rows = [(show.clock(one.time), one.who, one.what, _named(one), one.why) for one in found]
        print(show.table(("TIME", "WHO", "DID", "TO", "WHY"), rows))
    else:
        print(f"nobody changed anything within {args.since}")
    if broken:
        raise StartError(f"the trail has what is no entry: {broken[0]}; see --verify", 1)
    return 0


def _about(entry: AuditEntry, target: str) -> bool:
    return not target or any(
        target in (one.name, f"{one.kind}/{one.name}") for one in entry.changes
    )


def _named(entry: AuditEntry) -> str:
    names = [f"{one.action} {one.kind}/{one.name}" for one in entry.changes[:3]]
    rest = len(entry.changes) - len(names) + entry.more
    return ", ".join(names) + (f" and {rest} more" if rest else "")
