"""How fast Stable-Baselines3's algorithms train with our buffer, beside the same with its own.

Knows Stable-Baselines3's algorithms and ours; knows nothing of the loops of other libraries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from benchmarks.results import Ratio
from benchmarks.session import Session
from benchmarks.timing import Entry, ratio

STEP = "Stable-Baselines3 training step: "
OWN, OURS = "uniform replay of its own", "prioritized replay of ours"
SIZE = 100_000  # rows of the buffers
WARM_UP = 600  # steps before the timed ones: what is loaded or compiled once


@dataclass(frozen=True)
class Loop:
    """One algorithm, the environment it trains in, and the steps of a turn."""

    name: str
    env: str
    batch: int
    steps: int
    options: dict[str, Any]


LOOPS = (
    Loop("DQN", "CartPole-v1", 32, 400, {"train_freq": 1}),
    Loop("SAC", "Pendulum-v1", 256, 100, {}),
    Loop("TD3", "Pendulum-v1", 256, 100, {}),
)
"""An update at every step; all else as Stable-Baselines3 has it by default."""


def measure_sb3(session: Session) -> None:
    """Time training steps of each algorithm: playing, storing, drawing, updating, priorities.

    Both train on in turns, each its own network in its own environment.

    Parameters
    ----------
    session : Session
        Notes the times, and how many times as long a step takes with its own replay.
    """
    theirs = import_module("stable_baselines3")
    ours = import_module("prioritized_replay.integrations.stable_baselines3")
    for loop in LOOPS:
        kinds = {OWN: getattr(theirs, loop.name), OURS: getattr(ours, f"Prioritized{loop.name}")}
        models = {name: _warm(kind, loop) for name, kind in kinds.items()}
        entries = {name: _learning(model) for name, model in models.items()}
        measure = STEP + loop.name
        turn = [loop.steps]
        times = session.time(
            measure, SIZE, loop.batch, entries, partial(_same, turn), loop.steps, scale=loop.steps
        )
        of = ratio(times[OWN], times[OURS])
        session.results.ratios.append(
            Ratio(measure, SIZE, loop.batch, OURS, OWN, of.median, of.low, of.high)
        )


def _warm(kind: Any, loop: Loop) -> Any:
    model = kind(
        "MlpPolicy", loop.env, buffer_size=SIZE, batch_size=loop.batch, learning_starts=200,
        seed=0, device="cpu", **loop.options,
    )  # fmt: skip
    return model.learn(WARM_UP, log_interval=None)


def _same(turn: list[int], _: int) -> list[int]:
    return turn


def _learning(model: Any) -> Entry:
    def learn(steps: int) -> None:
        model.learn(steps, log_interval=None, reset_num_timesteps=False)

    return Entry(lambda steps: steps, learn)
