"""The checkpoint of a run on disk: complete or not there, at every moment, after every damage."""

import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.waiting import ended

import prioritized_replay as per
from prioritized_replay.checkpoint.files import CheckpointError
from prioritized_replay.runs.checkpoint import RunCheckpoint

FIELDS = {
    "obs": per.Field((2,), "float32"),
    "action": per.Field((), "int64"),
    "reward": per.Field((), "float32"),
}


def add(replay, count):
    for _ in range(count):
        obs = np.full(2, replay.stats()["ids_issued"], np.float32)
        replay.add(obs, 0, 1.0, obs + 1.0, terminated=True)


def learner(number):
    return {"number": number, "weights": torch.full((3,), float(number)), "none": None}


def found(folder):
    """Return the number of the learner and of the replay's rows."""
    state, replay = RunCheckpoint(folder).load()
    assert torch.equal(state["weights"], torch.full((3,), float(state["number"])))
    return state["number"], len(replay)


@pytest.fixture
def replay():
    return per.ReplayBuffer(100, FIELDS, n_step=1, seed=1)


@pytest.fixture
def saved(tmp_path, replay):
    add(replay, 5)
    checkpoint = RunCheckpoint(tmp_path / "deep" / "checkpoint")
    checkpoint.save(learner(5), replay)
    return checkpoint


def names(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def learners(checkpoint):
    return {name for name in names(checkpoint.folder) if "learner" in name}


@pytest.mark.slow
def test_what_was_saved_last_comes_back_and_nothing_else_stays(saved, replay):
    assert found(saved.folder) == (5, 5)
    assert learners(saved) == {"extra-learner.g1.bin"}
    add(replay, 2)
    saved.save(learner(7), replay)
    assert found(saved.folder) == (7, 7)
    assert learners(saved) == {"extra-learner.g2.bin"}


def test_there_need_not_be_one(tmp_path):
    checkpoint = RunCheckpoint(tmp_path / "nowhere")
    assert not checkpoint.exists()
    with pytest.raises(CheckpointError, match=r"nowhere"):
        checkpoint.load()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_removing_takes_its_own_files_only(saved):
    (saved.folder / "notes.txt").write_text("mine")
    (saved.folder / "folder.g1.npy").mkdir()
    (saved.folder / "MANIFEST.json.new").write_text("half a man")
    saved.remove()
    assert names(saved.folder) == {"notes.txt"}
    assert not saved.exists()
    (saved.folder / "notes.txt").unlink()
    (saved.folder / "folder.g1.npy").rmdir()
    saved.remove()
    assert not saved.folder.exists()


CALLS = ("fsync", "link", "replace", "unlink", "rmdir", "mkdir")


def copies_at_every_call(monkeypatch, folder, target, action):
    """Copy the folder before each call that changes files: what a kill would leave there."""
    copies = []

    def watched(real):
        def call(*args, **options):
            copy = target / str(len(copies))
            copies.append(copy)
            with monkeypatch.context() as calm:
                for other, function in reals.items():
                    calm.setattr(os, other, function)
                shutil.copytree(folder, copy)
            return real(*args, **options)

        return call

    reals = {name: getattr(os, name) for name in CALLS if hasattr(os, name)}
    with monkeypatch.context() as patch:
        for name, real in reals.items():
            patch.setattr(os, name, watched(real))
        action()
    return copies


@pytest.mark.slow
def test_killed_at_any_moment_the_older_or_the_newer_is_complete(
    saved, replay, tmp_path, monkeypatch
):
    add(replay, 2)
    copies = copies_at_every_call(
        monkeypatch, saved.folder, tmp_path / "first", lambda: saved.save(learner(7), replay)
    )
    outcomes = [found(copy) for copy in copies]
    assert len(outcomes) > 20
    assert set(outcomes) == {(5, 5), (7, 7)}
    assert outcomes == sorted(outcomes)

    # And whoever continues from there can be killed again.
    checkpoint = RunCheckpoint(copies[-2])
    assert found(checkpoint.folder) == (7, 7)
    _, again = checkpoint.load()
    add(again, 4)
    copies = copies_at_every_call(
        monkeypatch,
        checkpoint.folder,
        tmp_path / "second",
        lambda: checkpoint.save(learner(11), again),
    )
    outcomes = [found(copy) for copy in copies]
    assert set(outcomes) == {(7, 7), (11, 11)}
    assert outcomes == sorted(outcomes)
    assert found(checkpoint.folder) == (11, 11)


@pytest.mark.parametrize("nth", range(1, 12))
@pytest.mark.slow
def test_a_full_disk_leaves_the_older_one(saved, replay, monkeypatch, nth):
    add(replay, 2)
    calls, real = [], os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == nth:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        try:
            saved.save(learner(7), replay)
        except OSError:
            assert found(saved.folder) in ((5, 5), (7, 7))
        else:
            assert nth > len(calls)
    add(replay, 1)
    saved.save(learner(8), replay)
    assert found(saved.folder) == (8, 8)
    assert len(learners(saved)) == 1


@pytest.mark.slow
def test_every_flipped_byte_and_every_length_is_noticed(saved):
    for name in ("MANIFEST.json", "extra-learner.g1.bin"):
        path = saved.folder / name
        whole = path.read_bytes()
        for at in range(len(whole)):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << (at % 8)
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError):
                saved.load()
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            with pytest.raises(CheckpointError):
                saved.load()
        path.unlink()
        with pytest.raises(CheckpointError):
            saved.load()
        path.write_bytes(whole)
    assert found(saved.folder) == (5, 5)


def test_a_checkpoint_of_a_replay_alone_is_refused(tmp_path, replay):
    replay.save(tmp_path)
    with pytest.raises(CheckpointError, match="must hold a learner, got a replay without one"):
        RunCheckpoint(tmp_path).load()


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


def compressed(data):
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as parts,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for part in parts.infolist():
            out.writestr(part.filename, parts.read(part))
    return packed.getvalue()


def saved_as(value):
    data = io.BytesIO()
    torch.save(value, data)
    return data.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        saved_as({"a": Trap()}),
        pickle.dumps(Trap()),
        saved_as([1, 2]),
        compressed(saved_as({"a": torch.ones(3)})),
        saved_as({"a": [torch.ones(1).expand(1 << 40)]}),
        b"",
        b"PK",
    ],
)
def test_a_learner_that_is_more_than_tensors_is_refused_and_not_run(
    tmp_path, replay, data, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    replay.save(tmp_path / "run", extra={"learner": data})
    with pytest.raises(CheckpointError, match=r"the learner in .*run is damaged"):
        RunCheckpoint(tmp_path / "run").load()
    assert not Path("sprung").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("name", ["MANIFEST.json", "extra-learner.g1.bin"])
def test_nothing_waits_for_a_pipe(saved, name):
    (saved.folder / name).unlink()
    os.mkfifo(saved.folder / name)
    with pytest.raises(CheckpointError):
        ended(saved.load)


@pytest.mark.skipif(os.name == "nt", reason="needs the right to make links there")
@pytest.mark.parametrize("act", ["save", "remove"])
def test_nothing_is_removed_through_a_link(saved, replay, tmp_path, act):
    elsewhere = tmp_path / "elsewhere"
    saved.folder.rename(elsewhere)
    saved.folder.symlink_to(elsewhere)
    theirs = names(elsewhere)
    if act == "save":
        with pytest.raises(OSError, match="must be a folder, got a link"):
            saved.save(learner(7), replay)
    else:
        saved.remove()
        assert not saved.folder.is_symlink()
    assert names(elsewhere) == theirs


def test_a_learner_whose_lists_share_themselves_is_refused_at_once(tmp_path, replay):
    shared = [1]
    for _ in range(60):
        shared = [shared, shared]
    checkpoint = RunCheckpoint(tmp_path)
    checkpoint.save({"a": shared}, replay)

    def load():
        with pytest.raises(CheckpointError, match=r"is damaged: a list, tuple or dict in it is us"):
            checkpoint.load()

    ended(load)
