"""Whether a step goes on from the one before, or its environment was reset in between.

Stable-Baselines3 resets environments in the middle of their episodes, whenever ``learn`` is called
again. It does not tell the replay buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Continuity"]

Array = NDArray[Any]


class Continuity:
    """Remembers what the last step of each of E environments led to.

    After the end of an episode, the next one does not begin there: that counts as broken, too.

    Examples
    --------
    >>> steps = Continuity()
    >>> obs, next_obs = np.array([[0.0], [5.0]]), np.array([[1.0], [6.0]])
    >>> steps.broken(obs)  # nothing is known yet
    []
    >>> steps.remember(next_obs)
    >>> steps.broken(next_obs), steps.broken(np.array([[1.0], [0.0]]))
    ([], [1])
    """

    def __init__(self) -> None:
        self._last: tuple[bytes, Any] | None = None

    def remember(self, next_obs: Any) -> None:
        """Remember a step of every environment.

        Parameters
        ----------
        next_obs : array[E, ...], or mapping of such
            What it led to.
        """
        # Of the arrays, which may be written to meanwhile, only shapes and dtypes are read later.
        self._last = _content(next_obs), next_obs

    def forget(self) -> None:
        """Remember nothing: the next step of every environment counts as going on."""
        self._last = None

    def broken(self, obs: Any) -> list[int]:
        """Return the environments that do not go on from where they were. O(size).

        Parameters
        ----------
        obs : array[E, ...], or mapping of such
            Where the next step begins.
        """
        if self._last is None:
            return []
        content, like = self._last
        if _content(obs) == content:
            return []
        parts = list(zip(_parts(obs), _parts(like), strict=True))
        if any(part.shape != part_like.shape for part, part_like in parts):
            return []  # it does not fit, and will be refused
        place, changed = 0, np.zeros(len(parts[0][0]), np.bool_)
        for part, part_like in parts:
            now = np.frombuffer(part.astype(part_like.dtype).tobytes(), np.uint8)
            before = np.frombuffer(content, np.uint8, now.size, place)
            changed |= (now != before).reshape(len(changed), -1).any(axis=1)
            place += now.size
        return np.flatnonzero(changed).tolist()


def _content(obs: Any) -> bytes:
    if type(obs) is np.ndarray:
        return obs.tobytes()
    return b"".join([part.tobytes() for part in _parts(obs)])


def _parts(obs: Any) -> list[Array]:
    return list(obs.values()) if isinstance(obs, Mapping) else [obs]
