"""Checkpoints: named arrays in a folder, complete or not there, read without running any of it."""
