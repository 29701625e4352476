"""What takes part: the face that every library shows to the benchmark, and ours behind it.

Knows how this library is used; the others are in :mod:`~prioritized_replay.benchmarks.peers`. The
methods named in :class:`Contender` as timed hold nothing but calls of the library.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

import prioritized_replay as per
from prioritized_replay.benchmarks.workload import OBS_SIZE, Errors, Floats, Workload

Ints = NDArray[np.int64]
Law = Literal["proportional", "rank", "uniform"]
LAWS: tuple[Law, ...] = ("proportional", "rank", "uniform")

ALPHA: Mapping[Law, float] = {"proportional": 0.6, "rank": 0.7, "uniform": 0.0}
BETA = 0.5
EPS = 1e-4


@dataclass(frozen=True)
class Drawn:
    """A batch as the checks see it, whatever the library returned.

    Attributes
    ----------
    rows : int64[B]
        The places that were drawn, as the library names them; those of a library that does not
        are its rows' actions.
    actions : int64[B]
        The column ``action``: the row's own number, while nothing was added after the fill.
    obs : float32[B, 16], or of the workload's shape
    weights : float[B] or None
        None where the law is uniform.
    next_obs : like obs, or None
        Where given, it is checked as well.
    """

    rows: Ints
    actions: Ints
    obs: NDArray[Any]
    weights: NDArray[Any] | None
    next_obs: NDArray[Any] | None = None


class Contender(ABC):
    """A replay memory of N transitions, used as its documentation advises.

    What a library cannot do, its contender does not define: uniform ones take no updates.

    Parameters
    ----------
    size : int
        The capacity N. :meth:`fill` fills it.

    Attributes
    ----------
    name, library, law
        What it is called, whose it is, and how it draws.
    settings : mapping of str to str
        How it is used, for the reader.
    eps : float
        What it adds to abs(td_error).
    bulk : bool
        Whether it can add many transitions at once.
    row_bytes : int
        At most so many bytes does a row need, trees included, for a guess whether it fits.
    """

    name: ClassVar[str]
    library: ClassVar[str]
    law: ClassVar[Law]
    settings: ClassVar[Mapping[str, str]]
    eps: ClassVar[float] = EPS
    bulk: ClassVar[bool] = True
    # With TorchRL's and Tianshou's copies while they are filled it is less than twice the data.
    row_bytes: ClassVar[int] = 300

    def __init__(self, size: int) -> None:
        self.size = size

    @classmethod
    def workload(cls) -> Workload:
        """Return the kind of data that it is made for."""
        return Workload()

    # Before timing

    @abstractmethod
    def fill(self, workload: Workload, errors: Floats | None) -> None:
        """Store all N rows, with these TD errors or, without, with the priority of new rows."""

    @abstractmethod
    def as_step(self, step: Mapping[str, Any]) -> Any:
        """Bring a transition into the form in which this library's own loop would hold it."""

    def as_rows(self, rows: Mapping[str, Any]) -> Any:
        """Bring columns of many transitions into the form in which it takes them."""
        raise NotImplementedError

    def as_errors(self, errors: Errors) -> Any:
        """Bring TD errors float32[B] into the form of priority that costs this library least."""
        raise NotImplementedError

    # Timed

    @abstractmethod
    def add(self, step: Any) -> None:
        """Add one transition."""

    def add_with_error(self, step: Any, error: Any) -> None:
        """Add one transition whose TD error is known. ``error`` comes from :meth:`as_errors`."""
        raise NotImplementedError

    def extend(self, rows: Any) -> None:
        """Add many transitions at once."""
        raise NotImplementedError

    @abstractmethod
    def sample(self, batch: int) -> Any:
        """Draw B transitions with their importance weights."""

    def update(self, drawn: Any, errors: Any) -> None:
        """Give the rows of a batch new priorities."""
        raise NotImplementedError

    # Checks

    @abstractmethod
    def seen(self, drawn: Any) -> Drawn:
        """Show a batch to the checks."""

    def update_rows(self, rows: Ints, errors: Errors) -> None:
        """Give named rows new priorities; nothing was added after the fill."""
        raise NotImplementedError

    def masses(self, errors: Floats) -> Floats:
        """Return what the law in force is proportional to, for rows with these TD errors."""
        if self.law == "uniform":
            return np.ones(errors.size)
        if self.law == "proportional":
            return np.asarray((np.abs(errors) + self.eps) ** ALPHA["proportional"])
        ranks = np.empty(errors.size)
        ranks[np.argsort(-np.abs(errors))] = np.arange(1, errors.size + 1)
        return np.asarray(ranks ** -ALPHA["rank"])

    @property
    def nbytes(self) -> int | None:
        """Bytes reserved, where the library tells."""
        return None


class _Ours(Contender):
    library = "prioritized-replay"
    sampler: ClassVar[Any]
    directory: str | None = None
    fields: ClassVar[Mapping[str, per.Field]] = {
        "obs": per.Field((OBS_SIZE,)),
        "action": per.Field((), "int64"),
        "reward": per.Field(),
    }

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._replay = per.ReplayBuffer(
            size, self.fields, sampler=self.sampler, directory=self.directory, seed=1
        )

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        first = 0
        for rows in workload.chunks(self.size):
            last = first + len(rows["action"])
            self._replay.extend(rows, None if errors is None else errors[first:last])
            first = last

    def as_step(self, step: Mapping[str, Any]) -> Any:
        return tuple(step.values())

    def as_rows(self, rows: Mapping[str, Any]) -> Any:
        return rows

    def as_errors(self, errors: Errors) -> Any:
        return errors  # signed: abs, eps and alpha are applied inside, and are timed

    def add(self, step: Any) -> None:
        self._replay.add(*step)

    def add_with_error(self, step: Any, error: Any) -> None:
        self._replay.add(*step, td_error=error)

    def extend(self, rows: Any) -> None:
        self._replay.extend(rows)

    def sample(self, batch: int) -> Any:
        return self._replay.sample(batch, BETA)

    def update(self, drawn: Any, errors: Any) -> None:
        self._replay.update_priorities(drawn.ids, errors)

    def seen(self, drawn: Any) -> Drawn:
        weights = None if self.law == "uniform" else drawn.weights
        return Drawn(drawn.ids % self.size, drawn.action, drawn.obs, weights)

    def update_rows(self, rows: Ints, errors: Errors) -> None:
        self._replay.update_priorities(rows, errors)

    @property
    def nbytes(self) -> int | None:
        return self._replay.nbytes


class OursProportional(_Ours):
    """``ReplayBuffer`` with ``Proportional``."""

    name = "ours, proportional"
    law = "proportional"
    sampler = per.Proportional(alpha=ALPHA["proportional"], eps=EPS)
    settings: ClassVar = {
        "class": f"ReplayBuffer(sampler=Proportional(alpha={ALPHA['proportional']}, eps={EPS}))",
        "draws": "stratified, with replacement (the default)",
        "update": "signed float32 TD errors; absolute value, eps and alpha are part of the time",
    }


class OursInFiles(OursProportional):
    """The same in a directory."""

    name = "ours, proportional, in files"
    settings: ClassVar = {
        **OursProportional.settings,
        "where": "directory= of a temporary folder, pages cached by the system",
    }

    def __init__(self, size: int) -> None:
        self.directory = tempfile.mkdtemp(prefix="per-bench-")
        weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)
        super().__init__(size)


class OursRank(_Ours):
    """``ReplayBuffer`` with ``RankBased``."""

    name = "ours, rank-based"
    law = "rank"
    sampler = per.RankBased(alpha=ALPHA["rank"])
    settings: ClassVar = {
        "class": f"ReplayBuffer(sampler=RankBased(alpha={ALPHA['rank']}))",
        "draws": "stratified, with replacement (the default), by exact ranks",
        "update": "signed float32 TD errors",
    }


class OursUniform(_Ours):
    """``ReplayBuffer`` with ``Uniform``."""

    name = "ours, uniform"
    law = "uniform"
    sampler = per.Uniform()
    settings: ClassVar = {
        "class": "ReplayBuffer(sampler=Uniform())",
        "draws": "stratified, with replacement (the default); weights are returned as well",
    }

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        super().fill(workload, None)


OURS: Sequence[type[Contender]] = (OursProportional, OursRank, OursUniform)
