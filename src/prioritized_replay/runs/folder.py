"""The folder of a run, as it is read: settings, metrics, models, and whether the run is complete.

Knows files and their formats; writes none of them. Nothing that is read back is executed: settings
are JSON, metrics CSV, models are loaded as plain tensors.
"""

from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from prioritized_replay.envs.make import module_of
from prioritized_replay.runs.checkpoint import RunCheckpoint
from prioritized_replay.runs.checkpoint_policy import CheckpointPolicy
from prioritized_replay.runs.files import is_unfinished, read_file
from prioritized_replay.runs.metrics import METRICS, read_metrics
from prioritized_replay.runs.records import (
    CONFIG,
    EVALUATION,
    is_config,
    read_config,
    was_evaluated,
)
from prioritized_replay.runs.tensors import tensors_in
from prioritized_replay.runs.worker_metrics import ACTORS, SHARDS
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.room import bytes_available
from prioritized_replay.training.state import is_finite

Model = Literal["best", "last"]
State = dict[str, torch.Tensor]

CURVE = "learning_curve.png"
CHECKPOINT = "checkpoint"
EVENTS = "events.out.tfevents.*"
_LARGEST_MODEL = 1 << 33
_BESIDE_NUMBERS = 1 << 20  # bytes of a model's file that are no numbers, at most


def model_file(model: Model) -> str:
    """Return the name of a model's file."""
    return f"{model}_model.pt"


FILES = (
    *(EVALUATION, CURVE, METRICS, ACTORS, SHARDS),
    *(model_file("best"), model_file("last"), CONFIG),
)


class RunFolder:
    """The folder of one run, for reading; :class:`RunWriter` writes to it.

    Attributes
    ----------
    path : pathlib.Path
        The folder, as it was named.
    config : TrainConfig
        The settings of the run.
    policy : CheckpointPolicy
        How many steps it is to make, and when it saves checkpoints.
    checkpoint : RunCheckpoint
        What a stopped run is resumed from; there need not be one.
    """

    def __init__(self, path: Path, config: TrainConfig, policy: CheckpointPolicy) -> None:
        self.path = path
        self.config = config
        self.policy = policy
        self.checkpoint = RunCheckpoint(path / CHECKPOINT)

    @classmethod
    def open(cls, path: Path, *, named: Collection[str] = ()) -> Self:
        """Read the settings of an earlier run.

        Parameters
        ----------
        path : pathlib.Path
        named : collection of str
            Environments that the caller names himself. An environment like ``my_envs:Room-v0``
            asks to import a module, which runs its code; that is done for these only.

        Raises
        ------
        FileNotFoundError
            ``path`` is not the folder of a run.
        ValueError
            Its ``config.json`` is damaged, of an unknown version, or names a module that the
            caller does not.
        """
        if not (path / CONFIG).is_file():
            reason = f"it has no {CONFIG}" if path.is_dir() else "there is no such folder"
            raise FileNotFoundError(f"{path} is not a run: {reason}")
        config, policy = read_config(path / CONFIG)
        if module_of(config.env_id) and config.env_id not in named:
            raise ValueError(
                f"{path / CONFIG} asks to import the module {module_of(config.env_id)!r}: if you "
                f"trust it, name the environment {config.env_id} on the command line"
            )
        return cls(path, config, policy)

    def is_complete(self, steps: int) -> bool:
        """Return whether the run made so many steps and was evaluated then."""
        return was_evaluated(self.path / EVALUATION, steps, self.config.steps)

    def metrics(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return every column of ``metrics.csv``, float64[reports] each; an empty cell is NaN.

        Raises
        ------
        ValueError
            The file is missing or damaged.
        """
        return read_metrics(self.path / METRICS)

    def has_model(self, model: Model) -> bool:
        """Return whether that model was saved; before the first evaluation there is no best one."""
        return (self.path / model_file(model)).is_file()

    def load_model(self, model: Model, like: Mapping[str, torch.Tensor] | None = None) -> State:
        """Return the ``state_dict`` of a saved model, on the CPU. No code from the file is run.

        Parameters
        ----------
        model : {"best", "last"}
        like : mapping of str to Tensor, optional
            The ``state_dict`` of a network that the model has to fit. A file larger than that is
            not even read.

        Raises
        ------
        FileNotFoundError
            The run has no such model.
        ValueError
            The file is damaged, too large, holds anything but named tensors of finite numbers, or
            does not fit.
        """
        path = self.path / model_file(model)
        if not path.is_file():
            other: Model = "last" if model == "best" else "best"
            hint = f"; it has the {other} one" if self.has_model(other) else ""
            raise FileNotFoundError(f"{self.path} has no {model} model{hint}")
        misfit = f"{self.path}: the {model} model does not fit its {CONFIG}"
        most = min(_LARGEST_MODEL, bytes_available() or _LARGEST_MODEL)
        if like is not None:
            expected = sum(tensor.numel() * tensor.element_size() for tensor in like.values())
            if path.stat().st_size > expected + _BESIDE_NUMBERS:
                raise ValueError(
                    f"{misfit}: its file must have about {expected:,} bytes, "
                    f"got {path.stat().st_size:,}"
                )
        try:
            state = tensors_in(read_file(path, most))
        except ValueError as error:
            raise ValueError(f"{path} is damaged or not a model: {error}") from error
        if not isinstance(state, dict) or not all(torch.is_tensor(t) for t in state.values()):
            raise ValueError(f"{path} is not a model: it holds no named tensors")
        if like is not None and not _same_layout(state, like):
            raise ValueError(misfit)
        if not is_finite(state):
            raise ValueError(f"{path} cannot be used: its numbers must be finite")
        return dict(state)


def _same_layout(state: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]) -> bool:
    layouts = [{name: (t.shape, t.dtype) for name, t in one.items()} for one in (state, like)]
    return layouts[0] == layouts[1]


def check_free(path: Path, *, overwrite: bool) -> None:
    """Check that a new run may be made at ``path``; nothing is changed.

    Raises
    ------
    FileExistsError
        There is something else, or an earlier run that is not to be replaced.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file: choose another place with --run-dir")
    names = {entry.name for entry in path.iterdir()}
    if all(is_unfinished(name) in FILES for name in names):
        return  # empty, or of a process that was killed before the folder was a run
    if not holds_run(path):
        raise FileExistsError(
            f"{path} holds something other than a run, which is never replaced: "
            "choose another place with --run-dir"
        )
    if not overwrite:
        what = "an earlier run" if METRICS in names else "a run that was ended before it began"
        raise FileExistsError(
            f"{path} holds {what}: add --overwrite to replace it, "
            "or choose another place with --run-dir"
        )


def holds_run(path: Path) -> bool:
    """Return whether a folder is that of a run, be it half made or damaged."""
    if not (path / CONFIG).is_file():
        return False
    return (path / METRICS).is_file() or is_config(path / CONFIG)


def own_files(path: Path) -> list[Path]:
    """Return the files in a folder that a run writes, ``config.json`` last."""
    found = [entry for entry in path.iterdir() if fnmatch(entry.name, EVENTS)]
    found += [entry for entry in path.iterdir() if is_unfinished(entry.name) in FILES]
    return found + [
        path / name for name in FILES if (path / name).is_symlink() or (path / name).exists()
    ]
