"""The study of docs/results/study.py: its plan, and what it makes of finished runs."""

import csv
import importlib.util
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from prioritized_replay.experiments.compare.results import CURVES, RESULTS, Point, Result
from prioritized_replay.experiments.compare.tuning import TUNING, Try
from prioritized_replay.experiments.tables import write_rows

FILE = Path(__file__).parent.parent / "docs" / "results" / "study.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("study", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def finished(folder: Path, areas: dict[str, list[float]]) -> None:
    """Let runs be finished: of each arm one for each area, in the order of seeds."""
    results, points = [], []
    for arm, values in areas.items():
        for seed, area in enumerate(values):
            results.append(
                Result(
                    env_id="CartPole-v1",
                    arm=arm,
                    seed=seed,
                    steps=20_000,
                    best_step=20_000,
                    final_mean=2 * area,
                    final_iqm=2 * area,
                    threshold=475.0,
                    reached=False,
                    steps_to_threshold=20_000,
                    censored=True,
                    area=area,
                    wall_seconds=1.0,
                    steps_per_second=1.0,
                )
            )
            points.append(Point("CartPole-v1", arm, seed, 10_000, area))
            points.append(Point("CartPole-v1", arm, seed, 20_000, area))
    folder.mkdir(parents=True)
    write_rows(folder / RESULTS, Result, results)
    write_rows(folder / CURVES, Point, points)


def test_the_smallest_difference_is_found_as_often_as_the_plan_says(study):
    rng = np.random.default_rng(0)
    least = study.smallest_difference(30)
    first, second = rng.normal(size=(4000, 30)), rng.normal(least, 1.0, (4000, 30))
    error = np.sqrt((first.var(axis=1, ddof=1) + second.var(axis=1, ddof=1)) / 30)

    found = np.mean((second.mean(axis=1) - first.mean(axis=1)) / error > 1.96)

    assert found == pytest.approx(0.8, abs=0.03)


def test_the_plan_in_the_results_is_the_plan(study, tmp_path):
    study.plan(tmp_path)

    assert (tmp_path / "plan.csv").read_bytes() == (study.FOLDER / "plan.csv").read_bytes()


def test_all_runs_are_of_one_command(study):
    for planned in study.PLAN:
        words = planned.command(Path("there"), 2)
        assert words[:2] == ["compare", planned.env_id]
        assert words[words.index("--tune") + 1 : words.index("--tuning-seeds")] == ["0.5", "1", "2"]


@pytest.mark.slow
def test_what_the_report_says_of_finished_runs(study, tmp_path):
    uniform = [100.0, 110.0, 120.0, 130.0]
    areas = {
        "uniform": uniform,
        "alpha-0": [120.0, 110.0, 100.0, 130.0],
        "proportional": [area + 50.0 for area in uniform],
        "rank": [area - 50.0 for area in uniform],
        "lap": uniform[:3],  # its last run is not finished
    }
    finished(tmp_path / "CartPole-v1", areas)
    tries = [
        Try("CartPole-v1", "uniform", factor, factor * 1e-3, 10_000, 20_000, 100 * factor)
        for factor in (0.5, 1.0)
    ]
    write_rows(tmp_path / "CartPole-v1" / TUNING, Try, tries)

    study.report(tmp_path)

    summary = {
        (line["measure"], line["arm"], line["what"]): float(line["value"])
        for line in lines_of(tmp_path / "summary.csv")
    }
    assert {summary["area", arm, "seeds"] for arm in areas} == {3}
    assert summary["area", "proportional", "difference"] == 50.0
    assert summary["final_mean", "rank", "difference"] == -100.0
    assert summary["area", "proportional", "better"] == 1.0
    assert summary["area", "rank", "better"] == 0.0
    assert summary["area", "lap", "better"] == 0.5
    assert summary["area", "lap", "least"] == summary["area", "lap", "most"] == 0.0
    assert ("area", "uniform", "difference") not in summary
    progress = {
        (line["environment"], line["what"]): int(line["value"])
        for line in lines_of(tmp_path / "progress.csv")
    }
    assert progress["CartPole-v1", "runs"] == 19
    assert progress["CartPole-v1", "of-runs"] == 150
    assert progress["CartPole-v1", "tuning-runs"] == 2
    assert progress["Acrobot-v1", "runs"] == 0
    sizes = lines_of(tmp_path / "step_sizes.csv")
    assert [(line["factor"], float(line["area"])) for line in sizes] == [("x0.5", 50), ("x1", 100)]
    overall = {
        (line["arm"], line["what"]): float(line["value"])
        for line in lines_of(tmp_path / "overall.csv")
        if line["measure"] == "area"
    }
    assert overall["proportional", "better"] == 1.0
    # scaled from 50, the least of rank, to 170, the largest of proportional
    assert overall["uniform", "IQM"] == pytest.approx((110 - 50) / (170 - 50))
    assert math.isclose(overall["alpha-0", "environments"], 1)
    control = {line["what"]: int(line["value"]) for line in lines_of(tmp_path / "control.csv")}
    assert control == {"seeds": 3, "equal-runs": 1}  # of the three that all arms have
    assert (tmp_path / "study.png").stat().st_size > 10_000
    assert (tmp_path / "CartPole-v1" / "comparison.png").stat().st_size > 10_000


def test_a_verdict_is_what_the_interval_of_the_difference_says(study):
    intervals = {"alpha-0": (-1.0, 1.0), "proportional": (0.04, 3.0), "rank": (-3.0, -0.04)}
    summary = [
        ("CartPole-v1", measure, arm, what, value)
        for measure in ("area", "final_mean")
        for arm, interval in intervals.items()
        for what, value in zip(("least", "most"), interval, strict=True)
    ]

    verdicts = study._verdicts(summary)

    assert [line[1:] for line in verdicts if line[2] == "area"] == [
        ("alpha-0", "area", "no difference shown"),
        ("proportional", "area", "higher"),
        ("rank", "area", "lower"),
    ]
    assert len(verdicts) == 6


TABLES = ["progress", "step_sizes", "summary", "verdicts", "control", "overall"]


@pytest.mark.slow
def test_the_tables_in_the_results_are_those_of_the_runs(study, tmp_path):
    shutil.copytree(study.FOLDER, tmp_path, dirs_exist_ok=True)
    for name in TABLES:
        (tmp_path / f"{name}.csv").unlink()

    study.report(tmp_path)

    for name in TABLES:
        assert lines_of(tmp_path / f"{name}.csv") == lines_of(study.FOLDER / f"{name}.csv")


def test_the_words_of_the_page_are_the_verdicts(study):
    """Whoever changes one of them changes the other: the section "What came" of docs/study.rst."""
    found = {}
    for line in lines_of(study.FOLDER / "verdicts.csv"):
        place = found.setdefault((line["measure"], line["verdict"]), {})
        place.setdefault(line["environment"], []).append(line["arm"])

    assert found["area", "higher"] == {
        "CartPole-v1": ["proportional", "rank"],
        "MountainCar-v0": ["proportional", "rank", "lap"],
        "Acrobot-v1": ["proportional", "rank", "lap"],
        "MinAtar/Breakout-v1": ["proportional", "rank"],
    }
    assert found["final-return", "higher"] == {"MinAtar/Breakout-v1": ["rank"]}
    assert found["final-return", "lower"] == {
        "CartPole-v1": ["lap"],
        "Acrobot-v1": ["proportional", "rank"],
        "LunarLander-v3": ["rank"],
    }
    assert ("area", "lower") not in found
    control = {
        (line["environment"], line["what"]): line["value"]
        for line in lines_of(study.FOLDER / "control.csv")
    }
    equal = {env: int(value) for (env, what), value in control.items() if what == "equal-runs"}
    assert equal == {"CartPole-v1": 30, "MountainCar-v0": 0, "Acrobot-v1": 30}
