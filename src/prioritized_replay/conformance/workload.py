"""The data of the benchmark: the same transitions and TD errors for every contender.

Knows arrays, sizes and seeds; knows nothing of the libraries that they are given to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Errors = NDArray[np.float32]

OBS_SIZE = 16
ROW = np.dtype(
    [
        ("obs", np.float32, (OBS_SIZE,)),
        ("action", np.int64),
        ("reward", np.float32),
        ("next_obs", np.float32, (OBS_SIZE,)),
        ("terminated", np.bool_),
    ]
)
"""One transition, without any padding: what has to be stored, whoever stores it."""

_BLOCK = 1 << 16
_FILL, _UPDATES, ADDED = range(3)  # streams of random numbers that never meet


@dataclass(frozen=True)
class Workload:
    """Transitions and TD errors, as functions of a seed.

    Row k of a memory has k as its action, so that a drawn row says which one it is. The other
    values repeat after 65,536 rows: no library looks at them, and every contender of any size gets
    the same ones without ten million rows being made each time.

    Attributes
    ----------
    seed : int
        Of everything random here.

    Examples
    --------
    >>> rows = next(Workload(seed=0).chunks(size=3))
    >>> rows["action"], rows["obs"].shape
    (array([0, 1, 2]), (3, 16))
    """

    seed: int = 0

    def block(self) -> dict[str, Array]:
        """Return the values that the rows repeat: columns of 65,536 transitions, without action."""
        rng = np.random.default_rng((self.seed, _FILL))
        return {
            "obs": rng.standard_normal((_BLOCK, OBS_SIZE), np.float32),
            "reward": rng.standard_normal(_BLOCK, np.float32),
            "next_obs": rng.standard_normal((_BLOCK, OBS_SIZE), np.float32),
            "terminated": rng.random(_BLOCK) < 0.01,
        }

    def chunks(self, size: int) -> Iterator[dict[str, Array]]:
        """Yield the first ``size`` rows in order, as columns of at most 65,536 rows."""
        block = self.block()
        for first in range(0, size, _BLOCK):
            count = min(_BLOCK, size - first)
            columns = {name: column[:count] for name, column in block.items()}
            yield columns | {"action": np.arange(first, first + count)}

    def obs_of(self, rows: NDArray[np.int64]) -> Array:
        """Return the observations of rows, with a leading axis B."""
        return _observations(self.seed)[rows % _BLOCK]

    def errors(self, size: int) -> Floats:
        """Return the TD errors that a memory is filled with, float64[N].

        Student's t with three degrees of freedom: mostly small and now and then a very large
        one, as in training. No two have the same absolute value.
        """
        return np.random.default_rng((self.seed, _FILL, size)).standard_t(3, size)

    def updates(self, draw: int, calls: int, batch: int) -> Errors:
        """Return new TD errors for each of some updates, float32[calls, B].

        Parameters
        ----------
        draw : int
            Which of the endless sequence of such arrays: the number of the round.
        calls, batch : int
            The shape.
        """
        rng = np.random.default_rng((self.seed, _UPDATES, draw))
        return rng.standard_t(3, (calls, batch)).astype(np.float32)

    def steps(self, draw: int, count: int) -> list[dict[str, Any]]:
        """Return single transitions as an environment gives them: ``count`` mappings.

        Parameters
        ----------
        draw : int
            Which of the endless sequence of such lists: the number of the round.
        count : int
            How many.
        """
        rng = np.random.default_rng((self.seed, ADDED, draw))
        obs = rng.standard_normal((2, count, OBS_SIZE), np.float32)
        actions = rng.integers(4, size=count)
        rewards, ends = rng.standard_normal(count), rng.random(count) < 0.01
        return [
            {
                "obs": obs[0, k],
                "action": actions[k],
                "reward": float(rewards[k]),
                "next_obs": obs[1, k],
                "terminated": bool(ends[k]),
            }
            for k in range(count)
        ]


@cache
def _observations(seed: int) -> Array:
    """Return the observations of a block: a check asks for them once for each batch."""
    return Workload(seed).block()["obs"]


def described(workload: Workload) -> dict[str, str]:
    """Return what the data are, in words, for the file and the page."""
    return {
        "a transition": f"observation float32[{OBS_SIZE}], action int64, reward float32, next "
        f"observation, end of episode: {ROW.itemsize} bytes of data",
        "TD errors": "Student's t with 3 degrees of freedom, new ones for every update",
        "before timing": "the memory is full and every row has a random priority of its own",
        "seed": str(workload.seed),
    }


def stacked(steps: list[dict[str, Any]]) -> Mapping[str, Array]:
    """Return single transitions as columns with a leading axis B."""
    return {
        name: np.array([step[name] for step in steps], ROW.fields[name][0].base)  # type: ignore[index]
        for name in ROW.names or ()
    }
