"""Measures as a person reads them in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penult.measure.essentiality import EDITS
from penult.network.link import SIGMOID
from penult.text import percent

NONE = "–"
CLASSES_SHOWN = 20


LAYER_COLUMNS = {
    "n_features": "features",
    "psi at 0.5": "Ψ at 0.5",
    "mu": "μ",
    "class overlap (Jaccard)": "class overlap",
    "participation ratio": "particip.",
    "entropy rank": "entropy rank",
    "intrinsic dimension": "intrinsic",
    "nc1": "nc1",
    "stability between samples": "stability",
}


def measures_page(document: Mapping[str, Any]) -> RenderableType:
    """The page that `penult measure` prints."""
    parts = [
        _heading(document),
        *([_decisions(document)] if document.get("decisions") else []),
        _selectivity(document),
        _classes(document),
        _overlap(document),
        _dimension(document),
        _stability(document),
    ]
    if document["essentiality"] is not None:
        multi_label = document.get("link") == SIGMOID
        parts.append(_essentiality(document["essentiality"], multi_label))
        parts.append(_faithfulness(document["faithfulness"]))
    lines: list[RenderableType] = []
    for part in parts:
        lines += [part, Text()]
    lines += [Text(f"left out: {name}: {why}", "dim") for name, why in document["left_out"].items()]
    return Group(*lines)


def comparison_page(document: Mapping[str, Any]) -> RenderableType:
    """The page that `penult measure --compare` prints."""
    table = _table("", *document["runs"])
    for name, row in document["rows"].items():
        table.add_row(name, *(_number(cell["value"], cell["interval"]) for cell in row))
    agreement = _table("runs", "class overlap", "class subspaces", "confusions")
    for pair in document["agreement"]:
        cells = [_correlation(found) for name, found in pair.items() if name != "runs"]
        agreement.add_row("\n".join(pair["runs"]), *cells)
    return Group(
        _title("Runs side by side (95 % intervals)"),
        table,
        Text(),
        _title("The same story? Rank correlation over pairs of classes"),
        agreement,
    )


def layers_page(document: Mapping[str, Any]) -> RenderableType:
    """The page that `penult measure MODEL DATA --layer` prints: a line a layer."""
    rows = document["rows"]
    names = {label: name for name, label in LAYER_COLUMNS.items() if name in rows}
    table = _table("layer", *names)
    for i, layer in enumerate(document["layers"]):
        cells = [rows[name][i]["value"] for name in names.values()]
        table.add_row(Text(layer), *map(_number, cells))
    note = Text("Intervals, and all else that was measured: --json, --plots", style="dim")
    return Group(_title("Layers, in the order in which they run"), table, note)


def _title(text: str) -> Text:
    return Text(text, style="bold")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(columns):
        # A class or folder name is data: its brackets are no markup.
        table.add_column(Text(name), justify="right" if i else "left", overflow="fold")
    return table


def _number(value: float | None, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return NONE
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return shown if interval is None else f"{shown} [{interval[0]:.4g}, {interval[1]:.4g}]"


def _percent(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return NONE
    if found["interval"] is None:
        return percent(found["mean"])
    return (
        f"{percent(found['mean'])} ± {100 * (found['interval'][1] - found['interval'][0]) / 2:.2f}"
    )


def _correlation(found: Mapping[str, Any] | None) -> str:
    if found is None or found["rank_correlation"] is None:
        return NONE
    return f"{found['rank_correlation']:.2f} (p = {found['p']:.3f})"


def _heading(document: Mapping[str, Any]) -> RenderableType:
    layer = f"layer {document['layer']}: " if document["layer"] else ""
    where = "evaluation samples" if document["evaluated_on"] == "eval" else "of those analysed"
    lines = [
        f"{layer}{document['n_features']:,} features, {document['n_classes']:,} classes, "
        f"{document['n_samples']:,} samples",
        f"accuracies on {document['n_eval_samples']:,} {where}; 95 % intervals in brackets",
    ]
    if document["share"] == "|z|":
        lines.append("features can be negative: shares, Ψ and μ are those of |z|")
    if document["dead"]["n"]:
        named = ", ".join(map(str, document["dead"]["features"][:10]))
        more = " and so on" if document["dead"]["n"] > 10 else ""
        lines.append(f"{document['dead']['n']:,} features never change: {named}{more}")
    if document["n_silent"]:
        lines.append(f"{document['n_silent']:,} samples are all zero: they have no shares")
    for how_many, names in document["few_samples"].items():
        if names:
            said = "no samples" if how_many == "none" else "one sample"
            more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
            lines.append(f"classes with {said}: {', '.join(names[:10])}{more}")
    return Text("\n".join(lines))


def _selectivity(document: Mapping[str, Any]) -> RenderableType:
    found = document["selectivity"]
    table = _table("", "mean", "median")
    for fraction, psi in found["psi"].items():
        median = _number(psi["median"], psi["median_interval"])
        table.add_row(f"Ψ at {fraction}", _number(psi["mean"], psi["interval"]), median)
    mu = found["mu"]
    table.add_row("μ of the units", _number(mu["mean"], mu["interval"]), _number(mu["median"]))
    return Group(_title("Selectivity (0 none, 1 one feature or one class)"), table)


def _decisions(document: Mapping[str, Any]) -> RenderableType:
    table = _table("class", "have it", "always no", "right (%)", "balanced", "average precision")
    for c in classes_seen_first(document)[:CLASSES_SHOWN]:
        name, row = document["class_names"][c], document["decisions"][c]
        shown = [row[key] for key in ("balanced", "average_precision")]
        table.add_row(
            _printable(name),
            f"{row['n_positive']:,}",
            percent(row["always_no"]),
            f"{percent(row['accuracy'])} [{', '.join(map(percent, row['interval']))}]",
            *(NONE if value is None else percent(value) for value in shown),
        )
    note = (
        "Each class is a yes-or-no decision of its own, yes where its logit is above 0. "
        "Always no: right by never giving the class. Balanced: mean of the accuracies on the "
        "samples that have the class and on all others. By guessing, the average precision is the "
        "part of the samples that have the class."
    )
    left = document["n_classes"] - CLASSES_SHOWN
    more = [Text(f"… and {left:,} more classes: --json", style="dim")] if left > 0 else []
    return Group(_title("Decisions, one class against the rest"), table, *more, Text(note, "dim"))


def _printable(name: str) -> Text:
    return Text("".join(x if x.isprintable() else "·" for x in name))


def classes_seen_first(document: Mapping[str, Any]) -> list[int]:
    """Classes in their order, those without samples last: nothing was seen of them."""
    counts = document["class_counts"]
    return sorted(range(len(counts)), key=lambda c: not counts[c])


def _classes(document: Mapping[str, Any]) -> RenderableType:
    fractions = list(document["selectivity"]["psi"])
    middle = min(fractions, key=lambda f: abs(float(f) - 0.5))
    psi = document["selectivity"]["psi"][middle]["classes"]
    intrinsic = document["dimension"]["intrinsic"]["classes"]
    table = _table("class", f"Ψ at {middle}", "directions (90 %)", "intrinsic", "again", "features")
    for c in classes_seen_first(document)[:CLASSES_SHOWN]:
        name = document["class_names"][c]
        spectrum = document["dimension"]["classes"]["spectra"][c]
        again = document["stability"]["frequency"]["classes"][c]
        features = " ".join(f"{j:>4}" for j in document["overlap"]["sets"][c])
        table.add_row(
            _printable(name),
            _number(psi["mean"][c]),
            _number(None if spectrum is None else spectrum["components"]["0.9"]),
            _number(intrinsic[c]["value"]),
            _number(None if again is None else again["jaccard"]["mean"]),
            features if document["class_counts"][c] else NONE,
        )
    left = document["n_classes"] - CLASSES_SHOWN
    more = [Text(f"… and {left:,} more classes: --json", style="dim")] if left > 0 else []
    return Group(_title("Classes"), table, *more)


def _overlap(document: Mapping[str, Any]) -> RenderableType:
    found = document["overlap"]
    jaccard, information = found["jaccard"], found["mutual_information"]
    angles = document["dimension"]["classes"]
    table = _table("mean over pairs of classes", "")
    table.add_row(f"Jaccard of the {found['k']} features", _number(**_mean(jaccard)))
    table.add_row("mutual information of the sets (bits)", _number(**_mean(information)))
    table.add_row("overlap of the distributions", _number(found["distributions"]["mean_overlap"]))
    chance = f"{_number(angles['mean_overlap'])} (chance {_number(angles['chance'])})"
    table.add_row("overlap of the principal subspaces", chance)
    if found["confusion"] is not None:
        for name, label in (("jaccard", "Jaccard"), ("distributions", "distributions")):
            said = f"rank correlation with confusions, {label}"
            table.add_row(said, _correlation(found["confusion"][name]))
    lines: list[RenderableType] = [_title("Overlap of classes"), table]
    for pair in found["shared"][:5]:
        features = ", ".join(map(str, pair["features"]))
        lines.append(Text(f"  {' and '.join(pair['classes'])} share {features}", style="dim"))
    return Group(*lines)


def _mean(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": found["mean"], "interval": found["interval"]}


def _dimension(document: Mapping[str, Any]) -> RenderableType:
    found = document["dimension"]
    table = _table("spectrum", "participation ratio", "entropy rank", "90 %", "95 %", "99 %")
    for name in ("second_moment", "covariance", "within", "between"):
        if (row := found[name]) is None:
            continue
        cells = [_number(**row[key]) for key in ("participation_ratio", "entropy_rank")]
        cells += [_number(n) for n in row["components"].values()]
        table.add_row(name.replace("_", " "), *cells)
    intrinsic, collapse = found["intrinsic"], found["collapse"]
    nc = "" if collapse is None else f"; neural collapse nc1 {_number(**collapse['nc1'])}"
    lines: list[RenderableType] = [
        _title("Dimension"),
        table,
        Text(
            f"intrinsic dimension (TwoNN) {_number(intrinsic['value'], intrinsic['interval'])}{nc}"
        ),
    ]
    if (decision := found["decision"]) is not None:
        within = f"within {100 * decision['tolerance']:.2f} points of the dense head"
        for name, what in (("k", "features per class"), ("directions", "logit directions")):
            part = decision[name]
            if part is None or part.get("trivial"):
                continue
            ends = [_number(part[key]) for key in ("smallest", "confident")]
            said = f"{what} {within}: {ends[0]} as measured; {ends[1]} with 95 % confidence"
            lines.append(Text(f"{said} ({document['n_eval_samples']:,} samples)"))
    return Group(*lines)


def _stability(document: Mapping[str, Any]) -> RenderableType:
    table = _table("score", "like the set of all samples", "like that of another sample", "chance")
    for name, found in document["stability"].items():
        if found is not None:
            cells = [_number(**_mean(found[key])) for key in ("jaccard", "between")]
            table.add_row(name, *cells, _number(found["chance"]))
    k = document["stability"]["frequency"]["k"]
    return Group(_title(f"Stability of the {k} features (Jaccard, bootstrap)"), table)


def _essentiality(found: Mapping[str, Any], multi_label: bool) -> RenderableType:
    kinds = list(found["activation"])
    columns = [f"{edit} {kind}" for edit in EDITS for kind in kinds]
    table, mistaken = _table("replaced by", *columns), _table("replaced by", *columns)
    for mode, by_kind in found["replaced"].items():
        cells = [by_kind[kind][edit] for edit in EDITS for kind in kinds]
        table.add_row(mode.replace("_", " "), *map(_percent, cells))
        mistaken.add_row(mode.replace("_", " "), *(percent(cell["mistaken"]) for cell in cells))
    sizes = ", ".join(f"{kind} {_number(value)}" for kind, value in found["activation"].items())
    note = f"dense {percent(found['dense_accuracy'])} %; mean activation of the sets: {sizes}"
    counted = "samples of a class (%) still given it" if multi_label else "accuracy (%)"
    title = f"Essentiality: {counted} when {found['k']} features of the class, or the others, go"
    also = "Samples of other classes (%) taken for the class when the same is done to them"
    return Group(_title(title), table, _title(also), mistaken, Text(note, style="dim"))


def _faithfulness(found: Mapping[str, Any]) -> RenderableType:
    table = _table("score", "deletion area (less is better)", "insertion area (more is better)")
    for name, curves in found["scores"].items():
        cells = [
            _number(curves[edit]["area"], curves[edit]["interval"])
            for edit in ("deletion", "insertion")
        ]
        table.add_row(name, *cells)
    return Group(_title("Faithfulness of the scores"), table)
