"""``per evaluate``: how good the saved model of a run is, and an episode of it as a GIF.

Knows the run's folder, evaluation and recording; knows no command line.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from prioritized_replay.dqn.acting import greedy_actions
from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.dqn.networks import make_network
from prioritized_replay.envs.make import make_env, spec_of, step_limit
from prioritized_replay.envs.recording import Recording, record_gif
from prioritized_replay.runs.console import say
from prioritized_replay.runs.files import replace_file
from prioritized_replay.runs.folder import Model, RunFolder
from prioritized_replay.training.bounds import Within
from prioritized_replay.training.config import LARGEST_SEED, MOST_EPISODE_STEPS, MOST_EPISODES
from prioritized_replay.training.evaluation import (
    DEFAULT_MAX_STEPS,
    Evaluation,
    default_max_steps,
    evaluate,
)


def evaluate_run(
    path: Path,
    *,
    episodes: int,
    model: Model,
    seed: int,
    max_steps: int | None = None,
    named: Collection[str] = (),
    gif: Path | None,
    console: Console,
) -> None:
    """Evaluate a saved model and say how good it is; record an episode if asked to.

    Parameters
    ----------
    path : pathlib.Path
        The run's folder.
    episodes : int
        How many are played.
    model : {"best", "last"}
    seed : int
        Fixes the episodes.
    max_steps : int, optional
        Steps after which an episode is cut off; by default as in the run's own evaluations.
    named : collection of str
        Environments whose modules may be imported, see :meth:`RunFolder.open`.
    gif : pathlib.Path or None
        The file for one more episode.
    console : rich.console.Console

    Raises
    ------
    FileNotFoundError
        ``path`` is not a run, has no such model, or there is no folder for the recording.
    ValueError
        A number is out of bounds, the run is damaged, or the environment cannot be used.
    ImportError
        The environment needs a package that is not installed.
    """
    Within(1, MOST_EPISODES).check("episodes", episodes, int)
    Within(0, LARGEST_SEED).check("seed", seed, int)
    if max_steps is not None:
        Within(1, MOST_EPISODE_STEPS).check("max_steps", max_steps, int)
    if gif is not None and gif.suffix.lower() != ".gif":
        raise ValueError(f"gif must name a file that ends in .gif, got {gif}")
    if gif is not None and not gif.parent.is_dir():
        raise FileNotFoundError(f"{gif} cannot be written: there is no folder {gif.parent}")
    folder = RunFolder.open(path, named=named)
    config = folder.config
    env_id = config.env_id
    max_steps = config.eval_max_steps if max_steps is None else max_steps
    torch.set_num_threads(config.threads)  # as in training: more would mostly wait for each other
    env = make_env(env_id, sticky_actions=config.sticky_actions)
    conversion = Conversion(env.observation_space, env.action_space)
    network = make_network(
        env.observation_space,
        env.action_space,
        network=config.network,
        hidden_sizes=config.hidden_sizes,
        dueling=config.dueling,
        shared_bias=config.shared_bias,
    )
    env.close()
    network.load_state_dict(folder.load_model(model, like=network.state_dict()))
    with console.status(f"playing {episodes} episodes"):
        evaluation = evaluate(
            network,
            env_id,
            episodes,
            seed,
            epsilon=config.eval_epsilon,
            max_steps=max_steps,
            sticky_actions=config.sticky_actions,
        )
    say(console, f"{path}: {model} model, {episodes} episodes of {env_id}, seed {seed}")
    if max_steps is None:
        say_default_limit(console, env_id, "--max-steps")
    say_scores(console, evaluation, spec_of(env_id).reward_threshold)
    if gif is None:
        return

    def policy(observation: Any) -> int:
        observations, _ = conversion.observations(observation)
        best = greedy_actions(network, conversion, observations)[0]
        return conversion.first_action + int(best)

    limit = max_steps or step_limit(env_id) or DEFAULT_MAX_STEPS
    recordings: list[Recording] = []
    with console.status("recording an episode"):
        replace_file(
            gif,
            lambda file: recordings.append(
                record_gif(
                    policy,
                    env_id,
                    file,
                    seed=seed,
                    sticky_actions=config.sticky_actions,
                    max_steps=limit,
                )
            ),
        )
    (recording,) = recordings
    size = f"{recording.size / 1024:,.0f} KiB"
    say(console, f"  {gif}: one episode, return {recording.episode_return:.1f}, {size}")


def say_default_limit(console: Console, env_id: str, option: str | None = None) -> None:
    """Say it if evaluations cut off episodes only because the environment has no time limit."""
    if (limit := default_max_steps(env_id)) is not None:
        hint = "" if option is None else f"; {option} sets another number"
        say(
            console,
            f"{env_id} has no time limit: an evaluation cuts an episode off after {limit:,} "
            f"steps{hint}.",
        )


def say_scores(console: Console, evaluation: Evaluation, threshold: float | None) -> None:
    """Print the scores of an evaluation, one a line."""
    low, high = evaluation.interval
    returns, lengths = evaluation.returns, evaluation.lengths
    rows = [
        ("mean return", evaluation.mean, f"95 % interval {low:.1f} to {high:.1f}"),
        ("IQM", evaluation.iqm, "mean of the middle half"),
        ("std", evaluation.std, f"from {returns.min():.1f} to {returns.max():.1f}"),
        ("steps", lengths.mean(), "per episode"),
    ]
    if evaluation.capped:
        rows.append(
            ("cut off", float(evaluation.capped), f"episodes, after {lengths.max():,} steps")
        )
    if threshold is not None:
        verdict = "reached" if evaluation.mean >= threshold else "not reached"
        rows.append(("solved at", threshold, verdict))
    for name, value, remark in rows:
        number = Text(f"{value:>8.1f}", style="bold" if name == "mean return" else "")
        console.print(Text.assemble(f"  {name:<12}", number, f"   {remark}"), soft_wrap=True)
