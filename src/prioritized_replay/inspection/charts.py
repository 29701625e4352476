"""Charts as inline SVG, whose colours are those of the page: for light and for dark.

It knows numbers and axes, nothing of what they mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_WIDTH, _HEIGHT = 420, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34
_MOST_POINTS = 600  # of a line: more than there are pixels
_TICKS = 4


class Histogram(NamedTuple):
    """How many values are between edges that grow by one factor."""

    edges: Floats
    """float64[bins + 1]"""
    counts: NDArray[np.int64]
    """int64[bins]"""
    zeros: int
    """How many are 0, and in no bin."""


def histogram(values: Floats, bins: int = 30) -> Histogram | None:
    """Count values in bins of equal width on a logarithmic axis; None if none is above 0."""
    positive = values[values > 0.0]
    if not positive.size:
        return None
    low, high = float(positive.min()), float(positive.max())
    if high < 1.1 * low:  # one value: a bin in the middle
        low, high = low / 2.0, high * 2.0
    edges = np.geomspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    counts, _ = np.histogram(positive, edges)
    return Histogram(edges, counts, int(values.size - positive.size))


def number(value: float) -> str:
    """Return a number as an axis or a table shows it."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def histogram_chart(title: str, found: Histogram, unit: str) -> str:
    """Draw a histogram on a logarithmic axis."""
    low, high = (math.log10(edge) for edge in (found.edges[0], found.edges[-1]))
    scale = (_WIDTH - _LEFT - _RIGHT) / (high - low)
    places = [_LEFT + (math.log10(edge) - low) * scale for edge in found.edges.tolist()]
    scale_y = _scale(0.0, float(found.counts.max()))
    marks = _bars(places, found.counts / scale_y[-1])
    first, last = math.ceil(low), math.floor(high)
    step = max(1, (last - first) // _TICKS + 1)
    decades = [(_LEFT + (k - low) * scale, 10.0**k) for k in range(first, last + 1, step)]
    if len(decades) < 2:
        decades = [(places[0] + 8, found.edges[0]), (places[-1] - 8, found.edges[-1])]
    ticks = [_tick_x(x, number(value)) for x, value in decades]
    return _chart(title, unit, [*_grid(scale_y), *ticks, *marks])


def bar_chart(title: str, heights: Sequence[float], labels: Sequence[str], unit: str) -> str:
    """Draw a bar for each of some shares; labels stand below the first, the middle and the last."""
    scale = _scale(0.0, max(heights) or 1.0)
    width = (_WIDTH - _LEFT - _RIGHT) / len(heights)
    places = [_LEFT + k * width for k in range(len(heights) + 1)]
    named = {0: labels[0], len(heights) // 2: labels[1], len(heights) - 1: labels[2]}
    ticks = [_tick_x(places[k] + width / 2, label) for k, label in named.items()]
    marks = _bars(places, np.array(heights) / scale[-1])
    return _chart(title, unit, [*_grid(scale), *ticks, *marks])


def line_chart(title: str, x: Floats, lines: Mapping[str, Floats], unit: str) -> str | None:
    """Draw lines over x, with gaps where they are not finite; None if there are no two points."""
    every = -(-x.size // _MOST_POINTS)
    x, lines = x[::every], {name: values[::every] for name, values in lines.items()}
    known = np.concatenate([values[np.isfinite(values)] for values in lines.values()])
    if known.size < 2 or x[-1] <= x[0]:
        return None
    scale = _scale(min(0.0, float(known.min())), max(0.0, float(known.max())))
    low, high = scale[0], scale[-1]
    across = (_WIDTH - _LEFT - _RIGHT) / (x[-1] - x[0])
    up = (_HEIGHT - _TOP - _BOTTOM) / (high - low)
    parts = _grid(scale)
    parts += [
        _tick_x(_LEFT + (place - x[0]) * across, number(float(place)))
        for place in (x[0], x[0] + (x[-1] - x[0]) / 2, x[-1])
    ]
    for order, values in enumerate(lines.values()):
        path, pen = [], "M"
        for at, value in zip(x.tolist(), values.tolist(), strict=True):
            if not math.isfinite(value):
                pen = "M"
                continue
            y = _HEIGHT - _BOTTOM - (value - low) * up
            path.append(f"{pen}{_LEFT + (at - x[0]) * across:.1f} {y:.1f}")
            pen = "L"
        parts.append(f'<path class="line line{order}" d="{"".join(path)}"/>')
    return _chart(title, unit, parts, list(lines) if len(lines) > 1 else [])


def _chart(title: str, unit: str, parts: Sequence[str], legend: Sequence[str] = ()) -> str:
    drawn = "".join(parts)
    named = "".join(
        f' <span class="legend{order}">{escape(name)}</span>' for order, name in enumerate(legend)
    )
    return (
        f"<figure><figcaption>{escape(title)}{named}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="{escape(title)}">{drawn}'
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 3}" text-anchor="middle">'
        f"{escape(unit)}</text></svg></figure>"
    )


def _scale(low: float, high: float) -> list[float]:
    """Return round numbers at equal distances, from low or below to high or above."""
    span = high - low or 1.0
    step = 10.0 ** math.floor(math.log10(span / _TICKS))
    step *= next(k for k in (1.0, 2.0, 2.5, 5.0, 10.0) if span / (k * step) <= _TICKS + 0.5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def _grid(scale: Sequence[float]) -> list[str]:
    parts = []
    for k, value in enumerate(scale):
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * k / (len(scale) - 1)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>'
        )
    return parts


def _tick_x(x: float, label: str) -> str:
    half = 3.2 * len(label)
    x = min(max(x, half), _WIDTH - half)
    y = _HEIGHT - _BOTTOM + 15
    return f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(label)}</text>'


def _bars(places: Sequence[float], shares: NDArray[Any]) -> list[str]:
    """Return bars between places, of heights between 0 and 1."""
    full = _HEIGHT - _TOP - _BOTTOM
    return [
        f'<rect class="bar" x="{left + 0.5:.1f}" y="{_HEIGHT - _BOTTOM - share * full:.1f}" '
        f'width="{max(right - left - 1.0, 0.5):.1f}" height="{share * full:.1f}"/>'
        for left, right, share in zip(places[:-1], places[1:], shares.tolist(), strict=True)
        if share > 0.0
    ]
