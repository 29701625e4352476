"""Schedules: pure functions from a step to a value; nothing here counts or remembers."""

from __future__ import annotations

import math
from collections.abc import Callable

from prioritized_replay.fields import arguments

__all__ = ["Schedule", "constant", "exponential", "linear"]

Schedule = Callable[[float], float]
"""What a schedule is: ``step -> value``. The step may be any count the caller keeps."""


def constant(value: float) -> Schedule:
    """Return the schedule that is ``value`` at every step.

    Examples
    --------
    >>> constant(0.5)(1_000)
    0.5
    """
    value = _finite("value", value)
    return lambda step: value


def linear(start: float, end: float, steps: float) -> Schedule:
    """Return the straight line from ``start`` at step 0 to ``end`` at step ``steps``.

    Before step 0 the value is ``start``, after ``steps`` it is ``end``. The paper anneals beta
    this way, reaching 1 only at the end of learning (Schaul et al. 2015, section 3.4).

    Parameters
    ----------
    start, end : float
        Values at the two ends.
    steps : float
        Length in whatever unit the schedule will be called with, > 0.

    Returns
    -------
    Schedule
        ``step -> value``.

    Raises
    ------
    ValueError
        If a value is not finite, nor ``end - start``, or ``steps`` is not > 0.

    Examples
    --------
    >>> beta = linear(0.5, 1.0, steps=200)
    >>> beta(0), beta(100), beta(200), beta(10_000)
    (0.5, 0.75, 1.0, 1.0)
    """
    start = _finite("start", start)
    end = _finite("end", end)
    steps = _positive("steps", steps)
    rise = end - start
    if math.isinf(rise):
        raise ValueError(f"end - start must be a finite number, got {start} to {end}")

    def value(step: float) -> float:
        step = _step(step)
        if step <= 0:
            return start
        if step >= steps:
            return end
        return start + rise * (step / steps)

    return value


def exponential(start: float, end: float, steps: float) -> Schedule:
    """Return the curve that multiplies by the same factor every step, from ``start`` to ``end``.

    Parameters
    ----------
    start, end : float
        Values at step 0 and at step ``steps``, both > 0; clamped outside.
    steps : float
        Length in whatever unit the schedule will be called with, > 0.

    Returns
    -------
    Schedule
        ``step -> value``.

    Raises
    ------
    ValueError
        If an end is not a finite number > 0 or ``steps`` is not > 0.

    Examples
    --------
    >>> rate = exponential(1e-2, 1e-4, steps=10)
    >>> rate(0), round(rate(5), 12), rate(10), rate(99)
    (0.01, 0.001, 0.0001, 0.0001)
    """
    start = _positive("start", start)
    end = _positive("end", end)
    steps = _positive("steps", steps)
    least, most = min(start, end), max(start, end)
    # Logarithms of both, as end / start may be 0 or infinite.
    first, rise = math.log(start), math.log(end) - math.log(start)

    def value(step: float) -> float:
        step = _step(step)
        if step <= 0:
            return start
        if step >= steps:
            return end
        return min(max(math.exp(first + rise * (step / steps)), least), most)

    return value


def _step(step: float) -> float:
    """Return a step as Python's own number; infinite ones are beyond every end."""
    if type(step) is int:
        return step
    number = arguments.real(step)
    if math.isnan(number):
        raise ValueError(f"step must be a number, got {arguments.shown(step)}")
    return number


def _finite(name: str, value: float) -> float:
    number = arguments.real(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {arguments.shown(value)}")
    return number


def _positive(name: str, value: float) -> float:
    number = arguments.real(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be a finite number > 0, got {arguments.shown(value)}")
    return number
