"""What it costs that a call may be interrupted: ours beside a copy of it that keeps no notes.

Before a buffer begins a change that takes several calls, it notes what would complete that change;
every call looks for such a note first. The copy is made from the same source, of which all
statements that write a note or look for one are left out.
"""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import prioritized_replay as per
from benchmarks import measures
from benchmarks.results import Check, Participant, Ratio
from benchmarks.session import Session
from benchmarks.timing import Entry, interleave, ratio
from benchmarks.vector_memories import OursVector, played
from prioritized_replay.conformance.adapters.ours import OursProportional
from prioritized_replay.conformance.checks import Invalid

NOTE = "note: "
NAME, WITHOUT = OursProportional.name, "ours, without notes"
MEASURES = (measures.ADD, "vector add of 8", f"{measures.CYCLE} of 32")
STREAMS, BATCH = 8, 32
# In the order in which they import each other. What notes are to the distributions is for alpha.
_PACKAGE = "prioritized_replay"
_MODULES = ("sampling.uniforms", "sampling.sampler", "streams.transitions", "replay")


class _Bare(ast.NodeTransformer):
    """Leaves out every statement that begins, ends or settles a note, or asks for one."""

    def __init__(self) -> None:
        self.left_out = 0

    def generic_visit(self, node: ast.AST) -> ast.AST | None:  # type: ignore[override]
        statement = node if isinstance(node, (ast.Assign, ast.Expr)) else None
        asked = node.test if isinstance(node, ast.If) else statement
        if asked is not None and any(_is_of_note(part) for part in ast.walk(asked)):
            self.left_out += 1
            return None
        super().generic_visit(node)
        if isinstance(node, ast.If) and not node.body and not node.orelse:
            return None
        if isinstance(
            node, (ast.FunctionDef, ast.Try, ast.If, ast.With, ast.ExceptHandler)
        ) and not (node.body):
            node.body = [ast.Pass()]
        return node


def _is_of_note(node: ast.AST) -> bool:
    """Return whether this is an attribute of ``self._note``."""
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "_note"
    )


def without_notes() -> type[per.ReplayBuffer]:
    """Return a copy of the class that notes nothing: an interrupted call would ruin its buffers."""
    copies: dict[str, ModuleType] = {}
    try:
        for name in (f"{_PACKAGE}.{part}" for part in _MODULES):
            original = import_module(name)
            assert original.__file__ is not None
            bare = _Bare()
            tree = bare.visit(ast.parse(Path(original.__file__).read_text(encoding="utf-8")))
            assert bare.left_out, name
            copy = ModuleType(name)
            copy.__file__ = original.__file__
            copies[name] = original
            sys.modules[name] = copy
            exec(compile(ast.fix_missing_locations(tree), name, "exec"), copy.__dict__)
        kind: type[per.ReplayBuffer] = copy.ReplayBuffer
        return kind
    finally:
        sys.modules.update(copies)


def measure_note(session: Session, size: int) -> None:
    """Time adding, and drawing with an update, with and without notes.

    Parameters
    ----------
    session : Session
        With the data of small rows.
    size : int
        N.
    """
    kinds: dict[str, type[per.ReplayBuffer]] = {NAME: per.ReplayBuffer, WITHOUT: without_notes()}
    session.results.contenders.append(
        Participant(WITHOUT, "prioritized-replay", "proportional", {"class": __doc__.strip()})
    )
    single = {name: _filled(session, kind, size, None) for name, kind in kinds.items()}
    side_by_side = {name: _filled(session, kind, size, STREAMS) for name, kind in kinds.items()}
    errors = np.linspace(-1.0, 1.0, BATCH, dtype=np.float32)
    row, several = played(1, 64, 0, end=0.0), played(STREAMS, 64, 0)
    rows = [tuple(value[0] for value in step.values()) for step in row]

    def adding(replay: per.ReplayBuffer, steps: list[Any]) -> Entry:
        return Entry(lambda _: steps, lambda step: replay.add(*step))

    def cycling(replay: per.ReplayBuffer) -> Entry:
        def cycle(_: Any) -> None:
            replay.update_priorities(replay.sample(BATCH, 0.5).ids, errors)

        return Entry(lambda _: rows, cycle)

    vector_steps = [tuple(step.values()) for step in several]
    entries = (
        {name: adding(replay, rows) for name, replay in single.items()},
        {name: adding(replay, vector_steps) for name, replay in side_by_side.items()},
        {name: cycling(replay) for name, replay in single.items()},
    )
    for measure, both in zip(MEASURES, entries, strict=True):
        session.say(f"{NOTE}{measure}")
        times = interleave(both, lambda number: number, session.effort)
        of = ratio(times[NAME], times[WITHOUT])
        session.results.ratios.append(
            Ratio(NOTE + measure, size, 1, WITHOUT, NAME, of.median, of.low, of.high)
        )
    states = [one.stats() for one in single.values()]
    if states[0] != states[1]:
        raise Invalid(f"a buffer without notes must be like one with them, got {states}")
    session.results.checks.append(Check(WITHOUT, size, "the same state after the same calls"))


def _filled(
    session: Session, kind: type[per.ReplayBuffer], size: int, num_envs: int | None
) -> per.ReplayBuffer:
    replay = kind(
        size, OursProportional.fields, sampler=OursVector.sampler, num_envs=num_envs,
        autoreset=None if num_envs is None else "next_step", seed=1,
    )  # fmt: skip
    errors = session.workload.errors(size)
    first = 0
    for rows in session.workload.chunks(size):
        last = first + len(rows["action"])
        replay.extend(rows, errors[first:last])
        first = last
    return replay
