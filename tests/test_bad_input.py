"""Bad input raises one clear error that names the parameter, and leaves the buffer unchanged.

Each call is made on a buffer with a twin of equal history; afterwards the two must be equal in
every row, priority and statistic, and go on equally.
"""

import math
from functools import cache

import numpy as np
import pytest
from tests.reference import transitions

import prioritized_replay as per

FIELDS = {
    "obs": per.Field((2,), "float32"),
    "action": per.Field((), "int64"),
    "reward": per.Field((), "float32"),
    "log_prob": per.Field((), "float64"),
}
SAMPLERS = {
    "proportional": per.Proportional(weights="buffer"),
    "rank": per.RankBased(max_priority="current", uniform_mix=0.1),
    "without": per.Proportional(draw="without_replacement", max_priority="current"),
    "uniform": per.Uniform(),
}
CAPACITY = 8


def windows(count):
    """Complete transitions of four steps each, with a serial number in every column."""
    columns = transitions(np.arange(count))
    discount = np.where(columns.pop("terminated"), 0.0, 0.5**4)
    return {**columns, "discount": discount}


def history(sampler):
    """Twelve rows in a ring of 8, two open windows, some updates, one of them stale."""
    replay = per.ReplayBuffer(CAPACITY, FIELDS, sampler=sampler, n_step=4, gamma=0.5, seed=4)
    columns = windows(12)
    ids = replay.extend({**columns, "log_prob": np.arange(12.0)}, td_errors=np.arange(12.0) / 4)
    obs = np.ones(2)
    replay.add(obs, 1, 1.0, obs, False, log_prob=0.0, td_error=0.3)
    replay.add(obs, 1, 1.0, obs, False, log_prob=0.0)
    replay.sample(4, beta=0.5)
    replay.update_priorities(ids[[0, 5, 7]], [9.0, -2.0, 3.0])
    return replay, ids


def row(**changes):
    values = {
        "obs": np.ones(2),
        "action": 1,
        "reward": 1.0,
        "next_obs": np.ones(2),
        "terminated": False,
        "log_prob": 0.0,
        **changes,
    }
    return {name: value for name, value in values.items() if value is not MISSING}


def rows(count=3, **changes):
    values = {**windows(count), "log_prob": np.zeros(count), **changes}
    return {name: value for name, value in values.items() if value is not MISSING}


MISSING = object()
ENDLESS = []
ENDLESS.append(ENDLESS)
NAN, INF = math.nan, math.inf

# what is called (on the buffer and its ids), the error, what its message names
BAD_CALLS = {
    # shapes of one step
    "obs too long": (lambda r, i: r.add(**row(obs=np.ones(3))), ValueError, "obs"),
    "obs broadcast from one": (lambda r, i: r.add(**row(obs=np.ones(1))), ValueError, "obs"),
    "obs a number": (lambda r, i: r.add(**row(obs=1.0)), ValueError, "obs"),
    "obs with a batch axis": (lambda r, i: r.add(**row(obs=np.ones((1, 2)))), ValueError, "obs"),
    "obs empty": (lambda r, i: r.add(**row(obs=[])), ValueError, "obs"),
    "obs ragged": (lambda r, i: r.add(**row(obs=[[1.0], 2.0])), (ValueError, TypeError), "obs"),
    "obs None": (lambda r, i: r.add(**row(obs=None)), (ValueError, TypeError), "obs"),
    "next_obs too long": (
        lambda r, i: r.add(**row(next_obs=np.ones(3))), ValueError, "next_obs"),
    "reward a vector": (lambda r, i: r.add(**row(reward=np.ones(2))), ValueError, "reward"),
    "action a vector": (
        lambda r, i: r.add(**row(action=np.ones(2, np.int64))), ValueError, "action"),
    # casts of one step
    "action a float": (lambda r, i: r.add(**row(action=0.5)), (ValueError, TypeError), "action"),
    "action too large": (
        lambda r, i: r.add(**row(action=2**63)), (ValueError, OverflowError), "action"),
    "reward overflows": (lambda r, i: r.add(**row(reward=1e39)), ValueError, "reward"),
    "reward a word": (lambda r, i: r.add(**row(reward="much")), (ValueError, TypeError), "reward"),
    "obs overflows": (lambda r, i: r.add(**row(obs=[1e39, 0.0])), ValueError, "obs"),
    "obs complex": (lambda r, i: r.add(**row(obs=[1j, 0])), (ValueError, TypeError), "obs"),
    "obs objects": (
        lambda r, i: r.add(**row(obs=np.array([1, None], object))),
        (ValueError, TypeError), "obs"),
    # columns of one step
    "column missing": (
        lambda r, i: r.add(**row(log_prob=MISSING)), (ValueError, TypeError), "log_prob"),
    "column unknown": (
        lambda r, i: r.add(**row(colour=1)), (ValueError, TypeError), "colour"),
    "column of wrong shape": (
        lambda r, i: r.add(**row(log_prob=np.zeros(2))), ValueError, "log_prob"),
    # the flags and the error of one step
    "terminated a word": (
        lambda r, i: r.add(**row(terminated="yes")), (ValueError, TypeError), "terminated"),
    "terminated a vector": (
        lambda r, i: r.add(**row(terminated=np.zeros(2, bool))),
        (ValueError, TypeError), "terminated"),
    "terminated not 0 or 1": (
        lambda r, i: r.add(**row(terminated=0.5)), (ValueError, TypeError), "terminated"),
    "truncated None": (
        lambda r, i: r.add(**row(), truncated=None), (ValueError, TypeError), "truncated"),
    "add: a discount": (lambda r, i: r.add(**row(), discount=0.5), ValueError, "discount"),
    "td_error NaN": (lambda r, i: r.add(**row(), td_error=NAN), ValueError, "td_error"),
    "td_error infinite at an episode's end": (
        lambda r, i: r.add(**row(terminated=True), td_error=-INF), ValueError, "td_error"),
    "td_error a vector": (
        lambda r, i: r.add(**row(), td_error=np.ones(2)), (ValueError, TypeError), "td_error"),
    # many rows
    "extend: lengths differ": (
        lambda r, i: r.extend(rows(action=np.zeros(2, np.int64))), ValueError, "action"),
    "extend: no leading axis": (
        lambda r, i: r.extend(rows(reward=1.0)), ValueError, "reward"),
    "extend: wrong shape": (
        lambda r, i: r.extend(rows(obs=np.ones((3, 3)))), ValueError, "obs"),
    "extend: broadcast": (
        lambda r, i: r.extend(rows(obs=np.ones((3, 1)))), ValueError, "obs"),
    "extend: column missing": (
        lambda r, i: r.extend(rows(next_obs=MISSING)), (ValueError, KeyError), "next_obs"),
    "extend: no end given": (
        lambda r, i: r.extend(rows(discount=MISSING)), (ValueError, KeyError), "discount"),
    "extend: an end of one step": (
        lambda r, i: r.extend(rows(discount=MISSING, terminated=np.zeros(3, bool))),
        ValueError, "discount where n_step is 4, got terminated"),
    "extend: two ends given": (
        lambda r, i: r.extend(rows(terminated=np.zeros(3, bool))), ValueError, "either discount"),
    "extend: column unknown": (
        lambda r, i: r.extend(rows(colour=np.ones(3))), (ValueError, KeyError), "colour"),
    "extend: float actions": (
        lambda r, i: r.extend(rows(action=np.zeros(3))), (ValueError, TypeError), "action"),
    "extend: one reward overflows": (
        lambda r, i: r.extend(rows(reward=np.array([0, 0, 1e39]))), ValueError, "reward"),
    "extend: discount above 1": (
        lambda r, i: r.extend(rows(discount=np.array([0, 0.5, 1.5]))),
        ValueError, "discount"),
    "extend: discount NaN": (
        lambda r, i: r.extend(rows(discount=np.array([0, 0.5, NAN]))),
        ValueError, "discount"),
    "extend: discount a word": (
        lambda r, i: r.extend(rows(discount=np.array(["a", "b", "c"]))),
        ValueError, "discount"),
    "extend: td error NaN": (
        lambda r, i: r.extend(rows(), td_errors=[1.0, NAN, 2.0]), ValueError, "td_errors"),
    "extend: too few td errors": (
        lambda r, i: r.extend(rows(), td_errors=[1.0, 2.0]), ValueError, "td_errors"),
    "extend: a list": (
        lambda r, i: r.extend([rows()]), (ValueError, TypeError), "transitions"),
    # drawing
    "batch_size 0": (lambda r, i: r.sample(0), ValueError, "batch_size"),
    "batch_size negative": (lambda r, i: r.sample(-4), ValueError, "batch_size"),
    "batch_size a float": (lambda r, i: r.sample(2.5), (ValueError, TypeError), "batch_size"),
    "batch_size None": (lambda r, i: r.sample(None), (ValueError, TypeError), "batch_size"),
    "beta negative": (lambda r, i: r.sample(2, beta=-0.1), ValueError, "beta"),
    "beta NaN": (lambda r, i: r.sample(2, beta=NAN), ValueError, "beta"),
    "beta infinite": (lambda r, i: r.sample(2, beta=INF), ValueError, "beta"),
    "beta a word": (lambda r, i: r.sample(2, beta="high"), (ValueError, TypeError), "beta"),
    # getting
    "get: overwritten": (lambda r, i: r.get(i[[6, 1, 2]]), KeyError, r"\b1\b"),
    "get: never issued": (lambda r, i: r.get([i[-1], 777]), KeyError, "777"),
    "get: negative": (lambda r, i: r.get([-1]), KeyError, "-1"),
    "get: floats": (lambda r, i: r.get(np.array([4.0])), (ValueError, TypeError), "ids"),
    "get: two axes": (lambda r, i: r.get(i[4:6][None]), ValueError, "ids"),
    "get: beta NaN": (lambda r, i: r.get(i[-2:], beta=NAN), ValueError, "beta"),
    "priorities: overwritten": (lambda r, i: r.priorities(i[[6, 1, 2]]), KeyError, r"\b1\b"),
    "priorities: never issued": (lambda r, i: r.priorities([777]), KeyError, "777"),
    # updating
    "update: NaN": (
        lambda r, i: r.update_priorities(i[-3:], [1.0, NAN, 2.0]),
        ValueError, "td_errors must be finite, got nan for id 10 at position 1"),
    "update: infinite": (
        lambda r, i: r.update_priorities(i[-3:], [1.0, 2.0, -INF]),
        ValueError, "td_errors must be finite, got -inf for id 11 at position 2"),
    "update: NaN for a stale id": (
        lambda r, i: r.update_priorities(i[:1], [NAN]),
        ValueError, "td_errors must be finite, got nan for id 0 at position 0"),
    "update: too few": (
        lambda r, i: r.update_priorities(i[-3:], [1.0, 2.0]), ValueError, "td_errors"),
    "update: one for all": (
        lambda r, i: r.update_priorities(i[-3:], 1.0), (ValueError, TypeError), "td_errors"),
    "update: a matrix": (
        lambda r, i: r.update_priorities(i[-3:], np.ones((3, 3))), ValueError, "td_errors"),
    "update: a row": (
        lambda r, i: r.update_priorities(i[-3:], np.ones((1, 3))), ValueError, "td_errors"),
    "update: words": (
        lambda r, i: r.update_priorities(i[-1:], ["high"]), (ValueError, TypeError), "td_errors"),
    "update: complex": (
        lambda r, i: r.update_priorities(i[-1:], [1j]), (ValueError, TypeError), "td_errors"),
    "update: never issued": (
        lambda r, i: r.update_priorities([int(i[-1]), 777], [1.0, 1.0]),
        (ValueError, KeyError), "777"),
    "update: negative id": (
        lambda r, i: r.update_priorities([int(i[-1]), -1], [1.0, 1.0]),
        (ValueError, KeyError), "-1"),
    "update: the next id": (
        lambda r, i: r.update_priorities([int(i[-1]) + 1], [1.0]), (ValueError, KeyError), "ids"),
    "update: float ids": (
        lambda r, i: r.update_priorities(np.array([4.0]), [1.0]), (ValueError, TypeError), "ids"),
    "update: ids of two axes": (
        lambda r, i: r.update_priorities(i[-4:].reshape(2, 2), np.ones(4)), ValueError, "ids"),
    # alpha
    "alpha negative": (lambda r, i: setattr(r, "alpha", -0.5), ValueError, "alpha"),
    "alpha NaN": (lambda r, i: setattr(r, "alpha", NAN), ValueError, "alpha"),
    "alpha infinite": (lambda r, i: setattr(r, "alpha", INF), ValueError, "alpha"),
}  # fmt: skip


def contents(replay):
    """Everything that can be seen of a buffer without changing it."""
    issued = replay.stats()["ids_issued"]
    live = np.arange(issued - len(replay), issued)
    batch = replay.get(live, beta=0.5)
    names = [*FIELDS, "next_obs", "discount", "weights", "probabilities", "ids"]
    return {
        **{name: batch[name] for name in names},
        "priorities": replay.priorities(live),
        "stats": np.array(list(replay.stats().values()), np.float64),
        "alpha": replay.alpha,
        "length": len(replay),
    }


def same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def go_on(replay):
    """What the next batch, the open windows and the next rows come to."""
    batch = replay.sample(4, beta=0.7)
    replay.update_priorities(batch.ids, np.arange(4.0))
    obs = np.ones(2)
    ids = replay.add(obs, 1, 1.0, obs, True, log_prob=0.0)
    return {
        "drawn": batch.ids, "weights": batch.weights, "obs": batch.obs,
        "new": ids, "again": replay.sample(4).ids, **contents(replay),
    }  # fmt: skip


@cache
def undisturbed(sampler):
    """What is seen of a buffer that nobody has called wrongly, and how it goes on."""
    replay, _ = history(SAMPLERS[sampler])
    return contents(replay), go_on(replay)


@pytest.mark.parametrize("name", BAD_CALLS)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.slow
def test_a_bad_call_names_its_parameter_and_changes_nothing(sampler, name):
    call, error, names = BAD_CALLS[name]
    replay, ids = history(SAMPLERS[sampler])
    before, later = undisturbed(sampler)

    with pytest.raises(error, match=names) as raised:
        call(replay, ids)

    assert "\n" not in str(raised.value).strip()
    same(contents(replay), before)
    same(go_on(replay), later)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_empty_buffer_cannot_be_sampled(sampler):
    replay = per.ReplayBuffer(4, FIELDS, sampler=SAMPLERS[sampler])

    with pytest.raises(ValueError, match="empty"):
        replay.sample(1)
    with pytest.raises(KeyError, match="0"):
        replay.get([0])
    with pytest.raises((ValueError, KeyError), match="ids"):
        replay.update_priorities([0], [1.0])

    replay.extend(rows(2))
    assert len(replay.sample(1).ids) == 1


@pytest.mark.parametrize("sampler", [per.Proportional, per.RankBased])
@pytest.mark.slow
def test_a_batch_larger_than_the_buffer_needs_replacement(sampler):
    without, twin, replacing = (
        per.ReplayBuffer(8, FIELDS, sampler=sampler(draw=draw), seed=1)
        for draw in ("without_replacement", "without_replacement", "stratified")
    )
    for replay in (without, twin, replacing):
        replay.extend(rows(5))

    with pytest.raises(ValueError, match="batch_size"):
        without.sample(6)

    same(contents(without), contents(twin))
    batch = without.sample(5)
    assert np.unique(batch.ids).size == 5
    np.testing.assert_array_equal(batch.ids, twin.sample(5).ids)
    assert replacing.sample(6).ids.size == 6


@pytest.mark.parametrize("draw", ["stratified", "independent", "without_replacement"])
@pytest.mark.slow
def test_a_draw_from_zero_masses_changes_nothing(draw):
    replay, twin = (
        per.ReplayBuffer(8, FIELDS, sampler=per.Proportional(eps=0.0, draw=draw), seed=1)
        for _ in range(2)
    )
    for buffer in (replay, twin):
        ids = buffer.extend(rows(5), td_errors=np.zeros(5))

    with pytest.raises(ValueError, match=r"eps|uniform_mix"):
        replay.sample(2)

    same(contents(replay), contents(twin))
    for buffer in (replay, twin):
        buffer.update_priorities(ids, np.arange(5.0))
    same(go_on(replay), go_on(twin))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"capacity": 0}, "capacity"),
        ({"capacity": -1}, "capacity"),
        ({"capacity": 2.5}, "capacity"),
        ({"capacity": None}, "capacity"),
        ({"n_step": 0}, "n_step"),
        ({"n_step": -2}, "n_step"),
        ({"n_step": 1.5}, "n_step"),
        ({"gamma": -0.1}, "gamma"),
        ({"gamma": 1.1}, "gamma"),
        ({"gamma": NAN}, "gamma"),
        ({"sampler": "rank"}, "sampler"),
        ({"sampler": per.RankBased}, "sampler"),
        ({"fields": {}}, "obs"),
        ({"fields": {**FIELDS, "obs": (2,)}}, "obs"),
        ({"fields": {**FIELDS, "weights": per.Field((), "float32")}}, "weights"),
        ({"fields": {**FIELDS, "ids": per.Field((), "int64")}}, "ids"),
        ({"fields": {**FIELDS, "td_error": per.Field()}}, "td_error"),
        ({"seed": "luck"}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": ENDLESS}, "seed"),
        ({"seed": np.broadcast_to(1, 2**40)}, "seed"),
        ({"fields": {**FIELDS, "obs": ENDLESS}}, "obs"),
        ({"capacity": 2**70}, "capacity"),
        ({"n_step": 2**70}, "n_step"),
        ({"num_envs": 2**70, "autoreset": "disabled"}, "num_envs"),
        ({"fields": {**FIELDS, "obs": [1, 2]}}, "obs"),
        ({"autoreset": np.arange(2)}, "autoreset"),
    ],
    ids=str,
)
def test_a_buffer_that_could_not_work_is_not_built(change, name):
    arguments = {"capacity": 8, "fields": FIELDS, **change}
    capacity, fields = arguments.pop("capacity"), arguments.pop("fields")

    with pytest.raises((ValueError, TypeError), match=name):
        per.ReplayBuffer(capacity, fields, **arguments)


@pytest.mark.parametrize("kind", [per.Proportional, per.RankBased])
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"alpha": -0.5}, "alpha must be >= 0.*got -0.5"),
        ({"alpha": NAN}, "alpha"),
        ({"alpha": INF}, "alpha"),
        ({"uniform_mix": -0.1}, "uniform_mix"),
        ({"uniform_mix": 1.1}, "uniform_mix"),
        ({"uniform_mix": NAN}, "uniform_mix"),
        ({"draw": "sorted"}, "draw.*sorted"),
        ({"weights": "none"}, "weights.*none"),
        ({"max_priority": "always"}, "max_priority.*always"),
    ],
    ids=str,
)
def test_a_sampler_that_could_not_work_is_not_built(kind, change, name):
    with pytest.raises(ValueError, match=name):
        kind(**change)


@pytest.mark.parametrize("eps", [-0.1, NAN, INF])
def test_eps_must_be_a_number_that_is_not_negative(eps):
    with pytest.raises(ValueError, match="eps"):
        per.Proportional(eps=eps)


@pytest.mark.parametrize("max_priority", ["ever", "current"])
@pytest.mark.parametrize("weights", ["batch", "buffer"])
def test_masses_that_float64_cannot_hold_are_refused(weights, max_priority):
    """p**alpha or a sum of such would be infinite."""
    sampler = per.Proportional(alpha=2.0, eps=0.0, weights=weights, max_priority=max_priority)
    replay, twin = (
        per.ReplayBuffer(CAPACITY, FIELDS, sampler=sampler, n_step=2, seed=0) for _ in range(2)
    )
    for buffer in (replay, twin):
        ids = buffer.extend(rows(4), td_errors=[1e100, 1.0, 2.0, 3.0])

    with pytest.raises(ValueError, match="td_errors"):
        replay.update_priorities(ids, [1.0, 2.0, 3.0, 1e200])
    with pytest.raises(ValueError, match="td_error"):
        replay.add(**row(), td_error=1e200)
    with pytest.raises(ValueError, match="td_errors"):
        replay.extend(rows(2), td_errors=[1.0, -1e200])
    with pytest.raises(ValueError, match="alpha"):
        replay.alpha = 4.0

    same(contents(replay), contents(twin))
    same(go_on(replay), go_on(twin))


def test_a_total_that_float64_cannot_hold_is_refused():
    replay = per.ReplayBuffer(4, FIELDS, sampler=per.Proportional(alpha=1.0), seed=0)
    ids = replay.extend(rows(4))

    with pytest.raises(ValueError, match="td_errors"):
        replay.update_priorities(ids, np.full(4, 1.7e308))

    np.testing.assert_array_equal(replay.priorities(ids), 1.0)
    np.testing.assert_allclose(replay.get(ids).probabilities, 0.25, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # matrices, on their way out
def test_a_seed_may_be_any_array_of_integers():
    """NumPy itself does not come back from a matrix."""
    fields = {"obs": per.Field((2,)), "action": per.Field((), "int64"), "reward": per.Field()}
    draws = []
    for seed in (np.array([1, 2, 3, 4]), np.matrix([[1, 2], [3, 4]])):
        replay = per.ReplayBuffer(8, fields, seed=seed)
        for step in range(8):
            replay.add([step, step], step, 1.0, [step, step], False)
        draws.append(replay.sample(16).ids)
    np.testing.assert_array_equal(*draws)


def test_a_masked_number_among_ids_is_no_id():
    replay, _ = history(per.Uniform())
    with pytest.raises(ValueError, match="ids must be a numeric array"):
        replay.get([0, np.ma.masked_array(1, mask=True, dtype=np.int8)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda replay, rows: replay.add(0.0, 0, 0.0, 0.0, terminated=False, color=1),
            "fields must be obs, action, reward, next_obs, got unknown color",
        ),
        (
            lambda replay, rows: replay.extend(rows | {"terminated": [False]}),
            "fields must be obs, action, reward, next_obs, terminated, got missing next_obs",
        ),
        (
            lambda replay, rows: replay.extend(rows | {"discount": [0.9]}),
            "fields must be obs, action, reward, discount, next_obs, got missing next_obs",
        ),
    ],
)
def test_a_message_asks_only_for_fields_that_the_call_takes(call, message):
    fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
    replay = per.ReplayBuffer(4, fields)
    with pytest.raises(ValueError, match=f"^{message}$"):
        call(replay, {"obs": [0.0], "action": [0], "reward": [0.0]})
    assert len(replay) == 0


HALVES = {
    "float16": (65504.0, 65519.996, 65520.0),
    "float32": (3.4028234663852886e38, 3.4028235e38, 3.4028236e38),
    "float64": (1.7976931348623157e308, 1.7976931348623157e308, None),
}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("way", ["add", "extend", "vector"])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_number_that_rounds_to_a_finite_one_fits(dtype, way, shape):
    """Up to halfway between the largest number and the next one that there would be."""
    largest, below, above = HALVES[dtype]
    fields = {"obs": per.Field(shape, dtype), "action": per.Field(), "reward": per.Field((), dtype)}
    num_envs = 2 if way == "vector" else None
    replay = per.ReplayBuffer(10, fields, num_envs=num_envs, autoreset=num_envs and "disabled")

    def add(number):
        obs = np.full(shape, number)
        if way == "add":
            replay.add(obs, 0.0, number, obs, True)
        elif way == "vector":
            both, flags = np.full((2, *shape), number), np.ones(2, bool)
            replay.add(both, np.zeros(2), np.full(2, number), both.copy(), flags)
        else:
            rows = {"obs": obs[None], "next_obs": obs[None], "action": np.zeros(1)}
            replay.extend({**rows, "reward": np.array([number]), "terminated": np.ones(1, bool)})

    for number in (below, -below):
        add(number)
        batch = replay.get([replay.ids_issued - 1])
        np.testing.assert_array_equal(batch.reward, np.array([np.copysign(largest, number)], dtype))
        np.testing.assert_array_equal(batch.obs, np.full((1, *shape), batch.reward[0], dtype))
    if above is not None:
        issued = replay.ids_issued
        with pytest.raises(ValueError, match=f"must fit {dtype}"):
            add(above)
        assert replay.ids_issued == issued
