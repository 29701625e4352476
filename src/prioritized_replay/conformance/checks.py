"""Whether a contender does what it is timed for: the rows it draws, their weights, its updates.

Knows the three laws and what follows from them; takes no library's word for it. A contender that
is broken, or used wrongly, is fast for the wrong reason.
"""

from __future__ import annotations

import math

import numpy as np

from prioritized_replay.conformance.stacks import Stacks
from prioritized_replay.conformance.subject import BETA, Drawn, Subject
from prioritized_replay.conformance.workload import Floats, Workload

BATCH, BATCHES = 256, 64
LARGEST_Z = 5.0  # one in a million for an honest contender
WEIGHT_TOLERANCE = 2e-3  # float32 trees, and powers of them
BOOST = 1e9  # a TD error beside which those of the workload are nothing


class Invalid(RuntimeError):
    """A contender whose results are wrong; its times would mean nothing."""


def check_draws(contender: Subject, workload: Workload, errors: Floats) -> str:
    """Check what a freshly filled memory draws: range, content, law and weights.

    Parameters
    ----------
    contender : Subject
        Filled with ``errors`` and not changed since.
    workload : Workload
        What it was filled from.
    errors : float64[N]
        The TD errors of its rows.

    Returns
    -------
    str
        What was found, for the record.

    Raises
    ------
    Invalid
        Saying what is wrong.

    Notes
    -----
    The law is judged by where in the order of masses the drawn rows lie, from 0 for the smallest
    to 1 for the largest: mean and spread of that follow from the law exactly, whatever its tail.
    Stratified draws only lie closer to the mean.
    """
    masses = contender.masses(errors)
    probabilities = masses / masses.sum()
    places = np.empty(errors.size)
    places[np.argsort(np.abs(errors))] = (np.arange(errors.size) + 0.5) / errors.size
    expected = float(probabilities @ places)
    deviation = math.sqrt(float(probabilities @ (places - expected) ** 2))
    drawn_places = []
    for _ in range(BATCHES):
        drawn = contender.seen(contender.sample(BATCH))
        check_batch(contender, drawn, BATCH)
        if not np.array_equal(drawn.actions, drawn.rows):
            raise Invalid(f"{contender.name} returns other rows than it says it drew")
        if not np.array_equal(drawn.obs, workload.obs_of(drawn.rows)):
            raise Invalid(f"{contender.name} returns observations that were not stored there")
        _check_next_obs(contender, drawn, workload)
        _check_weights(contender, drawn, probabilities)
        drawn_places.append(places[drawn.rows])
    z = (np.mean(drawn_places) - expected) / (deviation / math.sqrt(BATCH * BATCHES))
    if not abs(z) < LARGEST_Z:
        raise Invalid(f"{contender.name} does not draw by its law, {contender.law}: z = {z:.1f}")
    return f"{BATCH * BATCHES:,} draws follow the law, z = {z:+.1f}"


def _check_next_obs(contender: Subject, drawn: Drawn, workload: Workload) -> None:
    """Check what follows the rows, but for those that end an episode: no learner looks there."""
    if drawn.next_obs is None or not isinstance(workload, Stacks):
        return
    goes_on = ~workload.ends(drawn.rows) & (drawn.rows < contender.size - 1)
    wanted = workload.next_obs_of(drawn.rows[goes_on])
    if not np.array_equal(drawn.next_obs[goes_on], wanted):
        raise Invalid(f"{contender.name} returns next observations that were not stored there")


def check_batch(contender: Subject, drawn: Drawn, batch: int) -> None:
    """Check a batch of any state of the memory: size, range, finite weights.

    Raises
    ------
    Invalid
        Saying what is wrong.
    """
    if drawn.rows.shape != (batch,):
        raise Invalid(f"{contender.name} returns {drawn.rows.shape} rows of {batch}")
    if drawn.rows.min() < 0 or drawn.rows.max() >= contender.size:
        raise Invalid(f"{contender.name} draws rows outside of the memory")
    if contender.law == "uniform":
        return
    if drawn.weights is None or drawn.weights.shape != (batch,):
        raise Invalid(f"{contender.name} returns no weight for each row")
    if not (np.isfinite(drawn.weights).all() and (drawn.weights > 0).all()):
        raise Invalid(f"{contender.name} returns weights that are not finite and positive")


def _check_weights(contender: Subject, drawn: Drawn, probabilities: Floats) -> None:
    """Check that the weights are P**-beta, up to the factor that each library chooses."""
    if drawn.weights is None:
        return
    factors = drawn.weights * probabilities[drawn.rows] ** BETA
    if factors.max() > (1.0 + WEIGHT_TOLERANCE) * factors.min():
        raise Invalid(f"{contender.name} returns weights that do not follow from its law")


def check_update(contender: Subject) -> str:
    """Check that updates arrive: rows chosen here get a huge error and have to be drawn more often.

    Spoils the priorities, so it comes last. Nothing was added after the fill.

    Returns
    -------
    str
        What was found, for the record.

    Raises
    ------
    Invalid
        The rows are not drawn as often as they should be.
    """
    count = min(1024, contender.size // 100)
    rows = np.random.default_rng(0).choice(contender.size, count, replace=False)
    contender.update_rows(rows, np.full(count, BOOST, np.float32))
    expected = 1.0
    if contender.law == "rank":
        masses = contender.masses(np.arange(contender.size, 0.0, -1.0))
        expected = float(masses[:count].sum() / masses.sum())
    boosted = np.zeros(contender.size, bool)
    boosted[rows] = True
    hits = [boosted[contender.seen(contender.sample(BATCH)).rows].mean() for _ in range(BATCHES)]
    share = float(np.mean(hits))
    if not share > 0.7 * expected:
        raise Invalid(
            f"{contender.name} does not take updates: {share:.1%} of its draws are of rows that "
            f"should get {expected:.1%}"
        )
    return f"updated rows get {share:.1%} of the draws, {expected:.1%} by the law"
