"""How to install an extra: knows how this package came here, nothing of what the extras hold.

A message that names a command must name one that works. In a clone, which may be the only place
where the package is to be had, ``pip install 'prioritized-replay[train]'`` would ask a package
index, and whoever put something there under that name.
"""

import json
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

NAME = "prioritized-replay"


def install_command(extra: str) -> str:
    """Return the command that adds an extra to the package, installed as it is now.

    Parameters
    ----------
    extra : str
        A name of ``[project.optional-dependencies]``.

    Returns
    -------
    str
        For a clone, ``pip install -e '/home/me/clone[train]'``. For a package that came from
        elsewhere by its address, the same address. For all others, the name of the package.

    Examples
    --------
    >>> install_command("train")  # doctest: +ELLIPSIS
    "pip install ...[train]..."
    """
    origin = _origin()
    if "dir_info" in origin:
        folder = url2pathname(urlsplit(origin["url"]).path)
        editable = ["-e"] if origin["dir_info"].get("editable") else []
        return shlex.join(["pip", "install", *editable, f"{folder}[{extra}]"])
    address = ""
    if "url" in origin:
        version_control = origin.get("vcs_info", {}).get("vcs")
        address = " @ " + (f"{version_control}+" if version_control else "") + origin["url"]
    return shlex.join(["pip", "install", f"{NAME}[{extra}]{address}"])


def _origin() -> dict[str, Any]:
    """Return what pip wrote down of where the package came from: nothing, if from an index."""
    try:
        text = metadata.distribution(NAME).read_text("direct_url.json")
    except metadata.PackageNotFoundError:  # on the path, without having been installed
        clone = Path(__file__).parents[2]
        found = (clone / "pyproject.toml").is_file()
        return {"url": clone.as_uri(), "dir_info": {"editable": True}} if found else {}
    return dict(json.loads(text or "{}"))
