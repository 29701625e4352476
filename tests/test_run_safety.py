"""Folders of runs that somebody tampered with, and processes that end at a bad moment."""

import io
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from tests.reports import progress
from tests.test_cli import refused
from tests.waiting import ended

from prioritized_replay.cli import main
from prioritized_replay.runs import checkpoint_policy, records
from prioritized_replay.runs import evaluate as evaluate_module
from prioritized_replay.runs import writer as writer_module
from prioritized_replay.runs.checkpoint import RunCheckpoint
from prioritized_replay.runs.files import read_file, replace_file
from prioritized_replay.runs.folder import RunFolder
from prioritized_replay.runs.signals import put_off
from prioritized_replay.runs.tensors import tensors_in
from prioritized_replay.runs.writer import RunWriter
from prioritized_replay.training.loop import Training
from prioritized_replay.training.presets import preset

CONFIG = preset("CartPole-v1", seed=5, hidden_sizes=(8, 4))
STATE = {"weight": torch.arange(6.0).reshape(2, 3)}
TINY = (
    *("--steps", "900", "--warmup", "100", "--eval-every", "400", "--eval-episodes", "2"),
    *("--final-eval-episodes", "3", "--hidden-sizes", "16", "--batch-size", "16"),
    *("--replay", "uniform", "--run-dir", "run"),
)
NEW = ["train", "CartPole-v1", *TINY]
links = pytest.mark.skipif(sys.platform == "win32", reason="needs the right to make links there")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Files that would never be read to their end


def saved(value):
    data = io.BytesIO()
    torch.save(value, data)
    return data.getvalue()


def in_a_file(text=None, data=None):
    """Return a file of torch's, written by Python, with another pickle in it."""
    changed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data or saved([]))) as parts,
        zipfile.ZipFile(changed, "w", zipfile.ZIP_STORED) as new,
    ):
        for part in parts.infolist():
            is_pickle = text is not None and part.filename.endswith("data.pkl")
            new.writestr(part.filename, text if is_pickle else parts.read(part))
    return changed.getvalue()


def doubled(kind, times=60):
    value = kind([1])
    for _ in range(times):
        value = kind([value, value])
    return value


def in_itself():
    value = []
    value.append(value)
    return value


SHARED = {
    "lists": doubled(list),
    "tuples": doubled(tuple),
    "a list in itself": in_itself(),
    "dicts": (lambda one: [one := {"a": one, "b": one} for _ in range(60)][-1])({}),
    "lists in a dict": {"a": doubled(list)},
}


@pytest.mark.parametrize("name", SHARED)
def test_what_shares_itself_is_refused_at_once(name):
    data = saved(SHARED[name])
    assert len(data) < 4_000

    def read():
        with pytest.raises(ValueError, match="used twice"):
            tensors_in(data)

    ended(read)


def test_a_key_that_shares_itself_is_refused_before_anybody_hashes_it():
    text = b"\x80\x02}("  # a dict, and a tuple of twice the one before
    text += b"K\x01\x85q\x00"
    for number in range(60):
        text += b"h" + bytes([number]) + b"\x86q" + bytes([number + 1])
    text += b"K\x01u."

    def read():
        with pytest.raises(ValueError, match="used twice"):
            tensors_in(in_a_file(text))

    ended(read)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[0] * 1_000] * 1, None),
        ([list(range(1_000)) for _ in range(101)], "at most 100,000 values"),
        ((lambda one: [one := [one] for _ in range(60)][-1])([]), "nested at most 50 deep"),
        (torch.Size([1]), "must hold tensors and plain values"),
        (bytearray(10), "must hold tensors and plain values"),
        ({"a": torch.ones(1).expand(1 << 40)}, "larger than its numbers"),
        ({str(i): t for t in [torch.zeros(4_000)] for i in range(40)}, "larger than"),
    ],
)
@pytest.mark.slow
def test_work_is_bounded_by_what_is_in_the_file(value, message):
    if message is None:
        assert type(tensors_in(saved(value))) is type(value)
        return
    with pytest.raises(ValueError, match=message):
        tensors_in(saved(value))


def test_records_that_overlap_are_refused():
    """One megabyte that a hundred records share: they would be read one by one."""
    data = in_a_file(data=saved({"a": torch.zeros(1 << 18)}))
    assert tensors_in(data)["a"].shape == (1 << 18,)
    with zipfile.ZipFile(io.BytesIO(data)) as parts:
        start = parts.start_dir
    end = data.rindex(b"PK\x05\x06")
    directory = data[start:end]
    again = 100
    count, size = struct.unpack("<H", data[end + 10 : end + 12])[0], end - start
    tail = struct.pack(
        "<IHHHHIIH", 0x06054B50, 0, 0, count * again, count * again, size * again, start, 0
    )
    with pytest.raises(ValueError, match="overlap"):
        tensors_in(data[:start] + directory * again + tail)


def test_no_message_recommends_to_switch_safety_off():
    class Trap:
        def __reduce__(self):
            return (print, ("sprung",))

    for data in (saved(Trap()), pickle.dumps(Trap()), b"", saved(STATE)[:-100]):
        with pytest.raises(ValueError, match=r".") as caught:
            tensors_in(data)
        assert "weights_only" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["best_model.pt", "last_model.pt"])
def test_a_model_larger_than_its_network_is_not_read(here, name, capsys, monkeypatch):
    """A sparse file of a terabyte takes no room on the disk."""
    with RunWriter.create(Path("run"), CONFIG):
        pass
    with open(f"run/{name}", "wb") as file:
        file.truncate(1 << 40)
    words = ["evaluate", "run", "--model", name.partition("_")[0]]
    assert "does not fit its config.json: its file must have about" in refused(capsys, *words)
    with pytest.raises(ValueError, match="must have at most"):
        RunFolder.open(Path("run")).load_model(name.partition("_")[0])


def test_a_file_is_not_read_beyond_its_bound(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert read_file(path, 10) == b"x" * 10
    with pytest.raises(ValueError, match="must have at most 9 bytes, got 10"):
        read_file(path, 9)
    with pytest.raises((FileNotFoundError, PermissionError)):
        read_file(tmp_path, 9)


@pytest.mark.parametrize(
    ("field", "value"), [("batch_size", 10**12), ("envs", 10**9), ("final_eval_episodes", 10**12)]
)
@pytest.mark.parametrize("command", ["evaluate", "resume"])
def test_a_number_in_a_file_cannot_exhaust_the_machine(here, capsys, field, value, command):
    RunWriter.create(Path("run"), CONFIG).close()
    content = json.loads(Path("run/config.json").read_text())
    content["config"][field] = value
    Path("run/config.json").write_text(json.dumps(content))
    words = ["evaluate", "run"] if command == "evaluate" else ["train", "--resume", "run"]
    assert f"{field} must be <= " in refused(capsys, *words)


# Links


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Stop a run after its first report, for all tests."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stop_after_first_report(patch)
        assert main(NEW) == 130
    return folder / "run"


@links
@pytest.mark.parametrize(
    "name",
    ["learning_curve.png", "evaluation.json", "metrics.csv", "config.json", "best_model.pt"],
)
@pytest.mark.slow
def test_a_resumed_run_writes_through_no_link(stopped, here, capsys, name):
    shutil.copytree(stopped, "run")
    theirs = here / "theirs"
    content = Path("run", name).read_bytes() if Path("run", name).exists() else b"precious"
    theirs.write_bytes(content)
    Path("run", name).unlink(missing_ok=True)
    Path("run", name).symlink_to(theirs)

    code = main(["train", "--resume", "run", "--steps", "1000"])

    assert theirs.read_bytes() == content
    assert code == (2 if name == "metrics.csv" else 0)
    if name == "metrics.csv":
        assert "metrics.csv must be a file, got a link" in capsys.readouterr().err
    else:
        assert not Path("run", name).is_symlink() or name == "config.json"


def stop_after_first_report(patch):
    log = RunWriter.log

    def logged(self, progress, seconds):
        log(self, progress, seconds)
        signal.raise_signal(signal.SIGINT)

    patch.setattr(RunWriter, "log", logged)


@links
def test_a_second_name_of_the_metrics_is_left_alone(tmp_path):
    with RunWriter.create(tmp_path / "run", CONFIG) as run:
        for step in (500, 1_000):
            run.log(progress(step), seconds=1.0)
    os.link(tmp_path / "run" / "metrics.csv", tmp_path / "backup.csv")
    before = (tmp_path / "backup.csv").read_bytes()
    with RunWriter.claim(RunFolder.open(tmp_path / "run")) as run:
        run.resume_from(500, 1)
        run.log(progress(700), seconds=1.0)
    assert (tmp_path / "backup.csv").read_bytes() == before
    assert RunFolder.open(tmp_path / "run").metrics()["step"].tolist() == [500, 700]


@links
def test_the_checkpoint_is_no_link(tmp_path):
    training = Training(CONFIG)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "checkpoint").symlink_to(elsewhere)
    checkpoint = RunCheckpoint(tmp_path / "checkpoint")
    with pytest.raises(OSError, match="must be a folder, got a link"):
        checkpoint.save(training.state_dict(), training.agent.memory_buffer)
    (elsewhere / "checkpoint.json").write_text("theirs")
    checkpoint.remove()
    assert [file.name for file in elsewhere.iterdir()] == ["checkpoint.json"]
    assert not (tmp_path / "checkpoint").is_symlink()


@links
@pytest.mark.parametrize("link", ["a.gif", "a.gif.unfinished"])
def test_a_file_is_put_in_the_place_of_a_link(tmp_path, link):
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / link).symlink_to(tmp_path / "theirs")
    replace_file(tmp_path / "a.gif", lambda file: file.write(b"new"))
    assert (tmp_path / "theirs").read_text() == "precious"
    assert (tmp_path / "a.gif").read_bytes() == b"new"
    assert not (tmp_path / "a.gif").is_symlink()


def test_nobody_can_foresee_the_name_of_the_events(tmp_path):
    names = set()
    for _ in range(3):
        with RunWriter.create(tmp_path, CONFIG, overwrite=True):
            (file,) = tmp_path.glob("events.out.tfevents.*")
            names.add(file.name.rpartition(".")[2])
    assert len(names) == 3
    assert all(len(name) == 16 for name in names)


# Modules that a file names


@pytest.fixture
def module(here, monkeypatch):
    """Write a module that leaves a mark when it is imported, and a run that names it."""
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "rooms_of_a_stranger", raising=False)
    Path("rooms_of_a_stranger.py").write_text(
        "import gymnasium\nfrom pathlib import Path\nPath('imported').touch()\n"
        "gymnasium.register('Room-v0', 'gymnasium.envs.classic_control:CartPoleEnv',"
        " max_episode_steps=20)\n"
    )
    RunWriter.create(Path("run"), preset("rooms_of_a_stranger:Room-v0")).close()
    yield "rooms_of_a_stranger:Room-v0"
    sys.modules.pop("rooms_of_a_stranger", None)
    import gymnasium

    gymnasium.registry.pop("Room-v0", None)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "run"],
        ["evaluate", "run", "--env-id", "CartPole-v1"],
        ["train", "--resume", "run"],
        ["train", "CartPole-v1", "--resume", "run"],
    ],
)
def test_a_module_that_only_a_file_names_is_not_imported(module, capsys, words):
    line = refused(capsys, *words)
    assert "asks to import the module 'rooms_of_a_stranger'" in line
    assert "name the environment rooms_of_a_stranger:Room-v0 on the command line" in line
    assert not Path("imported").exists()


def test_a_module_that_the_user_names_is_imported(module, capsys):
    assert "there is no checkpoint" in refused(capsys, "train", module, "--resume", "run")
    assert "has no best model" in refused(capsys, "evaluate", "run", "--env-id", module)
    assert Path("imported").exists()


def test_a_comparison_imports_no_module_of_its_settings(here, capsys, monkeypatch):
    Path("out").mkdir()
    Path("out/settings.json").write_text('{"env_id": "rooms_of_a_stranger:Room-v0"}')
    line = refused_late(capsys, "compare", "CartPole-v1", "--output", "out", "--steps", "1200")
    assert "holds runs with env_id rooms_of_a_stranger:Room-v0" in line
    Path("out/settings.json").write_text("[" * 100_000)
    line = refused_late(capsys, "compare", "CartPole-v1", "--output", "out", "--steps", "1200")
    assert "settings.json cannot be read" in line


def refused_late(capsys, *words):
    assert main(words) == 2
    return capsys.readouterr().err


# Numbers that are not finite


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_model_that_is_not_finite_never_replaces_a_good_one(tmp_path, number):
    with RunWriter.create(tmp_path, CONFIG) as run:
        run.save_model("last", STATE)
        with pytest.raises(ValueError, match="the last model must be finite"):
            run.save_model("last", {"weight": torch.tensor([1.0, number])})
        assert torch.equal(run.folder.load_model("last")["weight"], STATE["weight"])
        torch.save({"weight": torch.tensor([number])}, tmp_path / "best_model.pt")
        with pytest.raises(ValueError, match=r"best_model\.pt cannot be used: its numbers"):
            run.folder.load_model("best")


def test_a_network_that_became_nan_leaves_models_and_checkpoint_as_they_were(
    here, capsys, monkeypatch
):
    log = RunWriter.log

    def broken(self, report, seconds):
        log(self, report, seconds)
        if report.step == 400:
            with torch.no_grad():
                for weights in broken.training.agent.online_network.parameters():
                    weights.fill_(float("nan"))

    init = Training.__init__

    def made(self, *args):
        init(self, *args)
        broken.training = self
        self.agent.optimize = lambda: None  # what it does with a broken network is tested elsewhere

    monkeypatch.setattr(Training, "__init__", made)
    monkeypatch.setattr(RunWriter, "log", broken)
    first = main([*NEW, "--checkpoint-every", "100", "--eval-every", "200"])
    out = capsys.readouterr().out
    assert first == 0
    assert out.count("numbers that are not finite") == 1
    folder = RunFolder.open(Path("run"))
    for model in ("last", "best"):
        assert folder.load_model(model)  # finite
    assert "best model: step 400" in out, "the last evaluation before it"


@pytest.mark.slow
def test_a_run_that_diverges_ends_with_one_line_and_keeps_its_checkpoint(here, capsys, monkeypatch):
    log = RunWriter.log

    def broken(self, report, seconds):
        log(self, report, seconds)
        if report.step == 800:
            with torch.no_grad():
                for weights in made.training.agent.online_network.parameters():
                    weights.fill_(float("nan"))

    init = Training.__init__

    def made(self, *args):
        init(self, *args)
        made.training = self

    monkeypatch.setattr(Training, "__init__", made)
    monkeypatch.setattr(RunWriter, "log", broken)
    assert main([*NEW, "--checkpoint-every", "400"]) == 1
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "must be finite" in err
    assert out.count("numbers that are not finite") == 1
    state, _ = RunCheckpoint(Path("run/checkpoint")).load()
    assert state["training"]["counts"]["step"] == 400
    assert RunFolder.open(Path("run")).load_model("last")


def test_a_best_network_is_finite(monkeypatch):
    training = Training(preset("CartPole-v1", steps=700, warmup=600, eval_every=300))
    with torch.no_grad():
        for weights in training.agent.online_network.parameters():
            weights.fill_(float("inf"))
    report = next(report for report in training.run() if report.step == 300)
    assert not report.is_best
    assert training.best_state is None


# Processes that end


@pytest.mark.parametrize(
    ("left", "extra"),
    [
        (["config.json"], []),
        (["config.json", "best_model.pt"], ["notes.txt"]),
        (["config.json", "config.json.unfinished"], []),
    ],
)
def test_a_folder_of_a_killed_beginning_can_be_begun_again(tmp_path, left, extra):
    """SIGKILL between the making of two files, also while an older run is replaced."""
    RunWriter.create(tmp_path, CONFIG).close()
    for file in tmp_path.iterdir():
        if file.name not in left:
            file.unlink()
    for name in {*left, *extra} - {"config.json"}:
        (tmp_path / name).write_text("half")
    with pytest.raises(FileExistsError, match="a run that was ended before it began: add --over"):
        RunWriter.create(tmp_path, CONFIG)
    with pytest.raises(ValueError, match="begin it again with --overwrite"):
        RunWriter.claim(RunFolder.open(tmp_path))
    RunWriter.create(tmp_path, CONFIG, overwrite=True).close()
    assert RunFolder.open(tmp_path).metrics()["step"].tolist() == []
    names = {file.name for file in tmp_path.iterdir() if "tfevents" not in file.name}
    assert names == {"config.json", "metrics.csv", *extra}


def test_what_only_was_to_become_a_run_is_as_good_as_empty(tmp_path):
    (tmp_path / "config.json.unfinished").write_text("{")
    RunWriter.create(tmp_path, CONFIG).close()
    assert RunFolder.open(tmp_path).config == CONFIG


def killed_at_line(last, path, overwrite):
    """Make a folder in a process that is killed at its line k; return whether it came so far."""
    files, lines = {writer_module.__file__, records.__file__}, 0

    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            lines += 1
            if lines == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    child = os.fork()
    if child == 0:
        sys.settrace(trace)
        RunWriter.create(path, CONFIG, overwrite=overwrite)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs SIGKILL and fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.slow
def test_killed_at_any_line_of_the_beginning_the_folder_can_be_begun(tmp_path, overwrite):
    for last in range(1, 300):
        path = tmp_path / f"{last}"
        if overwrite:
            RunWriter.create(path, CONFIG).close()
            (path / "best_model.pt").write_text("old")
            (path / "notes.txt").write_text("mine")
        if not killed_at_line(last, path, overwrite):
            assert last > 20
            return
        RunWriter.create(path, CONFIG, overwrite=True).close()
        assert RunFolder.open(path).metrics()["step"].tolist() == []
        assert (path / "notes.txt").exists() == overwrite
        assert not (path / "best_model.pt").exists()
    raise AssertionError("the making of a folder came to no end")


def test_ctrl_c_in_a_short_piece_of_work_comes_after_it():
    done = []

    def work():
        with put_off():
            signal.raise_signal(signal.SIGINT)
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("overwrite", [False, True])
def test_ctrl_c_while_the_folder_is_made_leaves_nothing_half_done(tmp_path, monkeypatch, overwrite):
    real = writer_module.versions
    path = tmp_path / "run"
    if overwrite:
        RunWriter.create(path, CONFIG).close()

    def versions():
        signal.raise_signal(signal.SIGINT)
        return real()

    monkeypatch.setattr(writer_module, "versions", versions)
    with pytest.raises(KeyboardInterrupt):
        RunWriter.create(path, CONFIG, overwrite=overwrite)
    assert path.exists() == overwrite
    if overwrite:
        assert RunFolder.open(path).metrics()["step"].tolist() == []


def test_a_full_disk_leaves_no_half_made_folder(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer_module, "write_header", full)
    with pytest.raises(OSError, match="No space"):
        RunWriter.create(tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()


# The first checkpoint


@pytest.mark.slow
def test_the_first_checkpoint_comes_early_and_between_two_reports(here, monkeypatch):
    steps = []
    real = RunCheckpoint.save

    def save(self, learner, replay):
        steps.append(learner["training"]["counts"]["step"])
        real(self, learner, replay)

    monkeypatch.setattr(RunCheckpoint, "save", save)
    monkeypatch.setattr(checkpoint_policy, "FIRST", 0.0)
    assert main(NEW) == 0
    assert steps == [1]
    steps.clear()
    assert main([*NEW, "--overwrite", "--checkpoint-every", "500"]) == 0
    assert steps == [1, 500]
    steps.clear()
    assert main([*NEW, "--overwrite", "--checkpoint-every", "0"]) == 0
    assert steps == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.slow
def test_a_run_killed_after_its_first_checkpoint_can_be_resumed(here):
    program = (
        "import sys; from prioritized_replay.runs import checkpoint_policy as policy;"
        "policy.FIRST = 0.2;"
        "from prioritized_replay.cli import main; sys.exit(main())"
    )
    words = [*NEW, "--steps", "1000000", "--eval-every", "1000000"]
    process = subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not RunCheckpoint(Path("run/checkpoint")).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    state, _ = RunCheckpoint(Path("run/checkpoint")).load()
    assert state["training"]["counts"]["step"] > 0
    folder = RunFolder.open(Path("run"))
    with RunWriter.claim(folder) as writer:
        writer.resume_from(state["training"]["counts"]["reported"], state["rows"])


# Episodes without an end


@pytest.mark.slow
def test_episodes_without_an_end_are_cut_off_and_that_is_said_once(here, capsys, monkeypatch):
    words = [
        *("train", "CliffWalking-v1", "--steps", "300", "--warmup", "50", "--eval-every", "150"),
        *("--eval-episodes", "1", "--final-eval-episodes", "1", "--run-dir", "run"),
        *("--hidden-sizes", "8"),
    ]
    assert main(words) == 0
    said = "CliffWalking-v1 has no time limit: an evaluation cuts an episode off after 1,000 steps"
    assert capsys.readouterr().out.count(said) == 1
    monkeypatch.setattr(evaluate_module, "DEFAULT_MAX_STEPS", 50)  # pictures take long to draw
    assert main(["evaluate", "run", "--episodes", "1", "--gif", "a.gif"]) == 0
    assert capsys.readouterr().out.count(said) == 1
    assert Path("a.gif").stat().st_size > 0
    assert main(["evaluate", "run", "--episodes", "1", "--max-steps", "10"]) == 0
    assert said not in capsys.readouterr().out
    assert main([*words, "--eval-max-steps", "10", "--overwrite"]) == 0
    assert said not in capsys.readouterr().out


def test_a_comparison_says_it_too(here, capsys):
    words = [
        *("compare", "CliffWalking-v1", "--seeds", "1", "--arms", "uniform", "--steps", "1100"),
        *("--output", "out"),
    ]
    import prioritized_replay.experiments.compare.command as command

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "train_all", lambda runs, workers: iter(()))
        assert main(words) == 0
    assert "CliffWalking-v1 has no time limit" in capsys.readouterr().out
