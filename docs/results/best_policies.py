"""The best that can be got where the rules of an environment are in a table.

    python docs/results/best_policies.py [--output FILE]

Value iteration finds the best policy that does not count steps. It plays the episodes of the final
evaluation of ``per train ENV --seed 0`` to 4, from the same starts: what its mean is, a run with
that seed can reach and hardly exceed.
"""

import argparse
import csv
from pathlib import Path

import gymnasium
import numpy as np
import numpy.typing as npt
import torch

from prioritized_replay.dqn.networks import QNetwork
from prioritized_replay.training import Training, preset

HERE = Path(__file__).parent
ENVIRONMENTS = ("FrozenLake-v1", "CliffWalking-v1", "Taxi-v4")
SEEDS = range(5)
SWEEPS = 20_000
GAMMA = 0.99999  # as good as none: what is far away counts in full, and values converge


def best_values(env_id: str) -> npt.NDArray[np.float64]:
    """Return the value of each action in each state under the best policy, float64[S, A]."""
    rules = gymnasium.make(env_id).unwrapped.P  # type: ignore[attr-defined]
    states, actions = len(rules), len(rules[0])
    # Every action's outcomes, as many of them as the richest has; those added have no chance.
    width = max(len(outcomes) for of_state in rules.values() for outcomes in of_state.values())
    shape = (states, actions, width)
    chance, reward, goes_on = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    to = np.zeros(shape, np.int64)
    for state, of_state in rules.items():
        for action, outcomes in of_state.items():
            for k, (p, next_state, gain, terminated) in enumerate(outcomes):
                at = state, action, k
                chance[at], to[at], reward[at], goes_on[at] = p, next_state, gain, not terminated
    values = np.zeros((states, actions))
    for _ in range(SWEEPS):
        before = values
        values = (chance * (reward + GAMMA * goes_on * before.max(axis=1)[to])).sum(axis=2)
        if np.abs(values - before).max() < 1e-9:
            break
    return values


def final_return(env_id: str, seed: int, values: npt.NDArray[np.float64]) -> float:
    """Return the mean return of the policy that is greedy for these values."""
    training = Training(preset(env_id, seed=seed))
    network = training.agent.online_network
    assert isinstance(network, QNetwork)
    with torch.no_grad():  # a layer from one-hot states to values is a table
        weight, bias = network.parameters()
        weight.copy_(torch.from_numpy(values.T))
        bias.zero_()
    found = training.final_evaluation().mean
    training.close()
    return found


def main() -> None:
    """Write a line for each environment and seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=HERE / "best_policies.csv")
    output = parser.parse_args().output
    lines = [
        (env_id, seed, round(final_return(env_id, seed, values), 3))
        for env_id in ENVIRONMENTS
        for values in [best_values(env_id)]
        for seed in SEEDS
    ]
    with output.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("env_id", "seed", "mean"), *lines])


if __name__ == "__main__":
    main()
