"""Adam in one loop: torch's steps, torch's state, and torch itself for all that is not plain."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from prioritized_replay.dqn.fast.adam import FlatAdam  # noqa: E402


def pair(size=1_000):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(size, generator=generator)
    parameters = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours, theirs = FlatAdam(parameters[0]), torch.optim.Adam([parameters[1]])
    gradients = [10.0**-k * torch.randn(size, generator=generator) for k in range(8)]
    return ours, theirs, parameters, gradients


def step_both(ours, theirs, parameters, gradients, **settings):
    for optimizer in (ours, theirs):
        optimizer.param_groups[0].update(settings)
        (parameter,) = optimizer.param_groups[0]["params"]
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(parameters[0], parameters[1], rtol=1e-5, atol=1e-6)
    for name in ("exp_avg", "exp_avg_sq", "step"):
        (mine,), (torchs,) = ours.state.values(), theirs.state.values()
        torch.testing.assert_close(mine[name], torchs[name], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lr": 0.1, "betas": (0.5, 0.75), "eps": 1e-3},
        {"weight_decay": 0.1},
        {"maximize": True},
    ],
)
@pytest.mark.slow
def test_steps_are_torchs(settings):
    step_both(*pair(), **settings)


def test_settings_count_from_the_next_step_on():
    ours, theirs, parameters, gradients = pair()

    step_both(ours, theirs, parameters, gradients)
    step_both(ours, theirs, parameters, gradients, lr=0.25)


def test_a_state_goes_both_ways():
    ours, theirs, parameters, gradients = pair()
    step_both(ours, theirs, parameters, gradients)

    fresh_ours, fresh_theirs = FlatAdam(parameters[0]), torch.optim.Adam([parameters[1]])
    fresh_ours.load_state_dict(theirs.state_dict())
    fresh_theirs.load_state_dict(ours.state_dict())

    step_both(fresh_ours, fresh_theirs, parameters, gradients)
    assert fresh_ours.state[parameters[0]]["step"] == 2 * len(gradients)


def test_a_step_calls_its_hooks_and_its_closure():
    ours, _, parameters, gradients = pair()
    called = []
    ours.register_step_post_hook(lambda *arguments: called.append("hook"))
    parameters[0].grad = gradients[0]

    ours.step()
    before = parameters[0].detach().clone()
    told = ours.step(lambda: called.append("closure") or 7.0)

    assert told == 7.0
    assert called.count("closure") == 1
    assert called[0] == called[-1] == "hook"
    assert not torch.equal(parameters[0], before)


def test_without_a_gradient_nothing_moves():
    ours, theirs, parameters, gradients = pair()
    step_both(ours, theirs, parameters, gradients)
    before = parameters[0].detach().clone()

    ours.zero_grad()
    ours.step()

    assert torch.equal(parameters[0], before)
