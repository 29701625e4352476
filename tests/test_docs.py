"""The documentation: nothing public is missing, and what it names exists."""

import ast
import csv
import dataclasses
import inspect
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Protocol

import gymnasium
import numpy as np
import pytest
import torch

import prioritized_replay
from benchmarks.options import BenchConfig
from prioritized_replay import dqn, envs, sampling, training
from prioritized_replay.conformance.command import CheckOptions
from prioritized_replay.experiments.chain.command import ChainConfig
from prioritized_replay.experiments.cliffwalk.command import CliffwalkConfig
from prioritized_replay.experiments.compare.command import CompareConfig
from prioritized_replay.experiments.compare.results import Result
from prioritized_replay.experiments.imbalanced.command import ImbalancedConfig
from prioritized_replay.experiments.memory.command import MemoryConfig
from prioritized_replay.experiments.noise.command import NoiseConfig
from prioritized_replay.inspection.command import InspectOptions
from prioritized_replay.runs.metrics import COLUMNS
from prioritized_replay.runs.options import EvaluateOptions, TrainOptions

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.rst"), *(ROOT / "docs").rglob("*.rst")])
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}

MODULES = [prioritized_replay, sampling, dqn, training, envs]
WITHOUT_EXAMPLE = {
    # Only a buffer calls these. Who writes a sampler has the whole example of docs/own_sampler.rst.
    "Proportional.distribution",
    "RankBased.distribution",
    "Uniform.distribution",
    # The example of the class shows them: an update is to be read in three short files.
    *("DQN.adjust_epsilon", "DQN.learn", "DQN.optimize"),
}


def documented() -> set[str]:
    """Names that the API pages describe with an autodoc directive."""
    api = "\n".join(text for name, text in TEXT.items() if name.startswith("docs/api/"))
    return set(re.findall(r"^\.\. auto\w+:: (\S+)$", api, re.MULTILINE))


def functions_in(file: Path) -> set[str]:
    """Test functions of a module, those of a class as ``Class::test``."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{f.name}" for f in node.body if isinstance(f, ast.FunctionDef)}
    return found


def named_tests() -> list[tuple[str, str, str]]:
    return [
        (page, *match)
        for page, text in TEXT.items()
        for match in re.findall(r"``(tests/\w+\.py)::([\w:]+)``", text)
    ]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_api_reference(module):
    public = {f"{module.__name__}.{name}" for name in getattr(module, "__all__", ())}
    assert public or module is sampling, "sampling has no public names of its own yet"
    # a name that is public in the package itself is described there
    elsewhere = {name for name in public if name.rpartition(".")[2] in prioritized_replay.__all__}
    assert not public - documented() - (elsewhere if module is sampling else set())


def public_docstrings(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield names and docstrings of the classes, methods and functions that a module offers.

    Inherited methods count where a class of this package has them. Protocols do not: their methods
    are for others to write.
    """
    for name in module.__all__:
        thing = getattr(module, name)
        if isinstance(thing, type) and Protocol not in thing.__bases__:
            yield name, thing.__doc__ or ""
            for owner in thing.__mro__:
                if owner.__module__.partition(".")[0] == prioritized_replay.__name__:
                    for method, value in vars(owner).items():
                        function = inspect.unwrap(getattr(value, "__func__", value))
                        if inspect.isfunction(function) and not method.startswith("_"):
                            yield f"{name}.{method}", function.__doc__ or ""
        elif inspect.isfunction(thing):
            yield name, thing.__doc__ or ""


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_method_has_an_example(module):
    docstrings = dict(public_docstrings(module))
    assert docstrings
    without = {name for name, text in docstrings.items() if ">>> " not in text}
    assert without == WITHOUT_EXAMPLE & docstrings.keys()


def test_every_page_is_in_the_contents():
    listed = "\n".join(text for name, text in TEXT.items() if name.endswith("index.rst"))
    pages = {
        Path(name).stem
        for name in TEXT
        if name.startswith("docs/") and not name.endswith("index.rst")
    }
    assert not {page for page in pages if not re.search(rf"^   {page}$", listed, re.MULTILINE)}


@pytest.mark.slow
def test_the_loop_of_the_readme_runs():
    code = TEXT["README.rst"].split(".. code:: python\n", 1)[1]
    lines = [line[3:] for line in code.split("\n``act``")[0].splitlines()]
    assert len([line for line in lines if line]) == 10, "the text says ten lines"
    env = gymnasium.make("CartPole-v1")
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    seen: list[torch.Size] = []

    def learn(batch):
        seen.append(batch.obs.shape)
        return batch.reward * batch.weights + batch.discount

    names = {
        "env": env,
        "obs": obs,
        "steps": 50,
        "act": lambda obs: env.action_space.sample(),
        "learn": learn,
    }
    exec("\n".join(lines), names)
    assert seen == [(32, 4)] * 50
    assert len(names["replay"]) == 50


def test_links_and_pictures_of_the_readme_exist():
    text = TEXT["README.rst"]
    targets = re.findall(r"<([\w/.]+)>`__", text) + re.findall(r"^\.\. image:: (\S+)", text, re.M)
    assert len(targets) > 10
    assert not [target for target in targets if not (ROOT / target).is_file()]
    # package indexes show no SVG
    assert not re.search(r"^\.\. image:: (?!\S+\.png$)", text, re.MULTILINE)


@pytest.mark.slow
def test_every_test_that_the_docs_name_exists():
    named = named_tests()
    assert len(named) > 20, "the page on what goes wrong names its guards"
    missing = [
        f"{page} names {file}::{test}"
        for page, file, test in named
        if not (ROOT / file).exists() or test not in functions_in(ROOT / file)
    ]
    assert not missing


def test_every_file_that_the_docs_name_exists():
    pattern = r"``((?:docs|tests|src|benchmarks|scripts)/[\w/.-]+\.(?:py|rst|toml|csv))``"
    named = {file for text in TEXT.values() for file in re.findall(pattern, text)}
    assert named
    assert not {file for file in named if not (ROOT / file).exists()}


def test_every_logged_metric_is_defined():
    assert not {column for column in COLUMNS if f"``{column}``" not in TEXT["docs/cli.rst"]}


def test_every_statistic_of_a_buffer_is_defined():
    fields = {name: prioritized_replay.Field() for name in ("obs", "action", "reward")}
    stats = prioritized_replay.ReplayBuffer(1, fields).stats()
    page = TEXT["docs/vocabulary.rst"].replace("``_p", "``priority_p")
    assert not {key for key in stats if f"``{key}``" not in page}


def test_every_column_of_a_comparison_is_defined():
    columns = [field.name for field in dataclasses.fields(Result)]
    assert not {column for column in columns if f"``{column}``" not in TEXT["docs/cli.rst"]}


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("per train", TrainOptions),
        ("per evaluate", EvaluateOptions),
        ("per inspect", InspectOptions),
        ("per check", CheckOptions),
        ("per compare", CompareConfig),
        ("per reproduce cliffwalk", CliffwalkConfig),
        ("per reproduce imbalanced", ImbalancedConfig),
        ("per reproduce chain", ChainConfig),
        ("per reproduce noise", NoiseConfig),
        ("per reproduce memory", MemoryConfig),
        ("python -m benchmarks", BenchConfig),
    ],
)
def test_commands_in_the_docs_use_options_that_exist(command, options):
    shown = re.compile(rf"(?:\$ |``|:command: ){command} (.*?)(?:``|$)", re.MULTILINE)
    used = {
        option.replace("-", "_")
        for text in TEXT.values()
        for line in shown.findall(text)
        for option in re.findall(r"--([\w-]+)", line)
    }
    assert used
    assert not used - {field.name for field in dataclasses.fields(options)}


def test_tables_hold_what_the_file_says(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    import measured

    cells = [
        ("16", "a", "3"),
        ("16", "a", "1"),
        ("16", "a", "2000"),
        ("2", "b", "7"),
        ("2", "c", ""),
        ("2", "d", "no difference shown"),
    ]
    runs = [dict(zip(("n", "arm", "updates"), cell, strict=True)) for cell in cells]
    table = measured.pivot(runs, "n", "arm", "updates", [])
    plain = [[cell.replace("\xa0", " ") for cell in line] for line in table]
    assert plain == [
        ["n", "a", "b", "c", "d"],
        ["2", "", "7", "not learnt", "no difference shown"],
        ["16", "3 (1 to 2,000)", "", "", ""],
    ]


def test_a_line_of_the_table_of_environments(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    import measured

    def line(threshold, *finals, best=()):
        runs = [
            {
                "env_id": "Lake",
                "seed": str(seed),
                "steps": "1000",
                "wall_seconds": str(10.4 + seed),
                "final_mean": str(final),
                "threshold": threshold,
                "reached": str(int(threshold != "" and final >= 0.7)),
            }
            for seed, final in enumerate(finals)
        ]
        known = {("Lake", str(seed)): value for seed, value in enumerate(best)}
        return [cell.replace("\xa0", " ") for cell in measured.environment(runs, known)]

    assert line("0.7", 0.74, 0.25, 0.705, best=(0.74, 0.74, 0.7)) == [
        "Lake",
        "1,000",
        "11 (10 to 12)",
        "0.705 (0.25 to 0.74)",
        "0.7",
        "2 of 3",
        "0.74 (0.7 to 0.74)",
        "2 of 3",
    ]
    assert line("", -13.0) == ["Lake", "1,000", "10", "-13", "", "", "", ""]
    assert len(line("", -13.0)) == len(measured.ENVIRONMENTS)


@pytest.mark.parametrize(
    "env_id",
    [
        *("CartPole-v1", "Acrobot-v1", "LunarLander-v3"),
        *("MountainCar-v0", "FrozenLake-v1", "CliffWalking-v1", "Taxi-v4"),
    ],
)
def test_results_of_presets_are_of_the_presets(env_id):
    """A preset that is changed needs its results anew."""
    text = (ROOT / "docs" / "results" / env_id / "settings.json").read_text(encoding="utf-8")
    had = {name: value for name, value in json.loads(text).items() if value is not None}
    now = json.loads(json.dumps(dataclasses.asdict(training.preset(env_id))))  # tuples become lists
    common = had.keys() & now.keys()
    assert {name: had[name] for name in common} == {name: now[name] for name in common}
    assert len(common) > 20


def test_the_best_policies_in_the_results_are_the_best():
    """Their mean over many starts is the one that value iteration says; see the test below."""
    with (ROOT / "docs" / "results" / "best_policies.csv").open(newline="") as file:
        means = [line for line in csv.DictReader(file) if line["env_id"] == "Taxi-v4"]
    assert [line["seed"] for line in means] == list("01234")
    # 500 episodes, whose returns differ by 2.6 or so
    assert np.mean([float(line["mean"]) for line in means]) == pytest.approx(7.93, abs=0.5)


@pytest.mark.parametrize(
    ("env_id", "limit", "best"),
    [("FrozenLake-v1", 100, "0.74"), ("CliffWalking-v1", 1_000, "-13"), ("Taxi-v4", 200, "7.93")],
)
def test_the_best_return_that_results_name(env_id, limit, best):
    """By value iteration in the table of the rules; the policy then plays so many steps."""
    env = gymnasium.make(env_id).unwrapped
    most = max(len(outcomes) for actions in env.P.values() for outcomes in actions.values())
    chances, rewards, goes_on = np.zeros((3, len(env.P), len(env.P[0]), most))
    following = np.zeros(chances.shape, int)
    for state, actions in env.P.items():
        for action, outcomes in actions.items():
            for k, (chance, after, reward, terminated) in enumerate(outcomes):
                at = state, action, k
                chances[at], following[at], rewards[at] = chance, after, reward
                goes_on[at] = not terminated

    def action_values(values, discount):
        return (chances * (rewards + discount * goes_on * values[following])).sum(-1)

    values = returns = np.zeros(len(env.P))
    for _ in range(500):
        values = action_values(values, 0.99).max(-1)
    greedy = action_values(values, 0.99).argmax(-1)[:, np.newaxis]
    for _ in range(limit):
        returns = np.take_along_axis(action_values(returns, 1.0), greedy, 1)[:, 0]
    assert f"{env.initial_state_distrib @ returns:.3g}" == best
    assert f"{best} " in TEXT["docs/results.rst"] or f"{best}," in TEXT["docs/results.rst"]


def test_a_number_in_a_sentence_is_the_one_of_the_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    import measured

    file = tmp_path / "a.csv"
    file.write_text("arm,measure,value\nrank,low,1234.4\nrank,high,0.25\n")
    assert measured.number_in(file, "value", ["arm=rank", "measure=low"]) == "1,234"
    assert measured.number_in(file, "value", ["measure=high"]) == "0.25"
    with pytest.raises(ValueError, match="too many values"):
        measured.number_in(file, "value", ["arm=rank"])
    assert measured.number_in(tmp_path / "b.csv", "value", []) == "(not measured)"


def test_the_map_shows_the_imports_of_the_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    import architecture

    package = tmp_path / "house"
    for name, text in {
        "__init__.py": "from house.roof import Roof\n",
        "roof.py": "import json\nimport house.walls.brick\n",
        "walls/__init__.py": "",
        "walls/brick.py": "from .mortar import Mortar\nfrom ..ground import clay\n",
        "walls/mortar.py": "if TYPE_CHECKING:\n    from house.roof import tile\n",
        "ground/__init__.py": "",
        "shed.py": "from house import Roof, ground\n",
    }.items():
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    wings = architecture.wings_of(package)
    assert {name: wing.imports for name, wing in wings.items()} == {
        "roof": {"walls"},
        "walls": {"ground"},
        "ground": set(),
        "shed": {"ground"},  # Roof is a public name
    }
    assert [wings[name].floor for name in ("roof", "shed", "walls", "ground")] == [0, 0, 1, 2]
    drawing = architecture.picture(wings)
    assert drawing.count("<path d=") == 3 + 1  # three arrows, and the head of an arrow
    assert "walls/" in drawing
    assert "roof.py" in drawing


def test_a_tenth_of_the_updates_is_what_was_measured():
    assert "a tenth of the updates" in TEXT["README.rst"].replace("\n", " ")
    with (ROOT / "docs/results/cliffwalk.csv").open(newline="", encoding="utf-8") as file:
        runs = [run for run in csv.DictReader(file) if run["n"] == "16"]
    updates = {
        arm: statistics.median(
            int(run["updates"])
            for run in runs
            if run["arm"] == arm and run["features"] == "tabular"
        )
        for arm in ("uniform", "proportional", "rank")
    }
    assert 9 < updates["uniform"] / updates["proportional"] < 12
    assert 9 < updates["uniform"] / updates["rank"] < 12


def test_every_wing_has_its_paragraph():
    page = TEXT["docs/architecture.rst"]
    package = ROOT / "src" / "prioritized_replay"
    wings = {f"{file.parent.name}/" for file in package.glob("*/__init__.py")}
    wings |= {file.name for file in package.glob("[a-z]*.py")}
    assert not {wing for wing in wings - {"benchmarks/"} if f"``{wing}``" not in page}


def test_one_update_is_read_in_three_short_files():
    folder = ROOT / "src" / "prioritized_replay" / "dqn"
    files = [folder / name for name in ("agent.py", "learner.py", "td.py")]
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= 450
