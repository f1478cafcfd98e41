"""The command that gives samples their groups: `penult groups`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer

from penult.cli import options as given
from penult.cli.console import tell, warn
from penult.cli.group_pages import groups_page
from penult.cli.opened import open_run
from penult.cli.output import print_json
from penult.cli.pages import print_page
from penult.cli.spread import OptionGroup, option, spread
from penult.data.image import ImageData
from penult.data.tables import text_of
from penult.errors import InputError
from penult.features.groups import GroupsTable, coded
from penult.features.groups_file import read_groups
from penult.measure.groups import write_groups_document
from penult.runs.groups import add_groups
from penult.runs.run import Run

Tables = list[tuple[GroupsTable, Literal["train", "eval"] | None]]
GroupsPath = Annotated[
    Path,
    typer.Argument(
        help="CSV, Parquet or JSON lines: one column names the sample (its id, an end of its path "
        "that no other has, or `row`), every other column is an attribute.",
        metavar="FILE",
    ),
]
Part = Annotated[
    Literal["train", "eval"] | None,
    option("Which samples the file names; by default those of both parts."),
]
IdColumn = Annotated[
    str | None, option("Column that names the sample; by default found by its title.", "--id")
]
Attributes = Annotated[
    list[str] | None,
    option("Take only this column; may be given several times.", "--attribute"),
]
Bins = Annotated[
    list[str] | None,
    option("age=4 cuts a column of numbers into 4 ranges; may be given several times.", "--bins"),
]


@dataclass(frozen=True)
class GroupsOptions(OptionGroup):
    """Groups that are given together with the data."""

    title: ClassVar[str] = "Groups of samples"

    groups: Annotated[
        Path | None,
        option("Attributes of the samples, by which accuracy is told: CSV, Parquet, JSON lines."),
    ] = None
    eval_groups: Annotated[
        Path | None,
        option("Attributes of the evaluation samples, if they stand in a file of their own."),
    ] = None
    group_columns: Annotated[
        str | None,
        option(
            "Columns of the table that is DATA (and of that of --eval) to take as attributes of "
            "the samples, such as sex,hospital."
        ),
    ] = None
    bins: Bins = None

    def read(self, held_out: bool) -> Tables:
        """The files, read before any long work, each with the part that it is about.

        Args:
            held_out: whether there is evaluation data.
        """
        bins = bins_of(self.bins or [])
        if bins and not (self.groups or self.eval_groups or self.group_columns):
            raise InputError("--bins needs --groups FILE or --group-columns")
        if self.eval_groups is not None and not held_out:
            raise InputError("--eval-groups needs --eval: without it give --groups")
        found: Tables = []
        if self.groups is not None:
            table = read_groups(self.groups, bins=bins)
            if table.by_row and held_out and self.eval_groups is None:
                raise InputError(
                    f"{self.groups} counts rows, which both the data and --eval have: give the "
                    "evaluation samples' groups with --eval-groups FILE"
                )
            both = held_out and self.eval_groups is None
            found.append((table, None if both else "train"))
        if self.eval_groups is not None:
            found.append((read_groups(self.eval_groups, bins=bins), "eval"))
        return found

    def of_data(self, data: ImageData, held_out: ImageData | None) -> Tables:
        """The attributes that stand in columns of the data themselves; none where not asked for.

        Raises:
            InputError: the data are no table, or have no such column; says which there are.
        """
        if self.group_columns is None:
            return []
        if self.groups is not None or self.eval_groups is not None:
            raise InputError("--group-columns and --groups both say what the groups are: give one")
        bins = bins_of(self.bins or [])
        names = [name.strip() for name in self.group_columns.split(",") if name.strip()]
        names += [name for name in bins if name not in names]
        if not names:
            raise InputError("--group-columns: expected names of columns, such as sex,hospital")
        found: Tables = []
        parts: tuple[tuple[Literal["train", "eval"], ImageData | None], ...]
        parts = ("train", data), ("eval", held_out)
        for part, images in parts:
            if images is not None:
                columns = {name: [text_of(x) for x in images.column(name)] for name in names}
                coded_columns = {
                    name: coded(f"the data ({part})", name, values, bins.get(name))
                    for name, values in columns.items()
                }
                ids = [images.id(i) for i in range(len(images))]
                found.append((GroupsTable("the data", ids, False, coded_columns), part))
        return found


@spread
def groups(
    run: given.RunFolder,
    file: GroupsPath,
    part: Part = None,
    id_: IdColumn = None,
    attribute: Attributes = None,
    bins: Bins = None,
    as_json: given.AsJson = False,
) -> None:
    """Give the samples of a run their groups, and print the accuracy in each."""
    found = open_run(run)
    tell(f"groups: reading {file}")
    table = read_groups(file, id_column=id_, attributes=attribute or [], bins=bins_of(bins or []))
    document = take_groups(found, [(table, part)])
    if as_json:
        print_json(document)
        return
    print_page(groups_page(document))


def take_groups(run: Run, tables: Tables) -> dict[str, Any]:
    """Keep groups in a run, say on standard error what did not fit, and measure."""
    matches = [add_groups(run, table, part) for table, part in tables]
    for matched in matches:
        for line in matched.warnings():
            warn(line)
    document = write_groups_document(run)
    return {**document, "matched": [matched.document() for matched in matches]}


def bins_of(texts: Sequence[str]) -> dict[str, int]:
    """The arguments of `--bins`."""
    found = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        if not equals or not number.isdecimal() or not name:
            raise InputError(f"--bins: expected attribute=number, such as age=4, found {text!r}")
        found[name] = int(number)
    return found
