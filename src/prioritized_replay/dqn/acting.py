"""Greedy actions, and whether a network runs in training or in evaluation mode meanwhile.

Knows networks and the conversion of their inputs; knows no learning and no exploration.
Axes: E environments, A actions.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.dqn.convolutions import ConvNetwork
from prioritized_replay.dqn.devices import modes_kept
from prioritized_replay.dqn.networks import QNetwork


@modes_kept()
def greedy_actions(
    network: nn.Module,
    conversion: Conversion,
    observations: Any,
    device: torch.device | str = "cpu",
    *,
    training: bool = False,
) -> npt.NDArray[np.int64]:
    """Return the number of the best action for each of E observations.

    Parameters
    ----------
    network : torch.nn.Module
        From observations (E, ...) to action values (E, A), on ``device``.
    conversion : Conversion
        Of the environment's spaces.
    observations : arrays with a leading axis E
        As :meth:`Conversion.observations` and :meth:`Conversion.stacked` return them.
    training : bool
        Whether the network runs in training mode; by default it runs in evaluation mode.

    Returns
    -------
    int64[E]
        Numbers from 0; add ``conversion.first_action`` for the environment.
    """
    tensors = conversion.tensors(observations, device)
    with torch.no_grad(), mode_of(network, training=training):
        best: npt.NDArray[np.int64] = network(tensors).argmax(dim=1).cpu().numpy()
    return best


@contextlib.contextmanager
def mode_of(network: nn.Module, *, training: bool) -> Iterator[None]:
    """Run a network in training or in evaluation mode; each module then gets its own mode back.

    Calls ``network.train(training)``, so a network that keeps some layers frozen in its own
    ``train`` method is obeyed.

    Examples
    --------
    >>> network = nn.Dropout(0.5)
    >>> with mode_of(network, training=False):
    ...     network(torch.ones(3))
    tensor([1., 1., 1.])
    >>> network.training
    True
    """
    if type(network) in (QNetwork, ConvNetwork):  # the same in both modes
        yield
        return
    before = [(module, module.training) for module in network.modules()]
    try:
        network.train(training)
        yield
    finally:
        for module, was in before:
            module.training = was


def reset_noise(*networks: nn.Module) -> None:
    """Call ``reset_noise()`` of each network that has it."""
    for network in networks:
        reset = getattr(network, "reset_noise", None)
        if reset is not None:
            reset()
