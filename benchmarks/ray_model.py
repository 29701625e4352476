"""``python -m benchmarks.ray_model FOLDER``: where rows through Ray stop to come faster.

From measured times of calls it computes how many rows a second one learner can draw ahead of K
shards over a network: the least of what the learner, the network and the shards can do. What it
says of more than this machine is a prediction.
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
    batches, batch = measures.EACH, measures.ROWS
    bytes_of_batch = batch * (ROW.itemsize + OVERHEAD)
    carry = max(costs.carried - costs.call / 2, 0.0) / 2  # of each side
    growth = 1.0 + GROWTH * max(math.log10(rows / shards / costs.rows), 0.0)
    learner = shards * costs.call / 2 / batches + carry
    shard = costs.call / 2 / batches + (carry + growth * costs.drawn) / shards
    each = {
        "learner": batch / learner,
        "network": batch * NETWORKS[network] / bytes_of_batch,
        "shards": batch / shard,
    }
    limit = min(each, key=lambda name: each[name])
    return Prediction(
        network, rows, shards, each["learner"], each["network"], each["shards"], each[limit], limit
    )


def main(folder: Path) -> None:
    """Write ``model.csv`` and ``model.png`` beside ``benchmarks.json``."""
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
    _draw(lines, folder / "model.png")


def _draw(lines: list[Prediction], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.0, 4.0), layout="constrained")
    for network in NETWORKS:
        mine = [line for line in lines if (line.network, line.rows) == (network, max(ROWS))]
        axes.loglog([m.shards for m in mine], [m.predicted for m in mine], "o-", label=network)
    axes.set_xlabel("shards")
    axes.set_ylabel("rows a second, one learner")
    axes.legend(title="network of the learner")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
