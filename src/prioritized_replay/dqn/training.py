"""The training loop: environment -> replay -> agent -> td errors -> replay, as a generator.

Knows the configuration, Gymnasium and the agent; prints, logs and saves nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from prioritized_replay.dqn.agent import DQN
from prioritized_replay.dqn.config import TrainConfig
from prioritized_replay.dqn.evaluation import Evaluation


@dataclass(frozen=True)
class Progress:
    """Where a run stands. Means are over what happened since the last report.

    Attributes
    ----------
    step, steps : int
        Environment steps done, and of the whole run.
    updates : int
        Updates of the network so far.
    episodes : int
        Training episodes completed so far.
    mean_return : float
        Mean return of the last 100 training episodes; NaN before the first has ended.
    last_return : float
        Return of the last training episode; NaN before the first has ended.
    epsilon, beta, learning_rate : float
        As in force at this step.
    loss : float
        Mean weighted loss; NaN before the first update.
    td_error : float
        Mean abs(td error) over the drawn transitions, before their updates; NaN as above.
    effective_sample_size : float
        Of the last batch's weights, (sum w)^2 / sum w^2, in [1, B]; NaN as above.
    steps_per_second : float
        Environment steps per second, evaluations not counted.
    evaluation : Evaluation or None
        The evaluation just made at this step, if there was one.
    is_best : bool
        That evaluation is the best so far (of equals the later), and ``Training.best_state`` is it.
    """

    step: int
    steps: int
    updates: int
    episodes: int
    mean_return: float
    last_return: float
    epsilon: float
    beta: float
    learning_rate: float
    loss: float
    td_error: float
    effective_sample_size: float
    steps_per_second: float
    evaluation: Evaluation | None = None
    is_best: bool = False


class Training:
    """A run in the making. Attributes: config, agent, step, best_state, best_evaluation."""

    config: TrainConfig
    agent: DQN
    step: int
    best_state: dict[str, torch.Tensor] | None
    best_evaluation: Evaluation | None

    def __init__(self, config: TrainConfig) -> None:
        raise NotImplementedError

    def run(self, *, report_every: int = 500) -> Iterator[Progress]:
        """Train to the end, yielding a report every so many steps and after each evaluation."""
        raise NotImplementedError

    def final_evaluation(self) -> Evaluation:
        """Evaluate the best model on seeds that picked nothing."""
        raise NotImplementedError
