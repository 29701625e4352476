"""Which slots can be drawn, beside a list that is searched from one end to the other."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from prioritized_replay.sampling import _live_kernels as kernels
from prioritized_replay.sampling import _ring_kernels as ring
from prioritized_replay.sampling.live import RingSlots, SomeSlots
from prioritized_replay.sampling.uniform import UniformOverSome

PLAIN = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"
CAPACITIES = 1, 7, 256, 257, 5000


def counters(issued, first=0):
    numbers = np.zeros(ring.COUNTERS, np.int64)
    numbers[ring.ISSUED], numbers[ring.FIRST] = issued, first
    return numbers


def by_age(present, issued):
    """Return the slots that can be drawn, the oldest row of the ring first."""
    capacity = len(present)
    return [
        slot for slot in (k % capacity for k in range(issued, issued + capacity)) if present[slot]
    ]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_slots_are_found_in_the_order_of_their_age(data):
    capacity = data.draw(st.sampled_from(CAPACITIES))
    issued = data.draw(st.integers(0, 3 * capacity))
    numbers = counters(issued)
    some = SomeSlots(capacity, numbers)
    present = np.zeros(capacity, np.uint8)
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    put_in, take_out = kernels.put_in, kernels.take_out
    for slot in rng.integers(0, capacity, data.draw(st.integers(0, 60))):
        change = put_in if rng.random() < 0.7 else take_out
        if PLAIN:  # compiled, they are part of other kernels
            change(*some.arrays, numbers, int(slot))
        present[slot] = change is put_in
    if not PLAIN:
        some.restore(present)
    expected = by_age(present, issued)
    assert some.size == len(expected)
    assert some.all().tolist() == expected
    if not expected:
        return
    places = np.arange(len(expected))
    slots = np.empty(len(expected), np.int64)
    kernels.slots_at(*some.arrays, numbers, places, slots)
    assert slots.tolist() == expected
    newest = data.draw(st.integers(0, len(expected)))
    among = some.among_newest(np.array(expected), newest)
    assert among.tolist() == [k >= len(expected) - newest for k in range(len(expected))]


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_a_ring_without_gaps_is_the_same_as_one_in_which_all_are_let_in(capacity):
    for issued in (0, 1, capacity, capacity + 1, 2 * capacity + 3):
        whole = RingSlots(capacity, counters(issued))
        numbers = counters(issued)
        some = SomeSlots(capacity, numbers)
        live = np.zeros(capacity, np.uint8)
        live[whole.all()] = 1
        some.restore(live)
        assert some.size == whole.size == min(issued, capacity)
        assert some.all().tolist() == whole.all().tolist()
        places = np.arange(whole.size)
        assert some.at(places).tolist() == whole.at(places).tolist()
        half = whole.size // 2
        assert (
            some.among_newest(some.all(), half).tolist()
            == whole.among_newest(some.all(), half).tolist()
        )


def test_uniform_draws_are_alike_among_some():
    capacity, issued = 1000, 1234
    numbers = counters(issued)
    some = SomeSlots(capacity, numbers)
    rng = np.random.default_rng(5)
    some.restore((rng.random(capacity) < 0.05).astype(np.uint8))
    distribution = UniformOverSome(capacity, numbers, some)
    drawn, probabilities = np.empty(40_000, np.int64), np.empty(40_000)
    distribution.draw(rng.random(40_000), False, drawn, probabilities)
    assert (probabilities == 1.0 / some.size).all()
    counts = np.bincount(drawn, minlength=capacity)
    assert not counts[some.present == 0].any()
    found = counts[some.present == 1]
    assert stats.chisquare(found).pvalue > 1e-3
    wrong = found.copy()
    wrong[0] += 400  # the test would see one slot of half as much again
    assert stats.chisquare(wrong).pvalue < 1e-3
    # One of each equal part, in the order of age, when stratified.
    distribution.draw(np.full(some.size, 0.5), True, drawn[: some.size], probabilities[: some.size])
    assert drawn[: some.size].tolist() == some.all().tolist()
