"""The last look before a step: the gradient is clipped, and nothing in it may be infinite or NaN.

Knows gradients and td errors; knows no network and no loss. Axes: B batch.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from prioritized_replay.batch import Batch

_SHOWN = 10  # ids in a message


def clip_gradient(gradients: Sequence[Tensor], limit: float) -> float:
    """Scale gradients so that their common norm is at most ``limit``; return the norm before.

    Examples
    --------
    >>> gradient = torch.tensor([3.0, 4.0])
    >>> clip_gradient([gradient], 1.0), gradient
    (5.0, tensor([0.6000, 0.8000]))
    """
    # torch's own function does the same in five times the time for small networks.
    if len(gradients) == 1 and gradients[0].ndim == 1:
        norm = math.sqrt(float(torch.dot(gradients[0], gradients[0])))
    elif gradients:
        norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
        norm = float(torch.linalg.vector_norm(torch.stack(norms)))
    else:
        norm = 0.0
    if norm > limit:
        for gradient in gradients:
            gradient.mul_(limit / norm)
    return norm


def require_finite(td_errors: Tensor, norm: float, batch: Batch) -> None:
    """Raise where an update cannot be made, before it changes anything.

    Parameters
    ----------
    td_errors : float[B]
    norm : float
        Of the gradient.
    batch : Batch
        Its ``ids``, where it has some, name the transitions in the error.

    Raises
    ------
    ValueError
        A td error or the norm is not finite.
    """
    if math.isfinite(norm) and math.isfinite(float(td_errors.sum())):
        return
    rows = (~td_errors.isfinite()).nonzero().flatten().tolist()
    if not rows:
        raise ValueError(
            "the gradient must be finite, got one that is not although all td errors are: the "
            "values are too large; lower learning_rate or scale the rewards down. "
            "Nothing was changed"
        )
    name, wrong = "rows", rows
    if "ids" in batch:
        name, wrong = "ids", sorted({int(batch.ids[row]) for row in rows})
    shown = ", ".join(map(str, wrong[:_SHOWN]))
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    raise ValueError(
        f"td_errors must be finite, got NaN or infinity for transitions with {name} "
        f"{shown}{more}. Nothing was changed. If memory_buffer.get(ids) shows rewards or "
        "observations that are not finite, repair what adds them; else the network has diverged: "
        "go back to a checkpoint and lower learning_rate"
    )
