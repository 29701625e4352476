"""``per inspect``: each mistake is named, nothing is said of healthy memories and runs.

Memories are small and live through a few hundred batches of errors that are drawn at random; runs
are records with the numbers that such a run would have, and a few that were trained.
"""

import csv
import io
import re
import shutil
from collections import deque
from contextlib import redirect_stdout
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import prioritized_replay as per
from prioritized_replay.cli import main
from prioritized_replay.inspection import findings as rules
from prioritized_replay.inspection import numbers
from prioritized_replay.inspection import page as pages
from prioritized_replay.inspection.charts import (
    _scale,
    histogram,
    histogram_chart,
    line_chart,
    number,
)
from prioritized_replay.inspection.findings import NAMES, findings
from prioritized_replay.inspection.pictures import picture_of, png
from prioritized_replay.inspection.portrait import portrait_of
from prioritized_replay.inspection.record import CHECKPOINT, CONFIG, Record

FIELDS = {"obs": per.Field((2,)), "action": per.Field((), "int64"), "reward": per.Field()}


def exponential(rng, count, age):
    """Errors as a learner gives them; `age` in [0, 1] is how far it has come."""
    return rng.exponential(2.0 - 1.5 * age, count) * rng.choice([-1, 1], count)


def sparse(rng, count, age):
    return np.where(rng.random(count) < 0.06, rng.normal(size=count), 0.0)


def falling(rng, count, age):
    return exponential(rng, count, age) * (10.0 if age < 0.2 else 0.5)


def heavy(rng, count, age):
    return rng.lognormal(0.0, 1.5, count)


def few_clipped(rng, count, age):
    return np.clip(rng.normal(0.0, 0.6, count), -1.0, 1.0)


def tabular(rng, count, age):
    return rng.integers(0, 40, count) / 20.0


def clipped(rng, count, age):
    return np.clip(rng.normal(0.0, 100.0, count), -1.0, 1.0)


def constant(rng, count, age):
    return np.full(count, 0.25)


def live(
    sampler=None, *, capacity=1_000, rounds=60, rows=30, batch=32, draws=4, beta=0.4, lag=0,
    errors=exponential, entering=None, give=True, kind=per.ReplayBuffer, rewards=None, **options,
):  # fmt: skip
    """Return a memory that was filled and learnt from.

    Each round appends `rows` rows and makes `draws` draws, whose errors come `lag` draws later.
    """
    rng = np.random.default_rng(4)
    if kind is per.PrioritizedIndex:
        memory = per.PrioritizedIndex(capacity, sampler, seed=3)
    else:
        memory = per.ReplayBuffer(capacity, FIELDS, sampler=sampler, seed=3, **options)
    waiting = deque()
    for place in range(rounds):
        own = None if entering is None else entering(rng, rows, place / rounds)
        if kind is per.PrioritizedIndex:
            memory.append(rows, own)
        elif "sequence" in options:
            for step in range(rows):
                memory.add(np.zeros(2), 0, 1.0, np.zeros(2), step == rows - 1)
        else:
            reward = np.ones(rows) if rewards is None else rewards(rng, rows)
            zeros = np.zeros((rows, 2))
            columns = {"obs": zeros, "action": np.zeros(rows, int), "reward": reward}
            memory.extend({**columns, "next_obs": zeros, "discount": np.ones(rows)}, own)
        for _ in range(draws):
            waiting.append(memory.sample(batch, beta=beta).ids)
            while give and len(waiting) > lag:
                ids = waiting.popleft()
                memory.update_priorities(ids, errors(rng, len(ids), place / rounds))
    return memory


def names_of(memory, record=None):
    portrait = None if memory is None else portrait_of(memory)
    found = findings(portrait, record)
    for finding in found:
        assert finding.text[-1] in ".?"
        assert len(finding.text) > 60
    return [finding.name for finding in found]


def record(
    reports=20,
    *,
    updates=200,
    warm=2,
    replay="proportional",
    alpha=0.6,
    min_priority=0.0,
    **columns,
):
    """Return the record of a run, by default of a healthy one; columns replace its own."""
    rng = np.random.default_rng(1)
    at = np.arange(1.0, reports + 1)
    done = np.maximum(at - warm, 0.0) * updates
    metrics = {
        "step": at * 500,
        "updates": done,
        "episodes": np.floor(at / 2),
        "mean_return": np.where(at < 2, np.nan, 10.0 + at),
        "last_return": np.where(at < 2, np.nan, 12.0 + at),
        "beta": 0.4 + 0.6 * done / max(done.max(initial=1.0), 1.0),
        "td_error": np.where(done > 0, rng.uniform(0.3, 3.0, reports), np.nan),
        "loss": np.where(done > 0, rng.uniform(0.1, 1.0, reports), np.nan),
        "effective_sample_size": np.where(done > 0, rng.uniform(20.0, 60.0, reports), np.nan),
        "evaluation_mean": np.full(reports, np.nan),
    }
    metrics |= {name: np.broadcast_to(value, reports).copy() for name, value in columns.items()}
    return Record("Any-v0", replay, alpha, 0.4, 1.0, min_priority, 64, reports * 500, metrics)


def no_draws(**options):
    return live(draws=0, **options)


HEALTHY = {
    "proportional": lambda: live(),
    "rank": lambda: live(per.RankBased()),
    "uniform": lambda: live(per.Uniform()),
    "LAP": lambda: live(per.Proportional(alpha=0.4, eps=0.0, min_priority=1.0), beta=0.0),
    "recent": lambda: live(per.Proportional(recent_mix=0.5, recent=100)),
    "uniform mix": lambda: live(per.Proportional(uniform_mix=0.1)),
    "distinct": lambda: live(per.Proportional(draw="without_replacement"), rows=60),
    "alpha 1": lambda: live(per.Proportional(alpha=1.0)),
    "current": lambda: live(per.Proportional(max_priority="current")),
    "raw weights": lambda: live(per.Proportional(weights="raw"), beta=0.6),
    "sparse": lambda: live(per.Proportional(), errors=sparse),
    "sparse, eps 0": lambda: live(per.Proportional(eps=0.0, uniform_mix=0.1), errors=sparse),
    "sparse rank": lambda: live(per.RankBased(), errors=sparse),
    "heavy tails": lambda: live(errors=heavy),
    "a few clipped": lambda: live(errors=few_clipped),
    "tabular": lambda: live(errors=tabular),
    "errors fall": lambda: live(errors=falling, rounds=100),
    "sequences": lambda: live(sequence=per.Sequence(length=10, overlap=5)),
    "index": lambda: live(kind=per.PrioritizedIndex),
    "curriculum": lambda: live(kind=per.PrioritizedIndex, beta=0.0, capacity=300),
    "own errors": lambda: live(entering=exponential),
    "drawn ahead": lambda: live(capacity=500, lag=2),
    "never drawn": lambda: no_draws(),
    "never drawn, LAP": lambda: no_draws(sampler=per.Proportional(min_priority=9.0), rounds=9),
    "never drawn, own errors": lambda: no_draws(entering=exponential),
    "never drawn, own errors with heavy tails": lambda: no_draws(entering=heavy),
    "empty": lambda: no_draws(rounds=0),
    "first batches": lambda: live(rounds=1, rows=1_000, draws=3, lag=3),
    "no alpha": lambda: live(per.Proportional(alpha=0.0), give=False),
    "a handful": lambda: live(capacity=10, rounds=1, rows=10, draws=3, give=False),
    "large, young": lambda: live(capacity=50_000, rounds=1, rows=40_000, draws=60),
    "old": lambda: live(capacity=200, rounds=150),
}
RUNS = {
    "proportional": lambda: record(),
    "rank": lambda: record(replay="rank", alpha=0.7),
    "uniform": lambda: record(
        replay="uniform", alpha=0.0, effective_sample_size=64.0, beta=1.0, td_error=2.0
    ),
    "alpha 0": lambda: record(alpha=0.0, effective_sample_size=64.0),
    "LAP": lambda: record(min_priority=1.0, beta=0.0, effective_sample_size=64.0),
    "warming up": lambda: record(2),
    "not begun": lambda: record(0),
    "one report": lambda: record(3),
    "beta 1": lambda: record(beta=1.0),
    "long": lambda: record(beta=np.linspace(0.4, 0.40002, 20)),
    "errors grow": lambda: record(td_error=np.geomspace(0.2, 8.0, 20)),
    "returns of 0": lambda: record(last_return=0.0, mean_return=0.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", HEALTHY)
def test_nothing_is_found_in_a_healthy_memory(case):
    assert names_of(HEALTHY[case]()) == []


@pytest.mark.parametrize("case", RUNS)
def test_nothing_is_found_in_a_healthy_run(case):
    assert names_of(None, RUNS[case]()) == []


def with_outlier(sampler, error):
    """One error of the last batch is far away."""
    memory = live(sampler)
    memory.update_priorities(memory.sample(32).ids[:1], [error])
    return memory


def after_outlier():
    """The row of the outlier is long gone, its priority is still that of new rows."""
    memory = live(rounds=10)
    memory.update_priorities([memory.ids_issued - 1], [1e6])
    memory.update_priorities([memory.ids_issued - 1], [0.5])
    return memory


def undrawn(errors, capacity=1_000):
    """Rows that came with their errors, as of a data set."""
    memory = per.PrioritizedIndex(capacity, seed=3)
    memory.append(td_errors=errors)
    return memory


def not_a_number(rng, count):
    return np.where(rng.random(count) < 0.02, np.nan, 1.0)


MISTAKES = {
    "never given back": ("never_given_back", lambda: live(give=False), None),
    "never, by ranks": ("never_given_back", lambda: live(per.RankBased(), give=False), None),
    "never, of an index": (
        "never_given_back", lambda: live(kind=per.PrioritizedIndex, give=False), None,
    ),
    "equal": ("all_equal", lambda: live(errors=constant, entering=constant), None),
    "equal, new rows enter higher": ("all_equal", lambda: live(errors=constant), None),
    "equal, without draws": ("all_equal", lambda: undrawn(np.full(100, -3.0)), None),
    "outlier, without draws": ("outlier", lambda: undrawn([*np.linspace(0, 1, 99), 1e5]), None),
    "equal by min_priority": (
        "all_equal", lambda: live(per.Proportional(min_priority=9.0), errors=tabular), None,
    ),
    "clipped": ("clipped", lambda: live(errors=clipped), None),
    "clipped, by ranks": ("clipped", lambda: live(per.RankBased(), errors=clipped), None),
    "outlier": ("outlier", lambda: with_outlier(None, 1e4), None),
    "outlier of 1000": ("outlier", lambda: with_outlier(None, 1e3), None),
    "after an outlier": ("outlier", after_outlier, None),
    "stale": ("stale", lambda: live(capacity=300, lag=60), None),
    "stale, counted": ("stale", lambda: live(capacity=300, lag=20), lambda: record(updates=14)),
    "weights": ("weights_unused", lambda: live(beta=0.0), None),
    "not finite": ("not_finite", lambda: live(rewards=not_a_number), None),
    "beta stuck, run": ("beta_stuck", None, lambda: record(beta=0.4)),
    "beta 0, run": ("weights_unused", None, lambda: record(beta=0.0)),
    "weights, run": ("weights_unused", None, lambda: record(effective_sample_size=64.0)),
    "never given back, run": (
        "never_given_back", lambda: live(give=False), lambda: record(effective_sample_size=64.0),
    ),
    "clipped, run": ("clipped", None, lambda: record(td_error=1.0)),
    "outlier, run": (
        "outlier", None, lambda: record(td_error=np.where(np.arange(20) == 9, 900.0, 0.5)),
    ),
    "infinite, run": ("not_finite", None, lambda: record(last_return=np.inf)),
    "no numbers, run": ("not_finite", None, lambda: record(last_return=np.nan)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_and_nothing_else(case):
    name, memory, run = MISTAKES[case]
    assert names_of(memory and memory(), run and run()) == [name]


def test_every_finding_is_the_name_of_a_mistake_here():
    assert {name for name, *_ in MISTAKES.values()} == set(NAMES)


def test_an_outlier_does_not_matter_by_ranks():
    assert names_of(with_outlier(per.RankBased(), 1e6)) == []


def test_every_threshold_says_why():
    text = Path(rules.__file__).read_text(encoding="utf-8")
    constants = re.findall(r'^[A-Z_]+ = [\d.e-]+\n"""', text, re.MULTILINE)
    assert len(constants) == len(re.findall(r"^[A-Z_]+ = [\d.e-]+$", text, re.MULTILINE)) > 10


# The command


def inspected(*words):
    said = io.StringIO()
    with redirect_stdout(said):
        assert main(["inspect", *map(str, words)]) == 0
    return said.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Save a buffer of stacked frames."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (70, 12, 10), np.uint8)
    fields = {"obs": per.Field((3, 12, 10), "uint8", stack_axis=0), "action": per.Field((), "int8")}
    replay = per.ReplayBuffer(100, {**fields, "reward": per.Field()}, seed=1)
    for k in range(60):
        replay.add(frames[k : k + 3], k % 4, 0.5, frames[k + 1 : k + 4], False, td_error=60.0 - k)
    replay.save(folder / "replay")
    return folder, frames


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects what is looked at."""

    VOID = frozenset(["meta", "img", "br"])

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.count, self.text = [], [], {}, text
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def check(self):
        """Nothing is fetched, no script runs."""
        assert not {"script", "link", "iframe", "object"} & self.count.keys()
        targets = [v for k, v in self.attributes if k in ("src", "href", "srcset", "action")]
        assert all(target.startswith("data:image/png;base64,") for target in targets)
        assert "url(" not in self.text
        assert "@import" not in self.text
        assert not [name for name, _ in self.attributes if name.startswith("on")]
        assert "prefers-color-scheme: dark" in self.text
        assert ("name", "viewport") in self.attributes


def decoded(uri):
    import base64

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.slow
def test_the_page_of_a_buffer_of_images(images):
    folder, frames = images
    said = inspected(folder / "replay", "--html", folder / "page.html")
    assert "Nothing wrong was found." in said
    assert "60 of 100 transitions" in said
    page = Page((folder / "page.html").read_text(encoding="utf-8"))
    page.check()
    pictures = [value for name, value in page.attributes if name == "src"]
    assert len(pictures) == 2 * 20  # obs and next_obs of the 20 highest; none was drawn
    assert page.count["svg"] == 4
    # the highest is the first: its newest frame, and that of the observation after it
    assert (decoded(pictures[0]) == frames[2]).all()
    assert (decoded(pictures[1]) == frames[3]).all()


def test_what_comes_from_a_folder_is_escaped(tmp_path):
    folder = tmp_path / "<script>alert(1)</script>"
    memory = live(kind=per.PrioritizedIndex, rounds=5)
    memory.save(folder)
    said = inspected(folder, "--html", tmp_path / "page.html")
    assert "PrioritizedIndex, 150 of 1,000 items" in said
    Page((tmp_path / "page.html").read_text(encoding="utf-8")).check()


def test_an_empty_memory_has_a_page(tmp_path):
    per.PrioritizedIndex(5).save(tmp_path / "index")
    assert "0 of 5 items" in inspected(tmp_path / "index", "--html", tmp_path / "page.html")
    Page((tmp_path / "page.html").read_text(encoding="utf-8")).check()


@pytest.mark.slow
def test_the_summary_names_what_is_wrong(tmp_path):
    live(sequence=per.Sequence(length=10, overlap=5), give=False).save(tmp_path / "replay")
    said = inspected(tmp_path / "replay", "--html", tmp_path / "page.html")
    assert "! errors never given back" in said
    assert "sequences in" in said
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "errors never given back" in page
    assert "its first step" in page


def sharded(folder, shards):
    """Write the folder that ShardedReplay.save writes."""
    for shard in range(shards):
        live(give=False).save(folder / "b" / f"shard-{shard}")
    (folder / "sharded.json").write_text(f'{{"format": 1, "set": "b", "shards": {shards}}}')


def test_a_replay_in_shards_says_where_they_are(tmp_path, capsys):
    sharded(tmp_path / "one", 1)
    assert "! errors never given back" in inspected(tmp_path / "one")
    sharded(tmp_path / "two", 2)
    assert main(["inspect", str(tmp_path / "two")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"in 2 shards: inspect one of them, such as {tmp_path / 'two' / 'b' / 'shard-0'}" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none"], "none is not a run or a checkpoint: there is no such folder"),
        (["."], "MANIFEST.json"),
        ([".", "--html", "page.txt"], "html must name a file that ends in .html, got page.txt"),
        ([".", "--html", "none/page.html"], "there is no folder none"),
        ([".", "--html", "folder.html"], "folder.html cannot be written: it is a folder"),
        ([], "PATH is missing"),
    ],
)
def test_refusals_are_one_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    assert main(["inspect", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


LAP = ["--alpha", "0.4", "--priority-eps", "0", "--min-priority", "1"]
LAP += ["--beta-start", "0", "--beta-end", "0"]
ARMS = {
    "uniform": ["--replay", "uniform"],
    "alpha-0": ["--replay", "proportional", "--alpha", "0"],
    "proportional": ["--replay", "proportional"],
    "rank": ["--replay", "rank"],
    "lap": ["--replay", "proportional", *LAP],
}


def trained(run, env_id, *words, code=0):
    """Train a small run and return what is said of it."""
    small = "--keep-checkpoint --steps 1500 --warmup 200 --eval-every 1500 --eval-episodes 1 "
    small += "--final-eval-episodes 1 --hidden-sizes 16 --batch-size 16 --eval-max-steps 50"
    with redirect_stdout(io.StringIO()):
        assert main(["train", env_id, "--run-dir", str(run), *small.split(), *words]) == code
    return " ".join(inspected(run, "--html", run / "page.html").split())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("env_id", ["CartPole-v1", "CliffWalking-v1"])
def test_nothing_is_found_in_a_run_that_was_trained(env_id, arm, seed, tmp_path):
    """Twenty runs, with every arm of ``per compare``."""
    said = trained(tmp_path, env_id, *ARMS[arm], "--seed", str(seed))
    assert "Nothing wrong was found." in said
    assert "draws per step" in said
    assert "highest priorities" in said
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    page.check()
    # in the long episodes of CliffWalking none may have ended, so there is no curve of returns
    assert page.count["svg"] in ({7, 8} if env_id == "CliffWalking-v1" else {8})


def beta_is_never_moved(monkeypatch):
    monkeypatch.setattr("prioritized_replay.dqn.agent.Agent.beta", 0.4)


def weights_are_not_used(monkeypatch):
    monkeypatch.setattr("prioritized_replay.dqn.agent.Agent.beta", 0.0)


def errors_are_changed(monkeypatch, change):
    """Give back what `change` makes of the errors; nothing where that is None."""
    right, count = per.ReplayBuffer.update_priorities, 0

    def give(memory, ids, errors):
        nonlocal count
        count += 1
        changed = change(memory, ids, np.asarray(errors), count)
        if changed is not None:
            right(memory, *changed)

    monkeypatch.setattr(per.ReplayBuffer, "update_priorities", give)


def errors_are_never_given_back(monkeypatch):
    errors_are_changed(monkeypatch, lambda memory, ids, errors, count: None)


def errors_are_clipped(monkeypatch):
    errors_are_changed(
        monkeypatch, lambda memory, ids, errors, count: (ids, np.clip(errors, -0.5, 0.5))
    )


def errors_are_one_mean(monkeypatch):
    errors_are_changed(
        monkeypatch, lambda memory, ids, errors, count: (ids, np.full_like(errors, 0.25))
    )


def one_error_is_far_away(monkeypatch):
    def change(memory, ids, errors, count):
        far = errors.copy()
        far[0] *= 1e6 if count == 640 else 1.0
        return ids, far

    errors_are_changed(monkeypatch, change)


def errors_come_too_late(monkeypatch):
    waiting = deque()

    def change(memory, ids, errors, count):
        waiting.append((ids, errors))
        return waiting.popleft() if len(waiting) > 400 else None

    errors_are_changed(monkeypatch, change)


def rewards_are_not_finite(monkeypatch):
    from gymnasium.envs.classic_control import CartPoleEnv

    right, count = CartPoleEnv.step, 0

    def step(env, action):
        nonlocal count
        count += 1
        observation, reward, *rest = right(env, action)
        return observation, np.inf if count == 300 else reward, *rest

    monkeypatch.setattr(CartPoleEnv, "step", step)


BUILT_IN = {
    "not_finite": (rewards_are_not_finite, ["--warmup", "1200"]),
    "never_given_back": (errors_are_never_given_back, []),
    "all_equal": (errors_are_one_mean, []),
    "clipped": (errors_are_clipped, []),
    "outlier": (one_error_is_far_away, []),
    "stale": (errors_come_too_late, ["--capacity", "500"]),
    "beta_stuck": (beta_is_never_moved, []),
    "weights_unused": (weights_are_not_used, []),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_mistake_that_is_built_into_a_run_is_named(name, tmp_path, monkeypatch):
    build, words = BUILT_IN[name]
    build(monkeypatch)
    words = ["--replay", "proportional", *words]
    # A run whose rewards are not finite ends at the first update that meets one.
    said = trained(tmp_path, "CartPole-v1", *words, code=int(name == "not_finite"))
    assert f"! {NAMES[name]}" in said
    assert said.count("! ") == 1


@pytest.mark.slow
def test_a_run_without_checkpoint_and_with_a_mistake(tmp_path):
    from prioritized_replay.runs import folder as folder_module
    from prioritized_replay.runs import records
    from prioritized_replay.runs.checkpoint_policy import CheckpointPolicy
    from prioritized_replay.runs.metrics import COLUMNS
    from prioritized_replay.training.config import TrainConfig

    assert records.CONFIG == CONFIG
    assert folder_module.CHECKPOINT == CHECKPOINT
    config = TrainConfig(env_id="my_envs:Room-v0", replay="proportional", steps=10_000)
    records.write_config(tmp_path / CONFIG, config, CheckpointPolicy(steps=10_000), {})
    metrics = record(beta=0.4).metrics
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in range(20):
            values = [metrics.get(name, np.full(20, np.nan))[row] for name in COLUMNS]
            writer.writerow(["" if np.isnan(value) else float(value) for value in values])
    said = " ".join(inspected(tmp_path, "--html", tmp_path / "page.html").split())
    assert "! beta stuck beta was 0.4 in all 18 reports with updates instead of rising to 1" in said
    assert "no checkpoint" in said
    sharded(tmp_path / CHECKPOINT, 2)
    said = " ".join(inspected(tmp_path).split())
    assert f"in 2 shards, and each can be inspected: per inspect {tmp_path / CHECKPOINT}" in said
    shutil.rmtree(tmp_path / CHECKPOINT)
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    page.check()
    assert page.count["svg"] == 4
    (tmp_path / "metrics.csv").write_text(",".join(COLUMNS) + "\n" + "," * (len(COLUMNS) - 1))
    assert main(["inspect", str(tmp_path)]) == 2


# Pictures and charts


@pytest.mark.parametrize("shape", [(9, 13), (8, 8, 3)])
def test_a_picture_is_read_back(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(png(image)))) == image).all()


def test_what_is_a_picture_and_what_is_shown_of_it():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 20, 30), np.uint8)
    assert (decoded(picture_of(frames)) == frames[-1]).all()
    last = np.ascontiguousarray(np.moveaxis(frames, 0, 2))
    assert (decoded(picture_of(last, 2)) == frames[-1]).all()
    assert (decoded(picture_of(last, -1)) == frames[-1]).all()
    colour = rng.integers(0, 256, (3, 20, 30), np.uint8)  # channels first
    assert (decoded(picture_of(colour)) == np.moveaxis(colour, 0, 2)).all()
    stack = rng.integers(0, 256, (2, 20, 30, 3), np.uint8)
    assert (decoded(picture_of(stack, 0)) == stack[-1]).all()
    board = np.zeros((10, 10, 4), bool)
    board[3, 4, 3] = board[5, 5, 0] = True
    shown = decoded(picture_of(board))
    assert shown[3, 4] > shown[5, 5] > shown[0, 0] == 0
    grey = np.array([[0.0, np.nan], [0.5, 1.0]]).repeat(8, 0).repeat(8, 1)
    assert decoded(picture_of(grey)).max() == 255
    assert decoded(picture_of(np.zeros((500, 9)))).shape == (250, 5)
    for none in (np.zeros(4), np.zeros((4, 4)), np.zeros((2, 3, 20, 30)), np.zeros((0, 9))):
        assert picture_of(none) is None


def test_where_new_rows_are_the_highest_those_drawn_are_shown_too(tmp_path):
    index = per.PrioritizedIndex(100, seed=0)
    index.append(50)
    drawn = np.unique(index.sample(32).ids)
    index.update_priorities(drawn, 1.0 / (1.0 + drawn))
    portrait = portrait_of(index)
    places = portrait.highest_drawn(5)
    assert portrait.census.ids[places].tolist() == drawn[:5].tolist()
    index.save(tmp_path / "index")
    inspected(tmp_path / "index", "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.index("The 20 highest priorities") < page.index("highest of those that were drawn")


def test_draws_are_told_of_the_newest_tenth_first():
    index = per.PrioritizedIndex(100, per.Proportional(alpha=1.0, eps=0.0), seed=0)
    index.append(td_errors=np.where(np.arange(100) < 10, 1e6, 1.0))  # the oldest tenth
    index.sample(50)
    index.update_priorities(np.arange(90, 100), np.full(10, 1e9))
    draws, never = numbers.by_age(portrait_of(index))
    assert draws[0] == pytest.approx(1.0, abs=0.01)  # by the law as it is now
    assert draws.sum() == pytest.approx(1.0)
    assert never[:9].tolist() == [1.0] * 9
    assert never[9] < 0.1


def test_charts_of_a_run_are_of_the_columns_that_they_name(monkeypatch):
    shown = {}
    monkeypatch.setattr(
        pages.charts, "line_chart", lambda title, x, lines, unit: shown.update({title: lines})
    )
    run = record()
    pages._run_charts(run)
    columns = {title.split()[0]: next(iter(lines.values())) for title, lines in shown.items()}
    names = {
        "Effective": "effective_sample_size",
        "Exponent": "beta",
        "Mean": "td_error",
        "Return": "mean_return",
    }
    assert columns.keys() == names.keys()
    for word, name in names.items():
        assert columns[word] is run.metrics[name]


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [(0, 32, [0, 10, 20, 30, 40]), (0, 1, [0, 0.25, 0.5, 0.75, 1]), (-200, 0, None), (0, 0, None)],
)
def test_scales_are_round_and_hold_everything(low, high, scale):
    found = _scale(low, high)
    assert found[0] <= low < found[-1] >= high
    assert 2 <= len(found) <= 7
    assert scale is None or found == pytest.approx(scale)


def test_histograms_count_every_value():
    values = np.concatenate([np.zeros(5), np.geomspace(1e-4, 1e3, 100), [1e3]])
    found = histogram(values)
    assert found.counts.sum() == 101
    assert found.zeros == 5
    assert histogram(np.full(7, 3.0)).counts.sum() == 7
    assert histogram(np.zeros(3)) is None
    drawing = histogram_chart("a < b", found, "priority")
    assert drawing.count('class="bar"') == (found.counts > 0).sum()
    assert "a &lt; b" in drawing


def test_lines_have_gaps_where_there_is_no_number():
    y = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    drawing = line_chart("t", np.arange(5.0), {"y": y}, "step")
    path = re.search(r'class="line line0" d="([^"]*)"', drawing)[1]
    assert path.count("M") == 2
    assert path.count("L") == 2
    assert line_chart("t", np.arange(5.0), {"y": np.full(5, np.nan)}, "step") is None
    assert line_chart("t", np.arange(2_000.0), {"y": np.ones(2_000)}, "step").count("L") < 700


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.5, "0.5"), (1234.5, "1,234"), (1e7, "1e7"), (1.5e-5, "1.5e-5"), (-2.0, "-2")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_a_narrow_console_breaks_nothing(tmp_path):
    from prioritized_replay.inspection.command import InspectOptions, inspect

    live(kind=per.PrioritizedIndex, rounds=5).save(tmp_path / "index")
    console = Console(width=40, file=io.StringIO(), force_terminal=True)
    assert inspect(InspectOptions(path=tmp_path / "index"), console) == []
