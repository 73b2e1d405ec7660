"""Plans and outcomes as people and scripts read them: what is created, updated, deleted.

Shared by plan, apply, delete and `gtm up`; decides nothing but the exit status.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from json.encoder import encode_basestring
from typing import Any

import msgspec

from gtm.ports import Effect, Effects, Problem
from gtm.v1 import operator_pb2 as pb

from . import show

MAX_EFFECTS = 40
"""Changed answers that the human form lists."""
MAX_VALUE_CHARS = 100
"""Longer values are cut in the diff; `-o json` has them whole."""
_JSON = json.JSONEncoder(ensure_ascii=False)
_SIGNS = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}


def problem(message: pb.Problem) -> Problem:
    """A problem that a coordinator reported."""
    return Problem(
        text=message.text,
        path=message.path,
        file=message.file,
        line=message.line,
        severity="warning" if message.severity == "warning" else "error",
    )


def print_problems(problems: Iterable[Problem]) -> None:
    """One line each to stderr: file:line: path: text."""
    for found in problems:
        if found.severity == "warning":
            show.warn(f"warning: {found}")
        else:
            print(show.colour(str(found), "red", sys.stderr), file=sys.stderr)


def render(changes: Iterable[pb.Change]) -> str:
    """The changes, each with the fields that differ."""
    blocks = []
    for change in changes:
        sign, colour = _SIGNS.get(change.action, ("?", "bold"))
        title = show.colour(f"{sign} {change.action} {change.kind}/{change.name}", colour)
        before, after = _data(change.before), _data(change.after)
        if change.action == "update":
            fields = [
                f"    {path}: {_cut(old)} -> {_cut(new)}"
                for path, old, new in differ(before, after)
            ]
        elif change.action == "create":
            fields = [f"    {key}: {_cut(value)}" for key, value in after.items()]
        else:
            fields = []
        blocks.append("\n".join((title, *fields)))
    return "\n".join(blocks)


def effects(plan: pb.PlanResponse) -> Effects:
    """What a coordinator said that a plan changes in answers."""
    return Effects(
        changed=tuple(
            Effect(
                instance=one.instance,
                line=one.line,
                type=one.type,
                before=one.before,
                after=one.after,
            )
            for one in plan.effects
        ),
        skipped=plan.not_compared,
        leaving=plan.addresses_leaving,
    )


def render_effects(found: Effects) -> str:
    """The answers that a plan changes, and the addresses that it takes away, as people read it."""
    lines = []
    if found.changed:
        lines.append("answers that change, with everything healthy:")
    for one in found.changed[:MAX_EFFECTS]:
        lines.append(f"    {one.instance} {one.type} for {one.line}:")
        lines.append(f"      - {one.before or 'no such name'}")
        lines.append(f"      + {one.after or 'no such name'}")
    if len(found.changed) > MAX_EFFECTS:
        lines.append(f"    and {len(found.changed) - MAX_EFFECTS} more; -o json has them")
    if found.skipped:
        lines.append(f"    {found.skipped} further instances were not compared")
    if found.leaving:
        lines.append(f"{found.leaving} addresses leave service")
    return "".join(f"{line}\n" for line in lines)


def effects_json(found: Effects) -> dict[str, Any]:
    """The stable shape of a plan's effects."""
    return {
        "answers": [
            {
                "instance": one.instance,
                "line": one.line,
                "type": one.type,
                "before": one.before,
                "after": one.after,
            }
            for one in found.changed
        ],
        "not_compared": found.skipped,
        "addresses_leaving": found.leaving,
    }


def counted(changes: Iterable[pb.Change]) -> str:
    """The changes in numbers: `2 to create, 1 to update`; "nothing to change" without any."""
    actions = [change.action for change in changes]
    parts = [f"{actions.count(action)} to {action}" for action in _SIGNS if action in actions]
    return ", ".join(parts) or "nothing to change"


def differ(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two values of plain data differ: (path, before, after), None for what is not there.

    Lists of resources' parts are told apart by their `value` or `name` where all of them have one.
    """
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from differ(before.get(key), after.get(key), inner)
        return
    old, new = _named(before), _named(after)
    if old is not None and new is not None and (old or new):
        moved = [key for key in old if key in new] != [key for key in new if key in old]
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differ(old.get(key), new.get(key), f"{path}[{key}]")
        if moved:
            yield f"{path} (order)", list(old), list(new)
        return
    yield path, before, after


def _named(value: Any) -> dict[str, Any] | None:
    """A list of mappings by what names each, None where they have no unique names."""
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        return None
    for key in ("value", "name"):
        names = [str(part.get(key)) for part in value if key in part]
        if len(names) == len(value) and len(set(names)) == len(names):
            return dict(zip(names, value, strict=True))
    return None


def _data(text: str) -> dict[str, Any]:
    data = msgspec.json.decode(text) if text else {}
    return data if isinstance(data, dict) else {}


def _cut(value: Any) -> str:
    if value is None:
        return "(absent)"
    text = encode_basestring(value) if type(value) is str else _JSON.encode(value)
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 3] + "..."


def change_json(change: pb.Change) -> dict[str, Any]:
    """A change in the stable shape of `gtm plan -o json`."""
    return {
        "action": change.action,
        "kind": change.kind,
        "name": change.name,
        "before": _data(change.before) if change.before else None,
        "after": _data(change.after) if change.after else None,
    }


def problem_json(found: Problem) -> dict[str, Any]:
    """A problem in the stable shape of `gtm validate -o json`."""
    return {
        "severity": found.severity,
        "file": found.file,
        "line": found.line,
        "path": found.path,
        "text": found.text,
    }


def outcome(response: pb.ApplyResponse, form: str, located: Sequence[Problem] | None = None) -> int:
    """Show how an apply or a delete ended, its problems with their places; the exit status."""
    problems = [problem(found) for found in response.problems] if located is None else located
    if form == "json":
        shape = {
            "applied": response.applied,
            "problems": [problem_json(found) for found in problems],
            "changes": [change_json(change) for change in response.changes],
            "refusal": response.refusal,
            "generation": response.generation,
            "revision": response.revision,
        }
        print(show.as_json(shape))
        return 0 if response.applied else 1
    print_problems(problems)
    if response.applied:
        done = counted(response.changes).replace(" to create", " created")
        done = done.replace(" to update", " updated").replace(" to delete", " deleted")
        print(f"{done} (generation {response.generation})")
        return 0
    if response.changes:
        print(f"done before it broke off:\n{render(response.changes)}", file=sys.stderr)
    if response.refusal:
        print(f"gtm: refused: {response.refusal}", file=sys.stderr)
    elif not any(found.severity == "error" for found in problems):
        print("gtm: not applied; run it again", file=sys.stderr)
    return 1
