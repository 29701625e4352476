"""The ids of a batch name the rows of that batch, also after the next one was drawn."""

from importlib.metadata import version

import numpy as np
from cpprb import PrioritizedReplayBuffer

replay = PrioritizedReplayBuffer(64, {"act": {"dtype": np.int64}}, check_for_update=True)
replay.add(act=np.arange(64))
first = replay.sample(8)
print("cpprb", version("cpprb"))
print("rows of the first batch:     ", first["act"][:, 0])
print("its indexes:                 ", first["indexes"])
replay.sample(8)
print("its indexes after a 2nd draw:", first["indexes"], "- should not have changed")
replay.sample(1024)
try:
    replay.update_priorities(first["indexes"], np.ones(8))
except IndexError as error:
    print("update_priorities after a larger draw: IndexError:", error)
