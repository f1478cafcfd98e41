"""The command that compares two runs or heads: `penult diff`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from penult.cli import options as given
from penult.cli.console import begun_when_heard, progress_bars, tell
from penult.cli.diff_pages import diff_page
from penult.cli.many_pages import many_page
from penult.cli.output import print_json
from penult.cli.pages import print_page
from penult.cli.spread import OptionGroup, option, spread
from penult.cli.values import device_of
from penult.diff.compare import TwoSides
from penult.diff.gate import Rule, check_rules, judge_rules, read_gate
from penult.diff.many import compare_many
from penult.diff.page import diff_html
from penult.diff.pictures import flip_maps, take_shots
from penult.diff.sample_table import ENDINGS, write_sample_table
from penult.diff.side import Side
from penult.diff.text import fails, junit, markdown
from penult.errors import InputError
from penult.explain.gallery import PictureOptions
from penult.extras import import_extra
from penult.progress import Progress
from penult.runs.groups import evaluated_part, groups_of
from penult.runs.outputs import PAGES, check_output_file
from penult.runs.reopen import Places
from penult.runs.run import Run
from penult.storage import write_atomically
from penult.text import number_of

MARKDOWN = (".md", ".markdown", ".txt", "")  # the summary files of build servers have no ending
JUNIT = (".xml",)
FAILED = 3  # exit status where a rule fails; nothing else uses it

SIDE = "A run, or RUN@dense, RUN@k5 (its sparse head), RUN@recipe.json (its edited head)."
Sides = Annotated[
    list[str],
    typer.Argument(
        metavar="OLD NEW",
        help=f"Before and now. {SIDE} With --many, runs that differ only by their seed.",
        show_default=False,
    ),
]
Many = Annotated[
    bool,
    option(
        "Compare many runs: tell what differs by the seed of the training, and what by a change.",
        "--many",
    ),
]
Changed = Annotated[
    list[str] | None,
    option("With --many, a run after the change; may be repeated, for several seeds."),
]
FailIf = Annotated[
    list[str] | None,
    option(
        "A rule that must not come true, such as 'accuracy < -0.5', 'class.any < -2', "
        "'group.male=yes < -1', 'negative_flips > 1%' or 'shortcut.returned'; may be repeated."
    ),
]
GateFile = Annotated[Path | None, option("A file of rules, penult-gate.toml.", "--gate")]
Strict = Annotated[
    bool, option("Fail as well where it cannot be told, as of too few samples.", "--strict")
]
MarkdownFile = Annotated[
    Path | None, option("Also write Markdown for a pull request.", "--markdown")
]
JUnitFile = Annotated[Path | None, option("Also write the rules' outcome as JUnit XML.", "--junit")]


@dataclass(frozen=True)
class DiffPageOptions(OptionGroup):
    """The page of a comparison and the table of its samples, and what their pictures take."""

    title: ClassVar[str] = "The page and the table"

    page: Annotated[
        Path | None,
        option(
            "Also write one HTML page in the style of the report: the images that flip, and the "
            "old and the new evidence side by side.",
            "--report",
        ),
    ] = None
    table: Annotated[
        Path | None,
        option(
            "Also write every sample as a row of a CSV or Parquet file: what both sides say of it, "
            "by which features, whether it flips, and heat maps."
        ),
    ] = None
    no_maps: Annotated[
        bool, option("Leave out the heat maps, for which both networks have to run.", "--no-maps")
    ] = False
    trust_run: Annotated[
        bool,
        option(
            "Run whatever code the runs name for their networks and data. Give it only for runs "
            "whose makers you trust.",
            "--trust-run",
        ),
    ] = False
    device: given.Device = "auto"

    def pictures(self, progress: Progress) -> PictureOptions:
        """How the pictures are taken; the runs stay as they are."""
        return PictureOptions(
            maps=not self.no_maps,
            sources=Places(trust_run=self.trust_run),
            device=device_of(self.device),
            keep=False,
            progress=progress,
        )


@spread
def diff(
    sides: Sides,
    many: Many = False,
    changed: Changed = None,
    fail_if: FailIf = None,
    gate: GateFile = None,
    strict: Strict = False,
    markdown_file: MarkdownFile = None,
    junit_file: JUnitFile = None,
    as_json: given.AsJson = False,
    *,
    paged: DiffPageOptions,
) -> None:
    """Tell what changed between two networks or heads, and whether that may ship.

    Exits with status 3 where a rule fails.
    """
    if changed and not many:
        raise InputError("--changed is about many runs: give it with --many")
    if many:
        if fail_if or gate or strict or markdown_file or junit_file or paged.page or paged.table:
            raise InputError(
                "--many tells seeds from a change and writes no files: give it without --fail-if, "
                "--gate, --strict, --markdown, --junit, --report and --table"
            )
        paged.refuse("is about pictures, which --many does not take")
        _diff_many(sides, changed or [], as_json)
        return
    if len(sides) != 2:
        raise InputError(
            f"expected two runs, OLD and NEW, found {len(sides)}; --many compares more than two"
        )
    rules = [Rule.read(text) for text in fail_if or []]
    if gate is not None:
        more, file_strict = read_gate(gate)
        rules, strict = [*more, *rules], strict or file_strict
    if strict and not rules:
        raise InputError("--strict is about rules: give them with --fail-if or --gate")
    if paged.page is None and paged.table is None:
        paged.refuse("is about pictures: give it with --report PAGE or --table FILE", but=["table"])
    _check_distinct(gate, markdown_file, junit_file, paged.page, paged.table)
    both = Side.read(sides[0]), Side.read(sides[1])
    for side in both:
        _check_outputs(side.run, markdown_file, junit_file, paged)
    _check(rules, *both)
    with progress_bars("reading both runs") as heard:
        compared = TwoSides.of(*both, heard)
        document = compared.document
        document["gate"] = judge_rules(rules, document)
        document["strict"] = strict
        if paged.page is not None or paged.table is not None:
            taken = begun_when_heard(heard, "images", "writing")
            shots = take_shots(compared, paged.pictures(taken))
            _write(paged.page, diff_html(compared, shots))
            if paged.table is not None:
                write_sample_table(paged.table, compared, flip_maps(compared, shots))
    _write(markdown_file, markdown(document))
    _write(junit_file, junit(document, strict))
    if as_json:
        print_json(document)
    else:
        print_page(diff_page(document))
        if paged.page is not None:
            print(f"\nReport: {paged.page}")
        if paged.table is not None:
            print(f"\nTable: {paged.table}")
    _end_by(document["gate"], strict)


def _check_outputs(
    run: Run, markdown_file: Path | None, junit_file: Path | None, paged: DiffPageOptions
) -> None:
    """Refuse files that would replace something of a run, before the work starts."""
    outputs = (
        (markdown_file, "Markdown file", MARKDOWN),
        (junit_file, "JUnit file", JUNIT),
        (paged.page, "page", PAGES),
        (paged.table, "table", ENDINGS),
    )
    for path, what, endings in outputs:
        if path is not None:
            check_output_file(path, run, what, endings)
    if paged.table is not None and paged.table.suffix.lower() == ".parquet":
        import_extra("pyarrow", "tables")


def _end_by(gate: Sequence[Mapping[str, Any]], strict: bool) -> None:
    """End with another status where a rule stops the change; it is said where only --strict does.

    Raises:
        typer.Exit: a rule stops it.
    """
    stopped = [row for row in gate if fails(row, strict)]
    n_unsure = sum(not fails(row, False) for row in stopped)
    if n_unsure:
        tell(f"--strict: the gate fails, since it cannot be told of {number_of(n_unsure, 'rules')}")
    if stopped:
        raise typer.Exit(FAILED)


def _diff_many(seeds: list[str], changed: list[str], as_json: bool) -> None:
    named = [*seeds, *changed]
    twice = next((name for i, name in enumerate(named) if name in named[:i]), None)
    if twice is not None:
        raise InputError(f"{twice} is given twice: expected another run of each seed")
    read = [Side.read(name) for name in named]
    with progress_bars("reading the runs") as heard:
        document = compare_many(read[: len(seeds)], read[len(seeds) :], heard)
    if as_json:
        print_json(document)
    else:
        print_page(many_page(document))


def _check_distinct(*files: Path | None) -> None:
    """Refuse the same file for two of --gate, --markdown, --junit, --report and --table."""
    named: dict[Path, Path] = {}
    for file in files:
        if file is not None and named.setdefault(file.resolve(), file) is not file:
            raise InputError(
                f"{file} is given twice: expected another file for each of --gate, --markdown, "
                "--junit, --report and --table"
            )


def _check(rules: list[Rule], old: Side, new: Side) -> None:
    names = dict.fromkeys((*new.class_names, *old.class_names))
    groups: dict[str, Any] = {}
    for side in (old, new):
        found = groups_of(side.run, evaluated_part(side.run))
        if found is not None:
            groups |= {name: one.values for name, one in found.attributes.items()}
    check_rules(rules, [*names], groups)


def _write(file: Path | None, text: str) -> None:
    if file is not None:
        write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
