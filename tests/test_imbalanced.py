"""Digits with rare classes: the task, the arms, the command, and the results in the docs."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from prioritized_replay.experiments.imbalanced import command
from prioritized_replay.experiments.imbalanced import task as imbalanced
from prioritized_replay.experiments.imbalanced.command import ImbalancedConfig, reproduce
from prioritized_replay.experiments.imbalanced.digits import split
from prioritized_replay.experiments.imbalanced.results import (
    Measure,
    ResultFile,
    mean_of,
    measures,
)
from prioritized_replay.experiments.imbalanced.task import (
    CHOSEN,
    HIDDEN,
    Networks,
    Point,
    Settings,
    evaluated_at,
    train,
)
from prioritized_replay.experiments.imbalanced.tuning import (
    ALPHAS,
    RARE_SHARES,
    SEEDS,
    STEP_SIZES,
    STEPS,
    Trial,
    best,
)
from prioritized_replay.experiments.tables import read_rows, write_rows

ARMS = ("uniform", "proportional", "corrected", "weighted")
MEASURED = Path(__file__).parent.parent / "docs" / "results" / "imbalanced"


def same_rows(one, other):
    """Return, for every image of one set, whether it is in the other."""
    return (one.pixels[:, None] == other.pixels[None]).all(2).any(1)


# --- the task -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "kept"), [(0.01, 1), (0.05, 7), (0.001, 1)])
def test_rare_classes_are_thinned_and_the_test_is_balanced(share, kept):
    training, test = split(share, seed=3)
    counts = np.bincount(training.labels)
    assert counts[:5].tolist() == [kept] * 5
    assert (counts[5:] >= 134).all()
    assert np.bincount(test.labels).tolist() == [40] * 10
    assert training.pixels.dtype == np.float32
    assert (training.pixels.min(), training.pixels.max()) == (0.0, 1.0)


def test_seeds_keep_other_rare_images_and_share_the_test():
    (one, test), (again, _), (other, theirs) = (split(0.05, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.pixels, again.pixels)
    np.testing.assert_array_equal(test.pixels, theirs.pixels)
    rare = one.labels < 5
    assert not same_rows(one.rows(np.flatnonzero(rare)), other).all()


def test_what_is_tested_on_is_never_learnt_from_nor_used_for_tuning():
    training, test = split(0.01, seed=0)
    tuned, validation = split(0.01, seed=0, tuning=True)
    # Some of the 1,797 images have a twin, pixel by pixel; so it is counted, not forbidden.
    for one in (training, tuned, validation):
        assert same_rows(one, test).mean() < 0.01
    assert same_rows(tuned, validation).mean() < 0.01
    assert np.bincount(validation.labels).tolist() == [40] * 10


def test_stacked_networks_learn_as_torch_does_one_by_one():
    rng = np.random.default_rng(0)
    networks = Networks([5, 6], step_size=0.5)
    alone = []
    for k in range(2):
        model = torch.nn.Sequential(
            torch.nn.Linear(64, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 10)
        )
        with torch.no_grad():
            for parameter, stack in zip(model.parameters(), networks._parameters, strict=True):
                parameter.copy_(stack[k].T if parameter.ndim == 2 else stack[k][0])
        alone.append((model, torch.optim.SGD(model.parameters(), 0.5)))
    for _ in range(3):
        pixels = torch.from_numpy(rng.random((2, 8, 64), np.float32))
        labels = torch.from_numpy(rng.integers(0, 10, (2, 8)))
        weights = torch.from_numpy(rng.random((2, 8), np.float32))
        losses = networks.losses(pixels, labels)
        networks.learn(losses, weights)
        for k, (model, optimizer) in enumerate(alone):
            loss = cross_entropy(model(pixels[k]), labels[k], reduction="none")
            torch.testing.assert_close(losses[k], loss)
            optimizer.zero_grad()
            (weights[k] * loss).mean().backward()
            optimizer.step()
    wrong = networks.wrong(pixels, labels)
    assert wrong.tolist() == [
        (model(pixels[k]).argmax(1) != labels[k]).tolist() for k, (model, _) in enumerate(alone)
    ]


# --- the arms -------------------------------------------------------------------------------------


def drawn_by(arm, steps=40):
    """Return what one run draws and with what weights, and the labels of its training images."""
    drawing = imbalanced._Drawing
    seen = []

    class Spied(drawing):
        def weights(self, ids):
            weights = super().weights(ids)
            seen.append((ids, weights.numpy()))
            return weights

    imbalanced._Drawing = Spied
    try:
        train(arm, 0.05, [0], steps)
    finally:
        imbalanced._Drawing = drawing
    labels = split(0.05, 0)[0].labels
    ids, weights = (np.concatenate(column) for column in zip(*seen, strict=True))
    return labels[ids] < 5, weights


@pytest.mark.slow
def test_arms_draw_rare_classes_as_they_say():
    uniform, ones = drawn_by("uniform")
    assert uniform.mean() == pytest.approx(35 / 731, abs=0.02)
    assert (ones == 1.0).all()
    weighted, ones = drawn_by("weighted")
    assert weighted.mean() == pytest.approx(0.5, abs=0.04)
    assert (ones == 1.0).all()
    proportional, ones = drawn_by("proportional")
    assert proportional.mean() > 1.5 * uniform.mean()
    assert (ones == 1.0).all()
    corrected, weights = drawn_by("corrected")
    assert corrected.mean() > 1.5 * uniform.mean()
    assert weights[corrected].mean() < weights[~corrected].mean()


def test_seeds_do_not_depend_on_which_others_are_trained_beside_them():
    beside = train("proportional", 0.05, [3, 4], 20)
    alone = train("proportional", 0.05, [4], 20)
    assert [p.step for p in alone] == evaluated_at(20)
    assert [p.error for p in beside if p.seed == 4] == pytest.approx(
        [p.error for p in alone], abs=0.01
    )
    assert {p.seed for p in beside} == {3, 4}


def test_errors_are_those_of_classes(monkeypatch):
    # A network that says 7 to everything.
    monkeypatch.setattr(Networks, "wrong", lambda self, pixels, labels: labels != 7)
    (point,) = train("uniform", 0.05, [0], 1)
    assert point == Point(0.05, "uniform", 0, 1, 0.9, 1.0)


def test_an_unknown_arm_is_refused():
    with pytest.raises(ValueError, match="arm must be one of uniform, proportional, corrected"):
        train("best", 0.05, [0], 1)


# --- results --------------------------------------------------------------------------------------


def run_of(arm, seed, errors, share=0.01):
    moments = evaluated_at(len(errors))
    return [Point(share, arm, seed, *row, 2 * row[1]) for row in zip(moments, errors, strict=True)]


def test_runs_that_were_cut_off_are_made_again(tmp_path):
    file = ResultFile(tmp_path, 3)
    file.append(run_of("uniform", 0, [0.5, 0.4, 0.3]))
    whole = (tmp_path / "imbalanced.csv").read_text()
    file.append(run_of("uniform", 1, [0.5, 0.4, 0.3]))
    cut = (tmp_path / "imbalanced.csv").read_text()[:-20]
    (tmp_path / "imbalanced.csv").write_text(cut)

    again = ResultFile(tmp_path, 3)

    assert (tmp_path / "imbalanced.csv").read_text() == whole
    assert again.has(0.01, "uniform", 0)
    assert not again.has(0.01, "uniform", 1)
    assert not again.has(0.05, "uniform", 0)
    with pytest.raises(FileExistsError, match="holds runs of another length than 40 steps"):
        ResultFile(tmp_path, 40)
    assert (tmp_path / "imbalanced.csv").read_text() == whole


def test_numbers_of_a_summary_are_means_differences_and_intervals():
    errors = {"uniform": [0.2, 0.3, 0.4], "weighted": [0.1, 0.1, 0.4]}
    points = [p for arm, row in errors.items() for k, e in enumerate(row) for p in
              run_of(arm, k, [1.0, e])]  # fmt: skip
    points += run_of("weighted", 9, [1.0, 0.2])  # has no uniform run beside it
    found = {(m.arm, m.measure): m.value for m in measures(points)}
    assert found["uniform", "error"] == 30.0
    assert found["weighted", "error"] == 20.0
    assert found["weighted", "rare"] == 40.0
    assert found["weighted", "difference"] == pytest.approx(-10.0)
    assert found["weighted", "least"] < -10.0 < found["weighted", "most"]
    assert 20.0 <= found["uniform", "low"] < 30.0 < found["uniform", "high"] <= 40.0
    assert ("uniform", "difference") not in found


def test_intervals_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(60):
        estimate = mean_of(rng.normal(size=30))
        inside += estimate.low <= 0.0 <= estimate.high
    assert 50 <= inside <= 60  # of 95 % in 60: fewer once in 10,000 times


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_continues_and_writes_everything(tmp_path, monkeypatch, capsys):
    jobs = []

    def in_this_process(missing, workers):
        for job in missing:
            jobs.append(job)
            yield job, train(*job)

    monkeypatch.setattr(command, "_train_all", in_this_process)
    output = tmp_path / "new" / "folder"
    few = ImbalancedConfig(seeds=1, steps=4, rare_shares=(0.05,), output=output)
    reproduce(few)
    reproduce(dataclasses.replace(few, seeds=3))

    assert [job[:3] for job in jobs] == [
        *((arm, 0.05, (0,)) for arm in ARMS),
        *((arm, 0.05, (1, 2)) for arm in ARMS),
    ]
    points = read_rows(output / "imbalanced.csv", Point)
    assert len({(p.arm, p.seed, p.step) for p in points}) == len(points) == 4 * 3 * 4
    assert read_rows(output / "imbalanced-summary.csv", Measure) == measures(points)
    assert (output / "imbalanced.png").stat().st_size > 20_000
    said = capsys.readouterr().out
    assert "8 runs to do, 4 done before" in said
    assert "weighted" in said


@pytest.mark.slow
def test_runs_are_made_in_other_processes():
    jobs = [("uniform", 0.05, (0,), 2), ("weighted", 0.05, (1,), 2)]
    found = dict(command._train_all(jobs, workers=1))
    assert {job: [p.seed for p in points] for job, points in found.items()} == {
        jobs[0]: [0, 0],
        jobs[1]: [1, 1],
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": 0}, r"seeds must be in \[1, 10,000\], got 0"),
        ({"steps": 0}, r"steps must be in \[1, 10,000,000\], got 0"),
        ({"workers": 1_000}, r"workers must be in \[1, 256\], got 1,000"),
        ({"rare_shares": ()}, r"rare_shares must be one or more different numbers in \(0, 1\]"),
        ({"rare_shares": (0.0,)}, r"rare_shares must be one or more different numbers in"),
        ({"arms": ("rank",)}, "arms must be one or more different ones of uniform, proportional"),
    ],
    ids=lambda value: next(iter(value)) + str(value) if isinstance(value, dict) else "",
)
def test_nonsense_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        ImbalancedConfig(**wrong)


# --- the results in the docs ----------------------------------------------------------------------


def test_settings_are_the_best_of_their_arm_on_other_seeds():
    trials = read_rows(MEASURED / "tuning.csv", Trial)
    tried = {(t.arm, t.step_size, t.alpha, t.rare_share, t.seed) for t in trials}
    assert tried == {
        (arm, size, alpha, share, seed)
        for arm in ARMS
        for size in STEP_SIZES[arm]
        for alpha in (ALPHAS if arm in ("proportional", "corrected") else (1.0,))
        for share in RARE_SHARES
        for seed in SEEDS
    }
    assert len(tried) == len(trials)
    assert {arm: best(trials, arm) for arm in ARMS} == CHOSEN
    for arm, sizes in STEP_SIZES.items():
        assert min(sizes) < CHOSEN[arm].step_size < max(sizes)
    assert min(SEEDS) >= 1_000


def test_measured_results_are_complete_and_so_is_their_summary():
    points = read_rows(MEASURED / "imbalanced.csv", Point)
    config = ImbalancedConfig()
    assert config.steps == STEPS
    runs = {(p.rare_share, p.arm, p.seed) for p in points}
    assert len(runs) == 30 * len(config.arms) * len(config.rare_shares)
    assert {p.seed for p in points} == set(range(30))
    assert len(points) == len(runs) * len(evaluated_at(config.steps))
    assert read_rows(MEASURED / "imbalanced-summary.csv", Measure) == measures(points)


def test_the_words_beside_the_tables_are_what_was_measured():
    rows = read_rows(MEASURED / "imbalanced-summary.csv", Measure)
    found = {(m.rare_share, m.arm, m.measure): m.value for m in rows}
    for share in (0.01, 0.05):
        for arm in ("uniform", "proportional", "corrected"):
            assert found[share, "weighted", "high"] < 0.8 * found[share, arm, "low"]
        assert found[share, "corrected", "least"] < 0.0 < found[share, "corrected", "most"]
    assert found[0.01, "proportional", "most"] < 0.0
    assert found[0.05, "proportional", "least"] < 0.0 < found[0.05, "proportional", "most"]
    errors = {}
    for point in read_rows(MEASURED / "imbalanced.csv", Point):
        if point.rare_share == 0.05 and point.step <= 300:
            errors.setdefault(point.arm, []).append(point.error)
    mean = {arm: np.mean(of_arm) for arm, of_arm in errors.items()}
    assert mean["proportional"] < 0.8 * mean["uniform"] < 0.8 * mean["corrected"]
    trials = read_rows(MEASURED / "tuning.csv", Trial)
    uniform = {size: np.mean([t.error for t in trials if (t.arm, t.step_size) == ("uniform", size)])
               for size in (0.1, 1.0)}  # fmt: skip
    assert uniform[0.1] > 1.25 * uniform[1.0]


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.slow
def test_measured_results_are_those_of_this_code(arm):
    measured = [
        p
        for p in read_rows(MEASURED / "imbalanced.csv", Point)
        if (p.rare_share, p.arm, p.seed) == (0.05, arm, 0)
    ]
    moments = evaluated_at(ImbalancedConfig().steps)[:4]
    # Draws and learning are the same up to rounding, which differs from processor to processor. It
    # changes which rows are drawn next, and so more and more with every update.
    again = imbalanced.train(arm, 0.05, [0], moments[-1])
    errors = [p.error for p in again if p.step in moments]
    before = [p.error for p in measured[:4]]
    why = (
        "made by other code: run `per reproduce imbalanced --output docs/results/imbalanced` again"
    )
    assert errors[0] == pytest.approx(before[0], abs=0.01), why
    assert np.mean(errors) == pytest.approx(np.mean(before), abs=0.05), why


def test_tables_are_written_as_they_are_read(tmp_path):
    trials = [Trial("uniform", 0.3, 1.0, 0.01, 7, 0.25), Trial("uniform", 0.1, 1.0, 0.01, 7, 0.5)]
    write_rows(tmp_path / "t.csv", Trial, trials)
    assert read_rows(tmp_path / "t.csv", Trial) == trials
    assert best(trials, "uniform") == Settings(0.3)
