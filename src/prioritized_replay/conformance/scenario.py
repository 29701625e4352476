"""What a scenario is, and how a memory is judged by one.

Knows outcomes and how to reproduce them; knows nothing of what scenarios do.
"""

from __future__ import annotations

import contextlib
import inspect
import signal
import textwrap
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from prioritized_replay.conformance import trial
from prioritized_replay.conformance.memory import Adapter, NotClaimed
from prioritized_replay.conformance.subject import LAWS, Law
from prioritized_replay.conformance.trial import Failure, Trials

Outcome = Literal["pass", "fail", "not claimed"]

PATIENCE = 60.0  # seconds of processor time, after which a call never returns; no measure of speed
_WAITING = 10  # times as long by the clock, for a call that waits and does nothing


@dataclass(frozen=True)
class Scenario:
    """A rule for replay memories, and a short function that finds out whether one keeps it.

    Attributes
    ----------
    name, group : str
        In kebab-case.
    rule : str
        One sentence.
    source : str
        The paper, or the public bug report, that names it.
    laws : tuple of str
        The laws for which it makes sense.
    function : callable
        Takes :class:`Trials`, returns what was seen, raises :class:`Failure` where the rule is
        broken.
    """

    name: str
    group: str
    rule: str
    source: str
    laws: tuple[Law, ...]
    function: Callable[[Trials], str]

    @property
    def lines(self) -> str:
        """The source of the function."""
        lines = inspect.getsource(self.function).splitlines()
        first = next(k for k, line in enumerate(lines) if line.startswith("def "))
        return textwrap.dedent("\n".join(lines[first:]))

    def reproduction(self, factory: str, seed: int = 0) -> str:
        """Return a program of at most 20 lines that judges the memory of ``MODULE:FACTORY``."""
        names: dict[str, set[str]] = {}
        for module, name in [
            ("prioritized_replay.conformance.factories", "adapter_of"),
            ("prioritized_replay.conformance.trial", "Trials"),
            *_needed(self.function),
        ]:
            names.setdefault(module, set()).add(name)
        plain = sorted(line for line in names.pop("", set()))
        imports = [f"from {home} import {', '.join(sorted(names[home]))}" for home in sorted(names)]
        trials = f'Trials(adapter_of("{factory}"), seed={seed})'
        call = f"print({self.function.__name__}({trials}))"
        return "\n".join([*plain, *imports, "", self.lines, "", call])


@dataclass(frozen=True)
class Result:
    """How one memory fared in one scenario. ``seen`` are the numbers, or why it is not claimed."""

    scenario: Scenario
    outcome: Outcome
    seen: str


def scenario(
    rule: str, *, source: str, laws: tuple[Law, ...] = LAWS
) -> Callable[[Callable[[Trials], str]], Scenario]:
    """Make a scenario of a function: its name is the scenario's, its module's is the group's."""

    def made(function: Callable[[Trials], str]) -> Scenario:
        group = function.__module__.rpartition(".")[2]
        names = function.__name__.replace("_", "-"), group.replace("_", "-")
        return Scenario(*names, rule, source, laws, function)

    return made


def judge(
    scenario: Scenario, adapter: Adapter, seed: int = 0, patience: float = PATIENCE
) -> Result:
    """Run one scenario with a kind of memory. Whatever a library raises is a failure."""
    for name in (scenario.name, scenario.group):
        if name in adapter.not_claimed:
            return Result(scenario, "not claimed", adapter.not_claimed[name])
    if adapter.law not in scenario.laws:
        return Result(scenario, "not claimed", f"not a rule for {adapter.law} memories")
    try:
        with _given_up_after(patience), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Result(scenario, "pass", scenario.function(Trials(adapter, seed)))
    except NotClaimed as reason:
        return Result(scenario, "not claimed", str(reason))
    except Failure as failure:
        return Result(scenario, "fail", str(failure))
    except Exception as error:
        said = " ".join(str(error).split())
        return Result(scenario, "fail", f"{type(error).__name__}: {said}"[:300])


@contextlib.contextmanager
def _given_up_after(seconds: float) -> Iterator[None]:
    """Break a call off that does not return, where the system can do that: in the main thread."""
    here = threading.current_thread() is threading.main_thread()
    if not (hasattr(signal, "setitimer") and here):
        yield
        return

    def give_up(number: int, frame: types.FrameType | None) -> None:
        raise Failure(f"a call did not return within {seconds:g} seconds of processor time")

    timers = (
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, seconds * _WAITING),
    )
    before = [signal.signal(number, give_up) for _, number, _ in timers]
    try:
        for timer, _, limit in timers:
            signal.setitimer(timer, limit)
        yield
    finally:
        for (timer, number, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0.0)
            signal.signal(number, handler)


def _needed(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Yield what a function's body uses of its module: home and name, or no home and a line."""
    codes, names = [function.__code__], set[str]()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        if isinstance(value, types.ModuleType):
            known_as = f" as {name}" if value.__name__ != name else ""
            yield "", f"import {value.__name__}{known_as}"
        elif hasattr(value, "__module__"):
            yield value.__module__, name
        else:  # a constant: of this module, or of the one that scenarios are written with
            home = trial if getattr(trial, name, None) is value else None
            yield (home.__name__ if home else function.__module__), name
