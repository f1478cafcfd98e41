"""The command that measures what the paper claims: `penult measure`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Group
from rich.text import Text

from penult.cli import options as given
from penult.cli.console import progress_bars
from penult.cli.group_pages import groups_page
from penult.cli.opened import open_run
from penult.cli.option_groups import ImageOptions, LayerOptions, NetworkOptions, PassOptions
from penult.cli.output import print_json
from penult.cli.pages import print_page
from penult.cli.spread import spread
from penult.cli.subject import Subject, open_subject
from penult.errors import InputError
from penult.features.layers import Names, collect_layers
from penult.measure import FRACTIONS, Settings, compare_runs, measure_layers, measure_run
from penult.measure.groups import groups_document
from penult.measure.plots import plot_comparison, plot_layers, plot_measures
from penult.measure.tables import comparison_page, layers_page, measures_page
from penult.runs.outputs import check_output_folder


@spread
def measure(
    what: given.Measured,
    compare: given.Compare = False,
    fraction: given.Fractions = None,
    k: given.SetSize = 5,
    tolerance: given.Lost = 0.005,
    seed: given.MeasureSeed = 0,
    plots: given.Plots = None,
    plot_format: given.PlotFormat = "png",
    as_json: given.AsJson = False,
    *,
    layers: LayerOptions,
    network: NetworkOptions,
    images: ImageOptions,
    passing: PassOptions,
) -> None:
    """Measure what the paper claims, of a run, of several, or of any layers of a network."""
    fractions = tuple(sorted(set(fraction))) if fraction else FRACTIONS
    settings = Settings(fractions, k, tolerance, seed)
    if plots is not None:
        check_output_folder(plots, "the plots")
    if layers.out is not None:
        check_output_folder(layers.out, "the layers")
    if layers.asked:
        if len(what) != 2 or compare:
            raise InputError(
                f"--layer and --layers need MODEL and DATA, no run: found {' '.join(what)}"
            )
        names = layers.names()
        subject = open_subject(what[0], what[1], layers.eval_, network, images, passing)
        document = _measure_layers(subject, names, layers, settings)
        page, draw = layers_page(document), plot_layers
    else:
        if not compare and len(what) > 1:
            raise InputError(
                f"{len(what)} runs: expected one, or --compare to line up several; for layers of a "
                "network MODEL DATA and --layer NAME"
            )
        for group in (layers, network, images, passing):
            group.refuse("is for images, and a run holds features")
        found = [open_run(run) for run in what]
        with progress_bars() as heard:
            if compare:
                document = compare_runs(found, settings, heard("runs"))
            else:
                document = measure_run(found[0], settings, heard("measures"))
                if (by_group := groups_document(found[0])) is not None:
                    document = {**document, "groups": by_group}
        page = comparison_page(document) if compare else measures_page(document)
        draw = plot_comparison if compare else plot_measures
    if plots is not None:
        draw(document, plots, plot_format)
    if as_json:
        print_json(document)
        return
    print_page(page)
    if document.get("groups") is not None:
        print_page(Group(Text(), groups_page(document["groups"])))
    if plots is not None:
        print(f"\nPlots: {plots}")


def _measure_layers(
    subject: Subject, names: Names, layers: LayerOptions, settings: Settings
) -> dict[str, Any]:
    with ExitStack() as stack:
        heard = stack.enter_context(progress_bars())
        folder = layers.out or Path(stack.enter_context(TemporaryDirectory()))
        parts = []
        for part, data in (("train", subject.images), ("eval", subject.held_out)):
            if data is not None:
                found = collect_layers(
                    subject.network,
                    data,
                    names,
                    folder / part if layers.eval_ else folder,
                    subject.head,
                    transform=subject.transform,
                    how=subject.how,
                    class_names=subject.class_names,
                    progress=heard(part),
                )
                parts.append(found)
        return measure_layers(*parts, settings=settings, progress=heard("layers"))
