"""A note of what is left to do: a change within a change never makes the larger one forgotten."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from tests import interrupts
from tests.interrupts import Interrupt
from tests.reference import FIELDS, transitions

import prioritized_replay as per
from prioritized_replay.note import Note
from prioritized_replay.sampling.proportional import ProportionalDistribution


def nested(note, done, names="abc"):
    """Begin one change within the other, and return what was noted before each."""
    return [note.begin(lambda name=name: done.append(name)) for name in names]


def test_what_is_noted_is_forgotten_when_the_change_is_complete():
    note, done = Note(), []
    outer = note.begin(lambda: done.append("a"))
    assert outer is None
    note.end(outer)
    assert note.work is None
    note.settle()
    assert done == []


@pytest.mark.parametrize("ended", range(4))
def test_what_the_outer_change_noted_outlives_the_inner_one(ended):
    note, done = Note(), []
    outers = nested(note, done)
    for outer in outers[::-1][:ended]:
        note.end(outer)

    note.settle()

    assert done == [*"abc"[: 3 - ended]][::-1]
    assert note.work is None


@pytest.mark.parametrize("stops", [[0], [1], [2], [0, 1, 2], [1, 1], [2, 0]])
def test_settling_that_is_ended_goes_on_where_it_was(stops):
    note, done, calls = Note(), [], []
    left = list(stops)

    def work(place, name):
        calls.append(name)
        if left and left[0] == place:
            left.pop(0)
            raise Interrupt
        done.append(name)

    for place, name in zip((2, 1, 0), "abc", strict=True):
        note.begin(lambda place=place, name=name: work(place, name))
    for _ in range(len(stops) + 1):
        if note.work is None:
            break
        try:
            note.settle()
        except Interrupt:
            assert note.work is not None
    note.settle()

    assert done == ["c", "b", "a"]
    assert len(calls) == 3 + len(stops) - len(left)
    assert note.work is None


def test_settling_can_be_ended_at_any_of_its_lines():
    def begun():
        note, done = Note(), []
        nested(note, done)
        return note, done

    note, done = begun()
    count = interrupts.count_events(note.settle)
    assert count > 10
    for at in range(count):
        note, done = begun()
        interrupts.run_until(note.settle, at)
        note.settle()
        # What was done may be done again, but nothing of a change that contains it came before.
        assert "".join(dict.fromkeys(done)) == "cba", at
        assert done == sorted(done, reverse=True), at
        assert note.work is None, at


def test_work_may_itself_contain_a_change():
    note, done = Note(), []

    def work():
        outer = note.begin(lambda: done.append("inner"))
        if not done:
            raise Interrupt
        note.end(outer)
        done.append("work")

    nested(note, done, "a")
    note.begin(work)
    with pytest.raises(Interrupt):
        note.settle()
    note.settle()
    assert done == ["inner", "work", "a"]


class Stopping(ProportionalDistribution):
    """It notes its own changes, and is stopped once, after one is complete."""

    stops = False

    def set(self, slots, priorities):
        outer = self._note.begin(partial(super().set, slots, priorities.copy()))
        super().set(slots, priorities)
        self._note.end(outer)
        self.stop()

    def clear(self):
        outer = self._note.begin(super().clear)
        super().clear()
        self._note.end(outer)
        self.stop()

    def stop(self):
        if self.stops:
            self.stops = False
            raise Interrupt

    # The sampler has to make do with `set`: these would be one compiled call each.
    tell = update = None


@dataclass(frozen=True)
class Specification:
    """A sampler of one's own, whose distribution makes use of the note."""

    alpha: float = 0.6
    eps: float = 0.01

    def distribution(self, capacity, counters, note):
        return Stopping(capacity, self.alpha, note, track_least=False, track_largest=False)


CHANGES = {
    "update": lambda replay: replay.update_priorities([3, 5, 0], [90.0, 0.5, 1.0]),
    "clear": lambda replay: replay.clear(),
    "extend": lambda replay: replay.extend(transitions(np.arange(4)), td_errors=np.full(4, 50.0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_distribution_that_notes_its_changes_leaves_those_of_the_buffer_noted(change):
    def built():
        replay = per.ReplayBuffer(8, FIELDS, sampler=Specification(), seed=1)
        replay.extend(transitions(np.arange(11)), td_errors=np.arange(11.0))
        replay.sample(4)
        assert replay._sampler._fused is None
        return replay

    after = built()
    before = interrupts.contents(after)
    CHANGES[change](after)
    replay = built()
    replay._sampler.distribution.stops = True
    with pytest.raises(Interrupt):
        CHANGES[change](replay)
    assert interrupts.contents(replay) == interrupts.contents(after) != before
    assert replay._note.work is None
