"""What scenarios are written with: a memory of the library under trial, beside all it was given.

Knows how to fill a memory, draw from it and hold what comes against what should; knows no
scenario. Where something is wrong it raises :class:`Failure` with the numbers seen.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prioritized_replay.conformance.chi_square import FALSE_ALARM, surprise
from prioritized_replay.conformance.memory import (
    Adapter,
    Drawn,
    Memory,
    NotClaimed,
    Wanted,
)
from prioritized_replay.conformance.steps import COLUMNS, Episodes, Walk

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS = 8192
_AT_ONCE = 64
_COVERING = 16  # times as many draws as rows: one of 64 equally likely ones is missed by 1 in 1e5
_PATIENCE = 20


class Failure(Exception):
    """A memory did not do what a scenario says. The message has the numbers seen."""


def require(condition: object, message: str) -> None:
    """Raise :class:`Failure` with the message, unless the condition holds."""
    if not condition:
        raise Failure(message)


class Trials:
    """Makes the memories of one scenario.

    Parameters
    ----------
    adapter : Adapter
        The kind of memory.
    seed : int
        Of the memories, and of the numbers that scenarios choose.

    Attributes
    ----------
    rng : numpy.random.Generator
        For what a scenario chooses.
    """

    def __init__(self, adapter: Adapter, seed: int = 0) -> None:
        self.adapter = adapter
        self.law = adapter.law
        self.rng = np.random.default_rng((seed, 0x9E37))
        self._seed = seed

    def new(
        self,
        episodes: Episodes | Sequence[Episodes] | None = None,
        *,
        first: int = 0,
        **wanted: Any,
    ) -> Trial:
        """Return an empty memory; see :class:`Wanted` and :class:`Walk`.

        Raises
        ------
        NotClaimed
            If the library does not offer what is wanted.
        """
        eps = self.adapter.eps
        if eps is not None and wanted.get("eps", eps) != eps:
            raise NotClaimed(f"eps is {eps:g} and cannot be chosen")
        settings = Wanted(**{"seed": self._seed} | wanted)
        memory = self.adapter.make(settings)
        if not isinstance(memory, Memory):
            raise TypeError(f"make must return a Memory, got {type(memory).__name__}")
        return Trial(self.adapter, settings, memory, Walk(settings, episodes, first))

    def full(self, capacity: int = 64, **wanted: Any) -> Trial:
        """Return a memory that was filled once, with steps of an episode that does not end."""
        trial = self.new(capacity=capacity, **wanted)
        trial.add(capacity)
        return trial

    def errors(self, count: int) -> Floats:
        """Return TD errors, float64[count]: positive, all different, at most 1, few of them large.

        The smallest of 64 is about 1/40 of the largest.
        """
        errors = self.rng.lognormal(0.0, 0.8, count)
        return np.asarray(errors / errors.max())


class Trial:
    """A memory, the steps it was given, and what it must hold.

    Attributes
    ----------
    memory : Memory
    wanted : Wanted
    walk : Walk
        Where its steps come from.
    kept : list of (ids, int64[B])
        The ids of the draws of :meth:`cover`, and the steps that they stand for.
    """

    def __init__(self, adapter: Adapter, wanted: Wanted, memory: Memory, walk: Walk) -> None:
        self.adapter, self.wanted, self.memory, self.walk = adapter, wanted, memory, walk
        self.eps = wanted.eps if adapter.eps is None else adapter.eps
        self._draw = wanted.draw or adapter.draw
        self.kept: list[tuple[Any, Ints]] = []
        self._complete: list[int] = []
        self._known_at = 0

    # Giving

    def add(self, count: int = 1) -> None:
        """Add so many steps, of all environments where there are several."""
        for _ in range(count):
            if self.wanted.num_envs is None:
                self.memory.add(self.walk.step())
            else:
                self.memory.add_vector(self.walk.vector_step())

    def cover(self) -> None:
        """Draw until each row was seen, and keep the ids. Rows should be about equally likely."""
        self.kept, seen = [], set[int]()
        batch = self._batch(_COVERING * len(self.live))
        for _ in range(_PATIENCE):
            drawn = self.memory.sample(batch, 0.5)
            numbers = self.walk.numbers_in(drawn)
            self.kept.append((drawn.ids, numbers))
            seen.update(numbers.tolist())
            if seen.issuperset(self.live):
                return
        never = sorted(set(self.live) - seen)
        raise Failure(f"steps {_some(never)} were not drawn in {batch * _PATIENCE:,} draws")

    def assign(self, errors: ArrayLike) -> None:
        """Give the rows these TD errors, float64[N]: one for each of :attr:`live` in order."""
        if not self.kept:
            self.cover()
        of_number = dict(zip(self.live, np.asarray(errors, float).tolist(), strict=True))
        for ids, numbers in self.kept:
            self.memory.update(ids, np.array([of_number[number] for number in numbers.tolist()]))

    def clear(self) -> None:
        """Empty the memory; what was given before is not expected any more."""
        self.memory.clear()
        self.walk.interrupt()
        self.walk.numbers.clear()

    def reloaded(self) -> Trial:
        """Save the memory, and return a trial of another one that has loaded it, of equal walk.

        Steps can then be added to one of the two.
        """
        other = Trial(
            self.adapter, self.wanted, self.adapter.make(self.wanted), copy.deepcopy(self.walk)
        )
        other.kept = list(self.kept)
        with tempfile.TemporaryDirectory() as folder:
            self.memory.save(Path(folder))
            other.memory.load(Path(folder))
        return other

    # Knowing

    @property
    def complete(self) -> list[int]:
        """Steps whose windows are complete, in their order."""
        if self._known_at != self.walk.changes:
            n, window = self.wanted.n_step, self.walk.window
            self._complete = [number for number in self.walk.numbers if window(number, n).whole]
            self._known_at = self.walk.changes
        return self._complete

    @property
    def live(self) -> list[int]:
        """Steps whose rows must be there: the last N that are complete."""
        return self.complete[-self.wanted.capacity :]

    def masses(self, errors: ArrayLike) -> Floats:
        """Return what the law makes of TD errors, float64[N]; equal errors share their ranks."""
        sizes = np.abs(np.asarray(errors, float))
        if self.adapter.law == "uniform":
            return np.ones(sizes.size)
        if self.adapter.law == "proportional":
            return np.asarray((sizes + self.eps) ** self.wanted.alpha)
        of_rank = np.arange(1.0, sizes.size + 1) ** -self.wanted.alpha
        order = np.argsort(-sizes, kind="stable")
        masses = np.empty(sizes.size)
        masses[order] = of_rank
        for size in np.unique(sizes):
            masses[sizes == size] = masses[sizes == size].mean()
        return masses

    # Looking

    def _batch(self, batch_size: int) -> int:
        """Return the size, or less where no row can come twice."""
        whole = self._draw == "without_replacement"
        return min(batch_size, len(self.live)) if whole else batch_size

    def draw(self, batch_size: int = _AT_ONCE, beta: float = 0.5) -> tuple[Drawn, Ints]:
        """Draw a batch whose rows are right. Return it, and which steps they begin with.

        It is smaller where no row can come twice and there are not so many.

        Raises
        ------
        Failure
            If a row does not hold what was added, or is older than the last N.
        """
        batch_size = self._batch(batch_size)
        drawn = self.memory.sample(batch_size, beta)
        numbers = self.walk.numbers_in(drawn)
        require(numbers.size == batch_size, f"{numbers.size} rows came back of {batch_size}")
        if fault := self.walk.fault_in(drawn):
            raise Failure(fault)
        oldest = min(self.live, default=0)
        old = numbers[numbers < oldest]
        require(
            not old.size or self.wanted.num_envs is not None,
            f"step {old[:1]} was drawn, which has given way: the oldest there is {oldest}",
        )
        return drawn, numbers

    def counts(self, draws: int = DRAWS) -> Ints:
        """Return how often each of :attr:`live` comes in so many draws, int64[N].

        Raises
        ------
        Failure
            If another step is drawn.
        """
        live = self.live
        place = {number: k for k, number in enumerate(live)}
        batch = 1 if self._draw == "without_replacement" else _AT_ONCE
        counts = np.zeros(len(live), np.int64)
        for _ in range(draws // batch):
            numbers = self.walk.numbers_in(self.memory.sample(batch, 0.5)).tolist()
            for number in numbers:
                require(number in place, f"step {number} was drawn, which is not there")
                counts[place[number]] += 1
        return counts

    def weights(self, beta: float) -> Floats:
        """Return the weights of :attr:`live`, float64[N], up to a factor that they all share.

        They are read from a batch so large that it holds every row: all were divided by the same.

        Raises
        ------
        Failure
            If a weight is not finite and positive, or a row has several.
        """
        live = self.live
        drawn = self.memory.sample(self._batch(256 * len(live)), beta)
        numbers = self.walk.numbers_in(drawn)
        if drawn.weights is None:
            raise NotClaimed("it computes no weights")
        weights = np.asarray(drawn.weights, float).reshape(len(numbers))
        require(np.isfinite(weights).all() and (weights > 0).all(), f"{weights.min()} is a weight")
        of_live = np.array([weights[numbers == number].mean() for number in live])
        spread = [np.ptp(weights[numbers == number]) / weights.max() for number in live]
        require(np.max(spread) < 1e-5, "equal rows of a batch have different weights")
        return of_live

    def holds(self, numbers: list[int] | None = None, columns: Sequence[str] = COLUMNS) -> str:
        """Return what was seen, if the rows of these steps are drawn and hold what they should.

        By default those of :attr:`live`, and all columns. What else is drawn does not matter.

        Raises
        ------
        Failure
            If one is never drawn, or holds something else.
        """
        due, count = set(self.live if numbers is None else numbers), 0
        left = set(due)
        for _ in range(_PATIENCE * _COVERING):
            drawn = self.memory.sample(self._batch(_AT_ONCE), 0.5)
            seen = self.walk.numbers_in(drawn)
            of_due = np.flatnonzero(np.isin(seen, sorted(due)))
            if fault := self.walk.fault_in(drawn, of_due.tolist(), columns):
                raise Failure(fault)
            left.difference_update(seen.tolist())
            count += of_due.size
            if not left and count > _COVERING * len(due):
                return f"{len(due)} rows, drawn {count:,} times, hold what they should"
        raise Failure(
            f"steps {_some(sorted(left))} were never drawn: {count:,} draws of the others"
        )

    def share(self, numbers: list[int], expected: float, draws: int = DRAWS) -> str:
        """Return what was seen, if these steps get a share of the draws.

        Raises
        ------
        Failure
            As :meth:`follows`.
        """
        counts = self.counts(draws)
        hits = int(counts[np.isin(self.live, numbers)].sum())
        text = f"{hits / counts.sum():.2%} of {counts.sum():,} draws, {expected:.2%} expected"
        rest = counts.sum() - hits
        require(surprise([hits, rest], [expected, 1.0 - expected]) > FALSE_ALARM, text)
        return text

    def follows(self, masses: ArrayLike, draws: int = DRAWS, among: slice = slice(None)) -> str:
        """Return what was seen, if rows are drawn in proportion to these masses, float64[N].

        With ``among`` only these of :attr:`live` are looked at, and masses are theirs.

        Raises
        ------
        Failure
            If chi-square is so large that it happens to a right memory once in 100,000 times.
        """
        return fits(self.counts(draws)[among], masses)


def fits(counts: Ints, masses: ArrayLike) -> str:
    """Return what was seen, if rows that were drawn so often have these masses, float64[N].

    Raises
    ------
    Failure
        As :meth:`Trial.follows`.
    """
    expected = np.asarray(masses, float) * (counts.sum() / np.sum(masses))
    chance = surprise(counts, expected)
    worst = int(np.argmax(np.abs(counts - expected) / np.sqrt(expected + 1.0)))
    text = f"{counts.sum():,} draws of {counts.size} rows: p = {chance:.2g}; furthest off is "
    text += f"one drawn {counts[worst]} times, {expected[worst]:.1f} expected"
    require(chance > FALSE_ALARM, text)
    return text


def _some(numbers: list[int]) -> str:
    text = ", ".join(map(str, numbers[:5]))
    return f"{text} and {len(numbers) - 5} more" if len(numbers) > 5 else text
