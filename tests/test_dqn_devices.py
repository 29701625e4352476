"""What devices can do: the refusal of bfloat16, and what is asked before it."""

import pytest
import torch
from gymnasium import spaces

import prioritized_replay as per
from prioritized_replay.dqn import DQN, devices

CPU = torch.device("cpu")
BOX = spaces.Box(-1.0, 1.0, (3,))
TWO = spaces.Discrete(2)


def test_bfloat16_is_refused_where_the_device_has_none(monkeypatch):
    monkeypatch.setattr(devices, "_has_bfloat16", lambda device: False)
    memory = per.ReplayBuffer.for_spaces(BOX, TWO, 8)

    with pytest.raises(ValueError, match=r"^precision must be float32 on this device.*bfloat16"):
        DQN(BOX, TWO, memory, precision="bfloat16")


def test_only_processors_and_cuda_are_asked_for_bfloat16():
    assert not devices._has_bfloat16(torch.device("meta"))


def test_older_torch_is_asked_what_it_knows(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)

    assert devices._has_bfloat16(CPU) == torch.ops.mkldnn._is_mkldnn_bf16_supported()
