"""Ape-X beside one process: the same settings, one arm after the other, on this machine.

Run from the root of the repository::

    python docs/results/apex.py run --env CartPole-v1 --seeds 0 1
    python docs/results/apex.py draw

``run`` trains each arm once for each seed, arms in turn. It appends to ``apex/runs.csv``, and
evaluations to ``apex/curves.csv``. ``draw`` makes ``apex/apex.png`` and ``apex/table.csv`` of them.
Besides the clock it reads how much processor time all processes of an arm took: where other work
shares the machine, the clock favours an arm with many processes, and processor time does not.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

HERE = Path(__file__).parent / "apex"
ARMS = {
    "one process": (),
    "one process, 8 environments": ("--envs", "8"),
    "2 actors": ("--actors", "2"),
    "4 actors": ("--actors", "4"),
    "8 actors": ("--actors", "8"),
}
SLOW = "slow_cartpole:SlowCartPole-v1"
"""The environment in slow_cartpole.py: it is there for its speed, so evaluations are short."""
SETTINGS = {
    "CartPole-v1": (
        *("--steps", "60000", "--eval-every", "5000", "--eval-episodes", "5"),
        *("--final-eval-episodes", "50"),
    ),
    "MinAtar/Breakout-v1": (
        *("--steps", "40000", "--eval-every", "10000", "--eval-episodes", "10"),
        *("--eval-max-steps", "2000", "--final-eval-episodes", "50"),
    ),
    SLOW: (
        *("--steps", "12000", "--eval-every", "6000", "--eval-episodes", "2"),
        *("--eval-max-steps", "50", "--final-eval-episodes", "2"),
    ),
}
RUNS = (
    *("env", "arm", "seed", "steps", "seconds", "steps_per_second", "processor_seconds"),
    *("best_evaluation", "final_mean", "final_low", "final_high", "cores", "load"),
)
CURVES = ("env", "arm", "seed", "step", "seconds", "evaluation")
MARK = "APEX_RESULTS"
PER = "import sys; from prioritized_replay.cli import main; sys.exit(main())"
COLOURS = {
    "one process": "#22333b",
    "one process, 8 environments": "#d9622b",
    "2 actors": "#2a6fbb",
    "4 actors": "#4c9f70",
    "8 actors": "#9a6fb0",
}


def processor_seconds(mark: str, known: dict[str, float]) -> float:
    """Note the processor time of all processes with a mark; return the sum of all ever seen."""
    tick = os.sysconf("SC_CLK_TCK")
    for path in Path("/proc").iterdir():
        try:
            if not path.name.isdecimal() or mark.encode() not in (path / "environ").read_bytes():
                continue
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            known[path.name] = (int(fields[11]) + int(fields[12])) / tick
        except OSError:
            continue
    return sum(known.values())


def train(env: str, arm: str, seed: int, folder: Path) -> tuple[dict[str, object], list[list]]:
    mark, known, run = uuid.uuid4().hex, {}, folder / f"{arm}-{seed}".replace(" ", "-")
    words = ["train", env, "--seed", str(seed), *SETTINGS[env], *ARMS[arm], "--run-dir", str(run)]
    words += ["--checkpoint-every", "0"]
    command = [sys.executable, "-c", PER, *words]
    load, total = os.getloadavg()[0], 0.0
    found = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    variables = {**os.environ, MARK: mark, "PYTHONPATH": found}
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        total = processor_seconds(f"{MARK}={mark}", known)
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{arm}, seed {seed}: exit code {process.returncode}")
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    evaluation = json.loads((run / "evaluation.json").read_text())
    # From the first report with updates on: kernels are compiled and all processes run by then.
    first = next(row for row in rows if float(row["updates"]) > 0)
    steps = float(rows[-1]["step"]) - float(first["step"])
    seconds = float(rows[-1]["seconds"]) - float(first["seconds"])
    curve = [
        [env, arm, seed, row["step"], row["seconds"], row["evaluation_mean"]]
        for row in rows
        if row["evaluation_mean"]
    ]
    low, high = evaluation["interval_95"]
    values = (
        *(env, arm, seed, int(float(rows[-1]["step"])), round(seconds, 1)),
        *(round(steps / seconds, 1), round(total, 1)),
        *(max(float(row[5]) for row in curve), evaluation["mean"], low, high),
        *(os.cpu_count(), round((load + os.getloadavg()[0]) / 2, 1)),
    )
    return dict(zip(RUNS, values, strict=True)), curve


def append(path: Path, head: tuple[str, ...], rows: list) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(head)
        writer.writerows(rows)


def run(env: str, seeds: list[int], arms: list[str]) -> None:
    HERE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for arm in arms:
                values, curve = train(env, arm, seed, Path(folder))
                append(HERE / "runs.csv", RUNS, [list(values.values())])
                append(HERE / "curves.csv", CURVES, curve)
                print(values, flush=True)


def draw() -> None:
    with (HERE / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    measured = [env for env in SETTINGS if any(row["env"] == env for row in rows)]
    envs = [env for env in measured if env != SLOW]
    mpl.rcParams["svg.hashsalt"] = "apex"
    figure, axes = plt.subplots(
        len(envs), 2, figsize=(9, 3.4 * len(envs)), squeeze=False, layout="constrained"
    )
    for env, pair in zip(envs, axes, strict=True):
        for axis, (column, label) in zip(
            pair, (("step", "environment steps"), ("seconds", "seconds")), strict=True
        ):
            for arm in ARMS:
                mine = [row for row in rows if row["env"] == env and row["arm"] == arm]
                for number, seed in enumerate(sorted({row["seed"] for row in mine})):
                    points = [row for row in mine if row["seed"] == seed]
                    axis.plot(
                        [float(row[column]) for row in points],
                        [float(row["evaluation"]) for row in points],
                        color=COLOURS[arm],
                        lw=1.4,
                        alpha=0.8,
                        label=arm if number == 0 else None,
                    )
            axis.set_xlabel(label)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25)
        pair[0].set_ylabel("return of an evaluation")
        pair[0].set_title(env, loc="left")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(HERE / "apex.png", dpi=130)
    with (HERE / "runs.csv").open(newline="") as file:
        done = list(csv.DictReader(file))
    table = []
    for env in measured:
        for arm in ARMS:
            mine = [row for row in done if (row["env"], row["arm"]) == (env, arm)]
            if not mine:
                continue
            returns = [float(row["final_mean"]) for row in mine]
            costs = [1e3 * float(row["processor_seconds"]) / float(row["steps"]) for row in mine]
            speeds = [float(row["steps_per_second"]) for row in mine]
            for measure, value in (
                *(("seeds", len(mine)), ("steps/s", statistics.median(speeds))),
                *(("return", statistics.fmean(returns)), ("least", min(returns))),
                *(("most", max(returns)), ("ms/step", statistics.median(costs))),
            ):
                table.append([env, arm, measure, f"{value:.4g}"])
    (HERE / "table.csv").unlink(missing_ok=True)
    append(HERE / "table.csv", ("env", "arm", "measure", "value"), table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "draw"])
    parser.add_argument("--env", choices=list(SETTINGS), default="CartPole-v1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", choices=list(ARMS), nargs="+", default=list(ARMS))
    options = parser.parse_args()
    if options.what == "run":
        run(options.env, options.seeds, options.arms)
    else:
        draw()
