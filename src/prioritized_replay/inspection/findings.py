"""What is wrong with a replay memory or a run, in words. Silent where nothing is.

Each rule is a few lines over plain numbers; its threshold stands here with the reason for it.
Knows portraits and records; draws and prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from prioritized_replay import Proportional
from prioritized_replay.inspection.portrait import Portrait
from prioritized_replay.inspection.record import Record

LEAST_ROWS = 16
"""Fewer rows are not judged: of a handful, any can be equal or far away by chance."""

SEEN_BATCHES = 8
"""Rows count as learnt from once so many batches of them were drawn: a prefetcher and a learner
hold two or three batches whose errors are still to come."""

SEEN_SHARE = 0.9
"""Or once this share of all rows was drawn, in a memory that is smaller than that."""

ONE_VALUE = 0.5
"""Share of the rows drawn that have one and the same priority, the highest of them. Real errors
are hardly ever equal; with errors clipped to [-1, 1], as the DQN papers do, a few per cent are.
Beyond half, the order among most rows is lost."""

OUTLIER_RATIO = 20.0
"""How far the highest priority is above 99 % of those that errors gave. Exponential errors have 2,
log-normal ones of sigma 1.5 have 4, Cauchy errors 30 but rarely with the share below."""

OUTLIER_SHARE = 0.05
"""Share of all draws that one row of that priority takes: 3 of a batch of 64. Below that an outlier
costs little, and its own next update ends it."""

ENTRY_SHARE = 0.2
"""Share of all draws that each new row takes until its own error comes. Errors that fall by 100 in
the course of a run make 7 % in a memory of 1,000 rows, and less in a larger one."""

LEAST_ERRORS = 20
"""Errors other than 0 from which 99 % can be told. In a task of sparse rewards there are few, and
that these come out on top is what prioritizing is for."""

STALE_LEAST = 100
"""Fewer updates that came too late are no flood."""

STALE_SHARE = 0.1
"""Share of a run's updates that came too late. Two batches drawn ahead make B * 2 / N, a few per
cent in the smallest memories that are of use."""

STALE_PER_ROW = 0.5
"""Updates that came too late for each row overwritten, where nobody counted the updates. It is
errors on their way / capacity: half the memory's worth of errors would be waiting somewhere."""

BETA_UPDATES = 100
"""Updates within which beta must have moved: of the longest schedule in use, 50 million updates,
that many are a step of 1e-6, and metrics have 8 digits."""

EQUAL_WEIGHTS = 1e-4
"""How near to the batch size the effective sample size is if all weights are equal: it is computed
in float32. With beta 0.01 and alpha 0.6 it is already further away."""

LEAST_REPORTS = 3
"""Reports of one kind that are no chance."""

ALIKE_MASS = 0.5
"""Chance that a draw is of one group of rows that are equally likely, or of rows that were never
drawn, which were so. A batch of such rows alone has equal weights, whatever beta is: with B >= 16
that is once in 65,536 below this."""

SPIKE_RATIO = 100.0
"""How far the mean error of one report is above the median report. Errors grow with the returns of
a task that is being learnt, by 10 or so, and not from one report to the next."""


class Finding(NamedTuple):
    """One thing that is wrong."""

    name: str
    text: str


NAMES = {
    "not_finite": "rewards not finite",
    "never_given_back": "errors never given back",
    "all_equal": "all priorities equal",
    "clipped": "errors of one value",
    "outlier": "one outlier",
    "stale": "flood of stale updates",
    "beta_stuck": "beta stuck",
    "weights_unused": "weights unused",
}
"""The findings there are, by name, in the order in which they are told."""


def findings(portrait: Portrait | None, record: Record | None) -> list[Finding]:
    """Return what is wrong, the first of each name; [] if nothing is known to be.

    Parameters
    ----------
    portrait : Portrait, optional
        Of the memory.
    record : Record, optional
        Of the run.
    """
    found: list[Finding] = []
    if portrait is not None:
        found += _of_memory(portrait, record)
    if record is not None:
        found += _of_run(record)
    names = {finding.name for finding in found}
    equal = names & {"never_given_back", "all_equal", "stale"}
    if equal and record is not None and record.last("beta"):
        names.discard("weights_unused")  # equal priorities make equal weights
    if "stale" in names:  # rows that wait for their errors still have the priority of new ones
        names -= {"never_given_back", "clipped"}
    first = {finding.name: finding for finding in reversed(found)}
    return [first[name] for name in NAMES if name in names]


def _of_memory(portrait: Portrait, record: Record | None) -> Iterator[Finding]:
    yield from _rewards(portrait)
    yield from _stale(portrait, record)
    if portrait.alpha > 0.0 and _learnt_from(portrait):
        yield from _priorities(portrait)
        yield from _last_weights(portrait)
    elif portrait.alpha > 0.0 and not portrait.census.drawn.any():
        yield from _without_draws(portrait)


def _rewards(portrait: Portrait) -> Iterator[Finding]:
    rewards = portrait.census.rewards
    if rewards is None or not rewards.size:
        return
    wrong = ~np.isfinite(rewards).reshape(len(rewards), -1).all(axis=1)
    if wrong.any():
        first = portrait.issued - len(rewards) + int(np.argmax(wrong))
        yield Finding(
            "not_finite",
            f"{wrong.sum():,} of {len(rewards):,} rewards are not finite, the first of them that "
            f"of id {first}: every error from such a row is refused, or ruins the network.",
        )


def _stale(portrait: Portrait, record: Record | None) -> Iterator[Finding]:
    stale = int(portrait.stats["stale_updates"])
    if stale < STALE_LEAST:
        return
    advice = "give errors back sooner, draw fewer batches ahead, or enlarge the memory"
    if record is not None and record.draws:
        if stale >= STALE_SHARE * record.draws:
            yield Finding(
                "stale",
                f"{stale:,} of {record.draws:,} updates ({stale / record.draws:.0%}) came after "
                f"their rows were overwritten: {advice}.",
            )
        return
    overwritten = max(portrait.issued - portrait.rows, 1)
    if stale >= STALE_PER_ROW * overwritten:
        yield Finding(
            "stale",
            f"{stale:,} updates came after their rows were overwritten, {stale / overwritten:.1f} "
            f"for each row that was: {advice}. Or ids are not those of the batch: slots, or "
            "positions in it, for example.",
        )


def _learnt_from(portrait: Portrait) -> bool:
    """Return whether so much was drawn that priorities should have come from errors."""
    census = portrait.census
    drawn = int(census.drawn.sum())
    enough = min(SEEN_BATCHES * max(census.last_batch, 1), SEEN_SHARE * portrait.size)
    return portrait.size >= LEAST_ROWS and drawn >= enough


def _priorities(portrait: Portrait) -> Iterator[Finding]:
    census, sampler = portrait.census, portrait.sampler
    priorities, drawn = census.priorities, census.priorities[census.drawn]
    eps, least = (float(getattr(sampler, name, 0.0)) for name in ("eps", "min_priority"))
    value = float(priorities[0])
    share = float(census.drawn.mean())
    if (priorities == value).all():
        all_of_them = f"All {portrait.size:,} {portrait.things}"
        if value == 1.0 and least < 1.0:
            yield Finding(
                "never_given_back",
                f"{all_of_them} still have priority 1, with which the first ones enter, although "
                f"{share:.0%} of them were drawn: errors are never given back, so draws are "
                "uniform. Call update_priorities(batch.ids, td_errors) after every update.",
            )
        elif value == least:
            yield Finding(
                "all_equal",
                f"{all_of_them} have priority {value:g}, which is min_priority: no error is above "
                "it, or none is given back. Draws are uniform.",
            )
        else:
            yield Finding(
                "all_equal",
                f"{all_of_them} have priority {value:g}, so draws are uniform: the errors that "
                "are given back are all the same. Are they a mean over the batch, or clipped?",
            )
        return
    top, floor = float(drawn.max()), max(eps, least)
    same = float((drawn == top).mean()) if top > floor else 0.0
    if same == 1.0:
        yield Finding(
            "all_equal",
            f"All {drawn.size:,} {portrait.things} that were drawn have priority {top:g}: the "
            "errors that are given back are all the same, or go to other ids than were drawn. Are "
            "they a mean over the batch, or clipped?",
        )
    elif same > ONE_VALUE:
        yield Finding(
            "clipped",
            f"{same:.0%} of the {portrait.things} drawn have the same priority {top:g}, the "
            "highest of them: errors are clipped to one value, or most are given back to other "
            "ids than were drawn. Clip less, or scale the rewards.",
        )
    if isinstance(sampler, Proportional):
        yield from _outlier(portrait, drawn[drawn > floor], sampler)


def _without_draws(portrait: Portrait) -> Iterator[Finding]:
    """Judge priorities that the caller gave with the rows, or to their ids, before any draw."""
    priorities, sampler = portrait.census.priorities, portrait.sampler
    if portrait.size < LEAST_ROWS:
        return
    value = float(priorities[0])
    least = float(getattr(sampler, "min_priority", 0.0))
    # The first row of a memory enters at 1, so each of these was given an error. Rows of a memory
    # that has overwritten some may all have entered at a largest priority that is gone.
    all_there = portrait.issued == portrait.rows
    if (priorities == value).all() and value not in (1.0, least) and all_there:
        yield Finding(
            "all_equal",
            f"All {portrait.size:,} {portrait.things} have priority {value:g}, so draws will be "
            "uniform: the errors that were given are all the same.",
        )
    elif isinstance(sampler, Proportional):
        yield from _outlier(portrait, priorities[priorities > max(sampler.eps, least)], sampler)


def _outlier(portrait: Portrait, errors: np.ndarray, sampler: Proportional) -> Iterator[Finding]:
    """Look for a priority far above those that errors gave, present or to come.

    By ranks it does not matter how far above.
    """
    if errors.size < LEAST_ERRORS:
        return
    census, entry = portrait.census, float(portrait.stats["largest_priority"])
    typical = float(np.quantile(errors, 0.99, method="lower"))  # of few, all but the highest
    advice = "Clip errors, look for the step that gave it, or use RankBased."

    def share_of(priority: float) -> float:
        """Return the share of draws that one row of this priority takes, or would take."""
        others = float(((census.priorities / priority) ** portrait.alpha).sum())
        others -= float((census.priorities == priority).any())
        return (1.0 - sampler.uniform_mix - sampler.recent_mix) / (1.0 + others)

    top = float(errors.max())
    if top >= OUTLIER_RATIO * typical and share_of(top) >= OUTLIER_SHARE:
        there = census.priorities == top
        row = int(census.ids[there & census.drawn if census.drawn.any() else there][0])
        yield Finding(
            "outlier",
            f"Priority {top:.3g}, of id {row}, is {top / typical:,.0f} times what 99 % of the "
            f"errors gave: this row takes {share_of(top):.0%} of all draws. {advice}",
        )
    elif entry >= OUTLIER_RATIO * typical and share_of(entry) >= ENTRY_SHARE:
        yield Finding(
            "outlier",
            f"New rows enter with priority {entry:.3g}, the largest so far, which is "
            f"{entry / typical:,.0f} times what 99 % of the errors gave: each takes "
            f"{share_of(entry):.0%} of all draws until its own error comes. {advice}",
        )


def _last_weights(portrait: Portrait) -> Iterator[Finding]:
    """Look for a batch of which all weights are equal, although probabilities are not."""
    census, stats = portrait.census, portrait.stats
    # What an index draws may need no weights, as levels of a curriculum; LAP goes without by design
    least = float(getattr(portrait.sampler, "min_priority", 0.0))
    if portrait.kind != "ReplayBuffer" or least > 0.0:
        return
    if census.last_batch < LEAST_ROWS or stats["weight_min"] != stats["weight_max"]:
        return
    _, group = np.unique(census.probabilities, return_inverse=True)
    alike = float(np.bincount(group, census.probabilities).max())
    undrawn = float(census.probabilities[~census.drawn].sum())
    likely = census.probabilities[census.probabilities > 0.0]
    if likely.size and max(alike, undrawn) <= ALIKE_MASS and likely.max() > 2.0 * likely.min():
        yield Finding(
            "weights_unused",
            f"All {census.last_batch} weights of the last batch were equal, although some rows are "
            "drawn more than twice as often as others: beta is 0, so nothing undoes that. Let beta "
            "rise to 1, or use a loss that is made for it (LAP).",
        )


def _of_run(record: Record) -> Iterator[Finding]:
    yield from _returns(record)
    metrics = record.metrics
    learning = metrics["updates"] > 0
    if record.alpha == 0.0 or not learning.any():
        return
    updates, beta = metrics["updates"][learning], metrics["beta"][learning]
    errors, ess = metrics["td_error"][learning], metrics["effective_sample_size"][learning]
    several = np.unique(updates).size >= LEAST_REPORTS
    if (beta == beta[0]).all() and beta[0] < 1.0 and np.ptp(updates) >= BETA_UPDATES:
        if beta[0] == 0.0 and record.min_priority == 0.0:  # LAP goes without weights by design
            yield Finding(
                "weights_unused",
                "beta was 0 in every report, so all weights are 1: nothing undoes the draw's "
                "preference. Let beta rise to 1.",
            )
        elif beta[0] > 0.0:
            goal = f" instead of rising to {record.beta_end:g}"
            moves = record.beta_end != record.beta_start
            yield Finding(
                "beta_stuck",
                f"beta was {beta[0]:g} in all {beta.size} reports with updates"
                f"{goal if moves else ''}: the weights never undo all of the draw's preference. "
                "Call the schedule with the number of the update, and let it end at 1.",
            )
    equal = record.batch_size * (1.0 - EQUAL_WEIGHTS)
    if several and beta.max() > 0.0 and record.batch_size > 1 and (ess >= equal).all():
        yield Finding(
            "weights_unused",
            f"The effective sample size was the batch size, {record.batch_size}, in all "
            f"{ess.size} reports: all weights are equal although beta is {beta[-1]:g}. Priorities "
            "are all equal, as where errors are never given back, or the weights are not those of "
            "the batch.",
        )
    known = errors[np.isfinite(errors)]
    if several and known.size == errors.size and known[0] > 0.0 and np.ptp(known) == 0.0:
        yield Finding(
            "clipped",
            f"The mean error was {known[0]:g} in all {known.size} reports: every error has that "
            "value. Are errors clipped, or a constant?",
        )
    if record.replay == "proportional" and known.size > LEAST_REPORTS:
        worst = int(np.argmax(np.where(np.isfinite(errors), errors, -1.0)))
        median = float(np.median(known))
        if median > 0.0 and errors[worst] >= SPIKE_RATIO * median:
            step = int(metrics["step"][learning][worst])
            yield Finding(
                "outlier",
                f"Before step {step:,} the mean error was {errors[worst]:.3g}, "
                f"{errors[worst] / median:,.0f} times the median report: an outlier, and new rows "
                "enter with the largest priority ever. Clip errors, or use --replay rank.",
            )


def _returns(record: Record) -> Iterator[Finding]:
    metrics = record.metrics
    ended = metrics["episodes"] > 0
    for column in ("last_return", "mean_return", "td_error", "loss"):
        values = metrics[column]
        wrong = np.isinf(values)
        if column.endswith("return"):
            wrong |= ended & np.isnan(values)  # an empty cell, where there was an episode
        if wrong.any():
            step = int(metrics["step"][np.argmax(wrong)])
            yield Finding(
                "not_finite",
                f"{column} is not finite from step {step:,} on: the environment gave rewards that "
                "are not, or the network has diverged.",
            )
            return
