"""Features: penultimate vectors in memory or in shards, the pass that makes them, their sums."""
