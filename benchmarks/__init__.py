"""What the library costs, measured beside its peers in the same run."""
