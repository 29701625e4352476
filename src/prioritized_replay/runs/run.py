"""A run from its first step to its summary: it trains, shows, saves, and stops cleanly.

Connects the loop, the folder and the display; knows no command line.
"""

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Self

from rich.console import Console

from prioritized_replay.envs.make import spec_of
from prioritized_replay.runs.checkpoint_policy import CheckpointClock, CheckpointPolicy
from prioritized_replay.runs.console import say
from prioritized_replay.runs.display import REPLAY_NAMES, Display, PlainLines, Resumed, live
from prioritized_replay.runs.evaluate import say_default_limit
from prioritized_replay.runs.folder import RunFolder, check_free
from prioritized_replay.runs.panel import LivePanel
from prioritized_replay.runs.parts import fitting, new_training, resumed_training
from prioritized_replay.runs.signals import heeding, ignoring
from prioritized_replay.runs.summary import say_result, say_stopped
from prioritized_replay.runs.writer import RunWriter
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.evaluation import Evaluation
from prioritized_replay.training.loop import Stopped, Training
from prioritized_replay.training.room import bytes_available
from prioritized_replay.training.state import is_finite


class Run:
    """A training with its folder; :meth:`begin` makes a new one, :meth:`resume` continues one.

    Parameters
    ----------
    training : Training
    writer : RunWriter
        Of the folder that was made or claimed for it.
    console : rich.console.Console
        Where progress and summary are shown.
    seconds : float
        What the run has taken so far.
    resumed : Resumed, optional
        Where a run is resumed.
    """

    def __init__(
        self,
        training: Training,
        writer: RunWriter,
        console: Console,
        seconds: float = 0.0,
        resumed: Resumed | None = None,
    ) -> None:
        self._training = training
        self._writer = writer
        self._folder = writer.folder
        self._config = training.config
        self._console = console
        self._threshold = spec_of(training.config.env_id).reward_threshold
        self._began = time.perf_counter() - seconds
        self._resumed = resumed
        self._safe = None if resumed is None else resumed.step  # step of the checkpoint there is
        self._clock = CheckpointClock(self._folder.policy, training.step, saved=resumed is not None)
        self._leaving = False
        self._said_infinite = False

    @classmethod
    def begin(
        cls,
        config: TrainConfig,
        path: Path,
        *,
        overwrite: bool,
        policy: CheckpointPolicy,
        console: Console,
        ray_address: str | None = None,
    ) -> Self:
        """Make a new run: its training, which tries out the environment, and then its folder.

        Parameters
        ----------
        config : TrainConfig
        path : pathlib.Path
            The run folder.
        overwrite : bool
            Whether an earlier run there is replaced.
        policy : CheckpointPolicy
        console : rich.console.Console
        ray_address : str, optional
            The cluster for actors and shards, where there are any; by default this machine.

        Raises
        ------
        ValueError, ImportError, gymnasium.error.Error
            The environment or the device cannot be used; nothing was written then.
        FileExistsError
            There is something at ``path`` that may not be replaced.
        """
        began = time.perf_counter()
        check_free(path, overwrite=overwrite)
        training = new_training(config, ray_address)
        try:
            writer = RunWriter.create(path, config, overwrite=overwrite, policy=policy)
        except BaseException:
            training.close()
            raise
        run = cls(training, writer, console, time.perf_counter() - began)
        run._warn_of_memory()
        if config.eval_max_steps is None:
            say_default_limit(console, config.env_id, "--eval-max-steps")
        return run

    @classmethod
    def resume(
        cls,
        folder: RunFolder,
        policy: CheckpointPolicy,
        console: Console,
        ray_address: str | None = None,
    ) -> Self:
        """Resume a run from its last complete checkpoint.

        Parameters
        ----------
        folder : RunFolder
            Of a run that is not complete.
        policy : CheckpointPolicy
            In force from now on.
        console : rich.console.Console
        ray_address : str, optional
            As for :meth:`begin`.

        Raises
        ------
        ValueError
            There is no checkpoint, or it is damaged, or does not fit the rest of the run. Nothing
            was changed then.
        FileExistsError
            Another process is writing to the run.
        ImportError, MemoryError, OSError
            What it needs is not there.
        """
        if folder.is_complete(folder.policy.steps) and not folder.checkpoint.exists():
            raise ValueError(
                f"{folder.path} is complete and its checkpoint was removed: "
                "only a run with --keep-checkpoint can be made longer"
            )
        writer, training = RunWriter.claim(folder), None
        try:
            training, state = resumed_training(
                folder.config, folder.checkpoint, policy.steps, ray_address
            )
            with fitting(folder.checkpoint):
                seconds, rows = float(state["seconds"]), int(state["rows"])
            writer.resume_from(training.reported, rows)
            writer.set_policy(policy)
            best = training.best_evaluation
            known = (best.mean, training.best_step) if best else None
            resumed = Resumed(training.step, training.steps, known)
            run = cls(training, writer, console, seconds, resumed)
            run._save_models()
        except BaseException:
            if training is not None:
                training.close()
            writer.close()
            raise
        return run

    def _warn_of_memory(self) -> None:
        needed, available = self._training.replay_bytes, bytes_available()
        if available is not None and needed > available:
            say(
                self._console,
                f"Careful: the replay will need {needed / 2**30:.1f} GiB of memory when it is "
                f"full, and {available / 2**30:.1f} GiB are free: choose a smaller --capacity.",
            )

    def train(self) -> int:
        """Train, evaluate the best model and say how good it is; Ctrl-C and SIGTERM stop and save.

        Returns
        -------
        int
            Exit code: 0, or 128 plus the number of the signal that stopped the run.
        """
        with self._writer, heeding(self._on_signal):
            try:
                try:
                    self._learn()
                finally:
                    self._save_all()
                if self._keeps_checkpoint():
                    self._save_checkpoint()
                with self._console.status("evaluating the best model on new episodes"):
                    evaluation = self._training.final_evaluation()
                self._report(evaluation)
            except KeyboardInterrupt as stop:
                if isinstance(stop, Stopped):
                    self._save_last_checkpoint()
                self._say_stopped()
                return 128 + (stop.args[0] if stop.args else signal.SIGINT)
            finally:
                self._training.close()
        return 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._leaving:
            raise KeyboardInterrupt(number)
        self._training.stop(number)

    def _learn(self) -> None:
        kind = LivePanel if live(self._console) else PlainLines
        where, threshold = str(self._folder.path), self._threshold
        display: Display = kind(self._console, self._config, where, threshold, self._resumed)
        with display:
            for progress in self._training.run(after_step=self._save_first_checkpoint):
                self._writer.log(progress, time.perf_counter() - self._began)
                if progress.evaluation is not None:
                    self._save_models()
                for news in progress.workers.news if progress.workers else ():
                    say(self._console, news)
                if progress.step < progress.steps and self._clock.is_due(progress.step):
                    self._save_checkpoint()
                display.show(progress)

    def _save_first_checkpoint(self) -> None:
        """Save a first checkpoint early: until then, a run that is killed has to begin again."""
        if self._clock.first_is_due():
            self._save_checkpoint()

    def _keeps_checkpoint(self) -> bool:
        policy = self._folder.policy
        return policy.keep_checkpoint and policy.checkpoint_every != 0

    def _save_checkpoint(self) -> None:
        """Save a checkpoint; if that fails, say so and continue: the older one is still there."""
        began, training, folder = time.perf_counter(), self._training, self._folder
        if not self._is_finite():
            return
        try:
            self._writer.sync_metrics()
            learner = {
                "training": training.state_dict(),
                "seconds": began - self._began,
                "rows": self._writer.rows,
            }
            folder.checkpoint.save(learner, training.agent.memory_buffer)
            self._safe = training.step
        except OSError as error:
            say(
                self._console,
                f"Careful: the checkpoint at step {training.step:,} was not written: {error}",
            )
        self._clock.tried(training.step, began)

    def _save_last_checkpoint(self) -> None:
        """Save a checkpoint of a run that was stopped; a second Ctrl-C gives that up."""
        self._leaving = True
        if self._nothing_learnt() or self._folder.policy.checkpoint_every == 0:
            return
        try:
            with self._console.status("saving a checkpoint"):
                self._save_checkpoint()
        except KeyboardInterrupt:
            say(self._console, "The checkpoint was given up.")

    def _save_all(self) -> None:
        with ignoring():
            if self._nothing_learnt():
                self._writer.discard()
                return
            config = self._config
            self._save_models()
            self._writer.save_curve(
                f"{config.env_id}, {REPLAY_NAMES[config.replay]} replay, seed {config.seed}",
                self._threshold,
            )

    def _save_models(self) -> None:
        if self._is_finite():
            self._writer.save_model("last", self._training.agent.online_network.state_dict())
        if self._training.best_state is not None:
            self._writer.save_model("best", self._training.best_state)
        elif self._resumed:  # a best model there is of after the checkpoint
            self._writer.remove_model("best")

    def _is_finite(self) -> bool:
        """Return whether the network may be saved; if not, say so once."""
        finite = is_finite(self._training.agent.online_network.state_dict())
        if not finite and not self._said_infinite:
            self._said_infinite = True
            say(
                self._console,
                f"Careful: at step {self._training.step:,} the network has numbers that are not "
                "finite. It is not saved: older models and checkpoints stay. "
                "Try a smaller --learning-rate.",
            )
        return finite

    def _nothing_learnt(self) -> bool:
        training = self._training
        nothing = training.agent.updates == 0 and training.step < training.steps
        return nothing and self._safe is None

    def _report(self, evaluation: Evaluation) -> None:
        training = self._training
        seconds = time.perf_counter() - self._began
        self._writer.save_evaluation(
            evaluation,
            env_id=self._config.env_id,
            model="best",
            model_step=training.best_step,
            steps=training.steps,
            seconds=round(seconds, 1),
        )
        if not self._keeps_checkpoint():
            self._folder.checkpoint.remove()
        say_result(self._console, self._folder, training, evaluation, seconds, self._threshold)

    def _say_stopped(self) -> None:
        if self._nothing_learnt():
            say(self._console, "\nStopped before anything was learnt: nothing is kept.")
            return
        say_stopped(self._console, self._folder, self._training, self._safe)
