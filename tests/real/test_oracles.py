"""The published numbers of the method, on the networks and images that it was published with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penult.cli.app import app
from penult.features.features import Features
from penult.runs.analyze import analyze_features
from penult.runs.run import Run

pytestmark = pytest.mark.real

# Accuracy (%) with the dense weights restricted to the most frequent features, by k.
RESTRICTED = {
    "resnet20": {
        "1": 66.86, "2": 75.65, "3": 85.05, "5": 88.72, "8": 89.96, "10": 90.39, "15": 91.18,
        "20": 91.45, "32": 91.31,
    },
    "resnet56": {
        "1": 59.93, "2": 82.81, "3": 89.03, "5": 91.11, "8": 92.53, "10": 92.61, "15": 93.22,
        "20": 93.44, "32": 93.32,
    },
}  # fmt: skip
DENSE = {"resnet20": 91.73, "resnet56": 93.39}
OVERLAP = {5: 47, 10: 95, 20: 196}


@pytest.fixture(scope="module")
def runs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    found = {}
    for name in DENSE:
        train, held_out = (
            Features.open(shared_data / "features" / f"{name}_{part}.safetensors")
            for part in ("train", "eval")
        )
        found[name] = analyze_features(train, held_out, tmp_path_factory.mktemp(name) / "run")
    return found


@pytest.mark.parametrize("network", DENSE)
def test_restricted_dense_weights_reach_the_published_accuracies(
    runs: dict[str, Run], network: str
) -> None:
    summary = runs[network].summary()
    assert 100 * summary["dense"]["accuracy"] == pytest.approx(DENSE[network], abs=0.02)
    found = {k: 100 * v["accuracy"] for k, v in summary["influence"]["frequency"].items()}
    assert found == pytest.approx(RESTRICTED[network], abs=0.05)


@pytest.mark.parametrize("k", OVERLAP)
def test_frequency_finds_the_published_features(
    runs: dict[str, Run], shared_data: Path, k: int
) -> None:
    path = shared_data / "published_filters" / f"resnet20_cifar10_k{k}.json"
    published = json.loads(path.read_text())
    found = list(runs["resnet20"].summary()["influence"]["frequency"][str(k)]["classes"].values())
    shared = sum(len(set(found[int(c)]) & set(features)) for c, features in published.items())
    assert shared >= OVERLAP[k]


@pytest.mark.slow
def test_resnet20_from_images_to_a_run(shared_data: Path, tmp_path: Path) -> None:
    factory = Path(__file__).parents[2] / "bench" / "cifar_resnet.py"
    weights = shared_data / "checkpoints" / "resnet20-12fca82f.th"
    data = shared_data / "cifar10" / "test.zip"
    arguments = ["analyze", f"{factory}:resnet20", str(data), "--weights", str(weights)]
    arguments += ["--out", str(tmp_path / "run"), "--batch-size", "500"]
    with pytest.warns(UserWarning, match="does not say how its inputs are made"):
        app(arguments, standalone_mode=False)
    run = Run.open(tmp_path / "run")
    summary = run.summary()
    assert summary["head"] == "linear"
    assert summary["class_names"][:3] == ["airplane", "automobile", "bird"]
    assert summary["n_samples"] == 10_000
    assert 100 * summary["dense"]["accuracy"] == pytest.approx(91.73, abs=0.02)
    z, labels = run.train().arrays()
    known = Features.open(shared_data / "features" / "resnet20_eval.safetensors")
    expected, expected_labels = known.arrays()
    assert labels.tolist() == expected_labels.tolist()
    assert float((z - expected).abs().max()) < 2e-3, "but for the rounding to float16"
