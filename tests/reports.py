"""Reports of a training that never was, for the tests of what shows and keeps them."""

import numpy as np

from prioritized_replay.training.evaluation import Evaluation
from prioritized_replay.training.loop import Progress


def evaluation(*returns: float) -> Evaluation:
    values = np.array(returns)
    return Evaluation(
        returns=values,
        lengths=np.arange(values.size, dtype=np.int64) + 1,
        mean=float(values.mean()),
        std=float(values.std()),
        iqm=float(np.median(values)),
        interval=(float(values.min()), float(values.max())),
    )


def progress(step: int, **changes: object) -> Progress:
    values = dict(
        step=step,
        steps=1_000,
        updates=step // 2,
        episodes=3,
        mean_return=20.5,
        last_return=31.0,
        epsilon=0.25,
        beta=0.75,
        learning_rate=1e-3,
        loss=0.125,
        td_error=0.5,
        effective_sample_size=12.5,
        steps_per_second=900.0,
    )
    return Progress(**(values | changes))
