"""What happens where an episode, the ring, or the memory itself begins and ends."""

from __future__ import annotations

import numpy as np

from prioritized_replay.conformance.memory import NotClaimed
from prioritized_replay.conformance.scenario import scenario
from prioritized_replay.conformance.trial import Failure, Trials, require

PAPER = "Schaul et al. 2015"


@scenario(
    "A row is a step that was added: its observation, action, reward and what followed it.",
    source="Kaixhin/Rainbow#7, flashbax#51: rows of two episodes across the write position",
)
def rows_are_what_was_added(trials: Trials) -> str:
    trial = trials.new([(7, "terminated"), (5, "truncated")], capacity=10)
    trial.add(37)
    for _ in range(8):
        trial.draw(64)
    return "512 rows, after 37 steps into a memory of 10"


@scenario(
    "A full memory holds the newest N rows: each of them can be drawn, and no other.",
    source=f"{PAPER}, Algorithm 1: a sliding window memory; ray#54284: an error where one leaves",
)
def the_newest_rows_are_there(trials: Trials) -> str:
    trial = trials.new(capacity=10)
    trial.add(37)
    counts = trial.counts(2048)
    require(counts.all(), f"these were never drawn: {np.flatnonzero(counts == 0)}")
    return f"draws of each: {counts.tolist()}"


@scenario(
    "The newest row can be drawn, with 1, 2, 3, 4 rows and in a full memory of 5.",
    source="openai/baselines#171, hill-a/stable-baselines#941: the last row is never drawn",
)
def the_newest_row_can_be_drawn(trials: Trials) -> str:
    trial = trials.new(capacity=5)
    for rows in range(1, 6):
        trial.add()
        counts = trial.counts(1024)
        require(
            counts.all(), f"of {rows} rows, these were never drawn: {np.flatnonzero(counts == 0)}"
        )
    return "with 1 to 5 rows, each came in 1,024 draws"


@scenario(
    "The first row of a memory can be drawn at once: p_1 = 1.",
    source=f"{PAPER}, Algorithm 1, line 2; a largest priority of nothing is 0 or an error",
)
def the_first_row_can_be_drawn(trials: Trials) -> str:
    trial = trials.new(capacity=100)
    trial.add()
    trial.draw(1)
    return "it was drawn"


@scenario(
    "A memory of one row holds the newest step.",
    source="Schaul et al. 2015, Algorithm 1, with N = 1",
)
def a_memory_of_one_row(trials: Trials) -> str:
    trial = trials.new(capacity=1)
    for _ in range(5):
        trial.add()
        trial.draw(1)
    return "5 steps, each drawn after it was added"


@scenario(
    "An empty memory refuses to draw.",
    source="tensorforce#308: a slot that holds nothing is returned",
)
def an_empty_memory_refuses(trials: Trials) -> str:
    memory = trials.new(capacity=10).memory
    try:
        drawn = memory.sample(1, 0.5)
    except NotClaimed:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise Failure(f"it returned a row with action {np.ravel(drawn.action)[:1]}")


@scenario(
    "A slot that was never filled is never drawn.",
    source="pytorch/rl#2230, flashbax#52, Howuhh/prioritized_experience_replay#3",
)
def empty_slots_are_never_drawn(trials: Trials) -> str:
    trial = trials.new(capacity=1000)
    trial.add(3)
    counts = trial.counts(32_768)
    return f"3 rows of 1,000 slots came {counts.tolist()} times in 32,768 draws"


@scenario(
    "The capacity need not be a power of two.",
    source="cleanrl#546: the leaves of such a tree are out of order",
)
def any_capacity_will_do(trials: Trials) -> str:
    trial = trials.new(capacity=37)
    trial.add(37 + 20)
    errors = trials.errors(37)
    if trials.law != "uniform":
        trial.assign(errors)
    return trial.follows(trial.masses(errors))


@scenario(
    "The newest row comes with the observation that followed it, before the next step is added.",
    source="DLR-RM/stable-baselines3#934; tianshou's ignore_obs_next",
)
def the_newest_row_has_its_next_obs(trials: Trials) -> str:
    trial = trials.full(10)
    for _ in range(15):
        trial.add()
        trial.holds(trial.live[-1:])
    return "15 times, all around a memory of 10"


@scenario(
    "A step that ended in termination has discount 0: nothing follows.",
    source=f"{PAPER}, Algorithm 1, line 5: gamma_t = 0",
)
def terminated_steps_do_not_bootstrap(trials: Trials) -> str:
    trial = trials.new([(4, "terminated")], capacity=20)
    trial.add(20)
    return trial.holds(trial.live[3::4])


@scenario(
    "A step that was truncated bootstraps, from the last observation of its own episode.",
    source="Pardo et al. 2018; DLR-RM/stable-baselines3#1503",
)
def truncated_steps_bootstrap(trials: Trials) -> str:
    trial = trials.new([(4, "truncated")], capacity=20)
    trial.add(20)
    return trial.holds(trial.live[3::4])


@scenario(
    "Episodes of one step are rows like others.",
    source="Schaul et al. 2015, appendix B.1: half of the Blind Cliffwalk's end at once",
)
def episodes_of_one_step(trials: Trials) -> str:
    trial = trials.new([(1, "terminated"), (1, "truncated")], capacity=12)
    trial.add(30)
    return trial.holds()


@scenario(
    "A new row has nothing of the priority of the row that it overwrites.",
    source="sfujim/LAP-PAL: a priority that is written to the slot after",
    laws=("proportional", "rank"),
)
def a_new_row_inherits_no_priority(trials: Trials) -> str:
    trial = trials.full(16)
    errors = np.where(np.arange(16) < 4, 1e-3, 1.0)
    trial.assign(errors)
    trial.add(4)
    counts = trial.counts()
    text = f"the 4 new rows of 16 get {counts[12:].sum() / counts.sum():.1%} of the draws"
    require(counts[12:].sum() > 0.2 * counts.sum(), text)
    return text


@scenario(
    "When the row of the largest error is gone, new rows enter at it still, or at the largest now.",
    source="pytorch/rl#2210; the paper's text allows both",
    laws=("proportional",),
)
def the_maximum_after_its_row_is_gone(trials: Trials) -> str:
    trial = trials.full(16)
    trial.assign([4.0, *[0.1] * 15])
    trial.add(16)
    trial.cover()
    trial.assign(np.full(16, 0.1))
    trial.add()
    masses = [trial.masses([*[0.1] * 15, largest]) for largest in (4.0, 0.1)]
    try:
        return "the largest ever: " + trial.follows(masses[0])
    except Failure:
        return "the largest now: " + trial.follows(masses[1])


@scenario(
    "Emptying a memory removes its rows and their priorities.",
    source="AgileRL: clear() leaves the trees as they are",
)
def clear_removes_everything(trials: Trials) -> str:
    trial = trials.full(16)
    if trials.law != "uniform":
        trial.assign(trials.errors(16))
    trial.clear()
    require(len(trial.memory) == 0, f"{len(trial.memory)} rows are left")
    trial.add(5)
    counts = trial.counts(2048)
    require(counts.all(), f"these were never drawn: {np.flatnonzero(counts == 0)}")
    return f"draws of each of 5 new rows: {counts.tolist()}"


@scenario(
    "The length is the number of rows that can be drawn.",
    source="google-deepmind/dqn_zoo: its replay's size, checked after each step",
)
def the_length_counts_rows(trials: Trials) -> str:
    trial = trials.new(capacity=10)
    seen = [len(trial.memory)]
    for steps in (1, 4, 5, 7):
        trial.add(steps)
        seen.append(len(trial.memory))
    require(seen == [0, 1, 5, 10, 10], f"{seen}, should be [0, 1, 5, 10, 10]")
    return str(seen)


@scenario(
    "Drawing with replacement, a batch may be larger than the memory.",
    source=f"{PAPER}, Algorithm 1: draws are from P(i), again and again",
)
def a_batch_larger_than_the_memory(trials: Trials) -> str:
    if trials.adapter.draw == "without_replacement":
        raise NotClaimed("it draws without replacement")
    trial = trials.new(capacity=100)
    trial.add(3)
    trial.draw(64)
    return "64 of 3"
