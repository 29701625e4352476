"""``config.json`` and ``evaluation.json`` of a run: what they say, written and read back."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from prioritized_replay.runs.checkpoint_policy import CheckpointPolicy
from prioritized_replay.runs.files import one_line, read_json, replace_text
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.evaluation import Evaluation

CONFIG = "config.json"
EVALUATION = "evaluation.json"
_FORMAT = 2
_DAMAGED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def write_config(
    path: Path, config: TrainConfig, policy: CheckpointPolicy, made_with: Mapping[str, str]
) -> None:
    """Put the settings of a run, and the versions it is made with, in place of older ones."""
    content = {
        "format": _FORMAT,
        "config": config.to_dict(),
        "checkpoint_policy": asdict(policy),
        "versions": made_with,
    }
    replace_text(path, json.dumps(content, indent=2) + "\n")


def read_config(path: Path) -> tuple[TrainConfig, CheckpointPolicy]:
    """Return the settings of a run.

    Raises
    ------
    ValueError
        The file is damaged, or of another format.
    """
    try:
        content = read_json(path)
        if content["format"] != _FORMAT:
            raise ValueError(f"format must be {_FORMAT}, got {content['format']!r}")
        config = TrainConfig.from_dict(content["config"])
        policy = CheckpointPolicy(**{"steps": config.steps, **content["checkpoint_policy"]})
    except _DAMAGED as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from error
    return config, policy


def is_config(path: Path) -> bool:
    """Return whether a file is the ``config.json`` of a run, of whatever format."""
    try:
        content: Any = read_json(path)
        return isinstance(content, dict) and {"format", "config"} <= content.keys()
    except (OSError, ValueError, RecursionError):
        return False


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a run depends on."""
    packages = ("prioritized-replay", "numpy", "numba", "torch", "gymnasium")
    found = {name: metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def versions_in(path: Path) -> dict[str, str]:
    """Return the versions that a ``config.json`` names."""
    found = read_json(path).get("versions", {})
    return {str(name): str(version) for name, version in dict(found).items()}


def write_evaluation(path: Path, evaluation: Evaluation, about: Mapping[str, Any]) -> None:
    """Put an evaluation with all its episodes in place of the file at ``path``.

    Parameters
    ----------
    path : pathlib.Path
    evaluation : Evaluation
    about : mapping
        What else is written: the model, its step, ...
    """
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
    replace_text(path, json.dumps(content, indent=2) + "\n")


def was_evaluated(path: Path, steps: int, configured: int) -> bool:
    """Return whether an evaluation was written at the end of a run of at least so many steps.

    Parameters
    ----------
    path : pathlib.Path
    steps : int
    configured : int
        What counts where the file names no steps.
    """
    try:
        return bool(read_json(path).get("steps", configured) >= steps)
    except (OSError, *_DAMAGED):
        return False
