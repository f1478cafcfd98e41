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
from penult.data.items import IMAGE_KEYS, LABEL_KEYS
from penult.data.labels import labels_of
from penult.data.listing import Listing, nfc
from penult.data.multi_hot import is_several, several_notes
from penult.data.tars import Member, TarFile
from penult.data.words import SampleLabelError, meant_as_numbers
from penult.errors import InputError
from penult.text import described, nearest, some

MOST_LABEL = 1 << 20  # bytes of a member that holds a label
SEVERAL = "::"  # between names of shards

# The number of the shard, the key, and the files by their endings.
Sample = tuple[int, str, dict[str, Member]]

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
        archive.forget()
        if inside and not listing.names:
            raise InputError(f"{archive.path} has no folder {inside}")
        super().__init__(archive.path / inside, listing, labelled)
        self.notes += tuple(archive.notes())

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
    `0001.jpg`, `0001.cls`. The label is in `.cls` (a number from 0, or a word), or under `label`,
    `class` or the like in `.json`, or in `.txt`. Samples without one are left out, and counted.

    Args:
        archives: the shards.
        labelled: False passes over labels.
        spec: what the user named them by.
        multi_label: whether samples may have several labels; None to tell by the labels.

    Raises:
        InputError: no sample has an image, or a label; two have the same key.
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
            for key, found in _samples(archive).items()
        ]
        bare = [key for _, key, found in samples if _image(found) is None]
        if len(bare) == len(samples):
            raise InputError(
                f"{spec} holds no images: expected files such as 0001.jpg and 0001.cls"
            )
        samples = [sample for sample in samples if _image(sample[2]) is not None]
        notes = [note for archive in self._archives for note in archive.notes()]
        if bare:
            have = "sample holds" if len(bare) == 1 else "samples hold"
            notes.append(f"{len(bare):,} {have} no image, the first: {printable(bare[0])}")
        notes += _choice_notes([found for _, _, found in samples])
        if labelled:
            samples, said = self._take_labels(samples, multi_label)
            notes += said
        self._members = [(number, _image(found)) for number, _, found in samples]
        self._ids = [printable(nfc(key)) for _, key, _ in samples]
        self.notes = tuple(notes)
        self._refuse_doubles()
        self._said = multi_label if self.multi_label else None
        self.fingerprint = self._digest()
        for archive in self._archives:
            archive.forget()

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

    def _take_labels(
        self, samples: Sequence[Sample], multi_label: bool | None
    ) -> tuple[list[Sample], list[str]]:
        """Keep the labels as numbers; gives the samples that have one, and what is to be said."""
        given = [_label(self._archives[number], key, found) for number, key, found in samples]
        pairs = zip(samples, given, strict=True)
        without = [sample for sample, label in pairs if label is None]
        if len(without) == len(samples):
            number, key, found = samples[0]
            raise InputError(
                f"no sample of {self._spec} has a label, such as {printable(key)} of "
                f"{self._archives[number].path}: expected a file .cls or .txt, or .json with "
                f"'label' in it, beside {some(sorted(found))}; or use the network's own "
                "predictions as labels with --labels predicted"
            )
        kept = [sample for sample, label in zip(samples, given, strict=True) if label is not None]
        labels = [label for label in given if label is not None]
        several = any(map(is_several, labels))
        try:
            self.labels, self.class_names = labels_of(
                labels if several else meant_as_numbers(labels),
                len(labels),
                None,
                multi_label if several else False,
            )
        except SampleLabelError as error:
            sample = printable(kept[error.index][1])
            raise InputError(f"{self._spec}: {error.of(sample)}") from None
        except InputError as error:
            raise InputError(f"{self._spec}: {error}") from None
        self.multi_label = self.labels.ndim == 2
        said = list(several_notes(self.labels))
        if without:
            have = "sample has no label and is" if len(without) == 1 else "samples have no label"
            are = "" if len(without) == 1 else " and are"
            first = printable(without[0][1])
            said.append(f"{len(without):,} {have}{are} left out, the first: {first}")
        return kept, said

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
    """The files that `train-{000..127}.tar`, `{a,b}.tar`, `*.tar` or `a.tar::b.tar` stands for.

    Raises:
        InputError: one of them, or all, are not there.
    """
    if "://" in spec:
        raise InputError(f"{spec} is an address, which is not fetched: download the files")
    names = [name for part in spec.split(SEVERAL) for name in _spelled_out(part)]
    paths: list[Path] = []
    for name in names:
        matches = sorted(glob.glob(name)) if glob.has_magic(name) else [name]  # noqa: PTH207
        paths += map(Path, matches)
    missing = [str(path) for path in paths if not path.is_file()]
    if not paths or missing:
        which = f"{len(missing)} of {len(paths)} are not there ({some(missing, 3)})"
        folder = Path(names[0]).parent
        beside = sorted(other.name for other in folder.iterdir()) if folder.is_dir() else []
        near = nearest(Path(names[0]).name, beside)
        hint = f": did you mean {some(near)}?" if near else ""
        raise InputError(f"{spec}: {which if missing else 'no file fits'}{hint}")
    return paths


def _spelled_out(name: str) -> list[str]:
    """The names that one with ranges and choices in braces stands for."""
    if (found := _RANGE.search(name)) is not None:
        low, high = found[1], found[2]
        if int(high) - int(low) > 1_000_000 or int(high) < int(low):
            raise InputError(f"{name}: expected a range such as {{000..127}}, found {found[0]}")
        ways = [str(n).zfill(len(low)) for n in range(int(low), int(high) + 1)]
    elif (found := _CHOICE.search(name)) is not None:
        ways = found[1].split(",")
    else:
        return [name]
    made = [name[: found.start()] + way + name[found.end() :] for way in ways]
    return [one for way in made for one in _spelled_out(way)]


def is_pattern(spec: str) -> bool:
    """Whether a name stands for several files."""
    several = SEVERAL in spec or _RANGE.search(spec) or _CHOICE.search(spec)
    return glob.has_magic(spec) or bool(several)


def holds_samples(archive: TarFile) -> bool:
    """Whether an archive is a WebDataset shard rather than folders: labels lie beside images.

    In folders of classes, texts beside the images are captions, and objects are properties.
    """
    folders, described = set(), False
    for key, found in _samples(archive).items():
        if _image(found) is None:
            continue
        if _of_kind(found, "cls"):
            return True
        described = described or any(_of_kind(found, kind) for kind in ("txt", "json"))
        folders.add(key.rpartition("/")[0])
    return described and len(folders) < 2


def _samples(archive: TarFile) -> dict[str, dict[str, Member]]:
    """The files of each key by their endings, in order of the keys.

    A key reaches to the first dot of a file's name, or to the last where this leaves one label for
    each image: `img.001.png`, `img.001.cls`.

    Raises:
        InputError: two files of one name.
    """
    samples = _grouped(archive, last=False)
    if any(len(_of_kind(found, "cls")) > 1 for found in samples.values()):
        others = _grouped(archive, last=True)
        if all(
            len(_of_kind(found, "cls")) == len(_images(found)) == 1 for found in others.values()
        ):
            return others
    return samples


def _grouped(archive: TarFile, last: bool) -> dict[str, dict[str, Member]]:
    samples: dict[str, dict[str, Member]] = {}
    for member in archive.members():
        folder, slash, name = member.name.rpartition("/")
        if name.startswith(".") or "." not in name:
            continue
        stem, _, ending = name.rpartition(".") if last else name.partition(".")
        found = samples.setdefault(folder + slash + stem, {})
        if found.setdefault(ending.lower(), member) is not member:
            key = printable(folder + slash + stem)
            raise InputError(
                f"the key {key} stands in two places of {archive.path}: expected each once"
            )
    return samples


def _images(found: Mapping[str, Member]) -> list[str]:
    """The images among the files of a sample by their endings, the likeliest first."""
    names = [end for end in found if f".{end.rpartition('.')[2]}" in formats()]
    if len(names) < 2:
        return names
    keys = {key: place for place, key in enumerate(IMAGE_KEYS)}
    return sorted(names, key=lambda end: (end.count("."), keys.get(end.split(".")[0], len(keys))))


def _image(found: Mapping[str, Member]) -> Member | None:
    """The image among the files of a sample."""
    likely = _images(found)
    return found[likely[0]] if likely else None


def _choice_notes(samples: Sequence[Mapping[str, Member]]) -> list[str]:
    """What to say where samples hold several images."""
    several = next((names for names in map(_images, samples) if len(names) > 1), None)
    if several is None:
        return []
    return [f"samples hold several images ({some(several)}): {several[0]} is taken"]


def _of_kind(found: Mapping[str, Member], kind: str) -> list[str]:
    """The endings of a sample's files of a kind, the shortest first."""
    names = [end for end in found if end.rpartition(".")[2] == kind]
    return sorted(names, key=lambda end: end.count("."))


def _label(archive: TarFile, key: str, found: Mapping[str, Member]) -> Any:
    """The label among the files of a sample; None where there is none."""
    for kind in ("cls", "json", "txt"):
        for ending in _of_kind(found, kind):
            label = _label_in(archive, key, ending, found[ending])
            if label is not None and label != "":
                return label
    return None


def _label_in(archive: TarFile, key: str, ending: str, member: Member) -> Any:
    """The label that a file of a sample holds; None for an object without one."""
    raw = archive.read(member.start, min(member.size, MOST_LABEL))
    try:
        text = raw.decode("utf-8-sig").strip()
        found = json.loads(text) if ending.endswith("json") and text else text
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{archive.path}: {printable(key)}.{ending} is no label: {described(error)}"
        ) from None
    if isinstance(found, Mapping):
        lower = {str(name).lower(): value for name, value in found.items()}
        return next((lower[name] for name in LABEL_KEYS if name in lower), None)
    return found
