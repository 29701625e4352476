"""An actor: it plays with its own copy of the network and gives each new row its first priority.

Knows environments, the network and where rows go; knows nothing of processes and of learning.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import VectorEnv
from torch import nn

from prioritized_replay.apex.windows import Windows
from prioritized_replay.batch import Batch
from prioritized_replay.dqn.acting import mode_of
from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.dqn.td import td_error, td_target
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.training.build import make_agent, make_memory, make_training_env
from prioritized_replay.training.collectors import Collector, ManyEnvironments, OneEnvironment
from prioritized_replay.training.config import TrainConfig

Parameters = Mapping[str, npt.NDArray[Any]]
Send = Callable[[dict[str, Any], npt.NDArray[np.float32]], object]


@dataclass(frozen=True)
class Collected:
    """What an actor says of one piece of work.

    Attributes
    ----------
    steps, rows : int
        Environment steps made, and rows sent to the replay.
    returns : tuple of float
        Of the episodes that ended.
    seconds : float
        Wall time of the work.
    version : int
        Updates that its network had seen.
    """

    steps: int
    rows: int
    returns: tuple[float, ...]
    seconds: float
    version: int


class Actor:
    """One actor with its environments; the steps of all of them count.

    Parameters
    ----------
    config : TrainConfig
        The environment, the network, n and gamma are read from it.
    epsilon : float
        Chance of a random action, for ever.
    seed : int
        Of the environments and the exploration.
    send : callable
        Gets the columns of new rows, as :meth:`ReplayBuffer.extend` takes them, and their td
        errors float32[B].
    most_steps : int
        The largest piece of work it will be asked for.

    Raises
    ------
    ValueError, ImportError
        As for :class:`~prioritized_replay.training.Training`.
    """

    def __init__(
        self, config: TrainConfig, epsilon: float, seed: int, send: Send, most_steps: int
    ) -> None:
        torch.set_num_threads(config.threads)
        env_seed, agent_seed = np.random.SeedSequence(seed).generate_state(2).tolist()
        self._clip_td_errors, self._send, self._version = config.clip_td_errors, send, -1
        env = make_training_env(config)
        try:
            # Nothing is drawn from it: the cheapest sampler will do.
            rows = make_memory(
                dataclasses.replace(config, replay="uniform"),
                env,
                0,
                capacity=most_steps + config.envs * (config.n_step + 1),
            )
            self._windows = Windows(rows)
            on_cpu = dataclasses.replace(config, device="cpu", precision="float32")
            agent = make_agent(on_cpu, env, cast(ReplayBuffer, self._windows), agent_seed)
            agent.epsilon = epsilon
            self._network = agent.online_network
            many = isinstance(env, VectorEnv)
            spaces: Any = (
                (env.single_observation_space, env.single_action_space)
                if isinstance(env, VectorEnv)
                else (env.observation_space, env.action_space)
            )
            self._conversion = Conversion(*spaces)
            kind: Any = ManyEnvironments if many else OneEnvironment
            self._collector: Collector = kind(env, agent, clip_rewards=config.clip_rewards)
            self._collector.begin(env_seed)
        except BaseException:
            env.close()
            raise
        self._env = env

    @property
    def version(self) -> int:
        """Updates that the network had seen; -1 before :meth:`update`."""
        return self._version

    def update(self, parameters: Parameters, version: int) -> None:
        """Take the learner's parameters, as of that number of updates."""
        with torch.no_grad():
            # Copied: what comes from an object store may be read-only memory of all processes.
            self._network.load_state_dict(
                {name: torch.from_numpy(np.array(value)) for name, value in parameters.items()}
            )
        self._version = version

    def collect(self, steps: int) -> Collected:
        """Make at least so many environment steps, and send the rows that became complete."""
        began = time.perf_counter()
        returns: list[float] = []
        done = 0
        while done < steps:
            returns.extend(self._collector.step())
            done += self._collector.num_envs
        rows = self._send_rows()
        seconds = time.perf_counter() - began
        return Collected(done, rows, tuple(returns), seconds, self._version)

    def close(self) -> None:
        """Close the environments."""
        self._env.close()

    def _send_rows(self) -> int:
        batch = self._windows.take()
        if batch is None:
            return 0
        errors = initial_td_errors(self._network, self._conversion, batch)
        if self._clip_td_errors:
            errors = errors.clip(-1.0, 1.0)
        self._send(self._windows.columns(batch), errors)
        return len(errors)


def initial_td_errors(
    network: nn.Module, conversion: Conversion, batch: Batch
) -> npt.NDArray[np.float32]:
    """Return the td errors of new rows by an actor's own network.

    The one network both chooses and values the next action: an actor has no target network.

    Parameters
    ----------
    network : torch.nn.Module
        From observations (B, ...) to action values (B, A), on the CPU.
    conversion : Conversion
        Of the environment's spaces.
    batch : Batch
        Rows with their n-step rewards and discounts.

    Returns
    -------
    float32[B]
    """
    tensors = conversion.batch(batch, "cpu")
    with torch.no_grad(), mode_of(network, training=False):
        following = network(tensors.next_obs)
        target = td_target(tensors.reward, tensors.discount, following, following)
        errors = td_error(network(tensors.obs), tensors.action, target)
    found: npt.NDArray[np.float32] = errors.numpy()
    return found
