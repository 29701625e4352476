"""Old priorities and small memories, on the chain with shared features.

Knows the two tasks and what is tried in them; knows nothing of files, figures or progress.

A priority is the error that its row had when it was last drawn. The paper's appendix asks whether
it is worth while to keep priorities younger, or to prefer rows that were not drawn for long
(*staleness*), and whether a full memory should give up another row than the oldest (*eviction*).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from prioritized_replay import PrioritizedIndex
from prioritized_replay.experiments.chain.learner import (
    BATCH_SIZE,
    WAYS,
    Floats,
    Ints,
    Learner,
    Rows,
    diverged,
    replay,
)
from prioritized_replay.experiments.chain.task import CHECKED_EVERY, Chain, Progress

Law = Literal["proportional", "rank"]
Refresh = Literal["none", "32", "256", "all", "batch-64", "bonus-0.01", "bonus-0.1"]
Rule = Literal["oldest", "random", "lowest", "inverse"]

STATES = 32  # of the chain; a random walk finds its reward in 1,056 steps
STEP_SIZE = 8.0  # which both laws choose there, of those that were tried
SMALL_STEP_SIZE = 4.0  # with 8, the values of the smallest memory are hardly ever right
PATIENCE = 10_000  # updates before a run is given up
COMPARED_EVERY = 100  # updates between two looks at how old the priorities are
STEPS_PER_UPDATE = 4


@dataclass(frozen=True)
class Staleness:
    """What one run with one way to keep priorities young came to.

    Attributes
    ----------
    updates : int or None
        Until the values were right; None if that did not come in time.
    elsewhere : float
        Share of the draws that would have gone to other rows with fresh priorities, half the sum
        of abs(P_stored - P_fresh): the mean over the run, NaN if it was too short to look.
    """

    updates: int | None
    elsewhere: float


class _Priorities:
    """The stored priorities of all rows, and one way to keep them young."""

    def __init__(
        self, learner: Learner, rows: Rows, law: Law, refresh: Refresh, rng: np.random.Generator
    ) -> None:
        size = rows.pair.size
        self._learner, self._rows = learner, rows
        self._way = WAYS[law]
        self._all = np.arange(size)
        self._written = np.zeros(size, np.int64)  # after which update
        kind, _, number = refresh.rpartition("-")
        self._batch = int(number) if kind == "batch" else BATCH_SIZE
        self._bonus = float(number) if kind == "bonus" else 0.0
        self._count = 0 if kind else int({"none": "0", "all": str(size)}.get(number, number))
        self._index = PrioritizedIndex(size, self._way.sampler, seed=rng)
        self._index.append(td_errors=np.full(size, 1.0 + self._handicap()))

    def replay(self) -> bool:
        """Make one update; False if the values have diverged."""
        draw = self._index.sample(self._batch, self._way.beta)
        td_error = self._learner.learn(self._rows, draw.ids, draw.weights)
        if diverged(td_error):
            return False
        self._index.update_priorities(draw.ids, np.abs(td_error) + self._handicap())
        self._written[draw.ids] = self._learner.updates
        if self._count:
            self._evaluate_oldest()
        return True

    def _handicap(self) -> float:
        """Return what puts a row that is drawn now behind those that are drawn later.

        The paper takes more and more from the priorities that are written. Errors must not be
        negative: so here they are given less and less. By rank, only the order counts.
        """
        left = PATIENCE - self._learner.updates
        return self._bonus * left * BATCH_SIZE / self._all.size

    def _evaluate_oldest(self) -> None:
        """Evaluate the rows whose priorities are oldest once more."""
        oldest = self._all
        if self._count < oldest.size:
            oldest = _lowest(self._written, self._count)
        self._index.update_priorities(oldest, self._learner.td_errors(self._rows, oldest))
        self._written[oldest] = self._learner.updates

    def elsewhere(self) -> float:
        """Return which share of the draws would go to other rows with fresh priorities."""
        fresh = PrioritizedIndex(self._all.size, self._way.sampler)
        fresh.append(td_errors=self._learner.td_errors(self._rows, self._all))
        stored = self._index.get(self._all).probabilities
        return float(np.abs(stored - fresh.get(self._all).probabilities).sum() / 2.0)


def learn_with_refresh(law: Law, refresh: Refresh, seed: int, n: int = STATES) -> Staleness:
    """Count the updates that a law needs if its priorities are kept young in one way.

    Memory and first weights depend on ``n`` and ``seed`` alone.

    Parameters
    ----------
    law : "proportional" or "rank"
        With the weights that it has in ``WAYS``.
    refresh : str
        After every update, evaluate no row once more, the 32 or 256 whose priorities are oldest, or
        all. Or draw 64 rows instead of 32, which needs as many evaluations as to refresh 32. Or
        the paper's bonus, by rank only: with every epoch, N draws, that a row waits, its priority
        grows by 0.01 or 0.1.
    seed : int
        Fixes the memory, the first weights and the draws.
    n : int
        Number of states of the chain.

    Raises
    ------
    ValueError
        A law or a way that there is not, or a bonus that is not by rank.
    """
    if law not in get_args(Law) or refresh not in get_args(Refresh):
        raise ValueError(f"there is no {law!r} with {refresh!r}")
    if refresh.startswith("bonus") and law != "rank":
        raise ValueError(f"a bonus needs the law 'rank', got {law!r}")
    chain = Chain(n)
    rng = np.random.default_rng([n, seed])
    rows, truth = chain.memory(rng), chain.true_values()
    learner = Learner(n, STEP_SIZE, WAYS[law].clip, rng)
    priorities = _Priorities(learner, rows, law, refresh, rng)
    progress, elsewhere = Progress(), []
    while learner.updates < PATIENCE and progress.values is None and priorities.replay():
        if learner.updates % CHECKED_EVERY == 0:
            progress.look(learner, truth)
        if learner.updates % COMPARED_EVERY == 0:
            elsewhere.append(priorities.elsewhere())
    return Staleness(progress.values, float(np.mean(elsewhere)) if elsewhere else np.nan)


class _SmallMemory:
    """A memory of N places that is full: each new row takes the place of one that a rule chooses.

    All rules work on the same index, whose items are the places.
    """

    def __init__(self, rule: Rule, rows: Rows, capacity: int, rng: np.random.Generator) -> None:
        self._rule, self._rng = rule, rng
        self._stream = rows
        self._next = capacity  # row of the stream that comes next
        self.rows = Rows(
            rows.pair[:capacity].copy(),
            rows.reward[:capacity].copy(),
            rows.discount[:capacity].copy(),
            rows.next_obs[:capacity].copy(),
        )
        law = WAYS["proportional"].sampler
        self.index = PrioritizedIndex(capacity, law, seed=rng)
        self.index.append(td_errors=np.ones(capacity))
        self._eps = getattr(law, "eps", 0.0)
        self._places = np.arange(capacity)

    def add(self, count: int) -> None:
        """Let so many new rows in, at the largest priority that there is."""
        priorities = self.index.priorities(self._places)
        places = self._given_up(priorities, count)
        for mine, theirs in zip(self.rows, self._stream, strict=True):
            mine[places] = theirs[self._next : self._next + count]
        self._next += count
        self.index.update_priorities(places, np.full(count, priorities.max() - self._eps))

    def _given_up(self, priorities: Floats, count: int) -> Ints:
        """Return the places of the rows that are overwritten."""
        if self._rule == "oldest":
            return np.arange(self._next, self._next + count) % priorities.size
        clocks = priorities  # whose clock rings first has to go
        if self._rule == "random":
            clocks = self._rng.random(priorities.size)
        elif self._rule == "inverse":
            clocks = self._rng.exponential(size=priorities.size) * priorities
        return _lowest(clocks, count)


def _lowest(values: Floats | Ints, count: int) -> Ints:
    """Return the places of the lowest values, the first ones of equal values.

    NumPy's own partition takes any of equal values, which differs from processor to processor.
    """
    return np.argsort(values, kind="stable")[:count]


def learn_with_eviction(rule: Rule, capacity: int, seed: int, limit: int = PATIENCE) -> int | None:
    """Count the updates until the values are right if the memory is full from the beginning on.

    A random walk goes on while the learner learns, four steps for each update. First weights, and
    the walk, depend on ``seed`` alone. Draws are proportional.

    Parameters
    ----------
    rule : str
        Which row gives way: the oldest, any, the one of lowest priority, or one that is drawn in
        proportion to 1 / priority.
    capacity : int
        Rows in the memory.
    seed : int
        Fixes the walk, the first weights and the draws.
    limit : int
        The run is given up after that many updates.

    Returns
    -------
    int or None
        None if they were not right in time.

    Raises
    ------
    ValueError
        A rule that there is not.
    """
    if rule not in get_args(Rule):
        raise ValueError(f"rule must be one of {', '.join(get_args(Rule))}, got {rule!r}")
    chain, way = Chain(STATES), WAYS["proportional"]
    rng = np.random.default_rng([STATES, seed])
    learner = Learner(STATES, SMALL_STEP_SIZE, way.clip, rng)
    truth = chain.true_values()
    memory = _SmallMemory(rule, chain.walk(capacity + STEPS_PER_UPDATE * limit, rng), capacity, rng)
    progress = Progress()
    while learner.updates < limit and progress.values is None:
        memory.add(STEPS_PER_UPDATE)
        if not replay(learner, memory.rows, memory.index, way.beta):
            break
        if learner.updates % CHECKED_EVERY == 0:
            progress.look(learner, truth)
    return progress.values
