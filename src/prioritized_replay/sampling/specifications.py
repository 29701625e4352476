"""Specifications of a sampler as plain values that a checkpoint can hold, and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from typing import Any, Protocol, runtime_checkable

from prioritized_replay.note import Note
from prioritized_replay.sampling.distribution import Distribution, Ints

__all__ = ["Specification", "describe_sampler", "described_sampler"]


@runtime_checkable
class Specification(Protocol):
    """How to sample: a frozen dataclass of numbers and strings; the state lives in the buffer.

    It may have the fields ``draw``, ``uniform_mix``, ``recent_mix``, ``recent``, ``weights``,
    ``max_priority``, ``min_priority`` and ``eps`` of ``Proportional``, which the sampler reads;
    what it lacks has the default there, and ``eps`` is 0. A field ``alpha`` follows the ``alpha``
    of the buffer.

    A worked example is on the page :doc:`/own_sampler`, and in the file ``tests/pser.py``.
    """

    def distribution(self, capacity: int, counters: Ints, note: Note) -> Distribution:
        """Return the state of a buffer of N slots that samples so.

        Parameters
        ----------
        capacity : int
            Number of slots N.
        counters : int64[8]
            What is counted of the ring, see ``sampling/_ring_kernels.py``; to be read only.
        note : Note
            For a change that takes several steps: what brings it to its end if it is interrupted.
        """


def describe_sampler(specification: Specification) -> dict[str, Any]:
    """Return a specification in plain values."""
    assert is_dataclass(specification)
    assert not isinstance(specification, type)
    values = {
        name: value if isinstance(value, (str, bool, int)) else float(value)
        for name, value in asdict(specification).items()
    }
    return {"kind": type(specification).__name__, **values}


def described_sampler(plain: Any, kinds: Iterable[type[Specification]]) -> Specification:
    """Return the specification that :func:`describe_sampler` described, of one of these kinds.

    Raises
    ------
    ValueError, TypeError, KeyError
        If ``plain`` is no such description.
    """
    values = dict(plain)
    name = values.pop("kind")
    known: dict[str, Any] = {kind.__name__: kind for kind in kinds}
    if name not in known:
        raise ValueError(f"the sampler must be one of {', '.join(known)}, got {name!r}")
    specification: Specification = known[name](**values)
    if describe_sampler(specification) != plain:
        raise ValueError(f"a sampler must be described in full, got {plain}")
    return specification
