"""The command ``per``: help, one line for every refusal, and a run from its start to its GIF."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import types
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import pytest
import torch
from PIL import Image
from tests.reports import evaluation

from prioritized_replay.cli import main
from prioritized_replay.dqn.networks import make_network
from prioritized_replay.envs.recording import Recording
from prioritized_replay.extras import install_command
from prioritized_replay.runs import evaluate as evaluate_module
from prioritized_replay.runs import run as run_module
from prioritized_replay.runs.display import PlainLines
from prioritized_replay.runs.folder import RunFolder
from prioritized_replay.runs.writer import RunWriter
from prioritized_replay.training import loop as training_module
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.evaluation import evaluate
from prioritized_replay.training.loop import Training
from prioritized_replay.training.presets import preset

PER = [
    sys.executable,
    "-c",
    "import sys; from prioritized_replay.cli import main; sys.exit(main())",
]
TINY = (
    *("--steps", "900", "--warmup", "100", "--eval-every", "300", "--eval-episodes", "2"),
    *("--final-eval-episodes", "5", "--hidden-sizes", "16", "--batch-size", "16"),
    *("--replay", "uniform"),
)
FILES = {
    "config.json",
    "metrics.csv",
    "learning_curve.png",
    "evaluation.json",
    "best_model.pt",
    "last_model.pt",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train once, for every test that only looks at what came out."""
    folder = tmp_path_factory.mktemp("trained")
    out, err = io.StringIO(), io.StringIO()
    words = ["train", "CartPole-v1", *TINY, "--replay", "proportional", "--seed", "3"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        assert main(words) == 0
    return folder / "runs" / "CartPole-v1-proportional-seed3", out.getvalue(), err.getvalue()


def refused(capsys, *words, code=2):
    """Run the command, check that it refuses in one line, and return that line."""
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    return err.rstrip("\n")


# Help


@pytest.mark.slow
def test_help_names_every_command_and_loads_nothing_heavy():
    program = (
        "import sys; from prioritized_replay.cli import main; code = main(['--help']);"
        "heavy = {'torch', 'gymnasium', 'matplotlib', 'tyro', 'rich', 'tensorboard'};"
        "print('loaded:', sorted(heavy & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    commands = ("train ENV_ID", "evaluate RUN", "inspect PATH", "check MODULE:FACTORY")
    experiments = ("cliffwalk", "imbalanced", "chain", "noise", "memory")
    for word in (*commands, "compare ENV_ID", *(f"reproduce {name}" for name in experiments)):
        assert f"\n  {word} " in done.stdout
    assert done.stdout.endswith("loaded: []\n")


def test_help_without_a_command_is_a_usage_error(capsys):
    assert main([]) == 2
    assert "usage: per COMMAND" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"per \d+\.\d+.*\n", capsys.readouterr().out)


def test_the_help_of_train_shows_the_defaults_of_that_environment(capsys):
    assert main(["train", "CartPole-v1", "--help"]) == 0
    tuned = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert main(["train", "--help"]) == 0
    plain = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert (
        f"--steps INT Environment steps of the whole run. (default: {preset('CartPole-v1').steps})"
        in tuned
    )
    assert f"(default: {TrainConfig(env_id='any').steps})" in plain
    assert "ENV_ID" in plain
    for field in TrainConfig.__dataclass_fields__:
        if field != "env_id":
            assert f"--{field.replace('_', '-')}" in tuned, field
    for option in ("--run-dir", "--overwrite"):
        assert option in tuned


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_the_help_of_the_other_commands(capsys, command):
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"usage: per {command}" in out
    assert err == ""


# Refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", r"per: there is no command 'trian'; did you mean train\?"),
        ("train", r"per train: which environment\? For example: per train CartPole-v1"),
        ("train --steps 10", r"per train: ENV_ID is missing; see per train --help"),
        ("train CartPol-v1", r"per train: .*'CartPol-v1'; near names: CartPole-v1.*"),
        ("train cartpole-v1", r"per train: .*'cartpole-v1'; near names: CartPole-v1.*"),
        ("train CartPole-v9", r"per train: .*'CartPole-v9'; near names: CartPole-v1.*"),
        ("train not!an/id?", r"per train: .*not!an/id\?.*"),
        ("train --steps 10 CartPol-v1", r"per train: .*near names: CartPole-v1.*"),
        ("train Pendulum-v1", r"per train: action_space must be Discrete.*got Box.*"),
        ("train Blackjack-v1", r"per train: observation_space must .*got Tuple.*"),
        (
            "train CartPole-v1 --steps 1000",
            r"per train: steps must be > warmup \(1000\), or nothing is learnt, got 1000",
        ),
        ("train CartPole-v1 --envs 0", r"per train: envs must be >= 1, got 0"),
        ("train CartPole-v1 --preset paper", r"per train: preset must be quick for CartPole-v1.*"),
        (
            "train CartPole-v1 --preset best",
            r"per train: .*'best' for argument '--preset'.*quick.*paper.*",
        ),
        ("train CartPole-v1 --network nature", r"per train: observation_space must be an image.*"),
        ("train CartPole-v1 --sticky-actions 0", r"per train: sticky_actions must be None.*"),
        ("train ALE/Pog-v5", r"per train: .*'ALE/Pog-v5'; near names: ALE/Pong-v5.*"),
        ("train CartPole-v1 --steps -5", r"per train: steps must be >= 1, got -5"),
        (
            "train CartPole-v1 --steps 1.5",
            r"per train.*--steps: must be a whole number, got '1.5'.*",
        ),
        ("train CartPole-v1 --alpha -1", r"per train: alpha must be >= 0, got -1.0"),
        ("train CartPole-v1 --alpha x", r"per train.*--alpha: must be {None}\|FLOAT, got 'x'.*"),
        ("train CartPole-v1 --gamma nan", r"per train: gamma must be in \[0, 1\], got nan"),
        ("train CartPole-v1 --gamma x", r"per train.*--gamma: must be a number, got 'x'.*"),
        ("train CartPole-v1 --replay prio", r"per train.*'prio'.*rank.*proportional.*uniform.*"),
        ("train CartPole-v1 --stesp 5", r"per train.*--stesp.*near: --steps.*--help"),
        ("train CartPole-v1 --steps", r"per train.*'--steps'.*--help"),
        ("train CartPole-v1 Acrobot-v1", r"per train.*Acrobot-v1.*--help"),
        ("train CartPole-v1 --device tpu9", r"per train: device must be one that torch can use.*"),
        ("evaluate", r"per evaluate: RUN is missing; see per evaluate --help"),
        ("evaluate nowhere", r"per evaluate: nowhere is not a run: there is no such folder"),
        ("evaluate .", r"per evaluate: \. is not a run: it has no config\.json"),
        ("compare", r"per compare: which environment\?.*"),
        ("compare CartPole-v1 --workers 0", r"per compare: workers must be >= 1, got 0.*"),
        (
            "reproduce cliff",
            r"per reproduce: there is no experiment 'cliff'; known: cliffwalk, imbalanced, chain.*",
        ),
    ],
)
@pytest.mark.slow
def test_a_refusal_is_one_line(here, capsys, words, message):
    assert re.fullmatch(message, refused(capsys, *words.split()))
    assert list(here.iterdir()) == [], "nothing may be left behind"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.slow
def test_a_refusal_is_one_plain_line_in_a_terminal_too():
    import pty

    leader, follower = pty.openpty()
    words = [*PER, "train", "CartPole-v1", "--stesp", "5"]
    subprocess.run(words, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm"})
    os.close(follower)
    said = os.read(leader, 10_000).decode()
    os.close(leader)
    assert said == (
        "per train: Unrecognized options: --stesp, 5; near: --steps, --n-step; "
        "see per train CartPole-v1 --help\r\n"
    )


def test_an_environment_in_a_module_that_is_missing(here, capsys):
    assert "nosuchmodule" in refused(capsys, "train", "nosuchmodule:Env-v0", code=1)


def test_an_environment_whose_package_is_missing(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    line = refused(capsys, "train", "LunarLander-v3", code=1)
    assert "LunarLander-v3 needs a package that is not installed" in line
    assert "box2d" in line.lower()


@pytest.mark.parametrize(
    ("env_id", "package", "extra"),
    [("ALE/Pong-v5", "ale_py", "atari"), ("MinAtar/Breakout-v1", "minatar.gym", "minatar")],
)
def test_games_that_are_not_installed_name_their_extra(
    here, capsys, monkeypatch, env_id, package, extra
):
    monkeypatch.setitem(sys.modules, package, None)
    line = refused(capsys, "train", env_id, code=1)
    assert f"{install_command(extra)} (" in line


def test_the_papers_preset_is_shown_as_defaults_and_options_win(capsys):
    assert main(["train", "ALE/Pong-v5", "--preset", "paper", "--help"]) == 0
    paper = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert main(["train", "ALE/Pong-v5", "--help"]) == 0
    quick = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(default: 50000000)" in paper
    assert "(default: 50000000)" not in quick
    assert "--preset {quick,paper}" in quick


@pytest.mark.slow
def test_a_replay_that_will_not_fit_is_said_before_it_happens(here, capsys, monkeypatch):
    monkeypatch.setattr(run_module, "bytes_available", lambda: 2**20)
    assert main(["train", "CartPole-v1", *TINY, "--run-dir", "small"]) == 0
    warned = capsys.readouterr().out
    monkeypatch.setattr(run_module, "bytes_available", lambda: None)
    assert main(["train", "CartPole-v1", *TINY, "--run-dir", "large"]) == 0
    assert "Careful: the replay will need" in warned
    assert "choose a smaller --capacity" in warned
    assert "Careful" not in capsys.readouterr().out


IMAGES = (
    *("--steps", "160", "--warmup", "100", "--batch-size", "4", "--capacity", "200"),
    *("--eval-every", "160", "--eval-episodes", "1", "--final-eval-episodes", "2"),
)


@pytest.mark.parametrize(
    ("env_id", "options", "cap"),
    [
        ("ALE/Pong-v5", ("--envs", "2", "--n-step", "2"), 15),
        ("MinAtar/Asterix-v1", ("--envs", "3"), 1),
        ("MinAtar/Asterix-v1", ("--sticky-actions", "0"), 1),
    ],
)
@pytest.mark.slow
def test_image_environments_from_training_to_recording(here, capsys, env_id, options, cap):
    capped = ("--eval-max-steps", str(cap))
    assert main(["train", env_id, *IMAGES, *options, *capped, "--run-dir", "run"]) == 0
    out = capsys.readouterr().out
    assert f"cut off          2.0   episodes, after {cap} steps\n" in out
    kept = json.loads(Path("run/evaluation.json").read_text())
    assert (kept["cut_off"], kept["lengths"]) == (2, [cap, cap])

    assert main(["evaluate", "run", "--episodes", "3", "--gif", "played.gif"]) == 0
    assert f"cut off          3.0   episodes, after {cap} steps\n" in capsys.readouterr().out
    with Image.open("played.gif") as gif:
        assert gif.n_frames >= 2
        assert len(gif.convert("RGB").getcolors(1 << 20)) > 1, "a blank picture"
    assert main(["evaluate", "run", "--episodes", "1", "--max-steps", "2"]) == 0
    assert "2.0   per episode" in capsys.readouterr().out
    assert refused(capsys, "evaluate", "run", "--max-steps", "0").endswith("must be >= 1, got 0")


def test_too_much_memory_is_one_line(here, capsys):
    line = refused(capsys, "train", "CartPole-v1", "--capacity", str(10**12))
    assert line == "per train: capacity must be <= 1,000,000,000, got 1000000000000"


@pytest.mark.parametrize("module", ["torch", "gymnasium", "tyro", "rich"])
@pytest.mark.parametrize("words", ["train CartPole-v1", "train --help", "evaluate runs/a"])
def test_a_missing_extra_names_the_command_that_installs_it(capsys, monkeypatch, module, words):
    monkeypatch.setitem(sys.modules, module, None)
    line = refused(capsys, *words.split(), code=1)
    assert line.endswith(f"needs {module}, not installed here: {install_command('train')}")


def test_an_experiment_names_the_extra_that_it_needs(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    line = refused(capsys, "reproduce", "imbalanced", "--help", code=1)
    assert line.endswith(f"needs sklearn, not installed here: {install_command('experiments')}")


def test_help_of_reproduce_names_the_experiments(capsys):
    assert main(["reproduce", "--help"]) == 0
    out = capsys.readouterr().out
    for name in ("cliffwalk", "imbalanced", "chain", "noise", "memory"):
        assert f"per reproduce {name} --help" in out


@pytest.mark.slow
def test_the_script_starts_without_any_extra():
    program = (
        "import sys; sys.modules.update(dict.fromkeys("
        "['torch', 'gymnasium', 'tyro', 'rich', 'matplotlib', 'tensorboard']));"
        "from prioritized_replay.cli import main; sys.exit(main())"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    asked = subprocess.run(
        [sys.executable, "-c", program, "train", "CartPole-v1"], capture_output=True, text=True
    )
    assert asked.returncode == 1
    assert asked.stderr.count("\n") == 1
    assert "needs torch, gymnasium, tyro, rich" in asked.stderr


@pytest.mark.slow
def test_an_existing_run_is_not_replaced(trained, capsys):
    run, _, _ = trained
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    line = refused(capsys, "train", "CartPole-v1", "--run-dir", str(run))
    assert "add --overwrite" in line
    assert "--run-dir" in line
    refused(capsys, "train", "CartPol-v1", "--run-dir", str(run), "--overwrite")
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--episodes 0", "episodes must be >= 1, got 0"),
        ("--seed -1", "seed must be >= 0, got -1"),
        ("--model worst", "worst"),
        ("--gif a.png", "gif must name a file that ends in .gif, got a.png"),
        ("--gif no/a.gif", "there is no folder no"),
    ],
)
def test_evaluate_refuses_nonsense(here, trained, capsys, options, message):
    assert message in refused(capsys, "evaluate", str(trained[0]), *options.split())


def copied(trained, folder):
    """Return a copy of the trained run that may be damaged."""
    for name in FILES:
        (folder / name).write_bytes((trained[0] / name).read_bytes())
    return folder


def test_evaluate_refuses_a_damaged_run(trained, here, capsys):
    run = copied(trained, here)
    (run / "best_model.pt").write_bytes((run / "best_model.pt").read_bytes()[:1_000])
    assert "best_model.pt is damaged" in refused(capsys, "evaluate", str(run))
    (run / "best_model.pt").unlink()
    assert "has no best model; it has the last one" in refused(capsys, "evaluate", str(run))
    config = json.loads((run / "config.json").read_text())
    config["config"]["hidden_sizes"] = [17]
    (run / "config.json").write_text(json.dumps(config))
    line = refused(capsys, "evaluate", str(run), "--model", "last")
    assert "the last model does not fit its config.json" in line
    config["config"]["env_id"] = "CartPol-v1"
    (run / "config.json").write_text(json.dumps(config))
    assert "near names" in refused(capsys, "evaluate", str(run), "--model", "last")
    (run / "config.json").write_text("{")
    assert "config.json cannot be read" in refused(capsys, "evaluate", str(run))


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_what_was_learnt_is_kept(here, capsys, monkeypatch):
    log, calls = RunWriter.log, []

    def full(self, progress, seconds):
        calls.append(progress)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        log(self, progress, seconds)

    monkeypatch.setattr(RunWriter, "log", full)
    assert main(["train", "CartPole-v1", *TINY, "--run-dir", "run"]) == 1
    assert capsys.readouterr().err == "per train: [Errno 28] No space left on device\n"
    assert RunFolder.open(Path("run")).load_model("last")


@pytest.mark.slow
def test_a_fault_of_ours_is_no_refusal_but_keeps_what_was_learnt(here, monkeypatch):
    def broken(self, progress):
        if progress.step >= 600:
            raise ValueError("a fault")

    monkeypatch.setattr(PlainLines, "show", broken)
    with pytest.raises(ValueError, match="a fault"):
        main(["train", "CartPole-v1", *TINY, "--run-dir", "run"])
    run = RunFolder.open(Path("run"))
    assert run.load_model("last")
    assert run.load_model("best")
    assert (run.path / "learning_curve.png").is_file()


# A run


def cartpole_network():
    env = gymnasium.make("CartPole-v1")
    network = make_network(env.observation_space, env.action_space, hidden_sizes=(16,))
    env.close()
    return network


def test_a_run_leaves_every_file(trained):
    run, _, _ = trained
    names = {file.name for file in run.iterdir() if "tfevents" not in file.name}
    assert names == FILES
    assert len(list(run.glob("events.out.tfevents.*"))) == 1
    config = RunFolder.open(run).config
    assert (config.replay, config.seed, config.steps) == ("proportional", 3, 900)
    assert config.learning_rate == preset("CartPole-v1").learning_rate, "the preset holds"
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["300", "500", "600", "900"]
    assert [bool(row["evaluation_mean"]) for row in rows] == [True, False, True, True]
    assert rows[0]["is_best"] == "1"
    with Image.open(run / "learning_curve.png") as image:
        assert image.size == (1200, 675)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50, "a blank picture"


def test_the_models_load_without_code_and_fit_the_network(trained):
    run, _, _ = trained
    for model in ("best", "last"):
        state = torch.load(run / f"{model}_model.pt", weights_only=True)
        cartpole_network().load_state_dict(state)


def test_the_summary_says_what_came_out_and_what_to_do_next(trained):
    run, out, err = trained
    assert err == ""
    kept = json.loads((run / "evaluation.json").read_text())
    assert kept["episodes"] == len(kept["returns"]) == 5
    low, high = kept["interval_95"]
    assert f"{kept['mean']:.1f}   95 % interval {low:.1f} to {high:.1f}" in out
    assert f"{kept['iqm']:.1f}   mean of the middle half" in out
    assert f"best model: step {kept['model_step']:,}" in out
    with (run / "metrics.csv").open(newline="") as file:
        best = [row["step"] for row in csv.DictReader(file) if row["is_best"] == "1"][-1]
    assert kept["model_step"] == int(best)
    folder = "runs/CartPole-v1-proportional-seed3"
    assert f"  per evaluate {folder} --gif episode.gif\n" in out
    assert f"  tensorboard --logdir {folder}\n" in out


def test_lines_are_plain_where_there_is_no_terminal(trained):
    _, out, _ = trained
    assert "\x1b" not in out
    assert "\r" not in out
    lines = [line for line in out.splitlines() if line.endswith(" steps/s") or " left" in line]
    assert [line.split()[0] for line in lines] == ["300", "600", "900"], "evaluations only"


@pytest.mark.slow
def test_what_is_kept_is_what_that_configuration_trains(trained):
    run = RunFolder.open(trained[0])
    training = Training(run.config)
    list(training.run())
    training.close()
    last = run.load_model("last")
    for name, weights in training.agent.online_network.state_dict().items():
        assert torch.equal(last[name], weights)
    kept = json.loads((run.path / "evaluation.json").read_text())
    assert kept["returns"] == training.final_evaluation().returns.tolist()


@pytest.mark.slow
def test_the_best_model_is_that_of_the_best_evaluation(here, capsys, monkeypatch):
    scores, seen = iter([5.0, 9.0, 1.0, 2.0]), []

    def judged(network, *_, **__):
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return evaluation(next(scores))

    monkeypatch.setattr(training_module, "evaluate", judged)
    assert main(["train", "CartPole-v1", *TINY, "--run-dir", "run"]) == 0
    run = RunFolder.open(Path("run"))
    best, last = run.load_model("best"), run.load_model("last")
    for name in best:
        assert torch.equal(best[name], seen[1][name])
        assert torch.equal(last[name], seen[2][name])
        assert torch.equal(best[name], seen[3][name]), "the one reported"
        assert not torch.equal(best[name], last[name])
    assert json.loads(Path("run/evaluation.json").read_text())["model_step"] == 600
    assert "best model: step 600." in capsys.readouterr().out


def test_evaluate_says_how_good_the_saved_model_is_and_records_it(trained, here, capsys):
    run, _, _ = trained
    words = ["evaluate", str(run), "--episodes", "7", "--seed", "5", "--model", "last"]
    assert main([*words, "--gif", "played.gif"]) == 0
    out, err = capsys.readouterr()
    assert err == ""

    network = cartpole_network()
    network.load_state_dict(torch.load(run / "last_model.pt", weights_only=True))
    expected = evaluate(network, "CartPole-v1", 7, 5)
    low, high = expected.interval
    assert "last model, 7 episodes of CartPole-v1, seed 5" in out
    assert f"{expected.mean:.1f}   95 % interval {low:.1f} to {high:.1f}\n" in out
    assert f"{expected.iqm:.1f}   mean of the middle half\n" in out
    assert (
        f"{expected.std:.1f}   from {expected.returns.min():.1f} to {expected.returns.max():.1f}\n"
        in out
    )
    assert re.search(r"solved at +475\.0   (not )?reached\n", out)

    with Image.open("played.gif") as gif:
        assert gif.format == "GIF"
        assert gif.n_frames > 2
        assert max(gif.size) <= 320
    assert "played.gif: one episode, return" in out
    assert Path("played.gif").stat().st_size < 500_000


def test_evaluate_uses_as_many_threads_as_the_run_did(trained, capsys):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert main(["evaluate", str(trained[0]), "--episodes", "1"]) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_recorded_episode_is_played_by_the_model(trained, here, monkeypatch):
    policies = []

    def record(policy, env_id, path, **_):
        policies.append(policy)
        return Recording(1.0, 1, 1, 1)

    monkeypatch.setattr(evaluate_module, "record_gif", record)
    generator = torch.Generator().manual_seed(0)
    network = cartpole_network()
    for weights in network.parameters():
        weights.data = torch.randn(weights.shape, generator=generator)
    with RunWriter.claim(RunFolder.open(copied(trained, here))) as writer:
        writer.save_model("best", network.state_dict())
    assert main(["evaluate", ".", "--episodes", "1", "--gif", "a.gif"]) == 0
    observations = torch.randn(200, 4, generator=generator)
    expected = network(observations).argmax(dim=1).tolist()
    assert [policies[0](obs.numpy().astype("float64")) for obs in observations] == expected
    assert set(expected) == {0, 1}


# Stopping


@pytest.mark.slow
def test_ctrl_c_saves_what_was_learnt_and_says_where(here):
    words = [*PER, "train", "CartPole-v1", *TINY, "--steps", "1000000", "--run-dir", "my run"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = [process.stdout.readline() for _ in range(3)]  # the heading and two evaluations
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == ""
    assert "evaluation" in said[2]
    assert re.search(r"Stopped at step [\d,]+ of 1,000,000; what was learnt is saved\.", out)
    assert "Best evaluation so far: mean return" in out
    assert "  per evaluate 'my run' --gif episode.gif\n" in out
    names = {file.name for file in Path("my run").iterdir() if "tfevents" not in file.name}
    assert names == FILES - {"evaluation.json"} | {"checkpoint"}
    assert "  per train --resume 'my run'\n" in out
    assert main(["evaluate", "my run", "--episodes", "2"]) == 0


def stop_at(report, number, monkeypatch):
    log, calls = RunWriter.log, []

    def logged(self, progress, seconds):
        log(self, progress, seconds)
        calls.append(progress)
        if len(calls) == report:
            signal.raise_signal(number)

    monkeypatch.setattr(RunWriter, "log", logged)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
@pytest.mark.slow
def test_sigterm_stops_as_ctrl_c_does(here, capsys, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    stop_at(2, signal.SIGTERM, monkeypatch)
    assert main(["train", "CartPole-v1", *TINY, "--run-dir", "run"]) == 128 + signal.SIGTERM
    assert "Stopped at step 500 of 900; what was learnt is saved." in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before
    assert main(["evaluate", "run", "--episodes", "2"]) == 0


@pytest.mark.slow
def test_stopped_before_the_first_evaluation_the_message_names_the_last_model(
    here, capsys, monkeypatch
):
    stop_at(1, signal.SIGINT, monkeypatch)
    words = ["train", "CartPole-v1", *TINY, "--eval-every", "800", "--run-dir", "run"]
    assert main(words) == 130
    out, _ = capsys.readouterr()
    assert "  per evaluate run --model last --gif episode.gif\n" in out
    assert main(["evaluate", "run", "--model", "last", "--episodes", "2"]) == 0


def test_stopped_before_anything_was_learnt_nothing_stays_in_the_way(here, capsys, monkeypatch):
    stop_at(1, signal.SIGINT, monkeypatch)
    words = ["train", "CartPole-v1", *TINY, "--warmup", "800", "--run-dir", "run"]
    assert main(words) == 130
    assert "Stopped before anything was learnt: nothing is kept." in capsys.readouterr().out
    assert not Path("run").exists()


def test_a_run_without_an_update_still_ends_well(here):
    words = ["train", "CartPole-v1", *TINY, "--steps", "101", "--run-dir", "run"]  # two are pending
    assert main(words) == 0
    assert {file.name for file in Path("run").iterdir() if "tfevents" not in file.name} == FILES


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes that break")
@pytest.mark.slow
def test_a_reader_that_goes_away_leaves_no_traceback(here):
    words = [*PER, "train", "CartPole-v1", *TINY, "--run-dir", "run"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 1
    assert process.stderr.read() == ""
    process.stderr.close()
    assert RunFolder.open(Path("run")).load_model("last")


# The experiments' own tests say what they do; here: that the words reach them.


@pytest.mark.parametrize("experiment", ["cliffwalk", "imbalanced", "chain", "noise", "memory"])
def test_reproduce_hands_its_options_on(capsys, monkeypatch, experiment):
    @dataclass(frozen=True)
    class Config:
        seeds: int = 10
        """Number of seeds."""

    asked = []

    def reproduce(config):
        asked.append(config)
        if config.seeds < 1:
            raise ValueError(f"seeds must be >= 1, got {config.seeds}")

    module = types.ModuleType(f"prioritized_replay.experiments.{experiment}.command")
    setattr(module, f"{experiment.title()}Config", Config)
    module.reproduce = reproduce
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert main(["reproduce", experiment, "--seeds", "3"]) == 0
    assert asked == [Config(seeds=3)]
    line = refused(capsys, "reproduce", experiment, "--seeds", "0")
    assert line == "per reproduce: seeds must be >= 1, got 0"


def test_ctrl_c_in_an_experiment_is_one_line(capsys, monkeypatch):
    from prioritized_replay.experiments.compare import command as comparison

    def interrupted(config):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "compare", interrupted)
    assert refused(capsys, "compare", "CartPole-v1", code=130) == "per compare: interrupted"
