"""The benchmark of the sampler alone: what it compares, what it checks, how it is judged."""

import numpy as np
import pytest

import prioritized_replay as per
from benchmarks import index_measures, report, targets
from benchmarks.index_measures import buffer_name, index_name, shared_name
from benchmarks.options import BenchConfig
from benchmarks.race import benchmark
from benchmarks.results import Ratio, Results, Timing
from prioritized_replay.conformance.checks import Invalid

LAWS = list(index_measures.SAMPLERS)


@pytest.mark.parametrize("law", LAWS)
def test_index_and_buffer_have_the_same_priorities(law):
    errors = np.random.default_rng(0).normal(size=300)

    index, replay = index_measures.filled(index_measures.SAMPLERS[law], 300, errors)

    ids = np.arange(300)
    assert index.priorities(ids).tolist() == replay.priorities(ids).tolist()
    index_measures.check_alike((index, replay))


def test_a_memory_that_draws_otherwise_is_noticed():
    index, replay = index_measures.filled(per.Proportional(), 300, np.arange(300.0))
    index.sample(3)

    with pytest.raises(Invalid, match="draw what a buffer"):
        index_measures.check_alike((index, replay))


@pytest.mark.slow
def test_what_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(index_measures, "BATCHES", (1, 8))
    results = benchmark(
        BenchConfig(
            parts=("index",), peers=(), sizes=(400,), rounds=2, seconds=0.05, output=tmp_path
        )
    )

    assert len(Results.read(tmp_path / "benchmarks.json").timings) == len(results.timings)
    timed = {(row.size, row.batch, row.contender) for row in results.timings}
    assert timed == {
        (400, batch, name(law))
        for batch in (1, 8)
        for law in LAWS
        for name in (index_name, buffer_name, shared_name)
    }
    assert [check.contender for check in results.checks] == [index_name(law) for law in LAWS]
    assert [line[:3] for line in report.index(results)[1:]] == [
        [law, "400", str(batch)] for law in LAWS for batch in (1, 8)
    ]
    assert not report.weak(results)[1:], "a buffer of ours is no peer"


def test_targets_are_judged_by_what_was_measured():
    name, other = index_name("rank"), buffer_name("rank")
    results = Results(
        timings=[
            Timing(index_measures.INDEX, 1_000, 1, name, 9e-6, 8e-6, 1e-5, 10, 128),
            Timing(index_measures.INDEX, 100_000, 1, name, 12e-6, 8e-6, 2e-5, 10, 128),
        ],
        ratios=[
            Ratio(index_measures.INDEX, 1_000, 512, other, name, 0.5, 0.4, 0.6),
            Ratio(index_measures.INDEX, 100_000, 512, other, name, 0.7, 0.6, 0.8),
        ],
    )

    judged = targets.judge(results, targets.INDEX_TARGETS)

    there = {v.target.what: (v.met, round(v.figure.value, 3)) for v in judged if v.figure}
    assert there == {
        "512 of 1,000,000 items, rank, in times of a buffer": (False, 0.7),
        "1 of 1,000 items, rank": (True, 9.0),
    }
    assert report.index(results)[1][:7] == ["rank", "1,000", "512", "", "", "", "0.5"]
