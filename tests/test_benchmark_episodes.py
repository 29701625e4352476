"""The benchmark of whole episodes: what it measures, and that it compares equal work."""

import pytest

import prioritized_replay as per
from benchmarks import episode_measures, report
from benchmarks.options import BenchConfig
from benchmarks.race import benchmark
from benchmarks.results import Results
from prioritized_replay.conformance.checks import Invalid


@pytest.mark.slow
def test_what_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(episode_measures, "LENGTH", 20)
    monkeypatch.setattr(episode_measures, "STACK_LENGTH", 8)
    config = BenchConfig(
        parts=("episodes",), peers=(), sizes=(100,), rounds=2, seconds=0.1, output=tmp_path
    )

    benchmark(config)

    results, ways = Results.read(tmp_path / "benchmarks.json"), episode_measures
    assert [(row.measure, row.contender) for row in results.timings] == [
        (ways.EPISODES, ways.WHOLE), (ways.EPISODES, ways.SINGLE), (ways.NEW, ways.WHOLE),
        (ways.STACKS, ways.WHOLE), (ways.STACKS, ways.SINGLE),
    ]  # fmt: skip
    assert len(results.checks) == 2
    _, *lines = report.episodes(results)
    assert [bool(line[-1]) for line in lines] == [False, True, False, False, True]
    _, target = report.TABLES["episode targets"](results)
    assert "2" in target[1]


def test_other_rows_are_noticed():
    one, other = (per.ReplayBuffer(50, episode_measures.NUMBERS) for _ in "12")
    first, second = episode_measures._played(10, seed=0)[:2]
    one.add_episode(**first)
    other.add_episode(**first)
    episode_measures.check_rows(one, other)

    one.add_episode(**first)
    other.add_episode(**second)
    with pytest.raises(Invalid, match="other obs"):
        episode_measures.check_rows(one, other)
