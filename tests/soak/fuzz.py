"""Call every public function with hostile arguments, and look whether anything breaks.

    python -m tests.soak.fuzz --seed 1 --calls 100000

Each call either works or raises one clear error, which leaves everything that can be seen of the
buffer as it was. A warning counts as a fault, and so does an error of another kind.
"""

import argparse
import collections
import faulthandler
import pathlib
import sys
import tempfile
import time
import traceback
import warnings

import numpy as np
from tests.soak.hostile import Hostile, UserError

import prioritized_replay as per

ALLOWED = (ValueError, TypeError, KeyError, MemoryError)
NOT_ALLOWED = (UnicodeError,)
HANG = 120  # seconds for one round
ROUND = 150  # calls on one buffer
OTHERS = ("to_torch",)  # what torch says of a device is its word


class Fault(Exception):
    """Something that must not happen."""


# --- what can be seen of a buffer ---------------------------------------------------------------


def arrays(column):
    if isinstance(column, dict):
        return [array for part in column.values() for array in arrays(part)]
    if isinstance(column, tuple):
        return [array for part in column for array in arrays(part)]
    return [column]


def fingerprint(replay):
    """Everything that can be seen of a buffer, and what decides how it goes on."""
    issued, size = replay._sampler.issued, len(replay)
    live = np.arange(issued - size, issued)
    seen = [repr(replay.stats()), repr(replay), replay.alpha, replay.nbytes, issued, size]
    if size:
        batch = replay.get(live, 0.5)
        seen += [a.tobytes() for name in batch for a in arrays(batch[name])]
        seen.append(replay.priorities(live).tobytes())
    stream = replay._uniforms
    seen += [repr(stream.generator.bit_generator.state), stream._block[0], id(stream._block)]
    windows = replay._transitions.windows
    seen.append(windows.state.tobytes())
    if replay._transitions._steps is not None:
        rows = windows._places()
        seen += [c[rows].tobytes() for c in replay._transitions._steps.columns.values()]
    seen += [shared._frames.used for shared in replay._transitions.shared]
    return seen


# --- scenes -------------------------------------------------------------------------------------

IMAGE = per.Field((4, 20, 20), "uint8", stack_axis=0)
OBSERVATIONS = [
    per.Field((2,), "float32"),
    per.Field((), "float64"),
    per.Field((3,), "int16"),
    per.Field((2, 2), "uint8"),
    per.Field((), "bool"),
    IMAGE,
    per.Field((4, 20, 20), "uint8"),
    per.Field((16, 17), "float32"),
    {"image": IMAGE, "speed": (per.Field((2,)), per.Field((), "int64"))},
    {"a": per.Field((33, 33), "uint8"), "b": per.Field((33, 32), "uint8")},
    (per.Field((2,), "float16"), per.Field((), "int8")),
]
ACTIONS = [
    per.Field((), "int64"),
    per.Field((2,), "float32"),
    (per.Field(), per.Field((), "uint8")),
]
REWARDS = [per.Field(), per.Field((), "float64"), per.Field((), "float16"), per.Field((), "int32")]


class Scene:
    """One buffer of a random configuration, and good arguments for it."""

    def __init__(self, hostile, folder):
        self.hostile, self.random = hostile, hostile.random
        pick = self.random.choice
        self.num_envs = pick((None, None, None, 1, 3))
        self.n_step = pick((1, 1, 2, 3))
        modes = ("next_step", "same_step", "disabled")
        self.autoreset = pick((None, None, "next_step") if self.num_envs is None else modes)
        reward = pick(REWARDS[: 4 if self.n_step == 1 else 3])
        self.fields = {"obs": pick(OBSERVATIONS), "action": pick(ACTIONS), "reward": reward}
        self.extra = pick(((), (), ("mark",), ("mark", "info_of_step")))
        self.fields |= {name: pick(ACTIONS) for name in self.extra}
        self.capacity = pick((1, 2, 3, 5, 8, 8, 16))
        options = {
            "sampler": self.sampler(), "n_step": self.n_step, "num_envs": self.num_envs,
            "autoreset": self.autoreset, "gamma": pick((0.0, 0.5, 0.99, 1.0)), "seed": pick((0, 1)),
        }  # fmt: skip
        if self.random.random() < 0.1:
            options["directory"] = pathlib.Path(folder) / f"{self.random.getrandbits(60):x}"
        if self.random.random() < 0.1:
            options["max_bytes"] = 300_000
        self.description = f"ReplayBuffer({self.capacity}, {self.fields}, {options})"
        self.replay = per.ReplayBuffer(self.capacity, self.fields, **options)
        self.seen = fingerprint(self.replay)

    def sampler(self):
        pick = self.random.choice
        common = {
            "alpha": pick((0.0, 0.6, 1.0, 2.0)),
            "draw": pick(("stratified", "independent", "without_replacement")),
            "uniform_mix": pick((0.0, 0.0, 0.1, 1.0)),
            "weights": pick(("batch", "buffer", "raw")),
            "max_priority": pick(("ever", "current")),
        }
        kind = self.random.randrange(5)
        if kind == 0:
            return per.Uniform(draw=common["draw"])
        if kind <= 2:
            return per.Proportional(**common, eps=pick((0.0, 0.01, 1.0)))
        return per.RankBased(**common)

    # good arguments

    def good(self, field, lead=()):
        if isinstance(field, dict):
            return {name: self.good(part, lead) for name, part in field.items()}
        if isinstance(field, tuple):
            return tuple(self.good(part, lead) for part in field)
        dtype = np.dtype(field.dtype)
        low, high = (0, 2) if dtype.kind == "b" else (0, 100)
        return self.hostile.numpy.integers(low, high, lead + field.shape).astype(dtype)

    def errors(self, count):
        return self.hostile.numpy.normal(size=count) * self.random.choice((0.0, 1.0, 1e3))

    def ids(self, count):
        """Ids, most of which are there."""
        issued = self.replay._sampler.issued
        low = max(issued - len(self.replay) - self.random.choice((0, 0, 0, 2)), 0)
        return self.hostile.numpy.integers(low, max(issued, low + 1), count)

    def add(self):
        lead = ()
        named = {}
        if self.num_envs is not None:
            count = self.num_envs
            if self.random.random() < 0.4:
                count = self.random.randrange(self.num_envs + 1)
                named["env"] = self.hostile.numpy.permutation(self.num_envs)[:count]
            lead = (count,)
        ends = self.hostile.numpy.random((2, *lead)) < 0.15
        named |= {
            "obs": self.good(self.fields["obs"], lead),
            "next_obs": self.good(self.fields["obs"], lead),
            "action": self.good(self.fields["action"], lead),
            "reward": self.good(self.fields["reward"], lead),
            "terminated": ends[0] if lead else bool(ends[0]),
            "truncated": ends[1] if lead else bool(ends[1]),
            **{name: self.good(self.fields[name], lead) for name in self.extra},
        }  # fmt: skip
        if self.autoreset == "same_step":
            named["info"] = {"final_obs": self.good(self.fields["obs"], lead)}
        if self.random.random() < 0.4:
            named["td_error"] = self.errors(lead[0]) if lead else float(self.errors(1)[0])
        return named

    def transitions(self, count):
        fields = {**self.fields, "next_obs": self.fields["obs"]}
        columns = {name: self.good(field, (count,)) for name, field in fields.items()}
        if self.random.random() < 0.5:
            columns["discount"] = self.hostile.numpy.random(count).astype(np.float32)
        else:
            columns["terminated"] = self.hostile.numpy.random(count) < 0.2
        return columns

    def call(self):
        """Return a name, a function of the buffer and good arguments for it."""
        replay, count = self.replay, self.random.choice((0, 1, 1, 2, 3, 5, 17))
        name = self.random.choices(
            ("add", "extend", "sample", "get", "update_priorities", "priorities", "alpha",
             "end_episode", "clear", "read", "to_torch"),
            (30, 15, 15, 8, 15, 6, 4, 4, 1, 2, 4),
        )[0]  # fmt: skip
        if name == "add":
            return name, replay.add, self.add()
        if name == "extend":
            arguments = {"transitions": self.transitions(count)}
            if self.random.random() < 0.5:
                arguments["td_errors"] = self.errors(count)
            return name, replay.extend, arguments
        if name == "sample":
            return name, replay.sample, {"batch_size": max(count, 1), "beta": self.random.random()}
        if name == "get":
            return name, replay.get, {"ids": self.ids(count), "beta": self.random.random()}
        if name == "update_priorities":
            return (
                name,
                replay.update_priorities,
                {"ids": self.ids(count), "td_errors": self.errors(count)},
            )
        if name == "priorities":
            return name, replay.priorities, {"ids": self.ids(count)}
        if name == "alpha":
            return (
                name,
                lambda alpha: setattr(replay, "alpha", alpha),
                {"alpha": self.random.random() * 2},
            )
        if name == "end_episode":
            env = None if self.num_envs is None else np.arange(self.random.randrange(self.num_envs))
            return name, replay.end_episode, {"env": env}
        if name == "clear":
            return name, replay.clear, {}
        if name == "to_torch" and self.hostile.torch and len(replay):
            batch = replay.get(
                np.arange(replay._sampler.issued - len(replay), replay._sampler.issued)
            )
            return name, batch.to_torch, {"device": None, "columns": ["ids"], "keep_float64": False}
        return "read", lambda: (repr(replay), replay.fields, replay.sampler, len(replay)), {}


def spoiled(hostile, arguments):
    """Return arguments of which some have been changed."""
    arguments = dict(arguments)
    names = list(arguments)
    for _ in range(hostile.random.choice((1, 1, 1, 2, 3))):
        if names:
            name = hostile.random.choice(names)
            arguments[name] = hostile.changed(arguments[name])
    return arguments


# --- functions without a buffer -------------------------------------------------------------------

SMALL = {"obs": per.Field((2,)), "action": per.Field((), "int64"), "reward": per.Field()}


def free_call(hostile):
    """Return a name, a function and good arguments for it."""
    pick = hostile.random.choice
    kinds = [per.Proportional, per.RankBased]
    common = {"alpha": 0.5, "uniform_mix": 0.0, "draw": "stratified", "weights": "raw"}
    return pick([
        ("Field", per.Field, {"shape": pick(((), (2,), 3)), "dtype": "int8", "stack_axis": None}),
        ("Uniform", per.Uniform, {"draw": "independent"}),
        ("sampler", pick(kinds), {**common, "max_priority": "ever"}),
        ("linear", per.linear, {"start": 0.5, "end": 1.0, "steps": 10}),
        ("exponential", per.exponential, {"start": 0.5, "end": 1.0, "steps": 10}),
        ("constant", per.constant, {"value": 0.5}),
        ("schedule", per.linear(0.5, 1.0, 10), {"step": 3}),
        ("buffer", build_buffer, {
            "fields": dict(SMALL), "sampler": pick(kinds)(), "n_step": 1, "gamma": 0.9,
            "num_envs": None, "autoreset": None, "max_bytes": None, "seed": 1,
        }),
        ("PER", build_per, {
            "obs_shape": (2,), "batch_size": 2, "alpha": 0.5, "beta": 0.5, "beta_increment": 0.1,
            "action_shape": (), "action_dtype": "int64", "obs_dtype": "float32", "variant": "rank",
            "eps": 0.1, "seed": 1,
        }),
    ])  # fmt: skip


def small(value, most=10_000):
    """Whether a number may be tried as a size without filling the memory."""
    try:
        return not (most < int(value) < 2**58)
    except Exception:
        return True


def build_buffer(fields, **options):
    if all(small(options[name]) for name in ("n_step", "num_envs")):
        per.ReplayBuffer(4, fields, **options)


def build_per(obs_shape, batch_size, **options):
    per.PER(obs_shape, 4, batch_size, **options)


def per_calls(hostile, memory):
    return hostile.random.choice([
        ("add_experience", memory.add_experience, {
            "obs": np.ones(2, np.float32), "action": 1, "reward": 1.0,
            "next_obs": np.zeros(2, np.float32), "done": False}),
        ("draw_samples", memory.draw_samples, {}),
        ("update_priority", memory.update_priority, {
            "idxs": np.arange(2), "td_errors": np.ones((2, 1))}),
        ("anneal_beta", memory.anneal_beta, {}),
    ])  # fmt: skip


# --- the run --------------------------------------------------------------------------------------


class Fuzz:
    """Counts what happened; raises a Fault unless ``keep_going``."""

    def __init__(self, seed, torch=None, keep_going=False):
        self.seed, self.torch, self.keep_going = seed, torch, keep_going
        self.outcomes = collections.Counter()
        self.faults = collections.Counter()
        self.calls = 0

    def run(self, calls, seconds=float("inf")):
        deadline = time.monotonic() + seconds
        number = 0
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", ".*masked element to nan")  # NumPy's, of a list
            warnings.filterwarnings("ignore", category=PendingDeprecationWarning)  # of matrices
            warnings.filterwarnings("ignore", "Data type alias")  # NumPy's word on a dtype
            while self.calls < calls and time.monotonic() < deadline:
                faulthandler.dump_traceback_later(HANG, exit=True)
                self.round(Hostile(self.seed * 1_000_003 + number, self.torch), folder)
                number += 1
                if number % 100 == 0:
                    print(f"{self.calls:,} calls so far", file=sys.stderr, flush=True)
        faulthandler.cancel_dump_traceback_later()

    def round(self, hostile, folder):
        scene = Scene(hostile, folder)
        memory = per.PER((2,), 4, 2, 0.5, 0.5, 0.1, seed=1)
        for _ in range(ROUND):
            kind = hostile.random.random()
            if kind < 0.1:
                self.call(hostile, *free_call(hostile), None)
            elif kind < 0.2:
                self.call(hostile, *per_calls(hostile, memory), Face(memory))
            else:
                self.call(hostile, *scene.call(), scene)

    def call(self, hostile, name, function, arguments, scene):
        if hostile.random.random() < 0.7:
            arguments = spoiled(hostile, arguments)
        if "batch_size" in arguments and not small(arguments["batch_size"]):
            arguments["batch_size"] = 10**18
        self.calls += 1
        try:
            function(**arguments)
        except Exception as error:
            outcome = type(error).__name__
            if name != "to_torch" and (
                isinstance(error, NOT_ALLOWED) or not isinstance(error, (*ALLOWED, UserError))
            ):
                self.fault(name, arguments, scene, f"raised {outcome}: {str(error)[:200]}")
            elif (
                not isinstance(error, (UserError, MemoryError))
                and name not in OTHERS
                and not clear(error, arguments)
            ):
                self.fault(name, arguments, scene, f"unclear {outcome}: {str(error)[:200]}")
            if scene is not None and fingerprint(scene.replay) != scene.seen:
                self.fault(name, arguments, scene, f"changed after {outcome}: {str(error)[:200]}")
                scene.seen = fingerprint(scene.replay)
        else:
            outcome = "worked"
            if scene is not None:
                scene.seen = fingerprint(scene.replay)
        self.outcomes[name, outcome] += 1

    def fault(self, name, arguments, scene, what):
        key = f"{name} {what}"[:110]
        if not self.faults[key]:
            with np.printoptions(threshold=8, edgeitems=1):
                text = repr(arguments)
            print(f"FAULT {name} {what}\n  {text[:1500]}\n  {getattr(scene, 'description', '')}")
            if not what.startswith("unclear"):
                traceback.print_exc(file=sys.stdout)
        self.faults[key] += 1
        if not self.keep_going:
            raise Fault(f"{name} {what} for {repr(arguments)[:500]}")


class Face:
    """A PER memory as a scene."""

    description = "PER"

    def __init__(self, memory):
        self.replay = memory.replay
        self.seen = fingerprint(self.replay)


NAMES = {
    "td_errors", "td_error", "ids", "env", "fields", "discount", "terminated", "truncated", "info",
    "transitions", "sample", "no transition", "no row", "step", "batch", "dtype", "shape", "self",
    "argument", "column", "max_bytes", "prioritized_replay",
}  # fmt: skip


def clear(error, arguments):
    """Whether an error is one line that names a parameter."""
    text = str(error)
    given = arguments.get("transitions", ())
    names = {*NAMES, *arguments, *(map(str, given) if isinstance(given, dict) else ())}
    return "\n" not in text.strip() and any(name in text for name in names)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--torch", action="store_true", help="with tensors among the arguments")
    options = parser.parse_args()
    torch = None
    if options.torch:
        import torch
    faulthandler.enable()
    fuzz = Fuzz(options.seed, torch, keep_going=True)
    fuzz.run(options.calls, options.seconds)
    total = collections.Counter()
    for (_, outcome), count in fuzz.outcomes.items():
        total[outcome] += count
    print(f"{fuzz.calls} calls: {dict(total.most_common())}")
    print(f"{sum(fuzz.faults.values())} faults of {len(fuzz.faults)} kinds")
    sys.exit(bool(fuzz.faults))


if __name__ == "__main__":
    main()
