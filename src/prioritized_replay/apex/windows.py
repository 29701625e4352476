"""The rows that an actor has made and not sent yet: n-step windows, closed and open.

Knows the replay buffer, which makes the rows; knows no network and no process.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from prioritized_replay.batch import Batch
from prioritized_replay.replay import ReplayBuffer

Columns = dict[str, Any]


class Windows:
    """Stands where a collector expects a replay: steps go in, complete rows are taken out.

    Parameters
    ----------
    rows : ReplayBuffer
        Empty, and large enough for what comes between two calls of :meth:`take`.
    """

    def __init__(self, rows: ReplayBuffer) -> None:
        self._rows = rows
        self._waiting: list[npt.NDArray[np.int64]] = []

    def __len__(self) -> int:
        return sum(map(len, self._waiting))

    @property
    def gamma(self) -> float:
        """Discount of one step."""
        return self._rows.gamma

    def add(self, *step: Any, **options: Any) -> npt.NDArray[np.int64]:
        """Add a step, or one of each environment; see :meth:`ReplayBuffer.add`."""
        return self._noted(self._rows.add(*step, **options))

    def end_episode(self) -> npt.NDArray[np.int64]:
        """Close the open windows; see :meth:`ReplayBuffer.end_episode`."""
        return self._noted(self._rows.end_episode())

    def take(self) -> Batch | None:
        """Return the rows that became complete since the last call, in order; None without any.

        Raises
        ------
        KeyError
            There were more than the buffer holds.
        """
        if not len(self):
            return None
        batch = self._rows.get(np.concatenate(self._waiting))
        self._waiting.clear()
        return batch

    def columns(self, batch: Batch) -> Columns:
        """Return what :meth:`ReplayBuffer.extend` takes of a batch: discounts say what ended."""
        return {name: batch[name] for name in self._rows.fields if name != "terminated"}

    def _noted(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if len(ids):
            self._waiting.append(ids)
        return ids
