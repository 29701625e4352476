"""Steps of imaginary environments that say which they are, and what rows must be made of them.

Knows episodes, windows and how vector environments reset; knows no memory. Every step has its
number as its action, every observation is full of a number of its own, and everything is
remembered: so any row that a library returns can be compared with what it should be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.conformance.memory import Array, Drawn, Step, VectorStep, Wanted

Episodes = Iterable[tuple[int, str]]

COLUMNS = ("obs", "action", "reward", "discount", "next_obs")
_ONLY_THERE = {"f8": 2.0**-20, "i4": 2**30, "i8": 2**60}
_RELATIVE = 1e-5  # returns and discounts are float32 somewhere


@dataclass
class Episode:
    """Numbers of its observations and steps: "terminated", "truncated", "interrupted", or open."""

    obs: list[int]
    steps: list[int] = field(default_factory=list)
    end: str | None = None


@dataclass(frozen=True)
class Window:
    """What a row must hold: a return, the number of ``next_obs``, its discount, its steps m."""

    reward: float
    next_obs: int
    discount: float
    steps: int
    whole: bool


class Walk:
    """E imaginary environments, one step after the other.

    Parameters
    ----------
    wanted : Wanted
        Shapes, dtypes, the discount, and what environments do after an end.
    episodes : iterable of (int, {"terminated", "truncated"}), or one for each environment
        Length and end of each episode in turn, over and over; by default they never end.
    first : int
        The number of the first step.

    Attributes
    ----------
    numbers : list of int
        Of all steps that are transitions, in the order in which they were made.
    changes : int
        Grows with each step and each break.

    Examples
    --------
    >>> walk = Walk(Wanted(), [(2, "terminated")])
    >>> steps = [walk.step() for _ in range(3)]
    >>> [(step.action, *map(int, (step.obs[0], step.next_obs[0]))) for step in steps]
    [(0, 0, 1), (1, 1, 2), (2, 3, 4)]
    >>> walk.window(0, n_step=3)
    Window(reward=5.0, next_obs=2, discount=0.0, steps=2, whole=True)
    """

    def __init__(
        self,
        wanted: Wanted,
        episodes: Episodes | Sequence[Episodes] | None = None,
        first: int = 0,
    ) -> None:
        self._wanted = wanted
        self._steps, self._observations = first, 0
        scripts = _scripts(episodes, wanted.num_envs or 1)
        self._streams = [_Stream(script, self._begun()) for script in scripts]
        self._of_step: dict[int, tuple[Episode, int]] = {}
        self.numbers: list[int] = []
        self.changes = 0

    def step(self, stream: int = 0) -> Step:
        """Return the next step of one environment, which is reset by its user."""
        return self._step(self._streams[stream])

    def vector_step(self) -> VectorStep:
        """Return the next step of all environments, which reset themselves as wanted."""
        mode = self._wanted.autoreset
        steps, final = [], {}
        for index, stream in enumerate(self._streams):
            if mode == "next_step" and stream.episode.end is not None:
                steps.append(self._reset_step(stream))
                continue
            step = self._step(stream)
            if mode == "same_step" and stream.episode.end is not None:
                final[index] = step.next_obs
                stream.begin(self._begun())
                step = Step(
                    step.obs, step.action, step.reward, self._observation(stream.episode, 0),
                    step.terminated, step.truncated,
                )  # fmt: skip
            steps.append(step)
        return _side_by_side(steps, final)

    def interrupt(self) -> None:
        """Break all episodes off: what comes next begins new ones."""
        self.changes += 1
        for stream in self._streams:
            if stream.episode.end is None:
                stream.episode.end = "interrupted"

    def window(self, number: int, n_step: int) -> Window:
        """Return what the row of a step must hold."""
        episode, place = self._of_step[number]
        steps = episode.steps[place : place + n_step]
        reward = sum(self._wanted.gamma**k * reward_of(step) for k, step in enumerate(steps))
        last = place + len(steps) == len(episode.steps)
        ended = last and episode.end is not None
        terminated = last and episode.end == "terminated"
        discount = 0.0 if terminated else self._wanted.gamma ** len(steps)
        whole = ended or len(steps) == n_step
        return Window(reward, episode.obs[place + len(steps)], discount, len(steps), whole)

    def numbers_in(self, drawn: Drawn) -> NDArray[np.int64]:
        """Return which steps rows begin with, int64[B]."""
        return number_of(drawn.action)

    def fault_in(
        self,
        drawn: Drawn,
        places: Iterable[int] | None = None,
        columns: Sequence[str] = COLUMNS,
    ) -> str | None:
        """Return what is wrong with the rows of a batch, or None.

        A window that is still open may be drawn as what it is: one of fewer steps. What follows
        termination is not looked at.

        Parameters
        ----------
        drawn : Drawn
        places : iterable of int, optional
            Which rows to look at; by default all.
        columns : sequence of str
            Which columns.
        """
        numbers = self.numbers_in(drawn).tolist()
        rewards, discounts = np.ravel(drawn.reward).tolist(), np.ravel(drawn.discount).tolist()
        for k in range(len(numbers)) if places is None else places:
            number = numbers[k]
            if number not in self._of_step:
                return f"a row with action {number} was drawn, which is no transition"
            episode, place = self._of_step[number]
            window = self.window(number, self._wanted.n_step)
            following = self._observation(episode, place + window.steps)
            wrong = {
                "obs": not np.array_equal(drawn.obs[k], self._observation(episode, place)),
                "action": not np.all(drawn.action[k] == _action(number, self._wanted)),
                "reward": abs(rewards[k] - window.reward) > _RELATIVE * abs(window.reward),
                "discount": abs(discounts[k] - window.discount) > _RELATIVE,
                "next_obs": window.discount and not np.array_equal(drawn.next_obs[k], following),
            }
            seen = {
                "reward": (rewards[k], window.reward),
                "discount": (discounts[k], window.discount),
            }
            for column in columns:
                if wrong[column]:
                    if column not in seen:
                        return f"the row of step {number} has the {column} of another"
                    got, due = seen[column]
                    return f"the row of step {number} has {column} {got:.6g}, should be {due:.6g}"
        return None

    def _step(self, stream: _Stream) -> Step:
        if stream.episode.end is not None:
            stream.begin(self._begun())
        episode, number, place = stream.episode, self._next_step(), len(stream.episode.steps)
        self._of_step[number] = episode, place
        self.numbers.append(number)
        episode.steps.append(number)
        episode.obs.append(self._next_observation())
        length, end = stream.plan
        if len(episode.steps) == length:
            episode.end = end
        return Step(
            self._observation(episode, place),
            _action(number, self._wanted),
            reward_of(number),
            self._observation(episode, place + 1),
            episode.end == "terminated",
            episode.end == "truncated",
        )

    def _reset_step(self, stream: _Stream) -> Step:
        final = self._observation(stream.episode, len(stream.episode.steps))
        stream.begin(self._begun())
        action = _action(self._next_step(), self._wanted)
        return Step(final, action, 0.0, self._observation(stream.episode, 0))

    def _begun(self) -> Episode:
        return Episode([self._next_observation()])

    def _next_step(self) -> int:
        self._steps += 1
        self.changes += 1
        return self._steps - 1

    def _next_observation(self) -> int:
        self._observations += 1
        return self._observations - 1

    def _observation(self, episode: Episode, place: int) -> Array:
        shape, dtype = self._wanted.obs_shape, np.dtype(self._wanted.obs_dtype)
        if not self._wanted.stacked:
            return observation(episode.obs[place], shape, dtype)
        places = range(place + 1 - shape[0], place + 1)
        return np.stack([observation(episode.obs[max(k, 0)], shape[1:], dtype) for k in places])


class _Stream:
    """One environment: the episode it is in, and how long that will be."""

    def __init__(self, script: Iterator[tuple[int, str]], episode: Episode) -> None:
        self._script = script
        self.begin(episode)

    def begin(self, episode: Episode) -> None:
        self.episode, self.plan = episode, next(self._script)


def reward_of(number: int) -> float:
    """Return the reward of a step: a whole number, so that short returns are exact in float32."""
    return float(1 + number * 7 % 64)


def observation(number: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an observation that is full of its number; of small dtypes, of its digits.

    Of large dtypes no narrower one can hold it.
    """
    if dtype.kind == "b" or dtype.itemsize == 1:
        bits = 1 if dtype.kind == "b" else 8
        digits = [number >> (bits * k) & (2**bits - 1) for k in range(32 // bits)]
        array = np.full(shape, digits[0], dtype)
        array.flat[: len(digits)] = digits
        return array
    return np.full(shape, number + _ONLY_THERE.get(dtype.str[1:], 0), dtype)


def number_of(values: Array) -> NDArray[np.int64]:
    """Return the numbers that actions are full of, int64[B]."""
    array = np.asarray(values)
    return array.reshape(len(array), -1)[:, 0].astype(np.int64)


def _action(number: int, wanted: Wanted) -> Any:
    if wanted.action_shape or np.dtype(wanted.action_dtype).kind == "f":
        return np.full(wanted.action_shape, number + 0.5, wanted.action_dtype)
    return number


def _scripts(
    episodes: Episodes | Sequence[Episodes] | None, streams: int
) -> list[Iterator[tuple[int, str]]]:
    if episodes is None:
        return [repeat((0, "truncated")) for _ in range(streams)]
    given: list[Any] = list(episodes)
    if isinstance(given[0][0], int):
        given = [given] * streams
    return [cycle(script) for script in given]


def _side_by_side(steps: list[Step], final: dict[int, Array]) -> VectorStep:
    info: dict[str, Any] = {}
    if final:
        observations = np.full(len(steps), None, object)
        for index, obs in final.items():
            observations[index] = obs
        info = {"final_obs": observations, "_final_obs": np.isin(np.arange(len(steps)), [*final])}
    return VectorStep(
        np.stack([step.obs for step in steps]),
        np.array([step.action for step in steps]),
        np.array([step.reward for step in steps]),
        np.stack([step.next_obs for step in steps]),
        np.array([step.terminated for step in steps]),
        np.array([step.truncated for step in steps]),
        info,
    )
