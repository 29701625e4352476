"""The uniforms of one buffer: its generator's numbers, drawn in blocks and handed out in order."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay import casting

__all__ = ["Moment", "Seed", "UniformStream"]

Seed = int | np.random.SeedSequence | np.random.Generator | None
"""What a seed may be; a generator is used as it is, None takes entropy from the system."""


class Moment(NamedTuple):
    """Where a stream of uniforms stands."""

    generator: Any
    """State of the bit generator, as NumPy gives it."""
    block: NDArray[np.float64]
    """What was last drawn in advance; nobody writes to it."""
    used: int
    """How much of the block is used up."""


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
            self.generator = np.random.default_rng(seed)
        except (TypeError, ValueError) as error:
            got = casting.shown(seed)
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
