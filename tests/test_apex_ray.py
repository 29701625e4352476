"""Ape-X with its processes: it learns, survives, is resumed, and leaves nothing behind."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Ray's own sockets
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

from prioritized_replay.apex import crew  # noqa: E402
from prioritized_replay.apex.cluster import Cluster  # noqa: E402
from prioritized_replay.apex.shards import Shards  # noqa: E402
from prioritized_replay.apex.training import ApexTraining  # noqa: E402
from prioritized_replay.integrations.ray import manifest  # noqa: E402
from prioritized_replay.runs import checkpoint  # noqa: E402
from prioritized_replay.training import preset  # noqa: E402

SECONDS = 180.0  # for a process to do what it has to; a loaded machine may need them
MARK = "APEX_TEST_MARK"


def until(done, what):
    deadline = time.monotonic() + SECONDS
    while not (found := done()):
        assert time.monotonic() < deadline, f"no {what} within {SECONDS:g} seconds"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def cluster():
    """Start Ray once; trainings that close it leave it to the others."""
    own = Cluster(4)
    own.close, close = lambda: None, own.close
    yield own
    close()


def small(**settings):
    return preset(
        "CartPole-v1",
        **{
            **{"actors": 2, "shards": 2, "steps": 3_000, "warmup": 300, "eval_every": 1_500},
            **{"eval_episodes": 2, "hidden_sizes": (16,), "batch_size": 16, "seed": 3},
            **settings,
        },
    )


def mine(mark):
    """Return the processes that have a mark in their environment, but for this one."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            if (
                path.name.isdecimal()
                and f"{MARK}={mark}".encode() in (path / "environ").read_bytes()
            ):
                found.append((int(path.name), (path / "cmdline").read_bytes().split(b"\0")[0]))
        except OSError:
            continue
    return found


def test_steps_updates_and_reports_are_those_of_one_process(cluster):
    config = small()
    training = ApexTraining(config, cluster=cluster)
    try:
        reports = list(training.run(report_every=500))
        rows = len(training.agent.memory_buffer.replay)
    finally:
        training.close()
    assert [report.step for report in reports] == [500, 1_000, 1_500, 2_000, 2_500, 3_000]
    assert training.step == 3_000
    # The warm-up ends with a piece of work, of 100 steps; windows of 3 steps are open by then.
    missing = config.total_updates - training.agent.updates
    assert 0 <= missing <= 2 * 100 // config.train_every
    last = reports[-1].workers
    assert [actor.epsilon for actor in last.actors] == pytest.approx([0.4, 0.4**8])
    assert sum(actor.steps for actor in last.actors) == 3_000
    assert all(actor.steps >= 1_000 for actor in last.actors), "they take turns"
    assert 3_000 - 2 * 3 <= rows <= 3_000
    assert rows - 100 <= sum(shard.rows for shard in last.shards) <= rows
    assert sum(shard.draws for shard in last.shards) == 16 * training.agent.updates
    assert reports[2].evaluation is not None
    assert training.best_evaluation is not None
    ages = [actor.parameter_age for report in reports[2:] for actor in report.workers.actors]
    # A piece of work waits behind at most three others, and parameters are out for 25 updates.
    assert 0 < max(ages) <= 4 * 50 + 25


def test_an_actor_that_is_killed_is_replaced_and_a_state_goes_on(cluster, tmp_path):
    config = small(steps=6_000, shards=1)
    training = ApexTraining(config, cluster=cluster)
    news, killed = [], 0
    run = training.run(report_every=500)
    try:
        for report in run:
            news += report.workers.news
            if report.step == 1_000:
                member = training._crew.members[1]
                ray.kill(member.process)
                killed += 1
            if report.step >= 2_500:
                break
        assert killed == 1
        assert news == ["Actor 1 died; a new one has taken its place."]
        assert [actor.replaced for actor in report.workers.actors] == [0, 1]
        run.close()
        state = training.state_dict()
        training.agent.memory_buffer.save(tmp_path / "replay", extra={"learner": b"x"})
        rows = len(training.agent.memory_buffer.replay)
    finally:
        training.close()
    assert (tmp_path / "replay" / checkpoint.SHARDED).is_file()
    assert checkpoint.SHARDED == manifest.FILE

    shards = Shards.load(tmp_path / "replay")
    again = ApexTraining.resume(config, state, shards, cluster=cluster)
    try:
        assert len(shards.replay) == rows
        assert (again.step, again.agent.updates) == (report.step, report.updates)
        reports = list(again.run(report_every=1_000))
        assert [one.step for one in reports] == [3_000, 4_000, 4_500, 5_000, 6_000]
        assert sum(actor.steps for actor in reports[-1].workers.actors) == 6_000
        assert {one.epsilon for one in reports} == {(0.4 + 0.4**8) / 2}
        assert reports[-1].updates == report.updates + 3_500 // config.train_every
    finally:
        again.close()


def test_a_shard_that_dies_is_said_and_the_training_goes_on(cluster):
    training = ApexTraining(small(shards=1, steps=4_000), cluster=cluster)
    news = []
    try:
        for report in training.run(report_every=500):
            news += report.workers.news
            if report.step == 1_500:
                ((_, number),) = training.agent.memory_buffer.replay.processes
                os.kill(number, signal.SIGKILL)
        training.agent.memory_buffer._due = 0.0
        news += training.workers().news
        lost = training.agent.memory_buffer.rows_lost
    finally:
        training.close()
    assert training.step == 4_000
    assert any(line.startswith("A shard of the replay died") for line in news), news
    assert lost > 1_000
    assert report.updates > 500


def test_an_actor_that_dies_again_and_again_ends_the_training(cluster, monkeypatch):
    monkeypatch.setattr(crew, "_MOST_DEATHS", 1)
    training = ApexTraining(small(shards=1), cluster=cluster)
    try:
        run = training.run(report_every=100)
        next(run)
        ray.kill(training._crew.members[0].process)
        with pytest.raises(RuntimeError, match=r"^actor 0 died 1 times before it made a step: "):
            list(run)
    finally:
        training.close()


TINY = (
    *("--actors", "2", "--warmup", "200", "--eval-every", "1000", "--eval-episodes", "1"),
    *("--final-eval-episodes", "2", "--hidden-sizes", "16", "--batch-size", "16"),
    *("--checkpoint-every", "500", "--run-dir", "run"),
)
PER = "import sys; from prioritized_replay.cli import main; sys.exit(main())"


def begin(folder, mark, *words):
    """Start the command in a session of its own; return it and the file of what it says."""
    said = folder / f"said-{uuid.uuid4().hex}.txt"
    process = subprocess.Popen(
        [sys.executable, "-c", PER, "train", *words],
        cwd=folder,
        env={**os.environ, MARK: mark, "RAY_ADDRESS": ""},
        stdout=said.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return process, said


def reports_in(folder):
    path = folder / "run" / "metrics.csv"
    return list(csv.DictReader(path.open(newline=""))) if path.is_file() else []


def test_killed_altogether_resumed_and_stopped_nothing_is_left(tmp_path):
    mark = uuid.uuid4().hex
    first, said = begin(tmp_path, mark, "CartPole-v1", *TINY, "--steps", "1000000")
    try:
        until((tmp_path / "run" / "checkpoint" / "sharded.json").is_file, "checkpoint")
        for number, _ in mine(mark):
            os.kill(number, signal.SIGKILL)
        first.wait(SECONDS)
        until(lambda: not mine(mark), "end of all processes")
        assert "Careful" not in said.read_text()

        second, said = begin(tmp_path, mark, "--resume", "run")
        before = int(until(lambda: reports_in(tmp_path), "report")[-1]["step"])
        until(lambda: int(reports_in(tmp_path)[-1]["step"]) >= before + 1_000, "later report")
        actors = [number for number, name in mine(mark) if name.startswith(b"ray::ActorProcess")]
        assert len(actors) == 2
        os.kill(actors[0], signal.SIGKILL)
        until(lambda: "died; a new one has taken its place." in said.read_text(), "replacement")
        os.killpg(second.pid, signal.SIGINT)  # as Ctrl-C in a terminal: to all of the group
        assert second.wait(SECONDS) == 130
        until(lambda: not mine(mark), "end of all processes")
    finally:
        for number, _ in mine(mark):
            os.kill(number, signal.SIGKILL)
    text = said.read_text()
    assert "resumed at step" in text
    assert "what was learnt is saved" in text
    assert "per train --resume run" in text
    steps = [int(row["step"]) for row in reports_in(tmp_path)]
    assert steps == sorted(set(steps))
    with (tmp_path / "run" / "actors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {int(row["step"]) for row in rows} <= set(steps)
    assert rows[-1]["replaced"] == "1" or rows[-2]["replaced"] == "1"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["actors"] == 2


def test_an_environment_that_raises_leaves_no_process(tmp_path):
    (tmp_path / "broken_envs.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Broken(CartPoleEnv):\n"
        "    taken = 0\n"
        "    def step(self, action):\n"
        "        Broken.taken += 1\n"
        "        if Broken.taken > 250:\n"
        "            raise OSError('the camera is unplugged')\n"
        "        return super().step(action)\n"
        "gymnasium.register('Broken-v0', entry_point='broken_envs:Broken', max_episode_steps=500)\n"
    )
    mark = uuid.uuid4().hex
    os.environ["PYTHONPATH"], before = (
        f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        os.environ.get("PYTHONPATH"),
    )
    try:
        process, said = begin(tmp_path, mark, "broken_envs:Broken-v0", *TINY, "--actors", "1")
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    assert process.wait(SECONDS) == 1
    assert "the camera is unplugged" in said.read_text()
    until(lambda: not mine(mark), "end of all processes")


def test_a_cluster_that_is_not_there_is_said_in_a_line(tmp_path):
    mark = uuid.uuid4().hex
    address = ("--actors", "2", "--ray-address", "127.0.0.1:1")
    process, said = begin(tmp_path, mark, "CartPole-v1", *address)
    assert process.wait(SECONDS) == 2
    text = said.read_text()
    assert text.startswith("per train: ray_address must be that of a running Ray cluster, got ")
    assert "ray start --head" in text
    assert text.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    assert not mine(mark)


CLUSTER = """
import sys
import ray
from ray.cluster_utils import Cluster
options = {"num_cpus": 4, "object_store_memory": 100 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=options)
try:
    print(cluster.address, flush=True)
    sys.stdin.readline()
finally:
    cluster.shutdown()
"""


def test_a_run_joins_a_cluster_and_leaves_it_as_it_was(tmp_path):
    mark, theirs = uuid.uuid4().hex, uuid.uuid4().hex
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env={**os.environ, MARK: theirs}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        address = cluster.stdout.readline().strip()
        words = (*TINY, "--steps", "2000", "--shards", "2", "--ray-address", address)
        process, said = begin(tmp_path, mark, "CartPole-v1", *words)
        seen = set()
        while process.poll() is None:
            seen |= {name.split(b"(")[0] for _, name in mine(theirs) if name.startswith(b"ray::")}
            time.sleep(0.1)
        assert process.returncode == 0, said.read_text()
        assert {b"ray::ActorProcess", b"ray::_ReplayShard"} <= {
            name.split(b".")[0] for name in seen
        }, "actors and shards were processes of the cluster"
        until(
            lambda: not [n for _, n in mine(theirs) if b"ActorProcess" in n or b"Replay" in n],
            "end of actors and shards",
        )
        assert cluster.poll() is None, "the cluster goes on"
        assert [n for _, n in mine(theirs) if b"raylet" in n]
    finally:
        cluster.stdin.close()
        cluster.wait(SECONDS)
        for number, _ in [*mine(mark), *mine(theirs)]:
            os.kill(number, signal.SIGKILL)
