"""The arithmetic of Q-learning: target, td error, loss. Pure functions of tensors.

Knows formulas and shapes; knows no network, replay or environment. Axes: B batch, A actions.
Shapes are checked because (B,) with (B, 1) would silently broadcast to (B, B).
"""

from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional

from prioritized_replay.dqn.choices import Loss
from prioritized_replay.dqn.shapes import require_rows, require_shape, require_table


def td_target(
    reward: Tensor, discount: Tensor, q_next_value: Tensor, q_next_selector: Tensor
) -> Tensor:
    """Return the target for the value of the action taken.

    ``reward + discount * q_next_value[argmax(q_next_selector)]``, row by row. DQN gives the target
    network's values twice. Double DQN gives them as values and the online network's as selector.

    Parameters
    ----------
    reward : float[B]
        Discounted sum of the rewards of the row's window.
    discount : float[B]
        ``gamma**m`` for a window of m steps, 0 where it ended in termination. A truncated window
        keeps ``gamma**m``: the value of what follows still counts.
    q_next_value, q_next_selector : float[B, A]
        Values of the next observation: one table gives the value, the other chooses the action.

    Returns
    -------
    float[B]

    Raises
    ------
    ValueError
        A shape is wrong.

    Notes
    -----
    Schaul et al. 2015, algorithm 1, line 11; van Hasselt et al. 2016 for the two networks.

    Examples
    --------
    >>> value, selector = torch.tensor([[10.0, 20.0]]), torch.tensor([[3.0, 1.0]])
    >>> reward, discount = torch.tensor([1.0]), torch.tensor([0.5])
    >>> td_target(reward, discount, value, value)  # DQN
    tensor([11.])
    >>> td_target(reward, discount, value, selector)  # Double DQN
    tensor([6.])
    """
    rows = require_rows("reward", reward)
    require_shape("discount", discount, (rows,))
    require_table("q_next_value", q_next_value, rows)
    require_shape("q_next_selector", q_next_selector, tuple(q_next_value.shape))
    best = q_next_selector.argmax(dim=1, keepdim=True)
    return torch.addcmul(reward, discount, q_next_value.gather(1, best).squeeze(1))


def td_error(q: Tensor, action: Tensor, target: Tensor) -> Tensor:
    """Return the signed error ``target - q[action]``, float[B]: positive if better than expected.

    Parameters
    ----------
    q : float[B, A]
        Values of the observation's actions.
    action : int64[B]
        The action taken, in [0, A).
    target : float[B]
        From :func:`td_target`; no gradient should flow through it.

    Raises
    ------
    ValueError
        A shape is wrong.
    TypeError
        ``action`` is not int64.

    Examples
    --------
    >>> q = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> td_error(q, torch.tensor([1, 0]), torch.tensor([2.5, 1.0]))
    tensor([ 0.5000, -2.0000])
    """
    rows = require_rows("target", target)
    require_table("q", q, rows)
    require_shape("action", action, (rows,))
    if action.dtype != torch.int64:
        raise TypeError(f"action must be int64, got {action.dtype}")
    return target - q.gather(1, action.unsqueeze(1)).squeeze(1)


def td_loss(td_errors: Tensor, weights: Tensor, loss: Loss = "huber") -> Tensor:
    """Return the mean of ``weights * loss(td_errors)``, a scalar.

    The weight multiplies the loss, and so the gradient, once. A weight inside the square would
    count twice.

    Parameters
    ----------
    td_errors : float[B]
        Signed errors, with gradient.
    weights : float[B]
        Importance-sampling weights, without gradient.
    loss : {"huber", "squared"}
        ``delta**2 / 2``, and for huber ``abs(delta) - 1/2`` where abs(delta) > 1.

    Raises
    ------
    ValueError
        A shape is wrong, or the loss is unknown.

    Notes
    -----
    The gradient is ``-mean(w * delta * grad q)`` (Schaul et al. 2015, algorithm 1, line 13). The
    huber loss clips delta to [-1, 1] in it, before the weight: ``w * clip(delta)``. That follows
    the paper's text, which clips td errors and then weights them. DQN Zoo weights first and clips
    the product, ``clip(w * delta)``. With weights <= 1 the two differ only where abs(delta) > 1.

    Examples
    --------
    >>> delta, weights = torch.tensor([0.5, -3.0]), torch.tensor([1.0, 0.5])
    >>> td_loss(delta, weights, "squared")  # (1 * 0.125 + 0.5 * 4.5) / 2
    tensor(1.1875)
    >>> td_loss(delta, weights, "huber")  # (1 * 0.125 + 0.5 * 2.5) / 2
    tensor(0.6875)
    """
    rows = require_rows("td_errors", td_errors)
    require_shape("weights", weights, (rows,))
    if loss == "huber":
        losses = functional.smooth_l1_loss(td_errors, torch.zeros_like(td_errors), reduction="none")
    elif loss == "squared":
        losses = td_errors.square() * 0.5
    else:
        raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}, got {loss!r}")
    return torch.dot(weights, losses) / rows
