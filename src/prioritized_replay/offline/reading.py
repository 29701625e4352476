"""What a data set of Minari says of its steps, and its episodes one after the other.

It knows how Minari keeps episodes, and nothing of buffers. Minari is imported only where one of its
functions is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prioritized_replay.extras import install_command
from prioritized_replay.fields import arguments
from prioritized_replay.fields.field import Field
from prioritized_replay.fields.nested import Nested
from prioritized_replay.streams.environments import fields_of_spaces

__all__ = ["Recorded", "import_minari"]

USED = ("observation_space", "action_space", "total_steps", "iterate_episodes")
"""Attributes of a data set that are read."""


def import_minari(needed_by: str) -> Any:
    """Return the module Minari.

    Raises
    ------
    ImportError
        If it is not installed; the message says how that is done.
    """
    try:
        import minari
    except ImportError as error:
        raise ImportError(
            f"{needed_by} needs a package that is not installed here: "
            f"{install_command('minari')} ({error})"
        ) from error
    return minari


class Recorded:
    """The episodes of a data set.

    Parameters
    ----------
    dataset : minari.MinariDataset or str
        The data set, or the id of one that is on this machine.
    infos : sequence of str
        Names of infos that become columns.

    Attributes
    ----------
    fields : dict
        Of its transitions.
    steps : int
        Number of steps of all its episodes.

    Raises
    ------
    ImportError
        If an id is given and Minari is not installed.
    FileNotFoundError
        If there is no such data set.
    ValueError
        If it is no data set, one without steps, one whose spaces have no fixed shape and dtype, or
        one without such infos.
    """

    def __init__(self, dataset: Any, infos: Sequence[str] = ()) -> None:
        if isinstance(dataset, str):
            dataset = _loaded(dataset)
        if isinstance(dataset, type) or not all(hasattr(dataset, name) for name in USED):
            raise ValueError(
                "dataset must be a minari.MinariDataset, or the id of one, "
                f"got {arguments.shown(dataset)}"
            )
        if isinstance(infos, str) or not all(isinstance(name, str) for name in infos):
            raise ValueError(f"infos must be a list of names, got {arguments.shown(infos)}")
        self._dataset = dataset
        self._infos = list(infos)
        self.steps = int(dataset.total_steps)
        if not self.steps:
            raise ValueError("dataset must have at least one step, got one without any")
        self.fields: dict[str, Nested] = fields_of_spaces(
            dataset.observation_space, dataset.action_space
        )
        if self._infos:
            first = next(iter(dataset.iterate_episodes()))
            for name in self._infos:
                self.fields[name] = _fields_of(_shown(name), _info(first, name))

    def episodes(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Iterate over the episodes; only one of them is in memory at a time.

        Yields
        ------
        int
            Its number in the data set,
        dict
            and the arguments of :meth:`.ReplayBuffer.add_episode`.
        """
        for episode in self._dataset.iterate_episodes():
            count = len(episode.rewards)
            infos = {
                name: _of_steps(_shown(name), _info(episode, name), count) for name in self._infos
            }
            if count:
                yield (
                    int(episode.id),
                    {
                        "obs": episode.observations,
                        "action": episode.actions,
                        "reward": episode.rewards,
                        "terminated": episode.terminations,
                        "truncated": episode.truncations,
                        **infos,
                    },
                )


def _loaded(identifier: str) -> Any:
    """Return the data set of an id."""
    minari = import_minari("from_minari")
    try:
        return minari.load_dataset(identifier)
    except FileNotFoundError:
        here = ", ".join(minari.list_local_datasets()) or "none"
        raise FileNotFoundError(
            f"dataset must be the id of a data set on this machine ({here}), got {identifier!r}: "
            f"minari.download_dataset({identifier!r}) may fetch it"
        ) from None


def _shown(info: str) -> str:
    return f"infos[{info!r}]"


def _info(episode: Any, name: str) -> Any:
    """Return one of the infos of an episode."""
    infos = episode.infos or {}
    if name not in infos:
        there = ", ".join(infos) or "none"
        raise ValueError(
            f"infos must name what every episode has, got {name!r}: episode {episode.id} has "
            f"{there}"
        )
    return infos[name]


def _fields_of(name: str, value: Any) -> Nested:
    """Return the fields that hold what one step has of an info."""
    if isinstance(value, Mapping):
        return {key: _fields_of(f"{name}[{key!r}]", part) for key, part in value.items()}
    array = arguments.as_array(name, value)
    try:
        return Field(array.shape[1:], array.dtype)
    except ValueError as error:
        raise ValueError(f"{name} cannot be a column: {error}") from None


def _of_steps(name: str, value: Any, count: int) -> Any:
    """Return an info as the steps returned it; what the reset returned comes first, if at all."""
    if isinstance(value, Mapping):
        return {key: _of_steps(f"{name}[{key!r}]", part, count) for key, part in value.items()}
    if len(value) not in (count, count + 1):
        raise ValueError(f"{name} must have {count} or {count + 1} rows, got {len(value)}")
    return value[len(value) - count :]
