"""The comparison: what counts as reached, what is kept, and how it goes on after an end."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import tyro

from prioritized_replay import Proportional, RankBased, Uniform
from prioritized_replay.experiments.compare import command as comparison
from prioritized_replay.experiments.compare import trials
from prioritized_replay.experiments.compare.arms import SETTINGS, Run, run_of
from prioritized_replay.experiments.compare.command import CompareConfig, compare
from prioritized_replay.experiments.compare.results import Point, Result, ResultFiles, mean_height
from prioritized_replay.experiments.compare.trials import Outcome, train_all
from prioritized_replay.training.build import make_sampler
from prioritized_replay.training.presets import preset
from prioritized_replay.training.statistics import (
    bootstrap,
    interquartile_mean,
    mean,
    probability_of_improvement,
)

CONFIG = preset("CartPole-v1", steps=1000)
OUTCOME = Outcome(
    best_step=900,
    final_mean=480.0,
    final_iqm=500.0,
    curve=((300, 100.0), (600, 500.0), (900, 300.0)),
    wall_seconds=2.0,
    steps_per_second=700.0,
)


def run(arm: str, seed: int) -> Run:
    return run_of("CartPole-v1", arm, seed, steps=1000)


def pattern(config: CompareConfig):
    return preset("CartPole-v1", threads=1, **config.overrides())


def points(arm: str, seed: int) -> list[Point]:
    return [Point("CartPole-v1", arm, seed, *at) for at in OUTCOME.curve]


@pytest.mark.parametrize("size", [1, 3, 4, 7, 10])
def test_interquartile_mean_is_taken_row_by_row(size):
    values = np.random.default_rng(size).normal(size=(5, size))

    expected = [np.sort(row)[size // 4 : size - size // 4].mean() for row in values]
    assert interquartile_mean(values).tolist() == expected


@pytest.mark.slow
def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    estimates = [bootstrap(rng.normal(size=30), mean) for _ in range(200)]

    covered = np.mean([estimate.low <= 0.0 <= estimate.high for estimate in estimates])

    assert 0.88 <= covered <= 0.99


def test_bootstrap_of_equal_differences_has_no_width():
    estimate = bootstrap(np.full(5, 3.0), mean)

    assert (estimate.value, estimate.low, estimate.high) == (3.0, 3.0, 3.0)


def test_bootstrap_needs_values():
    with pytest.raises(ValueError, match="values must not be empty"):
        bootstrap(np.empty(0))


def test_threshold_is_judged_by_the_final_episodes_and_timed_by_the_curve():
    result = Result.of(run("rank", 3), OUTCOME, threshold=475.0)

    assert result.reached
    assert (result.steps_to_threshold, result.censored) == (600, False)
    assert result.area == mean_height(OUTCOME.curve) == 350.0


def test_a_run_that_never_gets_there_is_censored_at_its_budget():
    result = Result.of(run("rank", 3), OUTCOME, threshold=501.0)

    assert not result.reached
    assert (result.steps_to_threshold, result.censored) == (1000, True)


def test_without_a_threshold_nothing_is_reached():
    result = Result.of(run("rank", 3), OUTCOME, threshold=math.nan)

    assert (result.reached, result.censored) == (False, True)


def test_mean_height_of_one_evaluation_is_that_evaluation():
    assert mean_height(((500, 7.0),)) == 7.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": 0}, "seeds must be >= 1"),
        ({"seeds": (1, 1)}, "seeds must be different numbers >= 0"),
        ({"seeds": (-1,)}, "seeds must be different numbers >= 0"),
        ({"seeds": ()}, "seeds must be different numbers >= 0"),
        (
            {"arms": ("rank", "best")},
            "arms must be of rank, proportional, lap, alpha-0, uniform, got 'best'",
        ),
        ({"arms": ()}, "arms must be one or more different ones"),
        ({"arms": ("rank", "rank")}, "arms must be one or more different ones"),
        ({"tune": (1.0,)}, r"tune must be two or more different factors, got \(1.0,\)"),
        ({"tune": (1.0, 0.0)}, "tune must be factors > 0, got 0.0"),
        (
            {"tune": (1.0, 2.0), "seeds": (10_000,)},
            "seeds must be < 10,000 with tune, .* got 10000",
        ),
        ({"learning_rate": 0.0}, "learning_rate must be > 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be > 0, got nan"),
        ({"tuning_seeds": 0}, "tuning_seeds must be >= 1, got 0"),
        ({"workers": 0}, "workers must be >= 1, got 0"),
    ],
)
def test_nonsense_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        CompareConfig(env_id="CartPole-v1", **wrong)


def test_a_step_size_takes_the_last_one_with_it_and_factors_are_of_it():
    config = CompareConfig(env_id="CartPole-v1", seeds=1, arms=("rank",), learning_rate=0.002)
    pattern = preset("CartPole-v1")

    (one,) = config.runs()
    (half,) = config.runs({"rank": 0.5})

    assert one.config.learning_rate == 2 * half.config.learning_rate == 0.002
    ratio = pattern.learning_rate_end / pattern.learning_rate
    assert one.config.learning_rate_end == pytest.approx(0.002 * ratio)
    assert half.config.learning_rate_end == pytest.approx(0.001 * ratio)


def test_command_line_takes_a_number_of_seeds_or_a_list_of_them():
    several = tyro.cli(CompareConfig, args=["CartPole-v1", "--seeds", "3"])
    chosen = tyro.cli(CompareConfig, args=["CartPole-v1", "--seeds", "4", "7"])

    assert several.seed_list == (0, 1, 2)
    assert chosen.seed_list == (4, 7)


def test_every_arm_is_trained_with_every_seed_and_the_preset():
    config = CompareConfig(env_id="CartPole-v1", seeds=2, arms=("uniform", "rank"))

    runs = config.runs()

    expected = [("uniform", 0), ("rank", 0), ("uniform", 1), ("rank", 1)]
    assert [(one.arm, one.config.seed) for one in runs] == expected
    assert [one.config.replay for one in runs] == ["uniform", "rank"] * 2
    assert all(one.config.steps == preset("CartPole-v1").steps for one in runs)
    assert all(one.config.steps == 700 for one in dataclasses.replace(config, steps=700).runs())


def test_results_come_back_as_they_were_kept(tmp_path):
    kept = [
        Result.of(run("rank", 0), OUTCOME, threshold=475.0),
        Result.of(run("rank", 1), OUTCOME, threshold=600.0),
    ]
    files = ResultFiles(tmp_path, CONFIG)
    for result in kept:
        files.append(result, points("rank", result.seed))

    again = ResultFiles(tmp_path, CONFIG)

    assert again.results == kept
    assert again.points == points("rank", 0) + points("rank", 1)


def test_a_missing_threshold_is_an_empty_cell(tmp_path):
    ResultFiles(tmp_path, CONFIG).append(Result.of(run("rank", 0), OUTCOME, math.nan), [])

    assert "nan" not in (tmp_path / "results.csv").read_text()
    assert math.isnan(ResultFiles(tmp_path, CONFIG).results[0].threshold)


def test_what_was_cut_off_is_forgotten(tmp_path):
    files = ResultFiles(tmp_path, CONFIG)
    for seed in (0, 1):
        files.append(Result.of(run("rank", seed), OUTCOME, 475.0), points("rank", seed))
    whole = (tmp_path / "results.csv").read_text()
    (tmp_path / "results.csv").write_text(whole[:-1])  # the end of the last line is missing

    again = ResultFiles(tmp_path, CONFIG)

    assert [result.seed for result in again.results] == [0]
    assert again.points == points("rank", 0)  # or the run's points would soon be there twice
    assert (tmp_path / "results.csv").read_text() == "".join(whole.splitlines(True)[:2])


def test_results_with_other_settings_are_refused_and_left_alone(tmp_path):
    ResultFiles(tmp_path, CONFIG).append(Result.of(run("rank", 0), OUTCOME, 475.0), [])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(FileExistsError, match="holds runs with steps 1000, not 2000"):
        ResultFiles(tmp_path, dataclasses.replace(CONFIG, steps=2000))

    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["results.csv", "curves.csv"])
def test_a_file_of_somebody_else_is_refused_and_left_alone(tmp_path, name):
    ResultFiles(tmp_path, CONFIG)
    (tmp_path / name).write_text("a,b\n1,2\n")

    with pytest.raises(ValueError, match="does not have the columns"):
        ResultFiles(tmp_path, CONFIG)

    assert (tmp_path / name).read_text() == "a,b\n1,2\n"


def test_an_unknown_environment_is_refused_before_anything_is_written(tmp_path):
    output = tmp_path / "new"

    with pytest.raises(ValueError, match="CartPole-v1"):
        compare(CompareConfig(env_id="CartPole-v11", seeds=1, output=output))

    assert not output.exists()


def fake_training(monkeypatch, end=None, outcome=OUTCOME):
    """Let every run finish at once, and note which; raise `end` after the first."""
    trained = []

    def train_all(configs, workers):
        for config in configs:
            trained.append((config.replay, config.seed))
            yield config, 0
            yield config, outcome
            if end is not None:
                raise end

    monkeypatch.setattr(comparison, "train_all", train_all)
    return trained


def test_arms_are_what_they_say():
    runs = {arm: run(arm, 3).config for arm in SETTINGS}

    assert make_sampler(runs["rank"]) == RankBased(alpha=0.7)
    assert make_sampler(runs["proportional"]) == Proportional(alpha=0.6, eps=0.01)
    assert make_sampler(runs["alpha-0"]) == Proportional(alpha=0.0, eps=0.01)
    assert make_sampler(runs["lap"]) == Proportional(alpha=0.4, eps=0.0, min_priority=1.0)
    assert make_sampler(runs["uniform"]) == Uniform()
    lap = runs["lap"]
    assert (lap.effective_beta_start, lap.beta_end, lap.loss) == (0.0, 0.0, "huber")
    alike = [
        name
        for name in CONFIG.to_dict()
        if len({repr(r.to_dict()[name]) for r in runs.values()}) == 1
    ]
    assert {"learning_rate", "seed", "steps", "n_step", "batch_size"} <= set(alike)


@pytest.mark.slow
def test_every_arm_gets_the_step_size_that_was_best_on_other_seeds(tmp_path, monkeypatch, capsys):
    trained = []

    def train_all(configs, workers):
        for config in configs:
            trained.append((config.replay, config.seed, config.learning_rate))
            best = {"rank": 5e-4, "uniform": 2e-3}[config.replay]
            height = 100.0 if config.learning_rate == best else 50.0
            yield config, dataclasses.replace(OUTCOME, curve=((500, height), (1000, height)))

    monkeypatch.setattr(comparison, "train_all", train_all)
    config = CompareConfig(
        env_id="CartPole-v1",
        seeds=2,
        arms=("rank", "uniform"),
        tune=(0.5, 1.0, 2.0),
        tuning_seeds=2,
        output=tmp_path,
    )

    compare(config)

    tries, compared = trained[:12], trained[12:]
    assert {seed for _, seed, _ in tries} == {10_000, 10_001}
    assert sorted({rate for _, _, rate in tries}) == [5e-4, 1e-3, 2e-3]
    assert compared == [
        ("rank", 0, 5e-4), ("uniform", 0, 2e-3), ("rank", 1, 5e-4), ("uniform", 1, 2e-3),
    ]  # fmt: skip
    assert "uniform      step size x 2" in capsys.readouterr().out
    trained.clear()
    compare(dataclasses.replace(config, seeds=3))
    assert trained == [("rank", 2, 5e-4), ("uniform", 2, 2e-3)]
    with pytest.raises(FileExistsError, match=r"step_sizes \[0.5, 1.0, 2.0\], not \[\]"):
        compare(dataclasses.replace(config, tune=()))


def test_runs_that_were_not_tuned_do_not_mix_with_tuned_ones(tmp_path):
    ResultFiles(tmp_path, CONFIG).append(Result.of(run("rank", 0), OUTCOME, 475.0), [])

    with pytest.raises(FileExistsError, match=r"step_sizes \[\], not \[0.5, 1.0\]"):
        ResultFiles(tmp_path, CONFIG, (0.5, 1.0), 5)


def test_a_step_size_that_could_not_be_tried_ends_the_comparison(tmp_path, monkeypatch):
    def train_all(configs, workers):
        yield from ((config, "OSError: no space") for config in configs)

    monkeypatch.setattr(comparison, "train_all", train_all)
    config = CompareConfig(
        env_id="CartPole-v1", seeds=1, arms=("rank",), tune=(1.0, 2.0), output=tmp_path
    )

    with pytest.raises(RuntimeError, match="10 of 10 tries of a step size failed"):
        compare(config)


def test_probability_of_improvement_counts_pairs():
    first, second = np.array([1.0, 5.0, 5.0]), np.array([5.0, 0.0])

    estimate = probability_of_improvement(first, second)

    assert estimate.value == (3 + 0.5 * 2) / 6  # three wins, two ties, one loss
    assert 0.0 <= estimate.low < estimate.value < estimate.high <= 1.0
    assert probability_of_improvement(second, first).value == pytest.approx(1 - estimate.value)


def test_probability_of_improvement_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    estimates = [
        probability_of_improvement(rng.normal(size=30), rng.normal(size=30)) for _ in range(60)
    ]

    covered = np.mean([estimate.low <= 0.5 <= estimate.high for estimate in estimates])

    assert 0.85 <= covered <= 1.0


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    config = CompareConfig(env_id="CartPole-v1", seeds=2, arms=("rank", "uniform"), output=tmp_path)
    fake_training(monkeypatch, end=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        compare(config)
    said = capsys.readouterr().out
    trained = fake_training(monkeypatch)

    compare(config)

    assert "1 finished runs are kept" in said
    assert "the same command continues from there" in said
    assert trained == [("uniform", 0), ("rank", 1), ("uniform", 1)]
    assert len(ResultFiles(tmp_path, pattern(config)).results) == 4


def test_summary_counts_intervals_and_pairs(tmp_path, monkeypatch, capsys):
    fake_training(monkeypatch)

    compare(CompareConfig(env_id="CartPole-v1", seeds=3, arms=("rank", "uniform"), output=tmp_path))

    said = capsys.readouterr().out
    assert "3 of 3" in said
    assert "rank minus uniform, 3 pairs: final return +0.0 (+0.0 to +0.0)" in said
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_small_returns_have_decimals(tmp_path, monkeypatch, capsys):
    fake_training(monkeypatch, outcome=dataclasses.replace(OUTCOME, final_mean=0.71))

    compare(CompareConfig(env_id="CartPole-v1", seeds=2, arms=("rank", "uniform"), output=tmp_path))

    said = capsys.readouterr().out
    assert "return    0.710" in said
    assert "rank minus uniform, 2 pairs: final return +0.000 (+0.000 to +0.000)" in said


def test_a_run_that_fails_leaves_the_others(tmp_path, monkeypatch, capsys):
    def train_all(configs, workers):
        yield configs[0], "OSError: no space"
        yield configs[1], OUTCOME

    monkeypatch.setattr(comparison, "train_all", train_all)
    config = CompareConfig(env_id="CartPole-v1", seeds=1, arms=("rank", "uniform"), output=tmp_path)

    with pytest.raises(RuntimeError, match="1 of 2 runs failed"):
        compare(config)

    assert "failed, OSError: no space" in capsys.readouterr().out
    assert [r.arm for r in ResultFiles(tmp_path, pattern(config)).results] == ["uniform"]


@pytest.mark.slow
def test_a_process_that_fails_or_dies_is_reported(monkeypatch):
    unknown = dataclasses.replace(CONFIG, env_id="NoSuchWorld-v0")
    dying = dataclasses.replace(CONFIG, steps=10**9)
    said = {}

    for config, message in train_all([unknown, dying], workers=2):
        if isinstance(message, int) and message > 0:
            for process in trials.multiprocessing.active_children():
                process.kill()
        elif not isinstance(message, int):
            said[config.env_id] = message

    assert "NoSuchWorld-v0" in said["NoSuchWorld-v0"]
    assert said["CartPole-v1"] == "its process ended with exit code -9"


@pytest.mark.slow
def test_closing_ends_the_processes():
    running = train_all([dataclasses.replace(CONFIG, steps=10**9)], workers=1)
    next(running)
    processes = trials.multiprocessing.active_children()

    running.close()

    assert processes
    assert not any(process.is_alive() for process in processes)


@pytest.mark.slow
def test_arms_are_trained_side_by_side_and_not_twice(tmp_path, monkeypatch):
    """One more of them than there are processes at a time: the third waits for a place."""
    config = CompareConfig(env_id="CartPole-v1", seeds=1, workers=2, steps=1200, output=tmp_path)

    compare(config)

    files = ResultFiles(tmp_path, pattern(config))
    expected = {("rank", 0), ("proportional", 0), ("uniform", 0)}
    assert {(result.arm, result.seed) for result in files.results} == expected
    for result in files.results:
        assert 8.0 <= result.final_mean <= 500.0
        assert 0.0 < 1200 / result.steps_per_second <= result.wall_seconds
        assert result.censored == (result.steps_to_threshold == 1200)
    assert {point.step for point in files.points} == {1200}

    before = Path(tmp_path / "results.csv").read_bytes()
    trained = fake_training(monkeypatch)
    compare(config)
    assert trained == []
    assert Path(tmp_path / "results.csv").read_bytes() == before
