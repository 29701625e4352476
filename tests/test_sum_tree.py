"""The sum tree against a cumulative sum: search, exact parents, no dead slot, no drift."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.reference import ReferenceSumTree

from prioritized_replay.sampling.sum_tree import SumTree

FANOUT = 8
SIZES = [*range(1, 18), 63, 64, 65, 511, 512, 513, 4097]


def put(tree: SumTree, slots, masses) -> None:
    tree.set(np.asarray(slots, dtype=np.int64), np.asarray(masses, dtype=np.float64))


def find(tree: SumTree, targets) -> np.ndarray:
    slots, masses = tree.find(np.asarray(targets, dtype=np.float64))
    assert slots.dtype == np.int64
    np.testing.assert_array_equal(masses, tree.masses(slots))
    return slots


def assert_parents_are_sums(tree: SumTree) -> None:
    """Every parent is the left-to-right sum of its 8 children, bit for bit."""
    for children, parents in zip(tree.levels[:-1], tree.levels[1:], strict=True):
        padded = np.zeros((-(-children.size // FANOUT), FANOUT))
        padded.flat[: children.size] = children
        sums = padded[:, 0].copy()
        for k in range(1, FANOUT):
            sums += padded[:, k]
        np.testing.assert_array_equal(parents[: sums.size].view(np.int64), sums.view(np.int64))
        assert not parents[sums.size :].any()
    assert tree.levels[-1].size == 1
    assert tree.total == tree.levels[-1][0]


@pytest.mark.parametrize("capacity", SIZES)
def test_search_agrees_with_a_cumulative_sum_at_every_boundary(capacity):
    rng = np.random.default_rng(capacity)
    tree, twin = SumTree(capacity), ReferenceSumTree(capacity)
    slots = np.arange(capacity)
    masses = rng.integers(0, 4, capacity).astype(np.float64)
    masses[rng.integers(capacity)] = 5.0
    put(tree, slots, masses)
    twin.set(slots, masses)

    targets = np.arange(0, twin.total, 0.5)  # every boundary, and a point inside every mass
    targets = np.concatenate([targets, np.nextafter(targets[1:], 0)])

    assert tree.total == twin.total
    np.testing.assert_array_equal(find(tree, targets), twin.find(targets))
    assert_parents_are_sums(tree)


@pytest.mark.parametrize("capacity", [1, 2, 3, 8, 9, 64, 65])
def test_each_slot_alone_is_found_from_every_target(capacity):
    for slot in range(capacity):
        tree = SumTree(capacity)
        put(tree, [slot], [0.1])

        found = find(tree, [0.0, 0.05, np.nextafter(0.1, 0)])

        np.testing.assert_array_equal(found, [slot] * 3)


def test_of_duplicate_slots_the_last_mass_wins():
    tree = SumTree(20)

    put(tree, [3, 17, 3, 3, 17], [9.0, 8.0, 7.0, 2.0, 1.0])

    np.testing.assert_array_equal(tree.masses(np.array([3, 17, 4])), [2.0, 1.0, 0.0])
    assert tree.total == 3.0
    tree.check()


def test_a_cleared_tree_is_empty_and_usable():
    tree = SumTree(100)
    put(tree, np.arange(100), np.arange(100.0))

    tree.clear()

    assert tree.total == 0.0
    assert not tree.masses(np.arange(100)).any()
    put(tree, [7], [2.0])
    assert find(tree, [1.0]) == [7]
    assert_parents_are_sums(tree)


def test_an_empty_batch_changes_nothing():
    tree = SumTree(9)
    put(tree, [4], [1.0])

    put(tree, [], [])

    assert tree.total == 1.0
    assert find(tree, []).size == 0


def test_parents_are_bit_equal_to_their_childrens_sum_after_a_million_random_updates():
    rng = np.random.default_rng(5)
    capacity = 30_011
    tree = SumTree(capacity)
    last = np.zeros(capacity)
    for _ in range(1_000):
        slots = rng.integers(0, capacity, 1_000)
        masses = 10.0 ** rng.uniform(-6, 6, 1_000)
        masses[rng.random(1_000) < 0.05] = 0.0
        put(tree, slots, masses)
        last[slots] = masses  # of duplicates NumPy, too, keeps the last

    tree.check()
    assert_parents_are_sums(tree)
    np.testing.assert_array_equal(tree.masses(np.arange(capacity)), last)
    assert abs(tree.total / math.fsum(last) - 1) <= 1e-13

    put(tree, np.arange(capacity), np.zeros(capacity))

    assert tree.total == 0.0  # nothing of the history is left in any node
    assert not any(level.any() for level in tree.levels)


@pytest.mark.parametrize("level", [1, 2])
def test_check_reports_a_damaged_parent_with_its_numbers(level):
    tree = SumTree(1_000)
    put(tree, np.arange(1_000), np.ones(1_000))
    tree.check()

    tree.levels[level][1] = np.nextafter(tree.levels[level][1], np.inf)

    with pytest.raises(AssertionError, match=rf"{8**level}\.0"):
        tree.check()


def wide_masses(rng, capacity):
    """Masses from 1e-300 to 1e300, a third of the slots dead, both ends of the ring among them."""
    masses = 10.0 ** rng.uniform(-300, 300, capacity)
    masses[rng.random(capacity) < 1 / 3] = 0.0
    masses[:3] = 0.0
    masses[-3:] = 0.0
    return masses


def test_no_dead_slot_for_masses_from_1e_minus_300_to_1e300():
    rng = np.random.default_rng(11)
    draws = 0
    for round_ in range(250):
        capacity = int(rng.integers(8, 700))
        tree = SumTree(capacity)
        masses = wide_masses(rng, capacity)
        if round_ % 2:  # a range that a float64 sum still resolves
            masses = np.where(masses > 0, masses ** (1 / 25), 0.0)
        put(tree, np.arange(capacity), masses)
        total = tree.total
        edges = np.cumsum(masses)
        edges = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, np.inf)])
        uniforms = np.concatenate([rng.random(4_000), [0.0, np.nextafter(1.0, 0.0)]])
        targets = np.concatenate(
            [uniforms * total, edges[edges < total], [0.0, np.nextafter(total, 0.0)]]
        )

        found = find(tree, targets)

        assert np.all((found >= 0) & (found < capacity))
        assert np.all(masses[found] > 0)
        draws += targets.size
    assert draws > 1_000_000


@pytest.mark.parametrize("mass", [5e-324, 1e-300, 1.0, 1e300])
def test_a_lone_mass_of_any_size_is_found(mass):
    tree = SumTree(50)
    put(tree, [49], [mass])

    found = find(tree, np.array([0.0, np.nextafter(1.0, 0.0)]) * mass)

    np.testing.assert_array_equal(found, [49, 49])


def test_small_masses_are_not_lost_beside_huge_ones():
    """What stood beside a mass 1e24 times its size is drawn as it should once that one is gone."""
    capacity = 3_272
    tree, twin = SumTree(capacity), ReferenceSumTree(capacity)
    small = np.arange(capacity) % 5 + 1.0
    put(tree, np.arange(capacity), small * 2.0**-40)
    giants = np.arange(0, capacity, 7)
    put(tree, giants, np.full(giants.size, 1e12))
    put(tree, giants, small[giants] * 2.0**-40)
    twin.set(range(capacity), small)

    targets = np.arange(0.0, twin.total) + 0.5
    np.testing.assert_array_equal(find(tree, targets * 2.0**-40), twin.find(targets))
    assert np.unique(find(tree, targets * 2.0**-40)).size == capacity


@given(
    capacity=st.integers(1, 80),
    updates=st.lists(st.tuples(st.integers(0, 79), st.integers(0, 2**20)), min_size=1),
)
def test_any_history_gives_the_twins_tree(capacity, updates):
    tree, twin = SumTree(capacity), ReferenceSumTree(capacity)
    slots = np.array([slot % capacity for slot, _ in updates])
    masses = np.array([float(mass) for _, mass in updates])
    put(tree, slots, masses)
    twin.set(slots, masses)

    assert tree.total == twin.total
    if twin.total:
        ends = np.cumsum(twin.mass)
        targets = np.concatenate([[0.0], ends[ends < twin.total], ends[ends > 0] - 0.5])
        np.testing.assert_array_equal(find(tree, targets), twin.find(targets))


class TreeMachine(RuleBasedStateMachine):
    """Random writes, single and in batches, with clears between them."""

    @initialize(capacity=st.sampled_from(SIZES[:-1]))
    def build(self, capacity):
        self.capacity = capacity
        self.tree, self.twin = SumTree(capacity), ReferenceSumTree(capacity)

    @rule(data=st.data())
    def write(self, data):
        writes = data.draw(
            st.lists(st.tuples(st.integers(0, self.capacity - 1), st.integers(0, 1000)))
        )
        slots, masses = [w[0] for w in writes], [w[1] for w in writes]
        put(self.tree, slots, masses)
        self.twin.set(slots, masses)

    @rule(data=st.data())
    def search(self, data):
        if self.twin.total:
            targets = data.draw(
                st.lists(st.floats(0, self.twin.total, exclude_max=True), min_size=1)
            )
            np.testing.assert_array_equal(
                find(self.tree, targets), self.twin.find(np.array(targets))
            )

    @rule()
    def clear(self):
        self.tree.clear()
        self.twin.mass[:] = 0.0

    @invariant()
    def same(self):
        if hasattr(self, "tree"):
            self.tree.check()
            assert self.tree.total == self.twin.total
            assert self.tree.positive == np.count_nonzero(self.twin.mass)


TestTreeMachine = pytest.mark.slow(TreeMachine.TestCase)


# The tests that also run without the compiler: each goes through kernels, in little time.
PLAIN_PYTHON = [
    "tests/test_sum_tree.py::test_search_agrees_with_a_cumulative_sum_at_every_boundary",
    "tests/test_sum_tree.py::test_of_duplicate_slots_the_last_mass_wins",
    "tests/test_samplers.py::test_probabilities_are_the_law_after_any_history",
    "tests/test_samplers.py::test_without_replacement_every_row_comes_once",
    "tests/test_index.py::test_item_of_priority_zero_is_not_drawn_until_it_has_one_again",
    "tests/test_storage.py::test_columns_come_back_as_they_went_in",
    "tests/test_replay.py::test_at_the_ring_seam_no_row_is_mixed",
    "tests/test_live.py::test_slots_are_found_in_the_order_of_their_age",
]


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("NUMBA_DISABLE_JIT", "0") != "0", reason="this is already the plain run"
)
def test_the_kernels_give_the_same_as_plain_python():
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PLAIN_PYTHON],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
