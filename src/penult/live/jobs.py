"""Jobs: what a worker process does for the live page; each gets the run as it is opened there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from penult.data.image import open_image
from penult.edit.desk import EditDesk
from penult.edit.edited_run import EditedRun
from penult.edit.recipe import Edited, apply_recipe
from penult.edit.shortcuts import find_shortcuts
from penult.errors import InputError
from penult.explain.gallery import PictureOptions, Wish
from penult.explain.looked_up import look_up
from penult.explain.survey import ShownSample
from penult.explain.taking import PictureTaker
from penult.explain.thumbnails import coarser, picture_of
from penult.export.export import Export
from penult.export.shipment import ExportOptions
from penult.export.shipped_head import shipped_head
from penult.live.state import HeadState
from penult.progress import Begin
from penult.report.report import Report
from penult.runs.outputs import check_output_folder
from penult.runs.reopen import Places
from penult.runs.run import Run
from penult.storage import temporary_beside

CELLS = 16  # a side of a heat map
MOST_PIXELS = 64_000_000
SHOWN_SIDE = 448


@dataclass(eq=False)
class OpenedRun:
    """A run in a worker process.

    Attributes:
        run: itself.
        places: where its network and data are now.
        device: where the network runs.
        taker: takes pictures and maps, once it was needed.
    """

    run: Run
    places: Places
    device: str
    taker: PictureTaker | None = None
    _desk: EditDesk | None = field(default=None, repr=False)

    @classmethod
    def of(cls, folder: Path, places: Places, device: str) -> OpenedRun:
        """Open a run."""
        return cls(Run.open(folder), places, device)

    @property
    def desk(self) -> EditDesk:
        """For edits."""
        if self._desk is None:
            self._desk = EditDesk(self.run)
        return self._desk


def make_maps(
    own: OpenedRun, begin: Begin, samples: Sequence[tuple[str, ShownSample, float]], feature: int
) -> tuple[list[Tensor | None], str]:
    """Heat maps of a feature.

    Args:
        own: the run.
        begin: starts a stage.
        samples: part, sample and the feature's value on it.
        feature: its number.

    Returns:
        A map (h, w) of at most 16 × 16 cells, or None, for each; and how they are made.
    """
    heard = begin("heat maps")
    wishes = [
        Wish((part, sample.number), sample, {feature: value}) for part, sample, value in samples
    ]
    if own.taker is None or own.taker.maps is None:
        options = PictureOptions(sources=own.places, device=own.device)
        own.taker = PictureTaker(own.run, wishes, options)
    made = own.taker.take(wishes, heard)
    return [made.map(wish.key, feature) for wish in wishes], made.note


def look_at(own: OpenedRun, begin: Begin, raw: bytes, features: int) -> dict[str, Any]:
    """What the run's network sees in an image of a user's own.

    Args:
        own: the run.
        begin: starts a stage.
        raw: the image's file.
        features: how many of them get maps: those that move the network's decision most.

    Returns:
        `features` (n_features,), `picture` as a file's bytes, `maps` by feature, and `note`.

    Raises:
        InputError: no image that can be decoded, too large a one; a network that is gone.
    """
    begin("the network")
    try:
        image = open_image(raw, "the image")
    except InputError as error:
        raise InputError(str(error).replace("the image: ", "the image ", 1)) from error
    if image.width * image.height > MOST_PIXELS:
        raise InputError(
            f"the image has {image.width} × {image.height} pixels: expected at most "
            f"{MOST_PIXELS // 1_000_000} million"
        )
    device = torch.device(own.device)
    try:
        found = look_up(own.run, image, own.places, device, True)
    except InputError as error:
        # By itself an image of nobody's data is called by its number.
        raise InputError(re.sub(r"^0: ", "the image ", str(error))) from error
    head = own.run.train().require_head()
    z = found.features
    c = int(head(z[None])[0].argmax())
    most = (head.weight[c] * z).abs().topk(min(features, len(z))).indices.tolist()
    maps = found.maps(most)
    picture = found.picture or Image.new("RGB", (1, 1))
    small = None if maps is None else coarser(maps, CELLS)
    return {
        "features": z,
        "picture": _file(picture),
        "maps": {} if small is None else dict(zip(most, small, strict=True)),
        "note": found.note,
    }


def refit_head(own: OpenedRun, begin: Begin, state: HeadState) -> Edited:
    """Apply the edits of a state."""
    begin("fitting the weights anew")
    desk = own.desk
    return apply_recipe(desk.head(state.sparse), state.recipe, desk.setting)


def search_suspects(own: OpenedRun, begin: Begin) -> None:
    """Look for shortcuts, and keep what is found in the run."""
    find_shortcuts(own.run, progress=begin)


def write_edited(
    own: OpenedRun, begin: Begin, state: HeadState, folder: Path, format: str | None
) -> tuple[list[Path], list[str]]:
    """Write the head of a state and the network with it into a folder of the run.

    Args:
        own: the run.
        begin: starts a stage.
        state: the head and its edits.
        folder: made where absent.
        format: of an export that is written besides, into the run's `exported`; None for none.

    Returns:
        The folders that were written; what could not be written, and why.
    """
    begin("the head and the network")
    check_output_folder(folder, "the edited head", edited=True)
    made = EditedRun.at(own.desk, state.recipe, sparse=state.sparse)
    notes = made.save(folder, own.places)
    places = [folder]
    if format is not None:
        try:
            places.append(_export(own, begin, made, folder, format))
        except InputError as error:
            notes.append(f"there is no export, for {error}")
    return places, notes


def _export(own: OpenedRun, begin: Begin, made: EditedRun, folder: Path, format: str) -> Path:
    select, k = made.sparse or (None, None)
    shipped = shipped_head(own.run, k=k, select=select, recipe=folder / "recipe.json")
    place = own.run.folder / "exported" / folder.name
    Export.of(own.run, shipped, place, ExportOptions(format), places=own.places, begin=begin)
    return place


def write_report(
    own: OpenedRun, begin: Begin, state: HeadState, name: str, start: str, page: Path
) -> None:
    """Write the report with the effect of a state as one file."""
    begin("what to show")
    effects = None
    if state.edits:
        effects = {name: EditedRun.at(own.desk, state.recipe, sparse=state.sparse).document}
    pictures = PictureOptions(sources=own.places, device=own.device)
    select, k = state.sparse or (None, None)
    made = Report.of(own.run, k=k, select=select, pictures=pictures, effects=effects, begin=begin)
    begin("writing the page")
    temporary = temporary_beside(page)
    html = replace(made, start=start or made.start).html()
    temporary.write_text(html, encoding="utf-8", newline="\n")
    temporary.replace(page)


def _file(image: Image.Image) -> bytes:
    """A picture as the bytes of a file."""
    pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return picture_of(pixels.view(image.height, image.width, 3), side=SHOWN_SIDE)
