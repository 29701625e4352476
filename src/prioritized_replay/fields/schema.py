"""The columns of a transition: which there are, and whole transitions turned into their leaves.

It knows names, shapes and dtypes; it does not know where anything is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.batch import Batch
from prioritized_replay.fields import arguments
from prioritized_replay.fields.field import Field, cast
from prioritized_replay.fields.nested import Nested, Structure

Array = NDArray[Any]
REQUIRED = ("obs", "action", "reward")
ADDED = ("next_obs", "discount", "terminated")
"""Schema that are there without being named."""
RESERVED = {  # columns that every batch has, and arguments of `add`
    *ADDED,
    *("weights", "probabilities", "ids"),
    *("self", "truncated", "td_error", "env", "info"),
}
OF_SEQUENCES = ("mask", "is_first")
"""Columns that a batch of sequences has besides."""

ONE_STEP_ROWS = (
    "transitions must have discount where n_step is {n_step}, got terminated, which would make "
    "rows of one step. Give discount: gamma**m for a reward summed over m steps, 0 where "
    "terminated. Or give whole episodes to add_episode, which makes the windows"
)


class Schema:
    """The columns of the transitions of one buffer.

    Parameters
    ----------
    fields : mapping of str to Field, mapping or tuple
        As given to the buffer.
    sequences : bool
        Whether the buffer is one of sequences.

    Attributes
    ----------
    structures : dict of str to Structure
        Every column of a row, in the order in which they are kept.
    states : dict of str to Structure
        The columns that are kept once for a sequence.
    leaves_of_states : dict of str to Field
        Their leaves, in that order.
    leaves : dict of str to Field
        Their leaves, in that order.
    extra : list of str
        The further columns, beyond those of every transition; those of sequences come last.

    Raises
    ------
    ValueError
        If a required field is missing, or a name or field cannot be one.
    """

    def __init__(self, fields: Mapping[str, Nested], sequences: bool = False) -> None:
        if not isinstance(fields, Mapping):
            got = arguments.shown(fields)
            raise ValueError(f"fields must be a mapping of names to Field, got {got}")
        for name in REQUIRED:
            if name not in fields:
                raise ValueError(f"fields must contain obs, action and reward, got no {name}")
        for name in fields:
            if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
                raise ValueError(
                    f"fields must have names that can be attributes, got {arguments.shown(name)}"
                )
            reserved = name in RESERVED or (sequences and name in OF_SEQUENCES)
            if reserved or hasattr(Batch, name):
                raise ValueError(
                    f"fields must not use a name with a meaning of its own, got {name!r}"
                )
        reward = fields["reward"]
        if not isinstance(reward, Field) or reward.shape != ():
            raise ValueError(
                f"fields['reward'] must be a Field of shape (), got {arguments.shown(reward)}"
            )
        further = [name for name in fields if name not in REQUIRED]
        columns: dict[str, Nested] = {
            "obs": fields["obs"],
            "action": fields["action"],
            "reward": reward,
            "discount": Field((), "float32"),
            "next_obs": fields["obs"],
            "terminated": Field((), "bool"),
            **{name: fields[name] for name in further},
        }
        structures = {name: Structure(name, nested) for name, nested in columns.items()}
        self.states = {
            name: part
            for name, part in structures.items()
            if _once(part, name in further, sequences)
        }
        self.leaves_of_states = {
            name: field for part in self.states.values() for name, field in part.leaves.items()
        }
        self.structures = {n: part for n, part in structures.items() if n not in self.states}
        self.extra = [n for n in further if n in self.structures] + list(self.states)
        self.leaves = {
            name: field for part in self.structures.values() for name, field in part.leaves.items()
        }

    def require(self, given: Iterable[str]) -> None:
        """Check the names of what was given; those that follow from others may be missing.

        Raises
        ------
        ValueError
            If a column is unknown or missing.
        """
        names = set(given)
        columns = [*self.structures, *self.states]
        wanted = [name for name in columns if name in names or name not in ADDED[1:]]
        unknown, missing = names - set(wanted), set(wanted) - names
        if unknown or missing:
            kind, names = ("unknown", unknown) if unknown else ("missing", missing)
            raise ValueError(
                f"fields must be {', '.join(wanted)}, "
                f"got {kind} {', '.join(sorted(map(str, names)))}"
            )

    def cast(
        self, transitions: Mapping[str, Any], gamma: float, n_step: int = 1
    ) -> dict[str, Array]:
        """Return the leaves of B complete transitions.

        Parameters
        ----------
        transitions : mapping of str to array
            See :meth:`ReplayBuffer.extend`.
        gamma : float
            The discount of those that are not terminated, where only that is said.
        n_step : int
            Steps of the buffer's windows: only where it is 1 may ``terminated`` stand alone.

        Returns
        -------
        dict of str to array[B, ...]

        Raises
        ------
        ValueError
            If a column is missing, unknown or does not fit.
        """
        if not isinstance(transitions, Mapping):
            raise ValueError(f"transitions must be a mapping of arrays, got {type(transitions)}")
        given = dict(transitions)
        if ("discount" in given) == ("terminated" in given):
            got = ", ".join(map(str, given))
            raise ValueError(f"transitions must have either discount or terminated, got {got}")
        if "terminated" in given and n_step > 1:
            raise ValueError(ONE_STEP_ROWS.format(n_step=n_step))
        self.require(given)
        reward = arguments.as_array("reward", given["reward"])
        if reward.ndim != 1:
            raise ValueError(f"reward must have shape (B,), got {reward.shape}")
        count = len(reward)
        columns: dict[str, Array] = {}
        for name, value in given.items():
            structure = self.structures[name]
            parts = structure.take_apart(value)
            for (leaf, field), part in zip(structure.leaves.items(), parts, strict=True):
                columns[leaf] = cast(leaf, part, field, (count,))
        if "terminated" in columns:
            columns["discount"] = np.where(
                columns["terminated"], np.float32(0.0), np.float32(gamma)
            )
        else:
            columns["terminated"] = columns["discount"] == 0
        discount = columns["discount"]
        if count and not (discount.min() >= 0.0 and discount.max() <= 1.0):
            wrong = discount[~((discount >= 0.0) & (discount <= 1.0))][0]
            raise ValueError(f"discount must be in [0, 1], got {wrong}")
        return columns


def _once(structure: Structure, further: bool, sequences: bool) -> bool:
    """Return whether a column is kept once for a sequence, if it may be.

    Raises
    ------
    ValueError
        If it may not, or only a part of it is.
    """
    kept = {field.per_sequence for field in structure.leaves.values()}
    if kept == {False}:
        return False
    if not further:
        allowed = "False: it is needed with every step"
    elif not sequences:
        allowed = "False without sequence="
    elif len(kept) == 2:
        allowed = "the same in all its parts"
    else:
        return True
    raise ValueError(f"fields[{structure.name!r}] must have per_sequence {allowed}, got True")
