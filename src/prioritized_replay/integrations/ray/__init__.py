"""Replay over several processes and machines, on Ray: knows Ray, and of ours the public names.

``sharded.py`` is the front door. What it decides is in modules that know no Ray: ``allocation.py``
the law of a draw, ``numbering.py`` global ids, ``limiter.py`` samples per insert, ``leveling.py``
how rows spread, ``shard.py`` what one process holds, ``ledger.py`` what is left of it when it is
killed, ``losses.py`` which rows are lost, ``writer.py`` steps turned into rows, ``manifest.py`` a
checkpoint's folder, ``calls.py`` who answers. ``cluster.py`` alone knows Ray.
"""

try:
    import ray as _ray  # noqa: F401
except ImportError as error:
    from prioritized_replay.extras import install_command

    raise ImportError(
        f"prioritized_replay.integrations.ray needs Ray: {install_command('ray')} ({error})"
    ) from None

from prioritized_replay.integrations.ray.ahead import Batches
from prioritized_replay.integrations.ray.cluster import start_ray, stop_ray
from prioritized_replay.integrations.ray.sharded import ShardedReplay

__all__ = ["Batches", "ShardedReplay", "start_ray", "stop_ray"]
