"""ShownRun: a run as the live page shows it, read once; its details are given part by part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

from penult.edit.verdicts import KINDS, verdicts_file
from penult.errors import InputError
from penult.explain.choice import choose_head
from penult.explain.gallery import Key
from penult.explain.survey import ShownSample
from penult.export.formats import FORMATS
from penult.live.samples import SampleTable
from penult.network.link import SIGMOID
from penult.progress import Progress
from penult.report.album import Album, Place
from penult.report.bundles import CHUNKS, legible, rounded
from penult.report.details import Details
from penult.report.document import DocumentBuilder
from penult.report.findings import Findings
from penult.report.page import render_live
from penult.report.suspects import SuspectViews, verdicts_part
from penult.runs.reopen import holds_texts
from penult.runs.run import Run

PARTS = ("class", "feature", "mistake")
CHANGING = ("verdicts.jsonl", ".lock")  # of a run: what people add while it is looked at
STAGES = ("the run", "its page")
KEPT_ITEMS = 2048
MOST_TRAITS = 250  # features of classes whose details are given at once


class NumberedImages:
    """Images as a live page names them: by the number of the sample, without maps.

    Args:
        table: of all samples.
        found: what the report says of them.
        album: further lists of images.
    """

    def __init__(self, table: SampleTable, found: Findings, album: Album | None = None) -> None:
        self._table, self._found, self._album = table, found, album

    def of(self, place: Place) -> list[list[Any]]:
        """The images of a list: [number, value, None]."""
        survey = self._found.survey
        lists = {"own": survey.top_of_class, "others": survey.top_elsewhere, "feature": survey.top}
        if place[0] in lists:
            return [[e.sample, e.value, None] for e in lists[place[0]](place[1])]
        assert self._album is not None
        part, _, entries = self._album.lists[place]
        return [[self._table.number(part, e.sample), e.value, None] for e in entries]

    def number(self, key: Key) -> int | None:
        """Number of a sample."""
        return self._table.number(*key)

    def map(self, key: Key, feature: int) -> str | None:
        """None: maps are asked for one by one."""


class Lazily(Sequence[Any]):
    """Items that are made when they are asked for; those asked for last are kept.

    Args:
        n: how many there are.
        make: gives the item of a number.
    """

    def __init__(self, n: int, make: Callable[[int], Any]) -> None:
        self._n = n
        self._made = lru_cache(maxsize=KEPT_ITEMS)(make)

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, place: int) -> Any: ...

    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self._made(i) for i in range(*place.indices(self._n))]
        return self._made(range(self._n)[place])


class ShownRun:
    """All that a live page shows of a run but what edits and images need.

    Args:
        run: a finished run.
        progress: called with (stages done, stages in all).

    Attributes:
        run: itself.
        table: its samples.
        found: what the report says of it.
        heads: selection and k of its sparse heads.
        class_names: in the order of the logits.
        n_features: of the network.
        text_of: gives the beginning of a text, by part and number, in a run of texts.
        signature: changes when the run on disk is another than the one that was read.
    """

    def __init__(self, run: Run, progress: Progress | None = None) -> None:
        heard = progress or (lambda done, total: None)
        self.run = run
        self.signature = signature_of(run.folder)
        self._kept_page = "", ""
        self.text_of: Callable[[str, int], str] | None = None
        self.table = SampleTable(run)
        heard(0, len(STAGES))
        self.found = Findings(run, choose_head(run), None)
        self.table.part(self.table.judged).predicted = self.found.verdicts.given()
        heard(1, len(STAGES))
        self._builder = DocumentBuilder(self.found, prove=False)
        summary = self.found.summary
        self.heads = [(row["select"], int(row["k"])) for row in _heads(summary)]
        self.class_names: Sequence[str] = tuple(summary["class_names"])
        self.n_features = self.found.n_features
        self.images = "transform" in run.about
        self.texts = self.images and holds_texts(run)
        album = Album()
        self._builder.suspects.enter(album)
        self.numbered = numbered = NumberedImages(self.table, self.found, album)
        details, distributions = Details(self.found, numbered), self._builder.distributions(set())
        mistakes = self._builder.mistakes(numbered)
        self._items: dict[str, Sequence[Any]] = {
            "class": Lazily(self.found.n_classes, lambda c: rounded(details.of_class(c))),
            "feature": Lazily(
                self.n_features, lambda j: rounded(details.of_feature(j, distributions))
            ),
            "mistake": Lazily(len(mistakes["rows"]), self.found.reasons_of),
        }
        # A class that shows hundreds of features is large enough by itself.
        each = max(1, self.found.shown.nnz // max(1, self.found.n_classes))
        self._chunks = {**CHUNKS, "class": max(1, min(CHUNKS["class"], MOST_TRAITS // each))}
        self._document = self._builder.document(self._pictures(), numbered, mistakes)
        heard(2, len(STAGES))

    def _pictures(self) -> dict[str, Any]:
        pictured = self.images and not self.texts
        maps = pictured and "network" in self.run.about
        n = sum(part.n_samples for part in self.table.parts.values()) if self.images else 0
        note = "" if self.images else "The run was made from features: there are no images to show."
        return {"maps": "asked" if maps else None, "note": note, "grid": None, "signed": True,
                "n_images": n, "n_missing": 0, "missing": [], "n_changed": 0}  # fmt: skip

    def page(self, live: Mapping[str, Any]) -> str:
        """The page; it is made anew where somebody has said something meanwhile.

        Args:
            live: what the server says of itself, besides what is known here.
        """
        suspects = _stamp(self.run.folder / "shortcuts.json")
        key = f"{sorted(live.items())} {self.verdicts_version()} {suspects}"
        if self._kept_page[0] != key:
            self._kept_page = key, self._page(live)
        return self._kept_page[1]

    def _page(self, live: Mapping[str, Any]) -> str:
        summary = self.found.summary
        groups = self.table.part(self.table.judged).groups
        known = {
            "heads": _heads(summary),
            "part": self.table.judged,
            "n": {name: part.n_samples for name, part in self.table.parts.items()},
            "images": self.images,
            "maps": self._document["pictures"]["maps"] is not None,
            "attributes": {}
            if groups is None
            else {name: list(attribute.values) for name, attribute in groups.attributes.items()},
            "formats": self.formats(),
            "kinds": list(KINDS),
        }
        verdicts: list[dict[str, Any]] = []
        with suppress(InputError):  # pages ask for them, and say why there are none
            verdicts = self.verdicts()
        document = {
            **self._document,
            "verdicts": verdicts,
            "live": legible({**known, **live}),
        }
        # They change, and are asked for.
        document["suspects"] = self._suspects(12)[0]
        return render_live(document, self._items["class"], self._chunks)

    def formats(self) -> list[str]:
        """Formats in which a network or a head of the run can be exported."""
        network = str(self.run.about.get("network", {}).get("spec", ""))
        return [
            name
            for name, format in FORMATS.items()
            if (network or not format.whole) and (name != "hf" or network.startswith("hf:"))
        ]

    def part(self, kind: str, chunk: int) -> dict[str, Any]:
        """Some details of a kind, and the samples that they name.

        Raises:
            InputError: no such kind or part of it.
        """
        if kind not in PARTS:
            raise InputError(f"no such part: expected one of {', '.join(PARTS)}")
        size = self._chunks[kind]
        items = self._items[kind][chunk * size : (chunk + 1) * size] if chunk >= 0 else []
        if not items:
            raise InputError(f"there is no part {chunk} of {kind}")
        numbers: set[int] = set()
        if kind == "mistake":
            rows = self._document["mistakes"]["rows"][chunk * size : (chunk + 1) * size]
            numbers |= {row["image"] for row in rows if row["image"] is not None}
        for item in items:
            if kind == "class":
                for trait in item["features"]:
                    numbers |= {shot[0] for shot in (*trait["own"], *trait["others"])}
            elif kind == "feature":
                numbers |= {shot[0] for shot in item["shots"]}
        return {"items": items, "images": self.images_of(numbers)}

    def images_of(self, numbers: set[int]) -> dict[int, dict[str, Any]]:
        """What a page knows of some samples, by their numbers."""
        pictured = self.images and not self.texts
        found = {n: self.table.about(n, pictured) for n in sorted(numbers)}
        if self.texts and self.text_of is not None:
            for about in found.values():
                about["text"] = self.text_of(about["part"], about["sample"])
        return {n: legible(about) for n, about in found.items()}

    def suspects(self) -> dict[str, Any]:
        """What a search for shortcuts found, with the samples to judge it by."""
        document, numbers = self._suspects(None)
        return {"suspects": document, "images": self.images_of(numbers)}

    def _suspects(self, pages: int | None) -> tuple[dict[str, Any] | None, set[int]]:
        views, album = SuspectViews(self.found, pages), Album()
        views.enter(album)
        document = views.document(NumberedImages(self.table, self.found, album))
        if document is None:
            return None, set()
        shots = [row["shots"] for row in document["pairs"] if "shots" in row]
        numbers = {shot[0] for sides in shots for side in sides.values() for shot in side}
        return rounded(document), numbers

    def verdicts(self) -> list[dict[str, Any]]:
        """What people say of features, as the run holds it now.

        Raises:
            InputError: a line of the file that is no verdict.
        """
        return verdicts_part(self.found)

    def verdicts_version(self) -> str:
        """Changes when somebody says something."""
        return _stamp(verdicts_file(self.run))

    def view_of(self, name: str, document: dict[str, Any]) -> tuple[dict[str, Any], set[int]]:
        """The effect of edits as the page shows it, and the samples that it names."""
        view = self._builder.edits.view(name, document, self.numbered, most=None)
        flips = [flip for kind in view["flips"].values() for flip in kind["samples"]]
        return rounded(view), {flip["image"] for flip in flips if flip["image"] is not None}

    def sample(self, number: int) -> ShownSample:
        """A sample, as pictures are asked for it."""
        about = self.table.about(number, False)
        return ShownSample(about["sample"], about["id"], about["class"], about["predicted"])

    @property
    def multi_label(self) -> bool:
        """Whether each class is decided by itself."""
        return self.found.dense.link == SIGMOID


def _heads(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sparse heads that were fitted, in the order of their sizes; without any, the scores'."""
    rows = [
        {"select": row["select"], "k": int(row["k"]), "accuracy": row["accuracy"]}
        for row in summary["path"]
    ]
    if not rows:
        rows = [
            {"select": name, "k": int(k), "accuracy": row["accuracy"]}
            for name, sizes in summary["influence"].items()
            for k, row in sizes.items()
        ]
    return sorted(rows, key=lambda row: (row["select"], row["k"]))


def signature_of(folder: Path) -> str:
    """Changes when the run that a folder holds is made anew or is given something.

    Verdicts, suspects, pictures and edits do not count: pages ask for them.
    """
    names = ("run.json", "summary.json", "moments.safetensors")
    places = [folder / name for name in names]
    places += [folder / "features" / part / "index.json" for part in ("train", "eval")]
    places += sorted((folder / "groups").glob("*.safetensors"))
    text = "\n".join(f"{place.name} {_stamp(place)}" for place in places)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "absent"
    return f"{found.st_mtime_ns} {found.st_size} {found.st_ino}"
