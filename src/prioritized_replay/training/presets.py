"""Settings that are known to work: tuned ones for some environments, and the paper's."""

from typing import Any, Literal, get_args

from prioritized_replay.training.config import TrainConfig

PresetName = Literal["quick", "paper"]

_QUICK: dict[str, dict[str, Any]] = {
    "CartPole-v1": {
        "steps": 50_000,
        "learning_rate": 1e-3,
        "tau": 0.02,
        "train_every": 2,
        "capacity": 50_000,
        "epsilon_fraction": 0.12,
        "eval_every": 2_500,
        "eval_episodes": 20,
    },
    "Acrobot-v1": {"steps": 60_000, "eval_every": 5_000, "eval_episodes": 20},
    # Twice the updates and a larger step size: with the defaults a run ended at 119.
    "LunarLander-v3": {
        "steps": 300_000,
        "learning_rate": 1e-3,
        "tau": 0.005,
        "train_every": 2,
        "eval_episodes": 40,
    },
    # Each step costs 1 until the first arrival, and random actions do not arrive in 200 steps. So
    # the network explores: values begin near 0, too high, and what was tried looks worse than what
    # was not. With a step size of 1e-3 and slower schedules, 60,000 steps brought no arrival. Ten
    # rewards at a time carry the first arrivals back.
    "MountainCar-v0": {
        "steps": 80_000,
        "hidden_sizes": (64, 64),
        "learning_rate": 8e-3,
        "learning_rate_end": 1e-3,
        "n_step": 10,
        "tau": None,
        "target_period": 300,
        "train_every": 16,
        "updates_per_train": 8,
        "capacity": 10_000,
        "epsilon_fraction": 0.1,
        "epsilon_end": 0.05,
        "eval_every": 2_500,
        "eval_episodes": 40,
    },
    # The three below number their states. Without a hidden layer each state has values of its own,
    # as in a table. A random player finds the goals, and what it does badly must not count as the
    # value of its better actions: so one step at a time.
    "FrozenLake-v1": {
        "hidden_sizes": (),
        "steps": 20_000,
        "learning_rate": 1e-2,
        "learning_rate_end": 1e-4,
        "n_step": 1,
        "batch_size": 512,
        "tau": 0.1,
        "train_every": 10,
        "capacity": 20_000,
        "epsilon_fraction": 0.5,
        # Where ice decides, many tries of every action are needed to tell good from bad.
        "epsilon_end": 0.2,
        "eval_every": 2_000,
        "eval_episodes": 200,
        # The best policy gets 0.74, and 0.7 is asked: the mean of 100 episodes errs by 0.04.
        "final_eval_episodes": 1_000,
    },
    "CliffWalking-v1": {
        "hidden_sizes": (),
        "steps": 20_000,
        "learning_rate": 5e-2,
        "learning_rate_end": 5e-3,
        "n_step": 1,
        # The shortest way is the best with any discount, and a smaller one is learnt sooner.
        "gamma": 0.95,
        "batch_size": 128,
        "tau": 0.1,
        "train_every": 2,
        "capacity": 20_000,
        "epsilon_fraction": 0.5,
        # Fewer updates and less exploration left one run of five at the start, and another at -15.
        "epsilon_end": 0.2,
        "eval_every": 2_000,
        "eval_episodes": 1,  # every episode is the same
    },
    "Taxi-v4": {
        "hidden_sizes": (),
        "steps": 60_000,
        "learning_rate": 5e-2,
        "learning_rate_end": 2e-3,
        "n_step": 1,
        "gamma": 0.9,
        "batch_size": 512,
        "tau": 0.1,
        "train_every": 10,
        "capacity": 60_000,
        "epsilon_fraction": 0.4,
        "eval_every": 3_000,
        "eval_episodes": 100,
    },
    # Common to all of a family, where the id itself is not above.
    "ALE/": {
        "network": "light",
        "steps": 1_000_000,
        "batch_size": 32,
        "clip_rewards": True,
        "learning_rate": 2.5e-4,
        "tau": None,
        "warmup": 5_000,
        "epsilon_fraction": 0.1,
        "eval_every": 50_000,
        "eval_episodes": 3,
        "final_eval_episodes": 20,
        "eval_epsilon": 0.01,
        "eval_max_steps": 27_000,
    },
    # Its episodes have no time limit.
    "MinAtar/": {
        "steps": 500_000,
        "batch_size": 32,
        "learning_rate_end": 1e-4,
        "tau": 0.005,
        "train_every": 2,
        "warmup": 5_000,
        "epsilon_fraction": 0.2,
        "eval_every": 25_000,
        "eval_max_steps": 5_000,
    },
}

# Schaul et al. 2016, appendix B.2, with what they took over from van Hasselt et al. 2016 (their
# tuned Double DQN). Where they count frames, 4 make a step; where they count steps between copies
# into the target network, 4 make an update.
_PAPER: dict[str, Any] = {
    "network": "nature",
    "shared_bias": True,
    "steps": 50_000_000,
    "n_step": 1,
    "capacity": 1_000_000,
    "batch_size": 32,
    "clip_rewards": True,
    "clip_td_errors": True,
    "optimizer": "rmsprop",
    # A quarter of van Hasselt's step size, and eps, under the root, to go with it.
    "optimizer_eps": 0.01 / 32**2 / 4**2,
    "learning_rate": 6.25e-5,
    "learning_rate_end": 6.25e-5,
    "gradient_clip": None,
    "tau": None,
    "target_period": 7_500,
    "warmup": 50_000,
    "epsilon_end": 0.01,
    "epsilon_fraction": 0.02,
    "eval_every": 1_000_000,
    "eval_episodes": 10,
    "eval_epsilon": 0.001,
    "eval_max_steps": 27_000,
    "sticky_actions": 0.0,
    "end_on_life_loss": True,
}


def preset(env_id: str, name: PresetName = "quick", **overrides: Any) -> TrainConfig:
    """Return settings that are known to work for ``env_id``, or the defaults where none are.

    Parameters
    ----------
    env_id : str
        CartPole-v1, Acrobot-v1, LunarLander-v3, MountainCar-v0, FrozenLake-v1, CliffWalking-v1,
        Taxi-v4 and all ids that begin with ALE/ or MinAtar/ have tuned settings. Any other id gets
        the defaults.
    name : {"quick", "paper"}
        "quick" is for two CPU cores. "paper" is the set-up of the paper for Atari games, with
        ``replay="rank"`` or ``"proportional"``: 50 million steps, which take a GPU days.
    **overrides
        Fields of :class:`TrainConfig` that replace the preset's.

    Raises
    ------
    ValueError
        The name is unknown, or "paper" is asked for another environment than an Atari game.

    Examples
    --------
    >>> preset("CartPole-v1", seed=7).steps
    50000
    >>> preset("ALE/Breakout-v5", "paper", replay="proportional").effective_alpha
    0.6
    """
    if name not in get_args(PresetName):
        raise ValueError(f"preset must be one of {', '.join(get_args(PresetName))}, got {name!r}")
    if name == "quick":
        family = env_id.split("/")[0] + "/"
        settings = _QUICK.get(env_id, _QUICK.get(family, {}))
    elif env_id.startswith("ALE/"):
        settings = _PAPER
    else:
        raise ValueError(f"preset must be quick for {env_id}: the paper's is for ALE games")
    return TrainConfig.from_dict({**settings, **overrides, "env_id": env_id})
