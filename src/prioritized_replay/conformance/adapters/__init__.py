"""One module for each library that is checked, and who of them is there.

No module here imports its library before a subject is built.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from typing import Literal

from prioritized_replay.conformance.adapters.cpprb import (
    CpprbProportional,
    CpprbStacks,
    CpprbUniform,
)
from prioritized_replay.conformance.adapters.ours import OURS_STACKS
from prioritized_replay.conformance.adapters.stable_baselines3 import (
    StableBaselines3OneStack,
    StableBaselines3Stacks,
    StableBaselines3Uniform,
)
from prioritized_replay.conformance.adapters.tianshou import (
    TianshouProportional,
    TianshouStacks,
    TianshouUniform,
)
from prioritized_replay.conformance.adapters.torchrl import TorchRLProportional
from prioritized_replay.conformance.subject import Subject

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


PEERS: Mapping[Peer, Sequence[type[Subject]]] = {
    "cpprb": (CpprbProportional, CpprbUniform),
    "tianshou": (TianshouProportional, TianshouUniform),
    "stable-baselines3": (StableBaselines3Uniform,),
    "torchrl": (TorchRLProportional,),
}
PEERS_STACKS: Mapping[Peer, Sequence[type[Subject]]] = {
    "cpprb": (CpprbStacks,),
    "tianshou": (TianshouStacks,),
    "stable-baselines3": (StableBaselines3Stacks, StableBaselines3OneStack),
}
ALL_STACKS: Sequence[type[Subject]] = (
    *OURS_STACKS,
    *(kind for kinds in PEERS_STACKS.values() for kind in kinds),
)
