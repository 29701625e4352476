"""A run from its first step to its summary: it trains, shows, keeps, and stops cleanly.

Knows the loop, the folder and the display, and connects them; knows no command line.
"""

import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from rich.console import Console
from rich.text import Text

from prioritized_replay.dqn.acting import greedy_actions
from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.dqn.networks import make_network
from prioritized_replay.envs.make import make_env, spec_of
from prioritized_replay.envs.recording import record_gif
from prioritized_replay.runs.checkpoint_policy import CheckpointPolicy
from prioritized_replay.runs.curve import draw_learning_curve
from prioritized_replay.runs.display import (
    REPLAY_NAMES,
    Display,
    LivePanel,
    PlainLines,
    Resumed,
    clock_time,
    live,
)
from prioritized_replay.runs.folder import CURVE, EVALUATION, METRICS, Model, RunFolder, check_free
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.evaluation import Evaluation, evaluate
from prioritized_replay.training.loop import Stopped, Training
from prioritized_replay.training.room import bytes_available

_SECONDS = 300.0  # between checkpoints by time
_SHARE = 20.0  # and so many times as long as the last one took


class Run:
    """A training, ready to go; :meth:`begin` makes a new one, :meth:`resume` takes up an old one.

    Parameters
    ----------
    training : Training
    folder : RunFolder
        Made or claimed for it.
    console : rich.console.Console
        Where progress and summary are shown.
    seconds : float
        That the run has taken so far.
    """

    def __init__(
        self, training: Training, folder: RunFolder, console: Console, seconds: float = 0.0
    ) -> None:
        self._training = training
        self._folder = folder
        self._config = training.config
        self._console = console
        self._threshold = spec_of(training.config.env_id).reward_threshold
        self._saved = time.perf_counter()  # when a checkpoint was last tried
        self._began = self._saved - seconds
        self._saving = 0.0  # seconds that it took
        self._tried = training.step  # and the step it was at
        self._safe: int | None = None  # step of the checkpoint that is there
        self._leaving = False
        self._resumed: Resumed | None = None

    @classmethod
    def begin(
        cls,
        config: TrainConfig,
        path: Path,
        *,
        overwrite: bool,
        keeping: CheckpointPolicy,
        console: Console,
    ) -> Self:
        """Make a new run: the environment is known to work and the folder is made.

        Parameters
        ----------
        config : TrainConfig
        path : pathlib.Path
            The run folder.
        overwrite : bool
            Whether an earlier run there is replaced.
        keeping : CheckpointPolicy
        console : rich.console.Console

        Raises
        ------
        ValueError, ImportError, gymnasium.error.Error
            The environment or the device cannot be used; nothing was written then.
        FileExistsError
            There is something at ``path`` that may not be replaced.
        """
        began = time.perf_counter()
        check_free(path, overwrite=overwrite)
        training = Training(config)
        folder = RunFolder.create(path, config, overwrite=overwrite, keeping=keeping)
        run = cls(training, folder, console, time.perf_counter() - began)
        run._warn_of_memory()
        return run

    @classmethod
    def resume(cls, folder: RunFolder, keeping: CheckpointPolicy, console: Console) -> Self:
        """Take up a run where its last complete checkpoint was made.

        Parameters
        ----------
        folder : RunFolder
            Of the run, which is not complete.
        keeping : CheckpointPolicy
            What holds from now on.
        console : rich.console.Console

        Raises
        ------
        ValueError
            There is no checkpoint, or it is damaged, or does not fit the rest of the run. Nothing
            was changed then.
        FileExistsError
            The run goes on in another process.
        ImportError, MemoryError, OSError
            What it needs is not there.
        """
        if folder.is_complete(folder.keeping.steps) and not folder.checkpoint.exists():
            raise ValueError(
                f"{folder.path} is complete and its checkpoint was removed: "
                "only a run with --keep-checkpoint can be made longer"
            )
        folder.claim()
        try:
            state, memory = folder.checkpoint.load()
            training = Training(folder.config, keeping.steps)
            try:
                training.restore(state["training"], memory)
                seconds, rows = float(state["seconds"]), int(state["rows"])
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{folder.checkpoint.folder} cannot be used: {error}") from error
            folder.go_on(training.reported, rows)
            folder.keep(keeping)
            run = cls(training, folder, console, seconds)
            best = training.best_evaluation
            run._safe = training.step
            run._resumed = Resumed(
                training.step, training.steps, (best.mean, training.best_step) if best else None
            )
            run._save_models()
        except BaseException:
            folder.close()
            raise
        return run

    def _warn_of_memory(self) -> None:
        needed, available = self._training.replay_bytes, bytes_available()
        if available is not None and needed > available:
            self._say(
                f"Careful: the replay will need {needed / 2**30:.1f} GiB of memory when it is "
                f"full, and {available / 2**30:.1f} GiB are free: choose a smaller --capacity."
            )

    def train(self) -> int:
        """Train, evaluate the best model, and say what came out; Ctrl-C and SIGTERM keep it.

        Returns
        -------
        int
            Exit code: 0, or 128 plus the number of the signal that stopped the run.
        """
        with self._folder, _heeding(self._on_signal):
            try:
                try:
                    self._learn()
                finally:
                    self._keep()
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
            for progress in self._training.run():
                self._folder.log(progress, time.perf_counter() - self._began)
                if progress.evaluation is not None:
                    self._save_models()
                if progress.step < progress.steps and self._owes_checkpoint():
                    self._save_checkpoint()
                display.show(progress)

    def _owes_checkpoint(self) -> bool:
        every = self._folder.keeping.checkpoint_every
        if every is None:
            since = time.perf_counter() - self._saved
            return since >= max(_SECONDS, _SHARE * self._saving)
        return every > 0 and self._training.step // every > self._tried // every

    def _keeps_checkpoint(self) -> bool:
        keeping = self._folder.keeping
        return keeping.keep_checkpoint and keeping.checkpoint_every != 0

    def _save_checkpoint(self) -> None:
        """Save a checkpoint; where that fails, say so and go on: the older one is still there."""
        began, training, folder = time.perf_counter(), self._training, self._folder
        self._tried = training.step
        try:
            folder.sync_metrics()
            learner = {
                "training": training.state_dict(),
                "seconds": began - self._began,
                "rows": folder.rows,
            }
            folder.checkpoint.save(learner, training.agent.memory_buffer)
            self._safe = training.step
        except OSError as error:
            self._say(f"Careful: the checkpoint at step {training.step:,} was not written: {error}")
        self._saved = time.perf_counter()
        self._saving = self._saved - began

    def _save_last_checkpoint(self) -> None:
        """Save a checkpoint of a run that was stopped; a second Ctrl-C gives that up."""
        self._leaving = True
        if self._nothing_learnt() or self._folder.keeping.checkpoint_every == 0:
            return
        try:
            with self._console.status("saving a checkpoint"):
                self._save_checkpoint()
        except KeyboardInterrupt:
            self._say("The checkpoint was given up.")

    def _keep(self) -> None:
        with _undisturbed():
            if self._nothing_learnt():
                self._folder.discard()
                return
            config = self._config
            self._save_models()
            draw_learning_curve(
                self._folder.metrics(),
                self._folder.path / CURVE,
                title=f"{config.env_id}, {REPLAY_NAMES[config.replay]} replay, seed {config.seed}",
                threshold=self._threshold,
            )

    def _save_models(self) -> None:
        self._folder.save_model("last", self._training.agent.online_network.state_dict())
        if self._training.best_state is not None:
            self._folder.save_model("best", self._training.best_state)
        elif self._resumed:  # from before there was one
            self._folder.remove_model("best")

    def _nothing_learnt(self) -> bool:
        training = self._training
        nothing = training.agent.updates == 0 and training.step < training.steps
        return nothing and self._safe is None

    def _report(self, evaluation: Evaluation) -> None:
        seconds = time.perf_counter() - self._began
        self._folder.save_evaluation(
            evaluation,
            env_id=self._config.env_id,
            model="best",
            model_step=self._training.best_step,
            steps=self._training.steps,
            seconds=round(seconds, 1),
        )
        if not self._keeps_checkpoint():
            self._folder.checkpoint.remove()
        steps = self._training.steps
        say = self._say
        say("")
        took = clock_time(seconds)
        best = f"{self._training.best_step:,}"
        say(f"Trained {steps:,} steps in {took} with all evaluations; best model: step {best}.")
        say(f"Evaluated on {len(evaluation.returns)} episodes that played no part in training:")
        _say_scores(self._console, evaluation, self._threshold)
        self._say_where((CURVE, METRICS, EVALUATION), "best")

    def _say_stopped(self) -> None:
        self._say("")
        if self._nothing_learnt():
            self._say("Stopped before anything was learnt: nothing is kept.")
            return
        done, steps = self._training.step, self._training.steps
        best = self._training.best_evaluation
        self._say(f"Stopped at step {done:,} of {steps:,}; what was learnt is saved.")
        if best is not None:
            at = f"step {self._training.best_step:,}, {len(best.returns)} episodes"
            self._say(f"Best evaluation so far: mean return {best.mean:.1f} ({at}).")
        if self._safe is not None and self._safe < done:
            self._say(f"The last checkpoint is of step {self._safe:,}.")
        self._say_where((CURVE, METRICS), "best" if best is not None else "last")

    def _say_where(self, files: tuple[str, ...], model: Model) -> None:
        path = self._folder.path
        quoted = shlex.quote(str(path))
        option = "" if model == "best" else f" --model {model}"
        say = self._say
        say("")
        say(f"Look at it, in {path}{os.sep}")
        say(f"  {', '.join(files)}")
        say("Go on with")
        if self._safe is not None and not self._folder.is_complete(self._training.steps):
            say(f"  per train --resume {quoted}")
        say(f"  per evaluate {quoted}{option} --gif episode.gif")
        say(f"  tensorboard --logdir {quoted}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def evaluate_run(
    path: Path,
    *,
    episodes: int,
    model: Model,
    seed: int,
    max_steps: int | None = None,
    gif: Path | None,
    console: Console,
) -> None:
    """Evaluate a saved model and say how good it is; record an episode if asked to.

    Raises
    ------
    FileNotFoundError
        ``path`` is not a run, has no such model, or there is no folder for the recording.
    ValueError
        A number is out of bounds, the run is damaged, or the environment cannot be used.
    ImportError
        The environment needs a package that is not installed.
    """
    bounds = (("episodes", episodes, 1), ("seed", seed, 0), ("max_steps", max_steps, 1))
    for name, number, least in bounds:
        if number is not None and number < least:
            raise ValueError(f"{name} must be >= {least}, got {number}")
    if gif is not None and gif.suffix.lower() != ".gif":
        raise ValueError(f"gif must name a file that ends in .gif, got {gif}")
    if gif is not None and not gif.parent.is_dir():
        raise FileNotFoundError(f"{gif} cannot be written: there is no folder {gif.parent}")
    folder = RunFolder.open(path)
    config = folder.config
    max_steps = config.eval_max_steps if max_steps is None else max_steps
    state = folder.load_model(model)
    torch.set_num_threads(config.threads)  # as in training: more would mostly wait for each other
    env = make_env(config.env_id, sticky_actions=config.sticky_actions)
    conversion = Conversion(env.observation_space, env.action_space)
    network = make_network(
        env.observation_space,
        env.action_space,
        network=config.network,
        hidden_sizes=config.hidden_sizes,
        dueling=config.dueling,
        shared_bias=config.shared_bias,
    )
    env.close()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path}: the {model} model does not fit its config.json") from error
    with console.status(f"playing {episodes} episodes"):
        evaluation = evaluate(
            network,
            config.env_id,
            episodes,
            seed,
            epsilon=config.eval_epsilon,
            max_steps=max_steps,
            sticky_actions=config.sticky_actions,
        )
    head = f"{path}: {model} model, {episodes} episodes of {config.env_id}, seed {seed}"
    console.print(head, markup=False, highlight=False, soft_wrap=True)
    _say_scores(console, evaluation, spec_of(config.env_id).reward_threshold)
    if gif is None:
        return

    def policy(observation: Any) -> int:
        observations, _ = conversion.observations(observation)
        best = greedy_actions(network, conversion, observations)[0]
        return conversion.first_action + int(best)

    with console.status("recording an episode"):
        recording = record_gif(
            policy,
            config.env_id,
            gif,
            seed=seed,
            sticky_actions=config.sticky_actions,
            max_steps=max_steps or 10_000,
        )
    size = f"{recording.size / 1024:,.0f} KiB"
    line = f"  {gif}: one episode, return {recording.episode_return:.1f}, {size}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _say_scores(console: Console, evaluation: Evaluation, threshold: float | None) -> None:
    low, high = evaluation.interval
    returns, lengths = evaluation.returns, evaluation.lengths
    rows = [
        ("mean return", evaluation.mean, f"95 % interval {low:.1f} to {high:.1f}"),
        ("IQM", evaluation.iqm, "mean of the middle half"),
        ("std", evaluation.std, f"from {returns.min():.1f} to {returns.max():.1f}"),
        ("steps", lengths.mean(), "per episode"),
    ]
    if evaluation.capped:
        rows.append(
            ("cut off", float(evaluation.capped), f"episodes, after {lengths.max():,} steps")
        )
    if threshold is not None:
        verdict = "reached" if evaluation.mean >= threshold else "not reached"
        rows.append(("solved at", threshold, verdict))
    for name, value, remark in rows:
        number = Text(f"{value:>8.1f}", style="bold" if name == "mean return" else "")
        console.print(Text.assemble(f"  {name:<12}", number, f"   {remark}"), soft_wrap=True)


@contextmanager
def _heeding(stop: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call this on Ctrl-C and SIGTERM; only the main thread may ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold off Ctrl-C and SIGTERM, so that an impatient second one does not spoil the saving."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
