"""Large observations are kept once, and nobody can tell from the batches.

A buffer whose observations are shared and cut into frames is driven beside a twin that stores
whole arrays, through streams that keep the assumption and streams that break it: every row must be
equal bit for bit.
"""

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.reference import Step
from tests.reference_streams import BOTH, GAMMA, MODES, TERMINATED, TRUNCATED, ReferenceStreams

import prioritized_replay as per

SIDE = 24
STACK = 4
FRAME = SIDE * SIDE
OPEN = (False, False)

# How the observation after a step comes from the one before it
SHIFTS = ["one", "two", "all", "none", "black", "repeat", "edited", "reversed"]
# How the observation that a step names comes from the last step's next one
KEPT = ["kept", "copied", "edited", "foreign", "of another stream"]
# What the frames before the first of an episode are
FIRSTS = ["repeated", "zeros", "carried"]


def fields(shape=(STACK, SIDE, SIDE), dtype="uint8", **options):
    return {
        "obs": per.Field(shape, dtype, **options),
        "action": per.Field((), "int64"),
        "reward": per.Field((), "float32"),
    }


@dataclass
class Pictures:
    """E environments whose observations are stacks of frames, along the first axis."""

    num_envs: int
    mode: str = "disabled"
    first: str = "repeated"
    serial: int = 0
    now: list[np.ndarray] = field(init=False)
    awaiting: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        self.now = [np.zeros((STACK, SIDE, SIDE), np.uint8)] * self.num_envs
        self.awaiting = [False] * self.num_envs
        for stream in range(self.num_envs):
            self.now[stream] = self.reset(stream)

    def frame(self) -> np.ndarray:
        """A picture like no other, mostly black as those of games are."""
        self.serial += 1
        frame = np.zeros((SIDE, SIDE), np.uint8)
        frame.flat[:4] = np.array([self.serial], "<u4").view(np.uint8)
        frame[self.serial % SIDE] = 1 + self.serial % 255
        return frame

    def reset(self, stream: int) -> np.ndarray:
        stack = np.zeros((STACK, SIDE, SIDE), np.uint8)
        if self.first == "carried":
            stack[:-1] = self.now[stream][1:]
        stack[-1] = self.frame()
        if self.first == "repeated":
            stack[:-1] = stack[-1]
        return stack

    def after(self, stack: np.ndarray, shift: str) -> np.ndarray:
        if shift == "reversed":
            return stack[::-1].copy()
        count = {"two": 2, "all": STACK, "none": 0}.get(shift, 1)
        new = [self.frame() for _ in range(count)]
        if shift == "black":
            new = [np.zeros((SIDE, SIDE), np.uint8)]
        if shift == "repeat":
            new = [stack[-1]]
        stack = np.concatenate([stack[count:], np.array(new).reshape(-1, SIDE, SIDE)])
        if shift == "edited":
            stack[1, -1, -1] ^= 1
        return stack.astype(np.uint8)

    def given(self, stream: int, kept: str) -> np.ndarray:
        """What the user names as the observation of the next step."""
        obs = self.now[stream]
        if kept == "kept":
            return obs
        obs = obs.copy()
        if kept == "edited":
            obs[-1, 0, -1] ^= 1
        elif kept == "foreign":
            obs = np.array([self.frame() for _ in range(STACK)])
        elif kept == "of another stream":
            obs = self.now[(stream + 1) % self.num_envs].copy()
        return obs


@dataclass
class Pair:
    """The buffer that shares beside the twin that does not."""

    replay: per.ReplayBuffer
    twin: ReferenceStreams
    world: Pictures
    single: bool = False
    wear: Any = None  # from (B, stack, side, side) to the field
    reuse: bool = False  # whether the caller writes every step into the same arrays
    batches: list[tuple[Any, dict[str, np.ndarray]]] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def build(
        cls, num_envs=1, mode="disabled", *, capacity=20, n_step=1, first="repeated",
        columns=None, single=False, wear=lambda stacks: stacks, reuse=False, **options,
    ):  # fmt: skip
        replay = per.ReplayBuffer(
            capacity, columns or fields(stack_axis=0), n_step=n_step, gamma=GAMMA, seed=0,
            num_envs=None if single else num_envs, autoreset=mode, **options,
        )  # fmt: skip
        twin = ReferenceStreams(capacity, num_envs, n_step=n_step)
        return cls(replay, twin, Pictures(num_envs, mode, first), single, wear, reuse)

    def step(self, how) -> list[int]:
        """One step of all streams: for each its shift, what is kept and how it ends."""
        world = self.world
        obs, following, steps = [], [], []
        final = np.full(len(how), None, dtype=object)
        for stream, (shift, kept, ending) in enumerate(how):
            now = world.given(stream, "kept" if world.awaiting[stream] else kept)
            obs.append(now)
            if world.awaiting[stream]:
                world.awaiting[stream] = False
                world.now[stream] = world.reset(stream)
                following.append(world.now[stream])
                steps.append(None)
                continue
            after = world.after(now, shift)
            world.now[stream] = after
            following.append(after)
            worn = self.wear(np.array([now, after]))
            steps.append(Step(worn[0].copy(), world.serial, 1.0, worn[1].copy()))
            if any(ending):
                if world.mode == "next_step":
                    world.awaiting[stream] = True
                    continue
                final[stream] = self.wear(after[None])[0]
                world.now[stream] = world.reset(stream)
                if world.mode == "same_step":
                    following[-1] = world.now[stream]
        endings = [
            OPEN if step is None else ending for step, (*_, ending) in zip(steps, how, strict=True)
        ]
        ended = np.array(endings)
        info = {"final_obs": final, "_final_obs": ended.any(axis=1)} if ended.any() else {}
        action = np.array([0 if step is None else step.action for step in steps])
        reward = np.array([0.0 if step is None else 1.0 for step in steps])
        columns = [self.wear(np.array(obs)), action, reward, self.wear(np.array(following))]
        if self.reuse:
            for name, k in (("obs", 0), ("next_obs", 3)):
                mine = self.arrays.setdefault(name, np.empty_like(columns[k]))
                mine[...] = columns[k]
                columns[k] = mine
        columns += [ended[:, 0], ended[:, 1]]
        if self.single:
            ids = self.replay.add(*(column[0] for column in columns))
        else:
            ids = self.replay.add(*columns, info=info if world.mode == "same_step" else None)
        return self._agree(ids, self.twin.add(range(len(how)), steps, endings))

    def end_episode(self) -> list[int]:
        return self._agree(self.replay.end_episode(), self.twin.end_episode())

    def clear(self) -> None:
        self.replay.clear()
        self.twin.clear()

    def extend(self, kinds) -> list[int]:
        """Unrelated rows that may yet be like those of the streams, or like one another."""
        obs, following = [], []
        for k, (shift, kept) in enumerate(kinds):
            now = following[-1] if following and kept == "copied" else None
            obs.append(self.world.given(k % self.world.num_envs, kept) if now is None else now)
            following.append(self.world.after(obs[-1], shift))
        shape = (-1, STACK, SIDE, SIDE)
        columns = {
            "obs": self.wear(np.array(obs, np.uint8).reshape(shape)),
            "action": np.arange(len(kinds)),
            "reward": np.ones(len(kinds)),
            "next_obs": self.wear(np.array(following, np.uint8).reshape(shape)),
            "discount": np.full(len(kinds), 0.25, np.float32),
        }
        ids = self.replay.extend(columns)
        rows = [
            {name: column[k].copy() for name, column in columns.items()} for k in range(len(kinds))
        ]
        return self._agree(ids, self.twin.table.extend(rows))

    def _agree(self, ids, expected) -> list[int]:
        assert ids.tolist() == expected
        self.compare([i for i in expected if i in self.twin.rows])
        return expected

    def sample(self, size: int) -> None:
        """Draw a batch, and keep it to see that it never changes."""
        if self.twin.rows:
            batch = self.replay.sample(size)
            self.compare(batch.ids.tolist(), batch)
            self.batches.append((batch, {n: batch[n].copy() for n in ("obs", "next_obs")}))

    def compare(self, ids=None, batch=None) -> None:
        ids = list(self.twin.rows) if ids is None else ids
        if not ids:
            return
        batch = self.replay.get(np.array(ids)) if batch is None else batch
        for name in ("obs", "next_obs", "action", "reward", "discount"):
            column = batch[name]
            expected = np.array([self.twin.rows[i][name] for i in ids]).astype(column.dtype)
            assert column.shape == expected.shape
            wrong = [
                i
                for i, one, other in zip(ids, column, expected, strict=True)
                if one.tobytes() != other.tobytes()
            ]
            assert not wrong, f"{name} of rows {wrong} among {ids}"

    def close(self) -> None:
        """All that is left is right, and so is all that was handed out."""
        assert len(self.replay) == len(self.twin.rows)
        assert self.replay.stats()["open_windows"] == self.twin.open_windows
        self.compare()
        for batch, copies in self.batches:
            for name, copy in copies.items():
                assert batch[name].tobytes() == copy.tobytes()


ENDINGS = st.sampled_from([OPEN, OPEN, OPEN, OPEN, TERMINATED, TRUNCATED, BOTH])
HOW = st.tuples(
    st.sampled_from(["one"] * 8 + SHIFTS), st.sampled_from(["kept"] * 8 + KEPT), ENDINGS
)
ROWS = st.lists(st.tuples(st.sampled_from(SHIFTS), st.sampled_from(KEPT)), max_size=6)


def programs(num_envs):
    step = st.tuples(st.just("step"), st.tuples(*[HOW] * num_envs))
    return st.lists(
        st.one_of(
            *[step] * 8,
            st.tuples(st.just("extend"), ROWS),
            st.tuples(st.just("sample"), st.integers(1, 8)),
            st.tuples(st.just("end"), st.none()),
            st.tuples(st.just("clear"), st.none()),
        ),
        max_size=45,
    )


def run(pair, program):
    for kind, detail in program:
        if kind == "step":
            pair.step(detail)
        elif kind == "extend":
            pair.extend(detail)
        elif kind == "sample":
            pair.sample(detail)
        elif kind == "end":
            pair.end_episode()
        else:
            pair.clear()
    pair.sample(5)
    pair.close()


# --- any stream -------------------------------------------------------------------------------


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.slow
def test_sharing_changes_no_batch(num_envs, mode, data):
    pair = Pair.build(
        num_envs, mode,
        capacity=data.draw(st.integers(1, 25), "capacity"),
        n_step=data.draw(st.integers(1, 4), "n_step"),
        first=data.draw(st.sampled_from(FIRSTS), "first"),
        reuse=data.draw(st.booleans(), "reuse"),
        columns=fields(stack_axis=data.draw(st.sampled_from([0, None]), "stack_axis")),
    )  # fmt: skip
    run(pair, data.draw(programs(num_envs), "program"))


@settings(max_examples=40)
@given(data=st.data())
def test_sharing_changes_no_batch_of_one_stream(data):
    """A buffer without an axis of environments has ways of its own, and n = 1 has others yet."""
    pair = Pair.build(
        single=True,
        capacity=data.draw(st.integers(1, 25), "capacity"),
        n_step=data.draw(st.sampled_from([1, 1, 2, 3]), "n_step"),
        first=data.draw(st.sampled_from(FIRSTS), "first"),
        reuse=data.draw(st.booleans(), "reuse"),
    )
    run(pair, data.draw(programs(1), "program"))


LAYOUTS = {
    "last axis": (lambda s: np.moveaxis(s, 1, -1), (SIDE, SIDE, STACK), {"stack_axis": 2}),
    "last axis from behind": (
        lambda s: np.moveaxis(s, 1, -1), (SIDE, SIDE, STACK), {"stack_axis": -1}),
    "last axis, not named": (lambda s: np.moveaxis(s, 1, -1), (SIDE, SIDE, STACK), {}),
    "contiguous last axis": (
        lambda s: np.ascontiguousarray(np.moveaxis(s, 1, -1)), (SIDE, SIDE, STACK),
        {"stack_axis": -1}),
    "middle axis": (lambda s: np.moveaxis(s, 1, 2), (SIDE, STACK, SIDE), {"stack_axis": 1}),
    "wrong axis": (lambda s: s, (STACK, SIDE, SIDE), {"stack_axis": 1}),
    "colours": (
        lambda s: np.stack([s, s ^ 7, s], -1), (STACK, SIDE, SIDE, 3), {"stack_axis": 0}),
    "colours in the last axis": (
        lambda s: np.stack([s, s ^ 7, s], 2).reshape(-1, 3 * STACK, SIDE, SIDE).transpose(
            0, 2, 3, 1), (SIDE, SIDE, 3 * STACK), {"stack_axis": -1}),
    "backwards": (lambda s: s[:, ::-1], (STACK, SIDE, SIDE), {"stack_axis": 0}),
    "stack of two": (lambda s: np.repeat(s[:, 2:], 2, 2), (2, 2 * SIDE, SIDE), {"stack_axis": 0}),
    "stack of one": (lambda s: np.repeat(s[:, 3:], 3, 2), (1, 3 * SIDE, SIDE), {"stack_axis": 0}),
    "one frame": (lambda s: np.repeat(s[:, 3], 3, 1), (3 * SIDE, SIDE), {}),
    "flat": (lambda s: s.reshape(len(s), STACK * FRAME), (STACK * FRAME,), {}),
    "larger integers": (lambda s: s.astype(np.int64), (STACK, SIDE, SIDE), {"stack_axis": 0}),
}  # fmt: skip
DTYPES = {"larger integers": "int16"}


@settings(max_examples=12)
@given(data=st.data())
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.slow
def test_any_layout_of_the_stack(layout, data):
    wear, shape, options = LAYOUTS[layout]
    pair = Pair.build(
        2, "same_step", wear=wear,
        columns=fields(shape, DTYPES.get(layout, "uint8"), **options),
        capacity=data.draw(st.integers(1, 20), "capacity"),
        n_step=data.draw(st.integers(1, 3), "n_step"),
        first=data.draw(st.sampled_from(FIRSTS), "first"),
    )  # fmt: skip
    run(pair, data.draw(programs(2), "program"))


@given(data=st.data())
@settings(max_examples=20)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.slow
def test_equal_numbers_of_other_bytes_are_not_shared(dtype, data):
    """Minus zero equals zero, and NaN does not equal itself; batches keep the bytes."""
    signs = np.array([0.0, -0.0, np.nan, -np.nan, 1.0, np.inf]).astype(dtype)
    wear = lambda stacks: signs[stacks % 6]  # noqa: E731
    pair = Pair.build(
        wear=wear, columns=fields(dtype=dtype, stack_axis=0), capacity=12,
        n_step=data.draw(st.integers(1, 2), "n_step"),
    )  # fmt: skip
    run(pair, data.draw(programs(1), "program"))


def test_minus_zero_is_not_taken_for_zero():
    replay = per.ReplayBuffer(8, fields((4, 16, 16), "float32", stack_axis=0))
    zero = np.zeros((4, 16, 16), np.float32)
    ids = replay.add(zero, 0, 0.0, zero, False)
    ids = np.append(ids, replay.add(-zero, 0, 0.0, zero, False))
    ids = np.append(ids, replay.add(zero, 0, 0.0, -zero, False))

    batch = replay.get(ids)

    assert np.signbit(batch.obs[:, 0, 0, 0]).tolist() == [False, True, False]
    assert np.signbit(batch.next_obs[:, 0, 0, 0]).tolist() == [False, False, True]
    assert np.signbit(batch.obs).sum() == np.signbit(batch.next_obs).sum() == zero.size


@pytest.mark.parametrize(
    ("num_envs", "n_step", "first"),
    [(1, 1, "repeated"), (1, 3, "zeros"), (3, 1, "carried"), (3, 3, "repeated")],
)
@pytest.mark.slow
def test_a_long_stream_over_many_laps(num_envs, n_step, first):
    """Longer than any piece of memory that frames are kept in, with a break now and then."""
    pair = Pair.build(num_envs, "next_step", capacity=257, n_step=n_step, first=first)
    rng = np.random.default_rng(n_step)
    for k in range(1800 // num_envs):
        how = [
            (
                "one" if rng.random() < 0.98 else str(rng.choice(SHIFTS)),
                "kept" if rng.random() < 0.98 else str(rng.choice(KEPT)),
                [OPEN, TERMINATED, TRUNCATED][rng.choice(3, p=[0.97, 0.02, 0.01])],
            )
            for _ in range(num_envs)
        ]
        pair.step(how)
        if k % 150 == 0:
            pair.sample(32)
            pair.compare()
    pair.close()


@pytest.mark.slow
def test_observations_of_any_kind_of_array():
    """Read-only, of negative strides, cut out of larger ones, of other dtypes, lists, tensors."""
    torch = pytest.importorskip("torch")
    replay = per.ReplayBuffer(40, fields(stack_axis=0))
    world = np.random.default_rng(0).integers(0, 255, (40, SIDE, SIDE), np.uint8)
    world.flags.writeable = False

    class Lazy:
        """What frame stacks of some libraries are."""

        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array.astype(dtype or self.array.dtype)

    kinds = [
        lambda a: a,
        lambda a: a.tolist(),
        lambda a: torch.from_numpy(a.copy()),
        Lazy,
        lambda a: a.astype(np.int64),
        np.asfortranarray,
        lambda a: a[::-1].copy()[::-1],
        lambda a: np.repeat(a, 2, 1)[:, ::2],
        lambda a: a.astype(">u2"),
        list,
    ]
    ids = []
    for k in range(30):
        obs, after = kinds[k % 10](world[k : k + 4]), kinds[3 * k % 10](world[k + 1 : k + 5])
        ids += replay.add(obs, k, 0.0, after, False).tolist()

    batch = replay.get(np.array(ids))

    assert np.array_equal(batch.obs, [world[k : k + 4] for k in range(30)])
    assert np.array_equal(batch.next_obs, [world[k + 1 : k + 5] for k in range(30)])


def test_the_same_array_for_both_observations():
    """What it held when it was added counts. Steps that end an episode may lead anywhere."""
    replay = per.ReplayBuffer(20, fields(stack_axis=0))
    world = Pictures(1)
    array = world.now[0].copy()
    held, ids = [], []
    for k in range(12):
        array[...] = world.after(array, SHIFTS[k % len(SHIFTS)])
        ids += replay.add(array, k, 0.0, array, True).tolist()
        held.append(array.copy())
    array[...] = 0

    batch = replay.get(np.array(ids))

    assert np.array_equal(batch.obs, held)
    assert np.array_equal(batch.next_obs, held)


def test_an_array_that_changed_since_it_was_added():
    """It is the same object as the last next_obs, but no longer the same picture."""
    replay = per.ReplayBuffer(20, fields(stack_axis=0))
    world = Pictures(1)
    obs, after = world.now[0].copy(), world.after(world.now[0], "one")
    first = replay.add(obs, 0, 0.0, after, False)
    kept = after.copy()
    after[0, 3, 3] ^= 255
    second = replay.add(after, 1, 0.0, obs, False)

    assert np.array_equal(replay.get(first).next_obs[0], kept)
    assert np.array_equal(replay.get(second).obs[0], after)
    assert np.array_equal(replay.get(second).next_obs[0], obs)


@settings(max_examples=25)
@example(program=[("step", ((("one", "kept", OPEN)),) * 2)] * 9)
@given(program=programs(2))
def test_images_among_other_observations(program):
    """Only the large leaves of a dictionary are shared; a large further column is not."""
    columns = {
        **fields(),
        "obs": {
            "image": per.Field((STACK, SIDE, SIDE), "uint8", stack_axis=0),
            "place": (per.Field((2,), "float32"), per.Field((), "int64")),
            "map": per.Field((SIDE, 2 * SIDE), "uint8"),
        },
        "core": per.Field((300,), "float32"),
    }
    replay = per.ReplayBuffer(9, columns, n_step=2, gamma=GAMMA, num_envs=2, autoreset="disabled")
    twin = ReferenceStreams(9, 2, n_step=2)
    world = Pictures(2)

    def leaves(stacks):
        number = stacks[:, -1, 0, :4].copy().view("<u4")[:, 0]
        place = (np.stack([number, -1.0 * number], 1).astype(np.float32), number.astype(np.int64))
        return {"image": stacks, "place": place, "map": np.concatenate(
            [stacks[:, 3], stacks[:, 2]], axis=2)}  # fmt: skip

    def cut(tree, k):
        if isinstance(tree, dict):
            return {name: cut(leaf, k) for name, leaf in tree.items()}
        return tuple(cut(leaf, k) for leaf in tree) if isinstance(tree, tuple) else tree[k].copy()

    def equal(batch, rows):
        if isinstance(batch, dict):
            assert set(batch) == set(rows[0])
            return all(equal(batch[name], [row[name] for row in rows]) for name in batch)
        if isinstance(batch, tuple):
            return all(equal(leaf, [row[k] for row in rows]) for k, leaf in enumerate(batch))
        return np.array_equal(batch, rows)

    for kind, how in program:
        if kind != "step":
            continue
        obs = np.array([world.given(e, kept) for e, (_, kept, _) in enumerate(how)])
        after = np.array([world.after(obs[e], shift) for e, (shift, _, _) in enumerate(how)])
        endings = [ending for *_, ending in how]
        core = np.arange(600, dtype=np.float32).reshape(2, 300) + world.serial
        one, two = leaves(obs), leaves(after)
        steps = [Step(cut(one, e), e, 1.0, cut(two, e), None, {"core": core[e]}) for e in (0, 1)]
        flags = np.array(endings)
        ids = replay.add(one, [0, 1], [1.0, 1.0], two, flags[:, 0], flags[:, 1], core=core)
        assert ids.tolist() == twin.add([0, 1], steps, endings)
        world.now = [world.reset(e) if any(endings[e]) else after[e] for e in (0, 1)]
    if twin.rows:
        batch = replay.get(np.array(list(twin.rows)))
        rows = list(twin.rows.values())
        for name in ("obs", "next_obs", "core", "reward", "discount"):
            assert equal(batch[name], [row[name] for row in rows]), name


# --- batches ----------------------------------------------------------------------------------


@pytest.fixture
def filled():
    """A factory of buffers of images, well filled."""

    def fill(n_step=1, steps=40, capacity=25, **options):
        pair = Pair.build(capacity=capacity, n_step=n_step, single=True, **options)
        for k in range(steps):
            pair.step([("one", "kept", TRUNCATED if k % 11 == 10 else OPEN)])
        return pair

    return fill


@pytest.mark.parametrize("n_step", [1, 3])
def test_images_of_a_batch_cannot_be_changed(filled, n_step):
    pair = filled(n_step)
    for batch in (pair.replay.sample(8), pair.replay.get(pair.twin.table.ids)):
        for name in ("obs", "next_obs"):
            with pytest.raises(ValueError, match="read-only"):
                batch[name][0, 0, 0, 0] = 1
        batch.reward[0] = 7.0  # the small columns are the caller's
    pair.compare()


@pytest.mark.parametrize("n_step", [1, 3])
def test_a_batch_of_no_images(filled, n_step):
    replay = filled(n_step).replay
    batch = replay.get([])
    assert batch.obs.shape == batch.next_obs.shape == (0, *replay.fields["obs"].shape)


@pytest.mark.parametrize("n_step", [1, 3])
def test_batches_keep_their_images_while_the_ring_goes_round(filled, n_step):
    pair = filled(n_step)
    for k in range(60):
        pair.sample(1 + k % 9)
        pair.step([("one", "kept", TERMINATED if k % 7 == 6 else OPEN)])
    pair.clear()
    for k in range(30):
        pair.step([("all", "foreign", OPEN)])
        pair.sample(1 + k % 9)
    pair.close()


@pytest.mark.parametrize("n_step", [1, 3])
def test_tensors_of_images_may_be_changed(filled, n_step):
    torch = pytest.importorskip("torch")
    pair = filled(n_step)
    ids = pair.twin.table.ids
    batch = pair.replay.get(ids)
    tensors = batch.to_torch()
    whole = {name: batch[name].copy() for name in ("obs", "next_obs")}

    assert tensors.obs.dtype == tensors.next_obs.dtype == torch.uint8
    tensors.obs[:] = 7
    assert torch.equal(tensors.next_obs, torch.from_numpy(whole["next_obs"]))
    tensors.next_obs[:, 0] = 9
    assert bool((tensors.obs == 7).all())
    assert bool((tensors.next_obs[:, 1:] == torch.from_numpy(whole["next_obs"][:, 1:])).all())
    for name, copy in whole.items():
        assert np.array_equal(batch[name], copy)
    pair.compare()


def test_one_column_as_a_tensor(filled):
    pytest.importorskip("torch")
    pair = filled()
    batch = pair.replay.sample(4)
    tensor = batch.to_torch(columns=["next_obs"])["next_obs"]
    before = batch.next_obs.copy()
    tensor += 1
    assert np.array_equal(batch.next_obs, before)
    pair.compare()


# --- memory -----------------------------------------------------------------------------------


def small_columns(capacity, **options):
    """Bytes of a buffer whose observations are one byte, and 64 for each row to name its frames."""
    return per.ReplayBuffer(capacity, fields((1,)), **options).nbytes + 64 * capacity


def roll(pair, steps, length=500):
    """A well-behaved stream: episodes of a constant length, the plain Gymnasium tuple."""
    for k in range(steps):
        ending = TRUNCATED if k % length == length - 1 else OPEN
        pair.step([("one", "kept", ending)] * pair.world.num_envs)


def stream(replay, steps, side=84, envs=None, first="repeated", length=500, axis=0, stack=4):
    """The same at the size of Atari without a twin; returns the last observations."""
    count = envs or 1
    frames = np.zeros((count, stack, side, side), np.uint8)
    for serial in range(1, steps + 1):
        k = serial - 1
        if k % length == 0:
            frames = np.zeros_like(frames)
            frames[:, -1] = serial % 251 + 1
            frames[:, -1, 0, :4] = np.array([2**24 + serial], "<u4").view(np.uint8)
            if first == "repeated":
                frames[:] = frames[:, -1:]
        obs = frames
        frames = np.concatenate([obs[:, 1:], np.zeros((count, 1, side, side), np.uint8)], 1)
        frames[:, -1, 1:3] = serial % 251 + 1
        frames[:, -1, 0, :4] = np.array([serial], "<u4").view(np.uint8)
        frames[:, -1, 0, 4] = np.arange(count)
        one, two = np.moveaxis(obs, 1, axis + 1), np.moveaxis(frames, 1, axis + 1)
        ended = k % length == length - 1
        if envs is None:
            replay.add(one[0], k, 1.0, two[0], False, ended)
        else:
            many = np.full(envs, ended)
            replay.add(one, np.full(envs, k), np.ones(envs), two, ~many & False, many)
    return one, two


@pytest.mark.parametrize(
    ("envs", "n_step", "first"),
    [(None, 1, "repeated"), (None, 3, "zeros"), (4, 1, "zeros"), (4, 3, "repeated")],
)
@pytest.mark.slow
def test_one_frame_for_each_transition(envs, n_step, first):
    capacity, frame = 6000, 84 * 84
    options = {"n_step": n_step, "num_envs": envs, "autoreset": "disabled"}
    replay = per.ReplayBuffer(capacity, fields((4, 84, 84), stack_axis=0), **options)

    stream(replay, capacity // (envs or 1) + n_step, envs=envs, first=first)

    assert len(replay) == capacity
    assert replay.nbytes <= 1.02 * frame * capacity + small_columns(capacity, **options)
    assert replay.nbytes >= frame * capacity  # and it says what is really there


@pytest.mark.parametrize("n_step", [1, 2])
def test_padding_takes_no_memory(n_step):
    """Of an episode of four steps that begins with zeros, five frames are kept."""
    capacity = 1200
    replay = per.ReplayBuffer(capacity, fields((4, SIDE, SIDE), stack_axis=0), n_step=n_step)
    stream(replay, capacity, side=SIDE, length=4, first="zeros")
    replay.end_episode()
    assert len(replay) == capacity
    assert replay.nbytes <= 1.3 * FRAME * capacity + small_columns(capacity, n_step=n_step)


def test_several_images_need_no_more_than_their_frames():
    """Room for all of them is made beforehand: no more of it than will be used."""
    count, frame = 3000, 32 * 32
    image = per.Field((4, 32, 32), "uint8", stack_axis=0)
    replay = per.ReplayBuffer(count, fields() | {"obs": {"left": image, "right": image}})
    before = replay.nbytes
    frames = np.random.default_rng(0).integers(0, 256, (count + 4, 32, 32), np.uint8)
    stacks = np.stack([frames[k : k + count + 1] for k in range(4)], axis=1)
    columns = {
        "obs": {"left": stacks[:-1], "right": stacks[:-1]},
        "next_obs": {"left": stacks[1:], "right": stacks[1:]},
        **{name: np.zeros(count, "bool") for name in ("action", "reward", "terminated")},
    }

    replay.extend(columns)

    assert replay.nbytes - before <= 1.1 * 2 * frame * count


@pytest.mark.parametrize("envs", [None, 3])
@pytest.mark.slow
def test_memory_does_not_grow_with_laps(envs):
    """What the rows that are gone alone needed is used again."""
    options = {"n_step": 2, "num_envs": envs, "autoreset": "disabled"}
    replay = per.ReplayBuffer(700, fields((4, SIDE, SIDE), stack_axis=0), **options)
    stream(replay, 1500 // (envs or 1), side=SIDE, envs=envs, length=40)
    before = replay.nbytes
    stream(replay, 4000 // (envs or 1), side=SIDE, envs=envs, length=40)
    assert replay.nbytes <= 1.02 * before + 2**16


@pytest.mark.parametrize("n_step", [1, 3])
def test_rows_that_give_way_at_once_leave_no_frames(n_step):
    options = {"n_step": n_step, "num_envs": 5, "autoreset": "disabled"}
    replay = per.ReplayBuffer(2, fields((4, SIDE, SIDE), stack_axis=0), **options)
    stream(replay, 30, side=SIDE, envs=5, length=10)
    before = replay.nbytes
    stream(replay, 200, side=SIDE, envs=5, length=10)
    assert replay.nbytes <= before + 2**12


def test_rows_that_share_nothing_are_kept_whole():
    """A wrong assumption costs memory, never a batch; and the next lap has it back."""
    pair = Pair.build(capacity=40, single=True)
    for _ in range(100):
        pair.step([("all", "foreign", OPEN)])
    pair.close()
    for k in range(100):
        pair.step([("one", "kept", TERMINATED if k % 20 == 19 else OPEN)])
    pair.close()


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("first", ["repeated", "zeros"])
@pytest.mark.parametrize("still", [0, 3])
@pytest.mark.slow
def test_stacks_are_found_in_the_data(axis, first, still):
    """Along the first axis or the last, also if nothing moves at first."""
    capacity, side = 3000, 40
    shape = tuple(np.moveaxis(np.empty((4, side, side)), 0, axis).shape)
    replay = per.ReplayBuffer(capacity, fields(shape))
    for k in range(still):
        same = np.full(shape, 9, np.uint8)
        replay.add(same, k, 0.0, same, False)
    if still:
        replay.end_episode()

    obs, after = stream(replay, capacity, side=side, axis=axis, first=first)

    bound = 1.1 * side * side * capacity + small_columns(capacity) + 2**20
    assert replay.nbytes <= bound
    last = replay.get([replay.stats()["ids_issued"] - 1])
    assert np.array_equal(last.obs, obs)
    assert np.array_equal(last.next_obs, after)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.slow
def test_a_stack_that_is_found_late(num_envs, n_step):
    """Episodes of one step of a repeated first frame look the same, shifted or not."""
    told, found = (
        Pair.build(num_envs, capacity=40 * num_envs, n_step=n_step, columns=fields(**options))
        for options in ({"stack_axis": 0}, {})
    )
    for pair in (told, found):
        for _ in range(15):
            pair.step([("one", "kept", TRUNCATED)] * num_envs)
            pair.step([("none", "kept", OPEN)] * num_envs)
            pair.end_episode()
        roll(pair, 30, length=10)
        pair.compare()
        for _ in range(4):
            roll(pair, 30, length=10)
            pair.compare()
            pair.sample(8)
        pair.close()
    assert found.replay.nbytes <= told.replay.nbytes + 3 * FRAME  # nothing is left behind


@pytest.mark.parametrize("envs", [None, 2])
def test_a_stack_is_found_while_windows_are_open(envs):
    """Steps that wait for their windows are kept anew like rows."""
    options = {"n_step": 3, "num_envs": envs, "autoreset": "disabled"}
    replay = per.ReplayBuffer(50, fields((4, 20, 20)), **options)
    count = envs or 1
    frames = np.random.default_rng(0).integers(0, 256, (count, 9, 20, 20), np.uint8)
    frames[:, 1:5] = frames[:, :1]  # nothing moves in the first step
    stacks = [frames[:, k : k + 4] for k in range(6)]
    for obs, next_obs in itertools.pairwise(stacks):
        if envs is None:
            replay.add(obs[0], 0, 0.0, next_obs[0], False)
        else:
            none = np.zeros(envs, bool)
            replay.add(obs, none, none, next_obs, none)

    batch = replay.get(np.arange(3 * count))
    for k in range(3):
        for stream in range(count):
            row = k * count + stream
            assert np.array_equal(batch.obs[row], stacks[k][stream])
            assert np.array_equal(batch.next_obs[row], stacks[k + 3][stream])


@pytest.mark.parametrize("padding", ["reset", "zero"])
@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.slow
def test_stacks_are_found_in_the_wrappers(padding, vector):
    gymnasium = pytest.importorskip("gymnasium")
    from gymnasium.wrappers import FrameStackObservation, TimeLimit

    class Screen(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (40, 40), np.uint8)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.np_random.integers(0, 256, (40, 40), np.uint8), {}

        def step(self, action):
            return self.np_random.integers(0, 256, (40, 40), np.uint8), 1.0, False, False, {}

    make = lambda: TimeLimit(  # noqa: E731
        FrameStackObservation(Screen(), 4, padding_type=padding), max_episode_steps=90
    )
    env = gymnasium.vector.SyncVectorEnv([make] * 2) if vector else make()
    capacity = 2000
    replay = per.ReplayBuffer.for_env(env, capacity)
    seen = []
    obs, _ = env.reset(seed=0)
    while len(replay) < capacity:
        action = env.action_space.sample()
        after, reward, terminated, truncated, info = env.step(action)
        ids = replay.add(obs, action, reward, after, terminated, truncated, info=info)
        if not vector:
            seen.append((obs, after))
        obs = env.reset()[0] if not vector and truncated else after
        assert ids.size <= 2
    env.close()

    plain = per.ReplayBuffer(capacity, fields((1,))).nbytes
    assert replay.nbytes <= 1.1 * 1600 * capacity + plain + 64 * capacity + 2**20
    if not vector:
        batch = replay.get(np.arange(capacity - 50, capacity))
        assert np.array_equal(batch.obs, [obs for obs, _ in seen[-50:]])
        assert np.array_equal(batch.next_obs, [after for _, after in seen[-50:]])


def test_small_observations_stay_plain_rows():
    """Below a kilobyte a copy is cheaper than the bookkeeping; their arrays may be changed."""
    replay = per.ReplayBuffer(10, fields((4, 5, 5), stack_axis=0))
    obs = np.zeros((4, 5, 5), np.uint8)
    ids = replay.add(obs, 0, 0.0, obs + 1, False)
    batch = replay.get(ids)
    batch.obs[:] = 3
    assert np.array_equal(replay.get(ids).obs[0], obs)


# --- the limit --------------------------------------------------------------------------------


def limited(share=0.5, capacity=4000, n_step=1, num_envs=1, **options):
    """A pair that may have about this share of what a full buffer of unshared rows needs."""
    whole = 2 * STACK * FRAME * capacity
    base = small_columns(capacity)
    return Pair.build(
        num_envs, capacity=capacity, n_step=n_step, max_bytes=int(base + share * whole), **options
    )


def fill_up(pair, how, limit=5000):
    """Add until it raises; the twin gets what the buffer got."""
    world, twin = pair.world, pair.twin
    for _ in range(limit):
        before = pair.replay.stats(), pair.replay.nbytes
        saved = [now.copy() for now in world.now]
        episodes = [list(episode) for episode in twin.episodes]
        try:
            pair.step(how)
        except (MemoryError, ValueError) as error:
            world.now = saved
            assert twin.episodes == episodes
            assert (pair.replay.stats(), pair.replay.nbytes) == before
            return error
    raise AssertionError("the limit was never reached")


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.slow
def test_the_limit_is_an_error_that_changes_nothing(num_envs, n_step):
    pair = limited(0.3, 4000, n_step, num_envs)
    how = [("all", "foreign", OPEN)] * num_envs

    error = fill_up(pair, how)

    assert isinstance(error, MemoryError)
    assert isinstance(error, ValueError)
    assert "max_bytes" in str(error)
    assert 0 < len(pair.replay) < 4000
    pair.compare()
    assert isinstance(fill_up(pair, how, 3), MemoryError)  # again
    with pytest.raises(MemoryError, match="max_bytes"):
        pair.extend([("all", "foreign")] * 3000)
    pair.compare()
    assert pair.replay.stats()["open_windows"] == pair.twin.open_windows
    pair.end_episode()  # the open windows are still there, and need nothing new
    pair.close()

    pair.clear()
    for _ in range(20):
        pair.step(how)
    pair.close()


def test_a_stack_that_is_found_where_there_is_no_room_for_it_leaves_no_trace():
    """The rows stay as they are, and so does what is counted for them."""
    frames = np.random.default_rng(0).integers(0, 256, (6, 20, 20), np.uint8)
    still = np.zeros_like(frames[:4])  # may be a stack or not
    free = per.ReplayBuffer(50, fields(still.shape))
    free.add(still + 1, 0, 0.0, still + 1, False)
    limited = per.ReplayBuffer(50, fields(still.shape), max_bytes=free.nbytes + 8)
    limited.add(still + 1, 0, 0.0, still + 1, False)
    before = limited.nbytes

    for _ in range(2):
        with pytest.raises(MemoryError):
            limited.add(frames[:4], 0, 0.0, frames[1:5], False)
        assert limited.nbytes == before
    assert np.array_equal(limited.get([0]).obs[0], still + 1)


@pytest.mark.parametrize("n_step", [1, 2])
def test_if_one_of_several_images_has_no_room_none_is_kept(n_step):
    images = {"large": per.Field((40, 40), "uint8"), "larger": per.Field((80, 80), "uint8")}
    options = {"n_step": n_step, "num_envs": 2, "autoreset": "disabled"}
    replay = per.ReplayBuffer(300, fields() | {"obs": images}, max_bytes=400_000, **options)
    rng = np.random.default_rng(0)

    def add(steps):
        """All new, also what a step begins with."""
        for _ in range(steps):
            obs, next_obs = (
                {name: rng.integers(0, 256, (2, *f.shape), np.uint8) for name, f in images.items()}
                for _ in range(2)
            )
            replay.add(obs, [0, 0], [0.0, 0.0], next_obs, [False, False], [True, True])

    with pytest.raises(MemoryError):
        add(steps=100)
    used = [shared._frames.used for shared in replay._transitions.shared]
    for _ in range(20):
        with pytest.raises(MemoryError):
            add(steps=1)
        assert [shared._frames.used for shared in replay._transitions.shared] == used


@pytest.mark.slow
def test_what_fits_the_limit_goes_on_for_ever():
    """Rows that are overwritten give their frames back."""
    free = Pair.build(1, capacity=300)
    roll(free, 700, 50)
    pair = Pair.build(1, capacity=300, max_bytes=free.replay.nbytes)
    roll(pair, 1000, 50)
    pair.close()
    assert pair.replay.nbytes <= free.replay.nbytes


def test_a_limit_below_the_rows_themselves():
    with pytest.raises((MemoryError, ValueError), match="max_bytes"):
        per.ReplayBuffer(10_000, fields(stack_axis=0), max_bytes=5000).add(
            np.zeros((4, SIDE, SIDE)), 0, 0.0, np.ones((4, SIDE, SIDE)), False
        )


def test_one_step_out_of_order_does_not_end_the_search_for_a_stack():
    frames = np.random.default_rng(0).integers(0, 256, (110, 40, 40), np.uint8)
    replay = per.ReplayBuffer(100, fields((4, 40, 40)))
    replay.add(frames[50:54], 0, 0.0, frames[:4], False)
    for k in range(100):
        replay.add(frames[k : k + 4], k, 0.0, frames[k + 1 : k + 5], False)

    assert replay.nbytes < 1.2 * 100 * 40 * 40 + small_columns(100)
    assert np.array_equal(replay.get([60]).obs[0], frames[59:63])
