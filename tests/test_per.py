"""Class PER: all that the reference page describes, and truly prioritized."""

import numpy as np
import pytest
from tests.reference import chi_square_excess, rank_law, sequential_law

import prioritized_replay as per


def memory(count=20, *, obs_shape=(3,), max_len=None, batch_size=8, alpha=0.7, beta=0.5,
           beta_increment=0.1, seed=0, **options):  # fmt: skip
    """A memory of `count` transitions that carry their serial number in every column."""
    buffer = per.PER(
        obs_shape, max_len or count, batch_size, alpha, beta, beta_increment, seed=seed, **options
    )
    for k in range(count):
        buffer.add_experience(
            np.full(obs_shape, k), k % 4, 2.0 * k, np.full(obs_shape, k + 1), k % 5 == 4
        )
    return buffer


def everything(buffer, count):
    """The idxs of all rows: what a draw of as many rows as there are gives."""
    draw = per.PER.draw_samples
    drawn = draw(buffer)
    assert len(drawn[5]) == count
    return drawn


def test_the_columns_of_a_draw():
    buffer = memory(20, obs_shape=(2, 3))

    drawn = buffer.draw_samples()

    assert isinstance(drawn, tuple)
    obs, action, reward, next_obs, done, idxs, weights = drawn
    assert obs.shape == next_obs.shape == (8, 2, 3)
    assert action.shape == reward.shape == done.shape == weights.shape == (8, 1)
    assert idxs.shape == (8,)
    assert obs.dtype == next_obs.dtype == reward.dtype == done.dtype == weights.dtype == np.float32
    assert action.dtype == np.int64
    serial = obs[:, 0, 0].astype(np.int64)
    assert np.unique(serial).size == 8
    np.testing.assert_array_equal(obs, np.broadcast_to(serial[:, None, None], obs.shape))
    np.testing.assert_array_equal(next_obs, obs + 1)
    np.testing.assert_array_equal(action[:, 0], serial % 4)
    np.testing.assert_array_equal(reward[:, 0], 2 * serial)
    np.testing.assert_array_equal(done[:, 0], serial % 5 == 4)


def test_actions_of_any_shape_and_dtype():
    buffer = per.PER((2,), 10, 4, 0.7, 0.5, 0.1, action_shape=(3,), action_dtype="float32")
    for k in range(10):
        buffer.add_experience(np.zeros(2), np.full(3, k / 10), 0.0, np.zeros(2), False)

    action = buffer.draw_samples()[1]

    assert action.shape == (4, 3)
    assert action.dtype == np.float32


def test_the_length_grows_to_the_maximum():
    buffer = per.PER((3,), 6, 2, 0.7, 0.5, 0.1)
    for k in range(15):
        assert len(buffer) == min(k, 6)
        buffer.add_experience(np.full(3, k), 0, 0.0, np.full(3, k), False)

    seen = {int(o) for _ in range(60) for o in buffer.draw_samples()[0][:, 0]}

    assert seen == set(range(9, 15))


def test_beta_is_annealed_after_each_draw_up_to_one():
    buffer = memory(20, beta=0.5, beta_increment=0.2)
    betas = [buffer.beta]
    for _ in range(4):
        buffer.draw_samples()
        betas.append(buffer.beta)

    np.testing.assert_allclose(betas, [0.5, 0.7, 0.9, 1.0, 1.0])
    assert buffer.beta == 1


def test_anneal_beta_can_be_called():
    buffer = memory(5, beta=0.5, beta_increment=0.3)

    buffer.anneal_beta()
    assert buffer.beta == pytest.approx(0.8)
    buffer.anneal_beta()
    assert buffer.beta == 1.0


def test_draws_are_without_replacement():
    buffer = memory(12, batch_size=12)
    buffer.update_priority(buffer.draw_samples()[5], 10.0 ** np.arange(12))

    for _ in range(20):
        assert np.unique(buffer.draw_samples()[5]).size == 12


@pytest.mark.parametrize("column", [False, True])
def test_weights_use_the_rank_law_and_the_beta_before_annealing(column):
    buffer = memory(10, batch_size=10, alpha=0.7, beta=0.4, beta_increment=0.6)
    obs, *_, idxs, weights = buffer.draw_samples()
    np.testing.assert_array_equal(weights, 1.0)  # all rows entered at the same priority
    errors = -(obs[:, 0].astype(np.float64) + 1)
    buffer.update_priority(idxs, errors[:, None] if column else errors)
    buffer.beta = 0.4

    obs, *_, weights = buffer.draw_samples()

    law = rank_law(np.arange(1.0, 11.0), 0.7)[obs[:, 0].astype(int)]
    np.testing.assert_allclose(weights[:, 0], (law / law.min()) ** -0.4, rtol=1e-6)
    assert weights.max() == 1.0


@pytest.mark.slow
def test_it_is_truly_prioritized():
    """Ordered draws of 2 of 5 follow the rank law; on the reference page they are uniform."""
    buffer = memory(5, batch_size=5, alpha=0.9)
    obs, *_, idxs, _ = buffer.draw_samples()
    errors = np.array([0.5, 8.0, 1.0, 0.1, 3.0])
    by_serial = np.empty(5, np.int64)
    by_serial[obs[:, 0].astype(int)] = idxs
    buffer.update_priority(by_serial, errors)
    small = per.PER((3,), 5, 2, 0.9, 0.5, 0.0, seed=7)
    for k in range(5):
        small.add_experience(np.full(3, k), 0, 0.0, np.full(3, k), False)
    seen = {}
    while len(seen) < 5:
        obs, *_, idxs, _ = small.draw_samples()
        seen.update(zip(obs[:, 0].astype(int).tolist(), idxs.tolist(), strict=True))
    small.update_priority(np.array([seen[k] for k in range(5)]), errors)

    first = np.zeros(5)
    for _ in range(3_000):  # the whole batch of 5 is a permutation: look at what comes first
        first[int(buffer.draw_samples()[0][0, 0])] += 1
    law = sequential_law(rank_law(errors, 0.9), 2)
    pairs = dict.fromkeys(law, 0)
    for _ in range(8_000):
        pairs[tuple(small.draw_samples()[0][:, 0].astype(int).tolist())] += 1

    assert chi_square_excess(first, rank_law(errors, 0.9)) < 1
    assert chi_square_excess(list(pairs.values()), list(law.values())) < 1
    assert chi_square_excess(list(pairs.values()), np.full(20, 1 / 20)) > 5


def test_new_rows_enter_at_the_largest_priority():
    buffer = memory(4, max_len=5, batch_size=4)
    obs, *_, idxs, _ = buffer.draw_samples()
    buffer.update_priority(idxs, obs[:, 0] / 10)  # 0, 0.1, 0.2, 0.3: all below the initial 1
    buffer.add_experience(np.full(3, 4), 0, 0.0, np.full(3, 5), False)

    first = [float(buffer.draw_samples()[0][0, 0]) for _ in range(3_000)]

    counts = np.bincount(np.array(first, np.int64), minlength=5)
    law = rank_law(np.array([0, 0.1, 0.2, 0.3, 1.0]), 0.7)
    assert chi_square_excess(counts, law) < 1


def test_an_update_of_overwritten_rows_reaches_no_other_row():
    buffer = memory(6, batch_size=6)
    _, *_, idxs, _ = buffer.draw_samples()
    for k in range(6, 12):
        buffer.add_experience(np.full(3, k), 0, 0.0, np.full(3, k), False)

    buffer.update_priority(idxs, np.arange(6.0) * 100)

    np.testing.assert_array_equal(buffer.draw_samples()[6], 1.0)  # all equal, as before


def test_the_same_seed_gives_the_same_draws():
    def draws(seed):
        buffer = memory(30, seed=seed)
        return [buffer.draw_samples()[5] for _ in range(10)]

    assert all(np.array_equal(a, b) for a, b in zip(draws(1), draws(1), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(draws(1), draws(2), strict=True))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"max_len": 0}, "max_len"),
        ({"max_len": -3}, "max_len"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": -1}, "batch_size"),
        ({"alpha": -0.5}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"beta": -0.1}, "beta"),
        ({"beta": float("nan")}, "beta"),
        ({"beta_increment": float("nan")}, "beta_increment"),
        ({"obs_shape": (-1,)}, "shape"),
        ({"action_shape": (-1,)}, "shape"),
        ({"action_dtype": "nonsense"}, "dtype"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_refused(change, name):
    arguments = {
        "obs_shape": (2,),
        "max_len": 10,
        "batch_size": 2,
        "alpha": 0.7,
        "beta": 0.5,
        "beta_increment": 0.1,
        **change,
    }

    with pytest.raises((ValueError, TypeError), match=name):
        per.PER(**arguments)


def test_a_draw_from_too_few_rows_is_refused_and_leaves_beta():
    buffer = memory(3, max_len=10, batch_size=4)

    with pytest.raises(ValueError, match="batch_size"):
        buffer.draw_samples()
    with pytest.raises(ValueError, match="finite"):
        buffer.update_priority(np.array([0]), np.array([np.nan]))

    assert buffer.beta == 0.5
    assert len(buffer) == 3


def test_drawing_from_an_empty_memory_is_refused():
    with pytest.raises(ValueError, match=r"empty|batch_size"):
        per.PER((2,), 10, 4, 0.7, 0.5, 0.1).draw_samples()


@pytest.mark.slow
def test_a_training_loop_as_on_the_reference_page_runs_and_learns():
    """Its optimize step, with the loss the paper means, on a bandit with four kinds of state."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    buffer = per.PER((4,), 200, 32, 0.7, 0.5, 0.005, seed=0)
    online = torch.nn.Linear(4, 2)
    target_network = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(online.parameters(), lr=0.5)
    right = np.array([0, 1, 1, 0])

    def optimize():
        if len(buffer) < 64:
            return
        optimizer.zero_grad()
        obs, action, reward, next_obs, done, idxs, weights = buffer.draw_samples()
        obs, action, reward, next_obs, done, weights = (
            torch.as_tensor(column) for column in (obs, action, reward, next_obs, done, weights)
        )
        with torch.no_grad():
            best = target_network(next_obs).max(dim=1, keepdim=True)[0]
            target = reward + 0.9 * best * (1 - done)
        td_error = target - online(obs).gather(dim=1, index=action)
        assert td_error.shape == weights.shape == (32, 1)
        loss = (weights * td_error.pow(2).mul(0.5)).mean()
        loss.backward()
        optimizer.step()
        buffer.update_priority(idxs, td_error.detach().cpu().numpy())

    for _ in range(600):
        state = rng.integers(4)
        action = rng.integers(2)
        obs = np.eye(4, dtype=np.float32)[state]
        buffer.add_experience(obs, action, float(action == right[state]), obs, True)
        optimize()

    values = online(torch.eye(4)).detach().numpy()
    np.testing.assert_array_equal(values.argmax(axis=1), right)
    np.testing.assert_allclose(values.max(axis=1), 1.0, atol=0.1)
    np.testing.assert_allclose(values.min(axis=1), 0.0, atol=0.1)
    assert buffer.beta == 1.0


def test_images_may_be_changed_and_are_kept_once():
    memory = per.PER((4, 32, 32), 100, 8, 0.7, 0.5, 0.0, obs_dtype="uint8", seed=0)
    frames = np.random.default_rng(0).integers(0, 256, (204, 32, 32), dtype=np.uint8)
    for k in range(200):
        memory.add_experience(frames[k : k + 4], k, 1.0, frames[k + 1 : k + 5], k % 50 == 49)

    obs, action, _, next_obs, done, idxs, _ = memory.draw_samples()
    obs[:] = 0

    for row, k in enumerate(idxs):
        np.testing.assert_array_equal(next_obs[row], frames[k + 1 : k + 5])
        assert (action[row, 0], done[row, 0]) == (k, k % 50 == 49)
    again = memory.replay.get(idxs)
    np.testing.assert_array_equal(again.obs, np.stack([frames[k : k + 4] for k in idxs]))
    assert memory.replay.nbytes < 2 * 32 * 32 * 100  # eight times as much if nothing were shared
