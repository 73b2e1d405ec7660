"""The process behind `ctl.policy.ChildPolicy`: reads calls on stdin, answers on stdout.

Each message is a length and a pickle; both ends are this program. Ends when stdin does, in the
middle of work too, so it never outlives its parent. Prints go to stderr.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import struct
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from gtm.ports import Question, Review
    from gtm.view import View

LENGTH = "!Q"
MAX_MESSAGE_BYTES = 512 * 2**20
"""The largest call."""
READY = "ready"


class Rules:
    """The rules and explanations of this installation; loaded when first asked."""

    def __init__(self, geo: tuple[str, ...] = ()) -> None:
        self._geo = geo
        self._opened: tuple[object, Any] | None = None

    def problems(self, resources: Mapping[str, Mapping[str, Any]]) -> Review:
        """Read and check a whole set (kind -> name -> plain data in the form of the files)."""
        from .validate import review_plain

        return review_plain(resources)

    def explain(self, view: View, question: Question) -> str:
        """The JSON text of `gtm explain -o json`; LookupError where nothing has that name."""
        from .explain import explain

        text: str = explain(view, question, self._locator())
        return text

    def _locator(self) -> Any:
        """The locator over the geo files as they are now."""
        from resolver.locate import open_locator

        stamp = tuple(_stamp(path) for path in self._geo)
        if self._opened is None or self._opened[0] != stamp:
            self._opened = (stamp, open_locator(self._geo))
        return self._opened[1]


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (path, 0, 0)
    return (path, found.st_mtime_ns, found.st_size)


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


def _answer(rules: Rules, method: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        if method == "problems":
            return "ok", rules.problems(*arguments)
        return _explained(rules, *arguments)
    except LookupError as error:
        return "lookup", str(error.args[0]) if error.args else str(error)
    except Exception as error:  # said to the caller, who says it to the user
        return "error", f"{type(error).__name__}: {error}"


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
        _send(sink, _answer(rules, method, arguments))


def _send(sink: BinaryIO, answer: object) -> None:
    body = pickle.dumps(answer, protocol=5)
    sink.write(struct.pack(LENGTH, len(body)))
    sink.write(body)
    sink.flush()


if __name__ == "__main__":
    main()
