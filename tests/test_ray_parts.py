"""What a sharded replay is made of, without Ray: rows, ids, limits, insertion, faults."""

import asyncio
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import prioritized_replay as per

pytest.importorskip("ray")

from tests.sharding import FIELDS, Sharded, transitions

from prioritized_replay.integrations.ray.blueprint import Blueprint
from prioritized_replay.integrations.ray.calls import NOTHING
from prioritized_replay.integrations.ray.coordinator import Coordinator
from prioritized_replay.integrations.ray.inserting import IN_FLIGHT, Inserting, Piece
from prioritized_replay.integrations.ray.ledger import ENTRY, FORMAT, HEAD, LAST, Ledger
from prioritized_replay.integrations.ray.leveling import spread
from prioritized_replay.integrations.ray.limiter import Limiter
from prioritized_replay.integrations.ray.losses import Begun
from prioritized_replay.integrations.ray.numbering import GENERATION, Numbering
from prioritized_replay.integrations.ray.shard import Report, Shard
from prioritized_replay.integrations.ray.writer import Rows, Writer
from prioritized_replay.sampled import Totals

NESTED = {
    "obs": {"image": per.Field((2, 20, 20), "uint8"), "speed": per.Field((2,))},
    "action": per.Field((), "int64"),
    "reward": per.Field(),
    "noise": per.Field((), "float64"),
}


def steps_of(generator, streams, count, fields):
    """Steps of streams whose episodes end both ways; observations are numbered."""
    place = np.zeros(streams)
    for _ in range(count):
        ended = generator.random(streams)
        terminated, truncated = ended < 0.08, (ended >= 0.08) & (ended < 0.14)
        yield {
            "obs": observed(place, fields), "action": generator.integers(0, 4, streams),
            "reward": generator.random(streams), "next_obs": observed(place + 1, fields),
            "terminated": terminated, "truncated": truncated,
        }, generator.random(streams)  # fmt: skip
        place += 1 + (terminated | truncated)


def observed(place, fields):
    """Observations that say which they are."""
    numbers = np.arange(place.size) * 1_000 + place
    if fields is FIELDS:
        return numbers
    images = np.zeros((place.size, 2, 20, 20), "uint8")
    images[:, 0, 0, 0], images[:, 0, 0, 1] = numbers % 251, numbers // 251
    return {"image": images, "speed": np.stack([numbers, -numbers], 1)}


def table_of(batch, priorities):
    """All rows as sorted tuples of everything that is in them."""
    columns = {n: c for n, c in batch.items() if n not in ("ids", "weights", "probabilities")}
    flat = []
    for name in sorted(columns):
        parts = columns[name]
        parts = [parts[k] for k in sorted(parts)] if isinstance(parts, dict) else [parts]
        flat += [np.asarray(part).reshape(len(batch), -1) for part in parts]
    rows = np.concatenate([*(part.astype(np.float64) for part in flat), priorities[:, None]], 1)
    return rows[np.lexsort(rows.T)]


@pytest.mark.slow
@pytest.mark.parametrize("fields", [FIELDS, NESTED], ids=["plain", "nested images"])
@pytest.mark.parametrize(("n_step", "streams", "block"), [(1, 1, 7), (3, 1, 5), (3, 4, 16)])
def test_rows_of_shards_are_those_of_one_buffer_at_every_boundary(fields, n_step, streams, block):
    options = {"n_step": n_step, "gamma": 0.9, "num_envs": streams, "autoreset": "disabled"}
    # At alpha 1 and eps 0 a priority is the error itself.
    sampler = per.Proportional(alpha=1.0, eps=0.0)
    one = per.ReplayBuffer(2_000, fields, sampler=sampler, **options)
    writer = Writer(fields, **options, block=block)
    blueprint = Blueprint(3, 2_000, fields, {"sampler": sampler, "n_step": n_step, "gamma": 0.9})
    shards = [Shard(k, blueprint) for k in range(3)]
    turn = itertools.cycle(shards)
    generator = np.random.default_rng(5)
    for number, (step, errors) in enumerate(steps_of(generator, streams, 150, fields)):
        more = {"noise": generator.random(streams)} if fields is NESTED else {}
        one.add(**step, td_error=errors, **more)
        writer.add(
            step["obs"], step["action"], step["reward"], step["next_obs"], step["terminated"],
            step["truncated"], None, None, errors, more,
        )  # fmt: skip
        if number == 70:  # an interruption in the middle
            one.end_episode()
            writer.end_episode()
        if writer.full or (number == 149 and writer.waiting):
            next(turn).extend(*writer.take())
    assert writer.open_windows == one.stats()["open_windows"]
    wanted = one.get(np.arange(len(one)))
    parts, priorities = [], []
    for shard in shards:
        numbers = np.arange(len(shard._buffer))
        parts.append(shard._buffer.get(numbers))
        priorities.append(shard._buffer.priorities(numbers))
    assert sum(map(len, parts)) == len(one) > 140 * streams
    mine = np.concatenate([table_of(p, q) for p, q in zip(parts, priorities, strict=True)])
    mine = mine[np.lexsort(mine.T)]
    theirs = table_of(wanted, one.priorities(np.arange(len(one))))
    np.testing.assert_array_equal(mine, theirs)


def test_rows_without_an_error_enter_at_the_largest_priority_of_their_shard():
    sampler = per.Proportional(alpha=1.0, eps=0.0)
    writer, shard = Writer(FIELDS), Shard(0, Blueprint(1, 50, FIELDS, {"sampler": sampler}))
    for number, error in enumerate([None, 0.5, 3.0, None, None, 2.0]):
        writer.add(float(number), 0, 0.0, 0.0, False, False, None, None, error, {})
    shard.extend(*writer.take())
    priorities = shard._buffer.priorities(np.arange(6))
    np.testing.assert_array_equal(priorities, [1.0, 0.5, 3.0, 3.0, 3.0, 2.0])


@pytest.mark.parametrize("ends", [(True, False), (False, True), (False, False)])
def test_an_episode_longer_than_a_block_makes_the_rows_of_one_buffer(ends):
    generator = np.random.default_rng(2)
    episode = {"obs": np.arange(30.0), "action": np.arange(29), "reward": generator.random(29)}
    one = per.ReplayBuffer(100, FIELDS, n_step=3)
    one.add_episode(**episode, terminated=ends[0], truncated=ends[1])
    writer, taken = Writer(FIELDS, n_step=3, block=8), []
    for part in writer.parts_of_episode(
        episode["obs"], episode["action"], episode["reward"], *ends, None, None, {}
    ):
        writer.add_part(part)
        taken.append(writer.take())
    shard = Shard(0, Blueprint(1, 100, FIELDS, {"n_step": 3}))
    for rows in taken:
        shard.extend(*rows)
    ids = np.arange(len(one))
    assert len(shard._buffer) == len(one) == (29 if any(ends) else 27)
    for name in ("obs", "action", "reward", "discount", "next_obs", "terminated"):
        np.testing.assert_array_equal(shard._buffer.get(ids)[name], one.get(ids)[name])


def test_images_that_rows_share_are_kept_once_in_a_shard():
    fields = {**FIELDS, "obs": per.Field((64, 64), "uint8")}
    images = np.random.default_rng(0).integers(0, 255, (201, 64, 64)).astype("uint8")
    writer = Writer(fields, num_envs=2, autoreset="disabled", block=200)
    for step in range(100):
        pair = np.array([step, 100 + step])
        writer.add(
            images[pair], [0, 0], [0.0, 0.0], images[pair + 1], [False] * 2, False, None, None,
            None, {},
        )  # fmt: skip
    shard = Shard(0, Blueprint(1, 200, fields, {}))
    before = shard._buffer.nbytes
    shard.extend(*writer.take())
    grown = shard._buffer.nbytes - before
    assert grown < 1.7 * 200 * 64 * 64  # frames are allocated in chunks; twice without sharing


def test_what_does_not_fit_is_refused_before_anything_changes():
    writer = Writer(FIELDS)
    with pytest.raises(ValueError, match="action must"):
        writer.add(0.0, 0.5, 1.0, 1.0, False, False, None, None, None, {})
    with pytest.raises(ValueError, match="td_error must be finite, got nan at position 0"):
        writer.add(0.0, 0, 1.0, 1.0, False, False, None, None, np.nan, {})
    with pytest.raises(ValueError, match="td_errors must be finite, got inf at position 1"):
        writer.rows(transitions([1.0, 2.0]), [1.0, np.inf])
    with pytest.raises(ValueError, match=r"got unknown color") as refused:
        writer.add(0.0, 0, 1.0, 1.0, False, False, None, None, None, {"color": 1})
    assert "error_of_window" not in str(refused.value)
    with pytest.raises(ValueError, match="action must"):
        writer.parts_of_episode([0.0, 1.0, 2.0], [0, 0.5], [0.0, 0.0], True, False, None, None, {})
    assert writer.waiting == writer.open_windows == 0


def test_ids_name_one_row_for_ever_also_over_restarts():
    numbering = Numbering(2, 5)
    given = set()
    issued = 0
    for generation, restored in ((0, 0), (1, 30), (2, 0), (3, 70)):
        if generation:
            numbering.begin(restored, generation)
            issued = restored
        new = numbering.global_ids(np.arange(issued, issued + 100))
        assert numbering.global_id(issued) == new[0]
        assert not given & set(new.tolist())
        given |= set(new.tolist())
        np.testing.assert_array_equal(numbering.numbers(new), np.arange(issued, issued + 100))
        assert (new % 5 == 2).all()
        issued += 100
    again = Numbering.of(2, 5, numbering.segments)
    np.testing.assert_array_equal(
        again.global_ids(np.arange(170)), numbering.global_ids(np.arange(170))
    )
    lost = (np.arange(30, 100)) * 5 + 2  # of generation 0, after its checkpoint
    assert (numbering.numbers(lost) == -1).all()
    assert numbering.numbers(np.array([(GENERATION + 150) * 5 + 2])) == -1


def test_updates_of_lost_rows_are_skipped_and_counted():
    blueprint = Blueprint(2, 20, FIELDS, {"sampler": per.Proportional(alpha=1.0, eps=0.0)})
    old = Shard(1, blueprint)
    ids = old.extend(transitions(np.arange(5.0)), None).value
    new = Shard(1, blueprint, generation=1)
    more = new.extend(transitions(np.arange(2.0)), None).value
    both = np.concatenate([ids, more])
    assert new.update_priorities(both, np.full(7, 3.0)).value == 2
    assert new.stats().value[0]["stale_updates"] == 5
    assert new.unknown(more + 4).value == more[0] + 4


@pytest.mark.parametrize("seed", range(5))
def test_rows_level_the_shards(seed):
    generator = np.random.default_rng(seed)
    for _ in range(200):
        shards = int(generator.integers(1, 6))
        written = generator.integers(0, 50, shards)
        present = generator.random(shards) < 0.8
        present[generator.integers(shards)] = True
        rows, slack = int(generator.integers(1, 60)), int(generator.integers(0, 20))
        given = spread(written, present, rows, slack)
        assert given.sum() == rows
        assert (given >= 0).all()
        assert not given[~present].any()
        after = (written + given)[present]
        touched = given[present] > 0
        if np.count_nonzero(touched) > 1 or after.max() > written[present].max() + slack:
            # Levelled: nobody that got rows is more than one above anybody else.
            assert after[touched].max() <= after.min() + 1


def test_samples_per_insert_holds_within_a_batch_over_many_operations():
    limiter = Limiter(samples_per_insert=4.0, tolerance=64)
    generator = np.random.default_rng(0)
    moved = 0
    for number in range(100_000):
        moved += limiter.draw(32) if generator.random() < 0.5 else limiter.insert(1)
        assert 0.0 <= limiter.credit <= 64 + 4
        if number == 50_000:  # as a checkpoint does it
            again = Limiter(4.0, 64)
            again.restore(limiter.state())
            limiter = again
    assert moved > 10_000
    assert abs(limiter.drawn - 4.0 * limiter.inserted) <= 68


def test_limits_that_can_never_be_met_say_why():
    for wrong in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="samples_per_insert must be"):
            Limiter(wrong)
    why = Limiter(1.0, tolerance=10).impossible(32)
    assert why.startswith("tolerance must be >= the rows of one draw, 32, got 10")
    assert Limiter(1.0, tolerance=32).impossible(32) is None
    assert Limiter(1.0).impossible(10**9) is None


def test_draws_wait_for_inserts_and_inserts_for_draws():
    async def scene():
        coordinator = Coordinator(1, Limiter(2.0, tolerance=8))
        assert await coordinator.insert(1, 0.01) is None
        allowed, reason = await coordinator.draw(4, 1, 0.01)
        assert allowed == 0
        assert reason.startswith("a draw of 4 rows waits for 1 more to be inserted: with ")
        waiting = asyncio.create_task(coordinator.draw(4, 3, 5.0))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert await coordinator.insert(4, 0.01) is None
        assert await waiting == (2, "")  # of three: ten rows allow two
        assert await coordinator.insert(4, 0.01) is None
        reason = await coordinator.insert(1, 0.01)
        assert reason.startswith("an insert of 1 rows waits for 2 to be drawn: ")
        await coordinator.take_back(drawn=8)
        assert (await coordinator.state())["limiter"] == {"inserted": 9, "drawn": 0}

    asyncio.run(scene())


def columns(count, first=0.0):
    values = np.arange(first, first + count)
    rows = transitions(values)
    return Rows(rows, None)


def inserting(timeout=0.2, shards=3, capacity=300, ledgers=None):
    sharded = Sharded(
        per.Uniform(), shards=shards, capacity=capacity, timeout=timeout, ledgers=ledgers
    )
    return sharded, Inserting(
        sharded.calls, capacity, lambda rows, deadline: None, sharded.note_elsewhere
    )


def kept(sharded):
    values = [
        shard._buffer.get(np.arange(shard._buffer.ids_issued - len(shard._buffer),
                                    shard._buffer.ids_issued)).reward
        for shard in sharded.carrier.shards
    ]  # fmt: skip
    return np.sort(np.concatenate(values))


def test_a_capacity_full_of_rows_is_kept_by_all_shards_together():
    sharded, insert = inserting(shards=4, capacity=1003)
    ids = insert.insert(columns(1003), True, sharded.calls.deadline(), 1003)
    assert len(set(ids.tolist())) == 1003
    np.testing.assert_array_equal(kept(sharded), np.arange(1003.0))


def test_rows_go_to_another_shard_when_theirs_dies_with_them():
    sharded, insert = inserting()
    insert.insert(columns(30), True, sharded.calls.deadline(), 300)
    sharded.carrier.kill(1)
    ids = insert.insert(columns(30, 30.0), True, sharded.calls.deadline(), 300)
    assert (ids >= 0).all()
    assert not (ids % 3 == 1).any()
    alive = [0, 2]
    rows = [len(sharded.carrier.shards[k]._buffer) for k in alive]
    assert sum(rows) == 50  # 20 of the first and all of the second


def test_rows_of_a_late_shard_are_not_sent_twice():
    sharded, insert = inserting()
    sharded.carrier.state[1] = "late"
    ids = insert.insert(columns(30), True, sharded.calls.deadline(), 300)
    assert np.count_nonzero(ids < 0) == 10
    assert insert.on_the_way == 10
    with pytest.raises(TimeoutError, match=r"shard 1 has not answered for 0\.2 s, and 10 rows"):
        insert.land(sharded.calls.deadline())
    for piece in insert._flying:
        piece.call.state = "done"
    sharded.carrier.state[1] = "done"
    insert.land(sharded.calls.deadline())
    assert insert.on_the_way == 0
    np.testing.assert_array_equal(kept(sharded), np.arange(30.0))


def test_what_is_not_waited_for_is_bounded_and_lands():
    sharded, insert = inserting(capacity=3000)
    for number in range(20):
        none = insert.insert(columns(10, 10.0 * number), False, sharded.calls.deadline(), 300)
        assert none.size == 0
        assert len(insert._flying) <= IN_FLIGHT
    insert.land(sharded.calls.deadline())
    np.testing.assert_array_equal(kept(sharded), np.arange(200.0))


def test_no_shard_that_answers_is_an_error_in_time():
    sharded, insert = inserting()
    for shard in range(3):
        sharded.carrier.kill(shard)
    with pytest.raises(TimeoutError, match=r"none of 3 shards has answered for 0\.2 s"):
        insert.insert(columns(3), True, sharded.calls.deadline(), 300)


@pytest.mark.parametrize("restored", [0, 6])
def test_lost_rows_are_counted_once_and_exactly(restored):
    async def count(reports):
        coordinator = Coordinator(1)
        await coordinator.began(0, 0, Begun(0, [], 0))
        await coordinator.began(0, 1, Begun(restored, [(0, restored)], GENERATION))
        for issued, size in reports:
            await coordinator.lost(0, 0, issued, size)
        return await coordinator.rows_lost()

    assert asyncio.run(count([(10, 10)])) == 10 - restored
    assert asyncio.run(count([(10, 10), (12, 12), (11, 11)])) == 12 - restored
    assert asyncio.run(count([(100, 20)])) == 20  # of a full ring, what was in it


def test_rows_of_which_only_a_killed_process_knew_are_counted_when_they_are_lost(tmp_path):
    sharded, insert = inserting(ledgers=tmp_path)
    insert.insert(columns(30), True, sharded.calls.deadline(), 300)
    sharded.calls.reports = [NOTHING] * 3  # of the process that did that, nothing is left
    sharded.carrier.kill(1)
    sharded.carrier.restart(1)
    assert sharded.rows_lost() == 10
    assert sharded.lost == []
    sharded.calls.ask_all("report", sharded.calls.deadline())
    sharded.note_lost(1, Report(0, 7, Totals(7, 7, 7.0, 1.0), 0))  # somebody who knew less
    assert sharded.rows_lost() == 10


@pytest.mark.parametrize("deaths", [1, 2])
def test_rows_count_as_lost_until_another_shard_has_all_of_them(tmp_path, deaths):
    sharded, insert = inserting(ledgers=tmp_path)
    insert.insert(columns(30), True, sharded.calls.deadline(), 300)
    for shard in range(deaths):
        sharded.carrier.kill(shard, with_next=True)
    for shard in range(deaths, 3):
        sharded.carrier.kill(shard)
    with pytest.raises(TimeoutError, match="none of 3 shards"):
        insert.insert(columns(9, 30.0), True, sharded.calls.deadline(), 300, keep=True)
    for shard in range(deaths):
        sharded.carrier.restart(shard)
    # The sender may be killed now: what shards had is gone.
    assert sharded.rows_lost() == 10 * deaths + 3 * deaths
    sharded.calls._tried = [0.0] * 3
    insert.land(sharded.calls.deadline())
    assert sharded.rows_lost() == 10 * deaths
    assert set(kept(sharded).tolist()) >= set(range(30, 39))


def test_a_piece_that_was_sent_again_has_arrived_when_all_its_parts_have():
    sharded, insert = inserting()
    told = []
    insert._elsewhere = told.append
    insert._flying.append(Piece(columns(9), 0, None, 77, None, np.zeros(9, np.int64)))
    insert.written[0] = 9
    sharded.carrier.state[2] = "late"
    with pytest.raises(TimeoutError, match="and 3 rows are on their way"):
        insert.land(sharded.calls.deadline())
    assert told == []
    insert._flying[0].call.state = sharded.carrier.state[2] = "done"
    insert.land(sharded.calls.deadline())
    assert told == [77]
    np.testing.assert_array_equal(kept(sharded), np.arange(9.0))


def test_an_export_that_is_moved_away_leaves_the_usual_checkpoint(tmp_path):
    one = OneShard(tmp_path, 200)
    one.add(50)
    one.save()
    one.announce()
    usual = one.saved
    one.save()
    asyncio.run(one.coordinator.saved(str(one.saved), [0], usual=False))
    assert one.ask("begin", 0)[1] == str(one.saved / "shard-0")
    one.saved.rename(tmp_path / "elsewhere")
    assert one.ask("begin", 0)[1] == str(usual / "shard-0")


def test_a_ledger_that_cannot_be_written_stops_no_shard(tmp_path):
    sharded, insert = inserting(ledgers=tmp_path / "missing")
    insert.insert(columns(30), True, sharded.calls.deadline(), 300)
    sharded.carrier.kill(1)
    sharded.carrier.restart(1)
    sharded.calls.ask_all("report", sharded.calls.deadline())
    assert sharded.rows_lost() == 10  # as others knew of them


@pytest.mark.parametrize("ended", [KeyboardInterrupt, RuntimeError])
def test_rows_are_kept_where_the_wait_for_a_shard_is_ended(monkeypatch, tmp_path, ended):
    sharded, insert = inserting(ledgers=tmp_path)
    for shard in range(3):
        sharded.carrier.kill(shard, with_next=True)

    def interrupted(deadline):
        raise ended

    monkeypatch.setattr(sharded.calls, "require_some", lambda deadline: np.ones(3, np.bool_))
    insert.insert(columns(30), False, sharded.calls.deadline(), 300)
    insert.push(sharded.calls.deadline())  # all three take their rows, and die
    monkeypatch.setattr(sharded.calls, "require_some", interrupted)
    with pytest.raises(ended):
        insert.land(sharded.calls.deadline())
    monkeypatch.undo()
    assert insert.on_the_way == 30
    for shard in range(3):
        sharded.carrier.restart(shard)
    assert sharded.rows_lost() == 30  # until they are sent again
    sharded.calls._tried = [0.0] * 3
    insert.land(sharded.calls.deadline())
    np.testing.assert_array_equal(kept(sharded), np.arange(30.0))
    assert sharded.rows_lost() == 0


@pytest.mark.parametrize("capacity", [3, 30, 300])
def test_rows_that_died_unanswered_and_went_elsewhere_are_not_lost(tmp_path, capacity):
    sharded, insert = inserting(ledgers=tmp_path, capacity=capacity)
    first = min(30, capacity)
    insert.insert(columns(first), True, sharded.calls.deadline(), capacity)
    there = len(sharded.carrier.shards[1]._buffer)
    assert there == first // 3
    sharded.carrier.kill(1, with_next=True)
    for number in range(3):  # one of these goes to the shard that dies
        insert.insert(columns(1, 100.0 + number), True, sharded.calls.deadline(), capacity)
    assert sharded.carrier.state[1] == "gone"
    assert len(sharded.carrier.shards[1]._buffer) == min(there + 1, capacity // 3)
    sharded.carrier.restart(1)
    # Of a full ring, the row that went elsewhere had taken the place of another.
    assert sharded.rows_lost() == min(there, capacity // 3 - 1)
    found = kept(sharded)
    for number in range(3 if capacity > 30 else 1):
        assert np.count_nonzero(found == 102.0 - number) == 1


class OneShard:
    """A shard that dies and comes back, and a twin that says by its rows themselves what is lost.

    A row's tag is its reward. Its capacity is small, so that old rows make room for new ones.
    """

    def __init__(self, folder, capacity):
        self.folder, self.blueprint = Path(folder), Blueprint(1, capacity, FIELDS, {
            "sampler": per.Uniform()})  # fmt: skip
        self.coordinator, self.tag, self.lost, self.sets = Coordinator(1), 0, set(), 0
        self.elsewhere, self.tickets, self.saved = set(), itertools.count(1), None
        self.begin()

    def ask(self, method, *values):
        return asyncio.run(getattr(self.coordinator, method)(*values))

    def rows(self):
        buffer = self.shard._buffer
        ids = np.arange(buffer.ids_issued - len(buffer), buffer.ids_issued)
        return set(buffer.get(ids).reward.tolist()) if ids.size else set()

    def begin(self, *, keeps_ledger=True):
        """Do what cluster.py does."""
        generation, checkpoint, _ = self.ask("begin", 0)
        self.shard = Shard(0, self.blueprint, generation, checkpoint)
        left = Ledger.read(self.folder / "ledger")
        self.ask("began", 0, generation, self.shard.begun, left)
        if keeps_ledger:
            self.shard.keep_ledger(self.folder / "ledger")

    def add(self, rows, sent_again=False):
        tags = np.arange(self.tag, self.tag + rows, dtype=float)
        self.tag += rows
        ticket = next(self.tickets)
        self.shard.extend(transitions(tags), None, ticket)
        if sent_again:  # it took the rows, and died before the sender had its answer
            self.elsewhere |= set(tags.tolist())
            self.ask("elsewhere", ticket)
            self.die()

    def save(self):
        """Save the shard: the checkpoint is in force when it is announced."""
        self.saved = self.folder / f"set-{self.sets}"
        self.sets += 1
        self.generation = self.shard.save(str(self.saved / "shard-0")).value

    def announce(self):
        if self.saved is not None:
            return self.ask("saved", str(self.saved), [self.generation])
        return None

    def clear(self):
        self.shard.clear()

    def die(self, keeps_ledger=True):
        before = self.rows()
        self.begin(keeps_ledger=keeps_ledger)
        self.lost = (self.lost | before) - self.rows()

    def die_twice(self):
        self.die(keeps_ledger=False)
        self.die()

    def load(self):
        """Load the last checkpoint in a new replay, as :meth:`.ShardedReplay.load` does."""
        state = self.state
        self.coordinator = Coordinator(
            1, None, state["generations"], str(self.saved), True, state["rows_lost"], state["lost"]
        )
        (self.folder / "ledger").unlink()
        lost = self.lost_then
        self.begin()
        self.lost = lost - self.rows()

    def finish(self):
        """Save as a whole, with what a checkpoint says of losses."""
        self.announce()
        self.state, self.lost_then = self.ask("state"), set(self.lost) - self.elsewhere

    def check(self):
        assert self.ask("rows_lost") == len(self.lost - self.elsewhere)


OPERATIONS = {
    "add": lambda one, rows: one.add(rows), "take": lambda one, rows: one.add(rows, True),
    "save": lambda one, rows: one.save(), "announce": lambda one, rows: one.announce(),
    "clear": lambda one, rows: one.clear(), "die": lambda one, rows: one.die(),
    "die twice": lambda one, rows: one.die_twice(),
}  # fmt: skip


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(1, 5)), max_size=25),
    st.integers(0, 4),
)
def test_lost_rows_are_those_that_were_there_and_are_nowhere(capacity, operations, more):
    """Also where a checkpoint is complete only when its shard has died, or brings rows back."""
    with tempfile.TemporaryDirectory() as folder:
        one = OneShard(folder, capacity)
        for name, rows in operations:
            OPERATIONS[name](one, rows)
            one.check()
        one.save()
        one.add(more)
        one.die()  # between its part of a save and the end of that save
        one.finish()
        one.load()
        one.check()
        one.add(3)
        one.die()
        one.check()
        one.add(3)
        one.save()
        one.finish()
        one.load()
        one.check()


def test_rows_of_an_older_generation_that_come_back_are_not_lost(tmp_path):
    one = OneShard(tmp_path, 200)
    one.add(50)
    one.save()
    one.announce()
    one.add(50)
    one.save()
    one.die()  # before the other shards have saved
    assert one.ask("rows_lost") == 50
    one.add(20)
    assert not one.announce()  # so it is saved again
    one.die()
    assert one.ask("rows_lost") == 20
    one.save()
    assert one.announce()


def test_a_shard_that_dies_while_it_is_loaded_is_loaded_again(tmp_path):
    one = OneShard(tmp_path, 200)
    one.add(50)
    one.save()
    for protected in (False, True):
        coordinator = Coordinator(1, None, [4], str(one.saved), protected)
        first = asyncio.run(coordinator.begin(0))
        assert first == (4, str(one.saved / "shard-0"), True)
        assert asyncio.run(coordinator.begin(0)) == first
        asyncio.run(coordinator.began(0, 4, Begun(50, [(0, 50)], 50)))
        again = (5, str(one.saved / "shard-0") if protected else None, False)
        assert asyncio.run(coordinator.begin(0)) == again
        rows = 50 if protected else 0
        asyncio.run(coordinator.began(0, 5, Begun(rows, [(0, rows)], 5 * GENERATION)))
        assert asyncio.run(coordinator.rows_lost()) == 50 - rows  # it died before it served


class Watched:
    """The numbers of a ledger; after each that is set, somebody looks."""

    def __init__(self, numbers, look):
        self.numbers, self.look, self.seen = numbers, look, []

    def __getitem__(self, at):
        return self.numbers[at]

    def __setitem__(self, at, values):
        places = np.arange(self.numbers.size)[at]
        for place, value in zip(np.atleast_1d(places), np.atleast_1d(values), strict=True):
            self.numbers[place] = value
            self.seen.append(self.look())


def test_a_ledger_remembers_the_last_blocks_and_no_half_of_an_entry(tmp_path):
    ledger = Ledger(tmp_path / "ledger", 0, 0, 0)
    for ticket in range(1, LAST + 100):
        ledger.note(ticket, ticket - 1, ticket, ticket)
    left = Ledger.read(tmp_path / "ledger")
    assert (left.issued, left.size) == (LAST + 99, LAST + 99)
    np.testing.assert_array_equal(left.blocks[:, 0], np.arange(101, LAST + 100))
    ledger._numbers = Watched(ledger._numbers, lambda: Ledger.read(tmp_path / "ledger"))
    ledger.note(10**6, LAST + 99, LAST + 104, LAST + 104)
    *before, after = ledger._numbers.seen  # what is left by a kill after each step
    assert before
    for half in before:
        assert half[:3] == left[:3]
        np.testing.assert_array_equal(half.blocks, left.blocks)
    assert after[:3] == (0, LAST + 104, LAST + 104)
    assert after.blocks[-1].tolist() == [10**6, LAST + 99, LAST + 104]
    ledger.remove()
    assert Ledger.read(tmp_path / "ledger") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("head", [(FORMAT + 1, 0, 1), (FORMAT, 0, 0)])
@pytest.mark.parametrize("size", [HEAD + LAST * ENTRY, HEAD + LAST * ENTRY - 1, HEAD])
def test_a_file_that_is_no_ledger_is_none(tmp_path, head, size):
    """Of another version, or cut off before it had an entry, or afterwards."""
    numbers = np.zeros(size, np.int64)
    numbers[:HEAD] = head
    numbers.tofile(tmp_path / "ledger")
    assert Ledger.read(tmp_path / "ledger") is None
    numbers[:HEAD] = FORMAT, 0, 1
    numbers.tofile(tmp_path / "ledger")
    assert (Ledger.read(tmp_path / "ledger") is None) == (size < HEAD + LAST * ENTRY)


def test_a_shard_that_comes_back_reports_its_loss_and_is_used_again():
    sharded, insert = inserting()
    insert.insert(columns(30), True, sharded.calls.deadline(), 300)
    sharded.carrier.kill(1)
    assert sharded.sample(12).ids.size == 12
    sharded.carrier.restart(1)
    sharded.calls._tried = [0.0] * 3
    assert sharded.calls.present().all() or sharded.calls.present().all()
    assert [(shard, report.totals.size) for shard, report in sharded.lost] == [(1, 10)]
    ids = insert.insert(columns(30, 30.0), True, sharded.calls.deadline(), 300)
    assert (ids[ids % 3 == 1] // 3 >= GENERATION).all()
    assert len(sharded.carrier.shards[1]._buffer) == 10
