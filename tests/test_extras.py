"""What a message about a missing package says: a command that works where it is read."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from prioritized_replay import extras
from prioritized_replay.extras import install_command

ROOT = Path(__file__).parents[1]
SOURCES = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.rst"), ROOT / "README.rst"]

WHEEL = "https://example.org/prioritized_replay-9-py3-none-any.whl"
ORIGINS = {
    "a clone": (
        {"url": "file:///home/me/a%20clone", "dir_info": {"editable": True}},
        "pip install -e '/home/me/a clone[train]'",
    ),
    "a folder": (
        {"url": "file:///home/me/clone", "dir_info": {}},
        "pip install '/home/me/clone[train]'",
    ),
    "a wheel": (
        {"url": WHEEL, "archive_info": {}},
        f"pip install 'prioritized-replay[train] @ {WHEEL}'",
    ),
    "a repository": (
        {"url": "https://example.org/per", "vcs_info": {"vcs": "git", "commit_id": "f00"}},
        "pip install 'prioritized-replay[train] @ git+https://example.org/per'",
    ),
    "an index": (None, "pip install 'prioritized-replay[train]'"),
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_command_installs_from_where_the_package_came(tmp_path, monkeypatch, origin):
    url, command = ORIGINS[origin]
    installed = tmp_path / "prioritized_replay-9.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: prioritized-replay\n")
    if url is not None:
        (installed / "direct_url.json").write_text(json.dumps(url))
    monkeypatch.syspath_prepend(tmp_path)
    assert install_command("train") == command


def test_a_clone_on_the_path_is_installed_itself(monkeypatch):
    monkeypatch.setattr(extras, "NAME", "prioritized-replay-that-nobody-installed")
    assert install_command("atari") == f"pip install -e '{Path(extras.__file__).parents[2]}[atari]'"


def test_nothing_on_the_path_and_no_clone_leaves_the_name(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "NAME", "prioritized-replay-that-nobody-installed")
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "lib" / "package" / "extras.py"))
    assert install_command("train").startswith("pip install 'prioritized-replay-that")


def test_no_page_or_message_asks_an_index_for_the_package():
    """A name that is not released yet may be given to anybody's package."""
    for path in SOURCES:
        if path.name != "extras.py":  # which knows whether there is a release
            text = path.read_text(encoding="utf-8")
            assert not re.findall(r"install[^\n]*prioritized-replay\b", text), path


def test_extras_that_are_named_exist():
    named = set()
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"(?:\.|replay)\[([a-z,]+)\]'", text)
        found += re.findall(r'install_command\("([a-z]+)"\)', text)
        named |= {name for names in found for name in names.split(",")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"train", "atari", "minatar"} <= named <= {*project["optional-dependencies"]}
