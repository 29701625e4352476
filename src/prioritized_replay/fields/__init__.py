"""Names, shapes and dtypes of what a transition holds, and the conversion of what callers pass."""
