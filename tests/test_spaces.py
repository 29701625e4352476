"""Any observation and action space: stored as it is, sampled back in the same structure."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prioritized_replay as per

gymnasium = pytest.importorskip("gymnasium")
spaces = gymnasium.spaces

DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
]
DISCRETE = spaces.Discrete(4)


def box(shape=(2,), dtype="float32"):
    high = 1 if dtype == "bool" else 100
    return spaces.Box(0, high, shape, np.dtype(dtype).type)


NESTED = {
    "dict": spaces.Dict({"b": box((2, 3)), "a": spaces.Discrete(5, start=-2)}),
    "tuple": spaces.Tuple((box((), "int16"), spaces.MultiBinary(3))),
    "tuple of one": spaces.Tuple((box((2,), "uint8"),)),
    "dict of one": spaces.Dict({"only": spaces.MultiDiscrete([3, 4])}),
    "deep": spaces.Dict(
        {
            "image": box((20, 60), "uint8"),
            "limbs": spaces.Tuple(
                (
                    spaces.Dict({"angle": box((3,), "float64"), "touch": spaces.MultiBinary(2)}),
                    spaces.Dict({"angle": box((1,), "float16"), "gear": spaces.Discrete(3)}),
                )
            ),
            "goal": spaces.Dict({"xy": box((2,), "int32")}),
        }
    ),
    "names of columns": spaces.Dict({"obs": box(), "reward": box(()), "next_obs": box((3,))}),
    "odd names": spaces.Dict({"a b": box(), "2": box(()), "_x": box((3,)), "a.b": box((1,))}),
}


# --- trees ------------------------------------------------------------------------------------


def paths(tree, path=""):
    """Every leaf of a space, of fields, of values, by its path."""
    if hasattr(tree, "spaces"):
        tree = tree.spaces
    if isinstance(tree, dict):
        return {k: v for name in tree for k, v in paths(tree[name], f"{path}[{name!r}]").items()}
    if isinstance(tree, (tuple, list)):
        return {k: v for i, part in enumerate(tree) for k, v in paths(part, f"{path}[{i}]").items()}
    return {path: tree}


def structure(tree):
    """Where dictionaries and tuples are; leaves are None. The order of names does not matter."""
    if hasattr(tree, "spaces"):
        tree = tree.spaces
    if isinstance(tree, dict):
        return {name: structure(part) for name, part in tree.items()}
    if isinstance(tree, (tuple, list)):
        return tuple(map(structure, tree))
    return None


def stacked(trees):
    """One tree of arrays with a leading axis."""
    first = trees[0]
    if isinstance(first, dict):
        return {name: stacked([tree[name] for tree in trees]) for name in first}
    if isinstance(first, tuple):
        return tuple(stacked(parts) for parts in zip(*trees, strict=True))
    return np.array(trees)


def require_equal(batch, space, values):
    """`batch` has the structure and dtypes of the space and these values, one each row."""
    assert structure(batch) == structure(space)
    leaves, expected = paths(batch), paths(stacked(values))
    for path, part in paths(space).items():
        assert isinstance(leaves[path], np.ndarray), path
        assert leaves[path].dtype == part.dtype, path
        assert leaves[path].shape == (len(values), *part.shape), path
        assert np.array_equal(leaves[path], expected[path]), path


def draws(space, count, seed):
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def check(observations, actions, n_step=1, num_envs=None, count=9):
    """Add a truncated episode, and have all of it back."""
    replay = per.ReplayBuffer.for_spaces(
        observations, actions, 50, n_step=n_step, gamma=0.5, num_envs=num_envs,
        autoreset=num_envs and "disabled", seed=0,
    )  # fmt: skip
    per_stream = []
    for stream in range(num_envs or 1):
        obs, action = draws(observations, count + 1, stream), draws(actions, count, 10 + stream)
        per_stream.append((obs, action))
    ids = []
    for t in range(count):
        step = [(obs[t], action[t], obs[t + 1]) for obs, action in per_stream]
        last = t == count - 1
        if num_envs is None:
            obs, action, next_obs = step[0]
            ids.append(replay.add(obs, action, 1.0, next_obs, False, last))
        else:
            obs, action, next_obs = (stacked(parts) for parts in zip(*step, strict=True))
            flags = np.full(num_envs, last)
            ids.append(replay.add(obs, action, np.ones(num_envs), next_obs, ~flags & False, flags))
    batch = replay.get(np.concatenate(ids))
    assert len(batch) == count * (num_envs or 1)
    rows = {}
    for obs, action in per_stream:
        for t in range(count):
            rows.setdefault(len(rows), (obs[t], action[t], obs[min(t + n_step, count)]))
    order = _order(count, num_envs or 1, n_step)
    expected = [rows[stream * count + t] for stream, t in order]
    for name, space, k in (
        ("obs", observations, 0), ("action", actions, 1), ("next_obs", observations, 2),
    ):  # fmt: skip
        require_equal(batch[name], space, [row[k] for row in expected])
        require_equal(getattr(batch, name), space, [row[k] for row in expected])
    return replay


def _order(count, streams, n_step):
    """(stream, t) of the rows in the order of their ids."""
    order = [(s, t - n_step + 1) for t in range(n_step - 1, count - 1) for s in range(streams)]
    return order + [(s, t) for s in range(streams) for t in range(count - n_step, count)]


# --- single spaces ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (30, 50)], ids=str)
@pytest.mark.slow
def test_boxes_of_every_dtype(shape, dtype):
    for num_envs, n_step in ((None, 1), (2, 2)):
        replay = check(box(shape, dtype), box((2,), dtype), n_step, num_envs)
        field = replay.fields["obs"]
        assert (field.shape, field.dtype) == (shape, np.dtype(dtype))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(5),
        spaces.Discrete(5, start=-3),
        spaces.MultiDiscrete([3, 5, 2]),
        spaces.MultiDiscrete([3, 5], start=[-1, 10]),
        spaces.MultiDiscrete([[3, 5], [2, 2]]),
        spaces.MultiBinary(4),
        spaces.MultiBinary((2, 3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("n_step", [1, 3])
def test_discrete_spaces(n_step, space):
    for num_envs in (None, 3):
        replay = check(space, space, n_step, num_envs)
        assert replay.fields["obs"].dtype == space.dtype
    if isinstance(space, spaces.Discrete):
        assert replay.fields["action"].dtype == np.int64


def test_unbounded_and_one_sided_boxes():
    low = np.array([-np.inf, 0, -1], np.float32)
    check(spaces.Box(low, np.array([np.inf, np.inf, 1], np.float32)), DISCRETE)


# --- nested spaces ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("num_envs", [None, 2])
@pytest.mark.slow
def test_nested_observations_and_actions(num_envs, n_step, kind):
    space = NESTED[kind]
    check(space, DISCRETE, n_step, num_envs)
    check(box(), space, n_step, num_envs)
    replay = check(space, space, n_step, num_envs)
    assert structure(replay.fields["obs"]) == structure(space)
    assert structure(replay.fields["action"]) == structure(space)
    for name in ("obs", "action", "next_obs"):
        for path, part in paths(space).items():
            field = paths(replay.fields[name])[path]
            assert (field.shape, field.dtype) == (part.shape, part.dtype)


LEAVES = st.one_of(
    st.builds(
        box, st.lists(st.integers(1, 3), max_size=2).map(tuple), st.sampled_from(DTYPES)
    ),
    st.just(box((40, 40), "uint8")),
    st.builds(spaces.Discrete, st.integers(1, 9)),
    st.builds(spaces.MultiBinary, st.integers(1, 4)),
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.sampled_from("abcd"), parts, min_size=1, max_size=3).map(spaces.Dict),
    ),
    max_leaves=6,
)


@settings(max_examples=25)
@given(
    observations=TREES,
    actions=TREES,
    n_step=st.integers(1, 3),
    num_envs=st.sampled_from([None, 1, 2]),
)
def test_any_spaces(observations, actions, n_step, num_envs):
    check(observations, actions, n_step, num_envs, count=5)


def test_nested_fields_without_gymnasium():
    """Fields are nested mappings and tuples, of any kind of mapping, and so is what is added."""
    fields = {
        "obs": OrderedDict(image=per.Field((20, 60), "uint8"), pair=(per.Field((2,)), per.Field())),
        "action": (per.Field((), "int64"), per.Field((3,))),
        "reward": per.Field(),
        "core": {"h": per.Field((4,)), "c": per.Field((4,))},
    }
    replay = per.ReplayBuffer(10, fields, n_step=2, gamma=0.5)
    for k in range(5):
        obs, after = (
            OrderedDict(pair=[[i, i], i], image=np.full((20, 60), i, np.uint8)) for i in (k, k + 1)
        )
        core = {"c": np.full(4, -k), "h": np.full(4, k)}
        replay.add(obs, (k, np.full(3, k)), 1.0, after, k == 4, core=core)

    batch = replay.get(np.arange(5))

    assert batch.obs["image"][:, 3, 3].tolist() == [0, 1, 2, 3, 4]
    assert batch.next_obs["image"][:, 3, 3].tolist() == [2, 3, 4, 5, 5]
    assert batch["obs"]["pair"][0].tolist() == [[k, k] for k in range(5)]
    assert batch["next_obs"]["pair"][1].tolist() == [2, 3, 4, 5, 5]
    assert isinstance(batch.action, tuple)
    assert batch.action[0].tolist() == list(range(5))
    assert batch.action[1][:, 2].tolist() == list(range(5))
    assert batch.core["h"][:, 0].tolist() == list(range(5))
    assert batch["core"]["c"][:, 0].tolist() == [-k for k in range(5)]
    assert len(batch) == 5


@pytest.mark.parametrize("kind", NESTED)
def test_nested_columns_extend(kind):
    space = NESTED[kind]
    replay = per.ReplayBuffer.for_spaces(space, space, 12, seed=0)
    obs, action, following = (draws(space, 15, seed) for seed in (1, 2, 3))
    columns = {
        "obs": stacked(obs),
        "action": stacked(action),
        "reward": np.arange(15.0),
        "next_obs": stacked(following),
        "terminated": np.arange(15) % 2 == 0,
    }

    ids = replay.extend(columns)
    replay.extend({**columns, "obs": stacked(obs[::-1])})  # goes round
    live = replay.get(ids[-1:] + np.arange(4, 16))

    require_equal(live.obs, space, obs[::-1][3:])
    require_equal(live.action, space, action[3:])
    require_equal(live.next_obs, space, following[3:])
    assert live.reward.tolist() == list(range(3, 15))


@pytest.mark.parametrize("kind", NESTED)
def test_sampled_batches_have_the_structure_too(kind):
    space = NESTED[kind]
    replay = per.ReplayBuffer.for_spaces(space, space, 50, seed=0)
    obs = draws(space, 31, 4)
    for t in range(30):
        replay.add(obs[t], obs[t], float(t), obs[t + 1], False)
    replay.update_priorities(np.arange(30), np.ones(30))
    replay.update_priorities([3, 17, 29], [50.0, 100.0, 200.0])

    batch = replay.sample(16)

    t = batch.reward.astype(int)
    require_equal(batch.obs, space, [obs[i] for i in t])
    require_equal(batch.action, space, [obs[i] for i in t])
    require_equal(batch.next_obs, space, [obs[i + 1] for i in t])
    assert repr(batch).startswith("Batch(")
    assert set(batch) >= {"obs", "action", "next_obs", "reward", "weights", "ids"}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.slow
def test_tensors_keep_the_structure(kind):
    torch = pytest.importorskip("torch")
    space = NESTED[kind]
    replay = per.ReplayBuffer.for_spaces(space, space, 50, seed=0)
    obs = draws(space, 11, 5)
    for t in range(10):
        replay.add(obs[t], obs[t], 0.0, obs[t + 1], False)
    batch = replay.get(np.arange(10))

    for keep in (False, True):
        tensors = batch.to_torch(keep_float64=keep)
        for name in ("obs", "action", "next_obs"):
            assert structure(tensors[name]) == structure(space)
            for path, tensor in paths(tensors[name]).items():
                array = paths(batch[name])[path]
                assert isinstance(tensor, torch.Tensor)
                expected = array
                if array.dtype == np.float64 and not keep:
                    expected = array.astype(np.float32)
                assert np.array_equal(tensor.numpy(), expected)
                assert tensor.dtype == torch.from_numpy(expected.copy()).dtype
    whole = {path: array.copy() for path, array in paths(batch.next_obs).items()}
    tensors = batch.to_torch(columns=["obs"])
    assert list(tensors) == ["obs"]
    for tensor in paths(tensors.obs).values():
        tensor.zero_()  # it may be changed: neither the buffer nor next_obs sees it
    require_equal(replay.get(np.arange(10)).obs, space, obs[:10])
    for path, array in paths(batch.next_obs).items():
        assert np.array_equal(array, whole[path])
    meta = batch.to_torch(device="meta")
    assert all(tensor.device.type == "meta" for tensor in paths(meta.obs).values())


# --- errors -----------------------------------------------------------------------------------

DEEP = NESTED["deep"]


def without(tree, *keys):
    """A copy of a nested value without one entry, or with its last key changed to a value."""
    key, *rest = keys
    if isinstance(tree, tuple):
        return tuple(without(part, *rest) if i == key else part for i, part in enumerate(tree))
    if rest:
        return {**tree, key: without(tree[key], *rest)}
    return {name: part for name, part in tree.items() if name != key}


def changed(tree, value, *keys):
    key, *rest = keys
    new = changed(tree[key], value, *rest) if rest else value
    if isinstance(tree, tuple):
        return tuple(new if i == key else part for i, part in enumerate(tree))
    return {**tree, key: new}


WRONG = {
    "shape of an image": (
        lambda v: changed(v, np.zeros((60, 20), np.uint8), "image"),
        ["['image']", "(20, 60)", "(60, 20)"]),
    "shape of a deep leaf": (
        lambda v: changed(v, np.zeros(2), "limbs", 0, "angle"),
        ["['limbs'][0]['angle']", "(3,)", "(2,)"]),
    "no leading axis to drop": (
        lambda v: changed(v, np.zeros((1, 2), np.int32), "goal", "xy"), ["['goal']['xy']"]),
    "floats where integers are": (
        lambda v: changed(v, np.zeros(2), "goal", "xy"), ["['goal']['xy']", "int32"]),
    "an integer out of range": (
        lambda v: changed(v, np.full((20, 60), 256), "image"), ["['image']", "256"]),
    "None": (lambda v: changed(v, None, "limbs", 1, "gear"), ["['limbs'][1]['gear']"]),
    "missing": (lambda v: without(v, "image"), ["image"]),
    "missing below": (lambda v: without(v, "limbs", 1, "gear"), ["['limbs'][1]", "gear"]),
    "unknown": (lambda v: {**v, "sound": np.zeros(3)}, ["sound"]),
    "unknown below": (
        lambda v: changed(v, np.zeros(3), "goal", "z"), ["['goal']", "'z'|\\bz\\b"]),
    "a tuple too short": (lambda v: {**v, "limbs": v["limbs"][:1]}, ["['limbs']", "2", "1"]),
    "a tuple too long": (
        lambda v: {**v, "limbs": v["limbs"] * 2}, ["['limbs']", "2", "4"]),
    "an array where a dict is": (lambda v: {**v, "goal": np.zeros(2)}, ["['goal']"]),
    "a dict where a tuple is": (lambda v: {**v, "limbs": {0: 1, 1: 2}}, ["['limbs']"]),
    "a dict where an array is": (lambda v: {**v, "image": {"a": 1}}, ["['image']"]),
    "an array for all": (lambda v: np.zeros(3), []),
}  # fmt: skip


def require_error(call, name, parts):
    with pytest.raises(ValueError, match=name) as caught:
        call()
    for part in parts:
        options = [option.replace("\\b", "") for option in part.split("|")]
        assert any(option in str(caught.value) for option in options), (part, str(caught.value))


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("name", ["obs", "action", "next_obs"])
@pytest.mark.slow
def test_an_error_names_the_path_of_the_leaf(name, what):
    change, parts = WRONG[what]
    if parts:
        parts = [name + parts[0] if parts[0].startswith("[") else parts[0], *parts[1:]]
    replay = per.ReplayBuffer.for_spaces(DEEP, DEEP, 10, n_step=2, seed=0)
    vector = per.ReplayBuffer.for_spaces(
        DEEP, DEEP, 10, n_step=2, seed=0, num_envs=2, autoreset="disabled"
    )
    good = {"obs": draws(DEEP, 3, 0), "action": draws(DEEP, 3, 1), "next_obs": draws(DEEP, 3, 2)}
    one = {key: value[0] for key, value in good.items()}
    replay.add(**one, reward=1.0, terminated=False)
    replay.add(**one, reward=1.0, terminated=False)
    before = replay.stats(), replay.nbytes

    require_error(
        lambda: replay.add(**{**one, name: change(one[name])}, reward=0.0, terminated=True),
        name, parts,
    )  # fmt: skip
    assert (replay.stats(), replay.nbytes) == before
    require_equal(replay.get([0]).obs, DEEP, [one["obs"]])

    many = {key: stacked(value[:2]) for key, value in good.items()}
    wrong = change(one[name])
    if what not in ("None", "a dict where an array is", "a dict where a tuple is"):
        try:
            lead = stacked([wrong, wrong])
        except (ValueError, TypeError):
            return
        parts = [part for part in parts if not part.startswith("(")]
        require_error(
            lambda: vector.add(
                **{**many, name: lead}, reward=[0.0, 0.0], terminated=[True, True]),
            name, parts,
        )  # fmt: skip
        assert vector.stats()["ids_issued"] == vector.stats()["open_windows"] == 0
        require_error(
            lambda: replay.extend(
                {**many, name: lead, "reward": np.zeros(2), "discount": np.zeros(2)}),
            name, parts,
        )  # fmt: skip
        assert (replay.stats(), replay.nbytes) == before


def test_a_leaf_without_its_axis_of_environments():
    space = NESTED["dict"]
    replay = per.ReplayBuffer.for_spaces(
        space, DISCRETE, 10, num_envs=3, autoreset="disabled", seed=0
    )
    obs = stacked(draws(space, 3, 0))
    short = {**obs, "b": obs["b"][:2]}
    flags = np.zeros(3, bool)
    require_error(
        lambda: replay.add(short, [0, 1, 2], np.zeros(3), obs, flags),
        "obs", ["obs['b']", "(3, 2, 3)", "(2, 2, 3)"],
    )  # fmt: skip
    assert replay.stats()["ids_issued"] == 0


REFUSED = {
    "Text": spaces.Text(5),
    "Sequence": spaces.Sequence(box()),
    "Graph": spaces.Graph(box(), None),
    "OneOf": spaces.OneOf((box(), DISCRETE)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_spaces_without_fixed_shape_are_refused_by_name(kind):
    space = REFUSED[kind]
    with pytest.raises(ValueError, match=rf"observation_space.*{kind}"):
        per.ReplayBuffer.for_spaces(space, DISCRETE, 10)
    with pytest.raises(ValueError, match=rf"action_space.*{kind}"):
        per.ReplayBuffer.for_spaces(box(), space, 10)
    nested = spaces.Dict({"fine": box(), "not": spaces.Tuple((DISCRETE, space))})
    with pytest.raises(ValueError, match=kind) as caught:
        per.ReplayBuffer.for_spaces(nested, DISCRETE, 10)
    assert "observation_space['not'][1]" in str(caught.value)


@pytest.mark.parametrize(
    "space",
    [None, 5, "Box", box, spaces.Dict({}), spaces.Tuple(())],
    ids=lambda space: getattr(space, "__name__", repr(space)),
)
def test_what_is_no_space_is_refused(space):
    with pytest.raises(ValueError, match="observation_space"):
        per.ReplayBuffer.for_spaces(space, DISCRETE, 10)
    with pytest.raises(ValueError, match="action_space"):
        per.ReplayBuffer.for_spaces(box(), space, 10)


@pytest.mark.parametrize(
    "obs",
    [
        {},
        (),
        {"a": {}},
        {"a": per.Field(), "b": np.float32},
        {1: per.Field()},
    ],
    ids=repr,
)
def test_nested_fields_that_are_none(obs):
    fields = {"obs": obs, "action": per.Field((), "int64"), "reward": per.Field()}
    with pytest.raises(ValueError, match="obs"):
        per.ReplayBuffer(10, fields)


def test_a_reward_is_one_number():
    fields = {"obs": per.Field((2,)), "action": per.Field((), "int64")}
    for reward in ({"a": per.Field()}, (per.Field(),), per.Field((2,))):
        with pytest.raises(ValueError, match="reward"):
            per.ReplayBuffer(10, {**fields, "reward": reward})
