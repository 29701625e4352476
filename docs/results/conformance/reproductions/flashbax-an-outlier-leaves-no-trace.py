"""After very large priorities came and went, rows are drawn as if they had not been there."""

from importlib.metadata import version

import flashbax
import jax
import numpy as np

print("flashbax", version("flashbax"), "with 64 rows that have priority 0.01 at the end")
buffer = flashbax.make_prioritised_trajectory_buffer(1, 4096, 1, 1, 1, 64, priority_exponent=1.0)
every, small = np.arange(64), np.full(64, 0.01)
for largest in (1.0, 1e6, 1e12):
    state = buffer.init({"act": np.int32(0)})
    state = buffer.add(state, {"act": np.arange(64, dtype=np.int32)[None]})
    for turn in range(50):
        state = buffer.set_priorities(state, every, np.where(every == turn, largest, small))
    state = buffer.set_priorities(state, every, small)
    root = float(state.sum_tree_state.nodes[0])
    rows = buffer.sample(state, jax.random.PRNGKey(0)).experience["act"]
    print(f"after {largest:g}: root {root:.6f}; 4,096 draws are of {np.unique(rows).size} rows")
