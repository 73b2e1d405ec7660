"""Whether the native responder is used: what `GTM_NATIVE` says, and what is built."""

from __future__ import annotations

import os
from types import ModuleType


def native() -> ModuleType | None:
    """The native module, or None where the reference responder shall answer."""
    if os.environ.get("GTM_NATIVE") == "off":
        return None
    try:
        from . import _native
    except ImportError:
        return None
    return _native
