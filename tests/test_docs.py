"""The documentation: nothing public is missing, and what it names exists."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

import prioritized_replay
from benchmarks.options import BenchConfig
from prioritized_replay import dqn
from prioritized_replay.experiments.cliffwalk.command import CliffwalkConfig
from prioritized_replay.experiments.compare.command import CompareConfig
from prioritized_replay.experiments.compare.results import Result
from prioritized_replay.runs.folder import COLUMNS
from prioritized_replay.runs.options import EvaluateOptions, TrainOptions

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.rst"), *(ROOT / "docs").rglob("*.rst")])
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


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


@pytest.mark.parametrize("module", [prioritized_replay, dqn], ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_api_reference(module):
    public = {f"{module.__name__}.{name}" for name in module.__all__}
    assert public
    assert not public - documented()


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
    pattern = r"``((?:docs|tests|src|benchmarks)/[\w/.-]+\.(?:py|rst|toml|csv))``"
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
        ("per compare", CompareConfig),
        ("per reproduce cliffwalk", CliffwalkConfig),
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
    ]
    runs = [dict(zip(("n", "arm", "updates"), cell, strict=True)) for cell in cells]
    table = measured.pivot(runs, "n", "arm", "updates", [])
    plain = [[cell.replace("\xa0", " ") for cell in line] for line in table]
    assert plain == [
        ["n", "a", "b", "c"],
        ["2", "", "7", "not learnt"],
        ["16", "3 (1 to 2,000)", "", ""],
    ]
