"""RunSession: a run that pages look at, with everything that answers them."""

from __future__ import annotations

import base64
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penult.edit.recipe import Edited
from penult.edit.verdicts import add_verdict
from penult.errors import InputError
from penult.explain.reasons import Box
from penult.live import jobs
from penult.live.decisions import decision_on, with_values
from penult.live.images import ImageShelf
from penult.live.samples import SampleQuery
from penult.live.scratch import ScratchFolder
from penult.live.shown_run import ShownRun
from penult.live.state import HeadState
from penult.live.switchboard import Switchboard, Switched
from penult.live.worker import Told, Worker, WorkerJob
from penult.progress import Progress
from penult.report.album import encoded_maps, full_colour
from penult.report.bundles import legible
from penult.runs.reopen import Places
from penult.runs.run import Run
from penult.text import one_line, some

MOST_MAPS = 64
MAPPED = 12  # features of an image of a user's own that get maps
NEAREST = 12
UPLOADS = 32
PAGES = 8  # reports that wait to be fetched


@dataclass(frozen=True, eq=False)
class Upload:
    """An image of a user's own, as the network sees it."""

    name: str
    features: Tensor
    document: dict[str, Any]


@dataclass(eq=False)
class Listener:
    """Who waits for something that takes long, and hears of it.

    Attributes:
        told: hears of stages.
        cancelled: set where nobody waits any more.
    """

    told: Told = lambda name, done, total: None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def stage(self, name: str) -> Progress:
        """A named stage."""

        def heard(done: int, total: int) -> None:
            self.told(name, done, total)

        return heard


class RunSession:
    """A run with all that pages of it ask for.

    Args:
        folder: of a finished run.
        places: where its network and data are now.
        device: where the network runs.
        progress: called with (stages done, stages in all) while it is read.

    Attributes:
        shown: what its pages show.
        board: its heads under edits.
        pictures: of its samples.
    """

    def __init__(
        self, folder: Path, places: Places, device: str, progress: Progress | None = None
    ) -> None:
        self._scratch = ScratchFolder()
        given = {"folder": folder, "places": places, "device": device}
        self._viewer = Worker(jobs.OpenedRun.of, **given)
        self._fitter = Worker(jobs.OpenedRun.of, **given)
        self._writer = Worker(jobs.OpenedRun.of, **given)
        self._local = threading.local()
        try:
            self.shown = ShownRun(Run.open(folder), progress)
            self.run = self.shown.run
            self.board = Switchboard(self.run, self._scratch.path, self._refitted)
            self.pictures = ImageShelf(self.run, self.shown.table, places)
            self.shown.text_of = self.pictures.text
        except BaseException:
            self.close()
            raise
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._pages: OrderedDict[str, Path] = OrderedDict()

    def close(self) -> None:
        """End its processes, and leave nothing behind."""
        self._viewer.close()
        self._fitter.close()
        self._writer.close()
        self._scratch.remove()

    def warm(self) -> None:
        """Do what the first switch would wait for: the logits of the network's own head."""
        self.board.desk.table(None)
        if self.shown.images and "network" in self.run.about:
            self._viewer.start()

    def state(self, found: Any) -> HeadState:
        """A state as a page sends it.

        Raises:
            InputError: it is none of this run.
        """
        shown = self.shown
        return HeadState.parsed(found, shown.heads, shown.n_features, shown.class_names)

    def switched(
        self, before: HeadState | None, after: HeadState, name: str, asked: Listener
    ) -> Any:
        """The effect of a state, or of one in the place of another, as the page shows it."""
        with self._asking(asked):
            heard = asked.stage("logits")
            if before is None:
                found = self.board.effect(after, heard)
            else:
                found = self.board.compare(before, after, heard)
        return self._told(found, name)

    def _told(self, found: Switched, name: str) -> dict[str, Any]:
        view, numbers = self.shown.view_of(name, found.document)
        return {
            "effect": legible(view),
            "images": self.shown.images_of(numbers),
            "recipe": found.recipe,
            "changed": found.changed,
            "n_changed": found.n_changed,
        }

    def samples(self, part: str | None, query: SampleQuery) -> dict[str, Any]:
        """Samples of a part: how many there are, and some of them with their values.

        Raises:
            InputError: no such part, class, feature or group.
        """
        shown = self.shown
        found = shown.table.part(part or shown.table.judged)
        for c in (query.label, query.predicted):
            if c is not None and not 0 <= c < len(shown.class_names):
                raise InputError(
                    f"there is no class {c}: expected 0 to {len(shown.class_names) - 1}"
                )
        j = query.feature
        if j is not None and not 0 <= j < shown.n_features:
            raise InputError(f"there is no feature {j}: expected 0 to {shown.n_features - 1}")
        rows = found.chosen(query)
        listed = rows[query.offset : query.offset + query.limit]
        values = [None] * len(listed) if j is None else found.column(j)[listed].tolist()
        numbers = [found.first + n for n in listed.tolist()]
        pairs = [list(pair) for pair in zip(numbers, values, strict=True)]
        return {"n": len(rows), "rows": pairs, "images": shown.images_of(set(numbers))}

    def maps(self, feature: int, numbers: Sequence[int], asked: Listener) -> dict[str, Any]:
        """Heat maps of a feature on some samples, on one scale.

        Raises:
            InputError: no such feature or sample; the network is gone.
        """
        shown = self.shown
        if not 0 <= feature < shown.n_features or not 0 < len(numbers) <= MOST_MAPS:
            raise InputError(f"expected a feature and 1 to {MOST_MAPS} images")
        if not shown.images or shown.texts or "network" not in self.run.about:
            raise InputError("the run has no network and images of which maps could be made")
        samples = []
        for number in numbers:
            part, n = shown.table.at(number)
            value = float(part.column(feature)[n])
            samples.append((part.part, shown.sample(number), value))
        given = {"samples": samples, "feature": feature}
        job = WorkerJob(jobs.make_maps, given, asked.told, asked.cancelled, killable=False)
        found, note = self._viewer.do(job)
        kept = {n: m for n, m in zip(numbers, found, strict=True) if m is not None}
        if not kept:
            return {"grid": None, "signed": False, "maps": {}, "note": note}
        maps = torch.stack([*kept.values()])
        return {
            "grid": [*maps.shape[1:]],
            "signed": bool((maps < 0).any()),
            "maps": dict(zip(kept, encoded_maps(maps, full_colour(maps)), strict=True)),
            "note": note,
        }

    @cached_property
    def _box(self) -> Box:
        moments = self.run.moments()
        return Box(moments.low, moments.high)

    def decided(
        self,
        state: HeadState,
        at: tuple[str, int] | str,
        values: Mapping[str, Any],
        of: int | None = None,
    ) -> dict[str, Any]:
        """What the head of a state makes of a sample, with values that a person chose.

        Args:
            state: the head and its edits.
            at: part and number of a sample, or an upload.
            values: of features, by their numbers.
            of: the class that is taken apart, by default the predicted one.

        Raises:
            InputError: there is no such sample or feature; see `Switchboard.head`.
        """
        label: Any = None
        if isinstance(at, str):
            if at not in self._uploads:
                raise InputError("that image is not here any more: drop it on the page again")
            z = self._uploads[at].features
        else:
            self.shown.table.number(*at)
            part = self.shown.table.part(at[0])
            z, label = part.row(at[1]), None
            if not self.run.own_labels:
                label = self.shown.table.about(part.first + at[1], False)["class"]
        z, also = with_values(z, values), sorted(map(int, values))
        return decision_on(self.board.head(state), z, self._box, label, of, also)

    def upload(self, raw: bytes, name: str, state: HeadState, asked: Listener) -> dict[str, Any]:
        """An image of a user's own: what is decided, by what, and which samples are like it.

        Raises:
            InputError: no image; the run has no network.
        """
        if self.shown.texts or "transform" not in self.run.about:
            raise InputError("the run was not made from images: there is no network for an image")
        given = {"raw": raw, "features": MAPPED}
        found = self._viewer.do(WorkerJob(jobs.look_at, given, asked.told, asked.cancelled))
        id = secrets.token_urlsafe(8)
        kind = "png" if found["picture"].startswith(b"\x89") else "webp"
        maps: dict[int, Tensor] = found["maps"]
        document = {
            "upload": id,
            "name": legible(one_line(name, 120)),
            "src": f"data:image/{kind};base64,{base64.b64encode(found['picture']).decode()}",
            "grid": [*next(iter(maps.values())).shape] if maps else None,
            "maps": {j: encoded_maps(m[None], full_colour(m))[0] for j, m in maps.items()},
            "note": found["note"],
        }
        self._uploads[id] = Upload(name, found["features"], document)
        while len(self._uploads) > UPLOADS:
            self._uploads.popitem(last=False)
        decision = self.decided(state, id, {})
        numbers = self._nearest(found["features"], decision)
        images = self.shown.images_of({n for n, _ in numbers})
        return {**document, "decision": decision, "nearest": numbers, "images": images}

    def _nearest(self, z: Tensor, decision: dict[str, Any]) -> list[list[Any]]:
        """The samples that are nearest in the features that count, and how far they are.

        Distances are in standard deviations of the analysed data, each feature by how much the
        decision weighs it.
        """
        part = self.shown.table.part(self.shown.table.judged)
        std = self.board.desk.setting.std.float().clamp_min(1e-12)
        far = torch.zeros(part.n_samples, dtype=torch.float32)
        terms = decision["terms"][:NEAREST]
        total = sum(abs(term[3]) for term in terms) or 1.0
        for j, _, _, adds, *_ in terms:
            far += abs(adds) / total * ((part.column(j) - z[j]) / std[j]).square()
        n = min(NEAREST, part.n_samples)
        rows = far.topk(n, largest=False).indices.tolist()
        return [[part.first + row, float(far[row].sqrt())] for row in rows]

    def judge(self, feature: int, c: int | None, kind: str, note: str) -> list[dict[str, Any]]:
        """Say what a feature is to a class; the verdicts that count then."""
        names = self.shown.class_names
        if c is not None and not 0 <= c < len(names):
            raise InputError(f"there is no class {c}: expected 0 to {len(names) - 1}")
        self._require_there()
        self.shown.verdicts()  # none is added to a file that nobody can read
        add_verdict(self.run, feature, c, kind, note)
        return self.shown.verdicts()

    def find_suspects(self, asked: Listener) -> None:
        """Look for shortcuts, and keep what is found in the run."""
        self._require_there()
        self._writer.do(WorkerJob(jobs.search_suspects, {}, asked.told, asked.cancelled))

    def write(self, state: HeadState, name: str, format: str | None, asked: Listener) -> Any:
        """Write the head of a state, and the network with it, into the run.

        Raises:
            InputError: another edit has that name; the format is none of the run's.
        """
        if format is not None and format not in self.shown.formats():
            raise InputError(f"no format {format:.40}: expected {some(self.shown.formats())}")
        self._require_there()
        folder = self.run.folder / "edited" / name
        given = {"state": state, "folder": folder, "format": format}
        job = WorkerJob(jobs.write_edited, given, asked.told, asked.cancelled)
        places, notes = self._writer.do(job)
        return {"folder": " and ".join(map(str, places)), "notes": notes}

    def report(self, state: HeadState, name: str, start: str, asked: Listener) -> dict[str, Any]:
        """Write the report of a state to a file that can be fetched once."""
        id = secrets.token_urlsafe(12)
        page = self._scratch.path / f"{id}.html"
        given = {"state": state, "name": name, "start": start, "page": page}
        self._writer.do(WorkerJob(jobs.write_report, given, asked.told, asked.cancelled))
        self._pages[id] = page
        while len(self._pages) > PAGES:
            self._pages.popitem(last=False)[1].unlink(missing_ok=True)
        return {"href": f"download/{id}"}

    def page_of(self, id: str) -> Path:
        """A report that was written.

        Raises:
            InputError: there is none of that name.
        """
        if id not in self._pages:
            raise InputError("that report is not here any more: save it again")
        return self._pages[id]

    def _require_there(self) -> None:
        """Refuse to write into a run that is gone, whose folder would be made anew.

        Raises:
            InputError: it is.
        """
        if not (self.run.folder / "run.json").is_file():
            raise InputError(f"the run is gone from {self.run.folder}: nothing is written there")

    def _refitted(self, state: HeadState) -> Edited:
        """The edits of a state that ends in a refit, made in another process."""
        asked: Listener = getattr(self._local, "asked", None) or Listener()
        made: Edited = self._fitter.do(
            WorkerJob(jobs.refit_head, {"state": state}, asked.told, asked.cancelled)
        )
        return made

    def _asking(self, asked: Listener) -> _Asking:
        return _Asking(self._local, asked)


class _Asking:
    """Says, while it lasts, who waits for what this thread does."""

    def __init__(self, local: threading.local, asked: Listener) -> None:
        self._local, self._asked = local, asked

    def __enter__(self) -> None:
        self._local.asked = self._asked

    def __exit__(self, *_: object) -> None:
        self._local.asked = None
