"""What a run says at its end, or when it was stopped: how good, where it is, and what to do next.

Knows a training, its folder and the console; changes nothing.
"""

import os
import shlex

from rich.console import Console

from prioritized_replay.runs.console import say
from prioritized_replay.runs.display import clock_time
from prioritized_replay.runs.evaluate import say_scores
from prioritized_replay.runs.folder import CURVE, Model, RunFolder
from prioritized_replay.runs.metrics import METRICS
from prioritized_replay.runs.records import EVALUATION
from prioritized_replay.training.evaluation import Evaluation
from prioritized_replay.training.loop import Training


def say_result(
    console: Console,
    folder: RunFolder,
    training: Training,
    evaluation: Evaluation,
    seconds: float,
    threshold: float | None,
) -> None:
    """Say how good the best model of a complete run is."""
    done = f"Trained {training.steps:,} steps in {clock_time(seconds)} with all evaluations"
    episodes = len(evaluation.returns)
    say(console, "")
    say(
        console,
        f"{done}; best model: step {training.best_step:,}.",
    )
    say(console, f"Evaluated on {episodes} episodes that played no part in training:")
    say_scores(console, evaluation, threshold)
    _say_where(console, folder, (CURVE, METRICS, EVALUATION), "best", resumable=False)


def say_stopped(console: Console, folder: RunFolder, training: Training, saved: int | None) -> None:
    """Say what a run that was stopped has saved.

    Parameters
    ----------
    console : rich.console.Console
    folder : RunFolder
    training : Training
    saved : int or None
        The step of its checkpoint.
    """
    best = training.best_evaluation
    say(console, "")
    say(
        console,
        f"Stopped at step {training.step:,} of {training.steps:,}; what was learnt is saved.",
    )
    if best is not None:
        at = f"step {training.best_step:,}, {len(best.returns)} episodes"
        say(console, f"Best evaluation so far: mean return {best.mean:.1f} ({at}).")
    if saved is not None and saved < training.step:
        say(console, f"The last checkpoint is of step {saved:,}.")
    model: Model = "best" if best is not None else "last"
    resumable = saved is not None and not folder.is_complete(training.steps)
    _say_where(console, folder, (CURVE, METRICS), model, resumable=resumable)


def _say_where(
    console: Console, folder: RunFolder, files: tuple[str, ...], model: Model, *, resumable: bool
) -> None:
    quoted = shlex.quote(str(folder.path))
    option = "" if model == "best" else f" --model {model}"
    say(console, "")
    say(console, f"Look at it, in {folder.path}{os.sep}")
    say(console, f"  {', '.join(files)}")
    say(console, "Go on with")
    if resumable:
        say(console, f"  per train --resume {quoted}")
    say(console, f"  per evaluate {quoted}{option} --gif episode.gif")
    say(console, f"  tensorboard --logdir {quoted}")
