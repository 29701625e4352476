"""For ``torch.utils.data.DataLoader``: batches of a data set, or of a replay buffer, by priority.

Knows torch's loader. The process that trains draws and keeps the priorities, workers only load.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from prioritized_replay.batch import Batch
from prioritized_replay.fields import arguments
from prioritized_replay.index import PrioritizedIndex
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.schedules import Schedule, constant

__all__ = ["DatasetWithIds", "PrioritizedBatchSampler", "ReplayDataset"]

Row = TypeVar("Row", covariant=True)

REMEMBERED = 1024
"""Batches whose weights are kept; a loader draws ``num_workers * prefetch_factor`` ahead."""


class DatasetWithIds(Dataset[tuple[int, Row]], Generic[Row]):
    """A data set whose rows come with the ids of an index: ``(id, row)``.

    An id never names another item, so an error that comes back late lands on the right row or on
    none. Item ``id`` is row ``id % capacity``.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Of N rows by position: anything with ``dataset[k]`` and a length. Where it has torch's
        ``__getitems__`` as well, that loads whole batches.
    index : PrioritizedIndex
        Of capacity N. It is not kept, so workers get no copy.

    Raises
    ------
    ValueError
        If the number of rows is not the capacity, or an argument is something else.

    Examples
    --------
    >>> import prioritized_replay as per
    >>> rows = DatasetWithIds(["a", "b", "c"], per.PrioritizedIndex(3))
    >>> rows[1], rows[4]  # item 4 has taken the place of item 1
    ((1, 'b'), (4, 'b'))
    """

    def __init__(self, dataset: Dataset[Row], index: PrioritizedIndex) -> None:
        capacity = _index(index).capacity
        try:
            rows = len(dataset)  # type: ignore[arg-type]  # torch's Dataset promises no length
        except TypeError:
            kind = type(dataset).__name__
            raise ValueError(
                f"dataset must have a length and rows by position, got a {kind}"
            ) from None
        if rows != capacity:
            raise ValueError(
                f"dataset must have as many rows as the index has places, {capacity}, got {rows}"
            )
        self._dataset = dataset
        self._rows = rows

    def __len__(self) -> int:
        """Return the number of rows N."""
        return self._rows

    def __getitem__(self, item_id: int) -> tuple[int, Row]:
        """Return an id and its row."""
        return item_id, self._dataset[item_id % self._rows]

    def __getitems__(self, item_ids: list[int]) -> list[tuple[int, Row]]:
        """Return ids and their rows; torch's loader asks for a whole batch."""
        if not hasattr(self._dataset, "__getitems__"):
            return [self[item_id] for item_id in item_ids]
        rows = self._dataset.__getitems__([item_id % self._rows for item_id in item_ids])
        return list(zip(item_ids, rows, strict=True))

    __iter__ = None  # there is a row for every id, so Python's way over the rows would not end


@dataclass(slots=True)
class _Drawn:
    """A batch that was drawn: its ids in rising order, their weights, whether these were given."""

    ids: bytes
    weights: np.ndarray[Any, np.dtype[np.float32]]
    given: bool = False


class PrioritizedBatchSampler(Sampler[list[int]]):
    """Batches of ids drawn by priority, for ``DataLoader(..., batch_sampler=...)``.

    The loader draws in the process that iterates over it, also where workers load the rows. With
    workers it draws ``num_workers * prefetch_factor`` batches ahead (4 with two workers), so
    the priorities of a batch are older than the last updates by as many. All batches of an epoch
    are drawn from the index as it is then: rows may come several times, or not at all.

    Parameters
    ----------
    index : PrioritizedIndex
        What to draw from. Give errors back with ``index.update_priorities(ids, losses)``, at any
        time.
    batch_size : int
        B >= 1.
    beta : float or callable
        How far the weights undo the preference for large priorities, in [0, 1]; or a schedule,
        called with the number of batches drawn before.
    batches : int, optional
        How many make an epoch, >= 1. By default as many as it takes for all items once.

    Attributes
    ----------
    drawn : int
        Batches drawn so far, those ahead included. Set it when a training is resumed, so that the
        schedule goes on.

    Raises
    ------
    ValueError
        If an argument is out of range or not an index. While iterating: what
        :meth:`.PrioritizedIndex.sample` raises.

    See Also
    --------
    DatasetWithIds : Rows with the ids that ``weights`` and ``update_priorities`` take.

    Examples
    --------
    >>> import prioritized_replay as per
    >>> index = per.PrioritizedIndex(10, seed=0)
    >>> ids = index.append(10)
    >>> sampler = PrioritizedBatchSampler(index, 4)
    >>> len(sampler), list(sampler)
    (3, [[1, 3, 5, 7], [2, 4, 6, 9], [1, 4, 7, 7]])
    """

    def __init__(
        self,
        index: PrioritizedIndex,
        batch_size: int,
        *,
        beta: float | Schedule = 0.4,
        batches: int | None = None,
    ) -> None:
        self._index = _index(index)
        self._batch_size = arguments.integer("batch_size", batch_size)
        self._beta = _schedule(beta)
        self._batches = None if batches is None else arguments.integer("batches", batches)
        self._remembered: deque[_Drawn] = deque(maxlen=REMEMBERED)
        self.drawn = 0

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        if self._batches is not None:
            return self._batches
        return -(-len(self._index) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Draw the batches of an epoch, each when it is asked for."""
        for _ in range(max(1, len(self))):  # an empty index says so
            yield self._draw()

    def _draw(self) -> list[int]:
        draw = self._index.sample(self._batch_size, self._beta(self.drawn))
        order = np.argsort(draw.ids)
        self._remembered.append(_Drawn(draw.ids[order].tobytes(), draw.weights[order]))
        self.drawn += 1
        ids: list[int] = draw.ids.tolist()
        return ids

    def weights(self, ids: Any) -> torch.Tensor:
        """Return the importance-sampling weights of a batch that the loader has delivered.

        They are those of the moment when it was drawn. Where several batches with the same ids
        are on their way, the one that was drawn first is meant, as a loader delivers in order; the
        next call is about the next.

        Parameters
        ----------
        ids : int64[B]
            All ids of one batch, in any order, as an array or a tensor.

        Returns
        -------
        torch.Tensor
            float32[B], aligned with ``ids`` and on their device.

        Raises
        ------
        ValueError
            If these are not the ids of one of the last 1024 batches.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(2, per.Proportional(alpha=1.0, eps=0.0), seed=0)
        >>> ids = index.append(td_errors=[1.0, 3.0])
        >>> sampler = PrioritizedBatchSampler(index, 4, beta=1.0)
        >>> next(iter(sampler)), sampler.weights([1, 1, 1, 0])
        ([0, 1, 1, 1], tensor([0.3333, 0.3333, 0.3333, 1.0000]))
        """
        wanted = arguments.ids(ids)
        order = np.argsort(wanted)
        key = wanted[order].tobytes()
        found = [drawn for drawn in tuple(self._remembered) if drawn.ids == key]
        if not found:
            raise ValueError(
                f"ids must be all ids of one of the last {REMEMBERED} batches drawn, "
                f"got {wanted.size} others: {arguments.shown(wanted.tolist())}"
            )
        drawn = next((drawn for drawn in found if not drawn.given), found[-1])
        drawn.given = True
        weights = np.empty(wanted.size, np.float32)
        weights[order] = drawn.weights  # equal ids of a draw have equal weights
        return torch.from_numpy(weights).to(getattr(ids, "device", None))


class ReplayDataset(IterableDataset[Batch[torch.Tensor]]):
    """Batches drawn from a replay buffer as tensors, for ``DataLoader(dataset, batch_size=None)``.

    Each is what ``replay.sample(batch_size, beta).to_torch()`` returns, drawn when it is asked for.
    Rows may be added and priorities updated while a loader iterates.

    Parameters
    ----------
    replay : ReplayBuffer
        What to draw from.
    batch_size : int
        B >= 1. The loader must not make batches of batches: give it ``batch_size=None``.
    beta : float or callable
        As for :class:`PrioritizedBatchSampler`.
    batches : int, optional
        How many make an epoch, >= 1. By default there is no end.
    **to_torch
        Options of :meth:`.Batch.to_torch`: ``device``, ``columns``, ``pin_memory``, ...

    Attributes
    ----------
    drawn : int
        Batches drawn so far.

    Raises
    ------
    ValueError
        If an argument is out of range or not a buffer. While iterating: what
        :meth:`.ReplayBuffer.sample` raises.
    RuntimeError, TypeError
        While iterating with ``num_workers`` > 0: each worker would draw from a copy of the buffer,
        which no update reaches.

    Examples
    --------
    >>> import prioritized_replay as per
    >>> from torch.utils.data import DataLoader
    >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
    >>> replay = per.ReplayBuffer(10, fields, seed=0)
    >>> for step in range(8):
    ...     ids = replay.add(step, 0, 1.0, step + 1, False)
    >>> for batch in DataLoader(ReplayDataset(replay, 4, batches=100), batch_size=None):
    ...     applied = replay.update_priorities(batch.ids, batch.reward - batch.obs)
    >>> batch.obs.dtype, batch.weights.shape
    (torch.float32, torch.Size([4]))
    """

    def __init__(
        self,
        replay: ReplayBuffer,
        batch_size: int,
        beta: float | Schedule = 0.4,
        *,
        batches: int | None = None,
        **to_torch: Any,
    ) -> None:
        if not isinstance(replay, ReplayBuffer):
            raise ValueError(f"replay must be a ReplayBuffer, got {arguments.shown(replay)}")
        self._replay = replay
        self._batch_size = arguments.integer("batch_size", batch_size)
        self._beta = _schedule(beta)
        self._batches = None if batches is None else arguments.integer("batches", batches)
        self._to_torch = to_torch
        self.drawn = 0

    def __len__(self) -> int:
        """Return the number of batches of an epoch.

        Raises
        ------
        TypeError
            There is no end.
        """
        if self._batches is None:
            raise TypeError("a ReplayDataset without batches= has no length")
        return self._batches

    def __iter__(self) -> Iterator[Batch[torch.Tensor]]:
        """Draw the batches of an epoch, each when it is asked for."""
        if get_worker_info() is not None:
            raise RuntimeError(_NO_WORKERS)
        for _ in itertools.repeat(None) if self._batches is None else range(self._batches):
            batch = self._replay.sample(self._batch_size, self._beta(self.drawn))
            self.drawn += 1
            yield batch.to_torch(**self._to_torch)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(_NO_WORKERS)


_NO_WORKERS = (
    "a ReplayDataset needs num_workers=0: a worker would draw from a copy of the buffer, which no "
    "update of priorities reaches"
)


def _index(index: PrioritizedIndex) -> PrioritizedIndex:
    if not isinstance(index, PrioritizedIndex):
        raise ValueError(f"index must be a PrioritizedIndex, got {arguments.shown(index)}")
    return index


def _schedule(beta: float | Schedule) -> Schedule:
    """Return beta as a function of the number of batches drawn before."""
    return beta if callable(beta) else constant(arguments.number("beta", beta, 1.0))
