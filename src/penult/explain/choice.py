"""HeadChoice: which of a run's sparse heads is explained, and why that one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penult.errors import InputError
from penult.heads.comparison import PairedCounts, paired_counts
from penult.heads.further import TOLERANCE
from penult.heads.judge import EVALUATION, FITTED, Judge, size_within
from penult.heads.sparse_head import SparseHead
from penult.runs.run import Run
from penult.runs.tune.folder import selection

UNFITTED = "contribution"


@dataclass(frozen=True, eq=False)
class HeadChoice:
    """A sparse head of a run, compared with the dense one sample by sample.

    Attributes:
        head: the sparse head.
        select, k: which one it is.
        refit: how its weights were fitted, "none" for the dense ones.
        counts: against the dense head, on the samples that judge.
        judge: these samples.
        why: a sentence or two.
    """

    head: SparseHead
    select: str
    k: int
    refit: str
    counts: PairedCounts
    judge: Judge
    why: str

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.select}, k = {self.k}"

    @property
    def accuracy(self) -> float:
        """Fraction right of the samples that judge."""
        return self.counts.after or 0.0

    @property
    def loss(self) -> float:
        """By how much that is less than the dense accuracy."""
        return self.counts.loss or 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the loss."""
        return self.counts.interval


def choose_head(run: Run, k: int | None = None, select: str | None = None) -> HeadChoice:
    """The run's head of this size; by default the smallest that can be vouched for.

    That is the smallest that can be shown to lose no more than half a point of accuracy, by tests
    from the largest head down (`penult.heads.judge.size_within`); where there is none, the
    smallest whose measured loss is within half a point; where there is none either, the most
    accurate. One that reads all features is only chosen where there is no other.

    Args:
        run: a finished one.
        k: features per class.
        select: how its features were chosen; by default the fitted path, or the heads by
            contribution in a run without one.

    Raises:
        InputError: the run holds no such head.
    """
    summary = run.summary()
    rows = _rows(summary)
    if select is None:
        select = next(iter({row["select"]: 0 for row in summary["path"]}), UNFITTED)
    judge = Judge.read(summary["judge"])
    if k is not None:
        select = selection(run, k, select)
        row = rows.get((select, k), {})
        counts, judge = _counts(run, row, select, k, judge)
        return _choice(run, select, k, row, counts, judge, "It was asked for.")
    sizes = sorted(size for name, size in rows if name == select)
    if not sizes:
        known = dict.fromkeys(name for name, _ in rows)
        raise InputError(f"the run holds no heads {select!r}; it holds {', '.join(known)}")
    sparse = [size for size in sizes if size < run.train().n_features] or sizes
    counts_of = [PairedCounts(**rows[select, size]["counts"]) for size in sparse]
    at, why = _default(sparse, counts_of, judge)
    return _choice(run, select, sparse[at], rows[select, sparse[at]], counts_of[at], judge, why)


def _default(sizes: list[int], counts: list[PairedCounts], judge: Judge) -> tuple[int, str]:
    """Which head to explain where none was asked for, and why."""
    found = size_within(sizes, counts, judge, TOLERANCE)
    if found.index is not None:
        return found.index, found.why
    losses = [one.loss or 0.0 for one in counts]
    within = [i for i, loss in enumerate(losses) if loss <= TOLERANCE]
    points = f"{100 * TOLERANCE:g} points"
    if within:
        at = within[0]
        what = f"k = {sizes[at]} is the smallest head whose measured loss is below {points}"
    else:
        at = losses.index(min(losses))
        what = f"all heads lose more than {points}; k = {sizes[at]} is the most accurate"
    return at, f"{found.why} Shown instead: {what}, {100 * losses[at]:.2f} points."


def _rows(summary: dict[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """What the summary says of each head, by selection and size."""
    rows = {(row["select"], int(row["k"])): row for row in summary["path"]}
    for name, sizes in summary["influence"].items():
        rows |= {(name, int(size)): row for size, row in sizes.items()}
    return rows


def _counts(
    run: Run, row: dict[str, Any], select: str, k: int, judge: Judge
) -> tuple[PairedCounts, Judge]:
    """What the run recorded of a head; of one that was added later, measured now."""
    if "counts" in row:
        return PairedCounts(**row["counts"]), judge
    evaluation = run.evaluation()
    counts = paired_counts(run.train().require_head(), [run.head(select, k)], evaluation)[0]
    kind = EVALUATION if run.summary()["evaluated_on"] == "eval" else FITTED
    return counts, Judge(kind, evaluation.n_samples, own_labels=run.own_labels)


def _choice(
    run: Run,
    select: str,
    k: int,
    row: dict[str, Any],
    counts: PairedCounts,
    judge: Judge,
    why: str,
) -> HeadChoice:
    refit = str(row.get("refit", "none"))
    return HeadChoice(run.head(select, k), select, k, refit, counts, judge, why)
