"""A sharded replay where processes die, stop, or run out of room: others go on, nothing hangs.

Ray is started once for most tests. A small object store and a second node need a Ray of their own,
in another process.
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ray = pytest.importorskip("ray")

from tests.sharding import FIELDS, ray_of_this_file, transitions  # noqa: E402

from prioritized_replay.integrations.ray import ShardedReplay, cluster  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.skipif(os.name != "posix", reason="needs signals"),
]

SECONDS = 120.0  # for a call in another process, on a busy machine


@pytest.fixture(scope="module")
def running():
    with ray_of_this_file():
        yield


class Other:
    """A process that has a handle."""

    def __init__(self, replay):
        self.replay = replay

    def process(self):
        return os.getpid()

    def write(self, first, count):
        rows = [self.replay.extend(transitions(np.arange(k, k + 10.0)))
                for k in range(first, first + 10 * count, 10)]  # fmt: skip
        return np.concatenate(rows)

    def learn(self, batches, size, error):
        applied = [
            self.replay.update_priorities(self.replay.sample(size).ids, np.full(size, error))
            for _ in range(batches)
        ]
        return sum(applied)

    def learn_for_ever(self, size):
        with self.replay.batches(size, ahead=4) as batches:
            for batch in batches:
                self.replay.update_priorities(batch.ids, np.ones(size), wait=False)


def other(replay):
    actor = ray.remote(Other).options(num_cpus=0, max_restarts=0).remote(replay)
    return actor, ray.get(actor.process.remote(), timeout=SECONDS)


def test_a_learner_that_is_killed_leaves_shards_and_writers_at_work(running):
    with ShardedReplay(10_000, FIELDS, shards=2, seed=1) as replay:
        first = replay.extend(transitions(np.arange(100.0)))
        (learner, process), (writer, _) = other(replay), other(replay)
        working = learner.learn_for_ever.remote(16)
        before = ray.get(writer.write.remote(1_000, 1), timeout=SECONDS)
        deadline = time.monotonic() + SECONDS
        while (replay.priorities(first) == 1.0).all():  # until it is in the middle of its work
            assert time.monotonic() < deadline
            time.sleep(0.05)
        writing = writer.write.remote(2_000, 20)
        os.kill(process, signal.SIGKILL)
        for _ in range(10):
            begun = time.monotonic()
            batch = replay.sample(32)
            np.testing.assert_array_equal(batch.obs, batch.reward)
            assert replay.update_priorities(batch.ids, batch.reward) == 32
            assert time.monotonic() - begun < 2 * replay.timeout
        after = ray.get(writing, timeout=SECONDS)
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(working, timeout=SECONDS)
        ids = np.concatenate([first, before, after])
        assert (np.unique(ids).size, ids.min() >= 0, len(replay)) == (310, True, 310)
        assert replay.stats()["rows_lost"] == 0
        assert replay.get(after).reward[-1] == 2_199.0


def test_two_learners_at_once_are_both_served_and_counted(running):
    options = {"shards": 2, "seed": 1, "samples_per_insert": 10.0}
    with ShardedReplay(10_000, FIELDS, **options) as replay:
        ids = replay.extend(transitions(np.arange(128.0)))
        learners = [other(replay)[0] for _ in range(2)]
        errors = (3.0, 5.0)
        works = [
            learner.learn.remote(40, 16, error)
            for learner, error in zip(learners, errors, strict=True)
        ]
        assert ray.get(works, timeout=SECONDS) == [640, 640]
        stats = replay.stats()
        assert (stats["inserted"], stats["drawn"], stats["stale_updates"]) == (128, 1_280, 0)
        priorities = set(np.round(replay.priorities(ids), 6).tolist())
        assert priorities - {1.0} == {3.01, 5.01}  # 1.0 of a row that nobody has drawn
        replay._agreement.timeout = replay._calls.timeout = (
            1.0  # what is allowed is used up, by both
        )
        with pytest.raises(TimeoutError, match="a draw of 16 rows waits for 2 more"):
            replay.sample(16)


def test_with_checkpoint_dir_nothing_up_to_the_last_save_is_lost(running, tmp_path):
    options = {"shards": 2, "seed": 1, "checkpoint_dir": tmp_path, "timeout": SECONDS}
    with ShardedReplay(10_000, FIELDS, **options) as replay:
        old = replay.extend(transitions(np.arange(500.0)), np.arange(500.0))
        replay.update_priorities(old[:50], np.full(50, 700.0))
        replay.save()
        wanted = replay.priorities(old)
        late = replay.extend(transitions(np.arange(500.0, 600.0)))
        for _, process in replay.processes:
            os.kill(process, signal.SIGKILL)
        stats = replay.stats()
        assert (stats["restarts"], stats["shards_present"]) == (2, 2)
        assert (stats["size"], stats["rows_lost"]) == (500, 100)
        np.testing.assert_array_equal(replay.get(old).reward, np.arange(500.0))
        np.testing.assert_array_equal(replay.priorities(old), wanted)
        with pytest.raises(KeyError, match="live transitions"):
            replay.get(late)
        assert replay.update_priorities(late, np.ones(100)) == 0
        new = replay.extend(transitions(np.arange(10.0)))
        assert not np.isin(new, np.concatenate([old, late])).any()


def test_a_coordinator_that_dies_is_said_in_one_line(running):
    with ShardedReplay(10_000, FIELDS, shards=2, seed=1, samples_per_insert=10.0) as replay:
        replay.extend(transitions(np.arange(100.0)))
        (_, process), *_ = replay._processes.places(5.0)
        os.kill(process, signal.SIGKILL)
        for call in (lambda: replay.sample(8), replay.stats):
            begun = time.monotonic()
            with pytest.raises(RuntimeError, match=r"coordinator .* can only be closed") as error:
                call()
            assert "\n" not in str(error.value)
            assert time.monotonic() - begun < 2 * replay.timeout


def test_a_start_of_ray_that_takes_too_long_is_tried_again(monkeypatch):
    starts = []

    def init(**options):
        code = "import time; print('begun', flush=True); time.sleep(60)  # in place of ray"
        starts.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE))
        assert starts[-1].stdout.readline()
        if len(starts) < fails:
            raise Exception("The current node timed out during startup. Because.")

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    fails = 3
    cluster._start_here({})
    assert len(starts) == 3
    assert [start.wait(30) for start in starts[:2]] == [-signal.SIGKILL] * 2  # they left nothing
    assert starts[2].poll() is None
    starts[2].kill()
    for start in starts:
        start.communicate()
    starts.clear()
    fails = 99
    with pytest.raises(RuntimeError, match="Ray could not be started on this machine: 'The curr"):
        cluster._start_here({})
    assert len(starts) == cluster.ATTEMPTS
    assert [start.wait(30) for start in starts] == [-signal.SIGKILL] * cluster.ATTEMPTS
    for start in starts:
        start.communicate()


def run(code):
    """Run a program of its own; return the words of its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1].split()  # Ray may have said something before


FULL_STORE = """
import time
import numpy as np
import prioritized_replay as per
import ray
from prioritized_replay.integrations.ray import ShardedReplay, cluster

cluster._start_here({
    "address": "local", "include_dashboard": False, "num_cpus": 2, "log_to_driver": False,
    "object_store_memory": 80 * 2**20, "logging_level": "ERROR",
})
fields = {"obs": per.Field((100_000,), "uint8"), "action": per.Field((), "int64"),
          "reward": per.Field()}
with ShardedReplay(300, fields, shards=2, seed=1, timeout=60.0) as replay:
    for k in range(200):
        obs = np.full(100_000, k % 251, "uint8")
        replay.add(obs, 0, float(k), obs, True)
    assert len(replay) == 200
    held = [ray.put(np.full(10 * 2**20, k, "uint8")) for k in range(10)]  # more than there is room
    views = ray.get(held[-6:])  # cannot be spilled while somebody reads them
    begun = time.monotonic()
    try:
        batch = replay.sample(100)  # 20 MB, where there is room for as much or less
        assert (batch.obs[:, 0] == batch.reward % 251).all()
        outcome = "drawn"
    except TimeoutError as error:
        assert chr(10) not in str(error)
        outcome = "refused"
    seconds = time.monotonic() - begun
    del held, views
    again = replay.sample(100)
    assert (again.obs == (again.reward % 251)[:, None]).all()
    assert replay.update_priorities(again.ids, again.reward) == 100
    assert len(replay) == 200 and replay.stats()["rows_lost"] == 0
ray.shutdown()
print(outcome, seconds)
"""


def test_a_full_object_store_delays_draws_and_breaks_nothing():
    outcome, seconds = run(FULL_STORE)
    assert outcome in ("drawn", "refused")
    assert float(seconds) < 90.0


TWO_NODES = """
import time
import numpy as np
import prioritized_replay as per
import ray
from ray.cluster_utils import Cluster
from prioritized_replay.integrations.ray import ShardedReplay

options = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=options)
try:
    # First: with two nodes on a machine, Ray may attach a process to the one that is to go.
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    second = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    time.sleep(3.0)  # until both nodes know each other, which Ray has no call to wait for
    fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
    with ShardedReplay(4_000, fields, shards=4, seed=1, timeout=30.0) as replay:
        values = np.arange(400.0)
        ids = replay.extend({"obs": values, "action": np.zeros(400, int), "reward": values,
                             "next_obs": values, "terminated": np.ones(400, bool)})
        of = [node for node, _ in replay.processes]
        there = [k for k, node in enumerate(of) if node == second.node_id]
        assert len(there) == 2, (of, second.node_id)  # each node has two
        cluster.remove_node(second, allow_graceful=False)
        begun, slowest = time.monotonic(), 0.0
        while True:
            start = time.monotonic()
            batch = replay.sample(32)
            slowest = max(slowest, time.monotonic() - start)
            assert (batch.obs == batch.reward).all()
            if replay._calls.present().all() and {r.generation for k, r in
                    enumerate(replay._calls.reports) if k in there} == {1}:
                break
            assert time.monotonic() - begun < 200.0, replay.stats()
            time.sleep(0.2)
        lost = np.isin(ids % 4, there)
        stats = replay.stats()
        assert stats["rows_lost"] == lost.sum() == 100 * len(there), stats
        assert (replay.get(ids[~lost]).reward == values[~lost]).all()
        assert {node for node, _ in replay.processes} == set(of) - {second.node_id}
        new = replay.extend({"obs": values, "action": np.zeros(400, int), "reward": values,
                             "next_obs": values, "terminated": np.ones(400, bool)})
        assert (new >= 0).all() and set((new % 4).tolist()) == {0, 1, 2, 3}
        assert slowest < 35.0, slowest
finally:
    ray.shutdown()
    cluster.shutdown()
print("lost", int(lost.sum()), slowest)
"""


def test_a_second_node_that_is_lost_costs_its_rows_and_nothing_else():
    word, lost, _ = run(TWO_NODES)
    assert word == "lost"
    assert int(lost) == 200
