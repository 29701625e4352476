"""Old priorities and small memories: what is tried, the command, and the page's figures."""

from pathlib import Path

import numpy as np
import pytest

from prioritized_replay.experiments.chain.learner import Learner
from prioritized_replay.experiments.chain.task import Chain
from prioritized_replay.experiments.memory import task
from prioritized_replay.experiments.memory.command import MemoryConfig, reproduce
from prioritized_replay.experiments.memory.results import (
    EvictionRun,
    MemoryMeasure,
    StalenessRun,
    measures,
)
from prioritized_replay.experiments.memory.task import (
    _Priorities,
    _SmallMemory,
    learn_with_eviction,
    learn_with_refresh,
)
from prioritized_replay.experiments.tables import read_rows

MEASURED = Path(__file__).parent.parent / "docs" / "results" / "memory"


def priorities_of(law, refresh, updates):
    """Return the priorities of a chain of 8 states after some updates, and its learner."""
    chain, rng = Chain(8), np.random.default_rng(0)
    rows = chain.memory(rng)
    learner = Learner(8, 4.0, np.inf, rng)
    priorities = _Priorities(learner, rows, law, refresh, rng)
    for _ in range(updates):
        assert priorities.replay()
    return priorities, learner, rows


@pytest.mark.parametrize("law", ["proportional", "rank"])
def test_fresh_priorities_are_those_of_the_present_values(law):
    priorities, learner, rows = priorities_of(law, "all", updates=3)
    every = np.arange(rows.pair.size)
    eps = 0.01 if law == "proportional" else 0.0
    np.testing.assert_allclose(
        priorities._index.priorities(every), np.abs(learner.td_errors(rows, every)) + eps
    )
    assert priorities.elsewhere() < 1e-9
    stored, _, _ = priorities_of(law, "none", updates=3)
    assert 0.05 < stored.elsewhere() < 1.0


def test_the_oldest_priorities_are_refreshed():
    priorities, learner, rows = priorities_of("proportional", "32", updates=1)
    # 256 rows, of which 32 were drawn and 32 of the others evaluated.
    written = priorities._written
    assert set(np.bincount(written)) <= set(range(257))
    before = written.copy()
    assert priorities.replay()
    changed = np.flatnonzero(written != before)
    assert (written[changed] == 2).all()
    assert (before == 0).sum() - (written == 0).sum() >= 32
    fresh = np.abs(learner.td_errors(rows, changed)) + 0.01
    stored = priorities._index.priorities(changed)
    assert np.isclose(stored, fresh).sum() >= 32


def test_twice_the_rows_are_drawn_and_none_is_refreshed():
    priorities, _, _ = priorities_of("rank", "batch-64", updates=1)
    assert 32 < (priorities._written == 1).sum() <= 64


def test_a_bonus_grows_by_epoch_for_those_that_wait():
    priorities, learner, rows = priorities_of("rank", "bonus-0.1", updates=0)
    first = priorities._handicap()
    learner.updates += rows.pair.size // 32  # one epoch
    assert first - priorities._handicap() == pytest.approx(0.1)
    learner.updates = task.PATIENCE
    assert priorities._handicap() == 0.0
    assert priorities_of("rank", "none", updates=0)[0]._handicap() == 0.0


@pytest.mark.parametrize("rule", ["oldest", "random", "lowest", "inverse"])
def test_a_rule_chooses_the_row_that_gives_way(rule):
    rng = np.random.default_rng(0)
    stream = Chain(8).walk(400, rng)
    memory = _SmallMemory(rule, stream, 64, rng)
    errors = np.linspace(1.0, 0.01, 64)
    memory.index.update_priorities(np.arange(64), errors)
    before = memory.rows.pair.copy()

    memory.add(4)

    priorities = memory.index.priorities(np.arange(64))
    entered = np.flatnonzero(priorities != errors + 0.01)
    # The first place has the largest priority already: it does not show that a row has entered.
    expected = {"oldest": [1, 2, 3], "lowest": [60, 61, 62, 63]}
    if rule in expected:
        assert entered.tolist() == expected[rule]
    assert 3 <= entered.size <= 4
    assert priorities[entered] == pytest.approx(1.01)
    kept = np.setdiff1d(np.arange(1, 64), entered)
    np.testing.assert_array_equal(memory.rows.pair[kept], before[kept])
    if rule == "oldest":
        np.testing.assert_array_equal(memory.rows.pair[:4], stream.pair[64:68])
    memory.add(4)
    assert memory._next == 72


def test_rows_of_low_priority_are_the_first_to_go_by_either_rule():
    gone = {}
    for rule in ("random", "inverse"):
        memory = _SmallMemory(rule, Chain(8).walk(64, np.random.default_rng(0)), 64,
                              np.random.default_rng(1))  # fmt: skip
        priorities = np.where(np.arange(64) < 32, 0.01, 1.0)
        gone[rule] = np.mean([(memory._given_up(priorities, 4) < 32).mean() for _ in range(50)])
    assert gone["inverse"] > 0.9
    assert 0.3 < gone["random"] < 0.7  # 200 draws of one half: so far off once in 10^8


def test_runs_are_fixed_by_their_seeds():
    one, again, other = (learn_with_refresh("proportional", "32", s, n=16) for s in (1, 1, 2))
    assert one == again
    assert one != other
    assert one.updates is not None
    late = [learn_with_eviction("inverse", 64, seed, limit=30) for seed in (1, 1)]
    assert late == [None, None]


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="there is no 'uniform' with 'none'"):
        learn_with_refresh("uniform", "none", 0)
    with pytest.raises(ValueError, match="a bonus needs the law 'rank', got 'proportional'"):
        learn_with_refresh("proportional", "bonus-0.1", 0)
    with pytest.raises(ValueError, match="rule must be one of oldest, random"):
        learn_with_eviction("newest", 64, 0)


def test_measures_are_medians_and_differences_seed_by_seed():
    staleness = [
        StalenessRun("rank", refresh, seed, updates, 0.5)
        for refresh, row in {"none": [100, 200, None], "all": [50, 150, 300]}.items()
        for seed, updates in enumerate(row)
    ]
    eviction = [EvictionRun("oldest", 64, 0, 70), EvictionRun("lowest", 64, 0, 90)]
    found = {(m.part, m.case, m.way, m.measure): m.value for m in measures(staleness, eviction)}
    assert found["staleness", "rank", "none", "updates"] == 200.0
    assert found["staleness", "rank", "none", "high"] == task.PATIENCE
    assert found["staleness", "rank", "none", "never"] == 1.0
    assert found["staleness", "rank", "none", "elsewhere"] == 50.0
    assert found["staleness", "rank", "all", "difference"] == -50.0
    assert ("staleness", "rank", "none", "difference") not in found
    assert found["eviction", "64", "lowest", "difference"] == 20.0


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_writes_every_run_and_a_figure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(task, "PATIENCE", 20)
    output = tmp_path / "new" / "folder"

    reproduce(
        MemoryConfig(
            laws=("rank",), refresh=("none", "bonus-0.1"), capacities=(64,),
            rules=("oldest", "lowest"), seeds=2, output=output,
        )
    )  # fmt: skip

    staleness = read_rows(output / "staleness.csv", StalenessRun)
    assert [(run.refresh, run.seed) for run in staleness] == [
        (refresh, seed) for refresh in ("none", "bonus-0.1") for seed in (0, 1)
    ]
    eviction = read_rows(output / "eviction.csv", EvictionRun)
    assert [(run.rule, run.seed) for run in eviction] == [
        (rule, seed) for rule in ("oldest", "lowest") for seed in (0, 1)
    ]
    assert len(read_rows(output / "memory-summary.csv", MemoryMeasure)) > 0
    assert (output / "memory.png").stat().st_size > 20_000
    assert "updates until right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"capacities": (8,)}, r"capacities must be one or more different numbers in \[32, 65,536"),
        ({"seeds": 0}, r"seeds must be in \[1, 10,000\], got 0"),
        ({"laws": ("uniform",)}, "laws must be one or more different ones of proportional, rank"),
        ({"refresh": ()}, "refresh must be one or more different ones of none, 32"),
        ({"rules": ("newest",)}, "rules must be one or more different ones of oldest, random"),
    ],
)
def test_nonsense_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        MemoryConfig(**wrong)


# --- the results in the docs ----------------------------------------------------------------------


def test_measured_results_are_complete_and_so_is_their_summary():
    config = MemoryConfig()
    staleness = read_rows(MEASURED / "staleness.csv", StalenessRun)
    assert [(run.law, run.refresh, run.seed) for run in staleness] == [
        (law, refresh, seed)
        for law in config.laws
        for refresh in config.refresh
        if (refresh != "all" if law == "rank" else not refresh.startswith("bonus"))
        for seed in range(config.seeds)
    ]
    eviction = read_rows(MEASURED / "eviction.csv", EvictionRun)
    assert [(run.capacity, run.rule, run.seed) for run in eviction] == [
        (capacity, rule, seed)
        for capacity in config.capacities
        for rule in config.rules
        for seed in range(config.seeds)
    ]
    summary = read_rows(MEASURED / "memory-summary.csv", MemoryMeasure)
    assert summary == measures(staleness, eviction)


def test_the_words_beside_the_tables_are_what_was_measured():
    rows = read_rows(MEASURED / "memory-summary.csv", MemoryMeasure)
    found = {(m.part, m.case, m.way, m.measure): m.value for m in rows}
    for law in ("proportional", "rank"):
        for way in ("32", "256", "batch-64"):
            assert found["staleness", law, way, "most"] < 0.0
    rank = {way: found["staleness", "rank", way, "updates"] for way in ("none", "32", "batch-64")}
    assert rank["32"] < rank["batch-64"] < 1.1 * rank["32"] < rank["none"]
    assert abs(found["staleness", "rank", "bonus-0.01", "difference"]) < 0.05 * rank["none"]
    assert found["staleness", "rank", "bonus-0.1", "least"] > 0.0
    for capacity in ("256", "1024"):
        assert found["eviction", capacity, "lowest", "most"] < 0.0
        assert found["eviction", capacity, "inverse", "most"] < 0.0
        random = [found["eviction", capacity, "random", end] for end in ("least", "most")]
        assert random[0] < 0.0 < random[1]


@pytest.mark.slow
def test_measured_results_are_those_of_this_code():
    why = "made by other code: run `per reproduce memory --output docs/results/memory` again"
    for run in read_rows(MEASURED / "staleness.csv", StalenessRun):
        if run.seed == 0 and run.refresh in ("none", "32"):
            found = learn_with_refresh(run.law, run.refresh, 0)
            assert found.updates == run.updates, why
    for run in read_rows(MEASURED / "eviction.csv", EvictionRun):
        if run.seed == 0 and run.capacity == 1_024:
            assert learn_with_eviction(run.rule, 1_024, 0) == run.updates, why
