"""DQN with prioritized replay, for discrete actions, in one file.

    python recipes/dqn.py --env-id CartPole-v1 --steps 50000 --seed 1

Mnih et al. 2015, Nature 518: a network of action values, and an older copy of it for the targets.
Schaul et al. 2015, arXiv 1511.05952: which transitions to replay. The memory is the class ``PER``,
whose columns have the shape [B, 1], like what ``gather`` takes from the network.
Read it from top to bottom: options, the agent and its update, evaluation, the loop.
"""

from __future__ import annotations

import copy
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
import tyro
from rich.progress import Progress
from torch import Tensor, nn

import prioritized_replay as per


@dataclass(frozen=True, kw_only=True)
class Config:
    """Train a DQN."""

    env_id: str = "CartPole-v1"
    """Gymnasium environment with vectors as observations, and numbered actions."""
    steps: int = 50_000
    """Steps in the environment; after the warm-up, each is followed by one update."""
    seed: int = 1
    """Of network, exploration, environment and replay."""
    sampler: Literal["proportional", "rank", "uniform"] = "proportional"
    """How transitions are drawn."""
    csv: Path | None = None
    """File for the evaluations: step,return."""
    evaluate_every: int = 1_000
    """Steps between evaluations, of 10 episodes each."""
    threads: int = 1
    """Threads of torch."""

    warmup: int = 1_000
    """Transitions in memory before the first update."""
    capacity: int = 50_000
    """Transitions kept."""
    hidden_size: int = 128
    """Units of each of the two hidden layers."""
    batch_size: int = 64
    """Transitions in an update."""
    gamma: float = 0.99
    """Discount of one step."""
    target_period: int = 50
    """Updates between copies of the network for the targets."""
    learning_rate: float = 1e-3
    """Of Adam."""
    epsilon: float = 0.05
    """Share of random actions at the end; it falls from 1 over a fifth of the steps."""
    alpha: float = 0.6
    """How much prioritization."""
    beta: float = 0.4
    """How much of its bias the weights correct at first; it rises to 1."""


class DQN:
    """Network, target network and memory, and how one batch changes them."""

    def __init__(self, observation_shape: tuple[int, ...], actions: int, config: Config) -> None:
        self.actions, self.gamma, self.warmup = actions, config.gamma, config.warmup
        self.target_period, self.updates = config.target_period, 0
        self.online_network = nn.Sequential(
            nn.Flatten(),
            nn.Linear(int(np.prod(observation_shape)), config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, actions),
        )
        self.target_network = copy.deepcopy(self.online_network)
        self.optimizer = torch.optim.Adam(
            self.online_network.parameters(), lr=config.learning_rate, fused=True
        )
        self.memory_buffer = per.PER(
            observation_shape,
            config.capacity,
            config.batch_size,
            alpha=0.0 if config.sampler == "uniform" else config.alpha,  # 0: all alike, weights 1
            beta=config.beta,
            beta_increment=(1.0 - config.beta) / config.steps,
            variant="rank" if config.sampler == "rank" else "proportional",
            seed=config.seed,
        )
        self.generator = np.random.default_rng(config.seed)
        self.epsilon = 1.0
        self.last_epsilon = config.epsilon
        self.epsilon_decrement = (1.0 - config.epsilon) / (0.2 * config.steps)

    @torch.no_grad()
    def act(self, obs: np.ndarray[Any, Any], *, explore: bool) -> int:
        """Return an action: the best one, or a random one with probability epsilon."""
        if explore and self.generator.random() < self.epsilon:
            return int(self.generator.integers(self.actions))
        return int(self.online_network(torch.from_numpy(obs).float()[None]).argmax())

    def optimize(self) -> None:
        """Make one update with a batch from memory, and give its errors back."""
        if len(self.memory_buffer) < self.warmup:
            return
        *columns, idxs, weights = self.memory_buffer.draw_samples()
        obs, action, reward, next_obs, done, weight = map(torch.from_numpy, (*columns, weights))

        with torch.no_grad():
            best = self.target_network(next_obs).max(dim=1, keepdim=True).values
            target = reward + self.gamma * best * (1.0 - done)
        online = self.online_network(obs).gather(dim=1, index=action)
        td_error: Tensor = target - online
        # The weight multiplies the loss of a row. Inside the square it would count twice.
        loss = 0.5 * (weight * td_error.square()).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.memory_buffer.update_priority(idxs, td_error)

        self.updates += 1
        if self.updates % self.target_period == 0:
            self.target_network.load_state_dict(self.online_network.state_dict())

    def adjust_epsilon(self) -> None:
        """Explore a little less."""
        self.epsilon = max(self.epsilon - self.epsilon_decrement, self.last_epsilon)


def evaluate(agent: DQN, env: gymnasium.Env[Any, Any], episodes: int = 10) -> float:
    """Return the mean return of the best actions."""
    total = 0.0
    for _ in range(episodes):
        obs, _ = env.reset()
        ended = False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(agent.act(obs, explore=False))
            total += float(reward)
            ended = terminated or truncated
    return total / episodes


def main(config: Config) -> DQN:
    """Train, and return the agent."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    env, evaluation_env = gymnasium.make(config.env_id), gymnasium.make(config.env_id)
    evaluation_env.reset(seed=config.seed + 1_000_000)
    assert isinstance(env.action_space, gymnasium.spaces.Discrete)
    assert env.observation_space.shape is not None
    agent = DQN(env.observation_space.shape, int(env.action_space.n), config)

    evaluations: list[tuple[int, float]] = []
    obs, _ = env.reset(seed=config.seed)
    with Progress() as progress:
        bar = progress.add_task("no evaluation yet", total=config.steps)
        for step in range(1, config.steps + 1):
            action = agent.act(obs, explore=True)
            next_obs, reward, terminated, truncated, _ = env.step(action)
            # Not "terminated or truncated": the value goes on after a time limit.
            agent.memory_buffer.add_experience(obs, action, float(reward), next_obs, terminated)
            obs = env.reset()[0] if terminated or truncated else next_obs
            agent.optimize()
            agent.adjust_epsilon()
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
