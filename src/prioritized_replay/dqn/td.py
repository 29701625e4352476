"""The arithmetic of Q-learning: target, td error, loss. Pure functions of tensors.

Knows formulas and shapes; knows no network, replay or environment. Axes: B batch, A actions.
Shapes are checked because (B,) with (B, 1) would silently broadcast to (B, B).
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Loss = Literal["huber", "squared"]


def td_target(
    reward: Tensor, discount: Tensor, q_next_value: Tensor, q_next_selector: Tensor
) -> Tensor:
    """Return what the value of the action taken should have been.

    ``reward + discount * q_next_value[argmax(q_next_selector)]``, row by row. The two tables of
    next values are the whole difference between DQN (the target network's values, twice) and
    Double DQN (the target network's values, the online network's as selector).

    Parameters
    ----------
    reward : float[B]
        Discounted sum of the rewards of the row's window.
    discount : float[B]
        ``gamma**m`` for a window of m steps, 0 where it ended in termination. A truncated window
        keeps its ``gamma**m``: there the value of what follows still counts.
    q_next_value, q_next_selector : float[B, A]
        Values of the next observation: those that are used, and those that choose the action.

    Returns
    -------
    float[B]

    Raises
    ------
    ValueError
        A shape is not as above.

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
    rows = _rows("reward", reward)
    _same("discount", discount, (rows,))
    _table("q_next_value", q_next_value, rows)
    _same("q_next_selector", q_next_selector, tuple(q_next_value.shape))
    best = q_next_selector.argmax(dim=1, keepdim=True)
    return torch.addcmul(reward, discount, q_next_value.gather(1, best).squeeze(1))


def td_error(q: Tensor, action: Tensor, target: Tensor) -> Tensor:
    """Return the signed error ``target - q[action]``, row by row.

    Parameters
    ----------
    q : float[B, A]
        Values of the observation's actions.
    action : int64[B]
        The action taken, in [0, A).
    target : float[B]
        From :func:`td_target`; no gradient should flow through it.

    Returns
    -------
    float[B]
        Positive where the outcome was better than expected.

    Raises
    ------
    ValueError
        A shape is not as above.
    TypeError
        ``action`` is not int64.

    Examples
    --------
    >>> q = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> td_error(q, torch.tensor([1, 0]), torch.tensor([2.5, 1.0]))
    tensor([ 0.5000, -2.0000])
    """
    rows = _rows("target", target)
    _table("q", q, rows)
    _same("action", action, (rows,))
    if action.dtype != torch.int64:
        raise TypeError(f"action must be int64, got {action.dtype}")
    return target - q.gather(1, action.unsqueeze(1)).squeeze(1)


def td_loss(td_errors: Tensor, weights: Tensor, loss: Loss = "huber") -> Tensor:
    """Return the mean of ``weights * loss(td_errors)``.

    The weight multiplies the loss, and so the gradient, once: a weight inside the square would
    count twice, and turn full correction into over-correction.

    Parameters
    ----------
    td_errors : float[B]
        Signed errors, with gradient.
    weights : float[B]
        Importance-sampling weights, without gradient.
    loss : {"huber", "squared"}
        ``delta**2 / 2``, and for huber ``abs(delta) - 1/2`` where abs(delta) > 1.

    Returns
    -------
    float, a scalar tensor

    Raises
    ------
    ValueError
        A shape is not as above, or the loss is unknown.

    Notes
    -----
    Schaul et al. 2015, algorithm 1, line 13: the gradient of the squared loss is
    ``-mean(w * delta * grad q)``. Huber clips delta first and then weighs it, as the paper does.

    Examples
    --------
    >>> delta, weights = torch.tensor([0.5, -3.0]), torch.tensor([1.0, 0.5])
    >>> td_loss(delta, weights, "squared")  # (1 * 0.125 + 0.5 * 4.5) / 2
    tensor(1.1875)
    >>> td_loss(delta, weights, "huber")  # (1 * 0.125 + 0.5 * 2.5) / 2
    tensor(0.6875)
    """
    rows = _rows("td_errors", td_errors)
    _same("weights", weights, (rows,))
    _check_loss(loss)
    if loss == "huber":
        losses = functional.smooth_l1_loss(
            td_errors, torch.zeros_like(td_errors), reduction="none", beta=1.0
        )
    else:
        losses = td_errors.square() * 0.5
    return torch.dot(weights, losses) / rows


def td_loss_gradient(
    td_errors: Tensor, weights: Tensor, action: Tensor, num_actions: int, loss: Loss = "huber"
) -> Tensor:
    """Return the gradient of :func:`td_loss` with respect to the action values ``q``.

    For those who go backward without autograd.

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
        A shape is not as above, or the loss is unknown.

    Examples
    --------
    >>> delta, weights = torch.tensor([0.5, -3.0]), torch.tensor([1.0, 0.5])
    >>> td_loss_gradient(delta, weights, torch.tensor([0, 1]), num_actions=2)
    tensor([[-0.2500,  0.0000],
            [ 0.0000,  0.2500]])
    """
    rows = _rows("td_errors", td_errors)
    _same("weights", weights, (rows,))
    _same("action", action, (rows,))
    _check_loss(loss)
    slope = td_errors.clamp(-1.0, 1.0) if loss == "huber" else td_errors
    taken = (slope * weights).mul_(-1.0 / rows).unsqueeze(1)
    return torch.zeros(rows, num_actions, dtype=taken.dtype, device=taken.device).scatter_(
        1, action.unsqueeze(1), taken
    )


def _check_loss(loss: str) -> None:
    if loss not in get_args(Loss):
        raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}, got {loss!r}")


def _rows(name: str, tensor: Tensor) -> int:
    if tensor.ndim != 1:
        raise ValueError(f"{name} must have shape (B,), got {tuple(tensor.shape)}")
    return tensor.shape[0]


def _same(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")


def _table(name: str, tensor: Tensor, rows: int) -> None:
    if tensor.ndim != 2 or tensor.shape[0] != rows:
        raise ValueError(f"{name} must have shape ({rows}, A), got {tuple(tensor.shape)}")
