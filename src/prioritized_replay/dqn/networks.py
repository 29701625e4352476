"""Networks that give every action a value.

Knows observation and action spaces; knows nothing of learning. Axes: B batch, A actions.
"""

import math
from collections.abc import Sequence

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional


class QNetwork(nn.Module):
    """A multi-layer perceptron from an observation to the value of each action.

    Parameters
    ----------
    observation_space : gymnasium.spaces.Box or gymnasium.spaces.Discrete
        A box is flattened and taken as float32; a discrete observation becomes one-hot.
    num_actions : int
        A, at least 1.
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
        hidden_sizes: Sequence[int] = (128, 128),
        dueling: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._categories, self._first = 0, 0
        if isinstance(observation_space, spaces.Box):
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
        """
        return self.head(self.layers(self.rows(observation)))

    def rows(self, observation: Tensor) -> Tensor:
        """Return what the first layer takes, float32[B, inputs]."""
        if self._categories:
            return functional.one_hot(observation.long() - self._first, self._categories).float()
        return observation.reshape(observation.shape[0], -1).float()

    def head(self, outputs: Tensor) -> Tensor:
        """Return the action values, float32[B, A], from what the last layer gives."""
        if not self.dueling:
            return outputs
        value, advantage = outputs[:, :1], outputs[:, 1:]
        return value + advantage - advantage.mean(dim=1, keepdim=True)


def make_network(
    observation_space: spaces.Space,  # type: ignore[type-arg]
    action_space: spaces.Space,  # type: ignore[type-arg]
    *,
    hidden_sizes: Sequence[int] = (128, 128),
    dueling: bool = False,
    seed: int = 0,
) -> QNetwork:
    """Return the network that fits an environment's spaces.

    Raises
    ------
    ValueError
        The action space is not a list of numbered actions (a continuous one, for example), or the
        observation space is neither a box nor discrete.

    Examples
    --------
    >>> make_network(spaces.Discrete(16), spaces.Discrete(4)).num_actions
    4
    >>> make_network(spaces.Discrete(16), spaces.MultiBinary(3))
    Traceback (most recent call last):
        ...
    ValueError: action_space must be Discrete: DQN needs numbered actions, got MultiBinary(3)
    """
    return QNetwork(
        observation_space,
        count_actions(action_space),
        hidden_sizes=hidden_sizes,
        dueling=dueling,
        seed=seed,
    )


def count_actions(action_space: spaces.Space) -> int:  # type: ignore[type-arg]
    """Return A, the number of actions.

    Raises
    ------
    ValueError
        The actions are not numbered from 0.
    """
    if not isinstance(action_space, spaces.Discrete):
        raise ValueError(
            f"action_space must be Discrete: DQN needs numbered actions, got {action_space}"
        )
    if action_space.start != 0:
        raise ValueError(f"action_space must start at 0, got {action_space}")
    return int(action_space.n)
