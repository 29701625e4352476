"""What importing the package costs and shows."""

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import prioritized_replay as per

CONTRACT = {
    "ReplayBuffer",
    "Batch",
    "Field",
    "Uniform",
    "Proportional",
    "RankBased",
    "linear",
    "constant",
    "exponential",
    "PER",
}


@pytest.mark.slow
def test_import_loads_neither_torch_gymnasium_ray_nor_matplotlib():
    program = (
        "import sys, prioritized_replay as per\n"
        "per.ReplayBuffer, per.PER, per.RankBased\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "heavy = {'torch', 'gymnasium', 'ray', 'matplotlib'} & loaded\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )

    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_using_the_buffer_loads_no_torch_either():
    program = (
        "import sys, numpy as np, prioritized_replay as per\n"
        "replay = per.PER((2,), 8, 4, 0.7, 0.5, 0.1)\n"
        "for k in range(8): replay.add_experience([k, k], 0, 1.0, [k, k], False)\n"
        "idxs = replay.draw_samples()[5]\n"
        "replay.update_priority(idxs, np.ones(4))\n"
        "sys.exit('loaded torch' if 'torch' in sys.modules else 0)\n"
    )

    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stderr


def public_names():
    return {
        name
        for name, value in vars(per).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }


def test_all_is_exactly_the_public_names():
    assert len(per.__all__) == len(set(per.__all__))
    assert {name for name in per.__all__ if not name.startswith("_")} == public_names()
    assert set(per.__all__) >= CONTRACT


@pytest.mark.parametrize("name", sorted(CONTRACT | public_names()))
def test_every_public_name_has_a_docstring_of_its_own(name):
    value = getattr(per, name)
    if not (inspect.isclass(value) or callable(value)):
        return  # a constant or an alias of a type
    assert (value.__doc__ or "").strip()
    if inspect.isclass(value):
        assert not value.__doc__.startswith(f"{name}(")  # what a dataclass writes by itself
        for attribute, member in vars(value).items():
            function = getattr(member, "__func__", member)
            if attribute.startswith("_") or not (
                inspect.isfunction(function) or isinstance(member, property)
            ):
                continue
            assert (member.__doc__ or "").strip(), f"{name}.{attribute}"
