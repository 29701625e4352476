"""The protocol through which the checks and the race use a replay buffer of any library.

One class for each buffer is in :mod:`~prioritized_replay.conformance.adapters`. The methods that
:class:`Subject` lists as timed hold nothing but calls of the library.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.conformance.stacks import FRAME_BYTES, Stacks
from prioritized_replay.conformance.workload import Errors, Floats, Workload

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


class Subject(ABC):
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


class StackSubject(Subject):
    """A memory that is filled step by step, since only steps in order can share frames."""

    row_bytes = FRAME_BYTES * 5 // 4

    @classmethod
    def workload(cls) -> Workload:
        return Stacks()

    def _fill(self, workload: Workload) -> None:
        assert isinstance(workload, Stacks)
        for step in workload.played(self.size):
            self.add(self.as_step(step))
