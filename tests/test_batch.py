"""A batch is a mapping of columns. Its rows can be taken, and it can be collated and pickled."""

import collections.abc
import copy
import pickle

import numpy as np
import pytest

import prioritized_replay as per

SIZE = 10


def filled(seed: int = 0) -> per.ReplayBuffer:
    """A buffer with nested, float64 and Boolean columns."""
    fields = {
        "obs": {"image": per.Field((2, 3), "uint8"), "speed": (per.Field(), per.Field((2,)))},
        "action": per.Field((), "int64"),
        "reward": per.Field((), "float64"),
        "mask": per.Field((4,), "bool"),
    }
    replay = per.ReplayBuffer(SIZE, fields, seed=seed)
    random = np.random.default_rng(seed)
    for _ in range(SIZE):
        obs, next_obs = (
            {
                "image": random.integers(256, size=(2, 3)).astype(np.uint8),
                "speed": (random.normal(), random.normal(size=2)),
            }
            for _ in range(2)
        )
        mask = random.random(4) < 0.5
        replay.add(obs, 1, random.normal(), next_obs, random.random() < 0.5, mask=mask)
    return replay


def leaves(column):
    if isinstance(column, dict):
        return [leaf for part in column.values() for leaf in leaves(part)]
    if isinstance(column, (tuple, list)):  # torch's collation makes lists of tuples
        return [leaf for part in column for leaf in leaves(part)]
    return [column]


def require_equal(one: per.Batch, other: per.Batch) -> None:
    assert list(one) == list(other)
    for name in one:
        for a, b in zip(leaves(one[name]), leaves(other[name]), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
            assert a.dtype == b.dtype, name


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_a_batch_is_a_mapping_from_names_to_columns():
    batch = filled().sample(5)

    assert isinstance(batch, collections.abc.Mapping)
    assert list(batch) == list(batch.keys()) == list(dict(batch))
    assert [*batch.items()] == [*zip(batch.keys(), batch.values(), strict=True)]
    assert set(batch) == {
        *("obs", "action", "reward", "discount", "next_obs", "terminated", "mask"),
        *("weights", "probabilities", "ids"),
    }
    assert dict(batch)["mask"] is batch.mask is batch.get("mask") is batch["mask"]
    assert (lambda **columns: columns["ids"])(**batch) is batch.ids
    assert "mask" in batch
    assert "task" not in batch
    assert batch.get("task") is None
    assert batch.get("task", 3) == 3
    assert len(batch) == 5
    assert len(per.Batch({})) == 0
    match batch:
        case {"obs": {"image": image}}:
            assert image is batch.obs["image"]
        case _:
            raise AssertionError("a batch matches no mapping")


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    batch = filled().sample(5)

    with pytest.raises(KeyError, match="no column 'task'; there are obs, action"):
        batch["task"]
    with pytest.raises(AttributeError, match="no column 'task'; there are obs, action"):
        _ = batch.task
    assert not hasattr(batch, "task")


INDICES = {
    "slice": slice(3, 7),
    "open slice": slice(None, -2),
    "steps": slice(1, None, 3),
    "backwards": slice(None, None, -1),
    "empty slice": slice(4, 4),
    "integers": np.array([7, 0, 0, -1]),
    "integers backwards": np.arange(8)[::-2],
    "small integers": np.array([7, 0], np.uint8),
    "list": [2, 5],
    "empty list": [],
    "mask": np.arange(SIZE) % 3 == 1,
    "list of Booleans": [True] + [False] * (SIZE - 1),
    "integer": 3,
    "NumPy integer": np.int32(-1),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
@pytest.mark.parametrize("kind", ["arrays", "tensors"])
@pytest.mark.slow
def test_rows_are_taken_from_every_column(index, kind, request):
    batch = filled().sample(SIZE)
    indexed = batch
    if kind == "tensors":
        request.getfixturevalue("torch")
        indexed = batch.to_torch(keep_float64=True)

    rows = indexed[index]

    assert type(rows) is per.Batch
    assert type(rows.obs) is dict
    assert type(rows.obs["speed"]) is tuple
    plain = np.zeros(0, int) if isinstance(index, list) and not index else index
    for name in batch:
        for leaf, found in zip(leaves(batch[name]), leaves(rows[name]), strict=True):
            np.testing.assert_array_equal(np.asarray(found), leaf[plain], err_msg=name)
            assert np.asarray(found).dtype == leaf.dtype
    if np.ndim(batch.ids[plain]):
        assert len(rows) == len(batch.ids[plain])
    for tensor in leaves(rows.to_torch().obs):
        assert tensor.dtype.is_floating_point or str(tensor.dtype) == "torch.uint8"


def test_rows_by_a_tensor(torch):
    batch = filled().sample(SIZE)
    for index in (torch.tensor([4, 1]), torch.arange(SIZE) > 6):
        for indexed in (batch, batch.to_torch()):
            np.testing.assert_array_equal(indexed[index].ids, batch.ids[index.numpy()])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (SIZE, r"rows must be in \[-10, 9\], got 10"),
        ([0, -11], r"rows must be in \[-10, 9\], got -11"),
        (np.array([True]), r"Booleans must have shape \(10,\), got \(1,\)"),
        (np.array([[0, 1]]), "rows must be an integer, a slice"),
        (1.5, "rows must be integers or Booleans, got float64"),
        (np.array([1.0]), "rows must be integers or Booleans, got float64"),
        ((0, 1), "rows must be an integer, a slice"),
        (None, "rows must be an integer, a slice"),
        (..., "rows must be an integer, a slice"),
        ([[0], [1, 2]], "rows must be an integer, a slice"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["arrays", "tensors"])
def test_an_index_that_is_none_is_refused(index, message, kind, request):
    batch = filled().sample(SIZE)
    if kind == "tensors":
        request.getfixturevalue("torch")
        batch = batch.to_torch()

    with pytest.raises(IndexError, match=message):
        batch[index]


def test_a_column_of_none_stays_none(torch):
    batch = per.Batch({"state": None, "obs": {"a": np.arange(3.0), "b": None}})

    assert len(batch) == 3
    assert repr(batch) == "Batch(state: None, obs: {a: float64[3], b: None})"
    for rows in (batch[1:], batch[[1, 2]], batch.to_torch()[1:]):
        assert rows.state is None
        assert rows.obs["b"] is None
        np.testing.assert_array_equal(rows.obs["a"], [1.0, 2.0])
    assert pickle.loads(pickle.dumps(batch)).state is None


def test_rows_of_shared_images_stay_read_only_and_their_tensors_are_safe_to_change(torch):
    fields = {
        "obs": per.Field((4, 20, 20), "uint8"),
        "action": per.Field((), "int64"),
        "reward": per.Field(),
    }
    replay = per.ReplayBuffer(20, fields, seed=1)
    frames = np.random.default_rng(1).integers(256, size=(25, 20, 20)).astype(np.uint8)
    for t in range(20):
        replay.add(frames[t : t + 4], 0, 1.0, frames[t + 1 : t + 5], False)
    batch = replay.sample(8)
    before = pickle.loads(pickle.dumps(batch))
    assert np.shares_memory(batch.obs, batch.next_obs)

    views, tensors = batch[2:6], batch[2:6].to_torch()
    assert not views.obs.flags.writeable
    assert not views.next_obs.flags.writeable
    tensors.obs += 1
    tensors.next_obs.zero_()
    copies = batch[[0, 0, 3]]
    copies.obs[:] = 0
    copies.next_obs[:] = 1

    require_equal(batch, before)
    for _ in range(30):  # nor does the buffer write into it
        replay.add(frames[:4], 0, 1.0, frames[1:5], False)
        replay.sample(8)
    require_equal(batch, before)
    require_equal(views, before[2:6])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_batch_can_be_pickled_as_arrays_and_as_tensors(torch, protocol):
    batch = filled().sample(7)

    require_equal(pickle.loads(pickle.dumps(batch, protocol)), batch)
    again = pickle.loads(pickle.dumps(batch.to_torch(), protocol))
    assert type(again) is per.Batch
    for name in again:
        for a, b in zip(leaves(again[name]), leaves(batch.to_torch()[name]), strict=True):
            assert isinstance(a, torch.Tensor)
            assert torch.equal(a, b)


def test_a_batch_can_be_copied():
    batch = filled().sample(7)

    assert copy.copy(batch).obs is batch.obs
    deep = copy.deepcopy(batch)
    require_equal(deep, batch)
    assert not np.shares_memory(deep.weights, batch.weights)


def test_naming_the_kind_of_a_batch_adds_no_column():
    batch = per.Batch[np.ndarray]({"ids": np.arange(3)})

    assert type(batch) is per.Batch
    assert list(batch) == ["ids"]


def test_a_batch_of_tensors_is_moved_and_cast_as_one_of_arrays(torch):
    batch = filled().sample(3)
    tensors = batch.to_torch(keep_float64=True)

    assert tensors.reward.dtype == torch.float64
    again = tensors.to_torch(columns=["reward", "obs"])
    assert list(again) == ["reward", "obs"]
    assert again.reward.dtype == torch.float32
    assert again.obs["image"] is tensors.obs["image"]
    assert tensors.to_torch("meta").obs["speed"][1].device.type == "meta"


def test_pinning_and_not_blocking_change_no_value(torch):
    batch = filled().sample(3)

    for options in ({"pin_memory": True}, {"non_blocking": True, "device": "cpu"}):
        require_equal(
            per.Batch({k: v for k, v in batch.to_torch(**options).items()}), batch.to_torch()
        )


def test_memory_is_pinned_where_there_is_an_accelerator(torch, monkeypatch):
    """Without a device, what is asked of torch is looked at instead."""
    calls = []
    monkeypatch.setattr("prioritized_replay.batch._has_accelerator", lambda: True)
    monkeypatch.setattr(
        torch.Tensor, "pin_memory", lambda self: (calls.append("pin"), self.clone())[1]
    )
    to = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *a, **k: (calls.append(k), to(self, *a, **k))[1]
    )
    batch = per.Batch({"ids": np.arange(3)})

    batch.to_torch("cpu", pin_memory=True, non_blocking=True)
    assert calls == ["pin", {"non_blocking": True}]
    calls.clear()
    batch.to_torch("cpu")
    assert calls == [{"non_blocking": False}]


def test_torch_collates_batches_and_their_rows(torch):
    from torch.utils.data import default_collate

    batch = filled().sample(6)
    tensors = batch.to_torch(keep_float64=True)

    stacked = default_collate([tensors, tensors])
    assert type(stacked) is per.Batch
    assert stacked.obs["speed"][1].shape == (2, 6, 2)
    assert stacked[1].obs["speed"][1].shape == (6, 2)
    for rows in ([tensors[i] for i in range(6)], [batch[i] for i in range(6)]):
        again = default_collate(rows)
        assert list(again) == list(tensors)
        for name in tensors:
            for a, b in zip(leaves(again[name]), leaves(tensors[name]), strict=True):
                assert torch.equal(torch.as_tensor(a), b), name


def test_a_data_loader_passes_batches_on(torch):
    from torch.utils.data import DataLoader

    batches = [filled(seed).sample(4) for seed in range(3)]

    for found, batch in zip(DataLoader(batches, batch_size=None), batches, strict=True):
        assert type(found) is per.Batch
        require_equal(found, batch.to_torch(keep_float64=True))


def test_a_single_transition_has_no_length_and_is_no_empty_batch():
    replay = per.ReplayBuffer(
        4, {"obs": per.Field((3,)), "action": per.Field(), "reward": per.Field()}
    )
    replay.add(np.zeros(3), 0.0, 1.0, np.zeros(3), False)
    batch = replay.get([0])
    assert len(batch) == 1
    assert batch[0]
    assert batch[:0]
    with pytest.raises(TypeError, match="got a single transition without the axis B"):
        len(batch[0])


def test_a_name_alone_is_no_list_of_columns():
    batch = per.Batch({"obs": np.zeros(2)})
    with pytest.raises(TypeError, match="columns must be names in a list or tuple, got 'obs'"):
        batch.to_torch(columns="obs")
