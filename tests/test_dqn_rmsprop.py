"""The optimizer of the DQN papers, against the formula in float64."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prioritized_replay.dqn.rmsprop import CentredRMSProp


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 1_000),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.5, 0.95]),
    st.sampled_from([1e-2, 1e-5, 1e-8]),
)
@pytest.mark.slow
def test_steps_are_the_formula(seed, steps, decay, eps):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=5)
    parameter = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    optimizer = CentredRMSProp([parameter], lr=0.125, decay=decay, eps=eps)
    mean, square = np.zeros(5), np.zeros(5)
    for _ in range(steps):
        gradient = rng.normal(size=5)
        parameter.grad = torch.tensor(gradient)

        optimizer.step()

        mean = decay * mean + (1 - decay) * gradient
        square = decay * square + (1 - decay) * gradient**2
        values = values - 0.125 * gradient / np.sqrt(np.maximum(square - mean**2, 0.0) + eps)
    assert parameter.detach().numpy() == pytest.approx(values, rel=1e-6)


def test_a_gradient_that_never_changes_does_not_divide_by_less_than_nothing():
    gradients = torch.linspace(0.1, 10.0, 500)  # rounding makes the variance of some negative
    parameter = nn.Parameter(torch.ones(500))
    optimizer = CentredRMSProp([parameter], lr=1e-3, eps=1e-12)
    for _ in range(500):
        parameter.grad = gradients.clone()
        optimizer.step()

    assert torch.isfinite(parameter).all()


def test_state_and_groups_are_torchs():
    parameter, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = CentredRMSProp([parameter, still], lr=0.1, eps=1e-3)
    parameter.grad = torch.tensor([1.0, -1.0])
    optimizer.step()
    other = copy.deepcopy(parameter)
    another = CentredRMSProp([other, still], lr=1.0, eps=1.0)
    another.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.grad = parameter.grad.clone()

    optimizer.step()
    loss = another.step(lambda: torch.tensor(2.0))

    assert loss == 2.0
    assert torch.equal(parameter, other)
    assert torch.equal(still, torch.ones(2))
