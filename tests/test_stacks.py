"""Stacks of frames are found in wrappers and in data, and nothing else is taken for one."""

import numpy as np
import pytest
from tests.reference_frames import GOOD, Stream

from prioritized_replay.fields.field import Field
from prioritized_replay.storage.frame_stacks import UNDECIDED, shifted_axis
from prioritized_replay.streams.environments import stack_axis_of


def step_of(*frames, axis=0):
    obs, next_obs = np.stack(frames[:-1], axis), np.stack(frames[1:], axis)
    return obs, next_obs


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (40, 84, 84), dtype=np.uint8)


@pytest.mark.parametrize("count", [2, 4, 10])
def test_a_shifted_stack_is_found_along_any_axis(frames, count):
    assert shifted_axis(*step_of(*frames[: count + 1])) == 0
    assert shifted_axis(*step_of(*frames[: count + 1], axis=-1)) == 2
    assert shifted_axis(*step_of(*frames[: count + 1], axis=1)) == 1
    floats = frames[: count + 1].astype(np.float32)
    floats[0] = np.nan
    assert shifted_axis(*step_of(*floats)) == 0


def test_one_changed_number_is_enough_to_deny_a_stack(frames):
    obs, next_obs = step_of(*frames[:5])
    next_obs[2, 83, 83] ^= 1
    assert shifted_axis(obs, next_obs) is None


@pytest.mark.parametrize("padding", ["repeat", "zero"])
def test_stacks_that_begin_an_episode_are_found_before_they_are_full(padding):
    """Where all frames are one, nothing can be told; the step after it tells."""
    stream = Stream(Field((4, 84, 84), "uint8", 0), np.random.default_rng(0))
    first, second = (shifted_axis(*stream.step(kind)) for kind in (padding, "shift"))
    assert first == (UNDECIDED if padding == "repeat" else 0)
    assert second == 0


def test_what_does_not_move_decides_nothing(frames):
    still = np.repeat(frames[:1], 4, axis=0)
    assert shifted_axis(still, still) is UNDECIDED
    assert shifted_axis(still, np.stack([*still[1:], frames[7]])) is UNDECIDED
    assert shifted_axis(frames[:4], frames[:4]) is None
    assert shifted_axis(np.zeros((4, 8, 8)), np.zeros((4, 8, 8))) is UNDECIDED


@pytest.mark.parametrize("seed", range(20))
def test_streams_of_environments_are_never_taken_for_the_wrong_thing(seed):
    rng = np.random.default_rng(seed)
    stacked = Stream(Field((4, 9, 9), "uint8", 0), rng)
    images = Stream(Field((4, 9, 9), "uint8"), rng)
    for kind in rng.choice(GOOD, 20):
        assert shifted_axis(*stacked.step(kind)) in (0, UNDECIDED)
        assert shifted_axis(*images.step(kind)) in (None, UNDECIDED)


@pytest.mark.parametrize("shape", [(), (4,), (1000,), (1, 84, 84), (33, 84, 84), (4, 15)], ids=str)
def test_what_cannot_be_a_stack_worth_finding(shape):
    """A vector, one frame, too many or too small frames (uint8: 15 bytes each)."""
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, shape, dtype=np.uint8)
    if not shape:
        assert shifted_axis(obs, obs) is None
        return
    next_obs = np.concatenate([obs[1:], rng.integers(0, 256, (1, *shape[1:]), dtype=np.uint8)])
    assert shifted_axis(obs, next_obs) is None


class Space:
    def __init__(self, *shape):
        self.shape = shape


class Layer:
    def __init__(self, env=None, **attributes):
        self.env = env
        self.__dict__.update(attributes)


class FrameStackObservation(Layer):
    pass


class FrameStack(Layer):
    pass


class AtariVectorEnv:
    single_observation_space = Space(4, 84, 84)


def test_wrappers_say_which_axis():
    stack = Space(4, 84, 84)
    plain = Layer(Layer(), observation_space=stack)
    assert stack_axis_of(plain) is None
    for kind in (FrameStackObservation, FrameStack, type("Own", (FrameStack,), {})):
        inside = kind(plain, observation_space=stack)
        assert stack_axis_of(inside) == 0
        outside = Layer(Layer(inside), observation_space=stack)
        assert stack_axis_of(outside) == 0
        vector = Layer(envs=[outside, outside], single_observation_space=stack)
        assert stack_axis_of(vector) == 0
        assert stack_axis_of(Layer(vector, single_observation_space=stack)) == 0
        turned = Layer(inside, observation_space=Space(84, 84, 4))
        assert stack_axis_of(turned) is None, "something has moved the axis"
    assert stack_axis_of(AtariVectorEnv()) == 0
    assert stack_axis_of(Layer(envs=[plain], single_observation_space=stack)) is None
    assert stack_axis_of(object()) is None


def test_wrappers_over_several_spaces_stack_each_of_them():
    both = Space()
    both.spaces = {"image": Space(4, 84, 84), "pair": Space()}
    both.spaces["pair"].spaces = (Space(4, 2), Space(4))
    env = FrameStackObservation(Layer(), observation_space=both)
    assert stack_axis_of(env) == 0
    both.spaces["further"] = Space(84, 84)
    assert stack_axis_of(env) is None


def test_environments_of_gymnasium():
    gymnasium = pytest.importorskip("gymnasium")
    wrappers = gymnasium.wrappers

    def make():
        env = gymnasium.make("CartPole-v1")
        return wrappers.RecordEpisodeStatistics(wrappers.FrameStackObservation(env, 4))

    assert stack_axis_of(gymnasium.make("CartPole-v1")) is None
    assert stack_axis_of(make()) == 0
    vector = gymnasium.vector.SyncVectorEnv([make, make])
    assert stack_axis_of(vector) == 0
    assert stack_axis_of(gymnasium.wrappers.vector.RecordEpisodeStatistics(vector)) == 0
    vector.close()


def test_vectors_of_the_arcade():
    ale = pytest.importorskip("ale_py.vector_env")
    env = ale.AtariVectorEnv("pong", 2)
    assert stack_axis_of(env) == 0
    env.close()
