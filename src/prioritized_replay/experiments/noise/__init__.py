"""A chain of which a part has noise on its rewards."""
