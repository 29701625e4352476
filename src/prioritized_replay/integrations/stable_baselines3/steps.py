"""Steps as Stable-Baselines3's algorithms hand them over, turned into those that our buffer takes.

Theirs have an axis for the environments always, ends as Booleans or numbers, a mark of a time limit
in the info of each environment, and actions and discrete observations without an axis of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape

from prioritized_replay import Field
from prioritized_replay.fields import arguments

__all__ = ["StepReader"]

Array = NDArray[Any]
BOOL = np.dtype(np.bool_)
TIME_LIMIT = "TimeLimit.truncated"


class StepReader:
    """Reads the steps of E environments.

    Parameters
    ----------
    observation_space, action_space : gymnasium.Space
        Of one environment.
    action_dtype : dtype
        In which actions are kept.
    n_envs : int
        E.
    time_limits : bool
        Whether an end that an info marks as a time limit's is a truncation.
    single : bool
        Whether the one environment's values are to have no leading axis.

    Attributes
    ----------
    fields : dict
        For our buffer, of the shapes and dtypes that theirs has.

    Raises
    ------
    ValueError
        If an observation space is nested.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        action_dtype: Any,
        n_envs: int,
        time_limits: bool,
        single: bool,
    ) -> None:
        self._n_envs = n_envs
        self._time_limits = time_limits
        self._single = single
        self._is_dict = isinstance(observation_space, spaces.Dict)
        parts: dict[str, Any] = (
            dict(observation_space.spaces)
            if isinstance(observation_space, spaces.Dict)
            else {"": observation_space}
        )
        # Whether a part is a number, which gets an axis of its own.
        self._numbers = {key: isinstance(part, spaces.Discrete) for key, part in parts.items()}
        self._as_it_comes = not self._is_dict and not self._numbers[""]
        self._no_ends = bytes(n_envs)
        self._action_dim = get_action_dim(action_space)
        obs = {key: _field(part) for key, part in parts.items()}
        self.fields = {
            "obs": obs if self._is_dict else obs[""],
            "action": Field((self._action_dim,), action_dtype),
            "reward": Field(),
        }

    def read(
        self,
        obs: Any,
        next_obs: Any,
        action: Any,
        reward: Any,
        done: Any,
        infos: Sequence[Mapping[str, Any]],
    ) -> tuple[Any, ...]:
        """Return the arguments of our ``add``, from obs to truncated.

        Raises
        ------
        ValueError
            If there are not E rows of each, or an end is neither true nor false. Shapes and dtypes
            are left to our buffer.
        """
        action = self._reshaped("action", action, self._action_dim)
        if (
            self._as_it_comes and type(obs) is type(next_obs) is type(done) is np.ndarray
            and done.dtype is BOOL and done.tobytes() == self._no_ends
        ):  # fmt: skip
            if not self._single:
                return obs, action, reward, next_obs, done, False
            if obs.ndim and next_obs.ndim and len(obs) == len(next_obs) == len(reward) == 1:
                return obs[0], action[0], reward[0], next_obs[0], False, False
        reward = self._rows("reward", reward)
        before, after = self._parts("obs", obs), self._parts("next_obs", next_obs)
        ended = self._truths(done)
        truncated = np.zeros(self._n_envs, BOOL)
        if self._time_limits and ended.any():
            if len(infos) != self._n_envs:
                raise ValueError(f"infos must be {self._n_envs}, as n_envs, got {len(infos)}")
            for env in np.flatnonzero(ended).tolist():
                truncated[env] = bool(infos[env].get(TIME_LIMIT, False))
        terminated = ended & ~truncated
        if self._single:
            action, reward, terminated, truncated = (
                action[0],
                reward[0],
                terminated[0],
                truncated[0],
            )
            before, after = [part[0] for part in before], [part[0] for part in after]
        return (
            self._together(before), action, reward, self._together(after), terminated, truncated
        )  # fmt: skip

    def _parts(self, name: str, obs: Any) -> list[Array]:
        """Return the parts of an observation, one where the space is no Dict."""
        if not self._is_dict:
            return [self._part(name, obs, self._numbers[""])]
        if not isinstance(obs, Mapping) or not self._numbers.keys() <= obs.keys():
            keys = ", ".join(map(repr, self._numbers))
            raise ValueError(f"{name} must be a mapping with {keys}, got {arguments.shown(obs)}")
        return [
            self._part(f"{name}[{key!r}]", obs[key], number)
            for key, number in self._numbers.items()
        ]

    def _part(self, name: str, value: Any, number: bool) -> Array:
        return self._reshaped(name, value, 1) if number else self._rows(name, value)

    def _together(self, parts: list[Array]) -> Any:
        return dict(zip(self._numbers, parts, strict=True)) if self._is_dict else parts[0]

    def _reshaped(self, name: str, value: Any, length: int) -> Array:
        """Return values of any shape as one row of them for each environment."""
        array: Array = value if type(value) is np.ndarray else arguments.as_array(name, value)
        shape = self._n_envs, length
        if array.size != shape[0] * length:
            raise ValueError(f"{name} must have shape {shape}, or that size, got {array.shape}")
        return array.reshape(shape)

    def _rows(self, name: str, value: Any) -> Array:
        """Return values that have a row for each environment."""
        array: Array = value if type(value) is np.ndarray else arguments.as_array(name, value)
        if not array.ndim or len(array) != self._n_envs:
            raise ValueError(f"{name} must have {self._n_envs} rows, as n_envs, got {array.shape}")
        return array

    def _truths(self, done: Any) -> NDArray[np.bool_]:
        array = self._rows("done", done)
        if array.dtype != BOOL and not np.isin(array, (0, 1)).all():
            raise ValueError(f"done must be Boolean, or 0 and 1, got {arguments.shown(done)}")
        return array.reshape(self._n_envs).astype(BOOL)


def _field(part: Any) -> Field:
    """Return the field of one part of an observation."""
    if isinstance(part, (spaces.Dict, spaces.Tuple)):
        raise ValueError(f"observation_space must not be nested, got {part} in it")
    shape: Any = get_obs_shape(part)
    return Field(shape, part.dtype)
