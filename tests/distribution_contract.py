"""What every sampler must do inside a memory: subclass :class:`Contract`, say the law, done.

Each test runs with a buffer and with an index.
"""

import os
from typing import Any

import numpy as np
import pytest
from tests import interrupts
from tests.reference import FIELDS, chi_square_excess, transitions

import prioritized_replay as per

N = 12
SAMPLED = int(os.environ.get("PER_INTERRUPTS", "12"))  # events of a call; 0: all of them


class Buffer:
    """A memory of transitions that nobody looks at."""

    kind: Any = per.ReplayBuffer

    def new(self, capacity: int, sampler: Any) -> Any:
        return per.ReplayBuffer(capacity, FIELDS, sampler=sampler, seed=3)

    def add(self, memory: Any, td_error: float | None = None) -> np.ndarray:
        """Add one row and return its id, int64[1]."""
        row = {name: column[0] for name, column in transitions([0]).items()}
        return memory.add(**row, td_error=td_error)

    def extend(self, memory: Any, count: int, td_errors: Any = None) -> np.ndarray:
        """Add many rows at once and return their ids."""
        return memory.extend(transitions(np.arange(count)), td_errors)


class Index:
    """The sampler alone, with the same verbs."""

    kind: Any = per.PrioritizedIndex

    def new(self, capacity: int, sampler: Any) -> Any:
        return per.PrioritizedIndex(capacity, sampler, seed=3)

    def add(self, memory: Any, td_error: float | None = None) -> np.ndarray:
        return memory.append(td_errors=None if td_error is None else [td_error])

    def extend(self, memory: Any, count: int, td_errors: Any = None) -> np.ndarray:
        return memory.append(count, td_errors)


class Contract:
    """Tests of one specification; a subclass has the two members below."""

    specification: Any
    """With alpha 0.6, where it has an alpha."""

    def law(self, priorities: np.ndarray, alpha: float) -> np.ndarray:
        """Return the probabilities of live rows, oldest first, by the slow and obvious way."""
        raise NotImplementedError

    way: Buffer | Index

    @pytest.fixture(autouse=True, params=[Buffer(), Index()], ids=["buffer", "index"])
    def _in_each_memory(self, request: Any) -> None:
        self.way = request.param

    def build(self, rows: int = 0, capacity: int = N) -> Any:
        memory = self.way.new(capacity, self.specification)
        rng = np.random.default_rng(rows)
        for _ in range(rows):
            self.way.add(memory, float(rng.exponential()))
        return memory

    def live(self, memory: Any) -> np.ndarray:
        issued = int(memory.stats()["ids_issued"])
        return np.arange(issued - len(memory), issued)

    def require_law(self, memory: Any) -> None:
        ids = self.live(memory)
        law = self.law(memory.priorities(ids), memory.alpha)
        np.testing.assert_allclose(memory.get(ids).probabilities, law, rtol=1e-12)

    @pytest.mark.parametrize("rows", [1, 5, N, N + 5, 3 * N])
    def test_probabilities_are_those_of_the_law(self, rows):
        memory = self.build(rows)
        self.require_law(memory)
        memory.update_priorities(
            self.live(memory)[::2], np.arange(0.5, 100)[: -(-len(memory) // 2)]
        )
        self.require_law(memory)
        batch = memory.sample(4, beta=0.5)
        ids = self.live(memory)
        law = self.law(memory.priorities(ids), memory.alpha)[batch.ids - ids[0]]
        np.testing.assert_allclose(batch.probabilities, law, rtol=1e-12)
        weights = law**-0.5
        np.testing.assert_allclose(batch.weights, weights / weights.max(), rtol=1e-6)

    def test_many_rows_at_once_are_like_one_after_the_other(self):
        errors = np.random.default_rng(3 * N).exponential(size=3 * N)
        memory, many = self.build(3 * N), self.build()
        assert self.way.extend(many, 3 * N, errors).tolist() == list(range(3 * N))
        ids = self.live(memory)
        assert many.priorities(ids).tolist() == memory.priorities(ids).tolist()
        self.require_law(many)
        largest = many.stats()["largest_priority"]
        entered = self.way.extend(many, 3)
        assert (many.priorities(entered) == largest).all()
        self.require_law(many)

    def test_draws_follow_the_law(self):
        memory = self.build(N + 5)
        ids = self.live(memory)
        counts = np.zeros(N)
        for _ in range(400):
            drawn = memory.sample(50).ids
            counts += np.bincount(drawn - ids[0], minlength=N)
        # stratified draws vary less than independent ones
        assert chi_square_excess(counts, self.law(memory.priorities(ids), memory.alpha)) < 1

    def test_late_updates_are_skipped_and_of_duplicates_the_last_counts(self):
        memory = self.build(N + 5)
        ids = self.live(memory)
        given = np.array([ids[0] - 1, ids[3], ids[3], 0])
        before = memory.priorities(ids)
        assert memory.update_priorities(given, [50.0, 60.0, 7.0, 80.0]) == 2
        eps = getattr(self.specification, "eps", 0.0)
        if before.max() != before.min():
            assert memory.priorities(ids[[3]]) == 7.0 + eps
        self.require_law(memory)
        assert memory.stats()["stale_updates"] == 2
        assert memory.stats()["largest_priority"] < 50.0  # of late errors and lost ones, neither
        for bad in ([np.nan], [np.inf]):
            with pytest.raises(ValueError, match="finite"):
                memory.update_priorities(ids[:1], bad)
        with pytest.raises(ValueError, match="ids"):
            memory.update_priorities([N + 5], [1.0])
        self.require_law(memory)

    def test_alpha_can_be_changed(self):
        memory = self.build(N + 5)
        for alpha in (0.0,) if memory.alpha == 0.0 else (0.0, 0.9, 0.3):
            memory.alpha = alpha
            self.require_law(memory)

    def test_a_cleared_memory_begins_anew(self):
        memory = self.build(N + 5)
        memory.clear()
        assert len(memory) == 0
        with pytest.raises(ValueError, match="at least one"):
            memory.sample(1)
        ids = self.way.add(memory)
        assert memory.priorities(ids) == 1.0
        self.require_law(memory)

    def test_a_ring_of_one_slot(self):
        memory = self.build(5, capacity=1)
        assert memory.sample(3).ids.tolist() == [4, 4, 4]
        self.require_law(memory)

    @pytest.mark.parametrize("rows", [0, 3, N + 5])
    def test_a_loaded_memory_goes_on_bit_for_bit(self, rows, tmp_path):
        memory = self.build(rows)
        if rows:
            memory.alpha = memory.alpha / 2
            memory.sample(5)
        memory.save(tmp_path, extra={"epoch": b"7"})
        loaded = self.way.kind.load(tmp_path)
        assert loaded.extra == {"epoch": b"7"}
        assert loaded.sampler == memory.sampler
        for count in (6,) * 8 + (5000, 6):  # more than a block of uniforms
            digests = []
            for one in (memory, loaded):
                self.way.add(one)
                batch = one.sample(count)
                one.update_priorities(batch.ids, np.linspace(-1.0, 2.0, count))
                stats = tuple(one.stats().items())
                digests.append((batch.ids.tobytes(), batch.weights.tobytes(), stats))
            assert digests[0] == digests[1]
        loaded.save(tmp_path)
        assert self.way.kind.load(tmp_path).stats() == memory.stats()

    CALLS = (
        *("update", "alpha", "clear", "add", "extend", "extend beyond", "sample"),
        *("sample beyond", "sample where uniforms end"),
    )

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize("what", CALLS)
    def test_a_call_that_is_ended_leaves_the_state_before_or_after_it(self, what):
        def prepared() -> Any:
            memory = self.build(N + 5)
            memory.sample(2)
            if "uniforms" in what:
                memory._uniforms._block[0] = memory._uniforms.size - 3
            return memory

        def call_of(memory: Any) -> Any:
            ids = self.live(memory)
            return {
                "update": lambda: memory.update_priorities(ids[2:9], np.arange(7.0)),
                "alpha": lambda: setattr(memory, "alpha", memory.alpha / 3),
                "clear": memory.clear,
                "add": lambda: self.way.add(memory, 0.25),
                "extend": lambda: self.way.extend(memory, 3),
                "extend beyond": lambda: self.way.extend(memory, 2 * N, np.arange(2.0 * N)),
                "sample": lambda: memory.sample(5),
                "sample beyond": lambda: memory.sample(N + 1),
                "sample where uniforms end": lambda: memory.sample(5),
            }[what]

        before, after = prepared(), prepared()
        call_of(after)()
        states = [interrupts.contents(one) for one in (before, after)]
        count = interrupts.count_events(call_of(prepared()))
        # All of one call that takes little time: a few places would be found by chance only.
        every = what == "alpha" or not SAMPLED
        for at in range(0, count, 1 if every else max(1, count // SAMPLED)):
            memory = prepared()
            interrupts.run_until(call_of(memory), at)
            assert interrupts.contents(memory) in states, f"{what} event {at} of {count}"
            if len(memory):
                self.require_law(memory)
            self.way.add(memory)
            memory.sample(2)
