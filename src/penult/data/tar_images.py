"""Images in tar archives: of class folders, or of WebDataset shards."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penult.data.files import FileImages
from penult.data.image import (
    MAX_BYTES,
    ImageData,
    ImageFaultError,
    Loaded,
    described_as,
    digest_of,
    formats,
    open_image,
    printable,
)
from penult.data.items import LABEL_KEYS
from penult.data.labels import labels_of
from penult.data.listing import Listing, nfc
from penult.data.multi_hot import is_several, several_notes
from penult.data.tars import Member, TarFile
from penult.data.words import meant_as_numbers
from penult.errors import InputError
from penult.text import described, some

MOST_LABEL = 1 << 20  # bytes of a member that holds a label
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")


class TarImages(FileImages):
    """Images of a tar archive, read in place.

    Args:
        path: the archive; a compressed one is inflated into a temporary file.
        labelled: whether the folders are classes.
        inside: only what is in this folder of the archive.
    """

    kind = "tar"

    def __init__(self, archive: TarFile, labelled: bool, inside: str = "") -> None:
        self._archive = archive
        listing = Listing()
        prefix = f"{inside.strip('/')}/" if inside else ""
        for member in archive.members():
            parts = [part for part in nfc(member.name).split("/") if part not in ("", ".")]
            name = "/".join(parts)
            if name.startswith(prefix) and not listing.passes_over(parts):
                listing.names.append(name.removeprefix(prefix))
                listing.columns.extend((member.size, member.start))
        if inside and not listing.names:
            raise InputError(f"{archive.path} has no folder {inside}")
        super().__init__(archive.path / inside, listing, labelled)

    def _read(self, index: int) -> bytes:
        size, start = map(int, self._table[index])
        return self._archive.read(start, size)

    def _begin(self, index: int, limit: int) -> bytes:
        size, start = map(int, self._table[index])
        return self._archive.read(start, size if limit < 0 else min(limit, size))

    def _contents(self) -> Iterator[bytes]:
        return self._sampled()


class ShardImages(ImageData):
    """Samples of WebDataset shards, in the order of the archives and of the files in them.

    Files of one sample share their name up to the first dot of the file's name, the sample's key:
    `0001.jpg`, `0001.cls`. The label is in `.cls` or `.txt` (a number from 0, or a word), or under
    `label`, `class` or the like in `.json`.

    Args:
        archives: the shards.
        labelled: False passes over labels.
        spec: what the user named them by.
        multi_label: whether samples may have several labels; None to tell by the labels.

    Raises:
        InputError: no samples, one without an image or without a label, two of the same key.
    """

    def __init__(
        self,
        archives: Sequence[TarFile],
        labelled: bool,
        spec: str,
        multi_label: bool | None = None,
    ) -> None:
        self._archives = list(archives)
        self._spec = spec
        self.labelled = labelled
        self.labels = self.class_names = None
        samples = [
            (number, key, found)
            for number, archive in enumerate(self._archives)
            for key, found in _samples(archive)
        ]
        images = [_image(found) for _, _, found in samples]
        bare = [key for (_, key, _), image in zip(samples, images, strict=True) if image is None]
        if len(bare) == len(samples):
            raise InputError(
                f"{spec} holds no images: expected files such as 0001.jpg and 0001.cls"
            )
        kept = [i for i, image in enumerate(images) if image is not None]
        self._members = [(samples[i][0], images[i]) for i in kept]
        self._ids = [printable(nfc(samples[i][1])) for i in kept]
        self.notes = ()
        if bare:
            self.notes = (f"{len(bare):,} samples hold no image, the first: {printable(bare[0])}",)
        self._refuse_doubles()
        if labelled:
            labels = [self._label(*samples[i]) for i in kept]
            try:
                several = any(map(is_several, labels))
                self.labels, self.class_names = labels_of(
                    labels if several else meant_as_numbers(labels),
                    len(labels),
                    None,
                    multi_label if several else False,
                )
            except InputError as error:
                raise InputError(f"{spec}: {error}") from None
            self.multi_label = self.labels.ndim == 2
            self.notes += several_notes(self.labels)
        self._said = multi_label if self.multi_label else None
        self.fingerprint = self._digest()

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, index: int) -> str:
        """The sample's key."""
        return self._ids[index]

    def load(self, index: int) -> Loaded:
        """Open an image; it is decoded when first used."""
        index = range(len(self))[index]
        number, member = self._members[index]
        assert member is not None
        if member.size > MAX_BYTES:
            raise ImageFaultError(
                self.id(index), f"is a file of more than {MAX_BYTES >> 20} MiB: scale it down"
            )
        try:
            raw = self._archives[number].read(member.start, member.size)
        except OSError as error:
            reason = f"cannot be read ({error.strerror or error})"
            raise ImageFaultError(self.id(index), reason) from error
        return open_image(raw, self.id(index))

    def describe(self) -> dict[str, Any]:
        """Kind, what names the shards, numbers and fingerprint."""
        about: dict[str, Any] = {"shards": self._spec, "n_shards": len(self._archives)}
        if self._said is not None:
            about["options"] = {"multi_label": self._said}
        return {**described_as("shards", self), **about}

    def _label(self, number: int, key: str, found: Mapping[str, Member]) -> Any:
        archive = self._archives[number]
        for ending in ("cls", "txt", "json"):
            if ending in found:
                return _label_in(archive, key, ending, found[ending])
        raise InputError(
            f"the sample {printable(key)} of {archive.path} has no label: expected a file .cls, "
            f".txt or .json beside {some(sorted(found))}; or use the network's own predictions as "
            "labels with --labels predicted"
        )

    def _refuse_doubles(self) -> None:
        seen: dict[str, int] = {}
        for (number, _), name in zip(self._members, self._ids, strict=True):
            if name in seen:
                one, other = self._archives[seen[name]].path, self._archives[number].path
                where = f"{one} and {other}" if one != other else f"two places of {one}"
                raise InputError(f"the key {name} stands in {where}: expected each once")
            seen[name] = number

    def _digest(self) -> str:
        spread = np.unique(np.linspace(0, len(self) - 1, min(len(self), 1000)).astype(int))
        contents = []
        for index in map(int, spread):
            number, member = self._members[index]
            assert member is not None
            raw = self._archives[number].read(member.start, min(member.size, 1 << 16))
            contents.append(digest_of(raw))
        sizes = [member.size for _, member in self._members if member is not None]
        return digest_of(
            f"shards {self.labelled}".encode(),
            json.dumps([self._ids, self.class_names]).encode(),
            np.asarray(sizes, np.int64).tobytes(),
            b"" if self.labels is None else self.labels.tobytes(),
            *(one.encode() for one in contents),
        )


def shard_paths(spec: str) -> list[Path]:
    """The archives that `train-{000..127}.tar`, `{a,b}.tar` or `*.tar` stands for, in order.

    Raises:
        InputError: one of them, or all, are not there.
    """
    names = [spec]
    while found := next((m for name in names if (m := _RANGE.search(name))), None):
        low, high = found[1], found[2]
        if int(high) - int(low) > 1_000_000 or int(high) < int(low):
            raise InputError(f"{spec}: expected a range such as {{000..127}}, found {found[0]}")
        numbers = [str(n).zfill(len(low)) for n in range(int(low), int(high) + 1)]
        names = [name.replace(found[0], number, 1) for name in names for number in numbers]
    while found := next((m for name in names if (m := _CHOICE.search(name))), None):
        names = [name.replace(found[0], one, 1) for name in names for one in found[1].split(",")]
    paths: list[Path] = []
    for name in names:
        matches = sorted(glob.glob(name)) if glob.has_magic(name) else [name]  # noqa: PTH207
        paths += map(Path, matches)
    missing = [str(path) for path in paths if not path.is_file()]
    if not paths or missing:
        which = f"{len(missing)} of {len(paths)} are not there ({some(missing, 3)})"
        raise InputError(f"{spec}: {which if missing else 'no file fits'}")
    return paths


def is_pattern(spec: str) -> bool:
    """Whether a name stands for several files."""
    return glob.has_magic(spec) or bool(_RANGE.search(spec) or _CHOICE.search(spec))


def holds_samples(archive: TarFile) -> bool:
    """Whether an archive is a WebDataset shard rather than folders: labels lie beside images."""
    for number, (_, found) in enumerate(_samples(archive)):
        if _image(found) is not None and {"cls", "txt", "json"} & found.keys():
            return True
        if number > 1000:
            break
    return False


def _samples(archive: TarFile) -> Iterator[tuple[str, dict[str, Member]]]:
    """Keys, and the files of each by what follows the first dot of their names."""
    key: str | None = None
    found: dict[str, Member] = {}
    for member in archive.members():
        folder, slash, name = member.name.rpartition("/")
        if name.startswith(".") or "." not in name:
            continue
        stem, _, ending = name.partition(".")
        if folder + slash + stem != key:
            if found and key is not None:
                yield key, found
            key, found = folder + slash + stem, {}
        found[ending.lower()] = member
    if found and key is not None:
        yield key, found


def _image(found: Mapping[str, Member]) -> Member | None:
    """The image among the files of a sample."""
    likely = [end for end in found if f".{end.rpartition('.')[2]}" in formats()]
    return found[likely[0]] if likely else None


def _label_in(archive: TarFile, key: str, ending: str, member: Member) -> Any:
    """The label that a file of a sample holds."""
    raw = archive.read(member.start, min(member.size, MOST_LABEL))
    try:
        text = raw.decode("utf-8").strip()
        found = json.loads(text) if ending == "json" else text
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{archive.path}: {printable(key)}.{ending} is no label: {described(error)}"
        ) from None
    if isinstance(found, Mapping):
        lower = {str(name).lower(): value for name, value in found.items()}
        name = next((name for name in LABEL_KEYS if name in lower), None)
        if name is None:
            raise InputError(
                f"{archive.path}: {printable(key)}.json has no key such as 'label'; it has "
                f"{some(list(map(str, found)))}"
            )
        return lower[name]
    return found
