"""The numbers of what the native responder counts (`native/src/udp.rs`). Decides nothing."""

from __future__ import annotations

NO_CELL = 2**32 - 1
"""No cell at all."""
OUTCOMES = 17
"""Outcomes of a query: 16 header rcodes, and silence."""
UDP, TCP = 0, OUTCOMES
"""The first of the cells of queries by outcome."""
UNSENT, OVERSIZE, BATCHES = 2 * OUTCOMES, 2 * OUTCOMES + 1, 2 * OUTCOMES + 2
FIRST = 64
"""The first cell that is given out by label."""
CELLS = 1 << 17
"""Cells of one worker."""
