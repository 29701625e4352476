"""Whether numbers that are very large, very small or none at all do harm."""

from __future__ import annotations

import contextlib

import numpy as np

from prioritized_replay.conformance.memory import NotClaimed, picked
from prioritized_replay.conformance.scenario import scenario
from prioritized_replay.conformance.trial import Failure, Trials, require


@scenario(
    "An error that is NaN is refused.",
    source="Curt-Park/rainbow-is-all-you-need#17, medipixel/rl_algorithms#249",
    laws=("proportional", "rank"),
)
def nan_is_refused(trials: Trials) -> str:
    trial = trials.full(16)
    trial.cover()
    ids, _ = trial.kept[0]
    try:
        trial.memory.update(picked(ids, [0, 1]), np.array([0.5, np.nan]))
    except NotClaimed:
        raise
    except Exception as refusal:
        return f"{type(refusal).__name__}: {refusal}"
    raise Failure("it was taken")


@scenario(
    "An error that is infinite is refused.",
    source="google-deepmind/dqn_zoo: priorities must be finite",
    laws=("proportional", "rank"),
)
def infinity_is_refused(trials: Trials) -> str:
    trial = trials.full(16)
    trial.cover()
    ids, _ = trial.kept[0]
    try:
        trial.memory.update(picked(ids, [0, 1]), np.array([0.5, np.inf]))
    except NotClaimed:
        raise
    except Exception as refusal:
        return f"{type(refusal).__name__}: {refusal}"
    raise Failure("it was taken")


@scenario(
    "NaN for one row leaves the draws of the others as they are.",
    source="cpprb: one NaN makes the root NaN, and the first row is always drawn",
    laws=("proportional", "rank"),
)
def nan_does_no_harm_to_others(trials: Trials) -> str:
    trial, errors = trials.full(16), trials.errors(16)
    trial.assign(errors)
    ids, numbers = trial.kept[0]
    last = int(np.flatnonzero(numbers == 15)[0])
    with contextlib.suppress(ValueError, FloatingPointError, RuntimeError, AssertionError):
        trial.memory.update(picked(ids, [last]), np.array([np.nan]))
    return trial.follows(trial.masses(errors)[:15], among=slice(0, 15))


@scenario(
    "A batch of errors of which one is refused changes no row.",
    source="google-deepmind/dqn_zoo and reverb check before they write",
    laws=("proportional", "rank"),
)
def a_refused_batch_changes_nothing(trials: Trials) -> str:
    trial, errors = trials.full(16), trials.errors(16)
    trial.assign(errors)
    ids, numbers = trial.kept[0]
    bad = np.where(np.arange(len(numbers)) == len(numbers) - 1, np.nan, 5.0)
    refused = False
    try:
        trial.memory.update(ids, bad)
    except Exception:
        refused = True
    require(refused, "NaN was taken")
    return trial.follows(trial.masses(errors))


@scenario(
    "The law holds where errors differ by a factor of 1e12.",
    source="flashbax#52: large rounding errors",
    laws=("proportional", "rank"),
)
def errors_over_twelve_decades(trials: Trials) -> str:
    trial = trials.full(64)
    errors = trials.rng.permutation(10.0 ** np.linspace(-6, 6, 64))
    trial.assign(errors)
    return trial.follows(trial.masses(errors))


@scenario(
    "Errors as large as 1e30 are numbers like others.",
    source="google-deepmind/dqn_zoo refuses sums that overflow; float32 ends at 3e38",
    laws=("proportional", "rank"),
)
def huge_errors(trials: Trials) -> str:
    trial, errors = trials.full(64), 1e30 * trials.errors(64)
    trial.assign(errors)
    return trial.follows(trial.masses(errors))


@scenario(
    "If all errors are 0, all rows are equally likely.",
    source="rainbow-is-all-you-need#17: an assertion that priorities are positive",
    laws=("proportional",),
)
def all_errors_zero(trials: Trials) -> str:
    trial = trials.full(32)
    trial.assign(np.zeros(32))
    return trial.follows(np.ones(32))


@scenario(
    "A row of priority 0 is never drawn, be it the first or the last.",
    source="pytorch/rl#2230, flashbax#52, ReinforcementLearningCore.jl#83",
    laws=("proportional",),
)
def rows_of_priority_zero_are_never_drawn(trials: Trials) -> str:
    trial = trials.full(37, eps=0.0)
    errors = np.where(np.arange(37) % 3 == 1, trials.errors(37), 0.0)
    trial.assign(errors)
    counts = trial.counts(65_536)
    zero = counts[errors == 0.0]
    require(not zero.any(), f"such rows were drawn {zero.sum()} times")
    return f"25 of 37 rows have priority 0: none of them in {counts.sum():,} draws"


@scenario(
    "Sums of priorities do not drift: after many updates rows are drawn as if there had been none.",
    source="flashbax#52; sums to which differences are added, in float32",
    laws=("proportional", "rank"),
)
def sums_do_not_drift(trials: Trials) -> str:
    trial = trials.full(64, alpha=1.0)
    trial.cover()
    for _ in range(100):
        trial.assign(10.0 ** trials.rng.uniform(-3, 6, 64))
    small = 0.01 * trials.errors(64)
    trial.assign(small)
    return trial.follows(trial.masses(small))


@scenario(
    "An outlier of 1e12 leaves no trace after it is gone.",
    source="dopamine: sums in float64 to which differences are added were 2.9 % off",
    laws=("proportional", "rank"),
)
def an_outlier_leaves_no_trace(trials: Trials) -> str:
    trial, small = trials.full(64, alpha=1.0), 1e-3 * trials.errors(64)
    trial.cover()
    for _ in range(50):
        trial.assign(np.where(np.arange(64) == trials.rng.integers(64), 1e12, small))
    trial.assign(small)
    return trial.follows(trial.masses(small))


@scenario(
    "A large memory is drawn from everywhere.",
    source="pytorch/rl#2230: the search in float32 sums",
)
def a_large_memory_is_drawn_everywhere(trials: Trials) -> str:
    trial = trials.full(5000)
    counts = trial.counts(16_384).reshape(50, 100).sum(axis=1)
    expected = counts.sum() / 50
    text = f"50 parts of 100 rows: {counts.min()} to {counts.max()} draws, {expected:.0f} expected"
    require(np.abs(counts - expected).max() < 6 * expected**0.5, text)
    return text


@scenario(
    "One row with nearly all of the mass leaves the others their proportions.",
    source="Schaul et al. 2015, section 5: clipping hides what outliers do",
    laws=("proportional",),
)
def one_row_of_nearly_all_mass(trials: Trials) -> str:
    trial, errors = trials.full(16, alpha=1.0), trials.errors(16)
    errors[3] = 100.0
    trial.assign(errors)
    return trial.follows(trial.masses(errors), draws=32_768)
