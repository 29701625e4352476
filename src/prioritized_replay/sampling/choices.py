"""Options that several specifications have, and their checks."""

from __future__ import annotations

from typing import Any, Literal, get_args

from prioritized_replay.fields import arguments

__all__ = ["DrawMode", "MaxPriority", "Weights", "require_choice", "require_common"]

DrawMode = Literal["stratified", "independent", "without_replacement"]
Weights = Literal["batch", "buffer", "raw"]
MaxPriority = Literal["ever", "current"]


def require_choice(name: str, value: str, choices: object) -> None:
    """Raise ValueError unless a value is one of those of a Literal."""
    allowed = get_args(choices)
    if not isinstance(value, str) or value not in allowed:
        names = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {names}, got {arguments.shown(value)}")


def require_common(specification: Any) -> None:
    """Raise ValueError unless the options of every prioritized specification are in range."""
    uniform = arguments.number("uniform_mix", specification.uniform_mix, 1.0)
    recent = arguments.number("recent_mix", specification.recent_mix, 1.0)
    if uniform + recent > 1.0:
        raise ValueError(f"uniform_mix + recent_mix must be <= 1, got {uniform} + {recent}")
    arguments.integer("recent", specification.recent)
    require_choice("draw", specification.draw, DrawMode)
    require_choice("weights", specification.weights, Weights)
    require_choice("max_priority", specification.max_priority, MaxPriority)
