"""Memory of samplers with nonsense written over it, number by number: run as a program.

``python -m tests.corrupting WHAT``. It ends with status 0 if each call returned or raised, changed
nothing beside its arrays, and the check named what was wrong. A crash or a hang is for the caller
to see.
"""

import sys
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from tests.watched_order import WatchedOrder

import prioritized_replay as per
from prioritized_replay.sampling import _rank_kernels as kernels
from prioritized_replay.sampling.power_law import PowerLaw

LAW = PowerLaw(0.7)
GUARD = 4096  # bytes before and after an array that nobody may write to
STATE = ("ROOT", "ROWS", "FREE", "FRESH", "WIDTH", "DAMAGED")
LINKS = ("SIZE", "PARENT", "PLACE", "LEVEL")
ERRORS = (RuntimeError, ValueError, AssertionError, OverflowError)


class Strict(np.ndarray):
    """An array that refuses negative numbers of places, too."""

    def __getitem__(self, key):
        require_inside(key)
        return super().__getitem__(key)

    def __setitem__(self, key, value):
        require_inside(key)
        super().__setitem__(key, value)


def require_inside(key) -> None:
    """Raise IndexError for what would wrap around."""
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, (int, np.integer)) and part < 0:
            raise IndexError(part)


class Guarded:
    """A healthy order between bytes that must not change; nonsense can be undone."""

    def __init__(self, size: int, plain: bool) -> None:
        self.order = WatchedOrder(size)
        rng = np.random.default_rng(size)
        self.order.set(np.arange(size), rng.exponential(size=size))
        for _ in range(5):
            some = rng.permutation(size)[: size // 2 + 1]
            self.order.set(some, np.minimum(rng.exponential(size=some.size), 2.0))
        self.order.check()
        tree = self.order.arrays
        self.around = []
        keys, leaf_of = self.guarded(tree.keys), self.guarded(tree.leaf_of)
        cells = keys.view(np.int32)
        if plain:
            keys, cells, leaf_of = (array.view(Strict) for array in (keys, cells, leaf_of))
        self.order.arrays = kernels.Tree(keys, cells, leaf_of)
        self.healthy = keys.copy(), leaf_of.copy()
        self.cells, self.leaf_of = np.asarray(cells), np.asarray(leaf_of)

    def guarded(self, array: np.ndarray) -> np.ndarray:
        around = np.full(array.nbytes + 2 * GUARD + 64, 0xA5, np.uint8)
        start = GUARD + -(around.ctypes.data + GUARD) % 64
        inside = around[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        inside[...] = array
        self.around += [around[:start], around[start + array.nbytes :]]
        return inside

    def restore(self) -> None:
        keys, leaf_of = self.healthy
        self.order.arrays.keys[...] = keys
        self.leaf_of[...] = leaf_of

    def require_guards(self) -> None:
        for part in self.around:
            assert (part == 0xA5).all(), "memory beside the arrays was written to"


def nodes_of(cells: np.ndarray) -> list[int]:
    """Return nodes of each level: the first, one in the middle and the last."""
    level, found = [int(cells[0, kernels.ROOT])], []
    while True:
        found += {level[0], level[len(level) // 2], level[-1]}
        if cells[level[0], kernels.LEVEL] == 0:
            return found
        level = [int(n) for k in level for n in cells[k, 128 : 128 + cells[k, kernels.SIZE]]]


def nonsense(guarded: Guarded) -> Iterator[tuple[str, bool, Callable[[], None]]]:
    """Yield what to overwrite, whether the check must see it, and what overwrites it."""
    cells = guarded.cells
    nodes = nodes_of(cells)
    last = len(cells)
    places = [(0, getattr(kernels, name), name, True) for name in STATE]
    for node in nodes:
        size, inner = int(cells[node, kernels.SIZE]), cells[node, kernels.LEVEL] > 0
        places += [(node, getattr(kernels, name), name, True) for name in LINKS]
        places += [(node, kernels.ITEMS + j, f"ITEMS {j}", True) for j in {0, size // 2, size - 1}]
        if inner:
            places += [(node, kernels.BEFORE + j, f"BEFORE {j}", True) for j in {0, size - 1}]
            places += [(node, kernels.BOUND_SLOTS + size - 1, "BOUND_SLOTS", False)]
    for row, column, name, seen in places:
        before = int(cells[row, column])
        for value in {0, -1, 1, 2, 33, 65, row, last - 1, last, 2**31 - 1, -(2**31)} - {before}:
            yield (
                f"{name} of node {row}: {value}",
                seen,
                lambda at=(row, column), value=value: cells.__setitem__(at, value),
            )
    slot = guarded.leaf_of.size // 2
    for value in (0, -1, last, 2**31 - 1, -(2**31)):
        yield (
            f"leaf of slot {slot}: {value}",
            True,
            lambda value=value: guarded.leaf_of.__setitem__(slot, value),
        )
    keys = np.asarray(guarded.order.arrays.keys)
    for node in nodes:
        for value in (np.nan, np.inf, -np.inf, -1.0):
            yield (
                f"key of node {node}: {value}",
                False,
                lambda node=node, value=value: keys.__setitem__((node, 0), value),
            )


def try_order(size: int, plain: bool) -> None:
    """Overwrite each number of an order, one at a time, and call each method."""
    guarded = Guarded(size, plain)
    order = guarded.order
    rng = np.random.default_rng(0)
    some = rng.permutation(size)[: 3 if plain else 300]
    some[0] = size // 2
    uniforms = rng.random(2 if plain else 64)
    calls = {
        "set": lambda: order.set(some, rng.exponential(size=some.size)),
        "new maximum": lambda: order.set(some, np.full(some.size, 9.0)),
        "draw": lambda: order.draw(uniforms, LAW),
        "priorities": lambda: order.priorities(some),
        "probabilities": lambda: order.probabilities(some, LAW),
        "least": lambda: order.smallest_probability(LAW),
        "highest": order.highest,
    }
    cases = list(nonsense(guarded))
    if plain:  # each call takes a hundred times as long
        calls = {name: calls[name] for name in ("set", "draw")}
        cases = cases[:: len(cases) // 100 + 1]
    count = 0
    for name, seen, overwrite in cases:
        for called, call in calls.items():
            guarded.restore()
            overwrite()
            try:
                result = call()
                if called == "draw":
                    assert ((result[0] >= 0) & (result[0] < size)).all()
            except (RuntimeError, ValueError):
                pass
            except BaseException:
                print(f"{name}, {called}", file=sys.stderr)
                raise
            guarded.require_guards()
            count += 1
        guarded.restore()
        overwrite()
        try:
            order.check()
        except AssertionError:
            continue
        assert not seen, f"the check does not see {name}"
    guarded.restore()
    order.check()
    print(f"{count} calls")


def try_buffers() -> None:
    """Overwrite counters and trees of whole buffers, and go on with them."""
    fields = {"obs": per.Field((3,)), "action": per.Field((), "int64"), "reward": per.Field()}
    rows = {
        "obs": np.ones((600, 3)), "action": np.zeros(600, np.int64), "reward": np.ones(600),
        "next_obs": np.ones((600, 3)), "terminated": np.zeros(600, bool),
    }  # fmt: skip
    numbers = (0, -1, 1, 2**31, 2**62, -(2**62), 2**63 - 1, -(2**63))
    for law in (per.Uniform(), per.Proportional(), per.RankBased(), per.RankBased(uniform_mix=0.5)):
        for place in range(5 + 10 * isinstance(law, per.Proportional)):
            for number in numbers:
                replay = per.ReplayBuffer(513, fields, sampler=law, seed=0)

                def add(replay=replay):
                    return replay.add(np.ones(3), 0, 1.0, np.ones(3), False)

                replay.extend(rows)
                ids = replay.sample(16).ids
                replay.update_priorities(ids, np.linspace(0.0, 1.0, 16))
                if place < 5:
                    replay._sampler.counters[place] = number
                else:
                    tree = replay._sampler.distribution.arrays[0]
                    turn = [0, 1, 2, 8, 9, 15, 16, 80, 100, tree.size - 1][place - 5]
                    tree[turn] = np.array([number]).view(np.float64)[0] if number % 2 else number
                for call in (
                    lambda replay=replay: replay.sample(16),
                    lambda replay=replay, ids=ids: replay.update_priorities(ids, np.ones(16)),
                    add,
                    lambda replay=replay: replay.sample(16),
                ):
                    try:
                        call()
                    except (*ERRORS, IndexError, ZeroDivisionError):
                        continue


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] == "buffers":
        try_buffers()
    else:
        try_order(int(sys.argv[1]), plain="plain" in sys.argv)
