"""A recorded episode: the file, its pace, and environments that cannot be drawn."""

import gymnasium
import numpy as np
import pytest
from PIL import Image

from prioritized_replay.envs import recording
from prioritized_replay.runs.files import replace_file


def record_gif(policy, env_id, path, **settings):
    shown = []

    def write(file):
        shown.append(recording.record_gif(policy, env_id, file, **settings))

    replace_file(path, write)
    return shown[0]


class Counter(gymnasium.Env):
    """Shows how far it is as a grey level; ends after ``length`` steps, reward 1 each."""

    observation_space = gymnasium.spaces.Discrete(1_000_000)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length=10, render_mode=None):
        self.render_mode = render_mode
        self.length, self.at = length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 0
        return 0, {}

    def step(self, action):
        self.at += 1
        return self.at, 1.0, self.at == self.length, False, {}

    def render(self):
        frame = np.full((50, 640, 3), 100, dtype=np.uint8)
        frame[:, : self.at % 640] = 255  # every frame differs: a GIF drops what does not
        return frame


@pytest.fixture
def register():
    made = []

    def register(fps=50, modes=("rgb_array",), **settings):
        name = f"Counter{len(made)}-v0"
        metadata = {"render_modes": list(modes), "render_fps": fps}
        kind = type("Shown", (Counter,), {"metadata": metadata})
        gymnasium.register(name, kind, kwargs=settings, disable_env_checker=True)
        made.append(name)
        return name

    yield register
    for name in made:
        del gymnasium.registry[name]


def seconds(path):
    with Image.open(path) as image:
        pauses = []
        for frame in range(image.n_frames):
            image.seek(frame)
            pauses.append(image.info["duration"])
    return len(pauses), sum(pauses[:-1]) / 1_000


@pytest.mark.parametrize(("fps", "length", "frames"), [(50, 100, 51), (30, 60, 61), (15, 90, 91)])
def test_the_pace_is_that_of_the_environment(tmp_path, register, fps, length, frames):
    path = tmp_path / "a.gif"
    shown = record_gif(lambda _: 0, register(fps=fps, length=length), path, seed=0)
    assert (shown.episode_return, shown.steps, shown.frames) == (length, length, frames)
    count, lasted = seconds(path)
    assert count == frames
    assert lasted == pytest.approx(length / fps, abs=0.01)
    assert shown.size == path.stat().st_size


def test_a_long_episode_keeps_its_length_in_fewer_frames(tmp_path, register):
    path = tmp_path / "a.gif"
    shown = record_gif(lambda _: 0, register(fps=25, length=500), path, seed=0)
    assert shown.frames <= recording._FRAMES
    assert seconds(path)[1] == pytest.approx(20.0, abs=0.05)


def test_frames_are_scaled_down(tmp_path, register):
    record_gif(lambda _: 0, register(), tmp_path / "a.gif", seed=0)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size == (320, 25)


def test_an_endless_environment_is_stopped(tmp_path, register):
    shown = record_gif(
        lambda _: 0, register(length=10**9), tmp_path / "a.gif", seed=0, max_steps=20
    )
    assert shown.steps == 20


def test_what_cannot_be_drawn_says_so(tmp_path, register):
    with pytest.raises(ValueError, match=r"cannot be recorded: it renders ansi, not rgb_array"):
        record_gif(lambda _: 0, register(modes=("ansi",)), tmp_path / "a.gif", seed=0)
    with pytest.raises(ValueError, match=r"cannot be recorded: it renders nothing"):
        record_gif(lambda _: 0, register(modes=()), tmp_path / "a.gif", seed=0)
    assert not list(tmp_path.iterdir())
