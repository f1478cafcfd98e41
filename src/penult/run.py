"""Run: the folder that holds all there is about one network and one data set."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from penult.errors import InputError
from penult.features import Features
from penult.head import SparseHead
from penult.moments import Moments
from penult.storage import difference, read_json, write_json

FORMAT = "penult-run/1"


class Run:
    """A run folder; `Run.open` reads a finished one, `claim` begins one or goes on with it.

    Attributes:
        folder: where it lies.
        about: what `run.json` says: what was analysed, with which options and versions.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open a finished run.

        Raises:
            InputError: no run folder, or an unfinished one.
        """
        folder = Path(folder)
        if not (folder / "run.json").is_file():
            raise InputError(f"{folder} is no run folder: it has no run.json")
        run = cls(folder, read_json(folder / "run.json", FORMAT))
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
    def train_folder(self) -> Path:
        """Shards of the analysed data."""
        return self.folder / "features" / "train"

    @property
    def eval_folder(self) -> Path:
        """Shards of the evaluation data."""
        return self.folder / "features" / "eval"

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

    def head_file(self, select: str, k: int) -> Path:
        """Sparse head that a score selects at size k."""
        return self.folder / "heads" / f"{select}-k{k:03d}.safetensors"

    def train(self) -> Features:
        """Features of the analysed data."""
        return Features.open(self.train_folder)

    def evaluation(self) -> Features:
        """Features of the evaluation data; of the analysed data where there is none."""
        return Features.open(self.eval_folder) if self.eval_folder.exists() else self.train()

    def moments(self) -> Moments:
        """Moments of the analysed data."""
        return Moments.load(self.moments_file)

    def head(self, select: str, k: int) -> SparseHead:
        """Sparse head that a score selects at size k."""
        return SparseHead.load(self.head_file(select, k))

    def summary(self) -> dict[str, Any]:
        """What was found, as `penult show --json` prints it."""
        return read_json(self.summary_file)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write what was found, then mark the run complete."""
        write_json(self.summary_file, summary)
        self.about["complete"] = True
        write_json(self.folder / "run.json", self.about)


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
    if folder.is_dir() and any(folder.iterdir()) and not _is_run(folder):
        raise InputError(f"{folder} is neither empty nor a run folder: choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the run folder {folder} cannot be made: {error.strerror}") from error
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield _claimed(folder, dict(identity), dict(about), overwrite)
    except Timeout:
        raise InputError(
            f"another process is writing {folder}: wait for it to end, or choose another --out"
        ) from None


def _is_run(folder: Path) -> bool:
    return (folder / "run.json").exists() or (folder / ".lock").exists()


def _claimed(folder: Path, identity: dict[str, Any], about: dict[str, Any], overwrite: bool) -> Run:
    path = folder / "run.json"
    if path.exists():
        found = read_json(path, FORMAT)
        if found["identity"] == identity:
            return Run(folder, found)
        if not overwrite:
            raise InputError(difference(folder, found["identity"], identity))
        _clear(folder)
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
    # run.json goes first: if this is cut short, what is left is no run that could be gone on with.
    (folder / "run.json").unlink()
    for name in ("features", "heads", "examples"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    for name in ("summary.json", "measures.json", "report.html"):
        (folder / name).unlink(missing_ok=True)
