"""Real environments of Gymnasium and ALE, single and in vectors, in every autoreset mode.

The set of stored transitions must be exactly the true one: none lost, none twice, none across the
end of an episode. The truth comes from what the environments are scripted to do.
"""

from collections import Counter

import numpy as np
import pytest
from tests.reference import FIELDS, Step, window
from tests.reference_streams import GAMMA, ReferenceStreams

import prioritized_replay as per

gymnasium = pytest.importorskip("gymnasium")
spaces = gymnasium.spaces
vector, wrappers = gymnasium.vector, pytest.importorskip("gymnasium.wrappers")
Mode = vector.AutoresetMode

# Python 3.12 and later warn of threads beside a fork; the workers do nothing that minds
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

MODES = [Mode.NEXT_STEP, Mode.SAME_STEP, Mode.DISABLED]
NAMES = {
    Mode.NEXT_STEP: "next_step",
    Mode.SAME_STEP: "same_step",
    Mode.DISABLED: "disabled",
}
LENGTHS = (1, 3, 2, 5, 1, 4)
by_mode = pytest.mark.parametrize("mode", MODES, ids=NAMES.get)


# --- scripted environments --------------------------------------------------------------------


def script(plan, number, episode):
    """Length of an episode, and whether it ends in termination (else in truncation)."""
    turn = episode if plan == "together" else episode + 2 * number
    return (1 if plan == "one step" else LENGTHS[turn % len(LENGTHS)]), turn % 3 != 1


def state(number, episode, t, last_action):
    return np.array([number, episode, t, last_action], np.float32)


def reward_of(number, episode, t, action):
    return float((2 * number + 3 * episode + 5 * t + action) % 9 - 3)


SPACES = {
    "box": spaces.Box(-1, 1e4, (4,), np.float32),
    "dict": spaces.Dict(
        {
            "where": spaces.Box(-1, 1e4, (2,), np.float64),
            "clock": spaces.Discrete(100, start=-10),
            "rest": spaces.Tuple(
                (spaces.MultiDiscrete([1000, 1000]), spaces.Box(0, 255, (20, 60), np.uint8))
            ),
        }
    ),
    "tuple": spaces.Tuple(
        (
            spaces.Box(-1, 1e4, (4,), np.float16),
            spaces.Dict({"odd": spaces.MultiBinary(1), "clock": spaces.Discrete(100)}),
        )
    ),
}


def dressed(kind, values):
    """The four numbers of a state as an observation of a space."""
    if kind == "box":
        return values
    number, episode, t, last_action = values.astype(np.int64)
    if kind == "dict":
        image = np.full((20, 60), (11 * number + 7 * episode + t) % 256, np.uint8)
        return {
            "where": np.array([number, episode], np.float64),
            "clock": t - 10,
            "rest": (np.array([episode, last_action + 1]), image),
        }
    return (values.astype(np.float16), {"odd": np.array([t % 2], np.int8), "clock": t})


def flat(tree):
    """All numbers of an observation, in one tuple."""
    if isinstance(tree, dict):
        return sum((flat(tree[name]) for name in sorted(tree)), ())
    if isinstance(tree, tuple):
        return sum(map(flat, tree), ())
    return tuple(np.ravel(tree).tolist())


def row_of(tree, k):
    if isinstance(tree, dict):
        return {name: row_of(leaf, k) for name, leaf in tree.items()}
    return tuple(row_of(leaf, k) for leaf in tree) if isinstance(tree, tuple) else tree[k]


class Scripted(gymnasium.Env):
    """It ends when the script says; its observations say where it is and what was done last."""

    def __init__(self, number, plan="apart", kind="box"):
        self.number, self.plan, self.kind = number, plan, kind
        self.observation_space = SPACES[kind]
        self.action_space = spaces.Discrete(7)
        self.episode, self.t, self.last_action = -1, 0, -1

    def reset(self, *, seed=None, options=None):
        self.episode, self.t, self.last_action = self.episode + 1, 0, -1
        return self._observation(), {}

    def step(self, action):
        reward = reward_of(self.number, self.episode, self.t, int(action))
        self.t, self.last_action = self.t + 1, int(action)
        length, terminates = script(self.plan, self.number, self.episode)
        ended = self.t >= length
        info = {"t": self.t} if self.t % 2 else {}
        return self._observation(), reward, ended and terminates, ended and not terminates, info

    def _observation(self):
        return dressed(self.kind, state(self.number, self.episode, self.t, self.last_action))


def makers(count, plan="apart", kind="box"):
    return [lambda number=number: Scripted(number, plan, kind) for number in range(count)]


def truth(actions, mode, plan, kind, n_step):
    """Every true transition of these actions[calls, E], counted."""
    found = Counter()
    for number in range(actions.shape[1]):
        episode, t, last, steps, resetting = 0, 0, -1, [], False
        for action in actions[:, number].tolist():
            if resetting:
                resetting = False
                continue
            here, reward = state(number, episode, t, last), reward_of(number, episode, t, action)
            t, last = t + 1, action
            there = state(number, episode, t, last)
            steps.append(Step(dressed(kind, here), action, reward, dressed(kind, there)))
            length, terminates = script(plan, number, episode)
            if t == length:
                found.update(windows(steps, n_step, terminates))
                episode, t, last, steps = episode + 1, 0, -1, []
                resetting = mode == Mode.NEXT_STEP
        found.update(windows(steps, n_step, False))
    return found


def windows(steps, n_step, terminated):
    for start in range(len(steps)):
        row = window(steps, start, n_step, GAMMA, terminated)
        yield (
            flat(row["obs"]), row["action"], row["reward"], row["discount"],
            flat(row["next_obs"]), row["discount"] == 0,
        )  # fmt: skip


def stored(replay):
    """Every transition of the buffer, counted."""
    issued = replay.stats()["ids_issued"]
    batch = replay.get(np.arange(issued - len(replay), issued))
    return Counter(
        (
            flat(row_of(batch.obs, k)), int(batch.action[k]), float(batch.reward[k]),
            float(batch.discount[k]), flat(row_of(batch.next_obs, k)), bool(batch.terminated[k]),
        )
        for k in range(len(batch))
    )  # fmt: skip


def drive(envs, replay, calls, mode, count, keep=lambda obs: obs, change=lambda info: info):
    """The loop of every user; returns the actions."""
    actions = np.random.default_rng(5).integers(0, 7, (calls, count))
    obs, _ = envs.reset(seed=1)
    obs = keep(obs)
    for action in actions:
        next_obs, reward, terminated, truncated, info = envs.step(action)
        replay.add(obs, action, reward, next_obs, terminated, truncated, info=change(info))
        ended = terminated | truncated
        if mode == Mode.DISABLED and ended.any():
            next_obs, _ = envs.reset(options={"reset_mask": ended})
        obs = keep(next_obs)
    assert replay.stats()["open_windows"] <= count * replay.n_step
    replay.end_episode()
    assert replay.stats()["open_windows"] == 0
    return actions


def check(envs, mode, plan="apart", kind="box", n_step=3, calls=40, replay=None, **options):
    count = envs.num_envs
    try:
        if replay is None:
            replay = per.ReplayBuffer.for_env(envs, 500, n_step=n_step, gamma=GAMMA, seed=0)
        actions = drive(envs, replay, calls, mode, count, **options)
    finally:
        envs.close()
    assert stored(replay) == truth(actions, mode, plan, kind, n_step)
    if mode != Mode.NEXT_STEP:
        assert len(replay) == actions.size


# --- vectors of Gymnasium ---------------------------------------------------------------------


@by_mode
@pytest.mark.parametrize("n_step", [1, 2, 3, 5])
@pytest.mark.parametrize("plan", ["apart", "together", "one step"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.slow
def test_a_vector_in_one_process(count, plan, n_step, mode):
    envs = vector.SyncVectorEnv(makers(count, plan), autoreset_mode=mode)
    check(envs, mode, plan, n_step=n_step)


@by_mode
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("kind", ["dict", "tuple"])
@pytest.mark.slow
def test_nested_observations(kind, n_step, mode):
    envs = vector.SyncVectorEnv(makers(3, kind=kind), autoreset_mode=mode)
    check(envs, mode, kind=kind, n_step=n_step)


@by_mode
@pytest.mark.parametrize("kind", ["box", "dict"])
@pytest.mark.parametrize("shared_memory", [True, False])
@pytest.mark.slow
def test_a_vector_of_processes(shared_memory, kind, mode):
    envs = vector.AsyncVectorEnv(
        makers(2, kind=kind), shared_memory=shared_memory, autoreset_mode=mode
    )
    check(envs, mode, kind=kind)


@by_mode
def test_a_vector_that_writes_into_the_same_arrays(mode):
    """Without copies `next_obs` is the same array at every step; here the caller copies."""
    envs = vector.SyncVectorEnv(makers(3), copy=False, autoreset_mode=mode)
    check(envs, mode, replay=without_env(envs, mode, n_step=3, gamma=GAMMA), keep=np.copy)


def without_env(envs, mode, **options):
    """A buffer that was not told that its environments hand out the same arrays."""
    spaces = envs.single_observation_space, envs.single_action_space
    return per.ReplayBuffer.for_spaces(
        *spaces, 500, num_envs=envs.num_envs, autoreset=NAMES[mode], seed=0, **options
    )


SAME_ARRAYS = {
    "sync": lambda kind, mode: vector.SyncVectorEnv(
        makers(2, kind=kind), copy=False, autoreset_mode=mode
    ),
    "async": lambda kind, mode: vector.AsyncVectorEnv(
        makers(2, kind=kind), copy=False, autoreset_mode=mode
    ),
    "async, pipes": lambda kind, mode: vector.AsyncVectorEnv(
        makers(2, kind=kind), copy=False, shared_memory=False, autoreset_mode=mode
    ),
    "wrapped": lambda kind, mode: wrappers.vector.RecordEpisodeStatistics(
        wrappers.vector.TransformReward(
            vector.SyncVectorEnv(makers(2, kind=kind), copy=False, autoreset_mode=mode),
            lambda reward: reward,
        )
    ),
}


@by_mode
@pytest.mark.parametrize("kind", ["box", "dict", "tuple"])
@pytest.mark.parametrize("make", SAME_ARRAYS.values(), ids=SAME_ARRAYS.keys())
@pytest.mark.slow
def test_the_same_array_again_is_never_stored_in_silence(make, kind, mode):
    envs = make(kind, mode)
    try:
        with pytest.raises(
            ValueError, match=r"^env must hand out new arrays .* copy=False.*: make it with copy"
        ):
            per.ReplayBuffer.for_env(envs, 500)
        for n_step in (1, 3):
            replay = without_env(envs, mode, n_step=n_step)
            with pytest.raises(ValueError, match=r"^obs.* and next_obs.* must be two arrays.*copy"):
                drive(envs, replay, 40, mode, 2)
            assert len(replay) <= 2  # of the first call, which proves nothing
    finally:
        envs.close()


class InPlace(gymnasium.Env):
    """It moves its state in place and returns it."""

    observation_space = spaces.Box(-1, 1e4, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.state = np.zeros(2, np.float32)
        return self.state, {}

    def step(self, action):
        self.state += action
        return self.state, 1.0, False, False, {}


@pytest.mark.parametrize("n_step", [1, 3])
def test_one_environment_that_returns_its_state_itself(n_step):
    env = InPlace()
    replay = per.ReplayBuffer.for_env(env, 100, n_step=n_step)
    obs, _ = env.reset()
    replay.add(obs, 0, 1.0, env.step(0)[0], False)  # it led nowhere
    next_obs = env.step(1)[0]

    for _ in range(2):  # the call that was refused has changed nothing, so the next one is too
        with pytest.raises(ValueError, match=r"^obs and next_obs must be two arrays"):
            replay.add(obs, 1, 1.0, next_obs, False)
    replay.add(obs.copy(), 1, 1.0, env.step(1)[0], False)
    replay.end_episode()

    assert replay.stats()["ids_issued"] == 2
    np.testing.assert_array_equal(replay.get([0, 1]).obs, [[0, 0], [1, 1]])


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("num_envs", [None, 3])
def test_a_part_of_observations_may_be_overwritten_between_episodes(num_envs, n_step):
    """A goal that is one array in all steps, and gets other numbers when an episode is over."""
    field, random = per.Field((2,)), np.random.default_rng(0)
    fields = {"obs": {"state": field, "goal": field}, "action": per.Field(), "reward": per.Field()}
    mode, lead = (None, ()) if num_envs is None else ("disabled", (num_envs,))
    replay = per.ReplayBuffer(1000, fields, n_step=n_step, num_envs=num_envs, autoreset=mode)
    goal, number = np.zeros((*lead, 2), np.float32), np.zeros(lead)
    for step in range(60):
        ended = random.random(lead) < 0.3
        terminated = ended & (random.random(lead) < 0.5)
        state = np.concatenate([goal, goal], -1)[..., :2]
        replay.add(
            {"state": state, "goal": goal}, number, number, {"state": state.copy(), "goal": goal},
            terminated, ended & ~terminated,
        )  # fmt: skip
        if step == 50:
            replay.end_episode()
        goal[ended | (step == 50)] = step

    replay.end_episode()
    batch = replay.get(np.arange(len(replay)))
    assert len(replay) == 60 * number.size
    np.testing.assert_array_equal(batch.obs["goal"], batch.obs["state"])

    goal[...] = -1.0
    obs = {"state": goal.copy(), "goal": goal}
    replay.add(obs, number, number, obs, number > 0)
    goal[..., -1] += 1.0  # in the middle of an episode
    with pytest.raises(ValueError, match=r"^obs\['goal'\] and next_obs\['goal'\] must be two"):
        replay.add(obs, number, number, obs, number > 0)


def test_a_step_may_lead_nowhere_and_observations_may_be_looked_up():
    """As against a wall: the same row of a table is both observations."""
    table = np.eye(4, dtype=np.float32)
    rows = list(table)
    field = per.Field((4,))
    fields = {"obs": {"a": field, "b": field}, "action": per.Field((), "int64")}
    replay = per.ReplayBuffer(100, {**fields, "reward": per.Field()}, seed=0)
    plain = per.ReplayBuffer(100, {**fields, "obs": field, "reward": per.Field()}, seed=0)
    vectors = per.ReplayBuffer(
        100, {**fields, "obs": field, "reward": per.Field()}, num_envs=4, autoreset="disabled"
    )
    for place in (0, 0, 1, 1, 0, 2, 2, 2):
        obs = {"a": rows[place], "b": rows[place]}
        replay.add(obs, 0, 0.0, obs, False)
        plain.add(rows[place], 0, 0.0, rows[place], False)
        vectors.add(table, np.zeros(4, int), np.zeros(4), table, np.zeros(4, bool))
    scratch = np.zeros(4, np.float32)
    for value in range(3):  # where every step terminates, nobody looks at next_obs
        scratch[:] = value
        plain.add(scratch, 0, 0.0, scratch, True)
        assert len(plain) == 9 + value

    assert len(replay) == 8
    assert len(vectors) == 32


NO_ENVIRONMENTS = {
    "'CartPole-v1'": lambda: "CartPole-v1",
    "None": lambda: None,
    "<class '.*Scripted'>": lambda: Scripted,
    "<function .*": lambda: makers(1)[0],
    r"Box\(": lambda: SPACES["box"],
    r"EnvSpec\(": lambda: gymnasium.spec("CartPole-v1"),
    "3": lambda: 3,
}


@pytest.mark.parametrize(("shown", "make"), NO_ENVIRONMENTS.items())
def test_what_is_no_environment_is_refused_as_what_it_is(shown, make):
    with pytest.raises(
        ValueError, match=rf"^env must be an environment.*gymnasium\.make\(.*, got {shown}"
    ):
        per.ReplayBuffer.for_env(make(), 100)


def test_an_id_in_the_place_of_an_environment_is_put_into_the_call_to_make():
    with pytest.raises(ValueError, match=r"as gymnasium\.make\('CartPole-v1'\) returns it"):
        per.ReplayBuffer.for_env("CartPole-v1", 100)


def test_what_is_no_space_is_refused_with_the_way_to_get_one():
    space = spaces.Discrete(2)
    for wrong in ("CartPole-v1", Scripted(0), None):
        with pytest.raises(ValueError, match=r"^observation_space must .*env\.observation_space"):
            per.ReplayBuffer.for_spaces(wrong, space, 100)
        with pytest.raises(ValueError, match=r"^action_space must .*env\.action_space, got"):
            per.ReplayBuffer.for_spaces(space, wrong, 100)


@pytest.mark.parametrize("kind", ["box", "dict", "tuple"])
def test_final_observations_in_dense_arrays(kind):
    """As ALE gives them: a row for each environment, whatever it holds where none ended."""
    envs = vector.SyncVectorEnv(makers(3, kind=kind), autoreset_mode=Mode.SAME_STEP)
    empty = dressed(kind, state(99, 99, 99, 5))

    def stack(rows):
        if isinstance(rows[0], dict):
            return {name: stack([row[name] for row in rows]) for name in rows[0]}
        if isinstance(rows[0], tuple):
            return tuple(map(stack, zip(*rows, strict=True)))
        return np.array(rows)

    def change(info):
        rows = info.get("final_obs", [None] * 3)
        return {"final_obs": stack([empty if row is None else row for row in rows])}

    check(envs, Mode.SAME_STEP, kind=kind, change=change)


@by_mode
def test_the_mode_is_read_through_wrappers(mode):
    envs = vector.SyncVectorEnv(makers(3), autoreset_mode=mode)
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)

    class Plain(vector.VectorWrapper):
        """A wrapper that says nothing of its own."""

    check(Plain(Plain(envs)), mode)


def test_a_mode_given_must_be_the_environments_own():
    envs = vector.SyncVectorEnv(makers(2), autoreset_mode=Mode.SAME_STEP)
    same = per.ReplayBuffer.for_env(envs, 10, autoreset="same_step")
    assert len(same) == 0
    for wrong in ("next_step", "disabled"):
        with pytest.raises(ValueError, match="autoreset"):
            per.ReplayBuffer.for_env(envs, 10, autoreset=wrong)
    envs.close()


class Silent(vector.VectorEnv):
    """A vector environment that does not say how it resets."""

    num_envs = 2
    single_observation_space = SPACES["box"]
    single_action_space = spaces.Discrete(7)
    observation_space = vector.utils.batch_space(SPACES["box"], 2)
    action_space = vector.utils.batch_space(spaces.Discrete(7), 2)

    def __init__(self):
        self.metadata = {}


def test_a_mode_that_is_not_known_must_be_given():
    with pytest.raises(ValueError, match="autoreset"):
        per.ReplayBuffer.for_env(Silent(), 10)
    for mode in NAMES.values():
        replay = per.ReplayBuffer.for_env(Silent(), 10, autoreset=mode)
        one, no = np.zeros((2, 4), np.float32), np.zeros(2, bool)
        assert replay.add(one, [0, 1], [0.0, 0.0], one, no, no).size == 2


def test_for_env_takes_the_options_of_the_class():
    envs = vector.SyncVectorEnv(makers(2))
    replay = per.ReplayBuffer.for_env(
        envs, 10, sampler=per.RankBased(), n_step=2, gamma=0.25, seed=1, max_bytes=10**8
    )
    envs.close()
    assert isinstance(replay.sampler, per.RankBased)
    assert (replay.capacity, replay.n_step, replay.gamma) == (10, 2, 0.25)
    assert replay.fields["obs"] == per.Field((4,), "float32")
    assert replay.fields["action"] == per.Field((), "int64")


def test_a_subset_of_a_vector():
    """The rows of some environments by their numbers, each with final observations of its own."""
    actions = np.random.default_rng(5).integers(0, 7, (40, 3))
    for mode in MODES:
        envs = vector.SyncVectorEnv(makers(3), autoreset_mode=mode)
        replay = per.ReplayBuffer.for_env(envs, 500, n_step=3, gamma=GAMMA)
        obs, _ = envs.reset()
        for k, action in enumerate(actions):
            next_obs, *rest, info = envs.step(action)
            order = np.random.default_rng(k).permutation(3)
            for part in (order[:2], order[2:]):
                finals = [name for name in info if name.endswith("final_obs")]
                some = {name: info[name][part] for name in finals}
                replay.add(
                    obs[part], action[part], rest[0][part], next_obs[part], rest[1][part],
                    rest[2][part], env=part, info=some,
                )  # fmt: skip
            ended = rest[1] | rest[2]
            if mode == Mode.DISABLED and ended.any():
                next_obs, _ = envs.reset(options={"reset_mask": ended})
            obs = next_obs
        envs.close()
        replay.end_episode()
        assert stored(replay) == truth(actions, mode, "apart", "box", 3)


@pytest.mark.parametrize("name", ["CartPole-v1"])
@pytest.mark.parametrize("way", ["sync", "vector_entry_point"])
def test_environments_of_gymnasium(name, way):
    """The vector of its own that Gymnasium has for it, too."""
    envs = gymnasium.make_vec(name, num_envs=3, vectorization_mode=way)
    replay = per.ReplayBuffer.for_env(envs, 2000, n_step=3, gamma=GAMMA)
    envs.action_space.seed(0)
    calls = record(envs, replay, 150, lambda obs: envs.action_space.sample())
    compare(replay, calls, Mode.NEXT_STEP, 3)


# --- single environments ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("outside", [False, True])
def test_one_environment_that_resets_itself(outside, n_step, kind):
    """Gymnasium's Autoreset wrapper, also below another one."""
    env = gymnasium.wrappers.Autoreset(Scripted(0, kind=kind))
    if outside:
        env = gymnasium.wrappers.TransformReward(env, lambda reward: reward)
    replay = per.ReplayBuffer.for_env(env, 100, n_step=n_step, gamma=GAMMA)
    actions = np.random.default_rng(5).integers(0, 7, 40)
    obs, _ = env.reset()
    for action in actions:
        next_obs, reward, terminated, truncated, info = env.step(action)
        replay.add(obs, action, reward, next_obs, terminated, truncated, info=info)
        obs = next_obs
    replay.end_episode()

    assert stored(replay) == truth(actions[:, None], Mode.NEXT_STEP, "apart", kind, n_step)
    with pytest.raises(ValueError, match="autoreset"):
        per.ReplayBuffer.for_env(env, 100, autoreset="disabled")


def test_the_wrapper_that_resets_may_have_heirs():
    class Heir(gymnasium.wrappers.Autoreset):
        """It resets in the same way."""

    replay = per.ReplayBuffer.for_env(Heir(Scripted(0)), 10)
    obs = np.zeros(4)
    assert replay.add(obs, 0, 0.0, obs, True).size == 1
    assert replay.add(obs, 0, 0.0, obs, False).size == 0
    assert replay.add(obs, 0, 0.0, obs, False).size == 1


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("n_step", [1, 3])
def test_one_environment_that_the_user_resets(n_step, kind):
    env = Scripted(0, kind=kind)
    replay = per.ReplayBuffer.for_env(env, 100, n_step=n_step, gamma=GAMMA)
    actions = np.random.default_rng(5).integers(0, 7, 40)
    obs, _ = env.reset()
    for action in actions:
        next_obs, reward, terminated, truncated, info = env.step(action)
        replay.add(obs, action, reward, next_obs, terminated, truncated, info=info)
        obs = env.reset()[0] if terminated or truncated else next_obs
    replay.end_episode()

    assert stored(replay) == truth(actions[:, None], Mode.DISABLED, "apart", kind, n_step)


# --- ALE's own vector environment -------------------------------------------------------------


def record(envs, replay, steps, policy):
    """The loop of every user, and all that it gave to the buffer."""
    calls = []
    obs, _ = envs.reset(seed=3)
    for _ in range(steps):
        action = policy(obs)
        next_obs, reward, terminated, truncated, info = envs.step(action)
        replay.add(obs, action, reward, next_obs, terminated, truncated, info=info)
        final = info.get("final_obs")
        given = (obs, action, reward, next_obs, terminated, truncated)
        calls.append((None, [np.array(x) for x in given], None if final is None else final.copy()))
        obs = next_obs
    envs.close()
    return calls


def compare(replay, calls, mode, count):
    """Every row is what whole episodes say, bit for bit."""
    twin = ReferenceStreams(replay.capacity, count, n_step=replay.n_step)
    resetting = np.zeros(count, bool)
    ends = 0
    for streams, (obs, action, reward, next_obs, terminated, truncated), final in calls:
        streams = range(count) if streams is None else streams
        steps = []
        for k, stream in enumerate(streams):
            ended = terminated[k] or truncated[k]
            there = final[k] if ended and mode == Mode.SAME_STEP else next_obs[k]
            if resetting[stream]:
                assert not ended
                steps.append(None)
            else:
                steps.append(Step(obs[k], int(action[k]), float(reward[k]), there))
            resetting[stream] = ended and mode == Mode.NEXT_STEP
            ends += ended
        twin.add(streams, steps, list(zip(terminated, truncated, strict=True)))
    replay.end_episode()
    twin.end_episode()
    assert ends >= 3
    issued = replay.stats()["ids_issued"]
    assert issued == twin.table.next_id
    batch = replay.get(np.arange(issued - len(replay), issued))
    for name in ("obs", "next_obs", "action", "reward", "discount"):
        expected = np.array([row[name] for row in twin.rows.values()]).astype(batch[name].dtype)
        assert np.array_equal(batch[name], expected), name


def atari(mode, **options):
    ale = pytest.importorskip("ale_py")
    settings = {
        "img_height": 32, "img_width": 36, "noop_max": 3, "num_threads": 1, "frameskip": 8,
        "max_num_frames_per_episode": 160, "autoreset_mode": mode, **options,
    }  # fmt: skip
    return ale.AtariVectorEnv("breakout", 3, **settings)


@pytest.mark.parametrize("mode", MODES[:2], ids=NAMES.get)
@pytest.mark.parametrize(
    "options", [{}, {"grayscale": False, "stack_num": 2, "episodic_life": True}], ids=str
)
@pytest.mark.slow
def test_atari(options, mode):
    """Images that are shared, rewards that are int32, final observations that are dense."""
    envs = atari(mode, **options)
    replay = per.ReplayBuffer.for_env(envs, 100, n_step=3, gamma=GAMMA)
    rng = np.random.default_rng(0)

    calls = record(envs, replay, 45, lambda obs: rng.integers(0, 4, 3))

    compare(replay, calls, mode, 3)
    assert not replay.sample(4).obs.flags.writeable


@pytest.mark.parametrize("mode", MODES[:2], ids=NAMES.get)
@pytest.mark.slow
def test_atari_that_returns_a_subset(mode):
    """With `batch_size` it hands out those that are ready, and says which."""
    envs = atari(mode, batch_size=2)
    replay = per.ReplayBuffer.for_env(envs, 150, n_step=2, gamma=GAMMA)
    rng = np.random.default_rng(0)
    last = [None] * 3
    calls = []
    obs, info = envs.reset(seed=3)
    rest = []
    for _ in range(70):
        streams = info["env_id"]
        if rest:
            reward, terminated, truncated = rest
            known = [i for i, stream in enumerate(streams) if last[stream] is not None]
            ids = streams[known]
            given = [
                np.array([last[i][0] for i in ids]).reshape(-1, *obs.shape[1:]),
                np.array([last[i][1] for i in ids], np.int64),
                *(column[known].copy() for column in (reward, obs, terminated, truncated)),
            ]
            final = info.get("final_obs")
            some = {} if final is None else {"final_obs": final[known].copy()}
            replay.add(*given, env=ids, info=some)
            calls.append((ids.tolist(), given, some.get("final_obs")))
        action = rng.integers(0, 4, len(streams))
        for i, stream in enumerate(streams):
            last[stream] = obs[i].copy(), action[i]
        envs.send(action)
        obs, *rest, info = envs.recv()
    envs.close()

    compare(replay, calls, mode, 3)


def test_the_mode_may_be_a_member_of_gymnasiums_enumeration():
    replay = per.ReplayBuffer(
        10, FIELDS, num_envs=2, autoreset=gymnasium.vector.AutoresetMode.SAME_STEP
    )
    assert replay.autoreset == "same_step"


def test_vector_environments_of_another_kind_are_refused_by_name():
    class OtherVector:
        num_envs = 2
        observation_space = action_space = gymnasium.spaces.Discrete(3)

    with pytest.raises(ValueError, match=r"env must be .* single_observation_space: OtherVector"):
        per.ReplayBuffer.for_env(OtherVector(), 10)
