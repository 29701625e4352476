"""Any order of calls, over all samplers and all ways to keep rows, against the slow twin.

It is the machine of ``test_replay`` with observations that are shared and rows that are in files,
and with buffers that are saved and loaded in the middle.
"""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from tests.reference import FIELDS, ReferenceReplay, Step
from tests.test_replay import ANY_SAMPLER, ReplayMachine

import prioritized_replay as per

SHARED = {**FIELDS, "obs": per.Field((2, 16, 16), "float32", stack_axis=0)}
FRAMES = {**FIELDS, "obs": per.Field((1024,), "uint8")}
SAVES = hasattr(per.ReplayBuffer, "save")


class StorageMachine(ReplayMachine):
    folder = None

    @initialize(
        fields=st.sampled_from([FIELDS, SHARED, SHARED, FRAMES]),
        in_files=st.booleans(),
        capacity=st.integers(1, 20),
        sampler=ANY_SAMPLER,
        n_step=st.integers(1, 4),
        seed=st.integers(0, 2**31),
    )
    def build(self, fields, in_files, capacity, sampler, n_step, seed):
        self.sampler, self.fields = sampler, fields
        self.folder = tempfile.TemporaryDirectory()
        self.folders = 0
        self.in_files = in_files
        self.replay = per.ReplayBuffer(
            capacity, fields, sampler=sampler, n_step=n_step, gamma=0.5, seed=seed,
            directory=self.new_folder() if in_files else None,
        )  # fmt: skip
        self.twin = ReferenceReplay(capacity, sampler, n_step, 0.5)
        self.serial = 0

    def new_folder(self):
        self.folders += 1
        return Path(self.folder.name) / str(self.folders)

    def teardown(self):
        if self.folder is not None:
            self.folder.cleanup()

    def step(self, td_error):
        """A step that follows the last one, or not; some frames are zero, some like others."""
        self.serial += 1
        serial = self.serial + self.serial // 5
        return Step(
            obs=self.observation(serial),
            action=self.serial,
            reward=float(self.serial % 7 - 3),
            next_obs=self.observation(serial + 1),
            td_error=td_error,
        )

    def observation(self, serial):
        if self.fields is FIELDS:
            return np.array([serial, 0.5], np.float32)
        if self.fields is FRAMES:
            return np.full(1024, serial % 11, np.uint8)
        frames = [np.full((16, 16), s % 13 / 4, np.float32) for s in (serial, serial + 1)]
        return np.stack(frames)

    @rule()
    def read(self):
        """Nothing that is only looked at changes."""
        for _ in range(2):
            repr(self.replay), self.replay.nbytes, self.replay.sampler, self.replay.alpha
            self.replay.stats()

    @precondition(lambda self: SAVES)
    @rule(in_files=st.booleans())
    def save_and_load(self, in_files):
        path = self.new_folder()
        self.replay.save(path)
        directory = self.new_folder() if in_files else None
        loaded = per.ReplayBuffer.load(path, directory=directory)
        if self.twin.rows and getattr(self.sampler, "draw", "") != "without_replacement":
            np.testing.assert_array_equal(loaded.sample(5).ids, self.replay.sample(5).ids)
        self.replay = loaded


TestStorageMachine = pytest.mark.slow(StorageMachine.TestCase)
