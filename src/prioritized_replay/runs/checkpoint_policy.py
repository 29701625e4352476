"""When a run saves checkpoints, and how many steps it is to make."""

from dataclasses import dataclass

from prioritized_replay.training.bounds import Within

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
