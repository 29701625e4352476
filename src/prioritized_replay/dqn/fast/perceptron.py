"""A :class:`QNetwork` without autograd: its values, its gradients, its best action.

Knows layers and their arithmetic; knows nothing of losses, optimizers or replay. For networks this
small, half of an update was overhead: recording a graph, new memory for each gradient, a call for
each parameter. ``docs/decisions.rst`` has the figures.
Axes: B batch, A actions, P all parameters of the network.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prioritized_replay.dqn.networks import QNetwork


class Perceptron:
    """The forward and the backward pass of a network, on one tensor of all its parameters.

    The network stays whole and current: its parameters become views of ``parameters``.

    Parameters
    ----------
    network : QNetwork
        Where it is to stay: moving it to another device or dtype later parts the two.

    Attributes
    ----------
    parameters : torch.nn.Parameter, float32[P]
        All weights and biases, to be given to an optimizer. :meth:`backward` fills its ``grad``,
        of which the ``grad`` of the network's own parameters are views. Of a network that needs
        no gradient, neither does it.

    Raises
    ------
    RuntimeError
        From :meth:`values` and :meth:`best_action`: the network was moved or copied after all.

    Examples
    --------
    >>> from gymnasium import spaces
    >>> network = QNetwork(spaces.Box(-1.0, 1.0, (4,)), num_actions=2, hidden_sizes=(8,))
    >>> perceptron = Perceptron(network)
    >>> observations = torch.ones(5, 4)
    >>> torch.allclose(perceptron.values(observations), network(observations))
    True
    >>> perceptron.backward(torch.ones(5, 2))  # of the sum of all values
    >>> perceptron.parameters.grad[-2:]  # the biases of the two actions: one for each row
    tensor([5., 5.])
    """

    def __init__(self, network: QNetwork) -> None:
        self._network = network
        own = list(network.parameters())
        flat = torch.cat([parameter.detach().flatten() for parameter in own])
        self.parameters = nn.Parameter(flat, requires_grad=own[0].requires_grad)
        shapes = [parameter.shape for parameter in own]
        views = _views(self.parameters.detach(), shapes)
        self._gradients: list[Tensor] = []
        for parameter, view in zip(own, views, strict=True):
            parameter.data = view
        if self.parameters.requires_grad:
            self.parameters.grad = torch.zeros_like(flat)
            self._gradients = _views(self.parameters.grad, shapes)
            for parameter, view in zip(own, self._gradients, strict=True):
                parameter.grad = view
        self._first = own[0]
        # Detached: nothing done with them below is recorded.
        self._layers = list(zip(views[::2], views[1::2], strict=True))  # weight and bias
        self._transposed = [weight.t() for weight, _ in self._layers]
        self._inputs: list[Tensor] = []  # of each layer, from the latest `values`
        self._arrays: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []
        if flat.device.type == "cpu":  # the same memory once more
            self._arrays = [(w.numpy(), b.numpy()) for w, b in self._layers]

    def values(self, observations: Tensor) -> Tensor:
        """Return what the network does, and remember what :meth:`backward` needs.

        Parameters
        ----------
        observations : any real dtype, [B, ...] for a box, [B] for a discrete space

        Returns
        -------
        float32[B, A]
            Without a graph.
        """
        self._check_place()
        self._inputs.clear()  # first, so that their memory is used again while it is in the cache
        rows = self._network.rows(observations)
        last = len(self._layers) - 1
        for layer, (weight, bias) in enumerate(self._layers):
            rows = rows.view(-1, weight.shape[1])  # all places of an image together
            if self._gradients:
                self._inputs.append(rows)
            rows = torch.addmm(bias, rows, self._transposed[layer])
            if layer < last:
                rows.relu_()
        return self._network.head(rows)

    def backward(self, gradient: Tensor) -> None:
        """Fill ``parameters.grad`` from the gradient of a loss with respect to the values.

        Parameters
        ----------
        gradient : float32[B, A]
            For the first B of the latest observations; the others have no part in the loss.
        """
        if self._network.dueling:  # values are value + advantage - mean(advantage)
            total = gradient.sum(dim=1, keepdim=True)
            gradient = torch.cat((total, gradient - total / gradient.shape[1]), dim=1)
        for layer in reversed(range(len(self._layers))):
            gradient = gradient.view(-1, self._layers[layer][0].shape[0])  # and apart again
            inputs = self._inputs[layer][: len(gradient)]
            torch.mm(gradient.t(), inputs, out=self._gradients[2 * layer])
            torch.sum(gradient, dim=0, out=self._gradients[2 * layer + 1])
            if layer:
                gradient = torch.mm(gradient, self._layers[layer][0])
                # A unit's output is its input where positive, else 0, and so is its slope.
                gradient = torch.ops.aten.threshold_backward(gradient, inputs, 0.0)

    def best_action(self, observation: npt.NDArray[Any]) -> int:
        """Return the action of the highest value for one observation, on the CPU.

        In NumPy: for one row, calling torch costs more than the arithmetic.

        Parameters
        ----------
        observation : array[...] of a box, or int[] of a discrete space

        Returns
        -------
        int
        """
        self._check_place()
        outputs = self._network.rows(torch.from_numpy(observation[np.newaxis])).numpy()
        if len(outputs) == 1:
            outputs = outputs[0]
        last = len(self._arrays) - 1
        for layer, (weight, bias) in enumerate(self._arrays):
            # A convolution has many rows of inputs, and is the first layer.
            outputs = weight.dot(outputs) if outputs.ndim == 1 else outputs.dot(weight.T)
            outputs += bias
            if layer < last:
                np.maximum(outputs, 0.0, out=outputs)
                outputs = outputs.reshape(-1)
        # A dueling head's first output is the same for all actions.
        return int(outputs[int(self._network.dueling) :].argmax())

    def _check_place(self) -> None:
        if self._first.data_ptr() != self._layers[0][0].data_ptr():
            raise RuntimeError("the network was moved or copied without its perceptron")


def _views(flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    parts = torch.split(flat, [shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
