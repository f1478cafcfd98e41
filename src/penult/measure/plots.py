"""Plots of measures, one file each: PNG, SVG or PDF."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from penult.errors import InputError
from penult.measure.tables import classes_seen_first
from penult.plotting import Format, new_figure, plain_style, save_figure, with_fonts

# Okabe and Ito's colours, told apart by the colour-blind; the line styles say it once more.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9")
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKS = ("o", "s", "^", "D", "v", "x", "P")
NAMED_CLASSES = 30
NAMED_RUNS = 6

Figure = Any
Draw = Callable[[Mapping[str, Any]], Figure]


def require_plots(folder: Path) -> None:
    """Refuse before the long work starts if the folder is a file."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: expected a folder for the plots")


def plot_measures(document: Mapping[str, Any], folder: Path, kind: Format = "png") -> list[Path]:
    """Write the plots of one document of measures; those of what was left out are left out.

    Args:
        document: of `measure_run`.
        folder: made where it is not there.
        kind: of picture.

    Returns:
        The files.
    """
    draws: dict[str, Draw] = {
        "selectivity": _selectivity,
        "spectra": _spectra,
        "overlap": _overlap,
        "stability": _stability,
    }
    if document["essentiality"] is not None:
        draws |= {"decision": _decision, "essentiality": _essentiality, "curves": _curves}
        draws |= {"faithfulness": _faithfulness}
    return _write(draws, document, folder, kind)


def plot_comparison(document: Mapping[str, Any], folder: Path, kind: Format = "png") -> list[Path]:
    """Write the plot of a comparison: every row, run by run, with its intervals."""
    return _write({"comparison": _comparison}, document, folder, kind)


def plot_layers(document: Mapping[str, Any], folder: Path, kind: Format = "png") -> list[Path]:
    """Write the plots of several layers: every row, layer by layer, and those of each layer."""
    rows = {"runs": document["layers"], "rows": document["rows"]}
    found = _write({"layers": _comparison}, rows, folder, kind)
    for name, measures in document["measures"].items():
        found += plot_measures(measures, folder / quote(name, safe=""), kind)
    return found


def _write(
    draws: Mapping[str, Draw],
    document: Mapping[str, Any],
    folder: Path,
    kind: Format,
) -> list[Path]:
    require_plots(folder)
    files = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for name, draw in draws.items():
            with plain_style():
                figure = with_fonts(draw(document))
            files.append(folder / f"{name}.{kind}")
            save_figure(figure, files[-1])
    # What holds for several plots, such as letters that no font has, is said once.
    for text in dict.fromkeys(str(warning.message) for warning in said):
        warnings.warn(text, stacklevel=3)
    return files


def _figure(n_columns: int = 1, n_rows: int = 1, size: tuple[float, float] = (5.2, 4)) -> Any:
    figure = new_figure(size[0] * n_columns, size[1] * n_rows)
    return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def _style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}


def _finish(axes: Any, x: str, y: str, title: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _selectivity(document: Mapping[str, Any]) -> Figure:
    figure, ((left, right),) = _figure(2)
    found = document["selectivity"]
    fractions = [float(f) for f in found["psi"]]
    names = document["class_names"]
    for c in range(len(names)):
        values = [_or_nan(psi["classes"]["mean"][c]) for psi in found["psi"].values()]
        label = "one class" if c == 0 else None
        left.plot(fractions, values, color="0.75", linewidth=1, label=label)
    means = [_or_nan(psi["mean"]) for psi in found["psi"].values()]
    left.plot(fractions, means, color=COLOURS[0], marker="o", label="mean of the classes")
    left.legend()
    left.set_ylim(0, 1)
    _finish(left, "fraction of the activation", "Ψ", "How few features carry a sample")
    counts = found["mu"]["histogram"]
    width = 1 / len(counts)
    places = [i * width for i in range(len(counts))]
    right.bar(places, counts, width=width, align="edge", color=COLOURS[0], edgecolor="white")
    if found["mu"]["mean"] is not None:
        mean = found["mu"]["mean"]
        right.axvline(mean, color=COLOURS[1], linestyle="--", label=f"mean {mean:.3f}")
        right.legend()
    _finish(right, "μ", "units (of n_features)", "How far a unit prefers one class")
    return figure


def _spectra(document: Mapping[str, Any]) -> Figure:
    figure, ((left, right),) = _figure(2)
    found = document["dimension"]
    for i, name in enumerate(("covariance", "within", "between", "second_moment")):
        if found[name] is None:
            continue
        values = found[name]["eigenvalues"]
        total = sum(values)
        if not total:
            continue
        # What is left below this of n_classes − 1 directions is rounding.
        shown = [value for value in values if value > 1e-9 * values[0]]
        places = range(1, len(shown) + 1)
        label = name.replace("_", " ")
        left.plot(places, [v / total for v in shown], label=label, **_style(i))
        sums = [sum(values[: n + 1]) / total for n in range(len(values))]
        right.plot(range(1, len(values) + 1), sums, label=label, **_style(i))
    _count_axis(left)
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:g}")
    _finish(left, "component", "fraction of the variance", "Spectra")
    _count_axis(right)
    right.set_ylim(0, 1.02)
    for fraction in (0.9, 0.95, 0.99):
        right.axhline(fraction, color="0.6", linewidth=0.8, linestyle=":")
    right.legend(loc="lower right")
    _finish(right, "components", "fraction of the variance", "Together (dotted: 90, 95, 99 %)")
    return figure


def _count_axis(axes: Any) -> None:
    """A logarithmic axis of numbers of things, labelled 1, 10 and 100 rather than by powers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:.0f}")


def _overlap(document: Mapping[str, Any]) -> Figure:
    found = document["overlap"]
    k = found["k"]
    matrices = [
        (found["jaccard"]["matrix"], f"Jaccard of the k = {k} features"),
        (found["mutual_information"]["normalised"], "Mutual information / entropy"),
        (found["distributions"]["overlap"], "Overlap of the distributions"),
        (document["dimension"]["classes"]["overlap"], f"Overlap of {k}-dimensional subspaces"),
    ]
    figure, axes = _figure(2, 2, size=(5.6, 4.9))
    names = document["class_names"]
    for place, (matrix, title) in zip(axes.flat, matrices, strict=True):
        place.set_title(title, fontsize=11)
        if matrix is None:
            place.text(0.5, 0.5, "too many classes to draw", ha="center", va="center")
            place.set_axis_off()
            continue
        cells = [[_or_nan(value) for value in row] for row in matrix]
        image = place.imshow(cells, vmin=0, vmax=1, cmap="cividis")
        figure.colorbar(image, ax=place, shrink=0.8)
        if len(names) <= NAMED_CLASSES:
            short = [name if len(name) <= 12 else name[:11] + "…" for name in names]
            place.set_xticks(range(len(names)), short, rotation=90, fontsize=8)
            place.set_yticks(range(len(names)), short, fontsize=8)
        else:
            place.set(xlabel="class", ylabel="class")
    return figure


def _stability(document: Mapping[str, Any]) -> Figure:
    found = document["stability"]["frequency"]
    classes = classes_seen_first(document)[:NAMED_CLASSES]
    names = [document["class_names"][c] for c in classes]
    figure, ((axes,),) = _figure(size=(6.4, 1.6 + 0.24 * len(names)))
    for i, (key, label) in enumerate(
        (("jaccard", "like the set of all samples"), ("between", "like that of another sample"))
    ):
        for line, c in enumerate(classes):
            row = found["classes"][c]
            if row is None:
                continue
            place = line + 0.18 * (2 * i - 1)
            axes.plot(row[key]["interval"], [place, place], color=COLOURS[i], linewidth=1.5)
            said = label if line == 0 else None
            mark = {"marker": MARKS[i], "color": COLOURS[i], "linestyle": "none", "markersize": 5}
            axes.plot(row[key]["mean"], place, label=said, **mark)
    axes.axvline(found["chance"], color="0.5", linestyle=":", label="chance")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.03)
    _finish(axes, f"Jaccard of the k = {found['k']} features", "class", "Features chosen again")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _decision(document: Mapping[str, Any]) -> Figure:
    found = document["dimension"]["decision"]
    figure, axes = _figure(2)
    for place, key, what, x in (
        (axes[0, 0], "k", "features", "k (features per class)"),
        (axes[0, 1], "directions", "directions", "principal directions of the logits"),
    ):
        part = found[key]
        dense = 100 * found["dense_accuracy"]
        place.axhline(dense, color="0.4", linestyle=":", label="dense head")
        place.axhspan(dense - 100 * found["tolerance"], dense, color="0.9", label="tolerance")
        if part is not None:
            steps = part["steps"]
            if len(steps) <= 12:
                place.set_xticks([step["n"] for step in steps])
            place.errorbar(
                [step["n"] for step in steps],
                [100 * step["accuracy"] for step in steps],
                yerr=[
                    [100 * (step["interval"][1] - step["loss"]) for step in steps],
                    [100 * (step["loss"] - step["interval"][0]) for step in steps],
                ],
                color=COLOURS[0], marker="o", markersize=4, capsize=2, label="accuracy",
            )  # fmt: skip
        place.legend(loc="lower right")
        _finish(place, x, "accuracy (%)", f"How few {what} keep the decision")
    return figure


def _essentiality(document: Mapping[str, Any]) -> Figure:
    found = document["essentiality"]
    kinds = list(found["activation"])
    modes = list(found["replaced"])
    figure, axes = _figure(2, size=(5.6, 4.2))
    titles = {
        "drop": f"the k = {found['k']} features replaced",
        "keep": f"all but the k = {found['k']} replaced",
    }
    for place, edit in zip(axes[0], titles, strict=True):
        for i, kind in enumerate(kinds):
            cells = [found["replaced"][mode][kind][edit] for mode in modes]
            places = [m + 0.27 * (i - (len(kinds) - 1) / 2) for m in range(len(modes))]
            heights = [100 * _or_nan(cell["mean"]) for cell in cells]
            place.bar(places, heights, 0.25, color=COLOURS[i], label=f"{kind} set",
                      yerr=_errors(cells), capsize=2, hatch=("", "//", "..")[i],
                      edgecolor="white")  # fmt: skip
        dense = 100 * found["dense_accuracy"]
        place.axhline(dense, color="0.3", linestyle=":", label="nothing replaced")
        labels = [mode.replace("_", "\n") for mode in modes]
        place.set_xticks(range(len(modes)), labels)
        place.set_ylim(0, 105)
        _finish(place, "replaced by", "accuracy (%)", titles[edit])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _errors(cells: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    known = [
        (cell["mean"], cell["interval"]) if cell["interval"] else (0.0, (0.0, 0.0))
        for cell in cells
    ]
    low = [100 * max(0.0, mean - interval[0]) for mean, interval in known]
    high = [100 * max(0.0, interval[1] - mean) for mean, interval in known]
    return [low, high]


def _curves(document: Mapping[str, Any]) -> Figure:
    found = document["essentiality"]
    figure, axes = _figure(2)
    titles = {"drop": "k features at their mean", "keep": "all but k features at their mean"}
    for place, edit in zip(axes[0], titles, strict=True):
        for i, kind in enumerate(found["activation"]):
            steps = [step for step in found["curves"] if kind in step]
            ks = [step["k"] for step in steps]
            cells = [step[kind][edit] for step in steps]
            means = [100 * _or_nan(cell["mean"]) for cell in cells]
            place.errorbar(ks, means, yerr=_errors(cells), label=f"{kind} sets", marker=MARKS[i],
                           markersize=4, capsize=2, **_style(i))  # fmt: skip
        dense = 100 * found["dense_accuracy"]
        place.axhline(dense, color="0.4", linestyle=":", label="nothing replaced")
        place.set_xscale("log")
        ticks = [step["k"] for step in found["curves"]]
        place.set_xticks(ticks, map(str, ticks))
        place.minorticks_off()
        place.set_ylim(0, 105)
        _finish(place, "k (features per class)", "accuracy (%)", titles[edit])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _faithfulness(document: Mapping[str, Any]) -> Figure:
    found = document["faithfulness"]
    figure, axes = _figure(2)
    for place, edit in zip(axes[0], ("deletion", "insertion"), strict=True):
        for i, (name, curves) in enumerate(found["scores"].items()):
            values = [100 * value for value in curves[edit]["curve"]]
            label = f"{name} ({curves[edit]['area']:.3f})"
            place.plot(found["steps"], values, label=label, **_style(i))
        place.set_ylim(0, 105)
        past = "deleted" if edit == "deletion" else "inserted"
        _finish(place, f"features {past}, most influential first", "accuracy (%)", edit.title())
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18)}
        place.legend(title="score (area)", ncols=3, fontsize=8, **below)
    return figure


def _comparison(document: Mapping[str, Any]) -> Figure:
    rows = {
        name: row
        for name, row in document["rows"].items()
        if any(cell["value"] is not None for cell in row)
    }
    n_columns = 4
    n_rows = -(-len(rows) // n_columns)
    figure, axes = _figure(n_columns, n_rows, size=(3, 2.4))
    runs = [Path(run).name for run in document["runs"]]
    for place in axes.flat[len(rows) :]:
        place.set_axis_off()
    for place, (name, row) in zip(axes.flat, rows.items(), strict=False):
        if len(runs) > NAMED_RUNS:
            # So many are layers in their order: a line says more than marks to tell them apart.
            values = [_or_nan(cell["value"]) for cell in row]
            place.plot(values, color="#999999", lw=1, zorder=1)
        for i, cell in enumerate(row):
            if cell["value"] is None:
                continue
            style = 0 if len(runs) > NAMED_RUNS else i
            mark = {"marker": MARKS[style % len(MARKS)], "color": COLOURS[style % len(COLOURS)]}
            place.plot(i, cell["value"], **mark)
            if cell["interval"]:
                place.plot([i, i], cell["interval"], color=mark["color"])
        many = len(runs) > NAMED_RUNS
        place.set_xticks(
            range(len(runs)), runs, rotation=90 if many else 20, fontsize=5 if many else 8
        )
        place.set_xlim(-0.5, len(runs) - 0.5)
        _finish(place, "", "", name)
        place.title.set_fontsize(9)
    return figure


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
