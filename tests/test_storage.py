"""Rows and columns: what goes in comes back, casts that would lose values are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.reference import FIELDS, filled, transitions

import prioritized_replay as per

DTYPES = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
]


def random_values(rng, shape, dtype):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    bounds = np.iinfo(dtype)
    return rng.integers(bounds.min, bounds.max, shape, dtype=dtype, endpoint=True)


def replay_of(fields, capacity=8, **options):
    return per.ReplayBuffer(capacity, {**FIELDS, **fields}, **options)


def row(**changes):
    return {
        "obs": np.zeros(2, np.float32),
        "action": 0,
        "reward": 0.0,
        "next_obs": np.zeros(2, np.float32),
        "terminated": False,
        **changes,
    }


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3, 5), (84, 84)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.slow
def test_columns_come_back_as_they_went_in(dtype, shape):
    """By one row at a time and many at once, observations and further columns, around the ring."""
    rng = np.random.default_rng(0)
    fields = {
        "obs": per.Field(shape, dtype),
        "action": per.Field((), "uint8"),  # odd sizes around it: nothing may be misaligned
        "reward": per.Field((), "float32"),
        "extra": per.Field(shape, dtype),
    }
    replay = per.ReplayBuffer(5, fields)
    columns = {
        name: random_values(rng, (9, *shape), dtype) for name in ("obs", "next_obs", "extra")
    }
    for k in range(6):
        ids = replay.add(
            columns["obs"][k], k, k, columns["next_obs"][k], False, extra=columns["extra"][k]
        )
    more = {name: column[6:] for name, column in columns.items()}
    more.update(action=np.arange(6, 9), reward=np.arange(6.0, 9.0), terminated=np.zeros(3, bool))
    ids = np.concatenate([ids, replay.extend(more)])

    batch = replay.get(ids[[3, 0, 2, 1, 1]])

    for name, column in columns.items():
        assert batch[name].dtype == np.dtype(dtype)
        assert batch[name].shape == (5, *shape)
        assert batch[name].flags.c_contiguous
        np.testing.assert_array_equal(batch[name], column[[8, 5, 7, 6, 6]])
    np.testing.assert_array_equal(batch.action, [8, 5, 7, 6, 6])
    assert batch.action.dtype == np.uint8


@given(
    dtype=st.sampled_from(DTYPES),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=4),
    data=st.data(),
)
def test_any_value_of_the_fields_own_dtype_survives(dtype, shape, data):
    values = data.draw(hnp.arrays(dtype, (3, *shape)))
    replay = replay_of({"extra": per.Field(shape, dtype)})
    one = replay.add(**row(extra=values[0]))
    columns = transitions(np.arange(2))
    two = replay.extend({**columns, "extra": values[1:]})

    np.testing.assert_array_equal(replay.get(np.concatenate([one, two]))["extra"], values)


def test_attributes_and_items_of_a_batch_are_the_same():
    replay, _ = filled(per.Proportional(), np.ones(6))

    batch = replay.sample(4)

    for name in ("obs", "action", "reward", "discount", "next_obs"):
        np.testing.assert_array_equal(getattr(batch, name), batch[name])
    assert batch.obs.shape == batch.next_obs.shape == (4, 2)
    assert batch.obs.dtype == batch.next_obs.dtype == np.float32
    assert batch.discount.shape == batch.reward.shape == batch.weights.shape == (4,)
    assert batch.ids.dtype == np.int64
    assert batch.terminated.dtype == np.bool_
    with pytest.raises(KeyError, match="nonsense"):
        batch["nonsense"]
    with pytest.raises(AttributeError, match="nonsense"):
        batch.nonsense  # noqa: B018


def test_further_columns_are_attributes_too():
    replay = replay_of({"log_prob": per.Field((), "float64")})
    ids = replay.add(**row(log_prob=-0.3))

    assert replay.get(ids).log_prob == -0.3


# --- casts ------------------------------------------------------------------------------------


def test_floats_round_to_the_fields_precision():
    """Gymnasium's vector rewards are float64, ALE's are int32: both are fine."""
    replay = replay_of({})
    ids = [
        *replay.add(**row(reward=np.float64(0.1), obs=np.array([0.1, 1 / 3]))),
        *replay.add(**row(reward=np.int32(-7), obs=np.array([1, 2]))),
        *replay.add(**row(reward=True, obs=[0.5, 0.25])),
        *replay.extend({**transitions([3]), "reward": np.array([0.2])}),
        *replay.extend({**transitions([4]), "reward": np.array([2], np.int32)}),
    ]

    batch = replay.get(np.array(ids))

    np.testing.assert_array_equal(batch.reward, np.array([0.1, -7, 1, 0.2, 2], np.float32))
    np.testing.assert_array_equal(batch.obs[0], np.array([0.1, 1 / 3], np.float32))
    np.testing.assert_array_equal(batch.obs[2], [0.5, 0.25])


LOSSY = [
    ("action", "int64", 1.5),
    ("action", "int64", 1.0),  # a float column would fail in `gather` later: refused by its dtype
    ("action", "int64", np.float32(2)),
    ("action", "uint8", 256),
    ("action", "uint8", -1),
    ("action", "int8", 128),
    ("action", "int32", 2**31),
    ("action", "int64", 2**63),
    ("action", "uint64", -1),
    ("action", "int64", np.uint64(2**63)),
    ("reward", "float32", 1e39),
    ("reward", "float32", -1e39),
    ("reward", "float16", 70_000.0),
    ("reward", "float16", 70_000),
    ("reward", "float32", 10**39),
    ("action", "bool", 2),
    ("action", "bool", 0.5),
    ("reward", "int32", 0.5),
    ("action", "int64", "left"),
    ("action", "int64", None),
]


@pytest.mark.parametrize(
    ("name", "dtype", "value"),
    LOSSY,
    ids=[f"{name}-{dtype}-{value!r}" for name, dtype, value in LOSSY],
)
@pytest.mark.parametrize("n_step", [1, 3])
def test_a_cast_that_would_lose_values_is_refused(name, dtype, value, n_step):
    if n_step > 1 and dtype == "int32" and name == "reward":  # no sum of discounted rewards fits
        with pytest.raises(ValueError, match="reward"):
            replay_of({name: per.Field((), dtype)}, n_step=n_step)
        return
    replay = replay_of({name: per.Field((), dtype)}, n_step=n_step)
    valid = row(reward=1)
    replay.add(**valid)
    before = replay.stats()

    with pytest.raises((ValueError, TypeError), match=name):
        replay.add(**{**valid, name: value})
    if isinstance(value, int | float | np.generic):
        columns = {**transitions([0, 1]), "reward": np.ones(2, np.uint8), "discount": np.ones(2)}
        del columns["terminated"]
        with pytest.raises((ValueError, TypeError), match=name):
            replay.extend({**columns, name: np.array([1, value])})

    np.testing.assert_equal(replay.stats(), before)


def test_a_lossy_observation_is_refused_by_name():
    replay = replay_of({"obs": per.Field((2,), "uint8")})
    good = np.zeros(2, np.uint8)

    for bad in ([0, 256], [-1, 0], [0.5, 0.0]):
        with pytest.raises((ValueError, TypeError), match="obs"):
            replay.add(good, 0, 0.0, np.array(bad), False)
        with pytest.raises((ValueError, TypeError), match="obs"):
            replay.add(np.array(bad), 0, 0.0, good, False)

    assert len(replay) == 0
    replay.add(np.array([0, 255]), 0, 0.0, np.array([7, 9], np.int64), False)
    assert len(replay) == 1


def test_infinite_stays_infinite_and_finite_stays_finite():
    replay = replay_of({})

    ids = replay.add(**row(obs=np.array([np.inf, -np.inf]), next_obs=np.array([np.nan, 3e38])))

    np.testing.assert_array_equal(replay.get(ids).obs[0], [np.inf, -np.inf])
    np.testing.assert_array_equal(replay.get(ids).next_obs[0], np.float32([np.nan, 3e38]))
    with pytest.raises(ValueError, match="obs"):
        replay.add(**row(obs=np.array([1e300, 0.0])))


@pytest.mark.parametrize("n_step", [2, 3])
def test_a_return_that_overflows_its_field_is_refused(n_step):
    """Each reward fits float32, their sum does not; the steps before stay as they are."""
    replay = replay_of({}, n_step=n_step, gamma=1.0)
    for k in range(n_step - 1):
        replay.add(**row(reward=1e38, action=k))

    with pytest.raises(ValueError, match="reward"):
        replay.add(**row(reward=3e38, action=99))

    assert len(replay) == 0
    assert replay.stats()["open_windows"] == n_step - 1
    batch = replay.get(replay.add(**row(reward=-3e38, action=98)))
    np.testing.assert_allclose(batch.reward, [1e38 * (n_step - 1) - 3e38], rtol=1e-6)
    np.testing.assert_array_equal(batch.action, [0])


# --- how arrays lie in memory -----------------------------------------------------------------


def test_arrays_of_any_layout_are_read_right():
    replay = replay_of({"obs": per.Field((2, 3), "float32")}, capacity=40)
    plain = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    big = np.zeros((8, 4, 6), np.float32)
    big[::2, ::2, ::2] = plain
    layouts = {
        "strided": big[::2, ::2, ::2],
        "fortran": np.asfortranarray(plain),
        "reversed": plain[::-1, ::-1, ::-1][::-1, ::-1, ::-1],
        "big-endian": plain.astype(">f4"),
        "float64": plain.astype(np.float64),
        "list": plain.tolist(),
    }
    for name, obs in layouts.items():
        columns = {
            "obs": obs,
            "next_obs": obs,
            "action": np.arange(8, dtype=">i8")[::2],
            "reward": np.arange(8.0)[::-2],
            "discount": np.ones(4),
        }
        ids = replay.extend(columns)
        batch = replay.get(ids)
        np.testing.assert_array_equal(batch.obs, plain, err_msg=name)
        np.testing.assert_array_equal(batch.next_obs, plain, err_msg=name)
        np.testing.assert_array_equal(batch.action, [0, 2, 4, 6])
        np.testing.assert_array_equal(batch.reward, [7, 5, 3, 1])

        one = replay.add(np.asarray(obs)[1], 1, 1, np.asarray(obs)[2], False)
        np.testing.assert_array_equal(replay.get(one).obs[0], plain[1], err_msg=name)
        np.testing.assert_array_equal(replay.get(one).next_obs[0], plain[2], err_msg=name)


def test_a_field_of_foreign_byte_order_is_stored_in_the_native_one():
    replay = replay_of({"obs": per.Field((2,), ">f4"), "action": per.Field((), ">i4")})

    ids = replay.add(**row(obs=np.array([1.5, -2.0], ">f4"), action=3))

    batch = replay.get(ids)
    np.testing.assert_array_equal(batch.obs, [[1.5, -2.0]])
    assert batch.action == 3
    assert batch.obs.dtype.isnative
    assert batch.action.dtype.isnative


def test_read_only_arrays_may_be_given():
    replay = replay_of({})
    obs = np.ones(2, np.float32)
    obs.flags.writeable = False

    ids = replay.add(**row(obs=obs))

    np.testing.assert_array_equal(replay.get(ids).obs, [[1, 1]])


# --- batches belong to the caller -------------------------------------------------------------


def snapshot(batch):
    names = ("obs", "action", "reward", "discount", "next_obs", "weights", "probabilities", "ids")
    return {name: np.array(batch[name]) for name in names}


@pytest.mark.parametrize("kind", [per.Uniform, per.Proportional, per.RankBased])
def test_a_batch_is_never_overwritten_later(kind):
    replay, ids = filled(kind(), np.arange(1.0, 9.0))
    batches = [replay.sample(5, beta=0.5), replay.get(ids[:4]), replay.sample(5)]
    copies = [snapshot(batch) for batch in batches]

    replay.update_priorities(ids, np.arange(8.0))
    for _ in range(4):
        replay.sample(5)
    replay.extend(transitions(np.arange(100, 130)))
    replay.clear()
    replay.extend(transitions(np.arange(200, 230)))
    replay.sample(5)

    for batch, copy in zip(batches, copies, strict=True):
        for name, column in copy.items():
            np.testing.assert_array_equal(batch[name], column, err_msg=name)


def test_writing_into_a_batch_does_not_reach_the_buffer():
    replay, ids = filled(per.Proportional(), np.arange(1.0, 9.0))
    copy = snapshot(replay.get(ids))

    batch = replay.get(ids)
    for name in copy:
        batch[name][...] = 99

    for name, column in snapshot(replay.get(ids)).items():
        np.testing.assert_array_equal(column, copy[name], err_msg=name)


# --- fields -----------------------------------------------------------------------------------


def test_fields_say_what_they_are():
    field = per.Field((3, 4), "uint8")

    assert tuple(field.shape) == (3, 4)
    assert np.dtype(field.dtype) == np.uint8
    assert per.Field((), np.float32) == per.Field((), "float32")
    with pytest.raises(AttributeError):
        field.shape = (1,)


@pytest.mark.parametrize("dtype", ["O", object, "nonsense", "U5", "S3", "V8", "M8[s]"])
def test_dtypes_that_are_no_numbers_are_refused(dtype):
    with pytest.raises((TypeError, ValueError), match="dtype"):
        per.Field((2,), dtype)


@pytest.mark.parametrize("shape", [(-1,), (2, -3), (1.5,), "ab"])
def test_shapes_that_are_no_shapes_are_refused(shape):
    with pytest.raises((TypeError, ValueError), match="shape"):
        per.Field(shape, "float32")


@pytest.mark.parametrize("missing", ["obs", "action", "reward"])
def test_the_three_columns_every_transition_has_are_required(missing):
    fields = {name: field for name, field in FIELDS.items() if name != missing}

    with pytest.raises(ValueError, match=missing):
        per.ReplayBuffer(4, fields)


def test_memory_is_counted():
    small = per.ReplayBuffer(1_000, FIELDS)
    images = per.ReplayBuffer(1_000, {**FIELDS, "obs": per.Field((84, 84), "uint8")})
    one_kept = images.nbytes
    frames = np.random.default_rng(0).integers(0, 256, (2_000, 84, 84), dtype=np.uint8)
    columns = transitions(np.arange(1_000))
    images.extend({**columns, "obs": frames[:1_000], "next_obs": frames[1_000:]})

    assert isinstance(small.nbytes, int)
    assert small.nbytes >= 1_000 * (8 + 8 + 8 + 4)
    assert small.nbytes < 1_000 * 300
    assert one_kept < small.nbytes + 84 * 84 * 10
    assert images.nbytes >= small.nbytes + 1_000 * (2 * 84 * 84 - 16)
