"""Specifications of a sampler: frozen values that say how to draw. State lives in the buffer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from prioritized_replay.fields import arguments

Draw = Literal["stratified", "independent", "without_replacement"]
Weights = Literal["batch", "buffer", "raw"]
MaxPriority = Literal["ever", "current"]


@dataclass(frozen=True)
class Uniform:
    """Every transition alike: the baseline of every comparison.

    Parameters
    ----------
    draw : {"stratified", "independent", "without_replacement"}
        How a batch is drawn; see :class:`Proportional`.

    Raises
    ------
    ValueError
        If ``draw`` is none of the three.
    """

    draw: Draw = "stratified"

    def __post_init__(self) -> None:
        _require_choice("draw", self.draw, Draw)


@dataclass(frozen=True)
class Proportional:
    """P(i) in proportion to (abs(td_error_i) + eps)**alpha.

    Schaul et al. 2015, section 3.3, first variant.

    Parameters
    ----------
    alpha : float
        How much prioritization: 0 is uniform. Paper: 0.6.
    eps : float
        Added to every abs(td_error), so that a row without error can still be drawn, >= 0.
    draw : {"stratified", "independent", "without_replacement"}
        ``"stratified"``: one draw from each of B equal parts of the law, as in the paper's
        appendix B.2.1. ``"independent"``: B draws from the whole law. ``"without_replacement"``:
        B distinct rows, with the law of drawing one after the other without putting back.
    uniform_mix : float
        Share of draws that are uniform: P = (1 - mix) P_prioritized + mix / N, in [0, 1].
    weights : {"batch", "buffer", "raw"}
        What importance weights are divided by: the largest of the batch, the largest weight
        that any row of the buffer could have, or nothing.
    max_priority : {"ever", "current"}
        What a new row enters with: the largest priority seen since the buffer was empty, or
        the largest that a row has now.

    Raises
    ------
    ValueError
        If a number is outside its range or a choice is none of those listed.

    Examples
    --------
    >>> Proportional(alpha=0.5)
    Proportional(alpha=0.5, eps=0.01, draw='stratified', uniform_mix=0.0, weights='batch', \
max_priority='ever')
    """

    alpha: float = 0.6
    eps: float = 0.01
    draw: Draw = "stratified"
    uniform_mix: float = 0.0
    weights: Weights = "batch"
    max_priority: MaxPriority = "ever"

    def __post_init__(self) -> None:
        arguments.number("alpha", self.alpha)
        arguments.number("eps", self.eps)
        _require_common(self)


@dataclass(frozen=True)
class RankBased:
    """P(i) in proportion to rank(i)**-alpha, rank 1 being the largest abs(td_error).

    Schaul et al. 2015, section 3.3, second variant, with exact ranks. Rows of equal priority
    have equal probability: they share the mass of the ranks they hold together.

    Parameters
    ----------
    alpha : float
        How much prioritization: 0 is uniform. Paper: 0.7.
    draw, uniform_mix, weights, max_priority
        As in :class:`Proportional`.

    Raises
    ------
    ValueError
        If a number is outside its range or a choice is none of those listed.
    """

    alpha: float = 0.7
    draw: Draw = "stratified"
    uniform_mix: float = 0.0
    weights: Weights = "batch"
    max_priority: MaxPriority = "ever"

    def __post_init__(self) -> None:
        arguments.number("alpha", self.alpha)
        _require_common(self)


Specification = Uniform | Proportional | RankBased


def _require_common(specification: Proportional | RankBased) -> None:
    arguments.number("uniform_mix", specification.uniform_mix, 1.0)
    _require_choice("draw", specification.draw, Draw)
    _require_choice("weights", specification.weights, Weights)
    _require_choice("max_priority", specification.max_priority, MaxPriority)


def _require_choice(name: str, value: str, choices: object) -> None:
    allowed = get_args(choices)
    if not isinstance(value, str) or value not in allowed:
        names = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {names}, got {arguments.shown(value)}")


KINDS = {kind.__name__: kind for kind in (Uniform, Proportional, RankBased)}


def describe_sampler(specification: Specification) -> dict[str, Any]:
    """Return a specification in plain values."""
    values = {
        name: value if isinstance(value, str) else float(value)
        for name, value in asdict(specification).items()
    }
    return {"kind": type(specification).__name__, **values}


def described_sampler(plain: Any) -> Specification:
    """Return what :func:`describe_sampler` was told of; it raises as a specification does."""
    values = dict(plain)
    kind: Any = KINDS[values.pop("kind")]
    specification: Specification = kind(**values)
    if describe_sampler(specification) != plain:
        raise ValueError(f"a sampler must be described in full, got {plain}")
    return specification
