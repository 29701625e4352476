"""Whether values come back as what they were."""

from __future__ import annotations

import numpy as np

from prioritized_replay.conformance.memory import NotClaimed
from prioritized_replay.conformance.scenario import scenario
from prioritized_replay.conformance.trial import Trials, require


@scenario(
    "Images of uint8 come back as uint8, bit for bit.",
    source="DLR-RM/stable-baselines3#37, chandar-lab/RLHive#89: images kept as float32",
)
def images_stay_uint8(trials: Trials) -> str:
    trial = trials.full(32, obs_shape=(3, 16, 16), obs_dtype="uint8")
    drawn, _ = trial.draw(64)
    require(drawn.obs.dtype == np.uint8, f"obs is {drawn.obs.dtype}")
    return f"64 images {drawn.obs.shape[1:]} of {drawn.obs.dtype}"


@scenario(
    "Observations of float64 keep their precision.",
    source="DLR-RM/stable-baselines3#720, thu-ml/tianshou#65: not the dtype of the data",
)
def float64_keeps_its_precision(trials: Trials) -> str:
    trial = trials.full(32, obs_shape=(3,), obs_dtype="float64")
    drawn, _ = trial.draw(64)
    return f"obs is {drawn.obs.dtype}, equal to the last bit"


@scenario(
    "Integer observations of 32 bits keep all of them.",
    source="DLR-RM/stable-baselines3#40: every observation kept as float32",
)
def int32_observations_are_exact(trials: Trials) -> str:
    drawn, _ = trials.full(32, obs_shape=(3,), obs_dtype="int32").draw(64)
    return f"obs is {drawn.obs.dtype}, numbers above 2**30"


@scenario(
    "Integer observations of 64 bits keep all of them.",
    source="DLR-RM/stable-baselines3#484; Gymnasium: Discrete spaces are int64",
)
def int64_observations_are_exact(trials: Trials) -> str:
    drawn, _ = trials.full(32, obs_shape=(3,), obs_dtype="int64").draw(64)
    return f"obs is {drawn.obs.dtype}, numbers above 2**60"


@scenario(
    "Boolean observations come back as they were.",
    source="Gymnasium: MultiBinary spaces",
)
def boolean_observations(trials: Trials) -> str:
    drawn, _ = trials.full(32, obs_shape=(40,), obs_dtype="bool").draw(64)
    return f"obs is {drawn.obs.dtype}"


@scenario(
    "An observation may be a single number.",
    source="Gymnasium: FrozenLake, Taxi and other Discrete observations",
)
def observations_without_axes(trials: Trials) -> str:
    drawn, _ = trials.full(32, obs_shape=(), obs_dtype="int64").draw(64)
    return f"obs has shape {np.shape(drawn.obs)}"


@scenario(
    "Discrete actions come back as integers.",
    source="torch.gather refuses float32; LAP-PAL keeps actions as float64",
)
def actions_stay_integers(trials: Trials) -> str:
    drawn, _ = trials.full(32).draw(64)
    kind = np.asarray(drawn.action).dtype
    require(kind.kind in "iu", f"action is {kind}")
    return f"action is {kind}"


@scenario(
    "Integer actions above 2**24 are not rounded.",
    source="DLR-RM/stable-baselines3#40: actions kept as float32, which is exact up to 2**24",
)
def large_actions_are_exact(trials: Trials) -> str:
    trial = trials.new(capacity=32, first=2**24 + 1)
    trial.add(32)
    return trial.holds(columns=["action"])


@scenario(
    "Continuous actions of several numbers come back as they were.",
    source="Gymnasium: Box action spaces; actions cast to integers",
)
def continuous_actions(trials: Trials) -> str:
    trial = trials.full(32, action_shape=(3,), action_dtype="float32")
    return trial.holds(columns=["action"])


@scenario(
    "The error of each row may come as a column, (B, 1): it is taken as B errors, or refused.",
    source="argsort(axis=1) of an (N, 1) array; stable-baselines3 and AgileRL return columns",
    laws=("proportional", "rank"),
)
def errors_as_a_column(trials: Trials) -> str:
    trial, errors = trials.full(32), trials.errors(32)
    trial.cover()
    for ids, numbers in trial.kept:
        try:
            trial.memory.update(ids, errors[numbers][:, None])
        except (ValueError, TypeError, IndexError) as refusal:
            return f"refused: {refusal}"
    return trial.follows(trial.masses(errors))


@scenario(
    "Errors of float32 are taken like those of float64.",
    source="PyTorch: networks compute in float32",
    laws=("proportional", "rank"),
)
def errors_of_float32(trials: Trials) -> str:
    trial, errors = trials.full(32), trials.errors(32)
    trial.cover()
    for ids, numbers in trial.kept:
        trial.memory.update(ids, errors[numbers].astype(np.float32))
    return trial.follows(trial.masses(errors))


@scenario(
    "Weights are floating, one for each row.",
    source="rlcode/per#3: a product of (B,) and (B, 1) is (B, B)",
)
def one_weight_for_each_row(trials: Trials) -> str:
    drawn, _ = trials.full(32).draw(16)
    if drawn.weights is None:
        raise NotClaimed("it computes no weights")
    weights = np.asarray(drawn.weights)
    shapes = np.shape(drawn.reward), weights.shape
    require(weights.dtype.kind == "f" and weights.size == 16, f"{weights.dtype}{weights.shape}")
    require(shapes[0] == shapes[1], f"rewards have shape {shapes[0]}, weights {shapes[1]}")
    return f"{weights.dtype}{list(weights.shape)}, as the rewards"
