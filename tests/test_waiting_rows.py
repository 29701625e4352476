"""New rows that wait for the sampler, numbers for a column, and what kernels are compiled for."""

import re

import numpy as np
import pytest
from numba.core import config
from tests.reference import FIELDS, transitions

import prioritized_replay as per
from prioritized_replay.batches import _batch_kernels
from prioritized_replay.fields.field import Field, FieldCaster, cast
from prioritized_replay.sampling import _draw_kernels, _rank_kernels, _tree_kernels

LAWS = [per.Proportional(eps=0.0), per.RankBased()]
by_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)


def add(replay, serial, **options):
    row = {name: column[0] for name, column in transitions([serial]).items()}
    return replay.add(**row, **options)


@by_law
def test_clear_forgets_priorities_that_were_waiting(law):
    replay = per.ReplayBuffer(4, FIELDS, sampler=law, seed=0)
    add(replay, 0, td_error=7.0)
    replay.clear()
    ids = np.concatenate([add(replay, 1), add(replay, 2, td_error=3.0)])

    replay.sample(8)

    assert replay.priorities(ids).tolist() == [1.0, 3.0]
    assert len(replay) == 2


@pytest.mark.parametrize("maximum", ["ever", "current"])
def test_a_row_after_one_with_an_error_of_its_own_enters_at_that_maximum(maximum):
    replay = per.ReplayBuffer(4, FIELDS, sampler=per.Proportional(eps=0.0, max_priority=maximum))
    ids = [*add(replay, 0, td_error=5.0), *add(replay, 1), *add(replay, 2, td_error=2.0)]
    ids += add(replay, 3).tolist()

    assert replay.priorities(ids).tolist() == [5.0, 5.0, 2.0, 5.0]


def test_a_maximum_that_gave_way_is_not_the_current_one():
    replay = per.ReplayBuffer(2, FIELDS, sampler=per.Proportional(eps=0.0, max_priority="current"))
    for serial, error in enumerate([5.0, 2.0, 3.0]):
        add(replay, serial, td_error=error)

    assert replay.priorities(add(replay, 3)).tolist() == [3.0]


@by_law
def test_more_waiting_rows_than_fit(law):
    replay = per.ReplayBuffer(3, FIELDS, sampler=law, seed=0)
    ids = [add(replay, serial, td_error=serial + 1.0)[0] for serial in range(8)]

    assert set(replay.sample(64).ids) <= set(ids[-3:])
    assert replay.priorities(ids[-3:]).tolist() == [6.0, 7.0, 8.0]


def test_rows_that_give_way_at_once_leave_no_maximum():
    """An episode of three steps ends in a memory of one row: as in one call of extend."""
    replay = per.ReplayBuffer(1, FIELDS, sampler=per.Proportional(eps=0.0), n_step=4)
    for serial, error in enumerate([9.0, 1.0, 2.0]):
        row = {name: column[0] for name, column in transitions([serial]).items()}
        replay.add(**row | {"terminated": serial == 2}, td_error=error)

    assert replay.stats()["largest_priority"] == 2.0


def test_alpha_is_refused_for_a_window_that_is_open():
    replay = per.ReplayBuffer(4, FIELDS, sampler=per.Proportional(), n_step=2)
    add(replay, 0, td_error=1e200)

    with pytest.raises(ValueError, match="alpha"):
        replay.alpha = 2.0
    assert replay.alpha == 0.6


def test_clear_forgets_the_last_batch():
    replay = per.ReplayBuffer(4, FIELDS, seed=0)
    add(replay, 0)
    replay.sample(5)
    assert replay.stats()["duplicates"] == 4

    replay.clear()

    assert replay.stats()["duplicates"] == 0
    assert replay.stats()["effective_sample_size"] == 0.0


@pytest.mark.parametrize("law", [per.Uniform, per.Proportional])
def test_a_batch_uses_the_next_numbers_of_the_seed(law):
    replay = per.ReplayBuffer(8, FIELDS, sampler=law(draw="independent"), seed=11)
    ids = replay.extend(transitions(np.arange(8)))
    numbers = np.random.default_rng(11).random(4096)

    for first, count in ((0, 5), (5, 1), (6, 90)):
        expected = (numbers[first : first + count] * 8).astype(int)
        assert replay.sample(count).ids.tolist() == ids[expected].tolist()


@pytest.mark.parametrize("weights", ["batch", "buffer", "raw"])
def test_nothing_drawable_is_said_whatever_the_weights_refer_to(weights):
    replay = per.ReplayBuffer(2, FIELDS, sampler=per.Proportional(eps=0.0, weights=weights))
    assert len(replay.get([])) == 0
    ids = add(replay, 0, td_error=0.0)

    with pytest.raises(ValueError, match="all priorities are zero"):
        replay.sample(1)
    for beta in (0.0, 1.0):
        assert replay.get(ids, beta).probabilities.tolist() == [0.0]
    assert replay.get(ids, 0.0).weights.tolist() == [1.0]


# --- numbers and their columns ----------------------------------------------------------------

NUMBERS = [
    *(True, False, np.True_, 0, 1, -1, 3, 255, 256, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)),
    *(0.0, 1.0, 1.5, -0.1, 1e-50, 65504.0, 65520.0, 1e39, 1e308, np.nan, np.inf),
    *(np.float16(0.5), np.float32(0.1), np.float32(np.inf), np.float64(0.1), np.float64(1e-50)),
    *(np.int8(-3), np.uint8(200), np.int32(-7), np.int64(5), np.uint64(2**64 - 1)),
    *(np.array(2.5), np.array(3), np.array(True), [1], "1", None),
]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float16", "float32"])
@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_a_column_accepts_what_a_cast_accepts_and_stores_the_same(dtype, value):
    column = np.zeros(1, dtype)
    try:
        expected = cast("field", value, Field((), dtype))
    except ValueError as error:
        refusal = re.escape(str(error))
    else:
        refusal = ""
    if refusal:
        with pytest.raises(ValueError, match=refusal):
            FieldCaster("field", Field((), dtype)).accept(value)
        return

    with np.errstate(all="raise"):  # nothing may be left to the assignment
        column[0] = FieldCaster("field", Field((), dtype)).accept(value)

    np.testing.assert_array_equal(column[0], expected)


# --- what is compiled -------------------------------------------------------------------------


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_every_kernel_is_compiled_for_one_kind_of_arguments():
    """Each further kind would take seconds, in the middle of a training."""
    for law in (
        per.Uniform(),
        per.Proportional(alpha=1, eps=0),
        per.Proportional(alpha=np.float32(0.5), eps=np.float32(0.1), weights="buffer"),
        per.RankBased(alpha=1, uniform_mix=0.5),
        per.RankBased(alpha=np.float32(0.5), draw="independent"),
        per.RankBased(draw="without_replacement"),
    ):
        replay = per.ReplayBuffer(16, FIELDS, sampler=law, seed=0)
        replay.extend(transitions(np.arange(20)))
        add(replay, 20, td_error=np.float32(0.25))
        for beta in (0, 1, 0.5, np.float32(0.5)):
            batch = replay.sample(4, beta)
            frozen = batch.ids.copy()
            frozen.flags.writeable = False
            errors = np.broadcast_to(np.float64(0.5), 4)
            kinds = (errors, errors.astype("f2"), errors.astype(">f8"), np.ones(8)[::2], [1] * 4)
            for given in kinds:
                replay.update_priorities(frozen, given)
                replay.update_priorities(batch.ids.astype("i4"), given)
        replay.alpha = 0 if isinstance(law, per.Uniform) else np.float32(0.25)
        replay.get(replay.sample(3).ids)

    for module in (_tree_kernels, _draw_kernels, _batch_kernels, _rank_kernels):
        for name, function in vars(module).items():
            options = getattr(function, "targetoptions", {"no_cpython_wrapper": True})
            if not options.get("no_cpython_wrapper"):
                assert len(function.signatures) <= 1, (name, function.signatures)
