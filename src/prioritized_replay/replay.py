"""The replay buffer: it gives transitions their ids and composes windows, rows and sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prioritized_replay import casting
from prioritized_replay.batch import Batch
from prioritized_replay.blocks import Blocks
from prioritized_replay.casting import Column, Field
from prioritized_replay.n_step import Closing, OpenWindows
from prioritized_replay.randomness import Seed, UniformStream
from prioritized_replay.samplers import Proportional, Sampler, Specification
from prioritized_replay.storage import Storage

__all__ = ["Batch", "ReplayBuffer"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REQUIRED = ("obs", "action", "reward")
STEP = ("obs", "action", "reward", "next_obs")  # what every call of `add` names
RESERVED = {  # columns that every batch has, and arguments of `add`
    *("next_obs", "discount", "terminated", "weights", "probabilities", "ids"),
    *("self", "truncated", "td_error", "env", "info"),
}
INT64 = np.dtype(np.int64)


class ReplayBuffer:
    """Prioritized experience replay: a ring of transitions and a law to draw them by.

    Parameters
    ----------
    capacity : int
        Number of transitions N kept, >= 1; the oldest give way.
    fields : mapping of str to Field
        Shape and dtype of ``obs``, ``action``, ``reward`` and of any further column. The column
        ``next_obs`` is like ``obs``, ``discount`` is float32, ``terminated`` Boolean; these are
        there without being named.
    sampler : Uniform, Proportional or RankBased, optional
        How to draw; ``Proportional()`` if None.
    n_step : int
        Steps n of a transition, >= 1: rewards are summed over up to n steps.
    gamma : float
        Discount of one step, in [0, 1].
    seed : int, SeedSequence, Generator or None
        Of the buffer's own generator; nothing reads a global one.

    Raises
    ------
    ValueError
        If an argument is outside its range, or a required field is missing.

    Examples
    --------
    >>> import numpy as np
    >>> import prioritized_replay as per
    >>> fields = {"obs": per.Field((2,)), "action": per.Field((), "int64"), "reward": per.Field()}
    >>> replay = per.ReplayBuffer(1000, fields, sampler=per.RankBased(alpha=0.7), seed=1)
    >>> for step in range(100):
    ...     ids = replay.add(np.full(2, step), step % 4, 1.0, np.full(2, step + 1), step % 10 == 9)
    >>> batch = replay.sample(32, beta=0.5)
    >>> batch.obs.shape, batch.weights.max()
    ((32, 2), np.float32(1.0))
    >>> replay.update_priorities(batch.ids, batch.reward - 0.25 * batch.action)
    32
    """

    def __init__(
        self,
        capacity: int,
        fields: Mapping[str, Field],
        *,
        sampler: Specification | None = None,
        n_step: int = 1,
        gamma: float = 0.99,
        seed: Seed = None,
    ) -> None:
        self._capacity = casting.integer("capacity", capacity)
        n_step = casting.integer("n_step", n_step)
        columns = _columns(fields)
        specification = Proportional() if sampler is None else sampler
        if not isinstance(specification, Specification):
            raise ValueError(
                f"sampler must be Uniform, Proportional or RankBased, got {specification!r}"
            )
        self._fields = columns
        self._gamma = casting.number("gamma", gamma, 1.0)
        self._uniforms = UniformStream(seed)
        self._storage = Storage(self._capacity, columns)
        self._blocks = Blocks(self._storage, self._capacity)
        self._extra = [name for name in fields if name not in REQUIRED]
        self._accept = {name: Column(name, field).accept for name, field in columns.items()}
        self._accept_obs = self._accept["obs"]
        self._accept_action = self._accept["action"]
        self._accept_reward = self._accept["reward"]
        self._accept_next_obs = self._accept["next_obs"]
        self._reward_type = np.dtype(columns["reward"].dtype).type
        self._sampler = Sampler(specification, self._capacity)
        self._windows = OpenWindows(n_step, self._gamma)
        self._one_step = n_step == 1
        self._steps = Storage(n_step, columns)  # the first step of each open window
        self._step_priorities: list[float | None] = [None] * n_step  # None: the largest so far
        self._newest_step = 0  # row of `_steps` with the latest step
        self._issued = 0  # ids given so far: the next row's id
        self._stale_updates = 0
        self._last_ids = np.empty(0, INT64)  # of the last batch drawn
        self._weight_sums = np.zeros(4)  # of the last batch drawn, see `Blocks.new`

    @classmethod
    def for_spaces(
        cls,
        observation_space: Any,
        action_space: Any,
        capacity: int,
        *,
        sampler: Specification | None = None,
        n_step: int = 1,
        gamma: float = 0.99,
        seed: Seed = None,
    ) -> Self:
        """Build a buffer whose fields fit two Gymnasium spaces; rewards are float32.

        Parameters
        ----------
        observation_space, action_space : gymnasium.Space
            Spaces with a shape and a dtype: Box, Discrete, MultiDiscrete, MultiBinary.
        capacity, sampler, n_step, gamma, seed
            As for the class.

        Raises
        ------
        ValueError
            If a space has no fixed shape and dtype, or as the class does.
        """
        fields = {
            "obs": _field("observation_space", observation_space),
            "action": _field("action_space", action_space),
            "reward": Field((), "float32"),
        }
        return cls(capacity, fields, sampler=sampler, n_step=n_step, gamma=gamma, seed=seed)

    @classmethod
    def for_env(
        cls,
        env: Any,
        capacity: int,
        *,
        sampler: Specification | None = None,
        n_step: int = 1,
        gamma: float = 0.99,
        seed: Seed = None,
    ) -> Self:
        """Build a buffer for one Gymnasium environment; see :meth:`for_spaces`.

        Raises
        ------
        ValueError
            If ``env`` is a vector environment, or as :meth:`for_spaces` does.
        """
        if hasattr(env, "num_envs"):
            raise ValueError(
                f"env must be a single environment, got a vector of {env.num_envs} environments"
            )
        return cls.for_spaces(
            env.observation_space, env.action_space, capacity,
            sampler=sampler, n_step=n_step, gamma=gamma, seed=seed,
        )  # fmt: skip

    @property
    def capacity(self) -> int:
        """Number of transitions that fit, N."""
        return self._capacity

    @property
    def fields(self) -> dict[str, Field]:
        """Every stored column: the fields given and ``next_obs``, ``discount``, ``terminated``."""
        return dict(self._fields)

    @property
    def n_step(self) -> int:
        """Steps n of a whole window."""
        return self._windows.n_step

    @property
    def gamma(self) -> float:
        """Discount of one step."""
        return self._gamma

    @property
    def sampler(self) -> Specification:
        """The specification in force, with the present alpha."""
        return self._sampler.specification

    @property
    def alpha(self) -> float:
        """How much prioritization; may be set at any time.

        O(N) for proportional sampling, whose masses are recomputed, O(1) for rank-based.
        """
        return self._sampler.alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        waiting = (priority for priority in self._step_priorities if priority is not None)
        self._sampler.set_alpha(alpha, max(waiting, default=0.0))

    @property
    def nbytes(self) -> int:
        """Bytes of memory reserved for rows, priorities and their structures."""
        return self._storage.nbytes + self._steps.nbytes + self._sampler.nbytes

    def __len__(self) -> int:
        """Return the number of transitions that can be sampled."""
        return self._sampler.size

    def __repr__(self) -> str:
        return f"ReplayBuffer({len(self)} of {self._capacity}, {self.sampler})"

    def add(
        self,
        obs: Any,
        action: Any,
        reward: Any,
        next_obs: Any,
        terminated: Any,
        truncated: Any = False,
        *,
        td_error: Any = None,
        **extra: Any,
    ) -> Ints:
        """Add one step of the environment.

        Parameters
        ----------
        obs, action, reward, next_obs
            The step, in the shapes of the fields. ``next_obs`` is what the step led to, also
            where the episode ends.
        terminated : bool
            The episode ended in a terminal state: nothing is bootstrapped.
        truncated : bool
            The episode was cut off: its last windows bootstrap from ``next_obs``.
        td_error : float, optional
            Error of the window that starts here; without it the row enters at the largest
            priority.
        **extra
            The further fields. With n > 1 a row keeps those of its first step.

        Returns
        -------
        int64[...]
            Ids of the rows that became sampleable: for n > 1 none while the first window is
            open, up to n at the end of an episode.

        Raises
        ------
        ValueError
            If a value does not fit its field, or a field is missing or unknown. Nothing
            changes then.

        Notes
        -----
        O(row), and O(log N) per row once they are next drawn from.
        """
        if (extra or self._extra) and extra.keys() != set(self._extra):
            self._require_names({**dict.fromkeys(STEP), **extra})
            raise ValueError(
                "discount must be left to the buffer, which has it from gamma and terminated, "
                f"got {extra['discount']!r}"
            )
        is_terminated = casting.flag("terminated", terminated)
        ended = is_terminated or casting.flag("truncated", truncated)
        reward = self._accept_reward(reward)
        values = [
            self._accept_obs(obs),
            self._accept_action(action),
            reward,
            0.0 if is_terminated else self._gamma,
            self._accept_next_obs(next_obs),
            is_terminated,
        ]
        if extra:
            values += [self._accept[name](extra[name]) for name in self._extra]
        priority = None if td_error is None else self._priority_of(td_error)
        if self._one_step:
            self._storage.write(self._issued % self._capacity, values)
            if priority is None:
                self._sampler.append(1)
            else:
                self._sampler.append_each((priority,))
            return self._next_ids(1)
        rounded = float(self._reward_type(reward))
        closing = self._windows.step(rounded, ended=ended, terminated=is_terminated)
        rewards = self._cast_returns(closing)
        row = (self._newest_step + 1) % self._windows.n_step
        self._steps.write(row, values)
        self._step_priorities[row] = priority
        self._newest_step = row
        return self._close(closing, rewards)

    def end_episode(self) -> Ints:
        """Close the open windows in the middle of an episode; they bootstrap.

        For an interrupted collection or a restarted environment: what is added next belongs to
        another episode.

        Returns
        -------
        int64[...]
            Ids of the rows that became sampleable.
        """
        closing = self._windows.interruption()
        return self._close(closing, self._cast_returns(closing))

    def extend(self, transitions: Mapping[str, Any], td_errors: Any = None) -> Ints:
        """Add many complete, unrelated transitions, such as offline data.

        Parameters
        ----------
        transitions : mapping of str to array
            Every field of the buffer and ``next_obs`` with a leading axis B, and one of
            ``discount`` (float[B], 0 where terminated) and ``terminated`` (bool[B], of
            transitions of one step). B may exceed the capacity: the last N stay.
        td_errors : float[B], optional
            Their errors; without them all enter at the largest priority.

        Returns
        -------
        int64[B]
            Their ids.

        Raises
        ------
        ValueError
            If a column is missing, unknown or does not fit; nothing changes then.
        """
        columns = self._cast_transitions(transitions)
        count = len(columns["reward"])
        if td_errors is not None:
            priorities = self._sampler.priorities_of(casting.errors(td_errors, count))
        kept = min(count, self._capacity)
        first = (self._issued + count - kept) % self._capacity
        self._storage.write_many(
            first, kept, {name: column[count - kept :] for name, column in columns.items()}
        )
        if count:
            self._sampler.append(count, None if td_errors is None else priorities)
        return self._next_ids(count)

    def sample(self, batch_size: int, beta: float = 1.0) -> Batch:
        """Draw a batch.

        Parameters
        ----------
        batch_size : int
            B >= 1.
        beta : float
            How far the weights correct for the law, in [0, 1]: 0 not at all, 1 fully.

        Returns
        -------
        Batch
            With ``weights``, ``probabilities`` and ``ids``.

        Raises
        ------
        ValueError
            If the buffer is empty, no row has a positive probability, a draw without
            replacement asks for more rows than there are, or an argument is out of range.

        Notes
        -----
        O(B log N).
        """
        batch_size = casting.integer("batch_size", batch_size)
        beta = casting.number("beta", beta, 1.0)
        if not self._sampler.size:
            raise ValueError("sample needs a buffer with at least one transition, got an empty one")
        sampler = self._sampler
        batch, frame = self._blocks.new(
            batch_size, self._issued - 1, beta, sampler.weight_bounds(), self._weight_sums, True
        )
        if sampler.plain:
            sampler.sample(batch_size, self._uniforms, frame)
        else:
            slots = sampler.draw(batch_size, self._uniforms, batch.probabilities)
            self._blocks.complete(frame, slots)
        self._last_ids = batch.ids.copy()
        return batch

    def get(self, ids: ArrayLike, beta: float = 1.0) -> Batch:
        """Return named transitions, as :meth:`sample` would had it drawn these.

        Parameters
        ----------
        ids : int64[B]
            Ids of transitions that are still there.
        beta : float
            As in :meth:`sample`.

        Raises
        ------
        KeyError
            Naming the first id that is gone, or was never issued.
        """
        wanted = casting.ids(ids)
        beta = casting.number("beta", beta, 1.0)
        self._require_live(wanted)
        slots = wanted % self._capacity
        batch, frame = self._blocks.new(
            slots.size, self._issued - 1, beta, self._sampler.weight_bounds(), np.empty(4), False
        )
        batch.probabilities[:] = self._sampler.probabilities(slots)
        self._blocks.complete(frame, slots)
        return batch

    def update_priorities(self, ids: Any, td_errors: Any) -> int:
        """Give transitions the priorities of their new TD errors.

        Parameters
        ----------
        ids : int64[B]
            Ids of a batch. Rows overwritten since are skipped; of duplicates the last wins.
        td_errors : float[B] or float[B, 1]
            Signed errors, as arrays or tensors of any floating dtype and device. Absolute
            value, eps and alpha are applied inside.

        Returns
        -------
        int
            How many of the B were applied: those whose rows are still there.

        Raises
        ------
        ValueError
            If an error is not finite, the lengths differ, or an id was never issued. Nothing
            changes then.

        Notes
        -----
        O(B log N).
        """
        wanted = casting.ids(ids)
        errors = casting.errors(td_errors, wanted.size)
        sampler = self._sampler
        applied = sampler.update(wanted, errors, self._issued - sampler.size, self._issued)
        self._stale_updates += wanted.size - applied
        return applied

    def priorities(self, ids: ArrayLike) -> Floats:
        """Return priorities: abs(td_error) + eps if proportional, abs(td_error) if rank-based.

        Parameters
        ----------
        ids : int64[B]
            Ids of transitions that are still there.

        Returns
        -------
        float64[B]
            1 for each row of a uniform buffer.

        Raises
        ------
        KeyError
            Naming the first id that is gone, or was never issued.
        """
        wanted = casting.ids(ids)
        self._require_live(wanted)
        return self._sampler.priorities(wanted % self._capacity)

    def clear(self) -> None:
        """Forget all transitions and open windows. Ids go on where they were. O(N)."""
        self._sampler.clear()
        self._windows.clear()
        self._step_priorities = [None] * self.n_step
        self._last_ids = np.empty(0, INT64)
        self._weight_sums[:] = 0.0

    def stats(self) -> dict[str, float]:
        """Return the state of the buffer in plain numbers. O(N log N).

        Returns
        -------
        dict
            ``size``; ``ids_issued``; ``open_windows``; ``priority_p05`` to ``priority_p95``,
            quantiles of the priorities; ``largest_priority``, with which a new row would enter;
            ``stale_updates``, updates skipped because the row was overwritten; of the last
            batch ``effective_sample_size`` (sum w)**2 / sum w**2, ``weight_min``,
            ``weight_max`` and ``duplicates``, the rows that were in it before;
            ``never_drawn``, the share of live rows never drawn. 0 where nothing is to be measured.
        """
        slots = self._sampler.live_slots()
        quantiles = np.zeros(5)
        never_drawn = 0.0
        if slots.size:
            priorities = self._sampler.priorities(slots)
            quantiles = np.quantile(priorities, [0.05, 0.25, 0.5, 0.75, 0.95])
            never_drawn = 1.0 - float(np.mean(self._storage.drawn(slots)))
        total, squares, lowest, highest = self._weight_sums.tolist()
        names = ("priority_p05", "priority_p25", "priority_p50", "priority_p75", "priority_p95")
        return {
            "size": len(self),
            "ids_issued": self._issued,
            "open_windows": len(self._windows),
            **{name: float(value) for name, value in zip(names, quantiles, strict=True)},
            "largest_priority": self._sampler.entry_priority(),
            "stale_updates": self._stale_updates,
            "effective_sample_size": total * total / squares if squares > 0.0 else 0.0,
            "weight_min": lowest,
            "weight_max": highest,
            "duplicates": self._last_ids.size - np.unique(self._last_ids).size,
            "never_drawn": never_drawn,
        }

    def _cast_transitions(self, transitions: Mapping[str, Any]) -> dict[str, Array]:
        if not isinstance(transitions, Mapping):
            raise ValueError(f"transitions must be a mapping of arrays, got {type(transitions)}")
        given = dict(transitions)
        if ("discount" in given) == ("terminated" in given):
            raise ValueError(
                f"transitions must have either discount or terminated, got {', '.join(given)}"
            )
        self._require_names(given)
        reward = casting.as_array("reward", given["reward"])
        if reward.ndim != 1:
            raise ValueError(f"reward must have shape (B,), got {reward.shape}")
        count = len(reward)
        columns = {
            name: casting.cast(name, value, self._fields[name], (count,))
            for name, value in given.items()
        }
        if "terminated" in columns:
            gamma = np.float32(self._gamma)
            columns["discount"] = np.where(columns["terminated"], np.float32(0.0), gamma)
        else:
            columns["terminated"] = columns["discount"] == 0
        discount = columns["discount"]
        if count and not (discount.min() >= 0.0 and discount.max() <= 1.0):
            wrong = discount[~((discount >= 0.0) & (discount <= 1.0))][0]
            raise ValueError(f"discount must be in [0, 1], got {wrong}")
        return columns

    def _require_names(self, given: Mapping[str, Any]) -> None:
        unknown = given.keys() - self._fields.keys()
        missing = self._fields.keys() - given.keys() - {"discount", "terminated"}
        if unknown or missing:
            kind, names = ("unknown", unknown) if unknown else ("missing", missing)
            raise ValueError(
                f"fields must be {', '.join(self._fields)}, got {kind} {', '.join(sorted(names))}"
            )

    def _cast_returns(self, closing: Closing) -> list[Array]:
        return [
            casting.cast("reward (n-step return)", value, self._fields["reward"])
            for value in closing.returns[: closing.count]
        ]

    def _priority_of(self, td_error: Any) -> float:
        error = td_error if type(td_error) is float else casting.errors(td_error, 1, "td_error")[0]
        return self._sampler.priority_of(float(error))

    def _close(self, closing: Closing, rewards: list[Array]) -> Ints:
        """Turn windows that close into rows; all end with the latest step."""
        n_step = self._windows.n_step
        next_obs = self._steps.columns["next_obs"][self._newest_step].copy()
        oldest = self._newest_step - len(closing.returns) + 1
        priorities = []
        for k in range(closing.count):
            row = (oldest + k) % n_step
            self._steps.columns["reward"][row] = rewards[k]
            self._steps.columns["discount"][row] = closing.discounts[k]
            self._steps.columns["terminated"][row] = closing.terminated
            self._steps.columns["next_obs"][row] = next_obs
            self._storage.copy((self._issued + k) % self._capacity, self._steps, row)
            priorities.append(self._step_priorities[row])
            self._step_priorities[row] = None
        self._windows.commit(closing)
        return self._issue(closing.count, priorities)

    def _issue(self, count: int, priorities: list[float | None]) -> Ints:
        """Make rows just written sampleable and give them their ids."""
        if count == 0:
            return np.zeros(0, np.int64)
        if priorities == [None] * count:
            self._sampler.append(count)
        else:
            largest = self._sampler.entry_priority()
            given = [largest if priority is None else priority for priority in priorities]
            self._sampler.append_each(given)
        return self._next_ids(count)

    def _next_ids(self, count: int) -> Ints:
        first = self._issued
        self._issued = first + count
        if count != 1:
            return np.arange(first, first + count)
        ids = np.empty(1, INT64)  # in half the time
        ids[0] = first
        return ids

    def _require_live(self, ids: Ints) -> None:
        gone = (ids < self._issued - len(self)) | (ids >= self._issued)
        if gone.any():
            raise KeyError(f"no transition with id {ids[gone][0]}")


def _columns(fields: Mapping[str, Field]) -> dict[str, Field]:
    """Return the columns of a row: the fields given and those every buffer has."""
    if not isinstance(fields, Mapping):
        raise ValueError(f"fields must be a mapping of names to Field, got {fields!r}")
    for name in REQUIRED:
        if name not in fields:
            raise ValueError(f"fields must contain obs, action and reward, got no {name}")
    for name, field in fields.items():
        if not isinstance(field, Field):
            raise ValueError(f"fields[{name!r}] must be a Field, got {field!r}")
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            raise ValueError(f"fields must have names that can be attributes, got {name!r}")
        if name in RESERVED or hasattr(Batch, name):
            raise ValueError(f"fields must not use a name with a meaning of its own, got {name!r}")
    if fields["reward"].shape != ():
        raise ValueError(f"fields['reward'] must have shape (), got {fields['reward'].shape}")
    return {
        "obs": fields["obs"],
        "action": fields["action"],
        "reward": fields["reward"],
        "discount": Field((), "float32"),
        "next_obs": fields["obs"],
        "terminated": Field((), "bool"),
        **{name: field for name, field in fields.items() if name not in REQUIRED},
    }


def _field(name: str, space: Any) -> Field:
    shape, dtype = getattr(space, "shape", None), getattr(space, "dtype", None)
    if shape is None or dtype is None:
        raise ValueError(f"{name} must have one shape and dtype, got {space}")
    return Field(shape, dtype)
