"""Where a run stands: what its loop reports, and who shows and keeps it reads.

Knows numbers and evaluations; knows nothing of how either came about.
"""

from dataclasses import dataclass

from prioritized_replay.training.evaluation import Evaluation


@dataclass(frozen=True, eq=False)
class Progress:
    """Where a run stands; losses, errors and speed are means since the last report.

    Attributes
    ----------
    step, steps : int
        Environment steps done, and of the whole run. With several environments the last steps
        may be a few more than those of the whole run.
    updates : int
        Updates of the network so far.
    episodes : int
        Training episodes completed so far.
    mean_return : float
        Mean return of the last 100 training episodes; NaN before the first has ended.
    last_return : float
        Return of the last training episode; NaN before the first has ended.
    epsilon, beta, learning_rate : float
        As in force at this step.
    loss : float
        Mean weighted loss; NaN where there was no update.
    td_error : float
        Mean abs(td error) of the drawn transitions, from before their updates; NaN as above.
    effective_sample_size : float
        Of the last batch's weights, (sum w)**2 / sum w**2, in [1, B]; NaN before the first.
    steps_per_second : float
        Environment steps per second of training; evaluations and the caller are not counted. NaN
        where no step was made, as in a report that a stopped run still owed.
    evaluation : Evaluation or None
        The evaluation made at this step, if there was one.
    is_best : bool
        That evaluation is the best so far (of equals, the later), and the agent's network is in
        ``Training.best_state``.
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
