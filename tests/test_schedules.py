"""Schedules: pure, exact at both ends, clamped outside."""

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import prioritized_replay as per

finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)
steps = st.integers(1, 10**9)


@given(start=finite, end=finite, length=steps)
def test_linear_is_exact_at_both_ends_and_clamped_outside(start, end, length):
    schedule = per.linear(start, end, length)

    assert schedule(0) == start
    assert schedule(length) == end
    assert schedule(-1) == start
    assert schedule(length + 1) == schedule(10 * length) == end


@given(start=positive, end=positive, length=steps)
def test_exponential_is_exact_at_both_ends_and_clamped_outside(start, end, length):
    schedule = per.exponential(start, end, length)

    assert schedule(0) == start
    assert schedule(length) == end
    assert schedule(-1) == start
    assert schedule(length + 1) == schedule(10 * length) == end


def test_linear_is_a_straight_line():
    schedule = per.linear(0.4, 1.0, 200)

    np.testing.assert_allclose(
        [schedule(step) for step in range(201)], np.linspace(0.4, 1.0, 201), rtol=1e-14
    )


def test_exponential_falls_by_the_same_factor_every_step():
    schedule = per.exponential(1.0, 0.01, 100)

    values = np.array([schedule(step) for step in range(101)])

    np.testing.assert_allclose(values[1:] / values[:-1], 0.01 ** (1 / 100), rtol=1e-12)


@pytest.mark.parametrize(
    ("start", "end"), [(3e38, 1e-300), (1e-300, 1.7e308), (5e-324, 1.7e308), (5e-324, 5e-324)]
)
def test_an_exponential_spans_all_floats(start, end):
    schedule = per.exponential(start, end, 10)

    assert schedule(5) == pytest.approx(math.sqrt(start) * math.sqrt(end), rel=1e-12)


def test_a_line_between_ends_too_far_apart_is_refused():
    with pytest.raises(ValueError, match=r"^end - start must be a finite"):
        per.linear(-1e308, 1e308, 4)


@given(start=positive, end=positive, length=steps, a=st.floats(0, 1), b=st.floats(0, 1))
def test_schedules_are_monotone_and_stay_between_their_ends(start, end, length, a, b):
    early, late = sorted([a * length, b * length])
    low, high = min(start, end), max(start, end)
    for make in (per.linear, per.exponential):
        schedule = make(start, end, length)
        first, second = schedule(early), schedule(late)

        assert low * (1 - 1e-12) <= first <= high * (1 + 1e-12)
        assert (first <= second * (1 + 1e-12)) if end >= start else (second <= first * (1 + 1e-12))


@given(value=finite, step=st.integers(-10, 10**12))
def test_constant_never_moves(value, step):
    assert per.constant(value)(step) == value


@pytest.mark.parametrize(
    "schedule",
    [per.linear(0.5, 1.0, 10), per.exponential(1.0, 0.1, 10), per.constant(0.3)],
    ids=["linear", "exponential", "constant"],
)
def test_a_schedule_counts_nothing(schedule):
    """The same step gives the same value, however often and in whatever order it is asked."""
    forwards = [schedule(step) for step in range(15)]
    backwards = [schedule(step) for step in reversed(range(15))]

    assert forwards == backwards[::-1]


@pytest.mark.parametrize("make", [per.linear, per.exponential])
@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
def test_a_length_that_is_no_positive_number_is_refused(make, bad):
    with pytest.raises(ValueError, match="steps"):
        make(0.5, 1.0, bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_ends_that_are_not_finite_are_refused(bad):
    for make in (per.linear, per.exponential):
        with pytest.raises(ValueError, match="start"):
            make(bad, 1.0, 10)
        with pytest.raises(ValueError, match="end"):
            make(1.0, bad, 10)
    with pytest.raises(ValueError, match="value"):
        per.constant(bad)


@pytest.mark.parametrize("bad", [0.0, -0.5])
def test_an_exponential_needs_positive_ends(bad):
    with pytest.raises(ValueError, match="start"):
        per.exponential(bad, 1.0, 10)
    with pytest.raises(ValueError, match="end"):
        per.exponential(1.0, bad, 10)


SCHEDULES = {
    "linear(0.5, 1.0, steps=10.0)": lambda: per.linear(0.5, 1.0, 10),
    "exponential(1.0, 0.1, steps=10.0)": lambda: per.exponential(1.0, 0.1, 10),
    "constant(0.3)": lambda: per.constant(0.3),
}


@pytest.mark.parametrize(("shown", "make"), SCHEDULES.items())
def test_schedules_are_values(shown, make):
    schedule = make()
    assert repr(schedule) == shown
    assert eval(shown, vars(per)) == schedule
    assert len({schedule, make()}) == 1
    assert schedule != per.linear(0.5, 1.0, 11)
    for again in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert again == schedule
        assert [again(step) for step in range(15)] == [schedule(step) for step in range(15)]
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.steps = schedule.value = 3


TAKES_A_NUMBER = {
    "sample": ("beta", lambda replay, beta: replay.sample(2, beta)),
    "get": ("beta", lambda replay, beta: replay.get([0], beta=beta)),
    "alpha": ("alpha", lambda replay, alpha: setattr(replay, "alpha", alpha)),
    "Proportional": ("alpha", lambda _, alpha: per.Proportional(alpha)),
    "RankBased": ("alpha", lambda _, alpha: per.RankBased(alpha=alpha)),
    "PER": ("beta", lambda _, beta: per.PER((1,), 9, 2, 0.6, beta, 0.1)),
    "PER alpha": ("alpha", lambda _, alpha: per.PER((1,), 9, 2, alpha, 0.4, 0.1)),
}


@pytest.mark.parametrize(
    "schedule",
    [per.linear(0.4, 1.0, 10), lambda step: 1.0, per.constant],
    ids=["schedule", "function", "not yet made"],
)
@pytest.mark.parametrize(("name", "call"), TAKES_A_NUMBER.values(), ids=TAKES_A_NUMBER.keys())
@pytest.mark.slow
def test_a_schedule_in_the_place_of_a_number_is_to_be_called(schedule, name, call):
    fields = {"obs": per.Field(), "action": per.Field(), "reward": per.Field()}
    replay = per.ReplayBuffer(10, fields, seed=0)
    replay.add(0.0, 0.0, 1.0, 0.0, False)
    before = replay.stats()

    with pytest.raises(
        TypeError, match=rf"^{name} must be a number, .*call it with a step: {name}={name}\(step\)$"
    ):
        call(replay, schedule)

    assert replay.stats() == before
    assert replay.alpha == 0.6
    assert list(replay.sample(2, beta=per.linear(0.4, 1.0, 10)(5)).ids) == [0, 0]
