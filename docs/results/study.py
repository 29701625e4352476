"""The study: does prioritized replay help? Five samplers, many seeds, step sizes tuned for each.

    python docs/results/study.py plan      write the seeds and what they could show: plan.csv
    python docs/results/study.py run       train what is missing, two runs at a time
    python docs/results/study.py report    write the tables and the figure of what is finished

The page docs/study.rst says what was decided before the first run. ``run`` calls ``per compare``
once for each environment, in the order below, and may be stopped at any time: finished runs are
kept in ``docs/results/study``, and the same command goes on from there.
"""

import argparse
import csv
import math
import sys
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from prioritized_replay.cli import main as per
from prioritized_replay.experiments.compare.figure import draw_comparison
from prioritized_replay.experiments.compare.results import CURVES, RESULTS, Point, Result
from prioritized_replay.experiments.compare.tuning import TUNING, Try
from prioritized_replay.experiments.style import COLOURS, tidy
from prioritized_replay.experiments.tables import read_rows
from prioritized_replay.training.statistics import (
    RESAMPLES,
    Estimate,
    bootstrap,
    interquartile_mean,
    mean,
    probability_of_improvement,
)

HERE = Path(__file__).parent
FOLDER = HERE / "study"

Floats = npt.NDArray[np.float64]
Line = tuple[str | float, ...]  # of a table: what the number is of, and the number

MEASURES = {"area": "area", "final_mean": "final-return"}  # as in results, and as said of verdicts
ALL = ("uniform", "alpha-0", "proportional", "rank", "lap")
THREE = ("uniform", "proportional", "rank")


class Planned(NamedTuple):
    """What is compared in one environment."""

    env_id: str
    arms: tuple[str, ...]
    seeds: int
    steps: int
    learning_rate: float
    """Of the preset when the study was planned: presets may change meanwhile."""

    @property
    def folder(self) -> str:
        """Of its results."""
        return self.env_id.replace("/", "-")

    def command(self, output: Path, workers: int) -> list[str]:
        """Return the words after ``per``."""
        return [
            *("compare", self.env_id, "--arms", *self.arms, "--seeds", str(self.seeds)),
            *("--steps", str(self.steps), "--learning-rate", str(self.learning_rate)),
            *("--tune", "0.5", "1", "2", "--tuning-seeds", "5"),
            *("--workers", str(workers), "--output", str(output / self.folder)),
        ]


PLAN = [
    Planned("CartPole-v1", ALL, 30, 20_000, 0.001),
    Planned("MountainCar-v0", ALL, 30, 50_000, 0.004),
    Planned("Acrobot-v1", ALL, 30, 30_000, 0.0005),
    Planned("LunarLander-v3", THREE, 10, 300_000, 0.001),
    Planned("MinAtar/Breakout-v1", THREE, 5, 300_000, 0.0005),
    Planned("MinAtar/Asterix-v1", THREE, 5, 300_000, 0.0005),
]


def smallest_difference(seeds: int, power: float = 0.8) -> float:
    """Return the difference of two means, in standard deviations, that is found with this power.

    Two arms of equal spread, both with so many seeds, and an interval of 95 % that must not
    contain 0: (z(0.975) + z(power)) sqrt(2 / seeds).
    """
    z = NormalDist().inv_cdf
    return (z(0.975) + z(power)) * math.sqrt(2 / seeds)


def plan(output: Path) -> None:
    """Write what each environment's seeds could show."""
    lines: list[Line] = []
    for planned in PLAN:
        least = smallest_difference(planned.seeds)
        # Of two normal variables of equal spread, one is larger by this chance.
        chance = NormalDist().cdf(least / math.sqrt(2))
        lines += [
            (planned.env_id, "steps", planned.steps),
            (planned.env_id, "arms", len(planned.arms)),
            (planned.env_id, "seeds", planned.seeds),
            (planned.env_id, "runs", len(planned.arms) * planned.seeds),
            (planned.env_id, "tuning-runs", len(planned.arms) * 3 * 5),
            (planned.env_id, "difference", round(least, 2)),
            (planned.env_id, "chance", round(chance, 2)),
        ]
    write(output / "plan.csv", "environment what value", lines)


def run(output: Path, workers: int, only: list[str]) -> int:
    """Train what is missing; return the last exit code that is not 0."""
    code = 0
    for planned in PLAN:
        if only and planned.env_id not in only:
            continue
        code = per(planned.command(output, workers)) or code
    return code


def report(output: Path) -> None:
    """Write the tables and the figures of all runs that are finished."""
    progress: list[Line] = []
    tuned: list[Line] = []
    summary: list[Line] = []
    verdicts: list[Line] = []
    control: list[Line] = []
    measured: dict[str, dict[str, dict[str, Floats]]] = {measure: {} for measure in MEASURES}
    for planned in PLAN:
        folder = output / planned.folder
        results = read_rows(folder / RESULTS, Result)
        tries = read_rows(folder / TUNING, Try)
        progress += [
            (planned.env_id, "tuning-runs", len(tries)),
            (planned.env_id, "of-tuning-runs", len(planned.arms) * 3 * 5),
            (planned.env_id, "runs", len(results)),
            (planned.env_id, "of-runs", len(planned.arms) * planned.seeds),
        ]
        tuned += _tuned(planned, tries)
        if not results:
            continue
        # Only seeds that every arm has finished: an interrupted study must not favour an arm.
        seeds = sorted(
            set.intersection(*({r.seed for r in results if r.arm == a} for a in planned.arms))
        )
        if not seeds:
            continue
        points = [p for p in read_rows(folder / CURVES, Point) if p.seed in seeds]
        with (folder / "comparison.png").open("wb") as file:
            draw_comparison(points, results[0].threshold, file)
        by_arm = {
            arm: sorted(
                (r for r in results if r.arm == arm and r.seed in seeds), key=lambda r: r.seed
            )
            for arm in planned.arms
        }
        for measure, environments in measured.items():
            values = {
                arm: np.array([getattr(row, measure) for row in rows])
                for arm, rows in by_arm.items()
            }
            environments[planned.env_id] = values
            found = _summary(planned.env_id, measure, values)
            summary += _rounded(found, values)
            if len(seeds) == planned.seeds:
                verdicts += _verdicts(found)
        control += _control(planned.env_id, measured)
    write(output / "progress.csv", "environment what value", progress)
    if tuned:
        write(output / "step_sizes.csv", "environment arm factor area", tuned)
    if summary:
        overall = [
            (measure, *line)
            for measure, environments in measured.items()
            for line in _overall(environments)
        ]
        write(output / "summary.csv", "environment measure arm what value", summary)
        write(output / "verdicts.csv", "environment arm measure verdict", verdicts)
        write(output / "control.csv", "environment what value", control)
        write(output / "overall.csv", "measure arm what value", overall)
        _draw(measured["area"], output / "study.png")


def _tuned(planned: Planned, tries: list[Try]) -> list[Line]:
    """Return the mean area of each step size that was tried."""
    lines: list[Line] = []
    for arm in planned.arms:
        for factor in sorted({one.factor for one in tries}):
            found = [one.area for one in tries if (one.arm, one.factor) == (arm, factor)]
            if found:
                height = round(float(np.mean(found)), _digits([one.area for one in tries]))
                lines.append((planned.env_id, arm, f"x{factor:g}", height))
    return lines


def _summary(env_id: str, measure: str, values: dict[str, Floats]) -> list[Line]:
    """Return the rows of an environment's table of one measure, not rounded."""
    lines: list[Line] = []
    for arm, mine in values.items():
        found = {"seeds": float(len(mine))} | _named(bootstrap(mine), "IQM", "low", "high")
        if arm != "uniform":
            difference = bootstrap(mine - values["uniform"], mean)
            chance = probability_of_improvement(mine, values["uniform"])
            found |= _named(difference, "difference", "least", "most")
            found |= _named(chance, "better", "from", "to")
        lines += [(env_id, measure, arm, what, value) for what, value in found.items()]
    return lines


def _named(estimate: Estimate, *names: str) -> dict[str, float]:
    return dict(zip(names, (estimate.value, estimate.low, estimate.high), strict=True))


def _rounded(summary: list[Line], values: dict[str, Floats]) -> list[Line]:
    """Return the lines with as many digits as a reader can use."""
    digits = dict.fromkeys(("better", "from", "to"), 2) | {"seeds": None}
    own = _digits(np.concatenate(list(values.values())))
    return [(*line[:4], round(float(line[4]), digits.get(str(line[3]), own))) for line in summary]


def _digits(returns: npt.ArrayLike) -> int:
    """Return how many decimals are shown of returns: more where they are small."""
    return 1 if np.abs(returns).max() >= 50.0 else 2


def _verdicts(summary: list[Line]) -> list[Line]:
    """Return whether each arm was shown to differ from uniform replay, in words."""
    ends = {line[:4]: float(line[4]) for line in summary}
    lines: list[Line] = []
    for env_id, measure, arm, what in ends:
        if what == "least":
            least, most = ends[env_id, measure, arm, "least"], ends[env_id, measure, arm, "most"]
            verdict = "higher" if least > 0.0 else "lower" if most < 0.0 else "no difference shown"
            lines.append((env_id, arm, MEASURES[str(measure)], verdict))
    return lines


def _control(env_id: str, measured: dict[str, dict[str, dict[str, Floats]]]) -> list[Line]:
    """Return how many runs of the control are the same as those of uniform replay to the digit."""
    equal: list[npt.NDArray[np.bool_]] = []
    for environments in measured.values():
        values = environments[env_id]
        if "alpha-0" not in values:
            return []
        equal.append(values["alpha-0"] == values["uniform"])
    same = np.all(equal, axis=0)
    return [(env_id, "seeds", same.size), (env_id, "equal-runs", int(same.sum()))]


def _overall(environments: dict[str, dict[str, Floats]]) -> list[Line]:
    """Return one measure over all environments, each environment resampled by itself.

    It is scaled: 0 is the lowest of any run in an environment, 1 the highest.
    """
    generator = np.random.default_rng(0)
    lines: list[Line] = []
    for arm in ALL:
        of_arm = {env: arms for env, arms in environments.items() if arm in arms}
        if not of_arm:
            continue
        scaled, better = [], []
        for arms in of_arm.values():
            every = np.concatenate(list(arms.values()))
            low, spread = every.min(), np.ptp(every) or 1.0
            mine, uniform = ((arms[name] - low) / spread for name in (arm, "uniform"))
            ours = generator.integers(mine.size, size=(RESAMPLES, mine.size))
            theirs = generator.integers(uniform.size, size=(RESAMPLES, uniform.size))
            scaled.append((mine, mine[ours]))
            wins = (mine[:, None] > uniform) + 0.5 * (mine[:, None] == uniform)
            resampled = [wins[np.ix_(a, b)].mean() for a, b in zip(ours, theirs, strict=True)]
            better.append((wins.mean(), np.array(resampled)))
        iqm = Estimate(
            float(interquartile_mean(np.concatenate([whole for whole, _ in scaled]))),
            *_middle(interquartile_mean(np.concatenate([again for _, again in scaled], axis=1))),
        )
        found: dict[str, float] = {
            "environments": len(of_arm),
            "IQM": round(iqm.value, 3),
            "low": round(iqm.low, 3),
            "high": round(iqm.high, 3),
        }
        if arm != "uniform":
            low, high = _middle(np.mean([again for _, again in better], axis=0))
            found |= {
                "better": round(float(np.mean([whole for whole, _ in better])), 2),
                "from": round(low, 2),
                "to": round(high, 2),
            }
        lines += [(arm, what, value) for what, value in found.items()]
    return lines


def _middle(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _draw(areas: dict[str, dict[str, Floats]], path: Path) -> None:
    """Draw how likely a run of each arm beats one of uniform replay, an environment a panel."""
    figure = Figure(figsize=(7.5, 0.9 + 1.25 * len(areas)), dpi=150, layout="constrained")
    panels = figure.subplots(len(areas), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (env_id, arms) in zip(panels, areas.items(), strict=True):
        others = [arm for arm in ALL if arm in arms and arm != "uniform"]
        for place, arm in enumerate(others):
            chance = probability_of_improvement(arms[arm], arms["uniform"])
            axes.plot([chance.low, chance.high], [place, place], color=COLOURS[arm], lw=3)
            axes.plot(chance.value, place, "o", color=COLOURS[arm], ms=7)
        axes.axvline(0.5, color="0.45", ls="--", lw=1)
        axes.set_yticks(range(len(others)), others)
        axes.set_ylim(len(others) - 0.4, -0.6)
        axes.set_title(f"{env_id}, {len(arms['uniform'])} seeds", loc="left", fontsize=10)
        tidy(axes)
    panels[-1].set_xlim(0, 1)
    panels[-1].set_xlabel(
        "probability that a run has a larger area under the curve than one of uniform replay"
    )
    figure.savefig(path, format="png")


def write(path: Path, columns: str, lines: list[Line]) -> None:
    """Write a table of what was found, one number a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns.split(), *lines])


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["plan", "run", "report"])
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the results")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    known = [planned.env_id for planned in PLAN]
    parser.add_argument(
        "--env", nargs="*", default=[], choices=known, metavar="ENV_ID",
        help=f"run only these environments: {', '.join(known)}",
    )  # fmt: skip
    options = parser.parse_args()
    if options.what == "plan":
        plan(options.output)
    elif options.what == "report":
        report(options.output)
    else:
        sys.exit(run(options.output, options.workers, options.env))


if __name__ == "__main__":
    main()
