"""The state of a training besides its replay: for its next report, and for being resumed.

Knows the parts of a training and tensors; knows nothing of environments or files.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from prioritized_replay.dqn import DQN
from prioritized_replay.dqn.choices import Loss
from prioritized_replay.dqn.td import td_loss
from prioritized_replay.training.evaluation import Evaluation
from prioritized_replay.training.progress import Progress

if TYPE_CHECKING:
    from prioritized_replay.training.loop import Training

State = dict[str, Any]

_RECENT = 100  # training episodes in the mean return
_COUNTS = ("step", "episodes", "reported", "best_step", "begun")
# What a state of something else may raise on the way into torch and NumPy.
_OTHER_STATE = (TypeError, KeyError, AttributeError, RuntimeError, IndexError, OverflowError)


class Learnt:
    """Returns of the latest training episodes, td errors and weights since the last report.

    Attributes
    ----------
    returns : deque of float
        Of the last 100 training episodes.
    errors, weights : list of float32[B] tensors
        Of each update since the last report. Tensors are only collected: reading each of them
        would make a GPU wait.
    """

    def __init__(self) -> None:
        self.returns: deque[float] = deque(maxlen=_RECENT)
        self.errors: list[Tensor] = []
        self.weights: list[Tensor] = []

    def add_update(self, agent: DQN) -> None:
        """Note the td errors and the weights of an agent's latest update."""
        if agent.last_td_errors is not None and agent.last_weights is not None:
            self.errors.append(agent.last_td_errors)
            self.weights.append(agent.last_weights)

    def clear(self) -> None:
        """Forget the updates, after a report."""
        self.errors.clear()
        self.weights.clear()

    def mean_loss(self, loss: Loss) -> float:
        """Return the mean loss of the updates; batches are equally large. NaN if there are none."""
        if not self.errors:
            return math.nan
        return float(td_loss(torch.cat(self.errors), torch.cat(self.weights), loss))

    def mean_td_error(self) -> float:
        """Return the mean abs(td error) of the updates; NaN if there are none."""
        return float(torch.cat(self.errors).abs().mean()) if self.errors else math.nan


def progress_of(
    training: Training, pace: float, evaluation: Evaluation | None, is_best: bool
) -> Progress:
    """Return the report of a training at its present step."""
    agent, learnt = training.agent, training.learnt
    return Progress(
        step=training.step,
        steps=training.steps,
        updates=agent.updates,
        episodes=training.episodes,
        mean_return=float(np.mean(learnt.returns)) if learnt.returns else math.nan,
        last_return=learnt.returns[-1] if learnt.returns else math.nan,
        epsilon=agent.epsilon,
        beta=agent.beta,
        learning_rate=agent.learning_rate,
        loss=learnt.mean_loss(training.config.loss),
        td_error=learnt.mean_td_error(),
        effective_sample_size=_effective_sample_size(agent.last_weights),
        steps_per_second=pace,
        evaluation=evaluation,
        is_best=is_best,
        workers=training.workers(),
    )


def is_finite(state: Mapping[str, Tensor]) -> bool:
    """Return whether every number of a network's ``state_dict`` is finite."""
    return all(bool(tensor.isfinite().all()) for tensor in state.values())


def state_of(training: Training) -> State:
    """Return the state of a training; see :meth:`Training.state_dict`."""
    best, evaluation = None, training.best_evaluation
    if evaluation is not None:
        best = {
            "network": training.best_state,
            "returns": torch.from_numpy(evaluation.returns),
            "lengths": torch.from_numpy(evaluation.lengths),
            "numbers": [evaluation.mean, evaluation.std, evaluation.iqm, *evaluation.interval],
            "capped": evaluation.capped,
        }
    agent, learnt = training.agent, training.learnt
    latest = agent.last_td_errors, agent.last_weights
    return {
        "agent": agent.state_dict(),
        "counts": {name: getattr(training, name) for name in _COUNTS},
        "recent": [float(episode_return) for episode_return in learnt.returns],
        "errors": torch.cat(learnt.errors) if learnt.errors else None,
        "weights": torch.cat(learnt.weights) if learnt.weights else None,
        "latest": None if latest[0] is None else list(latest),
        "best": best,
    }


def restored(training: Training, state: State) -> None:
    """Bring a new training to a state; see :meth:`Training.resume`.

    Raises
    ------
    ValueError
        The state is not that of such a training, which cannot be used then.
    """
    try:
        _restore(training, state)
    except ValueError as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"the state does not fit the configuration: {said}") from error
    except _OTHER_STATE as error:
        # What torch says is about files and options of its own, so it is not quoted.
        raise ValueError(
            f"the state does not fit the configuration: {type(error).__name__} on the way in"
        ) from error


def _restore(training: Training, state: State) -> None:
    counts = {name: state["counts"][name] for name in _COUNTS}
    for name, count in counts.items():
        if type(count) is not int or count < 0:
            raise ValueError(f"{name} must be an integer >= 0, got {count!r}")
    agent, device, learnt = training.agent, training.agent.device, training.learnt
    agent.load_state_dict(state["agent"])
    if not is_finite(agent.online_network.state_dict()):
        raise ValueError("the network must be finite")
    vars(training).update(counts)
    learnt.returns.extend(map(float, state["recent"]))
    for name, kept in (("errors", learnt.errors), ("weights", learnt.weights)):
        if state[name] is not None:
            kept.append(_row_of_numbers(name, state[name]).to(device))
    if list(map(len, learnt.errors)) != list(map(len, learnt.weights)):
        raise ValueError("there must be as many weights as errors")
    if state["latest"] is not None:
        for part in state["latest"]:
            _row_of_numbers("latest", part)
        agent.last_td_errors, agent.last_weights = (part.to(device) for part in state["latest"])
    if (best := state["best"]) is not None:
        _restore_best(training, best)


def _restore_best(training: Training, best: State) -> None:
    own = training.agent.online_network.state_dict()
    shapes = [{name: value.shape for name, value in n.items()} for n in (best["network"], own)]
    if shapes[0] != shapes[1]:
        raise ValueError("the best network has other layers")
    if not is_finite(best["network"]):
        raise ValueError("the best network must be finite")
    average, std, iqm, low, high = map(float, best["numbers"])
    training.best_state = best["network"]
    training.best_evaluation = Evaluation(
        returns=best["returns"].numpy(),
        lengths=best["lengths"].numpy(),
        mean=average,
        std=std,
        iqm=iqm,
        interval=(low, high),
        capped=int(best["capped"]),
    )


def _row_of_numbers(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 1 or not value.is_floating_point():
        raise ValueError(f"{name} must be a tensor of a row of numbers")
    return value


def _effective_sample_size(weights: Tensor | None) -> float:
    if weights is None:
        return math.nan
    return float(weights.sum() ** 2 / weights.square().sum())
