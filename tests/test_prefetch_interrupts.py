"""Batches drawn ahead, where taking, beginning or closing is ended at any line or call.

None is lost and none comes twice, nobody waits for ever, and no thread stays.
"""

import itertools
import threading
import time

import numpy as np
import pytest
from tests import interrupts
from tests.reference import FIELDS, transitions
from tests.waiting import ended

import prioritized_replay as per

PATIENCE = 60.0  # seconds; only a test that fails waits so long
SIZE, DEPTH, TAKEN = 8, 2, 3


def filled():
    replay = per.ReplayBuffer(100, FIELDS, seed=5)
    replay.extend(transitions(np.arange(100)), td_errors=np.arange(100) / 8.0)
    return replay


def drawn(replay, count):
    return [replay.sample(SIZE).ids.tobytes() for _ in range(count)]


EXPECTED = drawn(filled(), 20)


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def take(batches):
    return next(batches).ids.tobytes()


def take_until(batches, at):
    """Take a batch, but end that at one event; return it in a list, which is empty then."""
    got = []
    reached = interrupts.run_until(lambda: got.append(next(batches)), at)
    return reached, [batch.ids.tobytes() for batch in got]


def every_event(trial):
    """Call a trial with the number of each event, until its call was over before that."""
    for at in itertools.count():
        if ended(lambda at=at: trial(at)) < at:
            break
    assert at > 5
    return at


def thread_has_ended(batches):
    thread = batches._thread
    thread.join(PATIENCE)
    return not thread.is_alive()


def test_a_batch_that_waits_is_taken_or_still_there(tmp_path):
    def trial(at):
        replay = filled()
        batches = replay.prefetch(SIZE, depth=DEPTH)
        for _ in range(TAKEN):
            take(batches)
        until(lambda: len(batches.undelivered()) == DEPTH)
        reached, got = take_until(batches, at)
        if at % 3 == 0:  # what would be drawn after a load is what would be taken here
            replay.save(tmp_path)
            loaded = per.ReplayBuffer.load(tmp_path)
            assert loaded.sample(SIZE).ids.tobytes() == EXPECTED[TAKEN + len(got)]
        got += [take(batches) for _ in range(5)]
        assert got == EXPECTED[TAKEN : TAKEN + len(got)]
        assert len(batches.undelivered()) <= DEPTH
        batches.close()
        assert thread_has_ended(batches)
        return reached

    every_event(trial)


class Bell:
    """Stands for the bell that tells of a batch: the thread draws once somebody waits for it."""

    def __init__(self, bell, going, waiting=1):
        self.bell, self.going, self.missing = bell, going, waiting
        self.put, self.get_nowait = bell.put, bell.get_nowait

    def get(self):
        self.missing -= 1
        if self.missing <= 0:
            self.going.set()
        return self.bell.get()


def held_back(waiting=1, depth=DEPTH, beta=0.5):
    """Return a prefetcher whose thread draws nothing until so many wait for a batch."""
    going = threading.Event()

    def schedule(number):
        assert going.wait(PATIENCE)
        if isinstance(beta, Exception):
            raise beta
        return beta

    batches = filled().prefetch(SIZE, depth=depth, beta=schedule)
    batches._work.drawn = Bell(batches._work.drawn, going, waiting)
    return batches


def test_a_batch_that_was_waited_for_is_taken_or_still_there():
    def trial(at):
        batches = held_back()
        reached, got = take_until(batches, at)
        got += [take(batches) for _ in range(5)]
        assert got == EXPECTED[: len(got)]
        batches.close()
        assert thread_has_ended(batches)
        return reached

    every_event(trial)


@pytest.mark.parametrize("depth", [1, 2])
def test_whoever_else_waits_gets_the_batch(depth):
    def trial(at):
        batches, others = held_back(waiting=2, depth=depth), []
        other = threading.Thread(target=lambda: others.append(take(batches)), daemon=True)
        other.start()
        until(lambda: batches._work.drawn.missing < 2)
        reached, got = take_until(batches, at)
        batches._work.drawn.going.set()  # if it was ended before it waited
        other.join(PATIENCE)
        assert len(others) == 1
        got += [take(batches) for _ in range(4)]
        assert sorted(got + others) == sorted(EXPECTED[: len(got) + 1])
        batches.close()
        assert thread_has_ended(batches)
        return reached

    every_event(trial)


def test_an_error_comes_or_has_come_and_the_thread_is_gone():
    class Wrong(Exception):
        pass

    outcomes = set()

    def trial(at):
        batches = held_back(beta=Wrong())

        def ask():
            with pytest.raises(Wrong):
                next(batches)

        reached = interrupts.run_until(ask, at)
        try:
            outcomes.add(next(batches, "over"))
        except Wrong:
            outcomes.add("error")
        assert next(batches, "over") == "over"
        assert thread_has_ended(batches)
        return reached

    every_event(trial)
    assert outcomes == {"error", "over"}


def test_beginning_that_is_ended_leaves_no_thread_and_no_batch_that_waits():
    kept = []  # as a notebook keeps the latest error, with all that its frames hold

    def trial(at):
        replay, begun = filled(), []

        def begin():
            try:
                begun.append(replay.prefetch(SIZE, depth=DEPTH))
            except BaseException as error:
                kept.append(error)
                raise

        before = set(threading.enumerate())
        reached = interrupts.run_until(begin, at)
        for batches in begun:
            batches.close()
        until(lambda: not any(t.name == "prefetch" for t in set(threading.enumerate()) - before))
        with replay._lock:
            assert replay._delivered_uniforms() is replay._uniforms
        # It is as if it had been begun and closed: a few batches may have been drawn, and dropped.
        with replay.prefetch(SIZE, depth=DEPTH) as batches:
            first = EXPECTED.index(take(batches))
            assert first <= DEPTH + 1
            assert [take(batches) for _ in range(4)] == EXPECTED[first + 1 : first + 5]
        return reached

    every_event(trial)
    assert kept


def closed(batches):
    batches.close()


def left(batches):
    with batches:
        pass


@pytest.mark.parametrize("close", [closed, left])
@pytest.mark.parametrize("waiting", [0, DEPTH])
def test_closing_that_is_ended_has_closed_it_or_not(close, waiting):
    was_open = []

    def trial(at):
        replay = filled()
        batches = replay.prefetch(SIZE, depth=DEPTH)
        until(lambda: len(batches.undelivered()) >= waiting)
        reached = interrupts.run_until(lambda: close(batches), at)
        was_open.append(not batches._work.closed)
        if was_open[-1]:
            assert [take(batches) for _ in range(5)] == EXPECTED[:5]
            batches.close()
        assert thread_has_ended(batches)  # without being asked once more
        assert batches.undelivered() == ()
        assert next(batches, None) is None
        batches.close()
        with replay._lock:
            assert replay._delivered_uniforms() is replay._uniforms
        return reached

    count = every_event(trial)
    assert 0 < sum(was_open) < count
