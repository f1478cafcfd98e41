"""Record: what of a run is handed over, the same for every tracker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penult.edit.shortcuts import shortcuts_document
from penult.explain.gallery import PictureOptions
from penult.intervals import accuracy_interval
from penult.measure.groups import groups_document
from penult.measure.measures import FORMAT as MEASURES
from penult.measure.plots import plot_measures
from penult.plotting import new_figure, plain_style, save_figure, with_fonts
from penult.progress import Progress
from penult.report.csv_tables import write_csv_tables
from penult.report.report import Report
from penult.runs.run import Run
from penult.storage import read_json
from penult.text import one_line, percent

MOST_CLASSES = 100  # with numbers of their own; the table has all


@dataclass(frozen=True, eq=False)
class Record:
    """What of a run is handed over.

    Attributes:
        name: of the run.
        parameters: what was analysed, in words.
        numbers: by name, such as `network/accuracy`; accuracies are fractions.
        by_k: by name, pairs of k and a number: sparse heads from few features to many.
        classes: one row for each class, accuracy with its interval.
        text: the main numbers as Markdown.
        plots: PNG files.
        page: the report.
        tables: CSV files.
    """

    name: str
    parameters: dict[str, str]
    numbers: dict[str, float]
    by_k: dict[str, list[tuple[int, float]]]
    classes: list[dict[str, Any]]
    text: str
    plots: list[Path]
    page: Path
    tables: list[Path]

    @classmethod
    def of(
        cls,
        run: Run,
        folder: Path,
        name: str | None = None,
        progress: Callable[[str], Progress] | None = None,
    ) -> Record:
        """Gather what a run has; its report is made if it has none.

        Args:
            run: a finished one; it stays as it is.
            folder: for plots, tables and a report that are made here.
            name: by default that of the run folder.
            progress: called with the name of a phase.
        """
        summary = run.summary()
        if progress is not None:
            progress("tables and plots")
        page = run.report_file
        if not page.is_file():
            heard = progress("images") if progress else None
            page = folder / "report.html"
            Report.of(run, pictures=PictureOptions(keep=False, progress=heard)).save(page)
        classes = _classes(summary)
        numbers = _numbers(run, summary, classes)
        return cls(
            name or run.folder.resolve().name,
            {key: one_line(str(value), 500) for key, value in _parameters(run, summary).items()},
            numbers,
            _by_k(summary),
            classes,
            _text(summary),
            _plots(run, summary, folder),
            page,
            write_csv_tables(run, folder),
        )


def _parameters(run: Run, summary: dict[str, Any]) -> dict[str, Any]:
    data = run.about["data"]
    return {
        "network": summary["network"] or "features",
        "layer": summary["head"] or "",
        "data": data.get("path") or data.get("source") or data["kind"],
        "evaluated_on": summary["evaluated_on"],
        "n_classes": summary["n_classes"],
        "n_features": summary["n_features"],
        "n_samples": summary["n_samples"],
        "n_eval_samples": summary["n_eval_samples"],
        "penult": run.about["versions"].get("penult", ""),
    }


def _classes(summary: dict[str, Any]) -> list[dict[str, Any]]:
    dense = summary["dense"]
    rows = []
    for name, n, right in zip(
        summary["class_names"], dense["n_samples"], dense["n_right"], strict=True
    ):
        low, high = accuracy_interval(right, n)
        accuracy = right / n if n else None
        rows.append({"class": name, "n": n, "accuracy": accuracy, "low": low, "high": high})
    return rows


def _numbers(run: Run, summary: dict[str, Any], classes: list[dict[str, Any]]) -> dict[str, float]:
    dense = summary["dense"]
    low, high = dense["interval"]
    found = {
        "network/accuracy": dense["accuracy"],
        "network/accuracy_low": low,
        "network/accuracy_high": high,
        "network/train_accuracy": dense["train_accuracy"],
    }
    if len(classes) <= MOST_CLASSES:
        found |= {f"class/{row['class']}": row["accuracy"] for row in classes}
    for name, part in (groups_document(run) or {}).items():
        worst = part["dense"]["worst"]
        found |= {f"group/{name}/worst": None if worst is None else worst["accuracy"]}
    suspected = shortcuts_document(run)
    if suspected is not None:
        found["suspects"] = suspected["n_suspects"]
    return {key: float(value) for key, value in found.items() if value is not None}


def _by_k(summary: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Of the fitted heads; where there are none, of those by influence."""
    rows = summary["path"]
    if not rows:
        return {
            f"sparse/{score}": [(int(k), row["accuracy"]) for k, row in each.items()]
            for score, each in summary["influence"].items()
        }
    keys = ("accuracy", "loss", "agreement", "n_features_used")
    return {f"sparse/{key}": [(int(row["k"]), float(row[key])) for row in rows] for key in keys}


def _text(summary: dict[str, Any]) -> str:
    dense = summary["dense"]
    low, high = (percent(end) for end in dense["interval"])
    lines = [
        f"The network is right on {percent(dense['accuracy'])} % of "
        f"{summary['n_eval_samples']:,} samples ({low} to {high} with 95 % confidence).",
        "",
    ]
    if summary["path"]:
        lines += ["| features per class | right (%) | loss in points |", "| --: | --: | --: |"]
        lines += [
            f"| {row['k']} | {percent(row['accuracy'])} | {100 * row['loss']:.2f} |"
            for row in summary["path"]
        ]
    return "\n".join(lines)


def _plots(run: Run, summary: dict[str, Any], folder: Path) -> list[Path]:
    """Accuracy against features per class, and those of `penult measure` if that was run."""
    found = [folder / "accuracy.png"]
    with plain_style():
        figure = new_figure(6.4, 4)
        axes = figure.subplots()
        for name, points in _by_k(summary).items():
            if name == "sparse/accuracy" or not summary["path"]:
                label = "sparse head" if summary["path"] else name.removeprefix("sparse/")
                axes.plot([k for k, _ in points], [100 * y for _, y in points], "o-", label=label)
        axes.axhline(100 * summary["dense"]["accuracy"], color="black", ls=":", label="network")
        axes.set(xlabel="features per class", ylabel="right (%)")
        axes.legend()
        save_figure(with_fonts(figure), found[0])
    measures = run.folder / "measures.json"
    if measures.is_file():
        found += plot_measures(read_json(measures, MEASURES), folder)
    return found
