"""Environments by name: any of Gymnasium's; Atari games come as small stacked grey images.

Knows Gymnasium, ale_py and minatar; knows nothing of networks, replay or training.
Axes: E environments side by side.
"""

import difflib
from importlib import import_module
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from prioritized_replay.extras import install_command

# Importing these packages tells Gymnasium of their environments.
_PACKAGES = {"ALE": ("ale_py", "atari"), "MinAtar": ("minatar.gym", "minatar")}
_STICKY = {"ALE": "repeat_action_probability", "MinAtar": "sticky_action_prob"}


def make_env(
    env_id: str, *, sticky_actions: float | None = None, render_mode: str | None = None
) -> gymnasium.Env[Any, Any]:
    """Make one environment; where that fails, the error is one clear line.

    Parameters
    ----------
    env_id : str
        A Gymnasium environment, for example CartPole-v1. An observation of an ALE game is the
        latest four images, grey and 84x84. An id like ``my_envs:Room-v0`` imports ``my_envs``.
    sticky_actions : float, optional
        For ALE and MinAtar: the chance that an action is replaced by the one before. By default
        the environment's own.
    render_mode : str, optional
        As for ``gymnasium.make``.

    Raises
    ------
    ValueError
        The id is unknown (the message gives near ones), or ``sticky_actions`` is given for an
        environment without.
    ImportError
        The environment needs a package that is not installed.

    Examples
    --------
    >>> env = make_env("CartPole-v1")
    >>> env.action_space
    Discrete(2)
    """
    spec = spec_of(env_id)
    settings = _sticky(env_id, sticky_actions)
    if _is_atari(spec):
        from prioritized_replay.envs.atari import AtariGame

        return AtariGame(spec.kwargs | settings, render_mode=render_mode)
    try:
        if render_mode is not None and _namespace(env_id) == "MinAtar":
            from prioritized_replay.envs.minatar import MinAtarScreen

            return MinAtarScreen(gymnasium.make(env_id, **settings), render_mode)
        if render_mode is not None:
            settings["render_mode"] = render_mode
        return gymnasium.make(env_id, **settings)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ImportError(f"{env_id} needs a package that is not installed: {error}") from error


def make_vector(
    env_id: str,
    num_envs: int,
    *,
    sticky_actions: float | None = None,
    end_on_life_loss: bool = False,
    threads: int = 1,
) -> VectorEnv[Any, Any, Any]:
    """Make E environments that are stepped side by side and reset themselves (SAME_STEP).

    Parameters
    ----------
    env_id : str
        As for :func:`make_env`.
    num_envs : int
        E, at least 1.
    sticky_actions : float, optional
        As for :func:`make_env`.
    end_on_life_loss : bool
        For ALE: an episode is terminated where a life is lost, and the game continues.
        ``info["game_over"]``, bool[E], says where a whole game ended.
    threads : int
        For ALE: threads that play the games.

    Returns
    -------
    gymnasium.vector.VectorEnv
        Of autoreset mode SAME_STEP: final observations are in ``info["final_obs"]``.

    Raises
    ------
    ValueError
        As :func:`make_env`; or ``num_envs`` is below 1, or ``end_on_life_loss`` is asked of an
        environment without lives.
    ImportError
        As :func:`make_env`.

    Examples
    --------
    >>> import numpy as np
    >>> envs = make_vector("CartPole-v1", num_envs=2)
    >>> obs, info = envs.reset(seed=0)
    >>> while "final_obs" not in info:
    ...     obs, reward, terminated, truncated, info = envs.step(np.ones(2, int))
    >>> e = int(terminated.argmax())
    >>> bool(abs(obs[e, 2]) < 0.05), bool(abs(info["final_obs"][e][2]) > 0.2)  # begun, fallen
    (True, True)
    """
    if num_envs < 1:
        raise ValueError(f"num_envs must be >= 1, got {num_envs}")
    spec = spec_of(env_id)
    settings = _sticky(env_id, sticky_actions)
    if _is_atari(spec):
        from prioritized_replay.envs.atari import atari_vector

        return atari_vector(
            spec.kwargs | settings, num_envs, threads=threads, end_on_life_loss=end_on_life_loss
        )
    if end_on_life_loss:
        raise ValueError(f"end_on_life_loss must be False: only ALE games have lives, got {env_id}")
    return SyncVectorEnv(
        [lambda: make_env(env_id, sticky_actions=sticky_actions)] * num_envs,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )


def plays_vectors_only(env_id: str) -> bool:
    """Return whether even a single environment is best made by :func:`make_vector` (ALE games)."""
    return _is_atari(spec_of(env_id))


def spec_of(env_id: str) -> EnvSpec:
    """Return Gymnasium's entry for an environment, after importing the package that has it.

    Raises
    ------
    ValueError, ImportError
        As for :func:`make_env`.
    """
    name = env_id.rpartition(":")[2]
    try:
        if module := module_of(env_id):  # Gymnasium's way to name a module to import
            import_module(module)
        if _namespace(name) in _PACKAGES:
            _import_package(name)
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        known = {name.lower(): name for name in gymnasium.registry}
        matches = difflib.get_close_matches(env_id.lower(), known, n=3)
        near = ", ".join(known[match] for match in matches)
        raise ValueError(
            f"env_id must be a registered Gymnasium environment, got {env_id!r}"
            + (f"; near names: {near}" if near else "")
        ) from error


def step_limit(env_id: str) -> int | None:
    """Return the steps after which an environment itself ends an episode; None if it never does.

    This is the time limit that Gymnasium's registry names. An environment without one may still
    end its episodes, at a goal for example; nothing is known of when.

    Raises
    ------
    ValueError, ImportError
        As for :func:`make_env`.

    Examples
    --------
    >>> step_limit("CartPole-v1"), step_limit("CliffWalking-v1")
    (500, None)
    """
    spec = spec_of(env_id)
    if _is_atari(spec):
        from prioritized_replay.envs.atari import MOST_STEPS

        return MOST_STEPS
    return spec.max_episode_steps


def module_of(env_id: str) -> str:
    """Return the module that an id like ``my_envs:Room-v0`` asks to import, or an empty text.

    Examples
    --------
    >>> module_of("my_envs:Room-v0"), module_of("CartPole-v1")
    ('my_envs', '')
    """
    return env_id.rpartition(":")[0]


def _import_package(env_id: str) -> None:
    namespace = _namespace(env_id)
    module, extra = _PACKAGES[namespace]
    try:
        package = import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{env_id} needs a package that is not installed here: "
            f"{install_command(extra)} ({error})"
        ) from error
    if not any(known.startswith(f"{namespace}/") for known in gymnasium.registry):
        package.register_envs()  # minatar's way; ale_py does it when imported


def _namespace(env_id: str) -> str:
    return env_id.rpartition("/")[0]


def _is_atari(spec: EnvSpec) -> bool:
    return spec.entry_point == "ale_py.env:AtariEnv" and spec.kwargs.get("obs_type") != "ram"


def _sticky(env_id: str, sticky_actions: float | None) -> dict[str, Any]:
    if sticky_actions is None:
        return {}
    if _namespace(env_id) not in _STICKY:
        raise ValueError(
            f"sticky_actions must be None for {env_id}: only ALE and MinAtar have them, "
            f"got {sticky_actions}"
        )
    if not 0.0 <= sticky_actions <= 1.0:
        raise ValueError(f"sticky_actions must be in [0, 1], got {sticky_actions}")
    return {_STICKY[_namespace(env_id)]: sticky_actions}
