"""How far a run is to go, and what it keeps for going on.

Knows names and bounds; knows nothing of files or of training.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CheckpointPolicy:
    """How far a run is to go and what it keeps for going on: nothing that changes what it learns.

    Attributes
    ----------
    steps : int
        Environment steps; more than those of the configuration where the run was made longer.
    checkpoint_every : int or None
        Environment steps between checkpoints, 0 for none; None goes by time.
    keep_checkpoint : bool
        Whether the checkpoint outlives the end of the run.

    Raises
    ------
    ValueError, TypeError
        A value is out of bounds, or of the wrong kind.
    """

    steps: int
    checkpoint_every: int | None = None
    keep_checkpoint: bool = False

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("checkpoint_every", 0)):
            value = getattr(self, name)
            if value is None and name == "checkpoint_every":
                continue
            if type(value) is not int:
                raise TypeError(f"{name} must be a whole number, got {value!r}")
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        if not isinstance(self.keep_checkpoint, bool):
            raise TypeError(f"keep_checkpoint must be True or False, got {self.keep_checkpoint!r}")
