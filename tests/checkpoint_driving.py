"""Buffers of all kinds, driven by a world that can be taken up anywhere, and what came of it.

Run as a program it loads the buffers that another process saved, and drives them on.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import prioritized_replay as per

CAPACITY = 150
BEFORE = 211  # steps until the buffer is saved
AFTER = 125
BATCHES = 8  # drawn in each of these steps: 1,000 in all

BANK = np.random.default_rng(0).integers(0, 256, (997, 16, 16), dtype=np.uint8)
SCALARS = {"action": per.Field((), "int64"), "reward": per.Field((), "float32")}
STORAGES: dict[str, Any] = {
    "rows": per.Field((3,)),
    "frames": per.Field((4, 16, 16), "uint8", stack_axis=0),
    "found": per.Field((4, 16, 16), "uint8"),
    "two": {"one": per.Field((1024,), "uint8"), "other": per.Field((16, 16))},
    "nested": {"image": per.Field((5, 15, 15), "uint8", stack_axis=0), "speed": (per.Field(),)},
}
MAIN = ("rows", "frames", "found", "nested")
SAMPLERS = {
    "uniform": per.Uniform(),
    "proportional": per.Proportional(),
    "rank": per.RankBased(),
}
OTHER_SAMPLERS = {
    "distinct": per.Uniform(draw="without_replacement"),
    "current": per.Proportional(eps=0.0, max_priority="current", weights="buffer"),
    "mixed": per.RankBased(uniform_mix=0.2, weights="buffer", draw="independent"),
    "distinct-rank": per.RankBased(draw="without_replacement", max_priority="current"),
}
SEQUENCES = {
    "overlapping": {"length": 5, "burn_in": 2, "overlap": 3},
    "apart": {"length": 4},
    "across": {"length": 3, "overlap": 2, "boundaries": "cross"},
}
WITH_MEMORY = ("overlapping", "across")  # these have a column that is kept once for a sequence


class Case(NamedTuple):
    """How a buffer is built."""

    storage: str
    sampler: str
    n_step: int
    autoreset: str | None = None  # of three environments; None: one, without a leading axis
    first: int = BEFORE  # steps until the buffer is saved
    sequence: str | None = None  # of SEQUENCES; None: transitions are drawn

    @property
    def name(self) -> str:
        return "-".join(str(part) for part in (self if self.sequence else self[:-1]))

    def buffer(self, **options: Any) -> per.ReplayBuffer:
        return per.ReplayBuffer(
            CAPACITY,
            fields_of(self.storage, self.sequence),
            sampler=(SAMPLERS | OTHER_SAMPLERS)[self.sampler],
            n_step=self.n_step,
            num_envs=None if self.autoreset is None else 3,
            autoreset=self.autoreset,
            seed=7,
            **sequence_of(self.sequence),
            **options,
        )


def fields_of(storage: str, sequence: str | None) -> dict[str, Any]:
    memory = {"memory": per.Field((2,), per_sequence=True)} if sequence in WITH_MEMORY else {}
    return {"obs": STORAGES[storage], **SCALARS, **memory}


def sequence_of(name: str | None) -> dict[str, Any]:
    """Return the further argument of a buffer of sequences."""
    return {} if name is None else {"sequence": per.Sequence(**SEQUENCES[name])}


CASES = [
    *(Case(*parts) for parts in [(s, p, n) for s in MAIN for p in SAMPLERS for n in (1, 3)]),
    Case("two", "rank", 3, "disabled"),
    *(Case("nested", sampler, 3, "next_step") for sampler in SAMPLERS),
    Case("rows", "proportional", 1, "next_step"),
    *(Case("frames", sampler, 2, "same_step") for sampler in SAMPLERS),
    *(Case("rows", sampler, 2, "disabled") for sampler in OTHER_SAMPLERS),
    Case("found", "rank", 3, None, 0),
    Case("found", "rank", 3, None, 1),
    Case("found", "uniform", 1, "disabled", 2),
    Case("rows", "proportional", 1, sequence="overlapping"),
    Case("nested", "rank", 1, "next_step", sequence="apart"),
    Case("frames", "current", 1, "same_step", sequence="overlapping"),
    Case("found", "distinct-rank", 1, "disabled", 3, sequence="across"),
    Case("two", "uniform", 1, None, 2, sequence="overlapping"),
]


class World:
    """Streams whose steps follow from how many were taken before."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.rng = np.random.default_rng(5)
        self.count = 1 if case.autoreset is None else 3
        self.times = np.arange(self.count) * 100
        self.awaiting = np.zeros(self.count, bool)

    def observed(self, stream: int, time: int) -> Any:
        if self.case.storage == "rows":
            return np.array([stream, time, time % 7], np.float32)
        if self.case.storage == "found" and self.case.first < BEFORE and time < 5:
            return np.zeros((4, 16, 16), np.uint8)  # not yet to be told how it is stacked
        if self.case.storage == "two":
            frame = BANK[(time + 331 * stream) % len(BANK)]
            return {"one": np.tile(frame[1].repeat(16), 4), "other": frame.astype(np.float32)}
        stack = 5 if self.case.storage == "nested" else 4
        frames = BANK[(time + 331 * stream + np.arange(stack)) % len(BANK)]
        if self.case.storage == "nested":
            return {"image": frames[:, 1:, 1:], "speed": (np.float32(time),)}
        return frames

    def step(self) -> dict[str, Any]:
        rows = [self.row(stream) for stream in range(self.count)]
        if self.case.autoreset is None:
            return {name: value for name, value in rows[0].items() if name != "final"}
        step: dict[str, Any] = {name: stacked([r[name] for r in rows]) for name in rows[0]}
        final = step.pop("final")
        if self.case.autoreset == "same_step":
            step["info"] = {"final_obs": final}
        return step

    def row(self, stream: int) -> dict[str, Any]:
        mode, time = self.case.autoreset, int(self.times[stream])
        obs = final = self.observed(stream, time)
        ended, terminated, reward = False, False, 0.0
        if self.awaiting[stream]:
            self.awaiting[stream] = False
            time += 10
            next_obs = self.observed(stream, time)
        else:
            time += 1
            next_obs = final = self.observed(stream, time)
            ended, terminated = self.rng.random(2) < (0.15, 0.5)
            reward = float(time % 5)
        if ended and mode == "next_step":
            self.awaiting[stream] = True
        elif ended:
            time += 10
            if mode == "same_step":
                next_obs = self.observed(stream, time)
        self.times[stream] = time
        memory = {"memory": self.memory(stream, time)} if self.case.sequence in WITH_MEMORY else {}
        return {
            "obs": obs, "action": time % 4, "reward": reward, "next_obs": next_obs,
            "terminated": bool(ended and terminated), "truncated": bool(ended and not terminated),
            "final": final, **memory,
        }  # fmt: skip

    def memory(self, stream: int, time: int) -> np.ndarray:
        return np.array([stream, time], np.float32)


def stacked(values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: stacked([value[key] for value in values]) for key in values[0]}
    if isinstance(values[0], tuple):
        return tuple(stacked(list(part)) for part in zip(*values, strict=True))
    return np.stack(values)


def skipped(world: World, steps: int) -> World:
    for _ in range(steps):
        world.step()
    return world


def leaves(value: Any) -> list[np.ndarray]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


def drive(
    replay: per.ReplayBuffer,
    world: World,
    first: int,
    steps: int,
    batches: int = 1,
    memory: bool = True,
) -> list[str]:
    """Take steps with everything between them, and return a digest of each."""
    digests = []
    for k in range(first, first + steps):
        rng = np.random.default_rng(k)
        digest = hashlib.sha256()
        step = world.step()
        sequence = replay.sequence
        if k % 5 < 2 and sequence is None:
            step["td_error"] = rng.normal(size=world.count)
            if replay.num_envs is None:
                step["td_error"] = float(step["td_error"][0])
        digest.update(replay.add(**step).tobytes())
        if k % 31 == 30:
            digest.update(replay.end_episode().tobytes())
        size = 16 if sequence is None else 4
        for _ in range(batches if len(replay) >= size else 0):
            batch = replay.sample(size, beta=0.4)
            for name in batch:
                for leaf in leaves(batch[name]):
                    digest.update(np.ascontiguousarray(leaf).tobytes())
            if sequence is None:
                late = batch.ids - (k % 3 == 0) * rng.integers(0, 20, 16)  # some are gone
                replay.update_priorities(np.maximum(late, 0), rng.normal(size=16))
                continue
            gone = replay.ids_issued - replay.capacity - 1
            late = np.where((k % 3 == 0) & (gone >= 0) & (rng.random(size) < 0.3), gone, batch.ids)
            shape = (size, sequence.length) if k % 2 else size
            replay.update_priorities(late, rng.normal(size=shape))
        if k % 97 == 96:
            replay.clear()
        if k % 10 == 0:
            nbytes = replay.nbytes if memory else 0
            digest.update(repr((sorted(replay.stats().items()), nbytes)).encode())
        digests.append(digest.hexdigest())
    return digests


def main(folder: Path) -> None:
    results = {}
    for case in CASES:
        replay = per.ReplayBuffer.load(folder / case.name)
        world = skipped(World(case), case.first)
        results[case.name] = drive(replay, world, case.first, AFTER, BATCHES)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
