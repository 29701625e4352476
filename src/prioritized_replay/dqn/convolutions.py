"""Images as observations, and the convolutional networks that give actions values from them.

Knows shapes of images and layers; knows nothing of learning. Axes: B batch, A actions, C channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Convolution:
    """A layer: so many square filters of so many pixels, moved so many pixels at a time."""

    filters: int
    size: int
    stride: int


@dataclass(frozen=True)
class Image:
    """How an observation is an image: its size, which axis has the channels, what is white.

    The channels are first where that is the shortest axis, as in a stack of frames, else last.

    Examples
    --------
    >>> image = Image.of(spaces.Box(0, 255, (4, 84, 84), "uint8"))
    >>> image.channels, image.height, image.first
    (4, 84, True)
    >>> image.after(Convolution(filters=32, size=8, stride=4)).pixels
    400
    """

    channels: int
    height: int
    width: int
    first: bool
    scale: float

    @classmethod
    def of(cls, space: spaces.Space) -> Self:  # type: ignore[type-arg]
        """Read a space.

        Raises
        ------
        ValueError
            It is not a box of three axes.
        """
        if not isinstance(space, spaces.Box) or len(space.shape) != 3:
            raise ValueError(
                "observation_space must be an image, a Box of three axes, for a convolutional "
                f"network, got {space}"
            )
        shape = space.shape
        first = shape[0] < min(shape[1:])
        channels, height, width = shape if first else (shape[2], shape[0], shape[1])
        return cls(channels, height, width, first, 1.0 / 255.0 if space.dtype == np.uint8 else 1.0)

    @property
    def pixels(self) -> int:
        """Of one channel."""
        return self.height * self.width

    def after(self, layer: Convolution) -> Self:
        """Return the image that a convolution makes of this one.

        Raises
        ------
        ValueError
            It is too small for that.
        """
        if min(self.height, self.width) < layer.size:
            raise ValueError(
                "observation_space must be of images large enough for the network: "
                f"{self.height}x{self.width} pixels came to a convolution of "
                f"{layer.size}x{layer.size}"
            )
        return replace(
            self,
            channels=layer.filters,
            height=(self.height - layer.size) // layer.stride + 1,
            width=(self.width - layer.size) // layer.stride + 1,
        )

    def channels_first(self, observations: Tensor) -> Tensor:
        """Return [B, C, height, width]."""
        return observations if self.first else observations.movedim(-1, 1)

    def places(self, observations: Tensor, layer: Convolution) -> Tensor:
        """Return what a convolution sees: all its places, float32[B * places, size**2 * C]."""
        # One gather by known indices: a copy of overlapping windows moves a few pixels at a time,
        # and takes two to four times as long for small images.
        values = observations.reshape(len(observations), -1).float()
        seen = values.index_select(1, _seen(self, layer, values.device))
        rows = seen.view(-1, layer.size**2 * self.channels)
        return rows if self.scale == 1.0 else rows.mul_(self.scale)


@cache
def _seen(image: Image, layer: Convolution, device: torch.device) -> Tensor:
    """Return which values of an observation a convolution sees, int64[places * size**2 * C]."""
    shape = (image.height, image.width, image.channels)
    index = torch.arange(math.prod(shape), device=device).view(shape)
    if image.first:
        index = index.view(image.channels, image.height, image.width).movedim(0, -1)
    windows = index.unfold(0, layer.size, layer.stride).unfold(1, layer.size, layer.stride)
    return windows.movedim(2, -1).reshape(-1)  # [rows, columns, size, size, C]


class ConvNetwork(nn.Module):
    """A convolutional network from an image to the value of each action.

    Parameters
    ----------
    observation_space : gymnasium.spaces.Box
        Of three axes. The channels are first where that is the shortest axis, as in a stack of
        frames, else last. Of dtype uint8 it is divided by 255; other dtypes are taken as they are.
    num_actions : int
        A, at least 1.
    convolutions : sequence of Convolution
        At least one; each is followed by a ReLU.
    units : int
        Of the hidden layer after them, followed by a ReLU.
    dueling : bool
        As for :class:`QNetwork`.
    shared_bias : bool
        The last layer has one bias for all actions; not with ``dueling``.
    seed : int
        Fixes the initial weights; torch's global generator is left as it was.

    Raises
    ------
    ValueError
        The space is of another kind or too small for the convolutions, or both ``dueling`` and
        ``shared_bias`` are asked for.

    Examples
    --------
    >>> space = spaces.Box(0, 255, (4, 84, 84), "uint8")
    >>> network = ConvNetwork(space, num_actions=6, convolutions=[Convolution(8, 8, 4)], units=32)
    >>> network(torch.zeros(5, 4, 84, 84, dtype=torch.uint8)).shape
    torch.Size([5, 6])
    """

    def __init__(
        self,
        observation_space: spaces.Space,  # type: ignore[type-arg]
        num_actions: int,
        *,
        convolutions: Sequence[Convolution],
        units: int,
        dueling: bool = False,
        shared_bias: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        image = self._image = Image.of(observation_space)
        if num_actions < 1:
            raise ValueError(f"num_actions must be >= 1, got {num_actions}")
        if dueling and shared_bias:
            raise ValueError("shared_bias must be False with dueling, whose value is one for all")
        self.num_actions = num_actions
        self.dueling = dueling
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            for layer in convolutions:
                layers += [
                    nn.Conv2d(image.channels, layer.filters, layer.size, layer.stride),
                    nn.ReLU(inplace=True),
                ]
                image = image.after(layer)
            layers += [nn.Flatten(), nn.Linear(image.channels * image.pixels, units), nn.ReLU()]
            # A dueling head's first output is the state value, the rest are the advantages.
            last = _OneBias if shared_bias else nn.Linear
            layers.append(last(units, num_actions + int(dueling)))
            self.layers = nn.Sequential(*layers)

    def forward(self, observation: Tensor) -> Tensor:
        """Return the value of each action.

        Parameters
        ----------
        observation : any real dtype, [B, C, height, width] or [B, height, width, C]

        Returns
        -------
        float32[B, A]

        Examples
        --------
        >>> space = spaces.Box(0, 255, (84, 84, 4), "uint8")  # the channels may be last
        >>> network = ConvNetwork(space, 6, convolutions=[Convolution(8, 8, 4)], units=32)
        >>> images = torch.randint(256, (5, 84, 84, 4), dtype=torch.uint8)
        >>> bool((network(images) == network(images.float())).all())  # it divides by 255: do not
        True
        """
        images = self._image.channels_first(observation)
        if torch.is_grad_enabled():  # faster there, slower without a gradient
            images = images.contiguous(memory_format=torch.channels_last)
        first = self.layers[0]
        assert isinstance(first, nn.Conv2d)
        # Scaled filters in place of scaled pixels: one pass over the batch less.
        features = functional.conv2d(
            images.float(), first.weight * self._image.scale, first.bias, first.stride
        )
        features = self.layers[1:-1](features)
        # The last layer is always in full precision: actions differ in the third digit.
        with torch.autocast(features.device.type, enabled=False):
            return action_values(self.layers[-1](features.float()), self.dueling)


class Together(nn.Module):
    """All places of an image in one row."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self._inputs = inputs

    def forward(self, rows: Tensor) -> Tensor:
        """From [B * places, filters] to [B, places * filters]."""
        return rows.reshape(-1, self._inputs)


class _OneBias(nn.Linear):
    """A linear layer with one bias for all its outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        bias = self.bias.detach()[:1].clone()
        self.bias = nn.Parameter(bias)

    def forward(self, rows: Tensor) -> Tensor:
        return functional.linear(rows, self.weight) + self.bias


def action_values(outputs: Tensor, dueling: bool) -> Tensor:
    """Return the action values, float32[B, A], from what the last layer gives.

    With a dueling head these are a state value and A advantages, and the action values are
    ``value + advantage - mean(advantage)`` (Wang et al. 2016, equation 9).
    """
    if not dueling:
        return outputs
    value, advantage = outputs[:, :1], outputs[:, 1:]
    return value + advantage - advantage.mean(dim=1, keepdim=True)
