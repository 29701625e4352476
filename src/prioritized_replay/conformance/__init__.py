"""Checks of replay memories: any library's, by the same rules. It uses public names only.

What any memory must do, scenario by scenario, is ``per check``:

- :mod:`~prioritized_replay.conformance.memory` is the protocol of an adapter,
  :mod:`~prioritized_replay.conformance.memories` has adapters;
- :mod:`~prioritized_replay.conformance.scenarios` has the rules, written with
  :mod:`~prioritized_replay.conformance.trial`, :mod:`~prioritized_replay.conformance.steps` and
  :mod:`~prioritized_replay.conformance.chi_square`;
- :mod:`~prioritized_replay.conformance.scenario` judges,
  :mod:`~prioritized_replay.conformance.report` keeps results,
  :mod:`~prioritized_replay.conformance.command` prints them.

Whether a contender in the race of ``benchmarks`` does what it is timed for:
:mod:`~prioritized_replay.conformance.subject` is that protocol,
:mod:`~prioritized_replay.conformance.adapters` has its adapters, and
:mod:`~prioritized_replay.conformance.checks` checks draws, rows, weights and updates.
"""
