"""The passes of one update: from a batch to its td errors and the gradient of their loss.

Knows an online and a target network and two ways through them, by autograd (any network) and
directly (a :class:`QNetwork`); knows no optimizer, schedule or replay. Axes: B batch, A actions.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from prioritized_replay.batch import Batch
from prioritized_replay.dqn.devices import Precision
from prioritized_replay.dqn.fast.perceptron import Perceptron
from prioritized_replay.dqn.networks import QNetwork
from prioritized_replay.dqn.td import Loss, td_error, td_loss, td_loss_gradient, td_target


class Passes(Protocol):
    """What the agent asks of either way."""

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """What an optimizer is to move."""

    def errors(self, batch: Batch, *, double: bool, loss: Loss) -> Tensor:
        """Leave the gradient of the batch's loss in ``parameters``; return float32[B]."""

    def mix(self, share: float) -> None:
        """Move the target network towards the online network by this share."""


class AutogradPasses:
    """Through any network, by autograd.

    Parameters
    ----------
    online, target : torch.nn.Module
        From observations (B, ...) to action values (B, A).
    device : torch.device
        Where they live.
    precision : {"float32", "bfloat16"}
        bfloat16: the layers that gain from it (matrix products, convolutions) compute in bfloat16,
        by torch's autocast. Parameters, gradients, targets and errors stay float32.
    """

    def __init__(
        self, online: nn.Module, target: nn.Module, device: torch.device, precision: Precision
    ) -> None:
        self.parameters = list(online.parameters())
        self._online, self._target = online, target
        self._pairs = list(zip(target.parameters(), self.parameters, strict=True))
        self._device_type = device.type
        self._half = precision == "bfloat16"

    def errors(self, batch: Batch, *, double: bool, loss: Loss) -> Tensor:
        """Leave the gradient of the batch's loss in ``parameters``; return float32[B]."""
        with torch.no_grad():
            value = self._values(self._target, batch.next_obs)
            selector = self._values(self._online, batch.next_obs) if double else value
            target = td_target(batch.reward, batch.discount, value, selector)
        errors = td_error(self._values(self._online, batch.obs), batch.action, target)
        for parameter in self.parameters:
            parameter.grad = None
        torch.autograd.backward(td_loss(errors, batch.weights, loss))
        return errors.detach()

    def mix(self, share: float) -> None:
        """Move the target network towards the online network by this share, buffers at 1 only."""
        if share == 1.0:
            self._target.load_state_dict(self._online.state_dict())
            return
        with torch.no_grad():
            for target, online in self._pairs:
                target.lerp_(online, share)

    def _values(self, network: nn.Module, observations: Tensor) -> Tensor:
        if not self._half:
            values: Tensor = network(observations)
            return values
        # One context for each pass: within one, autocast would use weights again that it converted
        # without a graph.
        with torch.autocast(self._device_type, torch.bfloat16):
            values = network(observations)
        return values.float()


class PerceptronPasses:
    """Through a :class:`QNetwork`, without autograd: the same numbers in about half the time.

    Parameters
    ----------
    online, target : QNetwork
        Equal in shape; see :class:`Perceptron` for what becomes of their parameters.
    """

    def __init__(self, online: QNetwork, target: QNetwork) -> None:
        self.online, self._target = Perceptron(online), Perceptron(target)
        self.parameters = [self.online.parameters]

    def errors(self, batch: Batch, *, double: bool, loss: Loss) -> Tensor:
        """Leave the gradient of the batch's loss in ``parameters``; return float32[B]."""
        rows = len(batch.reward)
        value = self._target.values(batch.next_obs)
        if double:  # one pass for both: a matrix product of 2 B rows takes less than two of B
            both = self.online.values(torch.cat((batch.obs, batch.next_obs)))
            q, selector = both[:rows], both[rows:]
        else:
            q, selector = self.online.values(batch.obs), value
        target = td_target(batch.reward, batch.discount, value, selector)
        errors = td_error(q, batch.action, target)
        self.online.backward(
            td_loss_gradient(errors, batch.weights, batch.action, q.shape[1], loss)
        )
        return errors

    @torch.no_grad()
    def mix(self, share: float) -> None:
        """Move the target network towards the online network by this share."""
        self._target.parameters.lerp_(self.online.parameters, share)
