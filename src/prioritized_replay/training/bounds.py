"""The bounds of a number that a user, or a file that is read back, may give.

They are written beside a field, as ``Annotated[int, Within(1, 100)]``.
"""

import math
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Within:
    """The bounds of a number; a file that was tampered with must not exhaust the machine.

    Attributes
    ----------
    low, high : float
        The smallest and the largest value.
    open_below : bool
        Whether ``low`` itself is excluded.
    """

    low: float
    high: float
    open_below: bool = False

    def check(self, field: str, value: object, kind: type) -> None:
        """Raise unless a value is a number of that kind (int or float) within the bounds.

        Raises
        ------
        TypeError
            It is no number, or not a whole one where ``kind`` is int.
        ValueError
            It is out of bounds; the message names the bound that is passed.
        """
        wanted = "whole number" if kind is int else "number"
        accepted = (int,) if kind is int else (int, float)
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise TypeError(f"{field} must be a {wanted}, got {value!r}")
        low = math.ulp(0.0) if self.open_below else self.low
        # A comparison with NaN is false, so NaN fails here too.
        if low <= value <= self.high:
            return
        if self.high == 1:
            raise ValueError(
                f"{field} must be in {'(' if self.open_below else '['}0, 1], got {value}"
            )
        if value > self.high:
            raise ValueError(f"{field} must be <= {self.high:,}, got {value}")
        raise ValueError(
            f"{field} must be {'>' if self.open_below else '>='} {self.low:g}, got {value}"
        )


class Kind(NamedTuple):
    """What a field takes."""

    type: Any
    """Its type, that of its items where it is a tuple, or a Literal with its choices."""
    within: Within | None
    """The bounds of a number."""
    optional: bool
    """Whether it may be None."""


@cache
def kinds_of(settings: type) -> dict[str, Kind]:
    """Return what each field of a dataclass takes, as its annotations say."""
    found = {}
    for field, hint in get_type_hints(settings, include_extras=True).items():
        within = None
        if get_origin(hint) is Annotated:
            hint, within = get_args(hint)
        optional = get_origin(hint) in (Union, UnionType)
        if optional:
            (hint,) = (kind for kind in get_args(hint) if kind is not NoneType)
        if get_origin(hint) is tuple:
            hint = get_args(hint)[0]
        found[field] = Kind(hint, within, optional)
    return found
