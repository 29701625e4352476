"""Data sets of Minari: read into a buffer, written from one, and nothing lost on the way."""

import sys
import types
import warnings
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prioritized_replay as per
from prioritized_replay import replay as replay_module
from prioritized_replay.extras import install_command

gymnasium = pytest.importorskip("gymnasium")
minari = pytest.importorskip("minari")
spaces = gymnasium.spaces

BOX = spaces.Box(-10, 10, (3,), np.float32)
DISCRETE = spaces.Discrete(4)
IMAGE = spaces.Box(0, 255, (32, 40, 3), np.uint8)  # Minari's own files would have it as JPEG
SPACES = {
    "discrete actions": (BOX, DISCRETE),
    "continuous actions": (BOX, spaces.Box(-1, 1, (2,), np.float32)),
    "float64": (spaces.Box(-9, 9, (2, 3), np.float64), spaces.Box(-1, 1, (1,), np.float64)),
    "discrete observations": (spaces.Discrete(5), spaces.Discrete(3, start=-1)),
    "multi": (spaces.MultiBinary(4), spaces.MultiDiscrete([3, 5])),
    "image": (IMAGE, DISCRETE),
    "dict": (
        spaces.Dict({"image": IMAGE, "limb": spaces.Dict({"angle": BOX, "gear": DISCRETE})}),
        spaces.Dict({"arm": spaces.Box(-1, 1, (2,), np.float32), "mode": DISCRETE}),
    ),
    "tuple": (
        spaces.Tuple((BOX, spaces.Tuple((DISCRETE, spaces.MultiBinary(2))))),
        spaces.Tuple((DISCRETE, spaces.Box(-1, 1, (1,), np.float32))),
    ),
}
ENDS = [(True, False), (False, True), (True, True), (False, True), (True, False)]
INFOS = ["speed", "pose"]


def tree_map(function, tree, *rest):
    """jax.tree_util.tree_map, as far as Minari's collector needs it."""
    if isinstance(tree, dict):
        return {key: tree_map(function, tree[key], *(r[key] for r in rest)) for key in sorted(tree)}
    if isinstance(tree, (tuple, list)):
        parts = zip(tree, *rest, strict=True)
        return type(tree)(tree_map(function, *part) for part in parts)
    return function(tree, *rest)


@pytest.fixture(autouse=True)
def data_sets(tmp_path, monkeypatch):
    """A folder for data sets; and what the collector needs of jax, where there is no jax."""
    folder = tmp_path / "datasets"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    try:
        import jax  # noqa: F401
    except ImportError:
        trees = types.ModuleType("jax.tree_util")
        trees.tree_map = tree_map
        monkeypatch.setitem(sys.modules, "jax", types.ModuleType("jax"))
        monkeypatch.setitem(sys.modules, "jax.tree_util", trees)
    return folder


class Walk(gymnasium.Env):
    """Random observations; episodes of 2, 3, ... steps, which end in all ways in turn."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space
        observation_space.seed(1)
        action_space.seed(2)
        self.rng = np.random.default_rng(3)
        self.episode = -1

    def info(self):
        return {
            "speed": float(self.rng.normal()),
            "pose": {"x": self.rng.normal(size=2), "legs": int(self.rng.integers(5))},
        }

    def reset(self, *, seed=None, options=None):
        self.episode += 1
        self.left = 2 + self.episode
        return self.observation_space.sample(), self.info()

    def step(self, action):
        self.left -= 1
        ends = ENDS[self.episode % len(ENDS)] if not self.left else (False, False)
        return self.observation_space.sample(), float(self.rng.normal()), *ends, self.info()


def collected(observation_space, action_space, episodes=5, infos=False, name="walk-v0"):
    """What Minari's collector makes of some episodes and the beginning of another one."""
    env = minari.DataCollector(
        Walk(observation_space, action_space), record_infos=infos, jpeg_encoding=False
    )
    for episode in range(episodes + 1):
        env.reset()
        over = False
        while not over:
            *_, terminated, truncated, _ = env.step(action_space.sample())
            over = terminated or truncated or episode == episodes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata left out, and of its own temporary folder
        dataset = env.create_dataset(name)
    env._tmp_dir.cleanup()  # close() would remove the folder, and warn later that it is gone
    return dataset


def leaves(tree, path=""):
    if isinstance(tree, dict):
        return {k: v for key in tree for k, v in leaves(tree[key], f"{path}/{key}").items()}
    if isinstance(tree, tuple):
        return {k: v for i, part in enumerate(tree) for k, v in leaves(part, f"{path}/{i}").items()}
    return {path: np.asarray(tree)}


def assert_same(one, other):
    one, other = leaves(one), leaves(other)
    assert one.keys() == other.keys()
    for path, array in one.items():
        assert array.dtype == other[path].dtype, path
        np.testing.assert_array_equal(array, other[path], err_msg=path)


def rows(replay):
    """Every stored column of the rows that are there."""
    stats = replay.stats()
    issued = int(stats["ids_issued"])
    batch = replay.get(np.arange(issued - int(stats["size"]), issued))
    return {name: batch[name] for name in replay.fields}


def cut(tree, part):
    """The same part of every array of a tree."""
    if isinstance(tree, dict):
        return {key: cut(value, part) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(cut(value, part) for value in tree)
    return tree[part]


def added_one_by_one(dataset, infos, **options):
    """What a loop over the episodes of a data set makes, step by step."""
    fields = dict(per.ReplayBuffer.from_minari(dataset, infos=infos).fields)
    for name in ("next_obs", "discount", "terminated"):
        del fields[name]
    replay = per.ReplayBuffer(dataset.total_steps, fields, **options)
    for episode in dataset.iterate_episodes():
        for t in range(len(episode)):
            replay.add(
                cut(episode.observations, t), cut(episode.actions, t), episode.rewards[t],
                cut(episode.observations, t + 1), episode.terminations[t], episode.truncations[t],
                **{name: cut(episode.infos[name], t + 1) for name in infos},
            )  # fmt: skip
    return replay


# --- there and back ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_collector_buffer_export_buffer_loses_nothing(name):
    dataset = collected(*SPACES[name], infos=True)
    first = per.ReplayBuffer.from_minari(dataset, infos=INFOS)
    assert len(first) == first.capacity == dataset.total_steps == 21
    assert_same(rows(first), rows(added_one_by_one(dataset, INFOS)))

    written = first.to_minari(
        "copy-v0", observation_space=SPACES[name][0], action_space=SPACES[name][1]
    )
    assert (written.observation_space, written.action_space) == SPACES[name]
    assert len(written) == len(dataset) == 6
    for one, other in zip(dataset, written, strict=True):
        assert_same(one.observations, other.observations)
        assert_same(one.actions, other.actions)
        assert_same(one.rewards.astype(np.float32), other.rewards)
        assert_same(one.terminations, other.terminations)
        assert_same(one.truncations, other.truncations)
        assert other.infos.keys() == set(INFOS)
        for info in INFOS:
            assert_same(
                cut(one.infos[info], slice(1, None)), cut(other.infos[info], slice(1, None))
            )

    again = per.ReplayBuffer.from_minari("copy-v0", infos=INFOS)
    assert_same(rows(first), rows(again))


def test_large_stacks_of_frames_come_back_too():
    frames = np.random.default_rng(0).integers(0, 256, (9, 40, 40), np.uint8)
    stacks = np.stack([frames[t : t + 4] for t in range(6)])
    space = spaces.Box(0, 255, (4, 40, 40), np.uint8)
    replay = per.ReplayBuffer.for_spaces(space, DISCRETE, 10)
    for _ in range(2):
        replay.add_episode(stacks, [0, 1, 2, 3, 0], [1.0] * 5, False, True)
    dataset = replay.to_minari("stacks-v0", observation_space=space, action_space=DISCRETE)
    assert [len(episode) for episode in dataset] == [5, 5]
    assert_same(rows(per.ReplayBuffer.from_minari(dataset)), rows(replay))


@pytest.mark.parametrize("n_step", [1, 3])
def test_reading_makes_the_rows_of_adding_step_by_step(n_step):
    dataset = collected(BOX, DISCRETE)
    replay = per.ReplayBuffer.from_minari(
        dataset, sampler=per.RankBased(), n_step=n_step, gamma=0.5, seed=4
    )
    assert (replay.n_step, replay.gamma, replay.sampler) == (n_step, 0.5, per.RankBased())
    assert_same(rows(replay), rows(added_one_by_one(dataset, [], n_step=n_step, gamma=0.5)))
    assert replay.stats()["open_windows"] == 0


def test_a_part_of_a_data_set_and_a_smaller_capacity_keep_what_they_should():
    dataset = collected(BOX, DISCRETE)
    everything = rows(per.ReplayBuffer.from_minari(dataset))
    latest = per.ReplayBuffer.from_minari(dataset, 7)
    assert latest.capacity == 7
    assert len(per.ReplayBuffer.from_minari(dataset, 1)) == 1  # less than an episode
    assert_same(rows(latest), cut(everything, slice(-7, None)))
    long = dataset.filter_episodes(lambda episode: len(episode) == 4)
    assert_same(rows(per.ReplayBuffer.from_minari(long)), cut(everything, slice(5, 9)))


def test_a_buffer_of_several_streams_is_filled_and_goes_on():
    still = spaces.Box(0, 9, (1,), np.float32)
    replay = per.ReplayBuffer.for_spaces(still, DISCRETE, 4)
    for _ in range(2):  # the second begins where the first ended, as a reset step would
        replay.add_episode([[1.0], [1.0], [1.0]], [0, 1], [0.0, 0.0], False, True)
    dataset = replay.to_minari("still-v0", observation_space=still, action_space=DISCRETE)
    more = per.ReplayBuffer.from_minari(dataset, 10, num_envs=2, autoreset="next_step")
    assert_same(rows(more), rows(replay))
    ids = more.add(np.ones((2, 1)), [0, 1], [1.0, 2.0], np.ones((2, 1)), [False] * 2)
    assert ids.tolist() == [4, 5]
    with pytest.raises(ValueError, match="to_minari needs a single stream, got num_envs=2"):
        more.to_minari("more-v0", observation_space=still, action_space=DISCRETE)


def test_one_stream_with_a_leading_axis_is_written():
    replay = per.ReplayBuffer.for_spaces(BOX, DISCRETE, 9, num_envs=1, autoreset="disabled")
    for t in range(6):
        replay.add([[t] * 3], [t % 4], [1.0], [[t + 1] * 3], [False], [t == 2])
    dataset = replay.to_minari("one-v0", observation_space=BOX, action_space=DISCRETE)
    assert [len(episode) for episode in dataset] == [3, 3]


# --- where episodes end -----------------------------------------------------------------------

PLACE = spaces.Discrete(3)


def walked(steps, capacity=20, **options):
    """A buffer of steps (obs, next_obs, terminated, truncated); None ends the episode by hand."""
    replay = per.ReplayBuffer.for_spaces(PLACE, DISCRETE, capacity, **options)
    for step in steps:
        if step is None:
            replay.end_episode()
        else:
            replay.add(step[0], 0, 1.0, *step[1:])
    return replay


def ends(replay, name="ends-v0"):
    """Of every episode in an export: observations, whether terminated, whether truncated."""
    dataset = replay.to_minari(name, observation_space=PLACE, action_space=DISCRETE)
    for episode in dataset:
        assert not episode.terminations[:-1].any()
        assert not episode.truncations[:-1].any()
    return [
        (e.observations.tolist(), bool(e.terminations[-1]), bool(e.truncations[-1]))
        for e in dataset
    ]


STAY, LIMIT = (0, 0, False, False), (0, 0, False, True)


def test_time_limits_are_told_where_observations_do_not_show_them():
    expected = [([0, 0, 0], False, True), ([0, 0], False, True)]
    assert ends(walked([STAY, LIMIT, LIMIT])) == expected
    assert ends(walked([STAY, STAY, None, STAY, None, None]), "by-hand-v0") == expected
    episodes = per.ReplayBuffer.for_spaces(PLACE, DISCRETE, 5)
    episodes.add_episode([0, 0, 0], [0, 0], [1.0, 1.0], False, True)
    episodes.add_episode([0, 0], [0], [1.0], False, True)
    assert ends(episodes, "episodes-v0") == expected


def test_values_that_are_not_finite_come_back_too():
    """Whether they belong there is for the recorder to say; `add` does not ask either."""
    obs = np.arange(18, dtype=np.float32).reshape(6, 3)
    obs[2, 0], obs[3], obs[5, 1] = np.nan, np.inf, -np.inf
    replay = per.ReplayBuffer.for_spaces(BOX, DISCRETE, 20)
    for ended in (False, True):
        replay.add_episode(obs, np.zeros(5, int), [1.0, np.nan, 3.0, -np.inf, 1.0], ended, True)
    dataset = replay.to_minari("strange-v0", observation_space=BOX, action_space=DISCRETE)
    assert dataset.total_episodes == 2
    assert_same(rows(per.ReplayBuffer.from_minari(dataset)), rows(replay))


def test_time_limits_are_told_after_a_checkpoint(tmp_path):
    replay = walked([STAY, LIMIT, STAY])
    replay.save(tmp_path / "replay")
    replay.end_episode()  # of a row that is saved already
    replay.sample(8)  # marks of another kind
    replay.save(tmp_path / "replay")
    replay = per.ReplayBuffer.load(tmp_path / "replay")
    assert replay.stats()["never_drawn"] < 1.0
    replay.add(*STAY[:1], 0, 1.0, *STAY[1:])
    assert [obs for obs, *_ in ends(replay)] == [[0, 0, 0], [0, 0], [0, 0]]


def test_an_end_may_be_both():
    assert ends(walked([(0, 1, True, True), (1, 2, True, False)])) == [
        ([0, 1], True, True),
        ([1, 2], True, False),
    ]


def test_ending_by_hand_changes_no_episode_that_is_over():
    assert ends(walked([None, (0, 1, True, False), None])) == [([0, 1], True, False)]


def test_open_episodes_count_as_cut_off():
    forgotten = walked([(0, 1, False, False), (2, 1, False, False), (1, 0, False, False)])
    assert ends(forgotten) == [([0, 1], False, True), ([2, 1, 0], False, True)]


def test_the_oldest_episode_begins_where_rows_are_left():
    steps = [(0, 1, False, False), (1, 2, False, False), (2, 0, True, False), (1, 1, False, True)]
    assert ends(walked(steps, capacity=3)) == [([1, 2, 0], True, False), ([1, 1], False, True)]


def test_marks_of_rows_that_were_overwritten_are_gone():
    replay = walked([LIMIT] * 3 + [STAY] * 3, capacity=3)
    assert ends(replay) == [([0] * 4, False, True)]


STEPS = st.lists(
    st.one_of(st.none(), st.tuples(st.integers(0, 1), st.integers(0, 1), st.booleans(),
                                   st.booleans())),
    min_size=1, max_size=12,
)  # fmt: skip


@pytest.mark.slow
@given(
    steps=STEPS, capacity=st.integers(1, 6), at_once=st.booleans(), bytes_=st.sampled_from([1, 99])
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_episodes_are_those_that_were_added(steps, capacity, at_once, bytes_, data_sets):
    replay = per.ReplayBuffer.for_spaces(PLACE, DISCRETE, capacity)
    kept = []  # [obs, next_obs, terminated, truncated] of each row
    for step in steps:
        if step is None:
            replay.end_episode()
            if kept:
                kept[-1][3] |= not kept[-1][2]
            continue
        obs, next_obs, terminated, truncated = step
        if at_once:
            replay.add_episode([obs, next_obs], [0], [1.0], terminated, truncated)
        else:
            replay.add(obs, 0, 1.0, next_obs, terminated, truncated)
        kept.append(list(step))
    kept = kept[-capacity:]
    if not kept:
        return
    expected = []
    for k, (obs, next_obs, terminated, truncated) in enumerate(kept):
        before = kept[k - 1] if k else None
        if before is None or before[2] or before[3] or before[1] != obs:
            expected.append([[obs], False, False])
        expected[-1][0].append(next_obs)
        expected[-1][1:] = terminated, truncated
    for episode in expected:
        episode[2] |= not episode[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_module, "EXPORTED", bytes_)  # episodes lie across blocks of rows
        name = f"property{len(list(data_sets.glob('*')))}-v0"
        assert ends(replay, name) == [tuple(episode) for episode in expected]


# --- refused ----------------------------------------------------------------------------------


def nothing_left(folder):
    return not folder.exists() or not [path for path in folder.rglob("*") if path.is_file()]


def test_a_buffer_that_has_no_episodes_to_give_says_why(data_sets):
    def refused(replay, message, name="refused-v0", **options):
        options = {"observation_space": PLACE, "action_space": DISCRETE} | options
        with pytest.raises(ValueError, match=message):
            replay.to_minari(name, **options)
        assert nothing_left(data_sets)

    refused(walked([STAY], n_step=2), "to_minari needs n_step=1, got 2: the rewards of single")
    refused(walked([]), "to_minari needs at least one transition, got an empty buffer")
    mixed = walked([STAY])
    mixed.extend({"obs": [0], "action": [0], "reward": [1.0], "next_obs": [1], "discount": [0.9]})
    refused(mixed, r"one of extend, with the id 1$")
    good = walked([STAY])
    refused(good, "env must be given, or both", action_space=None)
    refused(good, r"observation_space must fit the buffer, where obs is Field\(shape=\(\), dtype="
            r"dtype\('int64'\)\), got Box", observation_space=BOX)  # fmt: skip
    refused(good, "action_space must fit the buffer, where action is", action_space=BOX)
    for name in ("no version", "noversion", "../up-v0", "", 3, None):
        refused(good, "dataset_id must be like 'namespace/name-v0'", name)
    assert len(ends(good)) == 1  # and still can


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ((per.Field(), per.Field()), r"Minari has no tuples, got one in more"),
        ({"a": {"b/c": per.Field()}}, r"needs keys without '/', got 'b/c' in more\['a'\]"),
    ],
)
def test_columns_that_minari_would_change_are_refused(column, message, data_sets):
    fields = {"obs": per.Field(), "action": per.Field(), "reward": per.Field(), "more": column}
    replay = per.ReplayBuffer(5, fields)
    value = (1.0, 2.0) if isinstance(column, tuple) else {"a": {"b/c": 1.0}}
    replay.add(0.0, 0.0, 1.0, 1.0, False, more=value)
    with pytest.raises(ValueError, match=message):
        replay.to_minari("columns-v0", env="Pendulum-v1")
    assert nothing_left(data_sets)


def test_a_taken_id_is_left_as_it_is():
    ends(walked([STAY, LIMIT]), "taken-v0")
    with pytest.raises(ValueError, match="dataset_id must be a new one, got 'taken-v0'"):
        ends(walked([STAY]), "taken-v0")
    assert minari.load_dataset("taken-v0").total_steps == 2


def test_metadata_that_minari_does_not_know_leaves_nothing(data_sets):
    with pytest.raises(TypeError, match="authr"):
        walked([STAY]).to_minari("x-v0", observation_space=PLACE, action_space=DISCRETE, authr="me")
    assert nothing_left(data_sets)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_export_that_is_ended_leaves_nothing(error, data_sets, monkeypatch):
    replay = walked([STAY, LIMIT, STAY])
    monkeypatch.setattr(replay_module, "EXPORTED", 1)
    block = replay._block

    def ended(first, stop):
        if first == 2:
            raise error
        return block(first, stop)

    monkeypatch.setattr(replay, "_block", ended)
    with pytest.raises(error):
        ends(replay)
    assert nothing_left(data_sets)


def test_rows_that_are_overwritten_meanwhile_end_the_export(data_sets, monkeypatch):
    replay = walked([STAY] * 3, capacity=3)
    monkeypatch.setattr(replay_module, "EXPORTED", 1)
    blocks = replay._blocks_in_order

    def slow():
        for block in blocks():
            yield block
            replay.add(0, 0, 1.0, 0, False)
            replay.add(0, 0, 1.0, 0, False)

    monkeypatch.setattr(replay, "_blocks_in_order", slow)
    with pytest.raises(RuntimeError, match="stay until they are written"):
        ends(replay)
    assert nothing_left(data_sets)


def test_an_export_changes_nothing_in_the_buffer(tmp_path):
    replay, twin = (walked([STAY, LIMIT, STAY], seed=3, sampler=per.RankBased()) for _ in "ab")
    ends(replay)
    assert replay.stats() == twin.stats()
    np.testing.assert_array_equal(replay.sample(9).ids, twin.sample(9).ids)


def test_rows_of_no_mass_are_written_too():
    replay = walked([STAY, LIMIT], sampler=per.Proportional(eps=0.0))
    replay.update_priorities([0, 1], [0.0, 0.0])
    assert len(ends(replay)) == 1


def test_environment_and_metadata_are_kept():
    env = gymnasium.make("CartPole-v1")
    replay = per.ReplayBuffer.for_env(env, 50)
    for seed in range(2):
        obs, _ = env.reset(seed=seed)
        over = False
        while not over:
            action = env.action_space.sample()
            next_obs, reward, terminated, truncated, _ = env.step(action)
            replay.add(obs, action, reward, next_obs, terminated, truncated)
            obs, over = next_obs, terminated or truncated
    dataset = replay.to_minari("cartpole/mine-v1", env=env, author="me", description="random")
    assert dataset.env_spec.id == "CartPole-v1"
    assert (dataset.observation_space, dataset.action_space) == (
        env.observation_space, env.action_space
    )  # fmt: skip
    assert dataset.storage.metadata["author"] == {"me"}
    assert dataset.recover_environment().spec.id == "CartPole-v1"
    by_name = replay.to_minari("cartpole/mine-v2", env="CartPole-v1")
    assert by_name.total_steps == dataset.total_steps == len(replay)
    with pytest.raises(ValueError, match="observation_space must fit the buffer"):
        replay.to_minari("cartpole/mine-v3", env="Pendulum-v1")
    assert "cartpole/mine-v3" not in minari.list_local_datasets()


def test_what_cannot_be_read_is_refused(tmp_path):
    read = per.ReplayBuffer.from_minari
    dataset = collected(BOX, DISCRETE, infos=True)
    with pytest.raises(FileNotFoundError, match=r"this machine \(walk-v0\), got 'wlak-v0': minari"):
        read("wlak-v0")
    for wrong in (None, 3, minari.MinariDataset, gymnasium.make("CartPole-v1")):
        with pytest.raises(ValueError, match=r"dataset must be a minari\.MinariDataset, or the id"):
            read(wrong)
    assert len(read(dataset, directory=tmp_path / "rows")) == 21
    with pytest.raises(ValueError, match="capacity must be an integer >= 1, got 0"):
        read(dataset, 0)
    with pytest.raises(ValueError, match="infos must name what every episode has, got 'sped': "):
        read(dataset, infos=["sped"])
    with pytest.raises(ValueError, match="infos must be a list of names, got 'speed'"):
        read(dataset, infos="speed")
    with pytest.raises(TypeError, match="samplr"):
        read(dataset, samplr=per.Uniform())
    with pytest.raises(ValueError, match="alpha must be"):
        read(dataset, sampler=per.Proportional(alpha=-1.0))
    with pytest.raises(ValueError, match="at least one step, got one without any"):
        read(dataset.filter_episodes(lambda episode: False), 10)


def duck(observation_space=BOX, action_space=DISCRETE, episodes=()):
    """A data set by its attributes alone."""
    return SimpleNamespace(
        observation_space=observation_space, action_space=action_space,
        total_steps=sum(len(episode.rewards) for episode in episodes) or 1,
        iterate_episodes=lambda: iter(episodes),
    )  # fmt: skip


def recorded(count=3, number=0, **change):
    values = {
        "id": number, "observations": np.zeros((count + 1, 3), np.float32),
        "actions": np.zeros(count, np.int64), "rewards": np.zeros(count),
        "terminations": np.zeros(count, bool), "truncations": np.zeros(count, bool), "infos": None,
    }  # fmt: skip
    return SimpleNamespace(**(values | change))


@pytest.mark.parametrize(
    "space", [spaces.Text(5), spaces.Sequence(BOX), spaces.Dict(a=spaces.Text(5))]
)
def test_spaces_without_shape_or_dtype_are_refused(space):
    with pytest.raises(ValueError, match=r"observation_space.* must have one shape and dtype, got"):
        per.ReplayBuffer.from_minari(duck(observation_space=space), 5)
    with pytest.raises(ValueError, match=r"action_space.* must have one shape and dtype, got"):
        per.ReplayBuffer.from_minari(duck(action_space=space), 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terminations": np.array([True, False, False])}, "terminated must be true in the last"),
        ({"observations": np.zeros((3, 3), np.float32)}, "obs has T = 3 rows"),
        ({"actions": np.zeros(3)}, "action must be of an integer dtype"),
    ],
)
def test_episodes_that_are_none_are_named(change, message):
    dataset = duck(episodes=[recorded(), recorded(number=17, **change)])
    with pytest.raises(ValueError, match=f"episode 17 of the data set: .*{message}"):
        per.ReplayBuffer.from_minari(dataset)


def test_infos_may_leave_out_that_of_the_reset():
    infos = {"speed": np.arange(3.0), "late": np.arange(4), "name": np.array(["a"] * 3)}
    dataset = duck(episodes=[recorded(infos=infos)])
    replay = per.ReplayBuffer.from_minari(dataset, infos=["speed", "late"])
    assert_same(rows(replay)["speed"], np.arange(3.0))
    assert_same(rows(replay)["late"], np.arange(1, 4))
    with pytest.raises(ValueError, match=r"infos\['name'\] cannot be a column: dtype must be"):
        per.ReplayBuffer.from_minari(dataset, infos=["name"])
    short = duck(episodes=[recorded(infos={"speed": np.arange(2.0)})])
    with pytest.raises(ValueError, match=r"infos\['speed'\] must have 3 or 4 rows, got 2"):
        per.ReplayBuffer.from_minari(short, infos=["speed"])


def test_episodes_that_have_no_end_do_not_go_on_in_the_next():
    dataset = duck(episodes=[recorded(), recorded(0), recorded(2)])
    replay = per.ReplayBuffer.from_minari(dataset, n_step=3, gamma=0.5)
    np.testing.assert_array_equal(rows(replay)["discount"], [0.125, 0.25, 0.5, 0.25, 0.5])
    single = per.ReplayBuffer.from_minari(dataset)
    written = single.to_minari("open-v0", observation_space=BOX, action_space=DISCRETE)
    assert [len(episode) for episode in written] == [3, 2]


def test_one_episode_at_a_time_is_in_memory():
    seen = []

    def episodes():
        for number in range(4):
            assert sum(reference() is not None for reference in seen) <= 1
            episode = recorded(number=number)
            seen.append(weakref.ref(episode.observations))
            yield episode

    dataset = duck()
    dataset.iterate_episodes, dataset.total_steps = episodes, 12
    assert len(per.ReplayBuffer.from_minari(dataset)) == 12
    assert len(seen) == 4


def test_without_minari_the_message_says_how_to_install_it(monkeypatch):
    replay = walked([STAY])
    monkeypatch.setitem(sys.modules, "minari", None)
    for call in (lambda: per.ReplayBuffer.from_minari("x-v0"), lambda: ends(replay)):
        with pytest.raises(ImportError) as caught:
            call()
        assert install_command("minari") in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(per.ReplayBuffer.from_minari(duck(episodes=[recorded()]))) == 3
