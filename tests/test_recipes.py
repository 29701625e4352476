"""The recipes: each is short, runs by itself, learns from what it draws, and gives errors back."""

import csv
import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from tests.recipe_modules import FOLDER, imported
from torch import nn

import prioritized_replay as per

RECIPES = sorted(path.stem for path in FOLDER.glob("*.py"))

# Options of a short run.
PENDULUM = {
    "env_id": "Pendulum-v1", "steps": 260, "warmup": 220, "evaluate_every": 130,
    "hidden_size": 16, "batch_size": 16,
}  # fmt: skip
SHORT: dict[str, dict[str, Any]] = {
    "sac": PENDULUM,
    "td3_lap": PENDULUM,
    "dqn": {
        "env_id": "CartPole-v1", "steps": 300, "warmup": 100, "evaluate_every": 150,
        "hidden_size": 16, "batch_size": 16, "target_period": 50,
    },
    "r2d2": {
        "task": "cartpole", "steps": 320, "envs": 4, "warmup": 160, "evaluate_every": 160,
        "evaluation_episodes": 2, "hidden_size": 16, "batch_size": 8, "length": 8, "burn_in": 3,
        "overlap": 4, "train_every": 8, "tau": 0.1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def recipes() -> Iterator[dict[str, ModuleType]]:
    """Import every recipe as a module of its own."""
    with imported(RECIPES) as modules:
        yield modules


def run(module: ModuleType, **options: Any) -> Any:
    name = module.__name__.removeprefix("recipe_")
    return module.main(module.Config(**(SHORT[name] | options)))


def parameters(agent: Any) -> dict[str, torch.Tensor]:
    """What each of an agent's networks has learnt."""
    return {
        name: torch.cat([p.detach().flatten() for p in value.parameters()])
        for name, value in vars(agent).items()
        if isinstance(value, nn.Module)
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_one_short_file(name):
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    most = 300 if name == "r2d2" else 250  # sequences take more to explain
    assert len(text.splitlines()) <= most
    imports = re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)
    assert not set(imports) & set(RECIPES)
    assert "prioritized_replay." not in text, "only public names of the package itself"
    assert f"python recipes/{name}.py" in text, "the docstring says how to start it"


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_shows_its_options(name):
    file = str(FOLDER / f"{name}.py")
    shown = subprocess.run([sys.executable, file, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert {"--seed", "--csv"} <= set(shown.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_run_learns_and_is_repeated_by_its_seed(recipes, name, tmp_path):
    module, options = recipes[name], SHORT[name]
    agent = run(module, csv=tmp_path / "first.csv")
    again = run(module, csv=tmp_path / "again.csv")
    untrained = run(module, warmup=options["steps"] + 1)
    first, same = parameters(untrained), parameters(again)
    assert first
    for network, learnt in parameters(agent).items():
        assert learnt.isfinite().all()
        assert (learnt != first[network]).float().mean() > 0.25, f"{network} has learnt little"
        assert torch.equal(learnt, same[network])
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
    with (tmp_path / "first.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    every = options["evaluate_every"]
    assert [int(row["step"]) for row in rows] == [every, 2 * every]
    assert np.isfinite([float(row["return"]) for row in rows]).all()


def samplers() -> list[tuple[str, str]]:
    """Every sampler of every recipe; read from the source, which is imported by a fixture only."""
    both = [(name, sampler) for name in ("sac", "dqn") for sampler in ("rank", "uniform")]
    return [*both, ("td3_lap", "uniform"), *((name, "") for name in ("sac", "dqn", "td3_lap"))]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sampler"), samplers())
def test_every_update_gives_its_errors_back(recipes, name, sampler, monkeypatch):
    module = recipes[name]
    choices = get_args(get_type_hints(module.Config)["sampler"])
    default = {field.name: field.default for field in dataclasses.fields(module.Config)}["sampler"]
    sampler = sampler or default
    assert set(choices) - {default} <= {chosen for other, chosen in samplers() if other == name}
    given: list[tuple[Any, Any]] = []
    drawn: list[Any] = []
    buffers = set()
    sample, update = per.ReplayBuffer.sample, per.ReplayBuffer.update_priorities

    def sampled(self, *args, **kwargs):
        buffers.add(self)
        drawn.append(sample(self, *args, **kwargs))
        return drawn[-1]

    def updated(self, ids, td_errors):
        given.append((ids, td_errors))
        return update(self, ids, td_errors)

    monkeypatch.setattr(per.ReplayBuffer, "sample", sampled)
    monkeypatch.setattr(per.ReplayBuffer, "update_priorities", updated)
    run(module, sampler=sampler, evaluate_every=1_000)  # more than it steps
    updates = SHORT[name]["steps"] - SHORT[name]["warmup"]
    assert len(drawn) - updates in (0, 1)  # of 100 rows in memory the 100th is enough for one
    assert len(given) == len(drawn)
    for batch, (ids, td_errors) in zip(drawn, given, strict=True):
        assert np.array_equal(batch.ids, ids)
        assert np.unique(np.asarray(td_errors.detach())).size > 1
    (buffer,) = buffers
    rows = buffer.get(np.arange(len(buffer)))
    if name == "dqn":  # episodes that end by a fall
        assert rows.terminated.any()
    else:  # episodes of 200 steps, which only a time limit ends
        assert not rows.terminated.any()
        assert (rows.discount == np.float32(0.99)).all()
    if sampler == "uniform":
        assert all((batch.weights == 1.0).all() for batch in drawn)
        assert np.allclose([batch.probabilities.std() for batch in drawn], 0.0)
    else:
        assert np.unique(buffer.priorities(rows.ids)).size > 1


def test_both_critics_are_two_separate_networks(recipes):
    generator = torch.Generator().manual_seed(0)
    obs, action = torch.randn(5, 3, generator=generator), torch.randn(5, 2, generator=generator)
    for name in ("sac", "td3_lap"):
        critics = recipes[name].Critics(5, 8)
        for one, values in enumerate(critics(obs, action)):
            x = torch.cat((obs, action), dim=1)
            layers = zip(critics.weights, critics.biases, strict=True)
            for depth, (weight, bias) in enumerate(layers):
                x = x @ weight[one] + bias[one]
                x = x.relu() if depth < 2 else x
            torch.testing.assert_close(values, x[:, 0])


def test_the_policys_log_probability_is_that_of_a_squashed_normal(recipes):
    torch.manual_seed(0)
    actor = recipes["sac"].Actor(3, 2, 8)
    obs = torch.randn(64, 3)
    action, log_prob = actor(obs)
    mean, log_std = actor.layers(obs).chunk(2, dim=-1)
    law = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, log_std.exp()), torch.distributions.TanhTransform()
    )
    torch.testing.assert_close(log_prob, law.log_prob(action).sum(dim=-1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(actor.mode(obs), mean.tanh())


def test_lap_gives_errors_up_to_1_the_priority_1(recipes, monkeypatch):
    buffers = set()
    sample = per.ReplayBuffer.sample
    monkeypatch.setattr(
        per.ReplayBuffer, "sample", lambda self, *a: buffers.add(self) or sample(self, *a)
    )
    run(recipes["td3_lap"], evaluate_every=1_000)
    (buffer,) = buffers
    buffer.update_priorities([3, 4], [-0.25, -7.0])
    assert buffer.priorities([3, 4]).tolist() == [1.0, 7.0]
    batch = buffer.get([3, 4])
    assert batch.probabilities[1] / batch.probabilities[0] == pytest.approx(7.0**0.4)
