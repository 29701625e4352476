"""Schedules: pure functions from a step to a value; nothing here counts or remembers.

They are values: equal where they say the same, and they can be pickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

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
    return Constant(_finite("value", value))


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
    >>> beta
    linear(0.5, 1.0, steps=200.0)
    """
    start = _finite("start", start)
    end = _finite("end", end)
    steps = _positive("steps", steps)
    if math.isinf(end - start):
        raise ValueError(f"end - start must be a finite number, got {start} to {end}")
    return Linear(start, end, steps)


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
    return Exponential(_positive("start", start), _positive("end", end), _positive("steps", steps))


@dataclass(frozen=True)
class Constant:
    """What :func:`constant` returns."""

    value: float

    def __call__(self, step: float) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"constant({self.value})"


@dataclass(frozen=True)
class Linear:
    """What :func:`linear` returns."""

    start: float
    end: float
    steps: float

    def __call__(self, step: float) -> float:
        step = _step(step)
        if step <= 0:
            return self.start
        if step >= self.steps:
            return self.end
        return self.start + (self.end - self.start) * (step / self.steps)

    def __repr__(self) -> str:
        return f"linear({self.start}, {self.end}, steps={self.steps})"


@dataclass(frozen=True)
class Exponential:
    """What :func:`exponential` returns."""

    start: float
    end: float
    steps: float

    def __call__(self, step: float) -> float:
        step = _step(step)
        if step <= 0:
            return self.start
        if step >= self.steps:
            return self.end
        # Logarithms of both, as end / start may be 0 or infinite.
        first = math.log(self.start)
        rise = math.log(self.end) - first
        value = math.exp(first + rise * (step / self.steps))
        return min(max(value, min(self.start, self.end)), max(self.start, self.end))

    def __repr__(self) -> str:
        return f"exponential({self.start}, {self.end}, steps={self.steps})"


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
