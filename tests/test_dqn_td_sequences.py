"""Targets, rescaled values and the loss along sequences, beside slow loops and by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.testing import assert_close

from prioritized_replay.dqn import n_step_targets, rescaled, sequence_loss, td_loss, unrescaled

NAN = math.nan
GAMMA = 0.5
DOUBLE = torch.float64


def floats(values):
    return torch.tensor([values], dtype=DOUBLE)


def flags(values):
    return torch.tensor([[bool(value) for value in values]])


@st.composite
def sequences(draw):
    """Sequences of several lengths, with ends inside them; what padding holds is nan."""
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reward, discount, next_value = rng.normal(size=(3, rows, length))
    discount = np.where(rng.random((rows, length)) < 0.2, 0.0, np.abs(discount))
    real = np.arange(length) < rng.integers(0, length + 1, size=(rows, 1))
    is_first = real & (rng.random((rows, length)) < 0.3)
    columns = [np.where(real, column, NAN) for column in (reward, discount, next_value)]
    return *columns, real, is_first


def slow_target(reward, discount, next_value, real, is_first, n_step, t):
    """Sum the rewards one by one, until there is nothing left to sum."""
    total, factor, last = 0.0, 1.0, len(reward) - 1
    for k in range(t, t + n_step):
        total += factor * reward[k]
        factor *= discount[k]
        if k == last or not real[k + 1] or is_first[k + 1] or k == t + n_step - 1:
            return total + factor * next_value[k]
    raise AssertionError


@given(columns=sequences(), n_step=st.integers(1, 9), cross=st.booleans())
def test_targets_are_those_of_a_slow_loop(columns, n_step, cross):
    reward, discount, next_value, real, is_first = columns
    if not cross:
        is_first = np.zeros_like(is_first)
    expected = np.zeros_like(reward)
    for row, t in np.argwhere(real):
        one = [column[row] for column in (reward, discount, next_value, real, is_first)]
        expected[row, t] = slow_target(*one, n_step, t)

    tensors = [torch.from_numpy(column) for column in (reward, discount, next_value, real)]
    firsts = torch.from_numpy(is_first) if cross else None
    target = n_step_targets(*tensors, n_step, firsts)

    assert_close(target, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


def test_targets_by_hand():
    reward, next_value = floats([1.0, 2.0, 4.0, 8.0]), floats([16.0, 32.0, 64.0, 128.0])
    discount, mask = torch.full_like(reward, GAMMA), flags([1, 1, 1, 1])

    one = n_step_targets(reward, discount, next_value, mask, 1)
    three = n_step_targets(reward, discount, next_value, mask, 3)

    assert_close(one, floats([1 + 8.0, 2 + 16.0, 4 + 32.0, 8 + 64.0]))
    # 1 + 2/2 + 4/4 + 64/8; 2 + 4/2 + 8/4 + 128/8; the last two have fewer steps to sum
    assert_close(three, floats([11.0, 22.0, 4 + 8 / 2 + 128 / 4, 8 + 128 / 2]))


def test_nothing_counts_after_a_termination():
    """At step 1 the episode terminates; what follows is padding, or another episode."""
    reward, next_value = floats([1.0, 2.0, 1e9, 1e9]), floats([16.0, 32.0, 1e9, 1e9])
    discount = floats([GAMMA, 0.0, GAMMA, GAMMA])
    expected = [1 + 2 / 2, 2.0]  # neither 16 nor 32

    padded = n_step_targets(reward, discount, next_value, flags([1, 1, 0, 0]), 3)
    crossing = n_step_targets(
        reward, discount, next_value, flags([1, 1, 1, 1]), 3, flags([1, 0, 1, 0])
    )

    assert_close(padded, floats([*expected, 0.0, 0.0]))
    assert_close(crossing[:, :2], floats(expected))


def test_a_truncated_step_bootstraps_from_its_own_next_value():
    reward, next_value = floats([1.0, 2.0, 4.0, NAN]), floats([16.0, 32.0, 64.0, NAN])
    discount, real = torch.full_like(reward, GAMMA), flags([1, 1, 1, 0])

    target = n_step_targets(reward, discount, next_value, real, 3, flags([1, 0, 1, 0]))

    # 1 + 2/2 + 32/4, 2 + 32/2, and the only step of the next episode: 4 + 64/2
    assert_close(target, floats([10.0, 18.0, 36.0, 0.0]))


def test_targets_of_an_episode_are_those_of_the_buffers_windows():
    """What ``n_step`` of the buffer sums over an episode, as one sequence of all its steps."""
    import prioritized_replay as per

    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 9)).astype(np.float32)
    fields = {"obs": per.Field(()), "action": per.Field((), "int64"), "reward": per.Field()}
    replay = per.ReplayBuffer(9, fields, n_step=4, gamma=0.9, seed=0)
    for t in range(9):  # the observation after step t is t + 1
        ids = replay.add(float(t), 0, reward[t], float(t + 1), False, t == 8)
    assert len(ids) == 4
    windows = replay.get(np.arange(9))
    expected = windows.reward + windows.discount * value[windows.next_obs.astype(int) - 1]

    target = n_step_targets(
        torch.from_numpy(reward[None]), torch.full((1, 9), 0.9), torch.from_numpy(value[None]),
        torch.ones(1, 9, dtype=torch.bool), 4,
    )  # fmt: skip

    assert_close(target[0], torch.from_numpy(expected))


def test_targets_have_gradients():
    reward, discount, next_value = torch.rand(3, 2, 5, dtype=DOUBLE, requires_grad=True)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])

    def target(*columns):
        return n_step_targets(*columns, mask, 3)

    assert torch.autograd.gradcheck(target, (reward, discount, next_value))


def slow_rescaled(x, eps):
    return math.copysign(math.sqrt(abs(x) + 1.0) - 1.0, x) + eps * x


@given(x=st.floats(-1e6, 1e6), eps=st.sampled_from([0.0, 1e-3, 0.5]))
@example(x=5e-324, eps=0.0)  # half of the smallest number is none, so the inverse is one off
def test_rescaled_is_the_formula_and_unrescaled_its_inverse(x, eps):
    y = rescaled(torch.tensor(x, dtype=DOUBLE), eps)

    assert float(y) == pytest.approx(slow_rescaled(x, eps), rel=1e-9, abs=1e-15)
    assert float(unrescaled(y, eps)) == pytest.approx(x, rel=1e-13, abs=1e-323)


def test_rescaling_by_hand():
    x = torch.tensor([-99.0, -3.0, 0.0, 8.0])

    assert_close(rescaled(x, 0.0), torch.tensor([-9.0, -1.0, 0.0, 2.0]))
    assert_close(rescaled(x), torch.tensor([-9.099, -1.003, 0.0, 2.008]))
    assert_close(unrescaled(torch.tensor([-9.099, -1.003, 0.0, 2.008])), x)


def test_rescaling_keeps_the_digits_of_float32():
    """The formula of the papers is off by 0.2 % at y = 1e-3 there."""
    x = torch.logspace(-30, 6, 200)

    assert_close(unrescaled(rescaled(x)), x, rtol=1e-6, atol=0.0)
    assert_close(unrescaled(rescaled(-x)), -x, rtol=1e-6, atol=0.0)
    exact = [slow_rescaled(float(one), 1e-3) for one in x[-60:]]
    assert_close(rescaled(x[-60:]).double(), torch.tensor(exact, dtype=DOUBLE), rtol=1e-6, atol=0)


def test_rescaling_has_gradients_everywhere():
    x = torch.tensor([-50.0, -1e-3, 0.0, 2.0], dtype=DOUBLE, requires_grad=True)

    rescaled(x).sum().backward()
    slopes = [0.5 / math.sqrt(abs(one) + 1.0) + 1e-3 for one in (-50.0, -1e-3, 0.0, 2.0)]
    assert_close(x.grad, torch.tensor(slopes, dtype=DOUBLE))

    y = rescaled(x).detach().requires_grad_()
    unrescaled(y).sum().backward()
    assert_close(y.grad, 1.0 / x.grad)


@given(columns=sequences(), burn_in=st.integers(0, 6), loss=st.sampled_from(["huber", "squared"]))
def test_the_loss_is_that_of_a_slow_loop(columns, burn_in, loss):
    errors, _, _, real, _ = columns
    rows, length = errors.shape
    burn_in = min(burn_in, length - 1)
    weights = np.linspace(0.25, 1.0, rows)
    expected = 0.0
    for row in range(rows):
        steps = [t for t in range(length) if real[row, t]]
        learnt = [t for t in steps if t >= burn_in] or steps
        losses = []
        for t in learnt:
            size = abs(errors[row, t])
            huge = loss == "huber" and size > 1.0
            losses.append(size - 0.5 if huge else 0.5 * size**2)
        if losses:
            expected += weights[row] * sum(losses) / len(losses) / rows

    tensors = map(torch.from_numpy, (errors, weights, real))
    assert float(sequence_loss(*tensors, burn_in, loss)) == pytest.approx(expected, rel=1e-12)


def test_the_loss_by_hand():
    """A full sequence, one that ends after the burn-in, and one that ends within it."""
    errors = torch.tensor([[9.0, 9.0, 0.5, -3.0], [9.0, 9.0, 2.0, NAN], [1.0, NAN, NAN, NAN]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]]).bool()
    weights = torch.tensor([1.0, 0.5, 0.25])

    squared = 1.0 * (0.125 + 4.5) / 2 + 0.5 * 2.0 + 0.25 * 0.5
    assert_close(sequence_loss(errors, weights, mask, 2, "squared"), torch.tensor(squared / 3))
    huber = 1.0 * (0.125 + 2.5) / 2 + 0.5 * 1.5 + 0.25 * 0.5
    assert_close(sequence_loss(errors, weights, mask, 2), torch.tensor(huber / 3))


def test_the_gradient_carries_the_weight_once_and_spares_the_burn_in():
    errors = torch.tensor([[4.0, 0.5, -0.5], [4.0, 0.5, NAN]], requires_grad=True)
    mask = torch.tensor([[True, True, True], [True, True, False]])

    sequence_loss(errors, torch.tensor([1.0, 0.5]), mask, 1, "squared").backward()

    expected = torch.tensor([[0.0, 0.5 / 2, -0.5 / 2], [0.0, 0.5 * 0.5, 0.0]]) / 2
    assert_close(errors.grad, expected)


@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_sequences_of_one_step_have_the_loss_of_transitions(loss):
    errors, weights = torch.linspace(-3.0, 3.0, 8), torch.linspace(0.1, 1.0, 8)
    mask = torch.ones(8, 1, dtype=torch.bool)

    alone = sequence_loss(errors[:, None], weights, mask, loss=loss)

    assert_close(alone, td_loss(errors, weights, loss))


@pytest.mark.parametrize("name", ["discount", "next_value", "mask", "is_first"])
@pytest.mark.parametrize("shape", [(2,), (2, 1), (1, 3), (2, 3, 1)])
def test_targets_refuse_what_would_broadcast(name, shape):
    arguments = {
        "reward": torch.zeros(2, 3),
        "discount": torch.zeros(2, 3),
        "next_value": torch.zeros(2, 3),
        "mask": torch.ones(2, 3, dtype=torch.bool),
        "n_step": 1,
        "is_first": torch.zeros(2, 3, dtype=torch.bool),
    }
    n_step_targets(**arguments)
    arguments[name] = arguments[name].new_zeros(shape)

    with pytest.raises(ValueError, match=rf"^{name} must have shape \(2, 3\), got"):
        n_step_targets(**arguments)


def test_targets_refuse_the_rest():
    three, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"^reward must have shape \(B, T\), got \(3,\)"):
        n_step_targets(three[0], three, three, mask, 1)
    with pytest.raises(ValueError, match=r"^reward must have shape \(B, T\), got \(2, 0\)"):
        n_step_targets(three[:, :0], three[:, :0], three[:, :0], mask[:, :0], 1)
    with pytest.raises(TypeError, match=r"^mask must be bool, got torch\.float32"):
        n_step_targets(three, three, three, three, 1)
    with pytest.raises(TypeError, match=r"^is_first must be bool, got torch\.float32"):
        n_step_targets(three, three, three, mask, 1, three)
    for wrong in (0, 1.0, True):
        with pytest.raises(ValueError, match=rf"^n_step must be an integer >= 1, got {wrong}"):
            n_step_targets(three, three, three, mask, wrong)


def test_the_loss_refuses_what_would_broadcast():
    errors, weights, mask = torch.zeros(2, 3), torch.ones(2), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"^td_errors must have shape \(B, T\), got \(2,\)"):
        sequence_loss(weights, weights, mask)
    for wrong in (torch.ones(3), torch.ones(2, 1), torch.ones(2, 3)):
        with pytest.raises(ValueError, match=r"^weights must have shape \(2,\), got"):
            sequence_loss(errors, wrong, mask)
    with pytest.raises(ValueError, match=r"^mask must have shape \(2, 3\), got \(2, 1\)"):
        sequence_loss(errors, weights, mask[:, :1])
    with pytest.raises(TypeError, match=r"^mask must be bool, got torch\.float32"):
        sequence_loss(errors, weights, errors)
    with pytest.raises(ValueError, match=r"^burn_in must be < T = 3, got 3"):
        sequence_loss(errors, weights, mask, 3)
    with pytest.raises(ValueError, match=r"^burn_in must be an integer >= 0, got -1"):
        sequence_loss(errors, weights, mask, -1)
    with pytest.raises(ValueError, match=r"^loss must be one of huber, squared, got 'mse'"):
        sequence_loss(errors, weights, mask, loss="mse")


@pytest.mark.parametrize("function", [rescaled, unrescaled])
@pytest.mark.parametrize("eps", [-1e-3, NAN, math.inf])
def test_rescaling_refuses_an_eps_that_is_none(function, eps):
    with pytest.raises(ValueError, match=r"^eps must be .*, got"):
        function(torch.zeros(2), eps)
