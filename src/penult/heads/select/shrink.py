"""Shrink: heads of many features, backward in large steps from the dense head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from penult.heads.samples import Samples
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces

# A step leaves at least this part of the features.
STEP = 0.5
Refit = Callable[[SparseHead], SparseHead]


def shrink(
    samples: Samples,
    ks: Sequence[int],
    refit: Refit,
    *,
    mean: bool = False,
    pool: Tensor | None = None,
) -> Iterator[tuple[int, SparseHead]]:
    """Heads of each size, the largest first, in a time that does not grow with k².

    From the dense head on, features go whose own loss is least, half of them at most; then the
    others are refitted, and the next go. The own loss of a feature is its weight's square times
    its curvature at the head as it stands.

    Args:
        samples: those that the selection reads.
        ks: features per class, in falling order.
        refit: new weights for the same features.
        mean: k is the mean over the classes.
        pool: no other features are read; in rising order.
    """
    n_classes, n_features = samples.n_classes, samples.n_features
    names = torch.arange(n_features) if pool is None else pool.cpu()
    whole = Subspaces.of([names.tolist()] * n_classes, n_features)
    head = SparseHead.from_dense(samples.weight.cpu(), samples.bias.cpu(), whole)
    size = len(names)
    for k in ks:
        while size > k:
            size = max(k, int(STEP * size))
            head = refit(_kept(head, own_losses(samples, head)[0], size, mean))
        yield k, head


def own_losses(samples: Samples, head: SparseHead) -> tuple[Tensor, Tensor]:
    """Second-order loss of losing single features, as the head stands.

    Args:
        samples: those that the selection reads.
        head: the head.

    Returns:
        (nnz,), for each kept feature alone; (n_classes, n_features), what each would be for the
        dense weight. Both in float64.
    """
    at = samples.coordinates
    weight = head.dense_weight().detach().to(at.weight)
    level = head.bias.detach().to(at.weight) + weight @ samples.mean
    scaled = torch.cat([weight * samples.std, level[:, None]], 1)
    own = samples.probabilities(scaled.float() @ at.x)
    p = own.add_(samples.probabilities(at.logits)).div_(2)
    p.mul_(1 - p)
    curvature = ((p @ at.x[:-1].square().T).double() / at.n_samples).cpu()
    losses = scaled[:, :-1].square().cpu() * curvature
    dense = at.weight[:, :-1].square().cpu() * curvature
    return losses[head.subspaces.classes(), head.indices.cpu()], dense


def _kept(head: SparseHead, losses: Tensor, k: int, mean: bool) -> SparseHead:
    """The head without the features that lose least: k per class are left, or k on average."""
    subspaces = head.subspaces
    classes = subspaces.classes()
    order = losses.argsort(descending=True, stable=True)
    order = order[classes[order].argsort(stable=True)]  # by class, the largest loss first
    place = torch.arange(len(order)) - subspaces.indptr[classes[order]]
    if mean:
        worth = losses[order].masked_fill(place == 0, float("inf"))
        taken = worth.argsort(descending=True, stable=True)[: k * subspaces.n_classes].sort().values
        chosen = order[taken]
    else:
        chosen = order[place < k]
    sizes = torch.bincount(classes[chosen], minlength=subspaces.n_classes)
    indptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    kept = Subspaces(indptr, subspaces.indices[chosen], subspaces.n_features)
    return SparseHead(kept, head.values.detach()[chosen], head.bias.detach())
