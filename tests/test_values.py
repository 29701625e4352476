"""What says how to build and what comes out are values: they can be sent to other processes."""

import copy
import dataclasses
import multiprocessing
import pickle

import numpy as np
import pytest

import prioritized_replay as per

FIELDS = {
    "obs": {"image": per.Field((2, 4), "uint8", stack_axis=0), "speed": (per.Field(), per.Field())},
    "action": per.Field((), "int64"),
    "reward": per.Field((), ">f4"),
}
VALUES = [
    per.Uniform(draw="independent"),
    per.Proportional(0.7, eps=0.1, draw="without_replacement", weights="raw"),
    per.RankBased(alpha=0.5, uniform_mix=0.25, max_priority="current"),
    per.Field((4, 84, 84), "uint8", stack_axis=-3),
    per.linear(0.4, 1.0, 100),
]


def ways() -> dict:
    return {
        "pickle": lambda value: pickle.loads(pickle.dumps(value)),
        "old pickle": lambda value: pickle.loads(pickle.dumps(value, 2)),
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
    }


@pytest.mark.parametrize("way", ways().values(), ids=ways().keys())
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_specifications_fields_and_schedules_are_values(value, way):
    again = way(value)

    assert again == value
    assert type(again) is type(value)
    assert repr(again) == repr(value)
    assert hash(again) == hash(value)


@pytest.mark.parametrize("way", ways().values(), ids=ways().keys())
def test_the_dtype_of_a_field_stays_the_one_that_is_compared_by_identity(way):
    """Casts are quick where ``array.dtype is field.dtype``; pickle makes dtypes of its own."""
    assert way(per.Field((3,), ">i4")).dtype is np.dtype(np.int32)


def drawn(capacity, fields, sampler, beta) -> per.Batch:
    """Build a buffer of what was sent, fill it, and return a batch."""
    replay = per.ReplayBuffer(capacity, fields, sampler=sampler, seed=5)
    for step in range(capacity):
        obs = {"image": np.full((2, 4), step, np.uint8), "speed": (step, -step)}
        replay.add(obs, step, 0.5 * step, obs, step % 4 == 3, td_error=float(step))
    return replay.sample(8, beta(50))


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.slow
def test_they_are_sent_to_another_process_and_a_batch_comes_back(start):
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    arguments = (20, FIELDS, VALUES[2], VALUES[4])
    expected = drawn(*arguments)

    with multiprocessing.get_context(start).Pool(1) as pool:
        batch = pool.apply(drawn, arguments)

    assert list(batch) == list(expected)
    np.testing.assert_array_equal(batch.ids, expected.ids)
    np.testing.assert_array_equal(batch.weights, expected.weights)
    np.testing.assert_array_equal(batch.obs["image"], expected.obs["image"])


@pytest.mark.parametrize("way", ways().values(), ids=ways().keys())
def test_a_buffer_is_no_value_and_says_what_to_do(way, tmp_path):
    replay = per.ReplayBuffer(20, FIELDS, seed=1)
    memory = per.PER((1,), 9, 2, 0.6, 0.4, 0.1)

    for buffer in (replay, {"replay": replay}, memory, [memory]):
        if way is copy.copy and buffer is not replay:
            continue  # it copies the outermost object only
        with pytest.raises(TypeError, match=r"copied or pickled: use save and ReplayBuffer\.load"):
            way(buffer)

    replay.save(tmp_path / "copy")
    assert per.ReplayBuffer.load(tmp_path / "copy").fields == replay.fields


def test_every_specification_is_a_frozen_dataclass():
    for kind in (per.Uniform, per.Proportional, per.RankBased, per.Field):
        with pytest.raises(dataclasses.FrozenInstanceError):
            kind().draw = kind().shape = "stratified"
