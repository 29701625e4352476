"""Bad calls of a buffer of many streams: one clear error that names what is wrong, nothing changed.

Each is made in the middle of the life of three environments; afterwards the buffer must be as its
twin is, which never saw the call, and go on with it: rows, open windows, reset steps to come.
"""

import math

import numpy as np
import pytest
from tests.reference_streams import MODES, STREAM_FIELDS, TERMINATED, TRUNCATED, Pair

import prioritized_replay as per

NAN, INF = math.nan, math.inf
E, N_STEP = 3, 3
TWO = np.zeros((2, 2), np.float32)
THREE = np.zeros((3, 2), np.float32)
ENDED = np.array([False, True, False])


def script(stream, episode):
    return (2, 5, 3)[(episode + stream) % 3], (TERMINATED, TRUNCATED)[(episode + stream) % 2]


def build(mode, single=False):
    """A pair in the middle of its life: rows, open windows and, at times, a reset step to come."""
    pair = Pair.build(
        1 if single else E, mode, script, capacity=11, n_step=N_STEP, single=single,
        sampler=per.Proportional(max_priority="current"),
    )  # fmt: skip
    pair.watch = False
    for k in range(14):
        pair.add(single=single, errors=k % 2 == 0)
    return pair


def row(count=E, **changes):
    """The arguments of a good step of `count` streams, with changes."""
    values = {
        "obs": np.full((count, 2), 5.0),
        "action": np.arange(count),
        "reward": np.ones(count),
        "next_obs": np.full((count, 2), 6.0),
        "terminated": np.zeros(count, bool),
        "truncated": np.zeros(count, bool),
        "tag": np.zeros(count),
        **changes,
    }
    return {name: value for name, value in values.items() if value is not MISSING}


def one(**changes):
    """The same of a single stream."""
    values = {name: value if name == "info" else value[0] for name, value in row().items()}
    return {**values, **changes}


MISSING = object()

# what is called, and what its message names
BAD_CALLS = {
    # leading axes
    "obs of two": (lambda r: r.add(**row(obs=TWO)), r"obs must have shape \(3, 2\), got \(2, 2\)"),
    "obs of one": (lambda r: r.add(**row(obs=TWO[:1])), "obs"),
    "obs without environments": (lambda r: r.add(**row(obs=TWO[0])), "obs"),
    "obs too wide": (lambda r: r.add(**row(obs=np.zeros((3, 3)))), "obs"),
    "obs transposed": (lambda r: r.add(**row(obs=THREE.T)), "obs"),
    "next_obs of two": (lambda r: r.add(**row(next_obs=TWO)), "next_obs"),
    "next_obs too wide": (lambda r: r.add(**row(next_obs=np.zeros((3, 2, 1)))), "next_obs"),
    "action a number": (lambda r: r.add(**row(action=1)), "action"),
    "action of four": (lambda r: r.add(**row(action=np.arange(4))), "action"),
    "action with an axis": (lambda r: r.add(**row(action=np.zeros((3, 1), int))), "action"),
    "reward a number": (lambda r: r.add(**row(reward=1.0)), "reward"),
    "reward with an axis": (lambda r: r.add(**row(reward=np.ones((3, 1)))), "reward"),
    "terminated a flag": (lambda r: r.add(**row(terminated=True)), "terminated"),
    "terminated of two": (lambda r: r.add(**row(terminated=ENDED[:2])), "terminated"),
    "terminated with an axis": (lambda r: r.add(**row(terminated=ENDED[:, None])), "terminated"),
    "truncated a flag": (lambda r: r.add(**row(truncated=True)), "truncated"),
    "truncated of four": (lambda r: r.add(**row(truncated=np.zeros(4, bool))), "truncated"),
    "column of two": (lambda r: r.add(**row(tag=np.zeros(2))), "tag"),
    "column a number": (lambda r: r.add(**row(tag=0.0)), "tag"),
    "rows for all, but some named": (lambda r: r.add(**row(), env=[0, 1]), "obs"),
    "rows for two, but all named": (lambda r: r.add(**row(2), env=[2, 0, 1]), "obs"),
    "rows for a number": (lambda r: r.add(**row(1), env=1), "obs"),
    "one row for a list of one": (lambda r: r.add(**one(), env=[1]), "obs"),
    "no rows for all": (lambda r: r.add(**row(0)), "obs"),
    # values
    "floats for actions": (lambda r: r.add(**row(action=np.ones(3))), "action"),
    "one reward overflows": (lambda r: r.add(**row(reward=[0.0, 1e39, 0.0])), "reward"),
    "one observation overflows": (lambda r: r.add(**row(obs=[[0, 0], [0, 0], [0, 1e39]])), "obs"),
    "words": (lambda r: r.add(**row(reward=["a", "b", "c"])), "reward"),
    "None for a flag": (lambda r: r.add(**row(terminated=[True, None, False])), "terminated"),
    "flags of 2": (lambda r: r.add(**row(terminated=[0, 1, 2])), "terminated"),
    "ragged": (lambda r: r.add(**row(obs=[[0, 0], [0, 0], [0]])), "obs"),
    # columns
    "column missing": (lambda r: r.add(**row(tag=MISSING)), "tag"),
    "column unknown": (lambda r: r.add(**row(colour=np.zeros(3))), "colour"),
    "a discount": (lambda r: r.add(**row(), discount=np.ones(3)), "discount"),
    # errors of new rows
    "td_error a number": (lambda r: r.add(**row(), td_error=1.0), "td_error"),
    "td_error of two": (lambda r: r.add(**row(), td_error=[1.0, 2.0]), "td_error"),
    "td_error a row": (lambda r: r.add(**row(), td_error=np.ones((1, 3))), "td_error"),
    "td_error NaN": (lambda r: r.add(**row(), td_error=[1.0, NAN, 2.0]), "td_error"),
    "td_error infinite": (lambda r: r.add(**row(), td_error=[1.0, 1.0, -INF]), "td_error"),
    "td_error None": (lambda r: r.add(**row(), td_error=[1.0, None, 2.0]), "td_error"),
    "td_error of a number's row": (
        lambda r: r.add(**one(), env=1, td_error=np.ones(2)), "td_error"),
    # the numbers of streams
    **{
        f"{what}: env {env!r}": (call, "env")
        for env in (
            3, -1, 2**63, 10**30, 1.0, NAN, True, "1", "all",
            [0, 3], [-1, 0], [0, 0], [2, 1, 2], [0.0, 1.0], [True, False, True], [[0, 1]],
            ["0"], [0, None], {0, 1},
        )
        for what, call in (
            ("end_episode", lambda r, env=env: r.end_episode(env)),
            ("add", lambda r, env=env: r.add(
                **(row(len(env)) if isinstance(env, list) else one()), env=env)),
        )
    },
    "add: env np.bool_": (lambda r: r.add(**one(), env=np.True_), "env"),
    "end_episode: env np.float64": (lambda r: r.end_episode(np.float64(1.0)), "env"),
    "end_episode: a mask": (lambda r: r.end_episode(np.array([True, False, False])), "env"),
    "end_episode: a negative of uint8's kind": (
        lambda r: r.end_episode(np.array([255], np.uint8)), "env"),
}  # fmt: skip


def require_unchanged(mode, call, message, error=ValueError, **options):
    """The call raises; then the buffer is as its twin, at two points of its life and later."""
    for later in (0, 2):  # different streams are then about to reset
        pair = build(mode, **options)
        for _ in range(later):
            pair.add(**options)
        before = pair.replay.stats(), pair.replay.nbytes

        with pytest.raises(error, match=message):
            call(pair.replay)

        assert (pair.replay.stats(), pair.replay.nbytes) == before
        pair.compare()
        for k in range(5):
            pair.add(**options, errors=k % 2 == 1)
        pair.end_episode()
        pair.compare()


@pytest.mark.parametrize("what", BAD_CALLS)
@pytest.mark.slow
def test_a_bad_call_changes_nothing(what):
    call, message = BAD_CALLS[what]
    for mode in ("next_step", "disabled"):
        require_unchanged(mode, call, message)


@pytest.mark.parametrize("mode", MODES)
def test_one_return_of_many_overflows(mode):
    """Each reward fits float32, their sum does not."""
    replay = per.ReplayBuffer(
        20, STREAM_FIELDS, n_step=2, gamma=1.0, num_envs=3, autoreset=mode, seed=0
    )
    replay.add(**row(reward=np.array([1.0, 3e38, 2.0])))
    before = replay.stats()
    with pytest.raises(ValueError, match="reward"):
        replay.add(**row(reward=np.array([1.0, 3e38, 2.0])))
    assert replay.stats() == before
    ids = replay.add(**row(reward=np.array([1.0, -3e38, 2.0])))
    assert replay.get(ids).reward.tolist() == [2.0, 0.0, 4.0]


# --- final observations -----------------------------------------------------------------------


def objects(*rows):
    """Final observations as Gymnasium gives them."""
    array = np.full(len(rows), None, dtype=object)
    for k, final in enumerate(rows):
        array[k] = final
    return array


FINAL = np.array([7.0, 7.0], np.float32)
BAD_INFOS = {
    "no info": None,
    "an empty one": {},
    "no final_obs in it": {"lives": np.ones(3)},
    "the name of before": {"final_observation": objects(None, FINAL, None)},
    "None": {"final_obs": None},
    "None for all": {"final_obs": objects(None, None, None)},
    "another row's": {"final_obs": objects(FINAL, None, FINAL)},
    "masked out": {"final_obs": objects(None, FINAL, None), "_final_obs": ~ENDED},
    "masked out of a dense array": {"final_obs": THREE, "_final_obs": ~ENDED},
    "a mask of two": {"final_obs": objects(None, FINAL, None), "_final_obs": ENDED[:2]},
    "two rows": {"final_obs": objects(None, FINAL)},
    "four rows": {"final_obs": objects(None, FINAL, None, None)},
    "two dense rows": {"final_obs": TWO},
    "four dense rows": {"final_obs": np.zeros((4, 2))},
    "only those that ended": {"final_obs": FINAL[None]},
    "one without its axis": {"final_obs": FINAL},
    "of another shape": {"final_obs": objects(None, np.zeros(3), None)},
    "dense of another shape": {"final_obs": np.zeros((3, 3))},
    "one number": {"final_obs": np.array(255, np.uint8)},
    "a word": {"final_obs": objects(None, "end", None)},
    "a mapping": {"final_obs": {"image": THREE}},
    "infinite where finite": {"final_obs": objects(None, np.array([1e39, 0]), None)},
    "no mapping": [("final_obs", THREE)],
    "a number": 5,
}


@pytest.mark.parametrize("what", BAD_INFOS)
@pytest.mark.parametrize("flags", ["terminated", "truncated", "both"])
@pytest.mark.slow
def test_an_ended_episode_without_its_final_observation(flags, what):
    ends = {name: ENDED for name in ("terminated", "truncated") if flags in (name, "both")}
    require_unchanged(
        "same_step", lambda r: r.add(**row(**ends), info=BAD_INFOS[what]), r"final_obs|info"
    )


@pytest.mark.parametrize("ends", [[True, True, False], [True, True, True]])
def test_one_of_several_final_observations_is_missing(ends):
    info = {"final_obs": objects(FINAL, None, FINAL), "_final_obs": np.array([True, False, True])}
    require_unchanged(
        "same_step", lambda r: r.add(**row(terminated=np.array(ends)), info=info), "final_obs"
    )


def test_the_rows_of_info_are_those_of_the_call():
    """Not those of all environments."""
    good = {"final_obs": objects(FINAL, None)}
    wrong = {"final_obs": objects(None, None, FINAL)}
    for info in (wrong, {"final_obs": THREE}, {"final_obs": objects(None, FINAL)}):
        require_unchanged(
            "same_step",
            lambda r, info=info: r.add(
                **row(2, terminated=np.array([True, False])), env=[2, 0], info=info
            ),
            "final_obs",
        )
    pair = build("same_step")
    ids = pair.replay.add(**row(2, terminated=np.array([True, False])), env=[2, 0], info=good)
    assert pair.replay.get(ids[:1]).next_obs.tolist() == [[7.0, 7.0]]


def test_where_nothing_ended_no_final_observation_is_needed():
    for info in (None, {}, {"final_obs": objects(None, None, None)}, {"final_obs": THREE}):
        pair = build("same_step")
        pair.replay.add(**row(), info=info)


@pytest.mark.parametrize("mode", ["next_step", "disabled"])
def test_other_modes_do_not_look_into_info(mode):
    pair = build(mode)
    pair.replay.add(**row(terminated=ENDED), info={"final_obs": "anything"})


# --- a single stream --------------------------------------------------------------------------


@pytest.mark.parametrize("env", [0, 1, [0], [], np.array([0])], ids=repr)
@pytest.mark.parametrize("mode", [None, "next_step"])
def test_streams_are_not_named_where_there_is_one(mode, env):
    require_unchanged(mode, lambda r: r.add(**one(), env=env), "env", single=True)
    require_unchanged(mode, lambda r: r.end_episode(env), "env", single=True)


@pytest.mark.parametrize("what", ["obs", "action", "reward", "next_obs", "terminated", "tag"])
@pytest.mark.parametrize("mode", [None, "next_step"])
def test_rows_of_one_stream_have_no_axis_of_environments(mode, what):
    changes = {what: row(1)[what]}
    require_unchanged(mode, lambda r: r.add(**one(**changes)), what, single=True)


# --- what the buffer is made with -------------------------------------------------------------

BAD_OPTIONS = {
    "n_step 0": ({"n_step": 0}, "n_step"),
    "n_step negative": ({"n_step": -1}, "n_step"),
    "n_step a float": ({"n_step": 2.0}, "n_step"),
    "n_step a flag": ({"n_step": True}, "n_step"),
    "n_step None": ({"n_step": None}, "n_step"),
    "num_envs 0": ({"num_envs": 0, "autoreset": "disabled"}, "num_envs"),
    "num_envs negative": ({"num_envs": -2, "autoreset": "disabled"}, "num_envs"),
    "num_envs a float": ({"num_envs": 2.0, "autoreset": "disabled"}, "num_envs"),
    "num_envs a flag": ({"num_envs": True, "autoreset": "disabled"}, "num_envs"),
    "num_envs a list": ({"num_envs": [0, 1], "autoreset": "disabled"}, "num_envs"),
    "autoreset missing": ({"num_envs": 2}, "autoreset"),
    "autoreset missing for one": ({"num_envs": 1}, "autoreset"),
    "autoreset None": ({"num_envs": 2, "autoreset": None}, "autoreset"),
    "autoreset unknown": ({"num_envs": 2, "autoreset": "always"}, "autoreset"),
    "autoreset misspelt": ({"num_envs": 2, "autoreset": "nextstep"}, "autoreset"),
    "autoreset a flag": ({"num_envs": 2, "autoreset": True}, "autoreset"),
    "autoreset a list": ({"num_envs": 2, "autoreset": ["next_step", "disabled"]}, "autoreset"),
    "autoreset unknown, one stream": ({"autoreset": "sometimes"}, "autoreset"),
    "autoreset in the same step, one stream": ({"autoreset": "same_step"}, "autoreset"),
    "max_bytes 0": ({"max_bytes": 0}, "max_bytes"),
    "max_bytes negative": ({"max_bytes": -5}, "max_bytes"),
    "max_bytes a float": ({"max_bytes": 1e9}, "max_bytes"),
    "max_bytes a flag": ({"max_bytes": True}, "max_bytes"),
    "max_bytes a word": ({"max_bytes": "2GB"}, "max_bytes"),
    "gamma above 1": ({"gamma": 1.5, "n_step": 3}, "gamma"),
}


@pytest.mark.parametrize("what", BAD_OPTIONS)
def test_bad_options(what):
    options, message = BAD_OPTIONS[what]
    with pytest.raises(ValueError, match=message):
        per.ReplayBuffer(10, STREAM_FIELDS, **options)


def test_an_unknown_autoreset_mode_is_told_the_known_ones():
    with pytest.raises(ValueError, match="autoreset") as caught:
        per.ReplayBuffer(10, STREAM_FIELDS, num_envs=2, autoreset="always")
    for mode in (*MODES, "always"):
        assert mode in str(caught.value)


@pytest.mark.parametrize("axis", [3, -4, 1.0, True, "0", (0,), [0]], ids=repr)
def test_bad_axes_of_stacks(axis):
    with pytest.raises(ValueError, match="stack_axis"):
        per.Field((4, 24, 24), "uint8", stack_axis=axis)


def test_a_number_has_no_axis_to_stack_along():
    with pytest.raises(ValueError, match="stack_axis"):
        per.Field((), "uint8", stack_axis=0)


# --- images -----------------------------------------------------------------------------------

IMAGES = {
    "obs": per.Field((4, 24, 24), "uint8", stack_axis=0),
    "action": per.Field((), "int64"),
    "reward": per.Field((), "float32"),
}
BAD_IMAGES = {
    "a wrong shape": np.zeros((2, 4, 24, 23), np.uint8),
    "one environment": np.zeros((4, 24, 24), np.uint8),
    "channels last": np.zeros((2, 24, 24, 4), np.uint8),
    "floats": np.zeros((2, 4, 24, 24)),
    "out of range": np.full((2, 4, 24, 24), 256),
    "negative": np.full((2, 4, 24, 24), -1),
    "None": [None, None],
}


@pytest.mark.parametrize("what", BAD_IMAGES)
@pytest.mark.parametrize("n_step", [1, 3])
def test_bad_images(n_step, what):
    """Also the second of two observations, when the first has been looked at already."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (2, 40, 24, 24), np.uint8)
    replay = per.ReplayBuffer(
        7, IMAGES, n_step=n_step, gamma=0.5, num_envs=2, autoreset="disabled", seed=0
    )

    def step(t, **changes):
        good = {
            "obs": frames[:, t : t + 4], "action": [t, t], "reward": [1.0, 1.0],
            "next_obs": frames[:, t + 1 : t + 5], "terminated": np.zeros(2, bool),
        }  # fmt: skip
        return replay.add(**{**good, **changes})

    ids = []
    for t in range(16):
        before = replay.stats(), replay.nbytes
        for name in ("obs", "next_obs"):
            with pytest.raises(ValueError, match=name):
                step(t, **{name: BAD_IMAGES[what]})
        with pytest.raises(ValueError, match="action"):
            step(t, action=[0.5, 0.5])
        with pytest.raises(ValueError, match="td_error"):
            step(t, td_error=[1.0, NAN])
        assert (replay.stats(), replay.nbytes) == before
        ids += step(t).tolist()
    ids = ids[-7:]
    batch = replay.get(np.array(ids))
    for k, i in enumerate(ids):
        stream, t = i % 2, i // 2
        assert np.array_equal(batch.obs[k], frames[stream, t : t + 4])
        assert np.array_equal(batch.next_obs[k], frames[stream, t + n_step : t + n_step + 4])


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_final_observation_of_a_single_row(wrapped):
    """As it is, or the only object of an array."""
    replay = per.ReplayBuffer(
        10,
        {"obs": per.Field((2,)), "action": per.Field((), "int64"), "reward": per.Field()},
        num_envs=3,
        autoreset="same_step",
    )
    final = np.array([5.0, 6.0], np.float32)
    if wrapped:
        objects = np.empty(1, object)
        objects[0] = final
    info = {"final_obs": objects if wrapped else final}

    ids = replay.add([1.0, 2.0], 0, 1.0, [0.0, 0.0], True, env=1, info=info)

    np.testing.assert_array_equal(replay.get(ids).next_obs[0], final)
