"""From what a user names or holds to samples with ids and labels."""

from __future__ import annotations

import hashlib
import inspect
import operator
import os
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from penult.data.batches import Batch, Batches, Fault, batches, check_data, read
from penult.data.files import FolderImages, ZipImages
from penult.data.image import UNLABELLED, ImageData, ImageFaultError, Loaded
from penult.errors import InputError
from penult.text import described as one_line
from penult.text import some
from penult.user_code import call_object, load_object, nearest

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
    "batches",
    "check_data",
    "checked_labels",
    "open_data",
    "read",
]

_FUNCTION = re.compile(r"(.+\.py|[A-Za-z_][\w.]*):[A-Za-z_][\w.]*")
_DIGITS = ("digits", "digits:train", "digits:test")


def open_data(spec: Any, *, labelled: bool = True) -> ImageData:
    """Open labelled images, whatever they come as.

    Args:
        spec: one of
            - a folder or zip: its folders are the classes, in alphabetical order; where one folder
              holds everything, the folders in it;
            - `digits`, `digits:train`, `digits:test`: scikit-learn's handwritten digits (8 × 8,
              grey), all or a fixed, stratified split of 80 and 20 % (`./digits` is a folder);
            - `file.py:function` or `package.module:function`: called without arguments, it returns
              one of the following;
            - a map-style data set of (image, label): PIL images, uint8 arrays (height, width) or
              (height, width, channels), uint8 tensors (channels, height, width), all of which are
              decoded like files, or float tensors (channels, height, width), which go to the
              network as they are, neither resized nor normalised; labels are integers from 0;
            - arrays (images, labels), n_samples first.
        labelled: False takes images without labels, in any tree of folders; labels are passed over.

    Raises:
        InputError: nothing is there, or not what it should be; one line says what was found.
    """
    if isinstance(spec, ImageData):
        return spec
    if isinstance(spec, str | Path):
        return _open_named(os.fspath(spec), labelled)
    return _open_object(spec, labelled)


class ArrayImages(ImageData):
    """Images held in one array: uint8, channels last, or a torch tensor, channels first.

    Args:
        images: (n_samples, height, width) or (n_samples, height, width, channels) uint8; as a torch
            tensor (n_samples, channels, height, width), uint8 or, ready for the network, float.
        labels: (n_samples,) integers from 0; None where unlabelled.
        class_names: the classes' names, if known.
        ids: the samples' names; by default their numbers.
        kind: what `describe` calls it.
        spec: the `file.py:function` that returned them, by which they are opened again.

    Raises:
        InputError: shapes or dtypes do not fit, or a label is out of range.
    """

    def __init__(
        self,
        images: NDArray[np.uint8] | Tensor,
        labels: Any = None,
        class_names: tuple[str, ...] | None = None,
        ids: list[str] | None = None,
        kind: str = "arrays",
        spec: str | None = None,
    ) -> None:
        _check_array(images)
        self._spec = spec
        self.kind = kind
        self.class_names = class_names
        self.labelled = labels is not None
        self.labels = None
        if labels is not None:
            n_classes = None if class_names is None else len(class_names)
            self.labels = checked_labels(labels, len(images), n_classes)
        self._images = images
        self._ids = ids
        values = images.cpu().contiguous().numpy() if isinstance(images, Tensor) else images
        self.fingerprint = _digest(
            f"{values.dtype} {values.shape}".encode(),
            np.ascontiguousarray(values).tobytes(),
            b"" if self.labels is None else self.labels.tobytes(),
        )

    def __len__(self) -> int:
        return len(self._images)

    def id(self, index: int) -> str:
        """The sample's name, or its number."""
        return str(index) if self._ids is None else self._ids[index]

    def load(self, index: int) -> Loaded:
        """One image of the array."""
        return self._images[index]

    def describe(self) -> dict[str, Any]:
        """Kind, where it comes from if known, numbers and fingerprint."""
        found = _description(self.kind, self)
        return found if self._spec is None else {**found, "source": self._spec}


class DatasetImages(ImageData):
    """A map-style data set of (image, label).

    A label is known when its sample is loaded; where the data set also has all of them as `targets`
    or `labels` they are checked at once, and a sample whose label differs from them is a fault.

    Args:
        dataset: anything with a length whose items are (image, label).
        labelled: False passes over labels; items may then be images alone.
        spec: the `file.py:function` that returned it, by which another process opens it again.
    """

    def __init__(self, dataset: Any, labelled: bool = True, spec: str | None = None) -> None:
        names = getattr(dataset, "classes", None)
        self.class_names = None
        if labelled and isinstance(names, list | tuple) and names:
            self.class_names = tuple(map(str, names))
        self.labelled = labelled
        self.labels = _known_labels(dataset, self.class_names) if labelled else None
        self._dataset = dataset
        self._spec = spec
        origin = type(dataset) if spec is None else load_object(spec, "function")
        name = getattr(origin, "__qualname__", type(origin).__qualname__)
        self.fingerprint = _digest(
            f"{name} {len(dataset)} {labelled}".encode(),
            _source(origin),
            b"" if self.labels is None else self.labels.tobytes(),
        )

    def __len__(self) -> int:
        return len(self._dataset)

    def __reduce__(self) -> tuple[Any, ...]:
        # A user's file is imported under a name that another process does not know.
        if self._spec is None:
            return DatasetImages, (self._dataset, self.labelled)
        return _open_named, (self._spec, self.labelled)

    def id(self, index: int) -> str:
        """The sample's number."""
        return str(index)

    def load(self, index: int) -> Loaded:
        """The image of a sample."""
        return self.sample(index)[0]

    def sample(self, index: int) -> tuple[Loaded, int]:
        """The image of a sample and its label, -1 where unlabelled."""
        id = self.id(index)
        try:
            item = self._dataset[index]
        except Exception as error:  # the data set is the user's: it may raise anything
            raise ImageFaultError(id, f"cannot be loaded ({one_line(error)})") from error
        is_pair = isinstance(item, list | tuple) and len(item) == 2
        if not self.labelled:
            return (item[0] if is_pair else item), UNLABELLED
        if not is_pair:
            raise ImageFaultError(id, f"is a {type(item).__name__}, expected (image, label)")
        return item[0], self._label(id, index, item[1])

    def describe(self) -> dict[str, Any]:
        """Kind, where it comes from, numbers and fingerprint."""
        found = _description("dataset", self)
        return {**found, "source": self._spec or type(self._dataset).__qualname__}

    def _label(self, id: str, index: int, label: Any) -> int:
        try:
            number = operator.index(label)
        except TypeError:
            shown = reprlib.repr(label)
            raise ImageFaultError(id, f"has the label {shown}, expected an integer") from None
        end = None if self.class_names is None else len(self.class_names)
        if number < 0 or (end is not None and number >= end):
            raise ImageFaultError(id, f"has the label {number}, expected {_range(end)}")
        if self.labels is not None and number != self.labels[index]:
            raise ImageFaultError(
                id, f"has the label {number}, but the data set's list says {self.labels[index]}"
            )
        return number


def checked_labels(labels: Any, n_samples: int, n_classes: int | None) -> NDArray[np.int64]:
    """Labels as (n_samples,) int64.

    Raises:
        InputError: wrong shape, or a label that is no integer in [0, n_classes); names the sample.
    """
    array = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if array.shape != (n_samples,):
        raise InputError(f"labels have the shape {array.shape}, expected ({n_samples},)")
    if array.dtype.kind not in "iub":
        for index, label in enumerate(
            labels if isinstance(labels, list | tuple) else array.tolist()
        ):
            if not isinstance(label, int) or label.bit_length() > 63:
                raise InputError(
                    f"the label of sample {index} is {reprlib.repr(label)}, expected an integer"
                )
    bad = array < 0 if n_classes is None else (array < 0) | (array >= n_classes)
    if bad.any():
        index = int(np.argmax(bad))
        raise InputError(
            f"the label of sample {index} is {array[index]}, expected {_range(n_classes)}"
        )
    return array.astype(np.int64)


def _open_named(spec: str, labelled: bool) -> ImageData:
    if spec.split(":")[0] == "digits":
        return _digits(spec, labelled)
    path = Path(spec)
    if path.is_dir():
        return FolderImages(path, labelled)
    if path.exists():
        return ZipImages(path, labelled)
    if _FUNCTION.fullmatch(spec):
        return _open_function(spec, labelled)
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, beside)
    hint = f" (did you mean {some(near)}?)" if near else ""
    raise InputError(
        f"{spec} is not there{hint}: expected a folder or zip of class folders, digits, or "
        "file.py:function"
    )


def _open_function(spec: str, labelled: bool) -> ImageData:
    dataset = call_object(spec, "function")
    return _open_object(dataset, labelled, spec)


def _open_object(found: Any, labelled: bool, spec: str | None = None) -> ImageData:
    """Arrays or a map-style data set, given by the user or returned by what `spec` names."""
    what = f"what {spec} returned" if spec else "the data"
    if isinstance(found, np.ndarray | Tensor):
        if labelled:
            raise InputError(
                f"{what} has no labels: give (images, labels), or use the network's own "
                "predictions as labels with --labels predicted"
            )
        return ArrayImages(found, spec=spec)
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], np.ndarray | Tensor):
        return ArrayImages(found[0], found[1] if labelled else None, spec=spec)
    is_map_style = hasattr(found, "__getitem__") and hasattr(found, "__len__")
    if not is_map_style or isinstance(found, str | bytes | Mapping | type):
        raise InputError(
            f"{what} is {reprlib.repr(found)}, expected a map-style data set: with a length, and "
            "items (image, label)"
        )
    if len(found) == 0:
        raise InputError(f"{what} is empty: it has no samples")
    return DatasetImages(found, labelled, spec)


def _digits(spec: str, labelled: bool) -> ImageData:
    """scikit-learn's handwritten digits, their 17 grey levels spread over 8 bits."""
    if spec not in _DIGITS:
        raise InputError(f"{spec} is not there: expected {', '.join(_DIGITS)}")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    chosen = np.arange(len(digits.target))
    if spec != "digits":
        parts = train_test_split(chosen, test_size=0.2, random_state=0, stratify=digits.target)
        chosen = np.sort(parts[_DIGITS.index(spec) - 1])
    return ArrayImages(
        np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8),
        digits.target[chosen] if labelled else None,
        tuple(map(str, digits.target_names)) if labelled else None,
        [f"digits/{index:04d}" for index in chosen],
        kind=spec,
    )


def _known_labels(dataset: Any, class_names: tuple[str, ...] | None) -> NDArray[np.int64] | None:
    """All labels, where the data set lists them without loading its images."""
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for name in ("targets", "labels"):
        labels = getattr(dataset, name, None)
        if isinstance(labels, list | tuple | np.ndarray | Tensor) and len(labels) == len(dataset):
            n_classes = None if class_names is None else len(class_names)
            return checked_labels(labels, len(dataset), n_classes)
    return None


def _check_array(images: NDArray[np.uint8] | Tensor) -> None:
    shape, dtype = tuple(images.shape), str(images.dtype)
    if isinstance(images, Tensor):
        fits = len(shape) == 4 if images.is_floating_point() else len(shape) in (3, 4)
        fits = fits and (images.is_floating_point() or dtype == "torch.uint8")
    else:
        fits = dtype == "uint8" and len(shape) in (3, 4)
    if not fits:
        raise InputError(
            f"images are {dtype} of shape {shape}, expected uint8 (n_samples, height, width, "
            "channels), or a float tensor (n_samples, channels, height, width)"
        )
    if shape[0] == 0:
        raise InputError(f"images have the shape {shape}: there are no samples")


def _source(origin: Any) -> bytes:
    """The source file that defines a function or a class; nothing where there is none."""
    try:
        file = inspect.getsourcefile(origin)
    except TypeError:  # built in, or an instance
        return b""
    return Path(file).read_bytes() if file and Path(file).is_file() else b""


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _description(kind: str, data: ImageData) -> dict[str, Any]:
    return {
        "kind": kind,
        "n_samples": len(data),
        "n_classes": None if data.class_names is None else len(data.class_names),
        "fingerprint": data.fingerprint,
    }


def _range(n_classes: int | None) -> str:
    return "at least 0" if n_classes is None else f"an integer in [0, {n_classes})"
