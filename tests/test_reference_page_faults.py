"""The five faults of the reference page: each test holds the faulty formula, and ours beside it."""

import math
import time

import numpy as np
import pytest
from tests.reference import FIELDS, chi_square_excess, filled, rank_law

import prioritized_replay as per

ERRORS = np.array([0.3, 5.0, 0.1, 2.0, 1.0, 0.7])


def page_ranks(priorities):
    """Ranks as the page computes them, from a column of shape (N, 1)."""
    return np.argsort(-1 * priorities, axis=1) + 1


def page_probabilities(priorities, alpha):
    masses = (1 / page_ranks(priorities)) ** alpha
    return (masses / np.sum(masses))[:, 0]


def drawn_first(buffer, batches):
    """How often each row (told by its observation) is the first of a batch."""
    first = np.array([int(buffer.draw_samples()[0][0, 0]) for _ in range(batches)])
    return np.bincount(first, minlength=len(buffer))


def per_with(errors, alpha):
    """A PER of one row per error, of which a batch is everything."""
    count = len(errors)
    buffer = per.PER((1,), count, count, alpha, 0.5, 0.0, seed=3)
    for k in range(count):
        buffer.add_experience([k], 0, 0.0, [k], False)
    obs, *_, idxs, _ = buffer.draw_samples()
    buffer.update_priority(idxs, np.asarray(errors)[obs[:, 0].astype(int)])
    return buffer


@pytest.mark.slow
def test_fault_1_every_rank_is_one_so_sampling_is_uniform():
    alpha = 0.7
    column = ERRORS[:, None]
    uniform = np.full(6, 1 / 6)
    np.testing.assert_array_equal(page_ranks(column), 1)
    np.testing.assert_array_equal(page_probabilities(column, alpha), uniform)
    # along the other axis it would be the order of the rows, which is not their rank either
    assert (np.argsort(-ERRORS) + 1).tolist() == [2, 4, 5, 6, 1, 3]
    ranks = np.array([5, 1, 6, 2, 3, 4])

    counts = drawn_first(per_with(ERRORS, alpha), 6_000)

    law = ranks**-alpha / np.sum(ranks**-alpha)
    np.testing.assert_allclose(rank_law(ERRORS, alpha), law, rtol=1e-12)
    assert chi_square_excess(counts, law) < 1
    assert chi_square_excess(counts, uniform) > 5


def test_fault_2_squaring_the_weighted_error_squares_the_weight():
    """Expected gradients by enumeration; g is d td_error / d theta of a linear model."""
    rng = np.random.default_rng(5)
    td_errors = rng.pareto(1.5, 40) + 0.05
    g = rng.random(40) + 0.5
    replay, ids = filled(per.RankBased(alpha=0.7, weights="raw"), td_errors)
    plain = np.mean(td_errors * g)

    def expected(beta, gradient):
        batch = replay.get(ids, beta=beta)
        return math.fsum(batch.probabilities * gradient(batch.weights, td_errors) * g)

    def page(weight, td):  # of 0.5 * (weight * td)**2
        return weight**2 * td

    def ours(weight, td):  # of weight * 0.5 * td**2
        return weight * td

    # ours: full correction exactly at beta = 1, too little before
    assert expected(1.0, ours) == pytest.approx(plain, rel=1e-6)
    assert expected(0.5, ours) > 1.1 * plain
    # the page's: beta = 0.5 is full correction already, beta = 1 over-corrects
    assert expected(0.5, page) == pytest.approx(plain, rel=1e-6)
    assert expected(1.0, page) < 0.95 * plain


@pytest.mark.slow
def test_fault_3_float_actions_fail_in_gather():
    torch = pytest.importorskip("torch")
    values = torch.arange(12.0).reshape(6, 2)
    page_column = np.zeros((6, 1), dtype=np.float32)
    with pytest.raises(RuntimeError, match="int64"):
        values.gather(dim=1, index=torch.as_tensor(page_column))
    buffer = per.PER((1,), 6, 6, 0.7, 0.5, 0.1)
    for k in range(6):
        buffer.add_experience([k], k % 2, 0.0, [k], False)

    obs, action, *_ = buffer.draw_samples()
    chosen = values[obs[:, 0].astype(int)].gather(dim=1, index=torch.as_tensor(action))

    np.testing.assert_array_equal(chosen[:, 0], 2 * obs[:, 0] + obs[:, 0] % 2)
    for lossy in (0.5, np.float32(1)):
        with pytest.raises((TypeError, ValueError), match="action"):
            buffer.add_experience([9], lossy, 0.0, [9], False)
    assert len(buffer) == 6


def best_time(call, repeats):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.slow
def test_fault_4_sorting_everything_on_every_draw():
    """A hundred times the rows: the page's draw takes a hundred times as long, ours does not."""
    small, large = 3_000, 300_000
    rng = np.random.default_rng(0)

    def page_draw(priorities):
        ranks = np.empty(len(priorities), np.int64)
        ranks[np.argsort(-priorities)] = np.arange(1, len(priorities) + 1)
        masses = (1 / ranks) ** 0.7
        p = masses / np.sum(masses)
        return rng.choice(len(p), 32, replace=False, p=p)

    page, ours = {}, {}
    for size in (small, large):
        priorities = rng.random(size)
        page[size] = best_time(lambda p=priorities: page_draw(p), 5)
        replay, _ = filled(per.RankBased(alpha=0.7), priorities)

        def cycle(replay=replay):
            batch = replay.sample(32)
            replay.update_priorities(batch.ids, batch.probabilities * 1_000 % 1)

        cycle()
        ours[size] = best_time(cycle, 300)

    assert page[large] > 25 * page[small]
    assert ours[large] < 8 * ours[small]
    assert ours[large] < page[large] / 20


def test_fault_5_weights_not_normalised_done_for_a_time_limit_and_a_global_generator():
    weights_are_divided_by_their_maximum()
    a_time_limit_bootstraps()
    the_global_generator_decides_nothing()


def weights_are_divided_by_their_maximum():
    alpha, beta = 0.7, 0.5
    p = rank_law(ERRORS, alpha)
    page_weights = (1 / len(p) * 1 / p) ** beta
    assert page_weights.max() > 1  # such an update is scaled up

    obs, *_, weights = per_with(ERRORS, alpha).draw_samples()

    np.testing.assert_allclose(
        weights[:, 0], (page_weights / page_weights.max())[obs[:, 0].astype(int)], rtol=1e-6
    )
    assert weights.max() == 1


def a_time_limit_bootstraps():
    gamma, value_of_next = 0.9, 10.0
    replay = per.ReplayBuffer(4, FIELDS, gamma=gamma)
    obs = np.zeros(2)
    terminated, truncated = False, True  # cut off by a time limit
    done = terminated or truncated
    page_target = 1.0 + gamma * value_of_next * (1 - done)

    batch = replay.get(replay.add(obs, 0, 1.0, obs, terminated, truncated))

    ours = batch.reward + batch.discount * value_of_next
    assert page_target == 1.0
    np.testing.assert_allclose(ours, 1.0 + gamma * value_of_next, rtol=1e-6)


def the_global_generator_decides_nothing():
    def page_draws(seed):
        np.random.seed(seed)  # noqa: NPY002 the fault itself
        return np.random.choice(100, 8, replace=False)  # noqa: NPY002

    def our_draws(global_seed, seed):
        np.random.seed(global_seed)  # noqa: NPY002
        buffer = per.PER((1,), 100, 8, 0.7, 0.5, 0.1, seed=seed)
        for k in range(100):
            buffer.add_experience([k], 0, 0.0, [k], False)
        return buffer.draw_samples()[5]

    assert not np.array_equal(page_draws(1), page_draws(2))
    np.testing.assert_array_equal(our_draws(1, seed=0), our_draws(2, seed=0))
    assert not np.array_equal(our_draws(1, seed=0), our_draws(1, seed=1))
