"""A batch of transitions: named columns, as arrays or tensors. It knows nothing of the buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch

__all__ = ["USUAL", "Batch"]

USUAL = (
    *("obs", "action", "reward", "discount", "next_obs", "terminated"),
    *("weights", "probabilities", "ids"),
)
"""The columns of every batch."""


class Batch:
    """Columns of B transitions, as attributes and as items: ``batch.obs``, ``batch["obs"]``.

    The arrays belong to the batch alone: no later call of the buffer changes them. Those of large
    observations share memory with each other and are read-only. A column of nested fields is a
    dictionary or a tuple of arrays.

    Attributes
    ----------
    obs, action : array[B, ...]
        The fields as stored; further fields of the buffer are there under their own names.
    reward : array[B]
        n-step return: the sum of gamma**k times reward k over the window.
    discount : float32[B]
        gamma**m for a window of m steps, 0 where it ended in termination.
    next_obs : array[B, ...]
        Observation after the last step of the window.
    terminated : bool[B]
        Whether the window ended in termination.
    weights : float32[B]
        Importance-sampling weights.
    probabilities : float64[B]
        P(i), the chance of the row in one draw.
    ids : int64[B]
        What :meth:`ReplayBuffer.update_priorities` takes.

    Examples
    --------
    >>> import numpy as np
    >>> batch = Batch({"reward": np.array([1.0, 2.0]), "discount": np.array([0.99, 0.0])})
    >>> batch.reward, batch["reward"] is batch.reward, batch
    (array([1., 2.]), True, Batch(reward: float64[2], discount: float64[2]))
    """

    obs: Any
    action: Any
    reward: Any
    discount: Any
    next_obs: Any
    terminated: Any
    weights: Any
    probabilities: Any
    ids: Any

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.__dict__.update(columns)

    @classmethod
    def of_usual(cls, columns: Sequence[Any]) -> Self:
        """Make a batch of the columns of USUAL, in that order.

        What the constructor does, in a quarter of the time.
        """
        batch = cls.__new__(cls)
        (
            batch.obs, batch.action, batch.reward, batch.discount, batch.next_obs,
            batch.terminated, batch.weights, batch.probabilities, batch.ids,
        ) = columns  # fmt: skip
        return batch

    def __getitem__(self, name: str) -> Any:
        try:
            return self.__dict__[name]
        except KeyError:
            raise KeyError(f"no column {name!r}; there are {', '.join(self)}") from None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the columns."""
        return iter(self.__dict__)

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__

    def __len__(self) -> int:
        """Return the number of transitions B."""
        return len(next(_arrays(next(iter(self.__dict__.values())))))

    def __repr__(self) -> str:
        columns = (f"{name}: {_described(column)}" for name, column in self.__dict__.items())
        return f"Batch({', '.join(columns)})"

    def to_torch(
        self,
        device: torch.device | str | None = None,
        *,
        columns: Iterable[str] | None = None,
        keep_float64: bool = False,
    ) -> Batch:
        """Return the batch as tensors.

        Parameters
        ----------
        device : torch.device or str, optional
            Where the tensors shall be. On the CPU they share memory with the arrays, unless
            these are read-only.
        columns : iterable of str, optional
            Names of the columns to take, in this order: each that is left out saves its time. By
            default all.
        keep_float64 : bool
            Leave float64 columns as they are; otherwise they become float32.

        Returns
        -------
        Batch
            The same columns as tensors.

        Raises
        ------
        KeyError
            There is no column of that name.

        Examples
        --------
        >>> import numpy as np
        >>> batch = Batch({"reward": np.array([1.0, 2.0]), "ids": np.array([7, 8])})
        >>> batch.to_torch(columns=["reward"])
        Batch(reward: float32[2])
        """
        import torch

        def tensor_of(array: Any) -> torch.Tensor:
            tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
            if tensor.dtype == torch.float64 and not keep_float64:
                tensor = tensor.to(torch.float32)
            return tensor if device is None else tensor.to(device)

        names = self if columns is None else columns
        return Batch({name: _changed(self[name], tensor_of) for name in names})


def _changed(column: Any, change: Callable[[Any], Any]) -> Any:
    """Return a column with each of its arrays changed."""
    if isinstance(column, dict):
        return {key: _changed(part, change) for key, part in column.items()}
    if isinstance(column, tuple):
        return tuple(_changed(part, change) for part in column)
    return change(column)


def _arrays(column: Any) -> Iterator[Any]:
    """Iterate over the arrays of a column."""
    if isinstance(column, (dict, tuple)):
        for part in column.values() if isinstance(column, dict) else column:
            yield from _arrays(part)
    else:
        yield column


def _described(column: Any) -> str:
    """Return the dtypes and shapes of a column."""
    if isinstance(column, dict):
        return f"{{{', '.join(f'{key}: {_described(part)}' for key, part in column.items())}}}"
    if isinstance(column, tuple):
        return f"({', '.join(map(_described, column))})"
    return f"{str(column.dtype).removeprefix('torch.')}{list(column.shape)}"
