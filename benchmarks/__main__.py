"""``python -m benchmarks``: measure this library beside the others that are installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from benchmarks.options import BenchConfig
from benchmarks.race import benchmark

PROGRAM = "python -m benchmarks"
ABOUT = (
    "Measure this library beside the others that are installed, on the same data and in turns. "
    "`make bench` installs them. A whole run takes about twenty minutes and 10 GB of memory; try "
    "it out with --quick."
)


def main(words: Sequence[str] | None = None) -> int:
    """Run the race; return the exit code.

    Parameters
    ----------
    words : sequence of str, optional
        The options; by default those of the command line.
    """
    try:
        benchmark(tyro.cli(BenchConfig, args=words, prog=PROGRAM, description=ABOUT))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
