"""What is done with tensors that only the file or only the network has."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from penult.errors import InputError
from penult.extras import import_torchvision
from penult.network.state import load_weights

FILE = Path("weights.pt")


class Net(nn.Module):
    """A small network with a head of one's own."""

    fc: Any

    def __init__(self, head: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = head or nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.fc(F.relu(self.bn(self.conv1(x))).mean((2, 3)))
        return z


class Aux(Net):
    """With a head that only training runs."""

    aux: Any

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5))

    def forward(self, x: Tensor) -> Any:
        z = F.relu(self.bn(self.conv1(x))).mean((2, 3))
        return (self.fc(z), self.aux(z)) if self.training else self.fc(z)


def quiet(model: Any, content: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_weights(model, content, FILE)
    return model


def assert_same_output(a: nn.Module, b: nn.Module) -> None:
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(a.eval()(x), b.eval()(x))


COUNTERS = ["total_ops", "conv1.total_params", "n_averaged", "fc.num_batches_tracked"]


def test_counters_are_left_out() -> None:
    state = Net().state_dict() | {name: torch.zeros(1) for name in COUNTERS}
    with pytest.warns(UserWarning, match=r"counters are left out: total_ops, conv1.total_params"):
        load_weights(Net(), state, FILE)


@pytest.mark.parametrize(
    "part", ["aux", "aux2", "AuxLogits", "rotation_head", "classifier_2", "loss"]
)
def test_heads_of_training_in_the_file_are_left_out(part: str) -> None:
    state = Net().state_dict() | {f"{part}.fc.weight": torch.zeros(2, 4)}
    with pytest.warns(UserWarning, match=rf"in training only, and left out: {part} \(1 tensor\)$"):
        load_weights(Net(), state, FILE)


@pytest.mark.parametrize("name", ["conv2.weight", "norm.weight", "conv1.gain", "fc2.weight"])
def test_what_evaluation_may_run_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"1 unexpected \({name}\): .*with strict=False\) and"):
        load_weights(Net(), Net().state_dict() | {name: torch.zeros(4)}, FILE)


def test_the_remedy_for_what_evaluation_never_runs() -> None:
    """What the message says: the factory loads the file itself."""
    model, state = Net(), Net().state_dict() | {"norm.weight": torch.zeros(4)}
    model.load_state_dict(state, strict=False)
    assert torch.equal(model.fc.weight, state["fc.weight"])


def test_parts_that_evaluation_does_not_run_may_be_missing() -> None:
    model, trained = Aux(), Net()
    before = model.aux[0].weight.clone()
    with pytest.warns(UserWarning, match=r"parameters that have no effect in evaluation aux.0.w"):
        load_weights(model, trained.state_dict(), FILE)
    assert torch.equal(model.aux[0].weight, before)
    assert_same_output(model, trained)
    # A part that does run is never left as it was built.
    with pytest.raises(InputError, match=r"2 missing \(fc.weight, fc.bias\)"):
        quiet(Aux(), {n: v for n, v in Aux().state_dict().items() if not n.startswith("fc")})


@pytest.mark.parametrize("aux_in_file", [True, False])
def test_auxiliary_heads_of_googlenet(aux_in_file: bool) -> None:
    build = import_torchvision().models.googlenet
    file = build(aux_logits=aux_in_file, init_weights=False, num_classes=3)
    other = build(aux_logits=not aux_in_file, init_weights=False, num_classes=3)
    model = quiet(other, file.state_dict())
    assert torch.equal(model.fc.weight, file.fc.weight)


pruning: Any = prune
utils: Any = nn.utils
REPARAMETRISED = [
    lambda layer: pruning.l1_unstructured(layer, "weight", 0.3),
    lambda layer: pruning.ln_structured(layer, "weight", 0.5, n=2, dim=0),
    lambda layer: utils.weight_norm(layer),
    lambda layer: utils.weight_norm(layer, dim=1),
    lambda layer: utils.weight_norm(layer, dim=None),
    lambda layer: parametrizations.weight_norm(layer),
    lambda layer: parametrizations.weight_norm(layer, dim=1),
    lambda layer: utils.spectral_norm(layer),
    lambda layer: parametrizations.spectral_norm(layer),
]


@pytest.mark.parametrize("change", REPARAMETRISED)
@pytest.mark.parametrize("layer", ["fc", "conv1"])
@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_reparametrised_weights_are_computed(change: Any, layer: str, prefix: str) -> None:
    trained = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(getattr(trained, layer))
    with torch.no_grad():
        for _ in range(3):
            trained(torch.randn(4, 3, 8, 8))
        for name, value in trained.named_parameters():
            if name.endswith(("_g", "original0")):
                value.mul_(1 + torch.rand_like(value))
    trained.eval()
    file = {f"{prefix}{name}": value for name, value in trained.state_dict().items()}
    assert_same_output(quiet(Net(), file), trained)
    # The same form on both sides, and a plain file for a network in that form.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same = Net()
        change(getattr(same, layer))
        assert_same_output(quiet(same, file), trained)
        other, plain = Net(), Net()
        change(getattr(other, layer))
    assert_same_output(
        quiet(other, {f"{prefix}{n}": v for n, v in plain.state_dict().items()}), plain
    )


def test_forms_that_the_file_does_not_determine_are_said_with_a_remedy() -> None:
    trained = Net()
    parametrizations.orthogonal(trained.fc)
    with pytest.raises(
        InputError,
        match=r"fc.weight in a form .*\.remove_parametrizations\(layer, 'weight'\) and",
    ):
        load_weights(Net(), trained.state_dict(), FILE)
    nn.utils.parametrize.remove_parametrizations(trained.fc, "weight")
    assert_same_output(quiet(Net(), trained.state_dict()), trained)


@pytest.mark.parametrize(
    ("extra", "advice"),
    [
        ({"fc.lora_A.default.weight": (2, 4)}, "a LoRA adapter .* run model.merge_and_unload"),
        ({"fc.scale": (1,), "fc.zero_point": (1,)}, "quantised weights .* of the float network"),
    ],
)
def test_what_no_plain_network_has_is_explained(
    extra: dict[str, tuple[int, ...]], advice: str
) -> None:
    state = Net().state_dict() | {name: torch.zeros(shape) for name, shape in extra.items()}
    with pytest.raises(InputError, match=advice):
        load_weights(Net(), state, FILE)


def test_a_layer_inside_a_sequential_on_one_side() -> None:
    inside = Net(nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 5)))
    model, other = Net(), Net(nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 5)))
    with pytest.warns(UserWarning, match=r"fc.1 is taken for fc, the only layer there with w"):
        load_weights(model, inside.state_dict(), FILE)
    assert_same_output(model, inside)
    with pytest.warns(UserWarning, match=r"fc is taken for fc.1, the only layer there with w"):
        load_weights(other, model.state_dict(), FILE)
    assert_same_output(model, other)


def test_a_sequential_with_several_layers_says_how_to_build_it() -> None:
    deep = Net(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5)))
    with pytest.raises(
        InputError,
        match=r"fc is a Sequential in the file, with weights in fc.0.weight, fc.2.weight"
        r": "
        r"write a factory that sets fc to the same",
    ):
        load_weights(Net(), deep.state_dict(), FILE)
