"""What is installed, what is in sight after an import, and the hooks before a commit."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import prioritized_replay as per

ROOT = Path(__file__).parents[1]
BUILD = """
import os, sys
from hatchling.build import build_wheel
os.chdir(sys.argv[1])
print(build_wheel(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-c", BUILD, str(ROOT), str(folder)]
    name = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1]
    with zipfile.ZipFile(folder / name) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    folders = {name.split("/")[0] for name in wheel}
    assert folders == {"prioritized_replay", f"prioritized_replay-{per.__version__}.dist-info"}
    assert "prioritized_replay/py.typed" in wheel
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}
    assert {name for name in wheel if name.endswith(".py")} == sources
    for outside in ("benchmarks", "recipes", "tests", "docs"):
        assert not [name for name in wheel if f"/{outside}/" in f"/{name}"]


@pytest.mark.slow
def test_in_sight_are_the_public_names_and_the_wings():
    script = "import prioritized_replay as per; print(*dir(per))"
    words = [sys.executable, "-c", script]
    names = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    folder = ROOT / "src" / "prioritized_replay"
    wings = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert set(names) == {*per.__all__, *wings, "__version__", "__doc__"}


def test_the_hooks_before_a_commit_are_what_make_lint_runs():
    hooks = [
        line.split("entry: .venv/bin/")[1].strip()
        for line in (ROOT / ".pre-commit-config.yaml").read_text().splitlines()
        if "entry:" in line
    ]
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    words = ["make", "-n", "-B", "lint", "VENV=.venv", "-o", ".venv/.installed-dev"]
    said = subprocess.run(
        words, cwd=ROOT, check=True, capture_output=True, text=True, env=environment
    ).stdout
    made = [line.removeprefix(".venv/bin/") for line in said.splitlines() if "/ruff " in line]
    assert hooks == made
    assert len(hooks) == 2
