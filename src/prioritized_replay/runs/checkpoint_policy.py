"""When a run saves checkpoints, and how many steps it is to make."""

import math
import time
from dataclasses import dataclass

from prioritized_replay.training.bounds import Within

FIRST = 30.0  # seconds of training until the first checkpoint
SECONDS = 300.0  # between later checkpoints by time
SHARE = 20.0  # and so many times as long as the last one took
_STEPS = Within(1, 10**12)
_EVERY = Within(0, 10**12)


@dataclass(frozen=True, kw_only=True)
class CheckpointPolicy:
    """How many steps a run makes and when it saves checkpoints; neither changes what it learns.

    Attributes
    ----------
    steps : int
        Environment steps; more than those of the configuration where the run was made longer.
    checkpoint_every : int or None
        Environment steps between checkpoints; 0: there are none. None goes by time: the first
        after 30 seconds of training, then one every 5 minutes.
    keep_checkpoint : bool
        Whether the checkpoint stays when the run is complete.

    Raises
    ------
    ValueError, TypeError
        A value is out of bounds, or of the wrong kind.
    """

    steps: int
    checkpoint_every: int | None = None
    keep_checkpoint: bool = False

    def __post_init__(self) -> None:
        _STEPS.check("steps", self.steps, int)
        if self.checkpoint_every is not None:
            _EVERY.check("checkpoint_every", self.checkpoint_every, int)
        if not isinstance(self.keep_checkpoint, bool):
            raise TypeError(f"keep_checkpoint must be True or False, got {self.keep_checkpoint!r}")


class CheckpointClock:
    """Says when the next checkpoint is due, by a policy.

    Parameters
    ----------
    policy : CheckpointPolicy
    step : int
        Where this process begins.
    saved : bool
        Whether there is a checkpoint of that step.
    """

    def __init__(self, policy: CheckpointPolicy, step: int, *, saved: bool) -> None:
        self._every = policy.checkpoint_every
        self._ended = time.perf_counter()  # of the last attempt to save one
        self._took = 0.0
        self._tried = step
        self._first_due = math.inf if saved or self._every == 0 else self._ended + FIRST

    def first_is_due(self) -> bool:
        """Return whether a run without a checkpoint is to save its first one; once true."""
        if time.perf_counter() < self._first_due:
            return False
        self._first_due = math.inf
        return True

    def is_due(self, step: int) -> bool:
        """Return whether a checkpoint is due at the report of a step."""
        if self._every is None:
            return time.perf_counter() - self._ended >= max(SECONDS, SHARE * self._took)
        return self._every > 0 and step // self._every > self._tried // self._every

    def tried(self, step: int, began: float) -> None:
        """Note that a checkpoint was saved, or could not be; ``began`` is of the same clock."""
        self._first_due = math.inf
        self._tried = step
        self._ended = time.perf_counter()
        self._took = self._ended - began
