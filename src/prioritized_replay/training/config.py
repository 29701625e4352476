"""What a training run is told: one frozen dataclass and its checks.

Knows names, bounds and defaults; knows nothing of torch, Gymnasium or the replay.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Replay = Literal["rank", "proportional", "uniform"]
Loss = Literal["huber", "squared"]
Precision = Literal["float32", "bfloat16"]
Network = Literal["auto", "mlp", "nature", "light", "small"]
Optimizer = Literal["adam", "rmsprop"]

# (alpha, beta at the start) of the paper, table 3; None stands for these.
_PAPER: dict[str, tuple[float, float]] = {
    "rank": (0.7, 0.5),
    "proportional": (0.6, 0.4),
    "uniform": (0.0, 0.0),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
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

    env_id: str
    """Gymnasium environment, for example CartPole-v1."""

    replay: Replay = "rank"
    """Draw transitions by the rank of their td error, in proportion to it, or uniformly."""

    steps: int = 200_000
    """Environment steps of the whole run."""

    seed: int = 0
    """Fixes every random choice: network, exploration, environment, replay, evaluation."""

    alpha: float | None = None
    """How much priorities count in the draw, 0 not at all; None: 0.7 (rank), 0.6 (proportional)."""

    beta_start: float | None = None
    """Share of the bias that the weights undo at first; None: 0.5 (rank), 0.4 (proportional)."""

    beta_end: float = 1.0
    """Share of the bias that the weights undo at the last update; 1 is all of it."""

    priority_eps: float = 0.01
    """Added to abs(td error) so that no transition is lost; proportional replay only."""

    n_step: int = 3
    """Rewards summed before the value of the observation that follows is trusted."""

    gamma: float = 0.99
    """Discount of one environment step."""

    capacity: int = 100_000
    """Transitions kept; the oldest are overwritten."""

    batch_size: int = 64
    """Transitions of one update."""

    network: Network = "auto"
    """nature, light (a third of its work), small (for 10x10 pixels), mlp; auto: what fits."""

    hidden_sizes: tuple[int, ...] = (128, 128)
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

    optimizer: Optimizer = "adam"
    """adam, or the rmsprop of the DQN papers: centred, decay 0.95, eps under the root."""

    optimizer_eps: float | None = None
    """Keeps the optimizer from dividing by 0; None: 1e-8 (adam), 0.01 / 32**2 (rmsprop)."""

    learning_rate: float = 5e-4
    """Step size of the optimizer at the first update."""

    learning_rate_end: float = 5e-5
    """Step size of the optimizer at the last update; falls linearly in between."""

    gradient_clip: float | None = 10.0
    """Largest norm of the gradient; None leaves it as it is."""

    tau: float | None = 0.01
    """Share of the online network mixed into the target after each update; None: full copies."""

    target_period: int = 500
    """Updates between full copies into the target network; used where tau is None."""

    train_every: int = 4
    """Environment steps between trainings."""

    updates_per_train: int = 1
    """Updates of each training."""

    warmup: int = 1_000
    """Transitions in memory before the first update."""

    epsilon_start: float = 1.0
    """Chance of a random action at first."""

    epsilon_end: float = 0.02
    """Chance of a random action once exploration has fallen."""

    epsilon_fraction: float = 0.15
    """Part of the run over which that chance falls, linearly."""

    eval_every: int = 10_000
    """Environment steps between the evaluations that pick the best model."""

    eval_episodes: int = 10
    """Episodes of each of these evaluations."""

    final_eval_episodes: int = 100
    """Episodes of the evaluation that is reported, with seeds of its own."""

    eval_epsilon: float = 0.0
    """Chance of a random action in every evaluation."""

    eval_max_steps: int | None = None
    """Steps after which an evaluation cuts an episode off; None: only the environment does."""

    envs: int = 1
    """Environments stepped side by side; every count of steps is of all of them together."""

    sticky_actions: float | None = None
    """ALE and MinAtar: chance that an action is replaced by the one before; None: its own."""

    end_on_life_loss: bool = False
    """ALE: learn as if a lost life ended the episode; returns are of whole games all the same."""

    device: str = "cpu"
    """Where the networks live: cpu, cuda, cuda:1, mps."""

    precision: Precision = "float32"
    """Of an update's passes: bfloat16 speeds up large networks where the device has it."""

    threads: int = 1
    """Threads of torch on the CPU; small networks are fastest with one."""

    def __post_init__(self) -> None:
        for field, low in _AT_LEAST.items():
            value = getattr(self, field)
            if value is not None or field not in _OPTIONAL:
                _check_int(field, value, low)
        for field, (low_bound, high_bound, text) in _WITHIN.items():
            value = getattr(self, field)
            if value is None and field in _OPTIONAL:
                continue
            _check_number(field, value, low_bound, high_bound, text)
        for field in _SWITCHES:
            if not isinstance(getattr(self, field), bool):
                raise TypeError(f"{field} must be True or False, got {getattr(self, field)!r}")
        for field, kind in _CHOICES.items():
            if getattr(self, field) not in get_args(kind):
                choices = ", ".join(get_args(kind))
                raise ValueError(f"{field} must be one of {choices}, got {getattr(self, field)!r}")
        for field in ("env_id", "device"):
            value = getattr(self, field)
            if not isinstance(value, str) or not value:
                raise ValueError(f"{field} must be a non-empty text, got {value!r}")
        if not isinstance(self.hidden_sizes, tuple):
            raise TypeError(f"hidden_sizes must be a tuple, got {self.hidden_sizes!r}")
        for size in self.hidden_sizes:
            _check_int("hidden_sizes", size, 1)
        if self.warmup > self.capacity:
            raise ValueError(f"warmup must be <= capacity ({self.capacity}), got {self.warmup}")

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
        """Return plain values only, fit for JSON; :meth:`from_dict` takes them back."""
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


_SWITCHES = (
    *("dueling", "shared_bias", "double", "clip_rewards", "clip_td_errors", "end_on_life_loss"),
)
_CHOICES = {
    "replay": Replay,
    "network": Network,
    "loss": Loss,
    "optimizer": Optimizer,
    "precision": Precision,
}
# Whole numbers and their smallest value.
_AT_LEAST = {
    "steps": 1,
    "seed": 0,
    "n_step": 1,
    "capacity": 1,
    "batch_size": 1,
    "target_period": 1,
    "train_every": 1,
    "updates_per_train": 1,
    "warmup": 1,
    "eval_every": 1,
    "eval_episodes": 1,
    "final_eval_episodes": 1,
    "eval_max_steps": 1,
    "envs": 1,
    "threads": 1,
}
# Numbers, their bounds (closed unless excluded below) and how to say so.
_WITHIN: dict[str, tuple[float, float, str]] = {
    "alpha": (0.0, math.inf, ">= 0"),
    "beta_start": (0.0, 1.0, "in [0, 1]"),
    "beta_end": (0.0, 1.0, "in [0, 1]"),
    "priority_eps": (0.0, math.inf, ">= 0"),
    "gamma": (0.0, 1.0, "in [0, 1]"),
    "optimizer_eps": (math.ulp(0.0), math.inf, "> 0"),
    "learning_rate": (math.ulp(0.0), math.inf, "> 0"),
    "learning_rate_end": (0.0, math.inf, ">= 0"),
    "gradient_clip": (math.ulp(0.0), math.inf, "> 0"),
    "tau": (math.ulp(0.0), 1.0, "in (0, 1]"),
    "epsilon_start": (0.0, 1.0, "in [0, 1]"),
    "epsilon_end": (0.0, 1.0, "in [0, 1]"),
    "epsilon_fraction": (0.0, 1.0, "in [0, 1]"),
    "eval_epsilon": (0.0, 1.0, "in [0, 1]"),
    "sticky_actions": (0.0, 1.0, "in [0, 1]"),
}
_OPTIONAL = {
    *("alpha", "beta_start", "gradient_clip", "tau", "optimizer_eps"),
    *("eval_max_steps", "sticky_actions"),
}


def _near(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=3)
    return f"; near names: {', '.join(near)}" if near else ""


def _check_int(field: str, value: object, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{field} must be a whole number, got {value!r}")
    if value < low:
        raise ValueError(f"{field} must be >= {low}, got {value}")


def _check_number(field: str, value: object, low: float, high: float, text: str) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{field} must be a number, got {value!r}")
    # A comparison with NaN is false, so NaN fails here too.
    if not (low <= value <= high) or math.isinf(value):
        raise ValueError(f"{field} must be {text}, got {value}")
