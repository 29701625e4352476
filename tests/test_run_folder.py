"""The files of a run: written whole, read back equal, and refused in one sentence when damaged."""

import contextlib
import csv
import json
import math
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tests.reports import evaluation, progress
from tests.waiting import ended

import prioritized_replay as per
from prioritized_replay.runs.checkpoint_policy import CheckpointPolicy
from prioritized_replay.runs.folder import RunFolder
from prioritized_replay.runs.metrics import COLUMNS
from prioritized_replay.runs.writer import RunWriter
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.presets import preset

CONFIG = preset("CartPole-v1", seed=5, hidden_sizes=(8, 4), tau=None)
STATE = {"layers.0.weight": torch.arange(6.0).reshape(2, 3), "layers.0.bias": torch.zeros(2)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "run"


def test_the_configuration_comes_back_equal(path):
    RunWriter.create(path, CONFIG).close()
    assert RunFolder.open(path).config == CONFIG


def test_config_json_names_versions_and_no_place_of_this_machine(path):
    RunWriter.create(path, CONFIG).close()
    text = (path / "config.json").read_text()
    versions = json.loads(text)["versions"]
    assert versions["torch"] == torch.__version__
    assert versions["numpy"] == np.__version__
    assert set(versions) >= {"python", "prioritized-replay", "gymnasium"}
    assert str(path.parent) not in text
    assert str(Path.home()) + "/" not in text


def test_metrics_come_back_and_a_missing_number_is_an_empty_cell(path):
    judged = evaluation(10.0, 20.0, 60.0)
    with RunWriter.create(path, CONFIG) as run:
        run.log(progress(500, loss=math.nan), seconds=1.5)
        assert len((path / "metrics.csv").read_text().splitlines()) == 2, (
            "must not wait in a buffer"
        )
        run.log(progress(123_456_789, evaluation=judged, is_best=True), seconds=2.5)
    with (path / "metrics.csv").open(newline="") as file:
        header, first, _ = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert first[header.index("loss")] == ""
    metrics = RunFolder.open(path).metrics()
    np.testing.assert_array_equal(metrics["step"], [500, 123_456_789])
    np.testing.assert_array_equal(metrics["seconds"], [1.5, 2.5])
    np.testing.assert_array_equal(metrics["loss"], [np.nan, 0.125])
    np.testing.assert_array_equal(metrics["evaluation_mean"], [np.nan, 30.0])
    np.testing.assert_array_equal(metrics["evaluation_low"], [np.nan, 10.0])
    np.testing.assert_array_equal(metrics["evaluation_high"], [np.nan, 60.0])
    np.testing.assert_array_equal(metrics["is_best"], [0, 1])


def test_tensorboard_reads_the_events(path):
    with RunWriter.create(path, CONFIG) as run:
        run.log(progress(500, loss=math.nan), seconds=1.0)
        run.log(progress(1_000, evaluation=evaluation(30.0)), seconds=2.0)
    (file,) = path.glob("events.out.tfevents.*")
    seen = {
        (value.tag, event.step): value.tensor.float_val[0]
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    }
    assert seen["learning/loss", 1_000] == 0.125
    assert ("learning/loss", 500) not in seen, "a point that is no number"
    assert seen["return/mean_of_last_100", 500] == 20.5
    assert seen["evaluation/mean", 1_000] == 30.0
    assert seen["replay/effective_sample_size", 1_000] == 12.5


def test_models_are_plain_tensors_and_come_back_equal(path):
    run = RunWriter.create(path, CONFIG)
    run.save_model("best", STATE)
    plain = torch.load(path / "best_model.pt", weights_only=True)
    loaded = RunFolder.open(path).load_model("best")
    run.close()
    assert plain.keys() == loaded.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert torch.equal(plain[name], tensor)
        assert torch.equal(loaded[name], tensor)


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


def test_a_model_that_carries_code_is_refused_and_not_run(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with RunWriter.create(path, CONFIG) as run:
        torch.save({"weights": Trap()}, path / "best_model.pt")
        (path / "last_model.pt").write_bytes(pickle.dumps(Trap()))
        for model in ("best", "last"):
            with pytest.raises(ValueError, match=f"{model}_model.pt is damaged or not a model"):
                run.folder.load_model(model)
    assert not Path("sprung").exists()


def test_a_damaged_model_is_one_sentence(path):
    with RunWriter.create(path, CONFIG) as run:
        run.save_model("last", STATE)
        whole = (path / "last_model.pt").read_bytes()
        for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
            (path / "last_model.pt").write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"last_model\.pt is damaged") as caught:
                run.folder.load_model("last")
            assert "\n" not in str(caught.value)
        torch.save([1, 2], path / "last_model.pt")
        with pytest.raises(ValueError, match="holds no named tensors"):
            run.folder.load_model("last")


def test_a_model_that_is_larger_than_its_file_is_refused(path):
    with RunWriter.create(path, CONFIG) as run:
        torch.save({"a": torch.ones(1).expand(1 << 40)}, path / "best_model.pt")
        torch.save({"a": torch.zeros(1000)}, path / "whole.pt")
        with (
            zipfile.ZipFile(path / "whole.pt") as parts,
            zipfile.ZipFile(path / "last_model.pt", "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for part in parts.infolist():
                packed.writestr(part.filename, parts.read(part))
        for model in ("best", "last"):
            with pytest.raises(ValueError, match=f"{model}_model.pt is damaged or not a model"):
                run.folder.load_model(model)


@pytest.mark.skipif(sys.platform == "win32", reason="needs the right to make links there")
def test_nothing_is_written_through_a_link(path, tmp_path):
    (tmp_path / "theirs").write_text("precious")
    with RunWriter.create(path, CONFIG) as run:
        for name in ("last_model.pt", "last_model.pt.unfinished"):
            (path / name).symlink_to(tmp_path / "theirs")
        run.save_model("last", STATE)
    assert (tmp_path / "theirs").read_text() == "precious"
    assert not (path / "last_model.pt").is_symlink()


def test_a_missing_model_says_which_there_is(path):
    with RunWriter.create(path, CONFIG) as run:
        with pytest.raises(FileNotFoundError, match=r"has no best model$"):
            run.folder.load_model("best")
        run.save_model("last", STATE)
        with pytest.raises(FileNotFoundError, match="has no best model; it has the last one"):
            run.folder.load_model("best")


def test_a_save_that_fails_leaves_the_older_model_whole(path, monkeypatch):
    with RunWriter.create(path, CONFIG) as run:
        run.save_model("last", STATE)

        def half(state, file):
            file.write(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", half)
        with pytest.raises(OSError, match="No space left"):
            run.save_model("last", {})
        assert torch.equal(
            run.folder.load_model("last")["layers.0.weight"], STATE["layers.0.weight"]
        )
    assert not list(path.glob("*.unfinished"))


def test_the_evaluation_is_kept_with_every_episode(path):
    with RunWriter.create(path, CONFIG) as run:
        run.save_evaluation(evaluation(1.0, 2.0, 6.0), model="best")
    content = json.loads((path / "evaluation.json").read_text())
    assert content["model"] == "best"
    assert content["returns"] == [1.0, 2.0, 6.0]
    assert content["lengths"] == [1, 2, 3]
    assert (content["mean"], content["iqm"], content["interval_95"]) == (3.0, 2.0, [1.0, 6.0])
    assert (content["min"], content["max"], content["episodes"]) == (1.0, 6.0, 3)


def test_an_earlier_run_is_replaced_only_when_asked_and_other_files_stay(path):
    with RunWriter.create(path, CONFIG) as run:
        run.log(progress(500), seconds=1.0)
        run.save_model("best", STATE)
        run.save_evaluation(evaluation(1.0))
    (path / "notes.txt").write_text("mine")
    (path / "learning_curve.png").write_bytes(b"old")
    before = {file: file.read_bytes() for file in path.iterdir()}

    with pytest.raises(FileExistsError, match="add --overwrite to replace it"):
        RunWriter.create(path, CONFIG)
    assert {file: file.read_bytes() for file in path.iterdir()} == before

    other = TrainConfig(env_id="Acrobot-v1")
    with RunWriter.create(path, other, overwrite=True) as run:
        assert not run.folder.has_model("best")
    names = {file.name for file in path.iterdir() if "tfevents" not in file.name}
    assert names == {"config.json", "metrics.csv", "notes.txt"}
    assert len(list(path.glob("*tfevents*"))) == 1
    assert RunFolder.open(path).config == other


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="something other than a run"):
        RunWriter.create(tmp_path, CONFIG, overwrite=overwrite)
    with pytest.raises(FileExistsError, match="is a file"):
        RunWriter.create(tmp_path / "thesis.tex", CONFIG, overwrite=overwrite)
    assert {file.name for file in tmp_path.iterdir()} == {"thesis.tex", "config.json"}


def test_an_empty_folder_may_be_used(tmp_path):
    RunWriter.create(tmp_path, CONFIG).close()
    assert RunFolder.open(tmp_path).config == CONFIG


def test_discard_removes_the_run_and_nothing_else(path):
    RunWriter.create(path, CONFIG).discard()
    assert not path.exists()
    run = RunWriter.create(path, CONFIG)
    (path / "notes.txt").write_text("mine")
    run.discard()
    assert [file.name for file in path.iterdir()] == ["notes.txt"]


def test_opening_what_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a run: there is no such folder"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"is not a run: it has no config\.json"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{}",
        b'{"format": 1, "config": {"env_id": "CartPole-v1"}}',
        b'{"format": 2, "config": {}}',
        b'{"format": 2, "config": [1]}',
        b'{"format": 2, "config": {"env_id": "CartPole-v1", "gama": 0.9}}',
        b'{"format": 2, "config": {"env_id": "CartPole-v1", "gamma": 9}}',
        b'{"format": 2, "config": {"env_id": "CartPole-v1", "steps": "many"}}',
        b'{"format": 2, "config": ' + b"[" * 100_000,
    ],
)
def test_a_damaged_configuration_is_one_sentence(path, content):
    RunWriter.create(path, CONFIG).close()
    (path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json cannot be read") as caught:
        RunFolder.open(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200 + len(str(path)) * 2


@pytest.mark.parametrize("content", ["", "step\n1\n", "a,b\n1,2\n"])
def test_damaged_metrics_are_one_sentence(path, content):
    with RunWriter.create(path, CONFIG) as run:
        run.log(progress(500), seconds=1.0)
    whole = (path / "metrics.csv").read_text()
    (path / "metrics.csv").write_text(content or whole.replace("20.5", "2o.5"))
    with pytest.raises(ValueError, match=r"metrics\.csv cannot be read"):
        RunFolder.open(path).metrics()


def steps_in(path):
    return RunFolder.open(path).metrics()["step"].tolist()


def logged(path, steps):
    with RunWriter.create(path, CONFIG) as run:
        for step in steps:
            run.log(progress(step), seconds=1.0)


@pytest.mark.parametrize("torn", ["", "200", "2000,1", "1800,1,1\n", "\x00" * 50])
def test_going_on_drops_what_came_after_the_checkpoint(path, torn):
    """Rows of a life that was killed, and the half of one that it was writing."""
    logged(path, [500, 1_000, 1_500])
    with (path / "metrics.csv").open("a") as file:
        file.write(torn)
    run = RunWriter.claim(RunFolder.open(path))
    run.resume_from(reported=1_000, rows=2)
    with run:
        run.log(progress(1_700, loss=7.0), seconds=2.0)
        assert run.rows == 3
    assert steps_in(path) == [500, 1_000, 1_700]
    assert RunFolder.open(path).metrics()["loss"][-1] == 7.0
    assert len((path / "metrics.csv").read_text().splitlines()) == 4


def test_tensorboard_drops_it_too(path):
    logged(path, [500, 1_000, 1_500])
    run = RunWriter.claim(RunFolder.open(path))
    run.resume_from(reported=1_000, rows=2)
    run.close()
    newest = max(path.glob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime_ns)
    starts = [
        event.step
        for event in EventFileLoader(str(newest)).Load()
        if event.session_log.status == event.session_log.START and event.HasField("session_log")
    ]
    assert starts == [1_001]


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_going_on_without_a_gap_or_not_at_all(path, rows):
    logged(path, [500, 1_000, 1_500])
    before = (path / "metrics.csv").read_bytes()
    run = RunWriter.claim(RunFolder.open(path))
    with pytest.raises(ValueError, match=rf"must have {rows} reports up to step 1000, got 2"):
        run.resume_from(reported=1_000, rows=rows)
    run.close()
    assert (path / "metrics.csv").read_bytes() == before
    (path / "metrics.csv").unlink()
    with pytest.raises(ValueError, match=r"metrics\.csv cannot be read: it is missing"):
        RunWriter.claim(RunFolder.open(path))


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_one_process_at_a_time(path):
    with RunWriter.create(path, CONFIG):
        with pytest.raises(FileExistsError, match="a run that another process is writing"):
            RunWriter.claim(RunFolder.open(path))
        with pytest.raises(FileExistsError, match="a run that another process is writing"):
            RunWriter.create(path, CONFIG, overwrite=True)
    RunWriter.create(path, CONFIG, overwrite=True).close()


def test_how_far_a_run_is_to_go_comes_back(path):
    RunWriter.create(path, CONFIG, policy=CheckpointPolicy(steps=7, checkpoint_every=3)).close()
    run = RunFolder.open(path)
    assert run.policy == CheckpointPolicy(steps=7, checkpoint_every=3)
    before = json.loads((path / "config.json").read_text())
    with RunWriter.claim(run) as writer:
        writer.set_policy(CheckpointPolicy(steps=9, keep_checkpoint=True))
    after = json.loads((path / "config.json").read_text())
    assert RunFolder.open(path).policy == CheckpointPolicy(steps=9, keep_checkpoint=True)
    assert {**before, "checkpoint_policy": None} == {**after, "checkpoint_policy": None}
    after["checkpoint_policy"] = {"steps": -1}
    (path / "config.json").write_text(json.dumps(after))
    with pytest.raises(ValueError, match="steps must be >= 1, got -1"):
        RunFolder.open(path)


def test_overwriting_and_discarding_take_the_checkpoint_too(path):
    run = RunWriter.create(path, CONFIG)
    replay = per.ReplayBuffer.for_spaces(spaces.Discrete(2), spaces.Discrete(2), 4)
    run.folder.checkpoint.save({"a": 1}, replay)
    run.close()
    run = RunWriter.create(path, CONFIG, overwrite=True)
    assert not (path / "checkpoint").exists()
    run.folder.checkpoint.save({"a": 1}, replay)
    run.discard()
    assert not path.exists()


def test_a_run_is_complete_when_it_was_evaluated_at_its_end(path):
    with RunWriter.create(path, CONFIG) as run:
        assert not run.folder.is_complete(100)
        run.save_evaluation(evaluation(1.0), steps=100)
        assert run.folder.is_complete(100)
        assert not run.folder.is_complete(101)
        for content in ("{", "[" * 100_000):
            (path / "evaluation.json").write_text(content)
            assert not run.folder.is_complete(100)


@pytest.mark.parametrize("name", ["config.json", "evaluation.json", "metrics.csv"])
def test_what_is_huge_is_not_read_whole(path, name):
    logged(path, [500])
    (path / name).touch()
    os.truncate(path / name, 1 << 40)
    if name == "config.json":
        with pytest.raises(ValueError, match=r"config\.json cannot be read: .* at most"):
            RunFolder.open(path)
        return
    run = RunWriter.claim(RunFolder.open(path))
    assert not run.folder.is_complete(100)
    run.resume_from(reported=500, rows=1)
    run.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("name", ["config.json", "evaluation.json", "metrics.csv"])
def test_nothing_waits_for_a_pipe(path, name):
    logged(path, [500])
    (path / name).unlink(missing_ok=True)
    os.mkfifo(path / name)

    def look():
        with contextlib.suppress(FileNotFoundError, ValueError):
            folder = RunFolder.open(path)
            assert not folder.is_complete(500)
            RunWriter.claim(folder).close()

    ended(look)
