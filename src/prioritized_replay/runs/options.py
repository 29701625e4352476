"""The options of ``per train`` and ``per evaluate``: names, defaults and help texts for tyro."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prioritized_replay.runs.checkpoint_policy import CheckpointPolicy
from prioritized_replay.training.config import TrainConfig, TrainSettings
from prioritized_replay.training.presets import PresetName
from prioritized_replay.training.presets import preset as settings_of

_EPSILON = ("epsilon_start", "epsilon_end", "epsilon_fraction")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainSettings):
    """Every setting of a training, and where the run is kept; :meth:`config` checks them."""

    env_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV_ID")]
    """Gymnasium environment, for example CartPole-v1 or ALE/Pong-v5."""

    preset: PresetName = "quick"
    """Defaults of the other options: quick, for two CPU cores, or for ALE games the paper's."""

    run_dir: Path | None = None
    """Folder to keep the run in; None: runs/ENV_ID-REPLAY-seedSEED."""

    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an earlier run in that folder."""

    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Resume the run in that folder, which was stopped or killed; --steps may be raised."""

    checkpoint_every: int | None = None
    """Steps between checkpoints, 0: none; None: after 30 s, every 5 minutes, and when stopped."""

    keep_checkpoint: bool = False
    """Keep the checkpoint at the end of the run, to make the run longer later on."""

    ray_address: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """With --actors: join this Ray cluster (auto: one on this machine); None: start Ray here."""

    def config(self) -> TrainConfig:
        """Return the configuration; it checks all values.

        Raises
        ------
        ValueError
            As :class:`TrainConfig`; or an option does not go with the number of actors.
        """
        self._check_address()
        if self.actors:
            usual = settings_of(self.env_id, self.preset)
            for name in _EPSILON:
                if getattr(self, name) != getattr(usual, name):
                    raise ValueError(
                        f"{name} must be left out with --actors, each of which has an epsilon of "
                        f"its own, got {getattr(self, name)}"
                    )
        return TrainConfig(**{f.name: getattr(self, f.name) for f in fields(TrainConfig)})

    def policy(self) -> CheckpointPolicy:
        """Return how many steps the run is to make, and when it saves checkpoints."""
        return CheckpointPolicy(
            steps=self.steps,
            checkpoint_every=self.checkpoint_every,
            keep_checkpoint=self.keep_checkpoint,
        )

    def check_same(self, run: TrainConfig, least: int) -> None:
        """Check that these are the settings of a run; only its steps may be raised.

        Parameters
        ----------
        run : TrainConfig
        least : int
            Steps that the run was to make until now.

        Raises
        ------
        ValueError
            A setting is another; the message names the first one.
        """
        if self.overwrite:
            raise ValueError("--overwrite replaces a run and --resume continues it: choose one")
        if self.run_dir is not None and self.run_dir != self.resume:
            raise ValueError(f"run_dir must be that of the run to resume, got {self.run_dir}")
        if self.steps < least:
            raise ValueError(f"steps must be >= {least} as in the run to resume, got {self.steps}")
        for field in fields(TrainConfig):
            given, own = getattr(self, field.name), getattr(run, field.name)
            if field.name != "steps" and given != own:
                raise ValueError(f"{field.name} must be {own} as in the run to resume, got {given}")
        self._check_address()

    def _check_address(self) -> None:
        if self.ray_address is not None and not self.actors:
            raise ValueError(f"ray_address is for runs with --actors, got {self.ray_address}")

    def path(self) -> Path:
        """Return the folder of the run.

        Examples
        --------
        >>> TrainOptions(env_id="ALE/Pong-v5", seed=3).path().as_posix()
        'runs/ALE-Pong-v5-rank-seed3'
        """
        if self.run_dir is not None:
            return self.run_dir
        environment = re.sub(r"[^\w.-]+", "-", self.env_id)
        return Path("runs") / f"{environment}-{self.replay}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Which run is evaluated, and how."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, as `per train` named it."""

    episodes: int = 100
    """Complete episodes to play."""

    model: Literal["best", "last"] = "best"
    """The best model by the evaluations during training, or the last one."""

    seed: int = 0
    """Fixes the episodes; none of them was used to choose the best model."""

    max_steps: int | None = None
    """Steps after which an episode is cut off; None: as in the run's own evaluations."""

    env_id: Annotated[str | None, tyro.conf.arg(metavar="MODULE:ENV_ID")] = None
    """Needed where the run's environment names a module to import: its code runs if you say so."""

    gif: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Record one more episode as an animated picture."""
