"""What a Gymnasium environment says of itself: fields, autoreset mode, stacked frames.

It reads attributes of environments and of their wrappers; it does not import Gymnasium.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prioritized_replay.fields.arguments import shown
from prioritized_replay.fields.field import Field
from prioritized_replay.fields.nested import Nested
from prioritized_replay.storage.shared_observation import SharedObservation
from prioritized_replay.streams.autoreset import Autoreset, _alike


def fields_of_space(name: str, space: Any, field: Callable[..., Field] = Field) -> Nested:
    """Return the fields that hold the values of a Gymnasium space.

    Parameters
    ----------
    name : str
        What an error calls the space.
    space : gymnasium.Space
        Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple of these.
    field : callable
        Makes a field from a shape and a dtype.

    Raises
    ------
    ValueError
        If a space has no fixed shape and dtype.
    """
    parts: Any = getattr(space, "spaces", None)  # of Dict and Tuple; Gymnasium need not be imported
    if isinstance(parts, Mapping) and parts:
        return {key: fields_of_space(f"{name}[{key!r}]", s, field) for key, s in parts.items()}
    if (
        isinstance(parts, tuple)
        and parts
        and any(kind.__name__ == "Tuple" for kind in type(space).__mro__)
    ):
        return tuple(fields_of_space(f"{name}[{k}]", s, field) for k, s in enumerate(parts))
    shape, dtype = getattr(space, "shape", None), getattr(space, "dtype", None)
    if not hasattr(space, "shape"):
        raise ValueError(
            f"{name} must be a Gymnasium space, such as env.{name.split('[')[0]}, "
            f"got {shown(space)}"
        )
    if shape is None or dtype is None:
        raise ValueError(f"{name} must have one shape and dtype, got {shown(space)}")
    return field(shape, dtype)


def fields_of_spaces(
    observation_space: Any, action_space: Any, stack_axis: int | None = None
) -> dict[str, Nested]:
    """Return the fields of transitions between two spaces; rewards are float32.

    Parameters
    ----------
    observation_space, action_space : gymnasium.Space
        Of one environment.
    stack_axis : int, optional
        Along which large observations are stacks of frames.

    Raises
    ------
    ValueError
        If a space has no fixed shape and dtype.
    """

    def observed(shape: tuple[int, ...], dtype: Any) -> Field:
        plain = Field(shape, dtype)
        if stack_axis is None or len(shape) < 2 or not SharedObservation.worthwhile(plain):
            return plain
        return Field(shape, dtype, stack_axis)

    return {
        "obs": fields_of_space("observation_space", observation_space, observed),
        "action": fields_of_space("action_space", action_space),
        "reward": Field((), "float32"),
    }


def known_of(env: Any) -> tuple[dict[str, Nested], dict[str, Any]]:
    """Return what an environment or vector environment says of itself, through its wrappers.

    Returns
    -------
    fields : dict
        Of its transitions.
    options : dict
        ``autoreset``, None where it is not said, and ``num_envs`` of a vector environment.

    Raises
    ------
    ValueError
        If it is no environment, or hands out the same array with every observation, or as
        :func:`fields_of_spaces`.
    """
    if isinstance(env, type) or not (
        hasattr(env, "observation_space") and hasattr(env, "action_space")
    ):
        name = repr(env) if isinstance(env, str) else "..."
        raise ValueError(
            "env must be an environment or a vector environment of Gymnasium, as "
            f"gymnasium.make({name}) returns it, got {shown(env)}"
        )
    _require_copies(env)
    spaces = env.observation_space, env.action_space
    options: dict[str, Any] = {"autoreset": mode_of(env)}
    if hasattr(env, "num_envs"):
        if not hasattr(env, "single_observation_space"):
            raise ValueError(
                "env must be an environment or a vector environment of Gymnasium, got one with "
                f"num_envs but no single_observation_space: {type(env).__name__}. For another "
                "library's, use for_spaces with num_envs and autoreset"
            )
        spaces = env.single_observation_space, env.single_action_space
        options["num_envs"] = int(env.num_envs)
    return fields_of_spaces(*spaces, stack_axis_of(env)), options


def _require_copies(env: Any) -> None:
    """Raise ValueError if a vector environment writes all observations into the same arrays."""
    for layer in wrappers(env):
        if hasattr(layer, "num_envs") and getattr(layer, "__dict__", {}).get("copy") is False:
            raise ValueError(
                "env must hand out new arrays with every observation, got "
                f"{type(layer).__name__} with copy=False, where obs becomes next_obs before it is "
                "added: make it with copy=True"
            )


def wrappers(env: Any) -> Iterator[Any]:
    """Iterate over an environment and what it wraps, outermost first."""
    while env is not None:
        yield env
        # Not getattr alone: wrappers pass attributes that they lack on to what they wrap.
        env = vars(env).get("env") if hasattr(env, "__dict__") else None


def mode_of(env: Any) -> Autoreset | None:
    """Return the mode that an environment declares, None where it does not.

    A vector environment has it in its metadata, through wrappers; a single one has it if
    Gymnasium's wrapper Autoreset is among its own.
    """
    if not hasattr(env, "num_envs"):
        kinds = [kind.__name__ for layer in wrappers(env) for kind in type(layer).__mro__]
        return "next_step" if "Autoreset" in kinds else None
    for layer in wrappers(env):
        mode = (getattr(layer, "metadata", None) or {}).get("autoreset_mode")
        if mode is not None:
            return _alike(str(getattr(mode, "value", mode)))
    return None


STACKING = {"FrameStackObservation", "FrameStack", "AtariVectorEnv"}
"""Names of the classes that put frames along a new first axis."""
MOST_FRAMES = 32
"""In a stack that an environment tells of."""


def stack_axis_of(env: Any) -> int | None:
    """Return the axis along which an environment stacks frames, from its wrappers.

    Parameters
    ----------
    env : gymnasium.Env or gymnasium.vector.VectorEnv
        Wrapped in any number of wrappers. Environments of another process cannot be looked at.

    Returns
    -------
    int or None
        Of an observation of one environment, or of each leaf of it. None says nothing: there may be
        a stack all the same.
    """
    space = getattr(env, "single_observation_space", getattr(env, "observation_space", None))
    if not _may_be_stacked(space):
        return None
    layer = env
    while layer is not None:
        if any(kind.__name__ in STACKING for kind in type(layer).__mro__):
            return 0
        below = layer.__dict__.get("env") if hasattr(layer, "__dict__") else None
        if below is None and (several := getattr(layer, "envs", None)):
            below = several[0]
        layer = below
    return None


def _may_be_stacked(space: Any) -> bool:
    """Return whether all leaves of a space have a first axis of the length of a stack."""
    parts = getattr(space, "spaces", None)
    if parts is not None:
        leaves = list(parts.values() if hasattr(parts, "values") else parts)
        return bool(leaves) and all(_may_be_stacked(leaf) for leaf in leaves)
    shape: tuple[int, ...] = getattr(space, "shape", None) or (0,)
    return 2 <= shape[0] <= MOST_FRAMES
