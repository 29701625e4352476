"""Slow, obvious twins of the library's structures, and the few scenes that many tests share.

Nothing here is clever: laws are direct sums, searches are cumulative sums, n-step windows are
computed from the whole episode, rows are kept in a dictionary. The real code is tested against it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import chi2

import prioritized_replay as per

FIELDS = {
    "obs": per.Field((2,), "float32"),
    "action": per.Field((), "int64"),
    "reward": per.Field((), "float32"),
}


# --- the sum tree -----------------------------------------------------------------------------


class ReferenceSumTree:
    """Masses in one array; a search is a cumulative sum, exact while masses are small integers."""

    def __init__(self, capacity: int) -> None:
        self.mass = np.zeros(capacity)

    def set(self, slots: Sequence[int], masses: Sequence[float]) -> None:
        for slot, mass in zip(slots, masses, strict=True):
            self.mass[slot] = mass

    def find(self, targets: np.ndarray) -> np.ndarray:
        return np.searchsorted(np.cumsum(self.mass), targets, side="right")

    @property
    def total(self) -> float:
        return math.fsum(self.mass)


# --- laws and weights -------------------------------------------------------------------------


def uniform_law(priorities: np.ndarray) -> np.ndarray:
    return np.full(len(priorities), 1 / len(priorities))


def proportional_law(priorities: np.ndarray, alpha: float) -> np.ndarray:
    """P(i) = p_i**alpha / sum_k p_k**alpha."""
    masses = np.asarray(priorities, dtype=np.float64) ** alpha
    return masses / math.fsum(masses)


def rank_law(priorities: np.ndarray, alpha: float) -> np.ndarray:
    """P(i) = rank(i)**-alpha / sum_r r**-alpha; rows of equal priority share their ranks' mass."""
    priorities = np.asarray(priorities, dtype=np.float64)
    rank_masses = np.arange(1, len(priorities) + 1, dtype=np.float64) ** -alpha
    masses = np.empty(len(priorities))
    for value in np.unique(priorities):
        first = int(np.sum(priorities > value))
        members = priorities == value
        count = int(np.sum(members))
        masses[members] = math.fsum(rank_masses[first : first + count]) / count
    return masses / math.fsum(rank_masses)


def mixed_law(law: np.ndarray, uniform_mix: float) -> np.ndarray:
    return (1 - uniform_mix) * law + uniform_mix / len(law)


def importance_weights(
    drawn: np.ndarray, law: np.ndarray, beta: float, normalisation: str
) -> np.ndarray:
    """Weights of rows drawn with probabilities `drawn`, where `law` covers every live row."""
    raw = (len(law) * drawn) ** -beta
    if normalisation == "raw":
        return raw
    if normalisation == "batch":
        return raw / raw.max()
    return raw / (len(law) * law[law > 0].min()) ** -beta


def sequential_law(law: np.ndarray, batch_size: int) -> dict[tuple[int, ...], float]:
    """The chance of every ordered outcome of drawing `batch_size` rows one after the other."""
    outcomes: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(batch_size):
        longer: dict[tuple[int, ...], float] = {}
        for outcome, chance in outcomes.items():
            rest = math.fsum(p for row, p in enumerate(law) if row not in outcome)
            for row, p in enumerate(law):
                if row not in outcome and p > 0:
                    longer[(*outcome, row)] = chance * p / rest
        outcomes = longer
    return outcomes


def chi_square_excess(counts: np.ndarray, law: np.ndarray, level: float = 1e-4) -> float:
    """Chi-square statistic over its critical value: above 1 the counts do not follow the law.

    Cells that expect fewer than 5 draws are merged into one.
    """
    counts, law = np.asarray(counts, dtype=np.float64), np.asarray(law, dtype=np.float64)
    if np.any(counts[law == 0] > 0):
        return math.inf
    expected = counts.sum() * law
    rare = expected < 5
    observed, expected = counts[~rare], expected[~rare]
    if rare.any() and counts.sum() * law[rare].sum() > 0:
        observed = np.append(observed, counts[rare].sum())
        expected = np.append(expected, counts.sum() * law[rare].sum())
    statistic = np.sum((observed - expected) ** 2 / expected)
    return float(statistic / chi2.ppf(1 - level, max(len(observed) - 1, 1)))


# --- n-step windows ---------------------------------------------------------------------------


@dataclass
class Step:
    """One step of an episode, as the user gives it to ``add``."""

    obs: Any
    action: Any
    reward: float
    next_obs: Any
    td_error: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def window(
    episode: Sequence[Step], start: int, n_step: int, gamma: float, terminated: bool
) -> dict[str, Any]:
    """The transition that starts at `start` of an episode of which no more steps are to come."""
    steps = episode[start : start + n_step]
    ends_in_termination = terminated and start + n_step >= len(episode)
    return {
        "obs": steps[0].obs,
        "action": steps[0].action,
        "reward": math.fsum(gamma**k * step.reward for k, step in enumerate(steps)),
        "discount": 0.0 if ends_in_termination else gamma ** len(steps),
        "next_obs": steps[-1].next_obs,
        **steps[0].extra,
    }


# --- the whole buffer -------------------------------------------------------------------------


class ReferenceReplay:
    """What a `ReplayBuffer` of one stream must do, with a dictionary from id to row."""

    def __init__(
        self, capacity: int, sampler: Any, n_step: int = 1, gamma: float = 0.99, first_id: int = 0
    ) -> None:
        self.capacity, self.sampler, self.n_step, self.gamma = capacity, sampler, n_step, gamma
        self.alpha = getattr(sampler, "alpha", 0.0)
        self.rows: dict[int, dict[str, Any]] = {}
        self.priority: dict[int, float] = {}
        self.next_id = first_id
        self.stale_updates = 0
        self.clear()

    def clear(self) -> None:
        self.rows.clear()
        self.priority.clear()
        self.largest: float | None = None
        self.episode: list[Step] = []
        self.closed = 0

    # adding

    def add(self, step: Step, terminated: bool = False, truncated: bool = False) -> list[int]:
        self.episode.append(step)
        return self._close(terminated, ended=terminated or truncated)

    def end_episode(self) -> list[int]:
        return self._close(terminated=False, ended=True)

    def extend(
        self, rows: Sequence[dict[str, Any]], td_errors: Sequence[float] | None = None
    ) -> list[int]:
        return self._enter(rows, [None] * len(rows) if td_errors is None else td_errors)

    @property
    def open_windows(self) -> int:
        return len(self.episode) - self.closed

    def _close(self, terminated: bool, ended: bool) -> list[int]:
        last = len(self.episode) if ended else len(self.episode) - self.n_step + 1
        starts = range(self.closed, max(last, self.closed))
        rows = [window(self.episode, s, self.n_step, self.gamma, terminated) for s in starts]
        td_errors = [self.episode[start].td_error for start in starts]
        self.closed = max(last, self.closed)
        if ended:
            self.episode, self.closed = [], 0
        return self._enter(rows, td_errors)

    def _enter(
        self, rows: Sequence[dict[str, Any]], td_errors: Sequence[float | None]
    ) -> list[int]:
        """Enter rows: one without an error at the maximum, that of earlier rows included."""
        maximum = self.maximum() if self.priority else None
        ids = []
        for place, (row, td_error) in enumerate(zip(rows, td_errors, strict=True)):
            if place >= len(rows) - self.capacity:  # earlier ones of a huge call never get in
                if td_error is None:
                    priority = 1.0 if maximum is None else maximum
                else:
                    priority = self.p(td_error)
                maximum = priority if maximum is None else max(maximum, priority)
                self.rows[self.next_id] = row
                self._set_priority(self.next_id, priority)
            ids.append(self.next_id)
            self.next_id += 1
        for old in list(self.rows)[: max(len(self.rows) - self.capacity, 0)]:
            del self.rows[old], self.priority[old]
        return ids

    # priorities

    def p(self, td_error: float) -> float:
        return abs(float(td_error)) + getattr(self.sampler, "eps", 0.0)

    def maximum(self) -> float:
        """The priority of rows that enter now without an error of their own."""
        if not self.priority:
            return 1.0
        if getattr(self.sampler, "max_priority", "ever") == "current":
            return max(self.priority.values())
        assert self.largest is not None
        return self.largest

    def _set_priority(self, identifier: int, priority: float) -> None:
        self.priority[identifier] = priority
        self.largest = priority if self.largest is None else max(self.largest, priority)

    def update(self, ids: Sequence[int], td_errors: Sequence[float]) -> int:
        last = dict(zip(ids, td_errors, strict=True))  # of duplicates the last wins
        for identifier, td_error in last.items():
            if identifier in self.rows:
                self._set_priority(identifier, self.p(td_error))
        applied = sum(identifier in self.rows for identifier in ids)
        self.stale_updates += len(ids) - applied
        return applied

    # sampling

    @property
    def ids(self) -> np.ndarray:
        return np.array(list(self.rows), dtype=np.int64)

    def law(self) -> np.ndarray:
        """P(i) of every live row, in the order of `ids`."""
        priorities = np.array([self.priority[i] for i in self.rows])
        if isinstance(self.sampler, per.Uniform):
            return uniform_law(priorities)
        if isinstance(self.sampler, per.RankBased):
            return mixed_law(rank_law(priorities, self.alpha), self.sampler.uniform_mix)
        if not np.any(priorities**self.alpha > 0):
            assert self.sampler.uniform_mix > 0
            return uniform_law(priorities)
        return mixed_law(proportional_law(priorities, self.alpha), self.sampler.uniform_mix)

    def check_batch(self, batch: Any, beta: float) -> None:
        """Every column, probability and weight of a batch is what this twin holds."""
        law = dict(zip(self.rows, self.law(), strict=True))
        ids = [int(i) for i in batch.ids]
        assert set(ids) <= set(law)
        for name in self.rows[ids[0]]:
            np.testing.assert_array_equal(
                batch[name], np.array([self.rows[i][name] for i in ids]), err_msg=name
            )
        drawn = np.array([law[i] for i in ids])
        np.testing.assert_allclose(batch.probabilities, drawn, rtol=1e-12)
        normalisation = getattr(self.sampler, "weights", "batch")
        weights = importance_weights(drawn, np.array(list(law.values())), beta, normalisation)
        np.testing.assert_allclose(batch.weights, weights, rtol=3e-7)


# --- scenes -----------------------------------------------------------------------------------


def transitions(serials: Any) -> dict[str, np.ndarray]:
    """Rows for ``extend`` that carry their serial number in every column."""
    serials = np.asarray(serials)
    return {
        "obs": np.stack([serials, serials + 0.25], axis=1).astype(np.float32),
        "action": serials.astype(np.int64) * 3,
        "reward": serials.astype(np.float32) * 2,
        "next_obs": np.stack([serials + 1, serials + 1.25], axis=1).astype(np.float32),
        "terminated": serials % 5 == 4,
    }


def filled(
    sampler: Any, td_errors: Any, *, capacity: int | None = None, seed: int = 0, **options: Any
) -> tuple[per.ReplayBuffer, np.ndarray]:
    """A buffer with one row per td error, and the rows' ids."""
    td_errors = np.asarray(td_errors, dtype=np.float64)
    replay = per.ReplayBuffer(
        capacity or len(td_errors), FIELDS, sampler=sampler, seed=seed, **options
    )
    ids = replay.extend(transitions(np.arange(len(td_errors))), td_errors=td_errors)
    return replay, ids


def draw_counts(
    replay: per.ReplayBuffer, ids: np.ndarray, draws: int, batch_size: int
) -> np.ndarray:
    """How often each of `ids` came up in `draws` draws."""
    drawn = np.concatenate([replay.sample(batch_size).ids for _ in range(draws // batch_size)])
    assert np.isin(drawn, ids).all()
    return np.array([np.sum(drawn == i) for i in ids])
