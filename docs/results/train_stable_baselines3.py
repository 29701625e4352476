"""Train Stable-Baselines3 with prioritized and with uniform replay, and draw the curves.

    python docs/results/train_stable_baselines3.py run
    python docs/results/train_stable_baselines3.py draw

``run`` trains what is missing, two runs at a time; ``draw`` writes ENV.csv and ENV.png.
A run that has ended has its evaluations in ``docs/results/stable_baselines3/ENV_ARM_SEED.csv``.
Settings are those of Stable-Baselines3's zoo. HalfCheetah has smaller networks and batches than
there, and a tenth of the steps: one processor trains it.
"""

import argparse
import csv
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "stable_baselines3"
COLUMNS = ("step", "mean_return", "updates", "process_seconds")
EPISODES = 10
UNIFORM, PROPORTIONAL = "uniform", "proportional"
COLOURS = {PROPORTIONAL: "#2a6fbb", UNIFORM: "#d9622b"}


@dataclass(frozen=True)
class Task:
    """One environment, and how it is trained."""

    algorithm: str
    steps: int
    evaluate_every: int
    settings: dict[str, Any]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    arms: tuple[str, ...] = (PROPORTIONAL, UNIFORM)


TASKS = {
    "CartPole-v1": Task(
        "DQN",
        50_000,
        2_000,
        {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            "gamma": 0.99,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
    "Pendulum-v1": Task("SAC", 8_000, 500, {"learning_rate": 1e-3}),
    "HalfCheetah-v5": Task(
        "SAC",
        100_000,
        5_000,
        {
            "batch_size": 128,
            "learning_starts": 10_000,
            "policy_kwargs": {"net_arch": [128, 128]},
        },
        seeds=(0,),
        arms=(PROPORTIONAL,),
    ),
}


def runs() -> list[tuple[str, str, int]]:
    """Every run there is, in the order in which they are trained."""
    return [
        (env, arm, seed) for env, task in TASKS.items() for seed in task.seeds for arm in task.arms
    ]


def file_of(env: str, arm: str, seed: int) -> Path:
    return FOLDER / f"{env}_{arm}_{seed}.csv"


def train_missing() -> None:
    """Train the runs without a file, two processes at a time."""
    missing = [run for run in runs() if not file_of(*run).exists()]

    def train_one(run: tuple[str, str, int]) -> None:
        env, arm, seed = run
        began = time.monotonic()
        ended = subprocess.run([sys.executable, __file__, "train", env, arm, str(seed)])
        said = "done" if ended.returncode == 0 else f"failed with {ended.returncode}"
        minutes = (time.monotonic() - began) / 60
        print(f"{env} {arm} {seed}: {said} after {minutes:.1f} minutes", flush=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train_one, missing))


def train(env: str, arm: str, seed: int) -> None:
    """Train one run; its file appears when it has ended."""
    import gymnasium
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    from prioritized_replay.integrations import stable_baselines3 as prioritized

    torch.set_num_threads(1)
    task = TASKS[env]
    kinds = {
        UNIFORM: getattr(stable_baselines3, task.algorithm),
        PROPORTIONAL: getattr(prioritized, f"Prioritized{task.algorithm}"),
    }
    judged = Monitor(gymnasium.make(env))
    judged.reset(seed=10_000 + seed)
    rows: list[tuple[str, ...]] = []

    class Evaluations(BaseCallback):
        """Ten episodes every so many steps; their time does not count."""

        spent = 0.0

        def _on_step(self) -> bool:
            if self.num_timesteps % task.evaluate_every == 0:
                began = time.process_time()
                mean, _ = evaluate_policy(self.model, judged, EPISODES)
                updates = self.model._n_updates
                self.spent += time.process_time() - began
                own = time.process_time() - started - self.spent
                rows.append((str(self.num_timesteps), f"{mean:.6g}", str(updates), f"{own:.4g}"))
            return True

    model = kinds[arm]("MlpPolicy", env, seed=seed, device="cpu", **task.settings)
    started = time.process_time()
    model.learn(task.steps, callback=Evaluations(), log_interval=None)
    FOLDER.mkdir(exist_ok=True)
    write(file_of(env, arm, seed), COLUMNS, rows)


def write(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    beside = path.with_suffix(".part")
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows((columns, *rows))
    beside.replace(path)


def draw() -> None:
    """Put the runs that have ended together."""
    import numpy as np
    from matplotlib.figure import Figure

    def curve(run: tuple[str, str, int]) -> dict[str, Any]:
        with file_of(*run).open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        return {name: np.array([float(line[name]) for line in lines]) for name in COLUMNS}

    curves = {run: curve(run) for run in runs() if file_of(*run).exists()}
    summaries: dict[str, list[tuple[str, ...]]] = {}
    for (env, arm, seed), of in curves.items():
        values = {
            "final return": of["mean_return"][-1],
            "best return": of["mean_return"].max(),
            "mean of all evaluations": of["mean_return"].mean(),
            "steps per second of processor": of["step"][-1] / of["process_seconds"][-1],
        }
        summaries.setdefault(env, []).extend(
            (arm, str(seed), measure, f"{value:.6g}") for measure, value in values.items()
        )
    for env, summary in summaries.items():
        write(FOLDER / f"{env}.csv", ("arm", "seed", "measure", "value"), summary)
    for env, task in TASKS.items():
        figure = Figure(figsize=(8, 4.2), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        for arm in task.arms:
            own = [of for (name, which, _), of in curves.items() if (name, which) == (env, arm)]
            for of in own:
                axes.plot(of["step"], of["mean_return"], color=COLOURS[arm], lw=0.8, alpha=0.35)
            if own:
                middle = np.median([of["mean_return"] for of in own], axis=0)
                kind = f"Prioritized{task.algorithm}" if arm == PROPORTIONAL else task.algorithm
                label = f"{kind}: median of {len(own)} seeds" if own[1:] else f"{kind}, one seed"
                axes.plot(own[0]["step"], middle, color=COLOURS[arm], lw=2.2, label=label)
        if not axes.lines:
            continue
        axes.set_title(env, loc="left")
        axes.set_xlabel("environment steps")
        axes.set_ylabel(f"return, mean of {EPISODES} episodes")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=9)
        figure.savefig(FOLDER / f"{env}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="train what is missing, two runs at a time")
    commands.add_parser("draw", help="write a summary and a figure for each environment")
    one = commands.add_parser("train", help="train one run")
    one.add_argument("env", choices=TASKS)
    one.add_argument("arm", choices=COLOURS)
    one.add_argument("seed", type=int)
    words = parser.parse_args()
    if words.command == "run":
        train_missing()
    elif words.command == "draw":
        draw()
    else:
        train(words.env, words.arm, words.seed)


if __name__ == "__main__":
    main()
