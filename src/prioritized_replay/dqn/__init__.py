"""A DQN that learns from prioritized replay: the agent, its networks and its arithmetic.

Needs the extra ``train``, which installs torch and Gymnasium. Names are loaded when they are first
used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prioritized_replay.dqn.convolutions import ConvNetwork
    from prioritized_replay.dqn.dqn import DQN
    from prioritized_replay.dqn.networks import QNetwork, make_network
    from prioritized_replay.dqn.td import td_error, td_loss, td_target
    from prioritized_replay.dqn.td_sequences import (
        n_step_targets,
        rescaled,
        sequence_loss,
        unrescaled,
    )

__all__ = [
    "DQN",
    "ConvNetwork",
    "QNetwork",
    "make_network",
    "n_step_targets",
    "rescaled",
    "sequence_loss",
    "td_error",
    "td_loss",
    "td_target",
    "unrescaled",
]

_MODULE = {
    "DQN": "dqn.dqn",
    "ConvNetwork": "dqn.convolutions",
    "QNetwork": "dqn.networks",
    "make_network": "dqn.networks",
    "n_step_targets": "dqn.td_sequences",
    "rescaled": "dqn.td_sequences",
    "sequence_loss": "dqn.td_sequences",
    "td_error": "dqn.td",
    "td_loss": "dqn.td",
    "td_target": "dqn.td",
    "unrescaled": "dqn.td_sequences",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"prioritized_replay.{_MODULE[name]}"), name)
