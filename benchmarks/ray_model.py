"""``python -m benchmarks.ray_model FOLDER``: where rows through Ray stop to come faster.

From measured times of calls it computes how many rows a second one learner can draw ahead of K
shards over a network: the least of what the learner, the network and the shards can do. What it
says of more than this machine is a prediction. What it says of this machine, where all processes
share few cores and no network is between them, is compared with what was measured here.
"""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import ray_measures as measures
from benchmarks.results import FILE, Results
from prioritized_replay.conformance.workload import ROW

NETWORKS = {"1 Gbit/s": 1e9 / 8, "10 Gbit/s": 1e10 / 8, "100 Gbit/s": 1e11 / 8}
SHARDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ROWS = (1_000_000, 1_000_000_000)
OVERHEAD = 8 + 8 + 4  # bytes of a drawn row beside its fields: id, probability, discount
GROWTH = 0.15
"""How much longer a draw takes for each tenfold number of rows: a sum tree has more levels."""


@dataclass(frozen=True)
class Costs:
    """Measured seconds, and the batch that they are of."""

    call: float
    """A call of nothing, there and back: of learner and shard together."""
    carried: float
    """A batch that was ready, with one call for each, several on their way."""
    drawn: float
    """A batch drawn in the learner's process."""
    rows: int
    """Rows in the memory that was measured."""

    @classmethod
    def of(cls, results: Results) -> Costs:
        """Read the costs from what was measured.

        Raises
        ------
        ValueError
            If something was not.
        """
        found = {}
        for row in results.timings:
            found[row.measure, row.contender] = row
        try:
            return cls(
                found[measures.DRAW, measures.CALL].seconds,
                found[measures.AHEAD, measures.FROM].seconds,
                found[measures.DRAW, measures.ALONE].seconds,
                found[measures.DRAW, measures.ALONE].size,
            )
        except KeyError as missing:
            raise ValueError(f"{FILE} must have the part ray, got none of {missing}") from None


@dataclass(frozen=True)
class Prediction:
    """Rows a second that each could do, and who is the slowest."""

    network: str
    rows: int
    shards: int
    learner: float
    wire: float
    shard: float
    predicted: float
    limit: str


def predict(costs: Costs, network: str, rows: int, shards: int) -> Prediction:
    """Return what one learner gets of so many shards.

    A round is :data:`.ray_measures.EACH` batches, and one call to each shard. The learner spends
    half of an empty call on each, and the carried bytes' time once for each batch; a shard spends
    the other half of its call, the draw of its part, and the carrying of it.

    Parameters
    ----------
    costs : Costs
    network : str
        A name of :data:`NETWORKS`.
    rows, shards : int
        Rows in all shards together; how many there are.
    """
    batch = measures.ROWS
    bytes_of_batch = batch * (ROW.itemsize + OVERHEAD)
    learner, shard = _seconds(costs, rows, shards)
    each = {
        "learner": batch / learner,
        "network": batch * NETWORKS[network] / bytes_of_batch,
        "shards": batch / shard,
    }
    limit = min(each, key=lambda name: each[name])
    return Prediction(
        network, rows, shards, each["learner"], each["network"], each["shards"], each[limit], limit
    )


def _seconds(costs: Costs, rows: int, shards: int) -> tuple[float, float]:
    """Return what one batch takes of the learner and of each shard."""
    # Measured with several calls on their way: both sides were at work at the same time, so this is
    # what either takes, not the sum.
    carry = max(costs.carried - costs.call / 2, 0.0)
    growth = 1.0 + GROWTH * max(math.log10(rows / shards / costs.rows), 0.0)
    learner = shards * costs.call / 2 / measures.EACH + carry
    return learner, costs.call / 2 / measures.EACH + (carry + growth * costs.drawn) / shards


def predict_here(costs: Costs, shards: int, cores: int) -> float:
    """Return rows a second where learner and shards share the cores of one machine."""
    learner, shard = _seconds(costs, costs.rows, shards)
    return measures.ROWS / max(learner, shard, (learner + shards * shard) / cores)


def compared(results: Results, costs: Costs) -> list[tuple[int, str, float]]:
    """Return shards, what, and value: rows a second as predicted and as measured here."""
    cores = int(results.made["cores"].split()[0])
    measured = {row.contender: row.seconds for row in results.timings
                if row.measure == measures.AHEAD}  # fmt: skip
    lines = []
    for shards, name in ((1, measures.OURS), (4, measures.FOUR)):
        predicted, found = predict_here(costs, shards, cores), measures.ROWS / measured[name]
        lines += [
            (shards, "predicted", predicted),
            (shards, "measured", found),
            (shards, "measured / predicted", found / predicted),
        ]
    return lines


def main(folder: Path) -> None:
    """Write ``model.csv``, ``model.png`` and ``model_check.csv`` beside ``benchmarks.json``."""
    results = Results.read(folder / FILE)
    costs = Costs.of(results)
    lines = [
        predict(costs, network, rows, shards)
        for network in NETWORKS for rows in ROWS for shards in SHARDS
    ]  # fmt: skip
    with (folder / "model.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(lines[0])))
        writer.writeheader()
        for line in lines:
            writer.writerow(
                {n: f"{v:.4g}" if isinstance(v, float) else v for n, v in asdict(line).items()}
            )
    with (folder / "model_check.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("shards", "what", "value"))
        table.writerows((k, what, f"{value:.3g}") for k, what, value in compared(results, costs))
    _draw(lines, folder / "model.png")


def _draw(lines: list[Prediction], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.0, 4.0), layout="constrained")
    # One line may hide another: each is thinner than the one before.
    for width, network in zip((6.0, 3.5, 1.5), NETWORKS, strict=True):
        mine = [line for line in lines if (line.network, line.rows) == (network, max(ROWS))]
        axes.loglog([m.shards for m in mine], [m.predicted for m in mine], "o-",
                    linewidth=width, markersize=width + 3.0, label=network)  # fmt: skip
    axes.set_xlabel("shards")
    axes.set_ylabel("rows a second, one learner")
    axes.legend(title="network of the learner")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
