"""The measured curves of the recipes: train what is missing, and draw what is there.

    python docs/results/recipes.py run [RECIPE ...]
    python docs/results/recipes.py draw

``run`` trains two agents at a time. A finished run has its CSV in ``docs/results/recipes``; a run
that was stopped has none, and begins anew next time. ``draw`` writes there what the finished runs
of each recipe and environment came to, ``RECIPE-ENV.csv``, and their figure, ``RECIPE-ENV.png``.
``--output FOLDER`` and ``--recipes FOLDER`` name other folders, the latter of the recipes to run.
"""

import argparse
import csv
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from prioritized_replay.experiments.style import COLOURS, tidy

HERE = Path(__file__).parent
AT_A_TIME = 2


class Measured(NamedTuple):
    """A recipe in an environment: the options of all its runs, and of each arm."""

    recipe: str
    env: str
    options: str
    arms: dict[str, str]
    seeds: int = 3
    x_label: str = "environment steps"
    y_label: str = "return of an evaluation"

    @property
    def name(self) -> str:
        """Of its summary and its figure."""
        return f"{self.recipe}-{self.env}"


SMALL = "--env-id HalfCheetah-v5 --steps 100000 --hidden-size 128 --batch-size 128"
WITH_MEMORY = {
    "proportional": "--sampler proportional",
    "uniform": "--sampler uniform",
    "feed-forward": "--sampler proportional --network feed-forward",
}
MEASURED = [
    Measured(
        "sac",
        "HalfCheetah-v5",
        SMALL,
        {"proportional": "--sampler proportional", "uniform": "--sampler uniform"},
    ),
    Measured(
        "td3_lap",
        "HalfCheetah-v5",
        SMALL,
        {"lap": "--sampler lap", "uniform": "--sampler uniform"},
    ),
    Measured(
        "dqn",
        "CartPole-v1",
        "--env-id CartPole-v1 --steps 50000",
        {"proportional": "--sampler proportional", "uniform": "--sampler uniform"},
    ),
    Measured(
        "her",
        "12-bits",
        "--bits 12 --steps 20000",
        {
            "her": "--relabel future --sampler uniform",
            "her-proportional": "--relabel future --sampler proportional",
            "plain": "--relabel none --sampler uniform",
        },
        y_label="share of goals reached",
    ),
    Measured(
        "prompts",
        "simulated",
        "--steps 60000",
        {"index": "--sampler proportional", "uniform": "--sampler uniform"},
        seeds=10,
        x_label="groups drawn",
        y_label="useful groups per 1,000",
    ),
    Measured(
        "r2d2",
        "cartpole",
        "--task cartpole --steps 100000",
        WITH_MEMORY,
        seeds=5,
    ),
    Measured(
        "r2d2",
        "recall",
        "--task recall --steps 30000 --evaluate-every 2000",
        WITH_MEMORY,
        seeds=5,
        y_label="share of right answers",
    ),
    Measured(
        "rainbow",
        "MinAtar-Breakout-v1",
        "--env-id MinAtar/Breakout-v1 --steps 500000",
        {"proportional": "--sampler proportional", "uniform": "--sampler uniform"},
    ),
]
SPARE_COLOURS = ("#8a5bb0", "#d9622b", "#3a8f5c")  # of arms that are not in the house's style


class Run(NamedTuple):
    """One training."""

    recipe: str
    env: str
    arm: str
    seed: int
    options: str

    @property
    def file(self) -> str:
        """Name of its CSV."""
        return f"{self.recipe}-{self.env}-{self.arm}-{self.seed}.csv"


def runs() -> Iterator[Run]:
    """Yield every run; all arms of a seed before the next seed, so that they stay comparable."""
    for seed in range(1, 1 + max(measured.seeds for measured in MEASURED)):
        for measured in MEASURED:
            if seed <= measured.seeds:
                for arm, choice in measured.arms.items():
                    options = f"{measured.options} {choice}"
                    yield Run(measured.recipe, measured.env, arm, seed, options)


def train(run: Run, recipes: Path, output: Path) -> None:
    """Train one agent in a process of its own."""
    part = output / f"{run.file}.part"
    command = [sys.executable, str(recipes / f"{run.recipe}.py"), *shlex.split(run.options)]
    command += ["--seed", str(run.seed), "--csv", str(part)]
    print("begins", run.file, flush=True)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode == 0:
        part.replace(output / run.file)
    else:
        print(ended.stderr, file=sys.stderr)
    print("ends" if ended.returncode == 0 else "FAILS", run.file, flush=True)


def curve(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps and the returns of a finished run."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return np.array([int(row["step"]) for row in rows]), np.array(
        [float(row["return"]) for row in rows]
    )


def summarize(measured: Measured, output: Path) -> None:
    """Write what every finished run of a recipe came to, one number a line."""
    rows = []
    for run in sorted(runs()):
        if run[:2] == measured[:2] and (output / run.file).exists():
            _, returns = curve(output / run.file)
            measures = {"last": returns[-1], "best": returns.max(), "average": returns.mean()}
            for measure, value in measures.items():
                rows.append((run.arm, run.seed, measure, f"{value:.6g}"))
    if rows:
        with (output / f"{measured.name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("arm", "seed", "measure", "value"), *rows])


def draw(measured: Measured, output: Path) -> None:
    """Draw every finished run of a recipe, thin, and the mean over the seeds of each arm."""
    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    spare = iter(SPARE_COLOURS)
    for arm in measured.arms:
        colour = COLOURS.get(arm) or next(spare)
        files = [output / run.file for run in runs() if (*run[:2], run.arm) == (*measured[:2], arm)]
        curves = [curve(path) for path in files if path.exists()]
        for steps, returns in curves:
            axes.plot(steps, returns, color=colour, lw=0.8, alpha=0.5)
        if curves:
            mean = np.mean([returns for _, returns in curves], axis=0)
            label = f"{arm}, {len(curves)} seed{'s' * (len(curves) > 1)}"
            axes.plot(curves[0][0], mean, color=colour, lw=2.2, label=label)
    if axes.lines:
        axes.set_title(f"{measured.recipe}.py, {measured.env}", loc="left")
        axes.set_xlabel(measured.x_label)
        axes.set_ylabel(measured.y_label)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.legend(frameon=False, fontsize=8.5)
        tidy(axes)
        figure.savefig(output / f"{measured.name}.png")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("run", "draw"))
    parser.add_argument("only", nargs="*", metavar="RECIPE", help="run these only; else all")
    parser.add_argument("--output", type=Path, default=HERE / "recipes")
    parser.add_argument("--recipes", type=Path, default=HERE.parent.parent / "recipes")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    if given.action == "run":
        missing = [
            run
            for run in runs()
            if run.recipe in (given.only or [run.recipe]) and not (given.output / run.file).exists()
        ]
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(partial(train, recipes=given.recipes, output=given.output), missing))
    else:
        for measured in MEASURED:
            summarize(measured, given.output)
            draw(measured, given.output)


if __name__ == "__main__":
    main()
