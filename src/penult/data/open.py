"""From what a user names or holds to samples with ids and labels."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from penult.data.arrays import ArrayImages
from penult.data.batches import Batch, Batches, Fault, batches, check_data, read
from penult.data.dataset import DatasetImages, map_style
from penult.data.files import FolderImages, ZipImages
from penult.data.forms import (
    DataOptions,
    archive_of,
    call_plugin,
    form_of,
    plugin_of,
    require_no_columns,
    require_texts,
)
from penult.data.image import ImageData, ImageFaultError
from penult.data.items import IMAGE_KEYS, LABEL_KEYS, Columns
from penult.data.library_data import LibraryImages
from penult.data.limit import is_stream, limited
from penult.data.multi_hot_images import MultiHotImages
from penult.data.tables import is_table
from penult.data.tar_images import is_pattern
from penult.errors import InputError
from penult.text import nearest, one_line, some
from penult.user_code import call_object

__all__ = [
    "ArrayImages",
    "Batch",
    "Batches",
    "DatasetImages",
    "Fault",
    "FolderImages",
    "ImageData",
    "ImageFaultError",
    "ZipImages",
    "archive_of",
    "batches",
    "check_data",
    "open_data",
    "read",
]

_FUNCTION = re.compile(r"(.+\.py|[A-Za-z_][\w.]*):[A-Za-z_][\w.]*")
DIGITS = ("digits", "digits:train", "digits:test")


def open_data(spec: Any, *, labelled: bool = True, options: DataOptions | None = None) -> ImageData:
    """Open labelled images, or texts, whatever they come as.

    Args:
        spec: one of
            - a folder, zip or tar, or a folder in an archive (`data.zip/train`): its folders are
              the classes, in alphabetical order; where one folder holds everything, the folders in
              it;
            - a table (.csv, .tsv, .jsonl, .parquet) with a column of paths or of image files'
              bytes, and one of labels, see `TableImages`; `data-*.parquet` for several;
            - WebDataset shards, `train-{000..127}.tar` or `train-*.tar`, see `ShardImages`;
            - a Hugging Face data set in the folder where it was saved, or `hf:NAME[:SPLIT]`;
            - `torchvision:NAME:ROOT[:SPLIT]`, a data set of torchvision whose files are in ROOT;
            - `digits`, `digits:train`, `digits:test`: scikit-learn's handwritten digits (8 × 8,
              grey), all or a fixed, stratified split of 80 and 20 % (`./digits` is a folder);
            - `file.py:function` or `package.module:function`: called without arguments, it returns
              one of the following;
            - a map-style data set of (image, label), of longer tuples or of dicts, such as a
              Hugging Face Dataset: PIL images, paths, uint8 arrays or tensors (height, width) or
              with channels, all of which are decoded like files, or float tensors (channels,
              height, width), which go to the network as they are, neither resized nor normalised;
              labels are integers from 0, vectors with a single 1, or words; for several labels per
              sample, vectors of 0 and 1 or lists of classes;
            - a stream of such items, with a limit;
            - for texts: tables and data sets as above, a text in place of the image, or a dict of
              lists;
            - arrays (images, labels), n_samples first, or a dict of them;
            - `NAME:REST` where another package has an entry point NAME in the group `penult.data`.
        labelled: False takes images without labels, in any tree of folders; labels are passed over.
        options: the columns of a table, how many samples to take, whether they are texts, and
            whether they may have several labels.

    Raises:
        InputError: nothing is there, or not what it should be; one line says what was found.
    """
    options = options or DataOptions()
    if isinstance(spec, ImageData):
        return limited(spec, options.limit)
    if isinstance(spec, str | Path):
        found = _open_named(os.fspath(spec), labelled, options)
    else:
        found = _open_object(spec, labelled, options)
    if options.multi_label and labelled and not found.multi_label:
        found = MultiHotImages(found)
    return limited(found, options.limit)


def _open_named(spec: str, labelled: bool, options: DataOptions) -> ImageData:
    if "\0" in spec or any(len(part.encode(errors="replace")) > 255 for part in spec.split("/")):
        raise InputError(f"{one_line(spec, 60)} is not there: no file has such a name")
    if spec.split(":")[0] == "digits":
        require_no_columns(spec, options)
        if options.texts:
            require_texts(spec, None)
        return _digits(spec, labelled)
    form = form_of(spec)
    if form is not None:
        if options.texts:
            require_texts(spec, form)
        if not (is_table(Path(spec)) or is_pattern(spec)):
            require_no_columns(spec, options)
        return form.open(spec, labelled, options)
    require_no_columns(spec, options)
    path = Path(spec)
    if (plugin := plugin_of(spec)) is not None:
        found = call_plugin(spec, plugin)
        if isinstance(found, ImageData):
            return found
        if is_stream(found) or not isinstance(found, Mapping | np.ndarray | Tensor | tuple):
            found = map_style(found, f"what {plugin.value} returned", options.limit)
            about = {"source": spec}
            return LibraryImages(found, labelled, about, options.texts, options.multi_label)
        return _open_object(found, labelled, options, spec)
    if _FUNCTION.fullmatch(spec):
        return _open_object(call_object(spec, "function"), labelled, options, spec)
    if "://" in spec or spec.startswith("pipe:"):
        raise InputError(f"{one_line(spec, 80)} is an address, which is not fetched: download it")
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, beside)
    hint = f" (did you mean {some(near)}?)" if near else ""
    raise InputError(
        f"{spec} is not there{hint}: expected a folder, zip or tar of class folders, a table such "
        "as labels.csv, digits, or file.py:function"
    )


def _open_object(
    found: Any, labelled: bool, options: DataOptions, spec: str | None = None
) -> ImageData:
    """Arrays or a map-style data set, given by the user or returned by what `spec` names."""
    what = f"what {spec} returned" if spec else "the data"
    if options.texts and isinstance(found, Mapping):
        found = _columns_of(found, what) or found
    if isinstance(found, Mapping):
        found = _arrays_of(found) or found
    if isinstance(found, np.ndarray | Tensor):
        if labelled:
            raise InputError(
                f"{what} has no labels: give (images, labels), or use the network's own "
                "predictions as labels with --labels predicted"
            )
        return ArrayImages(found, spec=spec)
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], np.ndarray | Tensor):
        labels = found[1] if labelled else None
        return ArrayImages(found[0], labels, spec=spec, multi_label=options.multi_label)
    limit = options.limit if is_stream(found) else None
    whole = map_style(found, what, options.limit)
    return DatasetImages(whole, labelled, spec, limit, options.texts, options.multi_label)


def _columns_of(found: Mapping[str, Any], what: str) -> Columns | None:
    """The samples of a dict of columns, such as lists of texts and of labels."""
    if not found or not all(isinstance(column, list | tuple) for column in found.values()):
        return None
    if len(lengths := {len(column) for column in found.values()}) > 1:
        raise InputError(f"{what} has columns of {some(sorted(map(str, lengths)))} samples")
    return Columns(found)


def _arrays_of(found: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """(images, labels) of a dict of arrays, such as `numpy.load` of a .npz file gives."""
    parts = []
    for keys in (IMAGE_KEYS, LABEL_KEYS):
        key = next((key for key in found if str(key).lower() in keys), None)
        parts.append(None if key is None else found[key])
    images, labels = parts
    if isinstance(images, np.ndarray | Tensor) and isinstance(labels, np.ndarray | Tensor | list):
        return images, labels
    return None


def _digits(spec: str, labelled: bool) -> ImageData:
    """scikit-learn's handwritten digits, their 17 grey levels spread over 8 bits."""
    if spec not in DIGITS:
        raise InputError(f"{spec} is not there: expected {', '.join(DIGITS)}")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    chosen = np.arange(len(digits.target))
    if spec != "digits":
        parts = train_test_split(chosen, test_size=0.2, random_state=0, stratify=digits.target)
        chosen = np.sort(parts[DIGITS.index(spec) - 1])
    return ArrayImages(
        np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8),
        digits.target[chosen] if labelled else None,
        tuple(map(str, digits.target_names)) if labelled else None,
        [f"digits/{index:04d}" for index in chosen],
        kind=spec,
    )
