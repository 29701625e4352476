"""Soft Actor-Critic with prioritized replay, for continuous actions, in one file.

    python recipes/sac.py --env-id HalfCheetah-v5 --steps 100000 --seed 1

Haarnoja et al. 2018, arXiv 1812.05905: two critics, a policy that is paid for its entropy, and a
temperature that adjusts itself. Schaul et al. 2015, arXiv 1511.05952: which transitions to replay.
Read it from top to bottom: options, networks, one update, evaluation, the loop.
"""

from __future__ import annotations

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
    """Train a Soft Actor-Critic."""

    env_id: str = "HalfCheetah-v5"
    """Gymnasium environment with vectors as observations and as actions."""
    steps: int = 100_000
    """Steps in the environment; after the warm-up, each is followed by one update."""
    seed: int = 1
    """Of networks, exploration, environment and replay."""
    sampler: Literal["proportional", "rank", "uniform"] = "proportional"
    """How transitions are drawn."""
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
    """How far the target critics move toward the critics in an update."""
    learning_rate: float = 3e-4
    """Of Adam, for networks and temperature."""
    alpha: float = 0.6
    """How much prioritization (not the temperature, which many texts call alpha as well)."""
    beta: float = 0.4
    """How much of its bias the weights correct at first; it rises to 1."""


class Actor(nn.Module):
    """The policy: a normal distribution of each action, squashed into (-1, 1) by tanh."""

    def __init__(self, observation_size: int, action_size: int, hidden_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(observation_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, 2 * action_size),
        )

    def mode(self, obs: Tensor) -> Tensor:
        """Return the action without noise, float32[..., action_size]."""
        return torch.tanh(self.layers(obs).chunk(2, dim=-1)[0])

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions float32[..., action_size] and their log probabilities float32[...]."""
        mean, log_std = self.layers(obs).chunk(2, dim=-1)
        log_std = log_std.clamp(-20.0, 2.0)
        noise = torch.randn_like(mean)
        raw = mean + log_std.exp() * noise
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        # log(1 - tanh(raw)**2), in a form that does not lose its digits where tanh is near 1
        log_slope = 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))
        return torch.tanh(raw), (log_prob - log_slope).sum(dim=-1)


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
        self.actor = Actor(observation_size, action_size, config.hidden_size)
        self.critics = Critics(observation_size + action_size, config.hidden_size)
        self.targets = Critics(observation_size + action_size, config.hidden_size)
        self.targets.load_state_dict(self.critics.state_dict())
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.target_entropy = -float(action_size)
        self.policy_parameters = [*self.actor.parameters(), self.log_temperature]
        rate = config.learning_rate
        self.policy_optimizer = torch.optim.Adam(self.policy_parameters, lr=rate, fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=rate, fused=True)

    @torch.no_grad()
    def act(self, obs: np.ndarray[Any, Any], *, explore: bool) -> np.ndarray[Any, Any]:
        """Return an action in (-1, 1)."""
        given = torch.from_numpy(obs).float()
        action = self.actor(given)[0] if explore else self.actor.mode(given)
        return action.numpy()

    def update(self, batch: per.Batch[Tensor]) -> Tensor:
        """Make one update of everything, and return the larger TD errors, float32[B]."""
        temperature = self.log_temperature.detach().exp()
        with torch.no_grad():
            next_action, next_log_prob = self.actor(batch.next_obs)
            next_values = self.targets(batch.next_obs, next_action).amin(dim=0)
            # The discount is 0 after a termination, and gamma after a time limit.
            target = batch.reward + batch.discount * (next_values - temperature * next_log_prob)
        td_errors: Tensor = target - self.critics(batch.obs, batch.action)
        critic_loss = 0.5 * (batch.weights * td_errors.square()).mean(dim=1).sum()
        self.critic_optimizer.zero_grad()
        critic_loss.backward()  # type: ignore[no-untyped-call]
        self.critic_optimizer.step()

        # The policy learns from the same rows. The weights are for the critics only.
        action, log_prob = self.actor(batch.obs)
        values = self.critics(batch.obs, action).amin(dim=0)
        policy_loss = (temperature * log_prob - values).mean()
        surplus = (log_prob.detach() + self.target_entropy).mean()
        temperature_loss = -self.log_temperature * surplus
        # Not backward(), which would compute gradients of the critics too.
        gradients = torch.autograd.grad(policy_loss + temperature_loss, self.policy_parameters)
        for parameter, gradient in zip(self.policy_parameters, gradients, strict=True):
            parameter.grad = gradient
        self.policy_optimizer.step()

        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.targets.parameters()), list(self.critics.parameters()), self.config.tau
            )
        return td_errors.detach().abs().amax(dim=0)


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
    samplers: dict[str, per.Proportional | per.RankBased | per.Uniform] = {
        "proportional": per.Proportional(config.alpha),
        "rank": per.RankBased(config.alpha),
        "uniform": per.Uniform(),
    }
    replay = per.ReplayBuffer.for_env(
        env,
        min(config.capacity, config.steps),
        sampler=samplers[config.sampler],
        gamma=config.gamma,
        seed=config.seed,
    )
    beta = per.linear(config.beta, 1.0, config.steps)
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
                batch = replay.sample(config.batch_size, beta(step))
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
