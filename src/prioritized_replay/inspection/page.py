"""The page: one HTML file with everything in it, for wide and narrow screens, light and dark.

It fetches nothing and runs no script. Whatever comes from files is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prioritized_replay.inspection import charts, numbers
from prioritized_replay.inspection.charts import number
from prioritized_replay.inspection.findings import NAMES, Finding
from prioritized_replay.inspection.pictures import picture_of
from prioritized_replay.inspection.portrait import Leaf, Portrait, shown
from prioritized_replay.inspection.record import Record
from prioritized_replay.inspection.summary import HEALTHY, HOW_OFTEN, NO_CHECKPOINT

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --faint: #59636e;
  --rule: #d9dee3; --mark: #2a6fbb; --other: #b4501d; --bad: #b3261e; --bad-back: #fdf0ee;
  --good: #1a6b35; --good-back: #eef7f0; }
@media (prefers-color-scheme: dark) { :root { --back: #14181d; --text: #e4e8ec; --faint: #9aa5b0;
  --rule: #333c45; --mark: #6cabe8; --other: #ee9a63; --bad: #ff9a90; --bad-back: #361c1a;
  --good: #83d69c; --good-back: #17291d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 72rem; background: var(--back);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 0.6rem; }
p { margin: 0.4rem 0; } .faint, td small { color: var(--faint); }
code { font-family: ui-monospace, monospace; font-size: 0.9em; }
.finding, .healthy { border-left: 4px solid var(--bad); background: var(--bad-back);
  padding: 0.5rem 0.8rem; margin: 0.6rem 0; }
.finding b { color: var(--bad); }
.healthy { border-color: var(--good); background: var(--good-back); color: var(--good); }
.cards { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
figure { margin: 0; min-width: 0; } figcaption { font-weight: 600; }
svg { display: block; width: 100%; height: auto; max-width: 42rem; }
svg text { fill: var(--faint); font: 11px system-ui, sans-serif; }
.bar { fill: var(--mark); } .grid { stroke: var(--rule); fill: none; }
.line { fill: none; stroke: var(--mark); stroke-width: 1.8; } .line1 { stroke: var(--other); }
.legend0, .legend1 { font-weight: 400; margin-left: 0.6rem; white-space: nowrap; }
.legend0::before, .legend1::before { content: "\\2014\\00a0"; font-weight: 700; }
.legend0 { color: var(--mark); } .legend1 { color: var(--other); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; vertical-align: top; padding: 0.25rem 0.6rem;
  border-bottom: 1px solid var(--rule); font-variant-numeric: tabular-nums; }
td.text, th.text { text-align: left; } .numbers td.value { white-space: nowrap; }
td.text span { display: inline-block; margin-right: 0.9rem; } td.text em { color: var(--faint);
  font-style: normal; }
td img { width: 84px; height: auto; image-rendering: pixelated; display: block; }
td figure { display: inline-block; margin: 0 0.5rem 0.3rem 0; text-align: left; }
td figcaption { font-weight: 400; color: var(--faint); font-size: 0.85rem; }
@media (max-width: 34rem) { body { padding: 0.8rem; font-size: 0.95rem; }
  th, td { padding: 0.2rem 0.35rem; } table:not(.numbers) td.text { min-width: 11rem; }
  .numbers td:last-child { font-size: 0.88em; } }
"""


class Rows(NamedTuple):
    """Rows of a memory that are looked at one by one."""

    title: str
    places: Sequence[int]
    """Where they are in the census."""
    columns: Sequence[Sequence[Leaf]]
    """What they hold."""


def page_of(
    path: Path,
    portrait: Portrait | None,
    record: Record | None,
    found: Sequence[Finding],
    tables: Sequence[Rows],
    absent: str = NO_CHECKPOINT,
) -> str:
    """Return the page.

    Parameters
    ----------
    path : pathlib.Path
        What was looked at.
    portrait, record
        What there is of both.
    found : sequence of Finding
    tables : sequence of Rows
        The rows to look at one by one.
    absent : str
        Why there is no portrait, if there is none.
    """
    parts = [*_head(path, portrait, record), *_findings(found), "<h2>In numbers</h2>"]
    rows = numbers.of_run(record) if record else []
    rows += numbers.of_memory(portrait) if portrait else []
    parts.append(_numbers(rows))
    if record is not None:
        parts += _section("Over the run", _run_charts(record))
    if portrait is None:
        parts.append(f'<p class="faint">{escape(absent)}</p>')
    elif portrait.size:
        parts += _section("What is held", _memory_charts(portrait))
        parts.append(f'<p class="faint">{escape(HOW_OFTEN)}</p>')
        for rows_of_table in tables:
            parts.append(f"<h2>{escape(rows_of_table.title)}</h2>")
            parts.append(_rows(portrait, rows_of_table.places, rows_of_table.columns))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(path.name or str(path))}: per inspect</title>"
        f"<style>{_STYLE}</style></head><body>" + "\n".join(parts) + "</body></html>\n"
    )


def _head(path: Path, portrait: Portrait | None, record: Record | None) -> list[str]:
    parts = [f"<h1>{escape(str(path))}</h1>"]
    if record is not None:
        parts.append(f"<p>A run of {escape(record.env_id)}, replay {escape(record.replay)}</p>")
    if portrait is not None:
        parts.append(f"<p>{portrait.kind}, {escape(portrait.summary)}</p>")
        parts.append(f'<p class="faint"><code>{escape(str(portrait.sampler))}</code></p>')
    return parts


def _findings(found: Sequence[Finding]) -> list[str]:
    if not found:
        return [f'<p class="healthy">{HEALTHY}</p>']
    return [
        f'<p class="finding"><b>{escape(NAMES[finding.name])}</b><br>{escape(finding.text)}</p>'
        for finding in found
    ]


def _numbers(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = "".join(
        f'<tr><td class="text">{escape(name)}</td><td class="value">{escape(value)}</td>'
        f'<td class="text faint">{escape(remark)}</td></tr>'
        for name, value, remark in rows
    )
    return f'<div class="wide"><table class="numbers">{lines}</table></div>'


def _section(title: str, drawn: Iterable[str | None]) -> list[str]:
    figures = [figure for figure in drawn if figure is not None]
    if not figures:
        return []
    return [f'<h2>{escape(title)}</h2><div class="cards">', *figures, "</div>"]


def _run_charts(record: Record) -> list[str | None]:
    metrics, unit = record.metrics, "environment steps"
    step = metrics["step"]
    if step.size < 2:
        return []
    chart = charts.line_chart
    title = f"Effective sample size of a batch of {record.batch_size}"
    return [
        chart(title, step, {"": metrics["effective_sample_size"]}, unit),
        chart("Exponent of the weights, beta", step, {"": metrics["beta"]}, unit),
        chart("Mean absolute error of the rows drawn", step, {"": metrics["td_error"]}, unit),
        chart(
            "Return of an episode",
            step,
            {"training": metrics["mean_return"], "evaluation": _joined(metrics)},
            unit,
        ),
    ]


def _joined(metrics: dict[str, charts.Floats]) -> charts.Floats:
    """Return evaluations over all reports, on straight lines between those that there are."""
    step, mean = metrics["step"], metrics["evaluation_mean"]
    known = np.isfinite(mean)
    if not known.any():
        return mean
    return np.interp(step, step[known], mean[known], left=np.nan, right=np.nan)


def _memory_charts(portrait: Portrait) -> list[str | None]:
    census, things = portrait.census, portrait.things
    drawn: list[str | None] = []
    priorities = charts.histogram(census.priorities)
    if priorities is not None:
        zero = f", and {priorities.zeros:,} of 0" if priorities.zeros else ""
        drawn.append(charts.histogram_chart(f"Priorities: {things}{zero}", priorities, "priority"))
    often = charts.histogram(census.probabilities * portrait.size)
    if often is not None:
        zero = f", and {often.zeros:,} never" if often.zeros else ""
        title = f"Probabilities: {things}{zero}"
        drawn.append(charts.histogram_chart(title, often, "times as likely as in uniform draws"))
    draws, never = numbers.by_age(portrait)
    old = charts.number(float(portrait.ages.max()))
    labels = ("newest", "age", f"oldest, {old}")
    bars = charts.bar_chart
    drawn.append(bars("Share of draws by age", draws.tolist(), labels, "tenths of the rows"))
    drawn.append(bars("Share never drawn by age", never.tolist(), labels, "tenths of the rows"))
    return drawn


def _rows(portrait: Portrait, highest: Sequence[int], columns: Sequence[Sequence[Leaf]]) -> str:
    census = portrait.census
    head = "".join(f"<th>{name}</th>" for name in ("id", "age", "priority", "probability", "drawn"))
    if any(columns):
        step = "its first step" if portrait.things == "sequences" else "what it holds"
        head += f'<th class="text">{step}</th>'
    lines = []
    for place, leaves in zip(highest, columns, strict=True):
        cells = "".join(
            f"<td>{cell}</td>"
            for cell in (
                str(census.ids[place]),
                f"{portrait.ages[place]:,}",
                number(float(census.priorities[place])),
                number(float(census.probabilities[place])),
                "yes" if census.drawn[place] else "no",
            )
        )
        if leaves:
            cells += f'<td class="text">{_held(leaves)}</td>'
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _held(leaves: Sequence[Leaf]) -> str:
    """Return the columns of one row: pictures first, then numbers."""
    pictures, texts = [], []
    for leaf in leaves:
        name, picture = escape(leaf.name), picture_of(leaf.value, leaf.stack_axis)
        if picture is None:
            texts.append(f"<span><em>{name}</em> {escape(shown(leaf.value))}</span>")
        else:
            pictures.append(
                f'<figure><img src="{picture}" alt="{name}"><figcaption>{name}</figcaption>'
                "</figure>"
            )
    return "".join(pictures) + "".join(texts)
