"""Shards: safetensors files of features with labels, read and written whole or in blocks."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from penult.errors import InputError
from penult.network.head import Head
from penult.network.link import SIGMOID, SOFTMAX, check_link, decided
from penult.storage import read_tensors, write_json, write_tensors
from penult.text import one_line

FORMAT = "penult-features/1"
BLOCK_ROWS = 8192
DTYPES = ("F16", "F32", "BF16", "F64")


@dataclass(eq=False)
class Block:
    """Some samples: what one step of a streamed computation sees.

    Attributes:
        features: (n_samples, n_features) float32.
        labels: (n_samples,) int64; (n_samples, n_classes) bool where the data are multi-label.
        predicted: what the network itself gave, likewise; None where not recorded.
        ids: name of each sample; empty where they have none.
    """

    features: Tensor
    labels: Tensor
    predicted: Tensor | None
    ids: list[str]

    def __iter__(self) -> Iterator[Tensor]:
        """Unpack as `features, labels`."""
        return iter((self.features, self.labels))

    def where(self, keep: Tensor) -> Block:
        """The samples for which `keep` (n_samples,) bool is set."""
        predicted = None if self.predicted is None else self.predicted[keep]
        ids = [name for name, kept in zip(self.ids, keep.tolist(), strict=False) if kept]
        return Block(self.features[keep], self.labels[keep], predicted, ids)

    def dense_classes(self, head: Head) -> Tensor:
        """What the dense network gives each sample: as recorded, else from its head."""
        if self.predicted is not None:
            return self.predicted
        return decided(head(self.features), head.link)


def read_shard(
    path: Path, rows: int | None = BLOCK_ROWS, *, first: int = 0, stop: int | None = None
) -> Iterator[Block]:
    """Blocks of at most `rows` rows of one features file, or the whole of it as one block.

    Args:
        path: the file.
        rows: of a block.
        first: row at which to begin.
        stop: row before which to end.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            features, labels = file.get_slice("features"), file.get_slice("labels")
            predicted = file.get_slice("predicted") if "predicted" in names else None
            n = features.get_shape()[0]
            ids = _ids(path, file.metadata() or {}, n)
            _check_predicted(path, predicted, tuple(labels.get_shape()))
            end = n if stop is None else min(stop, n)
            step = max(1, n if rows is None else rows)
            for start in range(first, max(end, first + 1), step):
                part = slice(start, min(start + step, end))
                yield Block(
                    features[part].float(),
                    labels_as_kept(labels[part]),
                    None if predicted is None else predicted[part],
                    ids[part],
                )
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no readable features file: {error}") from error


def labels_as_kept(labels: Tensor) -> Tensor:
    """Labels of a file as a block has them."""
    return labels != 0 if labels.ndim == 2 else labels.long()


def map_shard(path: Path) -> Tensor:
    """The features of a file as they are stored, mapped into memory."""
    return read_tensors(path, FORMAT, ("features",), only=("features",))[0]["features"]


def write_shard(path: Path, block: Block, notes: Mapping[str, str]) -> None:
    """Write a block as one shard, with `notes` in its metadata."""
    tensors = {"features": block.features, "labels": block.labels}
    if block.predicted is not None:
        tensors["predicted"] = block.predicted
    notes = {**notes, "format": FORMAT, "ids": packed(block.ids)}
    write_tensors(path, tensors, notes)


def packed(ids: Sequence[str]) -> str:
    """Names as the metadata of a features file holds them."""
    return json.dumps(list(ids), ensure_ascii=False, separators=(",", ":"))


def read_notes(path: Path) -> dict[str, str]:
    """Metadata of a features file."""
    return read_tensors(path, FORMAT, (), only=())[1]


def save_dense(path: Path, head: Head) -> None:
    """Write a dense head beside the shards that it reads."""
    metadata = {"format": "penult-dense/1", "layer": head.name, "reduce": head.reduce}
    metadata["verified"] = json.dumps(head.verified)
    if head.kept is not None:
        metadata |= {"kept": json.dumps(head.kept), "n_outputs": str(head.n_outputs)}
    if head.multi_label:
        metadata["link"] = head.link
    write_tensors(path, {"weight": head.weight, "bias": head.bias}, metadata)


def load_dense(path: Path) -> Head:
    """Read a dense head."""
    tensors, notes = read_tensors(path, "penult-dense/1", ("weight", "bias"))
    verified = bool(json.loads(notes["verified"]))
    kept = tuple(map(int, json.loads(notes["kept"]))) if "kept" in notes else None
    n_outputs = int(notes["n_outputs"]) if kept is not None else None
    given = (notes["layer"], tensors["weight"], tensors["bias"], notes["reduce"], verified)
    link = notes.get("link", SOFTMAX)
    return Head(*given, kept=kept, n_outputs=n_outputs, link=link)


def write_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Write a folder's `index.json`."""
    write_json(folder / "index.json", {"format": FORMAT, **index})


def require_finite(block: Block, feature: Callable[[int], str] = "feature {}".format) -> None:
    """Refuse NaN or infinite features, naming the first sample and feature."""
    # A sum is finite if all its terms are; if it is not, look closer (it may merely overflow).
    if bool(block.features.sum(dtype=torch.float64).isfinite()):
        return
    bad = (~block.features.isfinite()).nonzero()
    if len(bad):
        i, j = (int(x) for x in bad[0])
        name = block.ids[i] if block.ids else str(i)
        raise InputError(
            f"{feature(j)} of sample {name} is {float(block.features[i, j])}: expected finite "
            "features; look at this image, or run the network in float32"
        )


def shard_shape(path: Path) -> tuple[int, int]:
    """(n_samples, n_features) of a features file, and that its tensors fit each other."""
    read_tensors(path, FORMAT, ("features", "labels"), only=())
    with safe_open(path, framework="pt") as file:
        features, labels = file.get_slice("features"), file.get_slice("labels")
        shape, dtype = tuple(features.get_shape()), features.get_dtype()
        labels_shape, labels_dtype = tuple(labels.get_shape()), labels.get_dtype()
    if len(shape) != 2 or dtype not in DTYPES:
        raise InputError(
            f"{path}: expected floating-point `features` of shape (n_samples, n_features), "
            f"found {dtype} of shape {shape}"
        )
    one_each = labels_shape == shape[:1] and labels_dtype[0] in "IU"
    multi_hot = len(labels_shape) == 2 and labels_shape[0] == shape[0]
    if not (one_each or (multi_hot and (labels_dtype == "BOOL" or labels_dtype[0] in "IU"))):
        raise InputError(
            f"{path}: expected integer `labels` of shape ({shape[0]},), found {labels_dtype} of "
            f"shape {labels_shape}; several per sample are ({shape[0]}, n_classes) of 0 and 1"
        )
    return shape[0], shape[1]


def read_labels(path: Path) -> Tensor:
    """Labels of a features file as `Block` has them, its features left alone."""
    labels = read_tensors(path, FORMAT, ("labels",), only=("labels",))[0]["labels"]
    if labels.ndim == 2 and bool(((labels != 0) & (labels != 1)).any()):
        raise InputError(f"{path}: multi-hot `labels` must be 0 or 1")
    return labels_as_kept(labels)


def read_link(path: Path) -> str:
    """What the logits of a features file mean; "sigmoid" also where its labels are multi-hot."""
    with safe_open(path, framework="pt") as file:
        multi_hot = len(file.get_slice("labels").get_shape()) == 2
        link = (file.metadata() or {}).get("link")
    if link is None and multi_hot and bool((read_labels(path).sum(1) == 1).all()):
        raise InputError(
            f"{path}: its multi-hot labels have exactly one 1 for each sample: expected `labels` "
            "(n_samples,) as integers, or link = sigmoid in the metadata if each class is decided "
            "by itself"
        )
    link = link or (SIGMOID if multi_hot else SOFTMAX)
    check_link(link)
    if multi_hot != (link == SIGMOID):
        raise InputError(
            f"{path}: its link is {link} and its labels have the shape of the other: expected "
            "(n_samples, n_classes) for sigmoid and (n_samples,) for softmax"
        )
    return link


def read_ids(path: Path, n_samples: int) -> list[str]:
    """Names of a features file's samples; empty where they have none."""
    return _ids(path, read_notes(path), n_samples)


def row_names(start: int, stop: int) -> list[str]:
    """What samples without a name are called: their row numbers."""
    return [str(i) for i in range(start, stop)]


def require_one_each(where: str, ids: Sequence[str], n_samples: int) -> None:
    """Refuse names that are not one for each sample, or that two samples have."""
    if len(ids) != n_samples:
        raise InputError(
            f"{where}: {len(ids)} ids for {n_samples} samples; expected one for each, or none"
        )
    if len(set(ids)) != n_samples:
        name, n = Counter(ids).most_common(1)[0]
        raise InputError(
            f"{where}: {n} samples have the id {one_line(name, 80)}; expected a different one for "
            "each"
        )


def _ids(path: Path, notes: Mapping[str, str], n_samples: int) -> list[str]:
    names = _strings(path, "ids", notes.get("ids", "[]"))
    if names and len(names) != n_samples:
        raise InputError(
            f"{path}: {len(names)} ids for {n_samples} samples; expected one for each, or none"
        )
    return names


def read_class_names(path: Path) -> list[str] | None:
    """Class names of a features file, where it has any."""
    text = read_notes(path).get("class_names")
    return None if text is None else _strings(path, "class_names", text)


def _strings(path: Path, what: str, text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise InputError(f"{path}: expected a JSON list of strings as `{what}`, found {text[:60]}")
    return found


def _check_predicted(path: Path, predicted: Any, expected: tuple[int, ...]) -> None:
    """Refuse recorded classes of another shape than the labels."""
    if predicted is None:
        return
    shape, dtype = tuple(predicted.get_shape()), predicted.get_dtype()
    if shape != expected or not (dtype == "BOOL" if len(expected) == 2 else dtype[0] in "IU"):
        kind = "bool" if len(expected) == 2 else "integer"
        raise InputError(
            f"{path}: expected {kind} `predicted` of shape {expected}, found {dtype} of shape "
            f"{shape}"
        )


def shard_name(name: object) -> str:
    """The name of a shard, as this library writes it: an index may come from anybody."""
    if not isinstance(name, str) or not re.fullmatch(r"shard-\d{5,9}\.safetensors", name):
        raise InputError(f"index.json names {name!r:.80}: expected shard-00000.safetensors")
    return name
