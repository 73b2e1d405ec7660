"""Walks over what refers to what: loops named by their path, and an order without them. Pure.

Knows nothing of resources; rules over lines and over domain pools give it their references.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MAX_LOOPS = 100
"""Loops told of one set: the first ones show where to cut."""
MAX_PATH = 12
"""Names of a loop that are told; of a longer one the middle is left out."""


def walk(edges: Mapping[str, Iterable[str]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Names with what they refer to before them, and the loops, each from a name back to it.

    References to names that `edges` does not have are passed over. Linear, without recursion.
    """
    order: list[str] = []
    loops: list[tuple[str, ...]] = []
    done: set[str] = set()
    for start in edges:
        if start in done:
            continue
        path, opened = [start], {start: 0}
        left = [iter(edges[start])]
        while path:
            name = next(left[-1], None)
            if name is None:
                left.pop()
                order.append(path.pop())
                done.add(order[-1])
                del opened[order[-1]]
            elif name in opened:
                if len(loops) < MAX_LOOPS:
                    loops.append((*path[opened[name] :], name))
            elif name in edges and name not in done:
                opened[name] = len(path)
                path.append(name)
                left.append(iter(edges[name]))
    return order, loops


def shown(loop: tuple[str, ...]) -> str:
    """The path of a loop, `a -> b -> a`."""
    if len(loop) > MAX_PATH:
        half = MAX_PATH // 2
        loop = (*loop[:half], f"({len(loop) - 2 * half:,} more)", *loop[-half:])
    return " -> ".join(loop)
