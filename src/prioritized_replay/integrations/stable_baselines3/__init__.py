"""Prioritized replay in Stable-Baselines3: its replay buffer's protocol upon our buffer."""

from prioritized_replay.integrations.stable_baselines3.buffer import PrioritizedReplayBuffer
from prioritized_replay.integrations.stable_baselines3.checkpoints import ReplayInFolder
from prioritized_replay.integrations.stable_baselines3.samples import LastDraw, PrioritizedSamples

__all__ = ["LastDraw", "PrioritizedReplayBuffer", "PrioritizedSamples", "ReplayInFolder"]
