"""What the page of benchmarks leads with: times as fast as the fastest peer, and the costs."""

from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import gains, measures, report, stack_measures
from benchmarks.results import FILE, Footprint, Participant, Ratio, Results, Start
from prioritized_replay.conformance.adapters.ours import OursStacks, OursStacksInFiles

ROOT = Path(__file__).parent.parent
LAWS = {
    "ours, proportional": "proportional",
    "ours, rank-based": "rank",
    "ours, uniform": "uniform",
    "cpprb": "proportional",
    "tianshou": "proportional",
    "cpprb, uniform": "uniform",
}
MILLION = 1_000_000


def results_with(*ratios, **more):
    contenders = [
        Participant(name, "prioritized-replay" if name.startswith("ours") else name, law, {})
        for name, law in LAWS.items()
    ]
    return Results(contenders=contenders, ratios=list(ratios), **more)


def beside(peer, value, ours="ours, proportional", measure=measures.CYCLE, size=MILLION, batch=32):
    return Ratio(measure, size, batch, ours, peer, value, value - 0.1, value + 0.1)


def shown(results):
    return {gain.what: gain.by_law for gain in gains.gains(results)}


def test_the_fastest_peer_of_the_same_kind_counts():
    results = results_with(
        *(beside("cpprb", 4.0), beside("tianshou", 3.0), beside("cpprb, uniform", 0.5)),
        *(beside("tianshou", 0.8, "ours, rank-based"), beside("ours, rank-based", 2.5)),
    )

    assert shown(results) == {
        "draw 32, update priorities": {"proportional": (3.0, "tianshou"), "rank": (0.8, "tianshou")}
    }


def test_uniform_draws_stand_beside_those_with_priorities():
    drawn = beside("cpprb, uniform", 2.0, "ours, uniform", measures.SAMPLE)

    assert shown(results_with(beside("cpprb", 4.0), drawn)) == {
        "draw 32, update priorities": {"proportional": (4.0, "cpprb"), "uniform": (2.0, "cpprb")}
    }


def test_a_measure_counts_at_a_million_rows_or_the_largest_size_below():
    large = [beside("cpprb", value, size=size) for size, value in ((10**4, 2.0), (10**7, 5.0))]

    assert shown(results_with(beside("cpprb", 4.0), *large)).popitem()[1] == {
        "proportional": (4.0, "cpprb")
    }
    assert shown(results_with(*large)).popitem()[1] == {"proportional": (2.0, "cpprb")}


def test_what_loops_do_most_comes_first_and_unknown_measures_late():
    results = results_with(
        beside("cpprb", 2.0, measure="a new measure", batch=8),
        beside("cpprb", 2.0, measure=measures.ADD, batch=1),
        beside("cpprb", 2.0, measure="worst: rising"),
        beside("cpprb", 2.0),
        training={"summary": {"rank": {"times_sb3": 3.0}, "stable-baselines3": {"times_sb3": 1.0}}},
    )

    assert list(shown(results)) == [
        "draw 32, update priorities", "add one row", "a new measure, 8", gains.TRAINING,
    ]  # fmt: skip
    assert shown(results)[gains.TRAINING] == {"rank": (3.0, "stable-baselines3")}


def test_rows_in_files_do_not_stand_for_rows_in_ram():
    results = Results(
        contenders=[
            *(Participant(kind.name, gains.LIBRARY, kind.law, {})
              for kind in (OursStacks, OursStacksInFiles)),
            Participant("cpprb, stacks", "cpprb", "proportional", {}),
        ],
        ratios=[
            beside("cpprb, stacks", value, kind.name, stack_measures.SAMPLE)
            for kind, value in ((OursStacks, 2.0), (OursStacksInFiles, 1.5))
        ],
    )  # fmt: skip

    assert shown(results).popitem()[1] == {"proportional": (2.0, "cpprb")}


def test_costs_are_shown_only_where_ours_takes_more():
    footprints = [
        *(Footprint("ours, proportional", MILLION, 1.0, 170.0), Footprint("cpprb", 1, None, 158.0)),
        *(Footprint("tianshou", 1, None, 168.0), Footprint("ours, rank-based", 1, None, 150.0)),
    ]
    starts = [
        Start("first cycle after installation, RankBased", 10.33, 10.0, 11.0, 2),
        Start("import prioritized_replay", 0.3, 0.2, 0.4, 2),
    ]

    assert report.costs(results_with(footprints=footprints, starts=starts))[1:] == [
        ["bytes per transition, proportional", "170", "158", "cpprb"],
        ["seconds: first cycle after installation, RankBased", "10.3", "", ""],
    ]


def test_two_runs_are_shown_as_one():
    one, other = results_with(beside("cpprb", 4.0)), results_with(beside("cpprb", 2.0, batch=256))
    other.training = {"summary": {}}

    whole = gains.together([one, other])

    assert len(shown(whole)) == 2
    assert len(one.ratios) == 1, "what was read stays as it is"


def test_bars_are_as_long_as_their_numbers_and_names_are_escaped(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    bars = import_module("benchmark_tables").bars
    measured = [
        gains.Gain("a <b>", 0, {"proportional": (4.0, "x"), "rank": (1.0, "y")}),
        gains.Gain("c", 1, {"uniform": (0.5, "z")}),
    ]

    drawn = bars(measured)

    for piece in ("--even: 0.2500", "--length: 100.00%", "--length: 25.00%", "--length: 12.50%"):
        assert piece in drawn
    assert "a &lt;b&gt;" in drawn
    assert "--even: 1.0000" in bars([measured[1]]), "the line is there also where all are slower"
    assert bars([])


def test_a_very_long_bar_is_cut_so_that_the_others_are_seen(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    extension = import_module("benchmark_tables")

    drawn = extension.bars([gains.Gain("a", 0, {"proportional": (100.0, "x"), "rank": (2.0, "y")})])

    assert f"--length: {200 / extension.LONGEST:.2f}%" in drawn
    assert 'class="proportional cut" style="--length: 100.00%"' in drawn
    assert report.ratio(100.0) in drawn


@pytest.mark.parametrize("name", ["benchmarks", "stacks"])
def test_the_published_files_have_gains(name):
    results = Results.read(ROOT / "docs" / "results" / name / FILE)

    assert len(gains.gains(results)) > 3
    assert {len(line) for line in report.TABLES["gains"](results)} == {4}
