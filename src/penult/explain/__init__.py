"""Explain: why the head decides as it does, one sample at a time."""
