"""Files of resources as the commands use them: read with every variant that is registered.

Raises RefusedError where a file is wrong; the rules are those of `ctl.validate`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gtm import codec
from gtm.config import EXPECT, Reading, read_files, read_outline, read_plain
from gtm.errors import RefusedError
from gtm.model import TYPES, Resources
from gtm.ports import Problem
from gtm.v1 import operator_pb2 as pb

from . import client, diff
from .registry import registered


def read(paths: Sequence[str]) -> Reading:
    """What files and folders hold, each resource right in itself; RefusedError with all errors."""
    return _sound(read_files(paths, registered()))


def outlined(paths: Sequence[str]) -> Reading:
    """The same for a coordinator to judge: what is written plainly is not judged here."""
    return _sound(read_outline(paths, registered()))


def _sound(reading: Reading) -> Reading:
    if reading.errors:
        raise RefusedError(reading.problems)
    return reading


def settled(reading: Reading) -> Resources:
    """What was read as a set that stands alone, filled in; RefusedError with all errors."""
    from . import validate

    review = validate.review(reading, validate.registered())
    if review.resources is None:
        raise RefusedError(review.problems)
    return review.resources


async def stored(asked: client.Client) -> Resources:
    """What a coordinator has stored, filled in; RefusedError where it is no sound set."""
    answer = await asked.get("all")
    return settled(read_plain(json.loads(answer.resources or "{}"), registered()))


def plain(resources: Resources) -> dict[str, dict[str, Any]]:
    """Resources as plain data: kind -> name -> what users write; kinds without any left out."""
    return {
        kind: {name: codec.plain(value) for name, value in named.items()}
        for kind in TYPES
        if (named := resources.kind(kind))
    }


def given(reading: Reading) -> Mapping[str, Mapping[str, Any]]:
    """The resources of a reading as plain data, for an apply to send."""
    return reading.written or plain(reading.sound)


def expected(reading: Reading) -> dict[str, list[Any]]:
    """The expectations beside resources as plain data, under their key; nothing without any."""
    found = [codec.plain(one) for one in reading.expectations]
    return {EXPECT: found} if found else {}


def located(messages: Iterable[pb.Problem], reading: Reading) -> list[Problem]:
    """Problems that a coordinator found, with the file and line where their path was written."""
    return [reading.located(diff.problem(message)) for message in messages]
