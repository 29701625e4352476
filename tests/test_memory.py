"""Words in RAM and in files: zeroed, aligned, counted, and refused before anything changes."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from prioritized_replay.fields.field import Field
from prioritized_replay.storage.memory import Memory, OverLimit
from prioritized_replay.storage.rows import Rows


@pytest.fixture(params=["RAM", "files"])
def directory(request, tmp_path):
    """Where to keep words: None, or a directory that is not there yet."""
    return None if request.param == "RAM" else tmp_path / "not" / "there"


def files(directory):
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@pytest.mark.parametrize("count", [1, 7, 8, 513, 100_000])
def test_words_are_zero_aligned_and_plain(directory, count):
    memory = Memory(directory)

    for name in ("one", "another"):
        words = memory.words(name, count)

        assert type(words) is np.ndarray
        assert words.shape == (count,)
        assert words.dtype is np.dtype(np.uint64)
        assert words.ctypes.data % 64 == 0
        assert words.flags.c_contiguous
        assert words.flags.aligned
        assert words.flags.writeable
        assert not words.any()
        words[:] = 2**64 - 1  # the next ones lie elsewhere


def test_kernels_see_no_difference(tmp_path):
    """Each signature is compiled anew: there must be one."""
    kinds = {numba.typeof(Memory(where).words("rows", 9)) for where in (None, tmp_path)}

    assert kinds == {numba.types.Array(numba.uint64, 1, "C")}


def test_arrays_outlive_the_memory(directory):
    memory = Memory(directory)
    words = memory.words("rows", 1000)[10:20]
    words[:] = np.arange(10)

    del memory

    np.testing.assert_array_equal(words, np.arange(10))
    words[:] = 3


def test_files_hold_what_was_written(tmp_path):
    memory = Memory(tmp_path)
    rows, frames = memory.words("rows", 10), memory.words("frames-obs-00003", 1000)
    rows[:] = np.arange(10)
    frames[:] = np.arange(1000)[::-1]

    assert files(tmp_path) == ["frames-obs-00003.words", "rows.words"]
    read = np.memmap(tmp_path / "rows.words", np.uint64, "r")
    np.testing.assert_array_equal(read, rows)
    read = np.memmap(tmp_path / "frames-obs-00003.words", np.uint64, "r")
    np.testing.assert_array_equal(read, frames)


def test_files_stay_when_all_else_is_gone(tmp_path):
    words = Memory(str(tmp_path)).words("rows", 10)
    words[:] = 7

    del words

    np.testing.assert_array_equal(np.fromfile(tmp_path / "rows.words", np.uint64), [7] * 10)


def test_bytes_are_counted_up_to_the_limit(directory):
    memory = Memory(directory, max_bytes=1000)
    memory.words("rows", 50)
    memory.reserve("priorities", 200)
    assert memory.nbytes == 600

    for kind in (MemoryError, ValueError, OverLimit):
        with pytest.raises(kind, match="max_bytes must be >= 1008, got 1000"):
            memory.words("frames", 51)
        with pytest.raises(kind, match="max_bytes must be >= 1001, got 1000"):
            memory.reserve("more", 401)

    assert memory.nbytes == 600
    if directory is not None:
        assert files(directory) == ["rows.words"]
    assert memory.words("frames", 50).size == 50
    assert memory.nbytes == 1000
    with pytest.raises(OverLimit, match="max_bytes must be >= 1008, got 1000"):
        memory.words("more", 1)


def test_bytes_of_the_same_name_take_the_place_of_those_before():
    memory = Memory(max_bytes=1000)
    memory.reserve("states", 600)
    for nbytes in (900, 1000, 10):
        memory.reserve("states", nbytes)
        assert memory.nbytes == nbytes
    with pytest.raises(OverLimit, match="max_bytes must be >= 1001, got 1000"):
        memory.reserve("states", 1001)
    assert memory.nbytes == 10


@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True])
def test_a_limit_is_a_number_of_bytes(value):
    with pytest.raises(ValueError, match=r"max_bytes must be an integer >= 1, got"):
        Memory(max_bytes=value)
    assert Memory(max_bytes=np.int32(8)).words("rows", 1).size == 1


# --- directories ------------------------------------------------------------------------------


def test_a_directory_with_words_is_refused(tmp_path):
    Memory(tmp_path).words("frames", 8)[:] = 5

    with pytest.raises(FileExistsError, match=r"directory must not hold .* frames\.words"):
        Memory(tmp_path)

    np.testing.assert_array_equal(np.fromfile(tmp_path / "frames.words", np.uint64), [5] * 8)


def test_a_directory_may_hold_other_things(tmp_path):
    (tmp_path / "config.json").write_text("{}")

    Memory(tmp_path).words("rows", 8)

    assert files(tmp_path) == ["config.json", "rows.words"]


def test_a_file_that_came_meanwhile_is_left_alone(tmp_path):
    """Somebody who knows nothing of ownership has put it there."""
    memory = Memory(tmp_path)
    (tmp_path / "rows.words").write_bytes(b"mine")

    with pytest.raises(FileExistsError, match="rows"):
        memory.words("rows", 8)

    assert memory.nbytes == 0
    assert (tmp_path / "rows.words").read_bytes() == b"mine"


@pytest.mark.skipif(sys.platform == "win32", reason="files in use cannot be removed there")
def test_what_was_made_in_vain_can_be_removed(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    memory = Memory(tmp_path)
    words = memory.words("rows", 8)
    memory.words("steps", 8)

    memory.discard()

    assert files(tmp_path) == ["config.json"]
    words[:] = 3
    Memory(tmp_path).words("rows", 8)


def test_no_file_is_made_before_it_is_needed(tmp_path):
    """The folder is: only what is there can belong to somebody."""
    Memory(tmp_path / "new", max_bytes=10).reserve("priorities", 10)

    assert files(tmp_path / "new") == []


def test_a_directory_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")

    with pytest.raises(NotADirectoryError, match=r"directory must be a directory .*file"):
        Memory(path)

    assert path.read_text() == "mine"


@pytest.mark.parametrize("value", [3, b"bytes", True, ["a"]])
def test_a_directory_is_a_path(value):
    with pytest.raises(ValueError, match="directory must be a path, got"):
        Memory(value)


# --- full disks -------------------------------------------------------------------------------

FULL = """
import os, resource, sys
import prioritized_replay.storage.memory as memory
if sys.argv[2] == "written":
    del os.posix_fallocate
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
kept = memory.Memory(sys.argv[1])
words = kept.words("rows", 12_500)  # just fits
words[:] = 1
try:
    kept.words("frames", 12_501)
except OSError as error:
    print(error.errno, kept.nbytes, sorted(os.listdir(sys.argv[1])))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of this kind there")
@pytest.mark.parametrize("how", ["reserved", "written"])
@pytest.mark.slow
def test_a_file_that_does_not_fit_is_refused_at_once(tmp_path, how):
    """A limit on the size of a file stands for a full disk: both show when room is taken."""
    program = [sys.executable, "-c", FULL, str(tmp_path), how]

    run = subprocess.run(program, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    assert run.stdout.split(maxsplit=2) == [str(errno.EFBIG), "100000", "['rows.words']\n"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is not reserved there")
def test_the_room_is_taken_when_it_is_asked_for(tmp_path):
    """A file with holes would look as large, and end the process once the disk is full."""
    Memory(tmp_path).words("rows", 1 << 20)

    status = os.stat(tmp_path / "rows.words")

    assert status.st_size == 8 << 20
    assert status.st_blocks * 512 >= 8 << 20


@pytest.mark.parametrize("answer", [errno.EINVAL, errno.EOPNOTSUPP])
def test_zeros_are_written_where_room_cannot_be_reserved(tmp_path, monkeypatch, answer):
    def refuse(*arguments):
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)

    words = Memory(tmp_path).words("rows", 300_001)

    assert words.size == 300_001
    assert not words.any()
    assert os.stat(tmp_path / "rows.words").st_size == 300_001 * 8


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    memory = Memory(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse, raising=False)
        with pytest.raises(OSError, match="space") as caught:
            memory.words("rows", 10)

    assert caught.value.errno == errno.ENOSPC
    assert memory.nbytes == 0
    assert files(tmp_path) == []
    assert memory.words("rows", 10).size == 10  # once there is room again


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_no_more_is_read_from_disk_than_was_asked_for(tmp_path):
    memory = Memory(tmp_path)
    words = memory.words("rows", 1 << 16)

    mappings = Path("/proc/self/smaps").read_text().split("rows.words")
    flags = mappings[1].split("VmFlags:")[1].splitlines()[0].split()

    assert "rr" in flags, flags  # as for random reads
    assert words.size == 1 << 16


# --- rows -------------------------------------------------------------------------------------


def test_rows_in_files_are_the_rows_in_ram(tmp_path):
    """Byte for byte, also where a row is written again."""
    rng = np.random.default_rng(0)
    fields = {"obs": Field((3, 5), "uint8"), "reward": Field(), "action": Field((), "int64")}
    memory = Memory(tmp_path)
    stores = [Rows(6, fields), Rows(6, fields, memory), Rows(6, fields, memory, "steps")]

    for first in range(0, 12, 4):
        many = {
            "obs": rng.integers(0, 256, (4, 3, 5), np.uint8),
            "reward": rng.normal(size=4).astype(np.float32),
            "action": rng.integers(0, 9, 4),
        }
        for store in stores:
            store.write_rows(np.arange(first, first + 4) % 6, many)
            store.write((first + 5) % 6, [many[name][1] for name in fields])

    assert memory.nbytes == 2 * stores[0].nbytes
    for store in stores[1:]:
        np.testing.assert_array_equal(store.words, stores[0].words)
    assert files(tmp_path) == ["rows.words", "steps.words"]


def test_words_that_are_let_go_are_counted_no_more_and_leave_no_file(tmp_path):
    for memory in (Memory(), Memory(tmp_path)):
        kept = memory.words("kept", 4)
        memory.words("gone", 8, beside=5)
        assert memory.nbytes == 101

        memory.release("gone")

        assert memory.nbytes == kept.nbytes
        memory.words("gone", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gone.words", "kept.words"]


@pytest.mark.skipif(sys.platform != "linux", reason="the script is for Linux")
@pytest.mark.slow
def test_the_script_that_keeps_more_than_memory_checks_what_it_draws(tmp_path):
    script = Path(__file__).parent.parent / "benchmarks" / "larger_than_memory.py"
    words = ["--frames", "0.02", "--rows", "100", "--directory", str(tmp_path)]

    run = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stderr
    assert "capacity: 2,834 transitions" in run.stdout
    assert "drawn: 128 rows" in run.stdout
    assert "every pixel of each was right" in run.stdout
    assert files(tmp_path) == []
