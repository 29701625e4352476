"""Whether windows of n steps are right in the middle, at ends, and at the write position.

Here n = 3 and gamma = 0.5. An episode of six steps has three windows that lie inside, one that ends
exactly where the episode does, and two that its end cuts.
"""

from __future__ import annotations

from prioritized_replay.conformance.scenario import scenario
from prioritized_replay.conformance.trial import Trials, require


@scenario(
    "The return of a window is the discounted sum of its n rewards.",
    source="Sutton 1988; Hessel et al. 2018 (Rainbow)",
)
def returns_add_up(trials: Trials) -> str:
    trial = trials.new([(6, "terminated")], capacity=60, n_step=3)
    trial.add(24)
    inside = [number for k, number in enumerate(trial.live) if k % 6 < 3]
    return trial.holds(inside, ["reward", "discount"])


@scenario(
    "A row begins with the observation and the action of its first step.",
    source="ray#17844, ray#18034: observations shifted by n",
)
def rows_begin_with_the_first_step(trials: Trials) -> str:
    trial = trials.new(capacity=60, n_step=3)
    trial.add(30)
    drawn = trial.memory.sample(16, 0.5)
    numbers = trial.walk.numbers_in(drawn)
    first = drawn.obs[:, 0] == numbers  # in the one long episode both count from 0
    require(first.all(), f"observations {drawn.obs[~first, 0]} with actions {numbers[~first]}")
    return "16 rows"


@scenario(
    "A window never crosses the end of an episode: no reward of the next one is in it.",
    source="AgileRL, _get_n_step_info: a terminal first step still takes later rewards",
)
def windows_never_cross_an_end(trials: Trials) -> str:
    trial = trials.new([(6, "terminated")], capacity=60, n_step=3)
    trial.add(24)
    cut = [number for k, number in enumerate(trial.live) if k % 6 > 3]
    return trial.holds(cut, ["obs", "action", "reward"])


@scenario(
    "A window that termination cuts does not bootstrap, also not over fewer steps.",
    source="pytorch/rl, MultiStepTransform: terminated stays False before the last step",
)
def windows_cut_by_termination_have_no_future(trials: Trials) -> str:
    trial = trials.new([(6, "terminated")], capacity=60, n_step=3)
    trial.add(24)
    cut = [number for k, number in enumerate(trial.live) if k % 6 > 3]
    return trial.holds(cut, ["discount"])


@scenario(
    "A window whose last step terminates does not bootstrap.",
    source="cpprb: test_issue.py expects done = 0 where next_obs is the terminal observation",
)
def windows_that_end_in_termination(trials: Trials) -> str:
    trial = trials.new([(6, "terminated")], capacity=60, n_step=3)
    trial.add(24)
    return trial.holds(trial.live[3::6], ["discount"])


@scenario(
    "A window that truncation cuts bootstraps over the steps it has, with gamma**m.",
    source="cpprb: no discount of its own for a shorter row; Pardo et al. 2018",
)
def windows_cut_by_truncation_bootstrap(trials: Trials) -> str:
    trial = trials.new([(6, "truncated")], capacity=60, n_step=3)
    trial.add(24)
    return trial.holds([number for k, number in enumerate(trial.live) if k % 6 > 3])


@scenario(
    "A window whose last step is truncated bootstraps from the last observation.",
    source="DLR-RM/stable-baselines3, NStepReplayBuffer; tianshou",
)
def windows_that_end_in_truncation(trials: Trials) -> str:
    trial = trials.new([(6, "truncated")], capacity=60, n_step=3)
    trial.add(24)
    return trial.holds(trial.live[3::6])


@scenario(
    "Every step begins a window, the last ones of an episode too.",
    source="cleanrl, rainbow_atari.py: the last n - 1 steps are lost; ray, RLlib: never sampled",
)
def every_step_begins_a_window(trials: Trials) -> str:
    trial = trials.new([(6, "terminated")], capacity=60, n_step=3)
    trial.add(24)
    trial.cover()
    return "24 steps, 24 rows"


@scenario(
    "Episodes shorter than n give rows that are right.",
    source="ray, RLlib: a memory of such episodes only is searched for ever",
)
def episodes_shorter_than_n(trials: Trials) -> str:
    trial = trials.new([(2, "terminated"), (1, "terminated"), (2, "truncated")], n_step=3)
    trial.add(25)
    return trial.holds()


@scenario(
    "Windows are whole on both sides of the write position of a full ring.",
    source="flashbax#51: data that do not follow each other, taken as if they did",
)
def windows_at_the_write_position(trials: Trials) -> str:
    trial = trials.new(capacity=10, n_step=3)
    trial.add(15)
    for _ in range(12):
        trial.add()
        trial.holds(trial.live[2:])  # some keep N steps, of which the last two are open
    return "12 steps, all around a memory of 10"


@scenario(
    "A window that is not complete is not drawn, or is what it is: one of fewer steps.",
    source="tianshou computes windows when it draws: those at the end have fewer steps",
)
def open_windows_wait(trials: Trials) -> str:
    trial = trials.new(capacity=20, n_step=3)
    for _ in range(8):
        trial.add()
        if trial.live:
            trial.draw(32)
    return "32 rows after each of 8 steps"


@scenario(
    "Closing an interrupted episode closes its windows: they bootstrap over the steps they have.",
    source="pfrl, stop_current_episode",
)
def interrupted_episodes_bootstrap(trials: Trials) -> str:
    trial = trials.new(capacity=60, n_step=3)
    for _ in range(4):
        trial.add(5)
        trial.memory.end_episode()
        trial.walk.interrupt()
    return trial.holds()


@scenario(
    "Errors reach the windows that they were computed from.",
    source="Hessel et al. 2018 (Rainbow): prioritized n-step rows",
    laws=("proportional", "rank"),
)
def errors_reach_their_windows(trials: Trials) -> str:
    trial = trials.new([(6, "terminated"), (5, "truncated")], capacity=60, n_step=3)
    trial.add(44)
    errors = trials.errors(44)
    trial.assign(errors)
    return trial.follows(trial.masses(errors))


@scenario(
    "Rows of n steps are drawn by the law, and weighted by it.",
    source="ray, RLlib: rows that are refused after the draw leave the weights wrong",
)
def windows_are_weighted_by_the_law(trials: Trials) -> str:
    trial = trials.new([(4, "terminated")], capacity=60, n_step=3)
    trial.add(16)
    if trials.law != "uniform":
        trial.assign(trials.errors(16))
    return trial.follows(1.0 / trial.weights(beta=1.0), draws=32_768)
