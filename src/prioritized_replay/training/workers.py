"""What a report says of the processes of a training that has several: actors and shards."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ActorReport:
    """One actor, since the report before.

    Attributes
    ----------
    actor : int
        Its number, from 0.
    epsilon : float
        Its chance of a random action.
    steps : int
        Environment steps that it has made in the whole run, with those of its predecessors.
    steps_per_second : float
        While it worked: the time that it waits for the learner is not counted. NaN if it did not.
    mean_return : float
        Of the episodes that ended; NaN if none did.
    parameter_age : float
        Updates that the learner had made more than the actor's network had seen, when its steps
        reached the learner: their mean. NaN if none did.
    replaced : int
        How often a new process has taken its place.
    """

    actor: int
    epsilon: float
    steps: int
    steps_per_second: float
    mean_return: float
    parameter_age: float
    replaced: int


@dataclass(frozen=True)
class ShardReport:
    """One shard of the replay.

    Attributes
    ----------
    shard : int
        Its number, from 0.
    rows : int
        Rows that it holds.
    mass : float
        The sum of their masses. Shards are drawn from in proportion to it, or to their rows.
    draws : int
        Rows that were drawn from it, since this process began.
    """

    shard: int
    rows: int
    mass: float
    draws: int


@dataclass(frozen=True)
class Workers:
    """All actors and all shards, and what happened to them since the report before.

    Attributes
    ----------
    actors : tuple of ActorReport
    shards : tuple of ShardReport
    rows_lost : int
        Rows that were lost with shards that died, in the whole run.
    news : tuple of str
        Sentences for the user.
    """

    actors: tuple[ActorReport, ...]
    shards: tuple[ShardReport, ...]
    rows_lost: int = 0
    news: tuple[str, ...] = ()
