"""Training an agent: configuration, presets, the loop, and evaluation.

Needs the extra ``train``, which installs torch and Gymnasium. Names are loaded when they are first
used, so that reading a configuration does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prioritized_replay.training.config import TrainConfig
    from prioritized_replay.training.evaluation import Evaluation, evaluate
    from prioritized_replay.training.loop import Stopped, Training
    from prioritized_replay.training.presets import preset
    from prioritized_replay.training.progress import Progress

__all__ = [
    "Evaluation",
    "Progress",
    "Stopped",
    "TrainConfig",
    "Training",
    "evaluate",
    "preset",
]

_MODULE = {
    "Evaluation": "training.evaluation",
    "Progress": "training.progress",
    "Stopped": "training.loop",
    "TrainConfig": "training.config",
    "Training": "training.loop",
    "evaluate": "training.evaluation",
    "preset": "training.presets",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"prioritized_replay.{_MODULE[name]}"), name)
