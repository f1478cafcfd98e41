"""What sparse heads are compared with: other ways to make them, and the figures known before."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from penult.features.features import Features
from penult.heads.comparison import paired_counts
from penult.heads.path import fit_path
from penult.heads.plan import Plan
from penult.heads.refit.softmax import fit
from penult.heads.samples import Samples
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces, top_k

OURS = "curvature, refit"
SCORES = ("frequency", "contribution")
L1 = "scikit-learn l1, cut and refitted"
SAGA = "glm_saga, mean k nearest below"
# Where these take minutes they are left out.
MOST_L1 = 2e8  # samples × features × classes
MOST_SAGA = 4e5


@dataclass(frozen=True)
class Found:
    """How near one head is to the dense one, on samples that judge."""

    accuracy: float
    agreement: float | None
    kl: float | None


@dataclass(frozen=True)
class Row:
    """What one way gives for every k, and its processor seconds for the whole path."""

    found: dict[int, Found]
    seconds: float | None


# Figures noted when the mechanism was designed, of the code that it replaced and of its sketch:
# accuracy in percent and KL at k = 2, 5, 10, 20, by the samples that were fitted.
BEFORE = {
    ("resnet56", 50): "84.42/1.22 84.80/1.06 85.14/.608 91.25/.126",
    ("resnet56", 500): "91.57/.149 91.80/.117 92.86/.045 93.00/.040",
    ("resnet56", 50_000): "92.18 93.21 93.37 93.42",
    ("resnet20", 500): "87.77/.282 89.99/.095 90.49/.048 91.12/.028",
    ("resnet20", 50_000): "89.27 91.31 91.68 91.75",
    ("mobilenet_v1_025", 2749): "6.5 15.3 24.7 33.1",  # fitted to 3,864 samples
}
PROTOTYPE = {
    ("resnet56", 50): "89.01/.249 92.47/.082 93.06/.025 93.13/.012",
    ("resnet56", 500): "91.74/.103 92.89/.029 93.16/.013 93.30/.004",
    ("resnet56", 50_000): "92.02 93.25 93.39 93.35",
    ("resnet20", 500): "88.31/.169 91.07/.044 91.21/.026 91.70/.009",
    ("resnet20", 50_000): "88.91 91.22 91.61 91.74",
}


def known(figures: str) -> Row:
    """A row of figures noted before."""
    found = {}
    for k, text in zip((2, 5, 10, 20), figures.split(), strict=True):
        accuracy, _, kl = text.partition("/")
        found[k] = Found(float(accuracy) / 100, None, float(kl) if kl else None)
    return Row(found, None)


def judged(heads: Sequence[SparseHead], ks: Sequence[int], test: Features) -> dict[int, Found]:
    """How near heads are to the dense one on `test`."""
    counts = paired_counts(test.require_head(), heads, test, divergence=True)
    return {
        k: Found(one.after or 0.0, one.agreement, one.kl) for k, one in zip(ks, counts, strict=True)
    }


def ours(train: Features, test: Features, ks: Sequence[int], select: str, refit: str) -> Row:
    """A path of penult's."""
    start = time.process_time()
    path = fit_path(train, test, Plan(tuple(ks), select, refit))
    seconds = time.process_time() - start
    counts = [step.counts for step in path.steps]
    found = {
        step.k: Found(one.after or 0.0, one.agreement, one.kl)
        for step, one in zip(path.steps, counts, strict=True)
        if one is not None
    }
    return Row(found, seconds)


def l1_path(train: Features, test: Features, ks: Sequence[int]) -> Row:
    """scikit-learn's l1 path; at each k the sparsest solution with k features for most classes."""
    z, labels = train.arrays()
    head = train.require_head()
    mean, std = z.mean(0), z.std(0).clamp(min=1e-12)
    x = ((z - mean) / std).numpy()
    start = time.process_time()
    model = LogisticRegression(
        l1_ratio=1.0, solver="saga", C=1e-4, warm_start=True, max_iter=30, tol=1e-3
    )
    scale = 50_000 / len(z)  # its C is a sum over the samples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        coefficients = [
            model.set_params(C=c * scale).fit(x, labels.numpy()).coef_.copy()
            for c in np.logspace(-4, -1, 7)
        ]
    found = torch.from_numpy(np.abs(coefficients))
    if found.shape[1] < head.n_classes:  # classes that no sample has
        wide = found.new_zeros(len(found), head.n_classes, found.shape[2])
        wide[:, torch.from_numpy(model.classes_)] = found
        found = wide
    samples = Samples(list(train.blocks()), head.weight, head.bias)
    heads = []
    for k in ks:
        enough = [w for w in found if float((w != 0).sum(1).double().median()) >= k] or [found[-1]]
        heads.append(fit(samples, top_k(enough[0], k)).head)
    return Row(judged(heads, ks, test), time.process_time() - start)


def saga_path(train: Features, test: Features, ks: Sequence[int], steps: int) -> Row | None:
    """glm_saga's path of so many steps; None where it is not installed."""
    try:
        from glm_saga.elasticnet import glm_saga
    except ModuleNotFoundError:
        return None
    z, labels = train.arrays()
    mean, std = z.mean(0), z.std(0).clamp(min=1e-12)
    data = torch.utils.data.TensorDataset((z - mean) / std, labels, torch.arange(len(z)))
    loader = torch.utils.data.DataLoader(data, batch_size=2048, shuffle=True)
    head = train.require_head()
    linear = torch.nn.Linear(train.n_features, head.n_classes)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    start = time.process_time()
    found = glm_saga(
        linear, loader, 0.1, 500, 0.99, k=steps, epsilon=1e-3, n_ex=len(z),
        n_classes=head.n_classes, tol=1e-4, do_zero=False, lookbehind=3, verbose=None,
    )  # fmt: skip
    seconds = time.process_time() - start
    by_size = []
    for point in found["path"]:
        weight, bias = point["weight"] / std, point["bias"] - (point["weight"] / std) @ mean
        kept = Subspaces.of([row.nonzero()[:, 0].tolist() for row in weight], train.n_features)
        by_size.append((kept.nnz / head.n_classes, SparseHead.from_dense(weight, bias, kept)))
    by_size.sort(key=lambda pair: pair[0])
    below = {k: [head for size, head in by_size if 0 < size <= k][-1:] for k in ks}
    reached = {k: heads[0] for k, heads in below.items() if heads}
    return Row(judged(list(reached.values()), list(reached), test), seconds)


def ways(
    train: Features, test: Features, ks: Sequence[int], name: str
) -> dict[str, Callable[[], Row | None]]:
    """Every way that is affordable on these features; what gives None is not installed."""
    head = train.require_head()
    size = train.n_samples * train.n_features * head.n_classes
    found: dict[str, Callable[[], Row | None]] = {}
    for label, table in (("before", BEFORE), ("prototype", PROTOTYPE)):
        figures = table.get((name, train.n_samples))
        if figures is not None:
            found[label] = partial(known, figures)
    for score in SCORES:
        found[f"{score}, dense weights"] = partial(ours, train, test, ks, score, "none")
    if size <= MOST_L1:
        found[L1] = partial(l1_path, train, test, ks)
    if size <= MOST_SAGA:
        found[SAGA] = partial(saga_path, train, test, ks, 10)
    found["moments, least squares"] = partial(ours, train, test, ks, "moments", "least-squares")
    found[OURS] = partial(ours, train, test, ks, "curvature", "softmax")
    return found
