"""A buffer goes on from its checkpoint as if nothing had happened, whatever happened to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests import checkpoint_driving as driving
from tests.checkpoint_driving import CASES, Case, World, drive

import prioritized_replay as per

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """What came of all cases: here, and in a new process from checkpoints made half-way."""
    folder = tmp_path_factory.mktemp("cases")
    here = {}
    for case in CASES:
        replay, world = case.buffer(), World(case)
        drive(replay, world, 0, case.first)
        replay.save(folder / case.name)
        here[case.name] = drive(replay, world, case.first, driving.AFTER)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    program = [sys.executable, "-W", "error", "-m", "tests.checkpoint_driving", str(folder)]
    subprocess.run(program, check=True, env=environment, cwd=ROOT)
    there = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return here, there


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_new_process_goes_on_bit_for_bit(resumed, case):
    here, there = (results[case.name] for results in resumed)
    assert len(here) == driving.AFTER
    differing = [step for step, pair in enumerate(zip(here, there, strict=True)) if pair[0] != pair[1]]
    assert not differing, f"from step {differing[0]} after loading on"


@pytest.mark.parametrize("case", CASES[::5], ids=lambda case: case.name)
def test_saving_changes_nothing(tmp_path, case):
    saved, alone = case.buffer(), case.buffer()
    worlds = World(case), World(case)
    for first in range(0, 200, 40):
        assert drive(saved, worlds[0], first, 40) == drive(alone, worlds[1], first, 40)
        saved.save(tmp_path)
