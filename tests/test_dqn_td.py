"""Target, td error and loss against numbers worked out by hand."""

import pytest
import torch
from torch.testing import assert_close

from prioritized_replay.dqn.fast.learner import td_loss_gradient
from prioritized_replay.dqn.td import td_error, td_loss, td_target

GAMMA = 0.9
REWARD = torch.tensor([1.0, -2.0, 3.0])
# One step; termination; a window of three steps.
DISCOUNT = torch.tensor([GAMMA, 0.0, GAMMA**3])
TARGET_NET = torch.tensor([[10.0, 20.0], [100.0, 200.0], [5.0, -5.0]])
ONLINE_NET = torch.tensor([[4.0, 3.0], [1.0, 2.0], [0.0, 1.0]])


@pytest.mark.slow
def test_dqn_target_is_the_largest_value_discounted():
    target = td_target(REWARD, DISCOUNT, TARGET_NET, TARGET_NET)

    # 1 + 0.9 * 20; -2, since nothing follows; 3 + 0.729 * 5
    assert_close(target, torch.tensor([19.0, -2.0, 6.645]))


def test_double_dqn_target_uses_the_online_choice_and_the_target_value():
    target = td_target(REWARD, DISCOUNT, TARGET_NET, ONLINE_NET)

    # The online network picks actions 0, 1, 1: 1 + 0.9 * 10; -2; 3 + 0.729 * -5
    assert_close(target, torch.tensor([10.0, -2.0, -0.645]))


def test_td_error_is_target_minus_the_value_of_the_action_taken():
    q = torch.tensor([[1.0, 7.0], [2.0, 8.0], [3.0, 9.0]])

    errors = td_error(q, torch.tensor([1, 0, 1]), torch.tensor([10.0, -2.0, 9.0]))

    assert_close(errors, torch.tensor([3.0, -4.0, 0.0]))


def test_loss_is_the_mean_of_weight_times_loss():
    errors, weights = torch.tensor([0.5, -3.0, 0.0]), torch.tensor([1.0, 0.25, 0.5])

    assert_close(td_loss(errors, weights, "squared"), torch.tensor((0.125 + 0.25 * 4.5) / 3))
    assert_close(td_loss(errors, weights, "huber"), torch.tensor((0.125 + 0.25 * 2.5) / 3))


def test_gradient_carries_the_weight_once():
    """The gradient is minus the mean of w delta grad q; (w delta)**2 would give w**2."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(32, 5, generator=generator)
    action = torch.randint(3, (32,), generator=generator)
    target = torch.randn(32, generator=generator)
    weights = torch.rand(32, generator=generator) + 0.1
    theta = torch.randn(5, 3, generator=generator, requires_grad=True)

    td_loss(td_error(features @ theta, action, target), weights, "squared").backward()

    expected = torch.zeros(5, 3)
    for j in range(32):
        delta = float(target[j]) - float(features[j] @ theta.detach()[:, action[j]])
        expected[:, action[j]] -= float(weights[j]) * delta * features[j] / 32
    assert_close(theta.grad, expected, rtol=1e-5, atol=1e-7)


def test_huber_gradient_is_the_clipped_error():
    errors = torch.tensor([0.3, -0.3, 5.0, -5.0], requires_grad=True)

    td_loss(errors, torch.tensor([1.0, 1.0, 1.0, 0.5]), "huber").backward()

    assert_close(errors.grad, torch.tensor([0.3, -0.3, 1.0, -0.5]) / 4)


def test_importance_weights_undo_prioritized_sampling_in_expectation():
    """By enumeration: sum of P w grad = mean grad, for raw weights at beta = 1."""
    errors = torch.tensor([0.1, -0.7, 2.0, 0.4], dtype=torch.float64)
    probability = errors.abs() / errors.abs().sum()
    weights = 1.0 / (4 * probability)
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(4):
        delta = errors[i : i + 1].clone().requires_grad_()
        td_loss(delta, weights[i : i + 1], "squared").backward()
        expected += probability[i] * delta.grad[0]

    assert_close(expected, errors.mean(), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("reward", (3, 1)),
        ("discount", (3, 1)),
        ("discount", (1,)),
        ("q_next_value", (1, 2)),
        ("q_next_value", (3,)),
        ("q_next_selector", (3, 1)),
    ],
)
def test_target_refuses_what_would_broadcast(name, shape):
    arguments = {
        "reward": torch.zeros(3),
        "discount": torch.zeros(3),
        "q_next_value": torch.zeros(3, 2),
        "q_next_selector": torch.zeros(3, 2),
        name: torch.zeros(shape),
    }

    with pytest.raises(ValueError, match=rf"^{name} must have shape .*got \({shape[0]},"):
        td_target(**arguments)


def test_error_and_loss_refuse_what_would_broadcast():
    q, action, target = torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), torch.zeros(3)

    with pytest.raises(ValueError, match=r"^target must have shape \(B,\), got \(3, 1\)"):
        td_error(q, action, target[:, None])
    with pytest.raises(ValueError, match=r"^action must have shape \(3,\), got \(3, 1\)"):
        td_error(q, action[:, None], target)
    with pytest.raises(ValueError, match=r"^q must have shape \(3, A\), got \(1, 2\)"):
        td_error(q[:1], action, target)
    with pytest.raises(ValueError, match=r"^weights must have shape \(3,\), got \(3, 1\)"):
        td_loss(target, torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"^td_errors must have shape \(B,\), got \(3, 1\)"):
        td_loss(target[:, None], torch.ones(3))


def test_float_actions_are_refused():
    with pytest.raises(TypeError, match=r"^action must be int64, got torch\.float32"):
        td_error(torch.zeros(3, 2), torch.zeros(3), torch.zeros(3))


def test_unknown_loss_is_refused():
    with pytest.raises(ValueError, match=r"^loss must be one of huber, squared, got 'l1'"):
        td_loss(torch.zeros(3), torch.ones(3), "l1")


@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_gradient_of_the_loss_is_that_of_autograd(loss):
    q = torch.tensor([[0.0, 2.0, 1.0], [5.0, -1.0, 0.0], [1.0, 1.0, 1.0]], requires_grad=True)
    action, weights = torch.tensor([2, 0, 1]), torch.tensor([1.0, 0.25, 0.5])
    errors = td_error(q, action, torch.tensor([1.5, 1.0, 4.0]))  # 0.5, -4 and 3
    td_loss(errors, weights, loss).backward()

    gradient = td_loss_gradient(errors.detach(), weights, action, 3, loss)

    assert_close(gradient, q.grad)


def test_gradient_of_the_loss_checks_what_it_is_given():
    three, action = torch.zeros(3), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="td_errors must have shape"):
        td_loss_gradient(three[:, None], three, action, 2)
    with pytest.raises(ValueError, match="weights must have shape"):
        td_loss_gradient(three, three[:2], action, 2)
    with pytest.raises(ValueError, match="action must have shape"):
        td_loss_gradient(three, three, action[:, None], 2)
    with pytest.raises(ValueError, match="loss must be one of huber, squared, got 'l1'"):
        td_loss_gradient(three, three, action, 2, "l1")
