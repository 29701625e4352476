"""A brute-force twin of a buffer of sequences, and a pair of both that is driven by a world.

The twin keeps every live step as a dictionary and, for every sequence that can be drawn, the list
of the steps in it. It is told which steps are true ones and knows nothing of autoresets.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.reference import (
    FIELDS,
    Step,
    importance_weights,
    proportional_law,
    rank_law,
    uniform_law,
)
from tests.reference_streams import GAMMA, Call, World

import prioritized_replay as per

BANK = np.random.default_rng(11).integers(1, 256, (997, 16, 16), dtype=np.uint8)
OBSERVATIONS: dict[str, Any] = {
    "plain": per.Field((2,), "float32"),
    "shared": per.Field((16, 16), "float32"),  # 1 KiB: kept once for two steps
    "stacks": per.Field((4, 16, 16), "uint8", stack_axis=0),
    "found": per.Field((4, 16, 16), "uint8"),
    "nested": {"image": per.Field((4, 16, 16), "uint8", stack_axis=0), "place": (per.Field((2,)),)},
    "small": {"place": per.Field((2,)), "time": (per.Field((), "int64"),)},
}


def fields_of(kind: str = "plain", **more: Any) -> dict[str, Any]:
    return {**FIELDS, "obs": OBSERVATIONS[kind], "tag": per.Field((), "float64"), **more}


class ReferenceSequences:
    """What a `ReplayBuffer` of sequences must do, by lists."""

    def __init__(
        self,
        capacity: int,
        sequence: Any,
        sampler: Any = None,
        num_envs: int = 1,
        gamma: float = GAMMA,
        per_sequence: Sequence[str] = (),
    ) -> None:
        self.capacity, self.num_envs, self.gamma = capacity, num_envs, gamma
        self.sequence, self.per_sequence = sequence, per_sequence
        self.stride = sequence.length - sequence.overlap
        self.sampler = per.Proportional() if sampler is None else sampler
        self.alpha = getattr(self.sampler, "alpha", 0.0)
        self.issued = 0
        self.stale_updates = 0
        self.clear()

    def clear(self) -> None:
        self.cleared_at = self.issued
        self.rows: dict[int, dict[str, Any]] = {}  # live steps
        self.sequences: dict[int, list[int]] = {}  # ids of their steps, by that of the first
        self.priority: dict[int, float] = {}
        self.largest: float | None = None
        # Of each stream the steps that one sequence may cover, and whether the next one is a first.
        self.runs: list[list[int]] = [[] for _ in range(self.num_envs)]
        self.fresh = [True] * self.num_envs

    # adding

    def add(
        self,
        streams: Sequence[int],
        steps: Sequence[Step | None],
        endings: Any,
        entry: float | None = None,
    ) -> list[int]:
        """One step of each of these streams; a step that is None was an autoreset.

        Returns the ids of what can be drawn then and could not before.
        """
        entry = self.entry_priority() if entry is None else entry
        made = []
        for stream, step, (terminated, truncated) in zip(streams, steps, endings, strict=True):
            if step is not None:
                self._append(stream, step, terminated)
                made += self._complete(stream, terminated or truncated, entry)
        return [i for i in made if i in self.sequences]

    def add_episode(
        self, stream: int, steps: Sequence[Step | None], terminated: bool, truncated: bool
    ) -> list[int]:
        """As so many calls of `add`, but all enter with what one enters with that comes first."""
        entry = self.entry_priority()
        made = []
        for number, step in enumerate(steps):
            last = number == len(steps) - 1
            ending = last and terminated, last and truncated
            made += self.add([stream], [step], [ending], entry)
        return [i for i in made if i in self.sequences]

    def end_episode(self, streams: Iterable[int] | None = None) -> list[int]:
        entry = self.entry_priority()
        made = []
        for stream in range(self.num_envs) if streams is None else streams:
            if self.runs[stream] and not self._regular(stream):
                made += self._close(stream, entry)
            self._end(stream)
        return made

    def _append(self, stream: int, step: Step, terminated: bool) -> None:
        """Give a step the next id; the step that had its place goes, and what begins there."""
        row = {
            "obs": step.obs, "action": step.action, "reward": step.reward,
            "next_obs": step.next_obs, "terminated": terminated,
            "discount": 0.0 if terminated else self.gamma,
            "is_first": self.fresh[stream], **step.extra,
        }  # fmt: skip
        gone = self.issued - self.capacity
        for table in (self.rows, self.sequences, self.priority):
            table.pop(gone, None)
        self.rows[self.issued] = row
        self.runs[stream].append(self.issued)
        self.fresh[stream] = False
        self.issued += 1

    def _regular(self, stream: int) -> bool:
        """Whether a sequence that begins a whole number of strides in ends at the newest step."""
        first = len(self.runs[stream]) - self.sequence.length
        return first in range(0, len(self.runs[stream]), self.stride)

    def _complete(self, stream: int, ended: bool, entry: float) -> list[int]:
        """Return the sequence that the newest step completes, as a list of one id or none."""
        made = []
        if self._regular(stream):
            made = self._enter(self.runs[stream][-self.sequence.length :], entry)
        elif ended:
            made = self._close(stream, entry)
        if ended:
            self._end(stream)
        return made

    def _close(self, stream: int, entry: float) -> list[int]:
        """One more sequence, which ends where the episode does."""
        if self.sequence.boundaries == "cross":
            return []
        return self._enter(self.runs[stream][-self.sequence.length :], entry)

    def _end(self, stream: int) -> None:
        self.fresh[stream] = True
        if self.sequence.boundaries == "stop":
            self.runs[stream] = []

    def _enter(self, steps: list[int], entry: float) -> list[int]:
        first = steps[0]
        if first not in self.rows:
            return []
        assert first not in self.sequences
        self.sequences[first] = list(steps)
        self._set_priority(first, entry)
        return [first]

    # priorities

    def entry_priority(self) -> float:
        """What a sequence enters with that a call makes which begins now."""
        if isinstance(self.sampler, per.Uniform):
            return 1.0
        known = self.largest
        if getattr(self.sampler, "max_priority", "ever") == "current":
            known = max(self.priority.values(), default=None)
        if known is None:
            return max(1.0, getattr(self.sampler, "min_priority", 0.0))
        return known

    def _set_priority(self, identifier: int, priority: float) -> None:
        self.priority[identifier] = priority
        self.largest = priority if self.largest is None else max(self.largest, priority)

    def error_of(self, identifier: int, td_error: Any) -> float:
        """One number for the error of a sequence, or for those of its steps."""
        if np.ndim(td_error) == 0:
            return float(td_error)
        real = len(self.sequences[identifier])
        counted = range(self.sequence.burn_in, real) or range(real)
        errors = [abs(float(td_error[t])) for t in counted]
        mix = self.sequence.priority_mix
        return mix * max(errors) + (1 - mix) * (sum(errors) / len(errors))

    def p(self, td_error: float) -> float:
        if isinstance(self.sampler, per.Uniform):
            return 1.0
        sampler = self.sampler
        return max(
            abs(td_error) + getattr(sampler, "eps", 0.0), getattr(sampler, "min_priority", 0)
        )

    def update(self, ids: Sequence[int], td_errors: Any) -> int:
        priorities = {}
        applied = 0
        for identifier, td_error in zip(ids, td_errors, strict=True):
            if identifier in self.sequences:
                error = self.error_of(identifier, td_error)
                if not np.isfinite(error):
                    raise ValueError("finite")
                priorities[identifier] = self.p(error)  # of duplicates the last wins
                applied += 1
            elif not 0 <= identifier < self.issued or identifier in self.rows:
                raise ValueError("ids")
        for identifier, priority in priorities.items():
            self._set_priority(identifier, priority)
        self.stale_updates += len(ids) - applied
        return applied

    # sampling

    @property
    def ids(self) -> np.ndarray:
        """Of the sequences that can be drawn, by their first steps, the oldest first."""
        return np.array(sorted(self.sequences), dtype=np.int64)

    def law(self, priorities: Any = None) -> np.ndarray:
        """P of every sequence, in the order of `ids`."""
        if priorities is None:
            priorities = [self.priority[i] for i in self.ids.tolist()]
        priorities = np.array(priorities)
        uniform = getattr(self.sampler, "uniform_mix", 0.0)
        recent = getattr(self.sampler, "recent_mix", 0.0)
        if isinstance(self.sampler, per.Uniform):
            own = uniform_law(priorities)
        elif isinstance(self.sampler, per.RankBased):
            own = rank_law(priorities, self.alpha)
        elif np.any(priorities**self.alpha > 0):
            own = proportional_law(priorities, self.alpha)
        else:  # what is mixed in is all there is
            assert uniform + recent > 0
            own = np.zeros(len(priorities))
            uniform, recent = uniform / (uniform + recent), recent / (uniform + recent)
        newest = np.zeros(len(priorities))
        count = min(getattr(self.sampler, "recent", 1), len(priorities))
        newest[len(priorities) - count :] = 1 / count
        return (1 - uniform - recent) * own + uniform / len(priorities) + recent * newest

    def contents(self, ids: Sequence[int]) -> dict[str, Any]:
        """Return the batch of these sequences: columns [B, T, ...], or [B, ...] of a sequence."""
        some = next(iter(self.rows.values()))
        batch: dict[str, Any] = {}
        for name in some:
            lines = [[self.rows[row][name] for row in self.sequences[i]] for i in ids]
            if name in self.per_sequence:
                batch[name] = stacked([line[0] for line in lines])
                continue
            nothing = zeros_like(some[name])
            batch[name] = stacked(
                [stacked(line + [nothing] * (self.sequence.length - len(line))) for line in lines]
            )
        steps = np.arange(self.sequence.length)
        batch["mask"] = np.array([steps < len(self.sequences[i]) for i in ids])
        return batch

    def check_batch(self, batch: Any, beta: float, priorities: Any = None) -> None:
        """Every column, probability and weight of a batch is what this twin holds."""
        ids = batch.ids.tolist()
        law = dict(zip(self.ids.tolist(), self.law(priorities), strict=True))
        assert set(ids) <= set(law), f"{sorted(set(ids) - set(law))} cannot be drawn"
        same(dict(batch), self.contents(ids), {"weights", "probabilities", "ids"})
        drawn = np.array([law[i] for i in ids])
        np.testing.assert_allclose(batch.probabilities, drawn, rtol=1e-12)
        normalisation = getattr(self.sampler, "weights", "batch")
        weights = importance_weights(drawn, np.array(list(law.values())), beta, normalisation)
        np.testing.assert_allclose(batch.weights, weights, rtol=3e-7)
        assert batch.weights.dtype == np.float32
        assert batch.probabilities.dtype == np.float64
        assert batch.ids.dtype == np.int64


# --- nested values ------------------------------------------------------------------------------


def stacked(values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: stacked([value[key] for value in values]) for key in values[0]}
    if isinstance(values[0], tuple):
        return tuple(stacked(list(part)) for part in zip(*values, strict=True))
    return np.array(values)


def zeros_like(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: zeros_like(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(zeros_like(part) for part in value)
    return np.zeros_like(value)


def taken(value: Any, which: Any) -> Any:
    if isinstance(value, dict):
        return {key: taken(part, which) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(taken(part, which) for part in value)
    return value[which]


def same(found: Any, expected: Any, but: Iterable[str] = (), name: str = "batch") -> None:
    """Fail unless nested values are equal, and their shapes and keys."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), name
        assert found.keys() - set(but) == expected.keys(), name
        for key, part in expected.items():
            same(found[key], part, (), f"{name} {key}")
    elif isinstance(expected, tuple):
        assert len(found) == len(expected), name
        for place, part in enumerate(expected):
            same(found[place], part, (), f"{name} {place}")
    else:
        assert found.shape == expected.shape, f"{name}: {found.shape}, not {expected.shape}"
        if not np.array_equal(found, expected):
            raise AssertionError(f"{name}: {found} must be {expected}")


# --- a buffer, its twin and a world --------------------------------------------------------------


def observation(kind: str, place: np.ndarray) -> Any:
    """Return what is seen at a place [1000 * stream + episode, t] of a world."""
    episode, time = int(place[0]), int(place[1])
    if kind == "plain":
        return place.astype(np.float32)
    if kind == "small":
        return {"place": place.astype(np.float32), "time": (np.int64(time),)}
    frames = BANK[(37 * episode + np.maximum(np.arange(time - 3, time + 1), 0)) % len(BANK)]
    if kind == "shared":
        return frames[-1].astype(np.float32)
    if kind == "nested":
        return {"image": frames, "place": (place.astype(np.float32),)}
    return frames


@dataclass
class Pair:
    """A buffer of sequences beside its twin; every call is made on both and compared."""

    replay: per.ReplayBuffer
    twin: ReferenceSequences
    world: World
    kind: str = "plain"
    memory: str | None = None  # the name of a column that is kept once for a sequence

    @classmethod
    def build(
        cls,
        sequence: Any,
        num_envs: int | None,
        mode: str,
        script: Any,
        *,
        capacity: int = 100,
        sampler: Any = None,
        kind: str = "plain",
        memory: bool = False,
        **options: Any,
    ) -> "Pair":
        """Make the three; without `num_envs` there is one stream without an axis."""
        streams = num_envs or 1
        more = {"memory": per.Field((2,), per_sequence=True)} if memory else {}
        replay = per.ReplayBuffer(
            capacity, fields_of(kind, **more), sampler=sampler, gamma=GAMMA, seed=0,
            num_envs=num_envs, autoreset=mode, sequence=sequence, **options,
        )  # fmt: skip
        twin = ReferenceSequences(capacity, sequence, sampler, streams, per_sequence=list(more))
        return cls(replay, twin, World(streams, mode, script), kind, "memory" if memory else None)

    def seen(self, step: Step | None) -> Step | None:
        """Return a step as its environment shows it."""
        if step is None:
            return None
        extra = dict(step.extra)
        if self.memory:
            extra[self.memory] = np.array([step.action, -step.action], np.float32)
        obs, next_obs = (observation(self.kind, place) for place in (step.obs, step.next_obs))
        return Step(obs, step.action, step.reward, next_obs, None, extra)

    def arguments(self, call: Call, single: bool) -> dict[str, Any]:
        """Return those of `add`."""

        def show(places: Any) -> Any:
            if not len(places):
                return taken(stacked([observation(self.kind, np.zeros(2))]), slice(0, 0))
            return stacked([observation(self.kind, place) for place in places])

        given: dict[str, Any] = {"tag": call.tag}
        if self.memory:
            given[self.memory] = np.stack([call.action, -call.action], axis=1)
        given |= {
            "obs": show(call.obs), "action": call.action, "reward": call.reward,
            "next_obs": show(call.next_obs), "terminated": call.terminated,
            "truncated": call.truncated,
        }  # fmt: skip
        ended = call.terminated | call.truncated
        if self.world.mode == "same_step" and ended.any():
            final = [step.next_obs if step else np.zeros(2) for step in call.steps]
            given["info"] = {"final_obs": show(final)}
            if self.kind == "plain" and len(ended) > 1:  # as Gymnasium gives them
                objects = np.full(len(ended), None, dtype=object)
                for row in np.flatnonzero(ended):
                    objects[row] = show(final)[row]
                given["info"] = {"final_obs": objects, "_final_obs": ended}
        if single:
            given = {name: taken(value, 0) for name, value in given.items()}
        return given

    def add(self, streams: Sequence[int] | int | None = None) -> Call:
        """Step the environments and give the step to both."""
        single = self.replay.num_envs is None or isinstance(streams, int)
        chosen = [streams] if isinstance(streams, int) else streams
        call = self.world.step(chosen)
        given = self.arguments(call, single)
        if streams is not None and self.replay.num_envs is not None:
            given["env"] = streams if single else np.array(streams, np.int64)
        ids = self.replay.add(**given)
        assert ids.dtype == np.int64
        steps = [self.seen(step) for step in call.steps]
        self.same_ids(ids, self.twin.add(call.streams, steps, call.endings))
        return call

    def add_episode(self, stream: int, most: int) -> None:
        """Play one environment to the end of its episode, at most so many steps, and add that."""
        calls = []
        while len(calls) < most:
            calls.append(self.world.step([stream]))
            if calls[-1].terminated[0] or calls[-1].truncated[0]:
                break
        last = calls[-1]
        final = last.steps[0].next_obs if last.steps[0] else last.next_obs[0]
        places = [call.obs[0] for call in calls] + [final]
        given: dict[str, Any] = {
            "obs": stacked([observation(self.kind, place) for place in places]),
            **{
                name: np.concatenate([getattr(call, name) for call in calls])
                for name in ("action", "reward", "tag")
            },
        }
        if self.memory:
            given[self.memory] = np.stack([given["action"], -given["action"]], axis=1)
        terminated, truncated = last.endings[0]
        env = None if self.replay.num_envs is None else stream
        ids = self.replay.add_episode(**given, terminated=terminated, truncated=truncated, env=env)
        steps = [self.seen(call.steps[0]) for call in calls]
        self.same_ids(ids, self.twin.add_episode(stream, steps, terminated, truncated))

    def end_episode(self, streams: Sequence[int] | int | None = None) -> None:
        chosen = [streams] if isinstance(streams, int) else streams
        if self.replay.num_envs is None or streams is None:
            ids, chosen = self.replay.end_episode(), None
        else:
            ids = self.replay.end_episode(env=streams)
        self.same_ids(ids, self.twin.end_episode(chosen))

    def update(self, ids: Sequence[int], td_errors: Any) -> None:
        applied = self.replay.update_priorities(np.array(ids, np.int64), td_errors)
        assert applied == self.twin.update(ids, td_errors)

    def clear(self) -> None:
        self.replay.clear()
        self.twin.clear()

    def sample(self, batch_size: int, beta: float = 0.5) -> Any:
        batch = self.replay.sample(batch_size, beta=beta)
        self.twin.check_batch(batch, beta, self.replay.priorities(self.twin.ids))
        return batch

    def same_ids(self, ids: np.ndarray, expected: list[int]) -> None:
        assert ids.tolist() == expected, f"{ids.tolist()} became drawable, not {expected}"
        assert len(self.replay) == len(self.twin.sequences)

    def compare(self) -> None:
        """Everything that can be seen."""
        replay, twin = self.replay, self.twin
        stats = replay.stats()
        assert len(replay) == stats["size"] == len(twin.sequences)
        assert replay.ids_issued == stats["ids_issued"] == twin.issued
        assert stats["steps"] == len(twin.rows)
        assert stats["stale_updates"] == twin.stale_updates
        ids = twin.ids
        if not ids.size:
            return
        priorities = replay.priorities(ids)
        expected = [twin.priority[i] for i in ids.tolist()]
        np.testing.assert_allclose(priorities, expected, rtol=1e-12)
        # Equal within rounding is not equal: for ranks, the buffer's own numbers count.
        twin.check_batch(replay.get(ids, 0.5), 0.5, priorities)
