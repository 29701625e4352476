"""n-step windows of one stream: returns and discounts. It knows numbers, not observations.

The window of a step sums the rewards of up to n steps from it on, and ends early where the
episode ends: by termination it then has discount 0, by truncation or interruption it
bootstraps after the m < n steps that it has.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Closing", "OpenWindows"]


@dataclass(frozen=True)
class Closing:
    """What one step does to the open windows, before it is done.

    ``returns`` holds the return of every window after the step, oldest first. The first
    ``count`` of them close, with these ``discounts``; ``terminated`` says how.
    """

    returns: list[float]
    count: int
    discounts: list[float]
    terminated: bool


class OpenWindows:
    """The windows of one stream that wait for more steps, oldest first.

    Parameters
    ----------
    n_step : int
        Steps n in a whole window, >= 1.
    gamma : float
        Discount of one step, in [0, 1].

    Examples
    --------
    >>> windows = OpenWindows(n_step=2, gamma=0.5)
    >>> windows.commit(windows.step(1.0, ended=False, terminated=False))
    >>> closing = windows.step(10.0, ended=True, terminated=True)
    >>> closing.count, closing.returns, closing.discounts
    (2, [6.0, 10.0], [0.0, 0.0])
    """

    def __init__(self, n_step: int, gamma: float) -> None:
        self.n_step = n_step
        self._powers = [gamma**k for k in range(n_step + 1)]
        self._returns: list[float] = []

    def __len__(self) -> int:
        return len(self._returns)

    def step(self, reward: float, *, ended: bool, terminated: bool) -> Closing:
        """Return what a step with this reward would do; nothing changes yet. O(n)."""
        open_before = len(self._returns)
        returns = [
            total + self._powers[open_before - k] * reward for k, total in enumerate(self._returns)
        ]
        returns.append(reward)
        return self._closing(returns, ended=ended, terminated=terminated)

    def interruption(self) -> Closing:
        """Return what an end without a further step would do: every window closes. O(n)."""
        return self._closing(list(self._returns), ended=True, terminated=False)

    def commit(self, closing: Closing) -> None:
        """Do what :meth:`step` or :meth:`interruption` said."""
        self._returns = closing.returns[closing.count :]

    def clear(self) -> None:
        """Forget the open windows."""
        self._returns = []

    def _closing(self, returns: list[float], *, ended: bool, terminated: bool) -> Closing:
        full = 1 if len(returns) == self.n_step else 0
        count = len(returns) if ended else full
        discounts = [0.0 if terminated else self._powers[len(returns) - k] for k in range(count)]
        return Closing(returns, count, discounts, terminated)
