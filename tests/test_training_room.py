"""How much memory a replay will need, against what it has when it is full."""

import sys

import numpy as np
import pytest
from gymnasium import spaces

import prioritized_replay as per
from prioritized_replay.training.room import bytes_available


@pytest.mark.parametrize(
    ("space", "frames"),
    [
        (spaces.Box(-1.0, 1.0, (4,)), 1),
        (spaces.Box(0.0, 1.0, (10, 10, 4), bool), 1),
        (spaces.Box(0, 255, (96, 96, 3), np.uint8), 1),
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), 4),
        (spaces.Discrete(5), 1),
    ],
)
@pytest.mark.slow
def test_it_is_about_what_a_full_one_has(space, frames):
    replay = per.ReplayBuffer.for_spaces(space, spaces.Discrete(2), 600)
    expected = replay.bytes_when_full(frames)
    space.seed(1)
    obs = space.sample()
    for _ in range(700):
        new = space.sample()
        next_obs = np.concatenate([obs[1:], new[-1:]]) if frames > 1 else new
        replay.add(obs, 0, 0.0, next_obs, terminated=False)
        obs = next_obs

    assert expected == pytest.approx(replay.nbytes, rel=0.35)


def test_what_the_machine_has_is_a_number_or_not_told(monkeypatch):
    available = bytes_available()
    if sys.platform != "win32":
        assert 2**20 < available < 2**50

    def nothing(*_, **__):
        raise OSError

    monkeypatch.setattr("builtins.open", nothing)
    assert bytes_available() is None or bytes_available() > 2**20
