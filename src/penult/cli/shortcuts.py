"""The command that finds suspects: `penult shortcuts`."""

from __future__ import annotations

from typing import Annotated, Literal

from penult.cli import options as given
from penult.cli.console import progress_bars
from penult.cli.opened import open_run
from penult.cli.output import print_json
from penult.cli.pages import print_page
from penult.cli.shortcut_pages import shortcuts_page
from penult.cli.spread import option, spread
from penult.edit.shortcuts import find_shortcuts
from penult.errors import InputError

Rate = Annotated[float, option("False discovery rate below which a pair is a suspect.")]
By = Annotated[
    Literal["overuse", "gap"],
    option("What lists the worst first: weights too large for the samples, or accuracy gaps."),
]
Listed = Annotated[int, option("How many pairs are printed.")]
Directions = Annotated[
    int | None,
    option("Principal directions looked at in each class; 3 where they cost little."),
]
ControlSeed = Annotated[int, option("Seed of the control.", "--seed")]


@spread
def shortcuts(
    run: given.RunFolder,
    by: By = "overuse",
    rate: Rate = 0.05,
    listed: Listed = 20,
    directions: Directions = None,
    seed: ControlSeed = 0,
    as_json: given.AsJson = False,
) -> None:
    """Find classes and features that look like shortcuts, without group labels, worst first."""
    if listed < 1:
        raise InputError(f"--listed must be at least 1, found {listed}")
    opened = open_run(run)
    with progress_bars() as heard:
        document = find_shortcuts(
            opened,
            rate=rate,
            by=by,
            n_listed=max(200, listed),
            n_directions=directions,
            seed=seed,
            progress=heard,
        )
    if as_json:
        print_json(document)
        return
    print_page(shortcuts_page(document, listed))
