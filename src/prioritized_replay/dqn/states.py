"""Whether a saved state fits an agent, and whether a network is worth saving.

Knows networks, optimizers and what an agent's state holds; knows no files.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from prioritized_replay.dqn.optimizers import check_state


def check_agent_state(
    state: dict[str, Any], network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Raise unless a state fits an agent's networks and optimizer, which stay as they are.

    Raises
    ------
    ValueError, RuntimeError, KeyError, TypeError
        Something is missing or of another agent.
    """
    for name in ("updates", "actions"):
        if type(state[name]) is not int or state[name] < 0:
            raise ValueError(f"{name} must be an integer >= 0, got {state[name]!r}")
    for name in ("online_network", "target_network"):
        # A copy loads them first: torch loads the tensors that fit before it raises.
        copy.deepcopy(network).load_state_dict(state[name])
    np.random.PCG64(0).state = state["generator"]
    check_state(optimizer, state["optimizer"])


def is_finite(network: nn.Module) -> bool:
    """Return whether all parameters and buffers of a network are finite; O(P).

    Examples
    --------
    >>> network = nn.Linear(2, 1)
    >>> is_finite(network)
    True
    >>> nn.init.constant_(network.bias, torch.nan) is network.bias, is_finite(network)
    (True, False)
    """
    tensors = [*network.parameters(), *network.buffers()]
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
