"""The agent: two networks, a replay memory, and the update that connects them.

Knows spaces, networks and the replay's batches; knows no environment and no training loop.
Axes: B batch, E environments, A actions.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor, nn

from prioritized_replay.dqn.devices import (
    Precision,
    check_precision,
    subnormal_as_zero,
    usable_device,
)
from prioritized_replay.dqn.fast.adam import FlatAdam
from prioritized_replay.dqn.fast.perceptron import Perceptron
from prioritized_replay.dqn.learner import AutogradPasses, Passes, PerceptronPasses
from prioritized_replay.dqn.networks import NetworkName, QNetwork, count_actions, make_network
from prioritized_replay.dqn.rmsprop import CentredRMSProp
from prioritized_replay.dqn.td import Loss, td_loss
from prioritized_replay.fields import arguments
from prioritized_replay.replay import Batch, ReplayBuffer
from prioritized_replay.schedules import constant, linear

Schedule = Callable[[int], float]
OptimizerName = Literal["adam", "rmsprop"]

_LEARNING_RATE = 5e-4
_EPS: dict[OptimizerName, float] = {"adam": 1e-8, "rmsprop": 0.01 / 32**2}
_LEARNT_FROM = ("obs", "action", "reward", "discount", "next_obs", "weights")


class DQN:
    """Deep Q-learning from prioritized replay, with a target network and optionally Double DQN.

    In a loop: :meth:`act`, step the environment, ``memory_buffer.add(...)``, :meth:`optimize`.
    Who wants the loop's inside too calls :meth:`learn` on batches of any origin instead of
    ``optimize``.

    Parameters
    ----------
    observation_space : gymnasium.spaces.Space
        Of one environment; a box or discrete unless ``online_network`` is given.
    action_space : gymnasium.spaces.Discrete
        Of one environment.
    memory_buffer : ReplayBuffer
        Where experience is kept. It owns gamma and n: its batches carry the discount.
    online_network : torch.nn.Module, optional
        From observations (B, ...) to action values (B, A). By default :func:`make_network` makes
        it from ``network``, ``hidden_sizes``, ``dueling``, ``shared_bias`` and ``seed``. An MLP or
        a small convolutional network made so is trained without autograd, in about half the time;
        it has to stay on ``device``.
    network : {"auto", "mlp", "nature", "light", "small"}
        What :func:`make_network` is to make; "auto" goes by the observation space.
    optimizer : {"adam", "rmsprop"} or torch.optim.Optimizer
        An object has the parameters of ``online_network``, which must then be given. "rmsprop" is
        that of the DQN papers: centred, decay 0.95.
    optimizer_eps : float, optional
        Added by "adam" to the root of its second moment, by "rmsprop" to its variance. By default
        1e-8 for "adam", 0.01 / 32**2 for "rmsprop".
    learning_rate : float or schedule of updates, optional
        Set before each update. By default an optimizer given as an object keeps its own, and the
        others have 5e-4.
    double : bool
        Double DQN: the online network picks the next action, the target network values it.
    loss : {"huber", "squared"}
        Loss of a td error.
    clip_td_errors : bool
        :meth:`optimize` takes td errors as within [-1, 1] for the priorities, as the huber loss
        does for the gradient.
    gradient_clip : float or None
        Largest norm of the gradient.
    tau : float or None
        Share of the online network that moves into the target network after each update.
    target_period : int
        Where ``tau`` is None: updates between full copies into the target network.
    batch_size : int
        B.
    beta : float or schedule of updates
        Exponent of the importance-sampling weights.
    epsilon : float or schedule of actions
        Chance of a random action, by the number of actions taken so far while exploring.
    warmup : int
        :meth:`optimize` does nothing while the memory holds fewer transitions.
    device : str or torch.device
        Where the networks live.
    precision : {"float32", "bfloat16"}
        Of the passes through the networks in an update. With bfloat16 matrix products and
        convolutions compute in it, by torch's autocast, which is faster for large networks.
        Parameters, targets and td errors are float32 in any case, and so is acting.
    seed : int
        Fixes the initial network and the exploration.

    Attributes
    ----------
    online_network, target_network : torch.nn.Module
    memory_buffer : ReplayBuffer
    optimizer : torch.optim.Optimizer
    epsilon : float
        In force now; :meth:`adjust_epsilon` brings it up to date.
    updates, actions : int
        Updates made, and actions taken while exploring: the clocks of the schedules.
    last_td_errors, last_weights : float32[B] tensors, or None
        Of the latest update, for those who log. Reading one from a GPU waits for the GPU.

    Raises
    ------
    ValueError
        A value is out of bounds, a space is of the wrong kind (a continuous action space, for
        example), the device cannot be used, or it has no bfloat16 arithmetic.

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
    """

    def __init__(
        self,
        observation_space: spaces.Space,  # type: ignore[type-arg]
        action_space: spaces.Space,  # type: ignore[type-arg]
        memory_buffer: ReplayBuffer,
        *,
        online_network: nn.Module | None = None,
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
        warmup: int = 1_000,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
        seed: int = 0,
    ) -> None:
        for name, count in (
            ("target_period", target_period),
            ("batch_size", batch_size),
            ("warmup", warmup),
        ):
            if count < 1:
                raise ValueError(f"{name} must be >= 1, got {count}")
        if tau is not None and not 0.0 < tau <= 1.0:
            raise ValueError(f"tau must be in (0, 1], got {tau}")
        if gradient_clip is not None and not gradient_clip > 0.0:
            raise ValueError(f"gradient_clip must be > 0, got {gradient_clip}")
        if loss not in get_args(Loss):
            raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}, got {loss!r}")
        if isinstance(optimizer, str):
            if optimizer not in get_args(OptimizerName):
                names = ", ".join(get_args(OptimizerName))
                raise ValueError(
                    f"optimizer must be one of {names}, or an Optimizer, got {optimizer!r}"
                )
        elif online_network is None:
            raise ValueError("optimizer needs the online_network whose parameters it holds")
        self._num_actions = count_actions(action_space)
        self._observation_shape = tuple(observation_space.shape or ())
        self._categories: tuple[int, int] | None = None  # the first and the last
        if isinstance(observation_space, spaces.Discrete):
            first = int(observation_space.start)
            self._categories = first, first + int(observation_space.n) - 1
        network_seed, explore_seed = np.random.SeedSequence(seed).spawn(2)
        self._generator = np.random.default_rng(explore_seed)
        self.device = usable_device(device)
        check_precision(precision, self.device)
        self.precision: Precision = precision
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
        online_network.to(self.device)
        target_network = copy.deepcopy(online_network).requires_grad_(False)
        self.online_network, self.target_network = online_network, target_network
        self._passes: Passes
        self._perceptron: Perceptron | None = None
        if own and precision == "float32" and isinstance(online_network, QNetwork):
            assert isinstance(target_network, QNetwork)
            self._passes = PerceptronPasses(online_network, target_network)
            self._perceptron = self._passes.online
        else:
            self._passes = AutogradPasses(online_network, target_network, self.device, precision)
        self.memory_buffer = memory_buffer
        self.double = double
        self.loss: Loss = loss
        self.gradient_clip = math.inf if gradient_clip is None else gradient_clip
        self.tau = tau
        self.target_period = target_period
        self.batch_size = batch_size
        self.warmup = warmup
        self.clip_td_errors = clip_td_errors
        if isinstance(optimizer, str):
            learning_rate = _LEARNING_RATE if learning_rate is None else learning_rate
            optimizer = self._make_optimizer(optimizer, optimizer_eps)
        self.optimizer = optimizer
        self._learning_rate = None if learning_rate is None else _schedule(learning_rate)
        self._beta = _schedule(beta)
        self._epsilon = _schedule(linear(1.0, 0.05, 10_000) if epsilon is None else epsilon)
        self.updates = 0
        self.actions = 0
        self.adjust_epsilon()
        self.last_td_errors: Tensor | None = None
        self.last_weights: Tensor | None = None

    def _make_optimizer(self, name: OptimizerName, eps: float | None) -> torch.optim.Optimizer:
        eps = _EPS[name] if eps is None else eps
        if name == "rmsprop":
            return CentredRMSProp(self._passes.parameters, lr=_LEARNING_RATE, eps=eps)
        if self._perceptron is not None and self.device.type == "cpu":
            return FlatAdam(self._perceptron.parameters, eps=eps)
        # One kernel for all parameters: a third of the time of the default loop.
        fused = self.device.type in ("cpu", "cuda")
        return torch.optim.Adam(self._passes.parameters, eps=eps, fused=fused)

    @property
    def gamma(self) -> float:
        """Discount of one step, as the memory applies it."""
        return self.memory_buffer.gamma

    @property
    def beta(self) -> float:
        """Exponent of the importance-sampling weights at the next update."""
        return self._beta(self.updates)

    @property
    def learning_rate(self) -> float:
        """Step size of the next update."""
        if self._learning_rate is not None:
            return self._learning_rate(self.updates)
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def last_loss(self) -> Tensor | None:
        """Loss of the latest update, from before it, or None: a float32[] tensor."""
        if self.last_td_errors is None or self.last_weights is None:
            return None
        return td_loss(self.last_td_errors, self.last_weights, self.loss)

    def act(self, obs: Any, *, greedy: bool = False) -> Any:
        """Choose an action, or one for each of E observations.

        Parameters
        ----------
        obs : array of the observation space's shape, or with a leading axis E
        greedy : bool
            Always the action of the highest value; nothing is counted or drawn.

        Returns
        -------
        int, or int64[E]

        Raises
        ------
        ValueError
            ``obs`` has another shape, or is not of numbers; nothing is counted or drawn then.
        """
        observations = self._observations(obs)
        axes = observations.ndim - len(self._observation_shape)
        if axes == 0:
            return self._act_once(observations, greedy)
        if greedy:
            return self._greedy(observations)
        rows = len(observations)
        self.actions += rows
        exploring = self._generator.random(rows) < self.epsilon
        actions = self._generator.integers(self._num_actions, size=rows)
        if not exploring.all():
            actions = np.where(exploring, actions, self._greedy(observations))
        return actions

    def _observations(self, obs: Any) -> npt.NDArray[Any]:
        """Return observations as torch takes them."""
        observations = arguments.as_array("obs", obs)
        shape, dtype = observations.shape, observations.dtype
        if shape != self._observation_shape and shape[1:] != self._observation_shape:
            raise ValueError(
                f"obs must have {len(self._observation_shape)} axes of shape "
                f"{self._observation_shape}, or one more for several environments, got {shape}"
            )
        if dtype.kind not in "biuf":
            raise ValueError(f"obs must be numeric, got dtype {dtype}")
        if self._categories is not None:
            first, last = self._categories
            for category in observations.reshape(-1).tolist():  # few: faster than by array
                if not first <= category <= last:
                    raise ValueError(f"obs must be in [{first}, {last}], got {category}")
        if observations.flags.carray and dtype.isnative and dtype.itemsize <= arguments.WIDEST:
            return observations
        dtype = (
            np.dtype(np.float64) if dtype.itemsize > arguments.WIDEST else dtype.newbyteorder("=")
        )
        return np.require(observations, dtype, arguments.FIT)

    def _act_once(self, observation: npt.NDArray[Any], greedy: bool) -> int:
        if not greedy:
            self.actions += 1
            if self._generator.random() < self.epsilon:
                # Faster than integers(); the bias, 2**-53 per action, is immaterial.
                return int(self._generator.random() * self._num_actions)
        if self._perceptron is not None and self.device.type == "cpu":
            return self._perceptron.best_action(observation)
        return int(self._greedy(observation[None])[0])

    def _greedy(self, observations: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        with torch.inference_mode():
            values = self.online_network(torch.from_numpy(observations).to(self.device))
            best: npt.NDArray[np.int64] = values.argmax(dim=1).cpu().numpy()
        return best

    def optimize(self) -> None:
        """Learn from one batch and write its priorities back; nothing before ``warmup``."""
        if len(self.memory_buffer) < self.warmup:
            return
        batch = self.memory_buffer.sample(self.batch_size, self.beta)
        errors = self.learn(batch)
        if self.clip_td_errors:
            errors = errors.clamp(-1.0, 1.0)
        self.memory_buffer.update_priorities(batch.ids, errors)
        self.adjust_epsilon()

    def adjust_epsilon(self) -> None:
        """Bring ``epsilon`` to its schedule's value for the actions taken so far."""
        self.epsilon = self._epsilon(self.actions)

    def learn(self, batch: Batch) -> Tensor:
        """Make one update from a batch, and move the target network.

        Parameters
        ----------
        batch : Batch
            As sampled, or already as tensors.

        Returns
        -------
        float32[B], on ``device``
            Signed td errors from before the update, not weighted: what
            ``memory_buffer.update_priorities(batch.ids, ...)`` wants.
        """
        if not isinstance(batch.obs, Tensor):
            batch = batch.to_torch(self.device, columns=_LEARNT_FROM)
        errors = self._passes.errors(batch, double=self.double, loss=self.loss)
        if self._learning_rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate(self.updates)
        self._clip_gradient()
        with subnormal_as_zero():
            if isinstance(self.optimizer, FlatAdam):
                self.optimizer.move()
            else:
                self.optimizer.step()
        self.updates += 1
        if self.tau is not None:
            self._passes.mix(self.tau)
        elif self.updates % self.target_period == 0:
            self._passes.mix(1.0)
        self.last_td_errors, self.last_weights = errors, batch.weights
        return errors

    def _clip_gradient(self) -> None:
        # torch's own function does the same in five times the time for networks this small.
        if self.gradient_clip == math.inf:
            return
        gradients = [p.grad for p in self._passes.parameters if p.grad is not None]
        norm = _norm(gradients)
        if norm > self.gradient_clip:
            scale = self.gradient_clip / norm
            for gradient in gradients:
                gradient.mul_(scale)

    def state_dict(self) -> dict[str, Any]:
        """Return everything learnt, counted and drawn; the memory is not in it.

        Tensors and plain values only: ``torch.load(file, weights_only=True)`` reads it back.
        """
        return {
            "online_network": self.online_network.state_dict(),
            "target_network": self.target_network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "actions": self.actions,
            "generator": self._generator.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave, in an agent made with the same settings.

        Raises
        ------
        ValueError, RuntimeError, KeyError, TypeError
            It is of an agent with other settings, or of none. This one is as it was.
        """
        for name in ("updates", "actions"):
            if type(state[name]) is not int or state[name] < 0:
                raise ValueError(f"{name} must be an integer >= 0, got {state[name]!r}")
        for name in ("online_network", "target_network"):
            # Rehearsed first: torch loads the tensors that fit before it raises.
            copy.deepcopy(self.online_network).load_state_dict(state[name])
        np.random.PCG64(0).state = state["generator"]
        self._rehearse(state["optimizer"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.online_network.load_state_dict(state["online_network"])
        self.target_network.load_state_dict(state["target_network"])
        self.updates = state["updates"]
        self.actions = state["actions"]
        self._generator.bit_generator.state = state["generator"]
        self.adjust_epsilon()

    def _rehearse(self, state: dict[str, Any]) -> None:
        """Let a copy of the optimizer make a step from a state: torch looks at it no earlier."""
        optimizer = copy.deepcopy(self.optimizer)
        try:
            optimizer.load_state_dict(copy.deepcopy(state))  # it takes tensors as they are
            parameters = [one for group in optimizer.param_groups for one in group["params"]]
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            if not all(parameter.isfinite().all() for parameter in parameters):
                raise ValueError("a step of it is not finite")
        except Exception as error:  # there is no telling of which kind
            said = " ".join(str(error).split())[:200]
            raise ValueError(f"the optimizer is another: {type(error).__name__}: {said}") from error


def _norm(gradients: Sequence[Tensor]) -> float:
    if len(gradients) == 1 and gradients[0].ndim == 1:  # a perceptron's
        return math.sqrt(float(torch.dot(gradients[0], gradients[0])))
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    return float(torch.linalg.vector_norm(torch.stack(norms)))


def _schedule(value: float | Schedule) -> Schedule:
    return value if callable(value) else constant(value)
