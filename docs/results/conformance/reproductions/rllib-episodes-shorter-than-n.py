"""Where no episode is as long as n_step, sample() returns fewer rows or raises."""

import signal
from importlib.metadata import version

from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers import PrioritizedEpisodeReplayBuffer

print("ray", version("ray"), "with episodes of two steps")
replay = PrioritizedEpisodeReplayBuffer(capacity=64)
for _ in range(5):
    replay.add(SingleAgentEpisode(observations=[0, 1, 2], actions=[0, 1], rewards=[1.0, 1.0],
                                  terminated=True, len_lookback_buffer=0))  # fmt: skip
signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError))
for n in (1, 2, 3):
    signal.alarm(10)
    try:
        print(f"sample(4, n_step={n}) returns {len(replay.sample(4, n_step=n))} rows")
    except TimeoutError:
        print(f"sample(4, n_step={n}) has not returned after 10 seconds")
