"""A DQN that trains with prioritized replay: the agent, its loop, and its evaluation.

Needs torch and Gymnasium (``pip install 'prioritized-replay[train]'``). Names are loaded when they
are first used, so that reading the configuration does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prioritized_replay.dqn.agent import DQN
    from prioritized_replay.dqn.config import TrainConfig
    from prioritized_replay.dqn.convolutions import ConvNetwork
    from prioritized_replay.dqn.environments import make_env, make_vector
    from prioritized_replay.dqn.evaluation import Evaluation, evaluate
    from prioritized_replay.dqn.networks import QNetwork, make_network
    from prioritized_replay.dqn.presets import preset
    from prioritized_replay.dqn.progress import Progress
    from prioritized_replay.dqn.td import td_error, td_loss, td_loss_gradient, td_target
    from prioritized_replay.dqn.training import Stopped, Training

__all__ = [
    "DQN",
    "ConvNetwork",
    "Evaluation",
    "Progress",
    "QNetwork",
    "Stopped",
    "TrainConfig",
    "Training",
    "evaluate",
    "make_env",
    "make_network",
    "make_vector",
    "preset",
    "td_error",
    "td_loss",
    "td_loss_gradient",
    "td_target",
]

_MODULE = {
    "ConvNetwork": "convolutions",
    "DQN": "agent",
    "Evaluation": "evaluation",
    "Progress": "progress",
    "QNetwork": "networks",
    "Stopped": "training",
    "TrainConfig": "config",
    "Training": "training",
    "evaluate": "evaluation",
    "make_env": "environments",
    "make_network": "networks",
    "make_vector": "environments",
    "preset": "presets",
    "td_error": "td",
    "td_loss": "td",
    "td_loss_gradient": "td",
    "td_target": "td",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
