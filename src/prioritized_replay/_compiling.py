"""Decorators for compiled functions: knows numba, where compiled code is kept, and when to trust it.

Knows nothing of what the functions do. Each compiled kernel is one file. Its name and its checksum
cover all that its machine code depends on, so what lies there is either right or not used:

- a file is written under another name and then renamed: whoever is killed leaves nothing half done;
- the checksum is verified before anything else is looked at;
- code that has changed looks for other names. The files of the old code are deleted.

Whatever goes wrong with a file, the kernel is compiled instead, and the caller notices only that
it takes longer. numba's own cache keeps an index beside the code and believes both: a process
killed between the two writes leaves an index that promises new code and names the old, a damaged
file or a full disk ends the call, and a change in one file goes unnoticed in those that use it.

This relies on four names that numba does not document: `Dispatcher._cache`, `NullCache`, and
`_reduce` and `_rebuild` of a compiled result, which are the same from 0.60 to 0.68. Should one go,
kernels are compiled in each process, and `tests/test_compiling.py` says so.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import logging
import os
import pickle
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any, BinaryIO

import llvmlite
import numba
import numpy as np
from numba.core import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

LONG = 1.0  # seconds of compiling after which the user is told
PATIENCE = 60.0  # seconds that a process waits, in all, for what others compile
PAUSE = 0.02  # seconds between two looks at whether they have
ABANDONED = 3600.0  # seconds after which nobody is still writing a temporary file
CHECKSUM = 32  # bytes

logger = logging.getLogger("prioritized_replay")


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of a module on its first call, or load what was compiled before.

    Whatever else it uses, other than its arguments, numba and NumPy, has to come from modules that
    use this decorator as well: their code decides what may be loaded.
    """
    compiled = numba.njit(function)
    if not config.DISABLE_JIT:
        compiled._cache = _Kept(function, _covered(sys._getframe(1).f_code))
    return compiled


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that only other compiled ones call, as part of each of them.

    Without a wrapper for Python and without a file of its own, as the callers' code contains it.
    That saves a third of the time to compile.
    """
    compiled = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    if not config.DISABLE_JIT:
        _covered(sys._getframe(1).f_code)
        compiled._cache = _Unkept()
    return compiled


# --- what the machine code depends on ---------------------------------------------------------

_modules: dict[CodeType, str] = {}  # a digest for each module of kernels, in order of import


def _covered(module: CodeType) -> str:
    """Digest of the code of a module that is being imported, and of those imported before it.

    A module can only use what was imported before. It is the code that is running which counts:
    a file may have changed since, and there may be none.
    """
    if module not in _modules:
        before = list(_modules.values())[-1:]
        _modules[module] = _digest(repr((before, _content(module))).encode())
    return _modules[module]


def _content(code: CodeType) -> tuple[Any, ...]:
    """All that decides what code does: not where it stands."""
    constants = [
        _content(constant)
        if isinstance(constant, CodeType)
        else sorted(map(repr, constant))
        if isinstance(constant, frozenset)  # their order differs from process to process
        else repr(constant)
        for constant in code.co_consts
    ]
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    return code.co_name, code.co_code, code.co_exceptiontable, names, counts, constants


@functools.cache
def _environment(machine: tuple[str, ...]) -> str:
    """Digest of what compiles, and for which machine."""
    options = ("OPT", "BOUNDSCHECK", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX")
    chosen = [(option, getattr(config, option, None)) for option in options]
    python = sys.implementation.cache_tag, getattr(sys, "abiflags", "")
    versions = numba.__version__, llvmlite.__version__, np.__version__
    return _digest(repr((machine, chosen, python, versions)).encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=CHECKSUM).hexdigest()


# --- where it is kept -------------------------------------------------------------------------


@functools.cache
def _folders() -> tuple[Path, ...]:
    """Where kernels are looked for and, in the first that can be written, kept."""
    own = f"prioritized_replay-{_digest(os.fsencode(__file__))[:12]}"  # for this installation
    folders = []
    if config.CACHE_DIR:
        folders.append(Path(config.CACHE_DIR) / own)
    with contextlib.suppress(NotImplementedError):  # raised by a Python that caches nothing
        folders.append(Path(importlib.util.cache_from_source(__file__)).parent / "kernels")
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        folders.append(Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / own)
    elif sys.platform == "darwin":
        folders.append(home / "Library" / "Caches" / own)
    else:
        folders.append(Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / own)
    return tuple(folders)


def _check_owner(folder: Path) -> None:
    """Refuse a folder that others may write: to load a kernel is to run what is there."""
    if sys.platform != "win32":
        trusted = {0, os.getuid()}
        with contextlib.suppress(OSError):
            trusted.add(os.stat(__file__).st_uid)  # who could change this file as well
        status = folder.lstat()
        if status.st_uid not in trusted or status.st_mode & 0o022:
            raise PermissionError(f"{folder} can be written by others")


def _read(name: str, key: bytes) -> bytes | None:
    """Content of a file, or None; one that is damaged is deleted."""
    for folder in _folders():
        with contextlib.suppress(OSError):
            _check_owner(folder)
            checksum, content = _split((folder / name).read_bytes())
            if checksum == _checksum(key, content):
                return content
            (folder / name).unlink()
    return None


def _write(name: str, key: bytes, content: bytes) -> None:
    """Make the file anew in the first folder that takes it."""
    problem = None
    for folder in _folders():
        draft = folder / f"{name}-{secrets.token_hex(4)}.tmp"
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            _check_owner(folder)
            _delete_outdated(folder, name)
            try:
                draft.write_bytes(_checksum(key, content) + content)
                draft.replace(folder / name)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            problem = error
        else:
            return
    _work.complain(problem)


def _delete_outdated(folder: Path, name: str) -> None:
    """Delete what earlier code of a module has left, and what killed processes have."""
    function, environment, covered, _ = name.split("-")
    module = function.partition(".")[0]
    for path in folder.iterdir():
        parts = path.name.split("-")
        outdated = (
            len(parts) >= 4
            and parts[0].partition(".")[0] == module
            and parts[1] == environment
            and parts[2] != covered
        )
        with contextlib.suppress(OSError):
            if path.suffix == ".tmp":
                outdated = time.time() - path.stat().st_mtime > ABANDONED
            if outdated:
                path.unlink()


def _checksum(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, key=hashlib.sha256(key).digest(), digest_size=CHECKSUM).digest()


def _split(data: bytes) -> tuple[bytes, bytes]:
    return data[:CHECKSUM], data[CHECKSUM:]


# --- what numba asks --------------------------------------------------------------------------


class _Unkept(NullCache):  # type: ignore[misc]
    """Code that is compiled in each process that needs it."""

    def load_overload(self, sig: Any, target_context: Any) -> None:
        """Return nothing: it has to be compiled."""
        _work.tell()


class _Kept(NullCache):  # type: ignore[misc]
    """The files of one kernel, one for each signature."""

    def __init__(self, function: Callable[..., Any], covered: str) -> None:
        self.function = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self.covered = covered

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """Return what was compiled before, also by another process meanwhile, else None."""
        with _logged():
            target_context.refresh()
            name, key = self._name_and_key(sig, target_context.codegen())
            content = _read(name, key) or self._begin(name, key)
            if content is not None:
                return CompileResult._rebuild(target_context, *pickle.loads(content))
        return None

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        """Keep what was compiled, where that is possible."""
        with _logged():
            name, key = self._name_and_key(sig, data.codegen)
            try:
                if not (data.library.has_dynamic_globals or data.lifted):
                    _write(name, key, dumps(data._reduce()))
            finally:
                _work.end(name)

    def _begin(self, name: str, key: bytes) -> bytes | None:
        """Wait until it is this process's turn to compile (None), or another one has done it."""
        while True:
            mine = _work.begin(name)
            content = _read(name, key)
            if content is not None:
                _work.end(name)
                return content
            _work.tell()
            if mine:
                return None
            time.sleep(PAUSE)

    def _name_and_key(self, sig: Any, codegen: Any) -> tuple[str, bytes]:
        """File name, and all that it stands for."""
        environment = _environment(codegen.magic_tuple())
        digests = environment, self.covered, _digest(repr(sig).encode())
        name = "-".join([self.function, *(digest[:12] for digest in digests)])
        return name, "-".join([self.function, *digests]).encode()


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """No trouble with a cache is the caller's: what is not loaded is compiled."""
    try:
        yield
    except Exception:
        logger.debug("compiled kernels are not kept", exc_info=True)


# --- what others and the user should know -----------------------------------------------------


class _Work:
    """What this process is compiling: other processes wait for it, and the user is told."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()
        self.lock: BinaryIO | None = None  # held while there are any; ends with the process
        self.patience = PATIENCE
        self.since: float | None = None
        self.spent = 0.0
        self.told = self.complained = False

    def begin(self, name: str) -> bool:
        """Return whether this process may compile now; if not, it asks again after a pause."""
        if self.since is None:
            self.since = time.monotonic()
        if not self.kernels and not self._take_lock() and self.patience > 0.0:
            self.patience -= PAUSE
            return False
        self.kernels.add(name)
        return True

    def end(self, name: str) -> None:
        """Let others go on."""
        self.kernels.discard(name)
        if not self.kernels:
            if self.since is not None:
                self.spent += time.monotonic() - self.since
                self.since = None
            if self.lock is not None:
                _unlock(self.lock)
                self.lock = None

    def _take_lock(self) -> bool:
        """Return False if another process compiles; True also where files cannot be locked."""
        for folder in _folders():
            with contextlib.suppress(OSError):
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                _check_owner(folder)
                file = (folder / "lock").open("ab")
                try:
                    _lock(file)
                except (BlockingIOError, PermissionError):
                    file.close()
                    return False
                except OSError:
                    file.close()
                    return True
                self.lock = file
                return True
        return True

    def tell(self) -> None:
        """Say once that kernels are being compiled, if that takes long."""
        if self.told or self.since is None:
            return
        if self.spent + time.monotonic() - self.since > LONG:
            self.told = True
            note = "prioritized_replay: compiling for this machine, once; this takes several seconds"
            if sys.stderr is not None and (sys.stderr.isatty() or hasattr(sys, "ps1")):
                print(note, file=sys.stderr, flush=True)  # somebody is waiting
            else:
                logger.info(note)

    def complain(self, problem: OSError | None) -> None:
        """Say once that each process will have to compile."""
        if not self.complained:
            self.complained = True
            logger.warning(
                "prioritized_replay: what was compiled cannot be kept (%s), so every process "
                "compiles again; set NUMBA_CACHE_DIR to a folder that can be written",
                problem,
            )


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _unlock(file: BinaryIO) -> None:
        file.close()

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)  # also where a forked child has the file open
        file.close()


_work = _Work()
