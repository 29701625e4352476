"""The protocol through which ``per check`` uses a replay memory of any library.

Knows what a scenario may ask of a memory and what it gets back; knows no scenario and no library.
An :class:`Adapter` says what a library is and makes its memories; a :class:`Memory` passes calls on
to one of them. What a library does not offer is left out: the methods here raise
:class:`NotClaimed`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.conformance.subject import Law

Array = NDArray[Any]
Autoreset = Literal["next_step", "same_step", "disabled"]
DrawMode = Literal["stratified", "independent", "without_replacement"]


class NotClaimed(Exception):
    """The library does not offer this. The message says what, and by which words of its own."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a scenario wants of a memory. Most scenarios change one or two of these.

    Attributes
    ----------
    capacity : int
        Number of transitions N.
    alpha : float
        Exponent of the priorities, or of the ranks.
    eps : float
        What a proportional memory adds to abs(td_error), if the library lets its users choose.
    n_step, gamma : int, float
        Steps of a window, and the discount of one step.
    num_envs : int or None
        Number of streams E whose steps are added side by side, by :meth:`Memory.add_vector`.
    autoreset : {"next_step", "same_step", "disabled"}
        What their environments do after the end of an episode, as in Gymnasium.
    obs_shape, obs_dtype, action_shape, action_dtype
        Of one observation and one action. Rewards are float32.
    stacked : bool
        Whether an observation is a stack of frames along axis 0, of which a step brings one.
    draw : {"stratified", "independent", "without_replacement"} or None
        How to draw; None is the library's usual way.
    raw_weights : bool
        Whether weights are to be left as (N P)**-beta, divided by nothing.
    seed : int
        Of the memory's random numbers.
    """

    capacity: int = 64
    alpha: float = 0.6
    eps: float = 0.01
    n_step: int = 1
    gamma: float = 0.5
    num_envs: int | None = None
    autoreset: Autoreset = "disabled"
    obs_shape: tuple[int, ...] = (2,)
    obs_dtype: str = "float32"
    action_shape: tuple[int, ...] = ()
    action_dtype: str = "int64"
    stacked: bool = False
    draw: DrawMode | None = None
    raw_weights: bool = False
    seed: int = 0

    def only(self, *names: str) -> None:
        """Say that a library lets its users choose these settings and no others.

        Raises
        ------
        NotClaimed
            If the scenario wants another setting to differ from its default.

        Examples
        --------
        >>> Wanted(capacity=10).only("capacity", "seed")
        >>> Wanted(n_step=3).only("capacity", "seed")
        Traceback (most recent call last):
        prioritized_replay.conformance.memory.NotClaimed: n_step cannot be 3
        """
        for each in fields(self):
            if each.name not in names and getattr(self, each.name) != each.default:
                raise NotClaimed(f"{each.name} cannot be {getattr(self, each.name)}")


@dataclass(frozen=True)
class Step:
    """One step of one environment. ``action`` is the step's number: no two steps share it.

    Attributes
    ----------
    obs, next_obs : array of the wanted shape and dtype
        ``next_obs`` is what the step led to, also where it ends the episode.
    action : integer, or an array that is filled with it
    reward : float
    terminated, truncated : bool
        As in Gymnasium.
    """

    obs: Array
    action: Any
    reward: float
    next_obs: Array
    terminated: bool = False
    truncated: bool = False


@dataclass(frozen=True)
class VectorStep:
    """One step of each of E environments, as Gymnasium's vector environments return it.

    Attributes
    ----------
    obs, action, reward, next_obs, terminated, truncated : array[E, ...]
        With autoreset ``"same_step"``, ``next_obs`` of an episode's last step is the first
        observation of the next episode. With ``"next_step"``, what follows an episode's last step
        is a reset step: its ``obs`` is the final observation, its reward 0, its action ignored.
    info : dict
        With ``"same_step"``, where an episode ends: ``final_obs``, an object array with None for
        the others, and its mask ``_final_obs``.
    """

    obs: Array
    action: Array
    reward: Array
    next_obs: Array
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """A batch of B rows, as a learner that follows the library's documentation uses it.

    Attributes
    ----------
    ids : sequence of B
        What :meth:`Memory.update` takes: scenarios hand the ids of a batch back as they are, or
        a list of some of them.
    obs, action, reward, next_obs : array[B, ...]
        ``reward`` is the n-step return where n > 1. A reward of shape (B, 1) is fine.
    discount : float[B]
        The factor of the value of ``next_obs``: gamma**m of a window of m steps, 0 where it ended
        in termination. Of a library that returns ``done``: what its documentation makes of it.
    weights : float[B] or None
        None where the library computes none.
    probabilities : float[B] or None
        P(i) of each row, where the library tells it.
    """

    ids: Any
    obs: Array
    action: Array
    reward: Array
    next_obs: Array
    discount: Array
    weights: Array | None = None
    probabilities: Array | None = None


class Memory(ABC):
    """A memory of a library. Methods hold little but calls of it, in its documented use."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many rows can be drawn."""

    @abstractmethod
    def add(self, step: Step) -> None:
        """Add a step of a single environment."""

    @abstractmethod
    def sample(self, batch_size: int, beta: float) -> Drawn:
        """Draw a batch. Empty memories raise what the library raises."""

    def add_vector(self, step: VectorStep) -> None:
        """Add a step of each of E environments."""
        raise NotClaimed("it takes no steps of vector environments")

    def add_with_error(self, step: Step, td_error: float) -> None:
        """Add a step with a priority of its own."""
        raise NotClaimed("new rows get no priority of their own")

    def end_episode(self) -> None:
        """Say that collection was interrupted: what is added next is of another episode."""
        raise NotClaimed("episodes cannot be closed in the middle")

    def update(self, ids: Any, td_errors: Array) -> int | None:
        """Give back signed TD errors, float64[B]. Return how many were applied, if that is told."""
        raise NotClaimed("it has no priorities")

    def set_alpha(self, alpha: float) -> None:
        """Change alpha of a filled memory."""
        raise NotClaimed("alpha of a filled memory cannot be changed")

    def clear(self) -> None:
        """Remove all rows."""
        raise NotClaimed("it cannot be emptied")

    def save(self, folder: Path) -> None:
        """Write everything into an empty folder."""
        raise NotClaimed("it cannot be saved")

    def load(self, folder: Path) -> None:
        """Become what was saved there. This memory was just made with the same settings."""
        raise NotClaimed("it cannot be loaded")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A kind of memory of a library: who it is, how to make one, and what it does not claim.

    Attributes
    ----------
    name : str
        Short and unique, such as "cpprb, proportional"; headings and file names come from it.
    library, version : str
        Whose it is.
    law : {"proportional", "rank", "uniform"}
        How it draws: P(i) in proportion to (abs(td_error) + eps)**alpha, to rank**-alpha, or equal.
    make : callable
        Makes a memory with the settings wanted, or raises :class:`NotClaimed`. Often a class.
    eps : float or None
        What it adds to abs(td_error), where the library does not let its users choose.
    draw : {"stratified", "independent", "without_replacement"}
        How it draws where a scenario does not ask for a way.
    not_claimed : mapping of str to str
        Groups or names of scenarios that the library's documentation does not promise, each with
        the reason. Everything else is claimed.
    settings : str
        How it is used, in words, for the reader.
    """

    name: str
    library: str
    version: str
    law: Law
    make: Callable[[Wanted], Memory]
    eps: float | None = None
    draw: DrawMode = "independent"
    not_claimed: Mapping[str, str] = field(default_factory=dict)
    settings: str = ""


def picked(ids: Any, places: Sequence[int] | Array) -> Any:
    """Return some of the ids of a batch, as an array where they are one, else as a list."""
    if isinstance(ids, np.ndarray):
        return ids[np.asarray(places, np.int64)]
    return [ids[int(place)] for place in places]
