"""Finds the adapter that a user names by ``MODULE:FACTORY`` or ``FILE.py:FACTORY``.

Knows names and what may be wrong with them; knows no library.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import get_args

from prioritized_replay.conformance.memory import Adapter, DrawMode, Memory, NotClaimed, Wanted
from prioritized_replay.conformance.scenarios import GROUPS, SCENARIOS
from prioritized_replay.conformance.subject import Law


def adapter_of(factory: str) -> Adapter:
    """Return the adapter that a factory makes.

    Parameters
    ----------
    factory : str
        ``package.module:name`` or ``path/to/file.py:name``: a callable without arguments.

    Raises
    ------
    ValueError
        There is no such module or factory, it returns something else, or the adapter lacks what an
        adapter needs: also a library that cannot be imported.

    Examples
    --------
    >>> adapter_of("prioritized_replay.conformance.memories.ours:rank").law
    'rank'
    >>> adapter_of("prioritized_replay.conformance.memories.ours:ranks")
    Traceback (most recent call last):
    ValueError: prioritized_replay.conformance.memories.ours has no ranks; did you mean rank?
    """
    place, colon, name = factory.rpartition(":")
    if not (colon and place and name):
        raise ValueError(f"a memory is named MODULE:FACTORY or FILE.py:FACTORY, got {factory!r}")
    module = _from_file(Path(place)) if place.endswith(".py") else _imported(place)
    if not callable(getattr(module, name, None)):
        names = [each for each in dir(module) if callable(getattr(module, each, None))]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{place} has no {name}{hint}")
    try:
        adapter = getattr(module, name)()
    except Exception as error:
        raise ValueError(f"{factory} raises {type(error).__name__}: {error}") from error
    if not isinstance(adapter, Adapter):
        raise ValueError(f"{factory} must return an Adapter, got {type(adapter).__name__}")
    _require_sound(factory, adapter)
    return adapter


def _imported(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:  # a command does not look where it is called, `python -m` does
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(f"there is no module {name}") from None
        raise ValueError(f"{name} cannot be imported: {error}") from error
    except Exception as error:
        raise ValueError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # as dataclasses and pickle expect it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _require_sound(factory: str, adapter: Adapter) -> None:
    known = {*GROUPS, *(each.name for each in SCENARIOS)}
    for name, value, allowed in (
        ("law", adapter.law, get_args(Law)), ("draw", adapter.draw, get_args(DrawMode))
    ):  # fmt: skip
        if value not in allowed:  # no rule would be one for it, and nothing would fail
            choices = ", ".join(map(repr, allowed))
            raise ValueError(f"{factory}: {name} must be one of {choices}, got {value!r}")
    if not isinstance(adapter.not_claimed, Mapping):
        raise ValueError(
            f"{factory}: not_claimed must be a mapping of groups or scenarios to the reasons, got "
            f"{type(adapter.not_claimed).__name__}"
        )
    for name in adapter.not_claimed:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{factory}: not_claimed has {name!r}, no group or scenario{hint}")
    try:
        memory = adapter.make(Wanted())
    except NotClaimed:
        return
    except ImportError as error:
        # A second attempt may find half of a library imported, and fail in ways that are not its.
        raise ValueError(f"{factory}: make cannot import what it needs: {error}") from error
    except TypeError as error:
        if "abstract" in str(error):
            raise ValueError(f"{factory}: {error}") from None
        return  # the scenarios will tell
    except Exception:
        return
    if not isinstance(memory, Memory):
        raise ValueError(f"{factory}: make must return a Memory, got {type(memory).__name__}")
