"""Which of several sets of weights in a file is taken, and by what names they are found."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.network.state import load_weights

FILE = Path("weights.pt")
State = dict[str, Tensor]


def network(n_classes: int = 5) -> Any:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 4, 3),
            bn=nn.BatchNorm2d(4),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(4, n_classes),
        )
    )


def state(value: float, **options: Any) -> State:
    return {name: torch.full_like(t, value) for name, t in network(**options).state_dict().items()}


def taken(content: Any, key: str | None = None, model: nn.Module | None = None) -> float:
    """The value that fills the set that was taken."""
    model = network() if model is None else model
    load_weights(model, content, FILE, key=key)
    values = {float(x) for tensor in model.state_dict().values() for x in tensor.ravel()}
    assert len(values) == 1
    return values.pop()


def quietly(content: Any, key: str | None = None, model: nn.Module | None = None) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return taken(content, key, model)


ORDERS = [
    ("state_dict", "state_dict_ema"),
    ("model", "ema"),
    ("model", "model_ema"),
    ("net", "swa_model"),
    ("student", "teacher"),
    ("weights", "averaged_weights"),
    ("model", "modelEma"),
    ("current", "init_state"),
    ("finetuned", "finetuned_ema"),
    ("best", "ema.best"),
]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("meant", "other"), ORDERS)
def test_the_networks_own_weights_come_before_their_average(
    meant: str, other: str, swapped: bool
) -> None:
    content = {meant: state(1), other: state(2)}
    if swapped:
        content = dict(reversed(content.items()))
    with pytest.warns(UserWarning, match=rf" that fit: {meant} is taken, not {other} "):
        assert taken(content) == 1
    assert quietly(content, key=other) == 2


MOMENTS = [
    "exp_avg", "exp_avg_sq", "momentum_buffer", "velocity", "grads", "optimizer", "opt", "momentum",
    "adam_m", "optimizer.state", "fisher",
]  # fmt: skip


@pytest.mark.parametrize("moments", MOMENTS)
def test_moments_are_never_taken_nor_named(moments: str) -> None:
    for content in (
        {moments: state(2), "anything": state(1)},
        {"anything": state(1), moments: state(2)},
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert taken(content) == 1
    with pytest.raises(InputError, match=rf"only what an optimiser .* --weights-key {moments}"):
        taken({moments: state(2)})
    assert quietly({moments: state(2)}, key=moments) == 2


def test_sets_within_one_mapping_and_deep_ones_are_chosen_by_dotted_names() -> None:
    flat: State = {f"model.{name}": value for name, value in state(1).items()}
    flat |= {f"ema_model.module.{name}": value for name, value in state(2).items()}
    flat["ema_model.n_averaged"] = torch.tensor(3)
    assert quietly({"state_dict": flat}) == 1
    assert quietly({"state_dict": flat}, key="state_dict.ema_model") == 2
    deep = {"a.b": {"c": {"nets": [state(1), state(2)]}}, "ema": {"x": {"y": state(3)}}}
    assert quietly(deep, key="a.b.c.nets.1") == 2
    assert quietly(deep, key="ema") == 3
    with pytest.raises(InputError, match=r"no set of weights 'eam': it has a.b.c.nets.0, "):
        quietly(deep, key="eam")


def test_a_key_of_something_else_says_what_fits() -> None:
    content = {"model": state(1), "other": {"head.weight": torch.ones(3)}}
    with pytest.raises(InputError, match="other does not fit the network; sets that do: model$"):
        taken(content, key="other")


def test_the_set_with_the_networks_shapes_is_meant() -> None:
    assert quietly({"model": state(1, n_classes=7), "finetuned": state(2)}) == 2


def test_an_average_without_statistics_is_named_and_completed() -> None:
    average = {n: t for n, t in state(1).items() if "running" not in n}
    content = {"state_dict": state(1), "ema": average}
    with pytest.warns(UserWarning, match="state_dict is taken, not ema "):
        assert taken(content) == 1
    with pytest.warns(UserWarning, match=r"ema has no running statistics \(bn.running_mean, bn.ru"):
        assert taken(content, key="ema") == 1
    with pytest.raises(InputError, match=r"2 missing \(bn.running_mean, bn.running_var\)"):
        quietly({"ema": average})


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: name.replace("conv.", "conv.module.").replace("fc.", "fc._orig_mod."),
        lambda name: f"model.module.{name}",
        lambda name: f"_orig_mod.model.backbone.{name}",
        lambda name: name.replace("bn.", "bn._fsdp_wrapped_module._checkpoint_wrapped_module."),
    ],
)
def test_wrappers_are_taken_off_anywhere(rename: Any) -> None:
    renamed = {rename(name): value for name, value in state(1).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert taken(renamed) == 1


class Wrapped(nn.Module):
    """A network behind its own normalisation, as people write it."""

    mean: Tensor
    inner: Any

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        self.inner = nn.ModuleDict({"net": network()})

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner["net"](x - self.mean)
        return found


def test_a_bare_networks_file_fits_a_wrapped_one_and_the_reverse() -> None:
    bare, wrapped = network(), Wrapped()
    with pytest.warns(UserWarning, match="does not have the constants mean: they stay as the netw"):
        load_weights(wrapped, {"state_dict": bare.state_dict()}, FILE)
    assert torch.equal(wrapped.inner["net"].fc.weight, bare.fc.weight)
    assert float(wrapped.mean[0]) == 0.5
    other = network()
    with pytest.warns(UserWarning, match=r"not used, .* do not begin with inner.net.: mean$"):
        load_weights(other, wrapped.state_dict(), FILE)
    assert torch.equal(other.fc.weight, bare.fc.weight)
    # Behind another prefix on either side.
    renamed = {f"backbone.{name}": value for name, value in state(1).items()}
    with pytest.warns(UserWarning, match="constants"):
        load_weights(wrapped, renamed, FILE)
    assert float(wrapped.inner["net"].fc.bias.detach()[0]) == 1


def test_a_wrapper_with_parameters_of_its_own_needs_them() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), network())
    with pytest.raises(InputError, match=r"2 missing \(0.weight, 0.bias\): expected the weights"):
        load_weights(model, network().state_dict(), FILE)
