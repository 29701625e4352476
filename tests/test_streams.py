"""Many streams at once: interleaved environments, autoresets, subsets, interruptions.

Every call is made on a buffer and on a twin that computes windows from whole episodes.
"""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reference_streams import (
    BOTH,
    GAMMA,
    MODES,
    STREAM_FIELDS,
    TERMINATED,
    TRUNCATED,
    Pair,
)

import prioritized_replay as per

by_mode = pytest.mark.parametrize("mode", MODES)
by_n_step = pytest.mark.parametrize("n_step", [1, 2, 3, 4, 5])


def every_episode(n_step):
    """Episodes of each length up to n + 2, terminated and truncated."""
    return [(k, ending) for k in range(1, n_step + 3) for ending in (TERMINATED, TRUNCATED)]


def cycle(episodes, turn=1):
    """A script that plays the same episodes for ever, each stream from another one on."""
    return lambda stream, episode: episodes[(episode + turn * stream) % len(episodes)]


# --- every ending, offset, ring position ------------------------------------------------------


@by_mode
@by_n_step
@pytest.mark.parametrize("capacity", [1, 2, 3, 4, 5, 6, 7, 8, 11, 13])
@pytest.mark.slow
def test_every_episode_at_every_ring_position(capacity, n_step, mode):
    """One environment. A round of episodes has one step more than a multiple of the capacity."""
    episodes = every_episode(n_step)
    short = 1 - sum(length for length, _ in episodes)
    episodes += [(1, TERMINATED)] * (short % capacity)
    steps = sum(length for length, _ in episodes)
    assert steps % capacity == 1 % capacity
    pair = Pair.build(1, mode, cycle(episodes), capacity=capacity, n_step=n_step)
    pair.watch = False

    for _ in range(min(capacity, 8)):
        before = pair.twin.table.next_id
        while pair.twin.table.next_id < before + steps:
            pair.add()
        pair.compare()
        assert pair.twin.open_windows == 0
        assert pair.twin.table.next_id == before + steps  # no start lost, none twice


@by_mode
@by_n_step
@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 7, 8, 13, 100])
@pytest.mark.slow
def test_every_episode_of_three_interleaved_environments(capacity, n_step, mode):
    """They end at different times, since each is in another episode of the round."""
    episodes = every_episode(n_step)
    pair = Pair.build(3, mode, cycle(episodes, turn=3), capacity=capacity, n_step=n_step)
    pair.watch = False

    for k in range(2 * sum(length for length, _ in episodes)):
        pair.add(errors=k % 3 == 0)
        if k % 20 == 0:
            pair.compare()
    pair.end_episode()
    pair.compare()


@pytest.mark.parametrize("mode", [*MODES, "same_step, dense"])
@by_n_step
@pytest.mark.slow
def test_environments_that_end_together_or_after_one_step(n_step, mode):
    mode, dense = mode.removesuffix(", dense"), mode.endswith("dense")
    for episodes in (
        [(1, TERMINATED)],
        [(1, TRUNCATED)],
        [(1, TERMINATED), (1, TRUNCATED), (1, BOTH)],
        [(3, TERMINATED)],
        [(4, TRUNCATED), (1, TERMINATED)],
    ):
        for num_envs in (1, 3):
            script = cycle(episodes, turn=0)
            pair = Pair.build(num_envs, mode, script, capacity=20, n_step=n_step, dense=dense)
            pair.watch = False
            for _ in range(12):
                pair.add(errors=True)
            pair.compare()


@by_n_step
@pytest.mark.parametrize("mode", [None, "disabled", "next_step"])
def test_one_environment_without_an_axis_of_environments(n_step, mode):
    pair = Pair.build(1, mode, cycle(every_episode(n_step)), capacity=7, n_step=n_step, single=True)
    pair.watch = False
    for k in range(60):
        pair.add(single=True, errors=k % 2 == 0)
    pair.end_episode()
    pair.compare()


def test_a_worked_example():
    """Two environments, n = 2: the first terminates at its second step, the second is cut off."""
    fields = {**STREAM_FIELDS}
    del fields["tag"]
    replay = per.ReplayBuffer(20, fields, n_step=2, gamma=0.5, num_envs=2, autoreset="next_step")
    at = lambda *t: np.array([[k, k] for k in t], np.float32)  # noqa: E731
    none, zero = np.zeros(2, bool), np.zeros(2, np.int64)

    first = replay.add(at(0, 100), zero, [1.0, 10.0], at(1, 101), none)
    second = replay.add(at(1, 101), zero + 1, [2.0, 20.0], at(2, 102), [True, False], none)
    third = replay.add(at(2, 102), zero + 2, [0.0, 40.0], at(50, 103), none, [False, True])
    fourth = replay.add(at(50, 103), zero + 3, [4.0, 0.0], at(51, 200), none, none)
    fifth = replay.add(at(51, 200), zero + 4, [8.0, 80.0], at(52, 201), none, none)

    assert [i.tolist() for i in (first, second, third, fourth, fifth)] == [
        [], [0, 1, 2], [3, 4], [], [5]]  # fmt: skip
    batch = replay.get(np.arange(6))
    assert batch.obs[:, 0].tolist() == [0, 1, 100, 101, 102, 50]
    assert batch.action.tolist() == [0, 1, 0, 1, 2, 3]
    assert batch.reward.tolist() == [2, 2, 20, 40, 40, 8]
    assert batch.discount.tolist() == [0, 0, 0.25, 0.25, 0.5, 0.25]
    assert batch.terminated.tolist() == [True, True, False, False, False, False]
    assert batch.next_obs[:, 0].tolist() == [2, 2, 102, 103, 103, 52]
    assert replay.stats()["open_windows"] == 2


# --- subsets ----------------------------------------------------------------------------------


@by_mode
@pytest.mark.parametrize("n_step", [1, 3])
def test_subsets_in_any_order(n_step, mode):
    """What an asynchronous vector environment hands out: some streams, as they come."""
    rng = np.random.default_rng(0)
    pair = Pair.build(5, mode, cycle(every_episode(n_step), turn=2), capacity=37, n_step=n_step)
    for k in range(120):
        chosen = rng.permutation(5)[: rng.integers(1, 6)]
        pair.add(chosen.tolist(), errors=k % 2 == 0)
    pair.end_episode([3, 0])
    pair.compare()
    pair.end_episode()
    pair.compare()


@by_mode
@pytest.mark.parametrize("n_step", [1, 3])
def test_one_stream_at_a_time_without_a_leading_axis(n_step, mode):
    rng = np.random.default_rng(1)
    pair = Pair.build(3, mode, cycle(every_episode(n_step)), capacity=37, n_step=n_step)
    for k in range(100):
        pair.add(int(rng.integers(3)), errors=k % 2 == 0)
        if k % 20 == 19:
            pair.end_episode(int(rng.integers(3)))
    pair.compare()


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "list", "tuple"])
def test_stream_numbers_of_any_integer_type(dtype):
    """ALE's are int32."""
    replay = per.ReplayBuffer(
        20, {**STREAM_FIELDS}, n_step=2, gamma=GAMMA, num_envs=4, autoreset="disabled"
    )
    streams = [2, 0]
    env = {"list": list, "tuple": tuple}.get(dtype, lambda s: np.array(s, dtype))(streams)
    rows = (np.array([[2, 2], [0, 0]]), np.array([2, 0]), np.zeros(2), np.ones((2, 2)))

    assert replay.add(*rows, np.zeros(2, bool), env=env, tag=np.zeros(2)).size == 0
    ids = replay.end_episode(env)

    assert replay.get(ids).action.tolist() == [2, 0]


def test_stream_numbers_as_numpy_scalars():
    replay = per.ReplayBuffer(
        20, {**STREAM_FIELDS}, n_step=2, gamma=GAMMA, num_envs=4, autoreset="disabled"
    )
    for env in (np.int64(3), np.int32(1), np.uint8(2)):
        replay.add(np.zeros(2), int(env), 1.0, np.ones(2), False, env=env, tag=0.0)
        ids = replay.end_episode(env)
        assert replay.get(ids).action.tolist() == [int(env)]


def test_no_stream_at_all_may_be_named():
    pair = Pair.build(3, "next_step", cycle([(4, TERMINATED)]), n_step=2)
    pair.add()
    pair.add([])
    pair.end_episode([])
    pair.add()
    pair.compare()


@by_mode
def test_the_rows_of_a_call_get_ids_stream_by_stream(mode):
    """In the order of the call's rows, each stream's windows oldest first."""
    pair = Pair.build(3, mode, cycle([(3, TERMINATED)]), n_step=4)
    pair.add()
    pair.add()
    call = pair.add([2, 0, 1])
    batch = pair.replay.get(np.arange(9))
    assert batch.obs[:, 0].tolist() == [2000] * 3 + [0] * 3 + [1000] * 3
    assert batch.obs[:, 1].tolist() == [0, 1, 2] * 3
    assert call.terminated.all()


# --- what belongs to the first step of a window -----------------------------------------------


@by_mode
@by_n_step
@pytest.mark.parametrize(
    "sampler", [per.Proportional(eps=0.5), per.RankBased(max_priority="current")], ids=repr
)
@pytest.mark.slow
def test_errors_of_new_rows_wait_for_their_window(sampler, n_step, mode):
    """And those without one enter at the maximum as it is when they do."""
    pair = Pair.build(
        3, mode, cycle(every_episode(n_step), turn=3), capacity=9, n_step=n_step, sampler=sampler
    )
    rng = np.random.default_rng(n_step)
    for k in range(60):
        pair.add(errors=rng.random() < 0.6)
        if k % 7 == 6 and pair.twin.rows:
            ids, errors = pair.twin.table.ids[-3:], rng.integers(-8, 9, 3)
            errors = errors[: len(ids)].astype(float)
            assert pair.replay.update_priorities(ids, errors) == pair.twin.table.update(ids, errors)
        pair.compare()


def test_errors_as_a_column():
    """A network's output often has shape (K, 1)."""
    replay = per.ReplayBuffer(
        9, STREAM_FIELDS, sampler=per.RankBased(), num_envs=2, autoreset="disabled"
    )
    obs = np.zeros((2, 2))
    ids = replay.add(
        obs, [0, 1], [0.0, 0.0], obs, [False, False], tag=[0.0, 0.0], td_error=[[-3.0], [0.5]]
    )
    assert replay.priorities(ids).tolist() == [3.0, 0.5]


@by_mode
@pytest.mark.parametrize("n_step", [1, 4])
def test_arrays_the_caller_reuses_are_copied(n_step, mode):
    """Vector environments without copies write every step into the same arrays."""
    pair = Pair.build(2, mode, cycle([(3, TRUNCATED), (5, TERMINATED)]), n_step=n_step)
    kept = {}
    for _ in range(25):
        call = pair.world.step()
        for name in ("obs", "action", "reward", "next_obs", "terminated", "truncated", "tag"):
            array = getattr(call, name)
            kept.setdefault(name, np.empty_like(array))[...] = array
            setattr(call, name, kept[name])
        ids = pair.replay.add(*call.positional(), **call.named())
        assert ids.tolist() == pair.twin.add(call.streams, call.steps, call.endings)
        for value in call.info.get("final_obs", [None]):
            if value is not None:
                value[...] = -1
    for array in kept.values():
        array[...] = 0
    pair.compare()


# --- interruptions ----------------------------------------------------------------------------


@by_mode
@by_n_step
@pytest.mark.slow
def test_an_interruption_in_the_middle_of_an_episode(n_step, mode):
    pair = Pair.build(3, mode, cycle([(9, TERMINATED), (6, TRUNCATED)], turn=0), n_step=n_step)
    for rounds in range(8):
        for _ in range(rounds):
            pair.add()
        pair.end_episode([rounds % 3])
        pair.add()  # the others go on as if nothing had been
        pair.compare()
    pair.end_episode()
    pair.end_episode()  # nothing is open: nothing happens
    pair.compare()


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("ending", [TERMINATED, TRUNCATED])
@pytest.mark.parametrize("streams", [None, [0, 1, 2], 1])
def test_after_an_interruption_a_reset_step_is_still_known(streams, ending, n_step):
    """The collection stops after an episode ended, and goes on with the reset step."""
    pair = Pair.build(3, "next_step", cycle([(2, ending), (3, ending)]), n_step=n_step)
    resets = 0
    for _ in range(9):
        resets += pair.add().steps.count(None)
        pair.end_episode(streams)
        pair.compare()
    assert resets >= 6


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("ending", [TERMINATED, TRUNCATED])
@pytest.mark.parametrize("streams", [None, [2, 0], 1])
def test_after_an_interruption_restarted_environments_lose_no_first_step(streams, ending, n_step):
    """The environments were reset by hand: there will be no reset step."""
    script = cycle([(2, ending), (1, ending), (3, ending)])
    pair = Pair.build(3, "next_step", script, n_step=n_step)
    chosen = range(3) if streams is None else [streams] if isinstance(streams, int) else streams
    for _ in range(9):
        pair.add()
        pair.add()
        pair.end_episode(streams)
        for stream in chosen:
            pair.world.reset(stream)
        pair.add()
        pair.compare()


def test_a_restarted_environment_may_end_at_once():
    """A first step that ends the episode is no reset step, whatever its observation."""
    replay = per.ReplayBuffer(9, STREAM_FIELDS, num_envs=1, autoreset="next_step", gamma=GAMMA)
    obs = np.zeros((1, 2))
    one = {"tag": [0.0]}
    replay.add(obs, [1], [0.0], obs, [True], **one)
    replay.end_episode()
    assert replay.add(obs, [2], [0.0], obs, [True], **one).size == 1
    replay.end_episode()
    assert replay.add(obs, [3], [1.0], obs, [False], **one).size == 1
    assert replay.add(obs, [4], [0.0], obs, [False], **one).size == 1


@pytest.mark.parametrize("changed", range(4))
def test_a_restarted_environment_that_begins_almost_where_it_ended(changed):
    """One number of a nested observation tells the first step from a reset step."""
    fields = {
        "obs": {"place": per.Field((2,)), "rest": (per.Field(), per.Field((), "int64"))},
        "action": per.Field((), "int64"),
        "reward": per.Field(),
    }

    def obs(*numbers):
        return {
            "place": np.array([numbers[:2]]),
            "rest": (np.array(numbers[2:3]), np.array(numbers[3:], np.int64)),
        }

    final = [1.0, np.nan, 3.0, 4]
    first = list(final)
    first[changed] = 7
    for beginning, stored in ((final, 0), (first, 1)):
        replay = per.ReplayBuffer(9, fields, num_envs=1, autoreset="next_step")
        assert replay.add(obs(0, 0, 0, 0), [1], [0.0], obs(*final), [True]).size == 1
        replay.end_episode()
        assert replay.add(obs(*beginning), [2], [0.0], obs(5, 5, 5, 5), [False]).size == stored
        assert replay.add(obs(5, 5, 5, 5), [3], [0.0], obs(6, 6, 6, 6), [False]).size == 1


def test_what_a_reset_step_carries_is_ignored():
    """Its action and its error; also if an earlier episode was interrupted."""
    pair = Pair.build(2, "next_step", cycle([(2, TRUNCATED)]), n_step=2)
    for k in range(15):
        if k == 7:
            assert not any(life.awaits_reset for life in pair.world.lives)
            pair.end_episode()
        call = pair.world.step(errors=True)
        call.action, call.td_error = map(np.copy, (call.action, call.td_error))
        for row, step in enumerate(call.steps):
            if step is None:
                call.action[row] = 77 + k
                call.td_error[row] = 1e6
        ids = pair.replay.add(*call.positional(), **call.named())
        assert ids.tolist() == pair.twin.add(call.streams, call.steps, call.endings)
        pair.compare()


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("ending", [TERMINATED, TRUNCATED])
@pytest.mark.parametrize("length", [1, 2, 20])
def test_a_caller_who_resets_the_environments_loses_no_step(length, ending, n_step):
    """In mode "next_step" as well, and without a word: all episodes begin somewhere else."""
    pair = Pair.build(2, "next_step", cycle([(length, ending)]), n_step=n_step)
    for _ in range(4 * length):
        call = pair.add()
        for stream in range(2):
            if call.terminated[stream] or call.truncated[stream]:
                pair.world.reset(stream)
    pair.compare()
    assert pair.replay.stats()["ids_issued"] == 8 * length


@pytest.mark.parametrize("dtype", ["uint8", "float64", "int32"])
@pytest.mark.parametrize("size", [(3,), (40, 40)])
def test_a_restarted_environment_is_told_from_a_reset_whatever_it_observes(size, dtype):
    """Small observations and large ones, which are kept as frames."""
    fields = {
        "obs": per.Field(size, dtype),
        "action": per.Field((), "int64"),
        "reward": per.Field((), "int8"),
    }
    for again in (False, True):
        replay = per.ReplayBuffer(9, fields, num_envs=2, autoreset="next_step")
        one, other = np.ones((2, *size), dtype), np.full((2, *size), 2, dtype)
        replay.add(one, [0, 0], [1, 1], other, [True, False])
        first = other.copy()
        if again:
            first[0].flat[-1] = 1  # the last number is another
        ids = replay.add(first, [0, 0], [0, 0], one, [False, False])
        assert ids.size == 1 + again
        np.testing.assert_array_equal(replay.get(ids).obs, first[-ids.size :])


def test_a_reset_step_with_a_reward_is_a_contradiction():
    """A wrapper shifts rewards, or the caller has reset the environment to where it ended."""

    def build():
        replay = per.ReplayBuffer(9, STREAM_FIELDS, num_envs=2, autoreset="next_step", gamma=GAMMA)
        obs = np.zeros((2, 2))
        replay.add(obs, [1, 1], [0.0, 0.0], obs + 1, [False, True], tag=[0.0, 0.0])
        return replay, (obs + 1, [2, 2], [0.0, -0.5], obs + 2, [False, False])

    replay, call = build()
    before = replay.stats()
    with pytest.raises(
        ValueError, match=r"reward must be 0 in a reset step, got -0.5 for stream 1"
    ):
        replay.add(*call, tag=[0.0, 0.0])
    assert replay.stats() == before
    single = [part[0] for part in call]
    assert replay.add(*single, tag=0.0, env=0).size == 1  # the other stream goes on

    replay, call = build()
    replay.end_episode()  # which says that the caller may have reset
    assert replay.add(*call, tag=[0.0, 0.0]).size == 2


@by_mode
@pytest.mark.parametrize("n_step", [1, 3])
def test_clearing_drops_the_open_windows_of_all_streams(n_step, mode):
    """Yet an environment that has ended will still show its reset step."""
    pair = Pair.build(3, mode, cycle([(2, TERMINATED), (4, TRUNCATED)]), n_step=n_step)
    for k in range(16):
        pair.add()
        if k % 3 == 2:
            pair.clear()
            pair.compare()
    pair.add()
    pair.end_episode()
    assert len(pair.replay) > 0


@pytest.mark.parametrize("n_step", [1, 3])
def test_cleared_and_restarted_environments_lose_no_first_step(n_step):
    """As after an interruption."""
    pair = Pair.build(3, "next_step", cycle([(2, TERMINATED), (1, TRUNCATED)]), n_step=n_step)
    for k in range(9):
        pair.add()
        pair.add()
        pair.clear()
        for stream in range(k % 4):
            pair.world.reset(stream)
        pair.add()
        pair.compare()


def test_extended_rows_leave_the_streams_alone():
    pair = Pair.build(2, "next_step", cycle([(3, TERMINATED)]), n_step=3, capacity=8)
    for k in range(12):
        pair.add()
        rows = {
            "obs": np.full((2, 2), 9.0), "action": np.array([k, k]), "reward": np.ones(2),
            "next_obs": np.full((2, 2), 8.0), "discount": np.array([0.5, 0.0]),
            "tag": np.zeros(2),
        }  # fmt: skip
        ids = pair.replay.extend(rows)
        twin = [{name: column[i] for name, column in rows.items()} for i in range(2)]
        assert ids.tolist() == pair.twin.table.extend(twin)
        pair.compare()


def test_a_call_with_more_rows_than_fit():
    """The last ones stay; the others had ids all the same."""
    for capacity in (1, 2, 5):
        pair = Pair.build(3, "same_step", cycle([(4, TERMINATED)], 0), n_step=5, capacity=capacity)
        for _ in range(9):
            pair.add(errors=True)
            pair.compare()


def test_actor_threads_each_with_its_own_stream():
    """No step is lost, none lands in another stream's window."""
    streams, steps = 4, 400
    replay = per.ReplayBuffer(
        streams * steps, STREAM_FIELDS, n_step=3, gamma=GAMMA, num_envs=streams,
        autoreset="disabled",
    )  # fmt: skip

    def act(stream):
        for t in range(steps):
            obs = np.array([stream, t], np.float32)
            next_obs = np.array([stream, t + 1], np.float32)
            replay.add(obs, t, 1.0, next_obs, t % 10 == 9, env=stream, tag=0.0)

    threads = [threading.Thread(target=act, args=(stream,)) for stream in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(replay) == streams * steps
    batch = replay.get(np.arange(streams * steps))
    for stream in range(streams):
        mine = batch.obs[:, 0] == stream
        t = batch.obs[mine, 1]
        assert t.tolist() == list(range(steps))
        ends = np.minimum(t + 3, t // 10 * 10 + 10)
        assert np.array_equal(batch.next_obs[mine], np.stack([0 * t + stream, ends], 1))
        assert np.array_equal(batch.discount[mine], np.where(ends % 10 == 0, 0, 0.125))


# --- everything at once -----------------------------------------------------------------------

EPISODES = st.lists(
    st.tuples(st.integers(1, 7), st.sampled_from([TERMINATED, TRUNCATED, BOTH])),
    min_size=1,
    max_size=5,
)


def subsets(num_envs):
    return st.permutations(range(num_envs)).flatmap(
        lambda order: st.integers(0, num_envs).map(lambda count: order[:count])
    )


def events(num_envs):
    some = st.one_of(st.none(), subsets(num_envs), st.integers(0, num_envs - 1))
    return st.lists(
        st.one_of(
            *[st.tuples(st.just("add"), some, st.booleans())] * 6,
            st.tuples(st.just("end"), some, st.just(False)),
            st.tuples(st.just("restart"), some, st.just(False)),
            st.tuples(st.just("update"), st.integers(0, 12), st.just(False)),
            st.tuples(st.just("clear"), st.none(), st.just(False)),
        ),
        max_size=50,
    )


@by_mode
@settings(max_examples=60)
@given(data=st.data())
@pytest.mark.slow
def test_any_program_gives_the_twins_rows(mode, data):
    num_envs = data.draw(st.integers(1, 4), "num_envs")
    episodes = data.draw(EPISODES, "episodes")
    sampler = data.draw(
        st.sampled_from([per.Proportional(), per.RankBased(max_priority="current")]), "sampler"
    )
    pair = Pair.build(
        num_envs, mode, cycle(episodes), sampler=sampler, dense=data.draw(st.booleans(), "dense"),
        capacity=data.draw(st.integers(1, 20), "capacity"),
        n_step=data.draw(st.integers(1, 6), "n_step"),
    )  # fmt: skip
    for kind, streams, errors in data.draw(events(num_envs), "program"):
        if kind == "add":
            pair.add(streams, errors=errors)
        elif kind == "end":
            pair.end_episode(streams)
        elif kind == "restart":
            pair.end_episode(streams)
            chosen = range(num_envs) if streams is None else np.atleast_1d(streams)
            for stream in chosen:
                pair.world.reset(int(stream))
        elif kind == "update":
            ids = pair.twin.table.ids[-3:]
            assert pair.replay.update_priorities(ids, np.full(len(ids), streams)) == len(ids)
            pair.twin.table.update(ids, [float(streams)] * len(ids))
        else:
            pair.clear()
    pair.compare()
