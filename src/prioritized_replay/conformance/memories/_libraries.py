"""What the adapters of other libraries have in common: which version is there, one way to draw.

Knows names of distributions; knows no memory.
"""

from __future__ import annotations

from collections.abc import Mapping
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


NOT_FINITE = (
    "nan-is-refused", "infinity-is-refused", "nan-does-no-harm-to-others",
    "a-refused-batch-changes-nothing",
)  # fmt: skip
CHANCE = (
    "the-next-batches-are-the-same", "saving-changes-nothing", "global-generators-are-left-alone",
)  # fmt: skip


def unspoken(about: str, *names: str) -> Mapping[str, str]:
    """Return groups or scenarios as not claimed: the documentation is silent about something.

    Examples
    --------
    >>> unspoken("threads", "concurrency")
    {'concurrency': 'its documentation does not speak of threads'}
    """
    return dict.fromkeys(names, f"its documentation does not speak of {about}")


def images(wanted: Wanted) -> bool:
    """Return whether observations are single images, for which libraries save memory."""
    return wanted.obs_dtype == "uint8" and len(wanted.obs_shape) > 1 and not wanted.stacked
