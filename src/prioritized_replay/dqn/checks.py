"""Settings out of bounds, and parts that cannot work together, refused before they do harm.

Knows spaces, networks and the replay's public face; knows no learning.
"""

import math
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from prioritized_replay.dqn.acting import mode_of
from prioritized_replay.dqn.choices import Loss
from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.fields import arguments
from prioritized_replay.replay import ReplayBuffer

Schedule = Callable[[int], float]


def check_numbers(
    *,
    batch_size: Any,
    target_period: Any,
    warmup: Any,
    seed: Any,
    tau: Any,
    gradient_clip: Any,
    optimizer_eps: Any,
    loss: Any,
) -> None:
    """Raise ValueError where a setting of the agent is out of bounds, whatever the other parts."""
    for name, count in (
        ("batch_size", batch_size),
        ("target_period", target_period),
        ("warmup", warmup),
    ):
        arguments.integer(name, count)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {arguments.shown(seed)}")
    if tau is not None and not 0.0 < arguments.real(tau) <= 1.0:
        raise ValueError(f"tau must be in (0, 1], got {arguments.shown(tau)}")
    if gradient_clip is not None and not arguments.real(gradient_clip) > 0.0:
        raise ValueError(f"gradient_clip must be > 0, got {arguments.shown(gradient_clip)}")
    if optimizer_eps is not None:
        arguments.number("optimizer_eps", optimizer_eps)
    if loss not in get_args(Loss):
        raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}, got {loss!r}")


def checked_schedule(
    name: str, value: float | Schedule, high: float = math.inf, *, zero: bool = True
) -> Schedule:
    """Return a schedule that raises where its value is out of bounds.

    Parameters
    ----------
    name : str
        What an error calls it.
    value : float or schedule
    high : float
        Values must be finite and in [0, high].
    zero : bool
        Whether a constant may be 0. A schedule may reach 0 in any case.

    Raises
    ------
    ValueError
        A constant, or the value at step 0, is out of bounds.

    Examples
    --------
    >>> checked_schedule("epsilon", 1.5, 1.0)
    Traceback (most recent call last):
        ...
    ValueError: epsilon must be in [0, 1], got 1.5
    """
    if not callable(value):
        number = arguments.number(name, value, high)
        if number == 0.0 and not zero:
            raise ValueError(f"{name} must be > 0, got {arguments.shown(value)}")
        return lambda step: number

    def checked(step: int) -> float:
        found = value(step)
        if type(found) is float and 0.0 <= found <= high and found < math.inf:
            return found
        return arguments.number(f"{name} at step {step}", found, high)

    checked(0)
    return checked


def check_memory(memory: Any, conversion: Conversion, batch_size: int, warmup: int | None) -> None:
    """Raise ValueError unless a replay buffer fits the spaces, the batch size and the warmup.

    Buffers of other classes are taken as they are.
    """
    if not isinstance(memory, ReplayBuffer):
        return
    fields = memory.fields
    conversion.check_fields(fields["obs"])
    action: Any = fields["action"]
    if getattr(action, "shape", None) != () or np.dtype(action.dtype).kind not in "iu":
        raise ValueError(
            f"memory_buffer must have one integer per action for this action_space, got {action}"
        )
    if warmup is not None:
        check_warmup(memory, warmup)
    if getattr(memory.sampler, "draw", None) == "without_replacement":
        if batch_size > memory.capacity:
            raise ValueError(
                f"batch_size must be <= the capacity of memory_buffer ({memory.capacity}), which "
                f"draws without replacement, got {batch_size}"
            )
        if warmup is not None and warmup < batch_size:
            raise ValueError(
                f"warmup must be >= batch_size ({batch_size}) with a memory_buffer that draws "
                f"without replacement, got {warmup}"
            )


def check_warmup(memory: Any, warmup: int) -> None:
    """Raise ValueError where a buffer can never hold ``warmup`` transitions."""
    capacity = getattr(memory, "capacity", None)
    if capacity is not None and warmup > capacity:
        raise ValueError(
            f"warmup must be <= the capacity of memory_buffer ({capacity}), got {warmup}: "
            "the agent would never learn"
        )


def check_network(network: nn.Module, conversion: Conversion, device: torch.device) -> None:
    """Move a network to a device; raise ValueError unless it gives A values per observation there.

    The network sees two observations of zeros, in evaluation mode. Lazy layers get their sizes.
    """
    if not isinstance(network, nn.Module):
        raise ValueError(f"online_network must be a torch.nn.Module, got {type(network).__name__}")
    network.to(device)
    observations = conversion.tensors(conversion.blank(2), device)
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            mode_of(network, training=False),
        ):
            values = network(observations)
    except Exception as error:  # it may be of any kind
        said = arguments.shown(error)
        raise ValueError(
            "online_network must take the observations of observation_space as tensors, here "
            f"{_described(observations)}, but raised {said}"
        ) from error
    if not isinstance(values, Tensor):
        raise ValueError(
            f"online_network must return a tensor of action values, got {type(values).__name__}"
        )
    expected = (2, conversion.num_actions)
    if tuple(values.shape) != expected or not values.is_floating_point():
        raise ValueError(
            f"online_network must return floats of shape (B, {conversion.num_actions}), one for "
            f"each action, got {values.dtype} of shape {tuple(values.shape)} for B = 2"
        )


def check_unused(online_network: nn.Module | None, **options: Any) -> None:
    """Raise ValueError where options of :func:`make_network` come with a network."""
    if online_network is None:
        return
    for name, (value, default) in options.items():
        if value != default:
            raise ValueError(
                f"{name} is for the network that the agent makes; with online_network it must be "
                f"left out, got {value!r}"
            )


def _described(tensors: Any) -> str:
    if isinstance(tensors, dict):
        return f"{{{', '.join(f'{key!r}: {_described(one)}' for key, one in tensors.items())}}}"
    if isinstance(tensors, tuple):
        return f"({', '.join(map(_described, tensors))})"
    return f"{str(tensors.dtype).removeprefix('torch.')}{list(tensors.shape)}"
