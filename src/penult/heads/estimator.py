"""SparseHeadClassifier: sparse heads over feature arrays, as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from penult.errors import InputError
from penult.features.features import Features
from penult.features.given import in_float32
from penult.heads.path import fit_path
from penult.heads.plan import Plan


class SparseHeadClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    """Linear classifier in which every class reads k features.

    A dense head is made sparse: the one given as `weight` and `bias`, or a logistic regression that
    is fitted first.

    Args:
        k: features per class; more than there are, with a warning, is all of them.
        select: how the features are chosen, one of `penult.heads.select.registry.SELECTIONS`.
        refit: how their weights are fitted, one of `penult.heads.refit.registry.REFITS`.
        weight: (n_classes, n_features) of a dense head, classes in sorted order; None to fit one.
        bias: (n_classes,) of the dense head, or None.
        prior: how strongly the softmax refit is drawn towards the dense head, 0 or more; None for
            a strength that follows from the parameters per sample.
        C: inverse strength of the l2 penalty of the logistic regression, > 0; unused with `weight`.
        random_state: seed of the `random` selection, a RandomState, or None.

    Attributes:
        classes_: (n_classes,) labels.
        head_: the `SparseHead`.
        subspaces_: list of one array of feature indices per class.
        coef_: (n_classes, n_features), zero where a class does not read a feature.
        intercept_: (n_classes,).
        agreement_: fraction of the fitted samples that it classifies as the dense head does.
        kl_: mean divergence of the dense head's probabilities from its own on them, in nats.
        n_features_in_: n_features.
    """

    def __init__(
        self,
        k: int = 5,
        *,
        select: str = "curvature",
        refit: str = "softmax",
        weight: Any = None,
        bias: Any = None,
        prior: float | None = None,
        C: float = 1.0,
        random_state: Any = 0,
    ) -> None:
        self.k = k
        self.select = select
        self.refit = refit
        self.weight = weight
        self.bias = bias
        self.prior = prior
        self.C = C
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to features X (n_samples, n_features) and labels y (n_samples,).

        Raises:
            ValueError: fewer than two classes, NaN, a weight that does not fit.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError("expected at least 2 classes, found one class")
        z = in_float32(torch.from_numpy(X))
        weight, bias = self._dense(X, labels)
        if weight.shape != (len(self.classes_), X.shape[1]):
            raise InputError(
                f"expected a weight of shape ({len(self.classes_)}, {X.shape[1]}) "
                f"(n_classes, n_features), found {weight.shape}"
            )
        if not hasattr(self.k, "__index__") or self.k < 1:
            raise InputError(f"k must be a whole number, 1 or more, found {self.k!r}")
        if self.k > X.shape[1]:
            warnings.warn(
                f"k={self.k} is greater than n_features={X.shape[1]}: all are read",
                stacklevel=2,
            )
        seed = self.random_state
        if not hasattr(seed, "__index__"):
            seed = check_random_state(seed).randint(2**31)
        ks = (min(int(self.k), X.shape[1]),)
        plan = Plan(ks, self.select, self.refit, seed=int(seed), prior=self.prior)
        (step,) = fit_path(Features.of(z, labels, weight, bias), None, plan).steps
        self.head_ = step.head
        counts = step.counts
        assert counts is not None
        assert counts.divergence is not None
        self.agreement_ = counts.n_agree / counts.n_samples
        self.kl_ = max(0.0, counts.divergence / counts.n_samples)
        self.subspaces_ = [kept.numpy() for kept in self.head_.subspaces]
        self.coef_ = self.head_.dense_weight().detach().double().numpy()
        self.intercept_ = self.head_.bias.detach().double().numpy()
        return self

    def _dense(self, X: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], Any]:
        if self.weight is not None:
            return np.asarray(self.weight), self.bias
        # Scaled, so that the penalty means the same for every feature; then scaled back.
        model = make_pipeline(StandardScaler(), LogisticRegression(C=self.C, max_iter=1000))
        scaler, dense = model.fit(X, labels)
        weight = dense.coef_ / scaler.scale_
        bias = dense.intercept_ - weight @ scaler.mean_
        if len(weight) == 1:
            return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return weight, bias

    def _logits(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        logits: NDArray[np.float64] = X @ self.coef_.T + self.intercept_
        return logits

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Logits (n_samples, n_classes); with two classes their difference (n_samples,)."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities (n_samples, n_classes)."""
        probabilities: NDArray[np.float64] = softmax(self._logits(X), axis=1)
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """Most probable label of each sample, (n_samples,)."""
        best = self._logits(X).argmax(1)
        labels: NDArray[Any] = self.classes_[best]
        return labels
