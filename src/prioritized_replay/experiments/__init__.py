"""Experiments of the paper, and comparisons of samplers."""
