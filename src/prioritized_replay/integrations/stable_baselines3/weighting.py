"""Weights and errors of a batch without a word in the algorithm: rewards that see their loss.

The rewards of a batch are a tensor that knows the draw it came from. What is computed of it, the
target of a TD update, knows it too. Where PyTorch takes a loss of such a target, the loss of each
row is multiplied by the row's weight, and the row's error goes back to the buffer. Knows tensors
and one draw; knows neither the buffer nor any algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

__all__ = ["Draw", "TracedRewards"]

LOSSES = frozenset({functional.mse_loss, functional.smooth_l1_loss, functional.huber_loss})
# Reading what a tensor is like, or printing it, computes nothing.
LOOKS = frozenset({"__get__", "__repr__", "__format__", "size", "dim", "stride", "numel"})


class Draw:
    """One batch on its way through an update: its ids and weights, and what came back for it.

    Parameters
    ----------
    ids : int64[B]
        Rows of the batch.
    weights : torch.Tensor
        Their weights, float32[B, 1], on the device of the batch.
    report : callable
        Takes ids and the errors known so far, float32[B].

    Attributes
    ----------
    used : bool
        Something was computed of the rewards.
    answered : bool
        A loss was weighted and its errors were reported.
    errors : float32[B] or None
        For each row the largest absolute error of the losses so far: of two critics, the worse.
    """

    def __init__(
        self,
        ids: NDArray[np.int64],
        weights: torch.Tensor,
        report: Callable[[NDArray[np.int64], NDArray[np.float32]], object],
    ) -> None:
        self.ids = ids
        self.weights = weights
        self.used = False
        self.answered = False
        self.errors: NDArray[np.float32] | None = None
        self._report = report

    def loss(
        self, function: Callable[..., torch.Tensor], given: torch.Tensor, target: torch.Tensor,
        reduction: str, **options: Any,
    ) -> torch.Tensor:  # fmt: skip
        """Return the loss with each row weighted; report the errors.

        Raises
        ------
        RuntimeError
            If the loss does not have one value for each row of the batch.
        """
        rows = len(self.ids)
        if given.shape != target.shape or given.numel() != rows:
            raise RuntimeError(
                f"{function.__name__} must be of one value and one target for each of the {rows} "
                f"rows of the batch, got shapes {tuple(given.shape)} and {tuple(target.shape)}: "
                + ADVICE
            )
        losses = function(given, target, reduction="none", **options)
        weights = self.weights.reshape(losses.shape)
        if reduction == "none":
            weighted = weights * losses
        else:
            weighted = torch.dot(losses.reshape(-1), weights.reshape(-1))
            if reduction == "mean":
                weighted = weighted / rows
        self._note(given, target)
        return weighted

    def _note(self, given: torch.Tensor, target: torch.Tensor) -> None:
        errors = np.abs(_numbers(target) - _numbers(given))
        self.errors = errors if self.errors is None else np.maximum(self.errors, errors)
        self._report(self.ids, self.errors)
        self.answered = True


ADVICE = (
    "the weights of PrioritizedReplayBuffer reach a loss by torch.nn.functional's mse_loss, "
    "smooth_l1_loss or huber_loss of a target made of the batch's rewards, as in DQN, SAC and TD3; "
    "an algorithm with another loss has to multiply it by the batch's weights and call "
    "replay_buffer.update_priorities(batch.ids, td_errors) itself, "
    "with replay_buffer_kwargs=dict(weigh_losses=False)"
)


class TracedRewards(torch.Tensor):
    """Rewards of a batch, or what was computed of them, with the draw that they came from.

    Made by :meth:`of`. On every other occasion it is a tensor like any other.
    """

    draw: Draw

    @classmethod
    def of(cls, tensor: torch.Tensor, draw: Draw) -> TracedRewards:
        """Return a view of a tensor that knows its draw."""
        traced = tensor.as_subclass(cls)
        traced.draw = draw
        return traced

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Compute as PyTorch does, but weight losses; results of the same rows know the draw."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in LOSSES:
                return _weighted(func, *args, **kwargs)
            result = func(*args, **kwargs)
            if func.__name__ in LOOKS:
                return result
            draw = _draw_of((*args, *kwargs.values()))
            if draw is None:
                return result
            draw.used = True
            if type(result) is not torch.Tensor:
                return result
            if result.requires_grad:
                raise RuntimeError(f"{func.__name__} is no loss whose weights are known: {ADVICE}")
            if result.dim() and len(result) == len(draw.ids):
                return cls.of(result, draw)
            return result


def _weighted(
    function: Callable[..., torch.Tensor],
    input: torch.Tensor,  # noqa: A002  PyTorch's name
    target: torch.Tensor,
    *,
    reduction: str = "mean",
    **options: Any,
) -> torch.Tensor:
    draw = _draw_of((input, target))
    assert draw is not None
    return draw.loss(function, input, target, reduction, **options)


def _draw_of(values: Iterable[Any]) -> Draw | None:
    for value in values:
        if isinstance(value, TracedRewards):
            return getattr(value, "draw", None)
        if isinstance(value, list | tuple):
            found = _draw_of(value)
            if found is not None:
                return found
    return None


def _numbers(values: torch.Tensor) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = values.detach().reshape(-1).float().cpu().numpy()
    return flat
