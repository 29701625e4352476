"""Which algorithm builds a replay buffer.

Stable-Baselines3 does not tell a ``replay_buffer_class`` what the algorithm's discount is, and a
return of n steps that has another one is wrong without a symptom.
"""

from __future__ import annotations

import sys

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

__all__ = ["algorithm_that_builds"]


def algorithm_that_builds(buffer: object) -> OffPolicyAlgorithm | None:
    """Return the algorithm whose method calls the constructor of a buffer, None if there is none.

    Parameters
    ----------
    buffer : object
        What is being constructed; constructors of its subclasses are passed over.
    """
    if not hasattr(sys, "_getframe"):  # not every Python has it
        return None
    frame = sys._getframe(1)
    while frame is not None and frame.f_locals.get("self") is buffer:
        frame = frame.f_back  # type: ignore[assignment]
    caller = None if frame is None else frame.f_locals.get("self")
    return caller if isinstance(caller, OffPolicyAlgorithm) else None
