"""Marks of a row, bits of one byte: what rows, kernels and batches have to agree on."""

import sys

from prioritized_replay.jit.compiling import counts

__all__ = ["BEGINS", "DRAWN", "MARKS", "TRUNCATED", "UNRELATED"]

counts(sys._getframe())  # the code of this module is part of the kernels that use it

DRAWN = 1
"""The row has been drawn since it was written."""
TRUNCATED = 2
"""Its episode was cut off after it."""
UNRELATED = 4
"""It is no step of an episode that is known."""
BEGINS = 8
"""It is the first step of an episode; noted in buffers of sequences only."""
MARKS = DRAWN, TRUNCATED, UNRELATED, BEGINS
