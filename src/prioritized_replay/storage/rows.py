"""Rows of transitions: fields, slots, bytes. It never sees a priority.

A row holds all fields of one transition side by side, so that drawing it touches the fewest
cache lines.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.fields.field import Field
from prioritized_replay.storage.marks import MARKS
from prioritized_replay.storage.memory import WORD, Memory, Words

__all__ = ["Rows"]

Array = NDArray[Any]
Ints = NDArray[np.int64]


class Rows:
    """N rows of named fields.

    Parameters
    ----------
    capacity : int
        Number of rows N.
    fields : mapping of str to Field
        Schema of a row.
    memory : Memory, optional
        Where to keep the rows; in RAM if None.
    name : str
        Of their words in that memory.

    Raises
    ------
    OverLimit, OSError
        If the memory has no room for them.
    """

    def __init__(
        self,
        capacity: int,
        fields: Mapping[str, Field],
        memory: Memory | None = None,
        name: str = "rows",
    ) -> None:
        self.fields = dict(fields)
        # Widest items first: every column is then aligned without gaps between them.
        order = sorted(self.fields, key=lambda name: -np.dtype(self.fields[name].dtype).itemsize)
        self.offsets: dict[str, int] = {}
        """The byte of a row where each field begins."""
        size = 0
        for column in order:
            self.offsets[column] = size
            size += self.fields[column].nbytes
        self.mark_offset = size
        """The byte of a row that holds its marks."""
        self.row_size = -(-(size + 1) // WORD) * WORD
        """Bytes of a row, a multiple of 8."""
        dtype = np.dtype(
            {
                "names": order,
                "formats": [(f.dtype, f.shape) for f in map(self.fields.__getitem__, order)],
                "offsets": list(self.offsets.values()),
                "itemsize": self.row_size,
            }
        )
        memory = Memory() if memory is None else memory
        self.words: Words = memory.words(name, capacity * self.row_size // WORD)
        """All rows, one after the other."""
        self._rows = self.words.view(dtype)
        self._marks = self.words.view(np.uint8)[self.mark_offset :: self.row_size]
        self.columns: dict[str, Array] = {name: self._rows[name] for name in self.fields}
        """Views of the columns: column ``name`` has shape (N, ``*shape``)."""
        self._numbered = list(enumerate(self.columns.values()))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.words.nbytes

    def write(self, slot: int, values: Sequence[Any]) -> None:
        """Write one row: values that their fields accept, in the order of the fields."""
        for place, column in self._numbered:  # two thirds of the time of zip
            column[slot] = values[place]
        self._marks[slot] = 0

    def __len__(self) -> int:
        """Return the number of rows N."""
        return len(self._rows)

    def write_rows(self, slots: Ints, values: Mapping[str, Array]) -> None:
        """Write the rows at K different slots, of columns cast already."""
        for name, column in self.columns.items():
            column[slots] = values[name]
        self._marks[slots] = 0

    def packed(self, values: Mapping[str, Array], marks: Array | int) -> Words:
        """Return B rows of columns cast already, as words of their own; see :meth:`place`.

        ``marks`` are those of each, uint8[B], or one for all.
        """
        count = len(next(iter(values.values())))
        words = np.zeros(count * self.row_size // WORD, np.uint64)
        rows = words.view(self._rows.dtype)
        for name in self.fields:
            rows[name] = values[name]
        words.view(np.uint8)[self.mark_offset :: self.row_size] = marks
        return words

    def place(self, first: int, words: Words) -> None:
        """Put B <= N rows from :meth:`packed` into the slots from ``first`` on, modulo N."""
        size = self.row_size // WORD
        to_end = min(words.size, (len(self._rows) - first) * size)
        self.words[first * size : first * size + to_end] = words[:to_end]
        self.words[: words.size - to_end] = words[to_end:]

    def pieces(self, name: str, bounds: Iterable[tuple[int, int, Hashable]]) -> list[Piece]:
        """Return rows as pieces of a checkpoint, without their marks.

        Parameters
        ----------
        name : str
            Of the pieces.
        bounds : iterable of (int, int, version)
            Of each piece the first slot, the one after its last, and the version.
        """
        return [
            Piece(f"{name}-{number:06d}", version, partial(self._copied, first, stop))
            for number, (first, stop, version) in enumerate(bounds)
        ]

    def restore(
        self, name: str, reader: Reader, bounds: Iterable[tuple[int, int, Hashable]]
    ) -> None:
        """Read rows from a checkpoint; see :meth:`pieces`."""
        for number, (first, stop, _) in enumerate(bounds):
            piece = f"{name}-{number:06d}"
            rows = self._rows[first:stop]
            reader.fill(piece, rows)
            for column in self.columns.values():
                if column.dtype == np.bool_ and (column[first:stop].view(np.uint8) > 1).any():
                    raise reader.error(f"must not have other truth values than 0 and 1 in {piece}")
            self._marks[first:stop] = 0

    def marks(self, count: int) -> NDArray[np.uint8]:
        """Return the marks of the first rows, a bit each, uint8[4, ceil(count / 8)]."""
        marks = self._marks[:count].copy()
        return np.stack([np.packbits(marks & mark, bitorder="little") for mark in MARKS])

    def set_marks(self, marks: NDArray[np.uint8], count: int) -> None:
        """Restore the marks that :meth:`marks` returned."""
        self._marks[:count] = 0
        for mark, bits in zip(MARKS, marks, strict=True):
            self._marks[:count] |= mark * np.unpackbits(bits, count=count, bitorder="little")

    def _copied(self, first: int, stop: int) -> Array:
        size = self.row_size // WORD
        words = self.words[first * size : stop * size].copy()
        words.view(np.uint8)[self.mark_offset :: self.row_size] = 0
        return words.view(self._rows.dtype)

    def marked(self, mark: int, slots: Ints) -> NDArray[np.bool_]:
        """Return which of these rows have a mark, bool[B]."""
        marked: NDArray[np.bool_] = (self._marks[slots] & mark) != 0
        return marked
