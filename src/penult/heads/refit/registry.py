"""The registry of refits: how the weights on chosen features are found."""

from __future__ import annotations

from collections.abc import Callable

from penult.heads.refit.least_squares import refit_least_squares
from penult.heads.refit.loss import usual_pull
from penult.heads.refit.softmax import RefitResult, solve, tolerance_of
from penult.heads.samples import Samples
from penult.heads.select.registry import Search, Selection
from penult.heads.sparse_head import SparseHead

# Below this divergence, in nats, the expansion at the dense head has said it all.
LEAST_LOSS = 0.005
# Part of the divergence by which a better choice of features must lower it.
LEAST_FALL = 1e-3

Refit = Callable[[Search, SparseHead, Selection, float | None], tuple[SparseHead, bool]]


def softmax(
    search: Search, start: SparseHead, selection: Selection, prior: float | None
) -> tuple[SparseHead, bool]:
    """Least divergence from the dense head's probabilities, or from the labels.

    Of a multi-label head these are the probabilities of each class by itself, by a sigmoid.

    On some of the samples first. There the selection, if it can, chooses better features at the
    fitted head itself, which are kept if the divergence falls.
    """
    samples, few = search.samples, search.samples.few
    pull = usual_pull(samples, len(start.indices)) if prior is None else prior
    tolerance = tolerance_of(samples, len(start.indices) + samples.n_classes)

    def fitted(head: SparseHead, to: Samples) -> RefitResult:
        return solve(to, head.subspaces, head, tolerance, pull, search.fit_tick)

    result = fitted(start, few)
    if selection.improve is not None and result.loss > LEAST_LOSS:
        better = selection.improve(search, result.head, pull)
        if better is not None:
            moved = fitted(better, few)
            if moved.loss < result.loss * (1 - LEAST_FALL):
                result = moved
    if few is not samples:
        result = fitted(result.head, samples)
    return result.head, result.converged


def least_squares(
    search: Search, start: SparseHead, selection: Selection, prior: float | None
) -> tuple[SparseHead, bool]:
    """Nearest to the dense logits, from moments alone."""
    weight, bias = search.samples.weight.cpu(), search.samples.bias.cpu()
    link = search.samples.link
    return refit_least_squares(start.subspaces, search.moments(), weight, bias, link), True


def none(
    search: Search, start: SparseHead, selection: Selection, prior: float | None
) -> tuple[SparseHead, bool]:
    """The dense head's own weights."""
    weight, bias = search.samples.weight.cpu(), search.samples.bias.cpu()
    return SparseHead.from_dense(weight, bias, start.subspaces), True


REFITS: dict[str, Refit] = {"softmax": softmax, "least-squares": least_squares, "none": none}
