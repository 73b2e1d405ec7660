"""The `Policy` that parts are handed: judgement over resources and answers, by all parts' rules.

`DirectPolicy` works in the caller's process, `ChildPolicy` in one child process with a deadline, so
that a long validation never starves a lease or a stream. Decides nothing itself: the rules are in
`ctl.validate`, the explanations in `ctl.explain`.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from gtm import codec
from gtm.errors import GtmError
from gtm.expect import Expectation
from gtm.model import Resources
from gtm.ports import Effect, Question, Review
from gtm.view import View

from .policy_child import LENGTH, MAX_MESSAGE_BYTES, READY, Rules

DEADLINE_S = 10.0
"""How long one judgement of a small set may take."""
BYTES_PER_S = 200_000
"""A larger request has a second more for each of these: records are read at about this speed."""
START_DEADLINE_S = 30.0
"""How long the child may take to start; it loads every variant."""
MAX_WAITING = 32
"""The most calls that wait for the child; further ones are refused at once."""


class DirectPolicy:
    """The policy in the caller's own process, without a deadline; for tools and tests."""

    def __init__(self, geo: tuple[str, ...] = ()) -> None:
        self._rules = Rules(geo)

    async def problems(
        self, resources: Mapping[str, Mapping[str, Any]], expectations: Sequence[Expectation] = ()
    ) -> Review:
        """Read and check a whole set (kind -> name -> plain data in the form of the files)."""
        return self._rules.problems(resources, expectations)

    async def effects(
        self, before: Resources, after: Resources, names: Sequence[str]
    ) -> tuple[Effect, ...]:
        """Which answers of the instances `names` differ between two sets."""
        return self._rules.effects(before, after, names)

    async def explain(self, view: View, question: Question) -> str:
        """The JSON text of `gtm explain -o json`; LookupError where nothing has that name."""
        return self._rules.explain(view, question)

    async def close(self) -> None:
        """Nothing runs."""


class PolicyFailed(GtmError):
    """The child that judges could not say; the text has its reason."""


class ChildPolicy:
    """The policy in a child process; calls take turns, each with a deadline.

    A child that overran or died is ended, and the next call starts another. It starts with the
    first call or by `warm`, and ends with its parent. Picklable: a copy has a child of its own.
    """

    def __init__(self, geo: tuple[str, ...] = (), deadline_s: float = DEADLINE_S) -> None:
        self._geo = geo
        self._deadline_s = deadline_s
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return (ChildPolicy, (self._geo, self._deadline_s))

    async def problems(
        self, resources: Mapping[str, Mapping[str, Any]], expectations: Sequence[Expectation] = ()
    ) -> Review:
        """Read and check a whole set; TimeoutError past the deadline."""
        return cast(Review, await self._call("problems", resources, tuple(expectations)))

    async def effects(
        self, before: Resources, after: Resources, names: Sequence[str]
    ) -> tuple[Effect, ...]:
        """Which answers of the instances `names` differ between two sets; TimeoutError."""
        found = await self._call("effects", before, after, tuple(names))
        return cast(tuple[Effect, ...], found)

    async def explain(self, view: View, question: Question) -> str:
        """The JSON text of `gtm explain -o json`; LookupError, TimeoutError."""
        return cast(str, await self._call("explain", view, question))

    async def warm(self) -> None:
        """Start the child ahead of the first call."""
        async with self._turn:
            await self._started()

    async def close(self) -> None:
        """End the child."""
        async with self._turn:
            await self._end()

    async def _call(self, method: str, *arguments: object) -> Any:
        if self._waiting >= MAX_WAITING:
            raise TimeoutError(f"{MAX_WAITING} requests wait for a judgement already; try later")
        self._waiting += 1
        try:
            async with self._turn:
                child = await self._started()
                body = await asyncio.to_thread(pickle.dumps, (method, arguments), 5)
                deadline_s = self._deadline_s + len(body) // BYTES_PER_S
                try:
                    async with asyncio.timeout(deadline_s):
                        answer = await _exchange(child, body)
                except TimeoutError:
                    await self._end()
                    raise TimeoutError(
                        f"the judgement took longer than {deadline_s:g}s; "
                        "ask about fewer resources at once"
                    ) from None
                except (OSError, EOFError, asyncio.IncompleteReadError):
                    await self._end()
                    raise PolicyFailed("the process that judges ended in the middle") from None
                except BaseException:  # cancelled: what it answers is nobody's any more
                    await self._end()
                    raise
        finally:
            self._waiting -= 1
        match answer:
            case ("ok", value):
                return value
            case ("reviewed", packed, problems):
                resources = await asyncio.to_thread(codec.unpacked, packed, Resources)
                return Review(resources=resources, problems=problems)
            case ("lookup", text):
                raise LookupError(text)
            case ("value", text):
                raise ValueError(text)
            case (_, text):
                raise PolicyFailed(f"the judgement failed: {text}")
        raise PolicyFailed("the process that judges gave no answer")

    async def _started(self) -> asyncio.subprocess.Process:
        if self._child is not None and self._child.returncode is None:
            return self._child
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ctl.policy_child", *self._geo,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._child = child
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                if await _receive(child) != READY:
                    raise EOFError
        except TimeoutError:
            await self._end()
            raise TimeoutError(
                f"the process that judges did not start within {START_DEADLINE_S:g}s"
            ) from None
        except (OSError, EOFError, asyncio.IncompleteReadError):
            await self._end()
            raise PolicyFailed("the process that judges could not start; see its log") from None
        except BaseException:
            await self._end()
            raise
        return child

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def _exchange(child: asyncio.subprocess.Process, body: bytes) -> Any:
    assert child.stdin is not None
    if len(body) > MAX_MESSAGE_BYTES:
        return ("error", f"more than {MAX_MESSAGE_BYTES // 2**20} MiB at once")
    child.stdin.write(struct.pack(LENGTH, len(body)) + body)
    await child.stdin.drain()
    return await _receive(child)


async def _receive(child: asyncio.subprocess.Process) -> Any:
    assert child.stdout is not None
    (length,) = struct.unpack(LENGTH, await child.stdout.readexactly(struct.calcsize(LENGTH)))
    return pickle.loads(await child.stdout.readexactly(length))
