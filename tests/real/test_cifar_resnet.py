from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from penult.network.load import load_model

pytestmark = pytest.mark.real

CHECKPOINTS = {
    "resnet20": "resnet20-12fca82f.th",
    "resnet32": "resnet32-d509ac18.th",
    "resnet56": "resnet56-4bfd9763.th",
}
LAYERS = {"resnet20": 20, "resnet32": 32, "resnet44": 44, "resnet56": 56, "resnet110": 110}


def load(repository: Path, shared_data: Path, name: str) -> nn.Module:
    return load_model(
        f"{repository / 'bench' / 'cifar_resnet.py'}:{name}",
        weights=shared_data / "checkpoints" / CHECKPOINTS[name],
    ).model


def every_nth_image(shared_data: Path, every: int) -> tuple[Tensor, Tensor]:
    """Every n-th test image, normalised, and its label; sorted by class, then by name."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with zipfile.ZipFile(shared_data / "cifar10" / "test.zip") as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/"))
        classes = sorted({name.split("/")[0] for name in names})
        chosen = names[::every]
        pixels = []
        for name in chosen:
            with archive.open(name) as file, Image.open(file) as image:
                pixels.append(torch.from_numpy(np.array(image)))
    images = torch.stack(pixels).permute(0, 3, 1, 2) / 255
    labels = [classes.index(name.split("/")[0]) for name in chosen]
    return (images - mean) / std, torch.tensor(labels)


@contextmanager
def inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_features_and_logits_are_the_recorded_ones(
    name: str, repository: Path, shared_data: Path
) -> None:
    every = 40
    recorded = load_file(shared_data / "features" / f"{name}_eval.safetensors")
    features, labels = recorded["features"][::every], recorded["labels"][::every]
    model = load(repository, shared_data, name)
    linear = model.get_submodule("linear")
    images, expected_labels = every_nth_image(shared_data, every)
    assert torch.equal(labels, expected_labels)
    with torch.no_grad(), inputs_of(linear) as seen:
        logits = model(images)

    # Half a unit in the last place of float16, and what float32 sums in another order differ by.
    rounding = features.float().abs() * 2.0**-11 + 1e-5
    assert ((seen[0] - features.float()).abs() <= rounding).all()
    expected = features.double() @ recorded["weight"].double().T + recorded["bias"].double()
    bound = rounding.double() @ recorded["weight"].double().abs().T + 1e-4
    assert ((logits - expected).abs() <= bound).all()
    assert torch.equal(logits.argmax(1), expected.argmax(1))


def test_resnet32_classifies_as_published(repository: Path, shared_data: Path) -> None:
    model = load(repository, shared_data, "resnet32")
    images, labels = every_nth_image(shared_data, 25)
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).double().mean()
    # 92.63 % of all test images; of 400 of them, within three standard deviations.
    assert abs(accuracy - 0.9263) < 3 * (0.9263 * 0.0737 / 400) ** 0.5
