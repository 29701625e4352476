"""Prioritized experience replay: proportional and exact rank-based."""
