"""Handwritten digits with rare classes.

The paper's supervised task (Schaul et al. 2015, section 6 and appendix B.3): of the classes 0 to 4
only a small share of the training images is kept, and the test set is balanced. The paper used
MNIST; here it is scikit-learn's digits, 1,797 images of 8x8 pixels, which need no download.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

CLASSES = 10
RARE = 5  # classes 0 to 4
HELD_OUT = 40  # images of each class that are tested on


class Images(NamedTuple):
    """Images and what they show.

    Attributes
    ----------
    pixels : float32[N, 64]
        In [0, 1].
    labels : int64[N]
        Classes 0 to 9.
    """

    pixels: Floats
    labels: Ints

    def rows(self, which: Ints) -> Images:
        """Return some of the images."""
        return Images(self.pixels[which], self.labels[which])


@cache
def _digits() -> Images:
    from sklearn.datasets import load_digits

    found = load_digits()
    return Images((found.data / 16.0).astype(np.float32), found.target.astype(np.int64))


def split(rare_share: float, seed: int, *, tuning: bool = False) -> tuple[Images, Images]:
    """Return the training images of one seed, thinned, and the images to test on.

    The test images are the same for every seed. Which images of the rare classes are kept differs.

    Parameters
    ----------
    rare_share : float
        Share of the training images of classes 0 to 4 that is kept, in (0, 1]: rounded, at least
        one of each class.
    seed : int
        Decides which.
    tuning : bool
        Leave the test images alone, and test on others instead, which are taken out of the
        training images: to choose settings by.

    Returns
    -------
    training, test : Images
        40 images of each class are for the test.
    """
    digits = _digits()
    held_out, rest = _apart(digits.labels, np.random.default_rng(0))
    rng = np.random.default_rng([seed, tuning])
    if tuning:
        validation, left = _apart(digits.labels[rest], rng)
        held_out, rest = rest[validation], rest[left]
    kept = []
    for digit in range(CLASSES):
        of_class = rng.permutation(rest[digits.labels[rest] == digit])
        if digit < RARE:
            of_class = of_class[: max(1, round(rare_share * of_class.size))]
        kept.append(of_class)
    return digits.rows(np.concatenate(kept)), digits.rows(held_out)


def _apart(labels: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return the positions of HELD_OUT images of each class, and all others."""
    order = rng.permutation(labels.size)
    chosen = np.concatenate([order[labels[order] == c][:HELD_OUT] for c in range(CLASSES)])
    return chosen, np.setdiff1d(order, chosen)
