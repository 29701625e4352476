"""One episode, played by a policy, as an animated GIF.

Knows Gymnasium's rendering and Pillow; knows nothing of training.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import gymnasium
import numpy as np
from PIL import Image

from prioritized_replay.envs.make import make_env

_WIDTH = 320  # pixels; enough to see what happens
_RATE = 25  # frames per second at most: GIF counts in hundredths, and players dislike less than 3
_FRAMES = 400  # at most; a longer episode is shown with fewer frames per second, not cut
_COLOURS = 64


@dataclass(frozen=True)
class Recording:
    """What was recorded: the episode's return and steps, the file's frames and bytes."""

    episode_return: float
    steps: int
    frames: int
    size: int


def record_gif(
    policy: Callable[[Any], int],
    env_id: str,
    file: BinaryIO,
    *,
    seed: int,
    sticky_actions: float | None = None,
    max_steps: int = 10_000,
) -> Recording:
    """Play one episode and write it as a GIF that keeps the environment's own pace.

    Parameters
    ----------
    policy : callable
        From an observation to an action.
    env_id : str
    file : binary file
        Open for writing.
    seed : int
        Of the environment.
    sticky_actions : float, optional
        As for :func:`~prioritized_replay.envs.make_env`.
    max_steps : int
        Where to stop an episode that does not end before.

    Raises
    ------
    ValueError
        The environment is unknown or cannot be rendered as images.
    ImportError
        It needs a package that is not installed.
    OSError
        The file cannot be written.
    """
    # Pygame must neither ask for a screen nor greet on stdout.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    probe = make_env(env_id)
    modes = probe.metadata.get("render_modes") or []
    probe.close()
    if "rgb_array" not in modes:
        offered = ", ".join(modes) or "nothing"
        raise ValueError(f"{env_id} cannot be recorded: it renders {offered}, not rgb_array")
    env = make_env(env_id, sticky_actions=sticky_actions, render_mode="rgb_array")
    rate = float(env.metadata.get("render_fps") or 30)
    stride = max(1, round(rate / _RATE))
    frames: list[Image.Image] = []
    try:
        obs, _ = env.reset(seed=seed)
        total, steps, ended = 0.0, 0, False
        frames.append(_frame(env))
        while not ended and steps < max_steps:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            total, steps, ended = total + float(reward), steps + 1, terminated or truncated
            if steps % stride == 0 or ended:
                frames.append(_frame(env))
            if len(frames) > _FRAMES:  # halve what was kept, and keep half as much from now on
                del frames[1::2]
                stride *= 2
    finally:
        env.close()
    # A GIF counts in hundredths of a second: rounding the times, not the pauses, keeps the pace.
    hundredths = np.round(np.arange(len(frames)) * stride / rate * 100)
    pauses = [10 * int(pause) for pause in np.diff(hundredths)] + [1000]  # the end: worth a look
    first, rest = frames[0], frames[1:]
    first.save(file, "GIF", save_all=True, append_images=rest, duration=pauses, loop=0)
    return Recording(total, steps, len(frames), file.tell())


def _frame(env: gymnasium.Env[Any, Any]) -> Image.Image:
    pixels = np.asarray(env.render(), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.thumbnail((_WIDTH, _WIDTH), Image.Resampling.BILINEAR)
    return image.quantize(_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
