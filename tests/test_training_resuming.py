"""A training that goes on from a checkpoint: the same learner, the same replay, once and again."""

import io
import math
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from prioritized_replay.dqn.fast.adam import FlatAdam
from prioritized_replay.runs.checkpoint import RunCheckpoint
from prioritized_replay.training import loop as training_module
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.loop import Stopped, Training
from prioritized_replay.training.presets import preset

TINY = {
    "steps": 1_000,
    "warmup": 100,
    "hidden_sizes": (16,),
    "batch_size": 16,
    "capacity": 500,
    "eval_every": 400,
    "eval_episodes": 2,
}
KINDS = {
    "rank": {},
    "proportional": {"replay": "proportional", "n_step": 1, "optimizer": "rmsprop", "tau": None},
    "uniform": {"replay": "uniform", "envs": 3, "dueling": True, "target_period": 50, "tau": None},
}
# Runs in a process of its own: of each kind what was loaded, the batches to come, and the end.
GOES_ON = """
import sys
from pathlib import Path
from tests.test_training_resuming import KINDS, go_on

for kind in KINDS:
    go_on(kind, Path(sys.argv[1]), sys.argv[2])
"""


def config(**overrides):
    return preset("CartPole-v1", **{**TINY, **overrides})


def snapshot(state):
    data = io.BytesIO()
    torch.save(state, data)
    return torch.load(io.BytesIO(data.getvalue()), weights_only=True)


def same(one, other):
    """Whether two states are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.numpy().tobytes() == other.numpy().tobytes()
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


def batches(memory, count=100):
    """Return what a buffer draws from now on, with priorities that depend on it."""
    drawn = []
    for _ in range(count):
        batch = memory.sample(16, beta=0.5)
        drawn += [torch.from_numpy(np.array(batch.ids)), torch.from_numpy(np.array(batch.weights))]
        drawn += [torch.from_numpy(np.array(batch.next_obs)), torch.from_numpy(batch.reward + 0.0)]
        memory.update_priorities(batch.ids, np.sin(batch.ids + 1.0))
    return drawn


def go_on(kind, folder, name):
    """Resume a training of one kind and write what it was, and what becomes of it."""
    checkpoint = RunCheckpoint(folder / kind / "checkpoint")
    training = Training.resume(config(**KINDS[kind]), *checkpoint.load())
    loaded = snapshot(training.state_dict())
    _, another = checkpoint.load()
    drawn = batches(another)
    reports = [(r.step, r.updates, r.loss, r.mean_return) for r in training.run(report_every=200)]
    end = training.state_dict()
    outcome = {"loaded": loaded, "drawn": drawn, "reports": reports, "end": end}
    torch.save(outcome, folder / kind / name)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A training of each kind as it was left; the folder of what two new processes made of it."""
    folder, left, drawn = tmp_path_factory.mktemp("elsewhere"), {}, {}
    for kind, changes in KINDS.items():
        training = Training(config(**changes))
        for report in training.run(report_every=200):
            if report.step >= 600:
                break
        left[kind] = snapshot(training.state_dict())
        checkpoint = RunCheckpoint(folder / kind / "checkpoint")
        checkpoint.save(training.state_dict(), training.agent.memory_buffer)
        drawn[kind] = batches(training.agent.memory_buffer)
    for name in ("first", "second"):
        subprocess.run([sys.executable, "-c", GOES_ON, str(folder), name], check=True)
    return folder, left, drawn


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_process_goes_on_bit_for_bit(elsewhere, kind):
    folder, left, drawn = elsewhere[0] / kind, elsewhere[1][kind], elsewhere[2][kind]
    first, second = (torch.load(folder / name, weights_only=True) for name in ("first", "second"))

    assert left["counts"]["step"] in (600, 601, 602)
    assert left["agent"]["updates"] > 0
    assert left["best"]["network"]
    assert same(first["loaded"], left)
    assert same(first["drawn"], drawn)
    assert first["end"]["counts"]["step"] >= 1_000
    assert first["end"]["counts"]["begun"] == 2
    assert first["end"]["agent"]["updates"] > left["agent"]["updates"]
    assert not same(first["end"]["agent"]["online_network"], left["agent"]["online_network"])
    assert same(first, second)


@pytest.mark.slow
def test_images_go_on_too(tmp_path):
    settings = TrainConfig(
        env_id="MinAtar/Asterix-v1", steps=400, warmup=50, batch_size=8, capacity=100, envs=2,
        eval_every=200, eval_episodes=1, eval_max_steps=5,
    )  # fmt: skip
    training = Training(settings)
    next(training.run(report_every=150))
    checkpoint = RunCheckpoint(tmp_path)
    checkpoint.save(training.state_dict(), training.agent.memory_buffer)

    other = Training.resume(settings, *checkpoint.load())

    assert same(other.state_dict(), training.state_dict())
    assert same(batches(other.agent.memory_buffer), batches(training.agent.memory_buffer))
    assert list(other.run())[-1].step == 400


def stop_after(training, steps, monkeypatch, times=1):
    """Send the signal in the middle of the step that makes so many."""
    real = training.agent.optimize

    def optimize():
        real()
        if training.step >= steps:
            for _ in range(times):
                training.stop(signal.SIGTERM)

    monkeypatch.setattr(training.agent, "optimize", optimize)


@pytest.mark.slow
def test_a_stop_completes_the_step_and_nothing_is_lost(tmp_path, monkeypatch):
    """Stopped between two reports: their means are as they would have been."""
    reports = list(Training(config(steps=700)).run(report_every=350))
    stopped = Training(config(steps=700))
    stop_after(stopped, 300, monkeypatch)

    with pytest.raises(Stopped) as caught:
        list(stopped.run(report_every=350))

    assert caught.value.args == (signal.SIGTERM,)
    assert 300 <= stopped.step <= 304
    state = stopped.state_dict()
    assert len(state["errors"]) == len(state["weights"]) == 16 * stopped.agent.updates > 0
    checkpoint = RunCheckpoint(tmp_path)
    checkpoint.save(state, stopped.agent.memory_buffer)
    other = Training.resume(config(steps=700), *checkpoint.load())
    assert same(other.state_dict(), state)
    errors, real = [state["errors"]], other.agent.optimize

    def optimize():
        real()
        errors.append(other.agent.last_td_errors)

    monkeypatch.setattr(other.agent, "optimize", optimize)
    resumed = next(other.run(report_every=350))
    assert resumed.updates == reports[0].updates == len(torch.cat(errors)) // 16
    assert resumed.td_error == pytest.approx(float(torch.cat(errors).abs().mean()))


@pytest.mark.slow
def test_a_report_that_was_owed_is_made_on_resuming(tmp_path, monkeypatch):
    """Stopped in an evaluation, at once: that report is as it would have been, and best too."""
    expected = next(Training(config(steps=700)).run(report_every=1_000))
    stopped = Training(config(steps=700))
    real = training_module.evaluate

    def evaluate(*args, **options):
        stopped.stop()
        return real(*args, **options)

    monkeypatch.setattr(training_module, "evaluate", evaluate)
    with pytest.raises(Stopped):
        next(stopped.run(report_every=1_000))
    monkeypatch.setattr(training_module, "evaluate", real)
    assert stopped.step == 400
    assert stopped.reported == 0
    checkpoint = RunCheckpoint(tmp_path)
    checkpoint.save(stopped.state_dict(), stopped.agent.memory_buffer)
    other = Training.resume(config(steps=700), *checkpoint.load())

    report = next(other.run(report_every=1_000))

    assert report.evaluation.returns.tolist() == expected.evaluation.returns.tolist()
    assert report.is_best
    assert math.isnan(report.steps_per_second)
    for name in ("step", "updates", "episodes", "loss", "td_error", "effective_sample_size"):
        assert getattr(report, name) == getattr(expected, name), name
    assert [later.step for later in other.run(report_every=1_000)] == [700]


def test_a_second_stop_does_not_wait(monkeypatch):
    training = Training(config())
    stop_after(training, 200, monkeypatch, times=2)
    with pytest.raises(KeyboardInterrupt) as caught:
        list(training.run())
    assert not isinstance(caught.value, Stopped)


def test_the_final_evaluation_can_be_stopped_and_made_later():
    training = Training(config(steps=400))
    list(training.run())
    training._stop = signal.SIGINT
    with pytest.raises(Stopped):
        training.final_evaluation()
    assert len(training.final_evaluation().returns) == training.config.final_eval_episodes
    assert list(training.run()) == []


@pytest.mark.slow
def test_a_longer_run_keeps_its_schedules_at_their_ends(tmp_path):
    settings = config(steps=400)
    training = Training(settings)
    list(training.run())
    checkpoint = RunCheckpoint(tmp_path)
    checkpoint.save(training.state_dict(), training.agent.memory_buffer)

    longer = Training.resume(settings, *checkpoint.load(), steps=900)
    reports = list(longer.run())

    assert [report.step for report in reports] == [500, 800, 900]
    assert {report.steps for report in reports} == {900}
    assert {report.epsilon for report in reports} == {settings.epsilon_end}
    assert {report.beta for report in reports} == {settings.beta_end}
    assert {report.learning_rate for report in reports} == {settings.learning_rate_end}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capacity": 501}, "capacity of the replay must be 501, got 500"),
        ({"n_step": 2}, "n_step of the replay must be 2, got 3"),
        ({"gamma": 0.5}, "gamma of the replay must be 0.5, got 0.99"),
        ({"alpha": 0.5}, r"sampler of the replay must be RankBased\(alpha=0.5.*alpha=0.7"),
        ({"envs": 2}, "num_envs of the replay must be 2, got None"),
        ({"hidden_sizes": (8,)}, "does not fit the configuration"),
        ({"dueling": True}, "does not fit the configuration"),
    ],
)
@pytest.mark.slow
def test_the_state_of_another_training_is_refused(changes, message):
    training = Training(config(steps=400))
    next(training.run(report_every=200))
    state, memory = training.state_dict(), training.agent.memory_buffer
    with pytest.raises(ValueError, match=message):
        Training.resume(config(**{"steps": 400, **changes}), state, memory)


@pytest.mark.slow
def test_damaged_states_are_refused():
    training = Training(config(steps=400))
    list(training.run())
    memory = training.agent.memory_buffer

    def refused(change):
        state = snapshot(training.state_dict())
        change(state)
        with pytest.raises(ValueError, match="does not fit"):
            Training.resume(config(steps=400), state, memory)

    refused(lambda state: state.pop("agent"))
    refused(lambda state: state["counts"].update(step=-1))
    refused(lambda state: state["counts"].update(step="7"))
    refused(lambda state: state["agent"].update(updates=1.5))
    refused(lambda state: state["agent"].update(generator={"bit_generator": "MT19937"}))
    refused(lambda state: state["agent"]["generator"].update(uinteger=2**70))
    refused(lambda state: state["agent"]["optimizer"]["param_groups"][0].pop("eps"))
    refused(lambda state: state.update(counts=torch.ones(3)))
    refused(lambda state: state.update(errors=torch.ones(2, 2), weights=torch.ones(2, 2)))
    refused(lambda state: state.update(errors=torch.ones(3), weights=torch.ones(2)))
    refused(lambda state: state.update(errors=None, weights=torch.ones(2)))
    refused(lambda state: state.update(latest=[torch.tensor(1.0), torch.tensor(1.0)]))
    refused(lambda state: state["best"].update(capped=math.inf))
    refused(lambda state: state["best"]["network"].pop("layers.0.bias"))
    refused(lambda state: state["best"].update(numbers=[1.0]))
    refused(lambda state: state.update(latest=[1]))
    refused(lambda state: state["agent"]["optimizer"]["state"][0].update(exp_avg=torch.ones(3)))


def test_the_flat_adam_takes_no_state_of_another_size():
    optimizer = FlatAdam(torch.nn.Parameter(torch.ones(4)))
    other = FlatAdam(torch.nn.Parameter(torch.ones(5)))
    (parameters,) = other.param_groups[0]["params"]
    parameters.grad = torch.ones(5)
    other.step()
    with pytest.raises(ValueError, match="must be of size 4, got 5"):
        optimizer.load_state_dict(other.state_dict())
