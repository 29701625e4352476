"""The axis along which an observation is a stack of frames: named by an environment, or found.

Both are guesses. They only decide how observations are stored, never what comes back.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.fields.field import Field

Array = NDArray[Any]
MOST_FOUND = 10
"""In one that is looked for: rows have to have room for as many references."""
LEAST_FRAME = 64
"""Bytes of a frame below which the references to it would cost more than they save."""
UNDECIDED: Final = "undecided"


def possible_axes(field: Field) -> list[int]:
    """Return the axes along which a field may be found to be stacked."""
    return [
        axis
        for axis, count in enumerate(field.shape)
        if 2 <= count <= MOST_FOUND and field.nbytes // count >= LEAST_FRAME
    ]


def shifted_axis(obs: Array, next_obs: Array) -> int | Literal["undecided"] | None:
    """Return the axis along which one step shifted an observation by one frame.

    Parameters
    ----------
    obs, next_obs : array
        Of one step, of one shape and dtype.

    Returns
    -------
    int
        The frames of ``obs`` but the first are those of ``next_obs`` but the last, which is not so
        unshifted. Axes are tried in their order.
    None
        There is no such axis.
    UNDECIDED
        Shifted or not, the frames are the same: a later step has to tell.
    """
    undecided = False
    for axis in possible_axes(Field(obs.shape, obs.dtype)):
        old, new = np.moveaxis(obs, axis, 0), np.moveaxis(next_obs, axis, 0)
        if _same(old[1:], new[:-1]):
            if not _same(old[:-1], new[:-1]):
                return axis
            undecided = True
    return UNDECIDED if undecided else None


def _same(one: Array, other: Array) -> bool:
    """Return whether two arrays are equal; NaN equals NaN."""
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
