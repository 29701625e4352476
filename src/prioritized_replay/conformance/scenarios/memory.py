"""Whether arrays are whose they should be, and how many bytes a memory takes.

Bytes are those of the process, so that no library has to tell them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from prioritized_replay.conformance.resident import resident_bytes
from prioritized_replay.conformance.scenario import scenario
from prioritized_replay.conformance.trial import Trials, require

IMAGE: dict[str, Any] = {"obs_shape": (84, 84), "obs_dtype": "uint8"}
STACK: dict[str, Any] = {"obs_shape": (4, 84, 84), "obs_dtype": "uint8", "stacked": True}


@scenario(
    "A batch stays as it is, whatever is added and drawn after it.",
    source="huggingface/lerobot#2309: a batch is read while its rows are written",
)
def a_batch_stays_as_it_is(trials: Trials) -> str:
    trial = trials.full(16)
    drawn, _ = trial.draw(8)
    before = [np.array(column) for column in (drawn.obs, drawn.next_obs, drawn.reward)]
    trial.add(48)
    trial.draw(8)
    after = (drawn.obs, drawn.next_obs, drawn.reward)
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    require(all(same), f"obs, next_obs, reward are as they were: {same}")
    return "8 rows, after 48 more steps and a draw"


@scenario(
    "A batch of images stays as it is too.",
    source="thu-ml/tianshou, save_only_last_obs; frames that are shared and then overwritten",
)
def a_batch_of_images_stays_as_it_is(trials: Trials) -> str:
    trial = trials.full(16, **IMAGE)
    drawn, _ = trial.draw(8)
    before = np.array(drawn.obs), np.array(drawn.next_obs)
    trial.add(48)
    trial.draw(8)
    require(np.array_equal(before[0], drawn.obs), "obs has changed")
    require(np.array_equal(before[1], drawn.next_obs), "next_obs has changed")
    return "8 rows, after 48 more steps and a draw"


@scenario(
    "What the caller does to an array after adding it does not reach the memory.",
    source="openai/baselines#418, Farama-Foundation/SuperSuit#116: arrays that are reused",
)
def the_callers_arrays_are_copied(trials: Trials) -> str:
    trial = trials.new(capacity=16)
    for _ in range(16):
        step = trial.walk.step()
        trial.memory.add(step)
        step.obs[...] = step.next_obs[...] = -1
    return trial.holds()


@scenario(
    "What the caller does to a batch does not reach the memory.",
    source="pytorch/rl#2209: rows are changed by asking for it, not by accident",
)
def changing_a_batch_changes_no_row(trials: Trials) -> str:
    trial = trials.full(16)
    drawn, _ = trial.draw(64)
    for column in (drawn.obs, drawn.next_obs, drawn.reward, drawn.action):
        if isinstance(column, np.ndarray) and column.flags.writeable:
            column[...] = 0
    return trial.holds()


@scenario(
    "An image that ends one step and begins the next is kept once.",
    source="DLR-RM/stable-baselines3#1936, thu-ml/tianshou#225, chandar-lab/RLHive#43",
)
def images_are_kept_once(trials: Trials) -> str:
    trials.full(100, **IMAGE).draw(8)  # what comes with the first use is not counted
    before = resident_bytes()
    trial = trials.full(1500, **IMAGE)
    taken = (resident_bytes() - before) / (1500 * 84 * 84)
    trial.draw(64)
    require(taken < 1.3, f"{taken:.2f} images for each step")
    return f"{taken:.2f} images for each step"


@scenario(
    "A frame that several stacks share is kept once.",
    source="Mnih et al. 2015: four frames a stack; rlpyt, cpprb's stack_compress",
)
def stacked_frames_are_kept_once(trials: Trials) -> str:
    trials.full(100, **STACK).draw(8)
    before = resident_bytes()
    trial = trials.full(1500, **STACK)
    taken = (resident_bytes() - before) / (1500 * 84 * 84)
    trial.draw(64)
    require(taken < 1.5, f"{taken:.2f} frames for each step, which brings one")
    return f"{taken:.2f} frames for each step, which brings one"


@scenario(
    "Where frames are shared, stacks are right at the ends of episodes and of the ring.",
    source="cpprb: stack_compress and next_of across episodes; Kaixhin/Rainbow#42",
)
def shared_frames_are_right(trials: Trials) -> str:
    ends = [(7, "terminated"), (2, "truncated"), (1, "terminated"), (30, "truncated")]
    trial = trials.new(ends, capacity=50, **STACK)
    for steps in (60, 17, 23):
        trial.add(steps)
        seen = trial.holds()
    return seen


@scenario(
    "A full memory does not grow.",
    source="facebookresearch/hanabi_SAD#14: memory grows after the buffer is full",
)
def a_full_memory_does_not_grow(trials: Trials) -> str:
    trial = trials.new([(50, "terminated")], capacity=500, obs_shape=(7000,))
    trial.add(1000)
    trial.draw(8)
    before = resident_bytes()
    trial.add(2000)
    grown = (resident_bytes() - before) / (500 * 7000 * 4)
    require(grown < 0.5, f"by {grown:.0%} of the observations in it")
    return f"by {grown:.1%} of the observations in it, while they were replaced four times"


@scenario(
    "A memory that is dropped gives its bytes back.",
    source="facebookresearch/hanabi_SAD#14; notebooks make many memories in one process",
)
def a_dropped_memory_gives_its_bytes_back(trials: Trials) -> str:
    trials.full(300, obs_shape=(7000,)).draw(8)
    before, left = resident_bytes(), []
    for _ in range(25):
        trials.full(300, obs_shape=(7000,)).draw(8)
        left.append((resident_bytes() - before) / (300 * 7000 * 4))
    # Allocators keep some of what is free, and now more, now less: what grows with each does not.
    least = min(left[20:])
    require(least < 5.0, f"{least:.1f} times the observations of one are left of 25")
    return f"{least:.2f} times the observations of one are left of 25"
