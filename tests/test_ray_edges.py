"""What a caller of ShardedReplay may count on where nothing goes as usual; without Ray."""

import contextlib
import json
import shutil
import time

import numpy as np
import pytest
from tests.sharding import FIELDS, InProcess, Sharded, transitions
from tests.test_ray_parts import columns, kept

import prioritized_replay as per
from prioritized_replay.inspection.record import SHARDED, shards_in
from prioritized_replay.integrations.ray import ShardedReplay, manifest
from prioritized_replay.integrations.ray.inserting import Inserting


@pytest.fixture
def sharded(monkeypatch):
    """Return what makes replays whose shards are in this process."""
    InProcess.instead_of_ray(monkeypatch)
    made = []

    def make(capacity=10_000, fields=FIELDS, **options):
        made.append(ShardedReplay(capacity, fields, **{"shards": 2, "seed": 0, **options}))
        return made[-1]

    yield make
    for replay in made:
        replay.close()


def add(replay, first, count):
    for k in range(first, first + count):
        replay.add(float(k), 0, float(k), k + 0.5, False)


def rewards(replay):
    return np.sort(replay.get(replay.highest(replay.capacity)).reward)


LIMITED = {"samples_per_insert": 2.0, "tolerance": 64, "timeout": 0.6}


def test_steps_that_a_limit_held_up_are_not_lost_and_draws_do_not_wait_for_them(sharded):
    replay = sharded(block=100, **LIMITED)
    with pytest.raises(TimeoutError, match=r"an insert of 32 rows waits for .* to be drawn"):
        add(replay, 0, 100)  # the hundredth sends; the limit lets 64 of them pass
    stats = replay.stats()
    assert (stats["size"], stats["waiting"]) == (64, 36)
    replay.sample(60)  # does not wait for them, although draws are what they wait for
    replay.sample(60)
    assert len(replay) == 96
    replay.sample(60)
    np.testing.assert_array_equal(rewards(replay), np.arange(100.0))


def test_a_save_has_all_rows_that_wait_and_the_counts(sharded, tmp_path):
    replay = sharded(block=100, **LIMITED)
    with pytest.raises(TimeoutError):
        add(replay, 0, 100)
    replay.save(tmp_path)
    assert manifest.FILE == SHARDED
    assert sum(len(per.ReplayBuffer.load(shard)) for shard in shards_in(tmp_path)) == 100
    again = ShardedReplay.load(tmp_path)
    assert again.stats()["inserted"] == replay.stats()["inserted"] == 100
    np.testing.assert_array_equal(rewards(again), np.arange(100.0))
    again.close()


def test_an_episode_that_a_limit_held_up_is_added_to_its_end(sharded):
    replay = sharded(block=20, **LIMITED)
    with pytest.raises(TimeoutError, match="an insert of"):
        replay.add_episode(np.arange(151.0), np.zeros(150, int), np.arange(150.0), terminated=True)
    for _ in range(5):
        replay.sample(60)
        replay.stats()
    np.testing.assert_array_equal(rewards(replay), np.arange(150.0))
    last = replay.get(replay.highest(1_000))
    assert last.terminated.sum() == 1
    assert last.terminated[np.argmax(last.reward)]


def test_extend_says_how_many_rows_a_limit_let_pass(sharded):
    replay = sharded(**LIMITED)
    with pytest.raises(TimeoutError, match="; the first 64 of 80 rows were sent"):
        replay.extend(transitions(np.arange(80.0)))
    replay.sample(60)
    replay.sample(60)
    np.testing.assert_array_equal(rewards(replay), np.arange(64.0))
    replay.extend(transitions(np.arange(100.0, 132.0)))
    with pytest.raises(TimeoutError, match=r"none came within 0\.6 s$"):  # nothing was sent
        replay.extend(transitions(np.arange(200.0, 232.0)))
    assert replay.stats()["waiting"] == 0  # and nothing is kept


def test_rows_that_no_shard_could_take_go_with_a_later_call():
    one = Sharded(per.Uniform(), shards=3, capacity=300, timeout=0.2)
    insert = Inserting(one.calls, 300, lambda rows, deadline: None, lambda ticket: None)
    for shard in range(3):
        one.carrier.kill(shard)
    with pytest.raises(TimeoutError, match="none of 3 shards"):
        insert.insert(columns(3), True, one.calls.deadline(), 300, keep=True)
    with pytest.raises(TimeoutError, match="none of 3 shards"):
        insert.insert(columns(5, 3.0), True, one.calls.deadline(), 300, keep=True)
    assert insert.on_the_way == 8
    for shard in range(3):
        one.carrier.restart(shard)
    one.calls.require_some(one.calls.deadline() + 5.0)
    insert.land(one.calls.deadline() + 5.0)
    np.testing.assert_array_equal(kept(one), np.arange(8.0))


def test_a_draw_has_time_left_where_a_shard_takes_no_rows(sharded):
    """Nor do other calls fail, which send what waits first."""
    replay = sharded(block=100, timeout=1.0)
    replay.extend(transitions(np.arange(64.0)))
    add(replay, 64, 30)
    replay._processes.takes = 0.002
    replay._processes.state[1] = "late"
    begun = time.monotonic()
    batch = replay.sample(16)
    assert time.monotonic() - begun < 1.0
    assert set((batch.ids % 2).tolist()) == {0}
    add(replay, 94, 6)
    assert replay.stats()["size"] >= 32
    assert replay.update_priorities(batch.ids, np.ones(16)) == 16
    np.testing.assert_array_equal(replay.get(batch.ids).reward, batch.reward)


def test_a_checkpoint_that_lacks_a_shard_is_refused(sharded, tmp_path):
    replay = sharded()
    replay.extend(transitions(np.arange(50.0)))
    replay.save(tmp_path)
    shutil.rmtree(shards_in(tmp_path)[1])
    with pytest.raises(per.CheckpointError, match=r"each of 2 shards, and shard-1 is missing"):
        ShardedReplay.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("shards", "4"), ("coordinator", None), ("timeout", "a"), ("num_envs", "q"), ("written", 3)],
)
def test_a_damaged_manifest_is_said_to_be(sharded, tmp_path, name, value):
    sharded().save(tmp_path)
    text = json.loads((tmp_path / manifest.FILE).read_text())
    (tmp_path / manifest.FILE).write_text(json.dumps({**text, name: value}))
    with pytest.raises(per.CheckpointError, match="is damaged"):
        ShardedReplay.load(tmp_path)


def test_max_bytes_is_in_force_after_a_load(sharded, tmp_path):
    images = {"obs": per.Field((64, 64), "uint8"), "action": per.Field((), "int64"),
              "reward": per.Field()}  # fmt: skip
    frames = np.random.default_rng(0).integers(0, 256, (300, 64, 64), np.uint8)
    rows = {"obs": frames, "next_obs": frames, "action": np.zeros(300, int),
            "reward": np.zeros(300), "terminated": np.zeros(300, bool)}  # fmt: skip
    sharded(1_000, images).save(tmp_path)
    again = ShardedReplay.load(tmp_path, max_bytes=400_000)
    with pytest.raises(MemoryError, match="max_bytes must be"):
        again.extend(rows)
    again.close()


def test_what_shards_refuse_is_said_once(sharded, tmp_path):
    images = {"obs": per.Field((40, 40), "uint8"), "action": per.Field((), "int64"),
              "reward": per.Field()}  # fmt: skip
    replay = sharded(1_000, images, max_bytes=400_000, block=16)

    def play(count):
        for k in range(count):
            image = np.full((40, 40), k % 250, np.uint8)
            replay.add(image, 0, float(k), image + 1, False)

    with pytest.raises(MemoryError, match="max_bytes must be"):
        play(1_000)
    with contextlib.suppress(MemoryError):  # of the other shard, which had half of the block
        replay.flush()
    assert replay.flush().size == 0
    assert len(replay) > 0
    replay.save(tmp_path)


def test_the_highest_of_all_shards(sharded):
    replay = sharded(sampler=per.Proportional(eps=0.0))
    generator = np.random.default_rng(1)
    errors = generator.permutation(np.repeat(np.arange(1.0, 21.0), 2))
    ids = replay.extend(transitions(np.arange(40.0)), errors)
    for k in (0, 1, 7, 40, 100):
        highest = replay.highest(k)
        assert highest.dtype == np.int64
        np.testing.assert_array_equal(replay.priorities(highest), np.sort(errors)[::-1][:k])
    assert set(replay.highest(100).tolist()) == set(ids.tolist())
    assert replay.stats()["never_drawn"] == 1.0
    with pytest.raises(ValueError, match="k must be an integer >= 0, got -1"):
        replay.highest(-1)


def test_alpha_is_that_of_all_shards_and_of_a_checkpoint(sharded, tmp_path):
    replay = sharded(sampler=per.Proportional(alpha=1.0, eps=0.0))
    replay.extend(transitions(np.arange(4.0)), [1.0, 2.0, 3.0, 4.0])
    assert replay.alpha == 1.0
    np.testing.assert_allclose(np.sort(replay.get(replay.highest(4)).probabilities),
                               [0.1, 0.2, 0.3, 0.4])  # fmt: skip
    replay.alpha = 0.0
    assert replay.alpha == 0.0
    replay.save(tmp_path)
    again = ShardedReplay.load(tmp_path)
    for each in (replay, again):
        assert each.alpha == 0.0
        np.testing.assert_allclose(each.get(each.highest(4)).probabilities, 0.25)
    again.close()
    for wrong in (-0.5, np.nan, "x"):
        with pytest.raises(ValueError, match=r"alpha must be >= 0(?: and finite)?, got"):
            replay.alpha = wrong


def test_nothing_named_is_an_empty_batch(sharded):
    replay = sharded(n_step=3)
    batch = replay.get([])
    assert (len(batch), batch.obs.shape, batch.ids.dtype) == (0, (0,), np.int64)
    assert replay.priorities([]).shape == (0,)


@pytest.mark.parametrize("env", ["x", {}, 1.5, [0.5], [], 7])
@pytest.mark.parametrize("streams", [{}, {"num_envs": 2, "autoreset": "disabled"}])
def test_streams_are_refused_in_the_words_of_a_buffer(env, streams, sharded):
    buffer = per.ReplayBuffer(10, FIELDS, **streams)
    said = []
    for replay in (buffer, sharded(10, **streams)):
        values = np.zeros(len(env)) if isinstance(env, list) else 0.0
        try:
            replay.add(values, np.int64(values), values, values, values > 0.0, env=env)
            said.append(None)
        except ValueError as error:
            said.append(str(error))
    assert said[0] == said[1]


def test_a_closed_one_says_so_at_once(sharded):
    replay = sharded()
    replay.close()
    for call in (replay.__reduce__, replay.__enter__, lambda: replay.batches(4),
                 lambda: replay.alpha, lambda: replay.highest(1)):  # fmt: skip
        with pytest.raises(RuntimeError, match="closed"):
            call()


@pytest.mark.parametrize("wrong", [0, -1, np.nan, np.inf, "x", None])
def test_a_number_that_must_be_positive_is_refused_in_the_same_words(wrong):
    for name in ("timeout", "samples_per_insert"):
        if name == "timeout" or wrong is not None:
            with pytest.raises(ValueError, match=f"{name} must be > 0(?: and finite)?, got"):
                ShardedReplay(10, FIELDS, **{"shards": 2, name: wrong})


@pytest.mark.parametrize("wrong", ["x", -1, 1.5])
def test_a_seed_is_refused_in_the_words_of_a_buffer(wrong):
    said = []
    for make in (per.ReplayBuffer, ShardedReplay):
        with pytest.raises(ValueError, match="seed must be as for default_rng, got") as refused:
            make(10, FIELDS, seed=wrong)
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_options_of_ray_are_a_mapping():
    with pytest.raises(ValueError, match=r"ray_options must be a mapping of .*, got 3"):
        ShardedReplay(10, FIELDS, ray_options=3)


def test_no_shard_that_answers_is_not_no_rows(sharded):
    replay = sharded(timeout=0.3)
    replay.extend(transitions(np.arange(10.0)))
    replay._processes.state[:] = ["late", "late"]
    for _ in range(2):  # before it is known that they are silent, and afterwards
        with pytest.raises(TimeoutError, match="none of 2 shards has answered"):
            len(replay)
    replay._processes.state[:] = ["done", "done"]


def test_an_environment_says_what_its_steps_look_like(sharded, monkeypatch):
    gym = pytest.importorskip("gymnasium")
    env = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    InProcess.instead_of_ray(monkeypatch)
    buffer = per.ReplayBuffer.for_env(env, 100, n_step=3)
    with ShardedReplay.for_env(env, 100, shards=2, n_step=3, gamma=0.9) as replay:
        assert (replay.num_envs, replay.n_step, replay.gamma) == (2, 3, 0.9)
        assert replay.fields == buffer.fields
        obs, _ = env.reset(seed=0)
        for _ in range(5):
            action = env.action_space.sample()
            after, reward, terminated, truncated, info = env.step(action)
            replay.add(obs, action, reward, after, terminated, truncated, info=info)
            obs = after
        replay.end_episode()
        assert len(replay) == 10
        assert replay.sample(4).action.dtype == np.int64
    with pytest.raises(ValueError, match="num_envs must be that of the environment, 2, got 3"):
        ShardedReplay.for_env(env, 100, num_envs=3)
    single = env.single_observation_space, env.single_action_space
    with ShardedReplay.for_spaces(*single, 100, shards=2) as replay:
        assert replay.num_envs is None
        assert replay.fields["obs"].shape == (4,)


@pytest.mark.parametrize("wrong", [-0.5, np.nan, 50.0, "x"])
def test_an_alpha_that_is_refused_changes_no_shard(sharded, wrong):
    replay = sharded(sampler=per.Proportional(alpha=0.4, eps=0.0))
    ids = replay.extend(transitions(np.arange(2.0)), [1e9, 1.0])
    wanted = replay.get(ids).probabilities
    with pytest.raises(ValueError, match="alpha must"):  # 50: of the shard with the first row
        replay.alpha = wrong
    assert replay.alpha == 0.4
    np.testing.assert_array_equal(replay.get(ids).probabilities, wanted)
