"""Whether several threads may use a memory at the same time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import numpy as np

from prioritized_replay.conformance.scenario import scenario
from prioritized_replay.conformance.trial import Trial, Trials, fits, require


def together(*tasks: Callable[[], object]) -> None:
    """Run tasks in threads of their own, which take turns often; raise what one of them raises."""
    raised: list[BaseException] = []

    def run(task: Callable[[], object]) -> None:
        try:
            task()
        except BaseException as error:
            raised.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if raised:
        raise raised[0]


def adding(trial: Trial, steps: int) -> Callable[[], None]:
    """Return a task that adds so many steps, which are made now."""
    made = [trial.walk.step() for _ in range(steps)]

    def task() -> None:
        for step in made:
            trial.memory.add(step)

    return task


@scenario(
    "The steps that several threads add are all there.",
    source="Horgan et al. 2018 (Ape-X): many actors, one memory; uber-research/ape-x#7",
)
def steps_of_several_threads_arrive(trials: Trials) -> str:
    trial = trials.new([(1, "truncated")], capacity=400)
    together(*[adding(trial, 75) for _ in range(4)])
    require(len(trial.memory) == 300, f"{len(trial.memory)} rows of 300")
    return trial.holds()


@scenario(
    "Rows that are drawn while others are added are whole.",
    source="huggingface/lerobot#2309, pytorch/rl#3463: rows that are written while they are read",
)
def rows_are_whole_while_others_are_added(trials: Trials) -> str:
    trial = trials.full(64, obs_shape=(2000,))
    faults: list[str | None] = []

    def draw() -> None:
        faults.extend(trial.walk.fault_in(trial.memory.sample(16, 0.5)) for _ in range(200))

    together(adding(trial, 1000), draw)
    wrong = [fault for fault in faults if fault]
    require(not wrong, f"{len(wrong)} of 200 batches: {wrong[:1]}")
    return "200 batches of 16, while 1,000 steps were added"


@scenario(
    "Threads may draw at the same time: their rows are whole, and together they follow the law.",
    source="huggingface/lerobot#2309: batches are fetched ahead in a thread",
)
def several_threads_may_draw(trials: Trials) -> str:
    trial, errors = trials.full(64), trials.errors(64)
    if trials.law != "uniform":
        trial.assign(errors)
    seen: list[tuple[np.ndarray, str | None]] = []

    def look() -> tuple[np.ndarray, str | None]:
        return trial.counts(64), trial.walk.fault_in(trial.memory.sample(16, 0.5))

    together(*[lambda: seen.extend(look() for _ in range(32))] * 4)
    wrong = [fault for _, fault in seen if fault]
    require(not wrong, f"{len(wrong)} of {len(seen)} batches: {wrong[:1]}")
    return fits(np.sum([counts for counts, _ in seen], axis=0), trial.masses(errors))


@scenario(
    "Errors may be given back while others add: afterwards the law holds.",
    source="ray#6534; cpprb: its memory for processes has one learner",
    laws=("proportional", "rank"),
)
def errors_while_others_add(trials: Trials) -> str:
    trial, errors = trials.full(64), trials.errors(64)
    rng = np.random.default_rng(1)

    def learn() -> None:
        for _ in range(300):
            drawn = trial.memory.sample(16, 0.5)
            trial.memory.update(drawn.ids, rng.random(16))

    together(adding(trial, 1000), learn)
    trial.cover()
    trial.assign(errors)
    return trial.follows(trial.masses(errors))


@scenario(
    "What is saved while others add is of one moment.",
    source="streaming a memory to disk in the background, as Reverb does",
)
def a_save_while_others_add(trials: Trials) -> str:
    trial = trials.full(64)
    kept: list[Trial] = []
    together(adding(trial, 3000), lambda: kept.extend(trial.reloaded() for _ in range(5)))
    for other in kept:
        drawn = other.memory.sample(256, 0.5)
        numbers = other.walk.numbers_in(drawn)
        require(np.ptp(numbers) < 64, f"steps {numbers.min()} to {numbers.max()} in 64 rows")
        fault = other.walk.fault_in(drawn)
        require(fault is None, f"{fault}")
    return "5 times, each 64 steps in a row"
