"""The settings of a training run: one frozen dataclass, with the bounds of each field beside it.

Knows names, bounds and defaults; imports neither torch, Gymnasium nor the replay.
"""

import dataclasses
import difflib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from prioritized_replay.dqn.choices import Loss, NetworkName, OptimizerName, Precision
from prioritized_replay.training.bounds import Within, kinds_of

Replay = Literal["rank", "proportional", "uniform"]

# (alpha, beta at the start) of the paper, table 3; None stands for these.
_PAPER: dict[str, tuple[float, float]] = {
    "rank": (0.7, 0.5),
    "proportional": (0.6, 0.4),
    "uniform": (0.0, 0.0),
}

LARGEST_SEED = 2**63 - 1
MOST_EPISODES = 1_000_000
MOST_EPISODE_STEPS = 100_000_000
MOST_WEIGHTS = 1 << 28
"""Weights between the hidden layers of an mlp: 1 GiB, and five times that with its optimizer."""
_MOST_STEPS = 10**12
_MOST_LAYERS = 100


_SHARE = Within(0, 1)
_POSITIVE = Within(0, 1e6, open_below=True)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The fields of :class:`TrainConfig` with their bounds and defaults, not checked."""

    env_id: str
    """Gymnasium environment, for example CartPole-v1."""

    replay: Replay = "rank"
    """Draw transitions by the rank of their td error, in proportion to it, or uniformly."""

    steps: Annotated[int, Within(1, _MOST_STEPS)] = 200_000
    """Environment steps of the whole run."""

    seed: Annotated[int, Within(0, LARGEST_SEED)] = 0
    """Fixes every random choice: network, exploration, environment, replay, evaluation."""

    alpha: Annotated[float | None, Within(0, 100)] = None
    """How much priorities count in the draw, 0 not at all; None: 0.7 (rank), 0.6 (proportional)."""

    beta_start: Annotated[float | None, _SHARE] = None
    """Share of the bias that the weights undo at first; None: 0.5 (rank), 0.4 (proportional)."""

    beta_end: Annotated[float, _SHARE] = 1.0
    """Share of the bias that the weights undo at the last update; 1 is all of it."""

    priority_eps: Annotated[float, Within(0, 1e6)] = 0.01
    """Added to abs(td error) so that no transition is lost; proportional replay only."""

    min_priority: Annotated[float, Within(0, 1e6)] = 0.0
    """Least priority of a transition, 0 for none; proportional replay only. LAP has 1."""

    n_step: Annotated[int, Within(1, 1_000)] = 3
    """Rewards summed before the value of the observation that follows is trusted."""

    gamma: Annotated[float, _SHARE] = 0.99
    """Discount of one environment step."""

    capacity: Annotated[int, Within(1, 1_000_000_000)] = 100_000
    """Transitions kept; the oldest are overwritten."""

    batch_size: Annotated[int, Within(1, 1_000_000)] = 64
    """Transitions of one update."""

    network: NetworkName = "auto"
    """nature, light (a third of its work), small (for 10x10 pixels), mlp; auto: what fits."""

    hidden_sizes: Annotated[tuple[int, ...], Within(1, 65_536)] = (128, 128)
    """Units of each hidden layer of an mlp."""

    dueling: bool = False
    """Split the network's head into a state value and mean-centred advantages."""

    shared_bias: bool = False
    """One bias for all actions in the last layer of nature or light."""

    double: bool = True
    """Double DQN: the online network picks the next action, the target network values it."""

    loss: Loss = "huber"
    """Loss of a td error: huber (linear beyond 1) or squared."""

    clip_rewards: bool = False
    """Learn from rewards clipped to [-1, 1]; evaluations and returns count them as they are."""

    clip_td_errors: bool = False
    """Priorities from td errors clipped to [-1, 1], as the huber loss clips the gradient."""

    optimizer: OptimizerName = "adam"
    """adam, or the rmsprop of the DQN papers: centred, decay 0.95, eps under the root."""

    optimizer_eps: Annotated[float | None, _POSITIVE] = None
    """Keeps the optimizer from dividing by 0; None: 1e-8 (adam), 0.01 / 32**2 (rmsprop)."""

    learning_rate: Annotated[float, _POSITIVE] = 5e-4
    """Step size of the optimizer at the first update."""

    learning_rate_end: Annotated[float, Within(0, 1e6)] = 5e-5
    """Step size of the optimizer at the last update; falls linearly in between."""

    gradient_clip: Annotated[float | None, Within(0, 1e9, open_below=True)] = 10.0
    """Largest norm of the gradient; None leaves it as it is."""

    tau: Annotated[float | None, Within(0, 1, open_below=True)] = 0.01
    """Share of the online network mixed into the target after each update; None: full copies."""

    target_period: Annotated[int, Within(1, _MOST_STEPS)] = 500
    """Updates between full copies into the target network; used where tau is None."""

    train_every: Annotated[int, Within(1, _MOST_STEPS)] = 4
    """Environment steps between trainings."""

    updates_per_train: Annotated[int, Within(1, 1_000)] = 1
    """Updates of each training."""

    warmup: Annotated[int, Within(1, 1_000_000_000)] = 1_000
    """Transitions in memory before the first update."""

    epsilon_start: Annotated[float, _SHARE] = 1.0
    """Chance of a random action at first."""

    epsilon_end: Annotated[float, _SHARE] = 0.02
    """Chance of a random action once exploration has fallen."""

    epsilon_fraction: Annotated[float, _SHARE] = 0.15
    """Part of the run over which that chance falls, linearly."""

    eval_every: Annotated[int, Within(1, _MOST_STEPS)] = 10_000
    """Environment steps between the evaluations that pick the best model."""

    eval_episodes: Annotated[int, Within(1, MOST_EPISODES)] = 10
    """Episodes of each of these evaluations."""

    final_eval_episodes: Annotated[int, Within(1, MOST_EPISODES)] = 100
    """Episodes of the evaluation that is reported, with seeds of its own."""

    eval_epsilon: Annotated[float, _SHARE] = 0.0
    """Chance of a random action in every evaluation."""

    eval_max_steps: Annotated[int | None, Within(1, MOST_EPISODE_STEPS)] = None
    """Steps that cut off an episode of an evaluation; None: the environment's limit, or 1000."""

    envs: Annotated[int, Within(1, 4_096)] = 1
    """Environments stepped side by side; every count of steps is of all of them together."""

    sticky_actions: Annotated[float | None, _SHARE] = None
    """ALE and MinAtar: chance that an action is replaced by the one before; None: its own."""

    end_on_life_loss: bool = False
    """ALE: learn as if a lost life ended the episode; returns are of whole games all the same."""

    device: str = "cpu"
    """Where the networks live: cpu, cuda, cuda:1, mps."""

    precision: Precision = "float32"
    """Of an update's passes: bfloat16 speeds up large networks where the device has it."""

    threads: Annotated[int, Within(1, 1_024)] = 1
    """Threads of torch on the CPU; small networks are fastest with one."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainSettings):
    """Every setting of one training run; a run is a function of this and nothing else.

    The defaults are a fair start for an environment with a vector of numbers as observation;
    :func:`~prioritized_replay.training.preset` gives the tuned values where there are any.

    Raises
    ------
    ValueError
        A value is out of bounds; the message names the field, the bound and the value.
    TypeError
        A value is of the wrong kind, for example a text where a number belongs.

    Examples
    --------
    >>> config = TrainConfig(env_id="CartPole-v1", replay="proportional")
    >>> config.effective_alpha, config.effective_beta_start
    (0.6, 0.4)
    >>> TrainConfig(env_id="CartPole-v1", gamma=1.5)
    Traceback (most recent call last):
        ...
    ValueError: gamma must be in [0, 1], got 1.5
    """

    def __post_init__(self) -> None:
        for field, (kind, within, optional) in kinds_of(TrainSettings).items():
            value = getattr(self, field)
            if value is None and optional:
                continue
            if field == "hidden_sizes":
                self._check_hidden_sizes(within)
            elif within is not None:
                within.check(field, value, kind)
            elif kind is bool:
                if not isinstance(value, bool):
                    raise TypeError(f"{field} must be True or False, got {value!r}")
            elif kind is str:
                if not isinstance(value, str) or not value:
                    raise ValueError(f"{field} must be a non-empty text, got {value!r}")
            elif value not in get_args(kind):
                choices = ", ".join(get_args(kind))
                raise ValueError(f"{field} must be one of {choices}, got {value!r}")
        if self.warmup > self.capacity:
            raise ValueError(f"warmup must be <= capacity ({self.capacity}), got {self.warmup}")

    def _check_hidden_sizes(self, within: Within | None) -> None:
        sizes = self.hidden_sizes
        if not isinstance(sizes, tuple):
            raise TypeError(f"hidden_sizes must be a tuple, got {sizes!r}")
        if len(sizes) > _MOST_LAYERS:
            raise ValueError(
                f"hidden_sizes must have at most {_MOST_LAYERS} layers, got {len(sizes)}"
            )
        assert within is not None
        for size in sizes:
            within.check("hidden_sizes", size, int)
        weights = sum(before * after for before, after in itertools.pairwise(sizes))
        if weights > MOST_WEIGHTS:
            raise ValueError(
                f"hidden_sizes must have at most {MOST_WEIGHTS:,} weights in between, "
                f"got {weights:,}"
            )

    @property
    def effective_alpha(self) -> float:
        """The exponent in force: ``alpha``, or the paper's for this replay where that is None."""
        if self.alpha is None or self.replay == "uniform":
            return _PAPER[self.replay][0]
        return self.alpha

    @property
    def effective_beta_start(self) -> float:
        """The first beta in force: ``beta_start``, or the paper's where that is None."""
        if self.beta_start is None or self.replay == "uniform":
            return _PAPER[self.replay][1]
        return self.beta_start

    @property
    def total_updates(self) -> int:
        """Updates of the whole run, the clock of beta and of the step size.

        With ``n_step`` > 1 a few less may happen: a window enters the memory when it is complete.
        """
        trainings = self.steps // self.train_every - (self.warmup - 1) // self.train_every
        return max(1, trainings * self.updates_per_train)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values only, fit for JSON; :meth:`from_dict` takes them back.

        Examples
        --------
        >>> config = TrainConfig(env_id="CartPole-v1", replay="proportional")
        >>> values = config.to_dict()
        >>> values["hidden_sizes"], values["alpha"]  # as given: None stands for the paper's
        ([128, 128], None)
        """
        values = dataclasses.asdict(self)
        values["hidden_sizes"] = list(self.hidden_sizes)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Make a configuration from what :meth:`to_dict` gave.

        Raises
        ------
        ValueError
            A name is unknown (near names are given) or a value is out of bounds.

        Examples
        --------
        >>> import json
        >>> config = TrainConfig(env_id="CartPole-v1", hidden_sizes=(64,))
        >>> TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        True
        >>> TrainConfig.from_dict({"env_id": "CartPole-v1", "batchsize": 32})
        Traceback (most recent call last):
        ValueError: unknown setting 'batchsize'; near names: batch_size
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise ValueError(f"unknown setting {name!r}{_near(name, known)}")
        if "env_id" not in values:
            raise ValueError("env_id is missing")
        sizes = values.get("hidden_sizes")
        if isinstance(sizes, list):
            values = {**values, "hidden_sizes": tuple(sizes)}
        return cls(**values)


def _near(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=3)
    return f"; near names: {', '.join(near)}" if near else ""
