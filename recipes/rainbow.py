"""Rainbow (Hessel et al. 2018) on MinAtar: six improvements of DQN in one agent.

1. Double Q-learning: the online network chooses the next action, the target network values it.
2. Prioritized replay: drawn by how far the predicted distribution was from its target.
3. Dueling: a value of the state, and advantages of the actions.
4. Returns of n steps: the buffer sums rewards, and says what to discount by (``n_step=3``).
5. Distributions: the network predicts how returns are spread over 51 values (C51).
6. Noisy layers: the network learns where to explore; there is no epsilon.

The network is MinAtar's: one convolution with 16 filters, then 128 units. Only the layers after
these are noisy, which takes less time than noise everywhere.
Axes: B rows, C channels, A actions, Z atoms (the values).

    python recipes/rainbow.py --env-id MinAtar/Breakout-v1 --csv rainbow.csv
"""

import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

import prioritized_replay as per
from prioritized_replay import envs


@dataclass(frozen=True, kw_only=True)
class Config:
    """Rainbow on a MinAtar game."""

    env_id: str = "MinAtar/Breakout-v1"
    """Any environment with discrete actions and images [height, width, C] of zeros and ones."""
    steps: int = 500_000
    """Steps of the environment."""
    seed: int = 1
    """Of the network, the noise, the games and the buffer."""
    sampler: Literal["proportional", "rank", "uniform"] = "proportional"
    """How transitions are drawn."""
    csv: Path | None = None
    """Where to write step and mean return of the evaluations."""
    evaluate_every: int = 25_000
    """Steps between evaluations."""
    evaluation_episodes: int = 10
    """Games of one evaluation."""
    final_episodes: int = 100
    """Games of the last evaluation."""
    max_episode_steps: int = 5_000
    """Where an evaluation game is cut off: a perfect player never loses."""
    threads: int = 1
    """Threads of torch."""
    capacity: int = 100_000
    """Transitions kept."""
    warmup: int = 5_000
    """Steps before the first update."""
    train_every: int = 2
    """Steps between updates."""
    batch_size: int = 32
    """Transitions of an update."""
    n_step: int = 3
    """Steps of a transition."""
    gamma: float = 0.99
    """Discount of a step."""
    alpha: float = 0.5
    """How much priorities matter."""
    beta: float = 0.4
    """Correction by weights at the start; it grows to 1."""
    learning_rate: float = 5e-4
    """At the start; it falls to a fifth."""
    target_period: int = 1_000
    """Steps between copies into the target network."""
    atoms: int = 51
    """Values Z over which returns are spread."""
    v_min: float = 0.0
    """The least of them."""
    v_max: float = 20.0
    """The largest of them."""


class NoisyLinear(nn.Module):
    """A linear layer whose weights are noisy, by amounts that are learned (Fortunato et al. 2018).

    The noise of weight (i, j) is a product of one number for output i and one for input j. So the
    noisy part is a linear layer between two multiplications, and no noisy matrix is ever made.
    """

    def __init__(self, inputs: int, outputs: int, sigma: float = 0.5) -> None:
        super().__init__()
        self.mean = nn.Linear(inputs, outputs)
        self.noise = nn.Linear(inputs, outputs)
        for parameter in self.mean.parameters():
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5)
        for parameter in self.noise.parameters():
            nn.init.constant_(parameter, sigma * inputs**-0.5)
        self.of_inputs, self.of_outputs = torch.zeros(inputs), torch.zeros(outputs)

    def resample(self) -> None:
        """Draw new noise."""
        for numbers in (self.of_inputs, self.of_outputs):
            numbers.normal_()
            numbers.copy_(numbers.sign() * numbers.abs().sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """Return the noisy outputs; in evaluation mode, those of the mean weights."""
        mean: Tensor = self.mean(x)
        if not self.training:
            return mean
        noise: Tensor = self.noise(x * self.of_inputs)
        return mean + noise * self.of_outputs


class Network(nn.Module):
    """Log probabilities of the returns of every action, float32[B, A, Z]."""

    def __init__(self, image: tuple[int, ...], actions: int, atoms: int) -> None:
        super().__init__()
        height, width, channels = image
        self.shape = actions, atoms
        self.convolution = nn.Conv2d(channels, 16, kernel_size=3)
        self.hidden = nn.Linear(16 * (height - 2) * (width - 2), 128)
        self.value = NoisyLinear(128, atoms)
        self.advantage = NoisyLinear(128, actions * atoms)

    def forward(self, images: Tensor) -> Tensor:
        """Take images [B, height, width, C] of any dtype."""
        x = torch.relu(self.convolution(images.permute(0, 3, 1, 2).float()))
        x = torch.relu(self.hidden(x.flatten(1)))
        advantage = self.advantage(x).view(-1, *self.shape)
        scores = self.value(x)[:, None] + advantage - advantage.mean(1, keepdim=True)
        return torch.log_softmax(scores, 2)

    def resample(self) -> None:
        """Draw new noise for both layers."""
        self.value.resample()
        self.advantage.resample()


def project(
    reward: Tensor, discount: Tensor, probabilities: Tensor, v_min: float, v_max: float
) -> Tensor:
    """Return the distribution of ``reward + discount * Z`` on the atoms, float32[B, Z].

    Each atom moves, and shares its probability between the two atoms that it lands between, more
    of it to the nearer one.
    """
    count = probabilities.shape[1]
    atoms = torch.linspace(v_min, v_max, count)
    moved = (reward[:, None] + discount[:, None] * atoms).clamp(v_min, v_max)
    position = (moved - v_min) * ((count - 1) / (v_max - v_min))
    below = position.floor().clamp(max=count - 2)
    upper = (position - below) * probabilities
    below = below.long()
    goal = torch.zeros_like(probabilities).scatter_add_(1, below, probabilities - upper)
    return goal.scatter_add_(1, below + 1, upper)


def evaluate(network: Network, config: Config, atoms: Tensor, episodes: int) -> float:
    """Return the mean return of games without noise."""
    env, total = envs.make_env(config.env_id), 0.0
    network.eval()
    for episode in range(episodes):
        obs, _ = env.reset(seed=1_000_000 * config.seed + episode)
        for _ in range(config.max_episode_steps):
            obs, reward, terminated, truncated, _ = env.step(act(network, obs, atoms))
            total += float(reward)
            if terminated or truncated:
                break
    network.train()
    return total / episodes


@torch.no_grad()
def act(network: Network, obs: Any, atoms: Tensor) -> int:
    """Return the action of largest mean."""
    return int((network(torch.from_numpy(obs)[None])[0].exp() @ atoms).argmax())


def main(config: Config) -> list[tuple[int, float]]:
    """Train, and return the curve: steps and mean return."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    env: Any = envs.make_env(config.env_id)
    samplers: dict[str, Any] = {
        "proportional": per.Proportional(alpha=config.alpha),
        "rank": per.RankBased(alpha=config.alpha),
        "uniform": per.Uniform(),
    }
    replay = per.ReplayBuffer.for_env(
        env,
        config.capacity,
        sampler=samplers[config.sampler],
        n_step=config.n_step,
        gamma=config.gamma,
        seed=config.seed,
    )
    images, actions = env.observation_space.shape, env.action_space.n
    online, target = (Network(images, actions, config.atoms) for _ in range(2))
    target.load_state_dict(online.state_dict())
    adam = torch.optim.Adam(online.parameters(), lr=config.learning_rate, eps=1.5e-4, fused=True)
    atoms = torch.linspace(config.v_min, config.v_max, config.atoms)
    beta = per.linear(config.beta, 1.0, config.steps)
    rate = per.linear(config.learning_rate, config.learning_rate / 5, config.steps)
    rows = torch.arange(config.batch_size)
    curve: list[tuple[int, float]] = []
    started = time.monotonic()

    obs, _ = env.reset(seed=config.seed)
    for step in range(1, config.steps + 1):
        action = act(online, obs, atoms)  # noise explores
        next_obs, reward, terminated, truncated, _ = env.step(action)
        replay.add(obs, action, reward, next_obs, terminated, truncated)
        obs = env.reset()[0] if terminated or truncated else next_obs

        if step % config.train_every == 0:
            online.resample()
        if step > config.warmup and step % config.train_every == 0:
            batch = replay.sample(config.batch_size, beta=beta(step)).to_torch()
            target.resample()
            with torch.no_grad():
                best = (online(batch.next_obs).exp() @ atoms).argmax(1)
                future = target(batch.next_obs)[rows, best].exp()
                goal = project(batch.reward, batch.discount, future, config.v_min, config.v_max)
            predicted = online(batch.obs)[rows, batch.action]
            cross_entropy = -(goal * predicted).sum(1)
            adam.param_groups[0]["lr"] = rate(step)
            adam.zero_grad()
            (batch.weights * cross_entropy).mean().backward()
            adam.step()
            # What the goal's own spread adds to the cross entropy is no error.
            entropy = torch.special.entr(goal).sum(1)
            replay.update_priorities(batch.ids, (cross_entropy.detach() - entropy).clamp(min=0.0))
        if step % config.target_period == 0:
            target.load_state_dict(online.state_dict())

        if step % config.evaluate_every == 0 or step == config.steps:
            episodes = config.final_episodes if step == config.steps else config.evaluation_episodes
            curve.append((step, evaluate(online, config, atoms, episodes)))
            speed = step / (time.monotonic() - started)
            print(f"step {step:,}: return {curve[-1][1]:.2f}, {speed:,.0f} steps/s", flush=True)
            if config.csv is not None:
                with config.csv.open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows([("step", "return"), *curve])
    return curve


if __name__ == "__main__":
    main(tyro.cli(Config))
