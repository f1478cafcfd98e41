# The public names: one line for each module that has some. `penult/__init__.py` reads this file.
import collections.abc
import typing

from penult.data.forms import DataOptions as DataOptions
from penult.data.open import open_data as open_data
from penult.data.source import Pass as Pass
from penult.data.transform import Transform as Transform
from penult.diff.compare import compare_sides as compare_sides
from penult.diff.gate import Rule as Rule
from penult.diff.gate import judge_rules as judge_rules
from penult.diff.many import compare_many as compare_many
from penult.diff.side import Side as Side
from penult.edit.edit import Edit as Edit
from penult.edit.edited_run import EditedRun as EditedRun
from penult.edit.recipe import Recipe as Recipe
from penult.edit.recipe import apply_recipe as apply_recipe
from penult.errors import InputError as InputError
from penult.explain.explanation import Explanation as Explanation
from penult.explain.gallery import PictureOptions as PictureOptions
from penult.export.export import Export as Export
from penult.export.shipment import ExportOptions as ExportOptions
from penult.export.shipped_head import ShippedHead as ShippedHead
from penult.export.shipped_head import shipped_head as shipped_head
from penult.features.collect import collect as collect
from penult.features.features import Features as Features
from penult.features.groups import Groups as Groups
from penult.features.groups_file import read_groups as read_groups
from penult.features.influence import SCORES as SCORES
from penult.features.influence import Evidence as Evidence
from penult.features.influence import influence as influence
from penult.features.layers import collect_layers as collect_layers
from penult.features.moments import Moments as Moments
from penult.features.saving import save_features as save_features
from penult.heads.comparison import Comparison as Comparison
from penult.heads.comparison import compare_heads as compare_heads
from penult.heads.estimator import SparseHeadClassifier as SparseHeadClassifier
from penult.heads.path import HeadPath as HeadPath
from penult.heads.path import fit_path as fit_path
from penult.heads.plan import Plan as Plan
from penult.heads.sparse_head import SparseHead as SparseHead
from penult.heads.sparse_head import accuracies as accuracies
from penult.heads.subspaces import Subspaces as Subspaces
from penult.heads.subspaces import top_k as top_k
from penult.live.notebook import app as app
from penult.measure.compare import compare_runs as compare_runs
from penult.measure.compare import measure_layers as measure_layers
from penult.measure.groups import measure_groups as measure_groups
from penult.measure.measures import Settings as Settings
from penult.measure.measures import measure_features as measure_features
from penult.measure.measures import measure_run as measure_run
from penult.network.blocks import find_blocks as find_blocks
from penult.network.find import find_head as find_head
from penult.network.head import Head as Head
from penult.network.load import load_model as load_model
from penult.network.replace import replace_head as replace_head
from penult.network.tap import FeatureTap as FeatureTap
from penult.report.report import Report as Report
from penult.runs.analyze import Options as Options
from penult.runs.analyze import analyze_features as analyze_features
from penult.runs.analyze import analyze_network as analyze_network
from penult.runs.fitted import add_heads as add_heads
from penult.runs.groups import add_groups as add_groups
from penult.runs.reopen import Places as Places
from penult.runs.run import Run as Run
from penult.runs.tune.folder import Tuned as Tuned
from penult.runs.tune.training import TrainingPlan as TrainingPlan
from penult.runs.tune.tune import tune as tune
from penult.trackers.registry import log_run as log_run

__all__: list[str]

def names_of(room: str) -> collections.abc.Callable[[str], typing.Any]: ...
