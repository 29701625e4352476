"""Build TorchRL's extension from the sources in its wheel, for the PyTorch that is installed.

Its prioritized buffers need an extension that works with one version of PyTorch only, and there is
no wheel for the one that everything else here is checked with. This is what a local install of
TorchRL does; ``environments.py`` calls it. A compiler and ninja are needed.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.cpp_extension import load

found = importlib.util.find_spec("torchrl")
if found is None or found.origin is None:
    sys.exit("torchrl is not installed here")
package = Path(found.origin).parent
with tempfile.TemporaryDirectory() as folder:
    load(
        "_torchrl",
        sources=[str(package / "csrc" / name) for name in ("pybind.cpp", "utils.cpp")],
        extra_cflags=["-O3", "-std=c++17"],
        build_directory=folder,
    )
    (built,) = Path(folder).glob("_torchrl*.so")
    for old in package.glob("_torchrl*.so"):
        old.unlink()
    shutil.copy(built, package / f"_torchrl{importlib.machinery.EXTENSION_SUFFIXES[0]}")
print("built for PyTorch", torch.__version__)
