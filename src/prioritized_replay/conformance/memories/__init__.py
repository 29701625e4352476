"""Adapters for ``per check``, one module for each library, named ``MODULE:FACTORY``."""
