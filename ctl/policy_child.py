"""The process behind `ctl.policy.ChildPolicy`: reads calls on stdin, answers on stdout.

Each message is a length and a pickle; both ends are this program. Ends when stdin does, in the
middle of work too, so it never outlives its parent. Prints go to stderr.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from msgspec.structs import replace

from gtm import codec, heap

if TYPE_CHECKING:
    from gtm.expect import Expectation
    from gtm.model import Resources
    from gtm.ports import Effect, Question, Review
    from gtm.view import View
    from resolver.geo_files import GeoFiles
    from resolver.place import Locator

LENGTH = "!Q"
MAX_MESSAGE_BYTES = 512 * 2**20
"""The largest call."""
READY = "ready"

_log = logging.getLogger("policy")


class Rules:
    """The rules and explanations of this installation; loaded when first asked."""

    def __init__(self, geo: tuple[str, ...] = ()) -> None:
        self._geo = geo
        self._files: GeoFiles | None = None

    def problems(
        self, resources: Mapping[str, Mapping[str, Any]], expectations: Sequence[Expectation] = ()
    ) -> Review:
        """Read and check a whole set (kind -> name -> plain data in the form of the files)."""
        from .validate import review_plain

        review = review_plain(resources)
        if review.resources is None or not expectations:
            return review
        from .prove import problems, prove

        found = tuple(problems(prove(review.resources, expectations, self._locator())))
        if not found:
            return review
        return replace(review, resources=None, problems=(*found, *review.problems))

    def effects(
        self, before: Resources, after: Resources, names: Sequence[str]
    ) -> tuple[Effect, ...]:
        """Which answers of the instances `names` differ between two sets."""
        from .effects import effects

        return effects(before, after, names)

    def explain(self, view: View, question: Question) -> str:
        """The JSON text of `gtm explain -o json`; LookupError where nothing has that name."""
        from .explain import explain

        text: str = explain(view, question, self._locator())
        return text

    def _locator(self) -> Locator:
        """The locator over the geo files as they are now, by the rule that resolvers follow.

        The last good data stay where a changed file is broken or moves too much.
        """
        from resolver.geo_files import GeoFiles

        if self._files is None:
            self._files = GeoFiles(self._geo)
        elif (change := self._files.look()) is not None:
            if change.locator is not None:
                self._files.put(change.locator)
            elif change.why:
                _log.error("geo data refused, the last good stay: %s", change.why)
        return self._files.locator


def _calls(source: BinaryIO, calls: queue.Queue[tuple[str, tuple[Any, ...]]]) -> None:
    """Hand on calls until stdin ends, then end the process at once."""
    size = struct.calcsize(LENGTH)
    try:
        while len(head := source.read(size)) == size:
            (length,) = struct.unpack(LENGTH, head)
            if len(body := source.read(length)) < length:
                break
            calls.put(pickle.loads(body))
    finally:
        os._exit(0)


def _answer(rules: Rules, method: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        if method == "problems":
            return _reviewed(rules.problems(*arguments))
        if method == "effects":
            return "ok", rules.effects(*arguments)
        return _explained(rules, *arguments)
    except LookupError as error:
        return "lookup", str(error.args[0]) if error.args else str(error)
    except Exception as error:  # said to the caller, who says it to the user
        return "error", f"{type(error).__name__}: {error}"


def _reviewed(review: Review) -> tuple[Any, ...]:
    """A review as it travels: a sound set is large, and msgspec's own form is the quickest."""
    if review.resources is None:
        return "ok", review
    return "reviewed", codec.packed(review.resources), review.problems


def _explained(rules: Rules, view: View, question: Question) -> tuple[str, Any]:
    try:
        return "ok", rules.explain(view, question)
    except ValueError as error:  # a type or a client that is none
        return "value", str(error)


def main() -> None:
    """Serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the parent's to act on
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    rules = Rules(tuple(sys.argv[1:]))
    calls: queue.Queue[tuple[str, tuple[Any, ...]]] = queue.Queue(maxsize=1)
    threading.Thread(target=_calls, args=(sys.stdin.buffer, calls), daemon=True).start()
    from .validate import registered

    registered()
    _send(sink, READY)
    while True:
        method, arguments = calls.get()
        with heap.uncollected():
            _send(sink, _answer(rules, method, arguments))
            del arguments


def _send(sink: BinaryIO, answer: object) -> None:
    body = pickle.dumps(answer, protocol=5)
    sink.write(struct.pack(LENGTH, len(body)))
    sink.write(body)
    sink.flush()


if __name__ == "__main__":
    main()
