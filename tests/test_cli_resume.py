"""``per train --resume``: runs that were stopped, killed, made longer, or cannot go on."""

import csv
import io
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from tests.test_cli import PER, refused, stop_at

from prioritized_replay.cli import main
from prioritized_replay.runs import checkpoint_policy
from prioritized_replay.runs.checkpoint import RunCheckpoint
from prioritized_replay.runs.folder import RunFolder
from prioritized_replay.runs.writer import RunWriter
from prioritized_replay.training.loop import Training

TINY = (
    *("--steps", "1400", "--warmup", "100", "--eval-every", "600", "--eval-episodes", "2"),
    *("--final-eval-episodes", "3", "--hidden-sizes", "16", "--batch-size", "16"),
    *("--replay", "proportional", "--n-step", "2", "--run-dir", "run"),
)
NEW = ["train", "CartPole-v1", *TINY]
RESUME = ["train", "--resume", "run"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    """Stop a run at its third report, at step 1,000, for all tests."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.chdir(folder)
        stop_at(3, signal.SIGINT, patch)
        assert main([*NEW]) == 130
    assert "Stopped at step 1,000 of 1,400" in out.getvalue()
    assert "  per train --resume run\n" in out.getvalue()
    return folder / "run"


@pytest.fixture
def stopped(stopped_once, here):
    """Copy the run that was stopped at step 1,000."""
    return shutil.copytree(stopped_once, Path("run"))


def rows(run="run"):
    with (Path(run) / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_its_end(stopped, capsys):
    before = rows()
    state, replay = RunCheckpoint(stopped / "checkpoint").load()
    assert state["training"]["counts"]["step"] == 1_000
    assert len(replay) >= 998

    assert main(RESUME) == 0

    out, err = capsys.readouterr()
    assert err == ""
    assert "1,400 steps, resumed at step 1,000, solved at 475; run folder run\n" in out
    assert "Trained 1,400 steps in " in out
    assert "--resume" not in out
    assert not (stopped / "checkpoint").exists(), "gigabytes, perhaps"
    after = rows()
    assert [row["step"] for row in after] == ["500", "600", "1000", "1200", "1400"]
    assert after[:3] == before
    seconds = [float(row["seconds"]) for row in after]
    assert seconds == sorted(seconds)
    updates = [int(row["updates"]) for row in after]
    assert updates == sorted(updates)
    assert int(after[-1]["episodes"]) > int(before[-1]["episodes"])
    assert json.loads((stopped / "evaluation.json").read_text())["steps"] == 1_400

    assert main(RESUME) == 0
    assert capsys.readouterr().out == "run is complete: 1,400 steps were made, and evaluated.\n"
    assert main([*RESUME, "--steps", "2000"]) == 2
    assert "its checkpoint was removed" in capsys.readouterr().err


def test_the_resumed_learner_is_the_one_that_was_stopped(stopped, monkeypatch):
    last = RunFolder.open(stopped).load_model("last")
    (stopped / "last_model.pt").unlink()
    (stopped / "best_model.pt").write_bytes(b"of a life that was killed")
    seen = []

    def run(self, **options):
        seen.append(self.agent.online_network.state_dict())
        seen.append((self.step, self.agent.updates, len(self.learnt.returns)))
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "run", run)
    assert main(RESUME) == 130
    for name, weights in last.items():
        assert torch.equal(seen[0][name], weights)
    row = rows()[-1]
    assert seen[1] == (1_000, int(row["updates"]), int(row["episodes"]))
    folder = RunFolder.open(stopped)
    assert folder.load_model("best").keys() == folder.load_model("last").keys() == last.keys()


@pytest.mark.slow
def test_a_best_model_of_a_killed_life_does_not_stay(here, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(1, signal.SIGINT, patch)
        assert main(NEW) == 130  # before the first evaluation
    Path("run/best_model.pt").write_bytes(b"of a life that was killed after it")

    def run(self, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "run", run)
    assert main(RESUME) == 130
    assert not Path("run/best_model.pt").exists()


@pytest.mark.slow
def test_the_same_command_line_may_be_given_again(stopped):
    assert main([*NEW, "--resume", "run"]) == 0
    assert rows()[-1]["step"] == "1400"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--gamma 0.5", "gamma must be 0.99 as in the run to resume, got 0.5"),
        ("--seed 1", "seed must be 0 as in the run to resume, got 1"),
        ("--replay rank", "replay must be proportional as in the run to resume, got rank"),
        ("--steps 1399", "steps must be >= 1400 as in the run to resume, got 1399"),
        ("Acrobot-v1", "env_id must be CartPole-v1 as in the run to resume, got Acrobot-v1"),
        ("--overwrite", "choose one"),
        ("--run-dir other", "run_dir must be that of the run to resume, got other"),
        ("--preset quick", "--preset is for new runs"),
        ("--checkpoint-every -1", "checkpoint_every must be >= 0, got -1"),
        ("--stesp 5", "near: --steps"),
    ],
)
def test_contradictions_are_refused_and_change_nothing(stopped, capsys, words, message):
    before = {str(file): file.stat().st_mtime_ns for file in stopped.rglob("*")}
    assert message in refused(capsys, *RESUME, *words.split())
    assert {str(file): file.stat().st_mtime_ns for file in stopped.rglob("*")} == before


def test_what_cannot_be_resumed_is_one_line(stopped, capsys):
    assert "nowhere is not a run" in refused(capsys, "train", "--resume", "nowhere")
    assert "is not a run" in refused(capsys, "train", "--resume=.")
    refused(capsys, "train", "--resume")
    metrics = (stopped / "metrics.csv").read_bytes()
    (stopped / "metrics.csv").write_bytes(metrics[:400])
    assert "metrics.csv must have 3 reports" in refused(capsys, *RESUME)
    (stopped / "metrics.csv").write_bytes(metrics)
    config = (stopped / "config.json").read_text()
    (stopped / "config.json").write_text(config.replace('"n_step": 2', '"n_step": 3'))
    assert "n_step of the replay must be 3, got 2" in refused(capsys, *RESUME)
    (stopped / "config.json").write_text(config)
    with RunWriter.claim(RunFolder.open(stopped)):
        if sys.platform != "win32":
            assert "another process is writing" in refused(capsys, *RESUME)
    (learner,) = (stopped / "checkpoint").glob("extra-learner.*")
    learner.unlink()
    assert f"{learner.name} is missing" in refused(capsys, *RESUME)
    (stopped / "checkpoint" / "MANIFEST.json").unlink()
    assert "there is no checkpoint in run" in refused(capsys, *RESUME)


@pytest.mark.slow
def test_without_checkpoints_there_are_none(here, capsys, monkeypatch):
    stop_at(3, signal.SIGINT, monkeypatch)
    assert main([*NEW, "--checkpoint-every", "0", "--keep-checkpoint"]) == 130
    assert "--resume" not in capsys.readouterr().out
    assert not Path("run/checkpoint").exists()
    assert "there is no checkpoint in run" in refused(capsys, *RESUME)


@pytest.mark.slow
def test_checkpoints_come_at_the_reports_that_reach_a_multiple(here, monkeypatch):
    saved = []
    real = RunCheckpoint.save

    def save(self, learner, replay):
        saved.append(learner["training"]["counts"]["step"])
        real(self, learner, replay)

    monkeypatch.setattr(RunCheckpoint, "save", save)
    assert main([*NEW, "--checkpoint-every", "550"]) == 0
    assert saved == [600, 1_200]
    saved.clear()
    assert main([*NEW, "--overwrite"]) == 0
    assert saved == [], "a short run goes by time"
    monkeypatch.setattr(checkpoint_policy, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoint_policy, "SHARE", 0.0)
    assert main([*NEW, "--overwrite"]) == 0
    assert saved == [500, 600, 1_000, 1_200]


@pytest.mark.slow
def test_a_kept_checkpoint_makes_a_longer_run(here, capsys):
    assert main([*NEW, "--keep-checkpoint"]) == 0
    assert Path("run/checkpoint/MANIFEST.json").is_file()
    assert main(RESUME) == 0
    assert "run is complete" in capsys.readouterr().out
    assert main([*RESUME, "--steps", "2000"]) == 0
    assert "2,000 steps, resumed at step 1,400" in capsys.readouterr().out
    assert [row["step"] for row in rows()][-3:] == ["1500", "1800", "2000"]
    assert RunFolder.open(Path("run")).config.steps == 1_400, "the schedules' end"
    assert RunFolder.open(Path("run")).policy.steps == 2_000
    assert Path("run/checkpoint/MANIFEST.json").is_file()
    assert main([*RESUME]) == 0
    assert "run is complete: 2,000 steps" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_stopped_in_its_last_evaluation_only_makes_that(here, capsys, monkeypatch):
    real = Training.final_evaluation

    def stopping(self, episodes=None):
        signal.raise_signal(signal.SIGTERM)
        return real(self, episodes)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "final_evaluation", stopping)
        assert main(NEW) == 128 + signal.SIGTERM
    assert not Path("run/evaluation.json").exists()
    before = rows()
    assert main(RESUME) == 0
    assert rows() == before
    assert json.loads(Path("run/evaluation.json").read_text())["episodes"] == 3


@pytest.mark.slow
def test_a_disk_too_full_for_a_checkpoint_does_not_end_a_training(here, capsys, monkeypatch):
    real, calls = RunCheckpoint.save, []

    def save(self, learner, replay):
        calls.append(learner["training"]["counts"]["step"])
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        real(self, learner, replay)

    monkeypatch.setattr(RunCheckpoint, "save", save)
    stop_at(4, signal.SIGINT, monkeypatch)
    assert main([*NEW, "--checkpoint-every", "500"]) == 130
    out = capsys.readouterr().out
    assert calls == [500, 1_000, 1_200]
    assert "Careful: the checkpoint at step 1,000 was not written: [Errno 28]" in out
    assert "The last checkpoint is of step 500.\n" in out
    assert "  per train --resume run\n" in out


@pytest.mark.slow
def test_a_second_ctrl_c_gives_the_checkpoint_up(here, capsys, monkeypatch):
    def save(self, learner, replay):
        signal.raise_signal(signal.SIGINT)
        raise AssertionError

    monkeypatch.setattr(RunCheckpoint, "save", save)
    stop_at(3, signal.SIGINT, monkeypatch)
    assert main(NEW) == 130
    out = capsys.readouterr().out
    assert "The checkpoint was given up.\n" in out
    assert "--resume" not in out
    assert RunFolder.open(Path("run")).load_model("last")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_random_moments_a_run_comes_to_its_end(here):
    """Each life ends somewhere: in a step, an evaluation, a checkpoint. None leaves a gap."""
    chance = random.Random(1)
    words = [*NEW, "--steps", "100000", "--checkpoint-every", "500"]
    reached = [0]
    for _ in range(4):
        process = subprocess.Popen(
            [*PER, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        said = [process.stdout.readline() for _ in range(2)]
        time.sleep(chance.uniform(0.0, 1.0))
        process.kill()
        err = process.communicate()[1]
        assert err == ""
        assert "evaluation" in said[1]
        state, replay = RunCheckpoint(Path("run/checkpoint")).load()
        counts = state["training"]["counts"]
        assert counts["step"] >= reached[-1]
        assert counts["begun"] <= len(reached)
        assert counts["step"] - 1 <= replay.stats()["ids_issued"] <= counts["step"]  # n_step 2
        if reached[-1]:
            at = re.search(r"resumed at step ([\d,]+)", said[0])[1]
            assert int(at.replace(",", "")) == reached[-1]
        reached.append(counts["step"])
        words = RESUME
    with RunWriter.claim(RunFolder.open(Path("run"))) as writer:
        writer.resume_from(counts["reported"], state["rows"])
    steps = [int(row["step"]) for row in rows()]
    assert reached[-1] > reached[1]
    assert steps == sorted({*range(500, reached[-1] + 1, 500), *range(600, reached[-1] + 1, 600)})
