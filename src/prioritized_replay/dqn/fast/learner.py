"""The update of a :class:`QNetwork` without autograd: the same numbers in about half the time.

Knows the arithmetic of ``td.py`` and its gradient; knows no schedule and no replay.
Axes: B batch, E environments, A actions.
"""

import math
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prioritized_replay.batch import Batch
from prioritized_replay.dqn.acting import greedy_actions
from prioritized_replay.dqn.choices import Loss, OptimizerName, Precision
from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.dqn.devices import subnormal_as_zero
from prioritized_replay.dqn.fast.adam import FlatAdam
from prioritized_replay.dqn.fast.perceptron import Perceptron
from prioritized_replay.dqn.gradient import clip_gradient, require_finite
from prioritized_replay.dqn.learner import AutogradLearner
from prioritized_replay.dqn.networks import QNetwork
from prioritized_replay.dqn.optimizers import make_optimizer
from prioritized_replay.dqn.protocol import Learner
from prioritized_replay.dqn.shapes import require_rows, require_shape
from prioritized_replay.dqn.td import td_error, td_target


def make_learner(
    online: nn.Module,
    target: nn.Module,
    optimizer: torch.optim.Optimizer | OptimizerName,
    eps: float | None,
    conversion: Conversion,
    *,
    own: bool,
    device: torch.device,
    precision: Precision,
    double: bool,
    loss: Loss,
    gradient_clip: float,
    noisy: bool,
) -> Learner:
    """Return a :class:`PerceptronLearner` where it can do the update, else a plain learner.

    Parameters
    ----------
    online, target : torch.nn.Module
    optimizer, eps
        As for :class:`~prioritized_replay.dqn.DQN`.
    conversion : Conversion
    own : bool
        Whether the agent made the networks. Only then may their parameters be laid out anew.
    device, precision, double, loss, gradient_clip, noisy
        As for :class:`~prioritized_replay.dqn.learner.AutogradLearner`.
    """
    fast = own and precision == "float32" and isinstance(optimizer, str)
    if fast and isinstance(online, QNetwork) and isinstance(target, QNetwork):
        assert isinstance(optimizer, str)
        return PerceptronLearner(
            online, target, conversion, device=device, optimizer=optimizer, eps=eps,
            double=double, loss=loss, gradient_clip=gradient_clip,
        )  # fmt: skip
    if isinstance(optimizer, str):
        optimizer = make_optimizer(optimizer, list(online.parameters()), eps)
    return AutogradLearner(
        online, target, optimizer, conversion, device=device, precision=precision,
        double=double, loss=loss, gradient_clip=gradient_clip, noisy=noisy,
    )  # fmt: skip


class PerceptronLearner:
    """The update of a :class:`QNetwork`, with a backward pass written by hand.

    Parameters
    ----------
    online, target : QNetwork
        Equal in shape. Their parameters become views of one tensor each, see :class:`Perceptron`.
    optimizer : {"adam", "rmsprop"}
    eps : float, optional
    """

    def __init__(
        self,
        online: QNetwork,
        target: QNetwork,
        conversion: Conversion,
        *,
        device: torch.device,
        optimizer: OptimizerName = "adam",
        eps: float | None = None,
        double: bool = True,
        loss: Loss = "huber",
        gradient_clip: float = math.inf,
    ) -> None:
        self._network = online
        self._online, self._target = Perceptron(online), Perceptron(target)
        self._conversion, self._device, self._on_cpu = conversion, device, device.type == "cpu"
        self._double, self._loss, self._gradient_clip = double, loss, gradient_clip
        self._flat: FlatAdam | None = None
        self.optimizer: torch.optim.Optimizer
        if optimizer == "adam" and device.type == "cpu":
            self.optimizer = self._flat = FlatAdam(self._online.parameters, eps=eps)
        else:
            self.optimizer = make_optimizer(optimizer, [self._online.parameters], eps)
        self._steps: int | None = None  # of the optimizer before the update
        self._version = 0  # of the target's parameters before the update

    def gradient(self, batch: Batch) -> Tensor:
        """Return td errors, and leave the gradient of their loss with the parameters."""
        self._steps = None if self._flat is None else self._flat.steps
        self._version = self._target.parameters._version
        rows = len(batch.reward)
        value = self._target.values(batch.next_obs)
        if self._double:  # one pass for both: a product of 2 B rows takes less than two of B
            both = self._online.values(torch.cat((batch.obs, batch.next_obs)))
            q, selector = both[:rows], both[rows:]
        else:
            q, selector = self._online.values(batch.obs), value
        target = td_target(batch.reward, batch.discount, value, selector)
        errors = td_error(q, batch.action, target)
        self._online.backward(
            td_loss_gradient(errors, batch.weights, batch.action, q.shape[1], self._loss)
        )
        gradient = self._online.parameters.grad
        assert gradient is not None
        require_finite(errors, clip_gradient([gradient], self._gradient_clip), batch)
        return errors

    def undo(self) -> None:
        """Do nothing: the passes change nothing in the network."""

    def step(self, learning_rate: float | None) -> None:
        """Move the online network against the gradient."""
        if learning_rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
        with subnormal_as_zero():
            if self._flat is not None:
                self._flat.move()
            else:
                self.optimizer.step()

    def stepped(self) -> bool | None:
        """Return whether the step was made, where the optimizer makes it in one compiled call."""
        if self._flat is None or self._steps is None:
            return None
        return self._flat.steps != self._steps

    @torch.no_grad()
    def move_target(self, share: float) -> None:
        """Move the target network by this share, once for each gradient."""
        if share == 1.0:
            self._target.parameters.copy_(self._online.parameters)
        elif self._target.parameters._version == self._version:  # else it has moved already
            self._target.parameters.lerp_(self._online.parameters, share)

    def best_actions(self, observations: Any, *, explore: bool) -> npt.NDArray[np.int64]:
        """Return the actions of the highest value; a single observation goes through NumPy."""
        if self._on_cpu and len(observations) == 1:
            return np.array([self._online.best_action(observations[0])])
        return greedy_actions(self._network, self._conversion, observations, self._device)


def td_loss_gradient(
    td_errors: Tensor, weights: Tensor, action: Tensor, num_actions: int, loss: Loss = "huber"
) -> Tensor:
    """Return the gradient of :func:`td_loss` with respect to the action values ``q``.

    For a backward pass without autograd.

    Parameters
    ----------
    td_errors, weights : float[B]
        As for :func:`td_loss`.
    action : int64[B]
        The action taken, in [0, A).
    num_actions : int
        A.
    loss : {"huber", "squared"}
        As for :func:`td_loss`.

    Returns
    -------
    float[B, A]
        ``-weight * delta / B`` at the action taken, for huber with delta within [-1, 1]; else 0.

    Raises
    ------
    ValueError
        A shape is wrong, or the loss is unknown.

    Examples
    --------
    >>> delta, weights = torch.tensor([0.5, -3.0]), torch.tensor([1.0, 0.5])
    >>> td_loss_gradient(delta, weights, torch.tensor([0, 1]), num_actions=2)
    tensor([[-0.2500,  0.0000],
            [ 0.0000,  0.2500]])
    """
    rows = require_rows("td_errors", td_errors)
    require_shape("weights", weights, (rows,))
    require_shape("action", action, (rows,))
    if loss not in get_args(Loss):
        raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}, got {loss!r}")
    slope = td_errors.clamp(-1.0, 1.0) if loss == "huber" else td_errors
    taken = (slope * weights).mul_(-1.0 / rows).unsqueeze(1)
    return torch.zeros(rows, num_actions, dtype=taken.dtype, device=taken.device).scatter_(
        1, action.unsqueeze(1), taken
    )
