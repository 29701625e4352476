"""Saving and loading that are ended anywhere: what is on disk is complete, and the buffer goes on.

The ordinary run looks at a few events of every call. ``PER_INTERRUPTS=0`` in the environment looks
at all of them.
"""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests import interrupts
from tests.checkpoint_driving import World, drive, skipped
from tests.interrupts import Interrupt
from tests.test_interrupts import Kind, places
from tests.waiting import ended

import prioritized_replay as per
from prioritized_replay.checkpoint import manifest

MORE = 5  # steps between two saves
FURTHER = 6  # steps that are compared bit for bit
KINDS = [
    Kind("rows", "proportional", 1),
    Kind("rows", "rank", 3, "next_step"),
    Kind("frames", "rank", 3),
    Kind("nested", "proportional", 2, "same_step"),
    Kind("found", "uniform", 1, None, 2),
    Kind("nested", "proportional", 1, "next_step", sequence="overlapping"),
]
OLD, NEW = {"learner": b"old", "gone": b"x"}, {"learner": b"new"}

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    monkeypatch.setattr(manifest, "PIECE", 2_000)  # bytes: many files
    # Python says so where an exception strikes a generator that is being closed: the call went on.
    # pytest would keep the exception, its frames and so the buffer.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


class Moment(NamedTuple):
    """What a checkpoint may be of."""

    contents: dict[str, Any]
    extra: dict[str, bytes]


def loaded(folder: Path) -> Moment:
    replay = per.ReplayBuffer.load(folder)
    return Moment(interrupts.contents(replay), replay.extra)


def digests_of(replay: per.ReplayBuffer, kind: Kind, steps: int) -> list[str]:
    """Drive a buffer on from a number of steps."""
    world = skipped(World(kind), steps)  # type: ignore[arg-type]
    return drive(replay, world, steps, FURTHER, memory=False)


def files_in(folder: Path) -> dict[str, str]:
    """Return what lies in a folder, without the files in use by a buffer."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".words", ".lock")
    }


def assert_nothing_superfluous(folder: Path) -> None:
    """Only what the manifest names is in the folder."""
    reader = per.replay.Reader(folder, 1 << 40)
    named = {entry.file for entry in (*reader.entries.values(), *reader._extra.values())}
    assert set(files_in(folder)) == {manifest.MANIFEST, *named}


class Saving:
    """A buffer that was saved, was driven on, and is saved once more: that is ended."""

    def __init__(self, kind: Kind, where: Path, flushing: bool, first: bool) -> None:
        self.kind, self.where, self.flushing, self.first = kind, where, flushing, first
        self.steps = kind.steps + MORE
        replay, folder = self.begun("before")
        self.old = None if first else loaded(folder)
        self.save(replay, folder)
        self.new = loaded(folder)
        assert self.old != self.new
        assert self.new.contents == interrupts.contents(replay)
        self.digests = digests_of(replay, kind, self.steps)
        replay, folder = self.begun("counting")
        self.count = interrupts.count_events(lambda: self.save(replay, folder))

    def begun(self, name: str) -> tuple[per.ReplayBuffer, Path]:
        """Return a buffer as it is before the save that is ended, and its folder."""
        folder = self.where / name
        replay, world = self.kind.build(**{"directory": folder} if self.flushing else {})
        if not self.first:
            replay.flush() if self.flushing else replay.save(folder, OLD)
        drive(replay, world, self.kind.steps, MORE)
        return replay, folder

    def save(self, replay: per.ReplayBuffer, folder: Path) -> None:
        if self.flushing:
            replay.flush()
        else:
            replay.save(folder, NEW)

    def look(self, at: int) -> None:
        """End the save at one event, and look at what it leaves."""
        replay, folder = self.begun(f"at-{at}")
        interrupts.run_until(lambda: self.save(replay, folder), at)
        if self.old is None and not (folder / manifest.MANIFEST).exists():
            with pytest.raises(per.CheckpointError, match="is missing"):
                per.ReplayBuffer.load(folder)
        else:
            assert loaded(folder) in (self.old, self.new)
        assert interrupts.contents(replay) == self.new.contents
        if at % 2:
            self.save(replay, folder)
            assert loaded(folder) == self.new
            assert_nothing_superfluous(folder)
        assert digests_of(replay, self.kind, self.steps) == self.digests
        again = per.ReplayBuffer.load(folder) if at % 2 else None
        if again is not None:
            assert digests_of(again, self.kind, self.steps) == self.digests


@by_kind
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
@pytest.mark.parametrize("flushing", [False, True], ids=["save", "flush"])
@pytest.mark.slow
def test_the_checkpoint_before_it_or_that_after_it_is_there(kind, first, flushing, tmp_path):
    saving = Saving(kind, tmp_path, flushing, first)
    assert saving.count > 300
    for at in places(saving.count, seed=KINDS.index(kind) * 4 + 2 * first + flushing):
        try:
            ended(lambda at=at: saving.look(at))
        except Exception as error:
            raise AssertionError(f"event {at} of {saving.count}: {error!r}") from error


OPTIONS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "into memory": lambda folder, other: {},
    "into a new directory": lambda folder, other: {"directory": other / "new"},
    "into its own directory": lambda folder, other: {"directory": folder},
}


@by_kind
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.slow
def test_loading_changes_nothing_on_disk_and_can_be_tried_again(kind, option, tmp_path):
    folder = tmp_path / "checkpoint"
    options = OPTIONS[option](folder, tmp_path)
    where = {"directory": folder} if options.get("directory") == folder else {}
    replay, _ = kind.build(**where)
    replay.save(folder, OLD)
    contents, digests = interrupts.contents(replay), digests_of(replay, kind, kind.steps)
    del replay
    files = files_in(folder)

    def load() -> per.ReplayBuffer:
        return per.ReplayBuffer.load(folder, **options)

    def look(at: int) -> None:
        got: list[per.ReplayBuffer] = []
        interrupts.run_until(lambda: got.append(load()), at)
        assert files_in(folder) == files
        if got:  # there were fewer events than when they were counted
            forget(got.pop(), options)
        again = load()
        assert again.extra == OLD
        assert interrupts.contents(again) == contents
        assert digests_of(again, kind, kind.steps) == digests
        forget(again, options)

    count = interrupts.count_events(load)
    assert count > 500
    forget(None, options)
    for at in places(count, seed=100 + KINDS.index(kind) * 3 + [*OPTIONS].index(option)):
        try:
            ended(lambda at=at: look(at))
        except Exception as error:
            raise AssertionError(f"event {at} of {count}: {error!r}") from error


def forget(replay: per.ReplayBuffer | None, options: dict[str, Any]) -> None:
    """Remove what a buffer that was loaded into a new directory left there."""
    del replay
    directory = options.get("directory")
    if directory is not None and directory.name == "new":
        for path in directory.glob("*"):
            path.unlink()


def interrupted_add(replay: per.ReplayBuffer, world: World) -> None:
    """End an `add` where it has noted what it leaves to do."""
    step = world.step()
    commit = replay._transitions._commit

    def ended(*arguments: Any) -> None:
        raise Interrupt

    replay._transitions._commit = ended
    with pytest.raises(Interrupt):
        replay.add(**step)
    replay._transitions._commit = commit
    assert replay._note.work is not None


@pytest.mark.parametrize("flushing", [False, True], ids=["save", "flush"])
def test_a_buffer_that_is_between_two_states_refuses_to_be_saved(flushing, tmp_path, monkeypatch):
    kind = Kind("frames", "rank", 3)
    replay, world = kind.build(**{"directory": tmp_path} if flushing else {})
    save = replay.flush if flushing else lambda: replay.save(tmp_path)
    save()
    before, files = loaded(tmp_path), files_in(tmp_path)
    drive(replay, world, kind.steps, 1)
    expected = interrupts.contents(replay)
    interrupted_add(replay, world)
    shared = replay._transitions.shared[0]

    def fail(*arguments: Any) -> None:
        raise MemoryError("no room to count")

    with monkeypatch.context() as patch:
        patch.setattr(type(shared), "recount", fail)
        for call in (save, replay.stats, lambda: replay.sample(4), save):
            with pytest.raises(MemoryError, match="no room to count"):
                call()
        assert files_in(tmp_path) == files
        assert loaded(tmp_path) == before
    save()
    assert loaded(tmp_path).contents == expected == interrupts.contents(replay)
