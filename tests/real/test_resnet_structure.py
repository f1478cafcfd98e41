from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from penult.network.load import load_model


@pytest.mark.parametrize(
    ("name", "layers", "millions"),
    [
        ("resnet20", 20, 0.27),
        ("resnet32", 32, 0.46),
        ("resnet44", 44, 0.66),
        ("resnet56", 56, 0.85),
        ("resnet110", 110, 1.7),
    ],
)
def test_depth_and_size_are_those_of_the_paper(
    name: str, layers: int, millions: float, repository: Path
) -> None:
    model = load_model(f"{repository / 'bench' / 'cifar_resnet.py'}:{name}").model
    weighted = [one for one in model.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    assert len(weighted) == layers
    digits = 1 if name == "resnet110" else 2
    assert round(sum(value.numel() for value in model.parameters()) / 1e6, digits) == millions


def test_stages_halve_the_image_and_double_the_channels(repository: Path) -> None:
    spec = f"{repository / 'bench' / 'cifar_resnet.py'}:resnet20"
    model = load_model(spec, options={"num_classes": "7"}).model
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("layer1", "layer2", "layer3"):
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: shapes.update({name: tuple(output.shape)})
        )
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert shapes == {
        "layer1": (2, 16, 32, 32),
        "layer2": (2, 32, 16, 16),
        "layer3": (2, 64, 8, 8),
    }


def test_a_shortcut_takes_every_second_pixel_and_pads_both_sides(repository: Path) -> None:
    spec = f"{repository / 'bench' / 'cifar_resnet.py'}:resnet20"
    block = load_model(spec).model.get_submodule("layer2.0")
    with torch.no_grad():
        for value in block.parameters():
            value.zero_()
        x = torch.rand(1, 16, 4, 4)
        out = block(x)
    expected = torch.zeros(1, 32, 2, 2)
    for channel in range(16):
        for row in range(2):
            for column in range(2):
                expected[0, 8 + channel, row, column] = x[0, channel, 2 * row, 2 * column]
    assert torch.equal(out, expected)
