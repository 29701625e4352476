"""The benchmark of stacks of frames and of files: its data, its checks, its judgement."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from benchmarks import options, report, stack_measures, targets
from benchmarks.options import BenchConfig
from benchmarks.processes import measure_footprint
from benchmarks.race import benchmark
from benchmarks.results import Footprint, Ratio, Results
from prioritized_replay.conformance import adapters as peers
from prioritized_replay.conformance.adapters import PEERS_STACKS
from prioritized_replay.conformance.adapters.ours import (
    OURS_STACKS,
    OursStacks,
    OursStacksUniform,
)
from prioritized_replay.conformance.checks import Invalid, check_draws, check_update
from prioritized_replay.conformance.stacks import FRAME_BYTES, STACK_SHAPE, Stacks

STACKS = Stacks(seed=3)
SIZE = 1200  # two or three episodes


def filled(kind, size=SIZE):
    contender = kind(size)
    contender.fill(STACKS, STACKS.errors(size))
    return contender


# The data


def serials_of(frames):
    """Return the numbers that frames carry in their first bytes."""
    return np.ascontiguousarray(frames[..., 0, :8]).view(np.int64)[..., 0]


def test_rows_are_steps_of_episodes():
    steps = [*STACKS.played(SIZE)]
    ends = [k for k, step in enumerate(steps) if step["terminated"]]

    assert [step["action"] for step in steps] == list(range(SIZE))
    assert len(ends) > 1
    assert ends[-1] == SIZE - 1, "the last one ends with the rows"
    for step in (steps[0], steps[ends[0] + 1]):
        assert len(set(serials_of(step["obs"]))) == 1, "an episode begins with one frame, repeated"
    for before, after in pairwise(steps):
        if not before["terminated"]:
            np.testing.assert_array_equal(before["next_obs"], after["obs"])
        np.testing.assert_array_equal(before["obs"][1:], before["next_obs"][:-1])


def test_each_frame_is_another():
    steps = [*STACKS.played(SIZE)]
    ends = sum(step["terminated"] for step in steps)
    newest = [serials_of(step["next_obs"])[-1] for step in steps]
    serials = {*newest, *(serial for step in steps for serial in serials_of(step["obs"]))}

    assert len(set(newest)) == SIZE
    assert serials == set(range(SIZE + ends))
    assert not np.array_equal(steps[5]["obs"][0], steps[5]["obs"][1])


def test_rows_can_be_asked_for_again():
    rows = np.array([0, 1, 700, 255, 256, 1, SIZE - 1])
    steps = [*STACKS.played(SIZE)]

    np.testing.assert_array_equal(STACKS.obs_of(rows), [steps[row]["obs"] for row in rows])
    np.testing.assert_array_equal(
        STACKS.next_obs_of(rows), [steps[row]["next_obs"] for row in rows]
    )
    wanted = [steps[row]["terminated"] for row in rows[:-1]]
    np.testing.assert_array_equal(STACKS.ends(rows[:-1]), wanted)


def test_steps_to_add_are_one_episode_and_another_each_time():
    one, two = STACKS.steps(0, 5), STACKS.steps(1, 5)

    assert [step["terminated"] for step in one] == [False] * 4 + [True]
    assert all(before["next_obs"] is not None for before in one)
    for before, after in pairwise(one):
        np.testing.assert_array_equal(before["next_obs"], after["obs"])
    frames = [{*serials_of(step["next_obs"])} for step in (*one, *two)]
    assert len(set().union(*frames)) == 12
    assert min(min(serials) for serials in frames) > SIZE
    assert one[0]["obs"].shape == STACK_SHAPE


# Checks


@pytest.mark.parametrize("kind", OURS_STACKS, ids=lambda kind: kind.name)
@pytest.mark.slow
def test_ours_pass_the_checks(kind):
    contender = filled(kind)

    assert "draws follow the law" in check_draws(contender, STACKS, STACKS.errors(SIZE))
    if kind is not OursStacksUniform:
        assert "updated rows get" in check_update(contender)


class OtherNext(OursStacks):
    """Right but for one frame of what comes after."""

    def seen(self, drawn):
        seen = super().seen(drawn)
        next_obs = np.array(seen.next_obs)
        next_obs[:, -1] = seen.obs[:, -1]
        return dataclasses.replace(seen, next_obs=next_obs)


class OtherObs(OursStacks):
    """Forgets that an episode begins anew."""

    def fill(self, workload, errors):
        for k, step in enumerate(workload.played(self.size)):
            obs = step["obs"] if k else np.zeros_like(step["obs"])
            self.add(self.as_step({**step, "obs": obs}))
        self._replay.update_priorities(np.arange(self.size), errors)


@pytest.mark.parametrize(
    ("broken", "message"),
    [(OtherNext, "next observations that were not stored"), (OtherObs, "observations that were")],
)
def test_wrong_frames_are_noticed(broken, message):
    contender = broken(SIZE)
    errors = STACKS.errors(SIZE)
    errors[0] = 1000.0  # the first row is drawn often
    contender.fill(STACKS, errors)

    with pytest.raises(Invalid, match=message):
        check_draws(contender, STACKS, errors)


@pytest.mark.parametrize("peer", PEERS_STACKS)
@pytest.mark.slow
def test_installed_peers_pass_the_checks(peer):
    if (why := peers.missing(peer)) is not None:
        pytest.skip(f"{peer}: {why}")
    for kind in PEERS_STACKS[peer]:
        check_draws(filled(kind), STACKS, STACKS.errors(SIZE))


# Measures and targets


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Both parts as the command runs them, but for the processes that count bytes."""

    def footprint(kind, size):
        return Footprint(kind.name, size, 1.0, None)

    folder = tmp_path_factory.mktemp("bench")
    config = BenchConfig(
        parts=("stacks", "files"), peers=(), sizes=(400,), rounds=2, seconds=0.1, output=folder
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack_measures, "measure_footprint", footprint)
        results = benchmark(config)
    assert Results.read(folder / "benchmarks.json").footprints == results.footprints
    assert not list(folder.glob("*.png"))
    return results


@pytest.mark.slow
def test_what_is_measured_of_stacks(measured):
    timed = {(row.measure, row.batch, row.contender) for row in measured.timings}

    for kind in OURS_STACKS:
        for batch in stack_measures.BATCHES:
            assert (stack_measures.SAMPLE, batch, kind.name) in timed
        assert (stack_measures.ADD, 1, kind.name) in timed
    assert (stack_measures.LOOP, 32, OursStacks.name) in timed
    assert (stack_measures.SAMPLE, 32, stack_measures.STACKS) in timed
    assert report.compared(measured)[1:] == [], "ours are no peers of ours"
    assert {row.name for row in measured.contenders} >= {kind.name for kind in OURS_STACKS}


@pytest.mark.slow
def test_files_are_measured_beside_ram(measured):
    table = report.files(measured)

    assert [line[:3] for line in table[1:]] == [
        [stack_measures.SAMPLE, "400", "32"],
        [stack_measures.SAMPLE, "400", "256"],
        [stack_measures.ADD, "400", "1"],
        [stack_measures.LOOP, "400", "32"],
        ["add", "400", "1"],
        ["sample + update", "400", "32"],
        ["sample + update", "400", "256"],
    ]


@pytest.mark.slow
def test_there_is_a_table_of_each(measured):
    for name in ("stacks", "uniform stacks", "stack memory", "files", "stack targets"):
        assert len(report.TABLES[name](measured)) > 1, name
    assert report.TABLES["memory"](measured)[1:] == []
    counted = [(row.contender, row.size) for row in measured.footprints]
    assert counted == [(OursStacks.name, 400), (OursStacksUniform.name, 400)]


@pytest.mark.slow
def test_a_stack_takes_the_room_of_a_frame():
    footprint = measure_footprint(OursStacks, 5_000)

    assert FRAME_BYTES < footprint.reserved < 1.03 * FRAME_BYTES


def footprints(*rows):
    return Results(footprints=[Footprint(OursStacks.name, *row) for row in rows])


def judged(results):
    return {v.target.what: v for v in targets.judge(results, targets.STACK_TARGETS)}


def test_bytes_are_judged_by_the_larger_figure_of_the_largest_memory():
    found = judged(footprints((50_000, 8000.0, 9000.0), (1_000_000, 7100.0, 7290.0)))

    ratio, total, speed = found.values()
    assert ratio.figure.value == pytest.approx(7290 / FRAME_BYTES)
    assert ratio.met is False
    assert total.figure.value == pytest.approx(7.29)
    assert total.met is True
    assert speed.met is None
    total = judged(footprints((50_000, 7100.0, 7290.0)))["84x84x4 stacks: 1e6 transitions"]
    assert total.met is None


def test_the_bare_copy_is_what_ours_is_measured_by():
    slow = Ratio(
        stack_measures.SAMPLE, 50_000, 32, stack_measures.STACKS, OursStacks.name, 1.1, 1.0, 1.2
    )
    results = Results(ratios=[slow])

    assert [v.met for v in judged(results).values()] == [None, None, False]
    assert [line[-1] for line in report.TABLES["stack targets"](results)[1:]] == ["NO"]


def test_a_million_stacks_are_for_whole_runs():
    assert BenchConfig().stack_sizes == (options.SOME_STACKS, options.MANY_STACKS)
    assert BenchConfig(quick=True).stack_sizes == (options.FEW_STACKS, options.SOME_STACKS)
    assert BenchConfig(sizes=(1000,)).stack_sizes == (1000, 1000)
