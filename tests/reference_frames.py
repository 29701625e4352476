"""The slow twin of frames: every observation is kept whole, and frames are counted by their bytes.

Also the streams of observations that many tests use.
"""

from collections import Counter

import numpy as np


class ReferenceFrames:
    """Rows of whole observations, and who holds them: the rows and the streams."""

    def __init__(self, field, streams):
        self.field = field
        self.rows = []  # (obs, next_obs, references of both), oldest first
        self.last = [None] * streams

    def frames_of(self, obs):
        """Return the bytes of each frame of an observation."""
        if self.field.stack_axis is None:
            return [obs.tobytes()]
        return [frame.tobytes() for frame in np.moveaxis(obs, self.field.stack_axis, 0)]

    def distinct(self):
        """Return the bytes of all frames that somebody holds and that are not zero."""
        held = [obs for row in self.rows for obs in row[:2]] + [
            o for o in self.last if o is not None
        ]
        frames = {frame for obs in held for frame in self.frames_of(obs)}
        return {frame for frame in frames if any(frame)}

    def held(self, last_references):
        """Return how often each number is held, from the references themselves."""
        counts = Counter(last_references.reshape(-1).tolist())
        for _, _, old, new in self.rows:
            counts.update(old.tolist() + new.tolist())
        del counts[0]
        return counts


def random_frame(rng, shape, dtype):
    """Any bit pattern: for floats NaN with payloads, -0.0, infinities."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)


class Drawn:
    """Random frames that streams have made: small ones may be equal by chance."""

    def __init__(self):
        self.frames = set()
        self.repeated = False

    def add(self, frame):
        self.repeated |= frame.tobytes() in self.frames
        self.frames.add(frame.tobytes())


class Stream:
    """Observations of one environment, stacked along an axis, as environments give them."""

    def __init__(self, field, rng, drawn=None):
        self.field = field
        self.rng = rng
        self.drawn = Drawn() if drawn is None else drawn
        axis = field.stack_axis
        self.shape = field.shape if axis is None else field.shape[:axis] + field.shape[axis + 1 :]
        self.count = 1 if axis is None else field.shape[axis]
        self.palette = [self.new() for _ in range(2)]
        self.stack = [self.new()] * self.count

    def new(self):
        frame = random_frame(self.rng, self.shape, self.field.dtype)
        self.drawn.add(frame)
        return frame

    def zero(self):
        return np.zeros(self.shape, self.field.dtype)

    def observation(self):
        if self.field.stack_axis is None:
            return self.stack[0].copy()
        return np.stack(self.stack, self.field.stack_axis)

    def reset(self, padding):
        first = self.new()
        rest = {"repeat": first, "zero": self.zero()}[padding]
        self.stack = [rest] * (self.count - 1) + [first]

    def step(self, kind):
        """Return a step's two observations."""
        if kind in ("repeat", "zero"):
            self.reset(kind)
        elif kind == "gap":  # a step that nobody was told of
            self.stack = [*self.stack[1:], self.new()]
        elif kind == "changed":  # behind the back of whoever looks at the steps
            self.stack[self.rng.integers(self.count)] = self.new()
        elif kind == "scrambled":
            self.stack = [self.palette[i] for i in self.rng.integers(2, size=self.count)]
        obs = self.observation()
        if kind == "still":
            self.stack = [*self.stack[1:], self.stack[-1]]
        elif kind == "blank":
            self.stack = [*self.stack[1:], self.zero()]
        elif kind == "equal":
            pass
        elif kind == "far":
            self.stack = [self.palette[i] for i in self.rng.integers(2, size=self.count)]
        else:
            self.stack = [*self.stack[1:], self.new()]
        return obs, self.observation()


GOOD = ("shift", "shift", "shift", "still", "blank", "repeat", "zero", "gap")
"""What environments do: frames follow each other, episodes begin with a repeated or no frame."""
BAD = ("changed", "scrambled", "far", "equal")
