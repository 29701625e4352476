"""Makes the training that a configuration asks for: in this process, or with actors on Ray.

Knows both kinds, and imports Ray only where there are actors.
"""

import contextlib
from collections.abc import Iterator

from prioritized_replay.runs.checkpoint import RunCheckpoint, State
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.loop import Training


def new_training(config: TrainConfig, ray_address: str | None = None) -> Training:
    """Return a training that has not begun; :meth:`Training.close` ends what was started for it.

    Parameters
    ----------
    config : TrainConfig
    ray_address : str, optional
        The cluster where actors and shards run; by default this machine.

    Raises
    ------
    ValueError, ImportError
        As for :class:`Training`; or Ray or its cluster is not there.
    """
    if not config.actors:
        return Training(config)
    from prioritized_replay.apex.cluster import Cluster

    cluster = Cluster(config.actors, ray_address)
    from prioritized_replay.apex.training import ApexTraining  # it needs Ray

    return ApexTraining(config, cluster=cluster)


def resumed_training(
    config: TrainConfig, checkpoint: RunCheckpoint, steps: int, ray_address: str | None = None
) -> tuple[Training, State]:
    """Return a training as of a run's checkpoint, and what else the checkpoint says.

    Raises
    ------
    ValueError
        There is no checkpoint, or it is damaged, or does not fit the configuration.
    ImportError, MemoryError, OSError
        What it needs is not there.
    """
    if not config.actors:
        state, memory = checkpoint.load()
        with fitting(checkpoint):
            return Training.resume(config, state["training"], memory, steps), state
    from prioritized_replay.apex.cluster import Cluster

    cluster = Cluster(config.actors, ray_address)
    try:
        from prioritized_replay.apex.shards import Shards
        from prioritized_replay.apex.training import ApexTraining

        state, shards = checkpoint.load(Shards.load)
    except BaseException:
        cluster.close()
        raise
    with fitting(checkpoint):
        # It closes shards and cluster where it cannot use them.
        return ApexTraining.resume(config, state["training"], shards, steps, cluster=cluster), state


@contextlib.contextmanager
def fitting(checkpoint: RunCheckpoint) -> Iterator[None]:
    """Say of what is wrong with a state that the checkpoint cannot be used."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{checkpoint.folder} cannot be used: {error}") from error
