"""Training runs in processes of their own, several at a time.

Knows how to train one configuration and to report from another process; knows nothing of files,
arms or what the results are compared for.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from prioritized_replay.training.config import TrainConfig


@dataclass(frozen=True)
class Outcome:
    """The outcome of one training run.

    Attributes
    ----------
    best_step : int
        Step of the evaluation that chose the best model.
    final_mean, final_iqm : float
        Mean and interquartile mean of the returns of the best model, over episodes that chose
        nothing.
    curve : tuple of (step, mean return)
        The evaluations during training.
    wall_seconds : float
        From the first step to the end of the last evaluation.
    steps_per_second : float
        Environment steps per second of training, evaluations not counted.
    """

    best_step: int
    final_mean: float
    final_iqm: float
    curve: tuple[tuple[int, float], ...]
    wall_seconds: float
    steps_per_second: float


def train(config: TrainConfig) -> Iterator[int | Outcome]:
    """Train to the end, yielding the step now and then and at last the outcome."""
    from prioritized_replay.training.loop import Training

    began = time.perf_counter()
    training = Training(config)
    best_step, previous, training_seconds = 0, 0, 0.0
    curve = []
    for progress in training.run():
        training_seconds += (progress.step - previous) / progress.steps_per_second
        previous = progress.step
        if progress.evaluation is not None:
            curve.append((progress.step, progress.evaluation.mean))
            if progress.is_best:
                best_step = progress.step
        yield progress.step
    final = training.final_evaluation()
    training.close()
    yield Outcome(
        best_step=best_step,
        final_mean=final.mean,
        final_iqm=final.iqm,
        curve=tuple(curve),
        wall_seconds=time.perf_counter() - began,
        steps_per_second=config.steps / training_seconds,
    )


def train_all(
    configs: Sequence[TrainConfig], workers: int
) -> Iterator[tuple[TrainConfig, int | Outcome | str]]:
    """Train all configurations, ``workers`` at a time, in the order given.

    Closing the generator, or an exception where it is read, ends the processes.

    Parameters
    ----------
    configs : sequence of TrainConfig
        What to train; each run has a new process.
    workers : int
        How many processes at a time, >= 1.

    Yields
    ------
    configuration, int
        That run has got to this step.
    configuration, Outcome
        It is finished.
    configuration, str
        It failed, for this reason. The others continue.
    """
    waiting = deque(configs)
    running: dict[Connection, tuple[TrainConfig, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                config = waiting.popleft()
                connection, process = _start(config)
                running[connection] = config, process
                yield config, 0
            ready = set(wait(list(running)))
            for connection in [c for c in running if c in ready]:
                config, process = running[connection]
                try:
                    message = connection.recv()
                except EOFError:
                    process.join()
                    message = f"its process ended with exit code {process.exitcode}"
                if not isinstance(message, int):
                    del running[connection]
                    connection.close()
                    process.join()
                yield config, message
    finally:
        for connection, (_, process) in running.items():
            process.terminate()
            process.join()
            connection.close()


def _start(config: TrainConfig) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads' locks
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_train_and_send, args=(config, theirs), daemon=True)
    if threading.current_thread() is threading.main_thread():
        # Ctrl-C reaches every process of the terminal. A new process inherits that it is ignored,
        # so that only this one acts on it, and ends the others.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, before)
    else:
        process.start()
    theirs.close()
    return ours, process


def _train_and_send(config: TrainConfig, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # not inherited on Windows
    try:
        for message in train(config):
            connection.send(message)
    except BrokenPipeError:
        pass  # nobody waits for the result any more
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
