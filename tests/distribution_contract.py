"""What every sampler must do inside a buffer: subclass :class:`Contract`, say the law, done."""

from typing import Any

import numpy as np
import pytest
from tests import interrupts
from tests.reference import FIELDS, chi_square_excess, transitions

import prioritized_replay as per

N = 12


class Contract:
    """Tests of one specification; a subclass has the two members below."""

    specification: Any
    """With alpha 0.6, where it has an alpha."""

    def law(self, priorities: np.ndarray, alpha: float) -> np.ndarray:
        """Return the probabilities of live rows, oldest first, by the slow and obvious way."""
        raise NotImplementedError

    def build(self, rows: int = 0, capacity: int = N) -> per.ReplayBuffer:
        replay = per.ReplayBuffer(capacity, FIELDS, sampler=self.specification, seed=3)
        rng = np.random.default_rng(rows)
        for serial in range(rows):
            row = {name: column[0] for name, column in transitions([serial]).items()}
            replay.add(**row, td_error=float(rng.exponential()))
        return replay

    def live(self, replay: per.ReplayBuffer) -> np.ndarray:
        issued = int(replay.stats()["ids_issued"])
        return np.arange(issued - len(replay), issued)

    def require_law(self, replay: per.ReplayBuffer) -> None:
        ids = self.live(replay)
        law = self.law(replay.priorities(ids), replay.alpha)
        np.testing.assert_allclose(replay.get(ids).probabilities, law, rtol=1e-12)

    @pytest.mark.parametrize("rows", [1, 5, N, N + 5, 3 * N])
    def test_probabilities_are_those_of_the_law(self, rows):
        replay = self.build(rows)
        self.require_law(replay)
        replay.update_priorities(
            self.live(replay)[::2], np.arange(0.5, 100)[: -(-len(replay) // 2)]
        )
        self.require_law(replay)
        batch = replay.sample(4, beta=0.5)
        ids = self.live(replay)
        law = self.law(replay.priorities(ids), replay.alpha)[batch.ids - ids[0]]
        np.testing.assert_allclose(batch.probabilities, law, rtol=1e-12)
        weights = law**-0.5
        np.testing.assert_allclose(batch.weights, weights / weights.max(), rtol=1e-6)

    def test_draws_follow_the_law(self):
        replay = self.build(N + 5)
        ids = self.live(replay)
        counts = np.zeros(N)
        for _ in range(400):
            drawn = replay.sample(50).ids
            counts += np.bincount(drawn - ids[0], minlength=N)
        # stratified draws vary less than independent ones
        assert chi_square_excess(counts, self.law(replay.priorities(ids), replay.alpha)) < 1

    def test_late_updates_are_skipped_and_of_duplicates_the_last_counts(self):
        replay = self.build(N + 5)
        ids = self.live(replay)
        given = np.array([ids[0] - 1, ids[3], ids[3], 0])
        before = replay.priorities(ids)
        assert replay.update_priorities(given, [50.0, 60.0, 7.0, 80.0]) == 2
        eps = getattr(self.specification, "eps", 0.0)
        if before.max() != before.min():
            assert replay.priorities(ids[[3]]) == 7.0 + eps
        self.require_law(replay)
        assert replay.stats()["stale_updates"] == 2
        for bad in ([np.nan], [np.inf]):
            with pytest.raises(ValueError, match="finite"):
                replay.update_priorities(ids[:1], bad)
        with pytest.raises(ValueError, match="ids"):
            replay.update_priorities([N + 5], [1.0])
        self.require_law(replay)

    def test_alpha_can_be_changed(self):
        replay = self.build(N + 5)
        for alpha in (0.0,) if replay.alpha == 0.0 else (0.0, 0.9, 0.3):
            replay.alpha = alpha
            self.require_law(replay)

    def test_a_cleared_buffer_begins_anew(self):
        replay = self.build(N + 5)
        replay.clear()
        assert len(replay) == 0
        with pytest.raises(ValueError, match="at least one"):
            replay.sample(1)
        zero = np.zeros(2, np.float32)
        ids = replay.add(zero, 0, 0.0, zero, False)
        assert replay.priorities(ids) == 1.0
        self.require_law(replay)

    def test_a_ring_of_one_slot(self):
        replay = self.build(5, capacity=1)
        assert replay.sample(3).ids.tolist() == [4, 4, 4]
        self.require_law(replay)

    @pytest.mark.parametrize("rows", [0, 3, N + 5])
    def test_a_loaded_buffer_goes_on_bit_for_bit(self, rows, tmp_path):
        replay = self.build(rows)
        if rows:
            replay.alpha = replay.alpha / 2
        replay.save(tmp_path)
        loaded = per.ReplayBuffer.load(tmp_path)
        assert loaded.sampler == replay.sampler
        for serial in range(rows, rows + 9):
            row = {name: column[0] for name, column in transitions([serial]).items()}
            digests = []
            for one in (replay, loaded):
                one.add(**row)
                batch = one.sample(6)
                one.update_priorities(batch.ids, batch.reward)
                digests.append((batch.ids.tobytes(), batch.weights.tobytes()))
            assert digests[0] == digests[1]

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize("what", ["update", "alpha", "clear", "add", "sample"])
    def test_a_call_that_is_ended_leaves_the_state_before_or_after_it(self, what):
        def call_of(replay: per.ReplayBuffer) -> Any:
            ids = self.live(replay)
            zero = np.zeros(2, np.float32)
            return {
                "update": lambda: replay.update_priorities(ids[2:9], np.arange(7.0)),
                "alpha": lambda: setattr(replay, "alpha", replay.alpha / 3),
                "clear": replay.clear,
                "add": lambda: replay.add(zero, 0, 0.0, zero, False),
                "sample": lambda: replay.sample(5),
            }[what]

        before, after = self.build(N + 5), self.build(N + 5)
        call_of(after)()
        states = [interrupts.contents(one) for one in (before, after)]
        count = interrupts.count_events(call_of(self.build(N + 5)))
        # All of one call that takes little time: a few places would be found by chance only.
        for at in range(0, count, 1 if what == "alpha" else max(1, count // 12)):
            replay = self.build(N + 5)
            interrupts.run_until(call_of(replay), at)
            assert interrupts.contents(replay) in states, f"{what} event {at} of {count}"
            if len(replay):
                self.require_law(replay)
