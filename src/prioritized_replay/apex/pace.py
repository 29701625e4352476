"""What each actor did since the last report: counted, and put into numbers. Knows no process."""

import math

from prioritized_replay.apex.actor import Collected


class Pace:
    """The counts of one actor between two reports."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin again, after a report."""
        self._steps = self._pieces = self._ages = 0
        self._seconds = 0.0
        self._returns: list[float] = []

    def count(self, collected: Collected, updates: int) -> None:
        """Count a piece of work that came when the learner had made so many updates."""
        self._steps += collected.steps
        self._seconds += collected.seconds
        self._returns.extend(collected.returns)
        self._ages += updates - collected.version
        self._pieces += 1

    @property
    def steps_per_second(self) -> float:
        """Of the time at work; NaN if there was none."""
        return self._steps / self._seconds if self._seconds else math.nan

    @property
    def mean_return(self) -> float:
        """Of the episodes that ended; NaN if none did."""
        return sum(self._returns) / len(self._returns) if self._returns else math.nan

    @property
    def parameter_age(self) -> float:
        """In updates, a mean; NaN if no work came."""
        return self._ages / self._pieces if self._pieces else math.nan
