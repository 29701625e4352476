"""Where the steps of one call lie before they become transitions.

It knows columns, shapes and dtypes, and where a kernel finds them; it does not know what a step
leads to. What is staged belongs to nobody: a call that is interrupted leaves it for the next one to
overwrite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.fields.field import Field
from prioritized_replay.storage.memory import CACHE_LINE, WORD
from prioritized_replay.storage.rows import Rows
from prioritized_replay.streams import _step_kernels as kernels

__all__ = ["StagedColumn", "Staging"]

Array = NDArray[Any]
Ints = NDArray[np.int64]

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


class StagedColumn(NamedTuple):
    """One leaf of the steps of a call."""

    name: str
    field: Field
    """What it must be."""
    values: Array
    """array[E, ...] of the field's dtype, to be written."""
    wide: Array | None
    """float64[E, ...], to be written instead by who has float64 values for a float32 field."""


class Staging:
    """Room for one step of each of E streams, and the plan of it that kernels read.

    Parameters
    ----------
    fields : mapping of str to Field
        The leaves that a caller gives, as they are kept in rows.
    obs, next_obs : sequence of str
        Which of them belong to the two observations, in the same order.
    rows : Rows
        Where steps and transitions will lie.
    capacity : int
        Number of transitions N.
    streams : int
        Number of streams E.
    n_step : int
        Steps n of a whole window.
    gamma : float
        Discount of one step.
    limit : float
        The largest return that the column of rewards can hold.
    compared : collection of str
        Leaves of observations that a kernel is to compare with the ends of episodes, and keep.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        obs: Sequence[str],
        next_obs: Sequence[str],
        rows: Rows,
        capacity: int,
        streams: int,
        n_step: int,
        gamma: float,
        limit: float,
        compared: Sequence[str],
    ) -> None:
        size = CACHE_LINE  # no column begins at word 0, which stands for none

        def room(nbytes: int) -> int:
            nonlocal size
            start = size
            size += -(-nbytes // CACHE_LINE) * CACHE_LINE
            return start

        parts = {
            "flags": room(3 * streams),
            "named": room(WORD * streams),
            "entries": room(WORD * streams),
            "kept": room(WORD * (2 + 2 * streams + (4 * streams * n_step if n_step > 1 else 0))),
            "rewards": room(WORD * streams),
        }
        places = {name: room(field.nbytes * streams) for name, field in fields.items()}
        wide = {
            name: room(2 * field.nbytes * streams)
            for number, (name, field) in enumerate(fields.items())
            if field.dtype == FLOAT32 and field.nbytes < WIDEST_VALUE and number < 63
        }
        memory = np.zeros(size // WORD + CACHE_LINE // WORD, np.uint64)
        shift = (-memory.ctypes.data % CACHE_LINE) // WORD
        self.block = memory[shift : shift + size // WORD]
        """uint64[...]"""
        self.flags: NDArray[np.bool_] = self._view(parts["flags"], (3, streams), np.bool_)
        """bool[3, E]: terminated, truncated, and whether a row may be a reset step."""
        self.flags[2] = True
        self.named: Ints = self._view(parts["named"], (streams,), np.int64)
        """int64[E]: the streams of the rows, where not all are given in order."""
        self.entries = self._view(parts["entries"], (streams,), np.float64)
        """float64[E]: priorities to enter with, NaN for none."""
        self.kept: Ints = self._view(parts["kept"], (streams + 2,), np.int64)
        """int64[2 + E], written by kernels: whether the work is done, how many rows are steps, and
        which these are."""
        reward = np.dtype(fields["reward"].dtype)
        self.rewards: Array | None = None
        """float64[E]: rewards of a dtype that no kernel reads once more; None for others."""
        if reward.itemsize in (4, 8) and reward.kind == "f":
            rewards = places["reward"] // reward.itemsize
        else:
            rewards = parts["rewards"] // WORD
            self.rewards = self._view(parts["rewards"], (streams,), np.float64)
        plan = np.zeros((kernels.COLUMNS + len(fields), 8), np.int64)
        plan[0] = (
            rows.row_size // WORD, rows.mark_offset, capacity, n_step, streams,
            rows.offsets["reward"] // reward.itemsize, reward.itemsize if reward.kind == "f" else 0,
            rows.offsets["discount"] // 4,
        )  # fmt: skip
        plan[1, :6] = (
            rows.offsets["terminated"], parts["flags"],
            parts["named"] // WORD, parts["entries"] // WORD, parts["kept"] // WORD + 1, rewards,
        )  # fmt: skip
        plan[1, 6:].view(np.float64)[:] = gamma, limit
        self.columns: dict[str, StagedColumn] = {}
        """By their names, in the order of the fields."""
        final = 0
        finals: dict[str, int] = {}
        for leaf, twin in zip(obs, next_obs, strict=True):
            if leaf in compared:
                finals[leaf] = finals[twin] = final
                final += -(-fields[leaf].nbytes * streams // WORD) * WORD
        self.final_words = final // WORD
        """Words that the ends of the episodes of all streams take."""
        self.final_places = {name: finals[name] for name in next_obs if name in finals}
        """The byte of these words where each compared leaf of ``next_obs`` begins."""
        flat = plan.reshape(-1)
        for number, (name, field) in enumerate(fields.items()):
            offset = rows.offsets[name]
            unit = next(w for w in (8, 4, 1) if offset % w == 0 and field.nbytes % w == 0)
            column = plan[kernels.COLUMNS + number]
            column[:5] = (
                unit, field.nbytes // unit, rows.row_size // unit, offset // unit,
                places[name] // unit,
            )  # fmt: skip
            column[kernels.FINAL] = finals[name] // unit if name in finals else -1
            role = kernels.OBS if name in obs else kernels.PLAIN
            column[kernels.ROLE] = kernels.NEXT_OBS if name in next_obs else role
            shape = (streams, *field.shape)
            self.columns[name] = StagedColumn(
                name,
                field,
                self._view(places[name], shape, field.dtype),
                self._view(wide[name], shape, FLOAT64) if name in wide else None,
            )
            column[kernels.WIDE] = wide.get(name, 0) // WORD
        self.plan: Ints = flat
        """int64[...], see :mod:`._step_kernels`."""

    def _view(self, start: int, shape: tuple[int, ...], dtype: Any) -> Array:
        return np.ndarray(shape, dtype, self.block, start)


WIDEST_VALUE = 1 << 16  # bytes of a float32 value of which a float64 copy may be staged
