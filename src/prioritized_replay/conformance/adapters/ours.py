"""Ours: prioritized, rank-based and uniform buffers, rows in files, stacks of frames."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

import prioritized_replay as per
from prioritized_replay.conformance.stacks import STACK_SHAPE
from prioritized_replay.conformance.subject import (
    ALPHA,
    BETA,
    EPS,
    Drawn,
    Ints,
    StackSubject,
    Subject,
)
from prioritized_replay.conformance.workload import OBS_SIZE, Errors, Floats, Workload


class _Ours(Subject):
    library = "prioritized-replay"
    sampler: ClassVar[Any]
    directory: str | None = None
    fields: ClassVar[Mapping[str, per.Field]] = {
        "obs": per.Field((OBS_SIZE,)),
        "action": per.Field((), "int64"),
        "reward": per.Field(),
    }

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._replay = per.ReplayBuffer(
            size, self.fields, sampler=self.sampler, directory=self.directory, seed=1
        )

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        first = 0
        for rows in workload.chunks(self.size):
            last = first + len(rows["action"])
            self._replay.extend(rows, None if errors is None else errors[first:last])
            first = last

    def as_step(self, step: Mapping[str, Any]) -> Any:
        return tuple(step.values())

    def as_rows(self, rows: Mapping[str, Any]) -> Any:
        return rows

    def as_errors(self, errors: Errors) -> Any:
        return errors  # signed: abs, eps and alpha are applied inside, and are timed

    def add(self, step: Any) -> None:
        self._replay.add(*step)

    def add_with_error(self, step: Any, error: Any) -> None:
        self._replay.add(*step, td_error=error)

    def extend(self, rows: Any) -> None:
        self._replay.extend(rows)

    def sample(self, batch: int) -> Any:
        return self._replay.sample(batch, BETA)

    def update(self, drawn: Any, errors: Any) -> None:
        self._replay.update_priorities(drawn.ids, errors)

    def seen(self, drawn: Any) -> Drawn:
        weights = None if self.law == "uniform" else drawn.weights
        return Drawn(drawn.ids % self.size, drawn.action, drawn.obs, weights)

    def update_rows(self, rows: Ints, errors: Errors) -> None:
        self._replay.update_priorities(rows, errors)

    @property
    def nbytes(self) -> int | None:
        return self._replay.nbytes


class OursProportional(_Ours):
    """``ReplayBuffer`` with ``Proportional``."""

    name = "ours, proportional"
    law = "proportional"
    sampler = per.Proportional(alpha=ALPHA["proportional"], eps=EPS)
    settings: ClassVar = {
        "class": f"ReplayBuffer(sampler=Proportional(alpha={ALPHA['proportional']}, eps={EPS}))",
        "draws": "stratified, with replacement (the default)",
        "update": "signed float32 TD errors; absolute value, eps and alpha are part of the time",
    }


class OursInFiles(OursProportional):
    """The same in a directory."""

    name = "ours, proportional, in files"
    settings: ClassVar = {
        **OursProportional.settings,
        "where": "directory= of a temporary folder, pages cached by the system",
    }

    def __init__(self, size: int) -> None:
        self.directory = tempfile.mkdtemp(prefix="per-bench-")
        weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)
        super().__init__(size)


class OursRank(_Ours):
    """``ReplayBuffer`` with ``RankBased``."""

    name = "ours, rank-based"
    law = "rank"
    sampler = per.RankBased(alpha=ALPHA["rank"])
    settings: ClassVar = {
        "class": f"ReplayBuffer(sampler=RankBased(alpha={ALPHA['rank']}))",
        "draws": "stratified, with replacement (the default), by exact ranks",
        "update": "signed float32 TD errors",
    }


class OursUniform(_Ours):
    """``ReplayBuffer`` with ``Uniform``."""

    name = "ours, uniform"
    law = "uniform"
    sampler = per.Uniform()
    settings: ClassVar = {
        "class": "ReplayBuffer(sampler=Uniform())",
        "draws": "stratified, with replacement (the default); weights are returned as well",
    }

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        super().fill(workload, None)


class _OursStacks(StackSubject):
    settings: ClassVar = {
        "fields": f"obs: Field({STACK_SHAPE}, 'uint8', stack_axis=0)",
        "add": "one plain step after the other: what is shared is found by the library",
    }
    fields: ClassVar[Mapping[str, per.Field]] = {
        "obs": per.Field(STACK_SHAPE, "uint8", stack_axis=0),
        "action": per.Field((), "int64"),
        "reward": per.Field(),
    }
    _replay: Any

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        self._fill(workload)
        if errors is not None and self.law != "uniform":
            self._replay.update_priorities(np.arange(self.size), errors)

    def seen(self, drawn: Any) -> Drawn:
        weights = None if self.law == "uniform" else drawn.weights
        return Drawn(drawn.ids % self.size, drawn.action, drawn.obs, weights, drawn.next_obs)


class OursStacks(_OursStacks, OursProportional):
    """``ReplayBuffer`` with ``Proportional``."""

    name = "ours, proportional, stacks"


class OursStacksInFiles(_OursStacks, OursInFiles):
    """The same in a directory."""

    name = "ours, proportional, stacks in files"
    settings: ClassVar = {
        **_OursStacks.settings,
        "where": OursInFiles.settings["where"],
    }


class OursStacksUniform(_OursStacks, OursUniform):
    """``ReplayBuffer`` with ``Uniform``."""

    name = "ours, uniform, stacks"


OURS: Sequence[type[Subject]] = (OursProportional, OursRank, OursUniform)
OURS_STACKS: Sequence[type[Subject]] = (OursStacks, OursStacksInFiles, OursStacksUniform)
