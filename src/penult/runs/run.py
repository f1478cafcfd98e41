"""Run: the folder that holds all there is about one network and one data set."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from penult.errors import InputError
from penult.features.features import Features
from penult.features.moments import Moments
from penult.heads.sparse_head import SparseHead
from penult.runs.lock import PATIENCE, locked
from penult.storage import copied, difference, read_json, write_json

FORMAT = "penult-run/2"
SUMMARY_FORMAT = "penult-summary/2"
WRITTEN = (
    "shortcuts.json",
    "verdicts.jsonl",
    "summary.json",
    "measures.json",
    "report.html",
    "network.safetensors",
)
# What to do about a run that cannot be read: for commands that make runs, and for all others.
REPLACE = "choose another --out, or --overwrite to make the run again"
MAKE_ANEW = "make the run again, by the command that made it and --overwrite"
HELD = 1 << 28  # bytes of features up to which they are read once and kept in memory
_HEAD_NAME = re.compile(r"\w[\w-]*")


class Run:
    """A run folder; `Run.open` reads a finished one, `claim` begins one or goes on with it.

    What is read is kept: features, moments and heads are the same objects at every call, not to be
    changed. The summary is a copy at every call.

    Attributes:
        folder: where it lies.
        about: what `run.json` says: what was analysed, with which options and versions.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about
        self._heads: dict[Path, SparseHead] = {}

    def __repr__(self) -> str:
        sizes = {
            "n_samples": _entry(self.about, "data", "n_samples"),
            "n_eval_samples": _entry(self.about, "evaluation", "n_samples"),
            "n_features": _entry(self.about, "head", "n_features"),
            "n_classes": _entry(self.about, "head", "n_classes"),
        }
        said = [f"{name}={size}" for name, size in sizes.items() if size is not None]
        said += [] if self.complete else ["unfinished"]
        return f"Run({', '.join([repr(str(self.folder)), *said])})"

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open a finished run.

        Raises:
            InputError: no run folder, or an unfinished one.
        """
        folder = Path(folder)
        if not (folder / "run.json").is_file():
            raise InputError(f"{folder} is no run folder: it has no run.json")
        run = cls(folder, _read(folder, MAKE_ANEW))
        if not run.complete:
            raise InputError(
                f"{folder} is unfinished: run the command that writes it again, it goes on where "
                "it stopped"
            )
        return run

    @property
    def complete(self) -> bool:
        """Whether everything is there."""
        return bool(self.about["complete"])

    @property
    def own_labels(self) -> bool:
        """Whether the labels are the classes that the network itself gives, for want of others."""
        return bool(self.about["identity"].get("labels") == "predicted")

    @property
    def train_folder(self) -> Path:
        """Shards of the analysed data."""
        return self.folder / "features" / "train"

    @property
    def eval_folder(self) -> Path:
        """Shards of the evaluation data."""
        return self.folder / "features" / "eval"

    @property
    def also_folder(self) -> Path:
        """Shards of further data that heads are fitted to."""
        return self.folder / "features" / "also"

    def view_folder(self, view: int) -> Path:
        """Shards of the analysed images, changed at random; views count from 1."""
        return self.folder / "features" / f"view-{view:02d}"

    @property
    def moments_file(self) -> Path:
        """Moments of the analysed data."""
        return self.folder / "moments.safetensors"

    @property
    def influence_file(self) -> Path:
        """One (n_classes, n_features) tensor per score."""
        return self.folder / "influence.safetensors"

    @property
    def summary_file(self) -> Path:
        """The document that `penult show --json` prints."""
        return self.folder / "summary.json"

    @property
    def measures_file(self) -> Path:
        """The document that `penult measure --json` prints."""
        return self.folder / "measures.json"

    @property
    def examples_folder(self) -> Path:
        """Small pictures and heat maps, see `penult.explain.gallery`."""
        return self.folder / "examples"

    @property
    def report_file(self) -> Path:
        """The page that `penult report` writes."""
        return self.folder / "report.html"

    def head_file(self, select: str, k: int) -> Path:
        """Sparse head that a score selects at size k."""
        if not _HEAD_NAME.fullmatch(select) or not isinstance(k, int):
            raise InputError(f"no head is called {select!r}, k = {k!r}")
        return self.folder / "heads" / f"{select}-k{k:03d}.safetensors"

    @property
    def has_evaluation(self) -> bool:
        """Whether accuracies were measured on samples of their own, not on the analysed ones."""
        return self.about.get("evaluation") is not None

    def train(self) -> Features:
        """Features of the analysed data."""
        return self._train

    def evaluation(self) -> Features:
        """Features of the evaluation data; of the analysed data where the run has no other.

        Raises:
            InputError: the run has evaluation data, and it is gone.
        """
        return self._evaluation if self.has_evaluation else self._train

    def held_out(self) -> Features | None:
        """Features of the evaluation data; None where the run has none."""
        return self._evaluation if self.has_evaluation else None

    def also(self) -> Features | None:
        """Features of further data that heads are fitted to and never judged on, or None."""
        if self.about.get("also") is None:
            return None
        return Features.open(self._there(self.also_folder), hold=HELD)

    def views(self) -> list[Features]:
        """Features of the analysed images changed at random, likewise, pass by pass."""
        n = self.summary().get("views", {}).get("n", 0)
        folders = [self._there(self.view_folder(view)) for view in range(1, n + 1)]
        return [Features.open(folder, hold=HELD) for folder in folders]

    def moments(self) -> Moments:
        """Moments of the analysed data."""
        return self._moments

    def head(self, select: str, k: int) -> SparseHead:
        """Sparse head that a score selects at size k."""
        file = self.head_file(select, k)
        if file not in self._heads:
            self._heads[file] = SparseHead.load(file)
        return self._heads[file]

    def summary(self) -> dict[str, Any]:
        """What was found, as `penult show --json` prints it; the caller's own copy."""
        return copied(self._summary)

    @cached_property
    def _train(self) -> Features:
        return Features.open(self._there(self.train_folder), hold=HELD)

    @cached_property
    def _evaluation(self) -> Features:
        return Features.open(self._there(self.eval_folder), hold=HELD)

    @cached_property
    def _moments(self) -> Moments:
        return Moments.load(self.moments_file)

    @cached_property
    def _summary(self) -> dict[str, Any]:
        return read_json(self.summary_file, SUMMARY_FORMAT)

    def _there(self, folder: Path) -> Path:
        if not (folder / "index.json").is_file():
            raise InputError(
                f"{folder} is not there, and {self.folder} was made with it: put it back, or "
                "repeat the command that made the run"
            )
        return folder

    @contextmanager
    def writing(self, wait: float = PATIENCE) -> Iterator[None]:
        """Hold the folder while something is added to the finished run.

        Not to be nested. Whoever writes a report, a picture or another document waits here for
        others, so that two writers at once lose nothing.

        Args:
            wait: seconds to wait for another process, which is said.

        Raises:
            InputError: another process holds it for longer; it is another run by now.
            NotWrittenError: it cannot be written.
        """
        busy = f"another process is writing {self.folder}: wait for it to end, then repeat this"
        with locked(self.folder, busy, wait=wait):
            now = _read(self.folder, MAKE_ANEW)
            if now["identity"] != self.about["identity"] or not now["complete"]:
                raise InputError(
                    f"{self.folder} was made anew while this command ran: repeat the command"
                )
            # Another process may have added something.
            self._forget()
            yield

    def adding(self, path: Path) -> AbstractContextManager[None]:
        """Hold the folder while `path` is written, where that lies in it."""
        inside = path.resolve().is_relative_to(self.folder.resolve())
        return self.writing() if inside else nullcontext()

    def is_whole(self) -> bool:
        """Whether all files that a complete run has are there."""
        files = (self.summary_file, self.moments_file, self.influence_file)
        if not all(path.is_file() for path in files):
            return False
        summary = self.summary()
        others = [self.eval_folder] if self.has_evaluation else []
        others += [self.also_folder] if self.about.get("also") is not None else []
        n_views = summary.get("views", {}).get("n", 0)
        others += [self.view_folder(view) for view in range(1, n_views + 1)]
        for folder in (self.train_folder, *others):
            if not (folder / "index.json").is_file():
                return False
            index = read_json(folder / "index.json")
            if not all((folder / shard["file"]).is_file() for shard in index["shards"]):
                return False
        found = summary["influence"]
        heads = [self.head_file(name, int(k)) for name in found for k in found[name]]
        heads += [self.head_file(row["select"], row["k"]) for row in summary["path"]]
        return all(path.is_file() for path in heads)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write what was found, then mark the run complete."""
        write_json(self.summary_file, summary)
        self._forget()
        for name in ("_train", "_evaluation", "_moments"):
            self.__dict__.pop(name, None)
        self.about["complete"] = True
        write_json(self.folder / "run.json", self.about)

    def amend(self, summary: Mapping[str, Any]) -> None:
        """Write another summary of a finished run, which is held for it by `writing`."""
        write_json(self.summary_file, summary)
        self._forget()

    def _forget(self) -> None:
        """Read anew what another process, or this one, may have changed."""
        self.__dict__.pop("_summary", None)
        self._heads.clear()


@contextmanager
def claim(
    folder: str | Path, identity: Mapping[str, Any], about: Mapping[str, Any], *, overwrite: bool
) -> Iterator[Run]:
    """Hold a run folder for writing: a new one, or one of the same identity to go on with.

    Args:
        folder: created where absent.
        identity: hashes and options that the contents depend on.
        about: what else `run.json` says.
        overwrite: replace a run of another identity.

    Raises:
        InputError: another process writes there; a folder that is no run; a run of another
            network, head, data or transform (names the difference).
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: expected a folder for the run")
    if folder.is_dir() and not _is_run(folder):
        raise InputError(f"{folder} is neither empty nor a run folder: choose another --out")
    wanted = dict(identity)
    if not overwrite:
        run = _finished(folder, wanted)
        if run is not None:
            yield run
            return
    busy = f"another process is writing {folder}: wait for it to end, or choose another --out"
    with locked(folder, busy):
        yield _claimed(folder, wanted, dict(about), overwrite)


def _entry(about: Mapping[str, Any], part: str, name: str) -> Any:
    """An entry of a part of `run.json`; None where there is none, for it may come from anybody."""
    found = about.get(part)
    return found.get(name) if isinstance(found, Mapping) else None


def _is_run(folder: Path) -> bool:
    return (folder / "run.json").exists() or {p.name for p in folder.iterdir()} <= {".lock"}


def _finished(folder: Path, identity: dict[str, Any]) -> Run | None:
    """A finished run of the same identity, all of it there: it needs no lock."""
    if not (folder / "run.json").exists():
        return None
    run = Run(folder, _read(folder))
    return run if run.about["identity"] == identity and run.complete and run.is_whole() else None


def _read(folder: Path, remedy: str = REPLACE) -> dict[str, Any]:
    try:
        found = read_json(folder / "run.json", FORMAT)
        if "identity" in found and "complete" in found:
            return found
        why = f"{folder / 'run.json'} is damaged"
    except InputError as error:
        why = str(error)
    raise InputError(f"{why}: {remedy}")


def _claimed(folder: Path, identity: dict[str, Any], about: dict[str, Any], overwrite: bool) -> Run:
    path = folder / "run.json"
    if path.exists() and overwrite:
        _clear(folder)
    if path.exists():
        found = _read(folder)
        if found["identity"] != identity:
            raise InputError(difference(folder, found["identity"], identity, REPLACE))
        return Run(folder, {**found, "complete": False})
    made = {
        "format": FORMAT,
        "complete": False,
        "identity": identity,
        **about,
        "versions": {
            "penult": version("penult"),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    write_json(path, made)
    return Run(folder, made)


def _clear(folder: Path) -> None:
    tuned = folder / "tuned"
    for one in sorted(tuned.iterdir()) if tuned.is_dir() else []:
        with locked(one, f"another process is tuning in {one}: wait for it to end"):
            pass
    # run.json goes first: if this is cut short, what is left is no run that could be gone on with.
    (folder / "run.json").unlink()
    parts = ("train", "eval", "also")
    old = ("heads", "examples", "explained", "tuned", "groups", "edited")
    places = [*(folder / "features" / name for name in parts), *(folder / name for name in old)]
    for place in [*places, *(folder / "features").glob("view-*")]:
        shutil.rmtree(place, ignore_errors=True)
    for name in ("moments.safetensors", "influence.safetensors", *WRITTEN):
        (folder / name).unlink(missing_ok=True)
