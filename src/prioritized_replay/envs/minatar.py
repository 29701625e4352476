"""Pictures of MinAtar games, made from their observations, bool[10, 10, C]."""

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

_SCALE = 16  # pixels of the picture for one of the game


class MinAtarScreen(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Draws a game, one colour for each kind of thing.

    minatar's own pictures need seaborn, a package for statistics.

    Parameters
    ----------
    env : gymnasium.Env
        With observations bool[height, width, C].
    render_mode : str
        "rgb_array" is the only one.

    Raises
    ------
    ValueError
        Another one was asked for.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], render_mode: str) -> None:
        super().__init__(env)
        if render_mode != "rgb_array":
            raise ValueError(f"render_mode must be rgb_array, got {render_mode!r}")
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
        assert env.observation_space.shape is not None
        self._colours = _colours(env.observation_space.shape[-1])
        self._seen: npt.NDArray[np.bool_] | None = None

    @property
    def render_mode(self) -> str:  # type: ignore[override]
        """How it is drawn."""
        return "rgb_array"

    def reset(self, **settings: Any) -> tuple[Any, dict[str, Any]]:
        """Begin another game."""
        self._seen, info = self.env.reset(**settings)
        return self._seen, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take an action."""
        self._seen, *outcome = self.env.step(action)
        return self._seen, *outcome  # type: ignore[return-value]

    def render(self) -> Any:
        """Return the picture, uint8[160, 160, 3]."""
        assert self._seen is not None, "render comes after reset"
        channels = np.arange(1, self._seen.shape[-1] + 1)
        uppermost = (self._seen * channels).max(axis=2)
        return self._colours[uppermost].repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)


def _colours(channels: int) -> npt.NDArray[np.uint8]:
    """Return black and ``channels`` colours that go once around the circle, brighter by and by."""
    turn = np.arange(channels)[:, None] / channels + np.array([0.0, 1 / 3, 2 / 3])
    hues = 0.5 + 0.5 * np.cos(2.0 * np.pi * turn)
    bright = np.linspace(0.6, 1.0, channels)[:, None]
    return np.vstack([np.zeros((1, 3)), 255.0 * hues * bright]).astype(np.uint8)
