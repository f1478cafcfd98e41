"""Commands that show what a run found: `penult report` and `penult explain`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.rule import Rule
from rich.text import Text

from penult.cli import options as given
from penult.cli.console import progress_bars, warn
from penult.cli.opened import open_run
from penult.cli.option_groups import ExplainedOptions, MovedOptions
from penult.cli.output import print_json
from penult.cli.pages import print_page
from penult.cli.spread import spread
from penult.errors import InputError
from penult.explain.drawing import save_picture
from penult.explain.explanation import Explanation
from penult.explain.gallery import PictureOptions
from penult.explain.page import explanation_page
from penult.plotting import PICTURES
from penult.report.report import Report
from penult.runs.outputs import check_output_file
from penult.text import one_line

SEVERAL = "penult-explanations/1"


@spread
def report(
    run: given.RunFolder,
    images: given.Images = None,
    out: given.Page = None,
    overwrite: given.RetakePictures = False,
    as_json: given.AsJson = False,
    *,
    explained: ExplainedOptions,
    moved: MovedOptions,
) -> None:
    """Write the run's report: one page that anyone can open, offline."""
    opened = open_run(run)
    page = out or opened.report_file
    check_output_file(page, opened, "page")
    with progress_bars("opening the run") as heard:
        made = Report.of(
            opened,
            k=explained.k,
            select=explained.select,
            dense=explained.dense,
            pictures=PictureOptions(
                images=images,
                maps=not explained.no_maps,
                sources=moved.sources(),
                device=moved.where(),
                overwrite=overwrite,
            ),
            begin=heard,
        )
        heard("writing the page")
        with opened.adding(page):
            made.save(page)
    pictures = made.document["pictures"]
    if pictures["n_missing"]:
        warn(
            f"{pictures['n_missing']:,} of {pictures['n_images']:,} images are gone or can no "
            "longer be read: say with --data or --eval where they are now"
        )
    if as_json:
        print_json(made.document)
        return
    for sentence in made.document["conclusion"]:
        print(one_line(sentence))
    print(f"\nReport: {page}")


@spread
def explain(
    run: given.RunFolder,
    image: given.ImageName,
    class_: given.ExplainedClass = None,
    against: given.Against = None,
    fast: given.Fast = False,
    out: given.PictureFile = None,
    as_json: given.AsJson = False,
    *,
    explained: ExplainedOptions,
    moved: MovedOptions,
) -> None:
    """Say why one image was called what it was: the few features that carry the decision."""
    opened = open_run(run)
    if out is not None:
        check_output_file(out, opened, "picture", PICTURES)
    with progress_bars("explaining"):
        each = Explanation.each(
            opened,
            image,
            class_=class_,
            against=against,
            k=explained.k,
            select=explained.select,
            dense=explained.dense,
            exact=not fast,
            maps=not explained.no_maps,
            sources=moved.sources(),
            device=moved.where(),
        )
    places = _places(each, out)
    for place in places:
        check_output_file(place, opened, "picture", PICTURES)
    if out is not None:
        for found, place in zip(each, places, strict=True):
            save_picture(found, place)
    if as_json:
        documents = [found.document() for found in each]
        several = {"format": SEVERAL, "explanations": documents}
        print_json(documents[0] if len(documents) == 1 else several)
        return
    for i, found in enumerate(each):
        if i:
            print_page(Group(Text(), Rule(), Text()))
        print_page(explanation_page(found))
    if out is None:
        places = [opened.folder / "explained" / f"{found.file_name()}.png" for found in each]
        try:
            with opened.writing():
                for found, place in zip(each, places, strict=True):
                    save_picture(found, place)
        except InputError as error:
            # Nobody asked for the picture, and what was asked for is printed.
            warn(f"no picture: {error}; --out says where else it may lie")
            return
    print(f"\nPicture{'s' if len(places) > 1 else ''}: {', '.join(map(str, places))}")


def _places(each: Sequence[Explanation], out: Path | None) -> list[Path]:
    """Where the pictures of several decisions go: each with the number of its class."""
    if out is None:
        return []
    if len(each) == 1:
        return [out]
    return [out.with_stem(f"{out.stem}-{one.several.of}") for one in each if one.several]
