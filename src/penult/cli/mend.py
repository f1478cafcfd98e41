"""The command that compares ways to mend a head: `penult mend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penult.cli import options as given
from penult.cli.console import progress_bars, warn
from penult.cli.opened import open_run
from penult.cli.option_groups import ReopenedOptions
from penult.cli.output import print_json
from penult.cli.pages import print_page
from penult.cli.spread import option, spread
from penult.edit.edited_run import refuse_other_head, save_head, save_network
from penult.edit.mend_table import FORMAT, best_mend, compare_mends, fitted_mend
from penult.edit.mends import MENDS
from penult.errors import InputError
from penult.runs.outputs import check_output_folder
from penult.storage import read_json, write_json
from penult.text import percent

Attribute = Annotated[str, option("Attribute whose groups are to be treated alike.", "--groups")]
Seeds = Annotated[int, option("How many times the samples are split anew.")]


Name = Annotated[
    str | None,
    option(
        "Which mend --out keeps; by default the one that the second part of the samples chose "
        "most often by its worst group."
    ),
]
MendedOut = Annotated[
    Path | None,
    option("Folder for the mended head and the network with it in place."),
]


@spread
def mend(
    run: given.RunFolder,
    *,
    attribute: Attribute,
    seeds: Seeds = 5,
    name: Name = None,
    out: MendedOut = None,
    as_json: given.AsJson = False,
    reopened: ReopenedOptions,
) -> None:
    """Try all ways to mend a head under one protocol, and print one table."""
    opened = open_run(run)
    if out is not None:
        check_output_folder(out, "the mended head", edited=True)
        if not _is_repeat(out, attribute, seeds, name):
            refuse_other_head(out)
    if name is not None and name not in [one.name for one in MENDS]:
        known = ", ".join(one.name for one in MENDS)
        raise InputError(f"--name: no mend is called {name!r}; there are {known}")
    with progress_bars() as heard:
        document = compare_mends(opened, attribute, seeds=seeds, progress=heard("mends"))
    if out is not None:
        kept = name or best_mend(document)
        head = fitted_mend(opened, document, kept)
        names = tuple(opened.summary()["class_names"])
        with opened.adding(out):
            save_head(out / "head.safetensors", head, names, sparse=False)
            write_json(out / "mends.json", {**document, "kept": kept})
            for line in save_network(opened, head, out, reopened.sources()):
                warn(line)
    if as_json:
        print_json(document)
        return
    print_page(mends_page(document))
    if out is not None:
        print(f"\nMended head ({kept}, fitted to all these samples): {out}")


def _is_repeat(folder: Path, attribute: str, seeds: int, name: str | None) -> bool:
    """Whether a folder holds what the same command wrote."""
    file = folder / "mends.json"
    if not file.is_file():
        return False
    held = read_json(file, FORMAT)
    same = (held.get("attribute"), held.get("seeds")) == (attribute, seeds)
    return same and name in (None, held.get("kept"))


def mends_page(document: Mapping[str, Any]) -> RenderableType:
    """One row for each mend: the worst group, the means, what is lost and what is touched."""
    table = Table(box=None, pad_edge=False)
    table.add_column("mend")
    headings = ("needs groups", "worst group", "mean", "mean of groups", "lost", "features")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in document["mends"]:
        table.add_row(row["name"], "yes" if row["groups_needed"] else "no", *_cells(row))
    best = document["best"]
    for name, key, needed in (
        ("chosen with groups", "with_groups", "yes"),
        ("chosen without groups", "without_groups", "no"),
    ):
        table.add_row(name, needed, *_cells(best[key]), style="green")
    title = (
        f"Mends of the dense head by {document['attribute']}: percent right, mean ± standard "
        f"deviation over {document['seeds']} splits of {document['n_samples']:,} samples"
    )
    note = (
        "Each split fits on 35 % of the samples, chooses a setting on 15 %, and reports on the "
        "other half. The last rows are what comes out where those 15 % also choose the mend: "
        f"{_counted(best['with_groups']['mends'])} by the worst group, and without groups "
        f"{_counted(best['without_groups']['mends'])} by the mean over the classes. features: how "
        "many have other weights than before, or, for a sparse mend, are read at all."
    )
    return Group(Text(title, style="bold"), table, Text(), Text(note))


def _cells(row: Mapping[str, Any]) -> list[str]:
    told = [_spread(row, name) for name in ("worst", "mean", "mean_of_groups")]
    return [*told, f"{100 * row['lost']:+.2f}", f"{row['features']:.0f}"]


def _spread(row: Mapping[str, Any], name: str) -> str:
    sd = row[f"{name}_sd"]
    return percent(row[name]) if sd is None else f"{percent(row[name])} ± {100 * sd:.1f}"


def _counted(names: Sequence[str]) -> str:
    """`DFR (3 times), refit to labels (twice)`."""
    times = {1: "once", 2: "twice"}
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return ", ".join(f"{name} ({times.get(n, f'{n} times')})" for name, n in counts.items())
