"""Values that no function expects, and what can be done to good ones; all from a seed."""

import random
import warnings
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np


class UserError(Exception):
    """Raised by the objects below; whoever calls their methods may let it pass."""


class RaisingArray:
    def __array__(self, *arguments, **options):
        raise UserError


class RaisingNumber:
    def __float__(self):
        raise UserError

    def __index__(self):
        raise UserError

    def __bool__(self):
        raise UserError


class RaisingMapping(Mapping):
    def __getitem__(self, key):
        raise UserError

    def __iter__(self):
        raise UserError

    def __len__(self):
        return 3


class NoArray:
    def __array__(self, *arguments, **options):
        return "no array"


class LyingSequence:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise IndexError


class LyingTensor:
    detach = 5


class Subclass(np.ndarray):
    pass


def endless():
    values = []
    values.append(values)
    return values


def deep():
    value = 0.0
    for _ in range(80):
        value = [value]
    return value


NUMBERS = [
    *(0, 1, -1, 2, 3, 255, 256, 2**31, 2**32 + 1, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63)),
    *(-(2**63) - 1, 10**30, -(10**400), 10**400, 0.5, -0.5, 1.5, -0.0, 1e-300, 5e-324, 1e39, -1e39),
    *(1e300, 1.7e308, float("nan"), float("inf"), float("-inf"), True, False, 1j, 0j),
    *(Decimal("0.5"), Decimal("NaN"), Fraction(1, 3)),
    *(
        np.float16(1.5),
        np.float16("inf"),
        np.float32(3e38),
        np.float64("nan"),
        np.longdouble("1e400"),
    ),
    *(np.int8(-1), np.uint8(255), np.int32(7), np.uint64(2**64 - 1), np.int64(3), np.bool_(True)),
    *(np.datetime64("2020-01-01"), np.datetime64("NaT")),
    *(np.str_("7"), np.bytes_(b"7"), np.array(2.0), np.array(3), np.array(None), np.array("x")),
]
OBJECTS = [
    None, "", "seven", "7", b"7", b"", (), [], {}, set(), {1, 2}, {1: 2}, {"obs": 1}, object(), len,
    int, float, np, np.float64, Ellipsis, NotImplemented, slice(3), range(3), range(0), iter([1]),
    [None], [[1.0], 2.0], [1, "a"], ["a", "b"], [{}], (1, (2, 3)), {"a": {"b": 1}},
    RaisingArray(), RaisingNumber(), RaisingMapping(), NoArray(), LyingSequence(), LyingTensor(),
    memoryview(b"1234"), bytearray(b"12"), endless(), deep(), [10**400], [2**63], [2**64, -1],
    np.zeros(0), np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((0,), np.int64), np.empty(2, object),
    np.array(["a", "b"]), np.array([b"ab"]), np.zeros(2, "datetime64[s]"), np.zeros(3, "f4, i8"),
    np.zeros((1,) * 32), np.broadcast_to(np.int64(1), (2**40,)), np.broadcast_to(0.5, (2**40, 3)),
    np.ma.masked_array([1.0, 2.0], [True, False]), np.ma.masked, np.recarray(2, "f4, i8"),
]  # fmt: skip
DTYPES = [
    "bool", "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float16", "float32",
    "float64", "longdouble", "complex64", "complex128", "object", "U3", "S2", "datetime64[s]",
    ">f4", ">i8", ">f8", ">u2", "m8[ns]", "V4", "f4, i8",
]  # fmt: skip
SPECIAL = [np.nan, np.inf, -np.inf, 1e39, -1e39, 1e300, 1.7e308, -1.0, 256.0, 0.5, 2.0**63, -0.0]


class Hostile:
    """A source of hostile values.

    Parameters
    ----------
    seed : int
    torch : module, optional
        To make tensors with.
    """

    def __init__(self, seed: int, torch: Any = None) -> None:
        self.random = random.Random(seed)
        self.numpy = np.random.default_rng(seed)
        self.torch = torch

    def number(self) -> Any:
        return self.random.choice(NUMBERS)

    def value(self) -> Any:
        """Return anything."""
        choice = self.random.random()
        if choice < 0.4:
            return self.number()
        if choice < 0.75:
            return self.random.choice(OBJECTS)
        return self.array()

    def array(self) -> Any:
        """Return an array of any shape and dtype."""
        shape = tuple(
            self.random.choice((0, 1, 1, 2, 2, 3, 4, 20)) for _ in range(self.random.randrange(5))
        )
        return self.changed(
            self.numpy.integers(-2, 5, shape).astype(self.random.choice(DTYPES[:11]))
        )

    def changed(self, good: Any) -> Any:
        """Return a good value with something changed, which may leave it good."""
        if isinstance(good, dict) and good:
            return self._changed_mapping(good)
        if isinstance(good, tuple) and good:
            parts = list(good)
            place = self.random.randrange(len(parts))
            parts[place] = self.changed(parts[place])
            return self.random.choice((tuple, list, lambda p: tuple(p[:-1]), lambda p: (*p, 0)))(
                parts
            )
        if isinstance(good, np.ndarray) and good.size < 100_000:
            return self._changed_array(good)
        return self.value()

    def _changed_mapping(self, good: dict[str, Any]) -> Any:
        parts = dict(good)
        name = self.random.choice(list(parts))
        choice = self.random.random()
        if choice < 0.6:
            parts[name] = self.changed(parts[name])
        elif choice < 0.7:
            del parts[name]
        elif choice < 0.8:
            parts[self.random.choice(("more", "", 3, None, "self"))] = self.value()
        elif choice < 0.9:
            parts = dict(reversed(parts.items()))
        else:
            return self.value()
        return parts

    def _changed_array(self, good: np.ndarray) -> Any:
        good = np.asarray(good)
        change = getattr(self, "_" + self.random.choice(CHANGES))
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return change(good)
            except Exception:  # NumPy or torch knows no such array
                return good

    # what can be done to an array

    def _dtype(self, array):
        dtype = self.random.choice(DTYPES)
        return array.astype(dtype)

    def _big_endian(self, array):
        return array.astype(array.dtype.newbyteorder(">")) if array.dtype.kind in "iuf" else array

    def _read_only(self, array):
        array = array.copy()
        array.flags.writeable = False
        return array

    def _strided(self, array):
        wide = np.repeat(array, 2, axis=-1) if array.ndim else array
        return wide[..., ::2] if array.ndim else wide

    def _backwards(self, array):
        return array[..., ::-1].copy()[..., ::-1] if array.ndim else array

    def _fortran(self, array):
        return np.asfortranarray(array)

    def _unaligned(self, array):
        room = np.zeros(array.nbytes + 1, np.uint8)
        view = np.ndarray(array.shape, array.dtype, room.data, 1) if array.nbytes else array
        view[...] = array
        return view

    def _broadcast(self, array):
        first = array.reshape(-1)[:1]
        return np.broadcast_to(first[0], array.shape) if first.size else array

    def _longer(self, array):
        return np.concatenate([array, array]) if array.ndim else array[None]

    def _shorter(self, array):
        return array[:-1] if array.ndim else np.zeros(0, array.dtype)

    def _axis(self, array):
        return array[None] if self.random.random() < 0.5 else array[..., None]

    def _no_axis(self, array):
        return array[0] if array.ndim and array.size else array.reshape(-1)

    def _transposed(self, array):
        return array.T

    def _special(self, array):
        if array.dtype.kind not in "iuf" or not array.size:
            return array
        array = array.copy() if array.dtype.kind == "f" else array.astype(np.float64)
        array.reshape(-1)[self.random.randrange(array.size)] = self.random.choice(SPECIAL)
        return array

    def _large(self, array):
        if array.dtype.kind not in "iu" or not array.size:
            return array
        array = array.astype(np.int64).copy()
        array.reshape(-1)[self.random.randrange(array.size)] = self.random.choice(
            (-1, 2**63 - 1, -(2**63), 2**31, 300, 10**6)
        )
        return array

    def _unsigned(self, array):
        if array.dtype.kind not in "iu" or not array.size:
            return array
        array = array.astype(np.uint64).copy()
        array.reshape(-1)[self.random.randrange(array.size)] = self.random.choice(
            (2**63, 2**64 - 1)
        )
        return array

    def _list(self, array):
        return array.tolist()

    def _ragged(self, array):
        return [*array.tolist(), [1, 2]] if array.ndim else [array.tolist(), [1]]

    def _tuple(self, array):
        return tuple(array.tolist()) if array.ndim else (array.item(),)

    def _masked(self, array):
        return np.ma.masked_array(array, np.ones(array.shape, bool))

    def _subclass(self, array):
        return array.view(Subclass)

    def _matrix(self, array):
        return np.asmatrix(np.asarray(array)) if array.ndim == 2 else array

    def _objects(self, array):
        array = array.astype(object)
        if array.size and self.random.random() < 0.5:
            array.reshape(-1)[-1] = self.random.choice((None, "x", [1], 10**400, RaisingNumber()))
        return array

    def _whole(self, array):
        return self.value()

    def _tensor(self, array):
        torch = self.torch
        if torch is None or array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            return array
        array = array.astype(array.dtype.newbyteorder("="))
        tensor = torch.from_numpy(np.ascontiguousarray(array).copy().reshape(array.shape))
        choice = self.random.randrange(6)
        if choice == 0:
            return tensor.to(torch.bfloat16)
        if choice == 1:
            return tensor.to(torch.float32).requires_grad_()
        if choice == 2:
            return tensor.to("meta")
        if choice == 3 and tensor.ndim:
            return tensor.float().to_sparse()
        if choice == 4:
            return tensor.to(torch.complex64)
        return tensor


CHANGES = [
    "dtype", "dtype", "big_endian", "read_only", "strided", "backwards", "fortran", "unaligned",
    "broadcast", "longer", "shorter", "axis", "no_axis", "transposed", "special", "special",
    "large", "unsigned", "list", "ragged", "tuple", "masked", "subclass", "matrix", "objects",
    "whole", "whole", "tensor", "tensor",
]  # fmt: skip
