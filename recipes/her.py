"""Hindsight experience replay (Andrychowicz et al. 2017) with Double DQN, on flipping bits.

The state is 12 bits, the goal is 12 others, and an action flips one bit. Every step costs 1 until
state and goal are the same. Wandering meets one of 4,096 states so rarely that plain replay has
nothing to learn from. Hindsight has: whatever an episode did reach is taken for a goal that it
had, so that most episodes have succeeded at something.

It takes one call: the steps of an episode with other goals and the rewards that belong to these
are complete transitions, which ``extend`` takes.

    python recipes/her.py --relabel future --csv her.csv     (--relabel none: plain replay)
"""

import copy
import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
import tyro
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

import prioritized_replay as per

Bits = NDArray[np.float32]
Relabel = Literal["future", "final", "none"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """DQN with hindsight on flipping bits."""

    bits: int = 12
    """Bits of state and goal, and steps of an episode."""
    relabel: Relabel = "future"
    """Goals in hindsight: states reached later in the episode, the last one, or no such goals."""
    steps: int = 20_000
    """Steps of the environment."""
    seed: int = 1
    """Of the network, the environment, the exploration and the buffer."""
    sampler: Literal["proportional", "rank", "uniform"] = "uniform"
    """How transitions are drawn."""
    csv: Path | None = None
    """Where to write step and share of successes."""
    evaluate_every: int = 1_000
    """Steps between evaluations."""
    evaluation_episodes: int = 100
    """Episodes of an evaluation."""
    threads: int = 1
    """Threads of torch."""
    goals: int = 4
    """Goals in hindsight for each step, where they are drawn from the future."""
    capacity: int = 200_000
    """Transitions kept."""
    warmup: int = 1_000
    """Steps before the first update."""
    train_every: int = 2
    """Steps between updates."""
    batch_size: int = 128
    """Transitions of an update."""
    gamma: float = 0.98
    """Discount of a step."""
    learning_rate: float = 1e-3
    """Of Adam."""
    epsilon: float = 0.1
    """Share of random actions, after it fell from 1 in a fifth of the steps."""
    tau: float = 0.01
    """How far an update moves the target network."""


class BitFlipping(gymnasium.Env[dict[str, Any], Any]):
    """Flip one bit a step until the state is the goal; observations are a dictionary of both."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        some = spaces.Box(0.0, 1.0, (bits,), np.float32)
        self.observation_space = spaces.Dict({"state": some, "goal": some})
        self.action_space = spaces.Discrete(bits)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Bits], dict[str, Any]]:
        """Begin with another state and another goal."""
        super().reset(seed=seed)
        self.state, self.goal = self.np_random.integers(2, size=(2, self.bits)).astype(np.float32)
        self.steps = 0
        return {"state": self.state, "goal": self.goal}, {}

    def step(self, action: Any) -> tuple[dict[str, Bits], float, bool, bool, dict[str, Any]]:
        """Flip a bit; the episode is cut off after as many steps as there are bits."""
        self.state = self.state.copy()
        self.state[action] = 1.0 - self.state[action]
        self.steps += 1
        reward, terminated = outcome(self.state, self.goal)
        seen = {"state": self.state, "goal": self.goal}
        return seen, float(reward), bool(terminated), self.steps == self.bits, {}


def outcome(reached: Bits, goal: Bits) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return reward and end of steps that reached ``reached``, both [..., bits]: [...] each."""
    there: NDArray[np.bool_] = (reached == goal).all(-1)
    return np.where(there, np.float32(0.0), np.float32(-1.0)), there


def in_hindsight(
    states: Bits, actions: NDArray[np.int64], how: Relabel, goals: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the transitions of an episode with goals that it reached, for ``extend``.

    ``states`` is float32[T + 1, bits], with the last one; ``actions`` is int64[T]. There are T
    transitions with the final state as goal, or ``goals`` T with states of the step's future.
    """
    length = len(actions)
    steps = np.tile(np.arange(length), 1 if how == "final" else goals)
    when = np.full(length, length) if how == "final" else rng.integers(steps, length) + 1
    goal, reached = states[when], states[steps + 1]
    reward, terminated = outcome(reached, goal)
    return {
        "obs": {"state": states[steps], "goal": goal},
        "action": actions[steps],
        "reward": reward,
        "next_obs": {"state": reached, "goal": goal},
        "terminated": terminated,
    }


class Network(nn.Module):
    """Values of the actions, float32[B, bits]."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * bits, 256), nn.ReLU(), nn.Linear(256, bits))

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Take state and goal, float32[B, bits] each."""
        values: Tensor = self.layers(torch.cat([obs["state"], obs["goal"]], -1))
        return values


@torch.no_grad()
def act(network: Network, obs: Mapping[str, Bits]) -> int:
    """Return the action of largest value."""
    return int(network({name: torch.from_numpy(bits) for name, bits in obs.items()}).argmax())


def evaluate(network: Network, config: Config) -> float:
    """Return the share of episodes that reach their goal without exploration."""
    env, successes = BitFlipping(config.bits), 0
    for episode in range(config.evaluation_episodes):
        obs, _ = env.reset(seed=1_000_000 * config.seed + episode)
        terminated = truncated = False
        while not (terminated or truncated):
            obs, _, terminated, truncated, _ = env.step(act(network, obs))
        successes += terminated
    return successes / config.evaluation_episodes


def main(config: Config) -> list[tuple[int, float]]:
    """Train, and return the curve: steps and share of successes."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    env = BitFlipping(config.bits)
    samplers: dict[str, Any] = {
        "proportional": per.Proportional(),
        "rank": per.RankBased(),
        "uniform": per.Uniform(),
    }
    replay = per.ReplayBuffer.for_env(
        env,
        config.capacity,
        sampler=samplers[config.sampler],
        gamma=config.gamma,
        seed=config.seed,
    )
    online = Network(config.bits)
    target = copy.deepcopy(online)
    adam = torch.optim.Adam(online.parameters(), lr=config.learning_rate, fused=True)
    epsilon = per.linear(1.0, config.epsilon, config.steps // 5)
    beta = per.linear(0.4, 1.0, config.steps)
    curve: list[tuple[int, float]] = []
    started = time.monotonic()

    obs, _ = env.reset(seed=config.seed)
    states, actions = [obs["state"]], list[int]()
    for step in range(1, config.steps + 1):
        explores = rng.random() < epsilon(step)
        action = int(rng.integers(config.bits)) if explores else act(online, obs)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        replay.add(obs, action, reward, next_obs, terminated, truncated)
        states.append(next_obs["state"])
        actions.append(action)
        obs = next_obs
        if terminated or truncated:
            if config.relabel != "none":
                episode = np.stack(states), np.array(actions)
                replay.extend(in_hindsight(*episode, config.relabel, config.goals, rng))
            obs, _ = env.reset()
            states, actions = [obs["state"]], []

        if step > config.warmup and step % config.train_every == 0:
            batch = replay.sample(config.batch_size, beta=beta(step)).to_torch()
            with torch.no_grad():
                best = online(batch.next_obs).argmax(1, keepdim=True)
                # No reward is positive, so no return is.
                next_value = target(batch.next_obs).gather(1, best)[:, 0].clamp(max=0.0)
                td_target = batch.reward + batch.discount * next_value
            td_error = td_target - online(batch.obs).gather(1, batch.action[:, None])[:, 0]
            adam.zero_grad()
            (batch.weights * td_error.square()).mean().backward()
            adam.step()
            replay.update_priorities(batch.ids, td_error)
            with torch.no_grad():
                for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                    slow.lerp_(fast, config.tau)

        if step % config.evaluate_every == 0 or step == config.steps:
            curve.append((step, evaluate(online, config)))
            speed = step / (time.monotonic() - started)
            print(f"step {step:,}: success {curve[-1][1]:.2f}, {speed:,.0f} steps/s", flush=True)
            if config.csv is not None:
                with config.csv.open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows([("step", "return"), *curve])
    return curve


if __name__ == "__main__":
    main(tyro.cli(Config))
