"""Tuning: a network trained through one of a run's sparse heads."""
