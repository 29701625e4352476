"""How good a network is: complete episodes, played greedily, and what their returns say.

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
from prioritized_replay.envs.make import make_env

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]

_RESAMPLES = 2_000


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
        Interquartile mean of the returns, see
        :func:`~prioritized_replay.training.evaluation.interquartile_mean`.
    interval : tuple of two floats
        95 % bootstrap confidence interval of the mean.
    capped : int
        Episodes that were cut off by the evaluation, not ended by the environment.
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
    """Play complete episodes and return what they gave.

    Every episode has a seed of its own, made from ``seed`` and its number, and all of them are
    played to their end: the result does not depend on ``num_envs``, and short episodes are not
    counted more often than long ones.

    Parameters
    ----------
    network : torch.nn.Module
        From observations (E, ...) to action values (E, A).
    env_id : str
        A registered Gymnasium environment. If its episodes may last for ever, give ``max_steps``.
    episodes : int
        How many, at least 1.
    seed : int
        At least 0.
    epsilon : float
        Chance of a random action.
    num_envs : int
        Episodes played side by side: the network runs once per step for all of them.
    max_steps : int, optional
        Steps after which an episode is cut off.
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
    """
    for name, number in (("episodes", episodes), ("num_envs", num_envs), ("max_steps", max_steps)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be >= 1, got {number}")
    if not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"epsilon must be in [0, 1], got {epsilon}")
    children = np.random.SeedSequence(seed).spawn(episodes + 1)
    envs = [make_env(env_id, sticky_actions=sticky_actions) for _ in range(min(num_envs, episodes))]
    try:
        with mode_of(network, training=False):
            returns, lengths, capped = _play(
                network, envs, children[:-1], epsilon, max_steps, torch.device(device)
            )
    finally:
        for env in envs:
            env.close()
    return Evaluation(
        returns=returns,
        lengths=lengths,
        mean=float(returns.mean()),
        std=float(returns.std()),
        iqm=interquartile_mean(returns),
        interval=_bootstrap(returns, np.random.default_rng(children[-1])),
        capped=capped,
    )


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


def interquartile_mean(values: Float64s) -> float:
    """Return the mean of the sorted values without the lowest and the highest quarter.

    A quarter of n values is rounded down, so with fewer than four it is the plain mean.

    Examples
    --------
    >>> interquartile_mean(np.array([500.0, 1.0, 2.0, 3.0]))
    2.5
    """
    cut = values.size // 4
    return float(np.sort(values)[cut : values.size - cut].mean())


def _bootstrap(values: Float64s, generator: np.random.Generator) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % points of the mean of resampled values."""
    draws = generator.integers(values.size, size=(_RESAMPLES, values.size))
    low, high = np.quantile(values[draws].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)
