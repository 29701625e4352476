"""What a call that is ended in the middle leaves to do.

A call can be ended between any two bytecodes, by Ctrl-C or by a time-out. Most changes of a buffer
are made by one compiled call, which cannot be ended. Where a change takes several, the buffer notes
first what would bring it back to the state before or after the call. It knows nothing of what that
is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

__all__ = ["Note", "Work"]

Work = Callable[[], object]
"""What is left to do. It may itself be ended, and is then called again from its beginning."""


class Note:
    """One note, shared by all parts of a buffer.

    A change may be part of a larger one, which is still noted when the smaller one is over.

    Attributes
    ----------
    work : callable or None
        What is left to do; None where there is nothing. :meth:`begin` and :meth:`end` set it.

    Examples
    --------
    >>> note, numbers = Note(), []
    >>> outer = note.begin(lambda: numbers.append("outer"))
    >>> inner = note.begin(lambda: numbers.append("inner"))
    >>> note.settle()  # as if the call had been ended here
    >>> numbers, note.work
    (['inner', 'outer'], None)
    """

    __slots__ = ("work",)

    def __init__(self) -> None:
        self.work: Work | None = None

    def begin(self, work: Work) -> Work | None:
        """Note what is left to do if the change that begins here is ended in the middle.

        Parameters
        ----------
        work : callable
            What would complete the change or take it back.

        Returns
        -------
        callable or None
            What was noted before, by the change that this one is part of. It is for :meth:`end`.
        """
        outer = self.work
        self.work = work if outer is None else partial(self._in_turn, work, outer)
        return outer

    def end(self, outer: Work | None) -> None:
        """Forget a change, because it is complete or has not changed anything.

        Parameters
        ----------
        outer : callable or None
            What :meth:`begin` returned.
        """
        self.work = outer

    def settle(self) -> None:
        """Do what is left to do, of changes within changes that of the innermost first."""
        while (work := self.work) is not None:
            work()
            if self.work is work:
                self.work = None

    def _in_turn(self, work: Work, outer: Work) -> None:
        work()
        self.work = outer
