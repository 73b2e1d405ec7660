"""Work on large sets without the cyclic collector, which would walk what is kept again and again.

What is made meanwhile and used no longer is freed by its reference counts as ever; cycles wait for
the end of the work. Decides nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_working = 0
_was_on = False


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """The collector rests in the body, and until all other bodies of this process have ended."""
    global _working, _was_on
    with _lock:
        if not _working:
            _was_on = gc.isenabled()
            gc.disable()
        _working += 1
    try:
        yield
    finally:
        with _lock:
            _working -= 1
            if not _working and _was_on:
                gc.enable()
