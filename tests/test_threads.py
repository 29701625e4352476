"""Eight threads on one buffer, for a moment; ``tests/soak/threads.py`` goes on for longer."""

import threading

import numpy as np
import pytest
from tests.reference import FIELDS
from tests.soak.threads import SAMPLERS, SequenceThreads, Threads

import prioritized_replay as per


@pytest.mark.parametrize("name", ["proportional", "rank"])
@pytest.mark.parametrize("kind", [Threads, SequenceThreads])
@pytest.mark.slow
def test_rows_are_whole_and_counts_add_up(kind, name):
    threads = kind(SAMPLERS[name], capacity=500)
    threads.run(steps=1500)
    assert threads.counts["batches"] > 0
    assert threads.counts["others"] > 0


class Asking:
    """A value whose conversion asks the buffer, as a debugger or a lazy array might."""

    def __init__(self, replay, value):
        self.replay, self.value, self.asked = replay, value, 0

    def _ask(self):
        self.asked += 1
        assert self.replay._lock.acquire(timeout=10), "the lock is held"
        self.replay._lock.release()
        return self.value

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._ask(), dtype)

    def __float__(self):
        return float(self._ask())

    def keys(self):
        return self._ask().keys()


CALLS = {
    "add": lambda r, ask: r.add(
        ask(np.zeros(2)), ask(1), ask(1.0), ask(np.zeros(2)), ask(False), ask(False),
        td_error=ask(0.5), mark=ask(2.0)),
    "extend": lambda r, ask: r.extend(
        {"obs": ask(np.zeros((3, 2))), "action": ask(np.zeros(3, int)), "reward": ask(np.ones(3)),
         "next_obs": ask(np.zeros((3, 2))), "discount": ask(np.ones(3)),
         "mark": ask(np.zeros(3))}, td_errors=ask(np.ones(3))),
    "add_episode": lambda r, ask: r.add_episode(
        ask(np.zeros((4, 2))), ask(np.zeros(3, int)), ask(np.ones(3)), ask([False, False, True]),
        ask(np.zeros(3, bool)), mark=ask(np.zeros(3)), env=0 if r.num_envs else None),
    "sample": lambda r, ask: r.sample(2, beta=ask(0.5)),
    "get": lambda r, ask: r.get(ask(np.arange(3)), beta=ask(0.5)),
    "update_priorities": lambda r, ask: r.update_priorities(ask(np.arange(3)), ask(np.ones(3))),
    "priorities": lambda r, ask: r.priorities(ask(np.arange(3))),
    "alpha": lambda r, ask: setattr(r, "alpha", ask(0.5)),
}  # fmt: skip
STREAM_CALLS = {
    "add": lambda r, ask: r.add(
        ask(np.zeros((1, 2))), ask([1]), ask([1.0]), ask(np.zeros((1, 2))), ask([True]),
        ask([False]), env=ask(np.array([1])), td_error=ask([0.5]), mark=ask([2.0])),
    "end_episode": lambda r, ask: r.end_episode(ask(np.array([0]))),
}  # fmt: skip


def _ask_in(call, replay):
    asked = []

    def ask(value):
        asked.append(Asking(replay, value))
        return asked[-1]

    call(replay, ask)
    assert asked
    for one in asked:
        assert one.asked or one.value is False


@pytest.mark.parametrize("n_step", [1, 2])
@pytest.mark.parametrize("name", CALLS)
def test_no_lock_is_held_while_a_value_is_converted(name, n_step):
    fields = {**FIELDS, "mark": per.Field((), "float64")}
    replay = per.ReplayBuffer(10, fields, n_step=n_step)
    CALLS["extend"](replay, lambda value: value)
    _ask_in(CALLS[name], replay)


@pytest.mark.parametrize("name", STREAM_CALLS)
def test_no_lock_is_held_while_a_value_of_streams_is_converted(name):
    fields = {**FIELDS, "mark": per.Field((), "float64")}
    replay = per.ReplayBuffer(10, fields, num_envs=2, autoreset="disabled")
    _ask_in(STREAM_CALLS[name], replay)


def test_no_lock_is_held_while_a_schedule_is_asked():
    replay = per.ReplayBuffer(10, FIELDS)
    replay.add(np.zeros(2), 0, 0.0, np.zeros(2), False)
    with replay.prefetch(2, beta=lambda number: float(Asking(replay, 0.5))) as batches:
        next(batches)


@pytest.mark.parametrize("calls", [200])
def test_an_interruption_between_two_calls_of_a_stream_counts(calls):
    """Whether a row is a reset step is decided together with what it changes."""
    replay = per.ReplayBuffer(10_000, FIELDS, num_envs=2, autoreset="next_step")
    barrier = threading.Barrier(2)

    def interrupt():
        barrier.wait()
        for _ in range(calls):
            replay.end_episode()

    thread = threading.Thread(target=interrupt)
    thread.start()
    barrier.wait()
    rows = 0
    for number in range(calls):
        obs, next_obs = np.full((2, 2), number), np.full((2, 2), number + 1)
        ended = np.full(2, number % 3 == 1)
        reset = number % 3 == 2  # begins with what the last one ended with, at reward 0
        ids = replay.add(obs, np.zeros(2, int), np.full(2, 1.0 - reset), next_obs, ended)
        assert ids.size == (0 if reset else 2)
        rows += ids.size
    thread.join()
    assert len(replay) == rows


class Guarded:
    """Stands before a part of a buffer: its methods may only be called with the lock held."""

    def __init__(self, part, lock, free=()):
        self.__dict__.update(_part=part, _lock=lock, _free=free)

    def __getattr__(self, name):
        value = getattr(self._part, name)
        if callable(value) and name not in self._free:
            assert self._lock.locked(), f"{name} without the lock"
        return value

    def __setattr__(self, name, value):
        setattr(self._part, name, value)

    def __call__(self, *arguments):
        assert self._lock.locked(), "called without the lock"
        return self._part(*arguments)


OTHER_CALLS = {
    "clear": lambda r, ask: r.clear(),
    "stats": lambda r, ask: r.stats(),
    "end_episode": lambda r, ask: r.end_episode(),
    "repr": lambda r, ask: (repr(r), len(r), r.nbytes, r.alpha, r.sampler, r.fields, r.capacity),
}


@pytest.mark.parametrize("num_envs", [None, 2])
@pytest.mark.parametrize("name", [*CALLS, *OTHER_CALLS])
def test_what_is_behind_a_buffer_is_used_with_the_lock_held(name, num_envs):
    fields = {**FIELDS, "mark": per.Field((), "float64")}
    replay = per.ReplayBuffer(
        10, fields, n_step=2, num_envs=num_envs, autoreset=num_envs and "next_step"
    )
    CALLS["extend"](replay, lambda value: value)
    for part, free in {
        "_sampler": (), "_transitions": (), "_blocks": (), "_uniforms": (), "_rows": (),
        # which only look at their arguments
        "_streams": ("named", "accept", "of_episode", "num_envs"),
    }.items():  # fmt: skip
        setattr(replay, part, Guarded(getattr(replay, part), replay._lock, free))
    if name == "add" and num_envs:
        obs = np.zeros((2, 2))
        for end in (True, False):
            replay.add(obs, [1, 2], [0.0, 0.0], obs, [end, end], mark=[0.0, 0.0], td_error=[1, 2])
    else:
        ({**CALLS, **OTHER_CALLS})[name](replay, lambda value: value)


SEQUENCE_CALLS = {
    "add": lambda r, ask: r.add(
        ask(np.zeros(2)), ask(1), ask(1.0), ask(np.zeros(2)), ask(True), ask(False),
        mark=ask(2.0), memory=ask(np.ones(2))),
    "add_episode": lambda r, ask: r.add_episode(
        ask(np.zeros((4, 2))), ask(np.zeros(3, int)), ask(np.ones(3)), ask([False, False, True]),
        ask(np.zeros(3, bool)), mark=ask(np.zeros(3)), memory=ask(np.ones((3, 2)))),
    "update_priorities": lambda r, ask: r.update_priorities(ask([0, 2]), ask(np.ones(2))),
    "update_priorities by steps": lambda r, ask: r.update_priorities(
        ask([0, 2]), ask(np.ones((2, 2)))),
    "get": lambda r, ask: r.get(ask([0, 2]), beta=ask(0.5)),
    "priorities": lambda r, ask: r.priorities(ask([0, 2])),
    "sample": CALLS["sample"], "alpha": CALLS["alpha"],
}  # fmt: skip


def of_sequences():
    fields = {**FIELDS, "mark": per.Field((), "float64")}
    fields["memory"] = per.Field((2,), per_sequence=True)
    replay = per.ReplayBuffer(10, fields, sequence=per.Sequence(2))
    replay.add_episode(
        np.zeros((5, 2)), np.zeros(4, int), np.ones(4), False, mark=np.zeros(4),
        memory=np.ones((4, 2)),
    )  # fmt: skip
    return replay


@pytest.mark.parametrize("name", SEQUENCE_CALLS)
def test_no_lock_is_held_while_a_value_of_sequences_is_converted(name):
    _ask_in(SEQUENCE_CALLS[name], of_sequences())


@pytest.mark.parametrize("name", [*SEQUENCE_CALLS, *OTHER_CALLS])
def test_what_is_behind_a_buffer_of_sequences_is_used_with_the_lock_held(name):
    replay = of_sequences()
    for part, free in {
        "_sampler": (), "_transitions": (), "_blocks": (), "_uniforms": (), "_rows": (),
        "_sequences": (), "_streams": ("named", "accept", "of_episode", "num_envs"),
    }.items():  # fmt: skip
        setattr(replay, part, Guarded(getattr(replay, part), replay._lock, free))
    ({**SEQUENCE_CALLS, **OTHER_CALLS})[name](replay, lambda value: value)
