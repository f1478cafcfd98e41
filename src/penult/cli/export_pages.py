"""What an export is and how it was proven, as a person reads it in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penult.text import percent


def export_page(document: Mapping[str, Any]) -> RenderableType:
    """The page that `penult export` prints."""
    parts: list[RenderableType] = [Text(_title(document), style="bold"), _files(document)]
    parts += [Text(), Text(_proof(document))]
    form = document["what"].get("head_form")
    if form is not None:
        parts += [Text(), *_form(form)]
    parts += _cost(document["cost"])
    parts += [Text(), *(Text(note) for note in document["notes"])] if document["notes"] else []
    return Group(*parts)


def _title(document: Mapping[str, Any]) -> str:
    head = document["head"]
    return (
        f"{document['what']['format']}: {head['n_classes']:,} classes read {head['n_read']:,} of "
        f"{head['n_features']:,} features"
    )


def _files(document: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("file")
    table.add_column("bytes", justify="right")
    table.add_column("SHA-256")
    for name, about in document["files"].items():
        table.add_row(name, f"{about['bytes']:,}", f"{about['sha256'][:16]}…")
    return table


def _proof(document: Mapping[str, Any]) -> str:
    proof = document["proof"]
    ran = ", ".join(f"{name} {v}" for name, v in proof["versions"].items() if name != "python")
    said = (
        f"Loaded in a fresh process without penult ({ran}) and compared with the network on "
        f"{proof['n_samples']:,} samples: the logits differ by at most "
        f"{proof['greatest_difference']:.2g} (the largest is {proof['largest_logit']:.3g}), and "
        f"{percent(proof['agreement'])} % of the decisions are the same."
    )
    accuracy = proof.get("accuracy")
    if accuracy is None:
        return said
    low, high = (percent(value) for value in accuracy["interval"])
    those = "decisions" if document["head"]["link"] == "sigmoid" else "samples"
    return said + (
        f" The export is right on {percent(accuracy['export'])} % of the {those} ({low} to {high} "
        f"with 95 % confidence), this head in penult on {percent(accuracy['network'])} %, and the "
        f"network with its own head on {percent(accuracy['own_head'])} %."
    )


def _form(form: Mapping[str, Any]) -> list[RenderableType]:
    said: list[RenderableType] = [
        Text(f"The head is computed in the form `{form['form']}` ({form['chosen']}).")
    ]
    if "measured" not in form:
        return said
    names = list(form["measured"][0]["forms"])
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.add_column(f"head alone in {form['runtime']}, µs for a batch")
    for name in names:
        table.add_column(name, justify="right")
    for row in form["measured"]:
        cells = [f"{1e6 * row['forms'][name]['median']:,.0f}" for name in names]
        table.add_row(f"{row['batch_size']:,}", *cells)
    return [*said, table]


def _cost(cost: Mapping[str, Any]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if "before" in cost:
        table = Table(box=None, pad_edge=False)
        for heading in ("", "before", "after", "less by"):
            table.add_column(heading, justify="left" if not heading else "right")
        names = {"parameters": "parameters", "multiplications": "multiplications for a sample"}
        for key, name in {**names, "bytes": "bytes of the file"}.items():
            before, after = cost["before"][key], cost["after"][key]
            table.add_row(name, f"{before:,}", f"{after:,}", f"{percent(1 - after / before)} %")
        parts += [Text(), table]
    for runtime, rows in cost["seconds"].items():
        if rows:
            said = f"Milliseconds for a batch in {runtime}, median (95 % interval)"
            parts += [Text(), Text(said), _seconds(rows)]
    return parts


def _seconds(rows: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("samples")
    compared = any("before" in row for row in rows.values())
    headings = ["before", "after", "speed-up"] if compared else ["after"]
    shared = any("head_share" in row["after"] for row in rows.values())
    headings += ["head before", "head after"] if shared and compared else []
    for heading in headings:
        table.add_column(heading, justify="right")
    for size, row in rows.items():
        sides = ("before", "after") if compared else ("after",)
        cells = [_milliseconds(row[side]) for side in sides]
        if compared:
            cells.append(f"{row['speed_up']:.2f}")
        if shared and compared:
            cells += [f"{percent(row[side]['head_share'])} %" for side in sides]
        table.add_row(size, *cells)
    return table


def _milliseconds(times: Mapping[str, Any]) -> str:
    low, middle, high = (
        f"{1e3 * value:.3g}"
        for value in (times["interval"][0], times["median"], times["interval"][1])
    )
    return f"{middle} ({low} to {high})"
