"""A batch of transitions: named columns, as arrays or tensors. It knows nothing of the buffer."""

from __future__ import annotations

import contextlib
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from typing import TYPE_CHECKING, Any, Generic, Self, overload

import numpy as np

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeVar

    ArrayT_co = TypeVar("ArrayT_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    ArrayT_co = TypeVar("ArrayT_co", covariant=True)

__all__ = ["USUAL", "Batch"]

USUAL = (
    *("obs", "action", "reward", "discount", "next_obs", "terminated"),
    *("weights", "probabilities", "ids"),
)
"""The columns of every batch."""


class Batch(Generic[ArrayT_co]):
    """Columns of B transitions, as attributes and as items: ``batch.obs``, ``batch["obs"]``.

    The arrays belong to the batch alone: no later call of the buffer changes them. Those of large
    observations share memory with each other and are read-only. A column of nested fields is a
    dictionary or a tuple of arrays.

    A batch is a mapping from names to columns: ``dict(batch)`` and ``**batch`` take it apart, and
    iterating over it gives the names. But ``len(batch)`` is the number of transitions B. Rows are
    taken as in NumPy: ``batch[3:7]`` and ``batch[mask]`` are batches, ``batch[0]`` is one
    transition. ``batch[3:7]`` shares the memory of ``batch``.

    For type checkers, ``Batch[np.ndarray]`` has arrays and ``Batch[torch.Tensor]`` has tensors as
    attributes. Items and columns of your own may be anything: use ``batch["obs"]["image"]`` for
    nested ones.

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
    >>> batch[batch.discount > 0].reward, dict(batch)["discount"], len(batch)
    (array([1.]), array([0.99, 0.  ]), 2)
    """

    obs: ArrayT_co
    action: ArrayT_co
    reward: ArrayT_co
    discount: ArrayT_co
    next_obs: ArrayT_co
    terminated: ArrayT_co
    weights: ArrayT_co
    probabilities: ArrayT_co
    ids: ArrayT_co

    # Python notes on an object made by Batch[...](...) what the brackets held. Here, where every
    # attribute is a column, it must fail to.
    __orig_class__ = property()

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.__dict__.update(columns)

    @classmethod
    def of_usual(cls, columns: Sequence[Any]) -> Self:
        """Make a batch of the columns of USUAL, in that order.

        What the constructor does, in a quarter of the time.

        Examples
        --------
        >>> batch = Batch.of_usual([[k] for k in range(len(USUAL))])
        >>> batch.obs, batch.ids
        ([0], [8])
        """
        batch = cls.__new__(cls)
        (
            batch.obs, batch.action, batch.reward, batch.discount, batch.next_obs,
            batch.terminated, batch.weights, batch.probabilities, batch.ids,
        ) = columns  # fmt: skip
        return batch

    @overload
    def __getitem__(self, key: str) -> Any: ...
    @overload
    def __getitem__(self, key: Any) -> Self: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a column by its name, or a batch of the rows that an index names.

        Parameters
        ----------
        key : str, int, slice, int[...] or bool[B]
            Of rows as in NumPy: a slice gives views, an array or a list of integers or Booleans
            gives copies, an integer gives one transition without the axis B. Nested columns are
            indexed leaf by leaf.

        Raises
        ------
        KeyError
            There is no column of that name.
        IndexError
            There is no such row, or the index is of another kind.

        Examples
        --------
        >>> import numpy as np
        >>> obs = {"image": np.arange(8).reshape(4, 2), "speed": np.arange(4.0)}
        >>> batch = Batch({"obs": obs, "ids": np.array([7, 8, 9, 10])})
        >>> batch[1:3].ids, batch[[0, -1]].obs["speed"], batch[batch.ids > 9].obs["image"]
        (array([8, 9]), array([0., 3.]), array([[6, 7]]))
        """
        if isinstance(key, str):
            try:
                return self.__dict__[key]
            except KeyError:
                raise KeyError(self._lacks(key)) from None
        rows = _rows(key, len(self))
        columns = {name: _changed(column, lambda c: c[rows]) for name, column in self.items()}
        return type(self)(columns)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(self._lacks(name))

    def _lacks(self, name: str) -> str:
        return f"no column {name!r}; there are {', '.join(self)}"

    def keys(self) -> KeysView[str]:
        """Return the names of the columns, in their order.

        Examples
        --------
        >>> list(Batch({"reward": [1.0, 2.0], "ids": [7, 8]}).keys())
        ['reward', 'ids']
        """
        return self.__dict__.keys()

    def values(self) -> ValuesView[Any]:
        """Return the columns, in the order of their names.

        Examples
        --------
        >>> list(Batch({"reward": [1.0, 2.0], "ids": [7, 8]}).values())
        [[1.0, 2.0], [7, 8]]
        """
        return self.__dict__.values()

    def items(self) -> ItemsView[str, Any]:
        """Return pairs of names and columns.

        Examples
        --------
        >>> dict(Batch({"reward": [1.0, 2.0], "ids": [7, 8]}).items())
        {'reward': [1.0, 2.0], 'ids': [7, 8]}
        """
        return self.__dict__.items()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the column of that name, or ``default`` where there is none.

        Examples
        --------
        >>> Batch({"ids": [7, 8]}).get("image") is None  # batch["image"] would raise a KeyError
        True
        """
        return self.__dict__.get(name, default)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the columns."""
        return iter(self.__dict__)

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__

    def __len__(self) -> int:
        """Return the number of transitions B.

        Raises
        ------
        TypeError
            It is a single transition, without the axis B.
        """
        for name in ("ids", "reward"):
            if getattr(self.__dict__.get(name), "ndim", 1) == 0:
                raise TypeError("len needs a batch, got a single transition without the axis B")
        return next((len(part) for column in self.values() for part in _arrays(column)), 0)

    def __bool__(self) -> bool:
        """Return whether there are columns, as for any mapping."""
        return bool(self.__dict__)

    def __repr__(self) -> str:
        columns = (f"{name}: {_described(column)}" for name, column in self.items())
        return f"Batch({', '.join(columns)})"

    def to_torch(
        self,
        device: torch.device | str | None = None,
        *,
        columns: Iterable[str] | None = None,
        keep_float64: bool = False,
        pin_memory: bool = False,
        non_blocking: bool = False,
    ) -> Batch[torch.Tensor]:
        """Return the batch as tensors, on a device.

        Parameters
        ----------
        device : torch.device or str, optional
            Where the tensors shall be. On the CPU they share memory with the arrays, unless
            these are read-only. By default tensors of a batch stay where they are.
        columns : iterable of str, optional
            Names of the columns to take, in this order: each that is left out saves its time. By
            default all.
        keep_float64 : bool
            Leave float64 columns as they are; otherwise they become float32.
        pin_memory : bool
            Copy through page-locked memory, from which a device takes data faster. Ignored where
            the machine has no accelerator.
        non_blocking : bool
            Return before the device has everything; its later work waits by itself. It takes
            effect with ``pin_memory``.

        Returns
        -------
        Batch
            The same columns as tensors. They are safe to change.

        Raises
        ------
        KeyError
            There is no column of that name.
        TypeError
            ``columns`` is a single name.

        Examples
        --------
        >>> import numpy as np
        >>> batch = Batch({"reward": np.array([1.0, 2.0]), "ids": np.array([7, 8])})
        >>> batch.to_torch(columns=["reward"])
        Batch(reward: float32[2])
        """
        import torch

        pinned = pin_memory and _has_accelerator()

        def tensor_of(array: Any) -> torch.Tensor:
            if isinstance(array, torch.Tensor):
                tensor = array
            elif isinstance(array, np.ndarray) and array.flags.writeable:
                tensor = torch.from_numpy(array)
            else:  # read-only, or the number of a single transition
                tensor = torch.from_numpy(np.array(array))
            if tensor.dtype == torch.float64 and not keep_float64:
                tensor = tensor.to(torch.float32)
            if pinned and tensor.device.type == "cpu":
                tensor = tensor.pin_memory()
            return tensor if device is None else tensor.to(device, non_blocking=non_blocking)

        if isinstance(columns, str):
            raise TypeError(f"columns must be names in a list or tuple, got {columns!r}")
        names = self if columns is None else columns
        return Batch({name: _changed(self[name], tensor_of) for name in names})


# What looks for mappings, such as torch's collation, may take a batch for one.
Mapping.register(Batch)


def _has_accelerator() -> bool:
    """Return whether torch has a device that can copy from page-locked memory."""
    import torch

    if hasattr(torch, "accelerator"):  # torch 2.6
        return bool(torch.accelerator.is_available())
    return torch.cuda.is_available()


def _rows(key: Any, count: int) -> Any:
    """Return an index of the first axis that arrays and tensors understand alike.

    Raises
    ------
    IndexError
        It is none, or there is no such row.
    """
    if isinstance(key, slice):
        if key.step is None or key.step > 0:
            return key
        return np.arange(*key.indices(count))  # tensors know no negative steps
    if type(key) is not np.ndarray:
        key = key.detach().cpu() if hasattr(key, "detach") else key
        with contextlib.suppress(ValueError):  # lists of unequal length
            key = np.asarray(key) if not isinstance(key, tuple) else key
    if not isinstance(key, np.ndarray) or key.ndim > 1 or key.dtype.kind not in "biuf":
        raise IndexError(f"rows must be an integer, a slice, or int[...] or bool[B], got {key!r}")
    if key.dtype.kind == "f" and key.size == 0:
        key = key.astype(np.int64)  # an empty list
    if key.dtype.kind == "b":
        if key.shape != (count,):
            raise IndexError(f"rows as Booleans must have shape ({count},), got {key.shape}")
        return np.flatnonzero(key)
    if key.dtype.kind == "f":
        raise IndexError(f"rows must be integers or Booleans, got {key.dtype}")
    wrong = key[(key < -count) | (key >= count)]
    if wrong.size:
        raise IndexError(f"rows must be in [{-count}, {count - 1}], got {wrong.flat[0]}")
    return key.astype(np.int64) if key.ndim else int(key)


def _changed(column: Any, change: Callable[[Any], Any]) -> Any:
    """Return a column with each of its arrays changed; None stays None."""
    if isinstance(column, dict):
        return {key: _changed(part, change) for key, part in column.items()}
    if isinstance(column, (tuple, list)):  # torch's collation makes lists of tuples
        return type(column)(_changed(part, change) for part in column)
    return None if column is None else change(column)


def _arrays(column: Any) -> Iterator[Any]:
    """Iterate over the arrays of a column."""
    if isinstance(column, (dict, tuple, list)):
        for part in column.values() if isinstance(column, dict) else column:
            yield from _arrays(part)
    elif column is not None:
        yield column


def _described(column: Any) -> str:
    """Return the dtypes and shapes of a column."""
    if isinstance(column, dict):
        return f"{{{', '.join(f'{key}: {_described(part)}' for key, part in column.items())}}}"
    if isinstance(column, (tuple, list)):
        return f"({', '.join(map(_described, column))})"
    if column is None:
        return "None"
    return f"{str(column.dtype).removeprefix('torch.')}{list(column.shape)}"
