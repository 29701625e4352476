"""A forked process has a buffer of its own, or is told why not; it never hangs."""

import json
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from prioritized_replay import forking

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    pytest.mark.slow,  # the process that all of them look at
]

PROGRAM = '''
import faulthandler, json, os, signal, sys, tempfile, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forks beside threads
faulthandler.dump_traceback_later(200, exit=True)
import numpy as np
import prioritized_replay as per
from prioritized_replay import forking
from tests.reference import FIELDS, transitions

def filled(**options):
    replay = per.ReplayBuffer(1000, FIELDS, **{"seed": 3, **options})
    replay.extend(transitions(np.arange(100)), td_errors=np.arange(100.0))
    replay.sample(8)
    return replay

def in_child(function):
    """Return what a function returns, or says why not, in a forked process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # ends a child that hangs
        try:
            result = function()
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else "nothing"

def draw(replay):
    return replay.sample(64).ids.tolist()

results = {}

# numbers
replay, twin = filled(), filled()
results["children"] = [in_child(lambda: draw(replay)) for _ in range(3)]
results["parent"], results["twin"] = draw(replay), draw(twin)
results["grandchild"] = in_child(lambda: [draw(replay), in_child(lambda: draw(replay))])
again = filled()
results["children again"] = [in_child(lambda: draw(again)) for _ in range(3)]
shared = np.random.default_rng(5)
pair = [filled(seed=shared) for _ in range(2)]
results["shared generator"] = in_child(lambda: [draw(one) for one in pair])

# a draw that was interrupted before the fork
def interrupt(*arguments):
    raise KeyboardInterrupt
half = filled()
half.sample(4000)  # what was drawn in advance does not last for the next batch
true, half._fused = half._fused, interrupt
try:
    half.sample(200)
except KeyboardInterrupt:
    half._fused = true
assert half._note.work is not None
results["interrupted"] = [in_child(lambda: draw(half)) for _ in range(2)] + [draw(half)]

# sequences
def sequences():
    options = {"sequence": per.Sequence(4, overlap=2), "seed": 3}
    replay = per.ReplayBuffer(300, FIELDS, **options)
    for length in (3, 40, 7):
        rows = transitions(np.arange(length))
        obs = np.append(rows["obs"], rows["next_obs"][-1:], axis=0)
        replay.add_episode(obs, rows["action"], rows["reward"], True)
    replay.sample(8)
    return replay
def update(replay):
    batch = replay.sample(8)
    replay.update_priorities(batch.ids, np.where(batch.mask, 7.0, np.nan))
    replay.add_episode(np.zeros((6, 2)), np.zeros(5, int), np.zeros(5), True)
    return [len(replay), replay.priorities(batch.ids).tolist()]
some, others = sequences(), sequences()
results["sequences"] = [in_child(lambda: draw(some)) for _ in range(2)]
results["sequences change"] = [in_child(lambda: update(some)), len(some)]
results["sequences keep"] = [draw(some), draw(others)]

# what a child does stays in the child
def change():
    replay.extend(transitions(np.arange(7)))
    replay.update_priorities([3], [99.0])
    return [len(replay), replay.priorities([3]).tolist()]
results["child changes"] = in_child(change)
results["parent keeps"] = [len(replay), replay.priorities([3]).tolist()]

# a thread that is always inside
stop = threading.Event()
def busy():
    while not stop.is_set():
        replay.update_priorities(replay.sample(32).ids, np.ones(32))
thread = threading.Thread(target=busy)
thread.start()
results["busy"] = [in_child(lambda: len(draw(replay))) for _ in range(20)]
stop.set()
thread.join()

# a thread that is inside while the process forks, and comes out
inside, leave = threading.Event(), threading.Event()
def hold():
    with replay._lock:
        inside.set()
        leave.wait()
thread = threading.Thread(target=hold)
thread.start()
inside.wait()
threading.Timer(0.3, leave.set).start()
results["held"] = in_child(lambda: len(draw(replay)))
thread.join()

# one that does not come out
inside.clear(), leave.clear()
thread = threading.Thread(target=hold)
thread.start()
inside.wait()
forking.PATIENCE = 0.1
results["stuck"] = in_child(lambda: draw(replay))
forking.PATIENCE = 60.0
leave.set()
thread.join()
results["parent after"] = len(draw(replay))

# a save that is under way
with tempfile.TemporaryDirectory() as folder, replay._saver._ownership.saving:
    def save():
        replay.save(folder)
        return len(per.ReplayBuffer.load(folder))
    results["save"] = in_child(save)

# files
with tempfile.TemporaryDirectory() as folder:
    mapped = filled(directory=folder)
    before = mapped.get(np.arange(100)).obs.tolist()
    for name, function in {
        "add": lambda: mapped.add(np.zeros(2), 0, 0.0, np.zeros(2), False),
        "extend": lambda: mapped.extend(transitions(np.arange(7))),
        "sample": lambda: draw(mapped),
        "update": lambda: mapped.update_priorities([1], [1.0]),
        "clear": lambda: mapped.clear(),
    }.items():
        results[f"files {name}"] = in_child(function)
    results["files repr"] = in_child(lambda: [repr(mapped), len(mapped)])
    results["files same"] = before == mapped.get(np.arange(100)).obs.tolist()
    results["files parent"] = len(draw(mapped))

# batches ahead
with replay.prefetch(4, depth=2) as batches:
    next(batches)
    results["prefetcher"] = in_child(lambda: next(batches).ids.tolist())
    results["another"] = in_child(lambda: len(next(replay.prefetch(4))))
    results["closed"] = in_child(batches.close)
    results["prefetcher parent"] = len(next(batches))

print(json.dumps(results))
'''


@pytest.fixture(scope="module")
def results():
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.slow
def test_a_child_draws_other_numbers_than_its_parent_and_its_siblings(results):
    drawn = [*results["children"], results["parent"], *results["grandchild"]]
    assert all(isinstance(ids, list) and len(ids) == 64 for ids in drawn)
    assert len(set(map(tuple, drawn))) == len(drawn)
    one, other = results["shared generator"]
    assert one != other


def test_a_draw_that_was_interrupted_before_the_fork_repeats_no_numbers(results):
    assert len(set(map(tuple, results["interrupted"]))) == 3


def test_a_fork_changes_nothing_in_the_parent(results):
    assert results["parent"] == results["twin"]
    assert results["parent keeps"] == [100, [3.01]]
    assert results["child changes"] == [107, [99.01]]


def test_a_child_draws_sequences_of_its_own(results):
    one, other = results["sequences"]
    assert len(one) == len(other) == 64
    here, twin = results["sequences keep"]
    assert here == twin
    assert len({tuple(drawn) for drawn in (one, other, here)}) == 3
    (changed, priorities), before = results["sequences change"]
    assert changed == before + 2
    np.testing.assert_allclose(priorities, 7.01)


def test_what_children_draw_follows_from_the_seed(results):
    assert results["children"] == results["children again"]


def test_a_lock_that_another_thread_held_is_free_in_the_child(results):
    assert results["busy"] == [64] * 20
    assert results["held"] == 64


def test_a_copy_that_may_be_incomplete_is_refused(results):
    assert results["stuck"].startswith("RuntimeError: this ReplayBuffer was in use by another")
    assert results["parent after"] == 64


def test_a_child_saves_although_its_parent_was_saving(results):
    assert results["save"] == 100


@pytest.mark.parametrize("name", ["add", "extend", "sample", "update", "clear"])
def test_files_belong_to_the_process_that_made_them(results, name):
    assert results[f"files {name}"].startswith("RuntimeError: this buffer keeps its rows in files")


def test_files_of_the_parent_stay_as_they_are(results):
    assert results["files same"]
    assert results["files parent"] == 64
    assert results["files repr"][1] == 100


def test_a_prefetcher_stays_with_its_thread(results):
    assert results["prefetcher"].startswith("RuntimeError: a Prefetcher works in the process")
    assert results["another"] == results["prefetcher parent"] == 4
    assert results["closed"] is None


class Guarded:
    """Something whose lock is free for others at once when it is released."""

    def __init__(self):
        self._lock = self
        self._true = threading.Lock()
        self.wanted, self.got = threading.Event(), threading.Event()

    def acquire(self, timeout):
        if self._true.locked():
            self.wanted.set()
        return self._true.acquire(timeout=timeout)

    def release(self):
        self._true.release()
        if self.wanted.is_set() and threading.current_thread() is threading.main_thread():
            assert self.got.wait(60)

    def _before_fork(self):
        pass

    def _after_fork(self):
        pass


def test_two_threads_that_fork_at_the_same_time_do_not_take_each_others_locks(monkeypatch):
    one = Guarded()
    held, ended = [], threading.Event()

    def fork_too():
        forking._before()
        one.got.set()
        assert ended.wait(60)
        held.append(one._true.locked())
        forking._in_parent()

    monkeypatch.setattr(forking, "_watched", weakref.WeakValueDictionary({1: one}))
    forking._before()
    thread = threading.Thread(target=fork_too)
    thread.start()
    assert one.wanted.wait(60)
    forking._in_parent()
    ended.set()
    thread.join()
    assert held == [True]
    assert not one._true.locked()
