"""penult: which few penultimate features decide each class of a trained image classifier."""

from penult.collect import collect
from penult.data import open_data
from penult.errors import InputError
from penult.explain.explanation import Explanation
from penult.features import Features
from penult.head import SparseHead, accuracies
from penult.influence import SCORES, Evidence, influence
from penult.layers import collect_layers, find_blocks
from penult.models import load_model
from penult.moments import Moments
from penult.network import find_head
from penult.replace import replace_head
from penult.report.report import Report
from penult.run import Run
from penult.select import Subspaces, top_k
from penult.source import Pass
from penult.tap import FeatureTap, Head
from penult.transform import Transform

__all__ = [
    "SCORES", "Evidence", "Explanation", "FeatureTap", "Features", "Head", "InputError", "Moments",
    "Pass", "Report", "Run", "SparseHead", "Subspaces", "Transform", "accuracies", "collect",
    "collect_layers", "find_blocks", "find_head", "influence", "load_model", "open_data",
    "replace_head", "top_k",
]  # fmt: skip
