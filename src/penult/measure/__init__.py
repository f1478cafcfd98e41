"""Measures: selectivity, overlap, dimension, essentiality, stability and faithfulness."""

from penult.measure.compare import compare_runs, measure_layers
from penult.measure.measures import FRACTIONS, Settings, measure_features, measure_run

__all__ = [
    "FRACTIONS",
    "Settings",
    "compare_runs",
    "measure_features",
    "measure_layers",
    "measure_run",
]
