"""Features: penultimate vectors with labels, in memory or as safetensors shards in a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from penult.errors import InputError
from penult.storage import read_json, read_tensors, write_json, write_tensors
from penult.tap import Head

FORMAT = "penult-features/1"
BLOCK_ROWS = 8192


@dataclass(eq=False)
class Block:
    """Some samples: what one step of a streamed computation sees.

    Attributes:
        features: (n_samples, n_features) float32.
        labels: (n_samples,) int64.
        predicted: (n_samples,) int64, classes the network itself gave; None where not recorded.
        ids: name of each sample.
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
        """Class that the dense network gives each sample: as recorded, else from its head."""
        return head(self.features).argmax(1) if self.predicted is None else self.predicted


class Features:
    """Penultimate features of many samples, read block by block: they need not fit in memory.

    Made by `Features.of` from arrays, `Features.open` from files, or `collect` from a network.

    Attributes:
        n_samples, n_features: the shape of the features.
        head: the dense head that reads them, or None.
        class_names: names in the order of the head's logits, or None.
    """

    def __init__(
        self,
        parts: Sequence[Path | Block],
        shape: tuple[int, int],
        head: Head | None,
        class_names: Sequence[str] | None,
    ) -> None:
        self._parts = parts
        self.n_samples, self.n_features = shape
        self.head = head
        self.class_names = None if class_names is None else tuple(class_names)

    @classmethod
    def of(
        cls,
        features: Any,
        labels: Any,
        weight: Any = None,
        bias: Any = None,
        class_names: Sequence[str] | None = None,
    ) -> Features:
        """Features already at hand, as arrays or tensors.

        Args:
            features: (n_samples, n_features), finite.
            labels: (n_samples,) integers in [0, n_classes).
            weight: (n_classes, n_features) of the dense head, or None.
            bias: (n_classes,), or None for a head without.
            class_names: n_classes names, or None.

        Raises:
            InputError: shapes that do not fit, labels out of range, NaN or infinite features.
        """
        z = torch.as_tensor(features).detach()
        y = torch.as_tensor(labels).detach()
        if z.ndim != 2 or not z.dtype.is_floating_point:
            raise InputError(
                "expected floating-point features of shape (n_samples, n_features), found "
                f"{z.dtype} of shape {tuple(z.shape)}"
            )
        if y.dtype.is_floating_point or y.dtype == torch.bool or y.shape != z.shape[:1]:
            raise InputError(
                f"expected integer labels of shape ({len(z)},), found {y.dtype} of shape "
                f"{tuple(y.shape)}"
            )
        head = None if weight is None else head_of(weight, bias)
        z, y = z.to("cpu", torch.float32), y.to("cpu", torch.int64)
        block = Block(z, y, None, [])
        made = cls([block], (z.shape[0], z.shape[1]), head, class_names)
        made._check()
        return made

    @classmethod
    def open(cls, path: str | Path) -> Features:
        """Features of a file, or of a folder of shards with its `index.json`.

        Raises:
            InputError: absent, truncated, of another format, an unfinished folder, or tensors whose
                shapes or labels do not fit together.
        """
        path = Path(path)
        return cls._open_folder(path) if path.is_dir() else cls._open_file(path)

    @classmethod
    def _open_file(cls, path: Path) -> Features:
        tensors, metadata = read_tensors(
            path, FORMAT, ("features", "labels"), only=("labels", "weight", "bias")
        )
        with safe_open(path, framework="pt") as file:
            view = file.get_slice("features")
            shape, dtype = view.get_shape(), view.get_dtype()
        if len(shape) != 2 or dtype not in ("F16", "F32", "BF16", "F64"):
            raise InputError(
                f"{path}: expected floating-point `features` of shape (n_samples, n_features), "
                f"found {dtype} of shape {tuple(shape)}"
            )
        labels = tensors["labels"]
        if labels.shape != (shape[0],) or labels.dtype.is_floating_point:
            raise InputError(
                f"{path}: expected integer `labels` of shape ({shape[0]},), found {labels.dtype} "
                f"of shape {tuple(labels.shape)}"
            )
        weight = tensors.get("weight")
        head = None if weight is None else head_of(weight, tensors.get("bias"))
        names = json.loads(metadata["class_names"]) if "class_names" in metadata else None
        made = cls([path], (shape[0], shape[1]), head, names)
        made._check_head(str(path))
        made._check_labels(labels, str(path))
        return made

    @classmethod
    def _open_folder(cls, folder: Path) -> Features:
        index = read_json(folder / "index.json", FORMAT)
        if not index.get("complete"):
            raise InputError(
                f"{folder} is unfinished: run the command that writes it again, it goes on where "
                "it stopped"
            )
        parts = [folder / shard["file"] for shard in index["shards"]]
        for part in parts:
            if not part.is_file():
                raise InputError(f"{folder}/index.json names {part.name}, which is not there")
        head = load_dense(folder / "dense.safetensors")
        shape = (int(index["n_samples"]), int(index["n_features"]))
        made = cls(parts, shape, head, index["class_names"])
        made._check_head(str(folder))
        return made

    @property
    def n_classes(self) -> int:
        """Number of classes: of the head, else of the names, else of the labels."""
        if self.head is not None:
            return self.head.n_classes
        if self.class_names is not None:
            return len(self.class_names)
        return 1 + max((int(block.labels.max()) for block in self.blocks()), default=-1)

    def names(self) -> tuple[str, ...]:
        """Class names, or numbers where there are none."""
        return self.class_names or tuple(map(str, range(self.n_classes)))

    def blocks(self) -> Iterator[Block]:
        """All samples in order, in blocks of a bounded number of rows, each checked to be finite.

        Raises:
            InputError: a NaN or infinite feature (names the sample and the feature).
        """
        for part in self._parts:
            for block in [part] if isinstance(part, Block) else read_shard(part):
                yield from _checked(block)

    def __iter__(self) -> Iterator[Block]:
        return self.blocks()

    def subset(self, keep: Tensor) -> Features:
        """Some of the samples, read from the same place.

        Args:
            keep: (n_samples,) bool.
        """
        return _Subset(self, keep)

    def arrays(self) -> tuple[Tensor, Tensor]:
        """All features (n_samples, n_features) float32 and labels (n_samples,) in memory."""
        blocks = list(self.blocks())
        if len(blocks) == 1:
            return blocks[0].features, blocks[0].labels
        return torch.cat([b.features for b in blocks]), torch.cat([b.labels for b in blocks])

    def dense_accuracy(self, head: Head | None = None) -> float:
        """Fraction of samples that the dense network classifies right, by its own head or another."""
        head = head or self.require_head()
        n_correct = sum(int((b.dense_classes(head) == b.labels).sum()) for b in self.blocks())
        return n_correct / self.n_samples

    def fingerprint(self) -> str:
        """Hash of the samples: of the bytes of the files, or of the arrays."""
        digest = hashlib.blake2b(digest_size=16)
        for part in self._parts:
            if isinstance(part, Path):
                with part.open("rb") as file:
                    while chunk := file.read(1 << 20):
                        digest.update(chunk)
            else:
                digest.update(part.features.contiguous().numpy().tobytes())
                digest.update(part.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def require_head(self) -> Head:
        """The dense head, or an error that says how to give one."""
        if self.head is None:
            raise InputError(
                "the features come without a head: add `weight` (n_classes, n_features) and "
                "`bias` (n_classes,) to the features file"
            )
        return self.head

    def _check(self) -> None:
        self._check_head("the features")
        for block in self.blocks():
            self._check_labels(block.labels, "the features")

    def _check_head(self, where: str) -> None:
        if self.n_samples == 0:
            raise InputError(f"{where}: no samples")
        head, names = self.head, self.class_names
        if head is not None and head.n_features != self.n_features:
            raise InputError(
                f"{where}: n_features is {self.n_features} in the features and "
                f"{head.n_features} in the head's weight"
            )
        if head is not None and names is not None and head.n_classes != len(names):
            raise InputError(f"{where}: {len(names)} class names for {head.n_classes} classes")

    def _check_labels(self, labels: Tensor, where: str) -> None:
        known = self.head is not None or self.class_names is not None
        bad = labels < 0 if not known else (labels < 0) | (labels >= self.n_classes)
        if bool(bad.any()):
            i = int(bad.nonzero()[0, 0])
            bound = f"[0, {self.n_classes})" if known else "[0, n_classes)"
            raise InputError(
                f"{where}: labels must lie in {bound}, found {int(labels[i])} at sample {i}"
            )


class _Subset(Features):
    """Samples of other features for which a flag is set."""

    def __init__(self, whole: Features, keep: Tensor) -> None:
        shape = (int(keep.sum()), whole.n_features)
        super().__init__((), shape, whole.head, whole.class_names)
        self._whole = whole
        self._keep = keep

    def blocks(self) -> Iterator[Block]:
        start = 0
        for block in self._whole.blocks():
            stop = start + len(block.labels)
            kept = block.where(self._keep[start:stop])
            start = stop
            if len(kept.labels):
                yield kept


def head_of(weight: Any, bias: Any = None) -> Head:
    """Head from arrays: weight (n_classes, n_features), bias (n_classes,) or None for zeros.

    Raises:
        InputError: shapes that do not fit, NaN or infinite values.
    """
    w = torch.as_tensor(weight).detach().to("cpu", torch.float32)
    if w.ndim != 2:
        raise InputError(
            f"expected a weight of shape (n_classes, n_features), found {tuple(w.shape)}"
        )
    b = torch.zeros(len(w)) if bias is None else torch.as_tensor(bias).detach()
    b = b.to("cpu", torch.float32)
    if b.shape != (len(w),):
        raise InputError(f"expected a bias of shape ({len(w)},), found {tuple(b.shape)}")
    if not (bool(w.isfinite().all()) and bool(b.isfinite().all())):
        raise InputError("the head's weight or bias holds NaN or infinite values")
    return Head("", w, b)


def read_shard(path: Path, rows: int | None = BLOCK_ROWS) -> Iterator[Block]:
    """Blocks of at most `rows` rows of one features file, or the whole of it as one block."""
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            ids = json.loads((file.metadata() or {}).get("ids", "[]"))
            features, labels = file.get_slice("features"), file.get_slice("labels")
            predicted = file.get_slice("predicted") if "predicted" in names else None
            n = features.get_shape()[0]
            step = max(1, n if rows is None else rows)
            for start in range(0, max(n, 1), step):
                part = slice(start, min(start + step, n))
                yield Block(
                    features[part].float(),
                    labels[part].long(),
                    None if predicted is None else predicted[part],
                    ids[part] or [str(i) for i in range(part.start, part.stop)],
                )
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no readable features file: {error}") from error


def write_shard(path: Path, block: Block, notes: Mapping[str, str]) -> None:
    """Write a block as one shard, with `notes` in its metadata."""
    tensors = {"features": block.features, "labels": block.labels}
    if block.predicted is not None:
        tensors["predicted"] = block.predicted
    ids = json.dumps(block.ids, ensure_ascii=False)
    write_tensors(path, tensors, {**notes, "format": FORMAT, "ids": ids})


def read_notes(path: Path) -> dict[str, str]:
    """Metadata of a features file."""
    return read_tensors(path, FORMAT, (), only=())[1]


def save_features(path: str | Path, features: Features) -> None:
    """Write features that fit in memory as one features file, with head and class names."""
    z, y = features.arrays()
    tensors = {"features": z, "labels": y}
    metadata = {"format": FORMAT}
    if features.head is not None:
        tensors |= {"weight": features.head.weight, "bias": features.head.bias}
    if features.class_names is not None:
        metadata["class_names"] = json.dumps(features.class_names, ensure_ascii=False)
    write_tensors(Path(path), tensors, metadata)


def save_dense(path: Path, head: Head) -> None:
    """Write a dense head beside the shards that it reads."""
    metadata = {"format": "penult-dense/1", "layer": head.name, "reduce": head.reduce}
    metadata["verified"] = json.dumps(head.verified)
    write_tensors(path, {"weight": head.weight, "bias": head.bias}, metadata)


def load_dense(path: Path) -> Head:
    """Read a dense head."""
    tensors, notes = read_tensors(path, "penult-dense/1", ("weight", "bias"))
    verified = bool(json.loads(notes["verified"]))
    return Head(notes["layer"], tensors["weight"], tensors["bias"], notes["reduce"], verified)


def write_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Write a folder's `index.json`."""
    write_json(folder / "index.json", {"format": FORMAT, **index})


def _checked(block: Block) -> Iterator[Block]:
    require_finite(block)
    if len(block.features):
        yield block


def require_finite(block: Block) -> None:
    """Refuse NaN or infinite features, naming the first sample and feature."""
    # A sum is finite if all its terms are; if it is not, look closer (it may merely overflow).
    if bool(block.features.sum(dtype=torch.float64).isfinite()):
        return
    bad = (~block.features.isfinite()).nonzero()
    if len(bad):
        i, j = (int(x) for x in bad[0])
        name = block.ids[i] if block.ids else str(i)
        raise InputError(
            f"feature {j} of sample {name} is {float(block.features[i, j])}: expected finite "
            "features; look at this image, or run the network in float32"
        )
