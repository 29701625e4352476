"""``highest``: the ids that a sort of all priorities puts first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_index import FIELDS, SAMPLERS, Pair

import prioritized_replay as per

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["append", "errors", "update", "update", "sample", "clear"]),
        st.integers(1, 30),
        st.integers(0, 2**32 - 1),
    ),
    max_size=12,
)


def slow_highest(memory, ids, k):
    """Sort all: the highest priority first, of equal ones the newest."""
    keys = [(-p, -i) for p, i in zip(memory.priorities(ids), ids.tolist(), strict=True)]
    return [-newest for _, newest in sorted(keys)[:k]]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
@settings(max_examples=25, deadline=None)
@given(capacity=st.integers(1, 20), operations=OPERATIONS, k=st.integers(0, 25))
def test_highest_is_the_beginning_of_a_sorted_list(sampler, capacity, operations, k):
    pair = Pair(capacity, SAMPLERS[sampler])
    for what, count, seed in operations:
        rng = np.random.default_rng(seed)
        if what == "append":
            pair.append(count, None)
        elif what == "errors":
            pair.append(count, np.round(rng.normal(size=count), 1))  # with ties
        elif what == "update" and len(pair.index):
            ids, errors = rng.choice(pair.index.ids_issued, count), np.round(rng.normal(size=count))
            pair.index.update_priorities(ids, errors)
            pair.replay.update_priorities(ids, errors)
        elif what == "sample":
            pair.sample(min(count, 12), 0.5)
        elif what == "clear":
            pair.index.clear()
            pair.replay.clear()
        for memory in (pair.index, pair.replay):
            found = memory.highest(k)
            assert found.dtype == np.int64
            assert found.tolist() == slow_highest(memory, pair.live(), k)


@pytest.mark.parametrize("way", [per.Proportional(), per.RankBased(), per.Uniform()], ids=repr)
def test_of_sequences_the_ids_of_sequences(way):
    rng = np.random.default_rng(5)
    replay = per.ReplayBuffer(
        60, FIELDS, sampler=way, sequence=per.Sequence(length=6, overlap=3), seed=1
    )
    for step in range(151):  # the ring has gone round
        replay.add(step, 0, 1.0, step + 1, step % 17 == 16)
    everything = replay.highest(1_000)
    assert everything.size == len(replay) > 10
    replay.update_priorities(everything, np.round(rng.normal(size=everything.size), 1))
    everything = np.sort(everything)
    for k in (1, 4, len(replay)):
        assert replay.highest(k).tolist() == slow_highest(replay, everything, k)
    assert replay.get(replay.highest(3)).reward.shape == (3, 6)


def test_it_reads_only():
    index = per.PrioritizedIndex(50, seed=1)
    index.append(td_errors=np.arange(40.0))
    before, expected = index.stats(), index.sample(5).ids
    again = per.PrioritizedIndex(50, seed=1)
    again.append(td_errors=np.arange(40.0))
    again.highest(7)
    assert again.stats() == before
    assert again.sample(5).ids.tolist() == expected.tolist()


@pytest.mark.parametrize("k", [-1, 1.5, True, "3", None])
def test_a_count_that_is_none_is_refused(k):
    index = per.PrioritizedIndex(5)
    with pytest.raises(ValueError, match="k must be an integer >= 0, got"):
        index.highest(k)
