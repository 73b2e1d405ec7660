"""A part's settings from flags, the environment and a settings file, in that order of precedence.

Driven by a frozen Struct whose fields are str, int, float, bool, Duration, Share, tuple[str, ...]
or a Literal of texts, each `Annotated[type, Meta(description=...)]`: the field `etcd_user` is the
flag `--etcd-user`, the variable `GTM_ETCD_USER` and the key `etcd_user` of the file. Whatever is
wrong is one sentence in a `StartError` of status 2. Never reads anything but what it is handed.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from gtm.errors import StartError
from gtm.units import Duration, Share

S = TypeVar("S", bound=Struct)

MAX_FILE_BYTES = 1 << 20
"""The largest settings file that is read."""
FILE_FLAG = "settings"
"""The flag, and variable, that names the settings file."""
OF_THE_MACHINE = frozenset({"GTM_NATIVE"})
"""Variables that say how every process of ours runs here; they are settings of no part."""
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def unset(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without settings of parts, which no child inherits, but with the machine's."""
    return {
        name: text
        for name, text in environ.items()
        if not name.startswith("GTM_") or name in OF_THE_MACHINE
    }


class Setting(Struct, frozen=True):
    """One field of a settings class: its name, type, default and what it means."""

    name: str
    type: Any
    bare: Any
    default: Any
    description: str

    @property
    def flag(self) -> str:
        """As on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """As in the environment."""
        return "GTM_" + self.name.upper()

    @property
    def many(self) -> bool:
        """Whether it is a list of texts."""
        return typing.get_origin(self.bare) is tuple


@functools.cache
def settings(type_: type[Struct]) -> tuple[Setting, ...]:
    """The settings that `type_` has, in the order of its fields; inherited ones come last."""
    hints = typing.get_type_hints(type_, include_extras=True)
    found = []
    fields = msgspec.structs.fields(type_)
    for field in sorted(fields, key=lambda one: one.name not in type_.__annotations__):
        hint = hints[field.name]
        bare = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
        texts = [meta.description or "" for meta in _metas(hint)]
        default = field.default
        if field.default_factory is not NODEFAULT:
            default = field.default_factory()
        description = next((text for text in texts if text), "")
        found.append(Setting(field.name, hint, bare, default, description))
    return tuple(found)


def add_flags(parser: argparse.ArgumentParser, type_: type[Struct]) -> None:
    """Give `parser` a flag for each setting of `type_`, and `--settings FILE`.

    What is not given does not appear in the parsed namespace.
    """
    parser.add_argument(
        f"--{FILE_FLAG}",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="YAML file of these settings; flags and GTM_... variables go before it",
    )
    for setting in settings(type_):
        shown = _shown(setting)
        text = setting.description + (f" (default: {shown})" if shown else "")
        common: dict[str, Any] = {
            "dest": setting.name,
            "default": argparse.SUPPRESS,
            "help": text.replace("%", "%%"),
        }
        if setting.bare is bool:
            parser.add_argument(setting.flag, action=argparse.BooleanOptionalAction, **common)
        else:
            parser.add_argument(setting.flag, metavar=_metavar(setting), **common)


def differing(made: Struct, type_: type[Struct]) -> list[str]:
    """The flags by which another process is told what of `made` is not the default of `type_`.

    `type_` is a settings class without lists that `made` has or inherits.
    """
    return [
        f"{one.flag}={value}"
        for one in settings(type_)
        if (value := getattr(made, one.name)) != one.default
    ]


def load(
    type_: type[S],
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
) -> S:
    """`type_` filled from `flags` (texts, as parsed), `environ` and the file that those name.

    Raises StartError (status 2) for an unknown key, a value that is none, or one that is missing.
    """
    path = flags.get(FILE_FLAG) or environ.get(f"GTM_{FILE_FLAG.upper()}") or ""
    from_file = read_file(path, type_) if path else {}
    values: dict[str, Any] = {}
    for setting in settings(type_):
        if setting.name in flags:
            where, given = setting.flag, flags[setting.name]
        elif setting.variable in environ:
            where, given = setting.variable, environ[setting.variable]
        elif setting.name in from_file:
            where, given = from_file[setting.name]
        elif setting.default is NODEFAULT:
            raise StartError(
                f"{setting.flag} is missing: give it, {setting.variable}, or the key "
                f"{setting.name} in a settings file ({setting.description})",
                2,
            )
        else:
            continue
        values[setting.name] = _value(setting, where, given)
    return type_(**values)


def read_file(path: str, type_: type[Struct]) -> dict[str, tuple[str, Any]]:
    """The keys of a settings file: (place, text or list of texts); StartError (2) if it is none."""
    import yaml  # only those who have a file pay for it

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise StartError(f"cannot read the settings file {path}: {error.strerror}", 2) from error
    if len(data) > MAX_FILE_BYTES:
        raise StartError(f"the settings file {path} is larger than {MAX_FILE_BYTES} bytes", 2)
    try:
        root = yaml.compose(data, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else path
        why = getattr(error, "problem", None) or "not UTF-8"
        raise StartError(f"{place}: this is not YAML ({why})", 2) from error
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise StartError(f"{path}: a settings file is a mapping from setting to value", 2)
    known = [setting.name for setting in settings(type_)]
    found: dict[str, tuple[str, Any]] = {}
    for key_node, value_node in root.value:
        where = f"{path}:{key_node.start_mark.line + 1}"
        key = str(key_node.value)
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise StartError(f"{where}: unknown setting {key!r}; {hint}", 2)
        if key in found:
            raise StartError(f"{where}: {key} is there twice; keep one", 2)
        found[key] = (f"{where}: {key}", _node(value_node, f"{where}: {key}"))
    return found


def _node(node: Any, where: str) -> str | list[str]:
    """A scalar's text, or the texts of a list of scalars."""
    if node.id == "scalar":
        return str(node.value)
    if node.id == "sequence" and all(part.id == "scalar" for part in node.value):
        return [str(part.value) for part in node.value]
    raise StartError(f"{where}: a setting is one value or a list of values", 2)


def _value(setting: Setting, where: str, given: Any) -> Any:
    """`given` (text, list of texts, bool) as the setting's type; StartError (2) if it is none."""
    try:
        value = _parsed(setting, given)
        _refuse_beyond(setting, given, value)
        return msgspec.convert(value, setting.type, dec_hook=_hook)
    except msgspec.ValidationError as error:
        text = str(error)
        raise StartError(f"{where}: {text[:1].lower()}{text[1:]}", 2) from error
    except ValueError as error:
        raise StartError(f"{where}: {error}", 2) from error


def _refuse_beyond(setting: Setting, given: Any, value: Any) -> None:
    """ValueError for a number outside the bounds of its setting."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    for bound in _metas(setting.type):
        if bound.ge is not None and value < bound.ge:
            raise ValueError(f"{given!r} is less than {bound.ge}")
        if bound.le is not None and value > bound.le:
            raise ValueError(f"{given!r} is more than {bound.le}")


def _metas(hint: Any) -> list[Meta]:
    if typing.get_origin(hint) is not Annotated:
        return []
    return [extra for extra in typing.get_args(hint)[1:] if isinstance(extra, Meta)]


def _hook(type_: type, value: object) -> object:
    if type_ in (Duration, Share):
        return type_.parse(value)
    raise NotImplementedError(f"a setting can't be a {type_.__name__}")


def _parsed(setting: Setting, given: Any) -> Any:
    bare = setting.bare
    if setting.many:
        texts = given.split(",") if isinstance(given, str) else given
        return tuple(text.strip() for text in texts if text.strip())
    if isinstance(given, list | tuple):
        raise ValueError("one value is wanted here, not a list")
    if isinstance(given, bool) or bare is str:
        return given
    if typing.get_origin(bare) is Literal:
        known = typing.get_args(bare)
        if given not in known:
            raise ValueError(f"{given!r} is none of {', '.join(map(str, known))}")
        return given
    if bare is bool:
        word = given.strip().lower()
        if word not in _TRUE | _FALSE:
            raise ValueError(f"{given!r} is neither true nor false")
        return word in _TRUE
    if bare is Duration:
        text = given.strip()
        return Duration.parse(int(text) if text.isdecimal() else text)
    if bare is Share:
        text = given.strip()
        return Share.parse(text if text.endswith("%") else _number(text))
    try:
        return bare(given)
    except ValueError:
        noun = "a whole number" if bare is int else "a number"
        raise ValueError(f"{given!r} is not {noun}") from None


def _number(text: str) -> float | str:
    """A decimal number in `text`; the text where it is none."""
    try:
        return float(text)
    except ValueError:
        return text


def _metavar(setting: Setting) -> str:
    if setting.many:
        return "A,B,..."
    if typing.get_origin(setting.bare) is Literal:
        return "|".join(map(str, typing.get_args(setting.bare)))
    names = {str: "TEXT", int: "N", float: "N", Duration: "TIME", Share: "SHARE"}
    return names.get(setting.bare, "VALUE")


def _shown(setting: Setting) -> str:
    """The default as users write it, "" where there is nothing to show."""
    if setting.default is NODEFAULT:
        return "none, it must be given"
    if setting.many:
        return ",".join(setting.default)
    if setting.bare is bool:
        return "yes" if setting.default else ""
    return str(setting.default)
