"""What type checkers say of scripts that users write: nothing of good ones, and where bad ones err.

A line that must be refused ends in a comment with the error of mypy and that of pyright. All other
lines must pass both.
"""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
REFUSED = re.compile(r"# refused: ([a-z-]+), (\w+)$")
ASSIGNED, ATTRIBUTE = "assignment, reportAssignmentType", "attr-defined, reportAttributeAccessIssue"
ARGUMENT = "arg-type, reportArgumentType"
SCRIPTS = {
    "loop": f"""
import numpy as np
import prioritized_replay as per

fields = {{
    "obs": per.Field((17,)), "action": per.Field((6,)), "reward": per.Field(),
    "log_prob": per.Field(),
}}
replay = per.ReplayBuffer(100, fields, sampler=per.RankBased(alpha=0.7), n_step=3, seed=1)
obs, action = np.zeros(17, np.float32), np.zeros(6, np.float32)
replay.add(obs, action, 1.0, obs, False, log_prob=-1.0, td_error=0.5)
batch = replay.sample(32, beta=0.5)
targets = batch.reward + batch.discount * batch.next_obs.max(axis=1)
own = batch.log_prob.exp()
picture = batch["obs"]["image"][:, 0]
count: int = replay.update_priorities(batch.ids, targets * batch.weights)
rows: int = len(batch)
some: per.Batch[np.ndarray] = batch[batch.weights > 0.5]
numbers: dict[str, float] = replay.stats()
replay.alpha = 0.5
batch.weights.backward()  # refused: {ATTRIBUTE}
x: int = batch.obs  # refused: {ASSIGNED}
y: int = batch[3:5].weights  # refused: {ASSIGNED}
replay.update_prioritys(batch.ids, targets)  # refused: {ATTRIBUTE}
replay.extend([1, 2])  # refused: {ARGUMENT}
per.Proportional(draw="stratify")  # refused: {ARGUMENT}
per.ReplayBuffer(100, fields, sampler="rank")  # refused: {ARGUMENT}
text: str = replay.alpha  # refused: {ASSIGNED}
""",
    "tensors": f"""
import torch
import prioritized_replay as per

def loss_of(batch: per.Batch[torch.Tensor], network: torch.nn.Module) -> torch.Tensor:
    error: torch.Tensor = network(batch.obs).squeeze() - batch.reward
    own = batch.log_prob.exp()
    weights: int = batch.weights  # refused: {ASSIGNED}
    batch.ids.astype(int)  # refused: {ATTRIBUTE}
    return (batch.weights * error.square()).mean()

def learn(replay: per.ReplayBuffer, network: torch.nn.Module) -> float:
    batch = replay.sample(32)
    loss_of(batch, network)  # refused: {ARGUMENT}
    loss = loss_of(batch.to_torch("cpu"), network)
    with replay.prefetch(32, beta=per.linear(0.5, 1.0, 100)) as batches:
        return float(next(batches).to_torch()[0:3].weights.mean() + loss)
""",
    "index": f"""
import numpy as np
import prioritized_replay as per
from numpy.typing import NDArray

index = per.PrioritizedIndex(100, sampler=per.Uniform(), seed=0)
ids: NDArray[np.int64] = index.append(100)
draw: per.Draw = index.sample(8, beta=0.4)
weights: NDArray[np.float32] = draw.weights
probabilities: NDArray[np.float64] = index.get(draw.ids).probabilities
index.save("index", extra={{"epoch": b"7"}})
again: per.PrioritizedIndex = per.PrioritizedIndex.load("index")
draw.weights.backward()  # refused: {ATTRIBUTE}
x: int = draw.ids  # refused: {ASSIGNED}
draw.obs  # refused: {ATTRIBUTE}
index.append("three")  # refused: {ARGUMENT}
index.sample("three")  # refused: {ARGUMENT}
""",
    "schedules": f"""
import math
import prioritized_replay as per
from prioritized_replay.schedules import Schedule

def value(schedule: Schedule, step: int) -> float:
    return schedule(step)

value(per.linear(0.4, 1.0, 1_000), 3)
value(per.constant(0.5), 3)
value(per.exponential(1e-2, 1e-4, steps=10), 3)
value(lambda step: math.sqrt(step), 3)
value(0.5, 3)  # refused: {ARGUMENT}
value(per.constant("half"), 3)  # refused: {ARGUMENT}
text: str = per.constant(0.5)(3)  # refused: {ASSIGNED}
""",
}
if find_spec("torch") is None:
    del SCRIPTS["tensors"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    for name, text in SCRIPTS.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def expected(tool):
    """Return the errors that the comments name, as file, line and error."""
    return {
        (name, number, found[1 + ("mypy", "pyright").index(tool)])
        for name, text in SCRIPTS.items()
        for number, line in enumerate(text.split("\n"), 1)
        if (found := REFUSED.search(line))
    }


def run(module, *words, cwd):
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    command = [sys.executable, "-m", module, *map(str, words)]
    quiet = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    return subprocess.run(
        command, cwd=cwd, env=os.environ | quiet, capture_output=True, text=True, timeout=600
    )


def test_mypy(folder):
    # With our settings, which are strict, it uses what `make types` has found out of torch already.
    words = ("--strict", "--config-file", ROOT / "pyproject.toml", "--no-pretty")
    answer = run("mypy", *words, *sorted(folder.glob("*.py")), cwd=ROOT)

    line = re.compile(r"^.*?(\w+)\.py:(\d+): error: .*\[([a-z-]+)\]$", re.MULTILINE)
    found = {(name, int(number), code) for name, number, code in line.findall(answer.stdout)}
    assert found == expected("mypy"), answer.stdout + answer.stderr
    assert answer.stdout.count(": error: ") == len(found), answer.stdout


def test_pyright(folder):
    answer = run("pyright", "--outputjson", "--pythonpath", sys.executable, folder, cwd=folder)
    if not answer.stdout.startswith("{"):
        pytest.skip(f"pyright does not run here: {answer.stderr[-300:]}")

    errors = json.loads(answer.stdout)["generalDiagnostics"]
    found = [
        (Path(one["file"]).stem, one["range"]["start"]["line"] + 1, one.get("rule", "none"))
        for one in errors
        if one["severity"] == "error"
    ]
    assert set(found) == expected("pyright"), answer.stdout
    assert len(found) == len(expected("pyright")), answer.stdout
