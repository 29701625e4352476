"""Ape-X: one learner, many actors and a replay in shards, as processes on Ray (Horgan et al. 2018).

Needs the extras ``train`` and ``ray``. Only ``cluster.py`` and ``crew.py`` know Ray.
"""
