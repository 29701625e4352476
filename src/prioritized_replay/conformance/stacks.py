"""The data of the image measures: steps of an imaginary game, as stacks of its last four frames.

Knows frames and episodes; knows nothing of the libraries that the steps are given to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.conformance.workload import ADDED, Array, Workload

Frames = NDArray[np.uint8]
Ints = NDArray[np.int64]

STACK, SIDE = 4, 84
FRAME_BYTES = SIDE * SIDE
STACK_SHAPE = (STACK, SIDE, SIDE)
_PATTERNS = 1024  # frames of random bytes
_LENGTHS = (200, 1000)  # steps of an episode
_AT_ONCE = 256
_SERIAL = 8  # bytes of a frame that hold its number
_OTHER_GAMES = 1 << 40


@dataclass(frozen=True)
class Stacks(Workload):
    """Steps with stacks of frames, as functions of a seed.

    Row k has k as its action. No two frames are alike: each begins with its number. Every episode
    begins with a stack of its first frame, as Gymnasium's wrapper gives it, and ends in
    termination, for the sake of libraries that cannot keep the last observation of one that is
    truncated.

    Examples
    --------
    >>> steps = [*Stacks().played(3)]
    >>> [step["action"] for step in steps], steps[0]["obs"].shape
    ([0, 1, 2], (4, 84, 84))
    >>> np.array_equal(steps[0]["next_obs"], steps[1]["obs"])
    True
    """

    def obs_of(self, rows: Ints) -> Array:
        """Return the observations of rows, uint8[B, 4, 84, 84]."""
        return self._frames(self._numbers(rows, 0))

    def next_obs_of(self, rows: Ints) -> Array:
        """Return the observations that follow those of rows, uint8[B, 4, 84, 84]."""
        return self._frames(self._numbers(rows, 1))

    def ends(self, rows: Ints) -> NDArray[np.bool_]:
        """Return which rows are the last of their episodes, bool[B]."""
        begins = _begins(self.seed)
        return np.asarray(begins[np.searchsorted(begins, rows + 1, "right") - 1] == rows + 1)

    def played(self, size: int) -> Iterator[dict[str, Any]]:
        """Yield the steps of the first ``size`` rows in order; the last one ends its episode."""
        rewards = self.block()["reward"]
        for first in range(0, size, _AT_ONCE):
            rows = np.arange(first, min(first + _AT_ONCE, size))
            ends = self.ends(rows) | (rows == size - 1)
            before, after = self._numbers(rows, 0), self._numbers(rows, 1)
            oldest = before.min()
            frames = self._frames(np.arange(oldest, after.max() + 1))
            obs, next_obs = (_stacked(frames, numbers - oldest) for numbers in (before, after))
            for k, row in enumerate(rows.tolist()):
                yield {
                    "obs": obs[k],
                    "action": row,
                    "reward": float(rewards[row % len(rewards)]),
                    "next_obs": next_obs[k],
                    "terminated": bool(ends[k]),
                }

    def steps(self, draw: int, count: int) -> list[dict[str, Any]]:
        """Return a whole episode of ``count`` steps, another one for each ``draw``."""
        rng = np.random.default_rng((self.seed, ADDED, draw))
        numbers = np.arange(count + 1)[:, None] + np.arange(1 - STACK, 1)
        first = _OTHER_GAMES + draw * (count + 1)
        obs = self._frames(first + np.maximum(numbers, 0))
        actions, rewards = rng.integers(4, size=count), rng.standard_normal(count)
        return [
            {
                "obs": obs[k],
                "action": int(actions[k]),
                "reward": float(rewards[k]),
                "next_obs": obs[k + 1],  # the same array, as in any training loop
                "terminated": k == count - 1,
            }
            for k in range(count)
        ]

    def _numbers(self, rows: Ints, later: int) -> Ints:
        """Return the frames of observations, int64[B, 4]: those of rows, or the ones after."""
        begins = _begins(self.seed)
        episodes = np.searchsorted(begins, rows, "right") - 1
        steps = (rows - begins[episodes] + later)[:, None] + np.arange(1 - STACK, 1)
        # An episode has one frame more than it has rows.
        return np.asarray((begins[episodes] + episodes)[:, None] + np.maximum(steps, 0))

    def _frames(self, numbers: Ints) -> Array:
        frames = _patterns(self.seed)[numbers % _PATTERNS]
        serials = np.ascontiguousarray(numbers).view(np.uint8)
        frames[..., 0, :_SERIAL] = serials.reshape(*numbers.shape, _SERIAL)
        return frames


def _stacked(frames: Frames, places: Ints) -> list[Array]:
    """Return stacks of frames: views where these lie side by side, which is nearly everywhere."""
    return [
        frames[place[0] : place[-1] + 1] if place[-1] - place[0] == STACK - 1 else frames[place]
        for place in places
    ]


@cache
def _patterns(seed: int) -> Frames:
    rng = np.random.default_rng((seed, SIDE))
    return rng.integers(0, 256, (_PATTERNS, SIDE, SIDE), np.uint8)


@cache
def _begins(seed: int) -> Ints:
    """Return the first rows of more episodes than any memory holds."""
    lengths = np.random.default_rng((seed, STACK)).integers(*_LENGTHS, 100_000)
    return np.concatenate([[0], np.cumsum(lengths)])
