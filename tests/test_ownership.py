"""Two live buffers never write to one folder, and nobody who is gone blocks anybody."""

import contextlib
import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from tests import checkpoint_driving as driving

import prioritized_replay as per
from prioritized_replay.checkpoint import ownership
from prioritized_replay.checkpoint.ownership import MOST_SAVED, FolderLock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no folder can be locked there")

FIELDS = {"obs": per.Field((3,)), "action": per.Field((), "int64"), "reward": per.Field()}
REFUSED = "must belong to one live buffer, got .*, which another one is using: name another"
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def in_memory(folder):
    """Return a buffer that saves to a folder."""
    replay = per.ReplayBuffer(10, FIELDS, seed=1)
    replay.add(np.ones(3), 1, 1.0, np.ones(3), False)
    replay.save(folder)
    return replay


def in_files(folder):
    """Return a buffer that keeps its rows in a folder."""
    replay = per.ReplayBuffer(10, FIELDS, seed=1, directory=folder)
    replay.add(np.ones(3), 1, 1.0, np.ones(3), False)
    replay.flush()
    return replay


def reopen(folder):
    return per.ReplayBuffer.load(folder, directory=folder)


OWNERS = {"memory": in_memory, "files": in_files}
WAYS = {
    "save": in_memory,
    "open": lambda folder: per.ReplayBuffer(10, FIELDS, directory=folder),
    "reopen": reopen,
}


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.slow
def test_a_folder_in_use_is_refused_and_left_alone(tmp_path, owner, way):
    replay = OWNERS[owner](tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(FileExistsError, match=REFUSED) as caught:
        WAYS[way](tmp_path)
    assert str(caught.value).startswith("path" if way == "save" else "directory")
    assert str(tmp_path) in str(caught.value)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    for k in range(40):
        replay.add(np.full(3, k), k, 1.0, np.ones(3), False)
    if owner == "files":
        assert replay.flush() == 10
    replay.save(tmp_path)
    assert len(per.ReplayBuffer.load(tmp_path)) == 10, "reading is nobody's business"


@pytest.mark.parametrize("owner", OWNERS)
def test_a_buffer_that_is_gone_lets_go_at_once(tmp_path, owner):
    replay = OWNERS[owner](tmp_path)
    gc.disable()  # it must not take a search for cycles
    try:
        del replay
        again = reopen(tmp_path)
    finally:
        gc.enable()
    assert len(again) == again.flush() == 1
    del again
    in_memory(tmp_path)


@pytest.mark.parametrize("storage", driving.STORAGES)
@pytest.mark.parametrize("sampler", driving.SAMPLERS)
@pytest.mark.slow
def test_no_buffer_waits_for_a_search_for_cycles(tmp_path, storage, sampler):
    case = driving.Case(storage, sampler, 3, "disabled")
    replay = case.buffer(directory=tmp_path)
    driving.drive(replay, driving.World(case), 0, 20)
    with replay.prefetch(4) as batches:
        next(batches)
    replay.flush()
    replay.clear()
    gone = weakref.ref(replay._memory)
    gc.disable()
    try:
        del replay, batches
        assert gone() is None
        assert len(reopen(tmp_path)) > 0
    finally:
        gc.enable()


def test_a_buffer_that_was_loaded_takes_over_once_it_saves_there(tmp_path):
    """A notebook may still hold the first one when the second one goes on."""
    first = in_memory(tmp_path)
    second = per.ReplayBuffer.load(tmp_path)
    first.save(tmp_path)
    with pytest.raises(FileExistsError, match=REFUSED):
        second.save(tmp_path)  # what it was loaded from is there no longer
    second = per.ReplayBuffer.load(tmp_path)
    second.save(tmp_path)
    with pytest.raises(FileExistsError, match=REFUSED):
        first.save(tmp_path)
    third = per.ReplayBuffer.load(tmp_path)
    with first._saver._ownership.saving:  # it is another one's: nobody waits for it
        third.save(tmp_path)
    fourth = per.ReplayBuffer.load(tmp_path)
    with (
        third._saver._ownership.saving,
        pytest.raises(FileExistsError, match=REFUSED),
    ):
        fourth.save(tmp_path)
    fourth.save(tmp_path)


def test_a_directory_is_not_handed_over(tmp_path):
    first = in_files(tmp_path)
    other = per.ReplayBuffer.load(tmp_path)
    with pytest.raises(FileExistsError, match=REFUSED):
        other.save(tmp_path)
    first.flush()


def test_the_latest_folders_stay_with_a_buffer(tmp_path):
    replay = in_memory(tmp_path / "0")
    for number in range(1, MOST_SAVED + 1):
        replay.save(tmp_path / "1")
        replay.save(tmp_path / str(number))
    in_memory(tmp_path / "0")
    for number in range(1, MOST_SAVED + 1):
        with pytest.raises(FileExistsError, match=REFUSED):
            in_memory(tmp_path / str(number))


def test_a_folder_is_known_by_whatever_path(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    replay = in_memory(folder)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for path in ("folder", "link", tmp_path / "link" / ".." / "folder"):
        replay.save(path)
        with pytest.raises(FileExistsError, match=REFUSED):
            in_memory(path)
    folder.rename(tmp_path / "moved")
    replay.save(tmp_path / "moved")
    with pytest.raises(FileExistsError, match=REFUSED):
        in_memory(tmp_path / "moved")


def test_a_folder_that_was_removed_can_be_used_again(tmp_path):
    folder = tmp_path / "folder"
    replay = in_memory(folder)
    shutil.rmtree(folder)
    other = in_memory(folder)
    other.clear()
    other.save(folder)
    with pytest.raises(FileExistsError, match=REFUSED):
        replay.save(folder)
    del replay
    with pytest.raises(FileExistsError, match=REFUSED):
        in_memory(folder)
    shutil.rmtree(folder)
    other.save(folder)
    with pytest.raises(FileExistsError, match=REFUSED):
        in_memory(folder)


# --- what fails -----------------------------------------------------------------------------


def test_a_buffer_that_cannot_be_made_lets_go(tmp_path, monkeypatch):
    for limit in (10, 1000):  # too little for the priorities, and for the rows
        with pytest.raises(MemoryError) as caught:
            per.ReplayBuffer(100, FIELDS, directory=tmp_path, max_bytes=limit)
        assert caught.traceback  # and what it holds are the variables of the constructor
        assert list(tmp_path.iterdir()) == []

    def fail(replay):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(per.replay.forking, "watch", fail)  # the last that it does
        with pytest.raises(MemoryError) as late:
            per.ReplayBuffer(100, FIELDS, directory=tmp_path)
        assert late.traceback
    assert list(tmp_path.iterdir()) == []
    in_files(tmp_path)
    with pytest.raises(FileExistsError, match="must not hold another buffer's files") as held:
        per.ReplayBuffer(100, FIELDS, directory=tmp_path)
    assert held.traceback
    FolderLock(tmp_path, "path")


@pytest.mark.parametrize("name", ["rows-000000", "windows", "last_ids"])
def test_a_load_that_fails_lets_go_and_keeps_the_checkpoint(tmp_path, name):
    in_files(tmp_path)
    path = tmp_path / f"{name}.g1.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(per.CheckpointError, match=name) as caught:
        reopen(tmp_path)
    assert caught.traceback
    path.write_bytes(whole)
    assert len(reopen(tmp_path)) == 1


def test_a_save_that_fails_keeps_the_folder_for_its_buffer(tmp_path, monkeypatch):
    replay = in_memory(tmp_path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space|left"):
            replay.save(tmp_path)
        with pytest.raises(FileExistsError, match=REFUSED):
            in_memory(tmp_path)
    replay.save(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_there_are_no_locks_there_is_no_protection_and_no_error(tmp_path, monkeypatch, code):
    def lock_file(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(ownership, "lock_file", lock_file)
    first = in_files(tmp_path)
    second = per.ReplayBuffer.load(tmp_path)
    second.save(tmp_path)
    first.flush()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_leaves_no_lock(tmp_path, monkeypatch, error):
    real = ownership.lock_file

    def lock_file(descriptor):
        real(descriptor)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ownership, "lock_file", lock_file)
        with pytest.raises(error) as caught:
            in_files(tmp_path)
        assert caught.traceback
    in_files(tmp_path)


def test_no_descriptor_stays_open(tmp_path):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("only Linux tells")
    gc.collect()  # what earlier tests have left
    owner = in_memory(tmp_path / "owner")
    before = descriptors()
    for number in range(20):
        owner.save(tmp_path / str(number))
        with pytest.raises(FileExistsError, match=REFUSED):
            in_memory(tmp_path / str(number))
    assert descriptors() <= before + MOST_SAVED
    del owner
    assert descriptors() <= before - 1


# --- threads --------------------------------------------------------------------------------


def test_of_many_at_once_never_two_are_owners(tmp_path):
    inside, most, taken = [], [], []

    def work():
        for _ in range(300):
            try:
                lock = FolderLock(tmp_path, "path")
            except FileExistsError:
                continue
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            taken.append(1)
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(taken) > 8


# --- processes ------------------------------------------------------------------------------

HOLDER = """
import sys, time
from tests import test_ownership
replay = test_ownership.OWNERS[sys.argv[2]](sys.argv[1])
print("ready", flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def process(folder, owner):
    """Another process that owns a folder."""
    program = [sys.executable, "-c", HOLDER, str(folder), owner]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "ready\n"
            yield holder
        finally:
            holder.kill()


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.slow
def test_another_process_is_an_owner_until_it_is_killed(tmp_path, owner):
    with process(tmp_path, owner) as holder:
        for way in WAYS.values():
            with pytest.raises(FileExistsError, match=REFUSED):
                way(tmp_path)
        assert len(per.ReplayBuffer.load(tmp_path)) == 1
        holder.kill()
        holder.wait()
        assert reopen(tmp_path).flush() == 1
    in_memory(tmp_path)


def in_child(function):
    """Return what a function returns in a forked process, or the name of its error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        result = "nothing"
        try:
            signal.alarm(60)
            result = repr(function())
        except BaseException as error:
            result = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, result.encode())
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    return text


@FORKS
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("owner", OWNERS)
def test_a_forked_process_takes_nothing_from_its_parent(tmp_path, owner):
    replay = OWNERS[owner](tmp_path)

    def child():
        nonlocal replay
        refused = []
        for call in (lambda: replay.save(tmp_path), lambda: in_memory(tmp_path)):
            try:
                call()
            except (FileExistsError, RuntimeError) as error:
                refused.append(type(error).__name__)
        del call
        replay = None
        gc.collect()
        return refused

    own = "RuntimeError" if owner == "files" else "FileExistsError"
    assert in_child(child) == f"['{own}', 'FileExistsError']"
    with pytest.raises(FileExistsError, match=REFUSED):
        in_memory(tmp_path)
    replay.save(tmp_path)


@FORKS
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_lock_ends_with_its_owner_whatever_became_of_forked_children(tmp_path):
    """The child lives on; of its parent's lock it has closed what it had."""
    lock = FolderLock(tmp_path, "path")
    waiting, going = os.pipe()
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.close(going)
        os.write(telling, b"x")
        os.read(waiting, 1)
        os._exit(0)
    os.close(waiting)
    try:
        os.read(told, 1)
        os.close(lock._descriptor)  # as the system does when a process is killed: no unlocking
        lock._descriptor = -1
        FolderLock(tmp_path, "path")
    finally:
        for descriptor in (going, told, telling):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_letting_go_unlocks_also_where_a_copy_of_the_descriptor_is_open(tmp_path):
    """As in a process that was forked without telling Python."""
    lock = FolderLock(tmp_path, "path")
    copy = os.dup(lock._descriptor)
    try:
        lock.release()
        FolderLock(tmp_path, "path")
    finally:
        os.close(copy)


@FORKS
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_saves_elsewhere(tmp_path):
    replay = in_memory(tmp_path / "parent")
    assert in_child(lambda: replay.save(tmp_path / "child")) == "None"
    assert len(per.ReplayBuffer.load(tmp_path / "child")) == 1
