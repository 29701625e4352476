"""The benchmark of steps of many environments, and of notes: its memories, checks and judgement."""

from itertools import pairwise

import numpy as np
import pytest

import prioritized_replay as per
from benchmarks import note_measures, report, targets, vector_measures
from benchmarks.options import BenchConfig
from benchmarks.race import benchmark
from benchmarks.results import Ratio, Results, Timing
from benchmarks.timing import Effort, Entry, interleave
from benchmarks.vector_memories import OURS_VECTOR, PEERS_VECTOR, OursVector, played, played_stacks
from prioritized_replay.conformance.adapters import missing
from prioritized_replay.conformance.checks import Invalid


def test_steps_follow_each_other_with_reset_steps_after_ends():
    steps = played(8, 64, seed=0, end=0.2)
    replay = per.ReplayBuffer(
        1000, {
            "obs": per.Field((16,)), "action": per.Field((), "int64"), "reward": per.Field(),
        },
        num_envs=8, autoreset="next_step",
    )  # fmt: skip
    ends = sum(step["terminated"].sum() for step in steps)

    made = sum(len(replay.add(*step.values())) for step in (*steps, *steps))

    assert ends > 20
    assert not steps[-1]["terminated"].any()
    assert made == 2 * (64 * 8 - ends), "each end has one reset step"


def test_stacks_follow_each_other():
    steps = played_stacks(2, 5, seed=0)

    for before, after in pairwise(steps):
        assert before["next_obs"] is after["obs"]
        np.testing.assert_array_equal(before["obs"][:, 1:], before["next_obs"][:, :-1])


@pytest.mark.parametrize("kind", OURS_VECTOR, ids=lambda kind: kind.name)
def test_ours_have_what_was_added(kind):
    has_what_was_added(kind)


@pytest.mark.parametrize("peer", PEERS_VECTOR)
@pytest.mark.slow
def test_installed_peers_have_what_was_added(peer):
    if (why := missing(peer)) is not None:
        pytest.skip(f"{peer}: {why}")
    for kind in PEERS_VECTOR[peer]:
        has_what_was_added(kind)


def has_what_was_added(kind):
    memory = kind(400, 4)
    memory.touch()
    for step in played(4, 3, seed=0, end=0.0):
        memory.add(memory.as_step(step))
        obs, action = memory.newest()
        np.testing.assert_array_equal(obs, step["obs"])
        np.testing.assert_array_equal(action, step["action"])


class _Forgetful(OursVector):
    """Adds every other step only."""

    added = 0

    def add(self, step):
        self.added += 1
        if self.added % 2:
            super().add(step)


def test_a_memory_that_lost_rows_is_noticed():
    memory = _Forgetful(400, 4)
    steps = played(4, 2, seed=0, end=0.0)

    with pytest.raises(Invalid, match="newest rows"):
        vector_measures._check(None, [memory], steps)


def test_other_work_between_calls_is_done_but_not_timed():
    done = []
    entry = Entry(lambda given: given, lambda k: done.append(k))

    times = interleave(
        {"one": entry}, lambda _: range(3), Effort(2, 10.0), warm_up=0,
        between=lambda: done.append("other"),
    )  # fmt: skip

    assert done == ["other", 0, "other", 1, "other", 2] * 2
    assert times["one"].shape == (2,)


def test_a_copy_without_notes_is_the_same_but_for_them():
    bare = note_measures.without_notes()

    assert bare is not per.ReplayBuffer
    assert "note" not in "".join(bare._add_one.__code__.co_names)
    assert "_note" in per.ReplayBuffer._add_one.__code__.co_names
    assert "_note" not in bare._sample.__code__.co_names
    assert per.ReplayBuffer.__module__ == "prioritized_replay.replay"
    from prioritized_replay import replay

    assert replay.ReplayBuffer is per.ReplayBuffer, "the library itself is left as it was"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    config = BenchConfig(
        parts=("vector", "note"), peers=(), sizes=(400,), rounds=2, seconds=0.1, output=folder
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_measures, "STREAMS", (1, 8))
        results = benchmark(config)
    assert len(Results.read(folder / "benchmarks.json").timings) == len(results.timings)
    return results


@pytest.mark.slow
def test_what_is_measured(measured):
    timed = {(row.measure, row.batch, row.contender) for row in measured.timings}
    ways = vector_measures

    for streams in (1, 8):
        for name in (ways.NAME, ways.THREE_STEPS, *ways.WIDE_NAMES, ways.WITH_ERROR,
                     ways.WITH_STREAMS, "ours, uniform, vector"):  # fmt: skip
            assert (ways.ADD, streams, name) in timed
        assert (ways.FLOAT64, streams, ways.NAME) in timed
    assert (ways.COLD, ways.COLD_STREAMS, ways.NAME) in timed
    assert (ways.STACKS, ways.STACK_STREAMS, ways.FRAMES) in timed
    assert [line[0] for line in report.notes(measured)[1:]] == list(note_measures.MEASURES)
    head, *lines = report.vector(measured)
    assert head == ["measure", "contender", "E = 1", "E = 4", "E = 8"]
    assert len(lines) == len({row[:1] + row[2:] for row in timed if "beyond" not in row[0]})


def test_targets_are_judged_by_what_was_measured():
    ways = vector_measures
    results = Results(
        timings=[Timing(ways.ADD, 400, 8, ways.NAME, 6e-6, 5e-6, 8e-6, 10, 16)],
        ratios=[
            Ratio(ways.ADD, 400, 8, ways.NAME, ways.THREE_STEPS, 1.7, 1.6, 1.8),
            Ratio("note: add", 400, 1, note_measures.WITHOUT, note_measures.NAME, 1.01, 1.0, 1.02),
        ],
    )

    judged = targets.judge(results, targets.VECTOR_TARGETS)

    there = {v.target.what: v for v in judged if v.figure is not None}
    assert [(v.met, round(v.figure.value, 3)) for v in there.values()] == [
        (True, 6.0), (False, 1.7), (True, 1.01),
    ]  # fmt: skip
    assert len(report.TABLES["vector targets"](results)) == 4
