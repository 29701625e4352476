"""Collecting experience: an agent acts in environments, and each step goes into its replay.

Knows Gymnasium, the agent's ``act`` and the replay's ``add``; knows nothing of learning.
Axes: E environments side by side.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from prioritized_replay.dqn import DQN


class Collector(Protocol):
    """What the training loop needs: one protocol for one environment and for many."""

    num_envs: int
    """Environment steps that each :meth:`step` takes."""

    def begin(self, seed: int) -> None:
        """Start new episodes; open n-step windows end here and bootstrap from their last step."""

    def step(self) -> Sequence[float]:
        """Act once in each environment; return the returns of the episodes that ended."""


class OneEnvironment:
    """Steps of a single environment, which is reset when an episode ends.

    Parameters
    ----------
    env : gymnasium.Env
    agent : DQN
        Its memory has one stream.
    clip_rewards : bool
        The memory is given rewards clipped to [-1, 1].
    """

    num_envs = 1

    def __init__(self, env: gymnasium.Env[Any, Any], agent: DQN, *, clip_rewards: bool) -> None:
        self._env, self._agent, self._clip = env, agent, clip_rewards
        self._obs: Any = None
        self._return = 0.0

    def begin(self, seed: int) -> None:
        """Start a new episode."""
        self._agent.memory_buffer.end_episode()
        self._obs, _ = self._env.reset(seed=seed)
        self._return = 0.0

    def step(self) -> Sequence[float]:
        """Act once."""
        obs, agent, env = self._obs, self._agent, self._env
        action = agent.act(obs)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        learnt = min(max(float(reward), -1.0), 1.0) if self._clip else reward
        agent.memory_buffer.add(obs, action, learnt, next_obs, terminated, truncated)
        self._obs = next_obs
        self._return += float(reward)
        if not (terminated or truncated):
            return ()
        ended = self._return
        self._return = 0.0
        self._obs, _ = env.reset()
        return (ended,)


class ManyEnvironments:
    """Steps of a vector environment that begins new episodes by itself.

    Parameters
    ----------
    envs : gymnasium.vector.VectorEnv
        ``info["game_over"]``, bool[E], where it is there, says which episodes count as ended.
    agent : DQN
        Its memory was made for these environments.
    clip_rewards : bool
        The memory is given rewards clipped to [-1, 1].
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], agent: DQN, *, clip_rewards: bool) -> None:
        self.num_envs = envs.num_envs
        self._envs, self._agent, self._clip = envs, agent, clip_rewards
        self._obs: Any = None
        self._returns = np.zeros(envs.num_envs)

    def begin(self, seed: int) -> None:
        """Start new episodes."""
        self._agent.memory_buffer.end_episode()
        # Each environment counts on from the seed; ALE takes 31 bits.
        self._obs, _ = self._envs.reset(seed=seed % (2**31 - self.num_envs))
        self._returns[:] = 0.0

    def step(self) -> Sequence[float]:
        """Act once in each environment."""
        obs, agent = self._obs, self._agent
        actions = agent.act(obs)
        next_obs, rewards, terminated, truncated, info = self._envs.step(actions)
        learnt = np.clip(rewards, -1.0, 1.0) if self._clip else rewards
        agent.memory_buffer.add(obs, actions, learnt, next_obs, terminated, truncated, info=info)
        self._obs = next_obs
        self._returns += rewards
        over = info["game_over"] if "game_over" in info else terminated | truncated
        if not over.any():
            return ()
        ended: list[float] = self._returns[over].tolist()
        self._returns[over] = 0.0
        return ended
