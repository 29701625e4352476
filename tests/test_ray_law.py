"""The law by which shards are drawn from, without Ray: exactly where possible, else by many draws.

A statistical test here fails by chance at most once in a thousand times: it compares means with
their own standard error, at 4 of them or more.
"""

import numpy as np
import pytest

import prioritized_replay as per

pytest.importorskip("ray")

from tests.sharding import FIELDS, Call, InProcess, Sharded, transitions

from prioritized_replay.integrations.ray import ShardedReplay
from prioritized_replay.integrations.ray.allocation import (
    Chances,
    allocate,
    importance_weights,
    shares,
)
from prioritized_replay.sampled import Totals

LAWS = [
    per.Uniform(),
    per.Proportional(alpha=0.7, eps=0.1),
    per.RankBased(alpha=0.8),
    per.Proportional(alpha=0.7, eps=0.0, uniform_mix=0.2, draw="independent"),
]
UNEQUAL = [(0, 5, 1.0), (1, 40, 0.3), (2, 12, 8.0), (3, 1, 20.0)]  # shard, rows, size of errors


def filled(sampler, **options):
    """Four shards of unequal mass; each row's reward is a number of its own."""
    sharded = Sharded(sampler, **options)
    generator = np.random.default_rng(7)
    count = 0
    for shard, rows, size in UNEQUAL:
        errors = size * generator.random(rows)
        sharded.extend(shard, np.arange(count, count + rows), errors)
        count += rows
    return sharded, count


def all_rows(sharded):
    """Ids, probabilities within the shard and rewards of all rows there are, shard by shard."""
    result = []
    for number, shard in enumerate(sharded.carrier.shards):
        buffer = shard._buffer
        numbers = np.arange(buffer.ids_issued - len(buffer), buffer.ids_issued)
        batch = buffer.get(numbers)
        result.append(
            (number, shard._numbering.global_ids(numbers), batch.probabilities, batch.reward)
        )
    return result


@pytest.mark.parametrize("sampler", LAWS, ids=str)
def test_the_stated_law_sums_to_one_over_all_rows_also_where_totals_are_stale(sampler):
    sharded, _ = filled(sampler)
    sharded.carrier.shards[1]._buffer.extend(
        {"obs": [1.0] * 30, "action": [0] * 30, "reward": [1.0] * 30, "next_obs": [1.0] * 30,
         "terminated": [False] * 30}, 50.0 * np.ones(30)
    )  # fmt: skip
    stale = [report.totals for report in sharded.calls.reports]
    mixed = getattr(sampler, "uniform_mix", 0.0)
    chances = shares(stale, mixed, np.ones(4, bool))
    stated = {}
    for number, ids, probabilities, _ in all_rows(sharded):
        stated |= dict(zip(ids.tolist(), chances[number] * probabilities, strict=True))
    assert sum(stated.values()) == pytest.approx(1.0, rel=1e-12)
    assert sharded.calls.reports[1].totals == stale[1]
    deadline = sharded.calls.deadline()
    for batch in sharded.drawing.finish(
        sharded.drawing.begin(16, 3, deadline), [1.0, 1.0, 1.0], deadline
    ):
        wanted = [stated[row] for row in batch.ids.tolist()]
        np.testing.assert_allclose(batch.probabilities, wanted, rtol=1e-12)
        least = batch.probabilities.min()
        np.testing.assert_allclose(batch.weights, least / batch.probabilities, rtol=1e-6)


def test_with_nothing_in_flight_the_law_is_that_of_one_buffer():
    sampler = per.Proportional(alpha=0.7, eps=0.1)
    sharded, count = filled(sampler)
    one = per.ReplayBuffer(400, sharded.carrier.blueprint.fields, sampler=sampler)
    errors = np.concatenate(
        [shard._buffer.priorities(np.arange(shard._buffer.ids_issued)) - 0.1
         for shard in sharded.carrier.shards]
    )  # fmt: skip
    values = np.arange(count, dtype=np.float64)
    ids = one.extend(
        {"obs": values, "action": np.zeros(count, int), "reward": values, "next_obs": values,
         "terminated": np.zeros(count, bool)}, errors
    )  # fmt: skip
    wanted = one.get(ids)
    of_row = dict(zip(wanted.reward.tolist(), wanted.probabilities.tolist(), strict=True))
    for beta in (0.4, 1.0):
        batch = sharded.sample(count, beta)
        expected = np.array([of_row[reward] for reward in batch.reward.tolist()])
        np.testing.assert_allclose(batch.probabilities, expected, rtol=1e-12)
        np.testing.assert_allclose(
            batch.weights, (batch.probabilities / batch.probabilities.min()) ** -beta, rtol=1e-6
        )


@pytest.mark.parametrize("draw", ["stratified", "independent"])
def test_counts_have_the_mean_that_the_chances_say(draw):
    """By exact enumeration: stratified counts are a function of one number in [0, 1)."""
    chances = np.array([0.31, 0.0, 0.24, 0.45])
    generator = np.random.default_rng(3)
    if draw == "stratified":

        class Grid:  # every number of a fine grid once, the middles of its cells
            def __init__(self):
                self.place = 0

            def random(self):
                self.place += 1
                return (self.place - 0.5) / 5_000

        generator = Grid()
        counts = np.array([allocate(chances, 7, generator, draw) for _ in range(5_000)])
        np.testing.assert_allclose(counts.mean(0), 7 * chances, atol=2e-3)
        assert np.ptp(counts, axis=0).max() <= 1
    else:
        counts = np.array([allocate(chances, 7, generator, draw) for _ in range(20_000)])
        error = np.sqrt(7 * chances * (1 - chances) / 20_000) + 1e-12
        assert (np.abs(counts.mean(0) - 7 * chances) < 4.5 * error).all()
    assert (counts.sum(1) == 7).all()
    assert not counts[:, 1].any()


@pytest.mark.slow
@pytest.mark.parametrize("sampler", LAWS, ids=str)
def test_weighted_estimates_are_unbiased_with_adds_and_updates_in_flight(sampler):
    """Over a million draws. Totals are stale at each of them, and differently so each time."""
    sharded, count = filled(sampler, capacity=600)
    generator = np.random.default_rng(11)
    batch_size, rounds = 1_250, 800
    errors = np.empty(rounds)
    value = count
    for number in range(rounds):
        shard = number % 4
        buffer = sharded.carrier.shards[shard]._buffer
        # Neither of these is reported: the totals are those of the last draw from the shard.
        if number % 3 == 0:
            rows = np.arange(value, value + 1 + number % 2, dtype=float) % 97
            value += rows.size
            buffer.extend(
                {"obs": rows, "action": np.zeros(rows.size, int), "reward": rows,
                 "next_obs": rows, "terminated": np.zeros(rows.size, bool)},
                5.0 * generator.random(rows.size),
            )  # fmt: skip
        live = np.arange(buffer.ids_issued - len(buffer), buffer.ids_issued)
        some = generator.choice(live, min(3, live.size), replace=False)
        buffer.update_priorities(some, 4.0 * generator.random(some.size))
        truth = np.concatenate([rewards for *_, rewards in all_rows(sharded)])
        batch = sharded.sample(batch_size)
        estimate = np.mean(batch.reward / (truth.size * batch.probabilities))
        errors[number] = estimate - truth.mean(dtype=np.float64)
    assert rounds * batch_size == 1_000_000
    standard = errors.std() / np.sqrt(rounds)
    assert abs(errors.mean()) < 4.0 * standard
    assert standard < 0.3  # of rewards around 48: so a bias would be seen


def test_a_law_that_takes_stale_totals_for_the_true_ones_would_be_found():
    """What the test above would say if P were made of the totals that are true at the draw."""
    sharded, _ = filled(LAWS[1])
    stale = [report.totals for report in sharded.calls.reports]
    buffer = sharded.carrier.shards[0]._buffer
    buffer.update_priorities(np.arange(5), [200.0] * 5)
    true = [shard.report().report.totals for shard in sharded.carrier.shards]
    everyone = np.ones(4, bool)
    assert abs(shares(stale, 0.0, everyone) - shares(true, 0.0, everyone)).max() > 0.1


@pytest.mark.parametrize("state", ["gone", "late"])
@pytest.mark.parametrize("sampler", LAWS[:2], ids=str)
def test_what_a_shard_does_not_give_comes_from_the_others_under_their_law(sampler, state):
    sharded, _ = filled(sampler, timeout=0.2)
    totals = [report.totals for report in sharded.calls.reports]
    sharded.carrier.state[2] = state
    batch = sharded.sample(64)
    assert len(batch) == 64
    assert not (batch.ids % 4 == 2).any()
    present = np.array([True, True, False, True])
    chances = shares(totals, 0.0, present)
    stated = {}
    for number, ids, probabilities, _ in all_rows(sharded):
        stated |= dict(zip(ids.tolist(), chances[number] * probabilities, strict=True))
    wanted = [stated[row] for row in batch.ids.tolist()]
    np.testing.assert_allclose(batch.probabilities, wanted, rtol=1e-9)


def test_a_shard_that_turned_out_to_be_empty_gives_its_share_to_the_others():
    sharded, _ = filled(LAWS[1])
    sharded.carrier.shards[2]._buffer.clear()
    batch = sharded.sample(50)
    assert len(batch) == 50
    assert not (batch.ids % 4 == 2).any()
    assert sharded.calls.reports[2].totals.size == 0  # it has said so


def test_chances_over_rounds_are_those_of_a_simulated_draw():
    first, second = np.array([0.5, 0.3, 0.2]), np.array([0.25, 0.75, 0.0])
    chances = Chances(3)
    chances.round(first, np.array([False, False, True]))
    chances.round(second, np.zeros(3, bool))
    generator = np.random.default_rng(1)
    drawn = generator.choice(3, 200_000, p=first)
    again = generator.choice(3, 200_000, p=second)
    counts = np.bincount(np.where(drawn == 2, again, drawn), minlength=3) / 200_000
    np.testing.assert_allclose(counts, chances.of_shards, atol=5e-3)
    assert chances.of_shards.sum() == pytest.approx(1.0)


def test_weights_refer_to_what_the_sampler_says():
    probabilities = np.array([0.5, 0.125, 0.0625])
    rows = 10
    raw = importance_weights(probabilities, 0.5, "raw", rows, 0.0)
    np.testing.assert_allclose(raw, (rows * probabilities) ** -0.5, rtol=1e-6)
    of_batch = importance_weights(probabilities, 0.5, "batch", rows, 0.0)
    np.testing.assert_allclose(of_batch, raw / raw.max(), rtol=1e-6)
    of_all = importance_weights(probabilities, 0.5, "buffer", rows, 0.01)
    np.testing.assert_allclose(of_all, (probabilities / 0.01) ** -0.5, rtol=1e-6)


@pytest.mark.parametrize("kind", ["batch", "buffer", "raw"])
def test_weights_of_shards_are_those_of_one_buffer(kind):
    sampler = per.Proportional(alpha=0.7, eps=0.1, weights=kind)
    sharded, count = filled(sampler)
    sharded.sample(count)  # all have reported the least probability
    one = per.ReplayBuffer(400, sharded.carrier.blueprint.fields, sampler=sampler)
    values = np.arange(count, dtype=np.float64)
    errors = np.concatenate(
        [shard._buffer.priorities(np.arange(shard._buffer.ids_issued)) - 0.1
         for shard in sharded.carrier.shards]
    )  # fmt: skip
    ids = one.extend(
        {"obs": values, "action": np.zeros(count, int), "reward": values, "next_obs": values,
         "terminated": np.zeros(count, bool)}, errors
    )  # fmt: skip
    batch = sharded.sample(20, 0.6)
    wanted = one.get(ids[batch.reward.astype(int)], 0.6)
    np.testing.assert_allclose(batch.weights, wanted.weights, rtol=1e-5)


def test_without_replacement_no_row_comes_twice_and_shards_give_what_they_have():
    sampler = per.Proportional(alpha=0.7, eps=0.1, draw="without_replacement")
    sharded, count = filled(sampler)
    for size in (10, 40, count):
        batch = sharded.sample(size)
        assert len(set(batch.ids.tolist())) == size
    with pytest.raises(ValueError, match=rf"without replacement \({count}\), got {count + 1}"):
        sharded.sample(count + 1)


def test_nothing_to_draw_says_what_is_missing():
    sharded = Sharded(per.Proportional(eps=0.0))
    with pytest.raises(ValueError, match="at least one transition, got none in any shard"):
        sharded.sample(4)
    sharded.extend(1, [1.0], np.zeros(1))
    with pytest.raises(ValueError, match="all priorities are zero"):
        sharded.sample(4)
    mixed = Sharded(per.Proportional(eps=0.0, uniform_mix=0.1))
    mixed.extend(1, [1.0], np.zeros(1))
    assert (mixed.sample(4).reward == 1.0).all()


def test_rows_that_only_an_absent_shard_has_are_waited_for_and_no_longer_than_allowed():
    sharded = Sharded(LAWS[1], timeout=0.3)
    sharded.extend(1, [1.0, 2.0])
    sharded.carrier.kill(1)
    with pytest.raises(TimeoutError, match=r"shard 1 of 4 has not answered for 0\.3 s, and the"):
        sharded.sample(4)
    sharded.carrier.restart(1)
    sharded.calls._tried = [0.0] * 4
    with pytest.raises(ValueError, match="got none in any shard"):
        sharded.sample(4)


def test_rows_that_nobody_has_reported_are_found_when_nothing_else_is_known():
    sharded = Sharded(per.Proportional())
    sharded.carrier.shards[3].extend(
        {"obs": [1.0], "action": [0], "reward": [3.0], "next_obs": [1.0], "terminated": [False]},
        None,
    )
    assert (sharded.sample(5).reward == 3.0).all()


def test_a_shard_whose_report_says_empty_is_asked_again_now_and_then(monkeypatch):
    sharded, _ = filled(LAWS[1])
    sharded.carrier.shards[2]._buffer.clear()
    sharded.sample(50)
    assert sharded.calls.reports[2].totals.size == 0
    sharded.carrier.shards[2]._buffer.extend(
        {"obs": [1.0], "action": [0], "reward": [3.0], "next_obs": [1.0], "terminated": [False]},
        [1e6],
    )
    monkeypatch.setattr("prioritized_replay.integrations.ray.calls.FRESH", 0.0)
    for _ in range(3):
        batch = sharded.sample(50)
    assert (batch.ids % 4 == 2).any()


def test_huge_and_tiny_masses_give_chances():
    totals = [Totals(2, 2, 1e308, 0.0), Totals(2, 2, 1e308, 0.0), Totals(1, 1, 1e-300, 0.0)]
    chances = shares(totals, 0.0, np.ones(3, bool))
    np.testing.assert_allclose(chances, [0.5, 0.5, 0.0])
    assert allocate(chances, 9, np.random.default_rng(0)).sum() == 9


def test_a_closed_replay_lets_go_of_the_folders_it_was_saved_to(tmp_path, monkeypatch):
    """A notebook keeps the name of the one that was closed."""
    InProcess.instead_of_ray(monkeypatch)
    kept = [ShardedReplay(100, FIELDS, shards=2, seed=0, checkpoint_dir=tmp_path)]
    for _ in range(4):  # each of the two sets of a checkpoint is written again
        kept[-1].save()
        kept[-1].close()
        for shard in kept[-1]._processes.shards:  # in a process of its own it would be gone
            shard._buffer = None
        kept.append(ShardedReplay.load(tmp_path))
    kept[-1].close()


@pytest.mark.parametrize("method", ["save", "clear", "get", "priorities", "stats"])
def test_a_shard_that_dies_before_it_answers_is_asked_again(method, tmp_path, monkeypatch):
    """That it has died a moment ago, nobody knows."""
    InProcess.instead_of_ray(monkeypatch)
    with ShardedReplay(100, FIELDS, shards=2, seed=0) as replay:
        ids = replay.extend(transitions(np.arange(10.0)))
        submit, died = replay._processes.submit, []

        def dies_once(shard, called, *values):
            if (shard, called) == (1, method) and not died:
                died.append(shard)
                return Call(None, "gone")
            return submit(shard, called, *values)

        monkeypatch.setattr(replay._processes, "submit", dies_once)
        if method == "save":
            replay.save(tmp_path)
            assert len(per.ReplayBuffer.load(tmp_path / "a" / "shard-1")) == 5
        elif method == "clear":
            replay.clear()
            assert len(replay) == 0
        elif method == "stats":
            assert replay.stats()["shards_present"] == 2
        else:
            assert len(getattr(replay, method)(ids)) == 10
        assert died == [1]


@pytest.mark.slow
def test_samples_per_insert_is_held_within_a_batch_over_many_operations_and_checkpoints(
    tmp_path, monkeypatch
):
    """Counted here, from what calls returned: rows that came, and ids that were given."""
    InProcess.instead_of_ray(monkeypatch)
    rate, batch_size, tolerance, most = 4.0, 8, 16, 3
    replay = ShardedReplay(
        2_000, FIELDS, shards=2, seed=0, sampler=per.Uniform(), samples_per_insert=rate,
        tolerance=tolerance, timeout=0.5,
    )  # fmt: skip
    generator = np.random.default_rng(5)
    blocks = [transitions(np.arange(1.0, 2.0 + rows)) for rows in range(most)]
    drawn = inserted = waited = operations = 0
    while operations < 100_000:
        if operations % 20_000 == 9_999:  # what is drawn ahead and not delivered is given back
            with replay.batches(batch_size, ahead=2) as batches:
                if rate * inserted - drawn >= batch_size:
                    drawn += len(next(batches))
            replay.save(tmp_path)
            replay.close()
            replay = ShardedReplay.load(tmp_path)
        operations += 1
        may_draw = rate * inserted - drawn >= batch_size
        may_insert = rate * inserted - drawn <= tolerance
        draw = generator.random() < 0.35
        try:
            if draw:
                drawn += len(replay.sample(batch_size))
            else:
                inserted += replay.extend(blocks[generator.integers(most)]).size
        except TimeoutError:
            waited += 1
            assert not (may_draw if draw else may_insert)
        else:
            assert may_draw if draw else may_insert
        assert 0.0 <= rate * inserted - drawn <= tolerance + rate * most
    stats = replay.stats()
    assert (stats["inserted"], stats["drawn"]) == (inserted, drawn)
    assert inserted > 50_000
    assert 1_000 < waited < 50_000
    replay.close()
