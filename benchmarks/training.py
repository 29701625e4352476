"""How fast a DQN trains, beside Stable-Baselines3 and SBX with the same network and schedule.

Knows how to train, time and judge each contender in a process of its own; prints and keeps nothing.
"""

import dataclasses
import multiprocessing
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from prioritized_replay.training.config import Replay, TrainConfig
from prioritized_replay.training.evaluation import evaluate
from prioritized_replay.training.loop import Training

# The settings that RL Baselines3 Zoo has for Stable-Baselines3's DQN on CartPole-v1.
CONFIG = TrainConfig(
    env_id="CartPole-v1",
    steps=50_176,  # what the peers make of 50,000: they end with a whole round of 256 steps
    n_step=1,
    capacity=100_000,
    hidden_sizes=(256, 256),
    double=False,  # the peers have plain DQN only
    learning_rate=2.3e-3,
    learning_rate_end=2.3e-3,
    train_every=256,
    updates_per_train=128,
    # The peers copy at every tenth environment step. Updates come in rounds of 128 between two
    # steps, so theirs, too, are all made with the copy from before the round.
    tau=None,
    target_period=128,
    epsilon_end=0.04,
    epsilon_fraction=0.16,
    eval_every=1_000_000_000,  # only one at the end, of a single episode
    eval_episodes=1,
)
_PEER_TARGET_INTERVAL = 10  # environment steps
_PEERS = {"stable-baselines3": "stable_baselines3", "sbx": "sbx"}  # name and module
_SHORT = 1_500  # steps before the timed run; the first round of updates is among them
_JUDGING_SEED = 12_345


def measure_training(
    seeds: Sequence[int] = (0, 1, 2), *, steps: int = CONFIG.steps, episodes: int = 100
) -> dict[str, Any]:
    """Train ours with each sampler, and the peers that are installed, and time them.

    One thread each. Each run has a new process, and the contenders take turns, seed by seed. A
    short run before the timed one loads what is loaded once. The timed part is training alone,
    from the first step to the last; nothing is evaluated in it (but for one episode at the end of
    ours), printed or saved. The network that comes out then plays ``episodes`` episodes, greedily,
    the same ones for everybody.

    Parameters
    ----------
    seeds : sequence of int
        Of the runs of each contender.
    steps : int
        Environment steps of each run. The peers go on to the next multiple of 256 and make that
        round of updates as well; ours do not.
    episodes : int
        Complete episodes that judge each run.

    Returns
    -------
    dict
        Plain values, fit for JSON. ``settings``: what all have in common. ``runs``: of each its
        ``contender``, ``seed``, ``seconds``, ``cpu_seconds``, ``steps_per_second``, ``score``,
        the mean return of the last network, and ``training_return``, that of the last 100
        episodes of training (None where none ended). ``summary``: for each contender the median
        over seeds of ``steps_per_second``; the means of ``score`` and ``training_return``; and the
        medians of Stable-Baselines3's seconds with the same seed over its own, by the clock
        (``times_sb3``) and in time of the processor (``times_sb3_cpu``, which other work on the
        machine does not distort). Both are None where that is not installed.

    Notes
    -----
    With these settings the score of a network swings between 20 and 500 from one round of updates
    to the next, with every contender, so the last network's says little and a few seeds' mean
    hardly more. ``training_return`` is over many networks. ``docs/decisions.rst`` has figures.

    SBX compiles for every new model, the short run does not spare it that. Its users pay these
    seconds in every training, so they count.
    """
    if not seeds:
        raise ValueError(f"seeds must be one or more, got {seeds}")
    config = dataclasses.replace(CONFIG, steps=steps)
    contenders = [*get_args(Replay), *(peer for peer in _PEERS if find_spec(_PEERS[peer]))]
    runs: list[dict[str, Any]] = []
    for seed in seeds:
        for contender in contenders:
            context = multiprocessing.get_context("spawn")  # XLA's threads do not survive a fork
            with ProcessPoolExecutor(1, context) as process:
                of_run = dataclasses.replace(config, seed=seed)
                measured = process.submit(_train, contender, of_run, episodes).result()
            runs.append({"contender": contender, "seed": seed, **measured})
    settings = config.to_dict()
    del settings["seed"], settings["replay"]
    return {
        "settings": settings,
        "episodes": episodes,
        "runs": runs,
        "summary": {contender: _summary(runs, contender) for contender in contenders},
    }


def _train(contender: str, config: TrainConfig, episodes: int) -> dict[str, float | None]:
    """Train, time and judge one contender in this process."""
    torch.set_num_threads(1)
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    make = _make_peer if contender in _PEERS else _make_ours
    _, train = make(contender, dataclasses.replace(config, steps=_SHORT))
    train()
    network, train = make(contender, config)
    began, cpu_began = time.perf_counter(), time.process_time()
    training_return = train()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "steps_per_second": config.steps / seconds,
        "score": evaluate(network, config.env_id, episodes, _JUDGING_SEED).mean,
        "training_return": training_return,
    }


_Train = Callable[[], float | None]  # returns the mean return of the last 100 episodes


def _make_ours(replay: Any, config: TrainConfig) -> tuple[nn.Module, _Train]:
    training = Training(dataclasses.replace(config, replay=replay))

    def train() -> float | None:
        last = deque(training.run(), maxlen=1)[0]
        return last.mean_return if last.episodes else None

    return training.agent.online_network, train


def _make_peer(peer: str, config: TrainConfig) -> tuple[nn.Module, _Train]:
    model = import_module(_PEERS[peer]).DQN(
        "MlpPolicy",
        config.env_id,
        learning_rate=config.learning_rate,
        buffer_size=config.capacity,
        learning_starts=config.warmup,
        batch_size=config.batch_size,
        gamma=config.gamma,
        train_freq=config.train_every,
        gradient_steps=config.updates_per_train,
        target_update_interval=_PEER_TARGET_INTERVAL,
        exploration_fraction=config.epsilon_fraction,
        exploration_initial_eps=config.epsilon_start,
        exploration_final_eps=config.epsilon_end,
        policy_kwargs={"net_arch": list(config.hidden_sizes)},
        seed=config.seed,
        device="cpu",
    )

    def train() -> float | None:
        model.learn(config.steps, log_interval=None)
        returns = [episode["r"] for episode in model.ep_info_buffer]  # of the last 100
        return statistics.fmean(returns) if returns else None

    return _Chooser(model), train


class _Chooser(nn.Module):
    """Gives the action that a peer's model chooses the value 1, and the others 0."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def forward(self, obs: Tensor) -> Tensor:
        actions, _ = self._model.predict(obs.numpy(), deterministic=True)
        return functional.one_hot(torch.as_tensor(actions).long(), int(self._model.action_space.n))


def _summary(runs: list[dict[str, Any]], contender: str) -> dict[str, float | None]:
    own = [run for run in runs if run["contender"] == contender]
    sb3 = [run for run in runs if run["contender"] == "stable-baselines3"]

    def times(unit: str) -> float | None:
        pairs = zip(own, sb3, strict=True)
        return statistics.median(b[unit] / a[unit] for a, b in pairs) if sb3 else None

    returns = [run["training_return"] for run in own if run["training_return"] is not None]
    return {
        "steps_per_second": statistics.median(run["steps_per_second"] for run in own),
        # Means: scores are 500 or far from it, and the median of such says how the coin fell.
        "score": statistics.fmean(run["score"] for run in own),
        "training_return": statistics.fmean(returns) if returns else None,
        "times_sb3": times("seconds"),
        "times_sb3_cpu": times("cpu_seconds"),
    }
