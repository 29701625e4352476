"""What mypy must accept of batches, and what it must refuse; ``make types`` checks this file.

A line that must be refused says which error it is. Were it accepted, mypy would call that comment
unused, which is an error too.
"""

from typing import Any, assert_type

import numpy as np
import torch
from numpy.typing import NDArray

import prioritized_replay as per


def arrays_and_tensors_are_told_apart(replay: per.ReplayBuffer) -> None:
    batch = replay.sample(32, beta=0.5)
    assert_type(batch, per.Batch[NDArray[Any]])
    assert_type(batch.weights, NDArray[Any])
    assert_type(replay.get(batch.ids).ids, NDArray[Any])
    for column in (batch.obs, batch.reward, batch.weights, batch.probabilities, batch.ids):
        column.to("cuda")  # type: ignore[attr-defined]
    with replay.prefetch(32) as batches:
        assert_type(next(batches), per.Batch[NDArray[Any]])

    tensors = batch.to_torch("cpu", pin_memory=True, non_blocking=True)
    assert_type(tensors, per.Batch[torch.Tensor])
    assert_type((tensors.weights * tensors.reward).mean(), torch.Tensor)
    tensors.ids.astype(np.int64)  # type: ignore[attr-defined]


def rows_of_a_batch_are_a_batch_of_the_same_kind(replay: per.ReplayBuffer) -> None:
    batch = replay.sample(32)
    for rows in (batch[3:7], batch[np.array([0, 5])], batch[batch.weights > 0.5], batch[0]):
        assert_type(rows, per.Batch[NDArray[Any]])
    assert_type(batch.to_torch()[3:7], per.Batch[torch.Tensor])


def columns_of_ones_own_and_nested_ones_are_no_error(batch: per.Batch[torch.Tensor]) -> None:
    batch.log_prob.exp()
    batch["obs"]["image"].float()
    dict(batch)["obs"]


def a_function_may_take_either_kind(batch: per.Batch) -> None:
    batch.obs.anything()


def a_function_may_name_the_kind(replay: per.ReplayBuffer) -> None:
    def of_arrays(batch: per.Batch[np.ndarray]) -> None: ...

    def of_tensors(batch: per.Batch[torch.Tensor]) -> None: ...

    batch = replay.sample(32)
    a_function_may_take_either_kind(batch)
    of_arrays(batch)
    of_tensors(batch.to_torch())
    of_tensors(batch)  # type: ignore[arg-type]
