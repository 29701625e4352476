"""What every part of a buffer that a checkpoint holds must do: subclass :class:`Contract`."""

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import prioritized_replay as per
from prioritized_replay.checkpoint.checkpointed import Checkpointed
from prioritized_replay.checkpoint.files import LONGEST_NAME, NAME, CheckpointError
from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Contents
from prioritized_replay.checkpoint.saving import Saver

FIELDS = {
    "obs": per.Field((4, 8, 8), "uint8", stack_axis=0),  # large enough to be stored frame by frame
    "action": per.Field((), "int64"),
    "reward": per.Field((), "float32"),
}
ROOM = 1 << 30


Memory = per.ReplayBuffer | per.PrioritizedIndex


def new(capacity: int = 20) -> per.ReplayBuffer:
    return per.ReplayBuffer(
        capacity, FIELDS, n_step=3, num_envs=2, autoreset="next_step", seed=np.random.SFC64(5)
    )


def new_sequences(capacity: int = 20) -> per.ReplayBuffer:
    fields = {**FIELDS, "memory": per.Field((3,), per_sequence=True)}
    return per.ReplayBuffer(
        capacity, fields, sequence=per.Sequence(4, burn_in=1, overlap=2), num_envs=2,
        autoreset="next_step", seed=np.random.SFC64(5),
    )  # fmt: skip


def drive(replay: per.ReplayBuffer, steps: int, seed: int = 0) -> None:
    """Add stacks that move on by a frame, end some episodes, draw and update."""
    rng = np.random.default_rng(seed)
    obs = rng.integers(0, 256, (2, 4, 8, 8), np.uint8)
    ended = np.zeros(2, bool)
    for k in range(steps):
        frames = rng.integers(0, 256, (2, 1, 8, 8), np.uint8)
        after = np.concatenate([obs[:, 1:], frames], axis=1)
        reward = np.where(ended, 0.0, [1.0, 0.5])  # the step after an end is a reset
        ended = ~ended & (rng.random(2) < 0.1)
        more = {"td_error": rng.normal(size=2)}
        if replay.sequence:
            more = {"memory": rng.normal(size=(2, 3))}
        replay.add(obs, [k, k], reward, after, ended, **more)
        obs = after
        if len(replay) > 3:
            batch = replay.sample(3, beta=0.5)
            replay.update_priorities(batch.ids, rng.normal(size=batch.reward.shape))


def new_index(capacity: int = 20) -> per.PrioritizedIndex:
    return per.PrioritizedIndex(capacity, seed=np.random.SFC64(5))


def drive_index(index: per.PrioritizedIndex, steps: int, seed: int = 0) -> None:
    """Append, draw and update."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        index.append(td_errors=rng.normal(size=2))
        draw = index.sample(3, beta=0.5)
        index.update_priorities(draw.ids, rng.normal(size=3))


def contents(part: Checkpointed) -> tuple[Any, dict[str, np.ndarray]]:
    """Return the state as JSON, and a copy of each array."""
    arrays = {piece.name: np.array(piece.read()) for piece in part.pieces()}
    return json.loads(json.dumps(part.state())), arrays


def saved(part: Checkpointed, folder: Any) -> Reader:
    """Save one part alone, and return a reader of that."""
    Saver().save(folder, threading.Lock(), lambda: Contents({}, part.state(), part.pieces()))
    return Reader(folder, ROOM)


class Contract:
    """Tests of one part; a subclass has the first member below.

    Of an index it also says how such a memory is made and used.
    """

    def part(self, replay: Memory) -> Checkpointed:
        raise NotImplementedError

    new: Callable[[], Memory] = staticmethod(new)
    drive: Callable[[Memory, int], None] = staticmethod(drive)

    def prepare(self, replay: Memory, source: Memory) -> None:
        """Give a new buffer what the part needs of the others before it is restored."""

    def restored(self, source: Memory, folder: Any) -> Memory:
        replay = self.new()
        self.prepare(replay, source)
        self.part(replay).restore(saved(self.part(source), folder))
        return replay

    @pytest.mark.parametrize("steps", [0, 1, 7, 60])
    def test_what_is_restored_is_what_was_saved(self, steps, tmp_path):
        source = self.new()
        self.drive(source, steps)
        replay = self.restored(source, tmp_path)
        state, arrays = contents(self.part(source))
        found, others = contents(self.part(replay))
        assert found == state
        assert others.keys() == arrays.keys()
        for name, array in arrays.items():
            assert array.dtype == others[name].dtype
            for field in array.dtype.names or [()]:  # bytes between fields mean nothing
                assert array[field].tobytes() == others[name][field].tobytes(), name

    def test_names_can_be_names_of_files_and_are_given_once(self):
        replay = self.new()
        self.drive(replay, 40)
        names = [piece.name for piece in self.part(replay).pieces()]
        assert len(set(names)) == len(names)
        for name in names:
            assert NAME.fullmatch(name)
            assert len(name) <= LONGEST_NAME

    def test_looking_changes_nothing(self):
        replay = self.new()
        self.drive(replay, 40)
        before = contents(self.part(replay))
        after = contents(self.part(replay))
        assert before[0] == after[0]
        np.testing.assert_equal(after[1], before[1])

    def test_a_piece_or_a_value_that_is_missing_is_one_error(self, tmp_path):
        source = self.new()
        self.drive(source, 40)
        part = self.part(source)
        pieces, state = part.pieces(), part.state()
        for missing in [piece.name for piece in pieces] + list(state):
            left = [piece for piece in pieces if piece.name != missing]
            rest = {name: value for name, value in state.items() if name != missing}
            Saver().save(tmp_path, threading.Lock(), lambda a=left, b=rest: Contents({}, b, a))
            replay = self.new()
            self.prepare(replay, source)
            with pytest.raises(CheckpointError) as caught:
                self.part(replay).restore(Reader(tmp_path, ROOM))
            assert str(tmp_path) in str(caught.value)

    def test_arrays_of_another_shape_or_dtype_are_one_error(self, tmp_path):
        source = self.new()
        self.drive(source, 40)
        part = self.part(source)
        pieces = part.pieces()
        for number, piece in enumerate(pieces):
            array = np.array(piece.read())
            for other in (array[:0], array[..., None], np.zeros(array.shape, "complex64")):
                if other.shape == array.shape and other.dtype == array.dtype:
                    continue  # an empty array has no shorter one
                changed = list(pieces)
                changed[number] = piece._replace(read=lambda a=other: np.ascontiguousarray(a))
                forged = Contents({}, part.state(), changed)
                Saver().save(tmp_path, threading.Lock(), lambda a=forged: a)
                replay = self.new()
                self.prepare(replay, source)
                with pytest.raises(CheckpointError):
                    self.part(replay).restore(Reader(tmp_path, ROOM))
