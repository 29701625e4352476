"""What an old priority costs, and which row a full memory should give up."""
