"""The chain with shared features: task, learner, results, the command, and the page's figures."""

import math
from pathlib import Path

import numpy as np
import pytest

from prioritized_replay import PrioritizedIndex
from prioritized_replay.experiments.chain import task
from prioritized_replay.experiments.chain.command import ChainConfig, reproduce
from prioritized_replay.experiments.chain.learner import (
    TARGET_PERIOD,
    TILES,
    WAYS,
    Learner,
    replay,
    tiles_of,
)
from prioritized_replay.experiments.chain.results import ChainMeasure, ChainRun, measures
from prioritized_replay.experiments.chain.task import (
    PATIENCE,
    STEP_SIZES,
    TUNING_SEEDS,
    Chain,
    tuned_step_size,
    updates_to_learn,
)
from prioritized_replay.experiments.tables import read_rows

MEASURED = Path(__file__).parent.parent / "docs" / "results" / "chain"


@pytest.mark.parametrize("n", [2, 3, 9])
def test_true_values_are_what_value_iteration_finds(n):
    chain = Chain(n)
    values = np.zeros((n, 2))
    for _ in range(300 * n):
        best = np.append(values.max(axis=1), 0.0)
        arrived = np.arange(n) == n - 1
        back = np.maximum(np.arange(n) - 1, 0)
        values = np.stack([chain.gamma * best[back], arrived + chain.gamma * best[1:]], axis=1)

    np.testing.assert_allclose(chain.true_values(), values, rtol=1e-10)


def test_a_memory_is_one_walk_that_arrives():
    chain = Chain(6)
    rows = chain.memory(np.random.default_rng(0))

    assert rows.pair.size == chain.transitions == 144
    state, action = rows.pair // 2, rows.pair % 2
    arrived = (state == 5) & (action == 1)
    assert arrived.any()
    np.testing.assert_array_equal(rows.reward, arrived)
    np.testing.assert_array_equal(rows.discount, np.where(arrived, 0.0, chain.gamma))
    following = np.where(action == 1, state + 1, np.maximum(state - 1, 0))
    np.testing.assert_array_equal(rows.next_obs[~arrived], following[~arrived])
    np.testing.assert_array_equal(state[1:], np.where(arrived, 0, following)[:-1])
    assert 0.3 < action.mean() < 0.7


def test_neighbours_share_all_features_but_one_and_any_values_can_be_learnt():
    n = 20
    tiles = tiles_of(n)
    features = np.zeros((n, tiles.max() + 1))
    np.put_along_axis(features, tiles, 1.0, axis=1)

    np.testing.assert_array_equal(features.sum(axis=1), TILES)
    np.testing.assert_array_equal((features[1:] * features[:-1]).sum(axis=1), TILES - 1)
    assert np.linalg.matrix_rank(features) == n


def test_an_update_is_gradient_descent_on_the_weighted_loss_of_double_dqn():
    chain, rng = Chain(5), np.random.default_rng(1)
    rows = chain.memory(rng)
    learner = Learner(5, 0.5, clip=0.01, rng=rng)
    learner.target[:] = rng.normal(size=learner.target.shape)
    features = np.zeros((5, learner.tiles.max() + 1))
    np.put_along_axis(features, learner.tiles, 1.0, axis=1)
    theta = learner.theta.copy()
    slots = rng.integers(chain.transitions, size=7)
    weights = rng.random(7, np.float32)
    online, target = features @ theta.T, features @ learner.target.T
    np.testing.assert_allclose(learner.values(), online, rtol=1e-13)
    expected = []
    for slot, weight in zip(slots, weights, strict=True):
        state, action = divmod(rows.pair[slot], 2)
        following = rows.next_obs[slot]
        value = target[following, online[following].argmax()]
        error = rows.reward[slot] + rows.discount[slot] * value - online[state, action]
        expected.append(error)
        step = 0.5 / TILES / 7 * float(weight) * np.clip(error, -0.01, 0.01)
        theta[action] += step * features[state]

    np.testing.assert_allclose(learner.td_errors(rows, slots), expected, rtol=1e-12)
    np.testing.assert_allclose(learner.learn(rows, slots, weights), expected, rtol=1e-12)

    np.testing.assert_allclose(learner.theta, theta, rtol=1e-12)
    assert max(map(abs, expected)) > 0.01  # something was clipped


def test_the_target_is_copied_now_and_then():
    chain, rng = Chain(4), np.random.default_rng(0)
    rows, learner = chain.memory(rng), Learner(4, 1.0, math.inf, rng)
    first = learner.target.copy()
    for update in range(1, TARGET_PERIOD + 1):
        np.testing.assert_array_equal(learner.target, first)
        learner.learn(rows, np.flatnonzero(rows.reward)[:1], np.ones(1, np.float32))
        assert learner.updates == update
    np.testing.assert_array_equal(learner.target, learner.theta)
    assert (learner.target != first).any()


def test_errors_are_given_back_to_the_rows_that_were_drawn():
    chain, rng = Chain(4), np.random.default_rng(0)
    rows, learner = chain.memory(rng), Learner(4, 1.0, math.inf, rng)
    index = PrioritizedIndex(chain.transitions, WAYS["proportional"].sampler, seed=0)
    ids = index.append(chain.transitions)
    before = learner.td_errors(rows, ids)

    assert replay(learner, rows, index, beta=0.4)

    changed = index.priorities(ids) != 1.0
    assert 0 < changed.sum() <= 32
    np.testing.assert_allclose(index.priorities(ids[changed]), np.abs(before[changed]) + 0.01)


def test_a_run_is_fixed_by_its_seed_and_arms_differ():
    one, again, other = (updates_to_learn(8, "proportional", seed, 4.0) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert one.complete
    assert one.policy <= one.values
    assert updates_to_learn(8, "proportional-unweighted", 1, 4.0) != one


def test_where_no_error_is_above_the_floor_lap_draws_as_uniform_replay_does():
    for seed in range(3):
        assert updates_to_learn(8, "lap", seed, 4.0) == updates_to_learn(8, "uniform", seed, 4.0)


def test_what_is_late_or_diverges_is_given_up():
    assert not updates_to_learn(8, "uniform", 0, 4.0, limit=10).complete
    assert updates_to_learn(8, "uniform", 0, 64.0).values is None


def test_the_step_size_is_the_one_that_learns_soonest():
    medians = {
        size: np.median(
            [updates_to_learn(8, "rank", seed, size).values or math.inf for seed in TUNING_SEEDS]
        )
        for size in STEP_SIZES
    }
    # Of equally good ones the smallest: it is furthest from those that diverge.
    assert tuned_step_size(8, "rank") == min(medians, key=medians.get)
    assert min(TUNING_SEEDS) >= 1_000


def test_too_short_a_chain_and_an_unknown_arm_are_refused():
    with pytest.raises(ValueError, match="n must be >= 2, got 1"):
        Chain(1)
    with pytest.raises(ValueError, match="arm must be one of uniform, proportional"):
        updates_to_learn(8, "best", 0, 1.0)


def test_measures_are_medians_and_late_runs_count_with_all_updates():
    runs = [ChainRun(8, 256, "rank", seed, 4.0, v, 7) for seed, v in enumerate([10, 20, None])]
    found = {m.measure: m.value for m in measures(runs)}
    assert found["values"] == 20.0
    assert found["values-low"] == 10.0
    assert found["values-high"] == PATIENCE * 8
    assert (found["policy-low"], found["policy"], found["policy-high"]) == (7.0, 7.0, 7.0)
    assert (found["never"], found["step-size"]) == (1.0, 4.0)


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_writes_every_run_and_a_figure(tmp_path, capsys, monkeypatch):
    output = tmp_path / "new" / "folder"
    monkeypatch.setattr(task, "TUNING_SEEDS", (1_000,))

    reproduce(ChainConfig(lengths=(6, 4), seeds=2, arms=("uniform", "lap"), output=output))

    runs = read_rows(output / "chain.csv", ChainRun)
    assert [(run.n, run.arm, run.seed) for run in runs] == [
        (n, arm, seed) for n in (4, 6) for arm in ("uniform", "lap") for seed in (0, 1)
    ]
    for run in runs:
        found = updates_to_learn(run.n, run.arm, run.seed, run.step_size)
        assert (run.values, run.policy) == (found.values, found.policy)
    assert read_rows(output / "chain-summary.csv", ChainMeasure) == measures(runs)
    assert (output / "chain.png").stat().st_size > 20_000
    assert "updates until the values are right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lengths": (1,)}, r"lengths must be one or more different numbers in \[2, 256\], got"),
        ({"lengths": ()}, "lengths must be one or more"),
        ({"seeds": 0}, r"seeds must be in \[1, 10,000\], got 0"),
        ({"arms": ("rank", "rank")}, "arms must be one or more different ones of uniform"),
    ],
)
def test_nonsense_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        ChainConfig(**wrong)


# --- the results in the docs ----------------------------------------------------------------------


def test_measured_results_are_complete_and_so_is_their_summary():
    runs = read_rows(MEASURED / "chain.csv", ChainRun)
    config = ChainConfig()
    assert [(run.n, run.arm, run.seed) for run in runs] == [
        (n, arm, seed)
        for n in config.lengths
        for arm in config.arms
        for seed in range(config.seeds)
    ]
    assert read_rows(MEASURED / "chain-summary.csv", ChainMeasure) == measures(runs)


def test_the_words_beside_the_table_are_what_was_measured():
    rows = read_rows(MEASURED / "chain-summary.csv", ChainMeasure)
    found = {(m.n, m.arm, m.measure): m.value for m in rows}
    longest = {(arm, measure): value for (n, arm, measure), value in found.items() if n == 64}
    values, policy = longest["uniform", "values"], longest["uniform", "policy"]
    for arm in ("proportional", "rank"):
        unweighted = f"{arm}-unweighted"
        assert longest[unweighted, "values-high"] < longest["uniform", "values-low"]
        assert 0.5 * values < longest[unweighted, "values"] < longest[arm, "values"] < 0.8 * values
        assert 0.9 * policy < longest[unweighted, "policy"] < 1.1 * policy
        assert longest[arm, "policy"] > 1.2 * policy
    for n in (8, 16, 32, 64):
        assert found[n, "lap", "values"] == found[n, "uniform", "values"]
    assert longest["lap-scaled", "values"] > 1.2 * values


def test_seeds_that_no_arm_learns_lack_an_action():
    runs = read_rows(MEASURED / "chain.csv", ChainRun)
    late = {
        (run.n, run.seed)
        for run in runs
        if run.values is None and run.n <= 16 and run.arm != "lap-scaled"
    }
    assert late
    for n, seed in late:
        rows = Chain(n).memory(np.random.default_rng([n, seed]))
        assert not np.bincount(rows.pair, minlength=2 * n).all()


def test_measured_results_are_those_of_this_code():
    for run in read_rows(MEASURED / "chain.csv", ChainRun):
        if run.n == 16 and run.seed == 0:
            found = updates_to_learn(run.n, run.arm, run.seed, run.step_size)
            assert (found.values, found.policy) == (run.values, run.policy), (
                "made by other code: run `per reproduce chain --output docs/results/chain` again"
            )
