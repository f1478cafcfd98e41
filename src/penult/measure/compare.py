"""Several runs side by side: what differs with the network, and what stays the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.features import Features
from penult.measure.information import confusion_rates, mantel
from penult.measure.measures import Settings, measure_features, measure_run
from penult.measure.uncertainty import plain
from penult.runs.run import Run

COMPARISON_FORMAT = "penult-comparison/1"
LAYERS_FORMAT = "penult-layers/1"

Row = Callable[[dict[str, Any]], Any]


def _value(*path: str) -> Row:
    def row(document: dict[str, Any]) -> dict[str, Any]:
        found = _at(document, path)
        if isinstance(found, dict):
            value = found["value"] if "value" in found else found["mean"]
            return {"value": value, "interval": found["interval"]}
        return {"value": found, "interval": None}

    return row


def _smallest(name: str) -> Row:
    def row(document: dict[str, Any]) -> dict[str, Any]:
        found = _at(document, ("dimension", "decision", name))
        if found is None or found.get("trivial"):
            return {"value": None, "interval": None}
        ends = [found["possibly"], found["confident"]]
        return {"value": found["smallest"], "interval": None if None in ends else ends}

    return row


def _at(document: Any, path: Sequence[str]) -> Any:
    for key in path:
        if document is None:
            return None
        document = document[key]
    return document


ROWS: dict[str, Row] = {
    "n_features": _value("n_features"),
    "dense accuracy": _value("dimension", "decision", "dense_accuracy"),
    "mu": _value("selectivity", "mu"),
    "class overlap (Jaccard)": _value("overlap", "jaccard"),
    "class overlap (mutual information)": _value("overlap", "mutual_information"),
    "participation ratio": _value("dimension", "covariance", "participation_ratio"),
    "participation ratio within": _value("dimension", "within", "participation_ratio"),
    "entropy rank": _value("dimension", "covariance", "entropy_rank"),
    "intrinsic dimension": _value("dimension", "intrinsic"),
    "nc1": _value("dimension", "collapse", "nc1"),
    "features per class for the decision": _smallest("k"),
    "logit directions for the decision": _smallest("directions"),
    "stability between samples": _value("stability", "frequency", "between"),
    "kept features alone": _value(
        "essentiality", "replaced", "standard_normal", "influential", "keep"
    ),
    "all other features alone": _value(
        "essentiality", "replaced", "standard_normal", "influential", "drop"
    ),
}

AGREEMENT = {
    "class_overlap": ("overlap", "distributions", "overlap"),
    "class_subspaces": ("dimension", "classes", "overlap"),
    "confusions": ("overlap", "confusion", "table"),
}


def compare_runs(
    runs: Sequence[Run],
    settings: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measures of several runs side by side, and how far each two tell the same story.

    Features of different networks are not aligned (feature 7 of the one is not feature 7 of the
    other), so only quantities that do not depend on their order are compared.

    Args:
        runs: at least two, of networks with the same classes; each is measured.
        settings: as for `measure_run`.
        progress: called with (runs done, runs in all).

    Raises:
        InputError: fewer than two runs, the same twice, other class names.
    """
    settings = settings or Settings()
    if len(runs) < 2:
        raise InputError(f"a comparison needs at least two runs, found {len(runs)}")
    folders = [str(run.folder) for run in runs]
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise InputError(f"the same run is given twice: {', '.join(folders)}")
    names = [list(run.summary()["class_names"]) for run in runs]
    for folder, classes in zip(folders, names, strict=True):
        if classes != names[0]:
            raise InputError(
                f"{folder} has other classes than {folders[0]} "
                f"({_first_difference(classes, names[0])}): expected networks with the same "
                "classes in the same order"
            )
    documents = []
    for i, run in enumerate(runs):
        documents.append(measure_run(run, settings))
        if progress is not None:
            progress(i + 1, len(runs))
    found = {
        "format": COMPARISON_FORMAT,
        "runs": folders,
        "class_names": names[0],
        "settings": documents[0]["settings"],
        "rows": side_by_side(documents),
        "agreement": [
            {"runs": [folders[a], folders[b]], **_agreement(documents[a], documents[b], settings)}
            for a, b in combinations(range(len(runs)), 2)
        ],
    }
    made: dict[str, Any] = plain(found)
    return made


def measure_layers(
    layers: Mapping[str, Features],
    evaluation: Mapping[str, Features] | None = None,
    *,
    settings: Settings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measures of several layers of one network, and what of them can be lined up.

    Args:
        layers: features by the layer's name, as `penult.collect_layers` gives them.
        evaluation: the same of other samples, on which confusions are counted.
        settings: as for `measure_features`.
        progress: called with (layers done, layers in all).
    """
    settings = settings or Settings()
    documents = {}
    for name, features in layers.items():
        other = None if evaluation is None else evaluation[name]
        documents[name] = measure_features(features, None, other, settings=settings, layer=name)
        if progress is not None:
            progress(len(documents), len(layers))
    rows = side_by_side([*documents.values()])
    made: dict[str, Any] = {
        "format": LAYERS_FORMAT,
        "layers": [*documents],
        "settings": settings.document(),
        "rows": plain(rows),
        "measures": documents,
    }
    return made


def side_by_side(documents: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What of several documents can be lined up: values with intervals, by name.

    Rows that none of them has are left out.
    """
    rows = {name: [row(document) for document in documents] for name, row in ROWS.items()}
    for fraction in documents[0]["selectivity"]["psi"]:
        psi = _value("selectivity", "psi", fraction)
        rows[f"psi at {fraction}"] = [psi(document) for document in documents]
    return {
        name: row for name, row in rows.items() if any(cell["value"] is not None for cell in row)
    }


def _first_difference(found: list[str], wanted: list[str]) -> str:
    if len(found) != len(wanted):
        return f"{len(found)} and {len(wanted)}"
    return next(f"{a} and {b}" for a, b in zip(found, wanted, strict=True) if a != b)


def _agreement(first: dict[str, Any], second: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """How far two networks tell the same story of the classes, as rank correlations over pairs.

    Of how much two classes share their influential features, of how much their subspaces overlap,
    and of how often they are confused. None where a matrix is not there.
    """
    found: dict[str, Any] = {}
    for name, path in AGREEMENT.items():
        one, other = (_matrix(_at(document, path)) for document in (first, second))
        if one is None or other is None:
            found[name] = None
            continue
        if name == "confusions":
            one, other = confusion_rates(one), confusion_rates(other)
        found[name] = mantel(one, other, settings.seed)
    return found


def _matrix(rows: list[list[float | None]] | None) -> Tensor | None:
    """A matrix of a document; None where it is not there or has gaps."""
    if rows is None or any(value is None for row in rows for value in row):
        return None
    return torch.tensor(rows, dtype=torch.float64)
