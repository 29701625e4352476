"""The benchmark: the same data for all, fair turns, checks that notice cheating, and its page."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from benchmarks import measures, race, report, targets, training
from benchmarks.__main__ import main
from benchmarks.limits import STEPS, Yardstick, chase
from benchmarks.options import BenchConfig
from benchmarks.processes import CACHE, empty_cache, measure_footprint
from benchmarks.race import benchmark
from benchmarks.results import FILE, Participant, Ratio, Results, Start, Timing
from benchmarks.session import Session
from benchmarks.timing import Effort, Entry, interleave, order, ratio, spread
from prioritized_replay.conformance import adapters as peers
from prioritized_replay.conformance.adapters.ours import (
    OURS,
    OursProportional,
    OursRank,
    OursUniform,
)
from prioritized_replay.conformance.checks import Invalid, check_draws, check_update
from prioritized_replay.conformance.workload import ROW, Workload, stacked

ROOT = Path(__file__).parent.parent
SIZE = 1000
WORKLOAD = Workload(seed=3)
ERRORS = WORKLOAD.errors(SIZE)
TINY = ("--sizes", "500", "900", "--batches", "8", "--rounds", "2", "--seconds", "0.1")


def filled(kind):
    contender = kind(SIZE)
    contender.fill(WORKLOAD, ERRORS)
    return contender


# The data


def test_everybody_gets_the_same_rows_errors_and_steps():
    first, second = ([*Workload(seed=3).chunks(70_000)] for _ in range(2))

    for one, other in zip(first, second, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    assert [len(rows["action"]) for rows in first] == [65_536, 4_464]
    np.testing.assert_array_equal(WORKLOAD.updates(5, 4, 8), Workload(3).updates(5, 4, 8))
    for one, other in zip(WORKLOAD.steps(5, 3), Workload(3).steps(5, 3), strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_row_says_which_one_it_is():
    actions = np.concatenate([rows["action"] for rows in WORKLOAD.chunks(70_000)])

    np.testing.assert_array_equal(actions, np.arange(70_000))


def test_every_row_has_a_priority_of_its_own_and_every_update_new_ones():
    errors = WORKLOAD.errors(100_000)
    updates = [WORKLOAD.updates(number, 2, 4) for number in range(2)]

    assert np.unique(np.abs(errors)).size == errors.size
    assert np.abs(errors).max() > 20 * np.median(np.abs(errors)), "a heavy tail"
    assert np.unique(np.abs(updates)).size == 16


def test_another_seed_gives_other_data():
    assert not np.array_equal(Workload(1).errors(10), Workload(2).errors(10))
    assert not np.array_equal(Workload(1).block()["obs"], Workload(2).block()["obs"])


def test_stacked_steps_are_columns_of_the_same_values():
    steps = WORKLOAD.steps(0, 3)
    rows = stacked(steps)

    assert list(rows) == list(ROW.names)
    assert rows["obs"].dtype == np.float32
    np.testing.assert_array_equal(rows["next_obs"][1], steps[1]["next_obs"])


# Turns


def recording(calls, name):
    return Entry(lambda given: [(name, x) for x in given], calls.append)


def test_contenders_take_turns_forwards_and_backwards_with_the_same_inputs():
    calls: list[tuple[str, int]] = []
    entries = {name: recording(calls, name) for name in "abc"}

    times = interleave(entries, lambda n: [10 * n, 10 * n + 1], Effort(4, 60.0), warm_up=0)

    turns = [name for name, value in calls if value % 10 == 0]
    assert "".join(turns) == "abccbaabccba"
    for name in "abc":
        assert [v for n, v in calls if n == name] == [0, 1, 10, 11, 20, 21, 30, 31]
        assert times[name].shape == (4,)


def test_warm_up_is_not_counted_and_time_runs_out_after_whole_pairs():
    calls: list[tuple[str, int]] = []

    times = interleave({"a": recording(calls, "a")}, lambda n: [n], Effort(50, 0.0), warm_up=2)

    assert [value for _, value in calls] == [0, 1, 2, 3]
    assert times["a"].shape == (2,)


def test_a_warm_up_that_compiles_takes_no_round_away(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(import_module("benchmarks.timing").time, "monotonic", lambda: now[0])

    def call(argument):
        now[0] += 100.0 if argument == 0 else 1.0

    times = interleave({"a": Entry(list, call)}, lambda n: [n], Effort(6, 5.5), warm_up=1)

    assert times["a"].size == 6


def test_preparing_is_not_timed_and_finishing_is(monkeypatch):
    now = [0]
    monkeypatch.setitem(import_module("benchmarks.timing")._CLOCKS, "wall", lambda: now[0])

    def taking(nanoseconds, result=None):
        def call(given=None):
            now[0] += nanoseconds
            return given if result is None else result

        return call

    entry = Entry(taking(1_000_000), taking(30), taking(40))

    times = interleave({"a": entry}, lambda n: [1, 2], Effort(2, 60.0))

    np.testing.assert_allclose(times["a"], (2 * 30 + 40) / 2 / 1e9)


def test_turns_collect_no_garbage_meanwhile_and_do_again_afterwards():
    import gc

    seen = []
    interleave({"a": Entry(list, lambda _: seen.append(gc.isenabled()))}, lambda n: [n],
               Effort(2, 9.0))  # fmt: skip

    assert not any(seen)
    assert gc.isenabled()


def test_order_reverses_every_other_round():
    assert [order(["x", "y"], n) for n in range(3)] == [["x", "y"], ["y", "x"], ["x", "y"]]


def test_ratios_are_taken_round_by_round():
    slow, fast = np.array([20.0, 200.0, 2.0]), np.array([10.0, 100.0, 1.0])

    assert ratio(slow, fast) == dataclasses.replace(spread(slow), median=2.0, low=2.0, high=2.0)


# Checks


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.law)
@pytest.mark.slow
def test_ours_pass_the_checks(kind):
    contender = filled(kind)

    assert "draws follow the law" in check_draws(contender, WORKLOAD, ERRORS)
    if kind is not OursUniform:
        assert "updated rows get" in check_update(contender)


def altered(drawn, **changes):
    return dataclasses.replace(drawn, **changes)


class OutOfRange(OursProportional):
    def seen(self, drawn):
        seen = super().seen(drawn)
        return altered(seen, rows=seen.rows + self.size)


class WrongRows(OursProportional):
    def seen(self, drawn):
        seen = super().seen(drawn)
        return altered(seen, rows=np.roll(seen.rows, 1))


class OtherContent(OursProportional):
    def seen(self, drawn):
        seen = super().seen(drawn)
        return altered(seen, obs=np.zeros_like(seen.obs))


class TooFew(OursProportional):
    def sample(self, batch):
        return super().sample(batch // 2)


class InfiniteWeights(OursProportional):
    def seen(self, drawn):
        seen = super().seen(drawn)
        return altered(seen, weights=np.full_like(seen.weights, np.inf))


class EqualWeights(OursProportional):
    def seen(self, drawn):
        seen = super().seen(drawn)
        return altered(seen, weights=np.ones_like(seen.weights))


class SecretlyUniform(OursProportional):
    """Draws uniformly what it gives out as proportional, with the weights of the latter."""

    sampler = OursUniform.sampler

    def fill(self, workload, errors):
        super().fill(workload, None)
        masses = self.masses(errors)
        self.weights = (masses / masses.sum()) ** -0.5

    def seen(self, drawn):
        seen = super().seen(drawn)
        return altered(seen, weights=self.weights[seen.rows])


class IgnoresPriorities(OursRank):
    """Every row keeps the priority of a new one."""

    def fill(self, workload, errors):
        super().fill(workload, None)

    def seen(self, drawn):
        seen = super().seen(drawn)
        ranks = self.masses(ERRORS)[seen.rows]
        return altered(seen, weights=ranks**-0.5)


class TakesNoUpdates(OursProportional):
    def update_rows(self, rows, errors):
        pass


class RankTakesNoUpdates(OursRank):
    def update_rows(self, rows, errors):
        pass


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (OutOfRange, "rows outside of the memory"),
        (WrongRows, "other rows than it says"),
        (OtherContent, "observations that were not stored there"),
        (TooFew, r"returns \(128,\) rows of 256"),
        (InfiniteWeights, "not finite and positive"),
        (EqualWeights, "do not follow from its law"),
        (SecretlyUniform, "does not draw by its law, proportional"),
        (IgnoresPriorities, "does not draw by its law, rank"),
    ],
)
def test_a_broken_contender_is_noticed(broken, message):
    with pytest.raises(Invalid, match=message):
        check_draws(filled(broken), WORKLOAD, ERRORS)


@pytest.mark.parametrize("broken", [TakesNoUpdates, RankTakesNoUpdates])
def test_updates_that_do_not_arrive_are_noticed(broken):
    with pytest.raises(Invalid, match="does not take updates"):
        check_update(filled(broken))


def session(results=None):
    return Session(WORKLOAD, Effort(2, 0.1), results or Results(), lambda line: None)


class Cheat(TakesNoUpdates):
    name, library = "cheat", "another"


class Crooked(SecretlyUniform):
    name, library = "crooked", "another"


@pytest.mark.slow
def test_a_peer_that_fails_a_check_is_left_out_and_named():
    running = session()

    measures.measure_cycles(running, [OursProportional, Cheat, Crooked], [SIZE], [8])

    timed = {row.contender for row in running.results.timings}
    assert OursProportional.name in timed
    assert not timed & {"cheat", "crooked"}
    assert not [row for row in running.results.ratios if row.against in ("cheat", "crooked")]
    reasons = {row.what: row.why for row in running.results.absent}
    assert "does not take updates" in reasons[f"cheat at {SIZE:,} rows"]
    assert "does not draw by its law" in reasons[f"crooked at {SIZE:,} rows"]


def test_a_fault_of_ours_ends_the_benchmark():
    with pytest.raises(Invalid, match="does not take updates"):
        measures.measure_cycles(session(), [TakesNoUpdates], [SIZE], [8])


def test_what_does_not_fit_into_memory_is_left_out_and_named(monkeypatch):
    running = session()
    where = import_module("benchmarks.session")
    monkeypatch.setattr(where, "available_bytes", lambda: 1000)

    assert running.filled([OursProportional], SIZE, ERRORS) == []
    assert "would not fit" in running.results.absent[0].why


# Hard cases


def test_awkward_priorities_are_what_their_names_say():
    running = session()

    def updates(case):
        inputs = measures._updates(running, case, 4, 8)
        return np.concatenate([inputs(number).ravel() for number in range(3)])

    assert set(updates("all equal")) == {1.0}
    assert (np.diff(updates("rising")) > 0).all()
    clipped = np.abs(updates("clipped"))
    assert clipped.max() == 1.0
    assert np.mean(clipped == 1.0) > 0.5
    assert measures._errors(running, "new rows", SIZE) is None
    assert updates("rising").min() > np.abs(measures._errors(running, "rising", SIZE)).max()


def test_limits_do_what_they_are_called():
    yardstick = Yardstick(SIZE)
    entries = yardstick.entries(8)
    following = yardstick._following

    seen = {int(chase(following, 0, steps)) for steps in range(SIZE)}
    for entry in entries.values():
        for argument in entry.prepare(np.zeros((3, 8))):
            entry.call(argument)

    assert seen == set(range(SIZE)), "the chain goes through every row"
    assert int(chase(following, 0, SIZE)) == 0
    assert yardstick.nbytes >= SIZE * ROW.itemsize
    assert STEPS > 1000


# Results and targets


def results_with(*ratios, **more):
    laws = {"ours, proportional": "proportional", "ours, rank-based": "rank"}
    laws |= {"cpprb": "proportional", "tianshou": "proportional", "sb3": "uniform"}
    takings = [Participant(name, name.split(",")[0], law, {}) for name, law in laws.items()]
    return Results(contenders=takings, ratios=list(ratios), **more)


def against(name, value, measure=measures.CYCLE, batch=32, ours="ours, proportional"):
    return Ratio(measure, 1_000_000, batch, ours, name, value, value - 0.1, value + 0.1)


def verdict(results, what):
    (found,) = [v for v in targets.judge(results) if v.target.what == what]
    return found


def test_a_target_is_judged_against_the_fastest_prioritized_peer():
    results = results_with(against("cpprb", 9.0), against("tianshou", 4.9), against("sb3", 0.5))

    found = verdict(results, "sample + update, N = 1e6, batch 32")

    assert (found.figure.value, found.figure.against, found.met) == (4.9, "tianshou", False)
    assert verdict(results, "sample + update, N = 1e6, batch 256").met is None


def test_targets_in_our_own_times_and_in_seconds():
    starts = [Start(f"first cycle after installation, {s}", 10.5, 10.0, 11.0, 2)
              for s in ("Proportional", "RankBased")]  # fmt: skip
    grown = Ratio(
        measures.GROWTH, 10_000_000, 1024, "ours, rank-based at 10,000 rows", "ours, rank-based",
        3.0, 2.9, 3.1,
    )  # fmt: skip
    results = results_with(against("ours, rank-based", 3.4), grown, starts=starts)

    own = verdict(results, "rank-based, N = 1e6, batch 32, in times of our own proportional")
    assert (own.figure.value, own.met) == (3.4, False)
    assert verdict(results, "first cycle after installation, RankBased").met is False
    assert verdict(results, "growth from N = 1e4 to N = 1e7, batch 1024, rank-based").met is True


def test_training_is_judged_by_ratios_seed_by_seed():
    runs = [
        {"contender": name, "seed": seed, "steps_per_second": speed}
        for name, seed, speed in [
            *(("proportional", 0, 300.0), ("proportional", 1, 80.0), ("proportional", 2, 20.0)),
            *(("stable-baselines3", 0, 100.0), ("stable-baselines3", 1, 20.0)),
        ]
    ]

    found = verdict(results_with(training={"runs": runs}), "DQN training, steps per second")

    assert (found.figure.low, found.figure.high) == (3.0, 4.0)
    assert found.met is True


def test_every_row_of_the_contract_is_there():
    whats = [target.what for target in targets.TARGETS]

    assert len(set(whats)) == len(whats)
    assert all(verdict.met is None for verdict in targets.judge(Results()))


def test_weak_spots_are_told():
    weak = against("tianshou", 0.8, batch=256, ours="ours, rank-based")
    table = report.weak(results_with(weak, against("cpprb", 2.0), against("sb3", 0.5)))

    assert [line[:5] for line in table[1:]] == [
        [measures.CYCLE, "1,000,000", "256", "ours, rank-based", "tianshou"]
    ]


def test_a_miss_is_as_plain_as_a_hit():
    table = report.targets(results_with(against("cpprb", 4.0)))
    (line,) = [line for line in table if line[0] == "sample + update, N = 1e6, batch 32"]

    assert line[-1] == "NO"
    assert line[2] == "4\xa0x"


def test_results_come_back_as_they_were_written(tmp_path):
    results = results_with(against("cpprb", 4.0), made={"date": "2026-01-01"})
    results.timings.append(Timing("add", 10, 1, "cpprb", 1.5e-6, 1e-6, 2e-6, 2, 256))

    results.write(tmp_path / FILE)

    assert Results.read(tmp_path / FILE) == results
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 0}', '{"format": 1}', '{"format": 1, "x": 2}']
)
def test_another_file_is_refused_by_name(tmp_path, text):
    (tmp_path / FILE).write_text(text)

    with pytest.raises(ValueError, match=f"{FILE} is no file of python -m benchmarks"):
        Results.read(tmp_path / FILE)


def test_every_table_can_be_made_of_no_results():
    for name, make in report.TABLES.items():
        assert len(make(Results())[0]) > 1, name
    assert report.SHOWN.keys() <= report.TABLES.keys()


# Who takes part


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    def version(name):
        raise peers.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(peers.metadata, "version", version)

    assert {peers.missing(peer) for peer in peers.PEERS} == {"not installed"}


def test_a_library_that_does_not_load_is_named_with_its_reason(monkeypatch):
    def sampler(*arguments, **options):
        raise RuntimeError("no trees here.\nMore of it.")

    monkeypatch.setattr(peers.metadata, "version", lambda name: "1")
    monkeypatch.setitem(sys.modules, "torchrl", types.ModuleType("torchrl"))
    monkeypatch.setitem(
        sys.modules, "torchrl.data", types.SimpleNamespace(PrioritizedSampler=sampler)
    )

    assert peers.missing("torchrl") == "its compiled part, of 1, does not fit torch 1"

    monkeypatch.setitem(sys.modules, "cpprb", None)
    assert peers.missing("cpprb").startswith("does not load: ModuleNotFoundError: ")


@pytest.mark.parametrize("peer", peers.PEERS)
@pytest.mark.slow
def test_installed_peers_pass_the_checks(peer):
    if (why := peers.missing(peer)) is not None:
        pytest.skip(f"{peer}: {why}")
    for kind in peers.PEERS[peer]:
        contender = filled(kind)
        check_draws(contender, WORKLOAD, ERRORS)
        if kind.law != "uniform":
            check_update(contender)


def test_every_peer_says_how_it_is_used():
    for kinds in peers.PEERS.values():
        for kind in kinds:
            assert kind.settings.keys() >= {"class", "draws"}
            assert kind.library in peers.PEERS


# New processes


@pytest.mark.slow
def test_nothing_is_compiled_yet_at_a_cold_start():
    with empty_cache() as environment:
        folder = Path(environment["PYTHONPATH"])
        found = subprocess.run(
            [sys.executable, "-c", "import prioritized_replay as per; print(per.__file__)"],
            env=os.environ | environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

        assert Path(found.strip()).is_relative_to(folder)
        assert not list(folder.rglob("*kernels*/*"))
        assert Path(environment[CACHE]).is_relative_to(folder)
    assert not folder.exists()


@pytest.mark.slow
def test_bytes_per_transition_come_from_a_process_of_their_own():
    footprint = measure_footprint(OursUniform, 20_000)

    assert footprint.reserved > ROW.itemsize
    if sys.platform == "linux":
        assert 0.7 * footprint.reserved < footprint.resident < 1.5 * footprint.reserved


@pytest.mark.slow
def test_a_process_that_fails_is_one_error():
    class Unknown(OursUniform):
        pass

    with pytest.raises(RuntimeError, match="a process of the benchmark failed: KeyError"):
        measure_footprint(Unknown, 100)


def test_a_peer_whose_process_fails_is_left_out_and_named(tmp_path, monkeypatch):
    def fail(kind, size):
        raise RuntimeError("it went away")

    monkeypatch.setattr(race, "measure_footprint", fail)
    monkeypatch.setattr(race, "OURS", ())
    monkeypatch.setattr(race, "missing", lambda peer: None)

    results = benchmark(BenchConfig(parts=("memory",), peers=("cpprb",), output=tmp_path))

    assert {row.why for row in results.absent} == {"it went away"}
    monkeypatch.setattr(race, "OURS", OURS)
    with pytest.raises(RuntimeError, match="it went away"):
        benchmark(BenchConfig(parts=("memory",), peers=(), output=tmp_path))


# The command


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"parts": ()}, "parts must be one or more"),
        ({"parts": ("add", "add")}, "parts must be different ones"),
        ({"peers": ("none",)}, "peers must be different ones of cpprb"),
        ({"sizes": (99,)}, r"sizes must be different numbers >= 100, got \(99,\)"),
        ({"batches": ()}, "batches must be different numbers >= 1"),
        ({"rounds": 1}, "rounds must be >= 2, got 1"),
        ({"seconds": 0.0}, "seconds must be > 0, got 0.0"),
    ],
)
def test_nonsense_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        BenchConfig(**wrong)


def test_a_quick_run_is_smaller():
    quick, whole = BenchConfig(quick=True), BenchConfig()

    assert quick.used_sizes == (10_000, 1_000_000)
    assert whole.used_sizes == (10_000, 1_000_000, 10_000_000)
    assert quick.one_size == whole.one_size == 1_000_000
    assert quick.effort.rounds < whole.effort.rounds
    assert BenchConfig(quick=True, sizes=(2_000_000,)).used_sizes == (2_000_000,)


def test_the_command_is_kept_with_its_results():
    config = BenchConfig(quick=True, sizes=(1000, 2000), peers=())

    assert race._command(config) == "python -m benchmarks --peers --sizes 1000 2000 --quick"
    assert race._command(BenchConfig()) == "python -m benchmarks"


@pytest.mark.slow
def test_ours_alone_from_the_command_to_the_page(tmp_path, capsys, monkeypatch):
    parts = ("--parts", "add", "replay", "worst")
    words = [*parts, *TINY, "--peers", "--output", str(tmp_path)]

    assert main(words) == 0

    said = capsys.readouterr().out
    results = Results.read(tmp_path / FILE)
    assert "add ...\nreplay ...\nworst ...\n" in said
    assert "not measured" in said
    assert {row.contender for row in results.timings} >= {kind.name for kind in OURS}
    assert {row.measure for row in results.timings} >= {
        *(measures.ADD, measures.ADD_WITH_ERROR, measures.EXTEND, measures.LOOP),
        *(measures.CYCLE, measures.SAMPLE, *(f"worst: {case}" for case in measures.WORST)),
    }
    assert all(0 < row.low <= row.seconds <= row.high for row in results.timings)
    assert any(row.measure == measures.GROWTH for row in results.ratios)
    assert results.made["numpy"] == np.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", results.made["date"])
    for figure in ("speed.png", "scaling.png"):
        assert (tmp_path / figure).stat().st_size > 10_000
    monkeypatch.syspath_prepend(ROOT / "docs" / "extensions")
    table_of = import_module("measured").table_of
    for name, make in report.TABLES.items():
        cells = make(results)
        assert {len(line) for line in cells} == {len(cells[0])}, name
        assert len(table_of(cells).astext().split("\n\n")) >= len(cells), name


def test_a_part_without_results_leaves_no_figure_not_even_an_earlier_one(tmp_path, monkeypatch):
    (tmp_path / "speed.png").write_text("earlier")
    monkeypatch.setattr(training, "measure_training", lambda **settings: {})

    benchmark(BenchConfig(parts=("training",), peers=(), output=tmp_path))

    assert not list(tmp_path.glob("*.png"))


def test_training_is_measured_by_its_module(tmp_path, monkeypatch):
    asked = []

    def measure_training(**settings):
        asked.append(settings)
        return {"runs": [], "summary": {}}

    monkeypatch.setattr(training, "measure_training", measure_training)

    results = benchmark(BenchConfig(parts=("training",), peers=(), quick=True, output=tmp_path))

    assert asked == [{"seeds": (0,), "steps": 5_000, "episodes": 5}]
    assert results.training == {"runs": [], "summary": {}}


def test_a_folder_that_is_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")

    assert main([*TINY, "--output", str(tmp_path / "file")]) in (1, 2)
    assert capsys.readouterr().err.count("\n") == 1


# The page


def test_the_published_file_is_whole():
    kept = ROOT / "docs" / "results" / "benchmarks" / FILE
    results = Results.read(kept)

    assert json.loads(kept.read_text(encoding="utf-8"))["format"] == 1
    assert results.made["processor"]
    assert {row.library for row in results.contenders} > {"prioritized-replay"}
    pages = (ROOT / "docs").glob("*.rst")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    shown = set(re.findall(r":show: (.+)", text))
    assert shown == report.TABLES.keys()
