"""CartPole-v1 of which a step takes 5 ms, as in a simulator or a game that computes elsewhere.

``per train slow_cartpole:SlowCartPole-v1`` trains on it where this folder is on ``PYTHONPATH``.
"""

import time

import gymnasium as gym

SECONDS = 0.005


class Slow(gym.Wrapper):
    """An environment that lets its caller wait."""

    def step(self, action):
        """Make a step, a while later."""
        time.sleep(SECONDS)
        return self.env.step(action)


def make(**options):
    """Return the environment."""
    return Slow(gym.make("CartPole-v1", **options))


gym.register("SlowCartPole-v1", entry_point=make)
