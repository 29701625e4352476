"""The checkpoint of a run on disk: complete or not there, at every moment, after every damage."""

import hashlib
import io
import json
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
from prioritized_replay.runs import checkpoint as run_checkpoint
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


def test_what_was_saved_last_comes_back_and_nothing_else_stays(saved, replay):
    assert found(saved.folder) == (5, 5)
    before = {name for name in names(saved.folder) if not name.startswith("replay")}
    add(replay, 2)
    saved.save(learner(7), replay)
    after = {name for name in names(saved.folder) if not name.startswith("replay")}
    assert found(saved.folder) == (7, 7)
    assert (before, after) == (
        {"checkpoint.json", "learner.g1.pt"},
        {"checkpoint.json", "learner.g2.pt"},
    )


def test_there_need_not_be_one(tmp_path):
    checkpoint = RunCheckpoint(tmp_path / "nowhere")
    assert not checkpoint.exists()
    with pytest.raises(CheckpointError, match=r"there is no checkpoint in .*nowhere"):
        checkpoint.load()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_removing_takes_its_own_files_only(saved):
    (saved.folder / "notes.txt").write_text("mine")
    (saved.folder / "replay" / "more.txt").write_text("mine")
    saved.remove()
    assert names(saved.folder) == {"notes.txt", os.path.join("replay", "more.txt")}
    (saved.folder / "notes.txt").unlink()
    (saved.folder / "replay" / "more.txt").unlink()
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

    # And whoever goes on from there can be killed again.
    between = [copy for copy in copies if (copy / "previous" / "MANIFEST.json").exists()]
    hard = [copy for copy in between if not same_replay(copy)]
    assert hard, "the replay is the newer, the manifest the older"
    checkpoint = RunCheckpoint(hard[0])
    _, again = checkpoint.load()
    add(again, 4)
    copies = copies_at_every_call(
        monkeypatch, hard[0], tmp_path / "second", lambda: checkpoint.save(learner(9), again)
    )
    outcomes = [found(copy) for copy in copies]
    assert set(outcomes) == {(5, 5), (9, 9)}
    assert outcomes == sorted(outcomes)
    assert found(hard[0]) == (9, 9)
    assert not (hard[0] / "previous").exists()


def same_replay(folder):
    one, other = ((folder / name / "MANIFEST.json") for name in ("replay", "previous"))
    return one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("nth", range(1, 12))
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
    learners = [name for name in names(saved.folder) if name.startswith("learner")]
    assert len(learners) == 1


def test_without_hard_links_files_are_copied(saved, replay, monkeypatch):
    def link(source, target):
        raise PermissionError(1, "Operation not permitted")

    seen = []
    real = per.ReplayBuffer.save

    def save(self, path):
        real(self, path)
        seen.append(found(saved.folder))

    monkeypatch.setattr(run_checkpoint.os, "link", link)
    monkeypatch.setattr(per.ReplayBuffer, "save", save)
    add(replay, 2)
    saved.save(learner(7), replay)
    assert seen == [(5, 5)]
    assert found(saved.folder) == (7, 7)


def test_every_flipped_byte_and_every_length_is_noticed(saved):
    for name in ("checkpoint.json", "learner.g1.pt", os.path.join("replay", "MANIFEST.json")):
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


def test_a_replay_of_another_moment_is_refused(saved, replay):
    add(replay, 1)
    replay.save(saved.folder / "replay")
    with pytest.raises(CheckpointError, match=r"is not the one of checkpoint\.json"):
        saved.load()


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
def test_a_learner_that_is_more_than_tensors_is_refused_and_not_run(saved, data, monkeypatch):
    monkeypatch.chdir(saved.folder)
    forge(saved.folder, data=data)
    with pytest.raises(CheckpointError, match=r"learner\.g1\.pt is damaged"):
        saved.load()
    assert not Path("sprung").exists()


def forge(folder, data=None, **changes):
    """Write a manifest with a right checksum."""
    manifest = json.loads((folder / "checkpoint.json").read_text())
    del manifest["sha256"]
    if data is not None:
        (folder / "learner.g1.pt").write_bytes(data)
        manifest["learner"]["bytes"] = len(data)
        manifest["learner"]["sha256"] = hashlib.sha256(data).hexdigest()
    for name, value in changes.items():
        manifest[name] = value
    (folder / "checkpoint.json").write_bytes(run_checkpoint._manifest(manifest))


@pytest.mark.parametrize(
    "changes",
    [
        {"learner": {"file": "../learner.g1.pt", "bytes": 1, "sha256": ""}},
        {"learner": {"file": "learner.g1.pt", "bytes": "1", "sha256": ""}},
        {"learner": {"file": "learner.g1.pt", "bytes": -1, "sha256": ""}},
        {"learner": {"file": "learner.g1.pt", "bytes": 10**18, "sha256": ""}},
        {"learner": {"file": "learner.g1.pt", "bytes": 10**30, "sha256": ""}},
        {"learner": None},
        {"replay": {"manifest_sha256": "none"}},
        {"replay": {}},
        {"version": 2},
        {"version": None},
        {"format": "another"},
    ],
)
def test_a_forged_manifest_is_one_error(saved, changes):
    forge(saved.folder, **changes)
    with pytest.raises(CheckpointError) as caught:
        saved.load()
    assert "\n" not in str(caught.value)


def test_deep_json_is_one_error(saved):
    (saved.folder / "checkpoint.json").write_bytes(b"[" * 60_000)
    with pytest.raises(CheckpointError, match="is damaged"):
        saved.load()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("name", ["checkpoint.json", "learner.g1.pt", "replay/MANIFEST.json"])
def test_nothing_waits_for_a_pipe(saved, name):
    (saved.folder / name).unlink()
    os.mkfifo(saved.folder / name)
    with pytest.raises(CheckpointError):
        ended(saved.load)


def test_a_learner_gets_a_number_that_can_be_read_again(saved, replay):
    (saved.folder / f"learner.g{'9' * 18}.pt").touch()
    saved.save(learner(7), replay)
    assert found(saved.folder) == (7, 5)


@pytest.mark.skipif(os.name == "nt", reason="needs the right to make links there")
@pytest.mark.parametrize("act", ["save", "remove"])
def test_nothing_is_removed_through_a_link(saved, replay, tmp_path, act):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    theirs = [elsewhere / name for name in ("data.npy", "rows-000000.g1.npy", "MANIFEST.json")]
    for file in theirs:
        file.write_text("precious")
    (saved.folder / "previous").symlink_to(elsewhere)
    if act == "save":
        saved.save(learner(7), replay)
        assert found(saved.folder) == (7, 5)
    else:
        saved.remove()
    assert all(file.read_text() == "precious" for file in theirs)


def test_what_is_no_part_of_a_replay_is_in_nobodys_way(saved, replay):
    (saved.folder / "replay" / "mine.npy").write_text("precious")
    (saved.folder / "replay" / "folder.g1.npy").mkdir()
    saved.save(learner(7), replay)
    saved.remove()
    assert names(saved.folder) == {"replay/mine.npy"}


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


def test_a_learner_larger_than_memory_is_not_read(saved, monkeypatch):
    monkeypatch.setattr(run_checkpoint, "bytes_available", lambda: 1_000)
    with pytest.raises(CheckpointError, match="must have at most 1,000 bytes, got"):
        saved.load()
