"""find_head and replace_head on the architectures of torchvision, timm and transformers.

Random weights, small sizes: what counts is how each network ends.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from architectures import FOUND, LARGER, N_CLASSES, NOT_FOUND
from penult.network.find import FeatureTap, Head, HeadNotFound, find_head, replace_head


@pytest.fixture
def example() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 64, 64)


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """The network's own logits, in evaluation mode."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    with torch.no_grad():
        output = model(x)
    for module, training in modes:
        module.training = training
    logits = getattr(output, "logits", output)
    assert isinstance(logits, Tensor)
    return logits


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def assert_tap_gives_the_logits(model: nn.Module, head: Head, x: Tensor) -> None:
    with FeatureTap(model, head) as tap:
        logits = logits_of(model, x)
    assert tap.features.shape == (len(x), head.n_features)
    torch.testing.assert_close(head(tap.features), logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tap.logits, logits)


@pytest.mark.parametrize("architecture", FOUND)
def test_finds_and_replaces_the_head(architecture: str, example: Tensor) -> None:
    build, name = FOUND[architecture]
    model = build()
    assert isinstance(model, nn.Module)
    modules = {key: (module, module.training) for key, module in model.named_modules()}
    parameters = {key: id(values) for key, values in model.named_parameters()}
    hooks = n_hooks(model)

    head = find_head(model, example)
    assert (head.name, head.n_classes, head.verified) == (name, N_CLASSES, True)
    assert_tap_gives_the_logits(model, head, example)

    logits = logits_of(model, example)
    dense = nn.Linear(head.n_features, head.n_classes)
    dense.load_state_dict({"weight": 2 * head.weight, "bias": 2 * head.bias + 1})
    with replace_head(model, dense, at=head):
        torch.testing.assert_close(logits_of(model, example), 2 * logits + 1, rtol=1e-4, atol=1e-4)
    assert torch.equal(logits_of(model, example), logits)
    assert modules == {key: (module, module.training) for key, module in model.named_modules()}
    assert parameters == {key: id(values) for key, values in model.named_parameters()}
    assert n_hooks(model) == hooks


ZERO = ("tv vision transformer", "tv mobilenet_v3_small", "timm dpn", "timm vit, mean of tokens",
        "hf ViT", "hf ResNet")  # fmt: skip


@pytest.mark.parametrize("architecture", ZERO)
def test_finds_heads_of_zeros(architecture: str, example: Tensor) -> None:
    build, name = FOUND[architecture]
    model = build()
    layer = model.get_submodule(name)
    for values in layer.parameters():
        nn.init.zeros_(values)
    head = find_head(model, example)
    assert (head.name, head.verified) == (name, True)
    assert not bool(head.weight.any())
    # With other weights the features that were found have to give the logits still.
    for values in layer.parameters():
        nn.init.normal_(values)
    weight = layer.weight.detach().flatten(1)
    assert_tap_gives_the_logits(model, Head(name, weight, layer.bias.detach()), example)


@pytest.mark.parametrize("architecture", NOT_FOUND)
def test_says_why_there_is_no_head(architecture: str, example: Tensor) -> None:
    build, message = NOT_FOUND[architecture]
    model = build()
    if architecture in LARGER:
        example = nn.functional.interpolate(example, LARGER[architecture])
    # Once before: transformers' networks put hooks of their own on themselves when they first run.
    with torch.no_grad():
        model.eval()(example)
    hooks = n_hooks(model)
    with pytest.raises(HeadNotFound, match=message) as caught:
        find_head(model, example)
    assert "(--head NAME on the command line, name= in Python)" in str(caught.value)
    assert n_hooks(model) == hooks


def test_a_named_head_of_two(example: Tensor) -> None:
    model = NOT_FOUND["timm deit distilled"][0]()
    head = find_head(model, example, name="head")
    assert (head.name, head.n_classes, head.verified) == ("head", N_CLASSES, False)
    with FeatureTap(model, head) as tap:
        logits_of(model, example)
    torch.testing.assert_close(head(tap.features), tap.logits)


def test_a_named_layer_before_relu_and_pooling(example: Tensor) -> None:
    model = NOT_FOUND["tv squeezenet"][0]()
    head = find_head(model, example, name="classifier.1")
    assert (head.reduce, head.verified) == ("mean", False)
    with FeatureTap(model, head) as tap, torch.no_grad():
        model.eval()(example)
        maps = model.classifier[:2](model.features(example))
    torch.testing.assert_close(head(tap.features), maps.mean((2, 3)))
