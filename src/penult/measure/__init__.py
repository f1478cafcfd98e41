"""Measures: selectivity, overlap, dimension, essentiality, stability and faithfulness."""

from penult.measure.compare import compare_runs
from penult.measure.measures import Settings, measure_features, measure_run

__all__ = ["Settings", "compare_runs", "measure_features", "measure_run"]
