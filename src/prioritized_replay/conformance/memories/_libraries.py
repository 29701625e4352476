"""What the adapters of other libraries have in common: which version is there, one way to draw.

Knows names of distributions; knows no memory.
"""

from __future__ import annotations

from importlib import metadata

from prioritized_replay.conformance.memory import DrawMode, NotClaimed, Wanted


def version_of(distribution: str) -> str:
    """Return the version of an installed library.

    Raises
    ------
    ModuleNotFoundError
        In one line, if it is not installed.

    Examples
    --------
    >>> version_of("numpy").split(".")[0] >= "1"
    True
    """
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            f"{distribution} is not installed here, and this adapter checks {distribution}"
        ) from None


def require_draw(wanted: Wanted, only_way: DrawMode) -> None:
    """Say that a library draws in one way.

    Raises
    ------
    NotClaimed
        If the scenario wants another one.

    Examples
    --------
    >>> require_draw(Wanted(), "independent")
    >>> require_draw(Wanted(draw="stratified"), "independent")
    Traceback (most recent call last):
    prioritized_replay.conformance.memory.NotClaimed: its draws are independent
    """
    if wanted.draw not in (None, only_way):
        raise NotClaimed(f"its draws are {only_way.replace('_', ' ')}")
