"""Choice: which of a run's sparse heads is explained, and why that one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from penult.errors import InputError
from penult.heads.path import paired_interval
from penult.heads.sparse_head import SparseHead
from penult.runs.run import Run
from penult.runs.tune.folder import selection

TOLERANCE = 0.005
UNFITTED = "contribution"


@dataclass(frozen=True, eq=False)
class Choice:
    """A sparse head of a run, compared with the dense one sample by sample.

    Attributes:
        head: the sparse head.
        select, k: which one it is.
        refit: how its weights were fitted, "none" for the dense ones.
        accuracy: on the evaluation samples.
        loss: by how much that is less than the dense accuracy.
        interval: 95 % confidence interval of the loss.
        why: one sentence.
    """

    head: SparseHead
    select: str
    k: int
    refit: str
    accuracy: float
    loss: float
    interval: tuple[float, float]
    why: str

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.select}, k = {self.k}"


def choose_head(run: Run, k: int | None = None, select: str | None = None) -> Choice:
    """The run's head of this size; by default the smallest that surely is as good as the dense one.

    That is the smallest whose loss of accuracy on the evaluation samples lies, with its whole 95 %
    confidence interval, within half a point; where there is none, the smallest whose loss itself
    does; where there is none either, the most accurate.

    Args:
        run: a finished one.
        k: features per class.
        select: how its features were chosen; by default the fitted path, or the heads by
            contribution in a run without one.

    Raises:
        InputError: the run holds no such head.
    """
    summary = run.summary()
    refits = {row["select"]: row["refit"] for row in summary["path"]}
    if select is None:
        select = next(iter(refits), UNFITTED)
    if k is not None:
        select = selection(run, k, select)
        return _compared(run, select, [k], refits, "It was asked for.")[0]
    sizes = _sizes(summary, select)
    found = _compared(run, select, sizes, refits, "")
    surely = [choice for choice in found if choice.interval[1] <= TOLERANCE]
    points = f"{100 * TOLERANCE:g}"
    on = "evaluation" if summary["evaluated_on"] == "eval" else "analysed"
    if surely:
        why = (
            f"It is the smallest of {len(found)} heads whose loss of accuracy on the {on} images "
            f"is surely (95% interval) below {points} points."
        )
        return replace(surely[0], why=why)
    likely = [choice for choice in found if choice.loss <= TOLERANCE]
    if likely:
        high = 100 * likely[0].interval[1]
        why = (
            f"It is the smallest of {len(found)} heads that loses less than {points} points on the "
            f"{on} images, though not surely: the 95% interval of the loss ends at {high:.2f}."
        )
        return replace(likely[0], why=why)
    best = max(found, key=lambda choice: choice.accuracy)
    why = (
        f"All of {len(found)} heads lose more than {points} points on the {on} images; this is the "
        "most accurate."
    )
    return replace(best, why=why)


def _sizes(summary: dict[str, Any], select: str) -> list[int]:
    sizes = [int(row["k"]) for row in summary["path"] if row["select"] == select]
    sizes = sizes or [int(k) for k in summary["influence"].get(select, {})]
    if not sizes:
        known = {row["select"]: None for row in summary["path"]} | summary["influence"]
        raise InputError(f"the run holds no heads {select!r}; it holds {', '.join(known)}")
    return sorted(sizes)


def _compared(
    run: Run, select: str, sizes: list[int], refits: dict[str, str], why: str
) -> list[Choice]:
    evaluation = run.evaluation()
    dense = run.train().require_head()
    heads = [run.head(select, k) for k in sizes]
    n_lost, n_won, n_right = ([0] * len(heads) for _ in range(3))
    with torch.no_grad():
        for block in evaluation.blocks():
            right = block.dense_classes(dense) == block.labels
            for i, head in enumerate(heads):
                ours = head(block.features).argmax(1) == block.labels
                n_lost[i] += int((right & ~ours).sum())
                n_won[i] += int((ours & ~right).sum())
                n_right[i] += int(ours.sum())
    n = evaluation.n_samples
    return [
        Choice(
            head,
            select,
            k,
            refits.get(select, "none"),
            right / n,
            (lost - won) / n,
            paired_interval(lost, won, n),
            why,
        )
        for head, k, lost, won, right in zip(heads, sizes, n_lost, n_won, n_right, strict=True)
    ]
