"""The recipes as modules: they are files outside any package."""

import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch

FOLDER = Path(__file__).parents[1] / "recipes"


@contextmanager
def imported(names: Iterable[str]) -> Iterator[dict[str, ModuleType]]:
    """Import recipes, each as a module of its own, and forget them again."""
    threads = torch.get_num_threads()
    modules = {}
    for name in names:
        spec = importlib.util.spec_from_file_location(f"recipe_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        modules[name] = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = modules[name]  # where dataclasses look for their annotations
        spec.loader.exec_module(modules[name])
    yield modules
    for module in modules.values():
        del sys.modules[module.__name__]
    torch.set_num_threads(threads)
