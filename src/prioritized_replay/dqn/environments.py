"""Environments by name: any of Gymnasium's, with the frames of Atari games made ready for a network.

Knows Gymnasium, ale_py and minatar; knows nothing of networks, replay or training.
"""

import difflib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

_FRAME_SKIP = 4
_FULL_SIZE = (210, 160)

# Importing these packages tells Gymnasium of their environments.
_EXTRA = {"ALE": ("ale_py", "atari"), "MinAtar": ("minatar.gym", "minatar")}


class AtariGame(gymnasium.Env[npt.NDArray[np.uint8], int]):
    """One Atari game as its screen is shown to a network.

    An action is held for 4 frames, of which the last two are merged by their maximum, made grey and
    84x84; an observation is the latest 4 of these. Before the first frames of a game are black. A
    game begins with up to 30 frames in which nothing is done, and is cut off after 108,000.
    Rewards are the game's own.

    Parameters
    ----------
    game : str
        Name of the ROM, for example pong.
    sticky_actions : float
        Chance that a frame repeats the action before instead.
    full_action_space : bool
        All 18 actions of the joystick instead of those that do something in this game.
    render_mode : {"rgb_array", None}
        Whether :meth:`render` gives the screen in colour.

    Notes
    -----
    Played by ale_py's vector environment, which does all this in C++.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 60 // _FRAME_SKIP}

    def __init__(
        self,
        game: str,
        *,
        sticky_actions: float = 0.0,
        full_action_space: bool = False,
        render_mode: str | None = None,
    ) -> None:
        settings = {
            "sticky_actions": sticky_actions,
            "full_action_space": full_action_space,
        }
        self._game = _atari_vector(game, 1, **settings)
        # A second one plays the same game at full size: with the same seed nothing differs.
        self._shown = None
        if render_mode == "rgb_array":
            height, width = _FULL_SIZE
            self._shown = _atari_vector(
                game, 1, **settings, img_height=height, img_width=width, grayscale=False,
                stack_num=1, maxpool=False,
            )  # fmt: skip
        self.render_mode = render_mode
        self.observation_space = self._game.single_observation_space
        self.action_space = self._game.single_action_space
        self._screen: npt.NDArray[np.uint8] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        """Begin another game."""
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.integers(2**31 - 1))
        seed %= 2**31 - 1
        observations, _ = self._game.reset(seed=seed)
        if self._shown is not None:
            screens, _ = self._shown.reset(seed=seed)
            self._screen = screens[0, 0]
        return observations[0], {}

    def step(
        self, action: int
    ) -> tuple[npt.NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Hold an action for 4 frames."""
        actions = np.array([action])
        observations, rewards, terminated, truncated, _ = self._game.step(actions)
        if self._shown is not None:
            screens, *_ = self._shown.step(actions)
            self._screen = screens[0, 0]
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> Any:
        """Return the screen, uint8[210, 160, 3]."""
        return self._screen

    def close(self) -> None:
        """Let go of the emulator."""
        self._game.close()
        if self._shown is not None:
            self._shown.close()


def make_env(
    env_id: str, *, sticky_actions: float | None = None, render_mode: str | None = None
) -> gymnasium.Env[Any, Any]:
    """Make an environment, with one clear line where that fails.

    Parameters
    ----------
    env_id : str
        A Gymnasium environment, for example CartPole-v1. ALE/Pong-v5 and its like become an
        :class:`AtariGame`.
    sticky_actions : float, optional
        For ALE and MinAtar: the chance that an action is replaced by the one before. By default
        the environment's own.
    render_mode : str, optional
        As for ``gymnasium.make``.

    Raises
    ------
    ValueError
        The id is unknown; the message gives near ones. Or the environment has no sticky actions.
    ImportError
        The environment needs a package that is not installed.
    """
    spec = _spec(env_id)
    settings: dict[str, Any] = {}
    if sticky_actions is not None:
        settings[_sticky_name(env_id)] = sticky_actions
    if _is_atari(spec):
        return AtariGame(**_atari_settings(spec, sticky_actions), render_mode=render_mode)
    if render_mode is not None:
        settings["render_mode"] = render_mode
    return _making(env_id, lambda: gymnasium.make(env_id, **settings))


def _making(env_id: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except gymnasium.error.DependencyNotInstalled as error:
        raise ImportError(f"{env_id} needs a package that is not installed: {error}") from error


def _spec(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    """Return what Gymnasium knows of an environment, after importing what it comes with."""
    namespace = env_id.split("/")[0] if "/" in env_id else ""
    if namespace in _EXTRA:
        module, extra = _EXTRA[namespace]
        try:
            package = import_module(module)
        except ImportError as error:
            raise ImportError(
                f"{env_id} needs a package that is not installed: "
                f"pip install 'prioritized-replay[{extra}]'"
            ) from error
        if namespace == "MinAtar" and not any(i.startswith("MinAtar/") for i in gymnasium.registry):
            package.register_envs()
    try:
        return gymnasium.spec(env_id)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ImportError(f"{env_id} needs a package that is not installed: {error}") from error
    except gymnasium.error.Error as error:
        known = {name.lower(): name for name in gymnasium.registry}
        matches = difflib.get_close_matches(env_id.lower(), known, n=3)
        near = ", ".join(known[match] for match in matches)
        raise ValueError(
            f"env_id must be a registered Gymnasium environment, got {env_id!r}"
            + (f"; near names: {near}" if near else "")
        ) from error


def _is_atari(spec: gymnasium.envs.registration.EnvSpec) -> bool:
    return spec.entry_point == "ale_py.env:AtariEnv" and spec.kwargs.get("obs_type") != "ram"


def _sticky_name(env_id: str) -> str:
    names = {"ALE": "repeat_action_probability", "MinAtar": "sticky_action_prob"}
    namespace = env_id.split("/")[0]
    if namespace not in names:
        raise ValueError(f"sticky_actions must be None: {env_id} has none, only ALE and MinAtar do")
    return names[namespace]


def _atari_settings(
    spec: gymnasium.envs.registration.EnvSpec, sticky_actions: float | None
) -> dict[str, Any]:
    own = spec.kwargs
    return {
        "game": own["game"],
        "sticky_actions": (
            own.get("repeat_action_probability", 0.0) if sticky_actions is None else sticky_actions
        ),
        "full_action_space": own.get("full_action_space", False),
    }


def _atari_vector(
    game: str,
    num_envs: int,
    *,
    sticky_actions: float,
    full_action_space: bool,
    **settings: Any,
) -> Any:
    from ale_py.vector_env import AtariVectorEnv

    return AtariVectorEnv(
        game,
        num_envs,
        num_threads=1,
        frameskip=_FRAME_SKIP,
        noop_max=30,
        max_num_frames_per_episode=108_000,
        repeat_action_probability=sticky_actions,
        full_action_space=full_action_space,
        reward_clipping=False,
        use_fire_reset=False,
        **settings,
    )
