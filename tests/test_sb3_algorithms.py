"""Stable-Baselines3's DQN, SAC and TD3 with our buffer: weights arrive, errors come back."""

import hashlib
import subprocess
import sys
from copy import deepcopy

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import prioritized_replay as per

pytest.importorskip("stable_baselines3")

import torch
from stable_baselines3 import DQN, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch.nn import functional

from prioritized_replay.integrations.stable_baselines3 import (
    PrioritizedDQN,
    PrioritizedReplayBuffer,
    PrioritizedSAC,
    PrioritizedTD3,
    ReplayProgress,
)

ALL = [
    (DQN, PrioritizedDQN, "CartPole-v1"),
    (SAC, PrioritizedSAC, "Pendulum-v1"),
    (TD3, PrioritizedTD3, "Pendulum-v1"),
]
each = pytest.mark.parametrize(("plain", "prioritized", "env"), ALL, ids=["DQN", "SAC", "TD3"])
BATCH = 16
OPTIONS = {
    "buffer_size": 500,
    "learning_starts": 20,
    "batch_size": BATCH,
    "train_freq": 1,
    "policy_kwargs": {"net_arch": [8]},
    "device": "cpu",
    "seed": 0,
}


def made(kind, env, policy="MlpPolicy", **options):
    return kind(policy, env, **deepcopy(OPTIONS) | options)


def filled(kind, env, steps=60, **options):
    """A model that has played and not yet trained."""
    return made(kind, env, learning_starts=10_000, **options).learn(steps)


def numbers(model):
    return torch.cat([p.detach().reshape(-1) for p in model.policy.parameters()])


def masses(model):
    replay = model.replay_buffer.replay
    return replay.priorities(np.arange(replay.ids_issued - len(replay), replay.ids_issued))


def as_theirs(samples):
    fields = [getattr(samples, name) for name in ReplayBufferSamples._fields]
    return ReplayBufferSamples(
        *(x if x is None else x.as_subclass(torch.Tensor).clone() for x in fields)
    )


@each
@pytest.mark.parametrize("sampler", [per.Uniform(), per.Proportional(alpha=0.0)], ids=repr)
def test_with_weights_of_1_networks_equal_theirs_after_200_updates(
    plain, prioritized, env, sampler
):
    ours = filled(prioritized, env, replay_buffer_kwargs={"sampler": sampler})
    theirs = filled(plain, env)
    torch.testing.assert_close(numbers(ours), numbers(theirs), rtol=0, atol=0)
    batches, draw = [], ours.replay_buffer.sample

    def recorded(*args, **kwargs):
        batches.append(draw(*args, **kwargs))
        assert torch.all(batches[-1].weights == 1)
        return batches[-1]

    ours.replay_buffer.sample = recorded
    torch.manual_seed(1)
    ours.train(200, BATCH)
    fed = iter([as_theirs(batch) for batch in batches])
    theirs.replay_buffer.sample = lambda *args, **kwargs: next(fed)
    torch.manual_seed(1)
    theirs.train(200, BATCH)
    away = torch.linalg.norm(numbers(ours) - numbers(theirs))
    assert away <= 1e-5 * torch.linalg.norm(numbers(theirs))
    assert next(fed, None) is None


def hand_computed(model, batch, seed):
    """Values of each critic, and targets, by the formulas of the algorithms' papers."""
    torch.manual_seed(seed)
    reward = batch.rewards.as_subclass(torch.Tensor)
    discount = model.gamma if batch.discounts is None else batch.discounts
    if isinstance(model, DQN):
        following = model.q_net_target(batch.next_observations).max(dim=1, keepdim=True).values
        values = [model.q_net(batch.observations).gather(1, batch.actions.long())]
    else:
        if isinstance(model, SAC):
            model.actor.action_log_prob(batch.observations)  # it takes its random numbers first
            actions, logarithm = model.actor.action_log_prob(batch.next_observations)
            entropy = torch.exp(model.log_ent_coef.detach()) * logarithm.reshape(-1, 1)
        else:
            noise = torch.empty_like(batch.actions).normal_(0, model.target_policy_noise)
            noise = noise.clamp(-model.target_noise_clip, model.target_noise_clip)
            actions = (model.actor_target(batch.next_observations) + noise).clamp(-1, 1)
            entropy = 0
        both = model.critic_target(batch.next_observations, actions)
        following = torch.minimum(*both) - entropy
        values = list(model.critic(batch.observations, batch.actions))
    return values, (reward + (1 - batch.dones) * discount * following).detach()


@each
@pytest.mark.parametrize("n_steps", [1, 3])
def test_loss_gradient_and_errors_equal_those_computed_by_hand(plain, prioritized, env, n_steps):
    options = {"max_grad_norm": 1e9} if plain is DQN else {}
    if plain is TD3:
        options["policy_delay"] = 10  # the critic alone
    model = filled(
        prioritized, env, steps=100, n_steps=n_steps, learning_rate=1e-2,
        replay_buffer_kwargs={"sampler": per.Proportional(alpha=1.0), "beta": 0.7},
        policy_kwargs={"net_arch": [8], "optimizer_class": torch.optim.SGD}, **options,
    )  # fmt: skip
    replay = model.replay_buffer.replay
    ids = np.arange(replay.ids_issued)
    replay.update_priorities(ids, 1.0 + ids % 7)  # so that weights differ
    drawn, draw = [], model.replay_buffer.sample
    model.replay_buffer.sample = lambda *args, **kwargs: (
        drawn.append(draw(*args, **kwargs)) or (drawn[-1])
    )
    before = deepcopy(model.policy)
    entropy = deepcopy(getattr(model, "log_ent_coef", None))
    torch.manual_seed(3)
    model.train(1, BATCH)
    after, model.policy = model.policy, before
    model._create_aliases()
    model.log_ent_coef = entropy
    (batch,) = drawn
    weights = batch.weights
    assert len(np.unique(weights.numpy())) > 3
    values, target = hand_computed(model, batch, 3)
    if plain is DQN:
        rows = functional.smooth_l1_loss(values[0], target, reduction="none")
        name, network = "train/loss", "q_net"
    else:
        half = 0.5 if plain is SAC else 1.0
        rows = half * sum((value - target) ** 2 for value in values)
        name, network = "train/critic_loss", "critic"
    loss = (weights * rows).mean()
    assert model.logger.name_to_value[name] == pytest.approx(loss.item(), rel=1e-5)
    own = getattr(before, network)
    gradients = torch.autograd.grad(loss, list(own.parameters()))
    for old, gradient, new in zip(
        own.parameters(), gradients, getattr(after, network).parameters(), strict=True
    ):
        torch.testing.assert_close(new, old - 1e-2 * gradient, rtol=1e-4, atol=1e-6)
    errors = torch.stack([(target - value).abs() for value in values]).amax(0)[:, 0]
    np.testing.assert_allclose(
        model.replay_buffer.last_draw.errors, errors.detach(), rtol=1e-5, atol=1e-6
    )
    kept = dict(zip(batch.ids.tolist(), errors.tolist(), strict=True))  # the last of duplicates
    np.testing.assert_allclose(
        replay.priorities(list(kept)), np.array(list(kept.values())) + 0.01, rtol=1e-5, atol=1e-6
    )


@each
def test_one_argument_in_their_class_does_the_same(plain, prioritized, env):
    options = {"replay_buffer_kwargs": {"beta": 0.5}}
    ours = made(prioritized, env, **options).learn(60)
    theirs = made(plain, env, replay_buffer_class=PrioritizedReplayBuffer, **options).learn(60)
    assert ours.replay_buffer.last_draw.errors is not None
    assert torch.equal(numbers(ours), numbers(theirs))
    assert np.array_equal(masses(ours), masses(theirs))
    uniform = made(plain, env).learn(60)
    assert not torch.equal(numbers(ours), numbers(uniform))


@each
def test_several_environments_several_updates_and_steps(plain, prioritized, env):
    envs = make_vec_env(env, n_envs=2, seed=0)
    model = made(prioritized, envs, gradient_steps=2, n_steps=3)
    model.learn(80)
    assert model.replay_buffer.n_steps == model.n_steps == 3
    assert model.replay_buffer.gamma == model.gamma
    assert len(np.unique(masses(model))) > 20
    assert model._n_updates == 2 * (40 - 10)


class Pairs(gymnasium.Env):
    """Dict observations, continuous or discrete actions, an end now and then."""

    observation_space = spaces.Dict(
        {"at": spaces.Box(-1, 1, (3,), np.float32), "of": spaces.Discrete(4)}
    )

    def __init__(self, discrete):
        self.action_space = spaces.Discrete(2) if discrete else spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action):
        end = self.np_random.random() < 0.1
        return self._seen(), float(self.np_random.normal()), end, False, {}

    def _seen(self):
        self.observation_space.seed(int(self.np_random.integers(1000)))
        return self.observation_space.sample()


@each
def test_dict_observations(plain, prioritized, env):
    model = made(prioritized, Pairs(plain is DQN), "MultiInputPolicy", n_steps=2).learn(60)
    assert len(np.unique(masses(model))) > 10
    assert torch.isfinite(numbers(model)).all()


@each
def test_normalized_environments(plain, prioritized, env):
    envs = VecNormalize(make_vec_env(env, seed=0))
    model = made(prioritized, envs, replay_buffer_kwargs={"beta": 0.5}).learn(60)
    drawn = model.replay_buffer.sample(BATCH, env=envs)
    stored = model.replay_buffer.replay.get(drawn.ids)
    np.testing.assert_allclose(drawn.observations, envs.normalize_obs(stored.obs), rtol=1e-5)
    np.testing.assert_allclose(
        drawn.rewards[:, 0].numpy(), envs.normalize_reward(stored.reward), rtol=1e-5
    )
    assert len(np.unique(masses(model))) > 10


class Watch(BaseCallback):
    """Notes beta, and what else is asked for, at every step."""

    def __init__(self, note):
        super().__init__()
        self.note, self.noted = note, []

    def _on_step(self):
        self.noted.append(self.note(self.model))
        return True


def test_beta_goes_from_4_tenths_to_1_over_the_training():
    model = made(PrioritizedDQN, "CartPole-v1")
    asked, draw = [], model.replay_buffer.replay.sample
    model.replay_buffer.replay.sample = lambda size, beta: asked.append(beta) or draw(size, beta)
    model.learn(60)
    np.testing.assert_allclose(asked, 0.4 + 0.6 * np.arange(21, 61) / 60)


def test_a_schedule_of_beta_follows_the_algorithm_that_made_the_buffer():
    options = {
        "replay_buffer_class": PrioritizedReplayBuffer,
        "replay_buffer_kwargs": {"beta": per.linear(1.0, 0.4, 1.0)},
    }
    wanted = numbers(made(PrioritizedDQN, "CartPole-v1").learn(30))
    assert torch.equal(numbers(made(DQN, "CartPole-v1", **options).learn(30)), wanted)
    told = made(DQN, "CartPole-v1", **options).learn(30, callback=ReplayProgress())
    assert torch.equal(numbers(told), wanted)


def test_a_schedule_of_beta_is_refused_where_nobody_tells_the_progress():
    def with_own_buffer():
        model = made(DQN, "CartPole-v1", replay_buffer_class=PrioritizedReplayBuffer)
        spaces_of = model.observation_space, model.action_space
        beta = per.linear(1.0, 0.4, 1.0)
        model.replay_buffer = PrioritizedReplayBuffer(500, *spaces_of, beta=beta, seed=0)
        return model

    with pytest.raises(RuntimeError, match=r"ReplayProgress\(\), set progress_remaining"):
        with_own_buffer().learn(30)
    told = with_own_buffer().learn(30, callback=ReplayProgress())
    assert told.replay_buffer.progress_remaining == 0.0


def test_callbacks_evaluate_and_save_model_and_replay(tmp_path):
    model = made(PrioritizedDQN, "CartPole-v1")
    keep = CheckpointCallback(25, str(tmp_path), save_replay_buffer=True)
    judge = EvalCallback(make_vec_env("CartPole-v1"), eval_freq=25, n_eval_episodes=1, verbose=0)
    model.learn(50, callback=[keep, judge])
    assert judge.evaluations_timesteps or judge.last_mean_reward > 0
    (folder,) = tmp_path.glob("*replay_buffer_50_steps*")
    assert folder.is_dir()
    again = made(PrioritizedDQN, "CartPole-v1")
    again.load_replay_buffer(folder)
    assert again.replay_buffer.size() == 49  # the callback is asked before the step is stored


RESUMED = """
import gymnasium, hashlib, sys
import numpy as np
from prioritized_replay.integrations import stable_baselines3 as ours
kind, env, folder = sys.argv[1:]
model = getattr(ours, kind).load(folder + "/model", gymnasium.make(env))
model.load_replay_buffer(folder + "/replay")
before = model.num_timesteps
model.learn(40, reset_num_timesteps=False)
assert model.num_timesteps == before + 40 and model.replay_buffer.size() == before + 40
replay = model.replay_buffer.replay
state = [p.detach().numpy() for p in model.policy.parameters()]
state.append(replay.priorities(np.arange(replay.ids_issued)))
print(hashlib.sha256(b"".join(x.tobytes() for x in state)).hexdigest())
"""


@pytest.mark.slow
@each
def test_a_new_process_goes_on_and_two_of_them_agree_bit_for_bit(plain, prioritized, env, tmp_path):
    model = made(prioritized, env).learn(60)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    words = [sys.executable, "-c", RESUMED, prioritized.__name__, env, str(tmp_path)]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate()[0] for process in started)
    assert [process.returncode for process in started] == [0, 0]
    assert first == second
    assert len(first.strip()) == len(hashlib.sha256().hexdigest())


@pytest.mark.parametrize(
    ("kind", "updates", "options"),
    [
        (PrioritizedDQN, 0, {}),
        (PrioritizedDQN, 5, {"n_steps": 3}),
        (DQN, 5, {"replay_buffer_class": PrioritizedReplayBuffer}),
    ],
)
def test_an_interrupted_training_goes_on(kind, updates, options):
    model = made(kind, "CartPole-v1", **options)
    forward = model.q_net.forward

    def interrupted(observations):
        draw = model.replay_buffer.last_draw
        if draw is not None and draw.used and not draw.answered and model._n_updates >= updates:
            raise KeyboardInterrupt  # between the target and the loss
        return forward(observations)

    model.q_net.forward = interrupted
    with pytest.raises(KeyboardInterrupt):
        model.learn(60)
    model.q_net.forward = forward
    steps = model.num_timesteps
    assert steps == 21 + updates
    model.learn(40, reset_num_timesteps=False)
    assert model.num_timesteps == steps + 40
    assert len(np.unique(masses(model))) > 10


class Still(gymnasium.Env):
    """Every observation is the same: nobody can see from them that an episode was broken off."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, False, {}


def test_a_training_begun_anew_closes_windows_of_the_one_before():
    model = made(PrioritizedDQN, Still(), n_steps=3, learning_starts=1000)
    model.learn(4).learn(4)
    rows = model.replay_buffer.replay.get(np.arange(4))
    # of four steps in one episode, the last windows have only what was left of it
    assert rows.discount == pytest.approx([0.99**m for m in (3, 3, 2, 1)])
    model.learn(4, reset_num_timesteps=False)
    assert model.replay_buffer.replay.get([4, 5, 6, 7]).discount == pytest.approx([0.99**3] * 4)


@pytest.mark.parametrize("kind", [DQN, PrioritizedDQN])
def test_a_policy_or_space_that_does_not_fit_is_named(kind):
    more = {} if kind is PrioritizedDQN else {"replay_buffer_class": PrioritizedReplayBuffer}
    with pytest.raises(AssertionError, match="NatureCNN only with images"):
        made(kind, "CartPole-v1", "CnnPolicy", policy_kwargs=None, **more)
    with pytest.raises(AssertionError, match=r"only supports .*Discrete.* as action spaces but"):
        made(kind, "Pendulum-v1", **more)
    with pytest.raises(ValueError, match="MultiInputPolicy"):
        made(kind, Pairs(True), **more)
    with pytest.raises(AssertionError, match=r"only supports .*Box.* as action spaces but"):
        made(PrioritizedSAC, "CartPole-v1")


def test_options_that_contradict_each_other_are_named():
    def refused(message, **options):
        with pytest.raises(ValueError, match=message):
            made(PrioritizedDQN, "CartPole-v1", **options)

    refused("replay_buffer_class must be PrioritizedReplayBuffer or a subclass of it, got "
            "HerReplayBuffer", replay_buffer_class=HerReplayBuffer)  # fmt: skip
    refused("n_steps in replay_buffer_kwargs must be that of the algorithm, 3, got 2",
            n_steps=3, replay_buffer_kwargs={"n_steps": 2})  # fmt: skip
    refused(r"gamma in replay_buffer_kwargs must be that of the algorithm, 0.9, got 0.99",
            gamma=0.9, replay_buffer_kwargs={"gamma": 0.99})  # fmt: skip
    given = {"n_steps": 3}
    model = made(PrioritizedDQN, "CartPole-v1", replay_buffer_kwargs=given)
    assert model.n_steps == model.replay_buffer.n_steps == 3
    assert given == {"n_steps": 3}


class OtherLoss(DQN):
    """A DQN whose loss is its own affair."""

    def loss(self, batch, target):
        raise NotImplementedError

    def train(self, gradient_steps, batch_size=BATCH):
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            loss = self.loss(batch)
            self.policy.optimizer.zero_grad()
            loss.backward()
            self.policy.optimizer.step()

    def value(self, batch):
        return self.q_net(batch.observations).gather(1, batch.actions.long())


class Squares(OtherLoss):
    def loss(self, batch):
        return ((batch.rewards - self.value(batch)) ** 2).mean()


class Quantiles(OtherLoss):
    def loss(self, batch):
        with torch.no_grad():
            target = batch.rewards + self.q_net_target(batch.next_observations)
        return (target.unsqueeze(-2) - self.value(batch).unsqueeze(-1)).abs().mean()


class ThroughNumpy(OtherLoss):
    def loss(self, batch):
        target = torch.as_tensor(batch.rewards.numpy() + 1)
        return functional.mse_loss(self.value(batch), target)


class Broadcast(OtherLoss):
    def loss(self, batch):
        return functional.mse_loss(self.value(batch)[:, 0], batch.rewards)


class OneByOne(OtherLoss):
    """Weighted by the algorithm: with the buffer's weights as well it would be twice."""

    def loss(self, batch):
        losses = functional.mse_loss(self.value(batch), batch.rewards, reduction="none")
        return (batch.weights * losses).mean()


class Weighted(OtherLoss):
    """The algorithm does it itself."""

    def loss(self, batch):
        errors = batch.rewards - self.value(batch)
        assert type(errors) is torch.Tensor
        self.replay_buffer.update_priorities(batch.ids, errors)
        return (batch.weights * errors**2).mean()


@pytest.mark.parametrize("kind", [Squares, Quantiles, ThroughNumpy, Broadcast, OneByOne])
def test_an_algorithm_whose_loss_cannot_be_seen_is_refused(kind):
    model = made(kind, "CartPole-v1", replay_buffer_class=PrioritizedReplayBuffer)
    with pytest.raises(RuntimeError, match=r"replay_buffer_kwargs=dict\(weigh_losses=False\)"):
        model.learn(40)
    # at the first loss, or, if it is out of sight, at the second draw
    assert model.num_timesteps == (22 if kind is ThroughNumpy else 21)
    uniform = {"sampler": per.Uniform()}  # weights are 1, so there is nothing to miss
    if kind is not Broadcast:
        made(kind, "CartPole-v1", replay_buffer_class=PrioritizedReplayBuffer,
             replay_buffer_kwargs=uniform).learn(40)  # fmt: skip


def test_an_algorithm_may_use_weights_and_give_errors_itself():
    model = made(Weighted, "CartPole-v1", replay_buffer_class=PrioritizedReplayBuffer,
                 replay_buffer_kwargs={"weigh_losses": False}).learn(40)  # fmt: skip
    assert len(np.unique(masses(model))) > 5


def test_looking_at_batches_is_no_training():
    model = made(DQN, "CartPole-v1", replay_buffer_class=PrioritizedReplayBuffer,
                 learning_starts=25)  # fmt: skip
    model.learn(20)
    for _ in range(3):
        batch = model.replay_buffer.sample(4)
        assert str(batch.rewards)
        assert batch.rewards.shape == batch.weights.shape == (4, 1)
    model.learn(20, reset_num_timesteps=False)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", ["mse_loss", "smooth_l1_loss", "huber_loss"])
@pytest.mark.parametrize("learnt", ["input", "target", "both"])
def test_every_reduction_of_every_loss_is_weighted(learnt, loss, reduction):
    """Of these losses either argument may be the target: some write ``loss(target, value)``."""
    model = filled(PrioritizedDQN, "CartPole-v1")
    replay = model.replay_buffer.replay
    replay.update_priorities(np.arange(30), np.arange(30.0))
    batch = model.replay_buffer.sample(BATCH)
    value = torch.linspace(-3, 3, BATCH)[:, None].requires_grad_()
    other = torch.linspace(1, 2, BATCH)[:, None].requires_grad_()
    rewards = batch.rewards.as_subclass(torch.Tensor)
    function = getattr(functional, loss)

    def both(target):
        with_target = (value, target * 2) if learnt == "input" else (target * 2, value)
        if learnt == "both":  # two critics, one each way round
            return [(value, target * 2), (target * 2, other)]
        return [with_target]

    seen = sum(function(*pair, reduction=reduction) for pair in both(batch.rewards))
    rows = sum(batch.weights * function(*pair, reduction="none") for pair in both(rewards))
    wanted = getattr(rows, reduction)()
    assert type(seen) is torch.Tensor
    torch.testing.assert_close(seen, wanted)
    leaves = [value, other] if learnt == "both" else [value]
    torch.testing.assert_close(
        torch.autograd.grad(seen, leaves), torch.autograd.grad(wanted, leaves)
    )


def test_a_loss_of_two_values_that_are_learnt_reaches_both():
    model = filled(PrioritizedDQN, "CartPole-v1")
    batch = model.replay_buffer.sample(BATCH)
    draw = model.replay_buffer.last_draw
    first, second = (torch.randn(BATCH, 1, requires_grad=True) for _ in range(2))
    draw.loss(functional.mse_loss, first, second).backward()
    assert torch.equal(first.grad, -second.grad)
    assert first.grad.abs().min() > 0
    assert batch.weights.shape == (BATCH, 1)


@each
def test_a_model_is_loaded_with_another_discount(plain, prioritized, env, tmp_path):
    made(prioritized, env, n_steps=2, gamma=0.9, replay_buffer_kwargs={"beta": 0.5}).save(
        tmp_path / "model"
    )
    again = prioritized.load(tmp_path / "model", env=gymnasium.make(env), gamma=0.7, n_steps=3)
    buffer = again.replay_buffer
    assert (again.gamma, again.n_steps, buffer.gamma, buffer.n_steps) == (0.7, 3, 0.7, 3)
    assert buffer.beta == 0.5
    assert again.replay_buffer_kwargs == {"beta": 0.5}


@each
def test_in_the_plain_classes_returns_have_the_discount_of_the_algorithm(plain, prioritized, env):
    options = {"replay_buffer_class": PrioritizedReplayBuffer, "gamma": 0.5}
    model = filled(plain, env, steps=20, replay_buffer_kwargs={"n_steps": 3}, **options)
    assert model.replay_buffer.gamma == model.replay_buffer.replay.gamma == 0.5
    assert model.replay_buffer.replay.get([0]).discount[0] in (np.float32(0.125), 0.0)

    class Own(PrioritizedReplayBuffer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, n_steps=2, **kwargs)

    assert made(plain, env, **options | {"replay_buffer_class": Own}).replay_buffer.gamma == 0.5
    with pytest.raises(ValueError, match=r"gamma .* of the algorithm, 0\.5, got 0\.9"):
        made(plain, env, replay_buffer_kwargs={"n_steps": 3, "gamma": 0.9}, **options)


@each
@pytest.mark.filterwarnings("ignore:`n_steps=3` is ignored")
def test_in_the_plain_classes_steps_are_not_ignored(plain, prioritized, env):
    options = {"replay_buffer_class": PrioritizedReplayBuffer, "n_steps": 3}
    with pytest.raises(ValueError, match=r"n_steps .* must be that of the algorithm, 3, got 1"):
        made(plain, env, **options)
    model = made(plain, env, replay_buffer_kwargs={"n_steps": 3}, **options)
    assert model.replay_buffer.n_steps == 3
