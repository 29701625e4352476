"""The uniforms of one buffer: its generator's numbers, drawn in blocks and handed out in order."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.fields import arguments

__all__ = ["Moment", "Seed", "UniformStream"]

Seed = int | np.random.SeedSequence | np.random.Generator | None
"""What a seed may be; a generator is used as it is, None takes entropy from the system."""


GENERATORS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64
    )
}  # fmt: skip
"""Those that a checkpoint can hold: NumPy's own."""


LONGEST = 1000  # integers of a seed; NumPy goes through them one by one
SEEDS = (
    *(int, np.integer, np.random.Generator, np.random.RandomState, np.random.BitGenerator),
    np.random.bit_generator.ISeedSequence,
)


class Moment(NamedTuple):
    """Where a stream of uniforms stands."""

    generator: Any
    """State of the bit generator, as NumPy gives it."""
    block: NDArray[np.float64]
    """What was last drawn in advance; nobody writes to it."""
    used: int
    """How much of the block is used up."""


def _is_seed(seed: Any) -> bool:
    """Return whether NumPy may see it: from a list that holds itself it does not come back."""
    if isinstance(seed, (list, tuple)):
        return len(seed) <= LONGEST and all(isinstance(part, (int, np.integer)) for part in seed)
    if isinstance(seed, np.ndarray):
        return seed.dtype.kind in "iu" and seed.size <= LONGEST
    return seed is None or isinstance(seed, SEEDS)


class UniformStream:
    """Uniforms of [0, 1) from one generator.

    A call of a generator costs 0.6 us however little is asked for, so they are drawn in blocks.

    Parameters
    ----------
    seed : int, SeedSequence, Generator or None
        As for :func:`numpy.random.default_rng`.
    block : int
        How many are drawn at once.

    Raises
    ------
    ValueError
        If NumPy does not take the seed.

    Examples
    --------
    >>> stream, whole = UniformStream(7, block=4), UniformStream(7, block=4)
    >>> first, second = stream(1), stream(3)
    >>> bool((np.concatenate([first, second]) == whole(4)).all())
    True
    """

    def __init__(self, seed: Seed, block: int = 4096) -> None:
        try:
            if not _is_seed(seed):
                raise TypeError("no integer, few integers or generator")
            # Of a matrix, NumPy takes parts for ever, as they are matrices as well.
            plain = np.asarray(seed) if isinstance(seed, np.ndarray) else seed
            self.generator = np.random.default_rng(plain)
        except (TypeError, ValueError) as error:
            got = arguments.shown(seed)
            raise ValueError(f"seed must be as for default_rng, got {got}: {error}") from None
        self._size = block
        self._block = np.empty(block)
        self._used = block

    def __call__(self, count: int) -> NDArray[np.float64]:
        """Return the next ``count`` uniforms, float64[count]; never the same array twice."""
        block, first = self.take(count)
        return block[first : first + count]

    def take(self, count: int) -> tuple[NDArray[np.float64], int]:
        """Return an array that holds the next ``count`` uniforms, and where they begin in it."""
        first = self._used
        stop = first + count
        if stop > self._size:
            if count > self._size:
                return self.generator.random(count), 0
            self._block = self.generator.random(self._size)
            first, stop = 0, count
        self._used = stop
        return self._block, first

    def moment(self) -> Moment:
        """Return where the stream stands."""
        return Moment(self.generator.bit_generator.state, self._block, self._used)

    def at(self, moment: Moment) -> UniformStream:
        """Return a stream that stands where this one did at some moment."""
        stream = copy.copy(self)
        stream.generator = copy.deepcopy(self.generator)
        stream.generator.bit_generator.state = moment.generator
        stream._block, stream._used = moment.block, moment.used
        return stream

    def diverge(self, number: int) -> None:
        """Go on with numbers of another generator, which depends on this one and on ``number``.

        For a copy of the stream, as a process has it that was forked: what the original goes on
        with must not be drawn again.
        """
        entropy = self.generator.integers(1 << 63, size=4).tolist()
        self.generator = np.random.default_rng([*entropy, number])
        self._used = self._size

    def pieces(self) -> list[Piece]:
        """Return the uniforms that are left, as a piece of a checkpoint."""
        return [Piece("uniforms", None, self._block[self._used :].copy)]

    def state(self) -> dict[str, Any]:
        """Return the rest of what belongs to a checkpoint, in plain values.

        Raises
        ------
        ValueError
            If the generator is not one of NumPy's own.
        """
        bits = self.generator.bit_generator
        if type(bits) is not GENERATORS.get(type(bits).__name__):
            raise ValueError(f"seed must be of a generator of NumPy's own to be saved, got {bits}")
        return {"uniforms_left": self._size - self._used, "generator": _plain(bits.state)}

    def restore(self, reader: Reader) -> None:
        """Become what a checkpoint says."""
        left = reader.integer("uniforms_left", 0, self._size)
        uniforms = reader.array("uniforms", np.float64, (left,))
        if not ((uniforms >= 0.0) & (uniforms < 1.0)).all():
            raise reader.error("must have uniforms in [0, 1)")
        self._block, self._used = np.empty(self._size), self._size - left
        self._block[self._used :] = uniforms
        state = reader.plain("generator")
        try:
            bits: Any = GENERATORS[state["bit_generator"]](0)
            bits.state = state
            fine = _position_fits(state) and _plain(bits.state) == state
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError):
            fine = False
        if not fine:
            raise reader.error("must have the state of a generator of NumPy's own")
        self.generator = np.random.Generator(bits)


def _position_fits(state: dict[str, Any]) -> bool:
    """Return whether a generator would read within its block of numbers: NumPy takes any."""
    if state["bit_generator"] == "MT19937":
        return bool(0 <= state["state"]["pos"] <= 624)
    if state["bit_generator"] == "Philox":
        return bool(0 <= state["buffer_pos"] <= 4)
    return True


def _plain(value: Any) -> Any:
    """Return the state of a generator in values that JSON has."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value if isinstance(value, str) else int(value)
