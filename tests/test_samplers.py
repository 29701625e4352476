"""The laws of sampling, seen through the buffer: probabilities, draws, weights, new rows, alpha.

Statistical tests run at fixed seeds and at a false-alarm level of 1e-4.
"""

import itertools
import json
import math

import numpy as np
import pytest
from scipy.stats import chi2
from tests.reference import (
    FIELDS,
    ReferenceReplay,
    Step,
    chi_square_excess,
    draw_counts,
    filled,
    importance_weights,
    mixed_law,
    proportional_law,
    rank_law,
    sequential_law,
    transitions,
    uniform_law,
)

import prioritized_replay as per

DRAWS = ["stratified", "independent", "without_replacement"]
NORMALISATIONS = ["batch", "buffer", "raw"]
PRIORITIZED = [per.Proportional, per.RankBased]
ALPHAS = [0.0, 0.5, 0.7, 1.0, 1.5, 3.0]

by_class = pytest.mark.parametrize("kind", PRIORITIZED, ids=lambda kind: kind.__name__)


def law_of(kind, td_errors, alpha, eps=0.01):
    if kind is per.RankBased:
        return rank_law(np.abs(td_errors), alpha)
    return proportional_law(np.abs(td_errors) + eps, alpha)


def pareto(rng, size):
    """Errors with a heavy tail, signed, some of them equal."""
    errors = rng.pareto(1.5, size) * rng.choice([-1, 1], size)
    errors[rng.choice(size, size // 4, replace=False)] = 1.0
    return errors


# --- probabilities ----------------------------------------------------------------------------


def play(replay, twin, rng, operations):
    """Random adds, extensions and updates on a buffer and on its twin, then compare the laws."""
    serial = 0
    for _ in range(operations):
        choice = rng.integers(3)
        if choice == 0:
            td_error = None if rng.random() < 0.5 else float(np.round(rng.normal() * 3, 1))
            row = {name: column[0] for name, column in transitions([serial]).items()}
            row.pop("terminated")
            replay.add(**row, terminated=True, td_error=td_error)
            twin.add(Step(**row, td_error=td_error), terminated=True)
            serial += 1
        elif choice == 1:
            count = int(rng.integers(1, 2 * twin.capacity))
            columns = transitions(np.arange(serial, serial + count))
            td_errors = None if rng.random() < 0.5 else np.round(rng.normal(size=count), 1)
            rows = [
                {
                    "obs": columns["obs"][k],
                    "action": columns["action"][k],
                    "reward": columns["reward"][k],
                    "discount": np.float32(twin.gamma * (not columns["terminated"][k])),
                    "next_obs": columns["next_obs"][k],
                }
                for k in range(count)
            ]
            replay.extend(columns, td_errors=td_errors)
            twin.extend(rows, td_errors)
            serial += count
        elif twin.rows:
            count = int(rng.integers(1, 2 * len(twin.rows)))
            ids = rng.choice(twin.ids, count)
            td_errors = np.round(rng.standard_cauchy(count), 1)
            replay.update_priorities(ids, td_errors)
            twin.update([int(i) for i in ids], td_errors)


SPECIFICATIONS = [
    per.Uniform(),
    *(per.Proportional(alpha=alpha) for alpha in ALPHAS),
    *(per.RankBased(alpha=alpha) for alpha in ALPHAS),
    per.Proportional(alpha=0.6, uniform_mix=0.3, max_priority="current", weights="buffer"),
    per.Proportional(alpha=0.6, eps=1e-6, draw="independent", weights="raw"),
    per.RankBased(alpha=0.7, uniform_mix=0.3, max_priority="current", weights="buffer"),
    per.RankBased(alpha=0.7, draw="without_replacement", weights="raw"),
]


@pytest.mark.parametrize("sampler", SPECIFICATIONS, ids=repr)
@pytest.mark.parametrize("capacity", [1, 7, 40])
@pytest.mark.slow
def test_probabilities_are_the_law_after_any_history(sampler, capacity):
    rng = np.random.default_rng(capacity)
    replay = per.ReplayBuffer(capacity, FIELDS, sampler=sampler, gamma=0.5, seed=1)
    twin = ReferenceReplay(capacity, sampler, gamma=0.5)
    for beta in (0.0, 0.4, 1.0):
        play(replay, twin, rng, 25)
        everything = replay.get(twin.ids, beta=beta)
        drawn = replay.sample(min(8, len(twin.rows)), beta=beta)

        assert len(replay) == len(twin.rows)
        np.testing.assert_allclose(everything.probabilities, twin.law(), rtol=1e-12)
        assert everything.probabilities.sum() == pytest.approx(1, rel=1e-12)
        twin.check_batch(everything, beta)
        twin.check_batch(drawn, beta)
        if not isinstance(sampler, per.Uniform):
            np.testing.assert_array_equal(replay.priorities(twin.ids), list(twin.priority.values()))


@by_class
@pytest.mark.parametrize("alpha", [0.3, 0.7, 1.0, 2.0])
@pytest.mark.slow
def test_probabilities_of_thousands_of_rows(kind, alpha):
    """Beyond the sizes at which ranks are summed from a table."""
    rng = np.random.default_rng(3)
    td_errors = rng.normal(size=5_000)
    td_errors[rng.choice(5_000, 1_500, replace=False)] = 1.0  # one large group in the middle
    td_errors[rng.choice(5_000, 200, replace=False)] = 0.5
    replay, ids = filled(kind(alpha=alpha), td_errors)

    np.testing.assert_allclose(
        replay.get(ids).probabilities, law_of(kind, td_errors, alpha), rtol=1e-12
    )


@by_class
def test_equal_priorities_get_equal_probability(kind):
    td_errors = np.array([2.0, -1.0, 1.0, 0.5, 1.0, -2.0, 1.0, 0.5])
    replay, ids = filled(kind(alpha=0.7, draw="independent"), td_errors)

    probabilities = replay.get(ids).probabilities

    for size in (2.0, 1.0, 0.5):
        assert np.unique(probabilities[np.abs(td_errors) == size]).size == 1
    assert np.unique(probabilities).size == 3
    counts = draw_counts(replay, ids, 40_000, 500)
    members = counts[np.abs(td_errors) == 1.0]
    assert chi_square_excess(members, np.full(4, 0.25)) < 1


@by_class
def test_all_rows_equal_is_uniform(kind):
    replay, ids = filled(kind(), np.full(37, 0.3))

    batch = replay.sample(16, beta=0.7)

    np.testing.assert_allclose(replay.get(ids).probabilities, 1 / 37, rtol=1e-12)
    np.testing.assert_array_equal(batch.weights, 1.0)


@by_class
def test_a_larger_error_never_has_a_smaller_probability(kind):
    td_errors = pareto(np.random.default_rng(8), 300)
    replay, ids = filled(kind(), td_errors)

    probabilities = replay.get(ids).probabilities[np.argsort(np.abs(td_errors), kind="stable")]

    assert np.all(np.diff(probabilities) >= 0)
    assert probabilities[-1] > 10 * probabilities[0]


def test_rank_one_is_the_largest_error_not_the_first_row():
    """`argsort` is a permutation and no rank; on this order the two differ in every row."""
    td_errors = np.array([0.1, 0.4, 0.2, 0.3])
    replay, ids = filled(per.RankBased(alpha=1.0), td_errors)

    np.testing.assert_allclose(
        replay.get(ids).probabilities, np.array([1 / 4, 1, 1 / 3, 1 / 2]) / (25 / 12), rtol=1e-12
    )


def test_rank_based_ignores_the_size_of_errors_and_proportional_does_not():
    errors = np.array([1.0, 2.0, 3.0])
    outlier = np.array([1.0, 2.0, 3e6])
    law = {}
    for kind, td_errors in itertools.product(PRIORITIZED, (errors, outlier)):
        replay, ids = filled(kind(alpha=0.7), td_errors)
        law[kind, td_errors[-1]] = replay.get(ids).probabilities

    np.testing.assert_array_equal(law[per.RankBased, 3.0], law[per.RankBased, 3e6])
    assert law[per.Proportional, 3e6][-1] > 0.9999
    assert law[per.Proportional, 3.0][-1] < 0.5


def test_a_large_alpha_tends_to_greedy():
    td_errors = np.array([1.0, 3.0, 2.0])
    for kind in PRIORITIZED:
        replay, ids = filled(kind(alpha=60.0, draw="independent"), td_errors)

        np.testing.assert_allclose(replay.get(ids).probabilities, [0, 1, 0], atol=1e-10)
        assert set(replay.sample(500).ids) == {ids[1]}


# --- draws follow the law ---------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@by_class
def test_independent_draws_follow_the_law(kind, alpha):
    td_errors = pareto(np.random.default_rng(64), 64)
    replay, ids = filled(kind(alpha=alpha, draw="independent"), td_errors, seed=7)

    counts = draw_counts(replay, ids, 64_000, 32)

    assert chi_square_excess(counts, law_of(kind, td_errors, alpha)) < 1


@by_class
def test_draws_follow_the_law_after_updates_and_wrap_around(kind):
    sampler = kind(draw="independent")
    rng = np.random.default_rng(21)
    replay = per.ReplayBuffer(40, FIELDS, sampler=sampler, gamma=0.5, seed=5)
    twin = ReferenceReplay(40, sampler, gamma=0.5)
    play(replay, twin, rng, 60)
    assert twin.next_id > 3 * 40

    counts = draw_counts(replay, twin.ids, 64_000, 64)

    assert chi_square_excess(counts, twin.law()) < 1


@by_class
def test_draws_of_thousands_of_rows_follow_the_law(kind):
    td_errors = pareto(np.random.default_rng(6), 4_000)
    replay, ids = filled(kind(draw="independent"), td_errors, seed=8)

    drawn = np.concatenate([replay.sample(1_000).ids for _ in range(400)])
    counts = np.bincount(drawn - ids[0], minlength=4_000)

    assert chi_square_excess(counts, law_of(kind, td_errors, kind().alpha)) < 1


@pytest.mark.parametrize("draw", DRAWS)
def test_uniform_draws_are_uniform(draw):
    try:
        sampler = per.Uniform(draw=draw)
    except TypeError:  # the contract names these options for the prioritized samplers
        sampler = per.Uniform()
    replay = per.ReplayBuffer(50, FIELDS, sampler=sampler, seed=2)
    ids = replay.extend(transitions(np.arange(120)))[-50:]

    counts = draw_counts(replay, ids, 32_000, 10)
    batch = replay.sample(20, beta=1.0)

    assert chi_square_excess(counts, uniform_law(ids)) < 1
    np.testing.assert_allclose(batch.probabilities, 1 / 50, rtol=1e-12)
    np.testing.assert_array_equal(batch.weights, 1.0)


def test_uniform_takes_the_calls_of_a_prioritized_loop():
    """The uniform arm of a comparison runs the same loop."""
    replay = per.ReplayBuffer(10, FIELDS, sampler=per.Uniform(), seed=2)
    ids = replay.extend(transitions(np.arange(10)))

    assert replay.update_priorities(ids, np.arange(10.0)) == 10

    np.testing.assert_allclose(replay.get(ids).probabilities, 0.1, rtol=1e-12)
    with pytest.raises(ValueError, match="td_errors"):
        replay.update_priorities(ids, np.full(10, np.nan))


@pytest.mark.parametrize("draw", ["independent", "stratified"])
@by_class
@pytest.mark.slow
def test_a_uniform_mix_draws_the_mixture(kind, draw):
    td_errors = pareto(np.random.default_rng(9), 30)
    replay, ids = filled(kind(alpha=1.5, uniform_mix=0.4, draw=draw), td_errors, seed=1)
    law = mixed_law(law_of(kind, td_errors, 1.5), 0.4)

    counts = draw_counts(replay, ids, 60_000, 50)

    np.testing.assert_allclose(replay.get(ids).probabilities, law, rtol=1e-12)
    assert chi_square_excess(counts, law) < 1


@by_class
def test_a_full_uniform_mix_is_uniform(kind):
    replay, ids = filled(kind(uniform_mix=1.0), np.arange(1.0, 21.0))

    np.testing.assert_allclose(replay.get(ids).probabilities, 1 / 20, rtol=1e-12)
    assert chi_square_excess(draw_counts(replay, ids, 20_000, 20), uniform_law(ids)) < 1


# --- stratified draws -------------------------------------------------------------------------


@by_class
def test_stratified_counts_stay_beside_their_expectation(kind):
    """floor(k P) - 1 <= n <= ceil(k P) + 1 in every batch: one draw from each of k equal parts."""
    rng = np.random.default_rng(15)
    td_errors = rng.permutation(np.linspace(0.1, 1.0, 40) ** 3)  # all different
    k, batches = 64, 1_500
    replay, ids = filled(kind(alpha=1.0), td_errors, seed=3)
    expected = k * law_of(kind, td_errors, 1.0)

    counts = np.array(
        [np.bincount(replay.sample(k).ids - ids[0], minlength=40) for _ in range(batches)]
    )

    assert np.all(counts >= np.floor(expected) - 1)
    assert np.all(counts <= np.ceil(expected) + 1)
    assert counts.var(axis=0).max() <= 0.5 + 0.08
    spread = np.sqrt(np.minimum(expected, 0.5) / batches)
    assert np.all(np.abs(counts.mean(axis=0) - expected) < 4.5 * spread)
    statistic = np.sum((counts.sum(axis=0) - batches * expected) ** 2 / (batches * expected))
    assert statistic < chi2.ppf(0.999, 39)


@by_class
@pytest.mark.slow
def test_every_stratum_has_a_uniform_of_its_own(kind):
    """Of 16 equal rows 8 strata hold two each, and which of the two says nothing of the next."""
    replay, ids = filled(kind(), np.ones(16), seed=5)
    outcomes = np.zeros((7, 4))
    for _ in range(4_000):
        drawn = np.sort(replay.sample(8).ids - ids[0])
        np.testing.assert_array_equal(drawn // 2, range(8))
        which = drawn % 2
        outcomes[range(7), 2 * which[:-1] + which[1:]] += 1

    for counts in outcomes:
        assert chi_square_excess(counts, np.full(4, 0.25)) < 1


@by_class
def test_independent_counts_do_not_keep_those_bounds(kind):
    """So the test above can tell the two modes apart."""
    td_errors = np.random.default_rng(15).permutation(np.linspace(0.1, 1.0, 40) ** 3)
    replay, ids = filled(kind(alpha=1.0, draw="independent"), td_errors, seed=3)
    expected = 64 * law_of(kind, td_errors, 1.0)

    counts = np.array(
        [np.bincount(replay.sample(64).ids - ids[0], minlength=40) for _ in range(200)]
    )

    assert np.any(counts > np.ceil(expected) + 1)
    assert counts.var(axis=0).max() > 1


def test_stratified_is_the_default():
    assert per.Proportional().draw == "stratified"
    assert per.RankBased().draw == "stratified"


def test_stratification_by_rank_lowers_the_variance_of_a_batch():
    """One row of high error, one of medium, ...: the batch mean of |td error| varies less."""
    td_errors = np.random.default_rng(2).pareto(2.0, 1_000)
    variance = {}
    for draw in ("stratified", "independent"):
        replay, ids = filled(per.RankBased(draw=draw), td_errors, seed=4)
        means = [td_errors[replay.sample(32).ids - ids[0]].mean() for _ in range(3_000)]
        variance[draw] = np.var(means)

    assert variance["stratified"] < 0.6 * variance["independent"]


# --- draws without replacement ----------------------------------------------------------------


def ordered_outcomes(replay, ids, batch_size, batches):
    outcomes = {}
    for _ in range(batches):
        outcome = tuple(int(i - ids[0]) for i in replay.sample(batch_size).ids)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


@pytest.mark.parametrize("uniform_mix", [0.0, 0.5])
@pytest.mark.parametrize(
    ("td_errors", "batch_size"),
    [
        ([8.0, 1.0, 3.0, 0.2], 2),
        ([8.0, 1.0, 3.0, 0.2], 4),
        ([100.0, 1.0, 1.0, 0.2, 1.0], 3),
        ([5.0, 4.0, 3.0, 2.0, 1.0], 2),
    ],
    ids=["4-2", "4-4", "5-3-ties", "5-2"],
)
@by_class
@pytest.mark.slow
def test_without_replacement_draws_as_one_after_the_other(kind, td_errors, batch_size, uniform_mix):
    """Ordered outcomes by enumeration: each draw follows the law among the rows that are left."""
    sampler = kind(alpha=1.0, draw="without_replacement", uniform_mix=uniform_mix)
    replay, ids = filled(sampler, td_errors, seed=12)
    single = mixed_law(law_of(kind, np.array(td_errors), 1.0), uniform_mix)
    law = sequential_law(single, batch_size)

    seen = ordered_outcomes(replay, ids, batch_size, 8_000)

    assert set(seen) <= set(law)
    counts = np.array([seen.get(outcome, 0) for outcome in law])
    assert chi_square_excess(counts, np.array(list(law.values()))) < 1
    np.testing.assert_allclose(
        replay.sample(batch_size).probabilities.sum() if batch_size == len(ids) else 1.0, 1.0
    )


@by_class
def test_without_replacement_reports_the_single_draw_law(kind):
    td_errors = np.array([8.0, 1.0, 3.0, 0.2])
    replay, ids = filled(kind(alpha=1.0, draw="without_replacement"), td_errors)
    law = law_of(kind, td_errors, 1.0)

    batch = replay.sample(3, beta=1.0)

    drawn = law[batch.ids - ids[0]]
    np.testing.assert_allclose(batch.probabilities, drawn, rtol=1e-12)
    np.testing.assert_allclose(batch.weights, drawn.min() / drawn, rtol=3e-7)


@by_class
@pytest.mark.parametrize("exponent", [0, 12, 300])
def test_without_replacement_every_row_comes_once(kind, exponent):
    """Also where one row has all but nothing of the probability and must come nevertheless."""
    td_errors = 10.0 ** np.linspace(-exponent, exponent, 25)
    options = {"eps": 0.0} if kind is per.Proportional else {}
    replay, ids = filled(kind(alpha=1.0, draw="without_replacement", **options), td_errors)

    for batch_size in (25, 24, 13, 1):
        batch = replay.sample(batch_size)
        assert np.unique(batch.ids).size == batch_size
        assert np.isin(batch.ids, ids).all()


def test_without_replacement_keeps_the_law_where_probabilities_underflow():
    """Beside 1e300 both others have probability 0 in float64; one is 1e90 times likelier."""
    sampler = per.Proportional(alpha=1.0, eps=0.0, draw="without_replacement")
    replay, ids = filled(sampler, np.array([1e-100, 1e300, 1e-10]))

    for _ in range(50):
        np.testing.assert_array_equal(replay.sample(2).ids, ids[[1, 2]])


@by_class
@pytest.mark.slow
def test_inclusion_without_replacement_in_a_larger_buffer(kind):
    """Against NumPy's sequential draws, with batches of a tenth and of half of the buffer."""
    td_errors = np.random.default_rng(0).pareto(1.0, 100) + 0.1
    law = law_of(kind, td_errors, 0.8)
    replay, ids = filled(kind(alpha=0.8, draw="without_replacement"), td_errors, seed=3)
    rng = np.random.default_rng(4)
    for batch_size, batches in ((10, 3_000), (50, 1_500)):
        ours, theirs = np.zeros(100), np.zeros(100)
        for _ in range(batches):
            ours[replay.sample(batch_size).ids - ids[0]] += 1
            theirs[rng.choice(100, batch_size, replace=False, p=law)] += 1
        share = (ours + theirs) / (2 * batches)
        deviation = np.sqrt(2 * np.maximum(share * (1 - share), 1 / batches) / batches)
        assert np.all(np.abs(ours - theirs) / batches < 4.9 * deviation)


# --- weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@by_class
def test_weights_in_every_normalisation(kind, normalisation, beta):
    td_errors = pareto(np.random.default_rng(1), 50)
    # a partly filled buffer: N is the number of rows, not the capacity
    replay, _ids = filled(kind(weights=normalisation), td_errors, capacity=80)
    law = law_of(kind, td_errors, kind().alpha)

    batch = replay.sample(20, beta=beta)

    assert batch.weights.dtype == np.float32
    assert batch.probabilities.dtype == np.float64
    expected = importance_weights(batch.probabilities, law, beta, normalisation)
    np.testing.assert_allclose(batch.weights, expected, rtol=3e-7)
    if beta == 0.0:
        np.testing.assert_array_equal(batch.weights, 1.0)
    if normalisation == "batch":
        assert batch.weights.max() == 1.0
    if normalisation == "buffer":
        assert batch.weights.max() <= 1.0


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@by_class
def test_weights_are_one_at_alpha_zero(kind, normalisation):
    replay, _ = filled(kind(alpha=0.0, weights=normalisation), np.arange(1.0, 31.0))

    np.testing.assert_allclose(replay.sample(16, beta=1.0).weights, 1.0, rtol=3e-7)


@by_class
@pytest.mark.parametrize("uniform_mix", [0.0, 0.2])
def test_full_correction_is_unbiased_by_enumeration(kind, uniform_mix):
    """sum_i P_i w_i g_i is the plain mean of g at beta = 1, with weights as they come."""
    rng = np.random.default_rng(17)
    td_errors = pareto(rng, 60)
    sampler = kind(alpha=0.9, weights="raw", uniform_mix=uniform_mix)
    replay, ids = filled(sampler, td_errors)
    gradients = rng.normal(size=60) * td_errors

    batch = replay.get(ids, beta=1.0)

    expectation = math.fsum(batch.probabilities * batch.weights * gradients)
    assert expectation == pytest.approx(gradients.mean(), rel=3e-6)
    uncorrected = math.fsum(batch.probabilities * gradients)
    assert abs(uncorrected - gradients.mean()) > 0.1 * abs(gradients.mean())
    np.testing.assert_allclose(batch.probabilities * batch.weights, 1 / 60, rtol=3e-7)


@pytest.mark.parametrize("draw", ["independent", "stratified"])
@by_class
def test_full_correction_is_unbiased_in_drawn_batches(kind, draw):
    rng = np.random.default_rng(23)
    td_errors = pareto(rng, 60)
    replay, ids = filled(kind(weights="raw", draw=draw), td_errors, seed=6)
    gradients = rng.normal(size=60)

    estimates = []
    for _ in range(4_000):
        batch = replay.sample(32, beta=1.0)
        estimates.append(np.mean(batch.weights * gradients[batch.ids - ids[0]]))

    error = np.mean(estimates) - gradients.mean()
    assert abs(error) < 4 * np.std(estimates) / math.sqrt(len(estimates))


@by_class
def test_buffer_weights_follow_the_least_live_probability(kind):
    """After an overwrite, an update and a change of alpha: over live rows only."""
    sampler = kind(alpha=1.0, weights="buffer")
    replay = per.ReplayBuffer(6, FIELDS, sampler=sampler, seed=0)
    twin = ReferenceReplay(6, sampler, gamma=0.99)

    def compare():
        law = twin.law()
        batch = replay.get(twin.ids, beta=0.6)
        np.testing.assert_allclose(
            batch.weights, importance_weights(law, law, 0.6, "buffer"), rtol=3e-7
        )
        assert batch.weights.max() == pytest.approx(1.0, rel=1e-6)

    def extend(serials, td_errors):
        replay.extend(transitions(serials), td_errors=td_errors)
        twin.extend([{}] * len(serials), td_errors)

    extend(np.arange(4), [0.001, 5.0, 2.0, 1.0])  # two slots never filled
    compare()
    extend(np.arange(4, 8), [3.0, 3.0, 4.0, 6.0])  # the smallest is overwritten
    compare()
    replay.update_priorities(twin.ids[2:3], [0.2])
    twin.update([int(twin.ids[2])], [0.2])
    compare()
    replay.alpha = twin.alpha = 0.5
    compare()
    replay.clear()
    twin.clear()
    extend(np.arange(2), [7.0, 8.0])
    compare()


@pytest.mark.parametrize("normalisation", ["batch", "buffer"])
def test_weights_stay_finite_over_the_whole_range_of_priorities(normalisation):
    td_errors = 10.0 ** np.array([-300.0, -150, 0, 150, 300])
    sampler = per.Proportional(alpha=1.0, eps=0.0, weights=normalisation)
    replay, ids = filled(sampler, td_errors)

    for batch in (replay.get(ids, beta=1.0), replay.sample(16, beta=1.0)):
        assert np.isfinite(batch.weights).all()
        assert np.all((batch.weights >= 0) & (batch.weights <= 1))


# --- zero masses and extremes -----------------------------------------------------------------


def test_all_masses_zero_cannot_be_sampled():
    replay, ids = filled(per.Proportional(eps=0.0), np.zeros(5))

    with pytest.raises(ValueError, match=r"\b(0|zero)\b"):
        replay.sample(2)

    replay.update_priorities(ids[3:4], [0.5])
    assert set(replay.sample(10).ids) == {ids[3]}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.slow
def test_all_masses_zero_are_uniform_with_a_uniform_mix(draw):
    sampler = per.Proportional(eps=0.0, uniform_mix=0.1, draw=draw)
    replay, ids = filled(sampler, np.zeros(8), seed=3)

    everything = replay.get(ids, beta=1.0)

    np.testing.assert_allclose(everything.probabilities, 1 / 8, rtol=1e-12)
    np.testing.assert_allclose(everything.weights, 1.0, rtol=3e-7)
    assert chi_square_excess(draw_counts(replay, ids, 16_000, 4), uniform_law(ids)) < 1


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.slow
def test_rows_of_zero_mass_are_never_drawn(draw):
    td_errors = np.array([0.0, 0.0, 2.0, 0.0, 1e-9, 3.0, 0.0])
    replay, ids = filled(per.Proportional(alpha=0.5, eps=0.0, draw=draw), td_errors)

    for _ in range(2_000):
        assert np.all(td_errors[replay.sample(3).ids - ids[0]] > 0)


def test_a_uniform_mix_reaches_rows_of_zero_mass():
    td_errors = np.array([0.0, 1.0, 0.0, 3.0])
    replay, ids = filled(
        per.Proportional(alpha=1.0, eps=0.0, uniform_mix=0.2, draw="independent"), td_errors
    )
    law = mixed_law(td_errors / 4, 0.2)

    np.testing.assert_allclose(replay.get(ids).probabilities, law, rtol=1e-12)
    assert chi_square_excess(draw_counts(replay, ids, 20_000, 50), law) < 1


def test_buffer_weights_divide_by_the_smallest_positive_probability():
    replay, ids = filled(
        per.Proportional(alpha=1.0, eps=0.0, weights="buffer"), np.array([0.0, 1.0, 3.0])
    )

    np.testing.assert_allclose(replay.get(ids[1:], beta=1.0).weights, [1, 1 / 3], rtol=3e-7)


def test_buffer_weights_with_a_uniform_mix_divide_by_the_share_of_a_zero_row():
    sampler = per.Proportional(alpha=1.0, eps=0.0, uniform_mix=0.25, weights="buffer")
    replay, ids = filled(sampler, np.array([0.0, 1.0, 3.0, 0.0]))
    law = mixed_law(np.array([0.0, 1.0, 3.0, 0.0]) / 4, 0.25)

    np.testing.assert_allclose(replay.get(ids, beta=1.0).weights, law.min() / law, rtol=3e-7)
    np.testing.assert_allclose(
        replay.get(ids[1:2], beta=0.5).weights, (law[0] / law[1]) ** 0.5, rtol=3e-7
    )


def test_without_replacement_needs_as_many_rows_of_positive_probability():
    td_errors = np.array([0.0, 1.0, 0.0, 2.0, 3.0])
    sampler = per.Proportional(eps=0.0, draw="without_replacement")
    replay, ids = filled(sampler, td_errors)

    with pytest.raises(ValueError, match="batch_size"):
        replay.sample(4)

    assert set(replay.sample(3).ids) == {ids[1], ids[3], ids[4]}


@pytest.mark.parametrize("alpha", [0.6, 1.0])
@pytest.mark.parametrize("draw", ["stratified", "independent"])
def test_no_dead_row_for_priorities_from_1e_minus_300_to_1e300(draw, alpha):
    rng = np.random.default_rng(31)
    td_errors = 10.0 ** rng.uniform(-300, 300, 200)
    td_errors[rng.random(200) < 0.3] = 0.0
    replay, ids = filled(per.Proportional(alpha=alpha, eps=0.0, draw=draw), td_errors, capacity=300)

    for _ in range(300):
        batch = replay.sample(64)
        assert np.all(td_errors[batch.ids - ids[0]] > 0)
        assert np.all(batch.probabilities > 0)


def test_a_positive_priority_keeps_a_positive_mass():
    """1e-300 squared is below the least float64; the row must stay drawable all the same."""
    replay, ids = filled(per.Proportional(alpha=2.0, eps=0.0), np.array([0.0, 1e-300, 0.0]))

    batch = replay.sample(4)

    assert set(batch.ids) == {ids[1]}
    np.testing.assert_array_equal(batch.probabilities, 1.0)


# --- new rows ---------------------------------------------------------------------------------


def add_one(replay, serial, **options):
    row = {name: column[0] for name, column in transitions([serial]).items()}
    row.pop("terminated")
    return replay.add(**row, terminated=True, **options)


@by_class
@pytest.mark.parametrize("policy", ["ever", "current"])
def test_the_first_rows_of_an_empty_buffer_get_priority_one(kind, policy):
    replay = per.ReplayBuffer(8, FIELDS, sampler=kind(max_priority=policy))

    first = replay.extend(transitions(np.arange(3)))

    np.testing.assert_array_equal(replay.priorities(first), 1.0)
    np.testing.assert_array_equal(replay.priorities(add_one(replay, 3)), 1.0)
    replay.update_priorities(first, [5.0, 6.0, 7.0])
    replay.clear()
    np.testing.assert_array_equal(replay.priorities(add_one(replay, 4)), 1.0)


@by_class
def test_new_rows_get_the_largest_priority_ever_seen(kind):
    eps = 0.25 if kind is per.Proportional else 0.0
    options = {"eps": eps} if eps else {}
    replay, ids = filled(kind(max_priority="ever", **options), [1.0, 2.0, 1.0], capacity=3)

    replay.update_priorities(ids[:1], [-9.0])
    replay.update_priorities(ids[:1], [0.5])  # no live row has it any more
    new = add_one(replay, 3)

    # eps and alpha are applied once: the row enters with the very priority that was largest
    np.testing.assert_array_equal(replay.priorities(new), 9.0 + eps)
    add_one(replay, 4)
    add_one(replay, 5)
    np.testing.assert_array_equal(replay.priorities(add_one(replay, 6)), 9.0 + eps)


@by_class
def test_new_rows_get_the_largest_live_priority(kind):
    eps = 0.25 if kind is per.Proportional else 0.0
    options = {"eps": eps} if eps else {}
    replay, ids = filled(kind(max_priority="current", **options), [1.0, 2.0, 1.5], capacity=3)

    replay.update_priorities(ids[:1], [9.0])
    replay.update_priorities(ids[:1], [0.5])
    new = add_one(replay, 3)

    np.testing.assert_array_equal(replay.priorities(new), 2.0 + eps)
    replay.update_priorities([int(ids[1]), int(ids[2]), int(new[0])], [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(replay.priorities(add_one(replay, 4)), 0.3 + eps)


@by_class
@pytest.mark.parametrize("policy", ["ever", "current"])
def test_the_maximum_is_read_before_anything_is_evicted(kind, policy):
    """The largest row is the oldest: what overwrites it still gets its priority."""
    for new_rows in (1, 2, 3, 8):
        sampler = kind(max_priority=policy, **({"eps": 0} if kind is per.Proportional else {}))
        replay, _ = filled(sampler, [7.0, 1.0, 2.0])

        ids = replay.extend(transitions(np.arange(3, 3 + new_rows)))

        np.testing.assert_array_equal(replay.priorities(ids[-3:]), 7.0)


@by_class
@pytest.mark.parametrize("policy", ["ever", "current"])
@pytest.mark.parametrize("n_step", [1, 2, 3, 4])
def test_a_row_enters_at_the_largest_error_before_it_whatever_n_is(kind, policy, n_step):
    """Also at that of a window which closes in the same call."""
    sampler = kind(max_priority=policy, **({"eps": 0} if kind is per.Proportional else {}))
    for errors, expected in (
        ([100.0, None, 0.5], [100.0, 100.0, 0.5]),
        ([5.0, 15.0, 25.0, None], [5.0, 15.0, 25.0, 25.0]),
        ([None, 0.5, None, 7.0, None], [1.0, 0.5, 1.0, 7.0, 7.0]),
        ([0.5, None, 0.25, None], [0.5, 0.5, 0.25, 0.5]),
        ([0.0, None], [0.0, 0.0]),
    ):
        replay = per.ReplayBuffer(8, FIELDS, sampler=sampler, n_step=n_step)
        zero = np.zeros(2, np.float32)
        for k, error in enumerate(errors):
            replay.add(zero, 0, 0.0, zero, k == len(errors) - 1, td_error=error)
        ids = np.arange(len(errors))
        np.testing.assert_array_equal(replay.priorities(ids), expected)


def test_rows_of_several_streams_all_enter_at_the_largest_priority_before_the_call():
    replay = per.ReplayBuffer(9, FIELDS, sampler=per.RankBased(), num_envs=3, autoreset="disabled")
    zeros = np.zeros((3, 2), np.float32)
    step = zeros, [0, 0, 0], [0.0, 0.0, 0.0], zeros, [False, False, False]
    assert replay.priorities(replay.add(*step)).tolist() == [1.0, 1.0, 1.0]
    assert replay.priorities(replay.add(*step, td_error=[4, 9, 2])).tolist() == [4.0, 9.0, 2.0]
    assert replay.priorities(replay.add(*step)).tolist() == [9.0, 9.0, 9.0]


@by_class
def test_new_rows_are_drawn_as_their_priority_says(kind):
    """Raw priorities are kept, so alpha is applied once to rows that enter at the maximum."""
    replay, ids = filled(kind(alpha=0.5), [4.0, 16.0], capacity=3)
    new = add_one(replay, 2)
    everything = np.concatenate([ids, new])

    np.testing.assert_allclose(
        replay.get(everything).probabilities, law_of(kind, [4.0, 16.0, 16.0], 0.5), rtol=1e-12
    )


@by_class
@pytest.mark.parametrize("policy", ["ever", "current"])
def test_a_skipped_update_does_not_raise_the_maximum(kind, policy):
    replay, ids = filled(kind(max_priority=policy), [1.0, 2.0, 3.0])
    add_one(replay, 3)

    for serial in (4, 5):
        assert replay.update_priorities(ids[:1], [1e6]) == 0
        replay.sample(2)
        assert replay.priorities(add_one(replay, serial)) == 3.0 + getattr(kind(), "eps", 0.0)


# --- alpha on a filled buffer -----------------------------------------------------------------


@by_class
@pytest.mark.parametrize("normalisation", ["batch", "buffer"])
def test_alpha_can_be_set_on_a_filled_buffer(kind, normalisation):
    td_errors = pareto(np.random.default_rng(12), 50)
    replay, ids = filled(
        kind(alpha=0.6, draw="independent", weights=normalisation), td_errors, capacity=70
    )
    before = replay.priorities(ids)
    for alpha in (0.0, 1.0, 0.35, 2.0):
        replay.alpha = alpha

        law = law_of(kind, td_errors, alpha)
        batch = replay.get(ids, beta=0.5)
        assert replay.alpha == alpha
        np.testing.assert_allclose(batch.probabilities, law, rtol=1e-12)
        np.testing.assert_allclose(
            batch.weights, importance_weights(law, law, 0.5, normalisation), rtol=3e-7
        )
        np.testing.assert_array_equal(replay.priorities(ids), before)
        assert chi_square_excess(draw_counts(replay, ids, 20_000, 100), law) < 1
    new = add_one(replay, 99)
    assert replay.priorities(new) == before.max()


def test_a_priority_that_is_gone_forbids_no_alpha():
    """With "current", nothing enters at a maximum that no live row has."""
    replay, ids = filled(per.Proportional(alpha=1.0, max_priority="current"), [1e200, 1.0])
    with pytest.raises(ValueError, match="alpha"):
        replay.alpha = 2.0
    replay.update_priorities(ids[:1], [1.0])

    replay.alpha = 2.0

    np.testing.assert_allclose(replay.get(ids).probabilities, 0.5, rtol=1e-12)


def test_the_priority_of_an_open_window_counts_when_alpha_is_set():
    """Its row comes later: an alpha that could not take it then has to be refused now."""
    fields = {name: per.Field() for name in ("obs", "action", "reward")}
    sampler = per.Proportional(alpha=1.0, max_priority="current")
    replay = per.ReplayBuffer(8, fields, sampler=sampler, n_step=3, seed=0)
    replay.add(0.0, 0.0, 1.0, 1.0, False, td_error=1e200)
    with pytest.raises(ValueError, match="alpha"):
        replay.alpha = 2.0
    assert replay.alpha == 1.0

    ids = replay.end_episode()
    replay.update_priorities(ids, [1.0])
    replay.alpha = 2.0  # the window is closed, and its row has another priority

    replay.alpha = 1.0
    replay.add(0.0, 0.0, 1.0, 1.0, False, td_error=1e200)
    replay.clear()
    replay.alpha = 2.0  # the window is gone


def test_the_state_of_sampling_lives_in_the_buffer():
    """One specification may serve many buffers."""
    sampler = per.Proportional(alpha=0.8)
    one, ids = filled(sampler, [1.0, 2.0, 3.0])
    two, _ = filled(sampler, [5.0, 1.0])

    one.alpha = 0.1
    one.update_priorities(ids, [9.0, 9.0, 9.0])

    assert two.alpha == 0.8
    np.testing.assert_allclose(
        two.get([0, 1]).probabilities, proportional_law(np.array([5.01, 1.01]), 0.8), rtol=1e-12
    )
    assert sampler == per.Proportional(alpha=0.8)
    assert hash(sampler) == hash(per.Proportional(alpha=0.8))


def test_setting_alpha_does_not_change_the_specification():
    sampler = per.RankBased(alpha=0.7)
    replay, _ = filled(sampler, [1.0, 2.0])

    replay.alpha = 0.1

    assert sampler.alpha == 0.7
    with pytest.raises(AttributeError):
        sampler.alpha = 0.2


# --- defaults ---------------------------------------------------------------------------------


def test_what_is_used_when_nothing_is_said():
    """The paper's proportional variant, full correction, divided by the batch maximum."""
    replay = per.ReplayBuffer(5, FIELDS)
    ids = replay.extend(transitions(np.arange(4)), td_errors=[1.0, 2.0, 3.0, 4.0])
    law = proportional_law(np.array([1.01, 2.01, 3.01, 4.01]), 0.6)

    assert replay.alpha == 0.6
    np.testing.assert_allclose(replay.get(ids).probabilities, law, rtol=1e-12)
    np.testing.assert_allclose(replay.get(ids).weights, law.min() / law, rtol=3e-7)
    batch = replay.sample(3)
    np.testing.assert_allclose(
        batch.weights, batch.probabilities.min() / batch.probabilities, rtol=3e-7
    )
    assert (per.RankBased().alpha, per.RankBased().max_priority) == (0.7, "ever")


# --- the generator ----------------------------------------------------------------------------


@pytest.mark.parametrize("draw", DRAWS)
@by_class
def test_the_same_seed_gives_the_same_batches(kind, draw):
    def batches(seed, disturb):
        replay, ids = filled(kind(draw=draw, uniform_mix=0.1), np.arange(1.0, 41.0), seed=seed)
        rows = []
        for k in range(20):
            if disturb:
                np.random.seed(k)  # noqa: NPY002 the global generator must not matter
                np.random.random(3)  # noqa: NPY002
            batch = replay.sample(8, beta=0.5)
            rows.append((batch.ids, batch.weights, batch.probabilities, batch.obs))
            replay.update_priorities(batch.ids, batch.ids % 7 * 1.0)
        return rows, ids

    one, _ = batches(3, disturb=False)
    two, _ = batches(3, disturb=True)
    other, _ = batches(4, disturb=False)

    for a, b in zip(one, two, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert any(not np.array_equal(a[0], b[0]) for a, b in zip(one, other, strict=True))


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()  # noqa: NPY002
    replay, _ = filled(per.RankBased(), np.arange(1.0, 41.0), seed=None)
    replay.update_priorities(replay.sample(8).ids, np.ones(8))
    after = np.random.get_state()  # noqa: NPY002

    np.testing.assert_array_equal(before[1], after[1])
    assert before[2] == after[2]


def test_buffers_without_a_seed_differ():
    def first_batch():
        replay, _ = filled(per.Proportional(), np.ones(1_000), seed=None)
        return replay.sample(32).ids

    assert not np.array_equal(first_batch(), first_batch())


# --- statistics of the last batch -------------------------------------------------------------


def test_statistics_are_plain_numbers():
    empty = per.ReplayBuffer(4, FIELDS)
    replay, _ = filled(per.Proportional(), [1.0, 2.0, 3.0])
    replay.sample(4)
    keys = {
        "size",
        "ids_issued",
        "open_windows",
        *(f"priority_p{q:02d}" for q in (5, 25, 50, 75, 95)),
        "largest_priority",
        "stale_updates",
        "effective_sample_size",
        "weight_min",
        "weight_max",
        "duplicates",
        "never_drawn",
    }
    for stats in (empty.stats(), replay.stats()):
        assert set(stats) >= keys
        assert all(type(value) in (int, float) for value in stats.values())
        json.dumps(stats)


@by_class
def test_statistics_say_what_happened(kind):
    td_errors = np.arange(1.0, 101.0)
    replay, _ = filled(kind(**({"eps": 0.0} if kind is per.Proportional else {})), td_errors)
    replay.get(np.arange(100))
    assert replay.stats()["never_drawn"] == 1.0

    batch = replay.sample(64, beta=0.7)
    stats = replay.stats()

    weights = batch.weights.astype(np.float64)
    assert stats["size"] == stats["ids_issued"] == 100
    assert stats["open_windows"] == stats["stale_updates"] == 0
    assert stats["effective_sample_size"] == pytest.approx(
        weights.sum() ** 2 / np.sum(weights**2), rel=1e-5
    )
    assert stats["weight_min"] == pytest.approx(weights.min(), rel=1e-6)
    assert stats["weight_max"] == 1.0
    assert stats["duplicates"] == 64 - np.unique(batch.ids).size
    assert stats["never_drawn"] == pytest.approx(1 - np.unique(batch.ids).size / 100)
    assert stats["largest_priority"] == 100.0
    for percent in (5, 25, 50, 75, 95):
        assert stats[f"priority_p{percent:02d}"] == pytest.approx(
            np.percentile(td_errors, percent), abs=1.0
        )


def test_overwritten_rows_are_live_rows_never_drawn_again():
    replay, _ = filled(per.Proportional(draw="without_replacement"), np.ones(10))
    replay.sample(10)
    assert replay.stats()["never_drawn"] == 0.0
    assert replay.stats()["duplicates"] == 0

    replay.extend(transitions(np.arange(4)))

    assert replay.stats()["never_drawn"] == pytest.approx(0.4)
