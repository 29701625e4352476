"""The benchmark of training: what it measures is what it says."""

import dataclasses
import json
from importlib.util import find_spec

import pytest
import torch
from torch import nn

import prioritized_replay as per
from benchmarks import training


@pytest.mark.slow
def test_every_run_is_there_and_plain():
    measured = training.measure_training((3,), steps=1_100, episodes=2)

    assert json.loads(json.dumps(measured)) == measured
    contenders = {"rank", "proportional", "uniform"}
    contenders |= {name for name, module in training._PEERS.items() if find_spec(module)}
    assert {(run["contender"], run["seed"]) for run in measured["runs"]} == {
        (contender, 3) for contender in contenders
    }
    for run in measured["runs"]:
        assert run["steps_per_second"] == pytest.approx(1_100 / run["seconds"])
        assert run["cpu_seconds"] > 0
        assert 1.0 <= run["score"] <= 500.0
        assert 8.0 <= run["training_return"] <= 500.0
        summary = measured["summary"][run["contender"]]
        assert summary["steps_per_second"] == run["steps_per_second"]
        assert (summary["times_sb3"] is None) == ("stable-baselines3" not in contenders)
    assert measured["settings"]["hidden_sizes"] == [256, 256]
    assert measured["settings"]["steps"] == 1_100


@pytest.mark.slow
def test_ours_makes_the_updates_of_the_schedule():
    network, _ = training._make_ours("uniform", training.CONFIG)
    assert [layer.out_features for layer in network.modules() if isinstance(layer, nn.Linear)] == [
        256, 256, 2,
    ]  # fmt: skip
    # 128 at each multiple of 256 steps once 1000 transitions are there
    assert training.CONFIG.total_updates == 128 * (50_176 // 256 - 999 // 256)


def test_told_50_000_steps_a_peer_makes_as_many_as_ours():
    rounds = -(-50_000 // training.CONFIG.train_every)  # it ends with a whole one
    assert training.CONFIG.steps == rounds * training.CONFIG.train_every


def flat(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.slow
def test_stable_baselines3_makes_the_same_network_of_the_same_batches():
    pytest.importorskip("stable_baselines3")
    config = dataclasses.replace(training.CONFIG, steps=1_280, seed=3)
    network, train = training._make_peer("stable-baselines3", config)
    model = network._model
    agent = training.Training(dataclasses.replace(config, replay="uniform")).agent
    for own in (agent.online_network, agent.target_network):
        first = zip(own.state_dict(), model.q_net.parameters(), strict=True)
        own.load_state_dict(dict(first))
    drawn, sample = [], model.replay_buffer.sample

    def keeping(*arguments, **settings):
        drawn.append(sample(*arguments, **settings))
        return drawn[-1]

    model.replay_buffer.sample = keeping
    first = flat(model.q_net)
    train()
    after = {}
    for data in drawn:
        columns = {
            "obs": data.observations, "action": data.actions[:, 0],
            "reward": data.rewards[:, 0], "discount": 0.99 * (1.0 - data.dones[:, 0]),
            "next_obs": data.next_observations, "weights": torch.ones(len(data.rewards)),
        }  # fmt: skip
        agent.learn(per.Batch(columns))
        after[agent.updates] = flat(agent.online_network)

    assert agent.updates == model._n_updates == config.total_updates == 256
    theirs = flat(model.q_net)
    assert (theirs - first).norm() > 0.1 * first.norm()
    # float32, and Adam makes a whole step of the smallest difference in a gradient near 0
    assert (after[256] - theirs).norm() < 1e-5 * theirs.norm()
    # the second round was made with the copy from between the two
    assert (after[128] - flat(model.q_net_target)).norm() < 1e-5 * theirs.norm()


def test_target_is_copied_once_for_each_round_of_updates():
    assert training.CONFIG.target_period == training.CONFIG.updates_per_train
    assert training.CONFIG.tau is None
    # the peers' copy comes at least once between two rounds
    assert training.CONFIG.train_every >= training._PEER_TARGET_INTERVAL


def test_a_peers_choice_becomes_the_action_of_the_highest_value():
    class Model:
        class action_space:
            n = 3

        def predict(self, obs, *, deterministic):
            assert deterministic
            return obs[:, 0].astype("int64"), None

    values = training._Chooser(Model())(torch.tensor([[2.0], [0.0]]))

    assert values.argmax(dim=1).tolist() == [2, 0]


def test_no_seed_is_refused():
    with pytest.raises(ValueError, match=r"^seeds must be one or more, got "):
        training.measure_training(())


def test_means_medians_and_ratios_are_taken_seed_by_seed():
    def run(contender, seconds, score, training_return):
        return {
            "contender": contender, "seconds": seconds, "cpu_seconds": 2.0 * seconds,
            "steps_per_second": 60.0 / seconds, "score": score,
            "training_return": training_return,
        }  # fmt: skip

    runs = []
    for ours, theirs in ((1.0, 4.0), (2.0, 6.0), (3.0, 6.0)):
        runs += [
            run("rank", ours, 100.0 * ours**2, 10.0 * ours if ours > 1.0 else None),
            run("stable-baselines3", theirs, 0.0, None),
        ]

    summary = training._summary(runs, "rank")
    assert summary.pop("score") == pytest.approx((100.0 + 400.0 + 900.0) / 3)  # the mean
    assert summary == {
        "steps_per_second": 30.0, "training_return": 25.0, "times_sb3": 3.0, "times_sb3_cpu": 3.0,
    }  # fmt: skip
    assert training._summary(runs, "stable-baselines3")["training_return"] is None
    assert training._summary(runs[::2], "rank")["times_sb3"] is None
