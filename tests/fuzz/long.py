"""`make fuzz`: the long runs, one after another, each with a line that says what it came to.

`python -m tests.fuzz.long files --seed 7 --first 1234 --count 1` makes one input again.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys

from tests.fuzz.datagrams import Datagrams
from tests.fuzz.files import Files
from tests.fuzz.frames import Frames
from tests.fuzz.runs import Defect, Run, run
from tests.fuzz.streams import Streams

COUNTS = {"datagrams": 1_000_000, "streams": 100_000, "frames": 100_000, "files": 100_000}


async def fuzz(name: str, count: int, seed: int, first: int = 0) -> Run:
    """One run of the target `name`. Raises Defect."""
    match name:
        case "datagrams":
            return await run(Datagrams(), count, seed, first)
        case "streams":
            async with Streams() as streams:
                return await run(streams, count, seed, first)
        case "frames":
            async with Frames() as frames:
                done = await run(frames, count, seed, first)
                if not await frames.honest():
                    raise Defect(f"{done}\nhonest agents were not believed after it")
                return done
        case _:
            files = Files()
            try:
                return await run(files, count, seed, first)
            finally:
                files.close()


def main() -> int:
    """The targets named, or all; 1 where one has a defect."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.long", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(COUNTS))
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, help="inputs of each target, instead of the usual")
    args = parser.parse_args()
    if unknown := set(args.targets) - COUNTS.keys():
        parser.error(f"no target {', '.join(sorted(unknown))}: choose of {', '.join(COUNTS)}")
    failed = 0
    for name in args.targets or COUNTS:
        try:
            done = asyncio.run(fuzz(name, args.count or COUNTS[name], args.seed, args.first))
        except Defect as error:
            print(error, flush=True)
            failed = 1
        else:
            print(done, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
