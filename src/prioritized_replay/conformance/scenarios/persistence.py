"""Whether a memory that was saved goes on as if nothing had happened, and chance is its own."""

from __future__ import annotations

import random

import numpy as np

from prioritized_replay.conformance.scenario import scenario
from prioritized_replay.conformance.trial import Trials, require


@scenario(
    "Rows survive.",
    source="thu-ml/tianshou#728, pytorch/rl#3120: memories that cannot be restored",
)
def rows_survive(trials: Trials) -> str:
    trial = trials.new([(7, "terminated"), (5, "truncated")], capacity=32)
    trial.add(50)
    return trial.reloaded().holds()


@scenario(
    "Priorities survive.",
    source="cpprb, save_transitions: rows are added anew, at the largest priority",
    laws=("proportional", "rank"),
)
def priorities_survive(trials: Trials) -> str:
    trial, errors = trials.full(32), trials.errors(32)
    trial.assign(errors)
    return trial.reloaded().follows(trial.masses(errors))


@scenario(
    "The largest priority survives: rows that are added later enter at it.",
    source="dopamine: max_recorded_priority is not in the checkpoint",
    laws=("proportional",),
)
def the_largest_priority_survives(trials: Trials) -> str:
    trial = trials.new(capacity=64)
    trial.add(24)
    errors = 8.0 * trials.errors(24)
    trial.assign(errors)
    other = trial.reloaded()
    other.add(8)
    return other.follows(trial.masses([*errors, *[8.0] * 8]))


@scenario(
    "The random numbers survive: the next batches are those that would have come.",
    source="thu-ml/tianshou, cpprb: their generators are not saved",
)
def the_next_batches_are_the_same(trials: Trials) -> str:
    trial = trials.full(64)
    trial.draw(7)
    other = trial.reloaded()
    for k in range(20):
        numbers = trial.draw(16)[1], other.draw(16)[1]
        require(np.array_equal(*numbers), f"batch {k + 1} is another one")
    return "20 batches of 16"


@scenario(
    "Open windows survive: they are completed by the steps that come after loading.",
    source="ray#8151: what happens to the replay buffer upon restoring?",
)
def open_windows_survive(trials: Trials) -> str:
    trial = trials.new(capacity=64, n_step=3)
    trial.add(20)
    other = trial.reloaded()
    other.add(10)
    return other.holds()


@scenario(
    "The order of the ring survives: the oldest row is overwritten first.",
    source="cpprb, load_transitions: the order is lost after a turn",
)
def the_order_of_the_ring_survives(trials: Trials) -> str:
    trial = trials.new(capacity=16)
    trial.add(25)
    other = trial.reloaded()
    other.add(5)
    other.counts(2048)
    return other.holds()


@scenario(
    "Ids survive: errors of a batch that was drawn before saving count after loading.",
    source="ray#8151; learners that are resumed together with their memory",
    laws=("proportional", "rank"),
)
def ids_survive(trials: Trials) -> str:
    trial, errors = trials.full(32), trials.errors(32)
    trial.cover()
    other = trial.reloaded()
    other.assign(errors)
    return other.follows(trial.masses(errors))


@scenario(
    "A memory that is not full yet survives, and fills up after loading.",
    source="pytorch/rl#3055: the size of a memory that was saved",
)
def a_part_filled_memory_survives(trials: Trials) -> str:
    trial = trials.new(capacity=64)
    trial.add(10)
    other = trial.reloaded()
    require(len(other.memory) == 10, f"{len(other.memory)} rows of 10")
    other.add(60)
    return other.holds()


@scenario(
    "Saving changes nothing in the memory that is saved.",
    source="Schaul et al. 2015, Algorithm 1: learning goes on",
)
def saving_changes_nothing(trials: Trials) -> str:
    saved, plain = trials.full(32), trials.full(32)
    saved.reloaded()
    for k in range(20):
        numbers = saved.draw(16)[1], plain.draw(16)[1]
        require(np.array_equal(*numbers), f"batch {k + 1} is another than without saving")
    return "20 batches of 16"


@scenario(
    "The same seed gives the same batches.",
    source="cpprb: std::random_device; coax-dev/coax#24",
)
def the_same_seed_gives_the_same_batches(trials: Trials) -> str:
    first, second = trials.full(64, seed=5), trials.full(64, seed=5)
    for k in range(20):
        numbers = first.draw(16)[1], second.draw(16)[1]
        require(np.array_equal(*numbers), f"batch {k + 1} is another one")
    return "20 batches of 16"


@scenario(
    "Another seed gives other batches.",
    source="coax-dev/coax#24: random_seed is not handed on to the sum tree",
)
def another_seed_gives_other_batches(trials: Trials) -> str:
    first, second = trials.full(64, seed=5), trials.full(64, seed=6)
    same = sum(np.array_equal(first.draw(16)[1], second.draw(16)[1]) for _ in range(20))
    require(same == 0, f"{same} of 20 batches are the same")
    return "20 batches of 16"


@scenario(
    "Draws neither use nor move the global generators of NumPy and Python.",
    source="openai/baselines, pytorch/rl, thu-ml/tianshou: np.random and random",
)
def global_generators_are_left_alone(trials: Trials) -> str:
    trial = trials.full(64)
    before = random.getstate(), str(np.random.get_state())  # noqa: NPY002
    trial.draw(16)
    after = random.getstate(), str(np.random.get_state())  # noqa: NPY002
    require(before[0] == after[0], "random has moved")
    require(before[1] == after[1], "numpy.random has moved")
    return "after a batch of 16 their states are as before"
