"""The actors of a training as processes: gives them work, takes their reports, replaces the dead.

Knows Ray's calls; knows nothing of replay and learning.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayTaskError

from prioritized_replay.apex.actor import Actor, Collected, Parameters
from prioritized_replay.apex.exploration import epsilons
from prioritized_replay.training.config import TrainConfig

BLOCK = 100
"""Environment steps of one piece of work: the paper's actors, too, take parameters after 100."""

_AHEAD = 2  # pieces of work that an actor has at hand: it never waits for the next one
_MOST_DEATHS = 5  # in a row, without any work done in between


class ActorProcess:
    """An :class:`Actor` in a process of its own; made when its first work comes.

    Parameters
    ----------
    config, epsilon, seed
        As for :class:`Actor`.
    replay : object
        Can be sent between processes, and has ``extend``.
    """

    def __init__(self, config: TrainConfig, epsilon: float, seed: int, replay: Any) -> None:
        self._made = (config, epsilon, seed, replay.extend)
        self._actor: Actor | None = None

    def collect(self, steps: int, version: int, parameters: list[Any]) -> Collected:
        """Make steps with the parameters of a version; they are a reference in a list."""
        if self._actor is None:
            config, epsilon, seed, send = self._made
            most = BLOCK + config.envs
            self._actor = Actor(config, epsilon, seed, send, most)
        if self._actor.version != version:
            (reference,) = parameters
            self._actor.update(ray.get(reference), version)
        return self._actor.collect(steps)


@dataclass
class Member:
    """One place in the crew, which several processes may hold, one after the other."""

    number: int
    epsilon: float
    process: Any
    work: deque[tuple[Any, int]] = field(default_factory=deque)
    """What it was asked for and has not reported: the reference, and the steps."""
    steps: int = 0
    """Environment steps reported."""
    started: int = 0
    """Processes that held the place before."""
    deaths: int = 0
    """Of them, how many died since work was last done here."""


@dataclass(frozen=True)
class Report:
    """What one actor did."""

    number: int
    collected: Collected


class Crew:
    """All actors of a training.

    Parameters
    ----------
    config : TrainConfig
    replay : object
        As for :class:`ActorProcess`.
    say : callable
        Told, in a sentence, of an actor that is replaced.
    """

    def __init__(self, config: TrainConfig, replay: Any, say: Callable[[str], object]) -> None:
        self._config, self._replay, self._say = config, replay, say
        self._process = ray.remote(num_cpus=1, max_restarts=0)(ActorProcess)
        self._seed = 0
        self._parameters: tuple[int, list[Any]] | None = None
        self.members: list[Member] = []
        self._turn = 0

    @property
    def version(self) -> int | None:
        """Updates that the parameters had seen which actors are given now."""
        return None if self._parameters is None else self._parameters[0]

    @property
    def steps_at_work(self) -> int:
        """Environment steps that were asked for and not reported yet."""
        return sum(steps for member in self.members for _, steps in member.work)

    def begin(self, seed: int) -> None:
        """Start all actors, in place of those that there are."""
        self.end()
        self._seed = seed
        for number, epsilon in enumerate(epsilons(self._config.actors)):
            member = Member(number, epsilon, None)
            self._start(member)
            self.members.append(member)

    def publish(self, parameters: Parameters, version: int) -> None:
        """Put parameters where all actors can read them; they take them with their next work."""
        self._parameters = version, [ray.put(parameters)]

    def assign(self, steps: int) -> None:
        """Ask for at most so many steps more, from those who have too little work.

        Raises
        ------
        AssertionError
            Nothing was published yet.
        """
        assert self._parameters is not None
        version, parameters = self._parameters
        for _ in range(_AHEAD):
            for member in self.members:
                if steps <= 0:
                    return
                if len(member.work) < _AHEAD:
                    block = min(BLOCK, steps)
                    reference = member.process.collect.remote(block, version, parameters)
                    member.work.append((reference, block))
                    steps -= block

    def next_report(self, seconds: float) -> Report | None:
        """Return a report, or None where none came in that time.

        Actors take turns, so that a fast one does not crowd out the others.

        Raises
        ------
        RuntimeError
            An actor died several times in a row.
        Exception
            What an actor's environment or network raised.
        """
        waiting = {member.work[0][0]: member for member in self.members if member.work}
        if not waiting:
            time.sleep(seconds)
            return None
        ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        if not ready:
            ready, _ = ray.wait(list(waiting), timeout=seconds)
        if not ready:
            return None
        count = len(self.members)
        member = min(
            (waiting[reference] for reference in ready),
            key=lambda member: (member.number - self._turn) % count,
        )
        self._turn = member.number + 1
        return self._taken(member)

    def end(self) -> None:
        """End all processes of the crew."""
        for member in self.members:
            ray.kill(member.process, no_restart=True)
        self.members.clear()

    def _taken(self, member: Member) -> Report | None:
        reference, _ = member.work[0]
        try:
            collected: Collected = ray.get(reference)
        except RayTaskError as error:  # its own code raised: the next one would do the same
            raise (error.cause if isinstance(error.cause, Exception) else error) from error
        except RayActorError as error:
            self._replace(member, error)
            return None
        member.work.popleft()
        member.steps += collected.steps
        member.deaths = 0
        return Report(member.number, collected)

    def _replace(self, member: Member, error: RayActorError) -> None:
        member.deaths += 1
        if member.deaths >= _MOST_DEATHS:
            raise RuntimeError(
                f"actor {member.number} died {member.deaths} times before it made a step: {error}"
            ) from error
        ray.kill(member.process, no_restart=True)  # it may only be out of reach
        member.work.clear()
        member.started += 1
        self._start(member)
        self._say(f"Actor {member.number} died; a new one has taken its place.")

    def _start(self, member: Member) -> None:
        seed = np.random.SeedSequence([self._seed, member.number, member.started])
        member.process = self._process.remote(
            self._config, member.epsilon, int(seed.generate_state(1)[0]), self._replay
        )
