"""Networks that give every action a value.

Knows observation and action spaces; knows nothing of learning. Axes: B batch, A actions.
"""

import math
from collections.abc import Sequence
from typing import get_args

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from prioritized_replay.dqn.choices import NetworkName
from prioritized_replay.dqn.conversion import count_actions
from prioritized_replay.dqn.convolutions import (
    ConvNetwork,
    Convolution,
    Image,
    Together,
    action_values,
)

_CONVOLUTIONAL: dict[str, tuple[tuple[Convolution, ...], int]] = {
    # Mnih et al. 2015, and Mnih et al. 2013: a third of its arithmetic.
    "nature": ((Convolution(32, 8, 4), Convolution(64, 4, 2), Convolution(64, 3, 1)), 512),
    "light": ((Convolution(16, 8, 4), Convolution(32, 4, 2)), 256),
}
_SMALL = Convolution(16, 3, 1), (128,)  # Young and Tian 2019, for screens of 10x10


class QNetwork(nn.Module):
    """A multi-layer perceptron from an observation to the value of each action.

    With a ``convolution`` its first layer is the same for every place of an image: one product of
    matrices, of all places by all filters. That is fast where the image is small.

    Parameters
    ----------
    observation_space : gymnasium.spaces.Box or gymnasium.spaces.Discrete
        A box is flattened and taken as float32; a discrete observation becomes one-hot.
    num_actions : int
        A, at least 1.
    convolution : Convolution, optional
        Of an image, which is then as for :class:`ConvNetwork`; followed by a ReLU.
    hidden_sizes : sequence of int
        Units of each hidden layer, each followed by a ReLU; none gives a linear function.
    dueling : bool
        The head gives a state value and A advantages, and the action values are
        ``value + advantage - mean(advantage)`` (Wang et al. 2016, equation 9).
    seed : int
        Fixes the initial weights; torch's global generator is left as it was.

    Raises
    ------
    ValueError
        The observation space is of another kind, or a size is below 1.

    Examples
    --------
    >>> network = QNetwork(spaces.Box(-1.0, 1.0, (4,)), num_actions=2, hidden_sizes=(8,))
    >>> network(torch.zeros(5, 4)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        observation_space: spaces.Space,  # type: ignore[type-arg]
        num_actions: int,
        *,
        convolution: Convolution | None = None,
        hidden_sizes: Sequence[int] = (128, 128),
        dueling: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._categories, self._first = 0, 0
        self._convolution = convolution
        if convolution is not None:
            self._image = Image.of(observation_space)
            inputs = self._image.channels * convolution.size**2
        elif isinstance(observation_space, spaces.Box):
            inputs = math.prod(observation_space.shape)
        elif isinstance(observation_space, spaces.Discrete):
            inputs = self._categories = int(observation_space.n)
            self._first = int(observation_space.start)
        else:
            raise ValueError(f"observation_space must be Box or Discrete, got {observation_space}")
        if num_actions < 1:
            raise ValueError(f"num_actions must be >= 1, got {num_actions}")
        if any(width < 1 for width in hidden_sizes):
            raise ValueError(f"hidden_sizes must be >= 1, got {tuple(hidden_sizes)}")
        self.num_actions = num_actions
        self.dueling = dueling
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            if convolution is not None:
                layers += [nn.Linear(inputs, convolution.filters), nn.ReLU()]
                inputs = self._image.after(convolution).pixels * convolution.filters
                layers.append(Together(inputs))
            for width in hidden_sizes:
                layers += [nn.Linear(inputs, width), nn.ReLU()]
                inputs = width
            # A dueling head's first output is the state value, the rest are the advantages.
            layers.append(nn.Linear(inputs, num_actions + int(dueling)))
            self.layers = nn.Sequential(*layers)

    def forward(self, observation: Tensor) -> Tensor:
        """Return the value of each action.

        Parameters
        ----------
        observation : any real dtype, [B, ...] for a box, [B] for a discrete space

        Returns
        -------
        float32[B, A]

        Examples
        --------
        >>> network = QNetwork(spaces.Discrete(16), num_actions=4)
        >>> network(torch.tensor([0, 15])).shape  # numbers of states, not one-hot rows
        torch.Size([2, 4])
        >>> network(torch.tensor([15])).shape  # one observation is a batch of one
        torch.Size([1, 4])
        """
        return self.head(self.layers(self.rows(observation)))

    def rows(self, observation: Tensor) -> Tensor:
        """Return what the first layer takes, float32[B, inputs], or [B * places, inputs].

        Examples
        --------
        >>> network = QNetwork(spaces.Discrete(3, start=5), num_actions=2)
        >>> network.rows(torch.tensor([5, 7]))
        tensor([[1., 0., 0.],
                [0., 0., 1.]])
        """
        if self._convolution is not None:
            return self._image.places(observation, self._convolution)
        if self._categories:
            return functional.one_hot(observation.long() - self._first, self._categories).float()
        return observation.reshape(observation.shape[0], -1).float()

    def head(self, outputs: Tensor) -> Tensor:
        """Return the action values, float32[B, A], from what the last layer gives.

        Examples
        --------
        >>> network = QNetwork(spaces.Discrete(3), num_actions=2, dueling=True)
        >>> network.head(torch.tensor([[10.0, 1.0, 3.0]]))  # a state value of 10, two advantages
        tensor([[ 9., 11.]])
        """
        return action_values(outputs, self.dueling)


def make_network(
    observation_space: spaces.Space,  # type: ignore[type-arg]
    action_space: spaces.Space,  # type: ignore[type-arg]
    *,
    network: NetworkName = "auto",
    hidden_sizes: Sequence[int] = (128, 128),
    dueling: bool = False,
    shared_bias: bool = False,
    seed: int = 0,
) -> QNetwork | ConvNetwork:
    """Return the network that fits an environment's spaces.

    Parameters
    ----------
    network : {"auto", "mlp", "nature", "light", "small"}
        ``"mlp"`` is a :class:`QNetwork`, the others are convolutional: that of Mnih et al. 2015,
        the smaller one of 2013, and one for screens of 10x10 pixels. ``"auto"`` takes ``"nature"``
        for images of 36x36 pixels or more, ``"small"`` for smaller ones, else ``"mlp"``.
    hidden_sizes : sequence of int
        Of ``"mlp"``.
    dueling : bool
        As for :class:`QNetwork`.
    shared_bias : bool
        One bias for all actions, as in the paper's networks; for ``"nature"`` and ``"light"``.
    seed : int
        Fixes the initial weights; torch's global generator is left as it was.

    Raises
    ------
    ValueError
        The action space is not Discrete (a continuous one, for example), or no network, or not the
        named one, fits the observation space.

    Examples
    --------
    >>> make_network(spaces.Discrete(16), spaces.Discrete(4)).num_actions
    4
    >>> make_network(spaces.Discrete(16), spaces.MultiBinary(3))
    Traceback (most recent call last):
        ...
    ValueError: action_space must be Discrete: DQN needs numbered actions, got MultiBinary(3)
    """
    if network not in get_args(NetworkName):
        choices = ", ".join(get_args(NetworkName))
        raise ValueError(f"network must be one of {choices}, got {network!r}")
    num_actions = count_actions(action_space)
    name = _fitting(observation_space) if network == "auto" else network
    if shared_bias and name not in _CONVOLUTIONAL:
        raise ValueError(f"shared_bias must be False for the network {name}, got True")
    if name == "mlp":
        return QNetwork(
            observation_space, num_actions, hidden_sizes=hidden_sizes, dueling=dueling, seed=seed
        )
    if name == "small":
        convolution, hidden_sizes = _SMALL
        return QNetwork(
            observation_space,
            num_actions,
            convolution=convolution,
            hidden_sizes=hidden_sizes,
            dueling=dueling,
            seed=seed,
        )
    convolutions, units = _CONVOLUTIONAL[name]
    return ConvNetwork(
        observation_space,
        num_actions,
        convolutions=convolutions,
        units=units,
        dueling=dueling,
        shared_bias=shared_bias,
        seed=seed,
    )


def _fitting(space: spaces.Space) -> str:  # type: ignore[type-arg]
    if isinstance(space, spaces.Discrete):
        return "mlp"
    if isinstance(space, spaces.Box):
        if len(space.shape) < 3:
            return "mlp"
        if len(space.shape) == 3:
            image = Image.of(space)
            if min(image.height, image.width) >= 36:
                return "nature"
            if min(image.height, image.width) >= 3:
                return "small"
    raise ValueError(
        "observation_space must be Box or Discrete, a Box of one or two axes or of images of 3x3 "
        f"pixels or more, got {space}"
    )
