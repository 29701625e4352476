"""Prioritized replay in Stable-Baselines3: its buffer protocol upon our buffer."""

from prioritized_replay.integrations.stable_baselines3.algorithms import (
    PrioritizedDQN,
    PrioritizedSAC,
    PrioritizedTD3,
    ReplayProgress,
)
from prioritized_replay.integrations.stable_baselines3.buffer import PrioritizedReplayBuffer
from prioritized_replay.integrations.stable_baselines3.checkpoints import ReplayInFolder
from prioritized_replay.integrations.stable_baselines3.samples import PrioritizedSamples

__all__ = [
    "PrioritizedDQN",
    "PrioritizedReplayBuffer",
    "PrioritizedSAC",
    "PrioritizedSamples",
    "PrioritizedTD3",
    "ReplayInFolder",
    "ReplayProgress",
]
