"""A sharded replay with real processes: Ray is started once, and gone at the end."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import prioritized_replay as per

ray = pytest.importorskip("ray")

from tests.sharding import FIELDS, children, ray_of_this_file, transitions  # noqa: E402
from tests.soak.ray_kills import soak  # noqa: E402

from prioritized_replay.integrations.ray import (  # noqa: E402
    ShardedReplay,
    manifest,
)
from prioritized_replay.integrations.ray.cluster import _alive  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.skipif(os.name != "posix", reason="needs signals"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Ray, for all tests of this file; afterwards none of its processes is left."""
    with ray_of_this_file():
        yield


@pytest.fixture(scope="module")
def replay(cluster):
    with ShardedReplay(1_000, FIELDS, shards=2, seed=1, block=50) as replay:
        yield replay


def test_it_has_the_verbs_of_a_buffer(replay):
    replay.clear()
    sent = [replay.add(float(k), 0, float(k), k + 0.5, k % 9 == 8) for k in range(120)]
    assert [ids.size for ids in sent if ids.size] == [50, 50]
    assert len(replay) == 120  # what waits is sent first
    ids = replay.extend(transitions(np.arange(120.0, 320.0)), td_errors=np.full(200, 0.5))
    assert ids.dtype == np.int64
    assert set((ids % 2).tolist()) == {0, 1}
    stats = replay.stats()
    assert abs(stats["shard_0_size"] - stats["shard_1_size"]) <= 1
    assert stats["size"] == len(replay) == 320
    batch = replay.sample(64, beta=0.5)
    np.testing.assert_array_equal(batch.obs, batch.reward)
    np.testing.assert_array_equal(batch.next_obs, batch.reward + 0.5)
    assert (batch.weights.max(), batch.weights.dtype) == (1.0, np.float32)
    assert replay.update_priorities(batch.ids, batch.reward) == 64
    np.testing.assert_allclose(replay.priorities(batch.ids), batch.reward + 0.01)
    some = replay.get(ids[[7, 3, 150]])
    np.testing.assert_array_equal(some.reward, [127.0, 123.0, 270.0])
    with pytest.raises(KeyError, match="live transitions"):
        replay.get([10**15])
    with pytest.raises(ValueError, match="ids must have been issued"):
        replay.update_priorities([*batch.ids, 2 * 10**9], np.ones(65))
    with pytest.raises(ValueError, match="finite, got nan for id"):
        replay.update_priorities(batch.ids, np.full(64, np.nan))
    assert replay.stats()["effective_sample_size"] > 1


def test_batches_come_ahead_and_priorities_go_back_unwaited(replay):
    replay.clear()
    ids = replay.extend(transitions(np.arange(400.0)))
    betas = []
    with replay.batches(32, beta=lambda k: betas.append(k) or 0.5, ahead=4) as batches:
        seen = []
        for _, batch in zip(range(20), batches, strict=False):
            seen.append(batch)
            assert replay.update_priorities(batch.ids, np.full(32, 7.0), wait=False) == 0
        assert betas[:20] == list(range(20))
    assert next(batches, None) is None
    drawn = np.unique(np.concatenate([batch.ids for batch in seen]))
    replay.flush()
    np.testing.assert_allclose(replay.priorities(drawn), 7.01)
    others = np.setdiff1d(ids, drawn)
    np.testing.assert_allclose(replay.priorities(others[:20]), 1.0)


def test_handles_work_in_other_processes_at_the_same_time(replay):
    replay.clear()

    @ray.remote(num_cpus=0)
    def collect(handle, first):
        ids = [handle.add(float(k), 0, float(k), k + 0.5, False) for k in range(first, first + 130)]
        return np.concatenate([*ids, handle.flush()])

    @ray.remote(num_cpus=0)
    def learn(handle):
        deadline = time.monotonic() + 60.0
        while len(handle) < 260 and time.monotonic() < deadline:
            time.sleep(0.05)
        batch = handle.sample(40)
        return handle.update_priorities(batch.ids, batch.reward), batch.ids

    writers = [collect.remote(replay, first) for first in (0, 1000)]
    learners = [learn.remote(replay) for _ in range(2)]
    ids = np.concatenate(ray.get(writers, timeout=120.0))
    (applied, one), (_, other) = ray.get(learners, timeout=120.0)
    assert applied == 40
    assert (one != other).any()  # each has random numbers of its own
    assert len(replay) == 260
    np.testing.assert_array_equal(replay.get(ids).reward, [*range(130), *range(1000, 1130)])
    assert isinstance(pickle.loads(pickle.dumps(replay)), ShardedReplay)


def test_a_task_that_returns_leaves_no_row_behind(replay):
    replay.clear()

    @ray.remote(num_cpus=0)
    def collect(handle, count, fails):
        for k in range(count):
            handle.add(float(k), 0, float(k), k + 0.5, False)
        if fails:
            raise ValueError("as it should")

    ray.get([collect.remote(replay, 30, False) for _ in range(2)], timeout=60.0)
    assert len(replay) == 60
    with pytest.raises(ValueError, match="as it should"):
        ray.get(collect.remote(replay, 5, True), timeout=60.0)
    deadline = time.monotonic() + 10.0  # the error may have come before its last rows
    while len(replay) < 65 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(replay) == 65


def test_threads_may_share_a_handle(replay):
    replay.clear()
    replay.extend(transitions(np.arange(50.0)))
    failures = []

    def run(work):
        try:
            for k in range(60):
                work(k)
        except Exception as error:
            failures.append(error)

    works = [
        lambda k: replay.add(float(k), 0, float(k), k + 0.5, False),
        lambda k: replay.update_priorities((b := replay.sample(8)).ids, b.reward),
        lambda k: replay.update_priorities((b := replay.sample(8)).ids, b.reward, wait=False),
    ]
    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120.0)
    assert not failures
    assert len(replay) == 110


def test_a_killed_shard_comes_back_its_loss_is_counted_and_draws_go_on(tmp_path):
    with ShardedReplay(2_000, FIELDS, shards=2, seed=1, checkpoint_dir=tmp_path) as replay:
        first = replay.extend(transitions(np.arange(400.0)))
        os.kill(replay.processes[1][1], signal.SIGKILL)
        begun = time.monotonic()
        while time.monotonic() - begun < 2.0:
            batch = replay.sample(32)
            np.testing.assert_array_equal(batch.obs, batch.reward)
            replay.update_priorities(batch.ids, batch.reward)
        assert replay.stats()["rows_lost"] == 200  # there is no checkpoint yet
        assert len(replay) == 200
        with pytest.raises(KeyError):
            replay.get(first)
        assert replay.update_priorities(first, np.ones(400)) == 200
        new = replay.extend(transitions(np.arange(400.0, 700.0)))
        assert not set(new.tolist()) & set(first.tolist())
        replay.save()
        later = replay.extend(transitions(np.arange(700.0, 800.0)))
        os.kill(replay.processes[1][1], signal.SIGKILL)
        stats = replay.stats()
        lost = np.count_nonzero(later % 2 == 1)
        assert stats["rows_lost"] == 200 + lost
        assert stats["restarts"] == 2
        assert len(replay) == 600 - lost
        np.testing.assert_array_equal(replay.get(new).reward, np.arange(400.0, 700.0))
        again = replay.extend(transitions([1.0] * 40))
        assert not set(again.tolist()) & {*first.tolist(), *new.tolist(), *later.tolist()}


def test_a_stopped_shard_delays_no_call_beyond_the_timeout():
    with ShardedReplay(1_000, FIELDS, shards=2, seed=1, timeout=4.0) as replay:
        replay.extend(transitions(np.arange(100.0)))
        process = replay.processes[0][1]
        os.kill(process, signal.SIGSTOP)
        try:
            for _ in range(3):
                begun = time.monotonic()
                assert (replay.sample(16).ids % 2 == 1).all()
                assert time.monotonic() - begun < 6.0
            begun = time.monotonic()
            for k in range(40):
                replay.add(float(k), 0, float(k), k + 0.5, False)
            assert (replay.flush() % 2 == 1).all()
            with pytest.raises(TimeoutError, match="shard 0 of 2 has not answered for 4 s"):
                replay.clear()
            assert time.monotonic() - begun < 10.0
        finally:
            os.kill(process, signal.SIGCONT)
        deadline = time.monotonic() + 30.0
        while not replay._calls.present().all() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(replay) == 140
        assert set((replay.sample(64).ids % 2).tolist()) == {0, 1}  # it takes part again
        assert replay.stats()["rows_lost"] == 0


def test_save_and_load_continue_bit_for_bit(tmp_path, monkeypatch):
    options = {"shards": 2, "seed": 3, "n_step": 3, "samples_per_insert": 8.0, "block": 10}
    with ShardedReplay(500, FIELDS, sampler=per.RankBased(), **options) as replay:
        for k in range(101):  # two windows are open at the end
            replay.add(float(k), 0, float(k), k + 0.5, False)
        batch = replay.sample(50)
        replay.update_priorities(batch.ids, batch.reward)
        replay.save(tmp_path, extra={"learner": b"weights"})
        with ShardedReplay.load(tmp_path) as again:
            assert again.extra == {"learner": b"weights"}
            assert (again.n_step, again.sampler, len(again)) == (3, per.RankBased(), len(replay))
            assert again.stats()["drawn"] == replay.stats()["drawn"] == 50
            for _ in range(3):
                one, other = replay.sample(40, 0.5), again.sample(40, 0.5)
                for name in one:
                    np.testing.assert_array_equal(one[name], other[name])
                for each in (replay, again):
                    each.update_priorities(one.ids, one.reward)
                    ids = each.add(900.0, 0, 1.0, 901.0, True)
                    ids = each.end_episode()
                np.testing.assert_array_equal(replay.get(ids).reward, again.get(ids).reward)
        # A save that ends before its last step leaves the one before in force.
        replay.extend(_with_discount(np.arange(20.0)))
        monkeypatch.setattr(manifest, "write_manifest", _no_room)
        with pytest.raises(OSError, match="no room"):
            replay.save(tmp_path)
        monkeypatch.undo()
        with ShardedReplay.load(tmp_path) as again:
            assert len(again) == 99


def _with_discount(values):
    rows = transitions(values)
    del rows["terminated"]
    return rows | {"discount": np.full(len(values), 0.5)}


def _no_room(*arguments):
    raise OSError("no room")


def test_samples_per_insert_is_kept_by_all_and_says_what_it_waits_for():
    options = {"shards": 1, "samples_per_insert": 2.0, "tolerance": 64, "timeout": 3.0}
    with ShardedReplay(10_000, FIELDS, **options) as replay:
        with pytest.raises(ValueError, match=r"tolerance must be >= the rows of one draw, 65"):
            replay.sample(65)
        replay.extend(transitions(np.arange(30.0)))
        replay.sample(50)
        with pytest.raises(TimeoutError, match=r"a draw of 50 rows waits for 20 more"):
            replay.sample(50)

        def write():
            for k in range(40):
                replay.extend(transitions(np.arange(10.0 * k, 10.0 * k + 10.0)))

        writer = threading.Thread(target=write)
        writer.start()
        for _ in range(14):
            replay.sample(50)
            stats = replay.stats()
            assert 0 <= 2.0 * stats["inserted"] - stats["drawn"] <= 64 + 2 * 32
        with replay.batches(20, ahead=4) as batches:
            for _ in range(5):
                next(batches)
        writer.join(60.0)
        assert not writer.is_alive()
        replay.stats()
        with pytest.raises(TimeoutError, match=r"an insert of .* rows waits for .* to be drawn"):
            replay.extend(transitions(np.arange(500.0)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shards": 11}, ValueError, "shards must be <= the capacity, 10, got 11"),
        ({"shards": 0}, ValueError, "shards must be an integer >= 1, got 0"),
        ({"samples_per_insert": 0.0}, ValueError, "samples_per_insert must be > 0, got 0.0"),
        ({"tolerance": 5}, ValueError, "tolerance must be left out without samples_per_insert"),
        ({"timeout": 0}, ValueError, "timeout must be > 0, got 0"),
        ({"color": 1}, TypeError, "ShardedReplay has no argument 'color'"),
        ({"sequence": per.Sequence(5)}, ValueError, "sequence must be left out"),
        ({"gamma": 0.0, "n_step": 2}, ValueError, "gamma must be > 0 where n_step > 1"),
        ({"sampler": 3}, ValueError, "sampler must be one of"),
        ({"ray_options": {"lock": threading.Lock()}}, ValueError, "ray_options must be something"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line_and_nothing_is_started(arguments, error, message):
    before = set(children())
    with pytest.raises(error, match=message) as refused:
        ShardedReplay(10, FIELDS, **{"shards": 2, **arguments})
    assert "\n" not in str(refused.value)
    assert not [p for p in set(children()) - before if "ReplayShard" in _title(p)]


def _title(process):
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def test_its_processes_are_gone_after_close_also_after_an_error(tmp_path):
    replay = ShardedReplay(10, FIELDS, shards=2)
    processes = [number for _, number in replay._processes.places(10.0)]
    assert len(processes) == 3
    assert all(map(_alive, processes))
    with pytest.raises(ValueError, match="at least one transition"), replay:
        replay.sample(1)
    assert not any(map(_alive, processes))
    replay.close()
    with pytest.raises(RuntimeError, match="was closed"):
        replay.sample(1)


def test_a_process_that_forgets_to_close_leaves_nothing_behind():
    code = """
import os
import prioritized_replay as per
from prioritized_replay.integrations.ray import ShardedReplay
fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
replay = ShardedReplay(10, fields, shards=1)
replay.add(0.0, 0, 1.0, 1.0, False)
print(len(replay), [number for _, number in replay._processes.places(10.0)], flush=True)
raise SystemExit("an error")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    size, _, numbers = done.stdout.strip().partition(" ")
    assert size == "1", done.stderr
    assert done.stderr.strip().splitlines()[-1] == "an error"
    deadline = time.monotonic() + 20.0
    processes = eval(numbers)
    while any(map(_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(processes) == 2
    assert not any(map(_alive, processes))


@pytest.mark.parametrize(
    ("setup", "line"),
    [
        ("import sys; sys.modules['ray'] = None",
         "ImportError: prioritized_replay.integrations.ray needs Ray: pip install "),
        ("import os; os.environ['RAY_ADDRESS'] = '127.0.0.1:9'",
         "ConnectionError: address must be that of a running Ray cluster, got '127.0.0.1:9': "),
    ],
)  # fmt: skip
def test_no_ray_and_no_cluster_are_said_in_one_line(setup, line):
    code = f"""
{setup}
import prioritized_replay as per
from prioritized_replay.integrations.ray import ShardedReplay
fields = {{"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}}
ShardedReplay(10, fields)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(line), done.stderr
    assert "During handling" not in done.stderr


@pytest.mark.parametrize("of_writers", [0.0, 1.0])
def test_kills_at_random_moments_tear_no_row_and_lose_none_uncounted(of_writers):
    """The short form of ``python -m tests.soak.ray_kills``."""
    found = soak(6, seed=4, of_writers=of_writers, say=lambda line, flush: None)
    assert found["kills"] >= 6
    assert found["restarts of shards"] == found["kills"] - found["kills of writers"]
    if of_writers:
        assert found["kills of writers"] > found["with a shard"] > 0  # in both ways
    assert found["gone"] == found["counted as lost"] > 0
