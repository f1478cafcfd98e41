"""penult: which few penultimate features decide each class of a trained image classifier."""

from penult.data.open import open_data
from penult.data.source import Pass
from penult.data.transform import Transform
from penult.errors import InputError
from penult.explain.explanation import Explanation
from penult.features.collect import collect
from penult.features.features import Features
from penult.features.influence import SCORES, Evidence, influence
from penult.features.layers import collect_layers, find_blocks
from penult.features.moments import Moments
from penult.heads.sparse_head import SparseHead, accuracies
from penult.heads.subspaces import Subspaces, top_k
from penult.network.find import find_head
from penult.network.head import Head
from penult.network.load import load_model
from penult.network.replace import replace_head
from penult.network.tap import FeatureTap
from penult.report.report import Report
from penult.runs.run import Run

__all__ = [
    "SCORES", "Evidence", "Explanation", "FeatureTap", "Features", "Head", "InputError", "Moments",
    "Pass", "Report", "Run", "SparseHead", "Subspaces", "Transform", "accuracies", "collect",
    "collect_layers", "find_blocks", "find_head", "influence", "load_model", "open_data",
    "replace_head", "top_k",
]  # fmt: skip
