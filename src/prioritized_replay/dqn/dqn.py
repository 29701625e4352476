"""The agent that users make: its options, how it acts, and what a checkpoint holds of it.

How it learns is in ``agent.py``. Knows spaces, networks and the replay buffer; knows no environment
and no training loop. Axes: B batch, E environments, A actions.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from prioritized_replay.dqn.agent import Agent
from prioritized_replay.dqn.checks import (
    Schedule,
    check_memory,
    check_network,
    check_numbers,
    check_unused,
    checked_schedule,
)
from prioritized_replay.dqn.choices import Loss, NetworkName, OptimizerName, Precision
from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.dqn.devices import check_precision, usable_device
from prioritized_replay.dqn.fast.learner import make_learner
from prioritized_replay.dqn.networks import make_network
from prioritized_replay.dqn.optimizers import LEARNING_RATE, check_optimizer
from prioritized_replay.dqn.states import check_agent_state, is_finite
from prioritized_replay.dqn.td import td_loss
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.schedules import linear

_WARMUP = 1_000


class DQN(Agent):
    """Deep Q-learning from prioritized replay, with a target network and optionally Double DQN.

    A loop calls ``act``, steps the environment, calls ``memory_buffer.add(...)`` and
    ``optimize``. A loop that draws batches itself calls ``learn`` instead.

    Parameters
    ----------
    observation_space, action_space : gymnasium.spaces.Space, gymnasium.spaces.Discrete
        Of one environment. Dict and Tuple observations need an ``online_network``.
    memory_buffer : ReplayBuffer
        Holds the experience, gamma and n: its batches carry the discount.
    online_network : torch.nn.Module, optional
        From observations (B, ...), see ``Conversion``, to
        action values (B, A). It learns in training mode; greedy actions and targets use evaluation
        mode. By default :func:`make_network` makes one.
    noisy : bool
        For networks that explore by noise of their own: exploring and targets use training mode
        too, and ``reset_noise()``, if the network has it, is called before each. Set ``epsilon=0``.
    network, hidden_sizes, dueling, shared_bias
        Of the network that :func:`make_network` makes.
    optimizer : {"adam", "rmsprop"} or torch.optim.Optimizer
        An object must hold the parameters of ``online_network``. "rmsprop" is that of the DQN
        papers: centred, decay 0.95.
    optimizer_eps : float, optional
        Added by "adam" to the root of its second moment, by "rmsprop" to its variance. By default
        1e-8 for "adam", 0.01 / 32**2 for "rmsprop".
    learning_rate : float or schedule of updates, optional
        By default 5e-4; an optimizer given as an object keeps its own.
    double : bool
        Double DQN: the online network picks the next action, the target network values it.
    loss : {"huber", "squared"}
        Loss of a td error.
    clip_td_errors : bool
        Clip td errors to [-1, 1] for the priorities, as the huber loss does for the gradient.
    gradient_clip : float or None
        Largest norm of the gradient.
    tau : float or None
        Share of the online network that moves into the target network after each update.
    target_period : int
        Without ``tau``: updates between full copies into the target network.
    batch_size : int
        B.
    beta : float or schedule of updates
        Exponent of the importance-sampling weights, in [0, 1].
    epsilon : float or schedule of exploring actions, optional
        Chance of a random action. By default it falls from 1 to 0.05 in 10,000 actions.
    warmup : int, optional
        ``optimize`` does nothing while the buffer holds fewer transitions. By default 1,000.
    device : str or torch.device
        Where the networks live.
    precision : {"float32", "bfloat16"}
        Of matrix products and convolutions in an update. Parameters and td errors are float32.
    seed : int
        Fixes the initial network and the exploration.

    Attributes
    ----------
    online_network, target_network, memory_buffer, optimizer
    epsilon : float
        In force now; ``adjust_epsilon`` brings it up to date.
    updates, actions : int
        Updates made and exploring actions taken: the clocks of the schedules.
    last_td_errors, last_weights : float32[B] tensors, or None
        Of the latest update.

    Raises
    ------
    ValueError
        A value is out of bounds, the device cannot be used, or the spaces, buffer, network and
        optimizer do not fit each other.

    Notes
    -----
    ``optimize`` and ``learn`` may be interrupted (Ctrl-C). The next call of any method that
    learns or saves first finishes the update or takes it back, so that network, target network,
    counters and priorities are of one moment. Where the optimizer's own step was interrupted,
    which only the default networks survive, ``state_dict`` raises RuntimeError.

    Examples
    --------
    >>> import prioritized_replay as per
    >>> observation_space, action_space = spaces.Box(-1.0, 1.0, (4,)), spaces.Discrete(2)
    >>> memory = per.ReplayBuffer.for_spaces(observation_space, action_space, 1_000, seed=0)
    >>> agent = DQN(observation_space, action_space, memory, warmup=32, batch_size=32, seed=0)
    >>> for _ in range(40):
    ...     obs = observation_space.sample()
    ...     _ = memory.add(obs, agent.act(obs), 1.0, obs, terminated=True)
    ...     agent.optimize()
    >>> agent.updates
    9

    With a batch of one's own, priorities are given back by hand, and ``epsilon`` follows its
    schedule when it is told to.

    >>> batch = memory.sample(32, beta=0.5)
    >>> td_errors = agent.learn(batch)
    >>> memory.update_priorities(batch.ids, td_errors), agent.updates
    (32, 10)
    >>> agent.adjust_epsilon()
    """

    def __init__(
        self,
        observation_space: spaces.Space,  # type: ignore[type-arg]
        action_space: spaces.Space,  # type: ignore[type-arg]
        memory_buffer: ReplayBuffer,
        *,
        online_network: nn.Module | None = None,
        noisy: bool = False,
        network: NetworkName = "auto",
        hidden_sizes: Sequence[int] = (128, 128),
        dueling: bool = False,
        shared_bias: bool = False,
        optimizer: torch.optim.Optimizer | OptimizerName = "adam",
        optimizer_eps: float | None = None,
        learning_rate: float | Schedule | None = None,
        double: bool = True,
        loss: Loss = "huber",
        clip_td_errors: bool = False,
        gradient_clip: float | None = 10.0,
        tau: float | None = None,
        target_period: int = 500,
        batch_size: int = 64,
        beta: float | Schedule = 1.0,
        epsilon: float | Schedule | None = None,
        warmup: int | None = None,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
        seed: int = 0,
    ) -> None:
        check_numbers(
            batch_size=batch_size,
            target_period=target_period,
            warmup=_WARMUP if warmup is None else warmup,
            seed=seed,
            tau=tau,
            gradient_clip=gradient_clip,
            optimizer_eps=optimizer_eps,
            loss=loss,
        )
        check_optimizer(optimizer, online_network, optimizer_eps)
        check_unused(
            online_network,
            network=(network, "auto"),
            hidden_sizes=(tuple(hidden_sizes), (128, 128)),
            dueling=(dueling, False),
            shared_bias=(shared_bias, False),
        )
        if online_network is None and noisy:
            raise ValueError("noisy needs an online_network that has noise")
        conversion = Conversion(observation_space, action_space)
        check_memory(memory_buffer, conversion, batch_size, warmup)
        place = usable_device(device)
        check_precision(precision, place)
        beta = checked_schedule("beta", beta, 1.0)
        epsilon = checked_schedule(
            "epsilon", linear(1.0, 0.05, 10_000) if epsilon is None else epsilon, 1.0
        )
        if learning_rate is None and isinstance(optimizer, str):
            learning_rate = LEARNING_RATE
        if learning_rate is not None:
            learning_rate = checked_schedule("learning_rate", learning_rate, zero=False)
        network_seed, explore_seed = np.random.SeedSequence(seed).spawn(2)
        own = online_network is None
        if online_network is None:
            online_network = make_network(
                observation_space,
                action_space,
                network=network,
                hidden_sizes=hidden_sizes,
                dueling=dueling,
                shared_bias=shared_bias,
                seed=int(network_seed.generate_state(1)[0]),
            )
            online_network.to(place)
        else:
            check_network(online_network, conversion, place)
        target_network = copy.deepcopy(online_network).requires_grad_(False).train(noisy)
        learner = make_learner(
            online_network,
            target_network,
            optimizer,
            optimizer_eps,
            conversion,
            own=own,
            device=place,
            precision=precision,
            double=double,
            loss=loss,
            gradient_clip=math.inf if gradient_clip is None else gradient_clip,
            noisy=noisy,
        )
        super().__init__(
            learner,
            conversion,
            memory_buffer,
            learning_rate=learning_rate,
            beta=beta,
            epsilon=epsilon,
            clip_td_errors=clip_td_errors,
            tau=tau,
            target_period=target_period,
            batch_size=batch_size,
            warmup=_WARMUP if warmup is None else warmup,
            device=place,
        )
        self.online_network, self.target_network = online_network, target_network
        self.precision: Precision = precision
        self._double, self._loss = double, loss
        self._gradient_clip = math.inf if gradient_clip is None else gradient_clip
        self._generator = np.random.default_rng(explore_seed)

    @property
    def gamma(self) -> float:
        """Discount of one step, as the buffer applies it."""
        return self.memory_buffer.gamma

    @property
    def double(self) -> bool:
        """Whether the targets are those of Double DQN."""
        return self._double

    @property
    def loss(self) -> Loss:
        """Loss of a td error."""
        return self._loss

    @property
    def gradient_clip(self) -> float:
        """Largest norm of the gradient; infinite without a bound."""
        return self._gradient_clip

    @property
    def last_loss(self) -> Tensor | None:
        """Loss of the latest update, from before its step: a float32[] tensor, or None."""
        if self.last_td_errors is None or self.last_weights is None:
            return None
        return td_loss(self.last_td_errors, self.last_weights, self._loss)

    @property
    def interrupted(self) -> bool:
        """Whether an interruption left the optimizer's step perhaps half made."""
        half = self._open is not None and not self._open.stepped
        return self._loading or (half and self._learner.stepped() is None)

    def act(self, obs: Any, *, greedy: bool = False) -> Any:
        """Choose an action, or one for each of E observations.

        Parameters
        ----------
        obs : array, or nested arrays as the space is nested, perhaps with a leading axis E
        greedy : bool
            Always the action of the highest value; nothing is counted or drawn.

        Returns
        -------
        int, or int64[E]
            Actions of the action space, whose ``start`` counts.

        Raises
        ------
        ValueError
            ``obs`` does not fit the observation space; nothing is counted or drawn.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> observation_space, action_space = spaces.Box(-1.0, 1.0, (4,)), spaces.Discrete(2)
        >>> memory = per.ReplayBuffer.for_spaces(observation_space, action_space, 1_000, seed=0)
        >>> agent = DQN(observation_space, action_space, memory, seed=0)
        >>> agent.act(np.zeros((3, 4))).shape, agent.actions  # one for each of 3 environments
        ((3,), 3)
        >>> action = agent.act(np.zeros(4), greedy=True)  # to evaluate: not counted, nothing drawn
        >>> action_space.contains(action), agent.actions
        (True, 3)
        """
        observations, single = self._conversion.observations(obs)
        first, count = self._conversion.first_action, self._conversion.num_actions
        if single:
            if not greedy:
                self.actions += 1
                if self._generator.random() < self.epsilon:
                    # Faster than integers(); the bias, 2**-53 per action, is immaterial.
                    return first + int(self._generator.random() * count)
            return first + int(self._learner.best_actions(observations, explore=not greedy)[0])
        if greedy:
            return first + self._learner.best_actions(observations, explore=False)
        rows = self._conversion.rows(observations)
        self.actions += rows
        exploring = self._generator.random(rows) < self.epsilon
        actions = self._generator.integers(count, size=rows)
        if not exploring.all():
            best = self._learner.best_actions(observations, explore=True)
            actions = np.where(exploring, actions, best)
        return first + actions

    def is_finite(self) -> bool:
        """Return whether every number of both networks is finite: whether they are worth saving.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> observation_space, action_space = spaces.Box(-1.0, 1.0, (4,)), spaces.Discrete(2)
        >>> memory = per.ReplayBuffer.for_spaces(observation_space, action_space, 1_000, seed=0)
        >>> agent = DQN(observation_space, action_space, memory, seed=0)
        >>> agent.is_finite()
        True
        >>> with torch.no_grad():
        ...     _ = agent.target_network.layers[0].weight.fill_(math.nan)
        >>> agent.is_finite()  # the target network counts as well
        False
        """
        return is_finite(self.online_network) and is_finite(self.target_network)

    def state_dict(self) -> dict[str, Any]:
        """Return everything learnt, counted and drawn; the buffer is not in it.

        Take it before ``memory_buffer.save``: it first finishes an interrupted update, priorities
        included. ``torch.load(file, weights_only=True)`` reads it back.

        Raises
        ------
        RuntimeError
            The agent is of two moments, see :attr:`interrupted`.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> observation_space, action_space = spaces.Box(-1.0, 1.0, (4,)), spaces.Discrete(2)
        >>> memory = per.ReplayBuffer.for_spaces(observation_space, action_space, 1_000, seed=0)
        >>> agent = DQN(observation_space, action_space, memory, seed=0)
        >>> list(agent.state_dict())
        ['online_network', 'target_network', 'optimizer', 'updates', 'actions', 'generator']
        >>> state = copy.deepcopy(agent.state_dict())  # its tensors are the network's own
        """
        self._finish(go_on=False)
        return {
            "online_network": self.online_network.state_dict(),
            "target_network": self.target_network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "actions": self.actions,
            "generator": self._generator.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave, in an agent made with the same settings.

        Raises
        ------
        ValueError, RuntimeError, KeyError, TypeError
            It is of an agent with other settings, or of none. This agent is unchanged.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> observation_space, action_space = spaces.Box(-1.0, 1.0, (4,)), spaces.Discrete(2)
        >>> memory = per.ReplayBuffer.for_spaces(observation_space, action_space, 1_000, seed=0)
        >>> agent = DQN(observation_space, action_space, memory, seed=0)
        >>> actions = agent.act(np.zeros((3, 4)))
        >>> again = DQN(observation_space, action_space, memory, seed=1)
        >>> again.load_state_dict(agent.state_dict())  # not the replay, which has its own `load`
        >>> again.actions, bool((again.act(np.zeros((9, 4))) == agent.act(np.zeros((9, 4)))).all())
        (3, True)
        """
        check_agent_state(state, self.online_network, self.optimizer)
        self._loading = True
        self.optimizer.load_state_dict(state["optimizer"])
        self.online_network.load_state_dict(state["online_network"])
        self.target_network.load_state_dict(state["target_network"])
        self.updates, self.actions = state["updates"], state["actions"]
        self._generator.bit_generator.state = state["generator"]
        self.adjust_epsilon()
        self._open, self._loading = None, False
