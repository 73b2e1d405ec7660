"""Octets as an attacker or a broken sender would make them: random ones, and good ones mutated."""

from __future__ import annotations

import random

EDGES = (0, 1, 2, 0x3F, 0x40, 0x7F, 0x80, 0xBF, 0xC0, 0xC1, 0xFE, 0xFF)


def mutated(dice: random.Random, data: bytes, most: int = 4) -> bytes:
    """`data` with one to `most` places set, cut, filled, doubled, swapped or cut off."""
    octets = bytearray(data)
    for _ in range(dice.randint(1, most)):
        at = dice.randint(0, len(octets))
        size = dice.randint(1, 8)
        match dice.randrange(7):
            case 0 if at < len(octets):
                octets[at] = dice.choice(EDGES)
            case 1 if at < len(octets):
                octets[at] ^= 1 << dice.randrange(8)
            case 2:
                del octets[at : at + size]
            case 3:
                octets[at:at] = dice.randbytes(size)
            case 4:
                octets[at:at] = octets[at : at + 4 * size]
            case 5:
                octets[at : at + size] = dice.choice(EDGES).to_bytes() * size
            case 6 if dice.random() < 0.3:
                del octets[at:]
    return bytes(octets)
