"""Environments that write every observation into the same array, noticed by what comes of it.

Such an environment, a vector of Gymnasium with ``copy=False`` for one, changes ``obs`` while it
makes ``next_obs``: a step that should lead somewhere is stored as one that led nowhere. The same
array as both is no proof: an observation may be looked up in a table, and a step may lead nowhere.
That its content has changed since it was last given as both is one, unless an episode ended there:
part of an observation, such as a goal, may be the same array in all steps of an episode, and be
overwritten for the next one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ReusedArrays"]


class ReusedArrays:
    """Remembers the array that was last given as ``obs`` and as ``next_obs`` of one step.

    Examples
    --------
    >>> reused, state = ReusedArrays(), np.zeros(2)
    >>> reused.check("obs", state, terminated=False, truncated=False)
    >>> state += 1
    >>> reused.check("obs", state, terminated=False, truncated=False)
    Traceback (most recent call last):
    ValueError: obs and next_obs must be two arrays, got the same one, which has changed since the last step: give a copy of each observation, as the environment writes all of them into that array (a vector environment does with copy=False)
    """  # noqa: E501

    def __init__(self) -> None:
        self._last: dict[str, tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]] = {}

    def check(self, name: str, array: Any, terminated: Any, truncated: Any) -> None:
        """Look at what was given as both observations of a step.

        Parameters
        ----------
        name : str
            Of the leaf, such as ``obs['image']``.
        array
            Numbers are passed over: they cannot change.
        terminated, truncated : bool[K] or bool
            What the step ended. The rows of episodes that end may change until the next step. A
            step that terminates in every row is passed over.

        Raises
        ------
        ValueError
            It was given as both before, and has changed since then.

        Notes
        -----
        O(size). Threads may call it at the same time.
        """
        if not isinstance(array, np.ndarray):
            return
        if np.all(terminated):
            return self.forget(name)
        last = self._last.get(name)
        if last is not None and last[0] is array and _has_changed(*last):
            raise ValueError(
                f"{name} and {name.replace('obs', 'next_obs', 1)} must be two arrays, got the same "
                "one, which has changed since the last step: give a copy of each observation, as "
                "the environment writes all of them into that array (a vector environment does "
                "with copy=False)"
            )
        self._last[name] = array, array.copy(), np.logical_or(terminated, truncated)

    def forget(self, name: str | None = None) -> None:
        """Forget what was given of a leaf, or of all: the next step is of other arrays."""
        if name is None:
            self._last.clear()
        else:
            self._last.pop(name, None)


def _has_changed(array: NDArray[Any], before: NDArray[Any], ended: NDArray[np.bool_]) -> bool:
    """Return whether an array is another than before, bit for bit, in rows that did not end."""
    if ended.ndim:
        array, before = array[~ended], before[~ended]
    elif ended:
        return False
    return array.tobytes() != before.tobytes()
