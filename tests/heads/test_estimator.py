from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from penult.errors import InputError
from penult.heads.estimator import SparseHeadClassifier


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_is_a_scikit_learn_estimator() -> None:
    check_estimator(SparseHeadClassifier(k=2))


def data() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(
        600, 12, n_informative=4, n_redundant=0, n_classes=3, shuffle=False, random_state=0
    )
    return X, np.array(["a", "b", "c"])[y]


def test_every_class_reads_k_features_and_they_are_the_informative_ones() -> None:
    X, y = data()
    model = SparseHeadClassifier(k=2).fit(X, y)
    assert [len(kept) for kept in model.subspaces_] == [2, 2, 2]
    assert ((model.coef_ != 0).sum(1) <= 2).all()
    assert {int(j) for kept in model.subspaces_ for j in kept} <= {0, 1, 2, 3}
    assert model.score(X, y) > 0.6
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)


def test_with_all_features_it_is_the_dense_model() -> None:
    X, y = data()
    dense = LogisticRegression(max_iter=1000).fit(X, y)
    model = SparseHeadClassifier(k=12, weight=dense.coef_, bias=dense.intercept_).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), dense.predict_proba(X), atol=0.01)
    assert model.agreement_ > 0.98
    assert 0 <= model.kl_ < 1e-3


def test_it_says_how_near_it_is_to_the_dense_head() -> None:
    X, y = data()
    dense = LogisticRegression(max_iter=1000).fit(X, y)
    model = SparseHeadClassifier(k=1, weight=dense.coef_, bias=dense.intercept_).fit(X, y)
    p, q = dense.predict_proba(X), model.predict_proba(X)
    assert model.agreement_ == pytest.approx((p.argmax(1) == q.argmax(1)).mean(), abs=0.005)
    assert model.kl_ == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-3)
    drawn = SparseHeadClassifier(k=1, weight=dense.coef_, bias=dense.intercept_, prior=100.0)
    assert drawn.fit(X, y).kl_ > model.kl_


def test_it_works_in_pipelines_and_grid_searches() -> None:
    X, y = data()
    pipeline = make_pipeline(StandardScaler(), SparseHeadClassifier())
    search = GridSearchCV(pipeline, {"sparseheadclassifier__k": [1, 4]}, cv=3).fit(X, y)
    assert search.best_params_["sparseheadclassifier__k"] == 4


def test_two_classes_give_one_decision() -> None:
    X, y = load_iris(return_X_y=True)
    X, y = X[y < 2], y[y < 2]
    model = SparseHeadClassifier(k=1).fit(X, y)
    decision = model.decision_function(X)
    assert decision.shape == (100,)
    np.testing.assert_array_equal(decision > 0, model.predict(X) == 1)
    assert model.score(X, y) == 1.0


def test_numbers_beyond_float32_are_refused_and_far_ones_said() -> None:
    X, y = data()
    with pytest.raises(InputError, match=r"more than float32 holds \(3.4e38\): scale the features"):
        SparseHeadClassifier(k=2).fit(X * 1e200, y)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        SparseHeadClassifier(k=2).fit(X + 1e8, y)
    assert any("subtract the features' means first" in str(one.message) for one in said)


def test_what_does_not_fit_is_refused() -> None:
    X, y = data()
    with pytest.raises(InputError, match="expected at least 2 classes, found one class"):
        SparseHeadClassifier().fit(X, np.zeros(len(X), dtype=int))
    with pytest.raises(InputError, match=r"expected a weight of shape \(3, 12\)"):
        SparseHeadClassifier(weight=np.ones((2, 12))).fit(X, y)
    with pytest.warns(UserWarning, match="k=20 is greater than n_features=12: all are read"):
        SparseHeadClassifier(k=20).fit(X, y)
    with pytest.raises(InputError, match="k must be a whole number"):
        SparseHeadClassifier(k=0).fit(X, y)


@pytest.mark.parametrize("seed", [None, 3, np.random.RandomState(0)])
def test_random_states_of_every_kind(seed: object) -> None:
    X, y = data()
    model = SparseHeadClassifier(k=2, select="random", random_state=seed).fit(X, y)
    assert [len(kept) for kept in model.subspaces_] == [2, 2, 2]


@pytest.mark.parametrize("k", [0, 2.5, "3", None])
def test_a_k_that_is_no_number_of_features(k: object) -> None:
    with pytest.raises(InputError, match="k must be a whole number, 1 or more, found"):
        SparseHeadClassifier(k=k).fit(*data())  # type: ignore[arg-type]
