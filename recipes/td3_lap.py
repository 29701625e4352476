"""TD3 with loss-adjusted prioritized replay (LAP), for continuous actions, in one file.

    python recipes/td3_lap.py --env-id HalfCheetah-v5 --steps 100000 --seed 1

Fujimoto et al. 2018, arXiv 1802.09477: two critics, a policy that moves at every second update
only, and noise on the target's actions. Fujimoto et al. 2020, arXiv 2007.06049: which transitions
to replay, and a loss that needs no importance weights. With ``--sampler uniform`` it is TD3.
Read it from top to bottom: options, networks, one update, evaluation, the loop.
"""

from __future__ import annotations

import copy
import csv
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
import tyro
from gymnasium.wrappers import RescaleAction
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

import prioritized_replay as per


@dataclass(frozen=True, kw_only=True)
class Config:
    """Train TD3 with loss-adjusted prioritized replay."""

    env_id: str = "HalfCheetah-v5"
    """Gymnasium environment with vectors as observations and as actions."""
    steps: int = 100_000
    """Steps in the environment; after the warm-up, each is followed by one update."""
    seed: int = 1
    """Of networks, exploration, environment and replay."""
    sampler: Literal["lap", "uniform"] = "lap"
    """How transitions are drawn: loss-adjusted priorities, or all alike (plain TD3)."""
    csv: Path | None = None
    """File for the evaluations: step,return."""
    evaluate_every: int = 5_000
    """Steps between evaluations, of 10 episodes each."""
    threads: int = 1
    """Threads of torch."""

    warmup: int = 5_000
    """First steps, with random actions and no updates."""
    capacity: int = 1_000_000
    """Transitions kept."""
    hidden_size: int = 256
    """Units of each of the two hidden layers."""
    batch_size: int = 256
    """Transitions in an update."""
    gamma: float = 0.99
    """Discount of one step."""
    tau: float = 0.005
    """How far the target networks move toward the networks in an update of the policy."""
    learning_rate: float = 3e-4
    """Of Adam, for all networks."""
    exploration_noise: float = 0.1
    """Standard deviation of the noise on actions in the environment."""
    target_noise: float = 0.2
    """Standard deviation of the noise on the target policy's actions."""
    target_noise_clip: float = 0.5
    """Largest such noise."""
    policy_period: int = 2
    """Updates of the critics for one of the policy and of the targets."""
    alpha: float = 0.4
    """How much prioritization."""


class Actor(nn.Module):
    """The policy: one action for each observation, in (-1, 1)."""

    def __init__(self, observation_size: int, action_size: int, hidden_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(observation_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, action_size),
            nn.Tanh(),
        )

    def forward(self, obs: Tensor) -> Tensor:
        """Return actions, float32[..., action_size]."""
        action: Tensor = self.layers(obs)
        return action


class Critics(nn.Module):
    """Two action values side by side: every layer has a leading axis of 2."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        sizes = (input_size, hidden_size, hidden_size, 1)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            bound = 1.0 / math.sqrt(inputs)
            weight, bias = torch.empty(2, inputs, outputs), torch.empty(2, 1, outputs)
            self.weights.append(nn.Parameter(weight.uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(bias.uniform_(-bound, bound)))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the values, float32[2, B]."""
        x = torch.cat((obs, action), dim=1).expand(2, -1, -1)
        first, second, last = zip(self.biases, self.weights, strict=True)
        x = torch.baddbmm(first[0], x, first[1]).relu()
        x = torch.baddbmm(second[0], x, second[1]).relu()
        return torch.baddbmm(last[0], x, last[1]).squeeze(2)


class Agent:
    """Networks and optimizers, and how one batch changes them."""

    def __init__(self, observation_size: int, action_size: int, config: Config) -> None:
        self.config = config
        self.updates = 0
        self.actor = Actor(observation_size, action_size, config.hidden_size)
        self.critics = Critics(observation_size + action_size, config.hidden_size)
        self.networks = nn.ModuleList((self.actor, self.critics))
        self.target_actor, self.target_critics = copy.deepcopy((self.actor, self.critics))
        self.targets = nn.ModuleList((self.target_actor, self.target_critics))
        rate = config.learning_rate
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=rate, fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=rate, fused=True)

    @torch.no_grad()
    def act(self, obs: np.ndarray[Any, Any], *, explore: bool) -> np.ndarray[Any, Any]:
        """Return an action in [-1, 1]."""
        action: Tensor = self.actor(torch.from_numpy(obs).float())
        if explore:
            noise = self.config.exploration_noise * torch.randn_like(action)
            action = (action + noise).clamp(-1.0, 1.0)
        return action.numpy()

    def update(self, batch: per.Batch[Tensor]) -> Tensor:
        """Make one update, and return the TD errors, float32[B]: the larger of both critics'."""
        config = self.config
        with torch.no_grad():
            noise = config.target_noise * torch.randn_like(batch.action)
            noise.clamp_(-config.target_noise_clip, config.target_noise_clip)
            next_action = (self.target_actor(batch.next_obs) + noise).clamp(-1.0, 1.0)
            next_values = self.target_critics(batch.next_obs, next_action).amin(dim=0)
            # The discount is 0 after a termination, and gamma after a time limit.
            target: Tensor = batch.reward + batch.discount * next_values
            target = target.expand(2, -1)
        values: Tensor = self.critics(batch.obs, batch.action)
        # Errors beyond 1 have gradients of size 1 here, and their rows are drawn in proportion to
        # error**alpha. Expected gradients are those of uniform draws with a loss that grows like
        # error**(1 + alpha), but vary less. That is the loss one wants, so no weights correct it.
        loss_of = functional.huber_loss if config.sampler == "lap" else functional.mse_loss
        self.critic_optimizer.zero_grad()
        loss_of(values, target).backward()  # type: ignore[no-untyped-call]
        self.critic_optimizer.step()

        self.updates += 1
        if self.updates % config.policy_period == 0:
            policy_loss = -self.critics(batch.obs, self.actor(batch.obs))[0].mean()
            parameters = list(self.actor.parameters())
            # Not backward(), which would compute gradients of the critics too.
            gradients = torch.autograd.grad(policy_loss, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            self.actor_optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.targets.parameters()), list(self.networks.parameters()), config.tau
                )
        return (target - values.detach()).abs().amax(dim=0)


def make_env(env_id: str) -> gymnasium.Env[Any, Any]:
    """Return an environment with actions in [-1, 1]."""
    return RescaleAction(gymnasium.make(env_id), np.float32(-1.0), np.float32(1.0))


def evaluate(agent: Agent, env: gymnasium.Env[Any, Any], episodes: int = 10) -> float:
    """Return the mean return of the policy without noise."""
    total = 0.0
    for _ in range(episodes):
        obs, _ = env.reset()
        ended = False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(agent.act(obs, explore=False))
            total += float(reward)
            ended = terminated or truncated
    return total / episodes


def main(config: Config) -> Agent:
    """Train, and return the agent."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    env, evaluation_env = make_env(config.env_id), make_env(config.env_id)
    evaluation_env.reset(seed=config.seed + 1_000_000)
    env.action_space.seed(config.seed)
    # Every error up to 1 gives the priority 1: the Huber loss takes care of those.
    lap = per.Proportional(config.alpha, eps=0.0, min_priority=1.0)
    replay = per.ReplayBuffer.for_env(
        env,
        min(config.capacity, config.steps),
        sampler=lap if config.sampler == "lap" else per.Uniform(),
        gamma=config.gamma,
        seed=config.seed,
    )
    observation_shape, action_shape = env.observation_space.shape, env.action_space.shape
    assert observation_shape is not None
    assert action_shape is not None
    agent = Agent(observation_shape[0], action_shape[0], config)

    evaluations: list[tuple[int, float]] = []
    obs, _ = env.reset(seed=config.seed)
    with Progress() as progress:
        bar = progress.add_task("no evaluation yet", total=config.steps)
        for step in range(1, config.steps + 1):
            warm = step > config.warmup
            action = agent.act(obs, explore=True) if warm else env.action_space.sample()
            next_obs, reward, terminated, truncated, _ = env.step(action)
            replay.add(obs, action, float(reward), next_obs, terminated, truncated)
            obs = env.reset()[0] if terminated or truncated else next_obs
            if warm:
                batch = replay.sample(config.batch_size)
                td_errors = agent.update(batch.to_torch())
                replay.update_priorities(batch.ids, td_errors)
            progress.advance(bar)
            if step % config.evaluate_every == 0:
                evaluations.append((step, evaluate(agent, evaluation_env)))
                progress.update(bar, description=f"mean return {evaluations[-1][1]:,.1f}")
                if config.csv is not None:
                    with config.csv.open("w", newline="", encoding="utf-8") as file:
                        csv.writer(file).writerows([("step", "return"), *evaluations])
    return agent


if __name__ == "__main__":
    main(tyro.cli(Config))
