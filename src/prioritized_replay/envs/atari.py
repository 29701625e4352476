"""Atari games, prepared for a network as in the DQN papers: one, or several side by side.

Knows ale_py's vector environment and Gymnasium; knows nothing of networks, replay or training.
Axes: E games side by side.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

FRAME_SKIP = 4
_MOST_FRAMES = 108_000  # half an hour of play
MOST_STEPS = _MOST_FRAMES // FRAME_SKIP
"""Steps after which a game is cut off."""
_SEEDS = 2**31 - 1


def atari_vector(
    settings: Mapping[str, Any],
    num_envs: int,
    *,
    threads: int = 1,
    end_on_life_loss: bool = False,
    **pictures: Any,
) -> VectorEnv[Any, Any, Any]:
    """Make E games in one vector environment; a game that ends is reset in the same step.

    An action is held for 4 frames, of which the last two are merged by their maximum, made grey and
    84x84; an observation is the latest 4 of these, uint8[4, 84, 84]. At first the earlier ones are
    black. A game begins with up to 30 frames without an action, and is cut off after 108,000
    frames. Rewards are the game's own.

    Parameters
    ----------
    settings : mapping
        As in Gymnasium's registry: ``game``, the name of the ROM; optionally
        ``repeat_action_probability`` and ``full_action_space``.
    num_envs : int
        E.
    threads : int
        How many threads play them.
    end_on_life_loss : bool
        See :class:`LifeByLife`.
    **pictures
        ale_py's options for preparing frames, where not as above.
    """
    kept = ("game", "repeat_action_probability", "full_action_space", "mode", "difficulty")
    games: VectorEnv[Any, Any, Any] = AtariVectorEnv(
        num_envs=num_envs,
        num_threads=min(threads, num_envs),
        frameskip=FRAME_SKIP,
        noop_max=30,
        max_num_frames_per_episode=_MOST_FRAMES,
        autoreset_mode=AutoresetMode.SAME_STEP,
        reward_clipping=False,
        use_fire_reset=False,
        life_loss_info=end_on_life_loss,
        **{name: settings[name] for name in kept if settings.get(name) is not None},
        **pictures,
    )
    return LifeByLife(games) if end_on_life_loss else games


class LifeByLife(VectorWrapper):
    """Ends an episode where a life is lost, while the game continues.

    ale_py's ``life_loss_info`` terminates these steps, but their final observation is that of
    another step; this wrapper corrects it. ``info["game_over"]`` says where whole games ended.

    Parameters
    ----------
    games : AtariVectorEnv
        With ``life_loss_info`` and of autoreset mode SAME_STEP.
    """

    def __init__(self, games: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(games)
        self._frames = np.zeros(games.num_envs, np.int64)

    def reset(self, **settings: Any) -> tuple[Any, dict[str, Any]]:
        """Begin all games anew."""
        observations, info = self.env.reset(**settings)
        self._frames = info["episode_frame_number"]
        return observations, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take an action in each game."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        ended = terminated | truncated
        frames = info["episode_frame_number"]
        over = ended & (frames < self._frames)  # it has begun anew
        self._frames = frames
        went_on = ended & ~over
        if went_on.any():
            info["final_obs"][went_on] = observations[went_on]
        info["game_over"] = over
        return observations, rewards, terminated, truncated, info


class AtariGame(gymnasium.Env[npt.NDArray[np.uint8], int]):
    """One game, played as :func:`atari_vector` does.

    Parameters
    ----------
    settings : mapping
        As for :func:`atari_vector`.
    render_mode : {"rgb_array", None}
        Whether :meth:`render` gives the screen in colour.

    Raises
    ------
    ValueError
        Another ``render_mode`` was asked for.
    """

    def __init__(self, settings: Mapping[str, Any], *, render_mode: str | None = None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be rgb_array, got {render_mode!r}")
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 60 // FRAME_SKIP}
        self.render_mode = render_mode
        self._games = [atari_vector(settings, 1)]
        if render_mode is not None:
            # The same game once more, at full size: with one seed both go the same way.
            self._games.append(
                atari_vector(
                    settings, 1, img_height=210, img_width=160, grayscale=False, stack_num=1
                )
            )
        self.observation_space = self._games[0].single_observation_space
        self.action_space = self._games[0].single_action_space
        self._screen: npt.NDArray[np.uint8] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        """Begin another game."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(_SEEDS))
        observations = [games.reset(seed=seed % _SEEDS)[0][0] for games in self._games]
        self._screen = observations[-1][0]
        return observations[0], {}

    def step(self, action: int) -> tuple[npt.NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Hold an action for 4 frames."""
        actions = np.array([action])
        outcomes = [games.step(actions) for games in self._games]
        observations, rewards, terminated, truncated, info = outcomes[0]
        ended = bool(terminated[0] or truncated[0])
        observation = (info["final_obs"] if ended else observations)[0]
        shown, *_, seen = outcomes[-1]
        self._screen = (seen["final_obs"] if ended else shown)[0, 0]
        return observation, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> Any:
        """Return the screen, uint8[210, 160, 3]."""
        return self._screen if self.render_mode is not None else None

    def close(self) -> None:
        """Let go of the emulators."""
        for games in self._games:
            games.close()
