"""Data: from what a user names to samples with labels, in batches that a network can read."""
