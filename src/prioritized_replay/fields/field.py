"""Fields: shape and dtype of one value of a transition, and the cast of what callers pass to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from prioritized_replay.fields.arguments import NO_ARRAY, WIDEST, Array, as_array, shown

LARGEST_ROW = 2**31 - 1  # bytes, for NumPy
MOST_AXES = 32  # of a field; NumPy has to have room for those of a batch
LARGEST = {
    2: math.nextafter(65520.0, 0.0),
    4: math.nextafter(2.0**128 - 2.0**103, 0.0),
    8: float(np.finfo(np.float64).max),
}
"""For each size of a float, the largest number that it does not round to infinity. From halfway
between its own largest one and the next that it would have, it does."""


@dataclass(frozen=True)
class Field:
    """Shape and dtype of one field of a transition.

    Parameters
    ----------
    shape : tuple of int
        Shape in one transition; ``()`` for a scalar.
    dtype : dtype
        Boolean, integer or floating. It is stored in the machine's byte order.
    stack_axis : int, optional
        Axis along which frames are stacked, each step shifting them by one; may be negative.
    per_sequence : bool
        Whether it is given with every step and kept only where a sequence begins, as the state of a
        recurrent network is. For a buffer of sequences.

    Raises
    ------
    ValueError
        If a length is not >= 1, the dtype is of another kind, such as objects or strings, or there
        is no such axis.

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
    stack_axis: int | None = None
    per_sequence: bool = False

    def __post_init__(self) -> None:
        given: Any = self.shape
        try:
            shape = (given,) if isinstance(given, (int, np.integer)) else tuple(given)
        except TypeError:
            shape = (0,)
        if not all(_is_length(n) for n in shape):
            raise ValueError(f"shape must consist of integers >= 1, got {shown(given)}")
        try:
            dtype = np.dtype(self.dtype)
        except NO_ARRAY:
            raise ValueError(f"dtype must be a NumPy dtype, got {shown(self.dtype)}") from None
        if dtype.kind not in "biuf" or dtype.itemsize > WIDEST:
            raise ValueError(f"dtype must be boolean, integer or floating, got {dtype}")
        if math.prod(map(int, shape)) * dtype.itemsize > LARGEST_ROW or len(shape) > MOST_AXES:
            raise ValueError(
                f"shape must have at most {MOST_AXES} axes and take at most {LARGEST_ROW} bytes, "
                f"got {shown(given)}"
            )
        object.__setattr__(self, "shape", tuple(int(n) for n in shape))
        object.__setattr__(
            self, "dtype", np.dtype(dtype.type)
        )  # NumPy's own instance: see FieldCaster
        if not isinstance(self.per_sequence, (bool, np.bool_)):
            raise ValueError(f"per_sequence must be True or False, got {shown(self.per_sequence)}")
        object.__setattr__(self, "per_sequence", bool(self.per_sequence))
        axis = self.stack_axis
        if axis is None:
            return
        whole = isinstance(axis, (int, np.integer)) and not isinstance(axis, bool)
        if not whole or not -len(shape) <= axis < len(shape):
            raise ValueError(f"stack_axis must be an axis of shape {self.shape}, got {shown(axis)}")
        object.__setattr__(self, "stack_axis", int(axis) % len(shape))

    def __reduce__(self) -> Any:
        # By its constructor: the dtype that pickle makes is not NumPy's own instance.
        return type(self), (self.shape, self.dtype, self.stack_axis, self.per_sequence)

    def __repr__(self) -> str:
        stack = "" if self.stack_axis is None else f", stack_axis={self.stack_axis}"
        kept = ", per_sequence=True" if self.per_sequence else ""
        return f"Field(shape={self.shape}, dtype={self.dtype!r}{stack}{kept})"

    @property
    def nbytes(self) -> int:
        """Bytes in one transition."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


def _is_length(value: Any) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and value >= 1


class FieldCaster:
    """What :func:`cast` does to the values of one field, at less cost for those that fit as is.

    Parameters
    ----------
    name : str
        What an error blames.
    field : Field
        What values must become.
    """

    __slots__ = (
        "_as_is",
        "_dtype",
        "_field",
        "_high",
        "_low",
        "_name",
        "_numbers",
        "_plain",
        "_shape",
    )

    def __init__(self, name: str, field: Field) -> None:
        self._name = name
        self._field = field
        dtype = np.dtype(field.dtype)
        self._dtype = dtype
        self._shape = field.shape
        self._as_is: tuple[type, ...] = ()  # kinds of number that fit whatever they are
        self._numbers: tuple[type, ...] = ()  # and those that fit between two bounds,
        self._plain: type = int  # as this: NumPy's may warn or raise when they are assigned
        self._low = self._high = 0.0
        if field.shape:
            return
        self._as_is = (dtype.type, bool) if dtype.kind == "b" else (dtype.type,)
        if dtype.kind == "f":
            self._plain = float
            self._numbers = (float, int, np.float64, np.int64)
            self._low, self._high = -LARGEST[dtype.itemsize], LARGEST[dtype.itemsize]
        elif dtype.kind in "iu":
            self._numbers = (int,)
            self._low, self._high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)

    def accept(self, value: Any) -> Any:
        """Return a number or an array that can be assigned to an element of the column."""
        kind = type(value)
        if kind is np.ndarray:
            if value.dtype is self._dtype and value.shape == self._shape:
                return value
        elif kind in self._as_is:
            return value
        elif kind in self._numbers and self._low <= value <= self._high:
            return self._plain(value)
        return cast(self._name, value, self._field)


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
    array = value if type(value) is np.ndarray else as_array(name, value)
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
    # The common case of a reward, without the cost of array functions.
    if array.ndim == 0 and array.dtype.itemsize <= WIDEST:
        number = float(array)
        if math.isfinite(number) and abs(number) > LARGEST[dtype.itemsize]:
            raise ValueError(f"{name} must fit {dtype}, got {number}")
    elif array.dtype.kind != "f" or array.dtype.itemsize > dtype.itemsize:
        with np.errstate(over="ignore"):  # of a long double
            size = np.abs(array.astype(np.float64))
        lost = np.isfinite(array) & (size > LARGEST[dtype.itemsize])
        if lost.any():
            raise ValueError(f"{name} must fit {dtype}, got {array[lost].flat[0]}")
    return array.astype(dtype)


def flag(name: str, value: Any) -> bool:
    """Return a truth value given as a Boolean, or as an integer 0 or 1."""
    if value is False or value is True:
        return value
    if type(value) is np.bool_:
        return bool(value)
    return bool(cast(name, value, Field((), "bool")))
