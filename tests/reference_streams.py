"""A brute-force twin of many streams, and a world of scripted environments to drive it with.

The twin keeps whole episodes as lists and computes every window from its episode; it is told which
steps are true ones and knows nothing of autoresets. The world plays E environments and says both:
what a vector environment of a given autoreset mode would hand out, and what truly happened.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tests.reference import FIELDS, ReferenceReplay, Step, window

import prioritized_replay as per

GAMMA = 0.5  # with whole-number rewards every return and discount is exact in float32
MODES = ["next_step", "same_step", "disabled"]
STREAM_FIELDS = {**FIELDS, "tag": per.Field((), "float64")}
COLUMNS = ("obs", "action", "reward", "discount", "next_obs", "tag")

Ending = tuple[bool, bool]  # terminated, truncated
TERMINATED, TRUNCATED, BOTH = (True, False), (False, True), (True, True)


class ReferenceStreams:
    """What a `ReplayBuffer` of E streams must do. A row is computed from its whole episode."""

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        sampler: Any = None,
        n_step: int = 1,
        gamma: float = GAMMA,
    ) -> None:
        self.num_envs, self.n_step, self.gamma = num_envs, n_step, gamma
        self.table = ReferenceReplay(capacity, sampler or per.Proportional())
        self._forget()

    def _forget(self) -> None:
        self.episodes: list[list[Step]] = [[] for _ in range(self.num_envs)]
        self.emitted = [0] * self.num_envs

    @property
    def open_windows(self) -> int:
        return sum(map(len, self.episodes)) - sum(self.emitted)

    @property
    def rows(self) -> dict[int, dict[str, Any]]:
        return self.table.rows

    def clear(self) -> None:
        self.table.clear()
        self._forget()

    def add(self, streams: Sequence[int], steps: Sequence[Step | None], endings: Any) -> list[int]:
        """One step of each of these streams; a step that is None was an autoreset."""
        complete = []
        for stream, step, (terminated, truncated) in zip(streams, steps, endings, strict=True):
            if step is not None:
                self.episodes[stream].append(step)
                complete += self._complete(stream, terminated, terminated or truncated)
        return self._enter(complete)

    def end_episode(self, streams: Iterable[int] | None = None) -> list[int]:
        streams = range(self.num_envs) if streams is None else streams
        return self._enter([row for s in streams for row in self._complete(s, False, True)])

    def _complete(self, stream: int, terminated: bool, ended: bool) -> list[tuple[Any, Any]]:
        """Return the windows of a stream that have become complete, oldest first."""
        episode = self.episodes[stream]
        last = len(episode) if ended else max(len(episode) - self.n_step + 1, 0)
        rows = [
            (window(episode, start, self.n_step, self.gamma, terminated), episode[start].td_error)
            for start in range(self.emitted[stream], last)
        ]
        self.emitted[stream] = max(last, self.emitted[stream])
        if ended:
            self.episodes[stream], self.emitted[stream] = [], 0
        return rows

    def _enter(self, rows: Sequence[tuple[Any, Any]]) -> list[int]:
        return self.table._enter([row for row, _ in rows], [error for _, error in rows])


@dataclass
class Call:
    """The arguments of one `add`, with a leading axis K, and what truly happened in the K rows."""

    streams: list[int]
    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_obs: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    tag: np.ndarray
    td_error: np.ndarray | None
    info: dict[str, Any]
    steps: list[Step | None]

    @property
    def endings(self) -> list[Ending]:
        return list(zip(self.terminated.tolist(), self.truncated.tolist(), strict=True))

    def positional(self, *, scalar: bool = False) -> tuple[Any, ...]:
        values = (self.obs, self.action, self.reward, self.next_obs,
                  self.terminated, self.truncated)  # fmt: skip
        return tuple(value[0] for value in values) if scalar else values

    def named(self, *, scalar: bool = False) -> dict[str, Any]:
        named = {"tag": self.tag, "td_error": self.td_error}
        if scalar:
            named = {name: value if value is None else value[0] for name, value in named.items()}
        return {**named, "info": self.info}


@dataclass
class Life:
    """Where one environment is."""

    episode: int = -1
    t: int = 0
    length: int = 0
    ending: Ending = TERMINATED
    awaits_reset: bool = False


@dataclass
class World:
    """E environments that play scripted episodes, as a vector environment of some mode shows them.

    ``script(stream, episode)`` returns the length and the ending of an episode. An observation is
    [1000 * stream + episode, t], so that no two are equal; actions and tags are serial numbers.
    """

    num_envs: int
    mode: str
    script: Callable[[int, int], tuple[int, Ending]]
    dense: bool = False  # final observations as ALE gives them
    lives: list[Life] = field(init=False)
    serial: int = 0

    def __post_init__(self) -> None:
        self.lives = [Life() for _ in range(self.num_envs)]
        for stream in range(self.num_envs):
            self.reset(stream)

    def reset(self, stream: int) -> None:
        episode = self.lives[stream].episode + 1
        self.lives[stream] = Life(episode, 0, *self.script(stream, episode))

    def observation(self, stream: int) -> np.ndarray:
        life = self.lives[stream]
        return np.array([1000 * stream + life.episode, life.t], np.float32)

    def step(self, streams: Sequence[int] | None = None, errors: bool = False) -> Call:
        """Step some environments, or all."""
        streams = list(range(self.num_envs)) if streams is None else list(streams)
        count = len(streams)
        obs, next_obs = np.zeros((2, count, 2), np.float32)
        action = np.zeros(count, np.int64)
        reward, tag, td_error = np.zeros((3, count))
        ended = np.zeros((2, count), bool)
        final = np.full(count, None, dtype=object)
        steps: list[Step | None] = []
        for k, stream in enumerate(streams):
            life = self.lives[stream]
            self.serial += 1
            action[k], tag[k] = self.serial, self.serial / 8
            td_error[k] = (self.serial % 13 - 6) / 4
            obs[k] = self.observation(stream)
            if life.awaits_reset:
                self.reset(stream)
                next_obs[k] = self.observation(stream)
                steps.append(None)
                continue
            reward[k] = (5 * stream + 3 * life.episode + 7 * life.t) % 11 - 4
            life.t += 1
            next_obs[k] = self.observation(stream)
            steps.append(
                Step(
                    obs[k].copy(),
                    int(action[k]),
                    float(reward[k]),
                    next_obs[k].copy(),
                    float(td_error[k]) if errors else None,
                    {"tag": float(tag[k])},
                )
            )
            if life.t == life.length:
                ended[:, k] = life.ending
                if self.mode == "next_step":
                    life.awaits_reset = True
                    continue
                if self.mode == "same_step":
                    final[k] = next_obs[k].copy()
                self.reset(stream)
                if self.mode == "same_step":
                    next_obs[k] = self.observation(stream)
        info: dict[str, Any] = {}
        if self.mode == "same_step" and self.dense:
            rows = [np.full(2, -99.0) if one is None else one for one in final]
            info = {"final_obs": np.array(rows, np.float32).reshape(count, 2)}
        elif ended.any() and self.mode == "same_step":
            info = {"final_obs": final, "_final_obs": ended.any(axis=0)}
        for array in (obs, action, reward, next_obs, ended, tag, td_error):
            array.flags.writeable = False  # nobody writes into what a caller owns
        return Call(
            streams, obs, action, reward, next_obs, ended[0], ended[1], tag,
            td_error if errors else None, info, steps,
        )  # fmt: skip


@dataclass
class Pair:
    """A buffer of E streams beside its twin; every call is made on both and compared."""

    replay: per.ReplayBuffer
    twin: ReferenceStreams
    world: World
    watch: bool = True  # whether to look at the open windows after every call, which takes time

    @classmethod
    def build(
        cls,
        num_envs: int,
        mode: str,
        script: Callable[[int, int], tuple[int, Ending]],
        *,
        capacity: int = 100,
        n_step: int = 1,
        sampler: Any = None,
        dense: bool = False,
        single: bool = False,
    ) -> "Pair":
        """Make the three; `single` is a buffer without the axis of environments."""
        return cls(
            per.ReplayBuffer(
                capacity, STREAM_FIELDS, sampler=sampler, n_step=n_step, gamma=GAMMA, seed=0,
                num_envs=None if single else num_envs, autoreset=mode,
            ),
            ReferenceStreams(capacity, num_envs, sampler, n_step),
            World(num_envs, mode, script, dense),
        )  # fmt: skip

    def add(
        self,
        streams: Sequence[int] | int | None = None,
        *,
        errors: bool = False,
        single: bool = False,
    ) -> Call:
        """Step the environments and give the step to both."""
        scalar = single or isinstance(streams, int)
        chosen = [streams] if isinstance(streams, int) else streams
        call = self.world.step(chosen, errors)
        named = call.named(scalar=scalar)
        if scalar and self.world.mode == "same_step":
            named["info"] = {key: value[0] for key, value in call.info.items()}
        if streams is not None:
            named["env"] = streams if scalar else np.array(streams, np.int64)
        ids = self.replay.add(*call.positional(scalar=scalar), **named)
        assert ids.dtype == np.int64
        self._same_ids(ids, self.twin.add(call.streams, call.steps, call.endings))
        return call

    def end_episode(self, streams: Sequence[int] | int | None = None) -> None:
        chosen = [streams] if isinstance(streams, int) else streams
        ids = self.replay.end_episode(**({} if streams is None else {"env": streams}))
        self._same_ids(ids, self.twin.end_episode(chosen))

    def clear(self) -> None:
        self.replay.clear()
        self.twin.clear()

    def _same_ids(self, ids: np.ndarray, expected: list[int]) -> None:
        assert ids.tolist() == expected
        assert len(self.replay) == len(self.twin.rows)
        if self.watch:
            self._same_windows()
        live = [i for i in expected if i in self.twin.rows]
        if live:
            self.compare(live)

    def _same_windows(self) -> None:
        assert self.replay.stats()["open_windows"] == self.twin.open_windows

    def compare(self, ids: Sequence[int] | None = None) -> None:
        """Every column and priority of these rows, or of all and the open windows."""
        rows = self.twin.rows
        if ids is None:
            self._same_windows()
            ids = list(rows)
        if not ids:
            return
        batch = self.replay.get(np.array(ids))
        for name in COLUMNS:
            expected = np.array([rows[i][name] for i in ids])
            if not np.array_equal(batch[name], expected):
                raise AssertionError(f"{name} of {ids}: {batch[name]} must be {expected}")
        assert batch.terminated.tolist() == [rows[i]["discount"] == 0 for i in ids]
        assert np.array_equal(
            self.replay.priorities(ids), [self.twin.table.priority[i] for i in ids]
        )
