"""Whether the native responder is used: what `GTM_NATIVE` says, what is built, and from what.

| `GTM_NATIVE` | a module that is built and right | none, or a wrong one |
|---|---|---|
| unset | is used | the reference responder answers; one line says why and what to do |
| `require` | is used | the resolver does not start |
| `off` | the reference responder answers | the reference responder answers |

A module is right if it bears the digest of the sources beside it, or of those that the installed
package was built from, and reads tables of our version. Never builds anything.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

from gtm.errors import StartError
from gtm.telemetry import transition

from .handover import VERSION
from .native_digest import PACKED, SOURCES, expected

VARIABLE = "GTM_NATIVE"
REQUIRE, OFF = "require", "off"

_SHOWN = 12  # digits of a digest
_log = logging.getLogger("resolver")


def native(
    environ: Mapping[str, str] = os.environ,
    load: Callable[[], ModuleType] = lambda: import_module("resolver._native"),
    crate: Path = SOURCES,
    packed: Path = PACKED,
) -> ModuleType | None:
    """The native module, or None where the reference responder shall answer.

    StartError where `GTM_NATIVE` is none of the above (exit status 2), or requires a module that is
    not there or not right (1).
    """
    wish = environ.get(VARIABLE, "")
    if wish not in ("", REQUIRE, OFF):
        raise StartError(f"{VARIABLE} is {wish!r}: set it to {REQUIRE} or {OFF}, or unset it", 2)
    if wish == OFF:
        return None
    built = True
    try:
        module = load()
        problem = wrong(module, expected(crate, packed))
    except ModuleNotFoundError:
        built, problem = False, "it is not built"
    except Exception as error:  # a file that is no module for this machine, or half of one
        problem = f"it does not load ({error})"
    if not problem:
        return module
    checkout = (crate / "Cargo.toml").exists()
    mend = "run `make native`" if checkout else "install again where cargo is"
    if wish == REQUIRE:
        raise StartError(f"{VARIABLE} requires the native responder, but {problem}: {mend}")
    transition(
        _log,
        "no native responder, the reference responder answers",
        logging.WARNING if built else logging.INFO,
        cause=problem,
        mend=mend,
    )
    return None


def wrong(module: ModuleType, digest: str) -> str:
    """What is wrong with `module` where its sources should have `digest`; "" if nothing is."""
    own = str(getattr(module, "DIGEST", ""))
    version = getattr(module, "TABLE_VERSION", None)
    if not own:
        return "its build was not optimised, or says not what it was built from"
    if not digest:
        return "nothing here says what it should be built from"
    if own != digest:
        return f"it was built from other sources ({own[:_SHOWN]}, not {digest[:_SHOWN]})"
    if version != VERSION:
        return f"it reads tables of version {version}, not {VERSION}"
    return ""
