"""Features: penultimate vectors with labels, in memory or as safetensors shards in a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.given import block_as_given, check_labels, class_places, multi_hot
from penult.features.piece import PIECE_ROWS, Piece
from penult.features.shards import (
    FORMAT,
    Block,
    load_dense,
    map_shard,
    read_class_names,
    read_ids,
    read_labels,
    read_link,
    read_shard,
    require_finite,
    require_one_each,
    row_names,
    shard_name,
    shard_shape,
)
from penult.network.head import Head, head_of
from penult.network.link import SIGMOID, SOFTMAX, require_softmax
from penult.storage import read_json, read_tensors


class Features:
    """Penultimate features of many samples, read block by block: they need not fit in memory.

    Made by `Features.of` from arrays, `Features.open` from files, or `collect` from a network.

    Attributes:
        n_samples, n_features: the shape of the features.
        head: the dense head that reads them, or None.
        class_names: names in the order of the head's logits, or None.
        folder: of shards, where they were opened from one.
        link: what the logits mean, see `penult.network.link`; with "sigmoid" the data are
            multi-label and labels are (n_samples, n_classes) bool.
    """

    def __init__(
        self,
        parts: Sequence[Path | Block],
        shape: tuple[int, int],
        head: Head | None,
        class_names: Sequence[str] | None,
        link: str = SOFTMAX,
    ) -> None:
        self._parts = parts
        self.link = link if head is None else head.link
        self.n_samples, self.n_features = shape
        self.head = head
        self.class_names = None if class_names is None else tuple(class_names)
        self.folder: Path | None = None
        self._hold = 0
        self._held: list[Block] | None = None

    def __repr__(self) -> str:
        # The labels would have to be read to count the classes where nothing names them.
        known = self.head is not None or self.class_names is not None
        classes = f", n_classes={self.n_classes}" if known else ""
        head = "" if self.head is None else ", with the dense head"
        return (
            f"<Features: n_samples={self.n_samples}, n_features={self.n_features}{classes}{head}>"
        )

    @classmethod
    def of(
        cls,
        features: Any,
        labels: Any,
        weight: Any = None,
        bias: Any = None,
        class_names: Sequence[str] | None = None,
        ids: Sequence[Any] | None = None,
        *,
        multi_label: bool | None = None,
    ) -> Features:
        """Features already at hand, as arrays or tensors.

        Args:
            features: (n_samples, n_features), finite; arrays, tensors, or a table's columns.
            labels: (n_samples,) integers in [0, n_classes), or words: `class_names`, or in
                alphabetical order where these are not given; (n_samples, n_classes) of 0 and 1 for
                data with several labels per sample.
            weight: (n_classes, n_features) of the dense head, or None; (1, n_features) for one
                logit, that of the second of two classes.
            bias: (n_classes,), or None for a head without.
            class_names: n_classes names, or None.
            ids: n_samples different names of the samples, or None for their row numbers.
            multi_label: whether each class is decided by itself, by a sigmoid; where None, if a row
                of (n_samples, n_classes) labels has other than exactly one 1.

        Raises:
            InputError: shapes that do not fit, labels out of range, NaN or infinite features, ids
                that are not one for each sample.
        """
        block, class_names = block_as_given(features, labels, class_names, ids, multi_label)
        link = SIGMOID if block.labels.ndim == 2 else SOFTMAX
        head = None if weight is None else head_of(weight, bias, link)
        shape = block.features.shape[0], block.features.shape[1]
        made = cls([block], shape, head, class_names, link)
        made._check("the features")
        require_finite(block)
        return made

    @classmethod
    def open(cls, path: str | Path, *, hold: int = 0) -> Features:
        """Features of a file, or of a folder of shards with its `index.json`.

        Args:
            path: the file or folder.
            hold: bytes of features up to which what was once read stays in memory.

        Raises:
            InputError: absent, truncated, of another format, an unfinished folder, or tensors whose
                shapes or labels do not fit together.
        """
        path = Path(path)
        made = cls._open_folder(path) if path.is_dir() else cls._open_file(path)
        made._hold = hold
        return made

    @classmethod
    def _open_file(cls, path: Path) -> Features:
        shape = shard_shape(path)
        tensors, _ = read_tensors(path, FORMAT, (), only=("weight", "bias"))
        weight = tensors.get("weight")
        link = read_link(path)
        head = None if weight is None else head_of(weight, tensors.get("bias"), link)
        made = cls([path], shape, head, read_class_names(path), link)
        made._check(str(path))
        return made

    @classmethod
    def _open_folder(cls, folder: Path) -> Features:
        index = read_json(folder / "index.json", FORMAT)
        if not index.get("complete"):
            raise InputError(
                f"{folder} is unfinished: run the command that writes it again, it goes on where "
                "it stopped"
            )
        try:
            parts = [folder / shard_name(shard["file"]) for shard in index["shards"]]
            names = [str(name) for name in index["class_names"]]
            n_features = int(index["n_features"])
        except (KeyError, TypeError) as error:
            raise InputError(f"{folder}/index.json is damaged: it lacks {error}") from error
        for part in parts:
            if not part.is_file():
                raise InputError(f"{folder}/index.json names {part.name}, which is not there")
        # Folders of other layers than the penultimate one say that no head reads them.
        head = load_dense(folder / "dense.safetensors") if index.get("head", True) else None
        expected = n_features if head is None else head.n_features
        shapes = [shard_shape(part) for part in parts]
        link = str(index.get("link", SOFTMAX))
        made = cls(parts, (sum(n for n, _ in shapes), expected), head, names, link)
        for part, (_, found) in zip(parts, shapes, strict=True):
            if found != expected:
                where = "index.json" if head is None else "the head"
                raise InputError(f"{part}: n_features is {found}, and {expected} in {where}")
        made._check(str(folder))
        made.folder = folder
        return made

    @property
    def multi_label(self) -> bool:
        """Whether a sample can have several labels, and each class is decided by itself."""
        return self.link == SIGMOID

    def require_one_label(self, what: str) -> None:
        """Refuse multi-label data, which `what` is not made for.

        Raises:
            InputError: samples can have several labels; says what there is for them.
        """
        require_softmax(self.link, what)

    @property
    def n_classes(self) -> int:
        """Number of classes: of the head, else of the names, else of the labels."""
        if self.head is not None:
            return self.head.n_classes
        if self.class_names is not None:
            return len(self.class_names)
        if self.multi_label:
            return self.labels().shape[1]
        return 1 + max((int(block.labels.max()) for block in self.blocks()), default=-1)

    def names(self) -> tuple[str, ...]:
        """Class names, or numbers where there are none."""
        return self.class_names or tuple(map(str, range(self.n_classes)))

    def blocks(self) -> Iterator[Block]:
        """All samples in order, in blocks of a bounded number of rows, each checked to be finite.

        Samples without a name are called by their row number.

        Raises:
            InputError: a NaN or infinite feature (names the sample and the feature).
        """
        if self._held is not None:
            yield from self._held
            return
        read = []
        keep = 0 < 4 * self.n_samples * self.n_features <= self._hold
        row = 0
        for part in self._parts:
            for block in [part] if isinstance(part, Block) else read_shard(part):
                n = len(block.labels)
                named = block if block.ids else replace(block, ids=row_names(row, row + n))
                row += n
                require_finite(named)
                if keep:
                    read.append(named)
                if n:
                    yield named
        if keep:
            self._held = [block for block in read if len(block.labels)]

    def ids(self) -> list[str]:
        """Name of every sample, row numbers where they have none; features are not read.

        Raises:
            InputError: a name that two samples have.
        """
        names: list[str] = []
        for part in self._parts:
            n = len(part.labels) if isinstance(part, Block) else shard_shape(part)[0]
            found = part.ids if isinstance(part, Block) else read_ids(part, n)
            names += found or row_names(len(names), len(names) + n)
        require_one_each("the features", names, self.n_samples)
        return names

    def __iter__(self) -> Iterator[Block]:
        return self.blocks()

    def subset(self, keep: Tensor) -> Features:
        """Some of the samples, read from the same place.

        Args:
            keep: (n_samples,) bool.
        """
        return _View(self, keep)

    def arrays(self) -> tuple[Tensor, Tensor]:
        """All features (n_samples, n_features) float32 and labels in memory."""
        blocks = list(self.blocks())
        if len(blocks) == 1:
            return blocks[0].features, blocks[0].labels
        return torch.cat([b.features for b in blocks]), torch.cat([b.labels for b in blocks])

    def mapped(self) -> list[Tensor]:
        """The features as they are stored, part by part; those in files are mapped, not read.

        Returns:
            (n, n_features) each, float32 or whatever the files hold.
        """
        return [
            part.features if isinstance(part, Block) else map_shard(part) for part in self._parts
        ]

    def dense_accuracy(self, head: Head | None = None) -> float:
        """Fraction of samples that the dense network has right, by its own head or another.

        For multi-label data the fraction of its decisions, one for each sample and class.
        """
        head = head or self.require_head()
        n_correct = sum(int((b.dense_classes(head) == b.labels).sum()) for b in self.blocks())
        return n_correct / (self.n_samples * (self.n_classes if self.multi_label else 1))

    def pieces(self) -> list[Piece]:
        """The samples in pieces that can be read by themselves, in order, by other processes too.

        Their blocks, one piece after the other, are those of `blocks`, but for the names of samples
        without one.
        """
        found: list[Piece] = []
        for part in self._parts:
            n = len(part.labels) if isinstance(part, Block) else shard_shape(part)[0]
            ends = [n] if isinstance(part, Block) else [*range(PIECE_ROWS, n, PIECE_ROWS), n]
            starts = [0, *ends[:-1]]
            where = part if isinstance(part, Block) else part.resolve()
            found += [Piece(where, a, b) for a, b in zip(starts, ends, strict=True) if b > a]
        return found

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
                digest.update("\n".join(part.ids).encode())
        return digest.hexdigest()

    def require_head(self) -> Head:
        """The dense head, or an error that says how to give one."""
        if self.head is None:
            raise InputError(
                "the features come without a head: add `weight` (n_classes, n_features) and "
                "`bias` (n_classes,) to the features file"
            )
        return self.head

    def labels(self) -> Tensor:
        """All labels, as `Block` has them; features in files are not read."""
        return torch.cat(
            [part.labels if isinstance(part, Block) else read_labels(part) for part in self._parts]
        )

    def matched(self, reference: Features) -> Features:
        """These features as samples of the same network as `reference`.

        Labels are put in the order of the reference's class names where both have names. Where the
        reference is multi-label, so is what is returned.

        Raises:
            InputError: another n_features or head, unknown class names, labels out of range.
        """
        if self.n_features != reference.n_features:
            raise InputError(
                f"n_features is {reference.n_features} in the features and {self.n_features} in "
                "those for evaluation: expected features of the same network"
            )
        own, head = self.head, reference.head
        if own is not None and head is not None and not own.is_equal(head):
            raise InputError(
                "the features for evaluation come with another head than the features: expected "
                "features of the same network"
            )
        place = class_places(self.class_names, reference.class_names)
        if self.multi_label and not reference.multi_label:
            raise InputError(
                "the features for evaluation are multi-label and the features have one class per "
                "sample: expected labels of the same kind"
            )
        view = _View(self, place=place, n_classes=reference.n_classes)
        view.head, view.class_names, view.link = head, reference.class_names, reference.link
        view._check("the features for evaluation")
        return view

    def _check(self, where: str) -> None:
        if self.n_samples == 0 or self.n_features == 0:
            raise InputError(f"{where}: no {'samples' if self.n_samples == 0 else 'features'}")
        head, names = self.head, self.class_names
        if head is not None and head.n_features != self.n_features:
            raise InputError(
                f"{where}: n_features is {self.n_features} in the features and "
                f"{head.n_features} in the head's weight"
            )
        if head is not None and names is not None and head.n_classes != len(names):
            raise InputError(f"{where}: {len(names)} class names for {head.n_classes} classes")
        known = head is not None or names is not None
        check_labels(where, self.labels(), self.n_classes if known else None)


class _View(Features):
    """Other features seen through: some of the samples, or labels in another order."""

    def __init__(
        self,
        whole: Features,
        keep: Tensor | None = None,
        place: Tensor | None = None,
        n_classes: int = 0,
    ) -> None:
        n_samples = whole.n_samples if keep is None else int(keep.sum())
        super().__init__(
            (), (n_samples, whole.n_features), whole.head, whole.class_names, whole.link
        )
        self._whole = whole
        self._keep = keep
        self._place = place
        self._n_placed = n_classes

    def blocks(self) -> Iterator[Block]:
        start = 0
        for block in self._whole.blocks():
            stop = start + len(block.labels)
            seen = block if self._keep is None else block.where(self._keep[start:stop])
            start = stop
            if self._place is not None or self.link != self._whole.link:
                predicted = None if seen.predicted is None else self._placed(seen.predicted)
                seen = Block(seen.features, self._placed(seen.labels), predicted, seen.ids)
            if len(seen.labels):
                yield seen

    def pieces(self) -> list[Piece]:
        if self._place is not None or self.link != self._whole.link:
            return [Piece(block, 0, len(block.labels)) for block in self.blocks()]
        found, row = [], 0
        for piece in self._whole.pieces():
            stop = row + piece.n_samples
            keep = None if self._keep is None else self._keep[row:stop]
            row = stop
            if keep is None or bool(keep.any()):
                found.append(piece.where(keep))
        return found

    def mapped(self) -> list[Tensor]:
        if self._keep is None:
            return self._whole.mapped()
        parts, start = [], 0
        for part in self._whole.mapped():
            parts.append(part[self._keep[start : start + len(part)]])
            start += len(part)
        return [part for part in parts if len(part)]

    def ids(self) -> list[str]:
        names = self._whole.ids()
        return names if self._keep is None else list(compress(names, self._keep.tolist()))

    def labels(self) -> Tensor:
        labels = self._whole.labels()
        labels = labels if self._keep is None else labels[self._keep]
        return self._placed(labels)

    def _placed(self, labels: Tensor) -> Tensor:
        """Labels as the classes are counted here; multi-hot ones of single ones where asked for."""
        if labels.ndim == 1:
            labels = labels if self._place is None else self._place[labels]
            return multi_hot(labels, self.n_classes) if self.multi_label else labels
        if self._place is None:
            return labels
        found = labels.new_zeros(len(labels), self._n_placed)
        found[:, self._place] = labels
        return found

    def fingerprint(self) -> str:
        digest = hashlib.blake2b(self._whole.fingerprint().encode(), digest_size=16)
        for tensor in (self._keep, self._place):
            digest.update(b"" if tensor is None else tensor.numpy().tobytes())
        return digest.hexdigest()
