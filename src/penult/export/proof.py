"""Proof: an export is loaded in a process without penult and compared with the network."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penult.errors import InputError
from penult.heads.comparison import PairedCounts
from penult.network.link import decided
from penult.text import one_line

PROGRAM = Path(__file__).with_name("fresh_process.py")
TOLERANCE = 1e-4  # of the largest logit: what two float32 runtimes differ by in deep networks
LONGEST = 1800  # seconds
BATCH = 32


class MismatchError(InputError):
    """An export does not give the network's logits."""


@dataclass(frozen=True)
class Trial:
    """What is loaded and run in the fresh process.

    Attributes:
        runtime: of `fresh_process.RUNTIMES`.
        files: what it loads.
        fixed: the only batch size that it takes; any where None.
        timed: batch sizes of which the seconds are measured.
        before: files of the network as it was, of which the seconds are measured in turn.
        more: what else the runtime needs to know.
    """

    runtime: str
    files: Sequence[Path]
    fixed: int | None = None
    timed: Sequence[int] = ()
    before: Sequence[Path] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class FreshRun:
    """What came of it.

    Attributes:
        logits: (n_samples, n_classes) float32.
        versions: of what ran.
        seconds: of one batch, again and again, by batch size and by "export" and "before".
    """

    logits: Tensor
    versions: dict[str, str]
    seconds: dict[int, dict[str, list[float]]]


def run_fresh(trial: Trial, inputs: Mapping[str, Tensor]) -> FreshRun:
    """Load an export in a process that cannot import penult, and run it on samples.

    Raises:
        InputError: it cannot be loaded or run there.
    """
    with tempfile.TemporaryDirectory(prefix="penult-export-") as name:
        folder = Path(name)
        files = {}
        for number, (key, values) in enumerate(inputs.items()):
            files[key] = f"input{number}.npy"
            np.save(folder / files[key], values.numpy())
        plan = {
            "runtime": trial.runtime,
            "files": [str(file.resolve()) for file in trial.files],
            "inputs": files,
            "batch_size": trial.fixed or BATCH,
            "fixed": trial.fixed is not None,
            "timed": list(trial.timed),
            "before": [str(file.resolve()) for file in trial.before],
            "threads": torch.get_num_threads(),
            **trial.more,
        }
        (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        command = [sys.executable, "-P", str(PROGRAM), str(folder / "plan.json")]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, cwd=folder, timeout=LONGEST
            )
        except subprocess.TimeoutExpired:
            raise InputError(
                f"the export ran for {LONGEST // 60} minutes in a fresh process and was stopped: "
                "compare fewer samples (--samples)"
            ) from None
        if ended.returncode:
            said = [line for line in ended.stderr.splitlines() if line.strip()]
            why = said[-1] if said else ""
            for file in trial.files:  # not where it lies for now
                why = why.replace(str(file.resolve()), file.name)
            raise InputError(
                f"the export cannot be loaded in a fresh process ({one_line(why, 300)}): it "
                "is not kept"
                if said
                else "the export ended the fresh process that loaded it: it is not kept"
            )
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        logits = torch.from_numpy(np.load(folder / "logits.npy"))
    seconds = {int(size): times for size, times in result["seconds"].items()}
    return FreshRun(logits, result["versions"], seconds)


def compared(
    reference: Tensor, found: Tensor, labels: Tensor, link: str, tolerance: float | None
) -> dict[str, Any]:
    """How an export's logits differ from the network's.

    Args:
        reference: (n_samples, n_classes) of the network with the head in place.
        found: of the export.
        labels: of the samples.
        link: what the logits mean.
        tolerance: of the largest logit; None to measure without judging.

    Raises:
        MismatchError: they differ by more.
    """
    if found.shape != reference.shape:
        raise MismatchError(
            f"the export gives {tuple(found.shape)} logits, expected {tuple(reference.shape)}: it "
            "is not kept"
        )
    difference = float((found - reference).abs().max())
    largest = float(reference.abs().max())
    ours, theirs = decided(reference, link), decided(found, link)
    same = ours == theirs
    n = same.numel()
    document = {
        "n_samples": len(labels),
        "n_decisions": n,
        "greatest_difference": difference,
        "largest_logit": largest,
        "agreement": float(same.float().mean()),
        **_accuracies(ours, theirs, labels),
    }
    if tolerance is not None:
        document["tolerance"] = tolerance
        allowed = tolerance * largest
        if not difference <= allowed:
            raise MismatchError(
                f"the export's logits differ from the network's by up to {difference:.3g}, and "
                f"{allowed:.3g} is allowed: it is not kept"
            )
    return document


def _accuracies(ours: Tensor, theirs: Tensor, labels: Tensor) -> dict[str, Any]:
    if labels.ndim == 1 and bool((labels < 0).all()):
        return {}
    counts = PairedCounts.of(labels, ours, theirs).document()
    return {
        "accuracy": {
            "network": counts["before"],
            "export": counts["after"],
            "interval": counts["after_interval"],
            "lost": counts["loss"],
            "lost_interval": counts["interval"],
        }
    }
