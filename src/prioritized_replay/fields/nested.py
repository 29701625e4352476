"""What a buffer was built with, as plain values that JSON has, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from prioritized_replay.fields.arguments import shown
from prioritized_replay.fields.field import Field

Nested = Field | Mapping[str, "Nested"] | tuple["Nested", ...]
"""A field, or a mapping (from a Dict space) or tuple (from a Tuple space) of such."""


class Structure:
    """The structure of one named value of a transition.

    Parameters
    ----------
    name : str
        Its name, which begins the names of its leaves: ``obs``, ``obs['image']``, ``obs[0]``.
    nested : Field, mapping or tuple
        What it consists of.

    Attributes
    ----------
    leaves : dict of str to Field
        Its fields by name, from left to right.
    plain : bool
        Whether it is a single field.

    Raises
    ------
    ValueError
        If it holds something else than fields, nothing at all, or keys that are not strings.

    Examples
    --------
    >>> obs = Structure("obs", {"image": Field((8, 8)), "speed": (Field(), Field())})
    >>> list(obs.leaves)
    ["obs['image']", "obs['speed'][0]", "obs['speed'][1]"]
    >>> obs.take_apart({"image": 1, "speed": (2, 3)})
    [1, 2, 3]
    >>> obs.put_together(iter([1, 2, 3]))
    {'image': 1, 'speed': (2, 3)}
    """

    def __init__(self, name: str, nested: Nested) -> None:
        self.name = name
        try:
            self.nested = _frozen(name, nested)
        except RecursionError:
            raise ValueError(f"fields[{name!r}] must not be nested so deeply") from None
        self.plain = isinstance(self.nested, Field)
        self.leaves: dict[str, Field] = dict(_leaves(name, self.nested))

    def take_apart(self, value: Any, name: str | None = None) -> list[Any]:
        """Return the leaves of a value, from left to right.

        Parameters
        ----------
        value
            Of this structure; a list counts as a tuple.
        name : str, optional
            What an error calls the value, by default its own name.

        Raises
        ------
        ValueError
            If a mapping has other keys, or a tuple another length.
        """
        return list(_parts(name or self.name, self.nested, value))

    def put_together(self, columns: Iterator[Any]) -> Any:
        """Return dictionaries and tuples in which the next columns take the places of leaves."""
        return _together(self.nested, columns)


def _frozen(name: str, nested: Nested) -> Nested:
    """Return a copy of dictionaries and tuples that nobody else holds."""
    if isinstance(nested, Field):
        return nested
    if isinstance(nested, Mapping) and nested:
        if wrong := [key for key in nested if not isinstance(key, str)]:
            raise ValueError(f"fields[{name!r}] must have strings as keys, got {shown(wrong[0])}")
        return {key: _frozen(f"{name}[{key!r}]", part) for key, part in nested.items()}
    if isinstance(nested, (tuple, list)) and nested:
        return tuple(_frozen(f"{name}[{k}]", part) for k, part in enumerate(nested))
    raise ValueError(
        f"fields[{name!r}] must be a Field, or a mapping or tuple of at least one, "
        f"got {shown(nested)}"
    )


def _leaves(name: str, nested: Nested) -> Iterator[tuple[str, Field]]:
    if isinstance(nested, Field):
        yield name, nested
    elif isinstance(nested, Mapping):
        for key, part in nested.items():
            yield from _leaves(f"{name}[{key!r}]", part)
    else:
        for k, part in enumerate(nested):
            yield from _leaves(f"{name}[{k}]", part)


def _parts(name: str, nested: Nested, value: Any) -> Iterator[Any]:
    if isinstance(nested, Field):
        yield value
    elif isinstance(nested, Mapping):
        if not isinstance(value, Mapping) or value.keys() != nested.keys():
            got: Any = sorted(map(str, value)) if isinstance(value, Mapping) else type(value)
            raise ValueError(f"{name} must be a mapping with keys {sorted(nested)}, got {got}")
        for key, part in nested.items():
            yield from _parts(f"{name}[{key!r}]", part, value[key])
    else:
        if not isinstance(value, (tuple, list)) or len(value) != len(nested):
            got = len(value) if isinstance(value, (tuple, list)) else type(value)
            raise ValueError(f"{name} must be a tuple of {len(nested)}, got {got}")
        for k, part in enumerate(nested):
            yield from _parts(f"{name}[{k}]", part, value[k])


def _together(nested: Nested, columns: Iterator[Any]) -> Any:
    if isinstance(nested, Field):
        return next(columns)
    if isinstance(nested, Mapping):
        return {key: _together(part, columns) for key, part in nested.items()}
    return tuple(_together(part, columns) for part in nested)


DTYPES = (
    *("bool", "float16", "float32", "float64"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


def describe_fields(nested: Nested) -> dict[str, Any]:
    """Return a field, or a mapping or tuple of such, in plain values."""
    if isinstance(nested, Field):
        dtype = np.dtype(nested.dtype)
        return {
            "shape": list(nested.shape),
            "dtype": dtype.name,
            "stack_axis": nested.stack_axis,
            "per_sequence": nested.per_sequence,
        }
    if isinstance(nested, Mapping):
        return {"mapping": {key: describe_fields(part) for key, part in nested.items()}}
    return {"tuple": [describe_fields(part) for part in nested]}


def described_fields(plain: Any, most_bytes: int) -> Nested:
    """Return the fields that :func:`describe_fields` described, each of at most ``most_bytes``.

    Raises
    ------
    ValueError, TypeError, KeyError
        If ``plain`` is no such description.
    """
    if plain.keys() == {"mapping"}:
        return {key: described_fields(part, most_bytes) for key, part in plain["mapping"].items()}
    if plain.keys() == {"tuple"}:
        return tuple(described_fields(part, most_bytes) for part in plain["tuple"])
    if plain.keys() != {"shape", "dtype", "stack_axis", "per_sequence"}:
        raise ValueError("a field must have shape, dtype, stack_axis and per_sequence")
    name, shape = plain["dtype"], tuple(plain["shape"])
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    if not all(type(length) is int for length in shape) or math.prod(shape) * 8 > most_bytes:
        raise ValueError(f"shape must consist of integers of a product within memory, got {shape}")
    return Field(shape, name, plain["stack_axis"], plain["per_sequence"])
