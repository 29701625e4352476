"""Where an observation is a stack of frames: told by an environment, or found in its data.

Both are guesses. They only decide how observations are stored, never what comes back.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.casting import Field

__all__ = ["UNDECIDED", "possible_axes", "shifted_axis", "stack_axis_of"]

Array = NDArray[Any]

STACKING = {"FrameStackObservation", "FrameStack", "AtariVectorEnv"}
"""Names of the classes that put frames along a new first axis."""
MOST_FRAMES = 32
"""In a stack that an environment tells of."""
MOST_FOUND = 10
"""In one that is looked for: rows have to have room for as many references."""
LEAST_FRAME = 64
"""Bytes of a frame below which the references to it would cost more than they save."""


UNDECIDED: Final = "undecided"


def stack_axis_of(env: Any) -> int | None:
    """Return the axis along which an environment stacks frames, from its wrappers.

    Parameters
    ----------
    env : gymnasium.Env or gymnasium.vector.VectorEnv
        Wrapped in any number of wrappers. Environments of another process cannot be looked at.

    Returns
    -------
    int or None
        Of an observation of one environment, or of each leaf of it. None says nothing: there may be
        a stack all the same.
    """
    space = getattr(env, "single_observation_space", getattr(env, "observation_space", None))
    if not _may_be_stacked(space):
        return None
    layer = env
    while layer is not None:
        if any(kind.__name__ in STACKING for kind in type(layer).__mro__):
            return 0
        below = layer.__dict__.get("env") if hasattr(layer, "__dict__") else None
        if below is None and (several := getattr(layer, "envs", None)):
            below = several[0]
        layer = below
    return None


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


def _may_be_stacked(space: Any) -> bool:
    """Return whether all leaves of a space have a first axis of the length of a stack."""
    parts = getattr(space, "spaces", None)
    if parts is not None:
        leaves = list(parts.values() if hasattr(parts, "values") else parts)
        return bool(leaves) and all(_may_be_stacked(leaf) for leaf in leaves)
    shape: tuple[int, ...] = getattr(space, "shape", None) or (0,)
    return 2 <= shape[0] <= MOST_FRAMES
