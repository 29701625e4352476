"""Optimizers by name, and whether an optimizer or its saved state fits a network.

Knows torch's optimizers; knows no loss, no replay and no schedule.
"""

import copy
import inspect
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import nn

from prioritized_replay.dqn.choices import OptimizerName
from prioritized_replay.dqn.rmsprop import CentredRMSProp

LEARNING_RATE = 5e-4
EPS: dict[OptimizerName, float] = {"adam": 1e-8, "rmsprop": 0.01 / 32**2}


def make_optimizer(
    name: OptimizerName, parameters: Sequence[nn.Parameter], eps: float | None
) -> torch.optim.Optimizer:
    """Return the optimizer of that name for parameters on one device.

    Parameters
    ----------
    name : {"adam", "rmsprop"}
    parameters : sequence of torch.nn.Parameter
    eps : float, optional
        By default that of :data:`EPS`.
    """
    eps = EPS[name] if eps is None else eps
    if name == "rmsprop":
        return CentredRMSProp(parameters, lr=LEARNING_RATE, eps=eps)
    # One kernel for all parameters: a third of the time of the default loop.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return torch.optim.Adam(parameters, lr=LEARNING_RATE, eps=eps, fused=fused)


def check_optimizer(optimizer: Any, network: nn.Module | None, eps: float | None) -> None:
    """Raise unless an optimizer, or its name, can train a network.

    Parameters
    ----------
    optimizer : str or torch.optim.Optimizer
    network : torch.nn.Module or None
        The network that the caller gave; None where the agent makes its own.
    eps : float or None
        The option ``optimizer_eps``.

    Raises
    ------
    ValueError
        The name is unknown, the optimizer holds other parameters than the network's, or it is of
        a kind that DQN cannot use.
    """
    if isinstance(optimizer, str):
        if optimizer not in get_args(OptimizerName):
            names = ", ".join(get_args(OptimizerName))
            raise ValueError(
                f"optimizer must be one of {names}, or an Optimizer, got {optimizer!r}"
            )
        return
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"optimizer must be a name or an Optimizer, got {type(optimizer).__name__}"
        )
    if network is None:
        raise ValueError("optimizer needs the online_network whose parameters it holds")
    if eps is not None:
        raise ValueError(f"optimizer_eps must be None with an optimizer of your own, got {eps}")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"optimizer must step without a closure, which {type(optimizer).__name__} needs"
        )
    held = {id(one) for group in optimizer.param_groups for one in group["params"]}
    own = {id(one) for one in network.parameters()}
    trained = [(name, one) for name, one in network.named_parameters() if one.requires_grad]
    missing = [name for name, one in trained if id(one) not in held]
    foreign = len(held - own)
    if missing or foreign:
        lacking = f", {missing[0]} is missing" if missing else ""
        raise ValueError(
            "optimizer must hold the parameters of online_network and no others, got one with "
            f"{foreign} foreign parameters{lacking}: make it from online_network.parameters()"
        )


def check_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Raise unless an optimizer can continue from a saved state; the optimizer is not changed.

    torch looks at a state only when it makes a step, so a copy of the optimizer makes one.

    Raises
    ------
    ValueError
        The state is of another optimizer, or its next step is not finite.
    """
    optimizer = copy.deepcopy(optimizer)
    try:
        optimizer.load_state_dict(copy.deepcopy(state))  # it takes tensors as they are
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        if not all(parameter.isfinite().all() for parameter in parameters):
            raise ValueError("a step from it is not finite")
    except Exception as error:  # it may be of any kind
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the state must be that of this optimizer, got another: {type(error).__name__}: {said}"
        ) from error
