"""Adapters of other libraries import without their library, and name it when it is missing."""

import importlib
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec

import pytest

from prioritized_replay.conformance.command import chosen_scenarios
from prioritized_replay.conformance.factories import adapter_of
from prioritized_replay.conformance.report import check

ADAPTERS = "prioritized_replay.conformance.memories"
LIBRARIES = {
    "cpprb": ("cpprb", ["proportional", "uniform"]),
    "dopamine": ("dopamine-rl", ["proportional", "uniform"]),
    "flashbax": ("flashbax", ["proportional"]),
    "pfrl": ("pfrl", ["proportional", "uniform"]),
    "rllib": ("ray", ["proportional"]),
    "stable_baselines3": ("stable-baselines3", ["uniform"]),
    "tianshou": ("tianshou", ["proportional", "uniform"]),
    "torchrl": ("torchrl", ["proportional", "uniform"]),
}
FACTORIES = [(name, factory) for name, (_, kinds) in LIBRARIES.items() for factory in kinds]


def test_no_module_imports_its_library() -> None:
    modules = [f"{ADAPTERS}.{name}" for name in LIBRARIES]
    foreign = {"cpprb", "stable_baselines3", "tianshou", "ray", "jax", "dopamine", "pfrl", "torch"}
    foreign |= {"flashbax", "torchrl", "tensordict"}
    program = (
        f"import sys, importlib\nfor name in {modules}: importlib.import_module(name)\n"
        f"sys.exit(' '.join({foreign} & set(sys.modules)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(("name", "factory"), FACTORIES)
def test_a_missing_library_is_named_in_one_line(
    name: str, factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(distribution: str) -> str:
        raise metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(metadata, "version", missing)
    library = LIBRARIES[name][0]
    with pytest.raises(ValueError, match=f"{library} is not installed here") as refusal:
        adapter_of(f"{ADAPTERS}.{name}:{factory}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("name", "factory"), FACTORIES)
def test_what_is_not_claimed_has_a_reason(
    name: str, factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda distribution: "1.0")
    adapter = getattr(importlib.import_module(f"{ADAPTERS}.{name}"), factory)()
    assert adapter.law == factory
    assert adapter.settings
    assert all(len(reason) > 10 for reason in adapter.not_claimed.values())
    for scenario in adapter.not_claimed:
        chosen_scenarios([scenario])  # there is such a group or scenario


@pytest.mark.parametrize("name", ["cpprb", "stable_baselines3"])
def test_memories_that_install_here(name: str) -> None:
    pytest.importorskip(name)
    factory = f"{ADAPTERS}.{name}:{LIBRARIES[name][1][0]}"
    names = ["the-newest-rows-are-there", "truncated-steps-bootstrap", "returns-add-up"]
    report = check(adapter_of(factory), chosen_scenarios(names), factory)
    assert [line.outcome for line in report.lines] == ["pass"] * 3, report.lines


@pytest.mark.slow
def test_tianshou_that_installs_here() -> None:
    if find_spec("tianshou") is None:
        pytest.skip("tianshou is not installed")
    factory = f"{ADAPTERS}.tianshou:proportional"
    names = ["the-newest-rows-are-there", "returns-add-up"]
    report = check(adapter_of(factory), chosen_scenarios(names), factory)
    assert [line.outcome for line in report.lines] == ["pass"] * 2, report.lines
