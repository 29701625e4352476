"""Ape-X without processes: exploration, rows and first priorities, options, what is written."""

import csv
import dataclasses
import importlib.util
import math

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

import prioritized_replay as per
from prioritized_replay.apex.actor import Actor, initial_td_errors
from prioritized_replay.apex.exploration import epsilons
from prioritized_replay.apex.pace import Pace
from prioritized_replay.apex.windows import Windows
from prioritized_replay.cli import main
from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.runs.options import TrainOptions
from prioritized_replay.runs.worker_metrics import WorkerMetrics, columns_of
from prioritized_replay.training import TrainConfig, Training, preset
from prioritized_replay.training.progress import Progress
from prioritized_replay.training.workers import ActorReport, ShardReport, Workers


@pytest.mark.parametrize("actors", [1, 2, 5, 360])
def test_epsilons_are_those_of_the_paper(actors):
    expected = [0.4 ** (1 + 7 * i / (actors - 1)) for i in range(actors)] if actors > 1 else [0.4]
    assert epsilons(actors) == pytest.approx(expected, rel=1e-12)


def test_no_actors_have_no_epsilons():
    with pytest.raises(ValueError, match=r"^actors must be >= 1, got 0$"):
        epsilons(0)


def steps(count, seed=0):
    """Return steps of one stream, with terminations and truncations."""
    generator = np.random.default_rng(seed)
    obs = 0.0
    for number in range(count):
        following = float(number + 1)
        end = generator.random()
        yield (
            [obs],
            int(generator.integers(2)),
            float(generator.normal()),
            [following],
            (end < 0.1),
            (end > 0.9),
        )
        obs = following


def buffer(capacity):
    fields = {"obs": per.Field((1,)), "action": per.Field((), "int64"), "reward": per.Field()}
    return per.ReplayBuffer(capacity, fields, sampler=per.Uniform(), n_step=3, gamma=0.9, seed=0)


@pytest.mark.parametrize("block", [1, 7, 50])
def test_rows_taken_in_pieces_are_those_of_one_buffer(block):
    whole, windows, taken = buffer(1_000), Windows(buffer(block + 8)), []
    for number, step in enumerate(steps(300)):
        whole.add(*step)
        windows.add(*step)
        if number % block == 0 and (batch := windows.take()) is not None:
            taken.append(windows.columns(batch))
    whole.end_episode()
    windows.end_episode()
    if (batch := windows.take()) is not None:
        taken.append(windows.columns(batch))
    assert windows.take() is None
    everything = whole.get(np.arange(whole.ids_issued))
    assert set(taken[0]) == {"obs", "action", "reward", "discount", "next_obs"}
    for name in taken[0]:
        np.testing.assert_array_equal(np.concatenate([t[name] for t in taken]), everything[name])


def test_first_td_errors_are_those_of_the_actors_network():
    space, actions = gymnasium.spaces.Discrete(6), gymnasium.spaces.Discrete(3)
    values = torch.arange(18, dtype=torch.float32).reshape(6, 3) ** 0.5
    network = nn.Embedding.from_pretrained(values)
    replay = per.ReplayBuffer.for_spaces(space, actions, 10, n_step=2, gamma=0.5, seed=0)
    replay.add(0, 1, 1.0, 4, False)
    replay.add(4, 2, 2.0, 5, False)  # row 0: reward 1 + 0.5 * 2, then 5 at 0.25
    replay.add(5, 0, 7.0, 1, True)  # rows 1 and 2 end in termination
    batch = replay.get([0, 1, 2])
    table = values.numpy()
    expected = [
        2.0 + 0.25 * table[5].max() - table[0, 1],
        2.0 + 0.5 * 7.0 - table[4, 2],
        7.0 - table[5, 0],
    ]
    found = initial_td_errors(network, Conversion(space, actions), batch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def made(env_id="CartPole-v1", epsilon=0.0, **settings):
    sent = []
    config = preset(env_id, actors=2, hidden_sizes=(16,), **settings)
    return Actor(config, epsilon, 5, lambda *row: sent.append(row), 200), sent


@pytest.mark.parametrize("envs", [1, 3])
def test_an_actor_sends_every_row_once_with_its_error(envs):
    actor, sent = made(envs=envs, epsilon=0.5)
    done = [actor.collect(100) for _ in range(4)]
    actor.close()
    assert [report.steps for report in done] == [100 if envs == 1 else 102] * 4
    assert sum(report.rows for report in done) == sum(len(errors) for _, errors in sent)
    # Only the windows of three steps that are open have not been sent.
    missing = sum(report.steps for report in done) - sum(report.rows for report in done)
    assert 0 <= missing <= 2 * envs
    assert all(errors.dtype == np.float32 and np.isfinite(errors).all() for _, errors in sent)
    if envs == 1:
        ended = int(sum(len(report.returns) for report in done))
        assert ended == sum(int((columns["discount"] == 0).sum()) for columns, _ in sent) // 3


def test_an_actor_plays_by_its_parameters_and_its_epsilon():
    actor, sent = made(n_step=1)
    weights = {name: value.numpy().copy() for name, value in actor._network.state_dict().items()}
    head = [name for name in weights if name.endswith("bias")][-1]
    assert weights[head].shape == (2,)
    for best in (0, 1):
        for name in weights:
            weights[name] *= 0.0
        weights[head][best] = 1.0
        actor.update(weights, best)
        assert actor.collect(60).version == best
        columns, errors = sent[-1]
        assert set(columns["action"].tolist()) == {best}
        # r + gamma * 1 - 1, and r - 1 where the episode ended
        np.testing.assert_allclose(errors, columns["discount"], atol=1e-6)
    actor.close()
    curious, sent = made(epsilon=1.0, n_step=1)
    curious.update(weights, 0)
    curious.collect(200)
    curious.close()
    # 200 fair coins are within 70 of each side with all but 1e-4
    assert 70 <= int(sent[-1][0]["action"].sum()) <= 130


def test_td_errors_are_clipped_where_the_learner_clips_them():
    actor, sent = made(clip_td_errors=True, n_step=5)
    actor.collect(100)
    actor.close()
    assert np.abs(sent[-1][1]).max() == 1.0  # five rewards of 1


def test_what_an_actor_did_is_counted_between_reports():
    pace = Pace()
    assert math.isnan(pace.steps_per_second)
    assert math.isnan(pace.mean_return)
    actor, _ = made()
    first = actor.collect(100)
    actor.close()
    pace.count(dataclasses.replace(first, seconds=0.5, returns=(3.0, 5.0), version=10), 30)
    pace.count(dataclasses.replace(first, seconds=0.5, returns=(), version=20), 80)
    assert (pace.steps_per_second, pace.mean_return, pace.parameter_age) == (200.0, 4.0, 40.0)
    pace.clear()
    assert math.isnan(pace.parameter_age)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shards": 2}, "shards must be 1 without actors, got 2"),
        ({"actors": 1, "shards": 0}, "shards must be >= 1, got 0"),
        ({"actors": -1}, "actors must be >= 0, got -1"),
        (
            {"actors": 1, "shards": 9, "capacity": 8, "warmup": 1},
            r"shards must be <= capacity \(8\), got 9",
        ),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        TrainConfig(env_id="CartPole-v1", **settings)


def test_a_training_in_one_process_has_no_actors():
    with pytest.raises(ValueError, match=r"^actors must be 0 for a training in one process, got 2"):
        Training(preset("CartPole-v1", actors=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"actors": 2, "epsilon_start": 0.5},
            "epsilon_start must be left out with --actors, each of which has an epsilon of its own",
        ),
        ({"actors": 2, "epsilon_fraction": 0.5}, "epsilon_fraction must be left out"),
        ({"actors": 2, "epsilon_end": 0.5}, "epsilon_end must be left out"),
        ({"ray_address": "10.0.0.1:6379"}, "ray_address is for runs with --actors, got 10.0.0.1"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    values = dataclasses.asdict(preset("CartPole-v1")) | options
    with pytest.raises(ValueError, match=f"^{message}"):
        TrainOptions(**values).config()


def test_the_settings_of_a_preset_go_with_actors():
    values = dataclasses.asdict(preset("CartPole-v1")) | {"actors": 3, "shards": 2}
    config = TrainOptions(**values).config()
    assert (config.actors, config.shards) == (3, 2)
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_without_ray_one_line_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "prioritized_replay.apex.cluster.find_spec",
        lambda name: None if name == "ray" else found(name),
    )
    assert main(["train", "CartPole-v1", "--actors", "2"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("per train: actors needs ray, not installed here: pip install ")
    assert error.count("\n") == 1
    assert "[ray]" in error
    assert not list(tmp_path.iterdir())


def report(step, speed=100.0):
    actors = tuple(ActorReport(n, 0.4, step, speed, math.nan, 25.0, n) for n in range(2))
    numbers = dict.fromkeys(("mean_return", "last_return", "epsilon", "beta"), 0.0)
    more = ("learning_rate", "loss", "td_error", "effective_sample_size", "steps_per_second")
    return Progress(
        step=step, steps=100, updates=0, episodes=0, **numbers, **dict.fromkeys(more, 0.0),
        workers=Workers(actors, (ShardReport(0, step, 1.5, 7),)),
    )  # fmt: skip


def test_a_line_for_each_actor_and_shard_is_written(tmp_path):
    metrics = WorkerMetrics(tmp_path)
    for step in (10, 20, 30):
        metrics.log(report(step))
    metrics.close()
    with (tmp_path / "actors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["actor"], row["replaced"]) for row in rows] == [
        (str(step), str(n), str(n)) for step in (10, 20, 30) for n in range(2)
    ]
    assert rows[0]["mean_return"] == ""
    assert rows[0]["steps_per_second"] == "100"
    with (tmp_path / "shards.csv").open("a") as file:
        file.write("40,half a li")
    again = WorkerMetrics(tmp_path)
    again.resume_from(20)
    again.log(report(25))
    again.close()
    lines = (tmp_path / "shards.csv").read_text().splitlines()
    assert lines == [",".join(columns_of("shards.csv")), "10,0,10,1.5,7", "20,0,20,1.5,7",
                     "25,0,25,1.5,7"]  # fmt: skip
    assert (tmp_path / "actors.csv").read_text().splitlines()[-1].startswith("25,1,")
