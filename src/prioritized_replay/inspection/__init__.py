"""``per inspect``: what a replay memory holds, what its run recorded, and what is wrong with it."""
