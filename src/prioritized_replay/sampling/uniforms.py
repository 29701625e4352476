"""The uniforms of one buffer: its generator's numbers, drawn in blocks and handed out in order."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.fields import arguments
from prioritized_replay.note import Note

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
    """What was last drawn in advance."""
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
    note : Note, optional
        Where to note what an interrupted call leaves to do.

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

    def __init__(self, seed: Seed, block: int = 4096, note: Note | None = None) -> None:
        try:
            if not _is_seed(seed):
                raise TypeError("no integer, few integers or generator")
            # Of a matrix, NumPy takes parts for ever, as they are matrices as well.
            plain = np.asarray(seed) if isinstance(seed, np.ndarray) else seed
            self.generator = np.random.default_rng(plain)
        except (TypeError, ValueError) as error:
            got = arguments.shown(seed)
            raise ValueError(f"seed must be as for default_rng, got {got}: {error}") from None
        self.size = block
        """How many are drawn at once."""
        self._note = Note() if note is None else note
        # The first number says how many of the others are used up, so that a kernel which gets the
        # block can count those it takes.
        self._block = np.zeros(1 + block)
        self._block[0] = block

    def __call__(self, count: int) -> NDArray[np.float64]:
        """Return the next ``count`` uniforms, float64[count]; never the same array twice."""
        block = self.block_for(count)
        first = 1 + int(block[0])
        block[0] += count
        return block[first : first + count]

    def at_hand(self, count: int) -> NDArray[np.float64] | None:
        """Return what :meth:`block_for` would, if that needs no new numbers, else None."""
        block = self._block
        return block if block.item(0) + count <= self.size else None

    def block_for(self, count: int) -> NDArray[np.float64]:
        """Return an array that holds the next ``count`` uniforms, to be counted by who takes them.

        Returns
        -------
        float64[...]
            ``block[0]`` says how many of ``block[1:]`` are used up; whoever takes some adds to it.

        Notes
        -----
        More than a block at once are an array of their own. If what is done with them may be
        interrupted, the caller notes first that the stream has to :meth:`go_back`.
        """
        block = self.at_hand(count)
        if block is not None:
            return block
        bits, old = self.generator.bit_generator, self._block
        before = bits.state

        def undo() -> None:
            if self._block is old:  # the new numbers are lost: they will be drawn again
                bits.state = before

        outer = self._note.begin(undo)
        block = np.empty(1 + max(count, self.size))
        block[0] = 0.0
        self.generator.random(out=block[1:])
        if count <= self.size:
            self._block = block
        self._note.end(outer)
        return block

    def moment(self) -> Moment:
        """Return where the stream stands."""
        return Moment(self.generator.bit_generator.state, self._block, int(self._block[0]))

    def go_back(self, moment: Moment) -> None:
        """Stand again where this stream did at some moment. It may be called again."""
        self.generator.bit_generator.state = moment.generator
        moment.block[0] = moment.used
        self._block = moment.block

    def at(self, moment: Moment) -> UniformStream:
        """Return another stream that stands where this one did at some moment."""
        stream = copy.copy(self)
        stream.generator = copy.deepcopy(self.generator)
        stream.generator.bit_generator.state = moment.generator
        stream._block = moment.block.copy()
        stream._block[0] = moment.used
        return stream

    def diverge(self, number: int) -> None:
        """Continue with another generator, which depends on this one and on ``number``.

        For the copy of the stream in a forked process: it must not repeat the numbers that the
        original draws from now on.
        """
        entropy = self.generator.integers(1 << 63, size=4).tolist()
        self.generator = np.random.default_rng([*entropy, number])
        self._block[0] = self.size

    def pieces(self) -> list[Piece]:
        """Return the uniforms that are left, as a piece of a checkpoint."""
        return [Piece("uniforms", None, self._block[1 + int(self._block[0]) :].copy)]

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
        return {"uniforms_left": self.size - int(self._block[0]), "generator": _plain(bits.state)}

    def restore(self, reader: Reader) -> None:
        """Restore the state from a checkpoint."""
        left = reader.integer("uniforms_left", 0, self.size)
        uniforms = reader.array("uniforms", np.float64, (left,))
        if not ((uniforms >= 0.0) & (uniforms < 1.0)).all():
            raise reader.error("must have uniforms in [0, 1)")
        self._block = np.zeros(1 + self.size)
        self._block[0] = self.size - left
        self._block[1 + self.size - left :] = uniforms
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
