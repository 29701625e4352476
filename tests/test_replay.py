"""The buffer as a whole: ids, the ring, updates that come late, tensors, environments.

The state machine at the end drives every public method against the slow twin.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.reference import FIELDS, ReferenceReplay, Step, filled, transitions

import prioritized_replay as per

SAMPLERS = [per.Uniform(), per.Proportional(), per.RankBased()]
by_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)


def add(replay, serial, terminated=False, truncated=False, **options):
    """One step that carries its serial number in every column."""
    return replay.add(
        np.array([serial, serial + 0.25]), serial * 3, serial * 2.0,
        np.array([serial + 1, serial + 1.25]), terminated, truncated, **options,
    )  # fmt: skip


def new(capacity=8, sampler=None, **options):
    return per.ReplayBuffer(capacity, FIELDS, sampler=sampler, seed=0, **options)


# --- ids and the ring -------------------------------------------------------------------------


@by_sampler
def test_ids_grow_by_one_for_ever_and_are_never_used_again(sampler):
    replay = new(3, sampler)
    issued = [add(replay, 0)]
    issued.append(replay.extend(transitions(np.arange(4))))
    issued.append(add(replay, 5))
    replay.clear()
    issued.append(add(replay, 6))
    issued.append(replay.extend(transitions(np.arange(2))))

    everything = np.concatenate(issued)

    assert everything.dtype == np.int64
    np.testing.assert_array_equal(np.diff(everything), 1)
    assert replay.stats()["ids_issued"] == everything.size


@by_sampler
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("capacity", [1, 5, 64])
@pytest.mark.slow
def test_at_the_ring_seam_no_row_is_mixed(sampler, n_step, capacity):
    """Rows tagged with their serial, 3.7 times the capacity of them: every column agrees."""
    replay = new(capacity, sampler, n_step=n_step, gamma=0.5)
    serial_of = {}
    serial = 0
    while serial < 3.7 * capacity + n_step:
        ids = add(replay, serial, terminated=serial % 7 == 6)
        for identifier in ids:
            serial_of[int(identifier)] = len(serial_of)
        serial += 1
        if len(replay):
            batch = replay.sample(4)
            tags = np.array([serial_of[int(i)] for i in batch.ids])
            assert np.all(tags >= len(serial_of) - capacity)
            ends = np.minimum(tags // 7 * 7 + 7, tags + n_step)
            np.testing.assert_array_equal(batch.obs, np.stack([tags, tags + 0.25], 1))
            np.testing.assert_array_equal(batch.action, tags * 3)
            np.testing.assert_array_equal(batch.next_obs, np.stack([ends, ends + 0.25], 1))
            np.testing.assert_array_equal(batch.terminated, ends % 7 == 0)
            if not isinstance(sampler, per.Uniform):
                replay.update_priorities(batch.ids, tags + 1.0)
    assert len(replay) == min(capacity, len(serial_of))


@pytest.mark.parametrize("sampler", [per.Uniform(), per.Proportional(), per.RankBased()])
def test_a_capacity_that_cannot_fit_is_named_with_its_bytes(sampler):
    with pytest.raises(MemoryError, match=f"capacity must fit into memory, got {2**40}: .*TiB"):
        new(2**40, sampler)


def test_an_error_about_ids_says_which_are_live():
    replay = new(4)
    with pytest.raises(KeyError, match="and there are none, got 0, which was never issued"):
        replay.get([0])
    replay.extend(transitions(np.arange(6)))
    for wrong, why in ((1, "is gone"), (6, "was never issued"), (-1, "was never issued")):
        with pytest.raises(KeyError, match=f"from 2 to 5, got {wrong}, which {why}"):
            replay.priorities([3, wrong])


def test_the_capacity_need_not_be_a_power_of_two():
    for capacity in range(1, 20):
        replay = new(capacity)
        replay.extend(transitions(np.arange(capacity + 3)))
        ids = replay.sample(400).ids

        assert len(replay) == replay.capacity == capacity
        assert np.unique(ids).size == capacity  # the newest and the oldest row are drawn, too


@by_sampler
def test_more_rows_than_fit_leave_the_last_ones(sampler):
    replay = new(5, sampler)
    add(replay, 99)

    ids = replay.extend(transitions(np.arange(23)))

    live = ids[-5:]
    batch = replay.get(live)
    assert len(replay) == 5
    np.testing.assert_array_equal(batch.obs[:, 0], range(18, 23))
    np.testing.assert_array_equal(batch.action, np.arange(18, 23) * 3)
    with pytest.raises(KeyError):
        replay.get(live[:1] - 1)
    np.testing.assert_array_equal(np.sort(np.unique(replay.sample(500).ids)), live)
    add(replay, 23)
    np.testing.assert_array_equal(replay.get(np.append(live[1:], live[-1] + 1)).obs[:, 0],
                                  range(19, 24))  # fmt: skip


def test_more_rows_than_fit_with_errors_of_their_own():
    replay = new(4, per.Proportional(eps=0.0))

    ids = replay.extend(transitions(np.arange(10)), td_errors=-np.arange(10.0))

    np.testing.assert_array_equal(replay.priorities(ids[-4:]), [6, 7, 8, 9])


def test_extended_rows_end_as_terminated_or_discount_says():
    replay = new(8, gamma=0.75)
    columns = transitions(np.arange(3))
    columns["terminated"] = np.array([False, True, False])
    one = replay.extend(columns)
    del columns["terminated"]
    two = replay.extend({**columns, "discount": np.array([0.5, 0.0, 1.0])})

    np.testing.assert_array_equal(replay.get(one).discount, [0.75, 0, 0.75])
    np.testing.assert_array_equal(replay.get(one).terminated, [False, True, False])
    np.testing.assert_array_equal(replay.get(two).discount, [0.5, 0, 1])


@by_sampler
def test_get_names_the_first_id_that_is_gone(sampler):
    replay = new(4, sampler)
    ids = replay.extend(transitions(np.arange(10)))

    with pytest.raises(KeyError, match=rf"\b{ids[5]}\b"):
        replay.get(ids[[8, 5, 2, 9]])

    batch = replay.get(ids[[9, 7, 7]])
    np.testing.assert_array_equal(batch.ids, ids[[9, 7, 7]])
    np.testing.assert_array_equal(batch.obs[:, 0], [9, 7, 7])


@by_sampler
def test_clearing_empties_the_buffer(sampler):
    replay, ids = filled(sampler, np.arange(1.0, 6.0))
    batch = replay.sample(3)

    replay.clear()

    assert len(replay) == 0
    with pytest.raises(ValueError, match="empty"):
        replay.sample(1)
    with pytest.raises(KeyError):
        replay.get(ids[:1])
    assert replay.update_priorities(batch.ids, np.ones(3)) == 0  # rows that are gone
    new_ids = replay.extend(transitions(np.arange(50, 52)))
    assert new_ids[0] == ids[-1] + 1
    np.testing.assert_array_equal(np.sort(np.unique(replay.sample(50).ids)), new_ids)
    np.testing.assert_array_equal(np.unique(replay.sample(50).obs[:, 0]), [50, 51])


def test_numbers_and_flags_as_numpy_hands_them_out():
    replay = per.ReplayBuffer(np.int64(8), FIELDS, n_step=np.int32(1), gamma=np.float32(0.5))
    flags = [True, np.True_, 1, np.array(True), np.int64(1)]
    ids = [
        *(add(replay, 0, terminated=flag)[0] for flag in flags),
        *(add(replay, 0, terminated=not flag, truncated=flag)[0] for flag in flags[:3]),
    ]

    batch = replay.get(ids)

    np.testing.assert_array_equal(batch.terminated, [True] * 5 + [False] * 3)
    np.testing.assert_array_equal(batch.discount, [0.0] * 5 + [0.5] * 3)
    assert replay.sample(np.int64(3), beta=np.float32(0.5)).ids.shape == (3,)


@by_sampler
def test_nothing_at_all_may_be_asked_for(sampler):
    replay = new(4, sampler)
    replay.extend(transitions(np.arange(3)))
    none = {name: column[:0] for name, column in transitions(np.arange(3)).items()}

    assert replay.extend(none).tolist() == []
    assert replay.extend(none, td_errors=[]).tolist() == []
    assert replay.update_priorities([], []) == 0
    assert replay.get([]).obs.shape == (0, 2)
    assert replay.priorities([]).shape == (0,)
    assert len(replay) == 3


@pytest.mark.parametrize("mix", [0.0, 0.5])
@by_sampler
def test_nothing_may_be_asked_of_an_empty_buffer(sampler, mix):
    if not isinstance(sampler, per.Uniform):
        sampler = replace(sampler, uniform_mix=mix)
    replay = new(4, sampler)
    assert replay.get([]).probabilities.shape == (0,)
    assert replay.priorities([]).shape == (0,)
    assert replay.update_priorities([], []) == 0


# --- updates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS[1:], ids=lambda s: type(s).__name__)
def test_an_update_that_comes_late_touches_no_other_row(sampler):
    replay, old = filled(sampler, np.ones(4))
    batch = replay.get(old)
    fresh = replay.extend(transitions(np.arange(4, 7)), td_errors=np.full(3, 2.0))
    before = replay.priorities(np.append(old[3:], fresh))

    applied = replay.update_priorities(batch.ids, np.array([50.0, 60.0, 70.0, 5.0]))

    assert applied == 1
    assert replay.stats()["stale_updates"] == 3
    np.testing.assert_array_equal(replay.priorities(fresh), before[1:])
    assert replay.priorities(old[3:]) == 5.0 + getattr(sampler, "eps", 0.0)
    assert replay.update_priorities(old[:2], np.ones(2)) == 0
    assert replay.stats()["stale_updates"] == 5


@pytest.mark.parametrize("sampler", SAMPLERS[1:], ids=lambda s: type(s).__name__)
def test_of_duplicates_in_one_update_the_last_wins(sampler):
    replay, ids = filled(sampler, np.ones(6))
    eps = getattr(sampler, "eps", 0.0)

    replay.update_priorities(ids[[2, 4, 2, 2, 4]], [9.0, 8.0, 7.0, -0.5, 0.0])

    np.testing.assert_array_equal(replay.priorities(ids), np.array([1, 1, 0.5, 1, 0.0, 1]) + eps)
    law = replay.get(ids).probabilities
    assert law.sum() == pytest.approx(1, rel=1e-12)
    assert law[4] == law.min()


def test_priorities_are_absolute_errors_plus_eps():
    replay, ids = filled(per.Proportional(alpha=0.6, eps=0.125), [0.0, -2.0, 3.0])

    np.testing.assert_array_equal(replay.priorities(ids), [0.125, 2.125, 3.125])

    replay, ids = filled(per.RankBased(), [0.0, -2.0, 3.0])

    np.testing.assert_array_equal(replay.priorities(ids), [0.0, 2.0, 3.0])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", ">f8"])
@pytest.mark.parametrize("column", [False, True], ids=["B", "Bx1"])
def test_errors_as_arrays_of_any_dtype(dtype, column):
    replay, ids = filled(per.Proportional(), np.ones(3))
    td_errors = np.array([-3, 0, 7], dtype)

    applied = replay.update_priorities(ids, td_errors[:, None] if column else td_errors)

    assert applied == 3
    np.testing.assert_array_equal(replay.priorities(ids), np.array([3.0, 0, 7]) + 0.01)


def test_errors_and_ids_of_any_layout():
    replay, ids = filled(per.RankBased(), np.ones(6))

    replay.update_priorities(ids[::-2], np.arange(12.0).reshape(6, 2)[::2, 1:])
    replay.update_priorities(ids[[0, 2]].tolist(), [0.5, 0.25])
    replay.update_priorities(ids[4:5].astype(np.int32), (0.75,))
    assert replay.update_priorities(np.zeros(0, np.int64), np.zeros(0)) == 0

    np.testing.assert_array_equal(replay.priorities(ids), [0.5, 9.0, 0.25, 5.0, 0.75, 1.0])


# --- tensors ----------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("column", [False, True], ids=["B", "Bx1"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.slow
def test_errors_as_tensors_with_a_gradient(torch, dtype, column):
    replay, ids = filled(per.Proportional(eps=0.5), np.ones(3))
    weight = torch.tensor([1.5, -2.0, 0.25], dtype=getattr(torch, dtype), requires_grad=True)
    td_error = weight * 2

    applied = replay.update_priorities(ids, td_error[:, None] if column else td_error)

    assert applied == 3
    np.testing.assert_array_equal(replay.priorities(ids), [3.5, 4.5, 1.0])
    assert td_error.requires_grad
    with pytest.raises(ValueError, match="td_errors"):
        replay.update_priorities(ids, td_error * float("nan"))


def test_errors_of_new_rows_as_tensors(torch):
    replay = new(8, per.Proportional(eps=0.0))
    error = torch.tensor(-0.5, requires_grad=True) * 3

    one = add(replay, 0, td_error=error)
    two = replay.extend(transitions(np.arange(2)), td_errors=torch.tensor([[2.0], [-3.0]]))

    np.testing.assert_array_equal(replay.priorities([*one, *two]), [1.5, 2.0, 3.0])


def test_a_batch_as_tensors(torch):
    fields = {**FIELDS, "mask": per.Field((3,), "bool"), "time": per.Field((), "float64")}
    replay = per.ReplayBuffer(10, fields)
    columns = transitions(np.arange(8))
    ids = replay.extend({**columns, "mask": np.ones((8, 3), bool), "time": np.arange(8) / 3})
    batch = replay.get(ids, beta=0.5)

    tensors = batch.to_torch()

    assert isinstance(tensors, per.Batch)
    expected = {
        "obs": torch.float32, "next_obs": torch.float32, "action": torch.int64,
        "reward": torch.float32, "discount": torch.float32, "weights": torch.float32,
        "mask": torch.bool, "time": torch.float32, "ids": torch.int64, "terminated": torch.bool,
    }  # fmt: skip
    for name, dtype in expected.items():
        tensor = getattr(tensors, name)
        assert isinstance(tensor, torch.Tensor), name
        assert tensor.dtype == dtype, name
        np.testing.assert_allclose(tensor.numpy(), getattr(batch, name), rtol=1e-6)
    assert tensors["obs"] is tensors.obs or torch.equal(tensors["obs"], tensors.obs)
    # no copy where none is needed
    tensors.obs[0, 0] = 77.0
    assert batch.obs[0, 0] == 77.0
    # and yet the buffer keeps its own
    assert replay.get(ids).obs[0, 0] == 0.0
    assert replay.update_priorities(tensors.ids, tensors.reward) == 8
    np.testing.assert_array_equal(replay.priorities(tensors.ids[1:3]), [2.01, 4.01])


def test_only_the_columns_asked_for_become_tensors(torch):
    replay, _ = filled(per.Proportional(), np.ones(4))
    batch = replay.sample(3)

    tensors = batch.to_torch(columns=("weights", "obs"))

    assert list(tensors) == ["weights", "obs"]
    np.testing.assert_array_equal(tensors.obs.numpy(), batch.obs)
    assert list(batch.to_torch(columns=iter(["ids"]))) == ["ids"]
    with pytest.raises(KeyError, match="no column 'state'; there are obs"):
        batch.to_torch(columns=["state"])


def test_tensors_can_be_put_on_a_device(torch):
    replay, _ = filled(per.Proportional(), np.ones(4))

    for device in ("cpu", torch.device("cpu")):
        tensors = replay.sample(3).to_torch(device=device)
        assert tensors.obs.device.type == "cpu"
    meta = replay.sample(3).to_torch(device="meta")
    assert meta.obs.device.type == meta.weights.device.type == "meta"


# --- environments -----------------------------------------------------------------------------


def test_fields_come_from_spaces():
    spaces = pytest.importorskip("gymnasium").spaces
    cases = [
        (spaces.Box(0, 255, (2, 3), np.uint8), spaces.Discrete(5), (2, 3), "uint8", (), "int64"),
        (spaces.Box(-1, 1, (), np.float64), spaces.MultiDiscrete([2, 3]), (), "float64",
         (2,), "int64"),
        (spaces.Discrete(4), spaces.Box(-1, 1, (3,), np.float32), (), "int64", (3,), "float32"),
        (spaces.MultiBinary(6), spaces.Discrete(2), (6,), "int8", (), "int64"),
    ]  # fmt: skip
    for observations, actions, *expected in cases:
        observations.seed(0)
        actions.seed(0)
        replay = per.ReplayBuffer.for_spaces(
            observations, actions, 10, sampler=per.RankBased(), n_step=2, gamma=0.5, seed=0
        )
        obs, action, next_obs = observations.sample(), actions.sample(), observations.sample()
        ids = replay.add(obs, action, 1.0, next_obs, True)

        batch = replay.get(ids)

        assert replay.capacity == 10
        assert [batch.obs.shape[1:], batch.obs.dtype.name] == expected[:2]
        assert [batch.action.shape[1:], batch.action.dtype.name] == expected[2:]
        np.testing.assert_array_equal(batch.obs[0], obs)
        np.testing.assert_array_equal(batch.action[0], action)
        np.testing.assert_array_equal(batch.next_obs[0], next_obs)


@by_sampler
def test_an_environment_fills_its_buffer(sampler):
    """Every step of every episode becomes one row; truncated episodes bootstrap."""
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("CartPole-v1", max_episode_steps=15)
    replay = per.ReplayBuffer.for_env(env, 500, sampler=sampler, n_step=3, gamma=0.9, seed=0)
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    steps, ends = [], 0
    for _ in range(300):
        action = env.action_space.sample()
        next_obs, reward, terminated, truncated, _ = env.step(action)
        replay.add(obs, action, reward, next_obs, terminated, truncated)
        steps.append((obs, action))
        ends += terminated
        obs = env.reset()[0] if terminated or truncated else next_obs
    replay.end_episode()
    env.close()

    issued = replay.stats()["ids_issued"]
    batch = replay.get(np.arange(issued - 300, issued))
    assert len(replay) == 300
    np.testing.assert_array_equal(batch.obs, np.array([obs for obs, _ in steps]))
    np.testing.assert_array_equal(batch.action, [action for _, action in steps])
    assert batch.action.dtype == np.int64
    assert np.sum(batch.terminated & (batch.reward == 1)) == ends > 0
    discounts = set(np.round(batch.discount.astype(np.float64), 4))
    assert {0.0, 0.81, 0.729} <= discounts <= {0.0, 0.9, 0.81, 0.729}
    replay.update_priorities(batch.ids, batch.reward)


def test_a_space_without_fixed_shape_is_refused():
    spaces = pytest.importorskip("gymnasium").spaces
    box = spaces.Box(-1, 1, (2,))

    with pytest.raises(ValueError, match="observation_space"):
        per.ReplayBuffer.for_spaces(spaces.Text(5), spaces.Discrete(2), 10)
    with pytest.raises(ValueError, match="action_space"):
        per.ReplayBuffer.for_spaces(box, spaces.Sequence(box), 10)


# --- everything at once -----------------------------------------------------------------------

DRAWS = st.sampled_from(["stratified", "independent", "without_replacement"])
COMMON = {
    "draw": DRAWS,
    "uniform_mix": st.sampled_from([0.0, 0.0, 0.25, 1.0]),
    "weights": st.sampled_from(["batch", "buffer", "raw"]),
    "max_priority": st.sampled_from(["ever", "current"]),
}
ANY_SAMPLER = st.one_of(
    st.just(per.Uniform()),
    st.builds(per.Proportional, alpha=st.sampled_from([0.0, 0.6, 1.0, 2.0]),
              eps=st.sampled_from([0.01, 1.0]), **COMMON),
    st.builds(per.RankBased, alpha=st.sampled_from([0.0, 0.7, 1.0, 2.0]), **COMMON),
)  # fmt: skip
ERRORS = st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0, 3.25, -40.0, 1e-6, 1e3])


class ReplayMachine(RuleBasedStateMachine):
    """Any order of calls, right and wrong ones, on the buffer and on its twin."""

    @initialize(
        capacity=st.integers(1, 40),
        sampler=ANY_SAMPLER,
        n_step=st.integers(1, 4),
        seed=st.integers(0, 2**31),
    )
    def build(self, capacity, sampler, n_step, seed):
        self.sampler = sampler
        self.replay = per.ReplayBuffer(
            capacity, FIELDS, sampler=sampler, n_step=n_step, gamma=0.5, seed=seed
        )
        self.twin = ReferenceReplay(capacity, sampler, n_step, 0.5)
        self.serial = 0

    def step(self, td_error):
        self.serial += 1
        return Step(
            obs=np.array([self.serial, -self.serial], np.float32),
            action=self.serial,
            reward=float(self.serial % 7 - 3),
            next_obs=np.array([self.serial + 1, 0.5], np.float32),
            td_error=td_error,
        )

    @rule(
        end=st.sampled_from(["", "", "", "terminated", "truncated"]),
        td_error=st.one_of(st.none(), ERRORS),
    )
    def add(self, end, td_error):
        one = self.step(td_error)
        ids = self.replay.add(
            one.obs, one.action, one.reward, one.next_obs,
            end == "terminated", end == "truncated", td_error=td_error,
        )  # fmt: skip
        assert ids.tolist() == self.twin.add(one, end == "terminated", end == "truncated")

    @rule()
    def end_episode(self):
        assert self.replay.end_episode().tolist() == self.twin.end_episode()

    @rule(data=st.data())
    def extend(self, data):
        discounts = st.sampled_from([0.0, 0.25, 1.0])
        discount = data.draw(st.lists(discounts, min_size=1, max_size=self.twin.capacity))
        td_errors = data.draw(
            st.one_of(st.none(), st.lists(ERRORS, min_size=len(discount), max_size=len(discount)))
        )
        steps = [self.step(None) for _ in discount]
        rows = [
            {"obs": s.obs, "action": s.action, "reward": s.reward, "discount": d,
             "next_obs": s.next_obs}
            for s, d in zip(steps, discount, strict=True)
        ]  # fmt: skip
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        ids = self.replay.extend(columns, td_errors=td_errors)
        assert ids.tolist() == self.twin.extend(rows, td_errors)

    @precondition(lambda self: self.twin.rows)
    @rule(batch_size=st.integers(1, 20), beta=st.sampled_from([0.0, 0.5, 1.0]))
    def sample(self, batch_size, beta):
        distinct = getattr(self.sampler, "draw", "") == "without_replacement"
        assume(not distinct or batch_size <= len(self.twin.rows))
        batch = self.replay.sample(batch_size, beta=beta)
        assert batch.ids.shape == (batch_size,)
        assert not distinct or np.unique(batch.ids).size == batch_size
        self.twin.check_batch(batch, beta)

    @precondition(lambda self: self.twin.next_id)
    @rule(data=st.data())
    def update(self, data):
        oldest = max(0, self.twin.next_id - 2 * self.twin.capacity)  # some of them are gone
        known = st.integers(oldest, self.twin.next_id - 1)
        updates = data.draw(st.lists(st.tuples(known, ERRORS), max_size=30))
        ids, td_errors = [u[0] for u in updates], [u[1] for u in updates]
        applied = self.replay.update_priorities(
            np.array(ids, np.int64), np.array(td_errors, np.float64)
        )
        assert applied == self.twin.update(ids, td_errors)

    @rule(alpha=st.sampled_from([0.0, 0.3, 0.7, 1.0, 2.5]))
    def set_alpha(self, alpha):
        if not isinstance(self.sampler, per.Uniform):
            self.replay.alpha = self.twin.alpha = alpha

    @rule()
    def clear(self):
        self.replay.clear()
        self.twin.clear()

    @rule(
        bad_call=st.sampled_from(
            [
                lambda r, one, _: r.add(one.obs, 0.5, one.reward, one.next_obs, True),
                lambda r, one, _: r.add(
                    one.obs, 0, one.reward, one.next_obs, True, td_error=np.nan
                ),
                lambda r, _, next_id: r.update_priorities([next_id], [1.0]),
                lambda r, _, next_id: r.get([next_id]),
                lambda r, *_: setattr(r, "alpha", -1.0),
                lambda r, *_: r.extend(transitions(np.arange(3)), td_errors=[1.0, np.inf, 0.0]),
            ]
        )
    )
    def fail(self, bad_call):
        """A bad call changes nothing: the invariants and all that follows say so."""
        with pytest.raises((ValueError, TypeError, KeyError)):
            bad_call(self.replay, self.step(None), self.twin.next_id)

    @invariant()
    def same(self):
        if not hasattr(self, "replay"):
            return
        replay, twin = self.replay, self.twin
        stats = replay.stats()
        assert len(replay) == stats["size"] == len(twin.rows)
        assert stats["ids_issued"] == twin.next_id
        assert stats["open_windows"] == twin.open_windows
        assert stats["stale_updates"] == twin.stale_updates
        if twin.rows:
            twin.check_batch(replay.get(twin.ids, beta=0.5), 0.5)
            if not isinstance(self.sampler, per.Uniform):
                np.testing.assert_array_equal(
                    replay.priorities(twin.ids), list(twin.priority.values())
                )
                assert stats["largest_priority"] == twin.maximum()


TestReplayMachine = pytest.mark.slow(ReplayMachine.TestCase)
