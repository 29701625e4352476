"""Checks of replay buffers: any library's, by the same rules.

A :class:`~prioritized_replay.conformance.subject.Subject` shows a library's buffer to the checks.
:mod:`~prioritized_replay.conformance.checks` says whether what it draws follows its distribution,
whether it returns the rows that were stored, whether its weights are right, and whether updated
priorities count. This package uses the public names of the library only.
"""
