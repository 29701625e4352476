"""The report of a training loop, for whoever shows or logs it."""

from dataclasses import dataclass

from prioritized_replay.training.evaluation import Evaluation
from prioritized_replay.training.workers import Workers


@dataclass(frozen=True, eq=False)
class Progress:
    """One report of a training; losses, errors and speed are means since the report before.

    Attributes
    ----------
    step, steps : int
        Environment steps made so far, and steps of the whole run. With several environments the
        run may make a few more than that.
    updates : int
        Updates of the network so far.
    episodes : int
        Training episodes completed so far.
    mean_return : float
        Mean return of the last 100 training episodes; NaN before the first has ended.
    last_return : float
        Return of the last training episode; NaN before the first has ended.
    epsilon, beta, learning_rate : float
        Their values at this step.
    loss : float
        Mean weighted loss; NaN where there was no update.
    td_error : float
        Mean abs(td error) of the drawn transitions, from before each update; NaN as above.
    effective_sample_size : float
        Of the last batch's weights, (sum w)**2 / sum w**2, in [1, B]; NaN before the first.
    steps_per_second : float
        Environment steps per second of training; the time of evaluations and of the caller is not
        counted. NaN where no step was made, as in the first report of some resumed runs.
    evaluation : Evaluation or None
        The evaluation at this step, if there was one.
    is_best : bool
        Whether that evaluation is the best so far (of equal ones the latest). The network is then
        also in ``Training.best_state``.
    workers : Workers or None
        Actors and shards, where there are any.

    Examples
    --------
    >>> import math
    >>> from prioritized_replay.training import Training, preset
    >>> config = preset("CliffWalking-v1", steps=300, warmup=150, eval_max_steps=50)
    >>> training = Training(config)
    >>> reports = list(training.run(report_every=100))
    >>> [(progress.step, progress.evaluation is not None) for progress in reports]
    [(100, False), (200, False), (300, True)]
    >>> math.isnan(reports[0].loss), math.isnan(reports[1].loss)  # no updates: no loss
    (True, False)
    """

    step: int
    steps: int
    updates: int
    episodes: int
    mean_return: float
    last_return: float
    epsilon: float
    beta: float
    learning_rate: float
    loss: float
    td_error: float
    effective_sample_size: float
    steps_per_second: float
    evaluation: Evaluation | None = None
    is_best: bool = False
    workers: Workers | None = None
