"""Which rows are drawn how often."""

from __future__ import annotations

import numpy as np

from prioritized_replay.conformance.memory import NotClaimed
from prioritized_replay.conformance.scenario import scenario
from prioritized_replay.conformance.trial import Trials, require

PAPER = "Schaul et al. 2015"


@scenario(
    "Rows are drawn in proportion to (abs(td_error) + eps)**alpha.",
    source=f"{PAPER}, eq. 1 and section 3.3",
    laws=("proportional",),
)
def proportional_probabilities(trials: Trials) -> str:
    trial = trials.full(64)
    errors = trials.errors(64)
    trial.assign(errors)
    return trial.follows((errors + trial.eps) ** trial.wanted.alpha)


@scenario(
    "Rows are drawn in proportion to rank**-alpha, by the exact rank of their errors.",
    source=f"{PAPER}, eq. 1 and section 3.3; nnabla-rl's and Damcy's heaps are approximations",
    laws=("rank",),
)
def rank_probabilities(trials: Trials) -> str:
    trial = trials.full(64)
    errors = trials.errors(64)
    trial.assign(errors)
    ranks = 1.0 + np.argsort(np.argsort(-errors))
    return trial.follows(ranks**-trial.wanted.alpha)


@scenario(
    "All rows are equally likely.",
    source=f"{PAPER}, section 3.3: the uniform baseline",
    laws=("uniform",),
)
def uniform_probabilities(trials: Trials) -> str:
    return trials.full(64).follows(np.ones(64))


@scenario(
    "Ranks differ: the row of the largest error is drawn more often than that of the smallest.",
    source="argsort(axis=1) + 1 of an (N, 1) array makes every rank 1",
    laws=("rank",),
)
def ranks_are_not_all_equal(trials: Trials) -> str:
    trial = trials.full(64)
    trial.assign(np.linspace(1.0, 0.1, 64))
    counts = trial.counts()
    text = f"the upper half of the errors gets {counts[:32].sum():,} of {counts.sum():,} draws"
    require(counts[:32].sum() > 0.6 * counts.sum(), text)
    return text


@scenario(
    "A row gets its own rank, and not the rank of the row at its place in the sorted order.",
    source="argsort taken for ranks: it is a permutation, ranks are its inverse",
    laws=("rank",),
)
def argsort_is_not_the_rank(trials: Trials) -> str:
    trial = trials.full(4)
    trial.assign([0.3, 0.2, 0.4, 0.1])  # the argsort, plus 1, would be 3 1 2 4
    return trial.follows(np.array([2.0, 3.0, 1.0, 4.0]) ** -trial.wanted.alpha)


@scenario(
    "With alpha = 0 all rows are equally likely, whatever their errors are.",
    source=f"{PAPER}, eq. 1; openai/baselines and pytorch/rl#2164 refuse alpha = 0",
    laws=("proportional", "rank"),
)
def alpha_zero_is_uniform(trials: Trials) -> str:
    trial = trials.full(64, alpha=0.0)
    trial.assign(trials.errors(64))
    return trial.follows(np.ones(64))


@scenario(
    "With alpha = 1 rows are drawn in proportion to their priorities, not greedily.",
    source=f"{PAPER}, eq. 1",
    laws=("proportional",),
)
def alpha_one_is_linear(trials: Trials) -> str:
    trial = trials.full(64, alpha=1.0)
    errors = trials.errors(64)
    trial.assign(errors)
    return trial.follows(errors + trial.eps)


@scenario(
    "Eps is added to the error before the exponent, not to the power after it.",
    source=f"{PAPER}, section 3.3; HorizonRobotics/alf#1232",
    laws=("proportional",),
)
def eps_is_inside_the_power(trials: Trials) -> str:
    trial = trials.full(64)
    if trial.eps < 1e-3:
        raise NotClaimed(f"eps is {trial.eps:g}: too little to be seen")
    errors = np.where(np.arange(64) < 48, 0.0, 1.0)
    trial.assign(errors)
    return trial.follows((errors + trial.eps) ** trial.wanted.alpha)


@scenario(
    "A row whose error is 0 can still be drawn.",
    source=f"{PAPER}, section 3.3: what eps is for",
    laws=("proportional", "rank"),
)
def zero_error_is_still_drawn(trials: Trials) -> str:
    trial = trials.full(16)
    errors = np.where(np.arange(16) == 5, 0.0, 0.5)
    trial.assign(errors)
    expected = trial.masses(errors)[5] / trial.masses(errors).sum()
    if expected < 1e-3:
        raise NotClaimed(f"eps is {trial.eps:g}: too little to be seen")
    return trial.share([trial.live[5]], expected)


@scenario(
    "Only the size of an error counts, not its sign.",
    source=f"{PAPER}, section 3.3: abs(td_error)",
    laws=("proportional", "rank"),
)
def signs_do_not_matter(trials: Trials) -> str:
    trial = trials.full(64)
    errors = trials.errors(64) * trials.rng.choice([-1.0, 1.0], 64)
    trial.assign(errors)
    return trial.follows(trial.masses(errors))


@scenario(
    "Rows of equal errors are equally likely, as clipped errors are.",
    source=f"{PAPER}, section 5: errors are clipped to [-1, 1]",
    laws=("proportional", "rank"),
)
def equal_errors_are_equally_likely(trials: Trials) -> str:
    trial = trials.full(64)
    errors = np.where(np.arange(64) % 4 == 0, 1.0, 0.1)
    trial.assign(errors)
    return trial.follows(trial.masses(errors))


@scenario(
    "Ranks are blind to the size of errors: an outlier gets no more than the first rank's share.",
    source=f"{PAPER}, section 3.3: rank-based prioritization is insensitive to outliers",
    laws=("rank",),
)
def an_outlier_has_only_the_first_rank(trials: Trials) -> str:
    trial = trials.full(64)
    errors = trials.errors(64)
    errors[20] = 1e6
    trial.assign(errors)
    return trial.follows(trial.masses(errors))


@scenario(
    "New rows enter at the largest priority so far, to which the exponent is applied once.",
    source=f"{PAPER}, Algorithm 1, line 6; pytorch/rl#3925 (twice), ray#11750, rlpyt#102 (1)",
    laws=("proportional",),
)
def new_rows_enter_at_the_maximum(trials: Trials) -> str:
    trial = trials.new(capacity=64)
    trial.add(24)
    errors = 8.0 * trials.errors(24)
    trial.assign(errors)
    trial.add(8)
    return trial.follows(trial.masses([*errors, *[8.0] * 8]))


@scenario(
    "New rows share the first ranks with the row of the largest error.",
    source=f"{PAPER}, Algorithm 1, line 6; simple_distributed_rl gives them the last ranks",
    laws=("rank",),
)
def new_rows_enter_at_the_first_rank(trials: Trials) -> str:
    trial = trials.new(capacity=64)
    trial.add(32)
    errors = 8.0 * trials.errors(32)
    trial.assign(errors)
    trial.add(8)
    masses = np.arange(1.0, 41.0) ** -trial.wanted.alpha
    first = [trial.live[int(np.argmax(errors))], *trial.live[32:]]
    return trial.share(first, masses[:9].sum() / masses.sum())


@scenario(
    "A new error replaces the old one: nothing of it remains.",
    source=f"{PAPER}, Algorithm 1, line 12",
    laws=("proportional", "rank"),
)
def new_errors_replace_old_ones(trials: Trials) -> str:
    trial = trials.full(64)
    errors = trials.errors(64)
    trial.assign(errors)
    trial.assign(errors[::-1])
    return trial.follows(trial.masses(errors[::-1]))


@scenario(
    "An error that is given with a step counts at once, in the place of the largest priority.",
    source="Horgan et al. 2018 (Ape-X): actors compute the first priorities",
    laws=("proportional", "rank"),
)
def errors_given_with_steps_count(trials: Trials) -> str:
    trial = trials.new(capacity=64)
    errors = trials.errors(64)
    for error in errors:
        trial.memory.add_with_error(trial.walk.step(), float(error))
    return trial.follows(trial.masses(errors))


@scenario(
    "Alpha can be changed on a filled memory; the errors given before keep their meaning.",
    source="pytorch/rl: priorities are transformed anew; elsewhere alpha is fixed",
    laws=("proportional", "rank"),
)
def alpha_can_be_changed(trials: Trials) -> str:
    trial = trials.full(64, alpha=0.9)
    errors = trials.errors(64)
    trial.assign(errors)
    trial.memory.set_alpha(0.3)
    sizes = errors + trial.eps if trials.law == "proportional" else 1.0 / trial.masses(errors)
    return trial.follows(sizes**0.3 if trials.law == "proportional" else sizes ** (-0.3 / 0.9))


@scenario(
    "A probability that is told is that of the row under the law in force.",
    source="flashbax#51: priorities were returned in the place of probabilities",
)
def told_probabilities_are_right(trials: Trials) -> str:
    trial = trials.full(64)
    errors = trials.errors(64)
    if trials.law != "uniform":
        trial.assign(errors)
    drawn, numbers = trial.draw(64)
    if drawn.probabilities is None:
        raise NotClaimed("probabilities are not told")
    expected = (trial.masses(errors) / trial.masses(errors).sum())[numbers - trial.live[0]]
    worst = np.max(np.abs(np.ravel(drawn.probabilities) / expected - 1.0))
    require(worst < 1e-3, f"one is off by {worst:.2%}")
    return f"at most {worst:.1e} off, relatively"


@scenario(
    "Stratified draws come one from each of k ranges of equal mass: no row more than a draw off.",
    source=f"{PAPER}, appendix B.2.1",
)
def stratified_draws_are_even(trials: Trials) -> str:
    trial = trials.full(32, draw="stratified")
    errors = trials.errors(32)
    if trials.law != "uniform":
        trial.assign(errors)
    expected = 128 * trial.masses(errors) / trial.masses(errors).sum()
    for _ in range(50):
        counts = np.bincount(trial.draw(128)[1] - trial.live[0], minlength=32)
        off = (counts < np.floor(expected) - 1) | (counts > np.ceil(expected) + 1)
        require(not off.any(), f"{counts[off][:1]} of {expected[off][:1]} expected")
    return "50 batches of 128: no row is further off than one draw"


@scenario(
    "Independent draws follow the law too.",
    source="dqn_zoo draws independently, the paper by strata",
)
def independent_draws_follow_the_law(trials: Trials) -> str:
    trial = trials.full(64, draw="independent")
    errors = trials.errors(64)
    if trials.law != "uniform":
        trial.assign(errors)
    return trial.follows(trial.masses(errors))


@scenario(
    "A batch that is drawn without replacement holds no row twice, up to all rows.",
    source="Panahi et al. 2024; pfrl draws so",
)
def without_replacement_has_no_repetitions(trials: Trials) -> str:
    trial = trials.full(32, draw="without_replacement")
    if trials.law != "uniform":
        trial.assign(trials.errors(32))
    for batch in (2, 16, 32):
        for _ in range(20):
            _, numbers = trial.draw(batch)
            require(len(set(numbers.tolist())) == batch, f"{sorted(numbers.tolist())}")
    return "60 batches of 2, 16 and 32 of 32 rows"


@scenario(
    "A batch has the size that was asked for: 1, 3, the size of the memory.",
    source="Kaixhin/Rainbow#60: batches that cannot be found loop for ever",
)
def batches_have_the_size_asked_for(trials: Trials) -> str:
    trial = trials.full(16)
    for batch in (1, 3, 7, 16):
        drawn, numbers = trial.draw(batch)
        rows = {len(column) for column in (drawn.obs, drawn.reward, drawn.next_obs, numbers)}
        require(rows == {batch}, f"columns of {rows} rows came back for {batch}")
    return "1, 3, 7, 16"
