"""Document: all that a report says of a run, as data; the page, notebooks and tests read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from penult.explain.choice import HeadChoice
from penult.explain.gallery import CHANGED, MISSING, Gallery, PictureOptions
from penult.explain.reasons import Box, reason_sizes
from penult.explain.survey import Distributions, kept_of
from penult.explain.taking import take_pictures
from penult.features.draw import spread
from penult.heads.sparse_head import SparseHead
from penult.network.head import Head
from penult.progress import Begin
from penult.report.album import Album, PageImages, Shots
from penult.report.answers import KINDS
from penult.report.by_group import group_warnings, groups_part
from penult.report.conclusion import conclusion
from penult.report.details import Details, finite
from penult.report.edits import EditViews
from penult.report.findings import Findings
from penult.report.notes import as_sentences, data_notes, reader_warnings
from penult.report.suspects import SuspectViews, verdicts_part
from penult.runs.reopen import holds_texts
from penult.runs.run import Run

FORMAT = "penult-report/1"
REASON_SAMPLES = 100
PROVEN_FEATURES = 128  # up to which the smallest reasons are searched for, not only bounded
PROOF_SECONDS = 0.25
QUICKLY = 20_000_000  # weights times images whose reasons are bounded in a second or two
FEWEST_FOR_A_MEDIAN = 5
MISSING_NAMED = 20
MOST_TAKEN = 3


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
    choice: HeadChoice | None,
    options: PictureOptions,
    effects: Mapping[str, dict[str, Any]] | None = None,
    begin: Begin | None = None,
) -> ReportData:
    """All that the report of a run shows.

    Args:
        run: a finished one.
        choice: the sparse head that it explains beside the network's own, from `choose_head`;
            None for the network's alone.
        options: how its pictures are taken.
        effects: of edits that are to be shown besides those in the run, by name; see
            `penult.edit.edited_run`.
        begin: starts a named stage of what takes long.
    """
    begin = begin or (lambda name: lambda done, total: None)
    begin("what to show")
    return DocumentBuilder(Findings(run, choice, options.images), effects).build(options, begin)


class DocumentBuilder:
    """Makes one report of what several passes found.

    Args:
        findings: what they found.
        effects: see `build`.
        prove: prove the sufficient reasons of many images, which takes up to a minute; else a
            few are bounded.

    Attributes:
        found: these findings.
        edits: the edits that it shows.
    """

    def __init__(
        self,
        findings: Findings,
        effects: Mapping[str, dict[str, Any]] | None = None,
        prove: bool = True,
    ) -> None:
        self.found = findings
        self._prove = prove
        self.run = findings.run
        self.suspects = SuspectViews(findings)
        self.edits = EditViews(findings, effects)

    def build(self, options: PictureOptions, begin: Begin) -> ReportData:
        """The report with its pictures, which are taken here."""
        found, album = self.found, Album()
        samples = self.suspects.enter(album)
        self._enter(album)
        self.edits.enter(album)
        distributions = self.distributions(album.sample_numbers("train"))
        samples |= {("train", n): sample for n, sample in distributions.samples.items()}
        wishes, images = album.wishes(samples), begin("images")
        options = replace(options, progress=options.progress or images)
        gallery = take_pictures(self.run, wishes, options)
        heard = begin("classes and features")
        shots = Shots(gallery, album)
        details = Details(found, shots)
        classes = []
        for c in range(found.n_classes):
            classes.append(details.of_class(c))
            heard(c + 1, found.n_classes)
        features = details.of_features(distributions)
        begin("what suffices for decisions")
        mistakes = self.with_reasons(self.mistakes(shots), shots)
        document = self.document(_pictures(gallery, shots), shots, mistakes)
        return ReportData(document, classes, features, list(shots.images()))

    def distributions(self, wanted: set[int]) -> Distributions:
        """Of every feature, and what is known of some samples by their numbers alone."""
        found = self.found
        return Distributions.of(found.train, found.survey, self._means().float(), wanted)

    def _enter(self, album: Album) -> None:
        """Put the images of classes, features and mistakes into the album."""
        found = self.found
        for c in range(found.n_classes):
            for rank, entry in enumerate(kept_of(found.shown, c)):
                j = int(found.shown.indices[entry])
                album.lists["own", entry] = "train", j, found.survey.top_of_class(entry)
                album.lists["others", entry] = "train", j, found.survey.top_elsewhere(entry)
                album.ranks["own", entry] = album.ranks["others", entry] = rank
        for j in range(found.n_features):
            album.lists["feature", j] = "train", j, found.survey.top(j)
        for mistake, reasons in zip(found.verdicts.mistakes, found.reasons, strict=True):
            mapped = {j: value for r in reasons for j, value, _, _ in r["features"]}
            key = (found.eval_part, mistake.sample.number)
            album.mistakes.append((key, mistake.sample, mapped))

    def mistakes(self, shots: PageImages) -> dict[str, Any]:
        """The samples that a head gets wrong; `with_reasons` says why."""
        rows = []
        for mistake in self.found.verdicts.mistakes:
            key = (self.found.eval_part, mistake.sample.number)
            rows.append(
                {
                    "image": shots.number(key),
                    "id": mistake.sample.id or str(mistake.sample.number),
                    "label": mistake.label,
                    "dense": mistake.dense,
                    "sparse": mistake.sparse,
                    "kind": mistake.kind,
                }
            )
        counts = {
            f"n_{kind.replace('-', '_')}": self.found.verdicts.n_of_kind[kind] for kind in KINDS
        }
        return {"n_samples": len(self.found.verdicts.labels), **counts, "rows": rows}

    def with_reasons(self, mistakes: dict[str, Any], shots: PageImages) -> dict[str, Any]:
        """The mistakes with the features that led to each, and their maps."""
        for row, mistake, reasons in zip(
            mistakes["rows"], self.found.verdicts.mistakes, self.found.reasons, strict=True
        ):
            key = (self.found.eval_part, mistake.sample.number)
            for reason in reasons:
                for shown in reason["features"]:
                    shown[3] = shots.map(key, shown[0])
            row["reasons"] = reasons
        return mistakes

    def document(
        self, pictures: dict[str, Any], shots: PageImages, mistakes: dict[str, Any]
    ) -> dict[str, Any]:
        """Summary and tables.

        Args:
            pictures: what is known of the images.
            shots: the images themselves.
            mistakes: from `mistakes`.
        """
        summary = self.found.summary
        reasons, medians = self._reasons()
        document: dict[str, Any] = {
            "format": FORMAT,
            "about": self._about(),
            "conclusion": [],
            "head": self._head(),
            "curve": _curve(summary, self.found.choice),
            "classes": self._classes(medians),
            "features": self._features(),
            "reasons": reasons,
            "pictures": pictures,
            "mistakes": mistakes,
            "groups": groups_part(self.found),
            "suspects": self.suspects.document(shots),
            "verdicts": verdicts_part(self.found),
            "edits": self.edits.document(shots),
            "mends": self.edits.mends_document(),
        }
        names = summary["class_names"]
        document["about"]["warnings"] += as_sentences(
            (
                *group_warnings(document["groups"], names),
                *self.suspects.warnings,
                *self.edits.warnings,
            )
        )
        document["title"] = (
            f"{_last(document['about']['network'] or 'a classifier', '/:')} on "
            f"{_last(document['about']['data'], '/')}"
        )
        document["conclusion"] = conclusion(document)
        return document

    def _about(self) -> dict[str, Any]:
        """What was analysed, and what its accuracy is to be compared with."""
        found, summary = self.found, self.found.summary
        data = self.run.about["data"]
        commonest = self._commonest()
        judge = summary["judge"] if found.choice is None else found.choice.judge.document()
        return {
            "network": summary["network"],
            "layer": summary["head"] or None,
            "run": self.run.folder.resolve().name,
            "n_classes": found.n_classes,
            "n_features": found.n_features,
            "n_samples": summary["n_samples"],
            "n_eval_samples": summary["n_eval_samples"],
            "evaluated_on": summary["evaluated_on"],
            "judge": judge,
            "own_labels": self.run.own_labels,
            "dense_accuracy": summary["dense"]["accuracy"],
            "train_accuracy": summary["dense"]["train_accuracy"],
            "multi_label": found.dense.multi_label,
            "samples": "texts" if holds_texts(self.run) else "images",
            "commonest": commonest,
            "warnings": reader_warnings(summary, judge),
            "data": data.get("path") or data.get("source") or data["kind"],
            "notes": data_notes(summary),
            "versions": self.run.about["versions"],
        }

    def _commonest(self) -> dict[str, Any]:
        """What is right without a look at the images."""
        if self.found.dense.multi_label:
            found: dict[str, Any] = self.found.summary["dense"]["commonest"]
            return found
        commonest, fraction = self.found.verdicts.commonest
        return {"class": commonest, "accuracy": fraction}

    def _head(self) -> dict[str, Any] | None:
        """The sparse head that is explained beside the network's own; None without."""
        choice = self.found.choice
        if choice is None:
            return None
        return {
            "select": choice.select,
            "refit": choice.refit,
            "k": choice.k,
            "accuracy": choice.accuracy,
            "nnz": choice.head.subspaces.nnz,
            "n_features_used": len(torch.unique(choice.head.indices)),
            "loss": choice.loss,
            "interval": list(choice.interval),
            "why": choice.why,
            "at_most": choice.counts.at_most,
            "agreement": choice.counts.agreement,
        }

    def _classes(self, medians: list[float | None]) -> list[dict[str, Any]]:
        found = self.found
        dense, sparse, n_eval = found.verdicts.accuracies()
        changed = found.verdicts.changed()
        which = 0 if found.sparse is None else 1
        rows = []
        for c, name in enumerate(found.summary["class_names"]):
            to = {d: to for d, (to, _) in found.confusions.get(c, {}).items()}
            missed = to.pop(c + found.n_classes, [0, 0])[0]
            features = found.features[c]
            read = [] if found.sparse is None else features[found.sparse.read[c, features]].tolist()
            rows.append(
                {
                    "name": name,
                    "n_samples": found.summary["class_counts"][c],
                    "n_eval": int(n_eval[c]),
                    "dense": dense[c],
                    "sparse": sparse[c],
                    "features": features.tolist(),
                    "kept": read,
                    "changed": changed[c],
                    "confused": _outstanding(_most_taken(to, 0)),
                    "taken": _most_taken(to, which),
                    "reason": medians[c],
                    **(self._one_against_rest(c, missed) if found.dense.multi_label else {}),
                }
            )
        return rows

    def _one_against_rest(self, c: int, missed: int) -> dict[str, Any]:
        """How the network decides a class of multi-label data by itself."""
        dense, n_codes = self.found.summary["dense"], self.found.verdicts.n_classes
        own = self.found.confusions.get(c, {}).get(c + n_codes, ([0, 0], [0, 0]))
        precision = dense.get("average_precision", [None] * n_codes)[c]
        positive = int(self.found.verdicts.accuracies()[2][c])
        return {
            "missed": missed,
            "false": own[1][0],
            "average_precision": precision,
            "always_no": 1 - positive / max(1, self.found.verdicts.n_samples),
        }

    def _means(self) -> Tensor:
        """Means of each class, -∞ of those without samples."""
        means = self.found.means.means.clone()
        means[self.found.means.counts == 0] = -torch.inf
        return means

    def _features(self) -> list[dict[str, Any]]:
        found, relations = self.found, self.found.relations
        n_readers = torch.zeros(found.n_features, dtype=torch.int64)
        if found.sparse is not None:
            n_readers = found.sparse.read.sum(0)
        evidence = found.shares()[found.means.compared].mean(0)
        best = self._means().argmax(0)
        return [
            {
                "deciding": int(found.deciding[j]),
                "evidence": finite(float(evidence[j])),
                "readers": int(n_readers[j]),
                "best": None if relations.dead[j] else int(best[j]),
                "mean": float(relations.mean[j]),
                "share": finite(float(relations.share[j])),
                "dead": bool(relations.dead[j]),
                "flat": bool(relations.flat[j]),
                "twin": int(relations.twins[j]) if relations.twins[j] >= 0 else None,
            }
            for j in range(found.n_features)
        ]

    def _reasons(self) -> tuple[dict[str, Any] | None, list[float | None]]:
        """Sizes of sufficient reasons of a sample of the evaluation images, and class medians.

        The medians are the network's. None of multi-label data, where each class has its own.
        """
        found = self.found
        if found.dense.multi_label:
            return None, [None] * found.n_classes
        exact = self._prove and found.n_features <= PROVEN_FEATURES
        n = min(REASON_SAMPLES, found.evaluation.n_samples)
        if not self._prove:
            n = min(n, max(FEWEST_FOR_A_MEDIAN, QUICKLY // (found.n_classes * found.n_features)))
        keep = spread(torch.from_numpy(found.verdicts.labels), n)
        z, labels = found.evaluation.subset(keep).arrays()
        box = Box(found.survey.low.double(), found.survey.high.double())
        heads: dict[str, Head | SparseHead] = {"dense": found.dense}
        if found.choice is not None:
            heads["sparse"] = found.choice.head
        medians: list[float | None] = [None] * found.n_classes
        certain, rows = 1.0, []
        for name, head in heads.items():
            sizes = reason_sizes(head, z, box, exact=exact, seconds_each=PROOF_SECONDS)
            certain = min(certain, float(sizes.exact))
            rows.append(
                {
                    "name": name,
                    "median": float(sizes.sizes.double().median()),
                    "counts": torch.bincount(sizes.sizes).tolist(),
                    "n_read": int(sizes.relevant.median()),
                }
            )
            if name == "dense":
                for c in sorted(set(labels.tolist())):
                    own = sizes.sizes[labels == c]
                    if len(own) >= FEWEST_FOR_A_MEDIAN:
                        medians[c] = float(own.double().median())
        document = {
            "n_samples": n,
            "exact": certain,
            "n_features": found.n_features,
            "heads": rows,
        }
        return document, medians


def _most_taken(to: Mapping[int, list[int]], head: int) -> list[list[int]]:
    """Classes that a class is taken for by a head, and how often: the first few, most first."""
    found = sorted(([d, n[head]] for d, n in to.items() if n[head]), key=lambda x: (-x[1], x[0]))
    return found[:MOST_TAKEN]


def _outstanding(taken: list[list[int]]) -> int | None:
    """The class that another is most often taken for; None of a tie or of a single mistake."""
    first, second = (*(n for _, n in taken), 0, 0)[:2]
    return taken[0][0] if first > max(second, 1) else None


def _curve(summary: dict[str, Any], choice: HeadChoice | None) -> dict[str, Any]:
    series = []
    chosen = None if choice is None else choice.select
    if summary["path"]:
        first = summary["path"][0]
        points = [[row["k"], row["accuracy"]] for row in summary["path"]]
        name = f"{first['select']}, refitted"
        series.append({"name": name, "chosen": chosen == first["select"], "points": points})
    for name, rows in summary["influence"].items():
        points = [[int(k), row["accuracy"]] for k, row in rows.items()]
        series.append({"name": name, "chosen": chosen == name, "points": points})
    return {"dense": summary["dense"]["accuracy"], "series": series}


def _last(where: str, separators: str) -> str:
    """The end of a path or of `file.py:factory`, which tells it from others."""
    return re.split(f"[{separators}\\\\]", where.rstrip("/\\"))[-1] or where


def _pictures(gallery: Gallery, shots: Shots) -> dict[str, Any]:
    return {
        "maps": gallery.kind if gallery.mapped() else None,
        "note": gallery.note,
        "grid": shots.grid,
        "signed": shots.signed,
        "n_images": len(gallery.pictures),
        "n_missing": gallery.count(MISSING),
        "missing": _names(gallery, MISSING),
        "n_changed": gallery.count(CHANGED),
    }


def _names(gallery: Gallery, state: str) -> list[str]:
    found = [p.sample.id for p in gallery.pictures.values() if p.state == state]
    return found[:MISSING_NAMED]
