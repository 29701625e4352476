"""torch's DataLoader draws by priority, with workers and without; each batch has its weights."""

import os
import pickle
from typing import ClassVar

import numpy as np
import pytest
import torch
from tests import interrupts
from tests.reference import chi_square_excess
from torch.utils.data import DataLoader, Dataset, TensorDataset, get_worker_info

import prioritized_replay as per
from prioritized_replay.integrations import torch_data
from prioritized_replay.integrations.torch_data import (
    DatasetWithIds,
    PrioritizedBatchSampler,
    ReplayDataset,
)

FIELDS = {"obs": per.Field((3,)), "action": per.Field((), "int64"), "reward": per.Field()}
ROWS = 20
STARTS = [
    pytest.param("fork", marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")),
    "spawn",
]
BY_ERROR = per.Proportional(alpha=1.0, eps=0.0, draw="independent")


class Numbered(Dataset):
    """Rows that say where they lie, and which worker loaded them in which process."""

    def __init__(self, count=ROWS):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, position):
        if not 0 <= position < self.count:
            raise IndexError(position)
        worker = get_worker_info()
        return 10 * position, -1 if worker is None else worker.id, os.getpid()


def filled(sampler=BY_ERROR, count=ROWS, errors=None):
    index = per.PrioritizedIndex(count, sampler, seed=1)
    index.append(count, np.arange(1.0, count + 1) if errors is None else errors)
    return index


def loader_of(index, sampler, data=None, **options):
    if options.get("num_workers"):
        options.setdefault("timeout", 300)
    data = Numbered(index.capacity) if data is None else data
    return DataLoader(DatasetWithIds(data, index), batch_sampler=sampler, **options)


def recorded(index, monkeypatch):
    """Return a list that will hold every draw of an index."""
    draws, sample = [], index.sample

    def spy(*arguments, **options):
        draws.append(sample(*arguments, **options))
        return draws[-1]

    monkeypatch.setattr(index, "sample", spy)
    return draws


def excess(batches, law):
    """Return how far draws are from a law: beyond 1 once in 10,000 times although it is theirs."""
    return chi_square_excess(np.bincount(np.concatenate(batches), minlength=law.size), law)


# --- workers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.slow
def test_two_workers_load_what_is_drawn_by_the_law_of_the_moment(start, monkeypatch):
    rising = np.arange(1.0, ROWS + 1)
    index = filled()
    draws = recorded(index, monkeypatch)
    sampler = PrioritizedBatchSampler(index, 64, beta=per.linear(0.0, 1.0, 300), batches=300)
    loader = loader_of(
        index, sampler, num_workers=2, multiprocessing_context=start, persistent_workers=True
    )
    delivered, workers, changed = [], set(), None
    for k, (ids, (row, worker, process)) in enumerate(loader):
        assert (row == 10 * ids).all()
        workers |= set(zip(worker.tolist(), process.tolist(), strict=True))
        np.testing.assert_array_equal(sampler.weights(ids), draws[k].weights)
        np.testing.assert_array_equal(ids, draws[k].ids)
        delivered.append(ids.numpy())
        if k == 149:
            assert index.update_priorities(np.arange(ROWS), rising[::-1]) == ROWS
            changed = sampler.drawn
    assert len(delivered) == sampler.drawn == 300
    assert 150 < changed <= 150 + 2 * 2, "a few batches were drawn ahead"
    assert sorted(worker for worker, _ in workers) == [0, 1]
    assert os.getpid() not in dict(workers).values()
    law = rising / rising.sum()
    assert excess(delivered[:changed], law) < 1
    assert excess(delivered[changed:], law[::-1]) < 1
    # So many draws would show that one row comes a quarter too often.
    off = law * np.where(np.arange(ROWS) == ROWS - 1, 0.8, 1.0)
    assert excess(delivered[:changed], off / off.sum()) > 1

    # The same workers load the next epoch.
    index.update_priorities(np.arange(ROWS), np.eye(ROWS)[3])
    for ids, (row, worker, process) in loader:
        assert set(ids.tolist()) == {3}
        assert set(row.tolist()) == {30}
        assert set(zip(worker.tolist(), process.tolist(), strict=True)) < workers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.slow
def test_forked_workers_leave_the_index_alone():
    index, twin = filled(), filled()
    sampler = PrioritizedBatchSampler(index, 16, batches=6)
    loader = loader_of(index, sampler, num_workers=2, multiprocessing_context="fork")
    epochs = [[ids.tolist() for ids, _ in loader] for _ in range(2)]
    alone = PrioritizedBatchSampler(twin, 16, batches=6)
    assert epochs == [list(alone), list(alone)]
    assert index.stats() == twin.stats()


def test_workers_get_no_copy_of_the_index():
    index = filled()
    data = pickle.loads(pickle.dumps(DatasetWithIds(Numbered(), index)))
    assert data[7] == (7, (70, -1, os.getpid()))
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        pickle.dumps(index)


@pytest.mark.skipif("in_order" not in DataLoader.__init__.__annotations__, reason="an older torch")
@pytest.mark.slow
def test_batches_that_overtake_each_other_have_their_own_weights(monkeypatch):
    index = filled(sampler=per.Proportional(alpha=1.0, eps=0.0, weights="raw"))
    draws = recorded(index, monkeypatch)
    sampler = PrioritizedBatchSampler(index, 32, beta=1.0, batches=20)
    for ids, _ in loader_of(index, sampler, num_workers=2, in_order=False):
        weights = sampler.weights(ids)
        same = [d for d in draws if d.ids.tolist() == ids.tolist()]
        assert any(d.weights.tolist() == weights.tolist() for d in same)
        index.update_priorities(ids, 1.0 + torch.rand(len(ids)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.slow
def test_an_epoch_that_is_interrupted_leaves_everything_usable():
    index = filled()
    sampler = PrioritizedBatchSampler(index, 16, batches=50)
    loader = loader_of(index, sampler, num_workers=2, multiprocessing_context="fork")

    def epoch(last):
        for k, (ids, _) in enumerate(loader):
            if k == last:
                raise KeyboardInterrupt
            index.update_priorities(ids, sampler.weights(ids))

    with pytest.raises(KeyboardInterrupt):
        epoch(last=3)
    assert 4 <= sampler.drawn <= 8
    drawn = sampler.drawn
    epoch(last=None)
    assert sampler.drawn == drawn + 50
    assert index.stats()["stale_updates"] == 0


# --- weights --------------------------------------------------------------------------------------


def test_weights_are_aligned_with_ids_in_any_order(monkeypatch):
    index = filled()
    draws = recorded(index, monkeypatch)
    sampler = PrioritizedBatchSampler(index, 64, beta=0.7, batches=1)
    (ids,) = list(sampler)
    assert len(set(ids)) < len(ids), "some come twice"
    by_id = dict(zip(ids, draws[0].weights.tolist(), strict=True))
    for order in (ids, sorted(ids), sorted(ids)[::-1]):
        for given in (order, np.array(order), torch.tensor(order), torch.tensor(order).int()):
            weights = sampler.weights(given)
            assert weights.dtype == torch.float32
            assert weights.tolist() == [by_id[i] for i in order]


def test_batches_of_the_same_ids_get_their_weights_in_the_order_of_the_draws():
    index = filled(per.Proportional(alpha=1.0, eps=0.0, draw="without_replacement"), count=2)
    sampler = PrioritizedBatchSampler(index, 2, beta=1.0, batches=5)
    expected = []
    for k in range(3):  # three on their way, of the same two ids
        index.update_priorities([0, 1], [1.0, 2.0 + k])
        ids = next(iter(sampler))
        assert sorted(ids) == [0, 1]
        expected.append([1.0, 1.0 / (2.0 + k)])
    assert [sampler.weights([0, 1]).tolist() for _ in range(3)] == [
        pytest.approx(weights) for weights in expected
    ]
    assert sampler.weights([1, 0]).tolist() == pytest.approx(expected[-1][::-1]), "asked again"


def test_few_batches_are_remembered(monkeypatch):
    monkeypatch.setattr(torch_data, "REMEMBERED", 3)
    index = filled(count=1000)
    sampler = PrioritizedBatchSampler(index, 8, batches=5)
    batches = list(sampler)
    for ids in batches[2:]:
        assert sampler.weights(ids).shape == (8,)
    for ids in (*batches[:2], batches[4][:4], [999] * 8, []):
        with pytest.raises(ValueError, match="ids must be all ids of one of the last 3 batches"):
            sampler.weights(ids)
    with pytest.raises(ValueError, match=r"ids must be integers of shape \(B,\)"):
        sampler.weights([[1, 2]])


def test_weights_are_those_of_the_moment_of_the_draw():
    index = filled()
    sampler = PrioritizedBatchSampler(index, 16, beta=1.0)
    ids = next(iter(sampler))
    before = index.get(ids, beta=1.0).weights
    index.update_priorities(np.arange(ROWS), np.ones(ROWS))
    np.testing.assert_array_equal(sampler.weights(ids), before)


# --- epochs and beta ------------------------------------------------------------------------------


def test_an_epoch_has_as_many_batches_as_all_items_take():
    index = filled(count=10)
    sampler = PrioritizedBatchSampler(index, 4)
    assert len(sampler) == len(list(sampler)) == len(loader_of(index, sampler)) == 3
    grown = per.PrioritizedIndex(100)
    sampler = PrioritizedBatchSampler(grown, 10)
    for count in (1, 49):
        grown.append(count)
        assert len(list(sampler)) == len(sampler) == -(-len(grown) // 10)
    assert len(PrioritizedBatchSampler(grown, 4, batches=7)) == 7


def test_a_schedule_is_called_with_the_number_of_batches_drawn():
    asked = []

    def beta(step):
        asked.append(step)
        return 1.0 if step == 3 else 0.0

    index = filled()
    sampler = PrioritizedBatchSampler(index, 8, beta=beta, batches=2)
    weights = [sampler.weights(ids) for _ in range(2) for ids in sampler]
    assert asked == [0, 1, 2, 3]
    assert [bool((w == 1.0).all()) for w in weights] == [True, True, True, False]
    sampler.drawn = 1000
    next(iter(sampler))
    assert asked[-1] == 1000


def test_a_beta_out_of_range_is_refused_and_nothing_is_drawn():
    sampler = PrioritizedBatchSampler(filled(), 8, beta=lambda step: 1.5)
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\], got 1.5"):
        next(iter(sampler))
    assert sampler.drawn == 0


# --- rows and ids ---------------------------------------------------------------------------------


def test_ids_that_went_round_find_their_rows_and_late_errors_do_not():
    index = per.PrioritizedIndex(ROWS, BY_ERROR, seed=0)
    index.append(2 * ROWS + 5)
    sampler = PrioritizedBatchSampler(index, 8)
    for ids, (row, _, _) in loader_of(index, sampler):
        assert (ids >= ROWS + 5).all()
        assert (row == 10 * (ids % ROWS)).all()
        assert sampler.weights(ids).tolist() == [1.0] * len(ids)
    index.append(ROWS)
    assert index.update_priorities(ids, torch.full((8,), 100.0)) == 0


def test_a_data_set_that_loads_batches_is_asked_for_batches():
    class Whole(Numbered):
        asked: ClassVar = []

        def __getitems__(self, positions):
            self.asked.append(positions)
            return [10 * position for position in positions]

    index = per.PrioritizedIndex(ROWS, seed=0)
    index.append(2 * ROWS)
    sampler = PrioritizedBatchSampler(index, 8, batches=2)
    batches = list(loader_of(index, sampler, Whole()))
    assert len(batches) == len(Whole.asked) == 2
    for (ids, rows), positions in zip(batches, Whole.asked, strict=True):
        assert (ids % ROWS).tolist() == positions
        assert (rows == 10 * (ids % ROWS)).all()


def test_rows_without_end_are_not_iterated_over():
    data = DatasetWithIds(Numbered(), filled())
    assert len(data) == ROWS
    with pytest.raises(TypeError, match="not iterable"):
        iter(data)


@pytest.mark.slow
def test_ten_lines_train():
    torch.manual_seed(0)
    inputs = torch.randn(500, 3)
    targets = inputs @ torch.tensor([1.0, -2.0, 0.5])
    index = per.PrioritizedIndex(len(inputs), seed=0)
    index.append(len(inputs))
    sampler = PrioritizedBatchSampler(index, 32)
    data = TensorDataset(inputs, targets)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(6):
        for ids, (x, y) in loader_of(index, sampler, data):
            losses = (model(x).squeeze(1) - y) ** 2
            optimizer.zero_grad()
            (sampler.weights(ids) * losses).mean().backward()
            optimizer.step()
            assert index.update_priorities(ids, losses) == 32
    assert losses.max() < 1e-3


# --- batches of a replay buffer -------------------------------------------------------------------


def replay_of(count=50):
    replay = per.ReplayBuffer(100, FIELDS, seed=2)
    for k in range(count):
        replay.add(np.full(3, k), k, k, np.full(3, k + 1), k % 10 == 9)
    return replay


def test_a_loader_delivers_what_the_buffer_draws_as_tensors():
    replay, twin = replay_of(), replay_of()
    dataset = ReplayDataset(replay, 8, per.linear(0.0, 1.0, 5), batches=6)
    loader = DataLoader(dataset, batch_size=None)
    assert len(dataset) == len(loader) == 6
    for k, batch in enumerate(loader):
        drawn = twin.sample(8, min(k / 5, 1.0)).to_torch()
        assert isinstance(batch, per.Batch)
        assert list(batch) == list(drawn)
        for name in drawn:
            assert batch[name].dtype == drawn[name].dtype
            assert torch.equal(batch[name], drawn[name])
        for one in (replay, twin):
            assert one.update_priorities(batch.ids, batch.reward) == 8
    assert dataset.drawn == 6


def test_without_a_number_of_batches_there_is_no_end():
    replay = replay_of(count=1)
    dataset = ReplayDataset(replay, 4, columns=["obs", "ids"])
    loader = DataLoader(dataset, batch_size=None)
    drawn = set()
    for _, batch in zip(range(50), loader, strict=False):
        assert list(batch) == ["obs", "ids"]
        drawn |= set(batch.ids.tolist())
        replay.add(np.zeros(3), 0, 0.0, np.zeros(3), False)
    assert max(drawn) > 20, "new rows are drawn too"
    with pytest.raises(TypeError, match="without batches= has no length"):
        len(dataset)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.slow
def test_forked_workers_that_would_draw_from_copies_are_refused():
    loader = DataLoader(
        ReplayDataset(replay_of(), 4, batches=5),
        batch_size=None,
        num_workers=1,
        multiprocessing_context="fork",
        timeout=300,
    )
    with pytest.raises(RuntimeError, match="a ReplayDataset needs num_workers=0"):
        next(iter(loader))


def test_spawned_workers_that_would_draw_from_copies_are_refused():
    with pytest.raises(TypeError, match="a ReplayDataset needs num_workers=0"):
        pickle.dumps(ReplayDataset(replay_of(), 4))


# --- refusals -------------------------------------------------------------------------------------


REFUSALS = {
    "a buffer to a sampler": (
        lambda: PrioritizedBatchSampler(replay_of(), 8),
        r"index must be a PrioritizedIndex, got ReplayBuffer\(50 of 100",
    ),
    "no rows in a batch": (
        lambda: PrioritizedBatchSampler(filled(), 0),
        "batch_size must be an integer >= 1, got 0",
    ),
    "beta above 1": (
        lambda: PrioritizedBatchSampler(filled(), 8, beta=1.5),
        r"beta must be in \[0, 1\], got 1.5",
    ),
    "beta no number": (
        lambda: PrioritizedBatchSampler(filled(), 8, beta="x"),
        r"beta must be in \[0, 1\], got 'x'",
    ),
    "no batches in an epoch": (
        lambda: PrioritizedBatchSampler(filled(), 8, batches=0),
        "batches must be an integer >= 1, got 0",
    ),
    "an empty index": (
        lambda: list(PrioritizedBatchSampler(per.PrioritizedIndex(5), 8)),
        "sample needs an index with at least one item, got an empty one",
    ),
    "a shorter data set": (
        lambda: DatasetWithIds(Numbered(19), filled()),
        "dataset must have as many rows as the index has places, 20, got 19",
    ),
    "the index of another data set": (
        lambda: DatasetWithIds(Numbered(), per.PrioritizedIndex(50)),
        "dataset must have as many rows as the index has places, 50, got 20",
    ),
    "a data set without a length": (
        lambda: DatasetWithIds(ReplayDataset(replay_of(), 8), filled()),
        "dataset must have a length and rows by position, got a ReplayDataset",
    ),
    "a capacity for an index": (
        lambda: DatasetWithIds(Numbered(), 20),
        "index must be a PrioritizedIndex, got 20",
    ),
    "an index for a buffer": (
        lambda: ReplayDataset(filled(), 8),
        "replay must be a ReplayBuffer, got PrioritizedIndex",
    ),
    "no transitions in a batch": (
        lambda: ReplayDataset(replay_of(), 0),
        "batch_size must be an integer >= 1, got 0",
    ),
    "beta of a buffer above 1": (
        lambda: ReplayDataset(replay_of(), 8, 2.0),
        r"beta must be in \[0, 1\], got 2.0",
    ),
    "no batches of a buffer": (
        lambda: ReplayDataset(replay_of(), 8, batches=0),
        "batches must be an integer >= 1, got 0",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_one_clear_error(case):
    make, message = REFUSALS[case]
    with pytest.raises(ValueError, match=message):
        make()


# --- interrupts -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_draw_that_is_ended_anywhere_leaves_sampler_and_index_usable():
    def started():
        index = filled()
        sampler = PrioritizedBatchSampler(index, 8, beta=0.5, batches=3)
        return index, sampler, iter(sampler)

    _, sampler, batches = started()
    events = interrupts.count_events(lambda: next(batches))
    assert events > 10
    for at in range(events):
        index, sampler, batches = started()
        assert interrupts.run_until(lambda batches=batches: next(batches), at) == at
        assert sampler.drawn <= 1
        epoch = list(sampler)
        for ids in epoch:
            np.testing.assert_array_equal(sampler.weights(ids), index.get(ids, 0.5).weights)
        assert len(epoch) == 3
        assert index.update_priorities(epoch[0], np.ones(8)) == 8


def test_asking_for_weights_that_is_ended_anywhere_can_be_repeated():
    index = filled()
    sampler = PrioritizedBatchSampler(index, 8, beta=0.5, batches=1)
    (ids,) = list(sampler)
    expected = index.get(ids, 0.5).weights
    events = interrupts.count_events(lambda: sampler.weights(ids))
    assert events > 5
    for at in range(events):
        interrupts.run_until(lambda: sampler.weights(ids), at)
        np.testing.assert_array_equal(sampler.weights(ids), expected)
