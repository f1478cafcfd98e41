"""The commands that change a head: `penult edit` and `penult verdict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from penult.cli import options as given
from penult.cli.console import progress_bars, warn
from penult.cli.edit_pages import edit_page
from penult.cli.opened import open_run
from penult.cli.option_groups import MovedOptions
from penult.cli.output import print_json
from penult.cli.pages import print_page
from penult.cli.spread import option, spread
from penult.edit.edit import Edit, Place
from penult.edit.edited_run import EditedRun, refuse_other_edit
from penult.edit.recipe import Recipe
from penult.edit.refits import REFIT_EDITS
from penult.edit.verdicts import KINDS, add_verdict, shortcut_edits
from penult.errors import InputError
from penult.explain.gallery import PictureOptions
from penult.report.report import Report
from penult.runs.outputs import check_output_file, check_output_folder
from penult.runs.run import Run
from penult.runs.tune.folder import selection
from penult.text import one_line

THIS = "this edit"  # what its report calls an edit that has no folder

Off = Annotated[
    list[str] | None,
    option("FEATURE[:CLASS][=VALUE]: let it count as if it stood at its mean, or at VALUE."),
]
Cap = Annotated[
    list[str] | None,
    option("FEATURE[:CLASS][=BOUND]: take away what exceeds its mean in the class, or BOUND."),
]
Scale = Annotated[
    list[str] | None, option("FEATURE[:CLASS]=FACTOR: multiply what it does by FACTOR.")
]
SetWeight = Annotated[
    list[str] | None, option("FEATURE:CLASS=WEIGHT: give the class this weight on it.")
]
DirectionOff = Annotated[
    list[str] | None,
    option("NUMBER:CLASS: switch a principal direction of the class's weighted features off."),
]
DirectionCap = Annotated[
    list[str] | None, option("NUMBER:CLASS: take away what exceeds the class's mean along it.")
]
DropUnused = Annotated[
    float | None,
    option("Switch features off that are used less than this fraction of the most used one."),
]
Refit = Annotated[
    str | None,
    option(
        "Fit the weights that are left anew: probabilities (the network's own), labels, "
        "balanced:ATTRIBUTE (as many samples of each group), or least-spurious (samples without "
        "the features that are switched off or capped)."
    ),
]
OffShortcuts = Annotated[
    bool, option("Switch everything off that a verdict calls a shortcut.", "--off-shortcuts")
]
RecipeFile = Annotated[
    Path | None, option("Edits in a file; those of other options come after them.")
]
Undo = Annotated[int, option("Leave out the last so many edits of the recipe.")]
Reason = Annotated[str, option("Why, kept in the recipe beside the edits of this command.")]
MadeFor = Annotated[
    Path | None,
    option("The run that the recipe was made for, of whose network this one is a fine-tune."),
]
EditedK = Annotated[int | None, option("Edit a sparse head of this size, not the dense one.", "-k")]
EditedSelect = Annotated[str | None, option("How that sparse head's features were chosen.")]
EditedOut = Annotated[
    Path | None,
    option("Folder for the edited head, the recipe and the network; RUN/edited/NAME is reported."),
]
EditReport = Annotated[
    Path | None,
    option(
        "Also write the run's report to this page, opened at this edit: who wins and who loses, "
        "with the images that flip.",
        "--report",
    ),
]


@spread
def edit(
    run: given.RunFolder,
    *,
    off: Off = None,
    cap: Cap = None,
    scale: Scale = None,
    set_weight: SetWeight = None,
    direction_off: DirectionOff = None,
    direction_cap: DirectionCap = None,
    off_shortcuts: OffShortcuts = False,
    drop_unused: DropUnused = None,
    refit: Refit = None,
    recipe: RecipeFile = None,
    undo: Undo = 0,
    made_for: MadeFor = None,
    reason: Reason = "",
    k: EditedK = None,
    select: EditedSelect = None,
    out: EditedOut = None,
    page: EditReport = None,
    as_json: given.AsJson = False,
    reopened: MovedOptions,
) -> None:
    """Change a head, and tell exactly what that does to every class, group and sample.

    Edits are made in this order: the recipe's, then --off, --scale, --set-weight, --direction-off,
    --drop-unused, --refit, --cap, --direction-cap. Nothing is written without --out or --report.
    """
    opened = open_run(run)
    if out is not None:
        check_output_folder(out, "the edited head", edited=True)
    if page is not None:
        check_output_file(page, opened, "page")
    names = opened.summary()["class_names"]
    first = Recipe(()) if recipe is None else Recipe.load(recipe)
    if undo:
        first = first.without_last(undo)
    edits: list[Edit] = list(shortcut_edits(opened)) if off_shortcuts else []
    for kind, texts in (("off", off), ("scale", scale), ("set", set_weight)):
        edits += [parsed(kind, text, names) for text in texts or []]
    edits += [parsed_direction("off", text) for text in direction_off or []]
    if drop_unused is not None:
        edits.append(Edit("drop", value=drop_unused))
    caps = [parsed("cap", text, names) for text in cap or []]
    caps += [parsed_direction("cap", text) for text in direction_cap or []]
    if refit is not None:
        edits.append(parsed_refit(refit, [*first.edits, *edits, *caps]))
    # A head with bounds cannot be refitted: what caps comes last.
    edits = [replace(one, reason=one.reason or reason) for one in [*edits, *caps]]
    if recipe is None and not edits:
        raise InputError("nothing to edit: give --off FEATURE:CLASS, --recipe FILE or another")
    sparse = _sparse(opened, k, select)
    whole = replace(first, edits=(*first.edits, *edits))
    onwards = out is not None and recipe is not None and _is_same(recipe, out / "recipe.json")
    if out is not None and not onwards:
        refuse_other_edit(out, replace(whole.once()[0], head=None))
    source = None if made_for is None else Run.open(made_for)
    with progress_bars() as heard:
        made = EditedRun.of(opened, whole, sparse=sparse, made_for=source, progress=heard("logits"))
    if out is not None:
        for line in made.save(out, reopened.sources(), onwards=onwards):
            warn(line)
    if page is not None:
        _write_report(opened, made, sparse, page, reopened)
    _tell(made, out, page, as_json)


def _sparse(run: Run, k: int | None, select: str | None) -> tuple[str, int] | None:
    """Which sparse head is meant; None for the dense one."""
    if k is not None:
        return selection(run, k, select), k
    if select is not None:
        raise InputError("--select needs -k, the size of the sparse head")
    return None


def _tell(made: EditedRun, out: Path | None, page: Path | None, as_json: bool) -> None:
    if as_json:
        print_json(made.document)
        return
    print_page(edit_page(made.document))
    if out is not None:
        print(f"\nEdited head: {out}")
    if page is not None:
        print(f"\nReport: {page}")


def _is_same(file: Path, other: Path) -> bool:
    return file.exists() and other.exists() and file.samefile(other)


def _write_report(
    run: Run,
    made: EditedRun,
    sparse: tuple[str, int] | None,
    page: Path,
    moved: MovedOptions,
) -> None:
    """The run's report, opened at an edit that need not lie in the run."""
    select, k = sparse or (None, None)
    with progress_bars("opening the run") as heard:
        pictures = PictureOptions(
            sources=moved.sources(), device=moved.where(), progress=heard("images")
        )
        shown = Report.of(run, k=k, select=select, pictures=pictures, effects={THIS: made.document})
    with run.adding(page):
        shown.save(page)


@spread
def verdict(
    run: given.RunFolder,
    pair: Annotated[str, typer.Argument(help="FEATURE:CLASS, or FEATURE for all classes.")],
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS), metavar="VERDICT")],
    note: Annotated[str, option("Why.")] = "",
    who: Annotated[str | None, option("Who says so; by default the user's name.")] = None,
    as_json: given.AsJson = False,
) -> None:
    """Say what a feature is to a class; the run keeps it."""
    opened = Run.open(run)
    number, colon, name = pair.partition(":")
    feature = _number(pair, number)
    made = add_verdict(opened, feature, name if colon else None, kind, note, who)
    if as_json:
        print_json(made.document())
        return
    print(one_line(f"{made.pair}: {made.kind}"))


def parsed(kind: str, text: str, class_names: Sequence[str]) -> Edit:
    """The edit of `57`, `57:cat` or `57:cat=0.5`."""
    pair, value = text, None
    before, equals, number = text.rpartition("=")
    # A class may itself have an equals sign in its name.
    if equals and text.partition(":")[2] not in class_names:
        pair = before
        try:
            value = float(number)
        except ValueError:
            raise InputError(
                f"--{kind}: expected a number after =, found {number!r} in {text!r}"
            ) from None
    feature, colon, name = pair.partition(":")
    found = Edit(kind, feature=_number(text, feature), of=name if colon else None)
    if kind in ("off", "cap"):
        at: Place | None = value
        return replace(found, at=at)
    option_name = {"set": "set-weight"}.get(kind, kind)
    if value is None:
        raise InputError(f"--{option_name} {text}: expected {text}=NUMBER")
    return replace(found, value=value)


def parsed_direction(kind: str, text: str) -> Edit:
    """The edit of `1:cat`."""
    number, colon, name = text.partition(":")
    if not colon:
        raise InputError(
            f"--direction-{kind}: expected NUMBER:CLASS, such as 1:cat, found {text!r}"
        )
    return Edit(kind, component=_number(text, number), of=name)


def parsed_refit(text: str, edits: Sequence[Edit]) -> Edit:
    """The edit of `labels` or `balanced:domain`."""
    to, colon, attribute = text.partition(":")
    if to not in REFIT_EDITS:
        raise InputError(f"--refit: expected one of {', '.join(REFIT_EDITS)}, found {text!r}")
    if to == "balanced" and not attribute:
        raise InputError("--refit balanced: expected balanced:ATTRIBUTE, such as balanced:sex")
    pairs = None
    if to == "least-spurious":
        tamed = [one for one in edits if one.kind in ("off", "cap") and one.feature is not None]
        pairs = tuple(
            str(one.feature) if one.of is None else f"{one.feature}:{one.of}" for one in tamed
        )
        if not pairs:
            raise InputError(
                "--refit least-spurious: expected --off or --cap with the features that mislead"
            )
    return Edit("refit", to=to, attribute=attribute if colon else None, pairs=pairs)


def _number(whole: str, text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"expected FEATURE or FEATURE:CLASS, such as 57:cat, found {whole!r}")
    return int(text)
