"""Batches drawn ahead are those of ``sample``, and the thread that draws them ends."""

import copy
import gc
import itertools
import pickle
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from tests.reference import FIELDS, transitions

import prioritized_replay as per

PATIENCE = 60.0  # seconds; only a test that fails waits so long
SAMPLERS = [per.Uniform(), per.Proportional(), per.RankBased(draw="without_replacement")]


def filled(sampler=None, rows=100, capacity=100, seed=5):
    replay = per.ReplayBuffer(capacity, FIELDS, sampler=sampler, seed=seed)
    replay.extend(transitions(np.arange(rows)), td_errors=np.arange(rows) / 8.0)
    return replay


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def equal(one, other):
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
@pytest.mark.slow
def test_batches_are_those_that_sample_would_have_drawn(sampler, depth):
    replay, twin = filled(sampler), filled(sampler)

    with replay.prefetch(8, depth=depth, beta=0.4) as batches:
        for batch in itertools.islice(batches, 12):
            equal(batch, twin.sample(8, beta=0.4))


def test_a_schedule_of_beta_is_asked_for_each_batch_in_turn():
    replay, twin = filled(), filled()
    asked = []

    def beta(number):
        asked.append(number)
        return number / 10

    with replay.prefetch(4, depth=3, beta=beta) as batches:
        for number in range(6):
            equal(next(batches), twin.sample(4, beta=number / 10))

    assert asked == list(range(len(asked)))
    assert 6 <= len(asked) <= 9


def test_no_more_batches_wait_than_depth_says():
    replay = filled()
    with replay.prefetch(4, depth=3) as batches:
        for _ in range(10):
            until(lambda: len(batches.undelivered()) == 3)
            next(batches)
            assert len(batches.undelivered()) <= 3
        assert repr(batches).startswith("Prefetcher(")
    assert repr(batches) == "Prefetcher(closed)"


def test_late_errors_land_on_the_rows_they_belong_to():
    replay = filled(capacity=100)
    with replay.prefetch(16, depth=4) as batches:
        until(lambda: len(batches.undelivered()) == 4)
        replay.extend(transitions(np.arange(100, 160)))  # 60 of 100 rows are overwritten
        for batch in itertools.islice(batches, 4):
            np.testing.assert_array_equal(batch.action, batch.ids * 3)
            live = np.unique(batch.ids[batch.ids >= 60])
            applied = replay.update_priorities(batch.ids, batch.ids + 500.0)
            assert applied == np.sum(batch.ids >= 60)
            np.testing.assert_array_equal(replay.priorities(live), live + 500.0 + 0.01)
    new = np.arange(100, 160)
    assert (replay.priorities(new) < 500).all()


def test_what_drawing_raises_comes_to_whoever_asks():
    replay = per.ReplayBuffer(10, FIELDS)
    batches = replay.prefetch(4)
    with pytest.raises(ValueError, match="empty"):
        next(batches)
    assert next(batches, None) is None
    assert not batches._thread.is_alive()


def test_batches_drawn_before_an_error_are_delivered_first():
    class Wrong(Exception):
        pass

    def beta(number):
        if number == 2:
            raise Wrong
        return 1.0

    batches = filled().prefetch(4, depth=5, beta=beta)
    assert len(next(batches)) == len(next(batches)) == 4
    with pytest.raises(Wrong):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize("wrong", [2.0, -0.1, float("nan"), "high", None])
def test_a_schedule_has_to_return_what_beta_may_be(wrong):
    batches = filled().prefetch(4, beta=lambda number: wrong)
    with pytest.raises(ValueError, match="beta must be in"):
        next(batches)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"batch_size": 4, "depth": 0}, "depth"),
        ({"batch_size": 4, "depth": None}, "depth"),
        ({"batch_size": 4, "beta": 1.5}, "beta"),
        ({"batch_size": 4, "beta": "high"}, "beta"),
    ],
    ids=str,
)
def test_arguments_that_cannot_work_start_no_thread(arguments, name):
    before = threading.active_count()
    with pytest.raises(ValueError, match=name):
        filled().prefetch(**arguments)
    assert threading.active_count() == before


def test_closing_ends_the_thread_and_the_iteration():
    batches = filled().prefetch(4)
    next(batches)
    batches.close()
    assert not batches._thread.is_alive()
    assert list(batches) == []
    assert batches.undelivered() == ()
    batches.close()


def test_a_block_that_is_left_by_an_error_ends_the_thread():
    with pytest.raises(KeyError), filled().prefetch(4) as batches:
        raise KeyError
    assert not batches._thread.is_alive()


def test_whoever_waits_goes_on_when_it_is_closed():
    going = threading.Event()

    def beta(number):
        assert going.wait(PATIENCE)
        return 1.0

    batches = filled().prefetch(4, depth=1, beta=beta)
    got = []
    waiting = [
        threading.Thread(target=lambda: got.append(list(batches)), daemon=True) for _ in range(3)
    ]
    for thread in waiting:
        thread.start()
    batches._work.stop()
    going.set()
    for thread in waiting:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    batches.close()
    assert sum(map(len, got)) <= 1


def test_it_ends_with_its_last_reference_and_lets_the_buffer_go():
    replay = filled()
    batches = replay.prefetch(4)
    next(batches)
    thread, buffer = batches._thread, weakref.ref(replay)

    del batches, replay
    gc.collect()

    thread.join(PATIENCE)
    assert not thread.is_alive()
    del thread
    gc.collect()
    assert buffer() is None


def test_threads_that_share_one_get_every_batch_once():
    replay, twin = filled(), filled()
    got = []
    batches = replay.prefetch(4, depth=3)

    def take():
        got.extend(batch.ids.tobytes() for batch in itertools.islice(batches, 50))

    threads = [threading.Thread(target=take, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    batches.close()

    assert sorted(got) == sorted(twin.sample(4).ids.tobytes() for _ in range(200))


@pytest.mark.parametrize("batch_size", [3, 1000, 5000])
def test_what_would_be_saved_is_the_generator_as_of_the_last_batch_delivered(batch_size):
    """Blocks of 4096 numbers are used up on the way, or passed by."""
    replay, twin = filled(), filled()
    with replay.prefetch(batch_size, depth=4) as batches:
        for delivered in range(12):
            until(lambda: len(batches.undelivered()) == 4)
            with replay._lock:
                saved = replay._delivered_uniforms()
            np.testing.assert_array_equal(saved(50), peek(twin, 50), err_msg=str(delivered))
            next(batches)
            twin.sample(batch_size)


@pytest.mark.parametrize("delivered", [0, 1, 7])
def test_a_buffer_saved_meanwhile_goes_on_after_the_last_batch_delivered(tmp_path, delivered):
    replay, twin = filled(), filled()
    with replay.prefetch(700, depth=3) as batches:
        for _ in range(delivered):
            next(batches), twin.sample(700)
        until(lambda: len(batches.undelivered()) == 3)
        replay.save(tmp_path)
    loaded = per.ReplayBuffer.load(tmp_path)
    for _ in range(10):
        equal(loaded.sample(700), twin.sample(700))


def test_of_several_the_oldest_batch_that_waits_counts():
    replay, twin = filled(), filled()
    first = replay.prefetch(4, depth=2)
    until(lambda: len(first.undelivered()) == 2)
    second = replay.prefetch(4, depth=2)
    until(lambda: len(second.undelivered()) == 2)
    with replay._lock:
        np.testing.assert_array_equal(replay._delivered_uniforms()(50), peek(twin, 50))
    first.close()
    twin.sample(4), twin.sample(4)
    with replay._lock:
        np.testing.assert_array_equal(replay._delivered_uniforms()(50), peek(twin, 50))
    second.close()
    twin.sample(4), twin.sample(4)
    with replay._lock:
        assert replay._delivered_uniforms() is replay._uniforms
        np.testing.assert_array_equal(peek(replay, 50), peek(twin, 50))


def peek(replay, count):
    """The next uniforms, without using them up."""
    return replay._uniforms.at(replay._uniforms.moment())(count)


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickle.dumps])
def test_neither_a_prefetcher_nor_a_buffer_can_be_copied(act):
    replay = filled()
    with pytest.raises(TypeError, match=r"ReplayBuffer.*use save and ReplayBuffer\.load"):
        act(replay)
    with replay.prefetch(4) as batches, pytest.raises(TypeError, match=r"Prefetcher.*make another"):
        act(batches)


@pytest.mark.slow
def test_the_interpreter_ends_although_nobody_closed_it():
    program = (
        "import numpy as np, threading, prioritized_replay as per\n"
        "from tests.reference import FIELDS, transitions\n"
        "replay = per.ReplayBuffer(100, FIELDS)\n"
        "replay.extend(transitions(np.arange(100)))\n"
        "open_one, other = replay.prefetch(4), replay.prefetch(512, depth=50)\n"
        "next(open_one), next(other)\n"
        "print('done')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "done\n", "")
