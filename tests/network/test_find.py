"""find_head: which layer it finds in small networks, and what it says where there is none."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from penult.errors import InputError
from penult.network.find import FeatureTap, Head, HeadNotFound, call_model, find_head, replace_head
from penult.network.linear_maps import linear_map

N_SAMPLES, N_FEATURES, N_CLASSES = 3, 6, 4


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Features(nn.Module):
    """`body`, then `n` heads of its output, then a function of what they give."""

    def __init__(self, combine: Callable[..., Any], *heads: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, N_FEATURES), nn.Tanh())
        self.heads = nn.ModuleList(heads or [nn.Linear(N_FEATURES, N_CLASSES)])
        self.combine = combine

    def forward(self, x: Tensor) -> Any:
        z = self.body(x)
        return self.combine(z, *(head(z) for head in self.heads))


class Transposed(nn.Module):
    """A linear layer with its weight (n_features, n_classes), under a name of its own."""

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(n_features, n_classes))
        self.offset = nn.Parameter(torch.randn(n_classes))

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.kernel + self.offset


class Cosine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(N_CLASSES, N_FEATURES))

    def forward(self, z: Tensor) -> Tensor:
        return F.linear(F.normalize(z), F.normalize(self.weight))


class Bare(nn.Module):
    """Logits by a product with a parameter that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, N_FEATURES)
        self.prototypes = nn.Parameter(torch.randn(N_CLASSES, N_FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.stem(x)) @ self.prototypes.T


def sequential(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def linear(bias: bool = True) -> nn.Linear:
    return nn.Linear(N_FEATURES, N_CLASSES, bias)


def vectors(n_samples: int = N_SAMPLES) -> Tensor:
    return torch.randn(n_samples, 5)


def images(size: int = 7) -> Tensor:
    return torch.randn(N_SAMPLES, 2, size, size)


def state_of(model: nn.Module) -> tuple[Any, ...]:
    """All that a reversible edit must leave as it was."""
    modules = list(model.named_modules())
    return (
        [(name, id(module), module.training) for name, module in modules],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for _, m in modules],
        [(name, values.tolist()) for name, values in model.state_dict().items()],
        [(id(p), p.requires_grad, p.grad) for p in model.parameters()],
    )


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def assert_head(model: nn.Module, example: Any, name: str, reduce: str = "none") -> Head:
    """The head has this name, and gives the network's own logits from the features it reads."""
    before = state_of(model)
    head = find_head(model, example)
    assert state_of(model) == before
    assert (head.name, head.reduce, head.verified) == (name, reduce, True)
    modes = [m.training for m in model.modules()]
    model.eval()
    with torch.no_grad(), FeatureTap(model, head) as tap:
        logits = call_model(model, example)
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    logits = logits["logits"] if isinstance(logits, dict) else logits
    logits = logits.flatten(1) if isinstance(logits, Tensor) else None
    if logits is not None:
        torch.testing.assert_close(head(tap.features), logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tap.logits, logits, rtol=1e-4, atol=1e-5)
    return head


@pytest.mark.parametrize(
    ("tail", "name"),
    [
        ({"fc": linear()}, "fc"),
        ({"fc": linear(bias=False)}, "fc"),
        ({"norm": nn.LayerNorm(N_FEATURES), "drop": nn.Dropout(), "fc": linear()}, "fc"),
        ({"hidden": nn.Linear(N_FEATURES, N_FEATURES), "relu": nn.ReLU(), "fc": linear()}, "fc"),
        ({"head": nn.Sequential(nn.Dropout(), linear(), nn.Identity())}, "head.1"),
        ({"custom": Transposed(N_FEATURES, N_CLASSES)}, "custom"),
        ({"square": Transposed(N_FEATURES, N_FEATURES)}, "square"),
        ({"a": nn.Linear(N_FEATURES, N_CLASSES), "b": nn.Linear(N_CLASSES, N_CLASSES)}, "b"),
    ],
)
def test_finds_the_last_linear_map(tail: dict[str, nn.Module], name: str) -> None:
    model = sequential(stem=nn.Linear(5, N_FEATURES), act=nn.ReLU(), **tail)
    head = assert_head(model, vectors(), name)
    layer = model.get_submodule(name)
    weight = layer.kernel.T if isinstance(layer, Transposed) else layer.weight
    bias = layer.offset if isinstance(layer, Transposed) else layer.bias
    assert isinstance(weight, Tensor)
    assert torch.equal(head.weight, weight.detach())
    assert torch.equal(head.bias, torch.zeros(len(weight)) if bias is None else bias)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tail", "reduce"),
    [
        ([nn.AdaptiveAvgPool2d(1), nn.Conv2d(N_FEATURES, N_CLASSES, 1)], "none"),
        ([nn.AdaptiveAvgPool2d(1), nn.Conv2d(N_FEATURES, N_CLASSES, 1), nn.Flatten()], "none"),
        ([nn.Conv2d(N_FEATURES, N_CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()], "mean"),
        ([nn.Conv2d(N_FEATURES, N_CLASSES, 1), Apply(lambda t: t[:, :, 1, 2])], "position:7"),
        ([nn.Flatten(2), nn.Conv1d(N_FEATURES, N_CLASSES, 1), Apply(lambda t: t.mean(2))], "mean"),
        ([Apply(lambda t: t.flatten(2).mT), linear(), Apply(lambda t: t.mean(1))], "mean"),
        ([Apply(lambda t: t.flatten(2).mT), linear(), Apply(lambda t: t[:, 0])], "position:0"),
        ([Apply(lambda t: t.movedim(1, 3)), linear(), Apply(lambda t: t.mean((1, 2)))], "mean"),
    ],
)
def test_reduces_the_positions_as_the_network_does(tail: list[nn.Module], reduce: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, N_FEATURES, 3), nn.ReLU(), *tail)
    name = next(
        n
        for n, m in model.named_modules()
        if isinstance(m, (nn.Linear, nn.Conv1d))
        or (isinstance(m, nn.Conv2d) and m.out_channels == N_CLASSES)
    )
    assert_head(model, images(), name, reduce)


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm])
def test_weights_that_are_computed(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = sequential(stem=nn.Linear(5, N_FEATURES), act=nn.ReLU(), fc=wrap(linear()))
    assert_head(model, vectors(), "fc")


def test_zero_head_is_found_though_all_outputs_are_zero() -> None:
    model = Features(lambda z, h: h)
    nn.init.zeros_(model.heads[0].weight)  # type: ignore[arg-type]
    nn.init.zeros_(model.heads[0].bias)  # type: ignore[arg-type]
    assert_head(model, vectors(), "heads.0")


def test_equal_values_alone_are_no_proof() -> None:
    twin, head = linear(), linear()
    twin.load_state_dict(head.state_dict())
    # The twin ran last and gives the very same values, but they do not reach the logits.
    assert_head(Features(lambda z, first, second: first, head, twin), vectors(), "heads.0")


def test_a_blank_example_is_enough() -> None:
    model = sequential(stem=nn.ReLU(), fc=Transposed(6, 6))
    head = assert_head(model, torch.zeros(1, 6), "fc")
    assert torch.equal(head.weight, model.fc.kernel.detach().T)  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    conv = nn.Conv2d(64, N_CLASSES, 1)
    model = nn.Sequential(nn.Conv2d(2, 64, 3), nn.GELU(), conv, nn.AdaptiveAvgPool2d(1))
    model.to(dtype)
    for values in model.parameters():
        nn.init.normal_(values)
    head = find_head(model, images().to(dtype))
    assert (head.name, head.reduce, head.verified) == ("2", "mean", True)
    assert head.weight.dtype == head.bias.dtype == torch.float32


def test_a_coarse_layer_whose_logits_are_cast() -> None:
    body = nn.Sequential(nn.Linear(5, 512), nn.ReLU(), nn.Linear(512, N_CLASSES)).bfloat16()
    head = find_head(nn.Sequential(body, Apply(Tensor.float)), vectors().bfloat16())
    assert (head.name, head.verified) == ("0.2", True)


def test_large_features_that_cancel() -> None:
    stem, conv = nn.Conv2d(2, 512, 1), nn.Conv2d(512, N_CLASSES, 1)
    nn.init.constant_(stem.bias, 1e4)  # type: ignore[arg-type]
    conv.weight.data -= conv.weight.data.mean(1, keepdim=True)
    head = find_head(nn.Sequential(stem, conv, nn.AdaptiveAvgPool2d(1)), images())
    assert (head.name, head.reduce, head.verified) == ("1", "mean", True)
    x = stem(images())
    found = linear_map(conv, x, conv(x))
    assert found is not None
    assert torch.equal(found.weight, conv.weight.flatten(1))
    assert linear_map(conv, x, conv(x) * 1.01 + 1000) is None


def test_a_network_that_is_one_linear_layer() -> None:
    model = linear()
    head = find_head(model, torch.randn(N_SAMPLES, N_FEATURES))
    assert head.name == ""
    with FeatureTap(model, head) as tap:
        x = torch.randn(N_SAMPLES, N_FEATURES)
        model(x)
    assert torch.equal(tap.features, x)


@dataclass
class Output:
    hidden: Tensor
    logits: Tensor


@pytest.mark.parametrize(
    ("combine", "name"),
    [
        (lambda z, a, b: {"hidden": a, "logits": b}, "heads.1"),
        (lambda z, a, b: Output(a, b), "heads.1"),
        (lambda z, a, b: (a, b), "heads.0"),
        (lambda z, a, b: [z, {"x": b}], "heads.1"),
        (lambda z, a, b: (b, b.softmax(-1)), "heads.1"),
    ],
)
def test_outputs_that_are_no_plain_tensor(combine: Callable[..., Any], name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = find_head(Features(combine, linear(), linear()), vectors())
    assert (head.name, head.verified) == (name, True)


def test_a_returned_hidden_layer_is_not_the_head() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.fc = nn.Linear(5, N_FEATURES), linear()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.hidden(x)
            return z, self.fc(z.relu())

    assert find_head(Net(), vectors()).name == "fc"


def test_keyword_and_several_inputs() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = linear()

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.fc(input=a * b)  # type: ignore[no-any-return]

    a, b = torch.randn(2, N_SAMPLES, N_FEATURES)
    assert_head(Net(), {"a": a, "b": b}, "fc")
    assert_head(Net(), (a, b), "fc")
    with pytest.raises(InputError, match="expected a tensor, a mapping .* found str"):
        find_head(Net(), "image")  # type: ignore[arg-type]


def test_scripted_parts_are_passed_by() -> None:
    stem = torch.jit.script(nn.Sequential(nn.Linear(5, N_FEATURES), nn.ReLU()))
    assert_head(sequential(stem=stem, fc=linear()), vectors(), "fc")


@pytest.mark.parametrize(
    ("combine", "message"),
    [
        (lambda z, h: h.softmax(-1), r"heads.0 \(4, 6\), is followed by softmax:"),
        (lambda z, h: h.log_softmax(-1), "is followed by log_softmax:"),
        (lambda z, h: h.sigmoid(), "is followed by sigmoid:"),
        (lambda z, h: h.relu(), "is followed by ReLU:"),
        (lambda z, h: F.normalize(h), "is followed by division by its length:"),
        (lambda z, h: h / 8, r"the output of heads.0 \(4, 6\) is multiplied by 0.125"),
        (lambda z, h: h + 1, r"something is added to the output of heads.0 \(4, 6\)"),
        (lambda z, h: h**3, r"heads.0 \(4, 6\) is followed by something that is not linear"),
        (lambda z, h: z[:, :4] ** 2, "no linear layer gives the 4 logits"),
        (lambda z, h: z[:, :, None, None].expand(-1, -1, 2, 2), r"no logits .*\(3, 6, 2, 2\)"),
        (lambda z, h: z.argmax(1), r"no logits \(n_samples, n_classes\), but no tensor"),
    ],
)
def test_says_what_follows_the_last_linear_layer(combine: Callable[..., Any], message: str) -> None:
    model = Features(combine)
    before = state_of(model)
    with pytest.raises(HeadNotFound, match=message) as caught:
        find_head(model, vectors())
    assert "--head NAME on the command line, name= in Python" in str(caught.value)
    assert "linear layers that ran: heads.0 (4, 6), body.0 (6, 5)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert state_of(model) == before


@pytest.mark.parametrize("seed", range(5))
def test_numbers_beyond_all_bounds_are_like_nothing(seed: int) -> None:
    torch.manual_seed(seed)
    layer = linear()
    with torch.no_grad():
        layer.weight.mul_(1000)  # the exponential of the outputs is infinite
    model = sequential(fc=layer, norm=nn.LayerNorm(layer.out_features))
    with pytest.raises(HeadNotFound, match="fc .* is followed by something that is not linear"):
        find_head(model, torch.randn(5, layer.in_features))


@pytest.mark.parametrize(
    ("combine", "how"),
    [
        (lambda z, a, b: (a + b) / 2, "mean"),
        (lambda z, a, b: a + b, "sum"),
        (lambda z, a, b: 0.7 * a + 0.3 * b, "weighted sum"),
    ],
)
@pytest.mark.parametrize("zero", [False, True])
def test_names_both_of_two_heads(combine: Callable[..., Any], how: str, zero: bool) -> None:
    model = Features(combine, linear(), linear())
    if zero:
        for values in model.heads.parameters():
            nn.init.zeros_(values)
    message = rf"the {how} of 2 layers, heads.0 \(4, 6\) and heads.1 \(4, 6\): say which"
    with pytest.raises(HeadNotFound, match=message):
        find_head(model, vectors())


def test_says_that_one_head_runs_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(5, N_CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return (self.fc(x) + self.fc(-2 * x)) / 2  # type: ignore[no-any-return]

    with pytest.raises(HeadNotFound, match=r"mix the 2 outputs of fc \(4, 5\), which runs that"):
        find_head(Twice(), vectors())


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (lambda t: t.relu().mean((2, 3)), "ReLU and the mean over positions"),
        (lambda t: t.mean((2, 3)).softmax(1), "the mean over positions and softmax"),
        (lambda t: t.sum((2, 3)), "the sum over positions"),
        (lambda t: t.amax((2, 3)), "the maximum over positions"),
        (lambda t: t.sigmoid()[:, :, 0, 1], "sigmoid and position 1"),
    ],
)
def test_says_what_follows_a_convolution(tail: Callable[[Tensor], Tensor], words: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, N_CLASSES, 1), Apply(tail))
    message = rf"the last linear layer, 2 \(4, 8\), is followed by {words}:"
    with pytest.raises(HeadNotFound, match=message):
        find_head(model, images())


def test_says_that_a_head_is_not_linear() -> None:
    model = Features(lambda z, h: h, Cosine())
    with pytest.raises(HeadNotFound, match=r"from heads.0 \(4, 6\), a Cosine that is not linear"):
        find_head(model, vectors())
    with pytest.raises(HeadNotFound, match=r"layer heads.0 \(Cosine\) is not linear in its input"):
        find_head(model, vectors(), name="heads.0")


CUTS: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "first of two": (lambda y: y.chunk(2, -1)[0], "numbers 0 to 4 of the 10 outputs of 2"),
    "second of two": (lambda y: y.chunk(2, 1)[1], "numbers 5 to 9 of the 10 outputs of 2"),
    "mean and variance": (lambda y: {"mean": y[:, :5], "variance": y[:, 5:].exp()}, "0 to 4 of"),
    "one of them": (lambda y: y[:, 0], "number 0 of the 10 outputs of 2"),
    "every other": (lambda y: y[:, ::2], "numbers 0, 2, 4, 6 and 1 more of the 10 outputs"),
    "maxout": (lambda y: y.chunk(2, -1)[0].maximum(y.chunk(2, -1)[1]), "the maximum of 2 parts of"),
    "sub-centres": (lambda y: y.view(-1, 5, 2).amax(2), "the maximum of 2 neighbours of"),
    "ensemble": (lambda y: y.view(-1, 2, 5).mean(1), "the mean of 2 parts of the 10 outputs"),
    "gated": (lambda y: F.glu(y), r"the gated linear unit \(GLU\) of the 10 outputs of 2"),
    "other": (lambda y: y[:, :5] * y[:, 5:], "which something else makes of the 10 outputs of 2"),
}


@pytest.mark.parametrize("kind", CUTS)
def test_says_how_logits_are_cut_out_of_a_wider_layer(kind: str) -> None:
    torch.manual_seed(0)
    # A hidden layer as wide as the logits: it reaches them, and says nothing about them.
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 10), Apply(CUTS[kind][0]))
    with pytest.raises(HeadNotFound, match=CUTS[kind][1]):
        find_head(model, torch.randn(3, 4))


def test_the_advice_for_logits_cut_out_of_a_layer_holds() -> None:
    torch.manual_seed(0)
    wide = nn.Linear(6, 10)
    narrow = nn.Linear(6, 5)
    with torch.no_grad():
        narrow.weight.copy_(wide.weight[:5])
        narrow.bias.copy_(wide.bias[:5])
    x = torch.randn(3, 6)
    torch.testing.assert_close(narrow(x), wide(x).chunk(2, -1)[0])
    assert find_head(nn.Sequential(nn.ReLU(), narrow), x).verified


def test_names_a_bare_parameter() -> None:
    message = r"no linear layer gives the 4 logits; parameter prototypes \(4, 6\) would fit"
    with pytest.raises(HeadNotFound, match=message):
        find_head(Bare(), vectors())
    with pytest.raises(
        HeadNotFound, match="no linear layer gives the 5 logits; no linear layer ran"
    ):
        find_head(nn.Sequential(nn.Flatten(), nn.ReLU()), vectors())


def test_networks_that_cannot_be_watched() -> None:
    model = Features(lambda z, h: h)
    with pytest.raises(InputError, match=r"expected a torch.nn.Module, found function"):
        find_head(lambda x: x, vectors())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="TorchScript network cannot be watched: give the module"):
        find_head(torch.jit.script(model.body), vectors())
    with pytest.raises(InputError, match="compiled network cannot be watched"):
        find_head(torch.compile(model), vectors())  # type: ignore[arg-type]
    message = r"does not run on the example \(float32 \(3, 2, 7, 7\)\): RuntimeError: mat1"
    with pytest.raises(InputError, match=message):
        find_head(model, images())
    with pytest.raises(InputError, match="NaN or infinite logits on the example"):
        find_head(model, vectors() * torch.nan)
    with pytest.raises(InputError, match="the network is random in evaluation mode: two runs"):
        find_head(Features(lambda z, h: h + torch.rand(())), vectors())


def test_flags_and_hooks_are_restored_after_an_error() -> None:
    model = Features(lambda z, h: h)
    model.body[1].eval()
    before = state_of(model)
    for example in (images(), vectors() * torch.nan):
        with pytest.raises(InputError):
            find_head(model, example)
    assert state_of(model) == before


def test_a_named_layer_is_used_as_told() -> None:
    model = Features(lambda z, a, b: (a + b) / 2, linear(), linear())
    head = find_head(model, vectors(), name="heads.1")
    assert (head.name, head.reduce, head.verified) == ("heads.1", "none", False)
    assert torch.equal(head.weight, model.heads[1].weight)  # type: ignore[arg-type]
    x = vectors()
    with FeatureTap(model, head) as tap:
        model(x)
    torch.testing.assert_close(tap.features, model.body(x))
    torch.testing.assert_close(tap.logits, model.heads[1](model.body(x)))
    assert find_head(Features(lambda z, h: h), vectors(), name="heads.0").verified
    assert not find_head(model, vectors(), name="body.0").verified


@pytest.mark.parametrize(
    ("tail", "reduce"),
    [
        (lambda t: t.flatten(2)[:, :, 2].softmax(1), "position:2"),
        (lambda t: t.flatten(2)[:, :, 2] / 2, "position:2"),
        (lambda t: t.relu().mean((2, 3)), "mean"),
        (lambda t: t, "mean"),
        (lambda t: t.pow(3).mean((2, 3)), "mean"),
    ],
)
def test_a_named_layer_is_reduced_as_well_as_is_known(
    tail: Callable[[Tensor], Tensor], reduce: str
) -> None:
    model = nn.Sequential(nn.Conv2d(2, N_CLASSES, 1), Apply(tail))
    head = find_head(model, images(), name="0")
    assert (head.reduce, head.verified) == (reduce, False)


def test_names_that_are_no_head() -> None:
    model = Features(lambda z, h: h)
    model.unused = linear()
    for name, message in {
        "head.0": "the network has no layer head.0: the nearest names are heads.0",
        "classifier": "the network has no layer classifier: it has unused, heads.0, body.0",
        "body.1": r"layer body.1 is no linear map \(Tanh\): say which layer is meant \(--head",
        "unused": r"layer unused \(Linear\) did not run on the example: say which layer",
    }.items():
        with pytest.raises(HeadNotFound, match=message):
            find_head(model, vectors(), name=name)


def test_head_checks_its_arrays() -> None:
    weight = torch.randn(N_CLASSES, N_FEATURES)
    with pytest.raises(InputError, match=r"expected a weight .* found \(4, 6\) and \(6,\)"):
        Head("", weight, torch.zeros(N_FEATURES))
    with pytest.raises(InputError, match="expected reduce to be .* found 'position:x'"):
        Head("", weight, torch.zeros(N_CLASSES), reduce="position:x")
    head = Head("", weight, torch.ones(N_CLASSES))
    assert (head.n_classes, head.n_features) == (N_CLASSES, N_FEATURES)
    z = torch.randn(2, N_FEATURES).bfloat16()
    expected = [[sum(w * v for w, v in zip(row, x, strict=True)) + 1 for row in weight] for x in z]
    torch.testing.assert_close(head(z), torch.tensor(expected))


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, nn.Module, str, Tensor]:
    """A network, the part of it that computes the features, the head's name, an example."""
    sizes = st.integers(1, 6)
    activation = draw(st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.Identity]))
    conv, bias = draw(st.booleans()), draw(st.booleans())
    layers: list[nn.Module] = []
    width = first = draw(sizes)
    for _ in range(draw(st.integers(0, 3))):
        out = draw(sizes)
        layers += [nn.Conv2d(width, out, 1) if conv else nn.Linear(width, out), activation()]
        width = out
    n_classes = draw(sizes)
    x = torch.randn(draw(sizes), first, *([draw(sizes), draw(sizes)] if conv else []))
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if conv else []
    name = str(len(layers))
    if conv and draw(st.booleans()):
        head: list[nn.Module] = [nn.Conv2d(width, n_classes, 1, bias=bias), *pool]
    else:
        name = str(len(layers) + len(pool))
        head = [*pool, nn.Linear(width, n_classes, bias=bias)]
    model = nn.Sequential(*layers, *head, nn.Dropout())
    return model, nn.Sequential(*layers, *pool), name, x


@settings(max_examples=60, deadline=None, database=None)
@given(networks(), st.integers(0, 99))
def test_random_networks(drawn: tuple[nn.Module, nn.Module, str, Tensor], number: int) -> None:
    model, body, name, x = drawn
    torch.manual_seed(number)
    for values in model.parameters():
        nn.init.normal_(values)
    head = find_head(model, x)
    assert head.name == name
    assert head.verified
    model.eval()
    with torch.no_grad(), FeatureTap(model, head) as tap:
        logits = model(x)
        torch.testing.assert_close(tap.features, body(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(head(body(x)), logits, rtol=1e-4, atol=1e-4)
        dense = nn.Linear(head.n_features, head.n_classes)
        dense.weight.copy_(head.weight)
        dense.bias.copy_(head.bias)
        with replace_head(model, dense, at=head):
            torch.testing.assert_close(model(x), logits, rtol=1e-4, atol=1e-4)
        assert torch.equal(model(x), logits)


# --- several outputs, one image ----------------------------------------------------------------


@pytest.mark.parametrize(("n_classes", "name"), [(3, "heads.1"), (4, "heads.0"), (None, "heads.0")])
def test_of_two_heads_that_of_the_datas_classes_is_taken(n_classes: int | None, name: str) -> None:
    heads = nn.Linear(N_FEATURES, N_CLASSES), nn.Linear(N_FEATURES, 3)
    model = Features(lambda z, a, b: {"a": a, "b": b}, *heads)
    because = f" as the data has {n_classes} classes," if n_classes else ""
    with pytest.warns(
        UserWarning,
        match=rf"has 2 heads: {name} \(\d, 6\) is taken,{because} not heads.\d .*--head",
    ):
        head = find_head(model, vectors(), n_classes=n_classes)
    assert (head.name, head.verified) == (name, True)


def test_a_value_beside_the_logits_is_not_their_head() -> None:
    model = Features(lambda z, v, a: (v, a), nn.Linear(N_FEATURES, 1), linear())
    with pytest.warns(UserWarning, match=r"has 2 heads: heads.1 \(4, 6\) is taken, not heads.0"):
        assert find_head(model, vectors()).name == "heads.1"


@pytest.mark.parametrize("kind", ["in place", "layer in place"])
def test_compiled_modules_run_as_they_were_written(kind: str) -> None:
    model = nn.Sequential(nn.Linear(5, N_FEATURES), nn.ReLU(), linear())
    compiled = model if kind == "in place" else model[2]
    compiled.compile(backend="eager")
    before = compiled._compiled_call_impl
    head = find_head(model, vectors())
    assert (head.name, head.verified) == ("2", True)
    assert compiled._compiled_call_impl is before
