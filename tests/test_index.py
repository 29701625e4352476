"""The index draws as a buffer does: the same ids, weights and numbers, bit for bit.

What it has to do whatever it draws by is in ``distribution_contract.py``, for buffers as well.
"""

import copy
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import interrupts
from tests.pser import PSER

import prioritized_replay as per

FIELDS = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
SAMPLERS = {
    "uniform": per.Uniform(),
    "proportional": per.Proportional(),
    "zero": per.Proportional(alpha=1.0, eps=0.0, uniform_mix=0.1),
    "current": per.Proportional(max_priority="current", weights="buffer"),
    "raw": per.Proportional(draw="independent", weights="raw"),
    "distinct": per.Proportional(draw="without_replacement"),
    "rank": per.RankBased(),
    "mixed-rank": per.RankBased(uniform_mix=0.3, max_priority="current"),
    "distinct-rank": per.RankBased(draw="without_replacement", weights="buffer"),
    "own": PSER(),
}


class Pair:
    """An index, and a buffer of transitions that nobody looks at."""

    def __init__(self, capacity, sampler, seed=3):
        self.index = per.PrioritizedIndex(capacity, sampler, seed=seed)
        self.replay = per.ReplayBuffer(capacity, FIELDS, sampler=sampler, seed=seed)

    def append(self, count, errors):
        ids = self.index.append(count, errors)
        zeros = np.zeros(count)
        rows = {"obs": zeros, "action": zeros.astype(int), "reward": zeros, "next_obs": zeros}
        same = self.replay.extend({**rows, "discount": zeros}, errors)
        assert ids.tolist() == same.tolist()

    def sample(self, count, beta):
        try:
            batch = self.replay.sample(count, beta)
        except ValueError as error:
            said = str(error).replace("a buffer", "an index").replace("transition", "item")
            with pytest.raises(
                ValueError, match=r"sample needs|positive|priorities are zero"
            ) as got:
                self.index.sample(count, beta)
            assert str(got.value) == said
            return
        draw = self.index.sample(count, beta)
        self.equal(draw, batch)
        assert len(draw) == count

    def equal(self, draw, batch):
        for name in ("ids", "weights", "probabilities"):
            mine, other = getattr(draw, name), batch[name]
            assert mine.dtype == other.dtype
            assert mine.tobytes() == other.tobytes(), name

    def live(self):
        issued = int(self.index.stats()["ids_issued"])
        return np.arange(issued - len(self.index), issued)

    def compare(self):
        assert len(self.index) == len(self.replay)
        mine, other = self.index.stats(), self.replay.stats()
        del other["open_windows"]
        assert mine == other
        ids = self.live()
        assert self.index.priorities(ids).tobytes() == self.replay.priorities(ids).tobytes()
        if ids.size:
            self.equal(self.index.get(ids, 0.7), self.replay.get(ids, 0.7))


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["append", "errors", "sample", "sample", "update", "alpha", "clear"]),
        st.integers(1, 40),
        st.integers(0, 2**32 - 1),
    ),
    max_size=14,
)


@pytest.mark.parametrize("sampler", SAMPLERS)
@settings(max_examples=30, deadline=None)
@given(capacity=st.integers(1, 20), operations=OPERATIONS)
def test_index_draws_what_a_buffer_draws(sampler, capacity, operations):
    pair = Pair(capacity, SAMPLERS[sampler])
    for what, count, seed in operations:
        rng = np.random.default_rng(seed)
        if what == "append":
            pair.append(count, None)
        elif what == "errors":
            pair.append(count, np.round(rng.normal(size=count), 1))
        elif what == "sample":
            pair.sample(min(count, 12), float(rng.random()))
        elif what == "update" and len(pair.index):
            ids = rng.choice(int(pair.index.stats()["ids_issued"]), size=count)
            errors = np.round(rng.normal(size=count), 1)
            applied = pair.index.update_priorities(ids, errors)
            assert applied == pair.replay.update_priorities(ids, errors)
        elif what == "alpha" and sampler not in ("uniform", "own"):
            pair.index.alpha = pair.replay.alpha = float(rng.random())
        elif what == "clear":
            pair.index.clear()
            pair.replay.clear()
        pair.compare()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_long_use_draws_what_a_buffer_draws(sampler):
    """More uniforms than one block has, more rows than may wait, draws larger than a block."""
    pair = Pair(9000, SAMPLERS[sampler])
    rng = np.random.default_rng(5)
    for count in (1, 4095, 4097, 3000, 20_000, 1):
        pair.append(count, rng.normal(size=count) if count % 2 else None)
        for size in (1, 600, 4096, 5000 if "distinct" not in sampler else 100):
            if size <= len(pair.index):
                pair.sample(size, 0.5)
        pair.compare()


def test_checkpoints_of_index_and_buffer_are_told_apart(tmp_path):
    pair = Pair(4, per.Proportional())
    pair.append(2, None)
    pair.index.save(tmp_path / "index")
    pair.replay.save(tmp_path / "replay")
    with pytest.raises(per.CheckpointError, match=r"holds a ReplayBuffer.*ReplayBuffer\.load"):
        per.PrioritizedIndex.load(tmp_path / "replay")
    with pytest.raises(per.CheckpointError, match=r"holds a PrioritizedIndex.*Index\.load"):
        per.ReplayBuffer.load(tmp_path / "index")


def test_item_of_priority_zero_is_not_drawn_until_it_has_one_again():
    index = per.PrioritizedIndex(3, per.Proportional(eps=0.0), seed=0)
    index.append(3)
    index.update_priorities([0, 2], [0.0, 0.0])
    assert set(index.sample(50).ids.tolist()) == {1}
    index.update_priorities([1], [0.0])
    with pytest.raises(ValueError, match="all priorities are zero"):
        index.sample(1)
    index.update_priorities([2], [1e-300])
    assert set(index.sample(50).ids.tolist()) == {2}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index: per.PrioritizedIndex(0), "capacity must be an integer >= 1, got 0"),
        (lambda index: per.PrioritizedIndex(4, "rank"), "sampler must be one of Uniform"),
        (
            lambda index: per.PrioritizedIndex(4, per.RankBased),
            "sampler must be one of .* got <class",
        ),
        (lambda index: per.PrioritizedIndex(4, seed="x"), "seed must be"),
        (lambda index: index.append(-1), "count must be an integer >= 0, got -1"),
        (lambda index: index.append(2.0), "count must be an integer >= 0, got 2.0"),
        (lambda index: index.append(True), "count must be an integer >= 0, got True"),
        (lambda index: index.append(2, [1.0]), r"td_errors must have shape \(2,\)"),
        (lambda index: index.append(2, [1.0, np.nan]), "td_errors must be finite"),
        (lambda index: index.append(td_errors=[np.inf]), "td_errors must be finite, got inf"),
        (lambda index: index.append(td_errors=3.0), r"td_errors must have shape \(1,\)"),
        (lambda index: index.sample(0), "batch_size must be an integer >= 1, got 0"),
        (lambda index: index.sample(1, 1.5), r"beta must be in \[0, 1\], got 1.5"),
        (lambda index: index.update_priorities([9], [1.0]), "ids must be >= 0 and < 5, got 9"),
        (lambda index: index.update_priorities([4], [np.nan]), "td_errors must be finite, got nan"),
        (lambda index: index.update_priorities([-1], [1.0]), "ids must be >= 0 and < 5, got -1"),
        (lambda index: index.update_priorities([2.0], [1.0]), "ids must be integers .* float64"),
        (lambda index: index.update_priorities([True], [1.0]), "ids must be integers .* got bool"),
        (lambda index: index.update_priorities([2**62], [1.0]), "ids must be >= 0 and < 5, got 46"),
        (lambda index: index.update_priorities([2**63], [1.0]), "ids must fit int64, got 92233"),
        (lambda index: index.update_priorities([2**64], [1.0]), "ids must be integers .* object"),
        (lambda index: index.update_priorities([[3, 4]], [1.0, 2.0]), r"shape \(B,\), .* \(1, 2\)"),
        (lambda index: index.update_priorities(3, 1.0), r"shape \(B,\), got int64 of shape \(\)"),
        (lambda index: index.update_priorities([3, 4], [1.0]), r"td_errors must .* got \(1,\)"),
        (lambda index: index.update_priorities([3], [1.0, 2.0]), r"td_errors must .* got \(2,\)"),
        (lambda index: index.update_priorities([3], [True]), "td_errors must be real .* bool"),
        (lambda index: index.get([2.0]), "ids must be integers of .* got float64"),
        (lambda index: index.priorities([True]), "ids must be integers of .* bool"),
        (lambda index: setattr(index, "alpha", -1), "alpha must be >= 0"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(call, message):
    index = per.PrioritizedIndex(4, seed=1)
    index.append(5)
    before = interrupts.contents(index)
    with pytest.raises(ValueError, match=message):
        call(index)
    assert interrupts.contents(index) == before


def test_ids_that_only_a_larger_index_has_given_are_refused():
    """Of ids that both have given, nobody can know whose they are."""
    index, larger = per.PrioritizedIndex(4, seed=1), per.PrioritizedIndex(9, seed=1)
    index.append(5)
    ids = larger.append(9)
    before = interrupts.contents(index)
    with pytest.raises(ValueError, match="ids must be >= 0 and < 5, got 5"):
        index.update_priorities(ids, np.ones(9))
    for ask in (index.get, index.priorities):
        with pytest.raises(KeyError, match="from 1 to 4, got 5, which was never issued"):
            ask(ids[4:])
    assert interrupts.contents(index) == before


def test_items_that_are_gone_are_named():
    index = per.PrioritizedIndex(4)
    index.append(6)
    for ids in ([2, 1], [2, 6]):
        with pytest.raises(KeyError, match=f"live items, from 2 to 5, got {ids[1]}, which"):
            index.get(ids)
        with pytest.raises(KeyError, match=f"live items, from 2 to 5, got {ids[1]}, which"):
            index.priorities(ids)


def test_nothing_may_be_appended():
    index = per.PrioritizedIndex(4)
    assert index.append(0).tolist() == []
    assert index.append(td_errors=np.zeros(0)).tolist() == []
    assert len(index) == 0


def test_errors_of_torch_are_taken():
    torch = pytest.importorskip("torch")
    index = per.PrioritizedIndex(4)
    index.append(td_errors=torch.tensor([1.0, 2.0], requires_grad=True))
    draw = index.sample(3)
    assert index.update_priorities(torch.from_numpy(draw.ids), torch.ones(3, 1)) == 3


def test_draws_are_values_and_an_index_is_not():
    index = per.PrioritizedIndex(4, seed=0)
    index.append(4)
    draw = index.sample(3)
    again = pickle.loads(pickle.dumps(draw))
    assert again.ids.tobytes() == draw.ids.tobytes()
    assert again.weights.tobytes() == draw.weights.tobytes()
    kept = draw.ids.copy(), draw.weights.copy()
    index.sample(3)
    assert (draw.ids == kept[0]).all()
    assert (draw.weights == kept[1]).all()
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"PrioritizedIndex cannot be copied.*save"):
            way(index)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_process_draws_numbers_of_its_own():
    index = per.PrioritizedIndex(1000, per.Uniform(), seed=0)
    index.append(1000)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, index.sample(20).ids.tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = np.frombuffer(os.read(read, 1000), np.int64)
    os.close(read)
    os.close(write)
    assert theirs.size == 20
    assert theirs.tolist() != index.sample(20).ids.tolist()


def test_the_least_priority_is_one_that_the_law_can_hold():
    with pytest.raises(ValueError, match=r"min_priority must be <= .* alpha is 2.0, got 1e\+300"):
        per.PrioritizedIndex(4, per.Proportional(alpha=2.0, min_priority=1e300))
    index = per.PrioritizedIndex(4, per.Proportional(alpha=0.5, min_priority=1e200), seed=0)
    with pytest.raises(ValueError, match="alpha must give priorities whose power"):
        index.alpha = 3.0  # also while there is no item
    assert index.alpha == 0.5
    ids = index.append(td_errors=[0.0, 1.0, 1e210])
    assert index.priorities(ids).tolist() == [1e200, 1e200, 1e210]
    assert np.isfinite(index.sample(64).probabilities).all()
