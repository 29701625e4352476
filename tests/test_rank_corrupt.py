"""Whatever the memory of an order holds, calls end, stay inside it, and the check says what it is.

Nonsense may crash or hang a process, so it has one of its own.
"""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import prioritized_replay as per
from prioritized_replay.sampling import _rank_kernels as kernels
from prioritized_replay.sampling.rank_order import RankOrder

LONGEST = 300  # seconds; they take a few


def corrupted(*arguments: str, **environment: str) -> str:
    """Run the program that writes nonsense; a crash or a hang is a failure."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.corrupting", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 33, 5_000, 100_000])
def test_calls_end_whatever_one_number_is(size):
    assert int(corrupted(str(size)).split()[0]) > 500


@pytest.mark.slow
@pytest.mark.parametrize("size", [33, 300])
def test_no_place_is_outside_of_its_array(size):
    """As plain Python: NumPy sees what is outside, and negative places are refused."""
    assert int(corrupted(str(size), "plain", NUMBA_DISABLE_JIT="1").split()[0]) > 60


@pytest.mark.slow
def test_buffers_with_damaged_counters_and_trees_go_on():
    corrupted("buffers")


def damaged_buffer() -> per.ReplayBuffer:
    fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
    replay = per.ReplayBuffer(300, fields, sampler=per.RankBased(), seed=0)
    for serial in range(300):
        replay.add(serial, 0, 0.0, serial, False, td_error=serial)
    replay.sample(4)
    cells = replay._sampler.distribution.order.arrays.cells
    cells[cells[0, kernels.ROOT], kernels.ITEMS + np.arange(5)] = 2**31 - 1
    return replay


@pytest.mark.parametrize(
    "call",
    [
        lambda replay: replay.sample(32),
        lambda replay: replay.update_priorities(np.arange(32), np.ones(32)),
    ],
    ids=["sample", "update"],
)
def test_a_damaged_buffer_says_so_until_it_is_cleared(call):
    replay = damaged_buffer()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"node \d+ .* has a child that is no node"):
            call(replay)

    replay.clear()
    replay.add(1, 0, 0.0, 1, False)
    assert replay.sample(2).obs.tolist() == [1, 1]


def test_damage_that_is_mended_from_outside_is_still_remembered():
    order = RankOrder(300)
    order.set(np.arange(300), np.arange(300.0))
    cells = order.arrays.cells
    size = cells[1, kernels.SIZE]
    cells[1, kernels.SIZE] = 0
    message = re.compile(r"overwritten \(node \d+ .*call clear")
    with pytest.raises(RuntimeError, match=message):
        order.set(np.arange(300), np.ones(300))
    cells[1, kernels.SIZE] = size
    with pytest.raises(RuntimeError):
        order.highest()
