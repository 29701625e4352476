"""The benchmark of Stable-Baselines3's algorithms: who takes turns, and the table of it."""

import dataclasses

import pytest

from benchmarks import report, sb3_measures
from benchmarks.options import BenchConfig
from benchmarks.race import benchmark
from benchmarks.results import FILE, Results

pytest.importorskip("stable_baselines3")


@pytest.mark.slow
def test_each_algorithm_trains_in_turns_with_both_kinds_of_replay(tmp_path, monkeypatch):
    small = tuple(dataclasses.replace(loop, steps=3, batch=8) for loop in sb3_measures.LOOPS)
    monkeypatch.setattr(sb3_measures, "LOOPS", small)
    monkeypatch.setattr(sb3_measures, "WARM_UP", 205)
    monkeypatch.setattr(sb3_measures, "SIZE", 1_000)
    benchmark(BenchConfig(parts=("sb3",), peers=(), rounds=2, seconds=0.1, output=tmp_path))
    results = Results.read(tmp_path / FILE)
    names = [row.contender for row in results.timings]
    assert names == 3 * [sb3_measures.OWN, sb3_measures.OURS]
    _, *lines = report.TABLES["sb3"](results)
    assert [line[0] for line in lines] == ["DQN", "SAC", "TD3"]
    for line, row in zip(lines, results.ratios, strict=True):
        of = {t.contender: t.seconds for t in results.timings if t.measure == row.measure}
        assert line[1:3] == [report.number(1 / seconds) for seconds in of.values()]
        assert float(line[3]) == pytest.approx(row.ratio, abs=1e-3)
