"""A replay memory in its plainest form: lists, NumPy, and every number computed anew.

Right and slow. It shows that scenarios ask for nothing that only we do, and :mod:`.wrong` changes
one method of it at a time.
"""

from __future__ import annotations

import pickle
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import prioritized_replay as per
from prioritized_replay.conformance.memory import (
    Adapter,
    Array,
    Drawn,
    Memory,
    Step,
    VectorStep,
    Wanted,
)
from prioritized_replay.conformance.subject import Law

Floats = NDArray[np.float64]


class Row(NamedTuple):
    """A transition: of n steps, or of as many as its episode had left."""

    obs: Array
    action: Any
    reward: float
    next_obs: Array
    discount: float


class PlainMemory(Memory):
    """A ring of rows with an error each.

    Parameters
    ----------
    law : {"proportional", "rank"}
    wanted : Wanted
    """

    def __init__(self, law: Law, wanted: Wanted) -> None:
        wanted.only(
            *("capacity", "alpha", "eps", "n_step", "gamma", "num_envs", "autoreset", "seed"),
            *("obs_shape", "obs_dtype", "action_shape", "action_dtype", "raw_weights"),
            *(("draw",) if wanted.draw == "independent" else ()),
        )
        self.law, self.wanted = law, wanted
        self.rng = np.random.default_rng(wanted.seed)
        self.rows: deque[Row] = deque(maxlen=wanted.capacity)
        self.errors: deque[float] = deque(maxlen=wanted.capacity)
        self.added, self.largest = 0, 1.0
        self.windows: list[list[Step]] = [[] for _ in range(wanted.num_envs or 1)]
        self.ended = [False] * len(self.windows)

    def __len__(self) -> int:
        return len(self.rows)

    # Steps become rows

    def add(self, step: Step) -> None:
        """Add a step of the only stream."""
        self.follow(0, step)

    def add_vector(self, step: VectorStep) -> None:
        """Add a step of each stream, without reset steps, with final observations."""
        final = step.info.get("final_obs")
        for stream in range(len(self.windows)):
            if self.wanted.autoreset == "next_step" and self.ended[stream]:
                self.ended[stream] = False
                continue
            ends = bool(step.terminated[stream] or step.truncated[stream])
            self.ended[stream] = ends
            swap = ends and self.wanted.autoreset == "same_step" and final is not None
            one = Step(
                step.obs[stream],
                step.action[stream],
                float(step.reward[stream]),
                final[stream] if swap and final is not None else step.next_obs[stream],
                bool(step.terminated[stream]),
                bool(step.truncated[stream]),
            )
            self.follow(stream, one)

    def follow(self, stream: int, step: Step) -> None:
        """Continue the windows of a stream by a step, and close those that are complete."""
        window = self.windows[stream]
        window.append(step)
        if len(window) == self.wanted.n_step:
            self.close(window)
        if step.terminated or step.truncated:
            self.close_all(window)

    def close_all(self, window: list[Step]) -> None:
        """Make rows of all steps that still wait, since their episode is over."""
        while window:
            self.close(window)

    def close(self, window: list[Step]) -> None:
        """Make a row of the steps that follow from the first, which is taken out."""
        reward = sum(self.wanted.gamma**k * step.reward for k, step in enumerate(window))
        discount = 0.0 if window[-1].terminated else self.wanted.gamma ** len(window)
        first = window[0]
        next_obs = np.array(window[-1].next_obs)
        self.store(Row(np.array(first.obs), first.action, reward, next_obs, discount))
        del window[0]

    def store(self, row: Row) -> None:
        """Append a row, at the largest error so far."""
        self.rows.append(row)
        self.errors.append(self.largest)
        self.added += 1

    def end_episode(self) -> None:
        """Close all windows."""
        for window in self.windows:
            self.close_all(window)

    # Rows are drawn

    def masses(self) -> Floats:
        """Return what rows are drawn in proportion to, float64[size]."""
        sizes = np.abs(np.array(self.errors))
        if self.law == "proportional":
            return np.asarray((sizes + self.wanted.eps) ** self.wanted.alpha)
        # Equal errors share the mass of their ranks.
        by_rank = np.concatenate(
            [[0.0], np.cumsum(np.arange(1.0, sizes.size + 1) ** -self.wanted.alpha)]
        )
        order = np.sort(sizes)
        low = sizes.size - np.searchsorted(order, sizes, "right")
        high = sizes.size - np.searchsorted(order, sizes, "left")
        return np.asarray((by_rank[high] - by_rank[low]) / (high - low))

    def places(self, batch_size: int, masses: Floats) -> NDArray[np.int64]:
        """Return the places of rows that are drawn independently, int64[B]."""
        return self.rng.choice(masses.size, batch_size, p=masses / masses.sum())

    def ids(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return names of rows, which no other row will have, int64[B]."""
        return places + self.added - len(self.rows)

    def sample(self, batch_size: int, beta: float) -> Drawn:
        """Draw a batch, whose largest weight is 1."""
        if not self.rows:
            raise ValueError("sample needs at least one row, got an empty memory")
        masses = self.masses()
        places = self.places(batch_size, masses)
        probabilities = masses[places] / masses.sum()
        weights = (len(self.rows) * probabilities) ** -beta
        if not self.wanted.raw_weights:
            weights /= weights.max()
        rows = [self.rows[place] for place in places]
        columns = {name: np.array([getattr(row, name) for row in rows]) for name in Row._fields}
        return Drawn(ids=self.ids(places), **columns, weights=weights, probabilities=probabilities)

    def update(self, ids: Any, td_errors: Array) -> int | None:
        """Set errors of rows that are still there."""
        errors = np.ravel(td_errors)
        if not np.isfinite(errors).all():
            raise ValueError(f"td_errors must be finite, got {errors[~np.isfinite(errors)][0]}")
        oldest = self.added - len(self.rows)
        applied = 0
        for number, error in zip(ids, np.abs(errors).tolist(), strict=True):
            if number >= oldest:
                self.errors[number - oldest] = error
                applied += 1
        self.largest = max(self.largest, float(np.abs(errors).max(initial=0.0)))
        return applied

    def clear(self) -> None:
        """Remove all rows and windows."""
        self.rows.clear()
        self.errors.clear()
        for window in self.windows:
            window.clear()

    def save(self, folder: Path) -> None:
        """Write everything to one file."""
        (folder / "memory").write_bytes(pickle.dumps(self.__dict__))

    def load(self, folder: Path) -> None:
        """Read it back."""
        self.__dict__ = pickle.loads((folder / "memory").read_bytes())


NOT_CLAIMED = {
    "concurrency": "it has no locks",
    "images-are-kept-once": "every row has its own observations",
    "stacked-frames-are-kept-once": "every row has its own observations",
    "shared-frames-are-right": "no frames are shared",
    "stratified-draws-are-even": "draws are independent",
    "errors-given-with-steps-count": "rows enter at the largest error",
    "alpha-can-be-changed": "alpha is fixed",
}


def plain(law: Law, kind: type[PlainMemory] = PlainMemory, name: str = "right") -> Adapter:
    """Return the adapter of a plain memory."""
    return Adapter(
        name=f"plain, {law}, {name}",
        library="plain",
        version=per.__version__,
        law=law,
        make=lambda wanted: kind(law, wanted),
        not_claimed=NOT_CLAIMED,
        settings=kind.__doc__.split("\n")[0] if kind.__doc__ else "",
    )


def proportional() -> Adapter:
    """Return the adapter of a plain proportional memory."""
    return plain("proportional")


def rank() -> Adapter:
    """Return the adapter of a plain rank-based memory."""
    return plain("rank")
