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

__all__ = ["Draw", "TracedRewards", "unseen"]

Loss = Callable[..., torch.Tensor]

LOSSES = frozenset({functional.mse_loss, functional.smooth_l1_loss, functional.huber_loss})
# To print a tensor, or to read what it is like, is no use of it.
LOOKS = frozenset({"__get__", "__repr__", "__format__", "size", "dim", "stride", "numel"})


def unseen(what: str) -> RuntimeError:
    """Return the error of an algorithm whose loss the weights cannot reach."""
    return RuntimeError(
        f"{what}. Weights reach torch.nn.functional's mse_loss, smooth_l1_loss and huber_loss of a "
        "target computed of the batch's rewards, as in DQN, SAC and TD3. An algorithm with another "
        "loss multiplies it by the batch's weights and calls "
        "replay_buffer.update_priorities(batch.ids, td_errors); tell that by "
        "replay_buffer_kwargs=dict(weigh_losses=False). To look at transitions without training, "
        "use replay_buffer.replay.sample"
    )


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
        Errors came back.
    errors : float32[B] or None
        For each row the largest absolute error of the losses so far: of two critics, the worse.
    """

    __slots__ = ("_report", "answered", "errors", "ids", "used", "weights")

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
        self,
        function: Loss,
        input: torch.Tensor,
        target: torch.Tensor,
        *,
        reduction: str = "mean",
        **options: Any,
    ) -> torch.Tensor:
        """Return a loss with each row weighted, and report the errors.

        Parameters
        ----------
        function : callable
            One of PyTorch's losses; all else are its arguments, by its own names.
        input, target : torch.Tensor
            One value and one target for each row.
        reduction : {"mean", "sum"}
            Of the weighted losses. A mean divides by the rows, not by the sum of their weights.
        **options
            Further ones of the loss.

        Raises
        ------
        RuntimeError
            If there is not one value for each row, if the loss has weights of its own, or if it
            is not reduced to one number.
        """
        shape, rows = input.shape, len(self.ids)
        if target.shape != shape or shape.numel() != rows:
            raise unseen(
                f"{function.__name__} has to be of {rows} values and {rows} targets, "
                f"got {tuple(shape)} and {tuple(target.shape)}"
            )
        for old in ("weight", "size_average", "reduce"):
            if options.pop(old, None) is not None:
                raise unseen(f"{function.__name__} takes no {old}= of a batch that has weights")
        if reduction not in ("mean", "sum"):
            # Whoever asks for the losses one by one may be about to multiply them by the weights.
            raise unseen(
                f"{function.__name__} of one number each might be weighted twice, or not at all"
            )
        if not input.requires_grad:  # these losses are of the distance: either may come first
            input, target = target, input
        values = _numbers(input)
        deltas = values - _numbers(target)
        errors = np.abs(deltas)
        rows = rows if reduction == "mean" else 1
        curve = _curve(function, options)
        plain = _is_plain(input) and _is_plain(self.weights) and not target.requires_grad
        if curve is None or not plain:
            losses = function(input, target, reduction="none", **options)
            loss = (losses * self.weights.view(shape)).sum() / rows
        else:
            scale, bend = curve
            weights = self.weights.numpy().reshape(-1) / np.float32(rows / scale)
            slopes = np.minimum(errors, np.float32(bend))
            gradient = np.copysign(slopes, deltas) * weights
            total = ((errors - 0.5 * slopes) * slopes) @ weights
            # One product has the gradient of the loss, and a number added to it its value.
            loss = torch.dot(input.reshape(-1), torch.from_numpy(gradient))
            loss = loss + float(total - values @ gradient)
        if self.errors is not None:
            np.maximum(self.errors, errors, out=errors)
        self.errors = errors
        self._report(self.ids, errors)
        self.answered = True
        return loss


class TracedRewards(torch.Tensor):
    """Rewards of a batch, or what was computed of them, with the draw that they came from.

    Made by :meth:`of`; in all else a tensor like any other.
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
        """Compute as PyTorch does, but weight losses; results of the same rows know the draw.

        Raises
        ------
        RuntimeError
            If something that has a gradient is computed with these numbers, and is none of the
            losses: it would be a loss without weights.
        """
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            draw = _draw_of(args) or _draw_of(kwargs.values())
            if draw is None:
                return func(*args, **kwargs)
            if func in LOSSES:
                return draw.loss(func, *args, **kwargs)
            result = func(*args, **kwargs)
            name = getattr(func, "__name__", "")
            if name in LOOKS:
                return result
            draw.used = True
            if type(result) is not torch.Tensor:
                return result
            if result.requires_grad:
                raise unseen(
                    f"{name} with a gradient, of the rewards of a batch, is no loss whose weights "
                    "are known"
                )
            if result.dim() and result.shape[0] == len(draw.ids):
                return cls.of(result, draw)
            return result


def _draw_of(values: Iterable[Any]) -> Draw | None:
    """Return the draw of the first tensor that knows one."""
    for value in values:
        if type(value) is TracedRewards:
            return getattr(value, "draw", None)
        if isinstance(value, list | tuple):
            found = _draw_of(value)
            if found is not None:
                return found
    return None


def _curve(function: Loss, options: dict[str, Any]) -> tuple[float, float] | None:
    """Return s and b of a loss s h(error), where h is error**2 / 2 up to b, and a line from there.

    None for other options than those that we know.
    """
    if function is functional.mse_loss and not options:
        return 2.0, np.inf
    if function is functional.smooth_l1_loss and options.keys() <= {"beta"}:
        beta = options.get("beta", 1.0)
        return (1.0 / beta, beta) if isinstance(beta, float) and beta > 0.0 else None
    if function is functional.huber_loss and options.keys() <= {"delta"}:
        return 1.0, options.get("delta", 1.0)
    return None


def _is_plain(values: torch.Tensor) -> bool:
    """Return whether NumPy can compute with a tensor where it is."""
    return values.device.type == "cpu" and values.dtype is torch.float32


def _numbers(values: torch.Tensor) -> NDArray[np.float32]:
    values = values.detach()
    try:
        numbers: NDArray[np.float32] = values.numpy()
    except TypeError:  # another device, or a dtype that NumPy has not
        numbers = values.float().cpu().numpy()
    return numbers.reshape(-1)
