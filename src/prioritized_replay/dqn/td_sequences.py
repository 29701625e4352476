"""The arithmetic of Q-learning along sequences: targets of n steps, rescaled values, the loss.

Pure functions of tensors, as in ``td.py``. Axes: B batch, T steps of a sequence. ``mask`` is False
at padding, which comes after the real steps of a sequence; what the other tensors hold there does
not matter.
"""

import torch
from torch import Tensor

from prioritized_replay.dqn.choices import Loss
from prioritized_replay.dqn.shapes import require_flags, require_sequences, require_shape
from prioritized_replay.dqn.td import td_loss
from prioritized_replay.fields import arguments


def n_step_targets(
    reward: Tensor,
    discount: Tensor,
    next_value: Tensor,
    mask: Tensor,
    n_step: int,
    is_first: Tensor | None = None,
) -> Tensor:
    """Return the target of each step: rewards of up to n steps, and the value of what follows.

    ``reward[t] + discount[t] * (reward[t+1] + discount[t+1] * (... next_value[t+m-1]))`` with
    m = n_step, or fewer where the steps of an episode end sooner: at the last real step of the
    sequence, or before a step that begins another episode. There the target bootstraps from
    ``next_value`` of the last step that it sums. After a termination, the discount is 0.

    Parameters
    ----------
    reward : float[B, T]
        Of single steps.
    discount : float[B, T]
        gamma, and 0 at a step that terminated. A truncated step keeps gamma.
    next_value : float[B, T]
        Value of each step's next observation, for example that of the best action.
    mask : bool[B, T]
        True at real steps.
    n_step : int
        Steps n of a target, >= 1.
    is_first : bool[B, T], optional
        True where an episode begins. Sequences that never cross the end of an episode
        (``boundaries="stop"``) do not need it.

    Returns
    -------
    float[B, T]
        0 at padding. Gradients flow to ``reward``, ``discount`` and ``next_value``; call it under
        ``torch.no_grad()`` to learn from its targets.

    Raises
    ------
    ValueError
        A shape is wrong, or ``n_step`` < 1.
    TypeError
        ``mask`` or ``is_first`` is not bool.

    Notes
    -----
    O(n B T). With values that were rescaled, give ``unrescaled(next_value)``, and rescale the
    targets (Kapturowski et al. 2019, section 2.3).

    Examples
    --------
    Three rewards of 1, a discount of 1/2, and every next value 8. With n = 2, the third step has
    one reward to sum:

    >>> ones, half = torch.ones(1, 3), torch.full((1, 3), 0.5)
    >>> n_step_targets(ones, half, 8 * ones, ones.bool(), n_step=2)
    tensor([[3.5000, 3.5000, 5.0000]])
    """
    shape = require_sequences("reward", reward)
    require_shape("discount", discount, shape)
    require_shape("next_value", next_value, shape)
    require_flags("mask", mask, shape)
    n_step = arguments.integer("n_step", n_step)
    goes_on = mask[:, 1:]  # the step after it belongs to the same episode
    if is_first is not None:
        require_flags("is_first", is_first, shape)
        goes_on = goes_on & ~is_first[:, 1:]
    following = next_value
    target = torch.addcmul(reward, discount, following)
    for _ in range(1, min(n_step, shape[1])):
        inside = torch.where(goes_on, target[:, 1:], next_value[:, :-1])
        following = torch.cat((inside, next_value[:, -1:]), dim=1)
        target = torch.addcmul(reward, discount, following)
    return torch.where(mask, target, 0.0)


def rescaled(x: Tensor, eps: float = 1e-3) -> Tensor:
    """Return ``sign(x) * (sqrt(abs(x) + 1) - 1) + eps * x``: returns of any scale, made small.

    A network that predicts rescaled returns needs no clipped rewards (Pohlen et al. 2018; R2D2,
    Kapturowski et al. 2019). The slope is ``1/2 + eps`` at 0, and never below eps.

    Parameters
    ----------
    x : float[...]
    eps : float
        >= 0.

    Raises
    ------
    ValueError
        ``eps`` is negative or not finite.

    Notes
    -----
    ``sqrt(a + 1) - 1`` is computed as ``a / (sqrt(a + 1) + 1)``, which keeps its digits near 0.

    Examples
    --------
    >>> rescaled(torch.tensor([-8.0, 0.0, 3.0, 99.0]), eps=0.0)
    tensor([-2.,  0.,  1.,  9.])
    """
    return x * (1.0 / ((x.abs() + 1.0).sqrt() + 1.0) + arguments.number("eps", eps))


def unrescaled(y: Tensor, eps: float = 1e-3) -> Tensor:
    """Return the x whose :func:`rescaled` is y.

    Parameters
    ----------
    y : float[...]
    eps : float
        The one that y was rescaled with, >= 0.

    Raises
    ------
    ValueError
        ``eps`` is negative or not finite.

    Notes
    -----
    With ``w = sqrt(abs(x) + 1) - 1``, ``abs(y) = w + eps * w * (w + 2)``. The root of this is
    written without a difference of nearly equal numbers. The form in the papers has one, which
    costs 0.2 % of a value of 1e-3 in float32, and divides by eps.

    Examples
    --------
    >>> unrescaled(torch.tensor([-2.0, 0.0, 1.0, 9.0]), eps=0.0)
    tensor([-8.,  0.,  3., 99.])
    """
    slope = 1.0 + 2.0 * arguments.number("eps", eps)
    w = 2.0 * y / (slope + (slope * slope + 4.0 * eps * y.abs()).sqrt())
    return w * (w.abs() + 2.0)


def sequence_loss(
    td_errors: Tensor, weights: Tensor, mask: Tensor, burn_in: int = 0, loss: Loss = "huber"
) -> Tensor:
    """Return the mean over sequences of ``weight * mean(loss(td_errors))``, a scalar.

    The inner mean is over the real steps of a sequence from ``burn_in`` on, the outer one over
    all B sequences. So a sequence counts by its weight, however many real steps it has. These are
    the steps that the sequence's priority is made of, too: a sequence that ends within the burn-in
    has all its real steps in the mean.

    Parameters
    ----------
    td_errors : float[B, T]
        Signed errors, with gradient. They may be anything, nan too, at the steps left out.
    weights : float[B]
        Importance-sampling weights, without gradient.
    mask : bool[B, T]
        True at real steps. A sequence without any adds 0 to the sum.
    burn_in : int
        First steps that only warm up the network's state, in [0, T).
    loss : {"huber", "squared"}
        As for :func:`td_loss`.

    Raises
    ------
    ValueError
        A shape is wrong, ``burn_in`` is outside its range, or the loss is unknown.
    TypeError
        ``mask`` is not bool.

    Examples
    --------
    >>> td_errors = torch.tensor([[9.0, 1.0, 0.0], [9.0, 2.0, 9.0]])
    >>> mask = torch.tensor([[True, True, True], [True, True, False]])
    >>> weights = torch.tensor([1.0, 0.5])
    >>> sequence_loss(td_errors, weights, mask, 1, "squared")  # (1 * 0.5 / 2 + 0.5 * 2) / 2
    tensor(0.6250)
    """
    rows, length = shape = require_sequences("td_errors", td_errors)
    require_shape("weights", weights, (rows,))
    require_flags("mask", mask, shape)
    burn_in = arguments.integer("burn_in", burn_in, 0)
    if burn_in >= length:
        raise ValueError(f"burn_in must be < T = {length}, got {burn_in}")
    learnt = mask.clone()
    learnt[:, :burn_in] &= ~mask[:, burn_in:].any(dim=1, keepdim=True)
    count = learnt.sum(dim=1).clamp(min=1)
    share = learnt * (weights * length / count)[:, None]  # td_loss divides by B T
    return td_loss(torch.where(learnt, td_errors, 0.0).flatten(), share.flatten(), loss)
