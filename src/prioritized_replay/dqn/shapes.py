"""Shapes of tensors, required by name. Axes: B batch, T steps of a sequence, A actions."""

import torch
from torch import Tensor


def require_rows(name: str, tensor: Tensor) -> int:
    """Return B of a tensor of shape (B,); raise ValueError for another shape."""
    if tensor.ndim != 1:
        raise ValueError(f"{name} must have shape (B,), got {tuple(tensor.shape)}")
    return tensor.shape[0]


def require_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a tensor has a shape."""
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")


def require_table(name: str, tensor: Tensor, rows: int) -> None:
    """Raise ValueError unless a tensor has shape (rows, A)."""
    if tensor.ndim != 2 or tensor.shape[0] != rows:
        raise ValueError(f"{name} must have shape ({rows}, A), got {tuple(tensor.shape)}")


def require_sequences(name: str, tensor: Tensor) -> tuple[int, int]:
    """Return (B, T) of a tensor of that shape, T >= 1; raise ValueError for another shape."""
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        raise ValueError(f"{name} must have shape (B, T), got {tuple(tensor.shape)}")
    return tensor.shape[0], tensor.shape[1]


def require_flags(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a tensor has a shape, and TypeError unless it is Boolean."""
    require_shape(name, tensor, shape)
    if tensor.dtype != torch.bool:
        raise TypeError(f"{name} must be bool, got {tensor.dtype}")
