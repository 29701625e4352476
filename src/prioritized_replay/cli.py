"""The command ``per``: reads the command line, calls what it names, prints errors as one line.

Knows names, options and exit codes. Imports what a command needs only when that command runs: so
``per --help`` answers at once, also where the extras are not installed.
"""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

from prioritized_replay.extras import install_command

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

_HELP = """\
usage: per COMMAND ...

Prioritized experience replay: train with it, judge the result, reproduce the paper.

commands:
  train ENV_ID         train a Double DQN; tuned for CartPole-v1, LunarLander-v3, ALE/Pong-v5, ...
  evaluate RUN         play with a trained model: mean return, IQM, 95 % interval, a GIF
  inspect PATH         what a checkpoint or a run holds, and what is wrong with it; a page
  check MODULE:FACTORY  does a replay memory, of any library, keep the rules?
  compare ENV_ID       train several samplers with several seeds: results, figure, summary
  reproduce cliffwalk  the paper's Blind Cliffwalk: a CSV and its log-log figure
  reproduce imbalanced  digits with rare classes: prioritized, uniform, weighted by class
  reproduce chain      a sparse reward and features that states share: seven ways of replay
  reproduce noise      rewards with noise, where errors are large for nothing
  reproduce memory     priorities that are old, and which row a full memory gives up

  per train ENV_ID --actors N   with N processes that play, on Ray: here or on a cluster
  per train --resume RUN   continue a run that was stopped or killed
  per COMMAND --help   every option of a command, what it does and its default
  per --version        the version of the package

start with:
  per train CartPole-v1
"""


class _Refused(Exception):
    """Ends the command: ``per COMMAND: message`` on stderr, and an exit code."""

    def __init__(self, message: object, code: int = 2) -> None:
        super().__init__(" ".join(str(message).split()))
        self.code = code


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after ``per``; by default those of this process.

    Returns
    -------
    int
        0, 1 where something failed, 2 where the command line is at fault, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name = "per"
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_HELP, end="")
            return 0 if words else 2
        if words[0] == "--version":
            print(f"per {metadata.version('prioritized-replay')}")
            return 0
        if words[0] not in _COMMANDS:
            raise _Refused(f"there is no command {words[0]!r}{_near(words[0], _COMMANDS)}")
        name = f"per {words[0]}"
        code = _COMMANDS[words[0]](words[1:])
        sys.stdout.flush()
        return code
    except _Refused as refusal:
        return _complain(name, refusal, refusal.code)
    except BrokenPipeError:
        # The reader went away (`per ... | head`); nothing can be said to it, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, MemoryError, FloatingPointError) as error:
        return _complain(name, " ".join(str(error).split()) or "there is not enough memory", 1)
    except SystemExit as end:  # tyro, after showing the help
        sys.stdout.flush()
        return int(end.code or 0)
    except KeyboardInterrupt:
        return _complain(name, "interrupted", 130)


def _complain(name: str, error: object, code: int) -> int:
    print(f"{name}: {error}", file=sys.stderr)
    return code


def _train(words: Sequence[str]) -> int:
    _need("torch", "gymnasium", "tyro", "rich", "matplotlib", "tensorboard")
    if not words:
        raise _Refused("which environment? For example: per train CartPole-v1")
    import tyro

    from prioritized_replay.runs.options import TrainOptions
    from prioritized_replay.training.presets import preset

    def parse(name: str, env_id: str, about: str) -> TrainOptions:
        # The preset gives the defaults, all but the environment: that one has to be named.
        values = dataclasses.asdict(preset(env_id, chosen)) | {"env_id": tyro.MISSING}
        defaults = TrainOptions(**values, preset=chosen)
        return _parse(TrainOptions, words, name, default=defaults, description=about)

    if (resumed := _resumed_in(words)) is not None:
        return _resume(words, resumed)
    about = "Train a Double DQN with prioritized replay and keep the run in a folder."
    chosen = _preset_in(words)
    env_id = words[0]
    if env_id.startswith("-"):
        hint = "The defaults are the environment's: see for example per train CartPole-v1 --help"
        with _refusing():
            env_id = parse("per train", "any other", f"{about} {hint}").env_id
    with _refusing():
        options = parse(f"per train {env_id}", env_id, about)
        config, policy = options.config(), options.policy()
    console = _console()
    starting = f"starting Ray and {config.actors} actors" if config.actors else "starting"
    with _refusing(), console.status(starting):
        from prioritized_replay.runs.run import Run

        path, overwrite, address = options.path(), options.overwrite, options.ray_address
        run = Run.begin(
            config,
            path,
            overwrite=overwrite,
            policy=policy,
            console=console,
            ray_address=address,
        )
    return run.train()


def _resumed_in(words: Sequence[str]) -> str | None:
    """Return the run to resume, if there is one; its settings are then the defaults."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name = following if word == "--resume" else word.removeprefix("--resume=")
        if name != word and name:
            return name
    return None


def _resume(words: Sequence[str], name: str) -> int:
    from pathlib import Path

    from prioritized_replay.runs.options import TrainOptions

    if any(word.partition("=")[0] == "--preset" for word in words):
        raise _Refused("--preset is for new runs: a resumed one keeps its settings")
    console, path = _console(), Path(name)
    with _refusing():
        with console.status("starting"):
            from prioritized_replay.runs.folder import RunFolder
            from prioritized_replay.runs.run import Run

            folder = RunFolder.open(path, named=words)
        kept = dataclasses.asdict(folder.config) | dataclasses.asdict(folder.policy)
        about = f"Resume the run in {path}, whose settings are the defaults here."
        options = _parse(
            TrainOptions,
            words,
            f"per train --resume {path}",
            default=TrainOptions(**kept),
            description=about,
        )
        options.check_same(folder.config, folder.policy.steps)
        if folder.is_complete(options.steps):
            print(f"{path} is complete: {options.steps:,} steps were made, and evaluated.")
            return 0
        with console.status("starting"):
            run = Run.resume(folder, options.policy(), console, options.ray_address)
    return run.train()


def _preset_in(words: Sequence[str]) -> Any:
    """Return the preset that is asked for; it makes the defaults. tyro refuses a wrong name."""
    from prioritized_replay.training.presets import PresetName

    for word, following in zip(words, [*words[1:], ""], strict=True):
        name = following if word == "--preset" else word.removeprefix("--preset=")
        if name in get_args(PresetName) and name != word:
            return name
    return "quick"


def _evaluate(words: Sequence[str]) -> int:
    _need("torch", "gymnasium", "tyro", "rich", "matplotlib", "tensorboard")
    from prioritized_replay.runs.options import EvaluateOptions

    about = "Play complete episodes with the model of a run and say how good it is."
    options = _parse(EvaluateOptions, words, "per evaluate", description=about)
    console = _console()
    with _refusing():
        with console.status("starting"):
            from prioritized_replay.runs.evaluate import evaluate_run

        evaluate_run(
            options.run,
            episodes=options.episodes,
            model=options.model,
            seed=options.seed,
            max_steps=options.max_steps,
            named=() if options.env_id is None else (options.env_id,),
            gif=options.gif,
            console=console,
        )
    return 0


def _inspect(words: Sequence[str]) -> int:
    _need("tyro", "rich")
    with _refusing():
        from prioritized_replay.inspection.command import InspectOptions, inspect
        from prioritized_replay.inspection.record import is_run

        about = "Say what a checkpoint or a run holds, and what is wrong with it."
        options = _parse(InspectOptions, words, "per inspect", description=about)
        if is_run(options.path):
            _need("torch", "gymnasium")
        inspect(options, _console())
    return 0


def _check(words: Sequence[str]) -> int:
    _need("tyro", "rich")
    with _refusing():
        from prioritized_replay.conformance.command import CheckOptions, run

        about = (
            "Check a replay memory of any library against rules that papers and bug reports name. "
            "Without an argument it checks this package's own; docs/conformance.rst shows how to "
            "write an adapter. Exit code 1: something that is claimed fails."
        )
        return run(_parse(CheckOptions, words, "per check", description=about), _console())


def _compare(words: Sequence[str]) -> int:
    _need("torch", "gymnasium", "tyro", "rich", "matplotlib")
    if not words:
        raise _Refused("which environment? For example: per compare CartPole-v1")
    from prioritized_replay.experiments.compare.command import CompareConfig, compare

    about = "Train an environment's preset with several samplers and seeds, and compare them."
    with _refusing():
        config = _parse(CompareConfig, words, "per compare", description=about)
        compare(config)
    return 0


def _reproduce(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: per reproduce {'|'.join(_EXPERIMENTS)} [OPTIONS]\n")
        for name in _EXPERIMENTS:
            print(f"  per reproduce {name} --help")
        return 0 if words else 2
    if words[0] not in _EXPERIMENTS:
        raise _Refused(f"there is no experiment {words[0]!r}; known: {', '.join(_EXPERIMENTS)}")
    return _EXPERIMENTS[words[0]].run(words[0], words[1:])


class _Experiment(NamedTuple):
    """A package of ``experiments``, whose module ``command`` has ``reproduce`` and its options."""

    options: str
    """The class of the options."""
    about: str
    needs: tuple[str, ...] = ("tyro", "rich", "matplotlib")
    extra: str = "train"

    def run(self, name: str, words: Sequence[str]) -> int:
        _need(*self.needs, extra=self.extra)
        module = import_module(f"prioritized_replay.experiments.{name}.command")
        with _refusing():
            config = _parse(
                getattr(module, self.options),
                words,
                f"per reproduce {name}",
                description=self.about,
            )
            module.reproduce(config)
        return 0


_EXPERIMENTS = {
    "cliffwalk": _Experiment(
        "CliffwalkConfig",
        "Reproduce the paper's Blind Cliffwalk: how many updates each way of replay needs.",
    ),
    "imbalanced": _Experiment(
        "ImbalancedConfig",
        "Classify digits of which half are rare, with several ways to draw minibatches.",
        ("torch", "tyro", "rich", "matplotlib", "scipy", "sklearn"),
        "experiments",
    ),
    "chain": _Experiment(
        "ChainConfig",
        "Learn chains with a sparse reward and shared features: how many updates it takes.",
    ),
    "noise": _Experiment(
        "NoiseConfig",
        "Learn from rewards with noise: how wrong the values are where errors teach nothing.",
    ),
    "memory": _Experiment(
        "MemoryConfig",
        "Try what the paper leaves open: refreshing old priorities, and other ways to evict.",
    ),
}


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "inspect": _inspect,
    "check": _check,
    "compare": _compare,
    "reproduce": _reproduce,
}


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _need(*modules: str, extra: str = "train") -> None:
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        command = install_command(extra)
        raise _Refused(f"needs {', '.join(missing)}, not installed here: {command}", 1)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn errors about what the user asked for into one line; not for use inside a training."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise _Refused(error) from error
    except OSError as error:  # without a number it is ours: a folder that exists, is no run, ...
        raise _Refused(error, 2 if error.errno is None else 1) from error
    except (ImportError, MemoryError, RuntimeError) as error:
        raise _Refused(error, 1) from error
    except Exception as error:
        if type(error).__module__ != "gymnasium.error":  # named, for it may not be installed
            raise
        raise _Refused(error) from error


# tyro prints what is wrong in a box. It has no public way to ask for the message: its version 1.0
# has a hook, which is private and may change in any release.
def _parse(kind: type[T], words: Sequence[str], name: str, **settings: Any) -> T:
    """Let tyro read the words; an error is one line instead of tyro's box."""
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            result: T = tyro.cli(kind, args=list(words), prog=name, **settings)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise _Refused(f"{_first_words(said.getvalue())}; see {name} --help") from end
    return result


def _first_words(box: str) -> str:
    """Return what a box of tyro's says, up to its first rule, and the options it suggests."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()
    title_in_border = any(line.startswith("╭") for line in lines)
    lines = [line.strip("│ ") for line in lines if not line.startswith(("╭", "╰"))]
    parts: list[list[str]] = [[]]
    for line in lines:
        if line and not line.strip("─-"):
            parts.append([])
        else:
            parts[-1].append(line)
    body = parts if title_in_border else parts[1:]  # without Unicode the title is the first part
    said = " ".join(" ".join(body[0] if body else lines).split()).rstrip(".")
    said = re.sub(r"^Error parsing (--\S+):", r"\1:", said)
    said = re.sub(r"^Error parsing \w+: ", "", said)  # a class: its own message names the option
    said = re.sub(r"^Missing from .*?: ([A-Z_]+) .*", r"\1 is missing", said)
    said = re.sub(r"invalid literal for int\(\) with base 10:", "must be a whole number, got", said)
    said = re.sub(r"could not convert string to float:", "must be a number, got", said)
    said = re.sub(
        r"no type matching (\S+) could .*? from \[(.*?)\]\..*", r"must be \1, got \2", said
    )
    near = [line.split()[0] for part in body[1:] for line in part if line.startswith("--")]
    return said + (f"; near: {', '.join(near)}" if near and "nrecognized" in said else "")


def _near(word: str, known: Sequence[str] | dict[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
