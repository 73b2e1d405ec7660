"""Variants: a probe type or a steering policy is one file; its module name registers it.

A variant's module has `Settings`, a frozen Struct with the defaults, and beside it the behaviour.
A module whose name begins with an underscore, and `base`, are no variants.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from msgspec import Struct


@cache
def variants(package: str) -> Mapping[str, ModuleType]:
    """Every variant of `package` (its dotted name) by the name that configurations use.

    A module may register several names at once by a tuple `NAMES`; else its own name counts.
    """
    root = importlib.import_module(package)
    found: dict[str, ModuleType] = {}
    for info in pkgutil.iter_modules(root.__path__):
        if info.name == "base" or info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package}.{info.name}")
        for name in getattr(module, "NAMES", (info.name,)):
            found[name] = module
    return found


def settings_types(package: str) -> dict[str, type[Struct]]:
    """The `Settings` class of each variant of `package`, by name.

    A module with several names may map them in a dict `SETTINGS`.
    """
    result: dict[str, type[Struct]] = {}
    for name, module in variants(package).items():
        many: Mapping[str, Any] = getattr(module, "SETTINGS", {})
        result[name] = many.get(name) or module.Settings
    return result
