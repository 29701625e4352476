"""One update of a deep Q-network in plain torch: target, td error, loss, gradient, step.

:meth:`AutogradLearner.gradient` and :meth:`AutogradLearner.step` are the whole of it; ``td.py`` has
the formulas. ``dqn/fast`` has the same update without autograd, behind the same protocol.
Axes: B batch, E environments, A actions.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prioritized_replay.batch import Batch
from prioritized_replay.dqn.acting import greedy_actions, mode_of, reset_noise
from prioritized_replay.dqn.choices import Loss, Precision
from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.dqn.devices import subnormal_as_zero
from prioritized_replay.dqn.gradient import clip_gradient, require_finite
from prioritized_replay.dqn.td import td_error, td_loss, td_target


class AutogradLearner:
    """The update of any network, by autograd.

    Parameters
    ----------
    online, target : torch.nn.Module
        From observations (B, ...) to action values (B, A), on ``device``.
    optimizer : torch.optim.Optimizer
        Of the parameters of ``online``.
    precision : {"float32", "bfloat16"}
        Of matrix products and convolutions in an update, by torch's autocast.
    noisy : bool
        Whether exploring and target values need the networks in training mode.
    """

    def __init__(
        self,
        online: nn.Module,
        target: nn.Module,
        optimizer: torch.optim.Optimizer,
        conversion: Conversion,
        *,
        device: torch.device,
        precision: Precision = "float32",
        double: bool = True,
        loss: Loss = "huber",
        gradient_clip: float = math.inf,
        noisy: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self._online, self._target, self._noisy = online, target, noisy
        self._parameters = list(online.parameters())
        self._conversion, self._device = conversion, device
        self._double, self._loss, self._gradient_clip = double, loss, gradient_clip
        self._precision: Callable[[], Any] = contextlib.nullcontext
        if precision == "bfloat16":
            self._precision = lambda: torch.autocast(device.type, torch.bfloat16)
        self._pair()
        # Versions of the target network before the update: torch counts changes in place.
        self._versions = [tensor._version for tensor, _ in self._pairs]
        self._before: list[Tensor] = []  # the buffers before the update

    def gradient(self, batch: Batch) -> Tensor:
        """Return td errors, and leave the gradient of their loss with the parameters."""
        if self._noisy:
            reset_noise(self._online, self._target)
            self._pair()  # it may have made new buffers
        self._versions = [target._version for target, _ in self._pairs]
        self._before = [buffer.clone() for buffer in self._buffers]
        with torch.no_grad():
            value = self._values(self._target, batch.next_obs, training=self._noisy)
            selector = value
            if self._double:
                selector = self._values(self._online, batch.next_obs, training=self._noisy)
            target = td_target(batch.reward, batch.discount, value, selector)
        q = self._values(self._online, batch.obs, training=True)
        errors = td_error(q, batch.action, target)
        loss = td_loss(errors, batch.weights, self._loss)
        for parameter in self._parameters:
            parameter.grad = None
        torch.autograd.backward(loss)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = clip_gradient(gradients, self._gradient_clip)
        require_finite(errors.detach(), norm, batch)
        return errors.detach()

    def step(self, learning_rate: float | None) -> None:
        """Move the online network against the gradient."""
        self._before = []  # nothing to undo any more
        if learning_rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
        with subnormal_as_zero():
            self.optimizer.step()

    def stepped(self) -> bool | None:
        """Return None: optimizers move one parameter after the other and keep no record."""
        return None

    @torch.no_grad()
    def undo(self) -> None:
        """Restore the buffers, such as the running means of batch norm."""
        for buffer, before in zip(self._buffers, self._before, strict=False):
            buffer.copy_(before)
        self._before = []

    @torch.no_grad()
    def move_target(self, share: float) -> None:
        """Move parameters and floating buffers by this share; copy other buffers."""
        for (target, online), version in zip(self._pairs, self._versions, strict=True):
            if share == 1.0 or not target.is_floating_point():
                target.copy_(online)
            elif target._version == version:  # else it has moved already
                target.lerp_(online, share)

    def best_actions(self, observations: Any, *, explore: bool) -> npt.NDArray[np.int64]:
        """Return the actions of the highest value, with noise only where a noisy net explores."""
        training = self._noisy and explore
        if training:
            reset_noise(self._online)
        return greedy_actions(
            self._online, self._conversion, observations, self._device, training=training
        )

    def _pair(self) -> None:
        self._buffers = list(self._online.buffers())
        online, target = [*self._parameters, *self._buffers], self._target
        self._pairs = [*zip([*target.parameters(), *target.buffers()], online, strict=True)]

    def _values(self, network: nn.Module, observations: Any, *, training: bool) -> Tensor:
        # One autocast for each pass: within one, torch would use weights again that it converted
        # without a graph.
        with mode_of(network, training=training), self._precision():
            values: Tensor = network(observations)
        return values.float()
