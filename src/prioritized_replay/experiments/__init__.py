"""Experiments that a reader can rerun: the paper's Blind Cliffwalk, and comparisons of samplers."""
