"""RLlib's episode buffer with priorities, for ``per check``: ``proportional``."""

from __future__ import annotations

import pickle
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from prioritized_replay.conformance.memories._libraries import (
    CHANCE,
    NOT_FINITE,
    require_draw,
    unspoken,
    version_of,
)
from prioritized_replay.conformance.memory import (
    Adapter,
    Array,
    Drawn,
    Memory,
    NotClaimed,
    Step,
    VectorStep,
    Wanted,
)

_SETTINGS = (
    "capacity", "alpha", "n_step", "gamma", "num_envs", "obs_shape", "obs_dtype",
    "action_shape", "action_dtype", "stacked", "draw",
)  # fmt: skip
_LEAST = 1e-12  # of an error: nothing is added to it


class _Proportional(Memory):
    def __init__(self, wanted: Wanted) -> None:
        wanted.only(*_SETTINGS)
        require_draw(wanted, "independent")
        self._wanted = wanted
        self._memory = import_module(
            "ray.rllib.utils.replay_buffers"
        ).PrioritizedEpisodeReplayBuffer(wanted.capacity, alpha=wanted.alpha)
        self._episode = import_module("ray.rllib.env.single_agent_episode").SingleAgentEpisode
        self._open: dict[int, Any] = {}  # the episode that goes on in each environment
        self._batches = count()
        self._steps = 0
        self._last: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._memory)

    def add(self, step: Step) -> None:
        self._memory.add(self._chunk(0, step))

    def add_vector(self, step: VectorStep) -> None:
        chunks = [
            self._chunk(
                env,
                Step(
                    step.obs[env], step.action[env], float(step.reward[env]), step.next_obs[env],
                    bool(step.terminated[env]), bool(step.truncated[env]),
                ),
            )
            for env in range(len(step.reward))
        ]  # fmt: skip
        self._memory.add(chunks)

    def add_with_error(self, step: Step, td_error: float) -> None:
        self._memory.add(self._chunk(0, step), weight=abs(td_error))

    def end_episode(self) -> None:
        self._open.clear()  # what comes next is another episode, with an id of its own

    def sample(self, batch_size: int, beta: float) -> Drawn:
        wanted = self._wanted
        rows = self._memory.sample(
            num_items=batch_size, n_step=wanted.n_step, gamma=wanted.gamma, beta=beta
        )
        batch = next(self._batches)
        self._last = [(batch, k) for k in range(batch_size)]
        # as its DQN does: gamma ** batch["n_step"] * (1 - batch["terminateds"])
        steps = np.array([row.get_extra_model_outputs("n_step")[0] for row in rows])
        goes_on = np.array([not row.is_terminated for row in rows])
        return Drawn(
            list(self._last),
            np.stack([row.get_observations(0) for row in rows]),
            np.stack([row.get_actions(0) for row in rows]),
            np.array([row.get_rewards(0) for row in rows]),
            np.stack([row.get_observations(1) for row in rows]),
            wanted.gamma**steps * goes_on,
            np.array([row.get_extra_model_outputs("weights")[0] for row in rows]),
        )

    def update(self, ids: Any, td_errors: Array) -> int | None:
        if list(ids) != self._last:
            raise NotClaimed("priorities are given to the whole of the last batch, once")
        self._memory.update_priorities(np.abs(td_errors))
        self._last = []
        return None

    def save(self, folder: Path) -> None:
        (folder / "state.pkl").write_bytes(pickle.dumps(self._memory.get_state()))

    def load(self, folder: Path) -> None:
        self._memory.set_state(pickle.loads((folder / "state.pkl").read_bytes()))
        self._steps = len(self._memory)

    def _chunk(self, env: int, step: Step) -> Any:
        """Return an episode, or what is new of one that is in the memory already."""
        self._steps += 1
        if self._steps > self._wanted.capacity:
            raise NotClaimed("a full memory ejects whole episodes, and never the only one")
        episode = self._open.pop(env, None)
        if episode is None:
            episode = self._episode()
            episode.add_env_reset(step.obs)
        episode.add_env_step(
            step.next_obs, step.action, step.reward, terminated=step.terminated,
            truncated=step.truncated,
        )  # fmt: skip
        if not episode.is_done:
            self._open[env] = episode.cut()
        return episode


_CUT = (
    "by its documentation a row spans n steps; by its source, a draw whose window would pass the "
    "end of the episode is drawn anew"
)
_WITH_CUT_WINDOWS = (
    "windows-never-cross-an-end", "windows-cut-by-termination-have-no-future",
    "windows-cut-by-truncation-bootstrap", "every-step-begins-a-window",
    "interrupted-episodes-bootstrap", "errors-reach-their-windows",
    "windows-are-weighted-by-the-law", "environments-that-the-caller-resets", "a-vector-of-one",
)  # fmt: skip


def proportional() -> Adapter:
    """Return the adapter of ``PrioritizedEpisodeReplayBuffer``."""
    return Adapter(
        name="rllib, proportional",
        library="ray[rllib]",
        version=version_of("ray"),
        law="proportional",
        make=_Proportional,
        eps=_LEAST,
        not_claimed={
            **unspoken("threads", "concurrency"),
            **unspoken("errors that are not finite", *NOT_FINITE),
            **unspoken("seeds", *CHANCE),
            **dict.fromkeys(_WITH_CUT_WINDOWS, _CUT),
            "open-windows-survive": "its state has no open episodes: what comes next is another",
            "the-callers-arrays-are-copied": "an episode that is collected keeps its caller's "
            "arrays; the memory copies episodes that are added",
            "stacked-frames-are-kept-once": "its connectors stack frames when a batch is made",
        },
        settings="PrioritizedEpisodeReplayBuffer, to which every step is added as a chunk of its "
        "episode; saved by get_state",
    )
