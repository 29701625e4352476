"""Frames stored once: what comes back is what went in, and nothing is kept twice or lost."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.reference_frames import BAD, GOOD, Drawn, ReferenceFrames, Stream, random_frame

from prioritized_replay.fields.field import Field
from prioritized_replay.storage.frames import Frames

FIELDS = [
    Field((4, 6, 8), "uint8", 0),
    Field((2, 3, 5), "uint8", 0),  # frames are no whole number of words
    Field((3, 7, 5), "float32", 0),
    Field((9, 11, 3), "int16", -1),
    Field((5, 3, 9), "bool", 1),
    Field((4, 8), "float64", 0),
    Field((1, 9), "uint8", 0),
    Field((4, 6, 8), "uint8"),
    Field((13,), "float16"),
]
PLAIN = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"


def in_memory(words, beside=0):
    return np.full(words, 0xDEAD_BEEF, np.uint64)  # nobody promised zeros


def frames_of(field, capacity=8, streams=1, allocate=in_memory):
    return Frames(field, capacity, streams, allocate)


def assert_same_bytes(got, expected):
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


def forget(frames, streams):
    """Release the last observations of these streams, as if they had none."""
    last = frames.last.reshape(-1, frames.stack)
    frames.release(last[streams])
    last[streams] = 0


def state_of(frames):
    """All that must not change."""
    return (
        frames._ledger[0].tolist(),
        frames._ledger[1, : frames._free].tolist(),
        frames.last.tolist(),
        frames._table.tolist(),
        frames.nbytes,
        frames.used,
    )


def assert_books_are_right(frames, twin):
    counts = twin.held(frames.last)
    total = frames._chunks << frames._bits
    assert {i: n for i, n in enumerate(frames._ledger[0].tolist()) if n} == counts
    free = frames._ledger[1, : frames._free].tolist()
    assert sorted([*free, *counts]) == list(range(1, total)), "each is either free or held"
    assert frames.used == len(counts)
    assert frames.nbytes >= total * frames.frame_nbytes


def assert_rows_come_back(frames, twin, rows, shift):
    old, new = (np.array([row[k] for row in rows], np.uint32) for k in (2, 3))
    obs, next_obs = frames.decode(old, new, shift)
    for k, (first, second, *_) in enumerate(rows):
        assert_same_bytes(obs[k], first)
        assert_same_bytes(next_obs[k], second)
    assert not obs.flags.writeable
    assert not next_obs.flags.writeable
    assert_same_bytes(frames.decode_one(new), np.stack([row[1] for row in rows]))


class FramesMachine(RuleBasedStateMachine):
    """A ring of rows from several streams, against the twin."""

    @initialize(
        field=st.sampled_from(FIELDS),
        capacity=st.sampled_from([1, 3, 600]),
        streams=st.sampled_from([1, 3]),
        seed=st.integers(0, 99),
        tame=st.booleans(),
    )
    def begin(self, field, capacity, streams, seed, tame):
        self.tame = tame
        self.rng = np.random.default_rng(seed)
        self.frames = frames_of(field, capacity, streams)
        self.twin = ReferenceFrames(field, streams)
        self.drawn = Drawn()
        self.streams = [Stream(field, self.rng, self.drawn) for _ in range(streams)]
        self.well_behaved = True

    def keep(self, observations, references):
        for obs, next_obs, old, new in zip(*observations, *references, strict=True):
            self.twin.rows.append((obs, next_obs, old.copy(), new.copy()))

    @rule(kinds=st.lists(st.sampled_from(GOOD + BAD), min_size=1, max_size=3))
    def step(self, kinds):
        """Some streams add a step."""
        kinds = ["gap" if self.tame and k in BAD else k for k in kinds[: len(self.streams)]]
        chosen = self.rng.permutation(len(self.streams))[: len(kinds)]
        self.well_behaved &= not set(kinds) & set(BAD)
        pairs = [self.streams[e].step(kind) for e, kind in zip(chosen, kinds, strict=True)]
        obs, next_obs = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        references = self.frames.encode(chosen.astype(np.int64), obs, next_obs)
        for e, (_, following) in zip(chosen, pairs, strict=True):
            self.twin.last[e] = following
        self.keep((obs, next_obs), references)

    @rule(
        kind=st.sampled_from(GOOD),
        count=st.integers(0, 5),
        tricks=st.sampled_from(("none", "strided", "read-only")),
    )
    def add_unrelated(self, kind, count, tricks):
        """A trajectory of no stream."""
        stream = Stream(self.frames.field, self.rng, self.drawn)
        pairs = [stream.step(kind) for _ in range(count)]
        shape = (count, *self.frames.field.shape)
        obs, next_obs = (
            np.array([pair[k] for pair in pairs], self.frames.field.dtype).reshape(shape)
            for k in (0, 1)
        )
        if tricks == "strided":
            obs, next_obs = np.stack([obs, next_obs], -1)[..., 0], np.asfortranarray(next_obs)
        elif tricks == "read-only":
            obs.flags.writeable = next_obs.flags.writeable = False
        self.keep((obs, next_obs), self.frames.encode_unrelated(obs, next_obs))

    @precondition(lambda self: self.twin.rows)
    @rule(data=st.data())
    def overwrite(self, data):
        """The oldest rows give way."""
        count = data.draw(st.integers(1, len(self.twin.rows)))
        gone = self.twin.rows[:count]
        del self.twin.rows[:count]
        self.frames.release(np.array([row[2:] for row in gone], np.uint32)[:, ::-1])

    @precondition(lambda self: self.twin.rows)
    @rule(data=st.data())
    def make_longer_windows(self, data):
        """A row takes its next observation from a later one, as windows of many steps do."""
        first = data.draw(st.integers(0, len(self.twin.rows) - 1))
        last = data.draw(st.integers(first, len(self.twin.rows) - 1))
        (obs, _, old, new), (_, next_obs, _, later) = self.twin.rows[first], self.twin.rows[last]
        self.frames.hold(later)
        self.frames.release(new)
        self.twin.rows[first] = (obs, next_obs, old, later.copy())

    @rule(data=st.data())
    def forget(self, data):
        streams = data.draw(st.sets(st.integers(0, len(self.streams) - 1)))
        forget(self.frames, np.array(sorted(streams), np.int64))
        for e in streams:
            self.twin.last[e] = None
            self.streams[e].reset("repeat")

    @rule()
    def clear(self):
        self.frames.clear()
        self.twin = ReferenceFrames(self.frames.field, len(self.streams))
        self.well_behaved = True
        self.drawn = Drawn()
        self.streams = [Stream(self.frames.field, self.rng, self.drawn) for _ in self.streams]

    @precondition(lambda self: len(self.frames.field.shape) > 1)
    @rule(data=st.data())
    def restack(self, data):
        axes = [None, *range(len(self.frames.field.shape))]
        axis = data.draw(st.sampled_from(axes))
        before = state_of(self.frames)
        halves = len(self.twin.rows) // 2
        stack = self.frames.stack
        kept = [
            np.array([row[k] for row in part], np.uint32).reshape(-1, stack)
            for part in (self.twin.rows[:halves], self.twin.rows[halves:])
            for k in (2, 3)
        ]
        frames, references = self.frames.restacked(axis, kept)
        assert state_of(self.frames) == before
        old = [*references[0], *references[2]]
        new = [*references[1], *references[3]]
        self.twin.rows = [
            (*row[:2], a, b) for row, a, b in zip(self.twin.rows, old, new, strict=True)
        ]
        self.frames = frames
        self.twin.field = frames.field
        assert frames.used == len(self.twin.distinct())
        for stream in self.streams:  # what comes is stacked as it was: a wrong assumption
            self.well_behaved &= stream.field == frames.field

    @invariant()
    def books_are_right(self):
        assert_books_are_right(self.frames, self.twin)

    @invariant()
    def no_frame_is_kept_twice(self):
        distinct = len(self.twin.distinct())
        assert self.frames.used >= distinct
        if self.well_behaved and not self.drawn.repeated:
            assert self.frames.used == distinct

    @invariant()
    def rows_come_back(self):
        rows = self.twin.rows
        if rows:
            chosen = [rows[i] for i in self.rng.integers(len(rows), size=4)]
            for shift in range(min(self.frames.stack, 3) + 1):
                assert_rows_come_back(self.frames, self.twin, chosen, shift)
        for e, obs in enumerate(self.twin.last):
            if obs is not None:
                references = self.frames.last.reshape(len(self.streams), -1)[e]
                assert self.frames.decode_one(references[None])[0].tobytes() == obs.tobytes()

    def teardown(self):
        if not hasattr(self, "frames"):
            return
        for row in self.twin.rows:
            self.frames.release(np.stack(row[2:]))
        forget(self.frames, np.arange(len(self.streams)))
        assert self.frames.used == 0, "what nobody holds is free"


TestFrames = pytest.mark.slow(FramesMachine.TestCase)


@pytest.mark.parametrize("axis", range(2))
def test_frames_that_are_equal_by_chance_may_be_kept_twice(axis):
    """Only what is expected to be equal is compared; a frame of one byte repeats soon."""
    machine = FramesMachine()
    machine.begin(Field((1, 9), "uint8", axis), capacity=1, streams=1, seed=38, tame=False)
    kept = []
    for _ in range(40):
        machine.add_unrelated("shift", 4, "none")
        for holds in (machine.books_are_right, machine.no_frame_is_kept_twice):
            holds()
        kept.append((machine.frames.used, len(machine.twin.distinct())))
    twice = [used > distinct for used, distinct in kept]
    assert any(twice) == machine.drawn.repeated == (axis == 1)
    machine.teardown()


def test_a_field_names_the_axis_of_its_stack():
    field = Field((4, 84, 84), "uint8", 0)
    assert field == Field((4, 84, 84), "uint8", -3) == Field((4, 84, 84), "uint8", np.int64(0))
    assert hash(field) == hash(Field((4, 84, 84), "uint8", -3))
    assert field != Field((4, 84, 84), "uint8")
    assert repr(field) == "Field(shape=(4, 84, 84), dtype=dtype('uint8'), stack_axis=0)"
    assert repr(Field((2,))) == "Field(shape=(2,), dtype=dtype('float32'))"
    assert Field(5, "uint8", -1).stack_axis == 0


@pytest.mark.parametrize("axis", [2, -3, 0.0, True, "0", np.arange(2)], ids=str)
def test_an_axis_that_is_not_there_is_refused(axis):
    with pytest.raises(ValueError, match=r"stack_axis must be an axis of shape \(4, 8\), got "):
        Field((4, 8), "uint8", axis)
    with pytest.raises(ValueError, match=r"stack_axis must be an axis of shape \(\), got 0"):
        Field((), "uint8", 0)


@pytest.mark.parametrize("field", FIELDS, ids=str)
def test_a_step_stores_one_frame(field):
    """And an episode's first observation one more, whatever it is padded with."""
    frames = frames_of(field, 100)
    stream = Stream(field, np.random.default_rng(0))
    stream.reset("repeat")
    stream_number = np.zeros(1, np.int64)
    expected = 1
    for kind in ["shift"] * 9 + ["repeat"] + ["shift"] * 5 + ["zero"] + ["shift"] * 5:
        obs, next_obs = stream.step(kind)
        frames.encode(stream_number, obs[None], next_obs[None])
        expected += 1 if kind == "shift" else 2
        assert frames.used == expected
    assert frames.frame_nbytes % 8 == 0
    assert 0 <= frames.frame_nbytes - field.nbytes // frames.stack < 8


def test_observations_that_differ_in_one_bit_of_any_word_are_told_apart():
    """Frames of every size around the blocks in which they are compared."""
    for size in (1, 7, 8, 9, 255, 256, 257, 263, 520, 7056):
        field = Field((2, size), "uint8", 0)
        for place in {0, size // 2, size - 1}:
            frames = frames_of(field)
            obs = np.full((2, size), 7, np.uint8)
            next_obs = obs.copy()
            next_obs[1, place] ^= 1
            old, new = frames.encode(np.zeros(1, np.int64), obs[None], next_obs[None])
            assert frames.used == 2
            assert old[0, 0] == old[0, 1] == new[0, 0] != new[0, 1]
            assert_same_bytes(frames.decode_one(old)[0], obs)
            assert_same_bytes(frames.decode_one(new)[0], next_obs)


def test_floats_are_compared_as_bytes():
    """-0.0 is not 0.0, one NaN not another, and a NaN equals itself."""
    field = Field((4, 2), "float64", 0)
    payload = np.array([0x7FF8_0000_0000_0001], np.uint64).view(np.float64)[0]
    stack = np.array([[0.0, 0.0], [-0.0, 0.0], [np.nan, 1.0], [payload, 1.0]])
    frames = frames_of(field)
    old, new = frames.encode(np.zeros(1, np.int64), stack[None], stack[None])
    assert old[0, 0] == 0, "the frame of zeros is there without being stored"
    assert len(set(old[0].tolist())) == 4
    np.testing.assert_array_equal(old, new)
    assert_same_bytes(frames.decode_one(old)[0], stack)


def test_shifted_rows_share_memory_and_others_do_not():
    field = Field((4, 6, 8), "uint8", 0)
    frames = frames_of(field, 100)
    stream = Stream(field, np.random.default_rng(0))
    steps = [stream.step("shift") for _ in range(8)]
    rows = [
        [r[0] for r in frames.encode(np.zeros(1, np.int64), obs[None], next_obs[None])]
        for obs, next_obs in steps
    ]
    for n in range(1, 5):
        old = np.array([rows[k][0] for k in range(8 - n)])
        new = np.array([rows[k + n - 1][1] for k in range(8 - n)])
        for shift in range(6):
            obs, next_obs = frames.decode(old, new, shift)
            assert np.shares_memory(obs, next_obs) == (shift == n < 4)
            for k in range(8 - n):
                assert_same_bytes(obs[k], steps[k][0])
                assert_same_bytes(next_obs[k], steps[k + n - 1][1])
    new[0] = rows[0][0]  # one row that is not shifted
    obs, next_obs = frames.decode(old, new, n)
    assert not np.shares_memory(obs, next_obs)
    assert_same_bytes(next_obs[0], steps[0][0])


def test_a_contiguous_stack_along_the_first_axis_is_not_copied():
    frames = frames_of(Field((4, 6, 8), "uint8", 0))
    obs = np.ones((3, 4, 6, 8), np.uint8)
    assert np.shares_memory(frames._to_words(obs), obs)
    buffer = np.ones(obs.size + 1, np.uint8)
    shifted = buffer[1:].reshape(obs.shape)  # one of these two begins in the middle of a word
    for array in (shifted, buffer[:-1].reshape(obs.shape)):
        words = frames._to_words(array)
        assert words.flags.carray
        assert words.tobytes() == array.tobytes()


@pytest.mark.parametrize("capacity", [1, 300])
@pytest.mark.parametrize("field", FIELDS[:5], ids=str)
@pytest.mark.slow
def test_without_room_nothing_changes(field, capacity):
    """Whatever the first step is that needs more, and of how many rows."""
    limit = [0]

    def allocate(words, beside):
        if words > limit[0]:
            raise MemoryError("no more than that")
        limit[0] -= words
        return in_memory(words)

    with pytest.raises(MemoryError, match="no more"):
        frames_of(field, capacity, 3, allocate)
    for rows in (1, 3):
        limit[0] = 10 * (field.nbytes // 8 + 8)
        frames = frames_of(field, capacity, 3, allocate)
        rng = np.random.default_rng(0)
        streams = [Stream(field, rng) for _ in range(3)]
        twin = ReferenceFrames(field, 3)
        refused = 0
        while refused < 3:
            pairs = [stream.step("shift") for stream in streams[:rows]]
            obs, next_obs = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
            before = state_of(frames)
            try:
                references = frames.encode(np.arange(rows), obs, next_obs)
            except MemoryError:
                assert state_of(frames) == before
                refused += 1
                need = len({f for o in (obs, next_obs) for k in o for f in twin.frames_of(k)})
                assert frames._free < need
                with pytest.raises(MemoryError):
                    frames.encode_unrelated(obs, next_obs)
                if twin.rows:
                    kept = [np.array([row[k] for row in twin.rows]) for k in (2, 3)]
                    with pytest.raises(MemoryError):
                        frames.restacked(None, kept)
                assert state_of(frames) == before
            else:
                twin.last[:rows] = next_obs
                twin.rows += list(zip(obs, next_obs, *references, strict=True))
            assert_books_are_right(frames, twin)
            for row in twin.rows:
                assert_rows_come_back(frames, twin, [row], 1)
        # What is shared needs no room.
        same = np.stack([twin.last[0]])
        before = frames.used
        if frames.stack == 1 and twin.rows:
            frames.encode(np.zeros(1, np.int64), same, same)
            assert frames.used == before


def test_room_is_only_made_for_frames_that_are_new():
    """The last free frame is enough for a step that brings one."""
    sizes = []

    def allocate(words, beside):
        sizes.append(words)
        return in_memory(words)

    field = Field((4, 8), "uint8", 0)
    frames = frames_of(field, 128 * 8, 1, allocate)
    stream = Stream(field, np.random.default_rng(0))
    stream.reset("zero")
    for _ in range(6):
        frames.encode(np.zeros(1, np.int64), *(obs[None] for obs in stream.step("shift")))
    assert (sizes, frames.used, frames._free) == ([8], 7, 0)
    frames.encode(np.zeros(1, np.int64), *(obs[None] for obs in stream.step("still")))
    assert sizes == [8]
    frames.encode(np.zeros(1, np.int64), *(obs[None] for obs in stream.step("shift")))
    assert sizes == [8, 8]


def test_a_count_that_would_pass_its_largest_stays_there():
    """Such a frame is kept for ever; it is never free while somebody holds it."""
    frames = frames_of(Field((1, 8), "uint8", 0))
    obs = np.ones((1, 1, 8), np.uint8)
    old, _ = frames.encode(np.zeros(1, np.int64), obs, obs)
    frames._ledger[0, old[0, 0]] = 2**32 - 2
    for _ in range(3):
        frames.hold(old)
    for _ in range(5):
        frames.release(old)
    assert frames._ledger[0, old[0, 0]] == 2**32 - 1
    assert frames.used == 1


def test_zeroed_references_are_nobodys():
    frames = frames_of(FIELDS[0])
    before = state_of(frames)
    nothing = np.zeros((3, 2, 4), np.uint32)
    frames.hold(nothing)
    frames.release(nothing)
    frames.release(nothing)
    forget(frames, np.zeros(1, np.int64))
    assert state_of(frames) == before
    zeros = np.zeros((1, *FIELDS[0].shape), np.uint8)
    old, new = frames.encode(np.zeros(1, np.int64), zeros, zeros)
    assert not old.any()
    assert not new.any()
    assert frames.used == 0


def test_numbers_of_frames_end_where_codes_begin():
    with pytest.raises(MemoryError, match="2147483648 frames"):
        frames_of(Field((1, 8), "uint8", 0), 128 << 32)


@given(
    seed=st.integers(0, 999),
    kinds=st.lists(st.sampled_from(GOOD), min_size=1, max_size=8),
    backwards=st.booleans(),
)
def test_trajectories_without_a_stream_share_their_frames(seed, kinds, backwards):
    """Consecutive rows are compared with each other, also before any of them is stored."""
    for field in FIELDS[:3]:
        stream = Stream(field, np.random.default_rng(seed))
        pairs = [stream.step(kind) for kind in kinds][:: -1 if backwards else 1]
        obs, next_obs = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        frames = frames_of(field, 1)
        old, new = frames.encode_unrelated(obs, next_obs)
        twin = ReferenceFrames(field, 1)
        twin.rows = list(zip(obs, next_obs, old, new, strict=True))
        assert frames.used == len(twin.distinct())
        assert_books_are_right(frames, twin)
        assert_rows_come_back(frames, twin, twin.rows, 1)


def test_memory_of_atari_stacks():
    """A transition takes one frame and little more; so few rows that chunks weigh most."""
    steps = 512
    frames = frames_of(Field((4, 84, 84), "uint8", 0), steps)
    rng = np.random.default_rng(0)
    stack = [random_frame(rng, (84, 84), "uint8")] * 4
    for _ in range(steps):
        obs = np.stack(stack)[None]
        stack = [*stack[1:], random_frame(rng, (84, 84), "uint8")]
        frames.encode(np.zeros(1, np.int64), obs, np.stack(stack)[None])
    assert frames.used == steps + 1
    row = 2 * frames.references.nbytes
    assert frames.nbytes / steps + row <= 1.02 * 84 * 84


def test_memory_that_grows_is_asked_for_with_its_books():
    asked = []

    def allocate(words, beside):
        asked.append(8 * words + beside)
        return in_memory(words)

    field = Field((64,), "uint8")
    frames = frames_of(field, 1, 1, allocate)
    besides = frames.nbytes - sum(asked)
    rng = np.random.default_rng(0)
    for _ in range(100):
        frames.encode(np.zeros(1, np.int64), *random_frame(rng, (2, 1, 64), "uint8"))
    assert len(asked) > 20
    assert frames.nbytes - sum(asked) == besides


def test_room_for_a_step_is_what_the_step_takes():
    """And once it is there, or is refused, the step finds what it would have found anyway."""
    sizes = []

    def allocate(words, beside):
        sizes.append(words)
        return in_memory(words)

    field = Field((4, 8), "uint8", 0)
    frames = frames_of(field, 128, 2, allocate)  # each chunk is one frame
    streams = [Stream(field, np.random.default_rng(seed)) for seed in (1, 2)]
    for stream in streams:
        stream.reset("zero")
    for _ in range(8):
        steps = [stream.step("shift") for stream in streams]
        obs, next_obs = (np.stack(arrays) for arrays in zip(*steps, strict=True))
        for numbers in (np.arange(2), None):
            frames.make_room(numbers, obs, next_obs)
            before = len(sizes), state_of(frames)
            frames.make_room(numbers, obs, next_obs)
            assert (len(sizes), state_of(frames)) == before
        held = frames.used, sum(sizes)
        frames.encode(np.arange(2), obs, next_obs)
        assert sum(sizes) == held[1]
    assert sum(sizes) <= frames.used + 2 * 4 * 2


@pytest.mark.slow
@pytest.mark.skipif(PLAIN, reason="this is already the plain run")
def test_everything_holds_without_compilation():
    chosen = "not memory_of_atari"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, __file__],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
