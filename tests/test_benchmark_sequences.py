"""The benchmark of sequences: what it measures, what it checks, how it is judged."""

import numpy as np
import pytest

from benchmarks import report, sequence_measures, targets
from benchmarks.options import BenchConfig
from benchmarks.race import benchmark
from benchmarks.results import Footprint, Ratio, Results, Timing
from benchmarks.sequence_memories import OursSequences, OursUniformSequences, later, played
from prioritized_replay.conformance.checks import Invalid

WAYS = sequence_measures


def test_steps_that_are_played_follow_each_other():
    parts = list(played(250_000, seed=0))

    assert [len(errors) for _, errors in parts] == [100_000, 100_000, 50_000]
    assert [len(steps["obs"]) for steps, _ in parts] == [100_001, 100_001, 50_001]
    last = parts[-1][0]
    assert last["action"][-1] == 249_999
    assert last["obs"][[0, -1], 0].tolist() == [200_000, 250_000]


def test_single_steps_go_on():
    one, other = later(500, 2)

    assert (one["action"].item(), other["action"].item()) == (500, 501)
    assert other["obs"][:, 0].tolist() == [501, 502]


@pytest.mark.parametrize("kind", [OursSequences, OursUniformSequences])
def test_ours_are_filled_as_told(kind):
    memory = kind(2_500, 8)
    memory.fill(0)

    sequence_measures.check_contents(memory)
    assert len(memory.replay) == 2 * (1_000 - 7) + 500 - 7, "each step begins one that is there"


class Broken(OursSequences):
    """One of whose drawn columns something is changed."""

    def __init__(self, change):
        super().__init__(1_000, 4)
        self.fill(0)
        self._change = change

    def seen(self, drawn):
        obs, actions = super().seen(drawn)
        return self._change(obs.copy(), actions.copy())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda obs, actions: (obs, actions[:, 1:]), r"\[B, T\]"),
        (lambda obs, actions: (obs, actions[:, ::-1]), "follow each other"),
        (lambda obs, actions: (obs, actions + 1_000 - actions[:, :1] - 2), "one episode"),
        (lambda obs, actions: (obs + 1, actions), "of the same steps"),
    ],
)
def test_wrong_sequences_are_noticed(change, message):
    with pytest.raises(Invalid, match=message):
        sequence_measures.check_contents(Broken(change))


def test_updates_that_do_not_arrive_are_noticed(monkeypatch):
    memory = OursSequences(2_000, 4)
    memory.fill(0)

    monkeypatch.setattr(memory, "update", lambda drawn, errors: None)
    with pytest.raises(Invalid, match="huge error"):
        sequence_measures.check_update(memory)
    monkeypatch.undo()
    assert "100%" in sequence_measures.check_update(memory)


def test_a_row_of_the_buffers_is_as_wide_as_its_name_says():
    for name, (shape, dtype) in WAYS.WIDTHS.items():
        observations = 2 if "in rows" in name else 1
        kib = observations * np.prod(shape) * np.dtype(dtype).itemsize / 1024
        assert name.startswith(f"{kib:g} KiB")


def test_sizes_go_up_to_the_largest_that_is_asked_for():
    def sizes(**options):
        return BenchConfig(**options).sequence_sizes

    assert sizes() == (1_000_000, 10_000_000, 100_000_000)
    assert sizes(sequence_steps=20_000_000) == (1_000_000, 10_000_000, 20_000_000)
    assert sizes(sequence_steps=5_000) == (5_000,)
    assert sizes(quick=True) == (1_000_000,)
    with pytest.raises(ValueError, match="sequence_steps must be >= 1000, got 10"):
        BenchConfig(sequence_steps=10)


@pytest.mark.slow
def test_what_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.options.SEQUENCE_SIZES", (1_000,))
    monkeypatch.setattr(sequence_measures, "WIDTHS", {"1 KiB images": ((32, 32), "uint8")})
    config = BenchConfig(
        parts=("sequences",), peers=("cpprb",), sizes=(1_500,), sequence_steps=2_000, rounds=2,
        seconds=0.05, output=tmp_path,
    )  # fmt: skip

    benchmark(config)

    results = Results.read(tmp_path / "benchmarks.json")
    assert "--sequence-steps 2000" in results.made["command"]
    ours, uniform = OursSequences.name, OursUniformSequences.name
    drawn = [
        (measure, size, name)
        for name in (ours, uniform)
        for size in (1_000, 2_000)
        for measure in (WAYS.DRAW, WAYS.ADD_AND_DRAW)
    ]
    images = WAYS.copied("1 KiB images")
    assert [(row.measure, row.size, row.contender) for row in results.timings] == [
        *drawn, (WAYS.UPDATE, 1_500, ours), (WAYS.CYCLE, 1_500, ours),
        (images, 1_500, ours), (images, 1_500, WAYS.COPY),
    ]  # fmt: skip
    grown = [row for row in results.ratios if row.measure == WAYS.GROWTH]
    assert [(row.size, row.contender, row.against) for row in grown] == [
        (2_000, WAYS.at(1_000), ours)
    ]
    assert [row.what for row in results.absent if "sequences" in row.what] == ["cpprb, sequences"]
    assert [line[0] for line in report.sequence_bytes(results)[1:]] == list(WAYS.KEPT)
    assert not report.memory(results)[1:], "they have a table of their own"
    assert not report.weak(results)[1:], "a bare copy is no peer"
    assert len(report.TABLES["sequences"](results)[1:]) == 7
    assert len(report.TABLES["uniform sequences"](results)[1:]) == 4


def test_targets_are_judged_by_what_was_measured():
    name, image = OursSequences.name, "4 KiB images"
    results = Results(
        timings=[Timing(WAYS.UPDATE, 1_000_000, 16, name, 310e-6, 3e-4, 4e-4, 10, 64)],
        ratios=[
            Ratio(WAYS.GROWTH, 10_000_000, 256, WAYS.at(1_000_000), name, 1.2, 1.1, 1.3),
            Ratio(WAYS.GROWTH, 100_000_000, 256, WAYS.at(1_000_000), name, 1.9, 1.8, 2.1),
            Ratio(WAYS.copied(image), 20_000, 16, WAYS.COPY, name, 1.4, 1.2, 1.6),
            Ratio(f"{WAYS.BYTES}, small rows", 9, 1, WAYS.TRANSITIONS, WAYS.OF_SEQUENCES, 2, 2, 2),
        ],
        footprints=[
            Footprint(f"{WAYS.TRANSITIONS}, small rows", 9, 70.0, None),
            Footprint(f"{WAYS.OF_SEQUENCES}, small rows", 9, 140.0, None),
        ],
    )

    judged = targets.judge(results, targets.SEQUENCE_TARGETS)

    assert [(v.figure.value, v.met) for v in judged if v.figure] == [
        (pytest.approx(310), False), (1.9, True), (1.4, True), (2, False),
    ]  # fmt: skip
    assert report.sequence_bytes(results)[1] == ["small rows", "9", "70.0", "140.0", "2.000"]
