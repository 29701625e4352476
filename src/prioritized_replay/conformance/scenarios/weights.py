"""Whether importance weights undo the bias of the draw."""

from __future__ import annotations

import numpy as np

from prioritized_replay.conformance.memory import NotClaimed
from prioritized_replay.conformance.scenario import scenario
from prioritized_replay.conformance.trial import Trials, require

PAPER = "Schaul et al. 2015"
TOLERANCE = 2e-3  # powers of sums in float32


@scenario(
    "Weights are in proportion to P(i)**-beta.",
    source=f"{PAPER}, section 3.4; tensorforce#267 and others compute none",
)
def weights_follow_from_the_law(trials: Trials) -> str:
    trial = trials.full(16)
    errors = trials.errors(16)
    if trials.law != "uniform":
        trial.assign(errors)
    factors = trial.weights(beta=0.4) * trial.masses(errors) ** 0.4
    spread = factors.max() / factors.min() - 1.0
    require(spread < TOLERANCE, f"w P**beta differs between rows by {spread:.2%}")
    return f"w P**beta is the same for all rows, to {spread:.1e}"


@scenario(
    "Weights follow from the chances with which rows are really drawn, not from a nominal formula.",
    source=f"{PAPER}, sections 3.3 and 3.4: by segments, or by a heap, P is not rank**-alpha",
)
def weights_match_the_draws(trials: Trials) -> str:
    trial = trials.full(16)
    if trials.law != "uniform":
        trial.assign(trials.errors(16))
    return trial.follows(1.0 / trial.weights(beta=1.0), draws=32_768)


@scenario(
    "No weight exceeds 1: weights only scale updates down.",
    source=f"{PAPER}, section 3.4: divided by the largest; Kaixhin/Rainbow, baselines",
)
def no_weight_exceeds_one(trials: Trials) -> str:
    trial = trials.full(64)
    if trials.law != "uniform":
        trial.assign(trials.errors(64))
    largest = []
    for _ in range(50):
        drawn, _ = trial.draw(32, beta=0.6)
        if drawn.weights is None:
            raise NotClaimed("it computes no weights")
        largest.append(float(np.max(drawn.weights)))
    require(max(largest) <= 1.0 + 1e-6, f"a weight is {max(largest):.6g}")
    return f"the largest of 50 batches are from {min(largest):.3f} to {max(largest):.3f}"


@scenario(
    "With beta = 0 all weights are equal.",
    source=f"{PAPER}, section 3.4; baselines refuses beta = 0",
)
def beta_zero_corrects_nothing(trials: Trials) -> str:
    trial = trials.full(16)
    if trials.law != "uniform":
        trial.assign(trials.errors(16))
    weights = trial.weights(beta=0.0)
    require(np.ptp(weights) < 1e-6, f"weights from {weights.min():.4g} to {weights.max():.4g}")
    return f"all are {weights[0]:.4g}"


@scenario(
    "With beta = 1 the weighted mean over draws is the plain mean over rows.",
    source=f"{PAPER}, section 3.4: it fully compensates; rlcode/per#3",
)
def beta_one_corrects_all(trials: Trials) -> str:
    trial, errors = trials.full(16), trials.errors(16)
    if trials.law != "uniform":
        trial.assign(errors)
    shares = trial.masses(errors) * trial.weights(beta=1.0)
    mean = float(shares @ errors / shares.sum())
    off = abs(mean / errors.mean() - 1.0)
    require(off < TOLERANCE, f"the weighted mean of the errors is {off:.2%} off")
    return f"weighted mean {mean:.5f}, plain mean {errors.mean():.5f}"


@scenario(
    "Rows that are equally likely have equal weights.",
    source=f"{PAPER}, section 3.4",
    laws=("proportional", "uniform"),
)
def equal_rows_have_equal_weights(trials: Trials) -> str:
    weights = trials.full(16).weights(beta=0.7)
    require(np.ptp(weights) < 1e-6, f"weights from {weights.min():.4g} to {weights.max():.4g}")
    return f"all are {weights[0]:.4g}"


@scenario(
    "With alpha = 0 all weights are equal, whatever beta is.",
    source=f"{PAPER}, section 3.4",
    laws=("proportional", "rank"),
)
def alpha_zero_needs_no_weights(trials: Trials) -> str:
    trial = trials.full(16, alpha=0.0)
    trial.assign(trials.errors(16))
    weights = trial.weights(beta=1.0)
    require(np.ptp(weights) < 1e-6, f"weights from {weights.min():.4g} to {weights.max():.4g}")
    return f"all are {weights[0]:.4g}"


@scenario(
    "New errors change the weights of the next batch.",
    source="pytorch/rl#2239: weights were not refreshed",
    laws=("proportional", "rank"),
)
def weights_follow_new_errors(trials: Trials) -> str:
    trial, errors = trials.full(16), trials.errors(16)
    trial.assign(errors)
    trial.weights(beta=0.5)
    trial.assign(errors[::-1])
    factors = trial.weights(beta=0.5) * trial.masses(errors[::-1]) ** 0.5
    spread = factors.max() / factors.min() - 1.0
    require(spread < TOLERANCE, f"w P**beta differs between rows by {spread:.2%}")
    return f"w P**beta is the same for all rows, to {spread:.1e}"


@scenario(
    "Beta is what the caller says: drawing does not move it.",
    source="rlcode/per: + 0.001 with each draw; keras-rl#212: not at all",
    laws=("proportional", "rank"),
)
def drawing_does_not_move_beta(trials: Trials) -> str:
    trial, errors = trials.full(16), trials.errors(16)
    trial.assign(errors)
    for _ in range(1000):
        trial.memory.sample(8, 0.4)
    factors = trial.weights(beta=0.4) * trial.masses(errors) ** 0.4
    spread = factors.max() / factors.min() - 1.0
    require(spread < TOLERANCE, f"w P**0.4 differs between rows by {spread:.2%}")
    return "after 1,000 draws weights are still P**-0.4"


@scenario(
    "Slots that are not filled yet have no part in the weights.",
    source="MorvanZhou/Reinforcement-learning-with-tensorflow#183: the smallest leaf is an empty 0",
)
def empty_slots_do_not_count(trials: Trials) -> str:
    trial = trials.new(capacity=1000)
    trial.add(16)
    errors = trials.errors(16)
    if trials.law != "uniform":
        trial.assign(errors)
    weights = trial.weights(beta=0.5)
    factors = weights * trial.masses(errors) ** 0.5
    require(np.ptp(factors) < TOLERANCE * factors.max(), f"w P**beta: {factors[:3]}")
    require(weights.max() > 1e-3, f"the largest weight is {weights.max():.3g}")
    return f"16 rows of 1,000: weights from {weights.min():.3f} to {weights.max():.3f}"


@scenario(
    "Undivided weights are (N P)**-beta, with N the number of rows and not the capacity.",
    source=f"{PAPER}, section 3.4; Kaixhin/Atari takes a fixed N",
)
def n_is_the_number_of_rows(trials: Trials) -> str:
    trial = trials.new(capacity=1000, raw_weights=True)
    trial.add(16)
    errors = trials.errors(16)
    if trials.law != "uniform":
        trial.assign(errors)
    expected = (16 * trial.masses(errors) / trial.masses(errors).sum()) ** -0.5
    off = float(np.max(np.abs(trial.weights(beta=0.5) / expected - 1.0)))
    require(off < TOLERANCE, f"a weight is {off:.2%} off")
    return f"all weights to {off:.1e}"


@scenario(
    "Weights stay finite and positive where errors differ by a factor of 1e9.",
    source="pytorch/rl#2215: weights of 1e-8; rlpyt#102",
    laws=("proportional", "rank"),
)
def weights_are_finite(trials: Trials) -> str:
    trial = trials.full(64)
    trial.assign(10.0 ** np.linspace(-6, 3, 64))
    low = []
    for _ in range(100):
        drawn, _ = trial.draw(32, beta=1.0)
        if drawn.weights is None:
            raise NotClaimed("it computes no weights")
        weights = np.asarray(drawn.weights, float)
        require(np.isfinite(weights).all() and weights.min() > 0.0, f"{weights.min()} is a weight")
        low.append(weights.min())
    return f"100 batches; the smallest weight is {min(low):.3g}"
