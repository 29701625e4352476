"""What a buffer was built with, as plain values that JSON has, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from prioritized_replay.casting import Field
from prioritized_replay.samplers import Proportional, RankBased, Specification, Uniform
from prioritized_replay.structure import Nested

__all__ = ["describe_fields", "describe_sampler", "described_fields", "described_sampler"]

DTYPES = (
    *("bool", "float16", "float32", "float64"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
KINDS = {kind.__name__: kind for kind in (Uniform, Proportional, RankBased)}


def describe_fields(nested: Nested) -> dict[str, Any]:
    """Return a field, or a mapping or tuple of such, in plain values."""
    if isinstance(nested, Field):
        dtype = np.dtype(nested.dtype)
        axis = nested.stack_axis
        return {"shape": list(nested.shape), "dtype": dtype.name, "stack_axis": axis}
    if isinstance(nested, Mapping):
        return {"mapping": {key: describe_fields(part) for key, part in nested.items()}}
    return {"tuple": [describe_fields(part) for part in nested]}


def described_fields(plain: Any, most_bytes: int) -> Nested:
    """Return what :func:`describe_fields` was told of, if no field takes more bytes than that.

    Raises
    ------
    ValueError, TypeError, KeyError
        If nothing is described by that.
    """
    if plain.keys() == {"mapping"}:
        return {key: described_fields(part, most_bytes) for key, part in plain["mapping"].items()}
    if plain.keys() == {"tuple"}:
        return tuple(described_fields(part, most_bytes) for part in plain["tuple"])
    if plain.keys() != {"shape", "dtype", "stack_axis"}:
        raise ValueError("a field must have shape, dtype and stack_axis")
    name, shape = plain["dtype"], tuple(plain["shape"])
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    if not all(type(length) is int for length in shape) or math.prod(shape) * 8 > most_bytes:
        raise ValueError(f"shape must consist of integers of a product within memory, got {shape}")
    return Field(shape, name, plain["stack_axis"])


def describe_sampler(specification: Specification) -> dict[str, Any]:
    """Return a specification in plain values."""
    values = {
        name: value if isinstance(value, str) else float(value)
        for name, value in asdict(specification).items()
    }
    return {"kind": type(specification).__name__, **values}


def described_sampler(plain: Any) -> Specification:
    """Return what :func:`describe_sampler` was told of; it raises as a specification does."""
    values = dict(plain)
    kind: Any = KINDS[values.pop("kind")]
    specification: Specification = kind(**values)
    if describe_sampler(specification) != plain:
        raise ValueError(f"a sampler must be described in full, got {plain}")
    return specification
