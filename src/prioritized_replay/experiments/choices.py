"""What the options of every experiment have to be: refused with the name, the rule and the value.

Knows options; knows nothing of experiments.
"""

from __future__ import annotations

from collections.abc import Collection

MOST_SEEDS = 10_000


def require_seeds(seeds: int) -> None:
    """Refuse a number of seeds that is out of range."""
    if not 1 <= seeds <= MOST_SEEDS:
        raise ValueError(f"seeds must be in [1, {MOST_SEEDS:,}], got {seeds:,}")


def require_some_of(name: str, chosen: Collection[str], allowed: Collection[str]) -> None:
    """Refuse choices that are none, not allowed, or named twice."""
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(allowed):
        raise ValueError(
            f"{name} must be one or more different ones of {', '.join(allowed)}, got {chosen}"
        )


def require_numbers(name: str, chosen: Collection[float], least: float, most: float) -> None:
    """Refuse numbers that are none, out of range, or named twice."""
    if not chosen or len(set(chosen)) < len(chosen) or not all(least <= x <= most for x in chosen):
        raise ValueError(
            f"{name} must be one or more different numbers in [{least:,}, {most:,}], got {chosen}"
        )
