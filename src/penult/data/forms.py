"""Forms of data: what a user names, and which class opens it. One entry for each form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from penult.data.files import FolderImages, ZipImages
from penult.data.image import ImageData, formats
from penult.data.library_data import (
    is_saved_dataset,
    open_hub,
    open_saved,
    open_torchvision,
)
from penult.data.table_images import TableImages
from penult.data.table_texts import TableTexts
from penult.data.tables import JoinedTable, Table, is_table, read_table
from penult.data.tar_images import (
    ShardImages,
    TarImages,
    holds_samples,
    is_pattern,
    shard_paths,
)
from penult.data.tars import TarFile, is_tar
from penult.errors import InputError
from penult.text import described

ENTRY_POINTS = "penult.data"
# Files that people may take for data, and what to do with them.
OTHER_FILES: tuple[tuple[tuple[str, ...], str], ...] = (
    ((".py",), "give what a function of it returns, {path}:FUNCTION"),
    ((".json",), "write a table as JSON lines, an object in each line of a file .jsonl"),
    ((".xlsx", ".xls", ".ods"), "save it as CSV"),
    ((".csv.gz", ".tsv.gz", ".jsonl.gz", ".parquet.gz"), "unpack it"),
    ((".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"), "unpack it, or pack it as zip or tar"),
    ((".arrow", ".feather"), "write it as Parquet, or give the folder that save_to_disk wrote"),
    (
        (".npy", ".npz", ".pkl", ".pickle", ".pt", ".pth", ".h5", ".hdf5", ".mat", ".tfrecord"),
        "open it in a function of yours that returns (images, labels): file.py:FUNCTION",
    ),
    (
        tuple(formats()),
        "it is a single image: give a folder with a folder of images for each class",
    ),
)


@dataclass(frozen=True)
class DataOptions:
    """How data are read.

    Attributes:
        image_column, label_column, text_column: of a table; found by names and contents where None.
        limit: how many samples to take at most; all where None.
        texts: whether the network takes texts, not images.
        label_columns: columns of a table that hold 0 or 1 each, one for every class.
        multi_label: whether samples may have several labels; None to tell by the labels.
    """

    image_column: str | None = None
    label_column: str | None = None
    text_column: str | None = None
    limit: int | None = None
    texts: bool = False
    label_columns: tuple[str, ...] | None = None
    multi_label: bool | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit must be at least 1, found {self.limit}")
        name, kind = ("image_column", "texts") if self.texts else ("text_column", "images")
        if getattr(self, name) is not None:
            raise InputError(f"--{name.replace('_', '-')}: the network takes {kind}")
        if self.label_columns is not None:
            if self.label_column is not None:
                raise InputError("--label-column and --label-columns exclude each other")
            if len(set(self.label_columns)) < max(2, len(self.label_columns)):
                raise InputError("--label-columns needs two different columns at least: a,b,c")

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> DataOptions:
        """As a run records them."""
        known = {key: found.get(key, default) for key, default in asdict(cls()).items()}
        columns = known["label_columns"]
        return cls(**{**known, "label_columns": None if columns is None else tuple(columns)})


@dataclass(frozen=True)
class DataForm:
    """A form in which data come.

    Attributes:
        fits: whether what the user named is of this form.
        open: opens it, given the name, whether labels are wanted, and the options.
        texts: whether it can hold texts.
    """

    fits: Callable[[str], bool]
    open: Callable[[str, bool, DataOptions], ImageData]
    texts: bool = False


def form_of(spec: str) -> DataForm | None:
    """The form of what a user names; None where it is none that is known."""
    return next((form for form in FORMS if form.fits(spec)), None)


def require_no_columns(spec: str, options: DataOptions) -> None:
    """Refuse columns for data that are no table."""
    for name in ("image_column", "text_column", "label_column", "label_columns"):
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is for tables, and {spec} is none")


def require_texts(spec: str, form: DataForm | None) -> None:
    """Refuse data that hold images, for a network that takes texts."""
    if form is None or not form.texts:
        raise InputError(
            f"{spec} holds images, and the network takes texts: expected a table with a column of "
            "texts, such as sentences.csv, or a data set with one"
        )


def archive_of(path: Path) -> Path | None:
    """The archive that a path such as `data.zip/train` leads into; None where it does not."""
    return next((parent for parent in path.parents if parent.is_file()), None)


def require_archive(path: Path) -> None:
    """Refuse a file that is neither an archive nor a table, with what to do instead.

    Raises:
        InputError: its name says that it is something else.
    """
    for endings, remedy in OTHER_FILES:
        if path.name.lower().endswith(endings):
            raise InputError(f"{path} is no data that penult reads: {remedy.format(path=path)}")


def plugins() -> Iterable[EntryPoint]:
    """What other packages add: an entry point `NAME` of the group `penult.data` opens `NAME:REST`.

    It is a function of REST that returns what `penult.data.open.open_data` takes.
    """
    return entry_points(group=ENTRY_POINTS)


def plugin_of(spec: str) -> EntryPoint | None:
    """The entry point that opens `NAME:REST`."""
    name, colon, _ = spec.partition(":")
    return next((one for one in plugins() if colon and one.name == name), None)


def call_plugin(spec: str, plugin: EntryPoint) -> Any:
    """What another package's function makes of `NAME:REST`.

    Raises:
        InputError: it fails; names the package and the cause.
    """
    try:
        return plugin.load()(spec.partition(":")[2])
    except InputError:
        raise
    except Exception as error:  # another's code may raise anything
        package = plugin.dist.name if plugin.dist is not None else plugin.value
        raise InputError(f"{spec}: {package} failed: {described(error)}") from error


def _open_archive(path: Path, labelled: bool, options: DataOptions, inside: str = "") -> ImageData:
    if not is_tar(path):
        require_archive(path)
        return ZipImages(path, labelled, inside)
    archive = TarFile(path)
    if not inside and holds_samples(archive):
        return ShardImages([archive], labelled, str(path), options.multi_label)
    return TarImages(archive, labelled, inside)


def _open_pattern(spec: str, labelled: bool, options: DataOptions) -> ImageData:
    paths = shard_paths(spec)
    if all(map(is_table, paths)):
        table = JoinedTable(Path(spec), [read_table(path) for path in paths])
        return _samples_in(table, labelled, options)
    if options.texts:
        require_texts(spec, None)
    others = [path for path in paths if not is_tar(path)]
    if others:
        raise InputError(f"{spec}: expected tar archives or tables, found {others[0]}")
    require_no_columns(spec, options)
    shards = [TarFile(path) for path in paths]
    return ShardImages(shards, labelled, spec, options.multi_label)


def _open_table(spec: str, labelled: bool, options: DataOptions) -> ImageData:
    return _samples_in(read_table(Path(spec)), labelled, options)


def _samples_in(table: Table, labelled: bool, options: DataOptions) -> ImageData:
    labels = options.label_column, options.label_columns, options.multi_label
    if options.texts:
        return TableTexts(table, labelled, options.text_column, *labels)
    return TableImages(table, labelled, options.image_column, *labels)


def _open_inside(spec: str, labelled: bool, options: DataOptions) -> ImageData:
    path = Path(spec)
    archive = archive_of(path)
    assert archive is not None
    return _open_archive(archive, labelled, options, path.relative_to(archive).as_posix())


# The first that fits counts.
FORMS: tuple[DataForm, ...] = (
    DataForm(
        lambda spec: is_saved_dataset(Path(spec)),
        lambda spec, labelled, how: open_saved(Path(spec), labelled, how.texts, how.multi_label),
        texts=True,
    ),
    DataForm(
        lambda spec: Path(spec).is_dir(),
        lambda spec, labelled, _: FolderImages(Path(spec), labelled),
    ),
    DataForm(lambda spec: Path(spec).is_file() and is_table(Path(spec)), _open_table, texts=True),
    DataForm(
        lambda spec: Path(spec).exists(),
        lambda spec, labelled, how: _open_archive(Path(spec), labelled, how),
    ),
    DataForm(lambda spec: archive_of(Path(spec)) is not None, _open_inside),
    DataForm(
        lambda spec: spec.startswith("hf:"),
        lambda spec, labelled, how: open_hub(spec, labelled, how.texts, how.multi_label),
        texts=True,
    ),
    DataForm(
        lambda spec: spec.startswith("torchvision:"),
        lambda spec, labelled, how: open_torchvision(spec, labelled, how.multi_label),
    ),
    DataForm(is_pattern, _open_pattern, texts=True),
)
