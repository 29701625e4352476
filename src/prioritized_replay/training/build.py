"""Makes the parts of a training from its configuration: environment, sampler, memory, agent."""

from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

from prioritized_replay import Proportional, RankBased, Uniform
from prioritized_replay.dqn import DQN
from prioritized_replay.envs.make import make_env, make_vector, plays_vectors_only
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.schedules import constant, linear
from prioritized_replay.training.config import TrainConfig


def make_training_env(config: TrainConfig) -> gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]:
    """Return the environment of a training: a single one, or a vector of several."""
    sticky = config.sticky_actions
    if config.envs == 1 and not config.end_on_life_loss and not plays_vectors_only(config.env_id):
        return make_env(config.env_id, sticky_actions=sticky)  # faster than a vector of one
    return make_vector(
        config.env_id,
        config.envs,
        sticky_actions=sticky,
        end_on_life_loss=config.end_on_life_loss,
        threads=config.threads,
    )


def make_memory(
    config: TrainConfig,
    env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any],
    seed: int,
    *,
    capacity: int | None = None,
) -> ReplayBuffer:
    """Return an empty replay memory for an environment; by default of the configured capacity."""
    return ReplayBuffer.for_env(
        env,
        config.capacity if capacity is None else capacity,
        sampler=make_sampler(config),
        n_step=config.n_step,
        gamma=config.gamma,
        seed=seed,
    )


def make_agent(
    config: TrainConfig,
    env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any],
    memory: ReplayBuffer,
    seed: int,
) -> DQN:
    """Return an agent that has learnt nothing, with this replay memory."""
    if isinstance(env, VectorEnv):
        spaces = env.single_observation_space, env.single_action_space
    else:
        spaces = env.observation_space, env.action_space
    updates = config.total_updates
    falling = round(config.epsilon_fraction * config.steps)
    return DQN(
        *spaces,
        memory,
        network=config.network,
        hidden_sizes=config.hidden_sizes,
        dueling=config.dueling,
        shared_bias=config.shared_bias,
        optimizer=config.optimizer,
        optimizer_eps=config.optimizer_eps,
        learning_rate=linear(config.learning_rate, config.learning_rate_end, updates),
        double=config.double,
        loss=config.loss,
        clip_td_errors=config.clip_td_errors,
        gradient_clip=config.gradient_clip,
        tau=config.tau,
        target_period=config.target_period,
        batch_size=config.batch_size,
        beta=linear(config.effective_beta_start, config.beta_end, updates),
        epsilon=(
            linear(config.epsilon_start, config.epsilon_end, falling)
            if falling
            else constant(config.epsilon_end)
        ),
        warmup=config.warmup,
        device=config.device,
        precision=config.precision,
        seed=seed,
    )


def make_sampler(config: TrainConfig) -> Proportional | RankBased | Uniform:
    """Return the sampler that a configuration asks for."""
    if config.replay == "rank":
        return RankBased(alpha=config.effective_alpha)
    if config.replay == "proportional":
        return Proportional(
            alpha=config.effective_alpha,
            eps=config.priority_eps,
            min_priority=config.min_priority,
        )
    return Uniform()


def check_memory(
    memory: ReplayBuffer,
    config: TrainConfig,
    env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any],
) -> None:
    """Check that a replay memory is one that :func:`make_memory` would make.

    Raises
    ------
    ValueError
        A setting or a field is another.
    """
    if memory.capacity != config.capacity:
        raise ValueError(f"capacity of the replay must be {config.capacity}, got {memory.capacity}")
    pattern = make_memory(config, env, 0, capacity=1)  # all settings, and next to no memory
    for name in ("n_step", "gamma", "num_envs", "autoreset", "sampler"):
        found, expected = getattr(memory, name), getattr(pattern, name)
        if found != expected:
            raise ValueError(f"{name} of the replay must be {expected}, got {found}")
    found, expected = (
        {name: (getattr(f, "shape", f), getattr(f, "dtype", f)) for name, f in b.fields.items()}
        for b in (memory, pattern)
    )
    if found != expected:
        raise ValueError(f"fields of the replay must be {expected}, got {found}")


def check_trainable(config: TrainConfig) -> None:
    """Check that an agent can be made for the environment of a configuration.

    Raises
    ------
    ValueError, ImportError
        As for :class:`~prioritized_replay.training.Training`.
    """
    env = make_training_env(config)
    try:
        # A small memory will do: it is not filled.
        make_agent(config, env, make_memory(config, env, 0, capacity=config.warmup), 0)
    finally:
        env.close()
