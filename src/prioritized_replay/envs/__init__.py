"""Environments by name, as Gymnasium, ALE and MinAtar have them, and recordings of episodes.

Needs Gymnasium. Names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prioritized_replay.envs.make import make_env, make_vector

__all__ = [
    "make_env",
    "make_vector",
]

_MODULE = {
    "make_env": "envs.make",
    "make_vector": "envs.make",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"prioritized_replay.{_MODULE[name]}"), name)
