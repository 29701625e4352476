"""Batches drawn from several shards as from one buffer. It knows the law and who answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.batch import USUAL, Batch
from prioritized_replay.integrations.ray.allocation import (
    Chances,
    allocate,
    importance_weights,
    shares,
)
from prioritized_replay.integrations.ray.calls import Calls
from prioritized_replay.integrations.ray.shard import Drawn

__all__ = ["Drawing", "Round"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

TINY = float(np.finfo(np.float64).tiny)
ATTEMPTS = 5  # at draws without replacement whose totals were too old


class Round(NamedTuple):
    """Batches that are being drawn."""

    batch_size: int
    chances: Floats
    """float64[K]"""
    counts: Ints
    """int64[batches, K]"""
    calls: dict[int, Any]


class Drawing:
    """Draws batches of all shards.

    Parameters
    ----------
    calls : Calls
    sampler : Specification
        That of every shard.
    generator : numpy.random.Generator
        Of the counts for each shard.
    """

    def __init__(self, calls: Calls, sampler: Any, generator: np.random.Generator) -> None:
        self._calls = calls
        self.generator = generator
        self._draw = getattr(sampler, "draw", "stratified")
        self._weights = getattr(sampler, "weights", "batch")
        self._distinct = self._draw == "without_replacement"
        self._mixed = float(getattr(sampler, "uniform_mix", 0.0)) + float(
            getattr(sampler, "recent_mix", 0.0)
        )

    def begin(self, batch_size: int, batches: int, deadline: float) -> Round:
        """Let shards begin to draw.

        Raises
        ------
        ValueError
            If there is nothing to draw.
        TimeoutError
            If no shard answers in time.
        """
        chances, most = self._chances(batch_size, deadline)
        counts = np.stack(
            [
                allocate(chances, batch_size, self.generator, self._draw, most)
                for _ in range(batches)
            ]
        )
        asked = np.flatnonzero(counts.any(axis=0)).tolist()
        calls = {k: self._calls.ask(k, "draw", counts[:, k].tolist()) for k in asked}
        self._calls.refresh(but=asked)
        return Round(batch_size, chances, counts, calls)

    def _chances(self, batch_size: int, deadline: float) -> tuple[Floats, Ints | None]:
        """Return the chance of each shard, and how many rows each can give if that counts."""
        present = self._calls.require_some(deadline)
        chances, most = self._known_chances(present)
        if chances.any() and (most is None or most.sum() >= batch_size):
            return chances, most
        while True:  # what is known is too little: ask, and wait for those that are restarted
            self._calls.ask_all("report", deadline)
            present = self._calls.present()
            chances, most = self._known_chances(present)
            if chances.any() and (most is None or most.sum() >= batch_size):
                return chances, most
            if present.all():
                raise self._nothing(batch_size, most)
            if time.monotonic() >= deadline:
                missing = ", ".join(map(str, np.flatnonzero(~present)))
                raise TimeoutError(
                    f"shard {missing} of {len(present)} has not answered for "
                    f"{self._calls.timeout:g} s, and the others have too few rows to draw"
                )
            time.sleep(0.02)

    def _known_chances(self, present: Flags) -> tuple[Floats, Ints | None]:
        totals = [report.totals for report in self._calls.reports]
        chances = shares(totals, self._mixed, present)
        if not self._distinct:
            return chances, None
        most = np.array([one.drawable for one in totals], np.int64)
        return chances, np.where(present & (chances > 0.0), most, 0)

    def _nothing(self, batch_size: int, most: Ints | None) -> ValueError:
        rows = sum(report.totals.size for report in self._calls.reports)
        if not rows:
            return ValueError("sample needs at least one transition, got none in any shard")
        if most is not None and most.any():
            return ValueError(
                "batch_size must be <= the number of rows of positive probability when drawing "
                f"without replacement ({int(most.sum())}), got {batch_size}"
            )
        return ValueError(
            "no row can be drawn while all priorities are zero: eps or uniform_mix must be > 0, "
            "got 0"
        )

    def finish(self, begun: Round, betas: Sequence[float], deadline: float) -> list[Batch[Array]]:
        """Return the batches, with what some shards did not give drawn anew from the others.

        A shard that is slow gets half of the time.

        Raises
        ------
        ValueError, TimeoutError
            As :meth:`begin`.
        """
        now = time.monotonic()
        outcome = self._calls.answers(begun.calls, now + (deadline - now) / 2)
        batches = []
        for number, beta in enumerate(betas):
            given = {k: drawn[number] for k, drawn in outcome.values.items()}
            batches.append(self._finished(begun, number, given, beta, deadline))
        return batches

    def _finished(
        self, begun: Round, number: int, given: dict[int, Drawn | None], beta: float,
        deadline: float,
    ) -> Batch[Array]:  # fmt: skip
        shards, counts, chances = len(self._calls), begun.counts[number], begun.chances
        law = Chances(shards)
        parts: list[tuple[int, Drawn]] = []
        for _ in range(ATTEMPTS * shards):
            asked = np.zeros(shards, np.bool_)
            asked[list(begun.calls)] = True
            failed = asked & np.array(
                [k not in given or (counts[k] > 0 and given[k] is None) for k in range(shards)]
            )
            missing = int(counts[failed].sum())
            if self._distinct and missing:  # a row must not come twice: begin again
                parts, law = [], Chances(shards)
                missing = begun.batch_size
            else:
                parts += [(k, part) for k, part in given.items() if part is not None]
                law.round(chances, failed)
            if not missing:
                return self._joined(parts, law.of_shards / (1.0 - law.rest), beta)
            begun = self.begin(missing, 1, deadline)
            now = time.monotonic()
            outcome = self._calls.answers(begun.calls, now + (deadline - now) / 2)
            counts, chances = begun.counts[0], begun.chances
            given = {k: drawn[0] for k, drawn in outcome.values.items()}
        raise TimeoutError(f"shards have changed too fast to draw from for {ATTEMPTS} attempts")

    def joined(self, parts: list[tuple[int, Drawn]], beta: float) -> Batch[Array]:
        """Return named rows as a batch, with the law that a draw would have now."""
        totals = [report.totals for report in self._calls.reports]
        chances = shares(totals, self._mixed, np.ones(len(totals), np.bool_))
        return self._joined(parts, chances, beta)

    def _joined(self, parts: list[tuple[int, Drawn]], chances: Floats, beta: float) -> Batch[Array]:
        """Return parts from shards as one batch. Those of a single shard are not copied."""
        columns = {
            name: _together([part.columns[name] for _, part in parts])
            for name in parts[0][1].columns
        }
        own = [part.columns["probabilities"] * chances[k] for k, part in parts]
        # A product that underflows stays positive.
        probabilities = np.maximum(np.concatenate(own), TINY)
        reports = self._calls.reports
        rows, least = sum(report.totals.size for report in reports), 0.0
        if self._weights == "buffer":
            least = min(
                (
                    chances[k] * report.totals.least_probability
                    for k, report in enumerate(reports)
                    if chances[k] > 0.0 and report.totals.least_probability > 0.0
                ),
                default=0.0,
            )
        columns["probabilities"] = probabilities
        columns["weights"] = importance_weights(probabilities, beta, self._weights, rows, least)
        names = [*USUAL, *(name for name in columns if name not in USUAL)]
        return Batch({name: columns[name] for name in names})


def _together(columns: list[Any]) -> Any:
    """Return the rows of several columns, nested ones too, as one column."""
    first = columns[0]
    if isinstance(first, dict):
        return {name: _together([column[name] for column in columns]) for name in first}
    if isinstance(first, tuple):
        return tuple(_together(list(parts)) for parts in zip(*columns, strict=True))
    return first if len(columns) == 1 else np.concatenate(columns)
