"""The published measures, on the networks and images that they were published with."""

from __future__ import annotations

from pathlib import Path

import pytest

from penult.features.features import Features
from penult.measure import Settings, measure_features

pytestmark = pytest.mark.real

# Mean Ψ at one half and mean μ of the penultimate layer, on the training images.
PUBLISHED = {"resnet20": (0.8091, 0.4669), "resnet56": (0.8340, 0.5203)}


@pytest.mark.parametrize("network", PUBLISHED)
def test_selectivity_of_the_trained_networks(shared_data: Path, network: str) -> None:
    train, held_out = (
        Features.open(shared_data / "features" / f"{network}_{part}.safetensors")
        for part in ("train", "eval")
    )
    settings = Settings((0.5,), n_replicates=20, n_seeds=1)
    found = measure_features(train, train.require_head(), held_out, settings=settings)
    psi, mu = PUBLISHED[network]
    assert found["selectivity"]["psi"]["0.5"]["mean"] == pytest.approx(psi, abs=0.0005)
    assert found["selectivity"]["mu"]["mean"] == pytest.approx(mu, abs=0.0005)
    # The paper's claim of essentiality, and what it does not say: the same edit, done to samples of
    # other classes, takes many of them for the class.
    cells = found["essentiality"]["replaced"]["standard_normal"]
    assert cells["influential"]["keep"]["mean"] > cells["matched"]["keep"]["mean"] + 0.2
    assert cells["influential"]["drop"]["mean"] < cells["matched"]["drop"]["mean"] - 0.2
    assert cells["influential"]["keep"]["mistaken"] > 0.1
