"""``per check``: ours keeps every rule, wrong memories are caught, and so are wrong adapters."""

import mmap
import re
import threading
import time
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from scipy import stats

from prioritized_replay.cli import main
from prioritized_replay.conformance.chi_square import FALSE_ALARM, surprise
from prioritized_replay.conformance.command import chosen_scenarios
from prioritized_replay.conformance.factories import adapter_of
from prioritized_replay.conformance.memories import ours, plain, wrong
from prioritized_replay.conformance.memory import Memory, NotClaimed, Wanted
from prioritized_replay.conformance.report import Report, check
from prioritized_replay.conformance.scenario import judge
from prioritized_replay.conformance.scenarios import GROUPS, SCENARIOS
from prioritized_replay.conformance.steps import Walk

MEMORIES = "prioritized_replay.conformance.memories"
RESULTS = Path(__file__).parent.parent / "docs" / "results" / "conformance"
BY_NAME = {each.name: each for each in SCENARIOS}
QUICK = [  # of every group that the plain memory claims, where it is not wrong in just that
    *("told-probabilities-are-right", "no-weight-exceeds-one", "the-newest-rows-are-there"),
    *("returns-add-up", "streams-do-not-mix", "images-stay-uint8", "nan-is-refused"),
    *("the-callers-arrays-are-copied", "rows-survive"),
]


# The scenarios


def test_there_are_scenarios_of_every_group():
    assert len(SCENARIOS) >= 50
    assert len(BY_NAME) == len(SCENARIOS)
    assert [
        *("law", "weights", "boundaries", "n-step", "vector-environments", "dtypes"),
        *("staleness", "numerics", "memory", "persistence", "concurrency"),
    ] == GROUPS
    assert min(Counter(each.group for each in SCENARIOS).values()) >= 5
    assert not set(GROUPS) & set(BY_NAME)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=BY_NAME)
def test_a_scenario_says_its_rule_and_source_and_fits_twenty_lines(scenario):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", scenario.name)
    assert scenario.rule.endswith(".")
    assert scenario.source
    program = scenario.reproduction(f"{MEMORIES}.ours:proportional")
    assert len(program.splitlines()) <= 20
    compile(program, scenario.name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_programs_that_reproduce_run_alone(group, capsys):
    for scenario in [each for each in SCENARIOS if each.group == group]:
        if scenario.name in plain.NOT_CLAIMED or "proportional" not in scenario.laws:
            continue
        kind = "ours" if group in plain.NOT_CLAIMED else "plain"
        try:
            exec(scenario.reproduction(f"{MEMORIES}.{kind}:proportional"), {"__name__": "alone"})
        except NotClaimed:
            continue
        assert capsys.readouterr().out.strip()


# Memories


@pytest.mark.slow
@pytest.mark.parametrize("law", ["proportional", "rank", "uniform"])
def test_ours_keeps_every_rule_and_claims_all_of_its_law(law):
    # Bytes and files do not depend on the law: the published report of uniform has these too.
    chosen = SCENARIOS if law != "uniform" else chosen_scenarios(GROUPS[:8])
    report = check(getattr(ours, law)(), chosen, "ours")
    assert not [(line.name, line.seen) for line in report.failures]
    not_claimed = {line.name for line in report.lines if line.outcome == "not claimed"}
    assert not_claimed == {each.name for each in chosen if law not in each.laws}


@pytest.mark.slow
@pytest.mark.parametrize(("law", "groups"), [("proportional", GROUPS[:7]), ("rank", GROUPS[:1])])
def test_a_plain_memory_keeps_what_it_claims(law, groups):
    report = check(getattr(plain, law)(), chosen_scenarios(groups), "plain")
    assert not [(line.name, line.seen) for line in report.failures]
    assert report.counts()["pass"] > (70 if groups[1:] else 12)


@pytest.mark.slow
@pytest.mark.parametrize("factory", wrong.CAUGHT_BY)
def test_a_wrong_memory_is_caught_by_the_scenario_that_names_its_fault(factory):
    adapter, culprit = getattr(wrong, factory)(), wrong.CAUGHT_BY[factory]
    results = {name: judge(BY_NAME[name], adapter) for name in [culprit, *QUICK]}
    assert results[culprit].outcome == "fail"
    right = replace(plain.plain(adapter.law), not_claimed={})
    assert judge(BY_NAME[culprit], right).outcome == "pass"  # it is the fault that is caught
    failed = {name for name, result in results.items() if result.outcome == "fail"}
    assert failed <= {culprit, "told-probabilities-are-right"}


@pytest.mark.slow
def test_another_seed_finds_nothing_wrong_either():
    report = check(ours.proportional(), chosen_scenarios(["law", "numerics"]), "", seed=1)
    assert not [(line.name, line.seen) for line in report.failures]


class LastRowNeverDrawn(plain.PlainMemory):
    def places(self, batch_size, masses):
        masses = np.append(masses[:-1], 0.0) if masses.size > 1 else masses
        return super().places(batch_size, masses)


class MixedStreams(plain.PlainMemory):
    def follow(self, stream, step):
        super().follow(0, step)


class KeepsResets(plain.PlainMemory):
    def add_vector(self, step):
        self.ended = [False] * len(self.windows)
        super().add_vector(step)


class NextObsOfTheNextEpisode(plain.PlainMemory):
    def add_vector(self, step):
        super().add_vector(replace(step, info={}))


class DoneAtAnyEnd(plain.PlainMemory):
    def follow(self, stream, step):
        super().follow(stream, replace(step, terminated=step.terminated or step.truncated))


class Float32(plain.PlainMemory):
    def store(self, row):
        super().store(row._replace(obs=np.float32(row.obs), next_obs=np.float32(row.next_obs)))


class FirstErrorCounts(plain.PlainMemory):
    def update(self, ids, td_errors):
        return super().update(ids[::-1], td_errors[::-1])


class ConstantEntry(plain.PlainMemory):
    largest = property(lambda self: 1.0, lambda self, value: None)


class TakesNaN(plain.PlainMemory):
    def update(self, ids, td_errors):
        return super().update(ids, np.nan_to_num(td_errors))


class NoCopies(plain.PlainMemory):
    def add(self, step):
        self.store(plain.Row(step.obs, step.action, step.reward, step.next_obs, self.wanted.gamma))


class GlobalGenerator(plain.PlainMemory):
    def places(self, batch_size, masses):
        return np.random.choice(masses.size, batch_size, p=masses / masses.sum())  # noqa: NPY002


class ForgetsErrors(plain.PlainMemory):
    def load(self, folder):
        super().load(folder)
        self.errors = type(self.errors)([self.largest] * len(self.errors), self.errors.maxlen)


class WeightsOfTheCapacity(plain.PlainMemory):
    def sample(self, batch_size, beta):
        drawn = super().sample(batch_size, beta)
        return replace(drawn, weights=(self.wanted.capacity * drawn.probabilities) ** -beta)


class StrataAreIndependent(plain.PlainMemory):
    def __init__(self, law, wanted):
        super().__init__(law, replace(wanted, draw=None))


class AlphaIsKept(plain.PlainMemory):
    def set_alpha(self, alpha):
        pass


class WeightsOfTwoDecimals(plain.PlainMemory):
    def sample(self, batch_size, beta):
        drawn = super().sample(batch_size, beta)
        return replace(drawn, weights=drawn.weights.round(2))


class TornRows(plain.PlainMemory):
    def store(self, row):
        super().store(row._replace(next_obs=0.0 * row.next_obs))
        time.sleep(0)  # another thread's turn
        self.rows[-1] = row


class KeepsAThird(plain.PlainMemory):
    kept: ClassVar = []

    def __init__(self, law, wanted):
        super().__init__(law, wanted)
        lost = wanted.capacity * int(np.prod(wanted.obs_shape)) * 4 // 3
        self.kept.append(mmap.mmap(-1, lost))  # not of memory that earlier tests have left
        self.kept[-1].write(bytes(lost))


class UniformInThreads(plain.PlainMemory):
    def places(self, batch_size, masses):
        here = threading.current_thread() is threading.main_thread()
        return super().places(batch_size, masses if here else np.ones_like(masses))


MORE_FAULTS = {
    StrataAreIndependent: "stratified-draws-are-even",
    AlphaIsKept: "alpha-can-be-changed",
    WeightsOfTwoDecimals: "weights-are-finite",
    TornRows: "rows-are-whole-while-others-are-added",
    KeepsAThird: "a-dropped-memory-gives-its-bytes-back",
    UniformInThreads: "several-threads-may-draw",
    LastRowNeverDrawn: "the-newest-row-can-be-drawn",
    MixedStreams: "each-stream-has-its-windows",
    KeepsResets: "reset-steps-are-no-rows",
    NextObsOfTheNextEpisode: "truncation-with-resets-in-the-same-step",
    DoneAtAnyEnd: "truncated-steps-bootstrap",
    Float32: "float64-keeps-its-precision",
    FirstErrorCounts: "of-repeated-ids-the-last-error-counts",
    ConstantEntry: "new-rows-enter-at-the-maximum",
    TakesNaN: "nan-is-refused",
    NoCopies: "the-callers-arrays-are-copied",
    GlobalGenerator: "global-generators-are-left-alone",
    ForgetsErrors: "priorities-survive",
    WeightsOfTheCapacity: "n-is-the-number-of-rows",
}


@pytest.mark.parametrize(("kind", "name"), MORE_FAULTS.items(), ids=MORE_FAULTS.values())
def test_scenarios_of_every_group_can_fail(kind, name):
    wrong_one = replace(plain.plain("proportional", kind), not_claimed={})
    result = judge(BY_NAME[name], wrong_one)
    KeepsAThird.kept.clear()
    assert (result.outcome, "Error" in result.seen) == ("fail", False), result.seen
    right = plain.proportional()
    if {name, BY_NAME[name].group} & plain.NOT_CLAIMED.keys():
        right = ours.proportional()
    assert judge(BY_NAME[name], right).outcome == "pass"


# The means


@pytest.mark.parametrize("freedom", [1, 2, 9, 63, 400])
def test_the_tail_of_chi_square_is_exact(freedom):
    rng = np.random.default_rng(freedom)
    for spread in (0.5, 1.0, 2.0, 4.0):
        expected = np.full(freedom + 1, 100.0)
        counts = expected + rng.choice([-1, 1], freedom + 1) * spread * 10
        counts[0] += expected.sum() - counts.sum()
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert surprise(counts, expected) == pytest.approx(stats.chi2.sf(statistic, freedom))


def test_right_counts_are_no_surprise_and_wrong_ones_are():
    rng = np.random.default_rng(0)
    masses = rng.lognormal(0.0, 0.5, 64)
    probabilities = masses / masses.sum()
    chances = [surprise(rng.multinomial(8192, probabilities), masses) for _ in range(500)]
    assert stats.kstest(chances, "uniform").pvalue > 1e-4
    off = probabilities**1.3 / (probabilities**1.3).sum()
    assert surprise(rng.multinomial(8192, off), masses) < FALSE_ALARM


def test_rows_of_which_hardly_any_draw_is_expected_are_counted_together():
    assert surprise([1000, 1, 0, 0], [1000.0, 0.5, 0.2, 0.3]) == 1.0
    assert surprise([1000, 0, 60], [1000.0, 0.0, 1.0]) < FALSE_ALARM
    rng = np.random.default_rng(0)
    probabilities = np.array([0.5, 0.4995, 0.0003, 0.0002])
    chances = [surprise(rng.multinomial(8192, probabilities), probabilities) for _ in range(800)]
    assert np.mean(np.array(chances) < 0.01) < 0.03


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
def test_the_walk_knows_what_its_vector_steps_mean(mode):
    wanted = Wanted(num_envs=2, autoreset=mode)
    walk = Walk(wanted, [[(2, "terminated")], [(3, "truncated")]])
    steps = [walk.vector_step() for _ in range(4)]
    assert [step.terminated.tolist() for step in steps][1] == [True, False]
    assert [step.truncated.tolist() for step in steps][2] == [False, True]
    assert walk.window(0, 3).discount == 0.0
    assert walk.window(1, 3).discount == 0.125
    end = steps[1]
    if mode == "same_step":  # what follows is the next episode; the end itself is in the info
        assert end.info["_final_obs"].tolist() == [True, False]
        assert end.info["final_obs"][0][0] == walk.window(2, 1).next_obs
        assert np.array_equal(end.next_obs[0], steps[2].obs[0])
        assert len(walk.numbers) == 8
    elif mode == "next_step":
        assert np.array_equal(steps[2].obs[0], end.next_obs[0])
        assert steps[2].reward[0] == 0.0
        assert np.array_equal(steps[3].obs[0], steps[2].next_obs[0])
        assert len(walk.numbers) == 6  # two resets
    else:
        assert end.next_obs[0][0] == walk.window(2, 1).next_obs
        assert steps[2].obs[0][0] != end.next_obs[0][0]
        assert len(walk.numbers) == 8


# What is no result


class Endless(plain.PlainMemory):
    """Never returns."""

    def sample(self, batch_size, beta):
        while True:
            pass


class Broken(plain.PlainMemory):
    """Raises."""

    def sample(self, batch_size, beta):
        raise KeyError("no such row")


def test_a_call_that_never_returns_is_a_failure():
    adapter = plain.plain("proportional", Endless)
    result = judge(BY_NAME["the-first-row-can-be-drawn"], adapter, patience=0.2)
    assert result.outcome == "fail"
    assert result.seen == "a call did not return within 0.2 seconds of processor time"


def test_an_exception_is_a_failure_with_its_text():
    result = judge(BY_NAME["the-first-row-can-be-drawn"], plain.plain("rank", Broken))
    assert (result.outcome, result.seen) == ("fail", "KeyError: 'no such row'")


def test_what_is_not_claimed_says_why():
    adapter = replace(
        plain.rank(), not_claimed={"n-step": "one step only", "signs-do-not-matter": "?"}
    )
    assert judge(BY_NAME["returns-add-up"], adapter).seen == "one step only"
    assert judge(BY_NAME["signs-do-not-matter"], adapter).outcome == "not claimed"
    seen = judge(BY_NAME["alpha-one-is-linear"], adapter).seen
    assert seen == "not a rule for rank memories"
    fixed = replace(plain.proportional(), eps=1e-8)
    assert "1e-08" in judge(BY_NAME["rows-of-priority-zero-are-never-drawn"], fixed).seen


# Reports


def test_a_report_survives_json_and_has_what_is_needed_to_see_it_again():
    names = ["a-late-error-is-no-exception", "late-errors-are-counted", "images-are-kept-once"]
    report = check(wrong.late_updates(), chosen_scenarios(names), f"{MEMORIES}.wrong:late_updates")
    assert Report.from_json(report.to_json()) == report
    assert report.counts() == {"pass": 1, "fail": 1, "not claimed": 1}
    (line,) = report.failures
    assert f'adapter_of("{MEMORIES}.wrong:late_updates")' in line.reproduction
    markdown = report.to_markdown()
    assert "1 pass, 1 fail, 1 not claimed" in markdown
    assert line.reproduction in markdown
    for text in ("{}", "[]", "nonsense", '{"lines": [{}]}'):
        with pytest.raises(ValueError, match="no report of per check"):
            Report.from_json(text)


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: path.stem)
def test_published_reports_are_of_these_scenarios(path):
    report = Report.read(path)
    known = {each.name: (each.group, each.rule) for each in SCENARIOS}
    assert {line.name: (line.group, line.rule) for line in report.lines} == known
    for line in report.failures:
        assert 0 < len(line.reproduction.splitlines()) <= 20
    if path.stem.startswith(("prioritized-replay", "plain")):
        assert not report.failures


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_published_failures_are_shown_with_the_library_alone(path):
    report = Report.read(path)
    failed = {line.name for line in report.failures}
    library = report.memory.partition(",")[0]
    programs = RESULTS / "reproductions"
    shared = tomllib.loads((programs / "shared.toml").read_text()).get(library, {})
    for name in failed:
        cause = shared.get(name, name)
        assert cause in failed
        program = programs / f"{library}-{cause}.py"
        source = program.read_text()
        assert len([line for line in source.splitlines() if line]) <= 20
        assert "prioritized_replay" not in source
        assert program.with_suffix(".txt").read_text()


def test_no_program_is_left_of_a_failure_that_is_gone():
    failed = {
        f"{report.memory.partition(',')[0]}-{line.name}"
        for report in map(Report.read, RESULTS.glob("*.json"))
        for line in report.failures
    }
    assert failed >= {path.stem for path in (RESULTS / "reproductions").glob("*.py")}


def test_published_reports_of_wrong_memories_show_their_faults():
    for factory, culprit in wrong.CAUGHT_BY.items():
        report = Report.read(RESULTS / "wrong" / f"{factory}.json")
        assert culprit in [line.name for line in report.failures]
        assert report.counts()["pass"] > report.counts()["fail"]


# The command


def test_the_command_prints_and_writes_and_says_by_its_code_that_something_fails(tmp_path, capsys):
    files = ["--json", str(tmp_path / "report.json"), "--markdown", str(tmp_path / "report.md")]
    memory = f"{MEMORIES}.wrong:late_updates"
    words = ["--only", "late-errors-are-counted", "nan-is-refused", "--seed", "3", *files]
    assert main(["check", memory, *words]) == 1
    said = capsys.readouterr().out
    assert "! late-errors-are-counted" in said
    assert re.search(r"\n1 pass, 1 fail, 0 not claimed, in \d+ seconds\n$", said)
    assert Report.read(tmp_path / "report.json").seed == 3
    assert "## late-errors-are-counted" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert main(["check", memory, "--only", "nan-is-refused"]) == 0


def test_the_command_lists_and_shows_without_running(capsys):
    assert main(["check", "nowhere:nothing", "--list", "--only", "dtypes"]) == 0
    said = capsys.readouterr().out
    assert "images-stay-uint8" in said
    assert said.endswith("\n12 scenarios\n")
    assert main(["check", "mine.py:adapter", "--show", "nan-is-refused"]) == 0
    program = capsys.readouterr().out
    compile(program, "program", "exec")
    assert 'nan_is_refused(Trials(adapter_of("mine.py:adapter"), seed=0))' in program


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mine"], "a memory is named MODULE:FACTORY or FILE.py:FACTORY, got 'mine'"),
        (["no_such:adapter"], "there is no module no_such"),
        (["nowhere/mine.py:adapter"], "there is no file nowhere/mine.py"),
        ([f"{MEMORIES}.ours:ranks"], f"{MEMORIES}.ours has no ranks; did you mean rank?"),
        (["math:tau"], "math has no tau; did you mean tan?"),
        (["os:getcwd"], "os:getcwd must return an Adapter, got str"),
        (["os:chdir"], "os:chdir raises TypeError: chdir() missing"),
        (["--only", "lew"], "there is no group or scenario 'lew'; did you mean law?"),
        (["--show", "law"], "show takes one scenario, got the group 'law'"),
        (["--seed", "x"], "--seed: must be a whole number, got 'x'"),
        (["--json", "nowhere/x.json"], "nowhere/x.json cannot be written: there is no folder"),
        (["--markdown", "."], ". cannot be written: it is a folder"),
    ],
    ids=str,
)
def test_what_is_wrong_with_the_words_is_one_line(words, message, capsys):
    assert main(["check", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"per check: {message}")
    assert said.count("\n") == 1


BAD_ADAPTERS = {
    "raise RuntimeError('no licence')": "cannot be imported: RuntimeError: no licence",
    "def adapter(): return replace(proportional(), make=lambda wanted: __import__('not_there'))": (
        "make cannot import what it needs: No module named 'not_there'"
    ),
    "import not_there": "cannot be imported: ModuleNotFoundError: No module named 'not_there'",
    "def adapter(): return replace(proportional(), not_claimed={'n-stop': ''})": (
        "not_claimed has 'n-stop', no group or scenario; did you mean n-step?"
    ),
    "def adapter(): return replace(proportional(), not_claimed=['law'])": (
        "not_claimed must be a mapping of groups or scenarios to the reasons, got list"
    ),
    "def adapter(): return replace(proportional(), law='rank-based')": (
        "law must be one of 'proportional', 'rank', 'uniform', got 'rank-based'"
    ),
    "def adapter(): return replace(proportional(), draw='strata')": (
        "draw must be one of 'stratified', 'independent', 'without_replacement', got 'strata'"
    ),
    "def adapter(): return replace(proportional(), make=lambda wanted: 3)": (
        "make must return a Memory, got int"
    ),
    "class Half(Memory):\n    def add(self, step): ...\n"
    "def adapter(): return replace(proportional(), make=lambda wanted: Half())": (
        "Can't instantiate abstract class Half"
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_ADAPTERS.items(), ids=range(len(BAD_ADAPTERS)))
def test_what_is_wrong_with_an_adapter_is_one_line(text, message, tmp_path, capsys):
    path = tmp_path / "bad_adapter.py"
    head = "from dataclasses import replace\n"
    head += f"from {MEMORIES}.plain import Memory, proportional\n"
    path.write_text(head + text + "\n")
    assert main(["check", f"{path}:adapter", "--only", "nan-is-refused"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("per check: ")
    assert message in said
    assert said.count("\n") == 1


def test_the_adapter_in_the_docs_is_short_and_keeps_what_it_claims(tmp_path):
    path = Path(__file__).parent / "deque_memory.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 45
    report = check(
        adapter_of(f"{path}:adapter"), chosen_scenarios(["law", "boundaries", "dtypes"]), ""
    )
    assert not report.failures
    assert report.counts()["pass"] > 20


def test_methods_that_an_adapter_leaves_out_are_not_claimed():
    memory = adapter_of(f"{MEMORIES}.plain:rank").make(Wanted())
    calls = [
        lambda: Memory.add_vector(memory, None),
        lambda: Memory.add_with_error(memory, None, 1.0),
        lambda: Memory.end_episode(memory),
        lambda: Memory.update(memory, [], np.zeros(0)),
        lambda: Memory.set_alpha(memory, 0.5),
        lambda: Memory.clear(memory),
        lambda: Memory.save(memory, Path()),
        lambda: Memory.load(memory, Path()),
    ]
    for call in calls:
        with pytest.raises(NotClaimed):
            call()
