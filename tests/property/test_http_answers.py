"""What the probe http reads at once, h11 reads alike: any answer, in any pieces."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from agent.probes import _http1
from agent.probes._wire import Stages, Wire
from agent.probes.base import Fault
from agent.probes.http import MAX_BODY, Request

REQUEST = Request("GET", "http", "x", "/", (("accept", "*/*"),), b"")
GOOD = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\nok"


class Said:
    """A wire that says these pieces and then ends."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = [piece for piece in pieces if piece]

    async def send(self, _: bytes) -> None:
        """Taken."""

    async def receive(self) -> bytes:
        """The next piece."""
        return self.pieces.pop(0) if self.pieces else b""


def read(pieces: list[bytes], *, at_once: bool) -> Any:
    """The response, or the fault's reason and detail."""

    async def run() -> Any:
        wire = cast(Wire, Said(pieces))
        try:
            if at_once:
                return await _http1.exchange(wire, REQUEST, Stages())
            return await _http1._by_h11(wire, REQUEST, Stages(), await wire.receive())
        except Fault as fault:
            return fault.reason, fault.detail

    return asyncio.run(run())


TOKENS = st.sampled_from(
    ("Server", "X-A", "Content-Length", "content-length", "Transfer-Encoding", "Connection", "X\ta")
)
LENGTHS = st.sampled_from(["", "2", " 3 ", "\t4", "0", "70000", "65536", "+2", "2, 2"])
VALUES = LENGTHS | st.sampled_from(["x", "chunked", "close", "a\x00b", "a\x7fb", "\xe9", "a b"])
FIELDS = st.lists(st.tuples(TOKENS, st.sampled_from([":", ": ", " : ", ":\t"]), VALUES), max_size=5)
STARTS = st.sampled_from(["HTTP/1.1 200 OK", "HTTP/1.1 404 ", "HTTP/1.1 200", "HTTP/1.0 200 OK",
                          "HTTP/1.1 204 No", "HTTP/1.1 304 No", "HTTP/1.1 100 C", "HTTP/2 200 OK",
                          "HTTP/1.1 999 X", "HTTP/1.1 20 X", "http/1.1 200 ok"])  # fmt: skip
ENDS = st.sampled_from(["\r\n", "\n", "\r\r\n"])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    line = draw(st.one_of(st.just("\r\n"), ENDS))
    head = draw(STARTS) + line
    for name, colon, value in draw(FIELDS):
        head += f"{name}{colon}{value}{line}"
    body = draw(st.sampled_from([b"", b"o", b"ok", b"okay", b"2\r\nok\r\n0\r\n\r\n"]))
    return head.encode("latin-1") + line.encode() + body


@given(answers(), st.lists(st.integers(0, 120), max_size=3))
@example(GOOD, [])
@example(GOOD[:-1], [])
@example(GOOD + b"more", [20])
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + b"x" * MAX_BODY, [100])
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", [])
def test_an_answer_means_the_same_whoever_reads_it(answer: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    pieces = [answer[a:b] for a, b in itertools.pairwise(places)]
    if not any(pieces):
        return
    assert read(list(pieces), at_once=True) == read(list(pieces), at_once=False)


def test_an_ordinary_answer_is_read_at_once() -> None:
    assert _http1.ordinary(GOOD) is not None
