"""R2D2 in small: an agent with memory that learns from sequences, in one file.

Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed Reinforcement Learning":
1. An LSTM carries a state from step to step, and so remembers what it no longer sees.
2. What is drawn is a sequence. With its first step, the LSTM's state was stored.
3. The network has changed since then, so the first steps only warm the state up (the burn-in).
4. Double Q-learning with targets of n steps and rescaled values.
5. The priority of a sequence mixes the largest and the mean error of the steps after its burn-in.

Two tasks cannot be solved without memory. ``cartpole`` is CartPole-v1 with its velocities hidden.
In ``recall``, a cue at the start decides which action is rewarded 20 steps later.
Axes: E environments, B sequences of a batch, T steps of a sequence, A actions, H units.

    python recipes/r2d2.py --task cartpole --seed 1           (--network feed-forward: no memory)
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
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn

import prioritized_replay as per
from prioritized_replay import dqn

Floats = NDArray[np.float32]
SEEN = ACTIONS = 2  # numbers of an observation, and actions, in both tasks


@dataclass(frozen=True, kw_only=True)
class Config:
    """Train R2D2."""

    task: Literal["cartpole", "recall"] = "cartpole"
    """What to learn."""
    network: Literal["lstm", "feed-forward"] = "lstm"
    """With memory, or the same agent without."""
    steps: int = 200_000
    """Steps of all environments together."""
    seed: int = 1
    """Of network, exploration, environments and replay."""
    sampler: Literal["proportional", "rank", "uniform"] = "proportional"
    """How sequences are drawn."""
    csv: Path | None = None
    """File for the evaluations: step,return."""
    evaluate_every: int = 10_000
    """Steps between evaluations."""
    evaluation_episodes: int = 50
    """Episodes of an evaluation."""
    threads: int = 1
    """Threads of torch."""

    envs: int = 8
    """Environments side by side."""
    delay: int = 20
    """Steps from cue to decision in ``recall``."""
    warmup: int = 5_000
    """Steps before the first update."""
    train_every: int = 8
    """Steps between updates."""
    capacity: int = 100_000
    """Steps kept."""
    length: int = 20
    """Steps of a sequence."""
    burn_in: int = 5
    """First steps of a sequence that only warm the state up."""
    overlap: int = 10
    """Steps that a sequence shares with the one before."""
    batch_size: int = 32
    """Sequences of an update."""
    n_step: int = 5
    """Steps of a target."""
    gamma: float = 0.99
    """Discount of one step."""
    hidden_size: int = 64
    """Units of each layer, and of the LSTM."""
    tau: float = 0.01
    """How far the target network moves toward the network in an update."""
    learning_rate: float = 1e-3
    """Of Adam; it falls to 0."""
    gradient_clip: float = 10.0
    """Largest norm of a gradient."""
    alpha: float = 0.6
    """How much prioritization."""
    beta: float = 0.4
    """How much of its bias the weights correct at first; it rises to 1."""


class HiddenVelocities(gymnasium.ObservationWrapper[Floats, Any, Floats]):
    """CartPole that shows where cart and pole are, but not how they move."""

    def __init__(self, env: gymnasium.Env[Floats, Any]) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(-np.inf, np.inf, (SEEN,), np.float32)

    def observation(self, observation: Floats) -> Floats:
        """Return position and angle, scaled to about [-4, 4], so that small moves are seen."""
        return np.array([observation[0] / 0.6, observation[2] / 0.05], np.float32)


class Recall(gymnasium.Env[Floats, Any]):
    """A cue of -1 or 1 in the first observation; after the delay, the action it names is paid.

    The second number of an observation says how much of the delay is over. All but the last action
    change nothing. The return is 1 or 0, and 0.5 on average without memory.
    """

    observation_space = spaces.Box(-1.0, 1.0, (SEEN,), np.float32)
    action_space = spaces.Discrete(ACTIONS)

    def __init__(self, delay: int) -> None:
        self.delay = delay

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Floats, Any]:
        """Begin with a new cue."""
        super().reset(seed=seed)
        self.cue, self.elapsed = int(self.np_random.integers(ACTIONS)), 0
        return np.array([2 * self.cue - 1, 0.0], np.float32), {}

    def step(self, action: Any) -> tuple[Floats, float, bool, bool, Any]:
        """Let a step pass, or decide."""
        decides = self.elapsed == self.delay
        self.elapsed += 1
        seen = np.array([0.0, min(1.0, self.elapsed / self.delay)], np.float32)
        return seen, float(decides and action == self.cue), decides, False, {}


def make_envs(config: Config, count: int) -> SyncVectorEnv:
    """Return environments side by side; those that end begin anew in the same step."""

    def make() -> gymnasium.Env[Any, Any]:
        if config.task == "recall":
            return Recall(config.delay)
        return HiddenVelocities(gymnasium.make("CartPole-v1", disable_env_checker=True))

    return SyncVectorEnv([make] * count, autoreset_mode=AutoresetMode.SAME_STEP)


class Network(nn.Module):
    """Values of the actions along sequences, and the state after them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        size = config.hidden_size
        self.encoder = nn.Sequential(nn.Linear(SEEN, size), nn.ReLU())
        self.memory = nn.LSTM(size, size, batch_first=True) if config.network == "lstm" else None
        self.layer = nn.Sequential(nn.Linear(size, size), nn.ReLU())
        self.value, self.advantage = nn.Linear(size, 1), nn.Linear(size, ACTIONS)
        if self.memory is not None:  # forget little at first: a tenth in each step
            nn.init.constant_(self.memory.get_parameter("bias_hh_l0")[size : 2 * size], 2.0)

    def forward(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Take observations [B, T, ...] and a state [B, 2, H]; return values [B, T, A], state."""
        x = self.encoder(obs)
        if self.memory is not None:
            hidden, cell = state.transpose(0, 1)[:, None].contiguous()
            x, (hidden, cell) = self.memory(x, (hidden, cell))
            state = torch.stack((hidden[0], cell[0]), dim=1)
        x = self.layer(x)
        advantage = self.advantage(x)
        return self.value(x) + advantage - advantage.mean(-1, keepdim=True), state


class Agent:
    """Networks and optimizer, and how one batch changes them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.online_network = Network(config)
        self.target_network = copy.deepcopy(self.online_network)
        self.optimizer = torch.optim.Adam(
            self.online_network.parameters(), lr=config.learning_rate, fused=True
        )

    @torch.no_grad()
    def act(self, obs: Floats, state: Tensor) -> tuple[NDArray[np.int64], Tensor]:
        """Return the best actions int64[E], and the states after them [E, 2, H]."""
        values, state = self.online_network(torch.from_numpy(obs)[:, None], state)
        return values[:, 0].argmax(-1).numpy(), state

    def along(self, network: Network, obs: Tensor, state: Tensor) -> Tensor:
        """Return the values along sequences [B, T + 1, A]; the burn-in has no gradient."""
        burn_in = self.config.burn_in
        with torch.no_grad():
            first, state = network(obs[:, :burn_in], state)
        return torch.cat((first, network(obs[:, burn_in:], state)[0]), dim=1)

    def update(self, batch: Any) -> Tensor:
        """Make one update, and return the errors of all steps, float32[B, T]."""
        config = self.config
        # A sequence never crosses the end of an episode: next_obs is the obs of the step after.
        obs = torch.cat((batch.obs[:, :1], batch.next_obs), dim=1)
        values = self.along(self.online_network, obs, batch.state)
        with torch.no_grad():
            best = values[:, 1:].argmax(-1, keepdim=True)
            future = self.along(self.target_network, obs, batch.state)[:, 1:]
            next_value = dqn.unrescaled(future.gather(-1, best).squeeze(-1))
            columns = batch.reward, batch.discount, next_value, batch.mask
            target = dqn.rescaled(dqn.n_step_targets(*columns, config.n_step))
        taken = values[:, :-1].gather(-1, batch.action[..., None]).squeeze(-1)
        td_errors: Tensor = target - taken
        loss = dqn.sequence_loss(td_errors, batch.weights, batch.mask, config.burn_in)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.online_network.parameters(), config.gradient_clip)
        self.optimizer.step()
        with torch.no_grad():
            online: list[Tensor] = list(self.online_network.parameters())
            torch._foreach_lerp_(list(self.target_network.parameters()), online, config.tau)
        return td_errors.detach()


def evaluate(agent: Agent, envs: SyncVectorEnv) -> float:
    """Return the mean return of the best actions, over one episode of each environment."""
    obs, _ = envs.reset()
    state = torch.zeros(envs.num_envs, 2, agent.config.hidden_size)
    running, total = np.ones(envs.num_envs, bool), 0.0
    while running.any():
        action, state = agent.act(obs, state)
        obs, reward, terminated, truncated, _ = envs.step(action)
        total += float(reward[running].sum())
        running &= ~(terminated | truncated)
    return total / envs.num_envs


def main(config: Config) -> Agent:
    """Train, and return the agent."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    envs = make_envs(config, config.envs)
    evaluation_envs = make_envs(config, config.evaluation_episodes)
    evaluation_envs.reset(seed=config.seed + 1_000_000)
    agent = Agent(config)
    samplers: dict[str, per.Proportional | per.RankBased | per.Uniform] = {
        "proportional": per.Proportional(config.alpha),
        "rank": per.RankBased(config.alpha),
        "uniform": per.Uniform(),
    }
    fields = {"obs": per.Field((SEEN,)), "action": per.Field((), "int64"), "reward": per.Field()}
    fields["state"] = per.Field((2, config.hidden_size), per_sequence=True)
    replay = per.ReplayBuffer(
        config.capacity,
        fields,
        sequence=per.Sequence(config.length, config.burn_in, config.overlap),
        sampler=samplers[config.sampler],
        gamma=config.gamma,
        num_envs=config.envs,
        autoreset="same_step",
        seed=config.seed,
    )
    beta = per.linear(config.beta, 1.0, config.steps)
    rate = per.linear(config.learning_rate, 0.0, config.steps)
    # Some environments explore much, others hardly at all (Horgan et al. 2018).
    epsilon = 0.4 ** (1 + 7 * np.arange(config.envs) / max(1, config.envs - 1))

    evaluations: list[tuple[int, float]] = []
    obs, _ = envs.reset(seed=config.seed)
    state = torch.zeros(config.envs, 2, config.hidden_size)
    with Progress() as progress:
        bar = progress.add_task("no evaluation yet", total=config.steps)
        for step in range(config.envs, config.steps + 1, config.envs):
            best, next_state = agent.act(obs, state)
            explores = rng.random(config.envs) < epsilon
            action = np.where(explores, rng.integers(ACTIONS, size=config.envs), best)
            next_obs, reward, terminated, truncated, info = envs.step(action)
            replay.add(obs, action, reward, next_obs, terminated, truncated, info=info, state=state)
            next_state[terminated | truncated] = 0.0  # another episode begins
            obs, state = next_obs, next_state
            if step > config.warmup and step % config.train_every < config.envs:
                batch = replay.sample(config.batch_size, beta(step))
                agent.optimizer.param_groups[0]["lr"] = rate(step)
                td_errors = agent.update(batch.to_torch())
                replay.update_priorities(batch.ids, td_errors)
            progress.advance(bar, config.envs)
            if step % config.evaluate_every < config.envs:
                evaluations.append((step, evaluate(agent, evaluation_envs)))
                progress.update(bar, description=f"mean return {evaluations[-1][1]:,.2f}")
                if config.csv is not None:
                    with config.csv.open("w", newline="", encoding="utf-8") as file:
                        csv.writer(file).writerows([("step", "return"), *evaluations])
    return agent


if __name__ == "__main__":
    main(tyro.cli(Config))
