"""The one conversion between an environment's values and a network's tensors.

Acting, learning and evaluation all use it, so a network never sees two dtypes for one observation.
Knows spaces, arrays and tensors; knows no network and no replay.
Axes: B batch, E environments.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from prioritized_replay.batch import Batch
from prioritized_replay.fields import arguments
from prioritized_replay.fields.field import Field, cast

_WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}
"""Unsigned integers that torch can hold but hardly compute with, and what replaces them."""


class Conversion:
    """Turns observations into tensors, and actions into their numbers 0 .. A - 1 and back.

    Observations become tensors by these rules, for acting and for learning alike:

    - floating values of any size and byte order become float32;
    - values of Discrete and MultiDiscrete spaces become int64, ``start`` included;
    - other integers and Booleans keep their dtype (uint8 images stay one byte a pixel), but
      uint16 becomes int32, uint32 and uint64 become int64;
    - a Dict space gives a dictionary of tensors, a Tuple space a tuple, nested as the space is.

    Parameters
    ----------
    observation_space : gymnasium.spaces.Space
        Of one environment: Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple of them.
    action_space : gymnasium.spaces.Discrete
        Of one environment, of any integer dtype and with any ``start``.

    Attributes
    ----------
    num_actions, first_action : int
        A, and the action that has number 0: the space's ``start``.

    Raises
    ------
    ValueError
        A space is of another kind.

    Examples
    --------
    >>> conversion = Conversion(spaces.Box(-1, 1, (2,), np.float64), spaces.Discrete(3, start=5))
    >>> arrays, single = conversion.observations(np.array([0.5, -0.5]))
    >>> conversion.tensors(arrays), single
    (tensor([[ 0.5000, -0.5000]]), True)
    >>> conversion.action_numbers(np.array([5, 7], np.int32))
    tensor([0, 2])
    """

    def __init__(
        self,
        observation_space: spaces.Space,  # type: ignore[type-arg]
        action_space: spaces.Space,  # type: ignore[type-arg]
    ) -> None:
        self.num_actions = count_actions(action_space)
        assert isinstance(action_space, spaces.Discrete)
        self.first_action = int(action_space.start)
        self._parts = _parts("obs", observation_space)

    def observations(self, obs: Any) -> tuple[Any, bool]:
        """Return checked arrays with a leading axis E, and whether ``obs`` was a single one.

        Parameters
        ----------
        obs : array or nested arrays, as the space says, perhaps with a leading axis E

        Returns
        -------
        arrays : array[E, ...] of the space's dtype, nested as the space is
        single : bool
            True where ``obs`` had no leading axis; E is 1 then.

        Raises
        ------
        ValueError
            ``obs`` has another structure or shape, loses values in the space's dtype, or is not
            one of a Discrete space's values. These are the rules of ``ReplayBuffer.add``.
        """
        parts = self._parts
        if isinstance(parts, _Part):  # the usual case, in less time
            array = parts.read(obs)
            single = array.ndim == len(parts.shape)
            return (array[np.newaxis] if single else array), single
        leads: set[tuple[int, ...]] = set()

        def read(part: _Part, value: Any) -> npt.NDArray[Any]:
            array = part.read(value)
            leads.add(array.shape[: array.ndim - len(part.shape)])
            return array

        arrays = _apply(parts, obs, read, "obs")
        if len(leads) != 1:
            raise ValueError(
                f"obs must have the same number of environments in each part, got {sorted(leads)}"
            )
        single = leads == {()}
        if single:
            arrays = _apply(parts, arrays, lambda part, array: array[np.newaxis], "obs")
        return arrays, single

    def rows(self, arrays: Any) -> int:
        """Return E of what :meth:`observations` returned."""
        while isinstance(arrays, (dict, tuple)):
            arrays = next(iter(arrays.values() if isinstance(arrays, dict) else arrays))
        return len(arrays)

    def stacked(self, observations: list[Any]) -> Any:
        """Return E single observations as arrays with a leading axis E, as :meth:`observations`.

        Examples
        --------
        >>> pair = spaces.Tuple((spaces.Discrete(4), spaces.Box(0, 1, (2,))))
        >>> conversion = Conversion(pair, spaces.Discrete(2))
        >>> conversion.stacked([(3, [0, 1]), (0, [1, 1])])[0]
        array([3, 0])
        """
        return _stacked([self.observations(obs)[0] for obs in observations])

    def tensors(self, arrays: Any, device: torch.device | str = "cpu", name: str = "obs") -> Any:
        """Return observations as the tensors that a network takes.

        Parameters
        ----------
        arrays : array or tensor [B, ...], nested as the space is
        device : torch.device or str
        name : str
            What an error calls them.

        Raises
        ------
        ValueError
            The structure is another, or there are floating values in an integer space.
        """
        parts = self._parts
        if isinstance(parts, _Part):
            return parts.tensor(arrays, device)
        return _apply(parts, arrays, lambda part, array: part.tensor(array, device), name)

    def blank(self, rows: int) -> Any:
        """Return arrays [rows, ...] of zeros; of a Discrete space, of its first value."""
        return _made(self._parts, lambda part: part.blank(rows))

    def check_fields(self, fields: Any) -> None:
        """Raise ValueError unless a buffer's fields for observations fit the space."""
        try:
            _apply(self._parts, fields, _Part.check_field, "obs")
        except ValueError as error:
            raise ValueError(f"memory_buffer must fit observation_space: {error}") from None

    def action_numbers(self, actions: Any, device: torch.device | str = "cpu") -> Tensor:
        """Return int64[B], numbers from 0, of actions of any integer dtype.

        Raises
        ------
        ValueError
            They are not integers.
        """
        if not isinstance(actions, Tensor):
            if actions.dtype.kind not in "iu":
                raise ValueError(f"action must be of an integer dtype, got {actions.dtype}")
            if actions.dtype is not arguments.INT64:
                actions = actions.astype(np.int64)
            actions = _tensor(actions, device)
        elif actions.is_floating_point() or actions.is_complex() or actions.dtype == torch.bool:
            raise ValueError(f"action must be of an integer dtype, got {actions.dtype}")
        else:
            actions = actions.to(device, torch.int64)
        numbers: Tensor = actions
        return numbers - self.first_action if self.first_action else numbers

    def batch(self, batch: Batch, device: torch.device | str) -> Batch[Tensor]:
        """Return the columns that an update uses, as tensors on ``device``.

        Parameters
        ----------
        batch : Batch
            Of arrays or of tensors. ``ids`` may be missing; they are left as they are.
        """
        columns = {
            "obs": self.tensors(batch.obs, device),
            "action": self.action_numbers(batch.action, device),
            "reward": _numbers(batch.reward, device),
            "discount": _numbers(batch.discount, device),
            "next_obs": self.tensors(batch.next_obs, device, "next_obs"),
            "weights": _numbers(batch.weights, device),
        }
        if "ids" in batch:
            columns["ids"] = batch.ids
        return Batch(columns)


class _Part:
    """One Box, Discrete, MultiDiscrete or MultiBinary of an observation space."""

    def __init__(self, name: str, space: spaces.Space) -> None:  # type: ignore[type-arg]
        if space.shape is None or space.dtype is None:
            raise ValueError(f"observation_space must have one shape and dtype, got {space}")
        self.name = name
        self.shape = tuple(space.shape)
        self._field = Field(self.shape, space.dtype)
        self.stored: np.dtype[Any] = np.dtype(self._field.dtype)
        given: npt.DTypeLike
        if self.stored.kind == "f":
            given = np.float32
        elif isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
            given = np.int64
        else:
            given = _WIDER.get(self.stored.name, self.stored)
        self.given: np.dtype[Any] = np.dtype(given)
        self._given_tensor = torch.from_numpy(np.empty(0, self.given)).dtype
        self._first: Any = getattr(space, "start", None)  # of Discrete and MultiDiscrete
        self._categories: tuple[int, int] | None = None  # the first and the last
        if isinstance(space, spaces.Discrete):
            first = int(space.start)
            self._categories = first, first + int(space.n) - 1

    def read(self, value: Any) -> npt.NDArray[Any]:
        """Return one observation, or E of them, in the space's dtype."""
        array = value if type(value) is np.ndarray else arguments.as_array(self.name, value)
        shape = array.shape
        if shape != self.shape and (not shape or shape[1:] != self.shape):
            raise ValueError(
                f"{self.name} must have shape {self.shape}, or one more leading axis for several "
                f"environments, got {shape}"
            )
        if array.dtype is not self.stored or not array.flags.carray:
            lead = shape[: len(shape) - len(self.shape)]
            array = np.require(
                cast(self.name, array, self._field, lead), self.stored, arguments.FIT
            )
        if self._categories is not None:
            first, last = self._categories
            for category in array.reshape(-1).tolist():  # few: faster than by array
                if not first <= category <= last:
                    raise ValueError(f"{self.name} must be in [{first}, {last}], got {category}")
        return array

    def blank(self, rows: int) -> npt.NDArray[Any]:
        """Return zeros, or the first category."""
        zeros: npt.NDArray[Any] = np.zeros((rows, *self.shape), self.stored)
        return zeros + self._first if self._first is not None else zeros

    def check_field(self, field: Any) -> None:
        """Raise unless a field holds observations of this part."""
        found = getattr(field, "shape", None)
        if found != self.shape:
            raise ValueError(f"{self.name} must have shape {self.shape}, got {field}")

    def tensor(self, value: Any, device: torch.device | str) -> Tensor:
        """Return what a network takes of a batch of this part."""
        if isinstance(value, Tensor):
            if value.is_floating_point() and self.given.kind != "f":
                raise ValueError(f"{self.name} must be of {self.stored}, got {value.dtype}")
            return value.to(device, self._given_tensor)
        if value.dtype is not self.given:
            if value.dtype.kind == "f" and self.given.kind != "f":
                raise ValueError(f"{self.name} must be of {self.stored}, got {value.dtype}")
            with np.errstate(over="ignore"):  # what becomes infinite is noticed as an error
                value = value.astype(self.given)
        return _tensor(value, device)


def count_actions(action_space: spaces.Space) -> int:  # type: ignore[type-arg]
    """Return A, the number of actions.

    Raises
    ------
    ValueError
        The space is not Discrete.
    """
    if not isinstance(action_space, spaces.Discrete):
        raise ValueError(
            f"action_space must be Discrete: DQN needs numbered actions, got {action_space}"
        )
    return int(action_space.n)


def _parts(name: str, space: spaces.Space) -> Any:  # type: ignore[type-arg]
    if isinstance(space, spaces.Dict) and space.spaces:
        return {key: _parts(f"{name}[{key!r}]", part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple) and space.spaces:
        return tuple(_parts(f"{name}[{k}]", part) for k, part in enumerate(space.spaces))
    return _Part(name, space)


def _apply(parts: Any, value: Any, change: Callable[[_Part, Any], Any], name: str) -> Any:
    """Return nested values, each changed as its part of the space asks."""
    if isinstance(parts, dict):
        if not isinstance(value, Mapping) or value.keys() != parts.keys():
            found = list(value) if isinstance(value, Mapping) else arguments.shown(value)
            raise ValueError(f"{name} must be a mapping with keys {list(parts)}, got {found}")
        return {
            key: _apply(part, value[key], change, f"{name}[{key!r}]") for key, part in parts.items()
        }
    if isinstance(parts, tuple):
        if not isinstance(value, (tuple, list)) or len(value) != len(parts):
            raise ValueError(
                f"{name} must be a tuple of {len(parts)} parts, got {arguments.shown(value)}"
            )
        return tuple(
            _apply(part, one, change, f"{name}[{k}]")
            for k, (part, one) in enumerate(zip(parts, value, strict=True))
        )
    return change(parts, value)


def _made(parts: Any, make: Callable[[_Part], Any]) -> Any:
    if isinstance(parts, dict):
        return {key: _made(part, make) for key, part in parts.items()}
    if isinstance(parts, tuple):
        return tuple(_made(part, make) for part in parts)
    return make(parts)


def _stacked(rows: list[Any]) -> Any:
    first = rows[0]
    if isinstance(first, dict):
        return {key: _stacked([row[key] for row in rows]) for key in first}
    if isinstance(first, tuple):
        return tuple(_stacked([row[k] for row in rows]) for k in range(len(first)))
    return np.concatenate(rows)


def _numbers(value: Any, device: torch.device | str) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(device, torch.float32)
    if value.dtype is not arguments.FLOAT32:
        value = value.astype(np.float32)
    return _tensor(value, device)


def _tensor(array: npt.NDArray[Any], device: torch.device | str) -> Tensor:
    # torch warns of arrays that must not be written to.
    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    return tensor if tensor.device == device else tensor.to(device)
