"""What a call that is ended in the middle leaves to do.

A call can be ended between any two bytecodes, by Ctrl-C or by a time-out. Most changes of a buffer
are made by one compiled call, which cannot be ended. Where a change takes several, the buffer notes
first what would bring it back to the state before or after the call. It knows nothing of what that
is.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Note"]


class Note:
    """One note, shared by all parts of a buffer.

    Attributes
    ----------
    work : callable or None
        What is left to do. It may itself be ended and called again. None where there is nothing.

    Examples
    --------
    >>> note, numbers = Note(), [1, 2]
    >>> note.work = numbers.clear
    >>> note.settle()
    >>> numbers, note.work
    ([], None)
    """

    __slots__ = ("work",)

    def __init__(self) -> None:
        self.work: Callable[[], object] | None = None

    def settle(self) -> None:
        """Do what is left to do."""
        while (work := self.work) is not None:
            work()
            if self.work is work:
                self.work = None
