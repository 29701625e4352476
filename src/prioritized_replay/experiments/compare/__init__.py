"""Samplers trained side by side with many seeds, and compared."""
