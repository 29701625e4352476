"""Adam over one tensor of all parameters, in one compiled loop.

Knows torch's Adam and its state; knows no network, no loss and no schedule.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from prioritized_replay.jit.compiling import kernel

_TORCHS_ALONE = ("weight_decay", "amsgrad", "maximize")


class FlatAdam(torch.optim.Adam):
    """torch's Adam, for a single tensor on the CPU, in less than half the time.

    The same numbers up to rounding, the same ``param_groups`` and the same state: a
    ``state_dict`` of either loads into the other. The first step is torch's own, which makes the
    state, and so is every step with weight decay, AMSGrad, maximization or a closure.

    Parameters
    ----------
    parameters : torch.nn.Parameter, float32[P]
        Contiguous, as is its ``grad``.
    eps : float, optional
        Added to the root of the second moment, by default 1e-8.

    Notes
    -----
    O(P) per step.

    Examples
    --------
    >>> parameters = nn.Parameter(torch.ones(3))
    >>> optimizer = FlatAdam(parameters)
    >>> for _ in range(2):
    ...     parameters.grad = torch.tensor([0.5, -2.0, 0.0])
    ...     optimizer.param_groups[0]["lr"] = 0.25
    ...     optimizer.step()
    >>> parameters.data
    tensor([0.5000, 1.5000, 1.0000])
    """

    def __init__(self, parameters: nn.Parameter, *, eps: float | None = None) -> None:
        super().__init__([parameters], eps=1e-8 if eps is None else eps, fused=True)

    @property
    def steps(self) -> int | None:
        """Steps made so far, None where torch makes the next one itself.

        The compiled loop counts a step in the same call that makes it, torch does not.
        """
        (group,) = self.param_groups
        state = self.state.get(group["params"][0])
        if not state or any(group[name] for name in _TORCHS_ALONE):
            return None
        return int(state["step"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the state of this or of torch's Adam.

        Raises
        ------
        ValueError
            It is not of a single tensor of this size. Torch does not look; the loop trusts it.
        """
        (parameters,) = self.param_groups[0]["params"]
        for moments in state_dict["state"].values():
            for name, moment in moments.items():
                size = 1 if name == "step" else parameters.numel()
                if torch.as_tensor(moment).numel() != size:
                    raise ValueError(f"{name} must be of size {size}, got {moment.numel()}")
        super().load_state_dict(state_dict)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the parameters against their gradient, and call what was hooked to steps."""
        return self.move() if closure is None else super().step(closure)

    def move(self) -> None:
        """Move the parameters against their gradient, without what torch does around a step."""
        (group,) = self.param_groups
        (parameters,) = group["params"]
        state = self.state[parameters]
        plain = state and parameters.grad is not None
        if not plain or any(group[name] for name in _TORCHS_ALONE):
            super().step()
            return
        beta1, beta2 = group["betas"]
        _move(
            parameters.detach().numpy(),
            parameters.grad.numpy(),
            state["exp_avg"].numpy(),
            state["exp_avg_sq"].numpy(),
            state["step"].numpy().reshape(1),
            float(group["lr"]),
            beta1,
            beta2,
            group["eps"],
        )


@kernel
def _move(parameters, gradient, mean, square, count, rate, beta1, beta2, eps):  # type: ignore[no-untyped-def]
    # All that is in the loop is float32: it works on many numbers at once.
    count[0] += np.float32(1.0)
    steps = np.float64(count[0])
    size = np.float32(rate / (1.0 - beta1**steps))
    unbias = np.float32(1.0 / np.sqrt(1.0 - beta2**steps))
    keep1, take1 = np.float32(beta1), np.float32(1.0 - beta1)
    keep2, take2 = np.float32(beta2), np.float32(1.0 - beta2)
    least = np.float32(eps)
    for i in range(parameters.size):
        slope = gradient[i]
        mean[i] = keep1 * mean[i] + take1 * slope
        square[i] = keep2 * square[i] + take2 * slope * slope
        parameters[i] -= size * mean[i] / (np.sqrt(square[i]) * unbias + least)
