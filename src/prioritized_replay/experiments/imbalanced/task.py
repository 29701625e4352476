"""A classifier of digits with rare classes, and four ways to draw its minibatches.

Knows the networks and the arms; knows nothing of files, figures or progress.

Several seeds are trained side by side, as one stack of small networks: that is much faster than one
by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import WeightedRandomSampler

from prioritized_replay import PrioritizedIndex, Proportional, Uniform
from prioritized_replay.experiments.imbalanced.digits import CLASSES, RARE, Images, split
from prioritized_replay.integrations.torch_data import PrioritizedBatchSampler

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Arm = Literal["uniform", "proportional", "corrected", "weighted"]

HIDDEN = 32
BATCH_SIZE = 64
EVALUATIONS = 20


@dataclass(frozen=True)
class Settings:
    """What was chosen for an arm, on other seeds and other test images than those reported.

    Attributes
    ----------
    step_size : float
        Of plain stochastic gradient descent, as in the paper.
    alpha : float
        Exponent of the priorities; without effect where nothing is drawn by priority.
    """

    step_size: float
    alpha: float = 1.0


CHOSEN: dict[Arm, Settings] = {
    "uniform": Settings(1.0),
    "proportional": Settings(1.0, alpha=0.5),
    "corrected": Settings(1.0, alpha=0.5),
    "weighted": Settings(0.03),
}


class Networks:
    """A stack of S classifiers: 64 pixels, one hidden layer of rectified units, 10 classes.

    Parameters
    ----------
    seeds : sequence of int
        One for each network; its first values depend on nothing else.
    step_size : float
        Of gradient descent.
    """

    def __init__(self, seeds: Sequence[int], step_size: float) -> None:
        stacks: list[list[torch.Tensor]] = []
        for seed in seeds:
            rng = torch.Generator().manual_seed(seed)
            stacks.append(
                [  # as torch.nn.Linear begins
                    inputs**-0.5 * (2.0 * torch.rand(rows, outputs, generator=rng) - 1.0)
                    for inputs, outputs in ((64, HIDDEN), (HIDDEN, CLASSES))
                    for rows in (inputs, 1)
                ]
            )
        self._parameters = [torch.stack(p).requires_grad_() for p in zip(*stacks, strict=True)]
        self._step_size = step_size

    def losses(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the negative log-likelihoods, float32[S, B], of B images for each network."""
        return cross_entropy(
            self._logits(pixels).flatten(0, 1), labels.flatten(), reduction="none"
        ).view(labels.shape)

    def learn(self, losses: torch.Tensor, weights: torch.Tensor) -> None:
        """Take one step down the mean of the weighted losses, each network for itself."""
        gradients = torch.autograd.grad((weights * losses).mean(1).sum(), self._parameters)
        with torch.no_grad():
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=self._step_size)

    @torch.no_grad()
    def wrong(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return which images each network takes for something else, bool[S, N]."""
        return self._logits(pixels).argmax(2) != labels

    def _logits(self, pixels: torch.Tensor) -> torch.Tensor:
        first, first_bias, second, second_bias = self._parameters
        hidden = torch.baddbmm(first_bias, pixels, first).relu()
        return torch.baddbmm(second_bias, hidden, second)


class _Drawing:
    """The minibatches of one seed and one arm: positions, weights, and what becomes of losses."""

    def __init__(self, arm: Arm, labels: Ints, alpha: float, steps: int, seed: int) -> None:
        self._corrected = arm == "corrected"
        self._index = None
        if arm == "weighted":
            of_class = np.bincount(labels, minlength=CLASSES)
            drawn = WeightedRandomSampler(
                (1.0 / of_class[labels]).tolist(),
                steps * BATCH_SIZE,
                generator=torch.Generator().manual_seed(seed),
            )
            self._batches: Iterator[Any] = iter(np.reshape(list(drawn), (steps, BATCH_SIZE)))
            return
        law = Uniform() if arm == "uniform" else Proportional(alpha=alpha)
        self._index = PrioritizedIndex(labels.size, law, seed=seed)
        self._index.append(labels.size)  # so ids are positions
        beta = 1.0 if self._corrected else 0.0
        self._sampler = PrioritizedBatchSampler(self._index, BATCH_SIZE, beta=beta, batches=steps)
        self._batches = iter(self._sampler)

    def draw(self) -> Ints:
        """Return positions in the training images, int64[B]."""
        return np.asarray(next(self._batches), np.int64)

    def weights(self, ids: Ints) -> torch.Tensor:
        """Return the weights of these losses, float32[B]."""
        return self._sampler.weights(ids) if self._corrected else torch.ones(BATCH_SIZE)

    def give_back(self, ids: Ints, losses: Floats) -> None:
        """Make the losses priorities, where something is drawn by them."""
        if self._index is not None:
            self._index.update_priorities(ids, losses)


@dataclass(frozen=True)
class Point:
    """One test during one training, a row of ``imbalanced.csv``.

    Attributes
    ----------
    rare_share, arm, seed
        See :class:`~prioritized_replay.experiments.imbalanced.command.ImbalancedConfig`.
    step : int
        Minibatches learnt from.
    error, rare_error : float
        Share of the test images that is classified wrongly; of those of classes 0 to 4.
    """

    rare_share: float
    arm: str
    seed: int
    step: int
    error: float
    rare_error: float


def evaluated_at(steps: int) -> list[int]:
    """Return after how many steps a training is tested: twenty times, the last at its end.

    Examples
    --------
    >>> evaluated_at(2_000)[:3], evaluated_at(2_000)[-1], evaluated_at(3)
    ([100, 200, 300], 2000, [1, 2, 3])
    """
    count = min(EVALUATIONS, steps)
    return [steps * k // count for k in range(1, count + 1)]


def train(
    arm: Arm,
    rare_share: float,
    seeds: Sequence[int],
    steps: int,
    settings: Settings | None = None,
    *,
    tuning: bool = False,
) -> list[Point]:
    """Train one network for each seed, with one way to draw minibatches.

    Training images and first parameters depend on the seed alone, so arms are compared on the same
    task.

    Parameters
    ----------
    arm : "uniform", "proportional", "corrected" or "weighted"
        Uniform draws; draws by the last loss of each image, as they are, or with full
        importance-sampling weights (beta = 1); torch's ``WeightedRandomSampler``, by one over the
        number of images of the class.
    rare_share : float
        See :func:`~prioritized_replay.experiments.imbalanced.digits.split`.
    seeds : sequence of int
        Trained side by side; none depends on another.
    steps : int
        Minibatches of 64 images.
    settings : Settings, optional
        By default those that were chosen for the arm.
    tuning : bool
        See :func:`~prioritized_replay.experiments.imbalanced.digits.split`.

    Returns
    -------
    list of Point
        In the order of seeds, then steps.

    Raises
    ------
    ValueError
        An unknown arm.
    """
    if arm not in get_args(Arm):
        raise ValueError(f"arm must be one of {', '.join(get_args(Arm))}, got {arm!r}")
    settings = CHOSEN[arm] if settings is None else settings
    networks = Networks(seeds, settings.step_size)
    training, tests = zip(*(split(rare_share, s, tuning=tuning) for s in seeds), strict=True)
    (pixels, labels), (test_pixels, test_labels) = _stacked(training), _stacked(tests)
    drawings = [
        _Drawing(arm, images.labels, settings.alpha, steps, seed)
        for images, seed in zip(training, seeds, strict=True)
    ]
    network = torch.arange(len(seeds))[:, None]
    moments, tested = set(evaluated_at(steps)), []
    for step in range(1, steps + 1):
        ids = np.stack([drawing.draw() for drawing in drawings])
        positions = torch.from_numpy(ids)
        losses = networks.losses(pixels[network, positions], labels[network, positions])
        weights = [drawing.weights(row) for drawing, row in zip(drawings, ids, strict=True)]
        networks.learn(losses, torch.stack(weights))
        for drawing, row, found in zip(drawings, ids, losses.detach().numpy(), strict=True):
            drawing.give_back(row, found)
        if step in moments:
            wrong = networks.wrong(test_pixels, test_labels).double()
            rare = (test_labels < RARE).double()
            tested.append((step, wrong.mean(1), (wrong * rare).sum(1) / rare.sum(1)))
    return [
        Point(rare_share, arm, seed, step, float(error[k]), float(rare_error[k]))
        for k, seed in enumerate(seeds)
        for step, error, rare_error in tested
    ]


def _stacked(images: Sequence[Images]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pixels, float32[S, N, 64], and labels, int64[S, N], of S sets of N images."""
    pixels, labels = zip(*images, strict=True)
    return torch.from_numpy(np.stack(pixels)), torch.from_numpy(np.stack(labels))
