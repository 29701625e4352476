"""Every part of a buffer that a checkpoint holds keeps the contract of such a part."""

import numpy as np
import pytest
from tests.checkpointed_contract import Contract, contents, drive, new

import prioritized_replay as per
from prioritized_replay.checkpoint.files import CheckpointError


class TestUniforms(Contract):
    def part(self, replay):
        return replay._uniforms


class TestSampler(Contract):
    def part(self, replay):
        return replay._sampler


class TestLastBatch(Contract):
    def part(self, replay):
        return replay._last


class TestTransitions(Contract):
    def part(self, replay):
        return replay._transitions

    def prepare(self, replay, source):
        replay._sampler.counters[:] = source._sampler.counters


def test_no_two_parts_use_one_name():
    replay = new()
    drive(replay, 40)
    names = []
    for part in replay._parts():
        state, arrays = contents(part)
        names += [*state, *arrays]
    assert len(set(names)) == len(names)


def test_a_waiting_window_whose_priority_is_too_large_is_refused(tmp_path):
    """The law's bound is known to the sampler, the priority to the windows."""
    fields = {name: per.Field() for name in ("obs", "action", "reward")}
    replay = per.ReplayBuffer(8, fields, sampler=per.Proportional(alpha=1.0), n_step=3)
    replay.add(0.0, 0.0, 0.0, 0.0, False, td_error=2.0)
    numbers = replay._transitions.windows.state.view(np.float64)
    assert np.count_nonzero(numbers == 2.01) == 1
    numbers[numbers == 2.01] = 1e308
    replay.save(tmp_path)
    with pytest.raises(CheckpointError, match="windows that enter with priorities <="):
        per.ReplayBuffer.load(tmp_path)
