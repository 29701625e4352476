"""Which prompt next? Groups of answers, as language models are trained by reinforcement (GRPO).

A step draws some prompts and answers each of them G times. What a group teaches is how its answers
differ: if all of them are right, or all wrong, every advantage is 0 and the answers were made in
vain. So a prompt is worth p (1 - p), where p is how often its last group was right (Fatemi 2026,
"Prioritized Replay for RL Post-training", arXiv 2601.02648).

The learner is simulated, so that this takes seconds and needs no model: it answers a prompt
rightly with the chance sigmoid(skill - difficulty), and useful groups raise its skill. The rest
is as in a real loop: replace ``Learner`` by yours.

    python recipes/prompts.py --sampler proportional --csv prompts.csv
"""

import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

import prioritized_replay as per


@dataclass(frozen=True, kw_only=True)
class Config:
    """Draw prompts for a simulated learner, and count the groups that taught it something."""

    steps: int = 60_000
    """Groups drawn in all."""
    seed: int = 1
    """Of prompts, answers and draws."""
    sampler: Literal["proportional", "rank", "uniform"] = "proportional"
    """How prompts are drawn."""
    csv: Path | None = None
    """Where to write step and useful groups per 1,000 drawn since the line before."""
    evaluate_every: int = 1_000
    """Groups between lines."""
    threads: int = 1
    """Unused: the other recipes have it."""
    prompts: int = 5_000
    """Prompts in the data set."""
    batch_size: int = 50
    """Groups of a step."""
    answers: int = 8
    """Answers of a group, G."""
    spread: float = 4.0
    """Standard deviation of the difficulties, which are normal around 0."""
    first_skill: float = -6.0
    """Skill at the start: few prompts are within reach."""
    learning_rate: float = 0.01
    """What a step full of groups with half of the answers right adds to the skill."""
    uniform_mix: float = 0.1
    """Share of draws that look anywhere: what was out of reach may be within it now."""
    alpha: float = 1.0
    """1 draws in proportion to p (1 - p)."""


class Learner:
    """A simulated model: its skill against the difficulties of the prompts."""

    def __init__(self, config: Config) -> None:
        self.rng = np.random.default_rng(config.seed)
        self.difficulty = self.rng.normal(0.0, config.spread, config.prompts)
        self.skill, self.learning_rate = config.first_skill, config.learning_rate

    def answer(self, prompts: NDArray[np.int64], count: int) -> NDArray[np.float64]:
        """Answer each of B prompts G times; return the rewards, float64[B, G]: 1 right, 0 wrong."""
        chance: NDArray[np.float64] = 1.0 / (1.0 + np.exp(self.difficulty[prompts] - self.skill))
        return np.where(self.rng.random((prompts.size, count)) < chance[:, None], 1.0, 0.0)

    def learn(self, rewards: NDArray[np.float64]) -> None:
        """Gain skill from the spread of each group: none where all answers are alike."""
        self.skill += self.learning_rate * 4.0 * float(rewards.var(1).mean())


def worth(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p (1 - p) of each group, float64[B], from rewards[B, G] that are 0 or 1."""
    p: NDArray[np.float64] = rewards.mean(1)
    return p * (1.0 - p)


def useful(rewards: NDArray[np.float64]) -> int:
    """Count the groups whose answers are not all alike (reward std > 0)."""
    return int(np.count_nonzero(rewards.std(1) > 0.0))


def main(config: Config) -> list[tuple[int, float, float]]:
    """Return the curve: groups drawn, useful ones per 1,000, and skill."""
    # eps = 0: a prompt without any spread is drawn by the uniform share only.
    samplers: dict[str, Any] = {
        "proportional": per.Proportional(config.alpha, eps=0.0, uniform_mix=config.uniform_mix),
        "rank": per.RankBased(config.alpha, uniform_mix=config.uniform_mix),
        "uniform": per.Uniform(),
    }
    learner = Learner(config)
    index = per.PrioritizedIndex(config.prompts, samplers[config.sampler], seed=config.seed)
    # Nothing is known of a prompt yet: hope for the best, which is p = 1/2. Its first group tells.
    index.append(td_errors=np.full(config.prompts, 0.25))

    curve: list[tuple[int, float, float]] = []
    count, since, drawn, started = 0, 0, 0, time.monotonic()
    while drawn < config.steps:
        draw = index.sample(config.batch_size)  # which rows of the data set
        rewards = learner.answer(draw.ids, config.answers)
        learner.learn(rewards)
        # No weights: prompts in reach are to come more often, and nothing undoes it.
        index.update_priorities(draw.ids, worth(rewards))
        drawn, count, since = drawn + len(draw), count + useful(rewards), since + len(draw)
        if since >= config.evaluate_every or drawn >= config.steps:
            curve.append((drawn, 1_000 * count / since, learner.skill))
            count, since = 0, 0
    rate = drawn / (time.monotonic() - started)
    mean = np.mean([per_thousand for _, per_thousand, _ in curve])
    print(
        f"{drawn:,} groups: {mean:.0f} useful ones per 1,000, "
        f"skill {learner.skill:.2f}, {rate:,.0f} groups/s"
    )
    if config.csv is not None:
        with config.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("step", "return", "skill"), *curve])
    return curve


if __name__ == "__main__":
    main(tyro.cli(Config))
