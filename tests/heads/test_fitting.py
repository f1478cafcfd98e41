from __future__ import annotations

import pytest
import torch

from penult.features.features import Features
from penult.heads.path import fit_path
from penult.heads.plan import Plan


@pytest.mark.parametrize(("n_samples", "scale"), [(12, 30.0), (36, 10.0)])
def test_more_features_are_no_worse_where_samples_are_few(n_samples: int, scale: float) -> None:
    """With 2 and 6 samples of each class, fewer than features, heads still come nearer with k."""
    ks, n_classes, n_features = (1, 5, 20), 6, 40
    kl, accuracy = torch.zeros(3), torch.zeros(3)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randn(n_classes, n_features, generator=generator) / 2
        labels = torch.arange(3000) % n_classes
        z = centres[labels] + torch.randn(3000, n_features, generator=generator)
        x = torch.cat([z, torch.ones(3000, 1)], 1)
        inner = x.T @ x + 10 * torch.eye(n_features + 1)
        weight = scale * torch.linalg.solve(inner, x.T @ torch.eye(n_classes)[labels]).T
        few, new = (
            Features.of(z[part], labels[part], weight[:, :-1], weight[:, -1])
            for part in (slice(n_samples), slice(2000, None))
        )
        path = fit_path(few, new, Plan(ks))
        kl += torch.tensor([step.counts.kl for step in path.steps]).log()  # type: ignore[union-attr]
        accuracy += torch.tensor([step.accuracy for step in path.steps])
    assert kl.tolist() == sorted(kl.tolist(), reverse=True)
    assert accuracy.tolist() == sorted(accuracy.tolist())
    assert float(accuracy[-1]) > 4 * 0.7
