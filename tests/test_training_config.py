"""The configuration: bounds, presets, plain values."""

import ast
import dataclasses
import inspect
import itertools
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import gymnasium
import pytest

from prioritized_replay.dqn import DQN
from prioritized_replay.training.bounds import kinds_of
from prioritized_replay.training.config import TrainConfig, TrainSettings
from prioritized_replay.training.presets import _QUICK, preset


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "steps must be >= 1, got 0"),
        ("seed", -1, "seed must be >= 0, got -1"),
        ("n_step", 0, "n_step must be >= 1, got 0"),
        ("capacity", 0, "capacity must be >= 1, got 0"),
        ("batch_size", 0, "batch_size must be >= 1, got 0"),
        ("target_period", 0, "target_period must be >= 1, got 0"),
        ("train_every", 0, "train_every must be >= 1, got 0"),
        ("updates_per_train", 0, "updates_per_train must be >= 1, got 0"),
        ("warmup", 0, "warmup must be >= 1, got 0"),
        ("warmup", 200_000, r"warmup must be <= capacity \(100000\), got 200000"),
        ("eval_every", 0, "eval_every must be >= 1, got 0"),
        ("eval_episodes", 0, "eval_episodes must be >= 1, got 0"),
        ("final_eval_episodes", 0, "final_eval_episodes must be >= 1, got 0"),
        ("threads", 0, "threads must be >= 1, got 0"),
        ("replay", "random", "replay must be one of rank, proportional, uniform, got 'random'"),
        ("loss", "l1", "loss must be one of huber, squared, got 'l1'"),
        ("precision", "half", "precision must be one of float32, bfloat16, got 'half'"),
        ("alpha", -0.5, "alpha must be >= 0, got -0.5"),
        ("beta_start", 1.5, r"beta_start must be in \[0, 1\], got 1.5"),
        ("beta_end", -0.1, r"beta_end must be in \[0, 1\], got -0.1"),
        ("priority_eps", -1.0, "priority_eps must be >= 0, got -1.0"),
        ("gamma", 1.01, r"gamma must be in \[0, 1\], got 1.01"),
        ("gamma", math.nan, r"gamma must be in \[0, 1\], got nan"),
        ("learning_rate", 0.0, "learning_rate must be > 0, got 0.0"),
        ("learning_rate", math.inf, "learning_rate must be <= 1,000,000.0, got inf"),
        ("learning_rate_end", -1e-3, "learning_rate_end must be >= 0, got -0.001"),
        ("gradient_clip", 0.0, "gradient_clip must be > 0, got 0.0"),
        ("tau", 0.0, r"tau must be in \(0, 1\], got 0.0"),
        ("epsilon_start", 1.1, r"epsilon_start must be in \[0, 1\], got 1.1"),
        ("epsilon_end", -0.1, r"epsilon_end must be in \[0, 1\], got -0.1"),
        ("epsilon_fraction", 2.0, r"epsilon_fraction must be in \[0, 1\], got 2.0"),
        ("eval_epsilon", 2.0, r"eval_epsilon must be in \[0, 1\], got 2.0"),
        ("hidden_sizes", (64, 0), "hidden_sizes must be >= 1, got 0"),
        ("envs", 0, "envs must be >= 1, got 0"),
        ("eval_max_steps", 0, "eval_max_steps must be >= 1, got 0"),
        ("sticky_actions", 1.5, r"sticky_actions must be in \[0, 1\], got 1.5"),
        ("optimizer_eps", 0.0, "optimizer_eps must be > 0, got 0.0"),
        ("optimizer", "sgd", "optimizer must be one of adam, rmsprop, got 'sgd'"),
        ("network", "cnn", "network must be one of auto, mlp, nature, light, small, got 'cnn'"),
        ("env_id", "", "env_id must be a non-empty text, got ''"),
        ("device", "", "device must be a non-empty text, got ''"),
    ],
)
def test_out_of_bounds(field, value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        TrainConfig(**{"env_id": "CartPole-v1", field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 1e5, "steps must be a whole number, got 100000.0"),
        ("steps", True, "steps must be a whole number, got True"),
        ("gamma", "0.9", "gamma must be a number, got '0.9'"),
        ("gamma", None, "gamma must be a number, got None"),
        ("double", 1, "double must be True or False, got 1"),
        ("clip_rewards", 1, "clip_rewards must be True or False, got 1"),
        ("envs", None, "envs must be a whole number, got None"),
        ("eval_max_steps", 1.5, "eval_max_steps must be a whole number, got 1.5"),
        ("hidden_sizes", 64, "hidden_sizes must be a tuple, got 64"),
        ("hidden_sizes", (6.5,), "hidden_sizes must be a whole number, got 6.5"),
    ],
)
def test_wrong_kind(field, value, message):
    with pytest.raises(TypeError, match=message):
        TrainConfig(**{"env_id": "CartPole-v1", field: value})


@pytest.mark.parametrize(
    "field",
    [
        *("alpha", "beta_start", "gradient_clip", "tau", "optimizer_eps"),
        *("eval_max_steps", "sticky_actions"),
    ],
)
def test_none_is_allowed_where_it_means_something(field):
    assert getattr(TrainConfig(**{"env_id": "CartPole-v1", field: None}), field) is None


@pytest.mark.parametrize(
    ("replay", "alpha", "beta"),
    [("rank", 0.7, 0.5), ("proportional", 0.6, 0.4), ("uniform", 0.0, 0.0)],
)
def test_exponents_default_to_the_papers(replay, alpha, beta):
    config = TrainConfig(env_id="CartPole-v1", replay=replay)

    assert (config.effective_alpha, config.effective_beta_start) == (alpha, beta)


def test_given_exponents_win():
    config = TrainConfig(env_id="CartPole-v1", alpha=0.0, beta_start=0.0)

    assert (config.effective_alpha, config.effective_beta_start) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({"steps": 100, "warmup": 10, "train_every": 1}, 91),
        ({"steps": 100, "warmup": 10, "train_every": 4, "updates_per_train": 2}, 46),
        ({"steps": 5, "warmup": 10}, 1),
    ],
)
def test_total_updates(settings, updates):
    assert TrainConfig(env_id="CartPole-v1", n_step=1, **settings).total_updates == updates


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1", "LunarLander-v3", "Taxi-v3"])
def test_plain_values_round_trip_through_json(env_id):
    config = preset(env_id, seed=3, tau=None)

    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_settings_get_near_names():
    with pytest.raises(ValueError, match=r"^unknown setting 'learning_rat'; near names: learning_"):
        preset("CartPole-v1", learning_rat=1.0)
    with pytest.raises(ValueError, match=r"^env_id is missing"):
        TrainConfig.from_dict({})


def test_overrides_win_over_the_preset():
    assert preset("CartPole-v1", steps=7).steps == 7
    assert preset("CartPole-v1").steps != preset("LunarLander-v3").steps


@pytest.mark.parametrize(
    ("replay", "exponents"), [("rank", (0.7, 0.5)), ("proportional", (0.6, 0.4))]
)
def test_the_papers_settings(replay, exponents):
    """Schaul et al. 2016, and what they took over: units of frames, steps and updates agree."""
    config = preset("ALE/Seaquest-v5", "paper", replay=replay)
    frames = 4 * config.steps

    assert (config.effective_alpha, config.effective_beta_start, config.beta_end) == (
        *exponents,
        1.0,
    )
    assert frames == 200_000_000
    assert (config.capacity, config.batch_size, config.train_every) == (1_000_000, 32, 4)
    assert config.learning_rate == config.learning_rate_end == 0.00025 / 4
    assert config.target_period * config.train_every == 30_000  # steps
    assert config.warmup == 0.05 * config.capacity
    assert config.epsilon_fraction * frames == 4_000_000
    assert (config.epsilon_start, config.epsilon_end, config.eval_epsilon) == (1.0, 0.01, 0.001)
    assert config.eval_max_steps * 4 == 108_000
    assert config.clip_rewards
    assert config.clip_td_errors
    assert config.end_on_life_loss
    assert config.double
    assert config.shared_bias
    assert config.sticky_actions == 0.0
    assert (config.n_step, config.gamma, config.tau, config.gradient_clip) == (1, 0.99, None, None)
    assert (config.network, config.optimizer, config.loss) == ("nature", "rmsprop", "huber")


def test_families_of_environments_have_settings_too():
    pong, breakout = preset("ALE/Pong-v5"), preset("MinAtar/Breakout-v1")

    assert pong == dataclasses.replace(preset("ALE/Breakout-v5"), env_id="ALE/Pong-v5")
    assert pong.clip_rewards
    assert pong.eval_max_steps == 27_000
    assert breakout.eval_max_steps == 5_000
    assert breakout.warmup > TrainConfig(env_id="MinAtar/Breakout-v1").warmup


def test_every_preset_is_named_where_people_look_for_it():
    """The tables of the documentation raise an error for an id without one."""
    page = (Path(__file__).parent.parent / "docs" / "cli.rst").read_text(encoding="utf-8")
    for name in _QUICK:
        assert name in preset.__doc__
        assert re.search(rf"^   {name}", page, re.MULTILINE)


@pytest.mark.parametrize("env_id", [name for name in _QUICK if not name.endswith("/")])
def test_a_preset_is_for_an_environment_that_there_is(env_id):
    """Its best model is chosen several times, and the last choice is after the last step."""
    gymnasium.spec(env_id)  # raises for a version that is not there any more
    config = preset(env_id)
    assert config != TrainConfig(env_id=env_id)
    assert config.steps % config.eval_every == 0
    assert config.steps >= 10 * config.eval_every


def test_presets_that_there_are_not():
    with pytest.raises(ValueError, match=r"^preset must be one of quick, paper, got 'best'"):
        preset("ALE/Pong-v5", "best")
    with pytest.raises(ValueError, match=r"^preset must be quick for CartPole-v1: the paper's is"):
        preset("CartPole-v1", "paper")


def test_every_field_has_a_text_below_it():
    """The command shows them as help."""
    body = ast.parse(inspect.getsource(TrainSettings)).body[0].body
    named = [
        node.target.id
        for node, below in itertools.pairwise(body)
        if isinstance(node, ast.AnnAssign)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    ]

    assert named == [field.name for field in dataclasses.fields(TrainConfig)]


NUMBERS = [
    name for name, (_, within, _) in kinds_of(TrainSettings).items() if within and name != "seed"
]


@pytest.mark.parametrize("field", [*NUMBERS, "seed"])
@pytest.mark.parametrize("value", [10**30, 1e300])
def test_every_number_has_an_upper_bound(field, value):
    """A file with ``"batch_size": 1e12`` is refused before anything is made of it."""
    given = (value,) if field == "hidden_sizes" else value
    whole = kinds_of(TrainSettings)[field][0] is int
    error = TypeError if whole and isinstance(value, float) else ValueError
    with pytest.raises(error, match=rf"^{field} must be .*got {re.escape(str(value))}$"):
        TrainConfig(**{"env_id": "CartPole-v1", field: given})


def test_no_number_of_the_configuration_was_left_without_bounds():
    numbers = {
        name for name, (kind, _, _) in kinds_of(TrainSettings).items() if kind in (int, float)
    }
    assert numbers == {*NUMBERS, "seed"}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((8,) * 101, "hidden_sizes must have at most 100 layers, got 101"),
        ((65_536,) * 3, "hidden_sizes must have at most 268,435,456 weights in between"),
    ],
)
def test_networks_that_no_machine_holds_are_refused(sizes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        TrainConfig(env_id="CartPole-v1", hidden_sizes=sizes)


def test_the_choices_of_a_configuration_are_those_of_the_agent():
    """They are declared once, where no torch is imported."""
    kinds = kinds_of(TrainSettings)
    for field in ("loss", "precision", "network", "optimizer"):
        own = get_args(kinds[field].type)
        theirs = get_type_hints(DQN.__init__)[field]
        choices = [kind for kind in (theirs, *get_args(theirs)) if get_origin(kind) is Literal]
        assert [get_args(kind) for kind in choices] == [own], field


@pytest.mark.slow
def test_a_configuration_is_read_without_torch():
    program = (
        "import sys; from prioritized_replay.training import TrainConfig\n"
        "sys.exit('loaded torch' if 'torch' in sys.modules else 0)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
