"""Hard negatives for training data."""
