"""Rows of transitions: fields, slots, bytes. It never sees a priority.

A row holds all fields of one transition side by side, so that drawing it touches the fewest
cache lines; a batch is copied into contiguous columns by one compiled loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from prioritized_replay import _kernels as kernels

__all__ = ["Field", "Storage"]

Array = NDArray[Any]
Ints = NDArray[np.int64]

WORD = 8
CACHE_LINE = 64
KEPT_LAYOUTS = 16
LARGEST = {np.dtype(f).itemsize: float(np.finfo(f).max) for f in ("float16", "float32", "float64")}


@dataclass(frozen=True)
class Field:
    """Shape and dtype of one field of a transition.

    Parameters
    ----------
    shape : tuple of int
        Shape in one transition; ``()`` for a scalar.
    dtype : dtype
        Boolean, integer or floating. It is stored in the machine's byte order.

    Raises
    ------
    ValueError
        If a length is not >= 1 or the dtype is of another kind, such as objects or strings.

    Examples
    --------
    >>> Field((84, 84), "uint8")
    Field(shape=(84, 84), dtype=dtype('uint8'))
    >>> Field((), object)
    Traceback (most recent call last):
    ValueError: dtype must be boolean, integer or floating, got object
    """

    shape: tuple[int, ...] = ()
    dtype: DTypeLike = "float32"

    def __post_init__(self) -> None:
        shape = (self.shape,) if isinstance(self.shape, int) else tuple(self.shape)
        if not all(isinstance(n, (int, np.integer)) and n >= 1 for n in shape):
            raise ValueError(f"shape must consist of integers >= 1, got {self.shape}")
        dtype = np.dtype(self.dtype)
        if dtype.kind not in "biuf" or dtype.itemsize > WORD:
            raise ValueError(f"dtype must be boolean, integer or floating, got {dtype}")
        object.__setattr__(self, "shape", tuple(int(n) for n in shape))
        object.__setattr__(self, "dtype", dtype.newbyteorder("="))

    @property
    def nbytes(self) -> int:
        """Bytes in one transition."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


class Storage:
    """N rows of named fields.

    Parameters
    ----------
    capacity : int
        Number of rows N.
    fields : mapping of str to Field
        Columns of a row.
    """

    def __init__(self, capacity: int, fields: Mapping[str, Field]) -> None:
        self.fields = dict(fields)
        # Widest items first: every column is then aligned without gaps between them.
        order = sorted(self.fields, key=lambda name: -np.dtype(self.fields[name].dtype).itemsize)
        offsets = {}
        size = 0
        for name in order:
            offsets[name] = size
            size += self.fields[name].nbytes
        self._drawn_offset = size  # one byte: has the row been drawn since it was written?
        self._row_size = -(-(size + 1) // WORD) * WORD
        dtype = np.dtype(
            {
                "names": order,
                "formats": [(f.dtype, f.shape) for f in (self.fields[name] for name in order)],
                "offsets": [offsets[name] for name in order],
                "itemsize": self._row_size,
            }
        )
        self._words = np.zeros(capacity * self._row_size // WORD, np.uint64)
        self._halves = self._words.view(np.uint32)
        self._bytes = self._words.view(np.uint8)
        self._rows = self._words.view(dtype)
        self._drawn = self._bytes[self._drawn_offset :: self._row_size]
        self.columns: dict[str, Array] = {name: self._rows[name] for name in self.fields}
        """Views of the columns: column ``name`` has shape (N, ``*shape``)."""
        self._offsets = offsets
        self._layouts: dict[int, tuple[NDArray[np.int64], int, list[tuple[str, int]]]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._words.nbytes

    def write(self, slot: int, values: Mapping[str, Array]) -> None:
        """Write one row of values already of their field's shape and dtype (:func:`cast`)."""
        for name, value in values.items():
            self.columns[name][slot] = value
        self._drawn[slot] = 0

    def write_many(self, first: int, count: int, values: Mapping[str, Array]) -> None:
        """Write ``count`` <= N rows from slot ``first`` on, modulo N, of columns cast already."""
        to_end = min(count, len(self._rows) - first)
        for name, column in self.columns.items():
            column[first : first + to_end] = values[name][:to_end]
            column[: count - to_end] = values[name][to_end:]
        self._drawn[first : first + to_end] = 0
        self._drawn[: count - to_end] = 0

    def copy(self, slot: int, other: Storage, other_slot: int) -> None:
        """Copy a row of another storage of the same fields."""
        self._rows[slot] = other._rows[other_slot]
        self._drawn[slot] = 0

    def read(self, slots: Ints, *, drawn: bool = False) -> dict[str, Array]:
        """Copy rows into fresh contiguous columns.

        Parameters
        ----------
        slots : int64[B]
            Rows to read.
        drawn : bool
            Whether to remember that these rows have been drawn.

        Returns
        -------
        dict of str to array
            Column ``name`` has shape (B, ``*shape``). All lie in one block of memory of their
            own, each at the start of a cache line.
        """
        count = slots.size
        if count not in self._layouts:
            if len(self._layouts) >= KEPT_LAYOUTS:
                self._layouts.clear()
            self._layouts[count] = self._layout(count)
        layout, size, places = self._layouts[count]
        words = np.empty(size // WORD, np.uint64)
        kernels.gather_rows(
            self._words, self._halves, self._bytes, slots,
            layout, self._row_size // WORD, self._drawn_offset if drawn else -1,
            words, words.view(np.uint32), words.view(np.uint8),
        )  # fmt: skip
        columns = {}
        for name, place in places:
            field = self.fields[name]
            columns[name] = np.ndarray((count, *field.shape), field.dtype, words, place)
        return columns

    def drawn(self, slots: Ints) -> NDArray[np.bool_]:
        """Return which of these rows have been drawn since they were written, bool[B]."""
        return np.not_equal(self._drawn[slots], 0)

    def _layout(self, count: int) -> tuple[NDArray[np.int64], int, list[tuple[str, int]]]:
        """Return the copy plan of a batch: see :func:`_kernels.gather_rows`."""
        lines = []
        places = []
        size = 0
        for name, field in self.fields.items():
            offset = self._offsets[name]
            width = next(w for w in (8, 4, 1) if offset % w == 0 and field.nbytes % w == 0)
            lines.append(
                (width, field.nbytes // width, self._row_size // width, offset // width,
                 size // width)
            )  # fmt: skip
            places.append((name, size))
            size += -(-field.nbytes * count // CACHE_LINE) * CACHE_LINE
        return np.array(lines, np.int64), size, places


def cast(name: str, value: Any, field: Field, lead: tuple[int, ...] = ()) -> Array:
    """Return ``value`` as an array of the field's dtype and shape, or raise.

    Parameters
    ----------
    name : str
        What the error blames.
    value : array_like
        Anything that NumPy takes for a numeric array.
    field : Field
        What it must become.
    lead : tuple of int
        Leading axes that it must have before the field's shape.

    Raises
    ------
    ValueError
        If the shape differs, or the cast would lose values: floating to integer, an integer
        out of range, a finite number to an infinite one. Floats are rounded to the field's
        precision.
    """
    dtype = field.dtype
    shape = lead + field.shape
    array = value if type(value) is np.ndarray else _as_array(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if array.dtype == dtype:
        return array
    assert isinstance(dtype, np.dtype)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numeric, got dtype {array.dtype}")
    if dtype.kind == "f":
        return _rounded(name, array, dtype)
    if array.dtype.kind == "f":
        raise ValueError(f"{name} must be of an integer dtype to become {dtype}, got {array.dtype}")
    if array.size and not np.can_cast(array.dtype, dtype, "safe"):
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        least, largest = int(array.min()), int(array.max())
        if least < low or largest > high:
            wrong = least if least < low else largest
            raise ValueError(f"{name} must be in [{low}, {high}] to become {dtype}, got {wrong}")
    return array.astype(dtype)


def _rounded(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Return numbers rounded to a floating dtype; a finite one must not become infinite."""
    if array.ndim == 0:  # the common case of a reward, without the cost of array functions
        number = float(array)
        if math.isfinite(number) and abs(number) > LARGEST[dtype.itemsize]:
            raise ValueError(f"{name} must fit {dtype}, got {number}")
    elif array.dtype.kind != "f" or array.dtype.itemsize > dtype.itemsize:
        lost = np.isfinite(array) & (np.abs(array) > LARGEST[dtype.itemsize])
        if lost.any():
            raise ValueError(f"{name} must fit {dtype}, got {array[lost].flat[0]}")
    return array.astype(dtype)


def _as_array(name: str, value: Any) -> Array:
    if hasattr(value, "detach"):  # a torch tensor, perhaps with a gradient or on a device
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} must be a numeric array: {error}") from None
