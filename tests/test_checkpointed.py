"""Every part of a buffer that a checkpoint holds keeps the contract of such a part."""

import tempfile

import numpy as np
import pytest
from tests.checkpointed_contract import (
    Contract,
    contents,
    drive,
    drive_index,
    new,
    new_index,
    new_sequences,
    saved,
)

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


class OfIndex:
    """The same part, in an index."""

    new = staticmethod(new_index)
    drive = staticmethod(drive_index)


class TestUniformsOfIndex(OfIndex, TestUniforms):
    pass


class TestSamplerOfIndex(OfIndex, TestSampler):
    pass


class TestLastBatchOfIndex(OfIndex, TestLastBatch):
    pass


class OfSequences:
    """The same part, in a buffer of sequences."""

    new = staticmethod(new_sequences)


class TestUniformsOfSequences(OfSequences, TestUniforms):
    pass


class TestSamplerOfSequences(OfSequences, TestSampler):
    pass


class TestLastBatchOfSequences(OfSequences, TestLastBatch):
    pass


class TestTransitionsOfSequences(OfSequences, TestTransitions):
    pass


class TestSequences(OfSequences, Contract):
    def part(self, replay):
        return replay._sequences

    def prepare(self, replay, source):
        """Which sequences can be drawn is known to the sampler."""
        with tempfile.TemporaryDirectory() as folder:
            replay._sampler.restore(saved(source._sampler, folder))


@pytest.mark.parametrize(
    ("make", "use"), [(new, drive), (new_sequences, drive), (new_index, drive_index)]
)
def test_no_two_parts_use_one_name(make, use):
    memory = make()
    use(memory, 40)
    names = []
    for part in memory._parts():
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
