"""Outputs: where a result that a user names may lie, so that it replaces nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from penult.errors import InputError
from penult.features.features import Features
from penult.runs.run import Run
from penult.storage import check_writable

ROOMS = ("features", "heads", "examples", "explained", "tuned", "groups", "edited")
OPEN_ROOMS = ("explained", "edited")  # into which users put pages and pictures of their own
PAGES = (".html", ".htm")


def check_output_file(path: Path, run: Run, what: str, endings: Sequence[str] = PAGES) -> None:
    """Refuse a file in which a result would replace, or be taken for, something else.

    Args:
        path: as the user names it.
        run: what the result is of.
        what: is written, for messages.
        endings: that its name may have; "" for a name without one.

    Raises:
        InputError: a folder, another ending, a place that a run needs for itself, a file of the
            data.
        NotWrittenError: it cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: expected the name of a {what}")
    if path.suffix.lower() not in endings:
        *others, last = (ending for ending in endings if ending)
        named = f"{', '.join(others)} or {last}" if others else last
        raise InputError(f"{path}: expected a name that ends in {named}")
    inside = _within_run(path.parent)
    if inside is not None and _room(*inside) not in (None, *OPEN_ROOMS):
        _refuse_room(path, *inside)
    _refuse_data(path, run)
    check_writable(path)


def check_output_folder(
    folder: Path, what: str, run: Run | None = None, files: Iterable[str] = (), edited: bool = False
) -> None:
    """Refuse a folder in which results would replace, or be taken for, something else.

    Args:
        folder: as the user names it.
        what: is written, for messages.
        run: what the results are of; None where they are of no run.
        files: names of what is written there.
        edited: whether it is a head that a run may keep, as `RUN/edited/NAME`.

    Raises:
        InputError: a file, a place that a run needs for itself, files of the data.
        NotWrittenError: it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: expected a folder for {what}")
    inside = _within_run(folder)
    if inside is not None:
        around, place = inside
        parts = place.relative_to(around).parts
        if not parts:
            room = f", or {folder / 'edited' / 'NAME'}" if edited else ""
            raise InputError(f"{folder} is a run: choose another folder for {what}{room}")
        kept = edited and parts[0] == "edited" and len(parts) > 1 and parts[1] != "logits"
        if _room(around, place) is not None and not kept:
            _refuse_room(folder, around, place, edited)
    if run is not None:
        for name in files:
            _refuse_data(folder / name, run)
    check_writable(folder)


def _within_run(folder: Path) -> tuple[Path, Path] | None:
    """The run that a folder is or lies in, and the folder itself, both without links."""
    place = folder.resolve()
    around = next((one for one in (place, *place.parents) if (one / "run.json").exists()), None)
    return None if around is None else (around, place)


def _room(around: Path, place: Path) -> str | None:
    """The folder of a run's own in which a place lies; None for none."""
    first = next(iter(place.relative_to(around).parts), None)
    return first if first in ROOMS else None


def _refuse_room(path: Path, around: Path, place: Path, edited: bool = False) -> None:
    room = f"{around.name}/{_room(around, place)}"
    advice = f", such as {around.name}/edited/NAME" if edited else ""
    raise InputError(f"{path} lies in {room}, where the run keeps its own: choose another{advice}")


def _refuse_data(path: Path, run: Run) -> None:
    """Refuse a file that belongs to the data of a run."""
    if not path.exists() or _within_run(path.parent) is not None:
        return
    place = path.resolve()
    for part in ("data", "evaluation", "also"):
        about = run.about.get(part)
        if not isinstance(about, dict) or about.get("kind") == "features":
            continue
        root = Path(str(about["path"])).resolve() if "path" in about else None
        if root is not None and (place == root or (root.is_dir() and place.is_relative_to(root))):
            _refuse_sample(path, run)
    # Those that a table names may lie anywhere.
    names = {name for features in _parts(run) for name in features.ids()}
    parts = place.as_posix().split("/")
    if any("/".join(parts[start:]) in names for start in range(1, len(parts))):
        _refuse_sample(path, run)


def _parts(run: Run) -> list[Features]:
    found = (run.train(), run.held_out(), run.also())
    return [features for features in found if features is not None]


def _refuse_sample(path: Path, run: Run) -> None:
    raise InputError(f"{path} belongs to the data of {run.folder}: choose another name")
