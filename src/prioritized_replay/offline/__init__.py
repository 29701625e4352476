"""Data sets of episodes: Minari's, read into a buffer and written from one."""
