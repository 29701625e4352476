"""Compiled code that is kept: found again where it is right, and never used where it is not."""

import ast
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from tests.waiting import ended

import prioritized_replay
from prioritized_replay.jit import cache_files as files
from prioritized_replay.jit import compiling

PACKAGE = Path(prioritized_replay.__file__).parent

posix = pytest.mark.skipif(os.name != "posix", reason="about what POSIX allows")
compiled = pytest.mark.skipif(
    os.environ.get("NUMBA_DISABLE_JIT", "0") != "0", reason="nothing is compiled in plain Python"
)

# --- files --------------------------------------------------------------------------------

NAME = "module.function-environment-origin-signature"
CONTENT = bytes(range(256)) * 2


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two folders in which files are kept."""
    found = (tmp_path / "first", tmp_path / "second")
    monkeypatch.setattr(files, "folders", lambda: found)
    return found


def test_a_file_is_read_as_it_was_written(folders):
    files.write(NAME, b"key", CONTENT)

    assert files.read(NAME, b"key") == CONTENT
    assert [path.name for path in folders[0].iterdir()] == [NAME]
    assert not folders[1].exists()


def test_a_file_is_not_read_for_another_key_or_name(folders):
    files.write(NAME, b"key", CONTENT)
    other = NAME.replace("signature", "other")
    (folders[0] / other).write_bytes((folders[0] / NAME).read_bytes())

    assert files.read("absent", b"key") is None
    assert files.read(other, b"other key") is None
    assert files.read(NAME, b"key") == CONTENT


def test_a_file_cut_off_anywhere_is_not_read_but_deleted(folders):
    files.write(NAME, b"key", CONTENT)
    whole = (folders[0] / NAME).read_bytes()

    for length in range(len(whole)):
        (folders[0] / NAME).write_bytes(whole[:length])
        assert files.read(NAME, b"key") is None
        assert not (folders[0] / NAME).exists()


def test_a_file_with_any_byte_changed_is_not_read_but_deleted(folders):
    files.write(NAME, b"key", CONTENT)
    whole = (folders[0] / NAME).read_bytes()

    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        (folders[0] / NAME).write_bytes(changed)
        assert files.read(NAME, b"key") is None
        assert not (folders[0] / NAME).exists()


def test_a_folder_in_the_place_of_a_file_is_passed_over(folders):
    (folders[0] / NAME).mkdir(parents=True)

    files.write(NAME, b"key", CONTENT)

    assert files.read(NAME, b"key") == CONTENT
    assert (folders[1] / NAME).is_file()


def test_a_file_in_the_place_of_a_folder_is_passed_over(folders):
    folders[0].touch()

    files.write(NAME, b"key", CONTENT)

    assert files.read(NAME, b"key") == CONTENT
    assert (folders[1] / NAME).is_file()


def test_a_full_disk_raises_and_leaves_nothing(folders, monkeypatch):
    real = files.Folder.open

    def open_full(folder, name, flags):
        file = real(folder, name, flags)
        os.write(file, b"half of it")
        os.close(file)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.Folder, "open", open_full)

    with pytest.raises(OSError, match="No space left"):
        files.write(NAME, b"key", CONTENT)

    assert [list(folder.iterdir()) for folder in folders] == [[], []]


def test_writing_deletes_what_has_another_origin_and_what_was_abandoned(folders):
    def name(first="module.function", environment="environment", origin="origin", more="s"):
        return f"{first}-{environment}-{origin}-{more}"

    stay = [
        name(),
        name(more="t"),
        name("module2.function", origin="old"),
        name(environment="other", origin="old"),
        f"{name(origin='old')}-0.tmp",  # somebody may be writing it
        "lock",
    ]
    go = [name(origin="old"), name("module.other", origin="old"), f"{name()}-1.tmp"]
    folders[0].mkdir()
    for path in stay + go:
        (folders[0] / path).touch()
    long_ago = time.time() - files.ABANDONED - 60
    os.utime(folders[0] / go[-1], (long_ago, long_ago))

    files.write(name(), b"key", CONTENT)

    assert {path.name for path in folders[0].iterdir()} == set(stay)


@posix
def test_a_folder_that_others_may_write_is_neither_read_nor_written(folders):
    files.write(NAME, b"key", CONTENT)
    folders[0].chmod(0o777)

    assert files.read(NAME, b"key") is None

    files.write(NAME, b"key", CONTENT[::-1])

    assert files.read(NAME, b"key") == CONTENT[::-1]
    assert (folders[1] / NAME).is_file()


@posix
def test_a_folder_of_somebody_else_is_neither_read_nor_written(folders, monkeypatch):
    files.write(NAME, b"key", CONTENT)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    monkeypatch.setattr(files, "__file__", os.devnull)
    owned = folders[0].lstat().st_uid
    if owned == 0:  # whom everybody trusts
        os.chown(folders[0], 54321, -1)

    assert files.read(NAME, b"key") is None
    with pytest.raises(PermissionError):
        files.make(folders[0])


@posix
def test_folders_are_writable_by_their_owner_alone(folders):
    before = os.umask(0)
    try:
        files.make(folders[0])
    finally:
        os.umask(before)

    assert folders[0].stat().st_mode & 0o777 == 0o755


def test_the_lock_is_held_once(folders):
    first, second = files.Lock(), files.Lock()

    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    second.release()


def test_folders_that_are_known(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "user"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    files.folders.cache_clear()
    try:
        chosen, package, user = files.folders()
    finally:
        files.folders.cache_clear()

    assert chosen.parent == tmp_path / "chosen"
    assert package == PACKAGE / "jit" / "__pycache__" / "kernels" or sys.pycache_prefix
    assert user.is_relative_to(tmp_path / "user")
    assert chosen.name == user.name  # a name for this installation


# --- what is said -------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_long_compilation_is_announced_once(monkeypatch, folders):
    monkeypatch.setattr(sys, "stderr", Terminal())
    work = compiling._Work()

    work.tell()
    assert sys.stderr.getvalue() == ""  # nothing is being compiled
    monkeypatch.setattr(compiling, "LONG", 1e9)
    work.begin("a")
    work.tell()
    assert sys.stderr.getvalue() == ""  # for not long
    monkeypatch.setattr(compiling, "LONG", -1.0)
    work.tell()
    work.begin("b")
    work.tell()
    assert sys.stderr.getvalue().count("compiling") == 1
    work.end("b")
    work.end("a")


def test_where_nobody_watches_the_announcement_goes_to_the_log(monkeypatch, folders, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.delattr(sys, "ps1", raising=False)
    monkeypatch.setattr(compiling, "LONG", -1.0)
    work = compiling._Work()

    with caplog.at_level("INFO", "prioritized_replay"):
        work.begin("a")
        work.tell()
    work.end("a")

    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert sys.stderr.getvalue() == ""


def test_waiting_for_another_process_ends(monkeypatch, folders):
    other = files.Lock()
    assert other.take()
    work = compiling._Work()
    work.patience = 2.5 * compiling.PAUSE

    assert [work.begin("a") for _ in range(4)] == [False, False, False, True]

    work.end("a")
    other.release()


# --- processes ----------------------------------------------------------------------------

STEPS = """
from prioritized_replay.jit.compiling import inner, kernel
STEP = 3
@inner
def one(n):
    return n + STEP
@kernel
def two(n):
    return one(one(n))
"""
WALK = """
from prioritized_replay.jit.compiling import kernel
from steps import two
@kernel
def walk(n):
    return two(two(n))
"""
RUN = """
import json, walk
result = walk.walk(0)
counts = [sum(getattr(f.stats, c).values()) for c in ("cache_hits", "cache_misses")
          for f in [walk.walk]]
print(json.dumps([result, *counts]))
"""


@pytest.fixture
def program(tmp_path):
    """Two modules of kernels, and a cache of their own."""
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "walk.py").write_text(WALK)
    return tmp_path


@pytest.fixture(scope="module")
def kept_once(tmp_path_factory):
    """A cache that a process filled, for all tests."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "steps.py").write_text(STEPS)
    (folder / "walk.py").write_text(WALK)
    assert outcome(start(folder)) == [12, 0, 1]
    return folder / "cache"


@pytest.fixture
def known(program, kept_once):
    """The program, and a copy of what an earlier process compiled of it."""
    shutil.copytree(kept_once, program / "cache")
    return program


def environment_of(program, **changes):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    own = {
        "NUMBA_CACHE_DIR": str(program / "cache"),
        "PYTHONPATH": os.pathsep.join([str(program), str(PACKAGE.parent)]),
        "PYTHONDONTWRITEBYTECODE": "1",  # it notices changes by size and time only
    }
    return {**kept, **own, **changes}


def start(program, code=RUN, **changes):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        env=environment_of(program, **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process, stderr=""):
    """What a process found: the result, kernels loaded, kernels compiled."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert re.fullmatch(stderr, err), err
    return json.loads(out)


def kept(program):
    (folder,) = (program / "cache").iterdir()
    return sorted(path for path in folder.iterdir() if path.name != "lock")


@compiled
@pytest.mark.slow
def test_a_later_process_loads_what_an_earlier_one_compiled(program):
    assert outcome(start(program)) == [12, 0, 1]
    assert [path.name.partition("-")[0] for path in kept(program)] == ["steps.two", "walk.walk"]
    assert outcome(start(program)) == [12, 1, 0]


@compiled
@pytest.mark.parametrize(
    ("file", "old", "new", "result"),
    [
        ("steps.py", "STEP = 3", "STEP = 4", 16),  # in code that is part of another module's
        ("walk.py", "two(two(n))", "two(n + 10)", 16),
    ],
)
@pytest.mark.slow
def test_changed_source_of_equal_size_and_time_is_compiled(known, file, old, new, result):
    before = kept(known)
    source = known / file
    times = source.stat().st_atime_ns, source.stat().st_mtime_ns
    source.write_text(source.read_text().replace(old, new))
    assert len(old) == len(new)
    os.utime(source, ns=times)

    assert outcome(start(known))[0] == result
    assert outcome(start(known)) == [result, 1, 0]
    assert len(kept(known)) == len(before)  # what was outdated is gone


@compiled
@pytest.mark.slow
def test_a_damaged_file_is_replaced(known):
    for path in kept(known):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    assert outcome(start(known)) == [12, 0, 1]
    assert outcome(start(known)) == [12, 1, 0]


@compiled
@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        "compiling._Work.begin",  # with the lock just taken
        "files.write",  # compiled, and nothing written
        "files.Folder.replace",  # written, and not renamed
        "compiling._Work.end",  # with the lock still held
    ],
)
def test_a_process_that_dies_leaves_no_harm(program, moment):
    owner, _, name = moment.rpartition(".")
    dying = f"""
import os
from prioritized_replay.jit import cache_files as files, compiling
compiling.write = lambda *given: files.write(*given)
real = {moment}
def die(*given):
    if {name!r} in ("begin", "end"):
        real(*given)
    os._exit(1)
{owner}.{name} = die
""".replace("compiling._Work.end = die", "compiling._Work.end = lambda *given: os._exit(1)")

    process = start(program, dying + RUN)
    process.communicate()

    assert process.returncode == 1
    assert outcome(start(program))[0] == 12
    assert outcome(start(program)) == [12, 1, 0]


@compiled
@pytest.mark.slow
def test_of_eight_processes_at_once_one_compiles(program):
    found = [outcome(process) for process in [start(program) for _ in range(8)]]

    assert [result for result, _, _ in found] == [12] * 8
    assert sum(compilations for _, _, compilations in found) == 1


@compiled
@posix
@pytest.mark.slow
def test_a_full_disk_costs_the_cache_and_one_warning(program):
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    home = str(program / "home")
    process = start(program, limit + RUN, XDG_CACHE_HOME=home, HOME=home)

    assert outcome(process, r".*cannot be kept.*NUMBA_CACHE_DIR.*\n") == [12, 0, 1]
    assert not list(program.rglob("*.tmp"))


@compiled
@pytest.mark.slow
def test_a_zipped_package_works_with_no_folder_to_write(program):
    with zipfile.ZipFile(program / "package.zip", "w") as archive:
        for path in PACKAGE.rglob("*.py"):
            archive.write(path, path.relative_to(PACKAGE.parent))
    nowhere = str(program / "walk.py" / "nowhere")
    path = os.pathsep.join([str(program), str(program / "package.zip")])
    places = dict.fromkeys(["NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"], nowhere)
    process = start(program, RUN, PYTHONPATH=path, **places)

    assert outcome(process, r".*cannot be kept.*\n") == [12, 0, 1]


@compiled
@posix
@pytest.mark.slow
def test_without_a_home_or_a_current_folder_the_cache_works(program):
    leave = (
        "import os, tempfile\n"
        "gone = tempfile.mkdtemp()\n"
        "os.chdir(gone)\n"
        "os.rmdir(gone)\n"
        "os.environ.pop('HOME', None)\n"
    )

    assert outcome(start(program, leave + RUN)) == [12, 0, 1]
    assert outcome(start(program, leave + RUN)) == [12, 1, 0]


@compiled
@pytest.mark.slow
def test_threads_that_call_first_at_once_all_get_the_result(program):
    together = (
        "import json, threading, walk\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "ready = threading.Barrier(4)\n"
        "def call(n):\n"
        "    ready.wait()\n"
        "    return walk.walk(n)\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    print(json.dumps(list(pool.map(call, range(4)))))\n"
    )

    assert outcome(start(program, together)) == [12, 13, 14, 15]


@compiled
@pytest.mark.slow
def test_the_user_hears_of_compiling_and_of_nothing_else(program):
    watched = (
        "import sys\nsys.ps1 = '>>> '\n"
        "from prioritized_replay.jit import compiling\ncompiling.LONG = -1.0\n"
    )

    outcome(start(program, watched + RUN), r"prioritized_replay: compiling.*\n")
    outcome(start(program, watched + RUN), "")


@compiled
@pytest.mark.slow
def test_code_that_cannot_be_rebuilt_is_compiled(known):
    broken = (
        "from prioritized_replay.jit import compiling\n"
        "compiling.CompileResult._rebuild = lambda *given: 1 / 0\n"
    )

    assert outcome(start(known, broken + RUN)) == [12, 0, 1]


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["class Over(Exception): pass", "Over = TimeoutError"])
@pytest.mark.parametrize("call", ["_rebuild", "_reduce"])
def test_a_time_out_while_a_kernel_is_loaded_or_kept_ends_the_call(known, kind, call):
    """A signal's handler raises it in the middle; the next call loads or compiles."""
    if call == "_reduce":
        shutil.rmtree(known / "cache")
    code = f"""
import signal, walk
from prioritized_replay.jit import compiling
{kind}
right = compiling.CompileResult.{call}
def handler(number, frame):
    raise Over()
signal.signal(signal.SIGUSR1, handler)
def strike(*given):
    compiling.CompileResult.{call} = right
    signal.raise_signal(signal.SIGUSR1)
compiling.CompileResult.{call} = strike
try:
    walk.walk(0)
    print('"swallowed"')
except Over:
    print(walk.walk(0))
"""
    assert outcome(start(known, code)) == 12


@pytest.mark.slow
def test_plain_python_runs_the_functions_themselves(program):
    plain = (
        "import json, steps, walk\n"
        "assert type(walk.walk) is type(steps.one) is type(lambda: 0)\n"
        "print(json.dumps(walk.walk(0)))\n"
    )

    assert outcome(start(program, plain, NUMBA_DISABLE_JIT="1")) == 12
    assert not (program / "cache").exists()


@compiled
@pytest.mark.slow
def test_importing_compiles_and_writes_nothing(program):
    importing = (
        "import json\n"
        "from numba.core import event\n"
        "with event.install_recorder('numba:compile') as recorder:\n"
        "    import prioritized_replay\n"
        "print(json.dumps(len(recorder.buffer)))\n"
    )

    assert outcome(start(program, importing)) == 0
    assert not (program / "cache").exists()


def test_kernels_take_only_from_modules_whose_code_counts():
    """Every module of ours that one with a kernel imports is known to the decorators."""
    texts = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    names = {
        path: ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in texts
    }
    own = "prioritized_replay.jit.compiling"
    counted = {
        names[path]
        for path, text in texts.items()
        if re.search(r"^@(kernel|inner)$|^counts\(sys\._getframe\(\)\)", text, re.MULTILINE)
    }
    assert "prioritized_replay.jit.intrinsics" in counted
    assert len(counted) >= 8

    for path, text in texts.items():
        if names[path] not in counted:
            continue
        for node in ast.walk(ast.parse(text)):
            taken = [node.module] if isinstance(node, ast.ImportFrom) else []
            taken += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            ours = {name for name in taken if name.startswith("prioritized_replay")}
            assert ours <= counted | {own}, path


# --- the order of imports -----------------------------------------------------------------

MORE = """
from prioritized_replay.jit.compiling import kernel
import steps
@kernel
def more(n):
    return steps.one(n) + 1
"""
BOTH = """
import json
{imports}
import walk, more
result = walk.walk(0), more.more(0)
counts = [sum(sum(getattr(f.stats, c).values()) for f in (walk.walk, more.more))
          for c in ("cache_hits", "cache_misses")]
print(json.dumps([*result, *counts]))
"""


@compiled
@pytest.mark.slow
def test_compiled_code_is_found_whatever_the_order_of_imports(program):
    (program / "more.py").write_text(MORE)
    one, other = (BOTH.format(imports=text) for text in ("import more, walk", "import walk, more"))
    assert outcome(start(program, one)) == [12, 4, 0, 2]
    before = {path: path.stat().st_mtime_ns for path in kept(program)}
    assert len(before) == 3
    for code in (other, one, other):
        assert outcome(start(program, code)) == [12, 4, 2, 0]
    assert outcome(start(program)) == [12, 1, 0]  # and without the other module
    assert {path: path.stat().st_mtime_ns for path in kept(program)} == before


@compiled
@pytest.mark.slow
def test_a_change_is_noticed_through_a_module_that_is_taken_as_a_whole(program):
    (program / "more.py").write_text(MORE)
    code = BOTH.format(imports="")
    outcome(start(program, code))
    source = program / "steps.py"
    source.write_text(source.read_text().replace("STEP = 3", "STEP = 5"))
    assert outcome(start(program, code)) == [20, 6, 0, 2]


@compiled
@pytest.mark.slow
def test_a_constant_of_another_module_is_part_of_the_key(program):
    (program / "sizes.py").write_text("STEP = 3")  # no kernel there: only its value counts
    source = program / "steps.py"
    source.write_text(source.read_text().replace("STEP = 3", "from sizes import STEP"))
    outcome(start(program))
    assert outcome(start(program)) == [12, 1, 0]
    (program / "sizes.py").write_text("STEP = 4")
    assert outcome(start(program)) == [16, 0, 1]


KEYS = """
import json, {imports}
from prioritized_replay.jit import compiling
print(json.dumps({{name: module.covered() for name, module in compiling._modules.items()}}))
"""


@compiled
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.slow
def test_our_own_kernels_have_the_same_keys_in_every_order_of_imports(program, alone):
    pytest.importorskip("torch")
    modules = [
        "prioritized_replay.dqn.fast.adam",
        "prioritized_replay.experiments.cliffwalk._kernels",
        "prioritized_replay.replay",
    ]
    orders = [[name] for name in modules] if alone else [modules, modules[::-1]]
    processes = [start(program, KEYS.format(imports=", ".join(order))) for order in orders]
    found = [outcome(process) for process in processes]
    assert len(found[-1]) >= (2 if alone else 9)
    for name in set.intersection(*map(set, found)):
        assert len({keys[name] for keys in found}) == 1, name
    everything = {name: key for keys in found for name, key in keys.items()}
    assert all(keys.items() <= everything.items() for keys in found)


# --- what others may write ------------------------------------------------------------------


@posix
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_whatever_the_umask_nobody_else_may_write_what_is_run(tmp_path, monkeypatch, umask):
    folder = tmp_path / "new" / "deeper" / "kernels"
    monkeypatch.setattr(files, "folders", lambda: (folder,))
    before = os.umask(umask)
    try:
        lock = files.Lock()
        assert lock.take()
        files.write(NAME, b"key", CONTENT)
        assert files.read(NAME, b"key") == CONTENT
        lock.release()
    finally:
        os.umask(before)
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600
    assert (folder / "lock").stat().st_mode & 0o777 == 0o600
    for path in (folder, folder.parent, folder.parent.parent):
        assert path.stat().st_mode & 0o022 == 0


@compiled
@posix
@pytest.mark.parametrize("umask", [0o000, 0o002])
@pytest.mark.slow
def test_a_process_with_a_loose_umask_keeps_and_finds_what_it_compiled(program, umask):
    loose = f"import os\nos.umask({umask})\n"
    assert outcome(start(program, loose + RUN)) == [12, 0, 1]
    assert outcome(start(program, loose + RUN)) == [12, 1, 0]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in kept(program))


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_run_but_replaced(folders, mode):
    files.write(NAME, b"key", CONTENT)
    (folders[0] / NAME).chmod(mode)
    assert files.read(NAME, b"key") is None
    files.write(NAME, b"key", CONTENT)
    assert files.read(NAME, b"key") == CONTENT
    assert (folders[0] / NAME).stat().st_mode & 0o777 == 0o600


@posix
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root's rights")
def test_a_file_of_somebody_else_in_ones_own_folder_is_not_run(folders):
    files.write(NAME, b"key", CONTENT)
    os.chown(folders[0] / NAME, 54321, -1)
    assert files.read(NAME, b"key") is None
    files.write(NAME, b"key", CONTENT)
    assert files.read(NAME, b"key") == CONTENT


@posix
def test_a_link_or_a_pipe_in_the_place_of_a_file_is_not_read(folders, tmp_path):
    files.write(NAME, b"key", CONTENT)
    (folders[0] / NAME).rename(tmp_path / "elsewhere")
    (folders[0] / NAME).symlink_to(tmp_path / "elsewhere")
    assert files.read(NAME, b"key") is None
    (folders[0] / NAME).unlink()
    os.mkfifo(folders[0] / NAME)
    ended(lambda: files.read(NAME, b"key"))
    assert files.read(NAME, b"key") is None


@posix
def test_a_link_in_the_place_of_the_folder_is_not_followed(folders, tmp_path):
    files.write(NAME, b"key", CONTENT)
    folders[0].rename(tmp_path / "elsewhere")
    folders[0].symlink_to(tmp_path / "elsewhere")
    assert files.read(NAME, b"key") is None
    files.write(NAME, b"key", CONTENT)
    assert (folders[1] / NAME).is_file()


@posix
@pytest.mark.parametrize(("mode", "trusted"), [(0o1777, True), (0o777, False), (0o775, False)])
def test_of_parents_that_others_may_write_only_sticky_ones_are_trusted(
    tmp_path, monkeypatch, mode, trusted
):
    shared = tmp_path / "shared"
    folder = shared / "mine" / "kernels"
    folder.mkdir(parents=True)
    monkeypatch.setattr(files, "folders", lambda: (folder,))
    files.write(NAME, b"key", CONTENT)
    shared.chmod(mode)
    assert files.read(NAME, b"key") == (CONTENT if trusted else None)
    if not trusted:
        with pytest.raises(PermissionError, match="shared can be written by others"):
            files.write(NAME, b"key", CONTENT)


@posix
def test_what_is_swapped_between_the_check_and_the_reading_is_not_read(
    folders, tmp_path, monkeypatch
):
    """The folder that was looked at is the one that is read, whatever stands at its path now."""
    files.write(NAME, b"key", CONTENT)
    evil = CONTENT[::-1]
    other = tmp_path / "evil"
    other.mkdir()
    (other / NAME).write_bytes(files.checksum(b"key", evil) + evil)
    (other / NAME).chmod(0o600)
    real = files.Folder.open

    def swapped(folder, name, flags):
        folders[0].rename(tmp_path / "moved")
        other.rename(folders[0])
        return real(folder, name, flags)

    monkeypatch.setattr(files.Folder, "open", swapped)
    assert files.read(NAME, b"key") == CONTENT
