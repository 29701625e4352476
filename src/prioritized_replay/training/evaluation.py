"""Evaluation of a network: complete episodes, played greedily, and statistics of their returns.

Knows Gymnasium and a network that gives action values; knows nothing of training or replay.
Axes: E episodes played side by side, A actions.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prioritized_replay.dqn.acting import greedy_actions, mode_of
from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.envs.make import make_env, step_limit
from prioritized_replay.training.statistics import bootstrap, interquartile_mean, mean

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

DEFAULT_MAX_STEPS = 1_000
"""Steps after which an episode is cut off where neither the environment nor the caller does."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The outcome of some complete episodes.

    Attributes
    ----------
    returns : float64[episodes]
        Undiscounted sum of the rewards of each episode.
    lengths : int64[episodes]
        Steps of each episode.
    mean, std : float
        Mean and (population) standard deviation of the returns.
    iqm : float
        Interquartile mean of the returns: the mean without the lowest and the highest quarter.
    interval : tuple of two floats
        95 % bootstrap confidence interval of the mean.
    capped : int
        Episodes that were cut off by the evaluation, not ended by the environment.

    Examples
    --------
    >>> always_up = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(48, 1)
    >>> table = nn.Embedding.from_pretrained(always_up)  # 48 states, 4 actions
    >>> evaluation = evaluate(table, "CliffWalking-v1", episodes=2, seed=0, max_steps=20)
    >>> evaluation.mean, evaluation.lengths
    (-20.0, array([20, 20]))
    >>> evaluation.capped  # both were cut off: -20 is not the return of a whole episode
    2
    """

    returns: Float64s
    lengths: Int64s
    mean: float
    std: float
    iqm: float
    interval: tuple[float, float]
    capped: int = 0


def evaluate(
    network: nn.Module,
    env_id: str,
    episodes: int,
    seed: int,
    *,
    epsilon: float = 0.0,
    num_envs: int = 16,
    max_steps: int | None = None,
    sticky_actions: float | None = None,
    device: str | torch.device = "cpu",
) -> Evaluation:
    """Play complete episodes and return their statistics.

    Every episode has a seed of its own, made from ``seed`` and its number, and is played to its
    end. So the result does not depend on ``num_envs``, and short episodes are not counted more
    often than long ones.

    Parameters
    ----------
    network : torch.nn.Module
        From observations (E, ...) to action values (E, A).
    env_id : str
        A registered Gymnasium environment.
    episodes : int
        How many, at least 1.
    seed : int
        At least 0.
    epsilon : float
        Chance of a random action.
    num_envs : int
        Episodes played side by side: the network runs once per step for all of them.
    max_steps : int, optional
        Steps after which an episode is cut off. By default only the environment's own time limit
        does that, and where it has none (``CliffWalking-v1``, for example) an episode is cut off
        after 1,000 steps: a policy that walks in circles would play it for ever.
    sticky_actions : float, optional
        As for :func:`~prioritized_replay.envs.make_env`.
    device : str or torch.device
        Where the network lives.

    Raises
    ------
    ValueError
        A number is out of bounds, or the environment is unknown.

    Notes
    -----
    O(steps) environment steps, and about O(steps / num_envs) network calls.

    Examples
    --------
    >>> table = torch.zeros(48, 4)  # values of the actions of CliffWalking
    >>> table[36, 0] = table[24:35, 1] = table[35, 2] = 1.0  # up, right along the cliff, down
    >>> network = nn.Embedding.from_pretrained(table)
    >>> evaluation = evaluate(network, "CliffWalking-v1", episodes=2, seed=0)
    >>> evaluation.returns, evaluation.capped
    (array([-13., -13.]), 0)
    """
    for name, number in (("episodes", episodes), ("num_envs", num_envs), ("max_steps", max_steps)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be >= 1, got {number}")
    if not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"epsilon must be in [0, 1], got {epsilon}")
    if max_steps is None:
        max_steps = default_max_steps(env_id)
    children = np.random.SeedSequence(seed).spawn(episodes)
    envs = [make_env(env_id, sticky_actions=sticky_actions) for _ in range(min(num_envs, episodes))]
    try:
        with mode_of(network, training=False):
            returns, lengths, capped = _play(
                network, envs, children, epsilon, max_steps, torch.device(device)
            )
    finally:
        for env in envs:
            env.close()
    mean_estimate = bootstrap(returns, mean)
    return Evaluation(
        returns=returns,
        lengths=lengths,
        mean=float(returns.mean()),
        std=float(returns.std()),
        iqm=float(interquartile_mean(returns)),
        interval=(mean_estimate.low, mean_estimate.high),
        capped=capped,
    )


def default_max_steps(env_id: str) -> int | None:
    """Return where :func:`evaluate` cuts off episodes by itself: None where the environment does.

    Raises
    ------
    ValueError, ImportError
        The environment is unknown, or its package is not installed.
    """
    return DEFAULT_MAX_STEPS if step_limit(env_id) is None else None


def _play(
    network: nn.Module,
    envs: list[gymnasium.Env[Any, Any]],
    seeds: list[np.random.SeedSequence],
    epsilon: float,
    max_steps: int | None,
    device: torch.device,
) -> tuple[Float64s, Int64s, int]:
    """Play one episode per seed; a free environment takes the next seed in line."""
    returns = np.zeros(len(seeds))
    lengths = np.zeros(len(seeds), dtype=np.int64)
    capped = 0
    generators = [np.random.default_rng(seed) for seed in seeds] if epsilon > 0.0 else []
    waiting = iter(range(len(seeds)))
    playing: list[int] = []  # playing[e] is the number of the episode in envs[e]
    conversion = Conversion(envs[0].observation_space, envs[0].action_space)
    first, count = conversion.first_action, conversion.num_actions
    observations: list[Any] = [None] * len(envs)

    def begin(e: int) -> int | None:
        episode = next(waiting, None)
        if episode is not None:
            observations[e], _ = envs[e].reset(seed=int(seeds[episode].generate_state(1)[0]))
        return episode

    for e in range(len(envs)):
        episode = begin(e)
        assert episode is not None  # there are at most as many environments as episodes
        playing.append(episode)
    while playing:
        batch = conversion.stacked(observations[: len(playing)])
        actions = (first + greedy_actions(network, conversion, batch, device)).tolist()
        for e in reversed(range(len(playing))):
            episode = playing[e]
            action = actions[e]
            if generators and generators[episode].random() < epsilon:
                action = first + int(generators[episode].integers(count))
            observations[e], reward, terminated, truncated, _ = envs[e].step(action)
            returns[episode] += reward
            lengths[episode] += 1
            ended = terminated or truncated
            if not ended and lengths[episode] == max_steps:
                ended, capped = True, capped + 1
            if ended:
                following = begin(e)
                if following is None:  # nothing left to play: the last one takes this place
                    last = len(playing) - 1
                    observations[e], envs[e], envs[last] = observations[last], envs[last], envs[e]
                    playing[e] = playing[last]
                    playing.pop()
                else:
                    playing[e] = following
    return returns, lengths, capped
