"""Decorators for compiled functions: knows numba and when compiled code of ours may be used again.

Knows nothing of what the functions do. Each compiled kernel is one file, whose name and key cover
all that its machine code depends on: code that has changed looks for another file. Whatever goes
wrong with a file, the kernel is compiled instead; the caller notices only that it takes longer.

numba's own cache keeps an index beside the code and believes both. A process that is killed
between the two writes leaves an index that promises new code and names the old; a damaged file or
a full disk ends the call; a change in one module goes unnoticed in another that uses it.

This relies on four names that numba does not document, the same from 0.60 to 0.68:
`Dispatcher._cache`, `NullCache`, and `_reduce` and `_rebuild` of a compiled result. Should one go,
each process compiles anew, and `tests/test_compiling.py` fails.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, ModuleType
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from prioritized_replay.jit.cache_files import Lock, digest, read, write

DIVISION = "numpy"  # a loop that tests for a division by zero cannot be vectorised
LONG = 1.0  # seconds of compiling after which a message says so
PATIENCE = 60.0  # seconds that a process waits, in all, for what others compile
PAUSE = 0.02  # seconds between two looks at whether they have

logger = logging.getLogger("prioritized_replay")


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of a module on its first call, or load what was compiled before.

    Whatever else it uses, other than its arguments, constants, numba and NumPy, has to come from
    modules that use this decorator as well, or call :func:`counts`: their code decides what may be
    loaded.
    """
    # No wrapper for C: nobody calls it.
    compiled = numba.njit(no_cfunc_wrapper=True, error_model=DIVISION)(function)
    if not config.DISABLE_JIT:
        compiled._cache = _Kept(function, counts(sys._getframe(1)))
    return compiled


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that only other compiled ones call, as part of each of them.

    Without a wrapper for Python and without a file of its own, as the callers' code contains it.
    That saves a third of the time to compile.
    """
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "error_model": DIVISION}
    compiled = numba.njit(**options)(function)
    if not config.DISABLE_JIT:
        compiled._cache = _Unkept(counts(sys._getframe(1)))
    return compiled


# --- what the machine code depends on ---------------------------------------------------------


class _Module:
    """A module of kernels: its code that is running, and what it takes from other modules.

    A file may have changed since, and there may be none: the code is that of the import.
    """

    def __init__(self, code: CodeType, names: dict[str, Any]) -> None:
        self.code = code
        self.names = names

    @functools.cached_property
    def content(self) -> str:
        """Digest of the code."""
        return digest(repr(_content(self.code)).encode())

    @functools.cached_property
    def used(self) -> list[str]:
        """Names that the code of its functions mentions."""
        functions = [part for part in self.code.co_consts if isinstance(part, CodeType)]
        return sorted({name for code in functions for name in _names(code)})

    def uses(self) -> tuple[list[_Module], list[str]]:
        """Return the modules that its functions take something from, and the constants."""
        modules, constants = [], []
        for name in self.used:
            if name in self.names:
                value = self.names[name]
                module = _module_of(value)
                if module is not None:
                    modules.append(module)
                elif (constant := _constant(value)) is not None:
                    constants.append(f"{name}={constant}")
        return modules, constants

    def covered(self) -> str:
        """Digest of all code that a kernel of this module can be made of.

        The order in which modules were imported does not matter. It is asked for at the first
        call of a kernel, as a module is not complete while it is being imported.
        """
        found = {id(_own): _own.content}
        waiting = [self]
        while waiting:
            module = waiting.pop()
            if id(module) not in found:
                modules, constants = module.uses()
                found[id(module)] = repr((module.names["__name__"], module.content, constants))
                waiting += modules
        return digest(repr(sorted(found.values())).encode())


_modules: dict[str, _Module] = {}
"""Modules of kernels by name, as they were last imported."""


def counts(frame: FrameType) -> _Module:
    """Note that the code of the module that is being imported decides what kernels do.

    The decorators call this. A module without a kernel, whose functions kernels use, does it
    itself, with ``counts(sys._getframe())``.
    """
    name, code = frame.f_globals["__name__"], frame.f_code
    module = _modules.get(name)
    if module is None or module.code is not code:  # or it is imported again
        module = _modules[name] = _Module(code, frame.f_globals)
    return module


def _module_of(value: Any) -> _Module | None:
    """Return the module of kernels in which a function or class was made, if it is one."""
    kept = getattr(value, "_cache", None)
    if isinstance(kept, (_Kept, _Unkept)):
        return kept.module
    if isinstance(value, ModuleType):
        return _modules.get(value.__name__)
    value = getattr(value, "_defn", value)  # of an intrinsic
    if callable(value):
        return _modules.get(getattr(value, "__module__", None) or "")
    return None


def _constant(value: Any) -> str | None:
    """Return a text that stands for a constant, or None for what is none."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str}{value.shape}{digest(value.tobytes())}"
    if isinstance(value, tuple):
        return repr([_constant(part) for part in value])
    if isinstance(value, (bool, int, float, complex, str, bytes, np.generic, np.dtype)):
        return repr(value)
    return None


def _names(code: CodeType) -> set[str]:
    """Return the names that code and the functions in it mention."""
    inside = [part for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*map(_names, inside))


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


_own = counts(sys._getframe())  # what the decorators do matters as well


@functools.cache
def _environment(machine: tuple[str, ...]) -> str:
    """Digest of what compiles, and for which machine."""
    options = ("OPT", "BOUNDSCHECK", "LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX")
    chosen = [(option, getattr(config, option, None)) for option in options]
    python = sys.implementation.cache_tag, getattr(sys, "abiflags", "")
    versions = numba.__version__, llvmlite.__version__, np.__version__
    return digest(repr((machine, chosen, python, versions)).encode())


# --- what numba asks --------------------------------------------------------------------------


class _Unkept(NullCache):  # type: ignore[misc]
    """Code that is compiled in each process that needs it."""

    def __init__(self, module: _Module) -> None:
        self.module = module

    def load_overload(self, sig: Any, target_context: Any) -> None:
        """Return nothing: it has to be compiled."""
        _work.tell()


class _Kept(NullCache):  # type: ignore[misc]
    """The files of one kernel, one for each signature."""

    def __init__(self, function: Callable[..., Any], module: _Module) -> None:
        path = function.__module__.removeprefix("prioritized_replay.")
        self.function = f"{path}.{function.__qualname__}"
        self.module = module

    @functools.cached_property
    def covered(self) -> str:
        """Digest of the code of its module and of those that it uses."""
        return self.module.covered()

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        """Return what was compiled before, also by another process meanwhile, else None."""
        with _logged():
            target_context.refresh()
            name, key = self._name_and_key(sig, target_context.codegen())
            content = read(name, key) or self._begin(name, key)
            if content is not None:
                return CompileResult._rebuild(target_context, *pickle.loads(content))
        return None

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        """Keep what was compiled, where that is possible."""
        with _logged():
            name, key = self._name_and_key(sig, data.codegen)
            try:
                if not (data.library.has_dynamic_globals or data.lifted):
                    write(name, key, dumps(data._reduce()))
            except OSError as problem:
                if not _is_trouble(problem):
                    raise
                _work.complain(problem)
            finally:
                _work.end(name)

    def _begin(self, name: str, key: bytes) -> bytes | None:
        """Wait until it is this process's turn to compile (None), or another one has done it."""
        while True:
            mine = _work.begin(name)
            content = read(name, key)
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
        digests = environment, self.covered, digest(repr(sig).encode())
        name = "-".join([self.function, *(name[:12] for name in digests)])
        return name, "-".join([self.function, *digests]).encode()


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """No trouble with a cache is the caller's: what is not loaded is compiled."""
    try:
        yield
    except Exception as problem:
        if not _is_trouble(problem):
            raise
        logger.debug("compiled kernels are not kept", exc_info=True)


def _is_trouble(problem: Exception) -> bool:
    """Return whether a cache can have raised it.

    What else comes is the caller's, from a signal's handler or another thread: a time-out that is
    swallowed here would never end the call. Such an exception has a class of its own, or it is a
    TimeoutError that no file has raised.
    """
    kind = type(problem)
    if isinstance(problem, TimeoutError) and problem.errno is None:
        return False
    return kind is not Exception and kind.__module__.partition(".")[0] in _SOURCES


_SOURCES = frozenset({"builtins", "_pickle", "pickle", "numba", "llvmlite"})
"""Where the classes of all that a cache can raise are made."""


# --- what others and the user should know -----------------------------------------------------


class _Work:
    """What this process is compiling. Other processes wait for it, and a message says so.

    Eight processes that start together would otherwise compile everything eight times.
    """

    def __init__(self) -> None:
        self.kernels: set[str] = set()
        self.lock = Lock()  # held while there are any
        self.patience = PATIENCE
        self.since: float | None = None
        self.spent = 0.0
        self.told = self.complained = False

    def begin(self, name: str) -> bool:
        """Return whether this process may compile now; if not, it asks again after a pause."""
        if self.since is None:
            self.since = time.monotonic()
        nobody_gains = self.complained or self.patience <= 0.0
        if not (self.kernels or nobody_gains or self.lock.take()):
            self.patience -= PAUSE
            return False
        self.kernels.add(name)
        return True

    def end(self, name: str) -> None:
        """Let other processes continue."""
        self.kernels.discard(name)
        if not self.kernels:
            self.lock.release()
            if self.since is not None:
                self.spent += time.monotonic() - self.since
                self.since = None

    def tell(self) -> None:
        """Say once that kernels are being compiled, if that takes long."""
        if self.told or self.since is None:
            return
        if self.spent + time.monotonic() - self.since > LONG:
            self.told = True
            note = "prioritized_replay: compiling for this machine, once; this takes some seconds"
            if sys.stderr is not None and (sys.stderr.isatty() or hasattr(sys, "ps1")):
                print(note, file=sys.stderr, flush=True)  # somebody is waiting
            else:
                logger.info(note)

    def complain(self, problem: OSError) -> None:
        """Say once that each process will have to compile."""
        if not self.complained:
            self.complained = True
            logger.warning(
                "prioritized_replay: what was compiled cannot be kept (%s), so every process "
                "compiles again; set NUMBA_CACHE_DIR to a folder that can be written",
                problem,
            )


_work = _Work()
