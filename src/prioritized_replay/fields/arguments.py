"""What callers pass, turned into what the library works with, or refused by name.

A cast never loses more than a float's last digits, and an error names the argument, what is
allowed and the value that came. Nothing here knows of buffers.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
WIDEST = 8  # bytes of a number
MOST = 2**40  # of anything that is counted
NO_ARRAY = (
    *(TypeError, ValueError, ArithmeticError, LookupError),
    *(AttributeError, RuntimeError),
)
"""What NumPy and torch raise about values that are none of theirs."""
LONGEST = 200  # characters of a value in an error
INT64, FLOAT32, FLOAT64 = np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.float64)
FIT: tuple[Literal["C", "A", "W", "E"], ...] = ("C", "A", "W", "E")
"""What kernels are compiled for: any other kind of array would have to be compiled for anew."""


def as_array(name: str, value: Any) -> Array:
    """Return an array of whatever NumPy or torch can make one of."""
    try:
        if hasattr(value, "detach"):  # a torch tensor, perhaps with a gradient or on a device
            value = value.detach().cpu()
            if str(value.dtype) == "torch.bfloat16":  # which NumPy does not know
                value = value.float()
        return np.asarray(value)
    except Exception as error:
        if isinstance(error, NO_ARRAY) or type(error).__module__.startswith("numpy."):
            raise ValueError(f"{name} must be a numeric array: {_line(error)}") from None
        raise


def shown(value: Any) -> str:
    """Return a value as an error message shows it: on one line, and not all of a long one."""
    return _line(repr(value))


def _line(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def integer(name: str, value: Any, low: int = 1) -> int:
    """Return an integer >= low, and small enough to count bytes with."""
    if type(value) is int and low <= value <= MOST:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise ValueError(f"{name} must be an integer >= {low}, got {shown(value)}")
    if value > MOST:
        raise ValueError(f"{name} must be <= {MOST}, got {shown(value)}")
    return int(value)


def number(name: str, value: Any, high: float = math.inf) -> float:
    """Return a finite number in [0, high].

    Raises
    ------
    ValueError
        It is none.
    TypeError
        It is a schedule, or anything else to be called.
    """
    if type(value) is float and 0.0 <= value <= high < math.inf:
        return value
    if callable(value):
        hint = f": call it with a step: {name}={name}(step)" if name.isidentifier() else ""
        raise TypeError(f"{name} must be a number, got {shown(value)}{hint}")
    result = real(value)
    if not (0.0 <= result <= high and math.isfinite(result)):
        wide = ">= 0" if -math.inf < result < 0.0 else ">= 0 and finite"
        allowed = f"in [0, {high:g}]" if math.isfinite(high) else wide
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    return result


def positive(name: str, value: Any) -> float:
    """Return a finite number > 0.

    Raises
    ------
    ValueError, TypeError
        As :func:`number`.
    """
    result = real(value)
    if not callable(value) and not (result > 0.0 and math.isfinite(result)):
        allowed = "> 0" if -math.inf < result <= 0.0 else "> 0 and finite"
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    return number(name, value)


def real(value: Any) -> float:
    """Return a real number as a float, NaN for anything else."""
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        return float(array) if array.ndim == 0 and array.dtype.kind in "biuf" else math.nan
    try:
        value = value.detach() if hasattr(value, "detach") else value  # or torch warns
        return math.nan if isinstance(value, (str, bytes)) else float(value)
    except NO_ARRAY:
        return math.nan


def ids(ids: Any) -> Ints:
    """Return ids, arrays or tensors, as int64[B] fit for a kernel."""
    if type(ids) is np.ndarray and ids.dtype is INT64 and ids.ndim == 1 and ids.flags.carray:
        return ids
    array = as_array("ids", ids)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise ValueError(
            f"ids must be integers of shape (B,), got {array.dtype} of shape {array.shape}"
        )
    if not array.size:
        return np.zeros(0, INT64)
    if array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"ids must fit int64, got {array.max()}")
    return np.require(array, INT64, FIT)


def errors_of_steps(td_errors: Any, count: int, steps: int) -> Floats:
    """Return errors of sequences, float64[count], or of their steps, float64[count, steps]."""
    array = as_array("td_errors", td_errors)
    if array.shape == (count, steps):
        return errors(array.reshape(-1), count * steps).reshape(count, steps)
    if array.shape not in ((count,), (count, 1)):
        raise ValueError(
            f"td_errors must have shape ({count},) or ({count}, {steps}), got {array.shape}"
        )
    return errors(array, count)


def errors(td_errors: Any, count: int, name: str = "td_errors") -> Floats:
    """Return errors, arrays or tensors, as float64[count] fit for a kernel.

    Whether they are finite is for the sampler to see.
    """
    if type(td_errors) is np.ndarray and td_errors.dtype is FLOAT32 and td_errors.shape == (count,):
        return td_errors.astype(FLOAT64)
    array = as_array(name, td_errors)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be real numbers, got dtype {array.dtype}")
    allowed = {(count,), (count, 1)} | ({()} if count == 1 and name == "td_error" else set())
    if array.shape not in allowed:
        raise ValueError(f"{name} must have shape ({count},) or ({count}, 1), got {array.shape}")
    if array.dtype.itemsize > WIDEST:
        with np.errstate(over="ignore"):  # it may become infinite, which is refused later
            array = array.astype(FLOAT64)
    return np.require(array.reshape(count), FLOAT64, FIT)
