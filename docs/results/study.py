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

from prioritized_replay.cli import main as per

HERE = Path(__file__).parent
FOLDER = HERE / "study"

ALL = ("uniform", "alpha-0", "proportional", "rank", "lap")
THREE = ("uniform", "proportional", "rank")


class Planned(NamedTuple):
    """What is compared in one environment."""

    env_id: str
    arms: tuple[str, ...]
    seeds: int
    steps: int

    @property
    def folder(self) -> str:
        """Of its results."""
        return self.env_id.replace("/", "-")

    def command(self, output: Path, workers: int) -> list[str]:
        """Return the words after ``per``."""
        return [
            *("compare", self.env_id, "--arms", *self.arms, "--seeds", str(self.seeds)),
            *("--steps", str(self.steps), "--tune", "0.5", "1", "2", "--tuning-seeds", "5"),
            *("--workers", str(workers), "--output", str(output / self.folder)),
        ]


PLAN = [
    Planned("CartPole-v1", ALL, 30, 20_000),
    Planned("MountainCar-v0", ALL, 30, 60_000),
    Planned("Acrobot-v1", ALL, 30, 30_000),
    Planned("LunarLander-v3", THREE, 10, 300_000),
    Planned("MinAtar/Breakout-v1", THREE, 5, 300_000),
    Planned("MinAtar/Asterix-v1", THREE, 5, 300_000),
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
    output.mkdir(parents=True, exist_ok=True)
    with (output / "plan.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["environment", "what", "value"])
        for planned in PLAN:
            least = smallest_difference(planned.seeds)
            # Of two normal variables of equal spread, one is larger by this chance.
            chance = NormalDist().cdf(least / math.sqrt(2))
            tries = len(planned.arms) * 3 * 5
            for what, value in (
                ("steps", planned.steps),
                ("arms", len(planned.arms)),
                ("seeds", planned.seeds),
                ("runs", len(planned.arms) * planned.seeds),
                ("tuning-runs", tries),
                ("difference", f"{least:.2f}"),
                ("chance", f"{chance:.2f}"),
            ):
                writer.writerow([planned.env_id, what, value])


def run(output: Path, workers: int, only: list[str]) -> int:
    """Train what is missing; return the last exit code that is not 0."""
    code = 0
    for planned in PLAN:
        if only and planned.env_id not in only:
            continue
        code = per(planned.command(output, workers)) or code
    return code


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["plan", "run"])
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the results")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--env", nargs="*", default=[], help="only these environments")
    options = parser.parse_args()
    if options.what == "plan":
        plan(options.output)
    else:
        sys.exit(run(options.output, options.workers, options.env))


if __name__ == "__main__":
    main()
