"""A window whose last step terminates has no future: terminated should be True."""

from importlib.metadata import version

import torch
import torchrl
from tensordict import TensorDict
from torchrl.envs import MultiStepTransform

torchrl.logger.setLevel("ERROR")
print("torchrl", version("torchrl"), "with windows of 3 steps; the episode terminates at 6")
t, end = torch.arange(12), torch.arange(12)[:, None] == 5
after = {"obs": t + 1, "reward": torch.ones(12, 1), "done": end, "terminated": end}
for options in ({}, {"done_keys": []}):  # as in its documentation; with no keys to leave untouched
    replay = torchrl.data.TensorDictReplayBuffer(transform=MultiStepTransform(3, 0.5, **options))
    replay.extend(TensorDict({"obs": t, "next": after}, [12]))
    print("MultiStepTransform, options", options)
    for row in replay[:][:6]:
        seen = f"next obs {row['next', 'obs']}, terminated {row['next', 'terminated'].item()}"
        print(f"step {row['obs']}: {seen}, should be {row['obs'].item() + 3 >= 6}")
