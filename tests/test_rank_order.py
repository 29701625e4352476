import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numba import njit
from scipy import stats
from tests.reference_rank import SortedRanks
from tests.watched_order import WatchedOrder

from prioritized_replay.sampling import _rank_kernels as rank_kernels
from prioritized_replay.sampling.power_law import PowerLaw
from prioritized_replay.sampling.rank_order import most_nodes

EXTREMES = [0.0, 5e-324, 1e-300, 1e-12, 0.5, 1.0, math.nextafter(1.0, 2.0), 1e12, 1e300]
LAST = math.nextafter(1.0, 0.0)


def filled(priorities, capacity=None):
    order = WatchedOrder(capacity or len(priorities))
    order.rebuild(np.arange(len(priorities)), np.asarray(priorities, np.float64))
    return order


def assert_same(order, twin):
    order.check()
    assert len(order) == len(twin.priority)
    assert order.slots_in_order().tolist() == twin.slots_in_order()


class RankOrderMachine(RuleBasedStateMachine):
    """Random calls on a RankOrder and on its twin; the tree's rules are checked after each."""

    @initialize(capacity=st.sampled_from([1, 2, 63, 64, 65, 200, 700]))
    def make(self, capacity):
        self.order = WatchedOrder(capacity)
        self.twin = SortedRanks(capacity)

    def priorities(self, kind, count, rng):
        if kind == "ties":
            return rng.choice(EXTREMES, count)
        if kind == "clipped":
            return np.minimum(rng.exponential(size=count), 1.0)
        if kind == "rising":
            return np.sort(rng.random(count)) + 2.0
        return rng.random(count)

    @rule(
        kind=st.sampled_from(["ties", "clipped", "rising", "distinct"]),
        share=st.sampled_from([0.0, 0.05, 0.4, 1.0]),
        seed=st.integers(0, 2**32 - 1),
    )
    def set(self, kind, share, seed):
        rng = np.random.default_rng(seed)
        count = max(1, round(share * self.order.capacity))
        slots = rng.permutation(self.order.capacity)[:count]
        priorities = self.priorities(kind, count, rng)
        self.order.set(slots, priorities)
        self.twin.set(slots, priorities)

    @rule(
        first=st.integers(0, 699),
        count=st.integers(1, 256),
        priority=st.sampled_from([3.0, 1.0, 0.0]),
    )
    def insert_run(self, first, count, priority):
        first %= self.order.capacity
        count = min(count, self.order.capacity)
        self.order.insert_run(first, count, priority)
        self.twin.insert_run(first, count, priority)

    @rule(kind=st.sampled_from(["ties", "distinct"]), seed=st.integers(0, 2**32 - 1))
    def rebuild(self, kind, seed):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(self.order.capacity + 1))
        slots = rng.permutation(self.order.capacity)[:count]
        priorities = self.priorities(kind, count, rng)
        self.order.rebuild(slots, priorities)
        self.twin.priority.clear()
        self.twin.set(slots, priorities)

    @rule()
    def clear(self):
        self.order.clear()
        self.twin.priority.clear()

    @rule(seed=st.integers(0, 2**32 - 1))
    @precondition(lambda self: self.twin.priority)
    def look(self, seed):
        slots = np.random.default_rng(seed).choice(list(self.twin.priority), 5)
        groups = [self.twin.group(slot) for slot in slots.tolist()]
        first_rank, count = self.order.ranges(slots)
        assert first_rank.tolist() == [first for first, _ in groups]
        assert (first_rank + count - 1).tolist() == [last for _, last in groups]
        assert self.order.priorities(slots).tolist() == [self.twin.priority[s] for s in slots]
        assert self.order.highest() == max(self.twin.priority.values())

    @invariant()
    def same(self):
        assert_same(self.order, self.twin)


TestRankOrderMachine = pytest.mark.slow(RankOrderMachine.TestCase)


def test_the_order_does_not_depend_on_the_history():
    rng = np.random.default_rng(5)
    order = WatchedOrder(3_000)
    priorities = np.empty(3_000)
    for _ in range(300):
        slots = rng.permutation(3_000)[: rng.integers(1, 500)]
        values = rng.choice([rng.random(len(slots)), rng.choice(EXTREMES, len(slots))])
        order.set(slots, values)
        priorities[slots] = values
    order.set(np.arange(3_000), priorities)
    assert order.slots_in_order().tolist() == filled(priorities).slots_in_order().tolist()


@pytest.mark.parametrize("capacity", [70, 500, 5_000])
@pytest.mark.slow
def test_rows_that_enter_at_the_maximum_while_the_ring_overwrites(capacity):
    rng = np.random.default_rng(2)
    order, twin = WatchedOrder(capacity), SortedRanks(capacity)
    slot = 0
    for step in range(300):
        count = int(rng.integers(1, 60))
        order.insert_run(slot, count, 1.0)
        twin.insert_run(slot, count, 1.0)
        slot = (slot + count) % capacity
        if step % 3 == 0:
            slots, _ = order.draw(rng.random(40), PowerLaw(0.7))
            slots = np.unique(slots)
            priorities = np.minimum(rng.exponential(0.5, len(slots)), 1.0)
            order.set(slots, priorities)
            twin.set(slots, priorities)
        assert_same(order, twin)


def test_appends_at_the_maximum_leave_full_leaves():
    order = WatchedOrder(6_400)
    for slot in range(6_400):
        order.insert_run(slot, 1, 1.0)
    order.check()
    assert order.arrays.cells[0, 3] <= 1 + 100 * (1 + 1 / 16) + 3  # FRESH: 100 leaves and parents


@pytest.mark.slow
def test_small_leaves_are_merged_however_they_came_about():
    # Thin out and fill the same places again and again: the pool must never run out.
    rng = np.random.default_rng(3)
    capacity = 20_000
    order = filled(np.arange(capacity, dtype=np.float64))
    base = np.arange(capacity, dtype=np.float64)
    for turn in range(60):
        few = np.flatnonzero(np.arange(capacity) // 64 % 2 == turn % 2)
        gone = few[rng.random(len(few)) < 0.95]
        order.set(gone, np.full(len(gone), 1e9) + rng.random(len(gone)))
        order.check()
        order.set(gone, base[gone])
        order.check()
    assert order.slots_in_order().tolist() == list(range(capacity - 1, -1, -1))


@njit(error_model="numpy")
def insert(tree, node, priority, slot):
    rank_kernels.insert(tree, node, priority, slot)


def test_a_leaf_that_became_an_inner_node_takes_no_pair():
    """A batch finds its leaves first. One may be merged away since, and be taken for a new node
    above the leaves: that happened where all rows got new priorities, most of them equal.
    """
    order = filled(np.arange(4_096, dtype=np.float64))
    root = order.arrays.cells[0, rank_kernels.ROOT]
    assert order.arrays.cells[root, rank_kernels.LEVEL] > 0
    between = order.arrays.keys[root, 1] + 1.5  # between two bounds of the root
    order.set(np.array([7]), np.array([-1.0]))

    insert(order.arrays, np.int32(root), float(between), np.int64(7))

    order.check()
    assert len(order) == 4_096
    assert order.priorities(np.array([7])).tolist() == [between]


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0, 2.5])
@pytest.mark.parametrize(
    "priorities",
    [
        [3.0],
        [2.0, 2.0],
        [1.0, 3.0, 2.0],
        [1.0, 1.0, 0.5, 0.5, 0.5, 0.0, 0.0],
        EXTREMES,
        [1.0] * 150,
        [1.0] * 40 + [0.9] * 30 + [0.1 * k for k in range(9)] + [0.0] * 100,
    ],
    ids=["one", "two equal", "distinct", "ties", "extremes", "all equal", "groups over leaves"],
)
@pytest.mark.slow
def test_draw_gives_every_row_an_interval_as_wide_as_its_probability(priorities, alpha):
    order = filled(priorities)
    twin = SortedRanks(len(priorities))
    twin.set(np.arange(len(priorities)), np.array(priorities))
    exact = np.array([twin.probability(slot, alpha) for slot in range(len(priorities))])
    everyone = np.arange(len(priorities))
    law = PowerLaw(alpha)
    np.testing.assert_allclose(order.probabilities(everyone, law), exact, rtol=1e-12)
    assert order.probabilities(everyone, law).sum() == pytest.approx(1.0, rel=1e-13)
    assert order.smallest_probability(law) == pytest.approx(exact.min(), rel=1e-12)
    grid = (np.arange(20_000) + 0.5) / 20_000
    slots, probabilities = order.draw(grid, law)
    np.testing.assert_allclose(probabilities, exact[slots], rtol=1e-12)
    share = np.bincount(slots, minlength=len(priorities)) / 20_000
    assert np.abs(share - exact).max() <= 1.0 / 20_000
    # Each row owns one interval, and they follow each other in rank order.
    runs = slots[np.flatnonzero(np.diff(slots, prepend=-1))]
    drawn = [slot for slot in order.slots_in_order().tolist() if slot in set(slots.tolist())]
    assert runs.tolist() == drawn
    shuffled = np.random.default_rng(4).permutation(20_000)
    assert (order.draw(grid[shuffled], law)[0] == slots[shuffled]).all()


def test_draw_at_the_ends_of_the_unit_interval():
    for priorities in ([1.0], [0.0, 0.0], EXTREMES, [1.0] * 1000, np.arange(3_000.0)):
        for alpha in (0.0, 0.7, 1.0, 30.0, 1000.0):
            order = filled(priorities)
            ranked = order.slots_in_order()
            slots, probabilities = order.draw(np.array([0.0, LAST]), PowerLaw(alpha))
            assert slots[0] == ranked[0]
            assert (probabilities > 0.0).all()
            if alpha <= 1.0:
                assert slots[1] == ranked[-1]


@pytest.mark.parametrize("ties", [False, True])
def test_drawn_rows_follow_the_law(ties):
    rng = np.random.default_rng(11)
    priorities = rng.exponential(size=3_000)
    if ties:
        priorities = np.minimum(priorities, 1.0)
    order = filled(priorities)
    law = PowerLaw(0.7)
    expected = 200_000 * order.probabilities(np.arange(3_000), law)
    slots, _ = order.draw(rng.random(200_000), law)
    assert stats.chisquare(np.bincount(slots, minlength=3_000), expected).pvalue > 1e-3


def test_stratification_survives_ties():
    # 64 strata over 64 equal rows: every row exactly once, as it would be with distinct priorities.
    order = filled(np.ones(64))
    uniforms = (np.arange(64) + np.random.default_rng(0).random(64)) / 64
    slots, probabilities = order.draw(uniforms, PowerLaw(0.7))
    assert sorted(slots.tolist()) == list(range(64))
    np.testing.assert_allclose(probabilities, 1 / 64)


@given(
    priorities=st.lists(st.floats(0.0, 1e300) | st.sampled_from(EXTREMES), min_size=1, max_size=90),
    uniforms=st.lists(st.floats(0.0, LAST), min_size=1, max_size=20),
)
def test_any_priorities_and_any_uniforms(priorities, uniforms):
    order = filled(priorities)
    order.check()
    slots, probabilities = order.draw(np.array(uniforms), PowerLaw(0.7))
    twin = SortedRanks(len(priorities))
    twin.set(np.arange(len(priorities)), np.array(priorities))
    for slot, probability in zip(slots.tolist(), probabilities, strict=True):
        assert probability == pytest.approx(twin.probability(slot, 0.7), rel=1e-12)
    ranked = {slot: rank for rank, slot in enumerate(twin.slots_in_order())}
    for uniform, slot in zip(uniforms, slots.tolist(), strict=True):
        assert abs(ranked[slot] - ranked[twin.draw(uniform, 0.7)]) <= 1  # equal but for rounding


def test_a_large_order_survives_many_updates():
    rng = np.random.default_rng(9)
    capacity = 100_000
    order = WatchedOrder(capacity)
    priorities = rng.exponential(size=capacity)
    order.rebuild(np.arange(capacity), priorities)
    for turn in range(60):
        slots = np.unique(rng.integers(0, capacity, 5_000))
        values = rng.exponential(size=len(slots))
        if turn % 3 == 0:
            values = np.minimum(values, 1.0)
        priorities[slots] = values
        order.set(slots, values)
    order.check()
    expected = np.lexsort((np.arange(capacity), priorities))[::-1]
    assert (order.slots_in_order() == expected).all()


def test_memory_is_bounded():
    assert WatchedOrder(1_000_000).nbytes <= 44_000_000
    assert most_nodes(64) == 1
    assert most_nodes(10**7) < 500_000


def test_an_empty_order_says_so():
    order = WatchedOrder(3)
    order.check()
    assert len(order) == 0
    assert order.slots_in_order().tolist() == []
    for question in (order.highest, lambda: order.smallest_probability(PowerLaw(1.0))):
        with pytest.raises(ValueError, match="empty order"):
            question()


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (0, 1, 7, "rows"),  # ROWS
        (1, 128, 5, "has"),  # a slot of a leaf
        (1, 192, 40, "has"),  # SIZE of a leaf
        (-1, 97, 0, "wrong count"),  # BEFORE of the root
        (-1, 64 + 1, 299, "has"),  # a bound of the root
    ],
)
def test_check_sees_a_broken_tree(row, column, value, message):
    order = filled(np.repeat(np.arange(60.0), 5))
    order.check()
    cells = order.arrays.cells
    cells[cells[0, 0] if row == -1 else row, column] = value
    with pytest.raises(AssertionError, match=message):
        order.check()


@pytest.mark.slow
def test_kernels_run_as_plain_python():
    program = """
import numpy as np
from tests.watched_order import WatchedOrder

from prioritized_replay.sampling import _rank_kernels as rank_kernels
from prioritized_replay.sampling.power_law import PowerLaw

rubbish = np.random.default_rng(1).integers(0, 256, 2**20, np.uint8)
def left_behind(shape, dtype=float, empty=np.empty):
    array = empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[:] = rubbish[turn:][:array.nbytes]
    return array

turn, np.empty, empty = 0, left_behind, np.empty  # memory is as somebody left it
for turn in range(50):
    small = WatchedOrder(20)  # its root is a leaf
    for _ in range(2):
        small.set(np.arange(9), np.ones(9))
    small.check()
np.empty = empty
rng = np.random.default_rng(0)
order, law = WatchedOrder(300), PowerLaw(0.7)
for turn in range(8):
    slots = rng.permutation(300)[:150]
    order.set(slots, np.minimum(rng.exponential(size=150), 1.0))
    order.insert_run(250, 100, 2.0)
    order.check()
print(order.slots_in_order().tolist(), order.draw(rng.random(9), law)[0].tolist())
print(order.ranges(np.arange(5))[0].tolist(), order.smallest_probability(law), order.highest())
order.rebuild(np.arange(300), rng.random(300))
order.check()
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled},
            capture_output=True,
            text=True,
            check=False,
        )
        for disabled in ("0", "1")
    ]
    assert outputs[0].stderr == outputs[1].stderr == ""
    assert outputs[0].stdout == outputs[1].stdout
    assert len(outputs[0].stdout) > 900
