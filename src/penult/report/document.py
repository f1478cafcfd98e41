"""Document: all that a report says of a run, as data; the page, notebooks and tests read it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from penult.errors import InputError
from penult.explain.choice import HeadChoice
from penult.explain.gallery import CHANGED, MISSING, Gallery, take_pictures
from penult.explain.reasons import Box, reason_sizes
from penult.explain.survey import Distributions
from penult.explain.thumbnails import SIDE
from penult.features.collect import Progress
from penult.features.draw import spread
from penult.report.album import Album, Shots
from penult.report.conclusion import conclusion
from penult.report.details import class_details, feature_details, finite
from penult.report.findings import Findings
from penult.report.verdicts import KINDS
from penult.runs.reopen import Places
from penult.runs.run import Run

FORMAT = "penult-report/1"
REASON_SAMPLES = 100
PROVEN_FEATURES = 128  # up to which the smallest reasons are searched for, not only bounded
PROOF_SECONDS = 0.25
FEWEST_FOR_A_MEDIAN = 5
MISSING_NAMED = 20


@dataclass(eq=False)
class ReportData:
    """What a page shows: the summary at once, the details when they are asked for.

    Attributes:
        document: summary, tables and mistakes; its parts are named in `penult.report.document`.
        class_details: one for each class.
        feature_details: one for each feature.
        images: small pictures that the details name by number.
    """

    document: dict[str, Any]
    class_details: list[dict[str, Any]]
    feature_details: list[dict[str, Any]]
    images: list[dict[str, Any]] = field(default_factory=list)


def build(
    run: Run,
    choice: HeadChoice,
    *,
    images: int | None = None,
    maps: bool = True,
    sources: Places | None = None,
    device: torch.device | str = "cpu",
    overwrite: bool = False,
    progress: Callable[[str], Progress] | None = None,
) -> ReportData:
    """All that the report of a run shows.

    Args:
        run: a finished one.
        choice: the sparse head that it explains, from `choose_head`.
        images: how many images each list shows; fewer where there are very many lists.
        maps: False leaves out the heat maps, which need the network.
        sources: where network and images are now, if not where the run found them.
        device: where the network runs.
        overwrite: take the pictures again although the run has them.
        progress: called with "images"; gives the function that hears of the progress.
    """
    if images is not None and images < 1:
        raise InputError(f"a report shows at least 1 image of each kind, found {images}")
    return _Builder(Findings(run, choice, images)).build(
        partial(
            take_pictures,
            run,
            sources=sources,
            device=device,
            maps=maps,
            overwrite=overwrite,
            progress=progress("images") if progress else None,
        )
    )


class _Builder:
    """One report, made from what several passes found."""

    def __init__(self, findings: Findings) -> None:
        self.found = findings
        self.run = findings.run

    def build(self, take: Callable[..., Gallery]) -> ReportData:
        album = self._album()
        distributions = Distributions.of(
            self.found.train,
            self.found.survey,
            self._means().float(),
            album.sample_numbers("train"),
        )
        samples = {("train", n): sample for n, sample in distributions.samples.items()}
        gallery = take(album.wishes(samples))
        shots = Shots(gallery, album)
        classes = [class_details(self.found, c, shots) for c in range(self.found.head.n_classes)]
        features = feature_details(self.found, shots, distributions)
        mistakes = self._mistakes(shots)
        document = self._document(gallery, shots, mistakes)
        return ReportData(document, classes, features, list(shots.images()))

    def _album(self) -> Album:
        found = self.found
        album = Album()
        for c in range(found.head.n_classes):
            for rank, kept in enumerate(found.order(c)):
                j = int(found.head.indices[kept])
                album.lists["own", kept] = "train", j, found.survey.top_of_class(kept)
                album.lists["others", kept] = "train", j, found.survey.top_elsewhere(kept)
                album.ranks["own", kept] = album.ranks["others", kept] = rank
        for j in range(found.head.n_features):
            album.lists["feature", j] = "train", j, found.survey.top(j)
        for mistake, reasons in zip(found.verdicts.mistakes, found.reasons, strict=True):
            mapped = {j: value for r in reasons for j, value, _, _ in r["features"]}
            key = (found.eval_part, mistake.sample.number)
            album.mistakes.append((key, mistake.sample, mapped))
        return album

    def _mistakes(self, shots: Shots) -> dict[str, Any]:
        rows = []
        for mistake, reasons in zip(self.found.verdicts.mistakes, self.found.reasons, strict=True):
            key = (self.found.eval_part, mistake.sample.number)
            for reason in reasons:
                for row in reason["features"]:
                    row[3] = shots.map(key, row[0])
            rows.append(
                {
                    "image": shots.number(key),
                    "id": mistake.sample.id or str(mistake.sample.number),
                    "label": mistake.sample.label,
                    "dense": mistake.sample.predicted,
                    "sparse": mistake.sparse,
                    "kind": mistake.kind,
                    "reasons": reasons,
                }
            )
        counts = {
            f"n_{kind.replace('-', '_')}": self.found.verdicts.n_of_kind[kind] for kind in KINDS
        }
        return {"n_samples": len(self.found.verdicts.labels), **counts, "rows": rows}

    def _document(self, gallery: Gallery, shots: Shots, mistakes: dict[str, Any]) -> dict[str, Any]:
        summary, choice = self.found.summary, self.found.choice
        reasons, medians = self._reasons()
        network = summary["network"]
        data = self.run.about["data"]
        where = data.get("path") or data.get("source") or data["kind"]
        document: dict[str, Any] = {
            "format": FORMAT,
            "title": f"{_last(network or 'a classifier', '/:')} on {_last(where, '/')}",
            "about": {
                "network": network,
                "layer": summary["head"] or None,
                "run": self.run.folder.resolve().name,
                "n_classes": self.found.head.n_classes,
                "n_features": self.found.head.n_features,
                "n_samples": summary["n_samples"],
                "n_eval_samples": summary["n_eval_samples"],
                "evaluated_on": summary["evaluated_on"],
                "judge": choice.judge.document(),
                "dense_accuracy": summary["dense"]["accuracy"],
                "train_accuracy": summary["dense"]["train_accuracy"],
                "data": where,
                "versions": self.run.about["versions"],
            },
            "conclusion": [],
            "head": {
                "select": choice.select,
                "refit": choice.refit,
                "k": choice.k,
                "accuracy": choice.accuracy,
                "nnz": self.found.subspaces.nnz,
                "n_features_used": len(torch.unique(self.found.head.indices)),
                "loss": choice.loss,
                "interval": list(choice.interval),
                "why": choice.why,
                "at_most": choice.counts.at_most,
                "agreement": choice.counts.agreement,
            },
            "curve": _curve(summary, choice),
            "classes": self._classes(medians),
            "features": self._features(),
            "reasons": reasons,
            "pictures": {
                "maps": gallery.kind if gallery.mapped() else None,
                "note": gallery.note,
                "grid": shots.grid,
                "signed": shots.signed,
                "side": SIDE,
                "n_images": len(gallery.pictures),
                "n_missing": gallery.count(MISSING),
                "missing": _names(gallery, MISSING),
                "n_changed": gallery.count(CHANGED),
            },
            "mistakes": mistakes,
        }
        document["conclusion"] = conclusion(document)
        return document

    def _classes(self, medians: list[float | None]) -> list[dict[str, Any]]:
        dense, sparse, n_eval = self.found.verdicts.accuracies()
        rows = []
        for c, name in enumerate(self.found.summary["class_names"]):
            taken = {d: to[1] for d, (to, _) in self.found.confusions.get(c, {}).items() if to[1]}
            rows.append(
                {
                    "name": name,
                    "n_samples": self.found.summary["class_counts"][c],
                    "n_eval": int(n_eval[c]),
                    "dense": dense[c],
                    "sparse": sparse[c],
                    "features": [
                        int(self.found.head.indices[kept]) for kept in self.found.order(c)
                    ],
                    "confused": max(taken, key=lambda d: (taken[d], -d)) if taken else None,
                    "reason": medians[c],
                }
            )
        return rows

    def _means(self) -> Tensor:
        """Means of each class, -∞ of those without samples."""
        means = self.found.relations.means.clone()
        means[self.found.relations.counts == 0] = -torch.inf
        return means

    def _features(self) -> list[dict[str, Any]]:
        relations = self.found.relations
        n_readers = torch.bincount(self.found.head.indices, minlength=self.found.head.n_features)
        best = self._means().argmax(0)
        return [
            {
                "readers": int(n_readers[j]),
                "best": None if relations.dead[j] else int(best[j]),
                "mean": float(relations.mean[j]),
                "share": finite(float(relations.share[j])),
                "dead": bool(relations.dead[j]),
                "flat": bool(relations.flat[j]),
                "twin": int(relations.twins[j]) if relations.twins[j] >= 0 else None,
            }
            for j in range(self.found.head.n_features)
        ]

    def _reasons(self) -> tuple[dict[str, Any], list[float | None]]:
        """Sizes of sufficient reasons of a sample of the evaluation images, and class medians."""
        exact = self.found.dense.n_features <= PROVEN_FEATURES
        n = min(REASON_SAMPLES, self.found.evaluation.n_samples)
        keep = spread(torch.from_numpy(self.found.verdicts.labels), n)
        z, labels = self.found.evaluation.subset(keep).arrays()
        box = Box(self.found.survey.low.double(), self.found.survey.high.double())
        heads = []
        medians: list[float | None] = [None] * self.found.head.n_classes
        certain = 1.0
        for name, head in (("dense", self.found.dense), ("sparse", self.found.head)):
            found = reason_sizes(head, z, box, exact=exact, seconds_each=PROOF_SECONDS)
            certain = min(certain, float(found.exact))
            sizes = found.sizes
            heads.append(
                {
                    "name": name,
                    "median": float(sizes.double().median()),
                    "counts": torch.bincount(sizes).tolist(),
                    "n_read": float(found.relevant.double().mean()),
                }
            )
        for c in range(self.found.head.n_classes):
            own = sizes[labels == c]
            if len(own) >= FEWEST_FOR_A_MEDIAN:
                medians[c] = float(own.double().median())
        document = {
            "n_samples": n,
            "exact": certain,
            "n_features": self.found.head.n_features,
            "heads": heads,
        }
        return document, medians


def _curve(summary: dict[str, Any], choice: HeadChoice) -> dict[str, Any]:
    series = []
    if summary["path"]:
        first = summary["path"][0]
        points = [[row["k"], row["accuracy"]] for row in summary["path"]]
        name = f"{first['select']}, refitted"
        series.append({"name": name, "chosen": choice.select == first["select"], "points": points})
    for name, rows in summary["influence"].items():
        points = [[int(k), row["accuracy"]] for k, row in rows.items()]
        series.append({"name": name, "chosen": choice.select == name, "points": points})
    return {"dense": summary["dense"]["accuracy"], "series": series}


def _last(where: str, separators: str) -> str:
    """The end of a path or of `file.py:factory`, which tells it from others."""
    return re.split(f"[{separators}\\\\]", where.rstrip("/\\"))[-1] or where


def _names(gallery: Gallery, state: str) -> list[str]:
    found = [p.sample.id for p in gallery.pictures.values() if p.state == state]
    return found[:MISSING_NAMED]
