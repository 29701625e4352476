"""Whether errors that come late, twice, or out of turn reach the rows that they are of."""

from __future__ import annotations

import contextlib

import numpy as np

from prioritized_replay.conformance.memory import NotClaimed, picked
from prioritized_replay.conformance.scenario import scenario
from prioritized_replay.conformance.trial import DRAWS, Trials, require


@scenario(
    "An error whose row has been overwritten does not reach the new row in its place.",
    source="cleanrl#511, ray#6534, pytorch/rl#4041",
    laws=("proportional", "rank"),
)
def a_late_error_does_not_reach_the_new_row(trials: Trials) -> str:
    trial = trials.full(16)
    trial.cover()
    trial.add(16)
    late = np.where(np.arange(16) % 2 == 0, 1e-3, 1.0)
    for ids, numbers in trial.kept:
        with contextlib.suppress(ValueError, LookupError, RuntimeError, AssertionError):
            trial.memory.update(ids, late[numbers])
    share = trial.counts()[::2].sum() / DRAWS
    text = f"new rows in the slots of small late errors: {share:.1%} of the draws; half of the rows"
    require(0.4 < share < 0.6, text)
    return text


@scenario(
    "An error whose row has been overwritten is skipped, not answered with an exception.",
    source="ray#6534: such errors are common; dopamine: KeyError; dqn_zoo: IndexError",
    laws=("proportional", "rank"),
)
def a_late_error_is_no_exception(trials: Trials) -> str:
    trial = trials.full(16)
    trial.cover()
    trial.add(16)
    ids, numbers = trial.kept[0]
    trial.memory.update(ids, np.full(len(numbers), 0.5))
    return "nothing was raised"


@scenario(
    "The caller is told how many errors were applied.",
    source="pytorch/rl#4041 asks for it",
    laws=("proportional", "rank"),
)
def late_errors_are_counted(trials: Trials) -> str:
    trial = trials.full(16)
    trial.cover()
    ids, numbers = trial.kept[0]
    trial.add(8)
    applied = trial.memory.update(ids, np.full(len(numbers), 0.5))
    if applied is None:
        raise NotClaimed("it does not tell")
    due = int((numbers >= 8).sum())
    require(applied == due, f"{applied} were applied, should be {due} of {len(numbers)}")
    return f"{applied} of {len(numbers)}"


@scenario(
    "Of a batch that is partly overwritten, the errors of the other rows count.",
    source="HorizonRobotics/alf and google-deepmind/reverb do so",
    laws=("proportional", "rank"),
)
def errors_of_the_rows_that_are_left(trials: Trials) -> str:
    trial = trials.full(16)
    trial.cover()
    trial.add(8)
    errors = 0.5 * trials.errors(16)
    for ids, numbers in trial.kept:
        trial.memory.update(ids, errors[numbers])
    expected = trial.masses([*errors[8:], *[1.0] * 8])
    return trial.follows(expected[:8], among=slice(0, 8))


@scenario(
    "Of the errors of one row in a batch, the last counts.",
    source="Schaul et al. 2015, Algorithm 1, line 12; dopamine keeps the first",
    laws=("proportional", "rank"),
)
def of_repeated_ids_the_last_error_counts(trials: Trials) -> str:
    trial, errors = trials.full(16), trials.errors(16)
    trial.assign(errors)
    ids, numbers = trial.kept[0]
    place = int(np.flatnonzero(numbers == 3)[0])
    trial.memory.update(picked(ids, [place, place, place]), np.array([1.0, 0.01, 0.2]))
    errors[3] = 0.2
    return trial.follows(trial.masses(errors))


@scenario(
    "Several batches may be out at the same time: the errors of each count.",
    source="ray, RLlib: only the last batch's; cpprb: check_for_update starts anew with each draw",
    laws=("proportional", "rank"),
)
def several_batches_may_be_out(trials: Trials) -> str:
    trial, errors = trials.full(32), trials.errors(32)
    trial.cover()
    for _ in range(3):
        trial.draw(16)
    trial.assign(errors)
    return trial.follows(trial.masses(errors))


@scenario(
    "Errors reach their rows after more steps were added.",
    source="sfujim/LAP-PAL: a priority that is written to the slot after",
    laws=("proportional", "rank"),
)
def errors_after_more_steps(trials: Trials) -> str:
    trial, errors = trials.new(capacity=64), 0.5 * trials.errors(32)
    trial.add(32)
    trial.cover()
    trial.add(16)
    for ids, numbers in trial.kept:
        trial.memory.update(ids, errors[numbers])
    shares = trial.masses([*errors, *[1.0] * 16])[:32]
    return trial.follows(shares, among=slice(0, 32))


@scenario(
    "An update changes the rows that it names and no others.",
    source="Schaul et al. 2015, Algorithm 1, line 12",
    laws=("proportional", "rank"),
)
def an_update_changes_only_its_rows(trials: Trials) -> str:
    trial, errors = trials.full(16), trials.errors(16)
    trial.assign(errors)
    ids, numbers = trial.kept[0]
    place = int(np.flatnonzero(numbers == 7)[0])
    trial.memory.update(picked(ids, [place]), np.array([2.0]))
    errors[7] = 2.0
    return trial.follows(trial.masses(errors))


@scenario(
    "An id is still known as old after the ring has turned many times.",
    source="pytorch/rl#4041: ids that are slots fit again after each turn",
    laws=("proportional", "rank"),
)
def ids_stay_old_after_many_turns(trials: Trials) -> str:
    trial = trials.full(16)
    trial.cover()
    trial.add(16 * 256)
    late = np.where(np.arange(16) % 2 == 0, 1e-3, 1.0)
    for ids, numbers in trial.kept:
        with contextlib.suppress(ValueError, LookupError, RuntimeError, AssertionError):
            trial.memory.update(ids, late[numbers])
    share = trial.counts()[::2].sum() / DRAWS
    text = f"new rows in the slots of small late errors: {share:.1%} of the draws; half of the rows"
    require(0.4 < share < 0.6, text)
    return text
