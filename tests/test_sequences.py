"""Buffers of sequences against a twin that keeps lists, and against numbers made by hand."""

import copy
import itertools
import json
import os
import pickle
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba.core import config
from tests import interrupts
from tests.reference import Step, chi_square_excess, sequential_law
from tests.reference_sequences import Pair, ReferenceSequences, fields_of
from tests.reference_streams import BOTH, GAMMA, MODES, TERMINATED, TRUNCATED

import prioritized_replay as per
from prioritized_replay.storage import marks

ROOT = Path(__file__).parent.parent
THREE = per.Uniform(), per.Proportional(), per.RankBased()


def cycle(episodes, turn=1):
    """A script that plays the same episodes for ever, each stream from another one on."""
    return lambda stream, episode: episodes[(episode + turn * stream) % len(episodes)]


def errors_of(pair, ids, rng, stepwise=True):
    """Errors of these sequences, with NaN wherever nobody should look at them."""
    sequence = pair.twin.sequence
    if not stepwise:
        return rng.integers(-8, 9, len(ids)).astype(float)
    errors = rng.integers(-8, 9, (len(ids), sequence.length)).astype(float)
    for line, identifier in zip(errors, ids, strict=True):
        if identifier in pair.twin.sequences:
            real = len(pair.twin.sequences[identifier])
            line[real:] = np.nan
            if real > sequence.burn_in:
                line[: sequence.burn_in] = np.nan
    return errors


def some_ids(pair, rng, count, stale=True):
    """Ids of sequences that are there, some of them twice, and of ones that have gone."""
    ids = pair.twin.ids
    chosen = rng.choice(ids, count).tolist() if ids.size else []
    oldest = min(pair.twin.rows, default=pair.twin.issued)
    if stale and oldest:
        chosen += rng.integers(oldest, size=1 + count // 3).tolist()
    return chosen


# --- by hand --------------------------------------------------------------------------------------

# length, overlap, boundaries; lengths of episodes; where sequences begin, and their steps
BY_HAND = {
    "as many as fit": (4, 0, "stop", [8], [(0, 4), (4, 4)]),
    "one more at the end": (4, 0, "stop", [10], [(0, 4), (4, 4), (6, 4)]),
    "half overlaps": (4, 2, "stop", [7], [(0, 4), (2, 4), (3, 4)]),
    "half overlaps, even": (4, 2, "stop", [8], [(0, 4), (2, 4), (4, 4)]),
    "every step": (3, 2, "stop", [5], [(0, 3), (1, 3), (2, 3)]),
    "padded": (4, 0, "stop", [3, 1], [(0, 3), (3, 1)]),
    "exactly one": (4, 3, "stop", [4, 4], [(0, 4), (4, 4)]),
    "short, then long": (4, 1, "stop", [2, 6], [(0, 2), (2, 4), (4, 4)]),
    "single steps": (1, 0, "stop", [3], [(0, 1), (1, 1), (2, 1)]),
    "across": (4, 0, "cross", [3, 3, 3], [(0, 4), (4, 4)]),
    "across, overlapping": (4, 3, "cross", [2, 4], [(0, 4), (1, 4), (2, 4)]),
    "across, not enough": (4, 0, "cross", [3], []),
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("way", ["terminated", "truncated", "end_episode"])
def test_sequences_counted_by_hand(name, way):
    length, overlap, boundaries, episodes, expected = BY_HAND[name]
    sequence = per.Sequence(length, overlap=overlap, boundaries=boundaries)
    replay = per.ReplayBuffer(100, fields_of(), sequence=sequence, gamma=GAMMA)
    twin = ReferenceSequences(100, sequence)
    made, step, firsts = [], 0, set()
    for steps in episodes:
        firsts.add(step)
        for t in range(steps):
            last = t == steps - 1
            ends = last and way == "terminated", last and way == "truncated"
            obs, next_obs = np.full(2, step, np.float32), np.full(2, step + 1, np.float32)
            ids = replay.add(obs, step, 1.0 * step, next_obs, *ends, tag=0.5 * step)
            extra = {"tag": 0.5 * step}
            one = Step(obs, step, 1.0 * step, next_obs, extra=extra)
            assert ids.tolist() == twin.add([0], [one], [ends])
            made += ids.tolist()
            step += 1
        if way == "end_episode":
            ids = replay.end_episode().tolist()
            assert ids == twin.end_episode()
            made += ids

    assert sorted(made) == [first for first, _ in expected]
    assert twin.ids.tolist() == sorted(made)
    assert len(replay) == len(expected)
    for first, real in expected:
        for batch in (replay.get([first]), twin.contents([first])):
            assert batch["mask"].tolist() == [[t < real for t in range(length)]]
            assert batch["action"][0, :real].tolist() == list(range(first, first + real))
            assert not batch["action"][0, real:].any()
            assert batch["is_first"].tolist() == [
                [t < real and first + t in firsts for t in range(length)]
            ]


def drawable_after(history, length, stride, capacity):
    """By definition, from a whole history: (steps, whether it was ended) of each episode."""
    drawable, first = set(), 0
    for steps, ended in history:
        windows = {(k, k + length) for k in range(0, steps, stride) if k + length <= steps}
        if ended:
            windows.add((max(steps - length, 0), steps))
        drawable |= {(first + begin, min(end, steps) - begin) for begin, end in windows}
        first += steps
    return sorted((at, real) for at, real in drawable if at >= first - capacity)


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    length=st.integers(1, 8),
    data=st.data(),
    ended=st.booleans(),
)
def test_the_twin_holds_what_the_definition_says(lengths, length, data, ended):
    """Counting step by step, with steps that go, against looking at all of it at the end."""
    overlap = data.draw(st.integers(0, length - 1))
    capacity = data.draw(st.integers(length, 30))
    twin = ReferenceSequences(capacity, per.Sequence(length, overlap=overlap))
    for number, steps in enumerate(lengths):
        ends = ended or number < len(lengths) - 1
        one = Step(np.zeros(2), 0, 0.0, np.zeros(2))
        twin.add_episode(0, [one] * steps, ends, False)
    history = [(steps, ended or number < len(lengths) - 1) for number, steps in enumerate(lengths)]
    expected = drawable_after(history, length, length - overlap, capacity)
    assert [(i, len(twin.sequences[i])) for i in twin.ids.tolist()] == expected


def test_a_worked_example():
    """Two environments: the first terminates at its third step, the second goes on."""
    sequence = per.Sequence(length=4, burn_in=1, overlap=2)
    replay = per.ReplayBuffer(
        20, fields_of(), sequence=sequence, num_envs=2, autoreset="next_step", gamma=0.5
    )
    assert replay.sequence == sequence
    at = lambda *t: np.array([[k, k] for k in t], np.float32)  # noqa: E731
    none = np.zeros(2, bool)
    ids = [
        replay.add(at(t, 100 + t), [t, t], [t, 10.0 * t], at(t + 1, 101 + t), [t == 2, False],
                   none, tag=[0.0, 0.0])
        for t in range(3)
    ]  # fmt: skip
    reset = replay.add(at(3, 103), [3, 3], [0.0, 30.0], at(50, 104), none, tag=[0.0, 0.0])

    assert [one.tolist() for one in (*ids, reset)] == [[], [], [0], [1]]
    assert replay.ids_issued == 7
    assert len(replay) == 2
    batch = replay.get([0, 1])
    assert batch.obs.shape == (2, 4, 2)
    assert batch.obs[:, :, 0].tolist() == [[0, 1, 2, 0], [100, 101, 102, 103]]
    assert batch.next_obs[:, :, 0].tolist() == [[1, 2, 3, 0], [101, 102, 103, 104]]
    assert batch.reward.tolist() == [[0, 1, 2, 0], [0, 10, 20, 30]]
    assert batch.discount.tolist() == [[0.5, 0.5, 0, 0], [0.5] * 4]
    assert batch.terminated.tolist() == [[False, False, True, False], [False] * 4]
    assert batch.mask.tolist() == [[True] * 3 + [False], [True] * 4]
    assert batch.is_first.tolist() == [[True, False, False, False]] * 2
    assert batch.mask.dtype == batch.is_first.dtype == bool
    assert batch.weights.tolist() == [1.0, 1.0]
    assert batch.probabilities.tolist() == [0.5, 0.5]
    with pytest.raises(KeyError, match="3"):
        replay.get([0, 3])
    with pytest.raises(KeyError, match="3"):
        replay.priorities([3])


# --- every length, overlap, boundary, mode -------------------------------------------------------


@pytest.mark.parametrize("boundaries", ["stop", "cross"])
@pytest.mark.parametrize("length", range(1, 9))
@pytest.mark.slow
def test_every_episode_in_every_mode(length, boundaries):
    """Episodes up to a stride longer than a sequence, some of them interrupted by the caller."""
    turn = itertools.count()
    for overlap, num_envs, mode in itertools.product(range(length), (None, 1, 3), MODES):
        if num_envs is None and mode == "same_step":
            continue  # there is no such
        number = next(turn)
        sequence = per.Sequence(
            length, burn_in=(number // 2) % length, overlap=overlap, boundaries=boundaries
        )
        longest = 2 * length - overlap + 1
        ends = TERMINATED, TRUNCATED, BOTH
        pair = Pair.build(
            sequence, num_envs, mode,
            cycle([(steps, ends[steps % 3]) for steps in range(1, longest + 1)], turn=2),
            capacity=length + (0, 1, length + 3, 4 * length + 9, 60)[number % 5],
        )  # fmt: skip
        rng = np.random.default_rng(number)
        total = longest * (longest + 1) // 2
        steps = total + length if num_envs != 3 else total // 2 + length
        for k in range(steps):
            pair.add()
            if k % 17 == 11 and pair.world.lives[-1].t:
                pair.end_episode(pair.world.num_envs - 1)
            if k % 23 == 19:
                pair.end_episode()
            if k % 5 == 0:
                pair.compare()
            if k % 7 == 6 and len(pair.replay):
                ids = some_ids(pair, rng, 3)
                pair.update(ids, errors_of(pair, ids, rng))
                pair.sample(3)
        pair.compare()


@pytest.mark.parametrize("mode", MODES)
def test_ids_come_in_the_order_of_the_rows_of_a_call(mode):
    pair = Pair.build(per.Sequence(3, overlap=2), 4, mode, cycle([(5, TERMINATED)], 0))
    for order in ([3, 1, 0, 2], [0, 1], [2, 3], [1, 0, 2, 3], [2, 0], [1], [3], [3, 1, 0, 2]):
        pair.add(order)
        pair.compare()
    pair.end_episode([2, 0])
    pair.end_episode()
    pair.compare()


def test_a_sequence_goes_with_its_first_step():
    """At the very add that takes the place of its first step, be it the only one."""
    replay = per.ReplayBuffer(5, fields_of(), sequence=per.Sequence(3, overlap=2))

    def add(k, end=False):
        obs = np.full(2, k, np.float32)
        return replay.add(obs, k, 0.0, obs + 1, end, tag=0.0).tolist()

    assert [add(k) for k in range(5)] == [[], [], [0], [1], [2]]
    assert len(replay) == 3
    assert add(5) == [3]
    with pytest.raises(KeyError, match="0"):
        replay.get([0])
    assert len(replay) == 3
    assert replay.get([1, 2, 3]).action.tolist() == [[1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert add(6, end=True) == [4]
    assert [add(k) for k in range(7, 9)] == [[], []]
    assert len(replay) == 1
    assert [add(k) for k in range(9, 10)] == [[7]]
    assert interrupts.drawable(replay).tolist() == [7]


def test_nothing_can_be_drawn_before_a_sequence_is_whole():
    replay = per.ReplayBuffer(8, fields_of(), sequence=per.Sequence(4))
    for k in range(3):
        assert replay.add(np.zeros(2), k, 0.0, np.zeros(2), False, tag=0.0).size == 0
        assert len(replay) == 0
        with pytest.raises(ValueError, match="at least one"):
            replay.sample(1)
        with pytest.raises(KeyError):
            replay.get([0])
    assert replay.add(np.zeros(2), 3, 0.0, np.zeros(2), False, tag=0.0).tolist() == [0]
    assert replay.sample(2).ids.tolist() == [0, 0]


def test_clearing_forgets_episodes_and_counts_anew():
    for boundaries in ("stop", "cross"):
        pair = Pair.build(
            per.Sequence(4, overlap=1, boundaries=boundaries), 2, "next_step",
            cycle([(6, TERMINATED), (3, TRUNCATED)]), capacity=30,
        )  # fmt: skip
        for k in range(40):
            pair.add()
            if k % 9 == 8:
                pair.clear()
            pair.compare()


# --- random histories ----------------------------------------------------------------------------

SAMPLERS = [
    per.Uniform(),
    per.Proportional(),
    per.RankBased(),
    per.Proportional(eps=0.0, max_priority="current", min_priority=0.5, weights="buffer"),
    per.RankBased(max_priority="current", draw="without_replacement", weights="raw"),
    per.Proportional(uniform_mix=0.25, recent_mix=0.25, recent=3, draw="independent"),
    per.RankBased(uniform_mix=0.25, recent_mix=0.5, recent=2, weights="buffer"),
    per.Proportional(eps=0.0, uniform_mix=0.25, draw="without_replacement"),
]


@st.composite
def sequences(draw, longest=6):
    length = draw(st.integers(1, longest))
    return per.Sequence(
        length,
        burn_in=draw(st.integers(0, length - 1)),
        overlap=draw(st.integers(0, length - 1)),
        priority_mix=draw(st.sampled_from([0.9, 0.0, 0.5, 1.0])),
        boundaries=draw(st.sampled_from(["stop", "stop", "cross"])),
    )


EPISODES = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from([TERMINATED, TRUNCATED, BOTH])),
    min_size=1,
    max_size=5,
)


def events(num_envs):
    some = st.one_of(
        st.none(),
        st.lists(st.integers(0, num_envs - 1), unique=True, max_size=num_envs),
        st.integers(0, num_envs - 1),
    )
    return st.lists(
        st.one_of(
            *[st.tuples(st.just("add"), some)] * 8,
            *[st.tuples(st.just("episode"), st.integers(0, num_envs - 1), st.integers(1, 9))] * 2,
            st.tuples(st.just("end"), some),
            st.tuples(st.just("restart"), some),
            st.tuples(st.just("update"), st.integers(0, 99), st.booleans()),
            st.tuples(st.just("sample"), st.integers(1, 6)),
            st.tuples(st.just("wrong"), st.integers(0, 99)),
            st.tuples(st.just("clear")),
            st.tuples(st.just("save")),
        ),
        max_size=50,
    )


def wrong_ids(pair, seed):
    """Ask for what is none, or too late, or never was."""
    twin, rng = pair.twin, np.random.default_rng(seed)
    others = [i for i in twin.rows if i not in twin.sequences] + [twin.issued, -1]
    for identifier in rng.choice(others, 2):
        with pytest.raises(ValueError, match="ids"):
            pair.replay.update_priorities([identifier], [1.0])
        with pytest.raises(KeyError):
            pair.replay.priorities([identifier])
        with pytest.raises(KeyError):
            pair.replay.get([identifier])


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("kind", ["plain", "small", "stacks", "nested", "shared", "found"])
@pytest.mark.slow
def test_any_history_gives_the_sequences_of_the_twin(kind, data, tmp_path_factory):
    mode = data.draw(st.sampled_from([*MODES, None]), "mode")
    num_envs = None if mode is None else data.draw(st.integers(1, 3), "num_envs")
    sequence = data.draw(sequences(), "sequence")
    pair = Pair.build(
        sequence, num_envs, mode or "disabled", cycle(data.draw(EPISODES, "episodes")),
        capacity=sequence.length + data.draw(st.integers(0, 20), "room"),
        sampler=data.draw(st.sampled_from(SAMPLERS), "sampler"), kind=kind,
        memory=data.draw(st.booleans(), "memory"),
    )  # fmt: skip
    streams = num_envs or 1
    for event, *how in data.draw(events(streams), "history"):
        if event == "add":
            pair.add(None if num_envs is None else how[0])
        elif event == "episode":
            pair.add_episode(*how)
        elif event == "end":
            pair.end_episode(None if num_envs is None else how[0])
        elif event == "restart":
            which = None if num_envs is None else how[0]
            pair.end_episode(which)
            for stream in range(streams) if which is None else np.atleast_1d(which):
                pair.world.reset(int(stream))
        elif event == "update":
            rng = np.random.default_rng(how[0])
            ids = some_ids(pair, rng, 1 + how[0] % 5)
            pair.update(ids, errors_of(pair, ids, rng, how[1]))
        elif event == "sample" and len(pair.replay):
            size = how[0]
            if pair.twin.sampler.draw == "without_replacement":
                size = min(size, int(np.count_nonzero(pair.twin.law())))
            pair.sample(size)
        elif event == "wrong":
            wrong_ids(pair, how[0])
        elif event == "clear":
            pair.clear()
        elif event == "save":
            folder = tmp_path_factory.mktemp("saved")
            pair.replay.save(folder)
            pair.replay = per.ReplayBuffer.load(folder)
        pair.compare()


@pytest.mark.parametrize("kind", ["plain", "small", "nested", "stacks"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow
def test_long_histories_of_many_laps(kind, mode):
    """What drawn histories rarely have: the ring went round often, with updates of all ages."""
    rng = np.random.default_rng(MODES.index(mode))
    pair = Pair.build(
        per.Sequence(5, burn_in=2, overlap=3), 3, mode, capacity=43, kind=kind,
        script=cycle([(4, TERMINATED), (9, TRUNCATED), (5, BOTH), (1, BOTH), (13, TRUNCATED)]),
    )  # fmt: skip
    for k in range(150):
        pair.add(None if k % 3 else rng.permutation(3)[: rng.integers(1, 4)].tolist())
        if len(pair.replay) and k % 4 == 0:
            batch = pair.sample(6)
            pair.update(batch.ids.tolist(), errors_of(pair, batch.ids.tolist(), rng))
        if k % 10 == 0:
            pair.compare()
        if k % 37 == 36:
            pair.end_episode([int(rng.integers(3))])
    assert pair.twin.issued > 6 * 43
    pair.compare()


# --- the law -------------------------------------------------------------------------------------

LAWS = [
    per.Uniform(),
    per.Proportional(),
    per.RankBased(),
    per.Proportional(alpha=1.0, uniform_mix=0.2),
    per.RankBased(recent_mix=0.3, recent=4),
]
DRAWS = "stratified", "independent", "without_replacement"


def with_history(sampler, capacity=40, steps=700, seed=0):
    """A pair after many laps with updates from batches, whose priorities differ widely."""
    rng = np.random.default_rng(seed)
    pair = Pair.build(
        per.Sequence(4, burn_in=1, overlap=2), None, "disabled", capacity=capacity, sampler=sampler,
        script=cycle([(4, TERMINATED), (7, TRUNCATED), (2, BOTH), (5, TERMINATED)]),
    )  # fmt: skip
    for k in range(steps):
        pair.add()
        if k % 3 == 0 and len(pair.replay) > 3:
            ids = pair.replay.sample(3).ids
            pair.update(ids, rng.exponential(size=(3, 4)) ** 2)
    return pair


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("sampler", LAWS, ids=repr)
@pytest.mark.slow
def test_what_is_drawn_follows_the_law(sampler, draw):
    """Where sequences begin, after a long history; each batch is drawn in the mode.

    Without replacement, one sequence at a time has the law of a single draw. What counts for one
    that is drawn must not be read from another: the same counts contradict the neighbour's law.
    """
    pair = with_history(type(sampler)(**vars(sampler) | {"draw": draw}))
    law = pair.twin.law(pair.replay.priorities(pair.twin.ids))
    size = 1 if draw == "without_replacement" else 40
    drawn = np.concatenate([pair.replay.sample(size).ids for _ in range(6_000 // size)])
    places = np.searchsorted(pair.twin.ids, drawn)
    assert (pair.twin.ids[places] == drawn).all()  # none that is gone, none that is not whole
    counts = np.bincount(places, minlength=law.size)

    assert chi_square_excess(counts, law) < 1
    if not isinstance(sampler, per.Uniform):  # it has the power to tell
        assert chi_square_excess(counts, np.roll(law, 1)) > 1
        assert chi_square_excess(counts, np.full(law.size, 1 / law.size)) > 1


@pytest.mark.parametrize("sampler", [per.Uniform, per.Proportional, per.RankBased])
@pytest.mark.slow
def test_pairs_without_replacement_follow_the_law_of_one_after_the_other(sampler):
    pair = with_history(sampler(draw="without_replacement"), capacity=12)
    law = pair.twin.law(pair.replay.priorities(pair.twin.ids))
    assert law.size >= 3
    expected = sequential_law(law, 2)
    drawn = [tuple(pair.replay.sample(2).ids.tolist()) for _ in range(4_000)]
    places = {identifier: place for place, identifier in enumerate(pair.twin.ids.tolist())}
    outcomes = [tuple(places[i] for i in one) for one in drawn]
    counts = np.array([outcomes.count(outcome) for outcome in expected])
    assert counts.sum() == len(drawn)
    assert chi_square_excess(counts, np.array(list(expected.values()))) < 1


@pytest.mark.parametrize("sampler", THREE, ids=repr)
@pytest.mark.slow
def test_draws_during_a_history_follow_the_law_of_their_moment(sampler):
    """Each batch has a law of its own: what is counted is the age of what was drawn, in eighths."""
    rng = np.random.default_rng(3)
    pair = with_history(sampler, capacity=90, steps=300)
    counts, expected, forgotten = np.zeros(8), np.zeros(8), np.zeros(8)
    for _ in range(400):
        pair.add()
        ids = pair.twin.ids
        law = pair.twin.law(pair.replay.priorities(ids))
        eighth = np.arange(ids.size) * 8 // ids.size
        drawn = pair.replay.sample(16).ids
        places = np.searchsorted(ids, drawn)
        assert (ids[places] == drawn).all()
        counts += np.bincount(eighth[places], minlength=8)
        expected += 16 * np.bincount(eighth, law, minlength=8)
        forgotten += (
            16
            * np.bincount(eighth, 1.0 - 0.5 * (eighth == 0), minlength=8)
            / (1.0 - 0.5 * (eighth == 0)).sum()
        )
        # The newest get the smallest errors, so that a law without priorities is another one.
        pair.update(drawn.tolist(), (places / ids.size - 1.2) * rng.exponential(size=16))
    assert chi_square_excess(counts, expected / expected.sum()) < 1
    assert chi_square_excess(counts, forgotten / forgotten.sum()) > 1


@pytest.mark.parametrize("sampler", THREE, ids=repr)
def test_what_has_gone_is_never_drawn_although_it_had_the_largest_priority(sampler):
    replay = per.ReplayBuffer(
        12, fields_of(), sequence=per.Sequence(4, overlap=3), sampler=sampler, seed=2
    )
    for k in range(60):
        obs = np.full(2, k, np.float32)
        replay.add(obs, k, 0.0, obs, False, tag=0.0)
        if k >= 12:
            oldest = k - 11
            replay.update_priorities([oldest], [1e6])
            assert replay.update_priorities([oldest - 1], [1e9]) == 0
            drawn = replay.sample(50).ids
            assert drawn.min() >= oldest
            assert drawn.max() <= k - 3
    assert replay.stats()["stale_updates"] == 48
    assert replay.stats()["largest_priority"] <= 1e6 + 0.01


# --- priorities ----------------------------------------------------------------------------------


def three(sampler, priority_mix=0.9, burn_in=1, **options):
    """A buffer with sequences 0 (4 steps), 4 (2 steps) and 6 (1 step, within the burn-in)."""
    replay = per.ReplayBuffer(
        40, fields_of(), sampler=sampler, seed=4,
        sequence=per.Sequence(4, burn_in=burn_in, priority_mix=priority_mix), **options,
    )  # fmt: skip
    for k, end in enumerate([False, False, False, True, False, True, True]):
        obs = np.full(2, k, np.float32)
        replay.add(obs, k, 0.0, obs + 1, end, tag=0.0)
    assert len(replay) == 3
    return replay


NAN = np.nan
PLAIN = per.Proportional(eps=0.0)


def test_the_mix_of_the_largest_and_the_mean_by_hand():
    replay = three(PLAIN)
    errors = [
        [NAN, 1.0, -4.0, 1.0],  # max 4, mean 2: 0.9 * 4 + 0.1 * 2
        [NAN, -3.0, NAN, NAN],  # max 3, mean 3
        [-2.0, NAN, NAN, NAN],  # nothing is left after the burn-in: its real step counts
    ]
    assert replay.update_priorities([0, 4, 6], errors) == 3
    np.testing.assert_allclose(replay.priorities([0, 4, 6]), [3.8, 3.0, 2.0], rtol=1e-15)


def test_what_the_burn_in_and_the_padding_say_is_ignored():
    replay, other = three(PLAIN), three(PLAIN)
    replay.update_priorities([0, 4], [[99.0, 1.0, 2.0, 3.0], [77.0, 1.0, 55.0, -np.inf]])
    other.update_priorities([0, 4], [[NAN, -1.0, -2.0, -3.0], [np.inf, 1.0, NAN, NAN]])
    np.testing.assert_allclose(replay.priorities([0, 4]), [0.9 * 3 + 0.1 * 2, 1.0], rtol=1e-15)
    assert other.priorities([0, 4]).tolist() == replay.priorities([0, 4]).tolist()


@pytest.mark.parametrize(("mix", "expected"), [(1.0, 4.0), (0.0, 2.0), (0.5, 3.0), (0.25, 2.5)])
def test_how_much_the_largest_counts(mix, expected):
    replay = three(PLAIN, priority_mix=mix)
    replay.update_priorities([0], [[0.0, -4.0, 0.0, 2.0]])
    assert replay.priorities([0]).tolist() == [expected]


def test_one_error_of_a_sequence_is_taken_as_it_is():
    replay = three(per.Proportional(eps=0.5, min_priority=1.0))
    assert replay.update_priorities([6, 0, 4], [-3.0, 0.25, 7.0]) == 3
    assert replay.priorities([0, 4, 6]).tolist() == [1.0, 7.5, 3.5]
    replay.update_priorities([0, 4], [[0.0, 0.5, 1.0, 1.5], [0.0, 0.25, 0.0, 0.0]])
    np.testing.assert_allclose(replay.priorities([0, 4]), [0.9 * 1.5 + 0.1 + 0.5, 1.0])


@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
def test_errors_at_the_edge_of_what_a_number_can_be(mix):
    replay = three(PLAIN, priority_mix=mix)
    replay.update_priorities([0, 4], [[0.0, 1e308, -1e308, 1e308], [NAN, 1e-320, NAN, NAN]])
    np.testing.assert_allclose(replay.priorities([0, 4]), [1e308, 1e-320], rtol=1e-3)
    before = replay.priorities([0, 4, 6]).tolist()
    for wrong, shown in ((-np.inf, "-inf"), (np.inf, "inf"), (NAN, "nan")):
        with pytest.raises(ValueError, match=f"finite, got {shown} for id 4 at position 1"):
            replay.update_priorities([0, 4], [[1.0] * 4, [1.0, wrong, 1.0, 1.0]])
    assert replay.priorities([0, 4, 6]).tolist() == before


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "list"])
def test_errors_of_any_kind(dtype):
    replay = three(PLAIN)
    errors = np.array([[5.0, 1.0, 2.0, 3.0], [1.0, 4.0, 0.0, 0.0]])
    given = errors.tolist() if dtype == "list" else errors.astype(dtype)
    assert replay.update_priorities([0, 4], given) == 2
    np.testing.assert_allclose(replay.priorities([0, 4]), [2.9, 4.0], rtol=1e-6)
    assert replay.update_priorities([0, 4], given[::-1]) == 2
    np.testing.assert_allclose(replay.priorities([0, 4]), [0.9 * 4 + 0.1 * 4 / 3, 1.0], rtol=1e-6)


def test_errors_as_a_tensor_or_a_view():
    torch = pytest.importorskip("torch")
    replay, other = three(PLAIN), three(PLAIN)
    errors = np.arange(8.0).reshape(4, 2).T  # not contiguous
    assert replay.update_priorities([0, 4], errors) == 2
    assert other.update_priorities([0, 4], torch.tensor(errors, dtype=torch.float32)) == 2
    assert replay.priorities([0, 4]).tolist() == other.priorities([0, 4]).tolist()
    assert replay.priorities([0, 4]).tolist()[0] == pytest.approx(0.9 * 6 + 0.1 * 4)


def test_of_duplicates_the_last_counts():
    replay = three(PLAIN)
    errors = np.ones((3, 4)) * [[5.0], [7.0], [2.0]]
    assert replay.update_priorities([0, 4, 0], errors) == 3
    assert replay.priorities([0, 4]).tolist() == [2.0, 7.0]
    assert replay.update_priorities([4, 4], [3.0, 1.5]) == 2
    assert replay.priorities([4]).tolist() == [1.5]


@pytest.mark.parametrize("length", range(1, 7))
def test_every_burn_in_and_number_of_real_steps(length):
    """Against numbers picked from the errors, one by one."""
    rng = np.random.default_rng(length)
    for burn_in in range(length):
        sequence = per.Sequence(length, burn_in=burn_in, priority_mix=0.75)
        replay = per.ReplayBuffer(100, fields_of(), sequence=sequence, sampler=PLAIN)
        ids = []
        for real in range(1, length + 1):
            for t in range(real):
                ids += replay.add(np.zeros(2), t, 0.0, np.zeros(2), t == real - 1, tag=0.0).tolist()
        errors = rng.normal(size=(length, length))
        expected = []
        for real, line in zip(range(1, length + 1), np.abs(errors).tolist(), strict=True):
            counted = line[burn_in:real] if real > burn_in else line[:real]
            expected.append(0.75 * max(counted) + 0.25 * sum(counted) / len(counted))
        assert replay.update_priorities(ids, errors) == length
        np.testing.assert_allclose(replay.priorities(ids), expected, rtol=1e-14)


def one_more(replay, length=4, end=True, **more):
    """Add an episode of so many steps; return its sequences."""
    obs = np.zeros((length + 1, 2))
    zeros = np.zeros(length)
    return replay.add_episode(obs, zeros.astype(int), zeros, end, tag=zeros, **more).tolist()


def test_new_sequences_enter_at_the_largest_priority_so_far():
    for kind in ("ever", "current"):
        replay = per.ReplayBuffer(
            8, fields_of(), sequence=per.Sequence(4, priority_mix=0.5),
            sampler=per.Proportional(eps=0.0, max_priority=kind),
        )  # fmt: skip
        assert one_more(replay) == [0]
        assert replay.priorities([0]).tolist() == [1.0]
        replay.update_priorities([0], [[0.0, 5.0, 5.0, 5.0]])
        assert one_more(replay) == [4]
        assert replay.priorities([0, 4]).tolist() == [4.375, 4.375]
        replay.update_priorities([0, 4], [0.25, 0.5])
        largest = {"ever": 4.375, "current": 0.5}[kind]
        assert replay.stats()["largest_priority"] == largest
        assert one_more(replay) == [8]  # 0 goes with its first step
        assert replay.priorities([4, 8]).tolist() == [0.5, largest]
        replay.clear()
        assert one_more(replay) == [12]
        assert replay.priorities([12]).tolist() == [1.0]


def test_the_first_sequence_enters_at_one_or_the_least_priority():
    for least, expected in ((0.5, 1.0), (3.0, 3.0)):
        replay = three(per.Proportional(min_priority=least))
        assert replay.priorities([0, 4, 6]).tolist() == [expected] * 3


def test_a_uniform_buffer_takes_errors_and_ignores_them():
    replay = three(per.Uniform())
    assert replay.update_priorities([0, 4], np.full((2, 4), 9.0)) == 2
    assert replay.priorities([0, 4, 6]).tolist() == [1.0] * 3
    assert replay.get([0, 4, 6]).probabilities.tolist() == [1 / 3] * 3


def test_recent_counts_sequences_not_steps():
    replay = three(per.Proportional(recent_mix=0.5, recent=1))
    np.testing.assert_allclose(replay.get([0, 4, 6]).probabilities, [1 / 6, 1 / 6, 2 / 3])


# --- columns kept once for a sequence -------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.slow
def test_columns_of_a_sequence_are_those_of_its_first_step(mode):
    for boundaries, overlap in itertools.product(("stop", "cross"), (0, 2, 3)):
        pair = Pair.build(
            per.Sequence(4, overlap=overlap, boundaries=boundaries), 2, mode, capacity=23,
            script=cycle([(6, TERMINATED), (3, TRUNCATED), (9, BOTH)]), memory=True,
        )  # fmt: skip
        for k in range(60):
            if k % 7 == 6:
                pair.add_episode(k % 2, 5)
            pair.add()
            if k % 3 == 0:
                pair.compare()
        pair.compare()


def with_memory(**options):
    fields = fields_of(memory=per.Field((2,), per_sequence=True))
    return per.ReplayBuffer(20, fields, sequence=per.Sequence(2), seed=4, **options)


def test_a_column_of_a_sequence_has_no_axis_of_steps():
    replay = with_memory()
    for k in range(4):
        obs = np.full(2, k, np.float32)
        replay.add(obs, k, 0.0, obs, k == 3, tag=0.0, memory=[k, -k])
    batch = replay.get([0, 2])
    assert batch.memory.tolist() == [[0, 0], [2, -2]]
    assert batch.memory.dtype == np.float32
    assert batch.action.shape == (2, 2)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"length": 0}, "length"),
        ({"length": 2.5}, "length"),
        ({"length": "4"}, "length"),
        ({"length": 4, "burn_in": -1}, "burn_in"),
        ({"length": 4, "burn_in": 4}, "burn_in"),
        ({"length": 4, "burn_in": 1.5}, "burn_in"),
        ({"length": 4, "overlap": 4}, "overlap"),
        ({"length": 4, "overlap": -1}, "overlap"),
        ({"length": 4, "overlap": None}, "overlap"),
        ({"length": 4, "priority_mix": 1.5}, "priority_mix"),
        ({"length": 4, "priority_mix": -0.1}, "priority_mix"),
        ({"length": 4, "priority_mix": float("nan")}, "priority_mix"),
        ({"length": 4, "boundaries": "ring"}, "boundaries"),
        ({"length": 4, "boundaries": None}, "boundaries"),
    ],
    ids=str,
)
def test_a_sequence_that_cannot_be_is_refused(arguments, name):
    with pytest.raises(ValueError, match=name) as raised:
        per.Sequence(**arguments)
    assert "\n" not in str(raised.value)


def test_a_sequence_is_a_value():
    sequence = per.Sequence(8, burn_in=2, overlap=4)
    assert sequence == per.Sequence(8, 2, 4, 0.9, "stop")
    assert hash(sequence) == hash(copy.deepcopy(sequence))
    assert pickle.loads(pickle.dumps(sequence)) == sequence
    assert "burn_in=2" in repr(sequence)
    with pytest.raises(AttributeError):
        sequence.length = 9


def test_numbers_of_numpy_are_as_good_as_others():
    sequence = per.Sequence(np.uint8(254), np.int8(3), np.uint8(4), np.float32(0.5))
    assert sequence == per.Sequence(254, 3, 4, 0.5)
    assert {type(value) for value in asdict(sequence).values()} == {int, float, str}
    replay = per.ReplayBuffer(
        600, fields_of(), num_envs=2, autoreset="disabled", sequence=sequence
    )  # fmt: skip
    assert one_more(replay, 260, env=1) == [0, 6]
    assert replay.get([6]).obs.shape == (1, 254, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_step": 2}, "n_step must be 1"),
        ({"capacity": 3}, "capacity"),
        ({"sequence": 4}, "sequence"),
        ({"sequence": {"length": 4}}, "sequence"),
        ({"sequence": per.Sequence}, "sequence"),
    ],
    ids=str,
)
def test_a_buffer_that_cannot_be_is_refused(options, message):
    given = {"capacity": 20, "sequence": per.Sequence(4), **options}
    with pytest.raises(ValueError, match=message):
        per.ReplayBuffer(given.pop("capacity"), fields_of(), **given)


def test_columns_of_sequences_need_sequences():
    with pytest.raises(ValueError, match="sequence"):
        per.ReplayBuffer(20, fields_of(memory=per.Field((2,), per_sequence=True)))


STEP = {"obs": np.zeros(2), "action": 0, "reward": 0.0, "next_obs": np.ones(2),
        "terminated": False, "tag": 0.0}  # fmt: skip
WRONG = {
    "one step more": (lambda r: r.update_priorities([0, 4], np.zeros((2, 5))), "td_errors"),
    "one step less": (lambda r: r.update_priorities([0, 4], np.zeros((2, 3))), "td_errors"),
    "time first": (lambda r: r.update_priorities([0, 4, 6], np.zeros((4, 3))), "td_errors"),
    "another axis": (lambda r: r.update_priorities([0, 4], np.zeros((2, 4, 1))), "td_errors"),
    "one sequence less": (lambda r: r.update_priorities([0, 4], np.zeros((1, 4))), "td_errors"),
    "without an axis of sequences": (
        lambda r: r.update_priorities([0], np.zeros(4)),
        r"td_errors must have shape \(1,\) or \(1, 4\), got \(4,\)",
    ),
    "one number": (lambda r: r.update_priorities([0, 4], 1.0), "td_errors"),
    "one number less": (lambda r: r.update_priorities([0, 4], [1.0]), "td_errors"),
    "no numbers": (lambda r: r.update_priorities([0], [["a"] * 4]), "td_errors"),
    "not a number": (
        lambda r: r.update_priorities([4, 0], [[1.0] * 4, [1.0, 1.0, NAN, 1.0]]),
        r"td_errors must be finite",
    ),
    "not a number in the last real step": (
        lambda r: r.update_priorities([0, 4], [[1.0] * 4, [1.0, NAN, 1.0, 1.0]]),
        r"td_errors must be finite",
    ),
    "not a number in the only step": (
        lambda r: r.update_priorities([0, 6], [[1.0] * 4, [NAN, 1.0, 1.0, 1.0]]),
        r"td_errors must be finite",
    ),
    "infinite": (
        lambda r: r.update_priorities([0], [[1.0, 1.0, 1.0, -np.inf]]), "td_errors must be finite"),
    "not a number of one": (lambda r: r.update_priorities([0, 4], [1.0, NAN]), "finite"),
    "in the middle of a sequence": (
        lambda r: r.update_priorities([0, 2], np.ones((2, 4))),
        "ids must name sequences, got 2, ",
    ),
    "not yet a sequence": (
        lambda r: r.update_priorities([0, 7], [1.0, 1.0]),
        "ids must name sequences, got 7, ",
    ),
    "never issued": (lambda r: r.update_priorities([8], [1.0]), "ids"),
    "never issued, by steps": (lambda r: r.update_priorities([0, 8], np.ones((2, 4))), "ids"),
    "below 0": (lambda r: r.update_priorities([-1], [1.0]), "ids"),
    "ids with an axis too many": (
        lambda r: r.update_priorities([[0, 4]], np.ones((2, 4))), "ids"),
    "an error of a step": (lambda r: r.add(**STEP, td_error=0.5), "td_error"),
    "rows that belong to no episode": (
        lambda r: r.extend({"obs": np.zeros((3, 2)), "action": np.zeros(3, int),
                            "reward": np.zeros(3), "next_obs": np.zeros((3, 2)),
                            "discount": np.ones(3), "tag": np.zeros(3)}),
        "sequence",
    ),
    "a column is missing": (
        lambda r: r.add(**{name: v for name, v in STEP.items() if name != "tag"}), "tag"),
    "a column too many": (lambda r: r.add(**STEP, mask=True), "mask"),
    "a step that does not fit": (lambda r: r.add(**{**STEP, "obs": np.zeros(3)}), "obs"),
    "a draw of none": (lambda r: r.sample(0), "batch_size"),
}  # fmt: skip


@pytest.mark.parametrize("sampler", [per.Proportional(), per.RankBased()], ids=repr)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_names_its_parameter_and_changes_nothing(name, sampler):
    call, message = WRONG[name]
    replay, other = three(sampler), three(sampler)
    for one in (replay, other):
        one.update_priorities([0, 4], [[1.0, 2.0, 3.0, 4.0], [1.0, 5.0, 0.0, 0.0]])
        one.add(**STEP)  # id 7, of an episode that goes on
    with pytest.raises(ValueError, match=message) as raised:
        call(replay)
    assert "\n" not in str(raised.value)
    alike(replay, other)


@pytest.mark.parametrize("by_steps", [False, True])
def test_ids_that_name_no_sequence_are_a_key_error_where_something_is_asked_for(by_steps):
    replay = three(per.Proportional())
    for identifier in (1, 3, 5, 7, -1):
        for ask in (replay.get, replay.priorities):
            with pytest.raises(KeyError, match=f"got {identifier}"):
                ask([0, identifier])


def test_a_column_of_a_sequence_has_to_be_given_with_every_step():
    for options in ({}, {"num_envs": 2, "autoreset": "next_step"}):
        replay, other = with_memory(**options), with_memory(**options)
        step = dict(STEP)
        if options:
            step = {name: np.stack([value] * 2) for name, value in STEP.items()}
        memory = np.zeros((2, 2) if options else 2)
        for one in (replay, other):
            one.add(**step, memory=memory)
        with pytest.raises(ValueError, match="memory"):
            replay.add(**step)
        with pytest.raises(ValueError, match="memory"):
            replay.add(**step, memory=memory[..., :1])
        alike(replay, other)
        for one in (replay, other):
            assert one.add(**step, memory=memory).size == (2 if options else 1)
        alike(replay, other)


def test_an_episode_without_a_column_of_sequences_is_refused():
    replay, other = with_memory(), with_memory()
    zeros = np.zeros(3)
    given = {"obs": np.zeros((4, 2)), "action": zeros.astype(int), "reward": zeros, "tag": zeros}
    with pytest.raises(ValueError, match="memory"):
        replay.add_episode(**given, terminated=True)
    with pytest.raises(ValueError, match="memory"):
        replay.add_episode(**given, terminated=True, memory=np.zeros((2, 2)))
    alike(replay, other)


def alike(one, other):
    """Fail unless two buffers cannot be told apart, nor by what they do next."""
    assert interrupts.contents(one) == interrupts.contents(other)
    if len(one):
        size = min(2, len(one))
        mine, its = one.sample(size, beta=0.5), other.sample(size, beta=0.5)
        for name in its:
            pairs = zip(interrupts.leaves(mine[name]), interrupts.leaves(its[name]), strict=True)
            for found, expected in pairs:
                np.testing.assert_array_equal(found, expected, err_msg=name)


# --- whole episodes, checkpoints, batches ahead ---------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "nested"])
@pytest.mark.parametrize("mode", [None, *MODES])
@pytest.mark.slow
def test_an_episode_makes_what_its_steps_would_make(kind, mode):
    """The same world twice: one buffer gets episodes, the other one step after the other."""
    rng = np.random.default_rng(0)
    for boundaries, overlap, sampler in (
        ("stop", 2, per.Proportional()),
        ("cross", 1, per.RankBased()),
        ("stop", 0, per.Proportional(eps=0.0, min_priority=0.5)),
    ):
        sequence = per.Sequence(4, burn_in=1, overlap=overlap, boundaries=boundaries)
        script = cycle([(6, TERMINATED), (3, TRUNCATED), (4, TERMINATED), (30, TRUNCATED)])
        bulk, single = (
            Pair.build(
                sequence, None if mode is None else 2, mode or "disabled", script,
                capacity=25, sampler=sampler, kind=kind,
            )
            for _ in range(2)
        )  # fmt: skip
        for number in range(24):
            stream = 0 if mode is None else int(rng.integers(2))
            steps = bulk.world.serial
            bulk.add_episode(stream, int(rng.integers(1, 40)))
            for _ in range(bulk.world.serial - steps):
                single.add(None if mode is None else stream)
            if number % 5 == 4:
                bulk.end_episode()
                single.end_episode()
            if len(bulk.replay):
                ids = some_ids(bulk, rng, 3)
                errors = errors_of(bulk, ids, rng)
                bulk.update(ids, errors)
                single.update(ids, errors)
            bulk.compare()
            alike(bulk.replay, single.replay)


def driven(pair, steps, seed):
    """Drive a pair on; return what it drew."""
    rng = np.random.default_rng(seed)
    drawn = []
    for k in range(steps):
        pair.add()
        if len(pair.replay) >= 4:
            batch = pair.sample(4, beta=0.4)
            drawn.append((batch.ids.tolist(), batch.weights.tolist()))
            pair.update(batch.ids.tolist(), errors_of(pair, batch.ids.tolist(), rng, k % 2 == 0))
    return drawn


KEPT = [
    ("plain", None, "disabled", per.Proportional(), per.Sequence(4, overlap=2)),
    ("nested", 3, "next_step", per.RankBased(), per.Sequence(5, burn_in=2, overlap=4)),
    ("stacks", 2, "same_step", per.Uniform(), per.Sequence(3, boundaries="cross")),
    ("shared", 2, "disabled", per.RankBased(draw="without_replacement"), per.Sequence(6, 1, 3)),
]


@pytest.mark.parametrize("steps", [0, 1, 3, 50])
@pytest.mark.parametrize("case", KEPT, ids=lambda case: f"{case[0]}-{case[2]}")
@pytest.mark.slow
def test_a_loaded_buffer_goes_on_bit_for_bit(case, steps, tmp_path):
    kind, num_envs, mode, sampler, sequence = case
    script = cycle([(6, TERMINATED), (3, TRUNCATED), (11, BOTH)])
    pair = Pair.build(sequence, num_envs, mode, script, capacity=40, sampler=sampler, kind=kind)
    driven(pair, steps, 1)
    pair.replay.save(tmp_path / "one", extra={"epoch": b"3"})
    loaded = per.ReplayBuffer.load(tmp_path / "one")
    assert loaded.extra == {"epoch": b"3"}
    assert loaded.sequence == sequence
    assert interrupts.contents(loaded) == interrupts.contents(pair.replay)
    other = Pair(loaded, copy.deepcopy(pair.twin), copied(pair.world), kind)

    assert driven(pair, 25, 2) == driven(other, 25, 2)
    pair.compare()
    other.compare()
    loaded.save(tmp_path / "two")
    assert interrupts.contents(per.ReplayBuffer.load(tmp_path / "two")) == interrupts.contents(
        pair.replay
    )


def copied(world):
    """A world that goes on from the same moment; scripts cannot be copied."""
    other = copy.copy(world)
    other.lives = copy.deepcopy(world.lives)
    return other


PROGRAM = """
import numpy as np
drawn = []
for k in range(30):
    batch = replay.sample(5, beta=0.5)
    drawn.append([batch.ids.tolist(), batch.weights.tolist(), batch.mask.tolist(),
                  batch.action.tolist(), batch.is_first.tolist(), batch.obs.tolist()])
    replay.update_priorities(batch.ids, batch.action * 0.25 - k)
    obs = np.full(2, k, np.float32)
    replay.add(obs, k, 0.5 * k, obs + 1, k % 7 == 6, tag=0.0)
drawn.append([len(replay), sorted(replay.stats().items())])
"""
ELSEWHERE = f"""
import json, sys, prioritized_replay as per
replay = per.ReplayBuffer.load(sys.argv[1])
{PROGRAM}
print(json.dumps(drawn))
"""


@pytest.mark.slow
def test_a_new_process_draws_what_this_one_would_have_drawn(tmp_path):
    pair = with_history(per.Proportional(), steps=60)
    pair.replay.save(tmp_path)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    programs = [[sys.executable, "-W", "error", "-c", ELSEWHERE, str(tmp_path)]] * 2
    found = [
        subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stdout
        for program in programs
    ]
    here: dict[str, Any] = {"replay": pair.replay}
    exec(PROGRAM, here)
    assert found == [json.dumps(here["drawn"]) + "\n"] * 2


def test_a_checkpoint_of_sequences_says_so(tmp_path):
    replay = three(per.Proportional())
    replay.save(tmp_path)
    assert per.ReplayBuffer.load(tmp_path).sequence == replay.sequence
    plain = per.ReplayBuffer(10, fields_of())
    assert plain.sequence is None


@pytest.mark.parametrize("sampler", THREE, ids=repr)
def test_batches_ahead_are_those_that_sample_would_have_drawn(sampler):
    replay, twin = three(sampler), three(sampler)
    with replay.prefetch(3, depth=2, beta=0.4) as batches:
        for batch in itertools.islice(batches, 8):
            expected = twin.sample(3, beta=0.4)
            for name in expected:
                np.testing.assert_array_equal(batch[name], expected[name], err_msg=name)


def test_late_errors_of_batches_ahead_land_where_they_belong():
    replay = three(PLAIN)
    with replay.prefetch(8, depth=3) as batches:
        batch = next(batches)
        one_more(replay, 36)  # 40 steps fit: those of ids 0..2 have gone, so sequence 0 has
        applied = replay.update_priorities(batch.ids, np.ones((8, 4)) * batch.ids[:, None])
        assert applied == np.sum(batch.ids > 0)
        for identifier in set(batch.ids.tolist()) - {0}:
            assert replay.priorities([identifier]).tolist() == [identifier]


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_buffer_of_sequences_cannot_be_copied(act):
    with pytest.raises(TypeError, match=r"use save and ReplayBuffer\.load"):
        act(three(per.Proportional()))


@pytest.mark.slow
def test_a_buffer_in_a_directory_goes_on_from_its_last_flush(tmp_path):
    options = {"sampler": per.Proportional(), "kind": "nested", "capacity": 30}
    script = cycle([(6, TERMINATED), (3, TRUNCATED)])
    sequence = per.Sequence(4, overlap=2)
    pair = Pair.build(sequence, 2, "next_step", script, directory=tmp_path / "files", **options)
    driven(pair, 30, 1)
    safe = pair.replay.flush()
    assert safe == len(pair.replay)
    seen = interrupts.contents(pair.replay)
    driven(pair, 10, 2)
    pair.replay = None
    loaded = per.ReplayBuffer.load(tmp_path / "files", directory=tmp_path / "files")
    assert interrupts.contents(loaded) == seen


def of_large_states(capacity, sequence, **options):
    """A buffer whose sequences have 1 KiB of their own."""
    fields = fields_of(memory=per.Field((256,), per_sequence=True))
    return per.ReplayBuffer(capacity, fields, sequence=sequence, **options)


def add_steps(replay, count, **options):
    obs = np.zeros((count + 1, 2))
    zeros = np.zeros(count)
    memory = np.repeat(np.arange(count, dtype=np.float32)[:, None], 256, axis=1)
    action = zeros.astype(int)
    return replay.add_episode(obs, action, zeros, False, tag=zeros, memory=memory, **options)


@pytest.mark.parametrize("sequence", [per.Sequence(4, overlap=3), per.Sequence(5)], ids=str)
def test_the_bytes_of_a_full_buffer_are_known_before(sequence):
    expected = of_large_states(400, sequence).bytes_when_full()
    replay = of_large_states(400, sequence, max_bytes=expected)
    at_first = replay.nbytes
    assert at_first < expected - 400 // sequence.stride * 512
    for _ in range(2):
        for _ in range(300):
            add_steps(replay, 3)
        assert replay.nbytes == replay.bytes_when_full() == expected
        replay.clear()
        assert replay.nbytes == at_first


def test_a_buffer_can_be_cleared_where_there_is_no_room_for_more():
    at_first = of_large_states(400, per.Sequence(1)).nbytes
    replay = of_large_states(400, per.Sequence(1), max_bytes=at_first)
    for _ in range(64):  # for which there is room at first
        add_steps(replay, 1)
    with pytest.raises(MemoryError, match="max_bytes must be >= "):
        add_steps(replay, 1)
    assert len(replay) == 64
    replay.clear()
    assert add_steps(replay, 1).tolist() == [64]


def test_an_episode_takes_no_more_memory_than_its_sequences_need():
    replay = of_large_states(90, per.Sequence(10))
    ids = add_steps(replay, 5_000)
    assert ids.tolist() == list(range(4_910, 5_000, 10))
    assert replay.get(ids).memory[:, 255].tolist() == ids.tolist()
    most = of_large_states(90, per.Sequence(10, overlap=9)).bytes_when_full()
    assert replay.nbytes <= most
    replay = of_large_states(5_000, per.Sequence(100))
    few = replay.nbytes
    add_steps(replay, 5_000)
    assert replay.nbytes == few


@pytest.mark.parametrize("envs", [None, 2])
@pytest.mark.skipif(config.DISABLE_JIT, reason="what is not compiled can be ended anywhere")
@pytest.mark.slow
def test_an_interrupted_end_of_episodes_is_all_done_or_not_at_all(envs):
    """Besides what is drawn: what is known of the last step, and of the steps to come."""
    mode = "disabled" if envs is None else "next_step"

    def build():
        options = {"num_envs": envs, "autoreset": mode, "seed": 0}
        replay = per.ReplayBuffer(20, fields_of(), sequence=per.Sequence(4), **options)
        for step in range(2):
            obs, ends = np.full(2, step, np.float32), False
            values = obs, 0, 0.0, obs + 1, ends
            if envs:  # the second one waits for its reset step
                values = [np.stack([value] * envs) for value in values[:-1]]
                values.append(np.array([False, step == 1]))
            tag = 0.0 if envs is None else np.zeros(envs)
            replay.add(*values, tag=tag)
        return replay

    def seen(replay):
        size = replay.stats()["size"]  # what was left to do is done here
        transitions = replay._transitions
        cut = transitions.rows.marked(marks.TRUNCATED, np.arange(4)).tolist()
        return size, cut, transitions.windows.awaiting.tolist()

    before, replay = seen(build()), build()
    replay.end_episode()
    after = seen(replay)
    assert before[0] != after[0]
    assert before[1:] != after[1:]
    for at in range(interrupts.count_events(build().end_episode)):
        replay = build()
        assert interrupts.run_until(replay.end_episode, at) == at
        assert seen(replay) in (before, after)


@pytest.mark.parametrize("kind", ["stacks", "nested"])
@pytest.mark.slow
def test_frames_of_steps_are_kept_once_and_let_go(kind):
    """As many frames as without sequences, after many laps and after clearing."""
    script = cycle([(9, TERMINATED), (4, TRUNCATED)])
    pair = Pair.build(per.Sequence(6, overlap=5), None, "disabled", script, capacity=40, kind=kind)
    plain = per.ReplayBuffer(40, fields_of(kind), gamma=GAMMA, seed=0)
    for _ in range(150):
        call = pair.add()
        plain.add(**pair.arguments(call, single=True))
        used = [one._transitions.shared[0]._frames.used for one in (pair.replay, plain)]
        assert used[0] == used[1]
    pair.clear()
    plain.clear()
    used = [one._transitions.shared[0]._frames.used for one in (pair.replay, plain)]
    assert used[0] == used[1]


def test_each_sequence_keeps_its_own_state_however_often_places_are_used_again():
    fields = {
        "obs": per.Field(), "action": per.Field(), "reward": per.Field(),
        "state": per.Field((), "float64", per_sequence=True),
    }  # fmt: skip
    replay = per.ReplayBuffer(11, fields, sequence=per.Sequence(3, overlap=1), seed=0)
    rng = np.random.default_rng(3)
    began: list[int] = []
    for step in range(600):
        ends = bool(rng.random() < 0.25)
        began += replay.add(step, 0, 0.0, step + 1, ends, state=float(step)).tolist()
        began = [one for one in began if one > step - replay.capacity]
        if began:
            batch = replay.get(began)
            assert batch.state.tolist() == batch.obs[:, 0].tolist() == began
