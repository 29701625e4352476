"""Whether streams that are added side by side stay apart, and how their resets are understood."""

from __future__ import annotations

import numpy as np

from prioritized_replay.conformance.scenario import scenario
from prioritized_replay.conformance.trial import Trials, require

ENDS = [[(4, "terminated")], [(7, "truncated")], [(100, "terminated")]]


@scenario(
    "What follows a step is of its own environment.",
    source="cpprb, documentation: episodes must be added one at a time",
)
def streams_do_not_mix(trials: Trials) -> str:
    trial = trials.new(capacity=60, num_envs=3)
    trial.add(20)
    return trial.holds()


@scenario(
    "The windows of each environment are of its own steps.",
    source="cpprb, documentation: n-step rows of interleaved environments are not safe",
)
def each_stream_has_its_windows(trials: Trials) -> str:
    trial = trials.new(capacity=90, num_envs=3, n_step=3)
    trial.add(20)
    return trial.holds()


@scenario(
    "The end of one environment's episode does not close the windows of the others.",
    source="AgileRL: done.any() ends the windows of all",
)
def one_end_leaves_others_open(trials: Trials) -> str:
    trial = trials.new(ENDS, capacity=90, num_envs=3, n_step=3, autoreset="same_step")
    trial.add(16)
    first = {number for number in trial.walk.numbers if number % 3 == 2}
    return trial.holds([number for number in trial.live if number in first])


@scenario(
    "With resets in the next step, the reset step is no row.",
    source="cleanrl#499: Gymnasium 1.0; its documentation of AutoresetMode",
)
def reset_steps_are_no_rows(trials: Trials) -> str:
    trial = trials.new(ENDS, capacity=90, num_envs=3, autoreset="next_step")
    trial.add(24)
    counts = trial.counts()
    return f"{counts.sum():,} draws of {counts.size} rows; 72 steps, 7 of them resets"


@scenario(
    "With resets in the next step, the last row of an episode has its final observation.",
    source="Gymnasium, documentation of AutoresetMode.NEXT_STEP",
)
def last_rows_with_resets_in_the_next_step(trials: Trials) -> str:
    trial = trials.new(ENDS, capacity=90, num_envs=3, autoreset="next_step")
    trial.add(24)
    return trial.holds()


@scenario(
    "With resets in the next step, no window crosses one.",
    source="automl/Mighty#108, cleanrl#499; Gymnasium, AutoresetMode.NEXT_STEP",
)
def windows_with_resets_in_the_next_step(trials: Trials) -> str:
    trial = trials.new(ENDS, capacity=90, num_envs=3, n_step=3, autoreset="next_step")
    trial.add(24)
    return trial.holds()


@scenario(
    "With resets in the same step, a truncated row bootstraps from final_obs, not from next_obs.",
    source="sail-sg/envpool#194; Gymnasium, documentation of AutoresetMode.SAME_STEP",
)
def truncation_with_resets_in_the_same_step(trials: Trials) -> str:
    trial = trials.new([(5, "truncated")], capacity=60, num_envs=3, autoreset="same_step")
    trial.add(20)
    return trial.holds(trial.live[12:15] + trial.live[27:30])


@scenario(
    "With resets in the same step, a terminated row has no future.",
    source="Gymnasium, documentation of AutoresetMode.SAME_STEP",
)
def termination_with_resets_in_the_same_step(trials: Trials) -> str:
    trial = trials.new([(5, "terminated")], capacity=60, num_envs=3, autoreset="same_step")
    trial.add(20)
    return trial.holds(trial.live[12:15] + trial.live[27:30])


@scenario(
    "With resets in the same step, no window crosses one.",
    source="pytorch/rl#2473; Gymnasium, documentation of AutoresetMode.SAME_STEP",
)
def windows_with_resets_in_the_same_step(trials: Trials) -> str:
    trial = trials.new(ENDS, capacity=90, num_envs=3, n_step=3, autoreset="same_step")
    trial.add(24)
    return trial.holds()


@scenario(
    "Where the caller resets environments, episodes end as they were said to.",
    source="Gymnasium, documentation of AutoresetMode.DISABLED",
)
def environments_that_the_caller_resets(trials: Trials) -> str:
    trial = trials.new(ENDS, capacity=90, num_envs=3, n_step=3, autoreset="disabled")
    trial.add(24)
    return trial.holds()


@scenario(
    "The capacity counts transitions, whatever the number of environments is.",
    source="DLR-RM/stable-baselines3: buffer_size // n_envs rows for each",
)
def the_capacity_counts_transitions(trials: Trials) -> str:
    trial = trials.new(capacity=30, num_envs=3)
    trial.add(25)
    require(len(trial.memory) == 30, f"{len(trial.memory)} rows of 30")
    counts = trial.counts()
    require(counts.all(), f"these were never drawn: {np.flatnonzero(counts == 0)}")
    return "the newest 30 of 75 steps, and no others"


@scenario(
    "One environment side by side with none is like a single one.",
    source="Gymnasium: SyncVectorEnv of one environment",
)
def a_vector_of_one(trials: Trials) -> str:
    trial = trials.new([(5, "truncated")], capacity=40, num_envs=1, n_step=3)
    trial.add(30)
    return trial.holds()


@scenario(
    "The law holds across environments.",
    source="DLR-RM/stable-baselines3#1242: one tree for all, or one for each?",
)
def one_law_for_all_streams(trials: Trials) -> str:
    trial = trials.new(capacity=64, num_envs=4)
    trial.add(16)
    errors = trials.errors(64)
    if trials.law != "uniform":
        trial.assign(errors)
    return trial.follows(trial.masses(errors))
