"""The folder of a run, as one process writes it: made, claimed, and filled during the run.

Knows files and their formats; knows nothing of learning, screens or command lines.
"""

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TextIO

import torch
from torch.utils.tensorboard import SummaryWriter

from prioritized_replay.runs.checkpoint_policy import CheckpointPolicy
from prioritized_replay.runs.curve import draw_learning_curve
from prioritized_replay.runs.files import replace_file
from prioritized_replay.runs.folder import (
    CURVE,
    Model,
    RunFolder,
    check_free,
    model_file,
    own_files,
)
from prioritized_replay.runs.metrics import (
    METRICS,
    TAGS,
    row_of,
    rows_until,
    write_header,
    write_row,
)
from prioritized_replay.runs.records import (
    CONFIG,
    EVALUATION,
    versions,
    versions_in,
    write_config,
    write_evaluation,
)
from prioritized_replay.runs.signals import put_off
from prioritized_replay.runs.worker_metrics import WorkerMetrics, scalars
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.evaluation import Evaluation
from prioritized_replay.training.progress import Progress
from prioritized_replay.training.state import is_finite

if sys.platform != "win32":
    import fcntl


class RunWriter:
    """The one writer of a run's folder; made by :meth:`create` or :meth:`claim`.

    While it is open, no other process can claim the run (where the file system knows locks).

    Attributes
    ----------
    folder : RunFolder
        The same folder, for reading.
    rows : int
        Reports logged so far.
    """

    def __init__(self, folder: RunFolder, metrics: TextIO) -> None:
        self.folder = folder
        self.rows = 0
        self._metrics = metrics
        self._events: SummaryWriter | None = None
        self._workers = WorkerMetrics(folder.path)

    @classmethod
    def create(
        cls,
        path: Path,
        config: TrainConfig,
        *,
        overwrite: bool = False,
        policy: CheckpointPolicy | None = None,
    ) -> Self:
        """Make the folder, with ``config.json`` and metrics without rows.

        If that fails, or Ctrl-C comes meanwhile, a folder that was not there before is removed. A
        process that is killed meanwhile leaves a folder that ``overwrite`` replaces.

        Parameters
        ----------
        path : pathlib.Path
            Must not exist or be empty, or hold an older run if ``overwrite``. Of an older run only
            the files that a run writes are removed.
        config : TrainConfig
        overwrite : bool
        policy : CheckpointPolicy, optional
            By default the steps of the configuration, and checkpoints by time.

        Raises
        ------
        FileExistsError
            There is something at ``path`` that may not be replaced, or another process writes it.
        OSError
            The folder cannot be written.
        """
        check_free(path, overwrite=overwrite)
        folder = RunFolder(path, config, policy or CheckpointPolicy(steps=config.steps))
        is_new = not (path / CONFIG).exists()
        run: Self | None = None
        try:
            with put_off():
                path.mkdir(parents=True, exist_ok=True)
                if (path / METRICS).is_file():
                    with (path / METRICS).open("rb") as old:
                        _lock(old.fileno(), path)
                _remove(folder, but=CONFIG)
                write_config(path / CONFIG, config, folder.policy, versions())
                run = cls(folder, (path / METRICS).open("x", newline="", encoding="utf-8"))
                _lock(run._metrics.fileno(), path)
                write_header(run._metrics)
                run._metrics.flush()
                run._log_events()
        except BaseException:
            if run is not None:
                run.close()
            if is_new and path.is_dir():
                _remove(folder)
                _remove_empty(path)
            raise
        return run

    @classmethod
    def claim(cls, folder: RunFolder) -> Self:
        """Become the writer of an earlier run, before anything in it is changed.

        Raises
        ------
        FileExistsError
            Another process is writing to the run.
        ValueError
            It has no metrics, or its ``metrics.csv`` is a link.
        """
        path = folder.path / METRICS
        if path.is_symlink():
            raise ValueError(f"{path} must be a file, got a link: put the file itself there")
        if not path.is_file():
            raise ValueError(
                f"{path} cannot be read: it is missing. If the run was ended before it began, "
                "begin it again with --overwrite"
            )
        metrics = path.open("r", newline="", encoding="utf-8")  # read only: see `resume_from`
        try:
            _lock(metrics.fileno(), folder.path)
            if not os.path.samestat(os.fstat(metrics.fileno()), path.stat()):
                raise FileExistsError(f"{folder.path} was just resumed by another process")
        except BaseException:
            metrics.close()
            raise
        return cls(folder, metrics)

    def resume_from(self, reported: int, rows: int) -> None:
        """Log on from a report of a claimed run; what was logged after it is dropped.

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
        OSError
            The folder cannot be written; its files are as they were.
        """
        path = self.folder.path / METRICS
        kept = rows_until(path, reported)
        if kept.rows != rows:
            raise ValueError(
                f"{path} must have {rows} reports up to step {reported}, got {kept.rows}"
            )
        with put_off():
            # A new file, which is nobody's link and has no second name elsewhere.
            if sys.platform == "win32":  # no open file can be replaced there
                self._metrics.close()
                replace_file(path, lambda file: file.write(kept.text))
                self._metrics = path.open("a", newline="", encoding="utf-8")
            else:
                locked: list[int] = []

                def write(file: BinaryIO) -> None:
                    file.write(kept.text)
                    locked.append(os.dup(file.fileno()))
                    _lock(locked[0], self.folder.path)

                replace_file(path, write)
                self._metrics.close()
                self._metrics = os.fdopen(locked[0], "w", newline="", encoding="utf-8")
            self._workers.resume_from(reported)
            self.rows = rows
            # TensorBoard then takes nothing from older files that comes after.
            self._log_events(purge_step=reported + 1)

    def set_policy(self, policy: CheckpointPolicy) -> None:
        """Write down how many steps the run is to make from now on, and what it saves."""
        folder = self.folder
        if policy != folder.policy:
            made_with = versions_in(folder.path / CONFIG)
            write_config(folder.path / CONFIG, folder.config, policy, made_with)
            folder.policy = policy

    def sync_metrics(self) -> None:
        """Force to disk what was logged."""
        os.fsync(self._metrics.fileno())

    def log(self, progress: Progress, seconds: float) -> None:
        """Append one report to the metrics and to the TensorBoard events.

        Parameters
        ----------
        progress : Progress
        seconds : float
            Wall time since the run began.
        """
        assert self._events is not None, "only a run that was created or resumed can be logged to"
        row = row_of(progress, seconds)
        write_row(self._metrics, row)
        self._metrics.flush()  # so that nothing is lost if the process dies
        self.rows += 1
        self._workers.log(progress)
        shown = [(tag, row[column]) for column, tag in TAGS.items()]
        for tag, value in (*shown, *scalars(progress)):
            if value - value == 0.0:  # finite
                self._events.add_scalar(tag, value, progress.step)

    def save_model(self, model: Model, state: Mapping[str, torch.Tensor]) -> None:
        """Put a network's ``state_dict`` in place of an older one, which is whole until then.

        Raises
        ------
        ValueError
            A number is not finite; the older file stays.
        OSError
            The file cannot be written; the older one stays.
        """
        if not is_finite(state):
            raise ValueError(f"the {model} model must be finite to be saved")
        on_cpu = {name: tensor.detach().cpu() for name, tensor in state.items()}
        path = self.folder.path / model_file(model)
        replace_file(path, lambda file: torch.save(on_cpu, file))

    def remove_model(self, model: Model) -> None:
        """Remove a saved model, if there is one."""
        (self.folder.path / model_file(model)).unlink(missing_ok=True)

    def save_evaluation(self, evaluation: Evaluation, **about: Any) -> None:
        """Write the reported evaluation with all its episodes, and what else is said about it."""
        write_evaluation(self.folder.path / EVALUATION, evaluation, about)

    def save_curve(self, title: str, threshold: float | None) -> None:
        """Draw the learning curve from the metrics; see :func:`draw_learning_curve`."""
        metrics = self.folder.metrics()
        replace_file(
            self.folder.path / CURVE,
            lambda file: draw_learning_curve(metrics, file, title=title, threshold=threshold),
        )

    def discard(self) -> None:
        """Remove the run: its files, and the folder if nothing else is in it."""
        self.close()
        _remove(self.folder)
        _remove_empty(self.folder.path)

    def close(self) -> None:
        """Close the files; the folder can still be read."""
        self._metrics.close()
        self._workers.close()
        if self._events is not None:
            self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _log_events(self, **settings: Any) -> None:
        # Nobody can foresee the name, and put a link to something else there.
        suffix = f".{secrets.token_hex(8)}"
        self._events = SummaryWriter(str(self.folder.path), filename_suffix=suffix, **settings)


def _remove(folder: RunFolder, but: str = "") -> None:
    """Remove what a run writes. ``config.json`` goes last: so the folder is known as a run's."""
    folder.checkpoint.remove()
    for file in own_files(folder.path):
        if file.name != but:
            file.unlink(missing_ok=True)


def _remove_empty(path: Path) -> None:
    if not any(path.iterdir()):
        path.rmdir()


def _lock(file: int, path: Path) -> None:
    """Lock an open ``metrics.csv`` for this process, until it is closed or the process ends."""
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileExistsError(f"{path} holds a run that another process is writing") from None
    except OSError:  # not every file system knows locks
        return
