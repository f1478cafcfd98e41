"""Architectures that the head finder is tested on, in ONNX and smaller where they can be.

`python bench/export_architectures.py` makes a table of the same.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from architectures import FOUND
from exported_architecture import N_SAMPLES, SIDE, ExportedArchitecture, exported
from unread_oracles import n_unneeded, torch_pruned

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

# The stream of a residual network stays, or a norm over all channels stands before the head.
QUICK = ("hf ResNet", "hf ViT")
SAME = 1e-5
# Whose last stage has one token of so small images: no softmax of one depends on queries and keys.
ONE_TOKEN = ("timm levit", "hf LeViT", "hf MobileViT")


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)
        for name in FOUND
    ],
)
def test_every_architecture_is_exported_with_the_same_logits(architecture: str) -> None:
    build, _ = FOUND[architecture]
    model = build()
    made = exported(model)
    assert made.in_torch <= SAME
    assert made.in_onnxruntime <= SAME
    assert len(made.read) == made.head.n_features // 2
    layers, kept = made.dropped.layers, made.dropped.kept
    assert layers or kept, "neither was anything dropped nor is it said why not"
    # The numbers of a norm at the head go too, without a layer becoming smaller.
    assert made.gone("parameters") > 0 or not layers
    assert made.gone("parameters") >= 0
    assert made.gone("multiplications") > 0 or not (layers or made.dropped.positions)
    _hold_against_others(architecture, model, made)
    for layer in layers:
        assert layer["after"] < layer["before"]


def _hold_against_others(name: str, model: nn.Module, made: ExportedArchitecture) -> None:
    """No more goes than no logit depends on, and no less than Torch-Pruning drops exactly."""
    layer, gone = model.get_submodule(made.head.name), made.gone("parameters")
    unread = made.head.n_features - len(made.read)
    with torch.no_grad():
        layer.weight.copy_(made.head.weight.view_as(layer.weight))  # type: ignore[operator, arg-type]
    images = torch.randn(N_SAMPLES, 3, SIDE, SIDE)
    if importlib.util.find_spec("torch_pruning") is not None:
        pruned = torch_pruned(model, made.head, made.read, images)
        if pruned.difference is not None and pruned.difference <= SAME:
            assert pruned.gone is not None
            assert pruned.gone <= gone
    left = n_unneeded(model, made.head.name, tuple(images.shape)) - gone
    assert left >= 0
    if name not in ONE_TOKEN:
        # At most scale and shift of a norm before the head stay.
        assert left <= 2 * unread
