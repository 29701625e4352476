"""A chain with a sparse reward, whose states share features."""
