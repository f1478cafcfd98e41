"""Architectures that the head finder is tested on, in ONNX and smaller where they can be.

`python bench/export_architectures.py` makes a table of the same.
"""

from __future__ import annotations

import pytest

from architectures import FOUND
from exported_architecture import exported

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

# The stream of a residual network stays, or a norm over all channels stands before the head.
QUICK = ("hf ResNet", "hf ViT")
SAME = 1e-5


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)
        for name in FOUND
    ],
)
def test_every_architecture_is_exported_with_the_same_logits(architecture: str) -> None:
    build, _ = FOUND[architecture]
    made = exported(build())
    assert made.in_torch <= SAME
    assert made.in_onnxruntime <= SAME
    assert len(made.read) == made.head.n_features // 2
    layers, kept = made.dropped.layers, made.dropped.kept
    assert layers or kept, "neither was anything dropped nor is it said why not"
    # The numbers of a norm at the head go too, without a layer becoming smaller.
    assert made.after <= made.before
    assert made.after < made.before or not layers
    for layer in layers:
        assert layer["after"] < layer["before"]
