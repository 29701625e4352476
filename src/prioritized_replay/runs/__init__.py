"""Runs on disk: their folder, metrics, checkpoints, display and signals."""
