"""Observations that are images, as PNG in a data URI. It does not know where they come from."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LEAST_SIDE = 8  # pixels: a smaller array is a table of numbers
_MOST_SIDE = 256  # beyond, every second pixel will do, or fewer
_COLOURS = 3  # channels of a colour image
_MOST_CHANNELS = 16  # of an image that is a stack or a board


def picture_of(value: Array, stack_axis: int | None = None) -> str | None:
    """Return an array as a data URI of a PNG, or None if it is no image.

    An image has two axes of at least 8 pixels, and may have one of channels, first or last. Three
    are red, green and blue. Others are a stack, of which the newest is shown; or, where all numbers
    are 0 or 1, layers of a board such as MinAtar's: the higher one is the brighter.

    Parameters
    ----------
    value : array
        uint8 as it is; other numbers from their smallest (black) to their largest (white).
    stack_axis : int, optional
        The axis of frames, the newest last.
    """
    if value.dtype.kind not in "biuf" or not value.size:
        return None
    if stack_axis is not None and -value.ndim <= stack_axis < value.ndim:
        value = np.take(value, -1, axis=stack_axis)
    image = _as_image(value)
    if image is None:
        return None
    step = -(-max(image.shape[:2]) // _MOST_SIDE)
    data = base64.b64encode(png(_as_bytes(image)[::step, ::step])).decode("ascii")
    return f"data:image/png;base64,{data}"


def png(image: NDArray[np.uint8]) -> bytes:
    """Return an image, uint8[H, W] or uint8[H, W, 3], as a PNG file."""
    height, width = image.shape[:2]
    rows = np.zeros((height, 1 + image[0].size), np.uint8)  # each row begins with its filter, none
    rows[:, 1:] = image.reshape(height, -1)
    kind = 2 if image.ndim == _COLOURS else 0
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0),
        b"IDAT": zlib.compress(rows.tobytes(), 9),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _as_image(value: Array) -> Array | None:
    """Return [H, W] or [H, W, 3]."""
    if value.ndim == 2:
        return value if min(value.shape) >= LEAST_SIDE else None
    if value.ndim != _COLOURS:
        return None
    if min(value.shape[:2]) < LEAST_SIDE or value.shape[2] > _MOST_CHANNELS:
        value = np.moveaxis(value, 0, 2)  # channels first
    if min(value.shape[:2]) < LEAST_SIDE or value.shape[2] > _MOST_CHANNELS:
        return None
    channels = value.shape[2]
    if channels == _COLOURS:
        return value
    if channels == 1 or not np.isin(value, (0, 1)).all():
        image: Array = value[:, :, -1]  # frames, the newest last
        return image
    layers = np.arange(1, channels + 1) * (value != 0)
    board: Array = layers.max(axis=2) * (255 // channels)
    return board.astype(np.uint8)


def _as_bytes(image: Array) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return image
    numbers = np.nan_to_num(image.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    scaled = (numbers - low) * (255.0 / (high - low)) if high > low else np.zeros_like(numbers)
    return scaled.astype(np.uint8)
