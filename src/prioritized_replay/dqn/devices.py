"""Devices and precisions that torch can use here, and how it treats numbers near 0.

Knows torch's devices and settings; knows no network and no agent.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import get_args

import torch

from prioritized_replay.dqn.choices import Precision

_SUBNORMAL = math.ulp(0.0)


def usable_device(device: str | torch.device) -> torch.device:
    """Return the torch device of that name.

    Raises
    ------
    ValueError
        There is no such device here.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device must be one that torch can use, got {device!r}: {reason}"
        ) from error
    return found


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise where a device does not compute in that precision.

    Raises
    ------
    ValueError
        The precision is unknown, or neither the processor nor the GPU has bfloat16 arithmetic.
    """
    if precision not in get_args(Precision):
        choices = ", ".join(get_args(Precision))
        raise ValueError(f"precision must be one of {choices}, got {precision!r}")
    if precision == "bfloat16" and not _has_bfloat16(device):
        raise ValueError(
            "precision must be float32 on this device, which has no bfloat16 arithmetic "
            f"({device}), got 'bfloat16'"
        )


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    # Older torch tells only whether its library would take bfloat16 at all.
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextlib.contextmanager
def subnormal_as_zero() -> Iterator[None]:
    """Treat numbers too small for full precision (float32: below 1e-38) as 0 in this thread.

    Adam's mean of a gradient that has become 0 (that of a dead unit) shrinks to such a number and
    stays there, and a processor takes many times as long for each.
    """
    if _flushes_subnormal():  # the user has chosen this already
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextlib.contextmanager
def modes_kept() -> Iterator[None]:
    """Restore torch's modes of this thread where an exception leaves them as they should not be.

    A ``with`` block restores them too, but not if Ctrl-C comes right before it ends.
    """
    records, flushes = torch.is_grad_enabled(), _flushes_subnormal()
    try:
        yield
    except BaseException:
        torch.set_grad_enabled(records)
        torch.set_flush_denormal(flushes)
        raise


def _flushes_subnormal() -> bool:
    return _SUBNORMAL * 1.0 == 0.0
