"""Compiled code: how it is compiled, kept for later processes, and what numba lacks."""
