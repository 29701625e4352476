"""n-step windows of one stream, against windows computed from the whole episode."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.reference import FIELDS, ReferenceReplay, Step

import prioritized_replay as per
from prioritized_replay.streams import _step_kernels as kernels

GAMMA = 0.5  # with whole-number rewards every return and discount is exact in float32
ENDINGS = ["terminated", "truncated", "both", "end_episode"]


def step(serial: int, **options) -> Step:
    return Step(
        obs=np.array([serial, -serial], np.float32),
        action=serial * 7,
        reward=float(serial % 11 - 4),
        next_obs=np.array([serial + 1000, serial + 0.5], np.float32),
        **options,
    )


def build(n_step, capacity=100, sampler=None, **options):
    sampler = sampler or per.Proportional()
    replay = per.ReplayBuffer(
        capacity, FIELDS, sampler=sampler, n_step=n_step, gamma=GAMMA, seed=0, **options
    )
    return replay, ReferenceReplay(capacity, sampler, n_step, GAMMA)


def give(replay, twin, one, terminated=False, truncated=False):
    ids = replay.add(
        one.obs,
        one.action,
        one.reward,
        one.next_obs,
        terminated,
        truncated,
        td_error=one.td_error,
        **one.extra,
    )
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, twin.add(one, terminated, truncated))


def finish(replay, twin):
    np.testing.assert_array_equal(replay.end_episode(), twin.end_episode())


def compare(replay, twin):
    assert len(replay) == len(twin.rows)
    assert replay.stats()["open_windows"] == twin.open_windows
    if twin.rows:
        batch = replay.get(twin.ids)
        for name in ("obs", "action", "reward", "discount", "next_obs"):
            np.testing.assert_array_equal(
                batch[name], np.array([row[name] for row in twin.rows.values()]), err_msg=name
            )
        np.testing.assert_array_equal(
            batch.terminated, [row["discount"] == 0 for row in twin.rows.values()]
        )
        np.testing.assert_array_equal(replay.priorities(twin.ids), list(twin.priority.values()))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("n_step", [1, 2, 3, 4, 5])
@pytest.mark.slow
def test_windows_of_every_episode_length_and_ending(n_step, ending):
    """Episodes of length 1..8 with each ending, one after the other, in rings of several sizes."""
    for capacity in (1, 2, 3, 5, 8, 100):
        replay, twin = build(n_step, capacity)
        serial = 0
        for length in (*range(1, 9), 3, 1, 2):
            for k in range(length):
                last = k == length - 1 and ending != "end_episode"
                give(
                    replay,
                    twin,
                    step(serial),
                    terminated=last and ending in ("terminated", "both"),
                    truncated=last and ending in ("truncated", "both"),
                )
                serial += 1
            if ending == "end_episode":
                finish(replay, twin)
            compare(replay, twin)
        assert twin.next_id == serial  # every step started exactly one window
        assert replay.stats()["open_windows"] == 0


def test_a_worked_example():
    """n = 3, rewards 1 2 4 8, gamma 1/2, termination at the last of four steps."""
    replay, _ = build(3)
    obs = np.zeros(2)
    for k, reward in enumerate([1.0, 2.0, 4.0, 8.0]):
        ids = replay.add(obs + k, k, reward, obs + k + 1, k == 3)
    np.testing.assert_array_equal(ids, [1, 2, 3] + ids[0] - 1)

    batch = replay.get(np.arange(ids[0] - 1, ids[0] + 3))

    np.testing.assert_array_equal(batch.reward, [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8])
    np.testing.assert_array_equal(batch.discount, [0.125, 0, 0, 0])
    np.testing.assert_array_equal(batch.terminated, [False, True, True, True])
    np.testing.assert_array_equal(batch.next_obs[:, 0], [3, 4, 4, 4])
    np.testing.assert_array_equal(batch.obs[:, 0], [0, 1, 2, 3])


def test_a_truncated_window_bootstraps_and_a_terminated_one_does_not():
    for truncated in (True, False):
        replay, _ = build(3)
        obs = np.zeros(2)
        replay.add(obs, 0, 1.0, obs + 1, False)
        ids = replay.add(obs + 1, 0, 1.0, obs + 2, not truncated, truncated)

        batch = replay.get(ids)

        np.testing.assert_array_equal(batch.discount, [0.25, 0.5] if truncated else [0, 0])
        np.testing.assert_array_equal(batch.terminated, not truncated)
        np.testing.assert_array_equal(batch.next_obs[:, 0], 2)


def test_both_flags_at_once_count_as_termination():
    replay, _ = build(2)

    ids = replay.add(np.zeros(2), 0, 1.0, np.ones(2), True, True)

    np.testing.assert_array_equal(replay.get(ids).discount, 0)


@pytest.mark.parametrize("n_step", [1, 3])
def test_gamma_one_and_gamma_zero(n_step):
    """At gamma 0 every discount is 0, which does not make every row the end of an episode."""
    obs = np.zeros(2)
    for gamma in (1.0, 0.0):
        replay = per.ReplayBuffer(10, FIELDS, n_step=n_step, gamma=gamma)
        for _ in range(n_step):
            going_on = replay.add(obs, 0, 2.0, obs, False)
        ended = replay.add(obs, 0, 2.0, obs, True)

        np.testing.assert_array_equal(replay.get(going_on).discount, gamma)
        np.testing.assert_array_equal(replay.get(going_on).reward, 2.0 * (n_step if gamma else 1))
        np.testing.assert_array_equal(replay.get(going_on).terminated, False)
        np.testing.assert_array_equal(replay.get(ended).discount, 0.0)
        np.testing.assert_array_equal(replay.get(ended).terminated, True)


def test_ending_the_episode_in_the_middle():
    replay, twin = build(4)
    np.testing.assert_array_equal(replay.end_episode(), [])  # nothing open, nothing happens
    for serial in range(6):
        give(replay, twin, step(serial))
    assert replay.stats()["open_windows"] == 3

    finish(replay, twin)
    compare(replay, twin)
    np.testing.assert_array_equal(replay.end_episode(), [])

    give(replay, twin, step(50), terminated=True)  # the next episode knows nothing of the last
    compare(replay, twin)


@pytest.mark.parametrize("n_step", [1, 2, 3, 5])
def test_the_td_error_argument_follows_its_window(n_step):
    replay, twin = build(n_step)
    for serial in range(9):
        error = None if serial % 3 == 0 else -float(serial)
        give(replay, twin, step(serial, td_error=error), terminated=serial == 8)
    compare(replay, twin)
    priorities = list(twin.priority.values())
    assert priorities[1] == 1.01
    assert priorities[8] == 8.01


def test_extra_columns_belong_to_the_first_step_of_the_window():
    fields = {**FIELDS, "log_prob": per.Field((), "float64"), "core": per.Field((3,), "float32")}
    replay = per.ReplayBuffer(20, fields, n_step=3, gamma=GAMMA)
    obs = np.zeros(2)
    emitted = []
    for k in range(7):
        emitted.extend(replay.add(obs, k, 1.0, obs, k == 6, log_prob=-0.1 * k, core=np.full(3, k)))

    batch = replay.get(np.array(emitted))

    np.testing.assert_array_equal(batch.action, range(7))
    np.testing.assert_array_equal(batch["log_prob"], [-0.1 * k for k in range(7)])
    np.testing.assert_array_equal(batch["core"][:, 1], range(7))


@pytest.mark.parametrize("n_step", [1, 3])
def test_arrays_the_caller_reuses_are_copied(n_step):
    """Environments hand out the same observation array at every step."""
    replay = per.ReplayBuffer(20, FIELDS, n_step=n_step, gamma=GAMMA)
    obs, next_obs = np.zeros(2, np.float32), np.zeros(2, np.float32)
    reward, action = np.zeros((), np.float32), np.zeros((), np.int64)
    emitted = []
    for k in range(6):
        obs[:], next_obs[:], reward[...], action[...] = k, k + 1, 1.0, k
        emitted.extend(replay.add(obs, action, reward, next_obs, False, k == 5))
    obs[:], next_obs[:], reward[...], action[...] = -1, -1, -1, -1

    batch = replay.get(np.array(emitted))

    np.testing.assert_array_equal(batch.obs[:, 0], range(6))
    np.testing.assert_array_equal(batch.action, range(6))
    ends = np.minimum(np.arange(6) + n_step, 6)
    np.testing.assert_array_equal(batch.next_obs[:, 0], ends)
    np.testing.assert_array_equal(batch.reward, 2 - 0.5 ** (ends - np.arange(6) - 1.0))


def test_extended_rows_leave_open_windows_alone():
    replay, twin = build(3)
    obs = np.zeros((2, 2), np.float32)
    rows = {
        "obs": obs,
        "action": np.array([1, 2]),
        "reward": np.array([5.0, 6.0]),
        "next_obs": obs + 9,
        "discount": np.array([0.0, 0.75]),
    }
    give(replay, twin, step(0))
    give(replay, twin, step(1))

    ids = replay.extend(rows)
    twin.extend([{name: column[k] for name, column in rows.items()} for k in range(2)])
    give(replay, twin, step(2))
    give(replay, twin, step(3), terminated=True)

    np.testing.assert_array_equal(np.diff(ids), 1)
    compare(replay, twin)


def test_clearing_drops_open_windows():
    replay, twin = build(3)
    give(replay, twin, step(0))
    give(replay, twin, step(1))

    replay.clear()
    twin.clear()

    assert replay.stats()["open_windows"] == 0
    for serial in range(5, 9):
        give(replay, twin, step(serial), terminated=serial == 8)
    compare(replay, twin)


def test_clearing_drops_the_errors_of_open_windows():
    replay, _ = build(3)
    obs = np.zeros(2)
    for _ in range(3):  # every place a step may have
        replay.add(obs, 0, 0.0, obs, False, td_error=7.0)
    replay.clear()

    for _ in range(5):
        ids = replay.add(obs, 0, 0.0, obs, False)
        assert replay.priorities(ids).tolist() == [1.0] * len(ids)


def test_infinite_rewards_are_the_callers():
    """Only a sum of finite rewards may not become infinite."""
    replay, _ = build(3)
    obs = np.zeros(2)
    for reward in (np.inf, 1.0, -2.0):
        ids = replay.add(obs, 0, reward, obs, False)
    assert replay.get(ids).reward == [np.inf]
    assert np.isnan(replay.get(replay.add(obs, 0, np.nan, obs, True)).reward).all()


def test_the_largest_number_of_a_column_is_a_return_like_others():
    replay, _ = build(2)
    obs, largest = np.zeros(2), np.finfo(np.float32).max
    replay.add(obs, 0, largest, obs, False)
    ids = replay.add(obs, 0, 0.0, obs, False)
    assert replay.get(ids).reward == [largest]


def test_returns_are_summed_before_they_are_rounded():
    """A return in float32 is the rounded exact sum, not a sum of rounded terms."""
    gamma = 0.99
    replay = per.ReplayBuffer(10, FIELDS, n_step=5, gamma=gamma)
    rewards = [1e7, 1.0, 1.0, 1.0, -1e7]
    obs = np.zeros(2)
    for reward in rewards:
        ids = replay.add(obs, 0, reward, obs, False)

    exact = sum(gamma**k * reward for k, reward in enumerate(rewards))

    np.testing.assert_allclose(replay.get(ids).reward, np.float32(exact), rtol=1e-7)
    np.testing.assert_allclose(replay.get(ids).discount, gamma**5, rtol=1e-7)


@pytest.mark.parametrize("sampler", [per.Uniform(), per.RankBased(), per.Proportional()], ids=repr)
@given(
    n_step=st.integers(1, 6),
    capacity=st.integers(1, 12),
    stream=st.lists(
        st.sampled_from(["step", "step", "step", "terminated", "truncated", "end", "clear"]),
        max_size=60,
    ),
)
@pytest.mark.slow
def test_any_stream_gives_the_twins_rows(sampler, n_step, capacity, stream):
    twin_sampler = per.Proportional() if isinstance(sampler, per.Uniform) else sampler
    replay, _ = build(n_step, capacity, sampler)
    twin = ReferenceReplay(capacity, twin_sampler, n_step, GAMMA)
    for serial, event in enumerate(stream):
        if event == "end":
            finish(replay, twin)
        elif event == "clear":
            replay.clear()
            twin.clear()
        else:
            give(replay, twin, step(serial), event == "terminated", event == "truncated")
        assert len(replay) == len(twin.rows)
        assert replay.stats()["open_windows"] == twin.open_windows
    if twin.rows:
        batch = replay.get(twin.ids)
        for name in ("obs", "action", "reward", "discount", "next_obs"):
            np.testing.assert_array_equal(
                batch[name], np.array([row[name] for row in twin.rows.values()]), err_msg=name
            )


def test_rounding_to_float16_is_numpys():
    """All halves, and what lies between two of them: just below, at and just above the middle."""
    halves = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float64)
    halves[-1] = 65_536.0  # what would come after the largest
    middles = (halves[:-1] + halves[1:]) / 2
    values = np.concatenate(
        [halves[:-1], middles, np.nextafter(middles, 0.0), np.nextafter(middles, np.inf), [1e300]]
    )
    values = np.concatenate([values, -values, [np.inf, -np.inf]])
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).view(np.uint16)
    found = np.array([kernels.half_bits(value) for value in values], np.uint16)
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(np.uint16(kernels.half_bits(np.nan)).view(np.float16))
