"""Rows of a buffer put together as episodes, and written to a new data set of Minari.

It knows how Minari keeps episodes, and nothing of where rows lie.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.batch import Batch
from prioritized_replay.fields import arguments
from prioritized_replay.fields.field import Field
from prioritized_replay.fields.nested import Nested, Structure
from prioritized_replay.offline.reading import import_minari
from prioritized_replay.streams.environments import fields_of_space

__all__ = ["Block", "episodes_of", "write_dataset"]

Array = NDArray[Any]
Bools = NDArray[np.bool_]

STEP = ("obs", "action", "reward", "discount", "next_obs", "terminated")
"""The columns that every transition has; Minari keeps further ones as infos."""
NAGS = r"`\w+` is set to None|env_spec is None"
"""How Minari's warnings begin about what may be left out."""


class Block(NamedTuple):
    """Transitions of one step, in the order in which they were added."""

    first: int
    """The id of the first."""
    columns: Batch[Array]
    """Themselves."""
    truncated: Bools
    """After which of them the episode was cut off."""
    unrelated: Bools
    """Which of them are no steps of an episode that is known."""


def episodes_of(
    blocks: Iterable[Block], structures: Mapping[str, Structure]
) -> Iterator[dict[str, Any]]:
    """Iterate over the episodes of transitions, as arguments of Minari's EpisodeBuffer.

    An episode ends where a row says so, and where the next row does not begin where this one led
    to. One that was left open counts as truncated, as Minari's own collector has it.

    Parameters
    ----------
    blocks : iterable of Block
        Each goes on where the one before ends.
    structures : mapping of str to Structure
        Of every column.

    Raises
    ------
    ValueError
        If a row belongs to no episode that is known.
    """
    twins = list(zip(structures["obs"].leaves, structures["next_obs"].leaves, strict=True))
    parts: list[dict[str, Array]] = []  # of the episode that is not over yet
    for block in blocks:
        leaves = _leaves(block, structures)
        if parts and not all(_same(parts[-1][twin][-1:], leaves[leaf][:1]) for leaf, twin in twins):
            yield _episode(parts, structures)
            parts = []
        over = leaves["terminated"] | block.truncated
        for leaf, twin in twins:
            over[:-1] |= ~_same(leaves[twin][:-1], leaves[leaf][1:])
        start = 0
        for stop in (np.flatnonzero(over) + 1).tolist():
            parts.append({leaf: column[start:stop] for leaf, column in leaves.items()})
            yield _episode(parts, structures)
            parts = []
            start = stop
        if start < len(over):
            parts.append({leaf: column[start:] for leaf, column in leaves.items()})
    if parts:
        yield _episode(parts, structures)


def _leaves(block: Block, structures: Mapping[str, Structure]) -> dict[str, Array]:
    """Return the leaves of transitions, and where their episodes were cut off."""
    if block.unrelated.any():
        row = block.first + int(block.unrelated.argmax())
        raise ValueError(
            "to_minari needs transitions of whole episodes, which add and add_episode take, got "
            f"one of extend, with the id {row}"
        )
    leaves = {
        leaf: np.asarray(part)
        for name, structure in structures.items()
        for leaf, part in zip(
            structure.leaves, structure.take_apart(block.columns[name]), strict=True
        )
    }
    return leaves | {"truncated": block.truncated}


def _same(first: Array, second: Array) -> Bools:
    """Return which rows are equal bit for bit, bool[B]."""
    count = len(first)
    if not count:
        return np.zeros(0, np.bool_)
    one, other = (
        np.ascontiguousarray(rows).view(np.uint8).reshape(count, -1) for rows in (first, second)
    )
    same: Bools = (one == other).all(axis=1)
    return same


def _episode(
    parts: Sequence[Mapping[str, Array]], structures: Mapping[str, Structure]
) -> dict[str, Any]:
    """Join the parts of one episode."""

    def joined(leaf: str, *more: Array) -> Array:
        return np.concatenate([*(part[leaf] for part in parts), *more])

    def nested(name: str, columns: Iterable[Array]) -> Any:
        return structures[name].put_together(iter(columns))

    obs, next_obs = (structures[name].leaves for name in ("obs", "next_obs"))
    terminated, truncated = joined("terminated"), joined("truncated")
    truncated[-1] |= not terminated[-1]
    infos = {}
    for name in (name for name in structures if name not in STEP):
        columns = map(joined, structures[name].leaves)
        # The first is what the reset returned, which no transition has.
        infos[name] = nested(
            name, (np.concatenate([np.zeros_like(column[:1]), column]) for column in columns)
        )
    return {
        "observations": nested(
            "obs",
            (joined(leaf, parts[-1][twin][-1:]) for leaf, twin in zip(obs, next_obs, strict=True)),
        ),
        "actions": nested("action", map(joined, structures["action"].leaves)),
        "rewards": joined("reward"),
        "terminations": terminated,
        "truncations": truncated,
        "infos": infos,
    }


def write_dataset(
    dataset_id: Any,
    env: Any,
    spaces: tuple[Any, Any],
    episodes: Iterable[Mapping[str, Any]],
    structures: Mapping[str, Structure],
    metadata: Mapping[str, Any],
) -> Any:
    """Write episodes to a new data set and return it; if that fails, there is none.

    Parameters
    ----------
    dataset_id : str
        Of the new data set.
    env : gymnasium.Env, EnvSpec, str or None
        The environment of the episodes.
    spaces : tuple of two gymnasium.Space or None
        Of observations and actions; None for those of the environment.
    episodes : iterable of mapping
        From :func:`episodes_of`; one is in memory at a time.
    structures : mapping of str to Structure
        Of every column of a transition.
    metadata : mapping
        Further arguments of ``minari.create_dataset_from_buffers``.

    Raises
    ------
    ImportError
        If Minari is not installed.
    ValueError
        If the id is no id or is taken, the spaces are missing or do not fit, or a column cannot be
        kept as it is.
    """
    minari = import_minari("to_minari")
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage.datasets_root_dir import get_dataset_path

    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError):
        raise ValueError(
            "dataset_id must be like 'namespace/name-v0', the namespace optional, "
            f"got {arguments.shown(dataset_id)}"
        ) from None
    if env is None and any(space is None for space in spaces):
        raise ValueError(
            "env must be given, or both observation_space and action_space, got neither: a buffer "
            "knows shapes and dtypes, not bounds"
        )
    for name, structure in structures.items():
        _check_nesting(name, structure.nested, name not in STEP)
    path = get_dataset_path(dataset_id)
    if path.exists():
        raise ValueError(f"dataset_id must be a new one, got {dataset_id!r}, which is at {path}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", NAGS, UserWarning)
            dataset = minari.create_dataset_from_buffers(
                dataset_id, [], env, observation_space=spaces[0], action_space=spaces[1],
                jpeg_encoding=False, **metadata,
            )  # fmt: skip
        _check_space("observation_space", dataset.observation_space, structures["obs"])
        _check_space("action_space", dataset.action_space, structures["action"])
        dataset.storage.update_episodes(EpisodeBuffer(**episode) for episode in episodes)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return minari.load_dataset(dataset_id)


def _check_nesting(name: str, nested: Nested, is_info: bool) -> None:
    """Raise ValueError for what Minari would return in another form."""
    if isinstance(nested, Mapping):
        for key, part in nested.items():
            if "/" in key:
                raise ValueError(f"to_minari needs keys without '/', got {key!r} in {name}")
            _check_nesting(f"{name}[{key!r}]", part, is_info)
    elif isinstance(nested, tuple):
        if is_info:
            raise ValueError(
                "to_minari keeps further columns as infos, where Minari has no tuples, got one "
                f"in {name}"
            )
        for k, part in enumerate(nested):
            _check_nesting(f"{name}[{k}]", part, is_info)


def _check_space(name: str, space: Any, structure: Structure) -> None:
    """Raise ValueError if values of a column are none of a space."""

    def plain(fields: Mapping[str, Field]) -> list[tuple[str, Any, Any]]:
        return [(leaf, field.shape, field.dtype) for leaf, field in fields.items()]

    fits = Structure(structure.name, fields_of_space(name, space))
    if sorted(plain(fits.leaves)) != sorted(plain(structure.leaves)):
        raise ValueError(
            f"{name} must fit the buffer, where {structure.name} is "
            f"{arguments.shown(structure.nested)}, got {arguments.shown(space)}"
        )
