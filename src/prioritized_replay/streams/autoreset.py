"""What environments do after an episode's end: Gymnasium's three modes, and how to tell.

It knows the conventions of Gymnasium and of ALE; it does not import them, and keeps no state.

========== =====================================================================================
next_step  The step after the end ignores its action and returns the first observation of the next
           episode: no transition.
same_step  The last step of an episode returns the first observation of the next one; its own final
           observation comes in ``info["final_obs"]``.
disabled   The caller resets; nothing has to be known.
========== =====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.fields.arguments import shown

Autoreset = Literal["next_step", "same_step", "disabled"]
FINAL = "info['final_obs']"
TERMINAL = "terminal_observation"  # Stable-Baselines3's name for a final observation
TIME_LIMIT = "TimeLimit.truncated"  # and of the mark of an end that terminated nothing
MODES: tuple[Autoreset, ...] = get_args(Autoreset)


def chosen_mode(autoreset: Any, num_envs: int | None) -> Autoreset:
    """Return the mode a buffer is to assume.

    Raises
    ------
    ValueError
        If ``autoreset`` is none of the three, or not given where ``num_envs`` is, or
        ``"same_step"`` for a single environment: there is no such.
    """
    autoreset = named(autoreset)
    allowed = MODES if num_envs is not None else ("next_step", "disabled", None)
    if not (autoreset is None or isinstance(autoreset, str)) or autoreset not in allowed:
        names = ", ".join(repr(mode) for mode in allowed if mode is not None)
        why = " where num_envs is given" if num_envs is not None else " for a single environment"
        raise ValueError(f"autoreset must be one of {names}{why}, got {shown(autoreset)}")
    return next((mode for mode in MODES if mode == autoreset), "disabled")


def named(mode: Any) -> Any:
    """Return our name of a member of Gymnasium's enumeration; anything else as it is."""
    value = getattr(mode, "value", None)
    return (_alike(value) or mode) if isinstance(value, str) else mode


def _alike(value: str) -> Autoreset | None:
    """Return the mode that is called so, but for capitals and underscores."""
    value = value.replace("_", "").lower()
    return next((name for name in MODES if name.replace("_", "") == value), None)


def final_observations(info: Any, ended: NDArray[np.bool_], single: bool) -> list[Any]:
    """Return the final observation of each row that ended, in their order.

    Parameters
    ----------
    info : mapping, or list of mappings
        What the vector environment returned. ``final_obs`` in it is an array of objects, with a
        mask ``_final_obs`` beside it or None where there is nothing (Gymnasium), or a dense array,
        or mappings or tuples of such (ALE and others). In a list of mappings, one for each row, it
        is ``final_obs`` or ``terminal_observation`` of each row that ended (Stable-Baselines3).
    ended : bool[K]
        Which rows ended.
    single : bool
        There is one row, and nothing has a leading axis, but for an array of objects.

    Raises
    ------
    ValueError
        If one of them has none.
    """
    where = FINAL
    if isinstance(info, (list, tuple)):
        return [_final_of(info[row], row) for row in np.flatnonzero(ended).tolist()]
    given = info if isinstance(info, Mapping) else {}
    final, mask = given.get("final_obs"), given.get("_final_obs")
    if final is None:
        got = "no info" if info is None else "an info without it"
        raise ValueError(
            f"{where} must hold the final observation of a row that ended, since autoreset is "
            f"'same_step', got {got}"
        )
    if single and not (isinstance(final, np.ndarray) and final.dtype == object):
        return [final]
    if mask is not None:
        mask = np.asarray(mask)
        if mask.shape != ended.shape:
            raise ValueError(f"info['_final_obs'] must have shape {ended.shape}, got {mask.shape}")
    observations = []
    for row in np.flatnonzero(ended).tolist():
        observation = _row(where, final, row, len(ended))
        if observation is None or (mask is not None and not mask[row]):
            raise ValueError(
                f"{where} must hold the final observation of row {row}, which ended, got none"
            )
        observations.append(observation)
    return observations


def _final_of(info: Mapping[str, Any], row: int) -> Any:
    """Return the final observation that the info of one environment has."""
    for key in ("final_obs", TERMINAL):
        final = info.get(key)
        if final is not None:
            return final
    raise ValueError(
        f"info[{row}] must hold the final observation of a row that ended, as 'final_obs' or "
        f"{TERMINAL!r}, since autoreset is 'same_step', got none"
    )


def has_terminal(info: Any) -> bool:
    """Return whether an info of one environment has the final observation of an episode."""
    return isinstance(info, Mapping) and TERMINAL in info


def infos_of_rows(info: Any, count: int, single: bool) -> Sequence[Mapping[str, Any]] | None:
    """Return an info as one mapping for each row, or None where it is one for all of them.

    Parameters
    ----------
    info
        A mapping, or None, or a list or tuple with one mapping for each row.
    count : int
        Rows of the call.
    single : bool
        There is one row, without leading axis.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if info is None or isinstance(info, Mapping):
        return [info] if single and info and has_terminal(info) else None
    if single or not isinstance(info, (list, tuple)):
        several = "" if single else f", or a list of {count}, one for each environment"
        raise ValueError(f"info must be a mapping{several}, got {shown(info)}")
    if len(info) != count:
        raise ValueError(
            f"info must be a mapping, or a list of {count}, one for each environment, "
            f"got {len(info)} of them"
        )
    for row, one in enumerate(info):
        if not isinstance(one, Mapping):
            raise ValueError(f"info[{row}] must be a mapping, got {shown(one)}")
    return info


def time_limits(
    infos: Sequence[Mapping[str, Any]], ended: NDArray[np.bool_], autoreset: Autoreset
) -> NDArray[np.bool_]:
    """Return which rows a time limit ended, as a list of infos says, bool[K].

    Parameters
    ----------
    infos : sequence of mappings
        One for each row.
    ended : bool[K]
        Which rows ended.
    autoreset : {"next_step", "same_step", "disabled"}
        What the buffer assumes.

    Raises
    ------
    ValueError
        If a row has a final observation beside ``next_obs``, but the mode is another.
    """
    limited = np.zeros(len(ended), np.bool_)
    for row in np.flatnonzero(ended).tolist():
        if autoreset != "same_step" and TERMINAL in infos[row]:
            raise ValueError(
                f"autoreset must be 'same_step' where info[{row}] has {TERMINAL!r}, "
                f"got {autoreset!r}: make the buffer with num_envs and autoreset='same_step', or "
                "leave info out and give that observation as next_obs"
            )
        limited[row] = bool(infos[row].get(TIME_LIMIT, False))
    return limited


def _row(name: str, final: Any, row: int, count: int) -> Any:
    """Return one row of an array, or of the arrays in a mapping or tuple."""
    if isinstance(final, Mapping):
        return {key: _row(f"{name}[{key!r}]", part, row, count) for key, part in final.items()}
    if isinstance(final, tuple):
        return tuple(_row(f"{name}[{k}]", part, row, count) for k, part in enumerate(final))
    try:
        rows = len(final)
    except TypeError:
        raise ValueError(f"{name} must have {count} rows, got {shown(final)}") from None
    if rows != count:
        raise ValueError(f"{name} must have {count} rows, got {rows} rows")
    return final[row]
