"""A step of every stream that is taken as it comes equals the same step taken the long way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import prioritized_replay as per
from prioritized_replay.streams.streams import Streams

STREAMS = 3
FIELDS = {
    "obs": per.Field((2,), "float32"),
    "action": per.Field((), "int64"),
    "reward": per.Field((), "float32"),
    "mark": per.Field((), "uint8"),
}


def made(n_step, autoreset, capacity, max_priority="ever"):
    options = {"n_step": n_step, "num_envs": STREAMS, "autoreset": autoreset}
    sampler = per.Proportional(max_priority=max_priority)
    return per.ReplayBuffer(capacity, FIELDS, sampler=sampler, **options)


def step_of(numbers, wide, t):
    """Return the arguments of one call of `add`, all of them arrays."""
    obs = numbers.integers(-9, 9, (STREAMS, 2)).astype(np.float64 if wide[0] else np.float32)
    reward = numbers.random(STREAMS).astype(np.float64 if wide[1] else np.float32)
    return {
        "obs": obs, "action": numbers.integers(0, 5, STREAMS), "reward": reward,
        "next_obs": np.full_like(obs, t + 0.1), "terminated": numbers.random(STREAMS) < 0.2,
        "truncated": numbers.random(STREAMS) < 0.1,
        "mark": np.full(STREAMS, t % 256, np.uint8),
    }  # fmt: skip


def everything(replay, ids):
    live = ids[len(ids) - len(replay) :]
    return {**dict(vars(replay.get(live))), "priorities": replay.priorities(live)}


@given(
    seed=st.integers(0, 99),
    n_step=st.sampled_from([1, 3]),
    autoreset=st.sampled_from(["next_step", "same_step", "disabled"]),
    capacity=st.sampled_from([1, 5, 40]),
    max_priority=st.sampled_from(["ever", "current"]),
    wide=st.tuples(st.booleans(), st.booleans()),
    with_errors=st.booleans(),
)
@pytest.mark.slow
def test_it_equals_the_long_way(seed, n_step, autoreset, capacity, max_priority, wide, with_errors):
    numbers = np.random.default_rng(seed)
    buffers = [made(n_step, autoreset, capacity, max_priority) for _ in range(2)]
    ids = []
    for t in range(12):
        step = step_of(numbers, wide, t)
        if numbers.random() < 0.5:
            step["truncated"] = False
        if with_errors:
            step["td_error"] = numbers.normal(size=STREAMS)
        ended = step["terminated"] | step["truncated"]
        info = {"final_obs": step["next_obs"] + 1.0, "_final_obs": ended} if ended.any() else {}
        new = buffers[0].add(**step, info=info).tolist()
        step["action"] = step["action"].tolist()  # which has to be cast
        assert buffers[1].add(**step, info=info).tolist() == new
        ids += new
    first, second = (everything(replay, ids) for replay in buffers)
    for name, column in first.items():
        np.testing.assert_array_equal(column, second[name], err_msg=name)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("wide", [(False, False), (True, True)])
def test_it_is_the_way_of_arrays_that_fit(n_step, wide, monkeypatch):
    """Else the test above would compare the long way with itself."""

    def accept(*arguments):
        raise AssertionError("the long way")

    monkeypatch.setattr(Streams, "accept", accept)
    replay, numbers = made(n_step, "next_step", 40), np.random.default_rng(0)
    step = step_of(numbers, wide, 0) | {"terminated": np.ones(STREAMS, bool)}
    assert len(replay.add(**step)) == STREAMS
    for name, other in {
        "action": [0, 0, 0],
        "obs": step["obs"][:2],
        "terminated": np.zeros(STREAMS, np.int8),
        "truncated": [False] * STREAMS,
        "info": [{}] * STREAMS,
        "next_obs": step["obs"],
    }.items():
        with pytest.raises(AssertionError, match="the long way"):
            replay.add(**(step | {name: other}))
    assert len(replay) == STREAMS


def test_float64_values_of_more_columns_than_a_number_has_bits():
    names = [f"column_{k}" for k in range(80)]
    scalars = dict.fromkeys(["obs", "action", "reward", *names], per.Field())
    for options in ({"num_envs": 2, "autoreset": "disabled"}, {}):
        replay = per.ReplayBuffer(10, scalars, **options)
        shape = (2,) if options else ()
        step = np.full(shape, 0.5), np.full(shape, 1.5), np.full(shape, 2.5), np.full(shape, 3.5)
        extra = {name: np.full(shape, 10.0 + k) for k, name in enumerate(names)}
        batch = replay.get(replay.add(*step, np.zeros(shape, bool), **extra))

        got = [batch[name].tolist() for name in ("obs", "action", "reward", "next_obs", *names)]
        expected = [0.5, 1.5, 2.5, 3.5, *(10.0 + k for k in range(80))]
        assert got == [[value] * len(batch) for value in expected]
