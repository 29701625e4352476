"""What the adapters of other libraries have in common: whether a library is there, and which one.

Knows names of distributions; knows no memory.
"""

from __future__ import annotations

from importlib import metadata


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
