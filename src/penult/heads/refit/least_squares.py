"""Least squares: weights on fixed subspaces that come nearest to the dense logits, from moments."""

from __future__ import annotations

import torch
from torch import Tensor

from penult.features.moments import Moments
from penult.heads.refit.softmax import check_subspaces
from penult.heads.samples import check_dense_head
from penult.heads.select.models import by_moments, check_moments
from penult.heads.select.tableau import Tableau
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces
from penult.network.link import SOFTMAX


def refit_least_squares(
    subspaces: Subspaces,
    moments: Moments,
    weight: Tensor,
    bias: Tensor,
    link: str = SOFTMAX,
) -> SparseHead:
    """Weights on fixed subspaces that come nearest to the dense logits, from moments alone.

    Softmax ignores what is common to all classes, so the target of a class is its dense logit less
    the mean over classes. Constant features get the weight 0; their share is in the bias.

    Args:
        subspaces: which features each class keeps.
        moments: of the features.
        weight: (n_classes, n_features) of the dense head.
        bias: (n_classes,) of the dense head.
        link: what the logits mean; with a sigmoid no mean is taken off.

    Raises:
        InputError: sizes that do not fit, NaN, fewer than two samples.
    """
    check_dense_head(weight, bias)
    check_moments(moments, weight)
    check_subspaces(subspaces, *weight.shape)
    model = by_moments(moments, weight, bias, link=link)
    sizes = subspaces.indptr.diff()
    found = torch.zeros(len(weight), weight.shape[1] + 1, dtype=torch.float64)
    for k in torch.unique(sizes).tolist():
        rows = (sizes == k).nonzero()[:, 0]
        support = torch.stack([subspaces[c] for c in rows.tolist()])
        products, level = model.products(rows)
        values = Tableau.of(model.covariance, products, support).weights
        found[rows] = model.weight(rows, support, values, level)
    values = found[subspaces.classes(), subspaces.indices]
    return SparseHead(subspaces, values.float(), found[:, -1].float())
