"""The RMSProp of the DQN papers.

Knows gradients and their running moments; knows no network, no loss and no schedule.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class CentredRMSProp(torch.optim.Optimizer):
    """Gradients divided by their running standard deviation.

    ``parameter -= lr * gradient / sqrt(mean(gradient**2) - mean(gradient)**2 + eps)``, with means
    that forget. torch's own, with ``centered=True``, adds eps after the root, where it means
    something else.

    Parameters
    ----------
    parameters : iterable of torch.nn.Parameter
    lr : float
        Step size.
    decay : float
        What is kept of the means in each step.
    eps : float
        Added to the variance.

    Notes
    -----
    O(P) per step. Graves 2013, as in Mnih et al. 2015 and van Hasselt et al. 2016.

    Examples
    --------
    >>> parameter = nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = CentredRMSProp([parameter], lr=0.1, decay=0.75, eps=0.0)
    >>> parameter.grad = torch.tensor([2.0])
    >>> optimizer.step()  # 2 / sqrt(0.25 * 4 - (0.25 * 2)**2) = 2 / sqrt(0.75)
    >>> parameter.data
    tensor([0.7691])
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, decay: float = 0.95, eps: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "decay": decay, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the parameters against their gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            decay, eps = group["decay"], group["eps"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                    state["square"] = torch.zeros_like(parameter)
                mean, square = state["mean"], state["square"]
                mean.lerp_(gradient, 1.0 - decay)
                square.mul_(decay).addcmul_(gradient, gradient, value=1.0 - decay)
                # Rounding must not make a variance negative.
                spread = torch.addcmul(square, mean, mean, value=-1.0).clamp_(min=0.0)
                parameter.addcdiv_(gradient, spread.add_(eps).sqrt_(), value=-group["lr"])
        return loss
