"""Check the memories of other libraries, each in an environment where it installs.

    python docs/results/conformance/environments.py [NAME ...]

``environments.toml`` beside this file says which environments there are. For each one, or for those
that are named, this makes a virtual environment, installs the libraries and this package, and runs
``per check`` with every adapter: the reports go here, as ``LIBRARY-LAW.json``. Then it runs the
programs in ``reproductions`` that are of these libraries, which use nothing else, and writes what
they print beside them.

``--folder FOLDER`` is where the environments are made; one that is there already is used as it is.
``--only reproductions`` and ``--only checks`` do half of it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import tomllib
import venv
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
OURS = ["numba>=0.60", "tyro>=0.9.13", "rich>=13"]  # what `per check` needs
ADAPTERS = "prioritized_replay.conformance.memories"


class Environment(NamedTuple):
    """Libraries that install beside each other."""

    name: str
    libraries: list[str]
    requires: list[str]
    memories: list[str]
    alone: tuple[str, ...] = ()
    build: tuple[str, ...] = ()


def main() -> int:
    """Do what the command line says. Return 1 if something could not be run."""
    table = tomllib.loads((HERE / "environments.toml").read_text())
    known = {name: Environment(name, **entry) for name, entry in table.items()}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "conformance")
    parser.add_argument("--only", choices=["checks", "reproductions"])
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    done = True
    for name in options.names or known:
        python = made(known[name], options.folder)
        if options.only != "reproductions":
            done &= all([checked(python, memory) for memory in known[name].memories])
        if options.only != "checks":
            for library in known[name].libraries:
                for program in sorted((HERE / "reproductions").glob(f"{library}-*.py")):
                    done &= reproduced(python, program)
    return 0 if done else 1


def made(environment: Environment, folder: Path) -> Path:
    """Return the interpreter of an environment, which is made if it is not there."""
    place = folder / environment.name
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = place / ".installed"
    if not ready.exists():
        venv.create(place, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *environment.requires, *OURS], check=True)
        subprocess.run([*install, "--no-deps", *environment.alone, str(ROOT)], check=True)
        for program in environment.build:
            subprocess.run([str(python), str(HERE / program)], check=True)
        ready.touch()
    return python


def checked(python: Path, memory: str) -> bool:
    """Run ``per check`` with an adapter and keep its report. Failures of rules are no errors."""
    report = HERE / f"{memory.replace('_', '-').replace(':', '-')}.json"
    report.unlink(missing_ok=True)  # a process that aborts leaves none, rather than an old one
    print(f"per check {ADAPTERS}.{memory}", flush=True)
    call = "import sys; from prioritized_replay.cli import main; sys.exit(main())"
    words = ["check", f"{ADAPTERS}.{memory}", "--json", str(report)]
    begun = time.monotonic()
    ended = subprocess.run([python, "-W", "ignore", "-c", call, *words], env=with_ours())
    print(f"{memory}: {time.monotonic() - begun:.0f} s", flush=True)
    return ended.returncode in (0, 1)


def reproduced(python: Path, program: Path) -> bool:
    """Run a program and keep what it prints."""
    ended = subprocess.run(
        [python, "-W", "ignore", program], capture_output=True, text=True, timeout=600
    )
    program.with_suffix(".txt").write_text(ended.stdout)
    print(f"{program.name}\n{ended.stdout}{ended.stderr[-2000:] if ended.returncode else ''}")
    return ended.returncode == 0


def with_ours() -> dict[str, str]:
    """Return the variables of this process, in which this copy of the package is found first."""
    found = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "src"), found]))}


if __name__ == "__main__":
    sys.exit(main())
