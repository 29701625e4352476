"""A run on disk: the files that a training leaves behind, and how they are read again.

Knows files and their formats; knows nothing of learning, screens or command lines. Nothing that is
read back is executed: settings are JSON, metrics CSV, models are loaded with ``weights_only``.
"""

import csv
import json
import math
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.tensorboard import SummaryWriter

from prioritized_replay.runs.checkpoint import RunCheckpoint, tensors_in
from prioritized_replay.runs.checkpoint_policy import CheckpointPolicy
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.evaluation import Evaluation
from prioritized_replay.training.progress import Progress

if sys.platform != "win32":
    import fcntl

Model = Literal["best", "last"]
State = dict[str, torch.Tensor]

CONFIG = "config.json"
METRICS = "metrics.csv"
CURVE = "learning_curve.png"
EVALUATION = "evaluation.json"
CHECKPOINT = "checkpoint"
_EVENTS = "events.out.tfevents.*"
_FORMAT = 1
_LONGEST, _LONGEST_LINE = 1 << 26, 1 << 16

_NUMBERS = tuple(
    f.name for f in fields(Progress) if f.name not in ("steps", "evaluation", "is_best")
)
COLUMNS = (
    *_NUMBERS,
    "seconds",
    "evaluation_mean",
    "evaluation_std",
    "evaluation_iqm",
    "evaluation_low",
    "evaluation_high",
    "is_best",
)
# How TensorBoard groups them; what is not named here is only in the CSV.
_TAGS = {
    "mean_return": "return/mean_of_last_100",
    "last_return": "return/last_episode",
    "evaluation_mean": "evaluation/mean",
    "evaluation_iqm": "evaluation/iqm",
    "loss": "learning/loss",
    "td_error": "learning/td_error",
    "learning_rate": "learning/learning_rate",
    "epsilon": "exploration/epsilon",
    "beta": "replay/beta",
    "effective_sample_size": "replay/effective_sample_size",
    "steps_per_second": "speed/steps_per_second",
}


class RunFolder:
    """The folder of one run: make one with :meth:`create`, read one with :meth:`open`.

    Attributes
    ----------
    path : pathlib.Path
        The folder, as it was named.
    config : TrainConfig
        What the run was told.
    keeping : CheckpointPolicy
        How far it is to go, and what it keeps for going on.
    checkpoint : RunCheckpoint
        Where it goes on if it was stopped; there need not be one.
    rows : int
        Reports logged.
    """

    def __init__(self, path: Path, config: TrainConfig, keeping: CheckpointPolicy) -> None:
        self.path = path
        self.config = config
        self.keeping = keeping
        self.checkpoint = RunCheckpoint(path / CHECKPOINT)
        self.rows = 0
        self._metrics: Any = None
        self._events: SummaryWriter | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        config: TrainConfig,
        *,
        overwrite: bool = False,
        keeping: CheckpointPolicy | None = None,
    ) -> Self:
        """Make the folder and write ``config.json``; metrics can then be logged.

        Parameters
        ----------
        path : pathlib.Path
            Must not exist or be empty, or hold an older run if ``overwrite``. Of an older run only
            the files that a run writes are removed.
        keeping : CheckpointPolicy, optional
            By default the steps of the configuration, and checkpoints by time.

        Raises
        ------
        FileExistsError
            There is something at ``path`` that may not be replaced, or a run that goes on.
        OSError
            The folder cannot be written.
        """
        check_free(path, overwrite=overwrite)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, config, keeping or CheckpointPolicy(steps=config.steps))
        if (path / METRICS).is_file():
            with (path / METRICS).open("rb") as old:
                _claim(old, path)
        run._remove_files()
        run._write_config(_versions())
        run._metrics = (path / METRICS).open("w", newline="", encoding="utf-8")
        _claim(run._metrics, path)
        csv.writer(run._metrics).writerow(COLUMNS)
        run._metrics.flush()
        run._events = SummaryWriter(str(path))
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read what an earlier run left.

        Raises
        ------
        FileNotFoundError
            ``path`` is not the folder of a run.
        ValueError
            Its ``config.json`` is damaged, or of a version that is not known here.
        """
        if not (path / CONFIG).is_file():
            reason = f"it has no {CONFIG}" if path.is_dir() else "there is no such folder"
            raise FileNotFoundError(f"{path} is not a run: {reason}")
        try:
            content = _json(path / CONFIG)
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']!r} is not known here, only {_FORMAT}")
            config = TrainConfig.from_dict(content["config"])
            keeping = CheckpointPolicy(**{"steps": config.steps, **content.get("keeping", {})})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path / CONFIG} cannot be read: {_line(error)}") from error
        return cls(path, config, keeping)

    def claim(self) -> None:
        """Make sure that no other process writes to this run, before anything in it is changed.

        Raises
        ------
        FileExistsError
            The run goes on in another process.
        ValueError
            It has no metrics.
        """
        path = self.path / METRICS
        if not path.is_file():
            raise ValueError(f"{path} cannot be read: it is missing")
        metrics = path.open("r+", newline="", encoding="utf-8")
        try:
            _claim(metrics, self.path)
        except BaseException:
            metrics.close()
            raise
        self._metrics = metrics

    def go_on(self, reported: int, rows: int) -> None:
        """Log further from some report on: of a claimed run, what came after it is dropped.

        Parameters
        ----------
        reported : int
            Step of that report.
        rows : int
            Reports logged up to it.

        Raises
        ------
        ValueError
            ``metrics.csv`` has others.
        """
        assert self._metrics is not None, "claimed"
        path, kept, size = self.path / METRICS, -1, 0
        with path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                try:
                    cells = line.decode("ascii").rstrip("\r\n").split(",")
                    whole = line.endswith(b"\n") and len(cells) == len(COLUMNS)
                    mine = tuple(cells) == COLUMNS if kept < 0 else float(cells[0]) <= reported
                except ValueError:
                    break
                if not (whole and mine):
                    break
                kept, size = kept + 1, size + len(line)
        if kept != rows:
            raise ValueError(
                f"{path} must have {rows} reports up to step {reported}, got {max(kept, 0)}"
            )
        os.truncate(path, size)
        self._metrics.seek(0, os.SEEK_END)
        self.rows = rows
        # TensorBoard then takes nothing from older files that comes after.
        self._events = SummaryWriter(str(self.path), purge_step=reported + 1)

    def keep(self, keeping: CheckpointPolicy) -> None:
        """Write down that this holds from now on."""
        if keeping != self.keeping:
            content = _json(self.path / CONFIG)
            self.keeping = keeping
            self._write_config(content.get("versions", {}))

    def _write_config(self, versions: dict[str, str]) -> None:
        content = {
            "format": _FORMAT,
            "config": self.config.to_dict(),
            "keeping": asdict(self.keeping),
            "versions": versions,
        }
        self._write_json(CONFIG, content)

    def is_complete(self, steps: int) -> bool:
        """Whether the run made so many steps and was evaluated then."""
        try:
            content = _json(self.path / EVALUATION)
            return bool(content.get("steps", self.config.steps) >= steps)
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            return False

    def sync_metrics(self) -> None:
        """Force to disk what was logged."""
        assert self._metrics is not None
        os.fsync(self._metrics.fileno())

    def log(self, progress: Progress, seconds: float) -> None:
        """Append one report to the metrics and to the TensorBoard events.

        Parameters
        ----------
        progress : Progress
        seconds : float
            Wall time since the run began.
        """
        assert self._metrics is not None, "only a created run can be logged to"
        assert self._events is not None
        row = _row(progress, seconds)
        csv.writer(self._metrics).writerow([_cell(row[column]) for column in COLUMNS])
        self._metrics.flush()  # so that nothing is lost if the process dies
        self.rows += 1
        for column, tag in _TAGS.items():
            value = float(row[column])
            if math.isfinite(value):
                self._events.add_scalar(tag, value, progress.step)

    def close(self) -> None:
        """Close the files; the folder can still be read."""
        if self._metrics is not None:
            self._metrics.close()
        if self._events is not None:
            self._events.close()

    def discard(self) -> None:
        """Remove the run: its files, and the folder if nothing else is in it."""
        self.close()
        self._remove_files()
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def metrics(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return every column of ``metrics.csv``, float64[reports] each; an empty cell is NaN.

        Raises
        ------
        ValueError
            The file is missing or damaged.
        """
        path = self.path / METRICS
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            return {c: np.array([float(row[c] or "nan") for row in rows]) for c in COLUMNS}
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise ValueError(f"{path} cannot be read: {_line(error)}") from error

    def save_model(self, model: Model, state: State) -> None:
        """Write a network's ``state_dict``; an older file stays whole until the new one is."""
        on_cpu = {name: tensor.detach().cpu() for name, tensor in state.items()}
        self._replace(f"{model}_model.pt", lambda path: torch.save(on_cpu, path))

    def has_model(self, model: Model) -> bool:
        """Whether that model was saved; there is no best one before the first evaluation."""
        return (self.path / f"{model}_model.pt").is_file()

    def load_model(self, model: Model) -> State:
        """Return the ``state_dict`` of a saved model, on the CPU. No code from the file is run.

        Raises
        ------
        FileNotFoundError
            The run has no such model.
        ValueError
            The file is damaged or holds anything but named tensors.
        """
        path = self.path / f"{model}_model.pt"
        if not path.is_file():
            other: Model = "last" if model == "best" else "best"
            hint = f"; it has the {other} one" if self.has_model(other) else ""
            raise FileNotFoundError(f"{self.path} has no {model} model{hint}")
        try:
            state = tensors_in(path.read_bytes())
        except Exception as error:
            raise ValueError(f"{path} is damaged or not a model: {_line(error)}") from error
        if not isinstance(state, dict) or not all(torch.is_tensor(t) for t in state.values()):
            raise ValueError(f"{path} is not a model: it holds no named tensors")
        return dict(state)

    def remove_model(self, model: Model) -> None:
        """Remove a saved model, if there is one."""
        (self.path / f"{model}_model.pt").unlink(missing_ok=True)

    def save_evaluation(self, evaluation: Evaluation, **about: Any) -> None:
        """Write the reported evaluation, all its episodes, and what else is told ``about`` it."""
        low, high = evaluation.interval
        content = {
            **about,
            "episodes": len(evaluation.returns),
            "mean": evaluation.mean,
            "std": evaluation.std,
            "iqm": evaluation.iqm,
            "interval_95": [low, high],
            "min": float(evaluation.returns.min()),
            "max": float(evaluation.returns.max()),
            "cut_off": evaluation.capped,
            "returns": evaluation.returns.tolist(),
            "lengths": evaluation.lengths.tolist(),
        }
        self._write_json(EVALUATION, content)

    def _remove_files(self) -> None:
        self.checkpoint.remove()
        names = (EVALUATION, CURVE, METRICS, "best_model.pt", "last_model.pt", CONFIG)
        for old in [*(self.path / name for name in names), *self.path.glob(_EVENTS)]:
            old.unlink(missing_ok=True)

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2) + "\n"
        self._replace(name, lambda path: path.write_text(text, encoding="utf-8"))

    def _replace(self, name: str, write: Callable[[Path], object]) -> None:
        # Written beside and renamed: a process killed meanwhile leaves the old file, not half one.
        unfinished = self.path / f"{name}.unfinished"
        unfinished.unlink(missing_ok=True)  # it might be a link to something else
        try:
            write(unfinished)
            os.replace(unfinished, self.path / name)
        finally:
            unfinished.unlink(missing_ok=True)


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise ``FileExistsError`` unless a new run may be made at ``path``; changes nothing."""
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file: choose another place with --run-dir")
    if not any(path.iterdir()):
        return
    if not (path / CONFIG).is_file() or not (path / METRICS).is_file():
        raise FileExistsError(
            f"{path} holds something other than a run, which is never replaced: "
            "choose another place with --run-dir"
        )
    if not overwrite:
        raise FileExistsError(
            f"{path} holds an earlier run: add --overwrite to replace it, "
            "or choose another place with --run-dir"
        )


def _claim(metrics: Any, path: Path) -> None:
    """Take an open ``metrics.csv`` for this process, until it is closed or the process ends."""
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(metrics, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileExistsError(f"{path} holds a run that goes on in another process") from None
    except OSError:  # not every file system knows locks
        return


def _json(path: Path) -> Any:
    """Return what a file of the run says."""
    if not path.is_file():  # to open a pipe would be to wait
        raise FileNotFoundError(f"{path} is missing")
    if (size := path.stat().st_size) > _LONGEST:
        raise ValueError(f"it must have at most {_LONGEST} bytes, got {size}")
    return json.loads(path.read_text(encoding="utf-8"))


def _row(progress: Progress, seconds: float) -> dict[str, float]:
    row = {name: float(getattr(progress, name)) for name in _NUMBERS}
    evaluation = progress.evaluation
    nan = math.nan
    low, high = evaluation.interval if evaluation else (nan, nan)
    return {
        **row,
        "seconds": round(seconds, 3),
        "evaluation_mean": evaluation.mean if evaluation else nan,
        "evaluation_std": evaluation.std if evaluation else nan,
        "evaluation_iqm": evaluation.iqm if evaluation else nan,
        "evaluation_low": low,
        "evaluation_high": high,
        "is_best": float(progress.is_best),
    }


def _cell(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() else f"{value:.8g}"


def _versions() -> dict[str, str]:
    packages = ("prioritized-replay", "numpy", "numba", "torch", "gymnasium")
    found = {name: metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
