"""The other libraries by name, and whether they can take part here.

Knows where each is and how to find out that it works; knows nothing of how it is used.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from typing import Literal

from prioritized_replay.benchmarks.array_peers import (
    CpprbProportional,
    CpprbUniform,
    TianshouProportional,
    TianshouUniform,
)
from prioritized_replay.benchmarks.contenders import Contender
from prioritized_replay.benchmarks.tensor_peers import StableBaselines3Uniform, TorchRLProportional

Peer = Literal["cpprb", "tianshou", "stable-baselines3", "torchrl"]

MODULES: Mapping[Peer, str] = {
    "cpprb": "cpprb",
    "tianshou": "tianshou.data",
    "stable-baselines3": "stable_baselines3.common.buffers",
    "torchrl": "torchrl.data",
}
"""What a user of each imports."""


def missing(peer: Peer) -> str | None:
    """Return why a library cannot take part, or None if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they greet with warnings about optional parts
            metadata.version(peer)
            module = import_module(MODULES[peer])
    except metadata.PackageNotFoundError:
        return "not installed"
    except Exception as error:  # whatever a foreign library raises while it loads
        return f"does not load: {type(error).__name__}: {error}"
    if peer == "torchrl":
        try:
            module.PrioritizedSampler(2, alpha=0.6, beta=0.4)
        except RuntimeError:  # without its compiled trees it imports all the same
            version = metadata.version("torch")
            return f"its compiled part, of {metadata.version(peer)}, does not fit torch {version}"
        logging.getLogger(peer).setLevel(logging.WARNING)  # it reports every storage it makes
    return None


PEERS: Mapping[Peer, Sequence[type[Contender]]] = {
    "cpprb": (CpprbProportional, CpprbUniform),
    "tianshou": (TianshouProportional, TianshouUniform),
    "stable-baselines3": (StableBaselines3Uniform,),
    "torchrl": (TorchRLProportional,),
}
