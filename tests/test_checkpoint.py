"""A buffer goes on from its checkpoint as if nothing had happened, whatever happened to it."""

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests import checkpoint_driving as driving
from tests.checkpoint_driving import CASES, Case, World, drive, skipped, stacked
from tests.soak import kill_saves
from tests.waiting import ended

import prioritized_replay as per
from prioritized_replay.checkpoint import files, loading, manifest, saving
from prioritized_replay.checkpoint.manifest import MANIFEST
from prioritized_replay.checkpoint.saving import Saver
from prioritized_replay.sampling.uniforms import GENERATORS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """What came of all cases: here, and in a new process from checkpoints made half-way."""
    folder = tmp_path_factory.mktemp("cases")
    saved = []
    for case in CASES:
        replay, world = case.buffer(), World(case)
        drive(replay, world, 0, case.first)
        replay.save(folder / case.name)
        saved.append((case, replay, world))
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    program = [sys.executable, "-W", "error", "-m", "tests.checkpoint_driving", str(folder)]
    with subprocess.Popen(program, env=environment, cwd=ROOT) as process:
        here = {
            case.name: drive(replay, world, case.first, driving.AFTER, driving.BATCHES)
            for case, replay, world in saved
        }
    assert process.returncode == 0
    there = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return here, there


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.slow
def test_a_new_process_goes_on_bit_for_bit(resumed, case):
    here, there = (results[case.name] for results in resumed)
    assert len(here) == driving.AFTER
    same = [one == other for one, other in zip(here, there, strict=True)]
    assert all(same), f"from step {same.index(False)} after loading on"


@pytest.mark.parametrize("case", CASES[::5], ids=lambda case: case.name)
@pytest.mark.slow
def test_saving_changes_nothing(tmp_path, case):
    saved, alone = case.buffer(), case.buffer()
    worlds = World(case), World(case)
    for first in range(0, 200, 40):
        assert drive(saved, worlds[0], first, 40) == drive(alone, worlds[1], first, 40)
        saved.save(tmp_path)


def test_it_is_kept_which_streams_were_interrupted(tmp_path):
    fields = {"obs": per.Field(), **driving.SCALARS}
    replay = per.ReplayBuffer(9, fields, num_envs=2, autoreset="next_step")
    zeros, ones = np.zeros(2), np.ones(2)
    replay.add(zeros, zeros.astype(int), ones, ones, ones.astype(bool))
    replay.end_episode(env=0)  # and reset by hand, where the other resets itself
    replay.save(tmp_path)
    for buffer in (replay, per.ReplayBuffer.load(tmp_path)):
        ids = buffer.add(
            ones, zeros.astype(int), np.array([3.0, 0.0]), zeros + 8, zeros.astype(bool)
        )
        assert ids.tolist() == [2]  # the first has a reward, so it is no reset step


def test_it_is_kept_that_no_stack_was_found(tmp_path):
    replay = per.ReplayBuffer(9, {"obs": per.Field((4, 16, 16), "uint8"), **driving.SCALARS})
    for looking, obs, next_obs in ((True, 0, 0), (True, 1, 2), (True, 3, 5), (False, 6, 8)):
        obs, next_obs = (driving.BANK[[k] * 4] * (k > 0) for k in (obs, next_obs))
        replay.add(obs, 1, 1.0, next_obs, False)
        replay.save(tmp_path)
        assert replay._transitions.looking is looking
        assert per.ReplayBuffer.load(tmp_path)._transitions.looking is looking


# --- what is written ------------------------------------------------------------------------


def files_of(folder):
    return json.loads((folder / MANIFEST).read_text())["files"]


def contents_of(folder):
    """Return what a checkpoint holds, whichever files it is in."""
    found = json.loads((folder / MANIFEST).read_text())
    sums = {name: (file["bytes"], file["crc32"]) for name, file in found["files"].items()}
    return found["buffer"], found["state"], sums


OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["drive", "save", "extend", "blank"]), st.integers(1, 60)),
    st.tuples(st.just("save"), st.integers(1, 3)),
    st.tuples(st.just("clear"), st.just(1)),
)


CHANGING = [
    *(Case("frames", "rank", 1), Case("found", "proportional", 3), Case("two", "rank", 1)),
    Case("nested", "rank", 1, "next_step", sequence="overlapping"),
]


@pytest.mark.parametrize("case", CHANGING)
@given(operations=st.lists(OPERATIONS, max_size=12))
@example([("extend", 20), ("save", 1), ("drive", 3)])  # how rows refer to frames is found late
@example([("drive", 4), ("save", 1), ("blank", 20)])  # room is made for frames that do not come
@pytest.mark.slow
def test_what_is_kept_of_the_last_save_is_what_a_full_one_writes(case, operations):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as top:
        patch.setattr(manifest, "PIECE", 2500)
        patch.setattr(os, "fsync", lambda descriptor: None)
        replay, world, step = case.buffer(), World(case), 0
        for number, (operation, count) in enumerate([*operations, ("save", 1)]):
            if operation == "drive":
                drive(replay, world, step, count)
                step += count
            elif operation == "clear":
                replay.clear()
            elif operation in ("extend", "blank") and case.sequence is None:
                rows = [World(case).step() for _ in range(4 * count)]
                names = ("obs", "action", "reward", "next_obs")
                columns = {name: stacked([row[name] for row in rows]) for name in names}
                columns["discount"] = 1.0 - stacked([row["terminated"] for row in rows])
                if operation == "blank":  # frames that are there already
                    for leaf in driving.leaves([columns["obs"], columns["next_obs"]]):
                        leaf[:] = 0
                replay.extend(columns)
            elif operation == "save":
                folder, full = Path(top, str(count)), Path(top, f"full-{number}")
                replay.save(folder)
                Saver().save(full, replay._lock, replay._contents)
                assert contents_of(folder) == contents_of(full)
                assert sorted(path.name for path in folder.iterdir()) == sorted(
                    [MANIFEST, *(file["file"] for file in files_of(folder).values())]
                )


@pytest.mark.parametrize("loaded", [False, True])
def test_a_second_save_writes_only_what_changed(tmp_path, monkeypatch, loaded):
    monkeypatch.setattr(manifest, "PIECE", 2500)
    case = Case("frames", "proportional", 1)
    replay, world = case.buffer(), World(case)
    drive(replay, world, 0, 280)
    replay.save(tmp_path)
    if loaded:
        replay = per.ReplayBuffer.load(tmp_path)
    before = files_of(tmp_path)
    drive(replay, world, 280, 4)
    replay.save(tmp_path)
    after = files_of(tmp_path)

    kept = {name for name in after if after[name]["file"] == before.get(name, {}).get("file")}
    lasting = {name for name in after if name.startswith(("rows", "frames-0-0"))}
    assert len(lasting) > 20
    assert kept <= lasting
    written = [name.split("-")[0] for name in lasting - kept]
    assert 1 <= written.count("rows") <= 2
    assert 1 <= written.count("frames") <= 3


def test_a_folder_that_is_not_as_it_was_left_is_written_in_full(tmp_path):
    case = Case("rows", "uniform", 1)
    one, other = case.buffer(), case.buffer()
    drive(one, World(case), 0, 20)
    drive(other, World(case), 0, 30)
    folder, saved = tmp_path / "folder", tmp_path / "saved"
    other.save(saved)
    one.save(folder)
    shutil.rmtree(folder)
    shutil.copytree(saved, folder)
    one.save(folder)
    assert len(per.ReplayBuffer.load(folder)) == 20
    (folder / files_of(folder)["rows-000000"]["file"]).unlink()
    one.save(folder)
    assert len(per.ReplayBuffer.load(folder)) == 20
    rows = files_of(folder)["rows-000000"]["file"]
    another = case.buffer()
    drive(another, skipped(World(case), 7), 0, 20)  # as many rows, in a file of the same name
    shutil.rmtree(folder)
    for _ in range(2):
        case.buffer().save(folder)
    another.save(folder)
    assert files_of(folder)["rows-000000"]["file"] == rows
    del another
    one.save(folder)
    loaded = per.ReplayBuffer.load(folder)
    np.testing.assert_array_equal(loaded.get(np.arange(20)).obs, one.get(np.arange(20)).obs)


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    case = Case("rows", "uniform", 1)
    replay = case.buffer()
    drive(replay, World(case), 0, 20)
    others = [tmp_path / name for name in ("mine.npy", "notes.txt", "rows-000000.npy")]
    for other in others:
        other.write_text("mine")
    replay.save(tmp_path)
    replay.save(tmp_path)
    assert [other.read_text() for other in others] == ["mine"] * 3


@pytest.mark.slow
def test_other_threads_go_on_during_a_save_and_no_row_is_torn(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "PIECE", 20_000)
    fields = {
        "obs": per.Field((2, 32, 32), "uint8", stack_axis=0),
        "action": per.Field((), "int64"),
        "reward": per.Field(),
    }
    replay = per.ReplayBuffer(400, fields, seed=1)
    frames = np.arange(256, dtype=np.uint8)[:, None, None].repeat(32, 1).repeat(32, 2)
    stop = threading.Event()
    problems = []

    def act():
        try:
            for k in itertools.count():
                obs, next_obs = (frames[[(k + j) % 256, (k + j + 1) % 256]] for j in (0, 1))
                replay.add(obs, k, k % 100, next_obs, False)
                if stop.is_set():
                    return
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=act)]
    threads[0].start()
    try:
        while len(replay) < 300:
            time.sleep(0.001)
        sizes = []
        for _ in range(4):
            replay.save(tmp_path)
            loaded = per.ReplayBuffer.load(tmp_path)
            issued = int(loaded.stats()["ids_issued"])
            ids = np.arange(issued - len(loaded), issued)
            batch = loaded.get(ids)
            np.testing.assert_array_equal(batch.action, ids)
            np.testing.assert_array_equal(batch.reward, ids % 100)
            for ahead, column in enumerate((batch.obs, batch.next_obs)):
                for k in range(2):
                    tags = (ids + ahead + k) % 256
                    assert (column[:, k] == tags[:, None, None]).all()
            sizes.append(issued)
    finally:
        stop.set()
        threads[0].join()
    assert not problems
    assert sizes == sorted(set(sizes)), "nothing was added meanwhile"


# --- what may happen to it ------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small checkpoint, and the same of a buffer with frames."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        for case in (Case("rows", "proportional", 2), Case("frames", "rank", 1)):
            replay = per.ReplayBuffer(
                3,
                {"obs": driving.STORAGES[case.storage], **driving.SCALARS},
                sampler=driving.SAMPLERS[case.sampler],
                n_step=case.n_step,
                seed=1,
            )
            world = World(case)
            for _ in range(5):
                replay.add(**world.step())
            replay._uniforms(4094)
            replay.sample(1)
            replay.save(folder / case.storage)
    return folder


def assert_refused(folder, path=None):
    with pytest.raises(per.CheckpointError, match=r"\.json|\.npy|\.bin") as caught:
        per.ReplayBuffer.load(folder)
    assert path is None or path.name in str(caught.value) or MANIFEST in str(caught.value)


@pytest.mark.parametrize(("name", "each"), [("rows", 1), ("frames", 11)])
@pytest.mark.slow
def test_every_changed_byte_is_noticed(small, tmp_path, name, each):
    shutil.copytree(small / name, tmp_path, dirs_exist_ok=True)
    per.ReplayBuffer.load(tmp_path)
    rng = np.random.default_rng(3)
    tried = 0
    for path in sorted(tmp_path.iterdir()):
        text = path.read_bytes()
        with path.open("r+b", buffering=0) as file:
            for place in range(0, len(text), each):
                file.seek(place)
                file.write(bytes([text[place] ^ int(rng.integers(1, 256))]))
                assert_refused(tmp_path, path)
                file.seek(place)
                file.write(text[place : place + 1])
                tried += 1
    per.ReplayBuffer.load(tmp_path)
    assert tried > 500


@pytest.mark.parametrize(("name", "each"), [("rows", 1), ("frames", 11)])
@pytest.mark.slow
def test_every_length_but_the_right_one_is_noticed(small, tmp_path, name, each):
    shutil.copytree(small / name, tmp_path, dirs_exist_ok=True)
    for path in sorted(tmp_path.iterdir()):
        text = path.read_bytes()
        for length in range(len(text) - 1, -1, -each):
            os.truncate(path, length)
            assert_refused(tmp_path, path)
        for more in (b"\0", b"\n", text):
            path.write_bytes(text + more)
            assert_refused(tmp_path, path)
        path.unlink()
        assert_refused(tmp_path, path)
        path.write_bytes(text)
    per.ReplayBuffer.load(tmp_path)


class Full:
    """Makes the n-th call that writes fail, as on a full disk."""

    def __init__(self, patch, fail_at):
        self.calls, self.fail_at = 0, fail_at
        for module, name in (
            (saving, "_write"), (os, "fsync"), (os, "replace"), (saving, "sync_folder"),
        ):  # fmt: skip
            patch.setattr(module, name, partial(self.call, getattr(module, name), name))

    def call(self, true, name, *args):
        self.calls += 1
        if self.calls == self.fail_at:
            if name == "_write":
                (args[0] / args[1]).write_bytes(b"\x93NUMPY half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return true(*args)


@pytest.mark.slow
def test_whatever_fails_the_old_checkpoint_or_the_new_one_is_there(tmp_path):
    case = Case("frames", "proportional", 1)
    replay, world = case.buffer(), World(case)
    drive(replay, world, 0, 30)
    replay.save(tmp_path)
    old, new, fail_at = 30, 0, 0
    while True:
        fail_at += 1
        drive(replay, world, old, 1)
        with pytest.MonkeyPatch.context() as patch:
            full = Full(patch, fail_at)
            try:
                replay.save(tmp_path)
                break
            except OSError as error:
                failed = error
        assert failed.errno == errno.ENOSPC
        found = len(per.ReplayBuffer.load(tmp_path))
        assert found in (old, old + 1)
        new += found == old + 1
        assert {path.name for path in tmp_path.iterdir()} >= {
            MANIFEST, *(file["file"] for file in files_of(tmp_path).values())
        }  # fmt: skip
        old += 1
        replay.save(tmp_path)
        names = {file["file"] for file in files_of(tmp_path).values()}
        assert {path.name for path in tmp_path.iterdir()} == {MANIFEST, *names}
    assert fail_at > 20
    assert new == 2, "the two ways to fail in forcing the folder to disk after the commit"
    assert full.calls == fail_at - 1


@pytest.mark.parametrize("flushing", [False, True])
@pytest.mark.parametrize("case", [kill_saves.CASES[0], kill_saves.CASES[-1]])
@pytest.mark.slow
def test_a_process_killed_while_it_saves_leaves_a_complete_checkpoint(tmp_path, case, flushing):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "PIECE", manifest.PIECE)  # put back what the soak changes
        kill_saves.survive(tmp_path, case, 3, flushing, seed=int(flushing))


# --- what others may have put there ---------------------------------------------------------


def signed(folder, change):
    """Change a manifest so that its checksums are right."""
    body = json.loads((folder / MANIFEST).read_text())
    del body["sha256"]
    change(body)
    digest = hashlib.sha256(manifest._canonical(body)).hexdigest()
    (folder / MANIFEST).write_bytes(manifest._canonical({**body, "sha256": digest}))


def put(*keys):
    *keys, last, value = keys

    def change(manifest):
        for key in keys:
            manifest = manifest[key]
        assert isinstance(manifest, list) or last in manifest or last == "more"
        manifest[last] = value

    return change


def deep(manifest):
    field = manifest["buffer"]["fields"][0]
    for _ in range(400):
        field[1] = {"mapping": {"deeper": field[1]}}


FIELD = ("buffer", "fields", 0, 1)
SCALAR = {"shape": [], "dtype": "int64", "stack_axis": None}
ROWS = ("files", "rows-000000")
MT19937 = np.random.MT19937(1).state
MT19937["state"]["key"] = MT19937["state"]["key"].tolist()
PHILOX = {
    "bit_generator": "Philox", "state": {"counter": [0] * 4, "key": [0] * 2},
    "buffer": [0] * 4, "buffer_pos": 5, "has_uint32": 0, "uinteger": 0,
}  # fmt: skip
HOSTILE = {
    **{f"capacity {value!r}": put("buffer", "capacity", value)
       for value in (0, -1, 10**10, 10**18, 2**70, "4", True, 1.0, None, [3])},
    **{f"n_step {value!r}": put("buffer", "n_step", value)
       for value in (0, 1, 3, 10**9, 2**70, 2.0)},
    **{f"num_envs {value!r}": put("buffer", "num_envs", value) for value in (0, 2, 10**9, 2**70)},
    **{f"shape {value!r}": put(*FIELD, "shape", value)
       for value in ([2], [-1], [0], [10**18], [2**32, 2**32], [1] * 100, "3", [3.0], {}, 3)},
    **{f"dtype {value!r}": put(*FIELD, "dtype", value)
       for value in ("object", "O", "V8", "float64", "i4,i4", "(10000,)f4", "M8[s]", 4, None)},
    **{f"sampler {value!r}": put("buffer", "sampler", value)
       for value in ({"kind": "os.system"}, {"kind": "Uniform"}, {}, None, "Proportional", [1])},
    **{f"alpha {value!r}": put("buffer", "sampler", "alpha", value) for value in (-1.0, "1", None)},
    "deep": deep,
    "a field twice": put("buffer", "fields", 1, ["obs", SCALAR]),
    "a reserved field": put("buffer", "fields", 1, 0, "weights"),
    "an axis": put(*FIELD, "stack_axis", 7),
    "an option": put("buffer", "more", 1),
    "gamma": put("buffer", "gamma", 1.5),
    "autoreset": put("buffer", "autoreset", "sometimes"),
    **{f"file {value!r}": put(*ROWS, "file", value)
       for value in ("../rows-000000.g1.npy", "/etc/passwd", "rows-000000.g2.npy", "MANIFEST.json",
                     "windows.g1.npy", "rows-000000.g1.npy\n", "rows-000000.g1.npy\0", 7, None)},
    **{f"bytes {value!r}": put(*ROWS, "bytes", value)
       for value in (0, -1, 10**18, 2**70, "9", True)},
    **{f"crc32 {value!r}": put(*ROWS, "crc32", value) for value in (0, -1, 2**70, "9", None)},
    "one file more": put("files", "more", {"file": "more.g1.npy", "bytes": 1, "crc32": 1}),
    "one file less": lambda manifest: manifest["files"].pop("rows-000000"),
    "an entry with more": put(*ROWS, "more", 1),
    "no entry": put(*ROWS[:1], "rows-000000", None),
    **{f"ids_issued {value!r}": put("state", "ids_issued", value)
       for value in (-1, 0, 2, 2**63 - 1, 2**63, 5.0, True)},
    **{f"size {value!r}": put("state", "size", value) for value in (-1, 2, 4, 10**12)},
    **{f"uniforms_left {value!r}": put("state", "uniforms_left", value)
       for value in (-1, 4, 10**9)},
    **{f"last_batch {value!r}": put("state", "last_batch", value)
       for value in (-1, 4, 10**9, 2**70)},
    **{f"largest {value!r}": put("state", "largest_priority", value) for value in (-1.0, 0.0, 1)},
    **{f"generator {number}": put("state", "generator", value)
       for number, value in enumerate(({}, None, {"bit_generator": "PCG64"},
                     {"bit_generator": "os"},
                     {**MT19937, "state": {**MT19937["state"], "pos": 10**6}},
                     {**MT19937, "state": {**MT19937["state"], "pos": -1}},
                     {**MT19937, "state": {"key": [1], "pos": 0}},
                     PHILOX, {**PHILOX, "buffer_pos": -1}))},
    "state": put("state", "more", 1),
    "no state": lambda manifest: manifest.pop("state"),
    "a list of state": put("state", []),
    **{f"version {value!r}": put("version", value) for value in (0, 3, 5, "4", None)},
    "format": put("format", "another"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.slow
def test_a_hostile_manifest_is_refused(small, tmp_path, name):
    shutil.copytree(small / "rows", tmp_path, dirs_exist_ok=True)
    signed(tmp_path, lambda manifest: None)
    per.ReplayBuffer.load(tmp_path)
    signed(tmp_path, HOSTILE[name])
    assert_refused(tmp_path)


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe", b"null", b"[" * 10**5, b'{"a":' * 10**5, b"9" * 10**5, b'{"format": NaN}'],
    ids=lambda text: repr(text[:8]),
)
def test_a_manifest_of_something_else_is_refused(small, tmp_path, text):
    shutil.copytree(small / "rows", tmp_path, dirs_exist_ok=True)
    (tmp_path / MANIFEST).write_bytes(text)
    assert_refused(tmp_path, tmp_path / MANIFEST)


def test_a_refusal_says_what_was_expected_what_was_found_and_what_to_do(small, tmp_path):
    shutil.copytree(small / "rows", tmp_path, dirs_exist_ok=True)
    path = tmp_path / MANIFEST
    text = path.read_bytes()
    digest = json.loads(text)["sha256"]
    where, remedy = re.escape(str(path)), f": {manifest.REMEDY}$"
    mismatch = "is damaged: checksum mismatch: expected"

    def refused(match):
        with pytest.raises(per.CheckpointError, match=f"^{where} {match}"):
            per.ReplayBuffer.load(tmp_path)

    path.write_bytes(text.replace(b'"generation": 1', b'"generation": 2'))
    found = f"found '(?!{digest})[0-9a-f]{{64}}'"
    refused(f"{mismatch} '{digest}' as it says, {found}{remedy}")
    path.write_bytes(text.replace(b'"sha256": "', b'"sha256": "' + b"0" * 10**6))
    refused(f"{mismatch} '0{{79}} as it says, found '{digest}'{remedy}")
    path.write_bytes(text + b" ")
    refused(f"is damaged: expected its values spelled as they are saved, found other.*{remedy}")
    path.write_bytes(text)
    signed(tmp_path, put("buffer", "gamma", 2.0))
    refused(
        "must describe a buffer that this version can build, got .* ValueError: gamma must .*: "
    )


def test_what_the_caller_named_is_not_blamed_on_the_manifest(small, tmp_path):
    (tmp_path / "file").write_text("mine")
    for options, kind, match in (
        ({"max_bytes": 1.5}, ValueError, "max_bytes must be an integer >= 1"),
        ({"directory": 7}, ValueError, "directory must be a path, got 7"),
        ({"directory": tmp_path / "file"}, NotADirectoryError, "directory must be a directory"),
    ):
        with pytest.raises(kind, match=f"^{match}") as caught:
            per.ReplayBuffer.load(small / "rows", **options)
        assert not isinstance(caught.value, per.CheckpointError)


def test_a_manifest_that_is_huge_or_no_file_is_refused(small, tmp_path):
    shutil.copytree(small / "rows", tmp_path, dirs_exist_ok=True)
    os.truncate(tmp_path / MANIFEST, 1 << 40)
    assert_refused(tmp_path, tmp_path / MANIFEST)
    (tmp_path / MANIFEST).unlink()
    assert_refused(tmp_path, tmp_path / MANIFEST)
    (tmp_path / MANIFEST).mkdir()
    assert_refused(tmp_path, tmp_path / MANIFEST)
    assert_refused(tmp_path / MANIFEST / "nowhere", tmp_path / MANIFEST)


def in_the_way(folder, what):
    """Put something where a manifest would be."""
    folder.mkdir()
    name, kind = what
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "huge":
        (folder / name).touch()
        os.truncate(folder / name, 1 << 40)
    else:
        (folder / name).symlink_to("../precious")


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes and links")
@pytest.mark.parametrize(
    "what", [(name, kind) for name in (MANIFEST, MANIFEST + ".new") for kind in ("pipe", "link")]
    + [(MANIFEST, "huge")],
)  # fmt: skip
def test_a_save_neither_waits_for_what_is_in_its_way_nor_writes_into_it(tmp_path, what):
    (tmp_path / "precious").write_text("precious")
    in_the_way(tmp_path / "folder", what)
    replay = per.ReplayBuffer(3, {"obs": per.Field(), **driving.SCALARS})
    replay.add(0.0, 1, 2.0, 3.0, False)
    ended(lambda: replay.save(tmp_path / "folder"))
    assert (tmp_path / "precious").read_text() == "precious"
    assert len(per.ReplayBuffer.load(tmp_path / "folder")) == 1


def test_a_save_finds_a_number_whatever_numbers_are_there(tmp_path):
    for number in ("1", "3", "9" * 18):
        (tmp_path / f"rows-000000.g{number}.npy").touch()
    replay = per.ReplayBuffer(3, {"obs": per.Field(), **driving.SCALARS})
    for count in (1, 2):
        replay.add(0.0, 1, 2.0, 3.0, False)
        replay.save(tmp_path)
        assert len(per.ReplayBuffer.load(tmp_path)) == count


@pytest.mark.skipif(sys.platform == "win32", reason="names are not forced to disk there")
def test_new_folders_are_forced_to_disk_too(tmp_path, monkeypatch):
    synced, real = [], files.sync_folder
    monkeypatch.setattr(saving, "sync_folder", lambda path: (synced.append(path), real(path)))
    replay = per.ReplayBuffer(3, {"obs": per.Field(), **driving.SCALARS})
    replay.save(tmp_path / "new" / "deeper")
    assert synced[-1] == Path("/")
    assert {tmp_path / "new" / "deeper", tmp_path / "new", tmp_path} <= set(synced)
    synced.clear()
    replay.save(tmp_path / "new" / "deeper")
    assert set(synced) == {tmp_path / "new" / "deeper"}, "once is enough"


def rewritten(folder, name, change):
    """Change an array of a checkpoint so that all checksums are right."""
    path = folder / files_of(folder)[name]["file"]
    array = np.load(path, allow_pickle=False)
    start = path.stat().st_size - array.nbytes
    change(array)
    path.write_bytes(path.read_bytes()[:start] + array.tobytes())
    signed(folder, put("files", name, "crc32", zlib.crc32(path.read_bytes())))


BAD_VALUES = {
    ("rows", "windows"): [2, -1, 2**62],
    ("rows", "uniforms"): [1.0, -0.1, np.nan],
    ("rows", "priorities-000000"): [np.nan, np.inf, -1.0, 1e300],
    ("rows", "windows, entries"): [np.inf, -1.0],
    ("frames", "frames-0-last"): [2**32 - 1, 2**31],
}


@pytest.mark.parametrize(
    ("case", "name", "value"),
    [(*key, value) for key, values in BAD_VALUES.items() for value in values],
)
def test_an_array_that_would_mislead_compiled_code_is_refused(small, tmp_path, case, name, value):
    shutil.copytree(small / case, tmp_path, dirs_exist_ok=True)

    def change(array):
        if name == "windows":  # the number of open windows
            array[0, 0] = value
        elif name == "windows, entries":
            array.view(np.float64)[0, -1] = value
        else:
            array.reshape(-1)[-1] = value

    rewritten(tmp_path, name.partition(",")[0], change)
    assert_refused(tmp_path, tmp_path / MANIFEST)


def test_a_header_that_means_something_else_is_refused(small, tmp_path):
    shutil.copytree(small / "rows", tmp_path, dirs_exist_ok=True)
    path = tmp_path / files_of(tmp_path)["windows"]["file"]
    path.write_bytes(path.read_bytes().replace(b"<i8", b"<f8"))
    signed(tmp_path, put("files", "windows", "crc32", zlib.crc32(path.read_bytes())))
    assert_refused(tmp_path)


def test_rows_that_refer_to_no_frame_are_refused(small, tmp_path):
    shutil.copytree(small / "frames", tmp_path, dirs_exist_ok=True)

    def change(rows):
        rows["next_obs"][1, 2] = 5000

    path = tmp_path / files_of(tmp_path)["rows-000000"]["file"]
    rows = np.load(path, allow_pickle=False)
    data = bytearray(path.read_bytes())
    start = len(data) - rows.nbytes
    row = np.frombuffer(data, rows.dtype, offset=start)
    change(row)
    path.write_bytes(data)
    signed(tmp_path, put("files", "rows-000000", "crc32", zlib.crc32(data)))
    assert_refused(tmp_path, tmp_path / MANIFEST)


@pytest.mark.skipif(os.name == "nt", reason="needs links and pipes")
def test_links_and_pipes_are_not_followed(small, tmp_path):
    folder, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    shutil.copytree(small / "rows", folder)
    for name in ("rows-000000.g1.npy", MANIFEST):
        path = folder / name
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        assert_refused(folder, path)
        path.unlink()
        os.mkfifo(path)
        assert_refused(folder, path)
        path.unlink()
        elsewhere.rename(path)
    per.ReplayBuffer.load(folder)


# --- bytes of the caller's ------------------------------------------------------------------


def with_extra(folder, extra):
    """Save a buffer of one row with bytes of the caller's, and return it."""
    replay = per.ReplayBuffer(3, {"obs": per.Field(), **driving.SCALARS}, seed=1)
    replay.add(0.0, 1, 2.0, 3.0, False)
    replay.save(folder, extra)
    return replay


def test_bytes_of_the_caller_come_back(tmp_path):
    extra = {"learner": b"\0\xff" * 5000, "con": b"", "two-words_2": b"text"}
    replay = with_extra(tmp_path, extra)
    assert replay.extra == {}
    again = per.ReplayBuffer.load(tmp_path)
    assert again.extra == extra
    names = {f"extra-{name}.g1.bin" for name in extra}
    assert {path.name for path in tmp_path.glob("*.bin")} == names

    replay.save(tmp_path, extra={"learner": b"new"})
    assert per.ReplayBuffer.load(tmp_path).extra == {"learner": b"new"}
    assert [path.name for path in tmp_path.glob("*.bin")] == ["extra-learner.g2.bin"]
    replay.save(tmp_path)
    assert per.ReplayBuffer.load(tmp_path).extra == {}
    assert list(tmp_path.glob("*.bin")) == []


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ([("learner", b"")], "extra must be a mapping of str to bytes, got list"),
        *(({name: b""}, "extra must have names of .*, got ") for name in (
            "", "A", "a b", "../a", "a/b", "a.b", "a\n", "é", "-a", "a-", "a--b", "a" * 65, 3)),
        ({"a": "text"}, r"extra\['a'\] must be bytes, got str"),
        ({"a": bytearray(3)}, r"extra\['a'\] must be bytes, got bytearray"),
        ({f"n{k}": b"" for k in range(257)}, "at most 256 names, got 257"),
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_bytes_that_cannot_be_kept_are_refused_before_anything_is_written(tmp_path, extra, said):
    folder = tmp_path / "folder"
    with pytest.raises(ValueError, match=said):
        with_extra(folder, extra)
    assert not folder.exists()


def test_too_many_bytes_of_the_caller_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "MOST_EXTRA_BYTES", 10)
    with_extra(tmp_path, {"a": b"12345", "b": b"12345"})
    with pytest.raises(ValueError, match="at most 10 bytes in all, got 11"):
        with_extra(tmp_path / "folder", {"a": b"12345", "b": b"123456"})
    monkeypatch.setattr(loading, "MOST_EXTRA_BYTES", 9)
    with pytest.raises(per.CheckpointError, match=r"at most 9 bytes of extra, got 10"):
        per.ReplayBuffer.load(tmp_path)


def test_every_fault_of_the_bytes_of_the_caller_is_noticed(tmp_path):
    extra = {"learner": bytes(range(100)), "other": b"x"}
    with_extra(tmp_path, extra)
    path = tmp_path / "extra-learner.g1.bin"
    text = path.read_bytes()
    for place in range(len(text)):
        path.write_bytes(text[:place] + bytes([text[place] ^ 64]) + text[place + 1 :])
        with pytest.raises(per.CheckpointError, match=r"learner.*checksum mismatch: expected 0x"):
            per.ReplayBuffer.load(tmp_path)
    for wrong in (text[:-1], b"", text + b"\0"):
        path.write_bytes(wrong)
        said = f"learner.*expected 100 bytes, found {len(wrong)}"
        with pytest.raises(per.CheckpointError, match=said):
            per.ReplayBuffer.load(tmp_path)
    path.unlink()
    with pytest.raises(per.CheckpointError, match=r"learner.*is missing"):
        per.ReplayBuffer.load(tmp_path)
    path.write_bytes(text)
    assert per.ReplayBuffer.load(tmp_path).extra == extra


@pytest.mark.parametrize(
    "change",
    {
        "another name": put("extra", "more", {"file": "extra-a.g1.bin", "bytes": 1, "crc32": 1}),
        "a piece": put("extra", "a", "file", "windows.g1.npy"),
        "a path": put("extra", "a", "file", "../extra-a.g1.bin"),
        "a huge one": put("extra", "a", "bytes", 1 << 60),
        "a negative one": put("extra", "a", "bytes", -1),
        "no entry": put("extra", "a", None),
        "a list": put("extra", []),
        "nothing": lambda body: body.pop("extra"),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_manifest_with_hostile_extra_is_refused(tmp_path, change):
    with_extra(tmp_path, {"a": b"x"})
    signed(tmp_path, lambda body: None)
    per.ReplayBuffer.load(tmp_path)
    signed(tmp_path, change[1])
    assert_refused(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="sparse files")
def test_a_huge_sparse_file_of_the_caller_is_not_read(tmp_path):
    with_extra(tmp_path, {"a": b"x"})
    path = tmp_path / "extra-a.g1.bin"
    os.truncate(path, 1 << 42)
    assert_refused(tmp_path, path)
    signed(tmp_path, put("extra", "a", "bytes", 1 << 42))
    with pytest.raises(per.CheckpointError, match=r"must have at most \d+ bytes of extra"):
        per.ReplayBuffer.load(tmp_path)


def test_whatever_fails_the_bytes_and_the_buffer_are_of_one_save(tmp_path):
    replay = per.ReplayBuffer(99, {"obs": per.Field(), **driving.SCALARS}, seed=1)
    replay.save(tmp_path, {"count": b"0", "large": bytes(1000)})
    found = set()
    for fail_at in itertools.count(1):
        replay.add(0.0, 1, 2.0, 3.0, False)
        with pytest.MonkeyPatch.context() as patch:
            Full(patch, fail_at)
            try:
                replay.save(tmp_path, {"count": str(len(replay)).encode(), "large": b"new"})
                break
            except OSError:
                pass
        loaded = per.ReplayBuffer.load(tmp_path)
        assert int(loaded.extra["count"]) == len(loaded)
        found.add(len(loaded) == len(replay))
        assert per.ReplayBuffer.load(tmp_path).extra["large"] in (b"new", bytes(1000))
    assert fail_at > 10
    assert found == {False, True}


# --- directories, generators and other options ----------------------------------------------


def test_a_directory_survives_its_process_as_of_the_last_flush(tmp_path):
    case = Case("frames", "rank", 3)
    replay, world = case.buffer(directory=tmp_path), World(case)
    drive(replay, world, 0, 100)
    assert replay.flush() == len(replay)
    twin = per.ReplayBuffer.load(tmp_path)  # into RAM
    drive(replay, world, 100, 100)  # and is never seen again
    for path in tmp_path.glob("*.words"):
        path.write_bytes(b"torn")
    del replay

    again = per.ReplayBuffer.load(tmp_path, directory=tmp_path)

    assert len(again) == len(twin)
    expected = drive(twin, skipped(World(case), 100), 100, 60)
    assert drive(again, skipped(World(case), 100), 100, 60) == expected
    assert again.flush() == len(twin)
    del again
    with pytest.raises(FileExistsError, match="directory must not hold"):
        case.buffer(directory=tmp_path)


def test_a_directory_can_be_given_to_any_checkpoint(tmp_path, small):
    replay = per.ReplayBuffer.load(small / "frames", directory=tmp_path / "words")
    assert (tmp_path / "words" / "rows.words").exists()
    assert replay.flush() == 3
    del replay
    with pytest.raises(FileExistsError, match="directory must not hold"):
        per.ReplayBuffer.load(small / "frames", directory=tmp_path / "words")


def test_loading_into_a_directory_that_fails_leaves_no_words(tmp_path, small):
    shutil.copytree(small / "rows", tmp_path / "damaged")
    path = tmp_path / "damaged" / "rows-000000.g1.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(per.CheckpointError, match="rows-000000"):
        per.ReplayBuffer.load(tmp_path / "damaged", directory=tmp_path / "words")
    assert list((tmp_path / "words").iterdir()) == []


@pytest.fixture
def saver(tmp_path, monkeypatch):
    """A buffer that saves so many times, each time between the reading of manifest and pieces."""

    class Saving:
        def __init__(self):
            self.case, self.folder = Case("rows", "rank", 1), tmp_path / "checkpoint"
            self.left = self.loads = 0
            self.replay, self.world = self.case.buffer(), World(self.case)
            self.save()

        def save(self):
            drive(self.replay, self.world, 0, 20)
            self.replay.save(self.folder)

    saving, real = Saving(), loading._text_of

    def read(path):
        text = real(path)
        saving.loads += 1
        if saving.left:
            saving.left -= 1
            saving.save()
        return text

    monkeypatch.setattr(loading, "_text_of", read)
    return saving


@pytest.mark.parametrize("times", [1, 9])
@pytest.mark.parametrize("directory", [False, True])
def test_a_load_beside_a_save_begins_again(tmp_path, saver, times, directory):
    saver.left = times

    loaded = per.ReplayBuffer.load(saver.folder, directory=tmp_path / "d" if directory else None)

    assert saver.loads == times + 1
    world = skipped(World(saver.case), 20 * (times + 1))
    assert drive(loaded, world, 0, 20) == drive(saver.replay, saver.world, 0, 20)


def test_a_load_does_not_begin_again_for_ever(saver):
    saver.left = 1000
    with pytest.raises(per.CheckpointError, match=r"the same .* of 10 times, .* is missing"):
        per.ReplayBuffer.load(saver.folder)
    assert saver.loads == 10


def test_a_piece_that_is_missing_without_a_save_is_an_error_at_once(saver):
    (saver.folder / files_of(saver.folder)["rows-000000"]["file"]).unlink()
    with pytest.raises(per.CheckpointError, match=r"rows-000000.* is missing"):
        per.ReplayBuffer.load(saver.folder)
    assert saver.loads == 1


def test_flush_needs_a_directory():
    with pytest.raises(ValueError, match="flush needs a buffer with a directory"):
        Case("rows", "rank", 1).buffer().flush()


@pytest.mark.parametrize("kind", GENERATORS)
def test_every_generator_of_numpy_goes_on(tmp_path, kind):
    generator = np.random.Generator(GENERATORS[kind](3))
    fields = {"obs": per.Field(), **driving.SCALARS}
    replay = per.ReplayBuffer(10, fields, seed=generator)
    replay.add(1.0, 1, 1.0, 1.0, False)
    replay.sample(5000)
    generator.integers(0, 5, dtype=np.uint32)  # keeps half a word
    replay.save(tmp_path)
    again = per.ReplayBuffer.load(tmp_path)
    assert again._uniforms.generator is not generator
    for _ in range(3):
        np.testing.assert_array_equal(again._uniforms(3000), replay._uniforms(3000))
    one, other = (buffer._uniforms.generator for buffer in (replay, again))
    assert (one.integers(0, 99, 9, np.uint32) == other.integers(0, 99, 9, np.uint32)).all()


def test_a_generator_of_somebody_else_cannot_be_saved(tmp_path):
    class Mine(np.random.PCG64):
        pass

    fields = {"obs": per.Field(), **driving.SCALARS}
    replay = per.ReplayBuffer(10, fields, seed=np.random.Generator(Mine(1)))
    with pytest.raises(ValueError, match="seed must be of a generator of NumPy's own"):
        replay.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_max_bytes_is_held(small):
    needed = per.ReplayBuffer.load(small / "frames").nbytes
    assert per.ReplayBuffer.load(small / "frames", max_bytes=needed).nbytes == needed
    with pytest.raises(MemoryError, match="max_bytes must be >="):
        per.ReplayBuffer.load(small / "frames", max_bytes=needed - 1)
    with pytest.raises(ValueError, match="max_bytes"):
        per.ReplayBuffer.load(small / "frames", max_bytes=-1)


def test_paths_must_be_paths(tmp_path):
    replay = Case("rows", "rank", 1).buffer()
    for call in (replay.save, per.ReplayBuffer.load):
        with pytest.raises(ValueError, match="path must be a path, got 7"):
            call(7)
    (tmp_path / "file").write_text("")
    with pytest.raises(
        NotADirectoryError, match=r"^path must be a folder or not exist, got .*file"
    ):
        replay.save(tmp_path / "file")
    with pytest.raises(per.CheckpointError, match="is missing"):
        per.ReplayBuffer.load(tmp_path / "file")


def test_a_process_may_change_its_directory_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    replay = Case("rows", "rank", 1).buffer()
    contents = replay._contents
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def contents_elsewhere():
        os.chdir(tmp_path / "elsewhere")
        return contents()

    monkeypatch.setattr(replay, "_contents", contents_elsewhere)
    replay.save("folder")

    assert not list((tmp_path / "elsewhere").iterdir())
    assert len(per.ReplayBuffer.load(tmp_path / "folder")) == len(replay)


def test_names_that_are_not_ascii_are_kept(tmp_path):
    fields = {
        "obs": {"höhe": per.Field(), "a'b\"": (per.Field(),)},
        **driving.SCALARS,
        "größe": per.Field(),
    }
    replay = per.ReplayBuffer(3, fields)
    observation = {"höhe": 1.0, "a'b\"": (2.0,)}
    replay.add(observation, 1, 1.0, observation, False, größe=3.0)
    replay.save(tmp_path)
    again = per.ReplayBuffer.load(tmp_path)
    assert again.fields == replay.fields
    assert again.get([0]).größe == 3.0
