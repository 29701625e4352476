"""Put run folders of ``per train`` together: what each came to, and one figure of all their curves.

    python docs/results/gather.py docs/results/NAME RUN [RUN ...]

Writes ``curves.csv`` (every evaluation and some of the reports between), ``summary.csv`` (what each
run came to, one number a line) and ``curves.png``, and copies the ``config.json`` of the first run.
"""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from prioritized_replay.runs.folder import CONFIG, EVALUATION, RunFolder

EVERY = 10  # of the reports without an evaluation, one in so many is kept
COLOURS = ("#2a6fbb", "#d9622b", "#3a8f5c", "#8a5bb0")


def main(target: Path, runs: list[RunFolder]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(runs[0].path / CONFIG, target / CONFIG)
    columns = ("seed", "step", "updates", "seconds", "mean_return", "evaluation_mean")
    with (target / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for run in runs:
            metrics = run.metrics()
            for at, evaluated in enumerate(~np.isnan(metrics["evaluation_mean"])):
                if evaluated or at % EVERY == EVERY - 1:
                    numbers = [metrics[name][at] for name in columns[1:]]
                    cells = ["" if np.isnan(number) else f"{number:.6g}" for number in numbers]
                    writer.writerow([run.config.seed, *cells])
    with (target / "summary.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("seed", "measure", "value"))
        for run in runs:
            for measure, value in summary(run).items():
                writer.writerow((run.config.seed, measure, f"{value:.6g}"))
    draw(runs, target / "curves.png")


def summary(run: RunFolder) -> dict[str, float]:
    kept = json.loads((run.path / EVALUATION).read_text(encoding="utf-8"))
    metrics = run.metrics()
    low, high = kept["interval_95"]
    return {
        "mean": kept["mean"],
        "low": low,
        "high": high,
        "games": kept["episodes"],
        "cut-off": kept.get("cut_off", 0),
        "best-step": kept["model_step"],
        "updates": metrics["updates"][-1],
        "minutes": kept["seconds"] / 60,
    }


def draw(runs: list[RunFolder], path: Path) -> None:
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for run, colour in zip(runs, COLOURS, strict=False):
        metrics = run.metrics()
        step, returns = metrics["step"], metrics["mean_return"]
        at = ~np.isnan(metrics["evaluation_mean"])
        seed = f"seed {run.config.seed}"
        axes.plot(step, returns, color=colour, lw=1, alpha=0.6, label=f"{seed}, training")
        evaluated = metrics["evaluation_mean"][at]
        axes.plot(
            step[at], evaluated, "o-", color=colour, ms=3.5, lw=1.6, label=f"{seed}, evaluation"
        )
    axes.set_title(runs[0].config.env_id, loc="left")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of a game")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8.5)
    figure.savefig(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [RunFolder.open(Path(name)) for name in sys.argv[2:]])
