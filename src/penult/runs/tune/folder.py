"""Tuned: the folder that holds a tuned head and the network that goes with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import nn

from penult.errors import InputError
from penult.heads.sparse_head import SparseHead, accuracies
from penult.network.replace import replace_head
from penult.runs.lock import refuse_links
from penult.runs.reopen import Places, load_as, reopen_network
from penult.runs.run import Run
from penult.storage import check_writable, not_written, read_json, write_json
from penult.text import some

FORMAT = "penult-tune/1"
_HEAD_FILE = re.compile(r"(.+)-k(\d+)\.safetensors")


@dataclass(frozen=True)
class Tuned:
    """A tuned head, and the network that goes with it.

    Attributes:
        folder: `network.safetensors` (unless the head alone was tuned), `head.safetensors`,
            `tune.json`.
        document: what `tune.json` says.
    """

    folder: Path
    document: dict[str, Any]

    @classmethod
    def open(cls, run: Run | str | Path, k: int, select: str, *, head_only: bool = False) -> Tuned:
        """Open what `tune` wrote.

        Raises:
            InputError: it is not there, or unfinished.
        """
        run = run if isinstance(run, Run) else Run.open(run)
        folder = tuned_folder(run, select, k, head_only)
        document = read_json(folder / "tune.json", FORMAT)
        if not document["complete"]:
            raise InputError(
                f"{folder} is unfinished: run the same command again, it goes on where it stopped"
            )
        return cls(folder, document)

    def head(self) -> SparseHead:
        """The tuned head."""
        return SparseHead.load(self.folder / "head.safetensors")

    def network(self, sources: Places | None = None) -> nn.Module:
        """The tuned network with the tuned head in it, on the CPU and in evaluation mode."""
        run, sources = Run.open(self.folder.parents[1]), sources or Places()
        if self.document["head_only"]:
            model = reopen_network(run, sources)
        else:
            model = load_as(run, self.folder / "network.safetensors", sources).model
        replace_head(model, self.head(), run.train().require_head())
        return model


def selection(run: Run, k: int, select: str | None) -> str:
    """Which of the run's heads of size k: as asked, else the fitted one, else the best by score.

    The best is that on the analysed data; fitted heads are not held against these, as the network
    may know the data by heart and so favour weights of its own.
    """
    found: dict[int, list[str]] = {}
    for path in sorted((run.folder / "heads").glob("*.safetensors")):
        if match := _HEAD_FILE.fullmatch(path.name):
            found.setdefault(int(match[2]), []).append(match[1])
    if k not in found:
        sizes = ", ".join(map(str, sorted(found))) or "none"
        n_features = int(run.summary()["n_features"])
        advice = f"add it with penult fit {run.folder} -k {k}"
        if not 1 <= k <= n_features:
            advice = f"a class reads from 1 to all {n_features:,} features"
        raise InputError(f"the run holds no head of k = {k}; it holds k = {sizes}: {advice}")
    names = found[k]
    if select is None:
        fitted = [row["select"] for row in run.summary()["path"] if row["select"] in names]
        if fitted:
            return str(fitted[0])
        measured = accuracies([run.head(name, k) for name in names], run.train())
        return names[measured.index(max(measured))]
    if select not in names:
        raise InputError(f"the run holds no head {select!r} of k = {k}; it holds {some(names, 20)}")
    return select


def tuned_folder(run: Run, select: str, k: int, head_only: bool) -> Path:
    """Where tuning through a head of the run goes; both kinds have room beside each other."""
    return run.folder / "tuned" / f"{select}-k{k:03d}{'-head' if head_only else ''}"


@contextmanager
def claim_tuned(
    folder: Path, identity: Mapping[str, Any], about: Mapping[str, Any], overwrite: bool
) -> Iterator[dict[str, Any]]:
    """Hold the folder of one tuning; gives what `tune.json` says so far."""
    path = folder / "tune.json"
    document = {"format": FORMAT, "complete": False, "identity": dict(identity), **about}
    try:
        if folder.parents[1].is_dir():
            refuse_links(folder.parents[1])
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder)
    except OSError as error:
        raise not_written(folder, error) from error
    try:
        with FileLock(folder / ".lock", timeout=0):
            if path.exists():
                found = read_json(path, FORMAT)
                old = found["identity"]
                other = [name for name in identity if old.get(name) != identity[name]]
                if not other:
                    document = found
                elif overwrite:
                    # The checkpoint goes first: what is left must not be gone on with.
                    for name in ("checkpoint", "network", "head"):
                        (folder / f"{name}.safetensors").unlink(missing_ok=True)
                else:
                    name = other[0]
                    raise InputError(
                        f"{folder} was tuned with another {name} ({old.get(name)}; now "
                        f"{identity[name]}): give the same options to go on, or --overwrite"
                    )
            write_json(path, document)
            yield document
    except Timeout:
        raise InputError(f"another process is tuning in {folder}: wait for it to end") from None


def hash_of(path: Path) -> str:
    """Hash of a file."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
