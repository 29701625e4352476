"""Nested fields: observations and actions that are mappings or tuples of other fields.

It knows how a nested value comes apart into leaves and how columns are put together again; it does
not know what the leaves mean or where they are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prioritized_replay.casting import Field, shown

__all__ = ["Nested", "Structure", "fields_of_space"]

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


def fields_of_space(name: str, space: Any, field: Callable[..., Field] = Field) -> Nested:
    """Return the fields that hold the values of a Gymnasium space.

    Parameters
    ----------
    name : str
        What an error calls the space.
    space : gymnasium.Space
        Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple of these.
    field : callable
        Makes a field from a shape and a dtype.

    Raises
    ------
    ValueError
        If a space has no fixed shape and dtype.
    """
    parts: Any = getattr(space, "spaces", None)  # of Dict and Tuple; Gymnasium need not be imported
    if isinstance(parts, Mapping) and parts:
        return {key: fields_of_space(f"{name}[{key!r}]", s, field) for key, s in parts.items()}
    if (
        isinstance(parts, tuple)
        and parts
        and any(kind.__name__ == "Tuple" for kind in type(space).__mro__)
    ):
        return tuple(fields_of_space(f"{name}[{k}]", s, field) for k, s in enumerate(parts))
    shape, dtype = getattr(space, "shape", None), getattr(space, "dtype", None)
    if shape is None or dtype is None:
        raise ValueError(f"{name} must have one shape and dtype, got {space}")
    return field(shape, dtype)
