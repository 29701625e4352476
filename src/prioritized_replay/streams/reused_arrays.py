"""Environments that write every observation into the same array, noticed by what comes of it.

Such an environment, a vector of Gymnasium with ``copy=False`` for one, changes ``obs`` while it
makes ``next_obs``: a step that should lead somewhere is stored as one that led nowhere. The same
array as both is no proof: an observation may be looked up in a table, and a step may lead nowhere.
That its content has changed since it was last given as both is one.
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
    >>> reused.check("obs", state)
    >>> state += 1
    >>> reused.check("obs", state)
    Traceback (most recent call last):
    ValueError: obs and next_obs must be two arrays, got the same one, which has changed since the last step: give a copy of each observation, as the environment writes all of them into that array (a vector environment does with copy=False)
    """  # noqa: E501

    def __init__(self) -> None:
        self._last: dict[str, tuple[NDArray[Any], bytes]] = {}

    def check(self, name: str, array: Any) -> None:
        """Look at what was given as both observations of a step that does not terminate.

        Parameters
        ----------
        name : str
            Of the leaf, such as ``obs['image']``.
        array
            Numbers are passed over: they cannot change.

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
        content = array.tobytes()
        last = self._last.get(name)
        self._last[name] = array, content
        if last is not None and last[0] is array and last[1] != content:
            raise ValueError(
                f"{name} and {name.replace('obs', 'next_obs', 1)} must be two arrays, got the same "
                "one, which has changed since the last step: give a copy of each observation, as "
                "the environment writes all of them into that array (a vector environment does "
                "with copy=False)"
            )
