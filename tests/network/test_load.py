from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from penult.data.transform import Transform
from penult.errors import InputError
from penult.network.find import find_head
from penult.network.load import (
    LoadedModel,
    fingerprint,
    import_torchvision,
    load_model,
    with_torchvision,
)

NET = """
import torch
from torch import nn
from penult.data.transform import Transform

def net(num_classes=10, width=4):
    first, last = nn.Linear(12, width), nn.Linear(width, num_classes)
    return nn.Sequential(nn.Flatten(), first, nn.Dropout(), last)

def kinds(**options):
    model = nn.Linear(2, 2)
    model.kinds = options
    return model

def prescribed(value):
    model = nn.Linear(2, 2)
    model.penult_transform = value
    return model

def parallel():
    return nn.DataParallel(net())

def lazy():
    return nn.LazyLinear(3)

def meta():
    return nn.Linear(2, 2, device="meta")

def number():
    return 3

def nobody():
    pass

ready = net()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    return tmp_path


def load_module(name: str) -> Any:
    def load() -> Any:
        return __import__(name)

    return with_torchvision(load)


def assert_same(loaded: LoadedModel, model: nn.Module) -> None:
    """The very same values, in evaluation mode, on the CPU."""
    state, expected = loaded.model.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert not any(module.training for module in loaded.model.modules())
    assert all(value.device.type == "cpu" for value in state.values())


def assert_one_line(message: str, load: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load()
    assert "\n" not in str(caught.value)


def failing(*args: object, **options: object) -> Any:
    raise URLError("no network")


# --- a factory of the user's own ---------------------------------------------------------------


def test_a_factory_gets_its_options_and_its_weights(here: Path) -> None:
    trained = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Dropout(), nn.Linear(5, 7))
    torch.save({"state_dict": {f"module.{n}": v for n, v in trained.state_dict().items()}}, "a.th")
    for weights in ("a.th", Path("a.th"), here / "a.th"):
        loaded = load_model(
            "net.py:net", weights=weights, options={"num_classes": "7", "width": "5"}
        )
        assert_same(loaded, trained)
    assert loaded.spec == "net.py:net"
    assert loaded.fingerprint == fingerprint(trained.eval())
    assert loaded.class_names is None
    assert loaded.transform is None
    assert loaded.transform_problem == "net.py:net does not say how its inputs are made"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("0.5", 0.5),
        ("-1e3", -1000.0),
        ("None", None),
        ("True", True),
        ("false", False),
        ("(1, 2)", (1, 2)),
        ("{'a': [1]}", {"a": [1]}),
        ("'10'", "10"),
        ("relu", "relu"),
        ("a=b c", "a=b c"),
        ("", ""),
        ("{[]: 1}", "{[]: 1}"),
        ("__import__('os')", "__import__('os')"),
        (10, 10),
    ],
)
def test_options_are_literals_or_text(here: Path, text: object, value: object) -> None:
    found = load_model("net.py:kinds", options={"option": text}).model.kinds["option"]  # type: ignore[index]
    assert found == value
    assert type(found) is type(value)


def test_random_weights_are_the_same_each_time_and_leave_the_seed_alone(here: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = load_model("net.py:net"), load_model("net.py:net", weights="random")
    assert torch.equal(torch.rand(1), expected)
    assert_same(second, first.model)
    assert first.fingerprint == second.fingerprint


def test_a_network_that_is_there_already_is_taken(here: Path) -> None:
    assert len(load_model("net.py:ready").model.state_dict()) == 4
    assert_one_line(
        "^net.py:ready is a network already, it takes no width$",
        lambda: load_model("net.py:ready", options={"width": "3"}),
    )


@pytest.mark.parametrize("dtype", ["half", "bfloat16", "double"])
def test_a_network_of_another_precision_is_run_in_single_precision(here: Path, dtype: str) -> None:
    with Path("net.py").open("a") as file:
        file.write(f"\nother = net().{dtype}()\n")
    with pytest.warns(UserWarning, match=r"weights are (b?float16|float64): it is run in float32"):
        loaded = load_model("net.py:other").model
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    loaded(torch.zeros(2, 3, 2, 2))


def test_a_network_that_casts_its_images_itself_keeps_its_precision(here: Path) -> None:
    Path("casts.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Casts(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Conv2d(3, 4, 1).half()\n"
        "    def forward(self, x): return self.fc(x.half()).mean((2, 3))\n"
    )
    loaded = load_model("casts.py:Casts").model
    assert {p.dtype for p in loaded.parameters()} == {torch.float16}


def test_a_parallel_network_is_taken_out_of_its_wrapper(here: Path) -> None:
    assert isinstance(load_model("net.py:parallel").model, nn.Sequential)


def test_compiled_networks_and_layers_are_taken_out_of_their_wrappers(here: Path) -> None:
    with Path("net.py").open("a") as file:
        file.write(
            "def wrapped(): return torch.compile(net(), backend='eager')\n"
            "def both(): return nn.DataParallel(torch.compile(nn.DataParallel(net())))\n"
            "def in_place():\n"
            "    model = net()\n"
            "    model.compile(backend='eager')\n"
            "    model[1].compile(backend='eager')\n"
            "    return model\n"
            "def inside():\n"
            "    model = net()\n"
            "    model[3] = torch.compile(nn.DataParallel(model[3]), backend='eager')\n"
            "    return model\n"
        )
    plain = load_model("net.py:net")
    for name in ("wrapped", "both", "in_place", "inside"):
        loaded = load_model(f"net.py:{name}")
        assert_same(loaded, plain.model)
        assert loaded.fingerprint == plain.fingerprint
        assert find_head(loaded.model, torch.zeros(2, 3, 2, 2)).name == "3"
    torch.save(load_module("torch").compile(plain.model).state_dict(), "compiled.pt")
    assert_same(load_model("net.py:net", weights="compiled.pt"), plain.model)


def test_a_factory_may_say_how_its_inputs_are_made(here: Path) -> None:
    fields = "{'crop': 28, 'mean': [0.5], 'std': [0.25]}"
    loaded = load_model("net.py:prescribed", options={"value": fields})
    expected = Transform(crop=28, mean=(0.5,), std=(0.25,))
    assert loaded.transform == expected
    assert loaded.transform_problem == ""
    loaded = load_model("net.py:prescribed", options={"value": expected})
    assert loaded.transform == expected


def test_a_wrong_transform_is_kept_as_the_reason(here: Path) -> None:
    loaded = load_model("net.py:prescribed", options={"value": "{'corp': 28}"})
    assert loaded.transform is None
    assert re.search("unknown settings of a transform: corp", loaded.transform_problem)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (
            "resnet18",
            {},
            "^'resnet18' names no network: expected file.py:factory, .*hf:NAME or a file",
        ),
        ("net.py:nett", {}, "^net.py has no factory 'nett': did you mean net"),
        ("net.py:number", {}, "^net.py:number must return a torch.nn.Module, it returned int$"),
        ("net.py:nobody", {}, "^net.py:nobody must return a torch.nn.Module, it returned NoneType"),
        ("net.py:net", {"classes": "3"}, "net has no parameter classes: .* are num_classes, width"),
        ("net.py:net", {"width": "x"}, "^net.py:net failed, line 7: TypeError: "),
        ("net.py:lazy", {}, "^net.py:lazy has no values for weight: run a lazy layer once"),
        ("net.py:meta", {}, "^net.py:meta has no values for weight: .* on the meta device$"),
        ("net.py:prescribed", {"value": "3"}, "^penult_transform .* must be a dict .*found int$"),
    ],
)
def test_what_a_factory_cannot_do_is_said_in_one_line(
    here: Path, spec: str, options: dict[str, str], message: str
) -> None:
    assert_one_line(message, lambda: load_model(spec, options=options))


def test_another_number_of_classes_names_the_factorys_own_option(here: Path) -> None:
    torch.save(nn.Linear(12, 4).state_dict(), "other.pt")
    Path("own.py").write_text(
        "from torch import nn\n"
        "def net(n_classes=3):\n    return nn.Linear(12, n_classes)\n"
        "def fixed():\n    return nn.Linear(12, 3)\n"
    )
    assert_one_line(
        "other.pt does .*: the file has 4 classes, the network 3: --set n_classes=4$",
        lambda: load_model("own.py:net", weights="other.pt"),
    )
    assert_one_line(
        "the file has 4 classes, the network 3: tell the factory so$",
        lambda: load_model("own.py:fixed", weights="other.pt"),
    )


def test_a_file_that_is_not_there_is_said_before_the_network_is_built(here: Path) -> None:
    Path("slow.py").write_text("raise SystemError('built')")
    assert_one_line(
        "^absent.pt not found; expected a checkpoint file$",
        lambda: load_model("slow.py:net", weights="absent.pt"),
    )


def test_trust_reaches_the_checkpoint(here: Path) -> None:
    trained = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Dropout(), nn.Linear(4, 10))
    torch.save(trained, "whole.pt")
    assert_one_line(
        "holds more than weights: .* give --trust-checkpoint",
        lambda: load_model("net.py:net", weights="whole.pt"),
    )
    assert_same(load_model("net.py:net", weights="whole.pt", trust_checkpoint=True), trained)


# --- fingerprint -------------------------------------------------------------------------------


class WithFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.function = lambda x: x

    def extra_repr(self) -> str:
        return repr(self.function)


def test_a_fingerprint_is_that_of_equal_networks_only() -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU())

    reference = fingerprint(build())
    assert fingerprint(build()) == reference
    assert re.fullmatch("[0-9a-f]{32}", reference)

    def changed(change: Callable[[Any], object]) -> str:
        model = build()
        with torch.no_grad():
            change(model)
        return fingerprint(model)

    others = {
        changed(lambda model: model[0].weight[0, 0].add_(1e-6)),
        changed(lambda model: model[1].running_mean[0].add_(1e-6)),
        changed(lambda model: model[1].num_batches_tracked.add_(1)),
        changed(lambda model: model.__setitem__(2, nn.GELU())),
        changed(lambda model: model.half()),
        changed(lambda model: model.bfloat16()),
        changed(lambda model: model[0].register_buffer("none", torch.zeros(0, 3))),
        changed(lambda model: model[0].register_buffer("none", torch.zeros(0, 4))),
        changed(lambda model: model[0].register_buffer("zero", torch.zeros(3))),
        changed(lambda model: model[0].register_buffer("zero", torch.zeros(3, dtype=torch.int32))),
        changed(lambda model: setattr(model[1], "eps", 1e-3)),
    }
    assert len(others | {reference}) == 12


def test_a_fingerprint_does_not_know_addresses() -> None:
    torch.manual_seed(0)
    first = WithFunction()
    torch.manual_seed(0)
    second = WithFunction()
    assert repr(first) != repr(second)
    assert fingerprint(first) == fingerprint(second)


# --- torchvision -------------------------------------------------------------------------------


def test_torchvision_with_weights_from_a_file(tmp_path: Path) -> None:
    trained = import_torchvision().models.mobilenet_v3_small(num_classes=5)
    save_file(trained.state_dict(), tmp_path / "a.safetensors")
    name = "torchvision:mobilenet_v3_small"
    loaded = load_model(name, weights=tmp_path / "a.safetensors", options={"num_classes": "5"})
    assert_same(loaded, trained)
    assert loaded.class_names is None
    assert isinstance(loaded.transform, Transform)
    assert (loaded.transform.resize, loaded.transform.crop) == (256, 224)
    assert_one_line(
        "the file has 5 classes, the network 1000: --set num_classes=5$",
        lambda: load_model(name, weights=tmp_path / "a.safetensors"),
    )


def test_torchvision_with_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    models = import_torchvision().models
    trained = models.shufflenet_v2_x0_5()
    api = models._api

    def from_cache(*args: object, **options: object) -> dict[str, Tensor]:
        state: dict[str, Tensor] = trained.state_dict()
        return state

    monkeypatch.setattr(api, "load_state_dict_from_url", from_cache)
    loaded = load_model("torchvision:shufflenet_v2_x0_5")
    assert_same(loaded, trained)
    assert loaded.class_names is not None
    assert loaded.class_names[:2] == ("tench", "goldfish")
    assert len(loaded.class_names) == 1000

    assert_one_line(
        r"^torchvision:shufflenet_v2_x0_5 cannot be built with num_classes=10: ValueError: .* "
        r"\(of the pretrained weights; give --weights FILE for others\)$",
        lambda: load_model("torchvision:shufflenet_v2_x0_5", options={"num_classes": "10"}),
    )
    monkeypatch.setattr(api, "load_state_dict_from_url", failing)
    assert_one_line(
        "^could not get the weights of torchvision:shufflenet_v2_x0_5: URLError: .*no network.*; "
        "give --weights FILE, or --weights random for random weights$",
        lambda: load_model("torchvision:shufflenet_v2_x0_5"),
    )


@pytest.mark.parametrize(
    ("how", "weights"),
    [
        ({"weights": "IMAGENET1K_V1"}, "IMAGENET1K_V1"),
        ({"weights": "imagenet1k_v2"}, "IMAGENET1K_V2"),
        ({"weights": "MobileNet_V2_Weights.IMAGENET1K_V1"}, "IMAGENET1K_V1"),
        ({"weights": "DEFAULT"}, "IMAGENET1K_V2"),
        ({"options": {"weights": "IMAGENET1K_V1"}}, "IMAGENET1K_V1"),
        ({"options": {"pretrained": "true"}}, "IMAGENET1K_V2"),
        ({}, "IMAGENET1K_V2"),
    ],
)
def test_torchvision_weights_by_name(
    how: dict[str, Any], weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = import_torchvision().models
    enum = models.get_model_weights("mobilenet_v2")
    asked: list[object] = []

    def get_state_dict(self: Any, *args: object, **options: object) -> dict[str, Tensor]:
        asked.append(self)
        with torch.device("meta"):
            state = models.mobilenet_v2().state_dict()
        return {name: torch.zeros(value.shape) for name, value in state.items()}

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", get_state_dict)
    loaded = load_model("torchvision:mobilenet_v2", **how)
    assert asked == [enum[weights]]
    assert isinstance(loaded.transform, Transform)
    assert loaded.transform.resize == {"IMAGENET1K_V1": 256, "IMAGENET1K_V2": 232}[weights]
    assert loaded.class_names is not None


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        (
            "IMAGENET1K_V9",
            {},
            "^IMAGENET1K_V9 not found; .* torchvision:resnet18 has: IMAGENET1K_V1",
        ),
        ("absent.pth", {}, "^absent.pth not found; expected a checkpoint file$"),
        ("https://host/a.pth", {}, "^--weights https://host/a.pth is an address, .* download it"),
        (
            "a.pth",
            {"weights": "DEFAULT"},
            "^--set weights=DEFAULT and --weights a.pth exclude each",
        ),
        ("DEFAULT", {}, "^could not get the weights .*no network"),
    ],
)
def test_weights_that_cannot_be_had(
    weights: str, options: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_torchvision().models._api, "load_state_dict_from_url", failing)
    assert_one_line(
        message, lambda: load_model("torchvision:resnet18", weights=weights, options=options)
    )


def test_a_set_of_weights_needs_a_file() -> None:
    assert_one_line(
        "^--weights-key ema needs --weights FILE, in which it is$",
        lambda: load_model("torchvision:resnet18", weights="random", weights_key="ema"),
    )


def test_pretrained_weights_can_be_turned_off_by_either_option() -> None:
    for options in ({"pretrained": "false"}, {"weights": "None"}):
        for weights in (None, "random"):
            load_model("timm:test_resnet", weights=weights, options=options)


def test_torchvision_names_and_options() -> None:
    assert_one_line(
        r"^torchvision has no image classifier 'resnet1': did you mean .*resnet18.*\?$",
        lambda: load_model("torchvision:resnet1"),
    )
    # A detector is a network of torchvision's too, but no image classifier.
    assert_one_line(
        "^torchvision has no image classifier 'fasterrcnn_resnet50_fpn'",
        lambda: load_model("torchvision:fasterrcnn_resnet50_fpn"),
    )
    assert_one_line(
        "^torchvision has no image classifier '': it has alexnet, .* more$",
        lambda: load_model("torchvision:"),
    )
    assert_one_line(
        "^torchvision:resnet18 cannot be built with widht=2: TypeError: .*'widht'$",
        lambda: load_model("torchvision:resnet18", weights="random", options={"widht": "2"}),
    )


# --- timm --------------------------------------------------------------------------------------


def test_timm_with_weights_from_a_file(tmp_path: Path) -> None:
    trained = load_module("timm").create_model("test_resnet", num_classes=5)
    torch.save({"state_dict": trained.state_dict(), "arch": "test_resnet"}, tmp_path / "a.pth.tar")
    loaded = load_model(
        "timm:test_resnet", weights=tmp_path / "a.pth.tar", options={"num_classes": "5"}
    )
    assert_same(loaded, trained)
    assert loaded.class_names is None
    assert isinstance(loaded.transform, Transform)
    assert loaded.transform.source == "timm"
    assert loaded.transform.crop == (160, 160)


def test_timm_with_its_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load_module("timm").create_model("test_resnet")
    builder = __import__("timm.models._builder", fromlist=["_builder"])

    def from_cache(*args: object, **options: object) -> dict[str, Tensor]:
        state: dict[str, Tensor] = trained.state_dict()
        return state

    monkeypatch.setattr(builder, "load_state_dict_from_hf", from_cache)
    assert_same(load_model("timm:test_resnet"), trained)
    assert_one_line(
        "^timm:test_resnet was trained on 1000 classes, with num_classes=10 its last layer is "
        "random: give --weights FILE$",
        lambda: load_model("timm:test_resnet", options={"num_classes": "10"}),
    )
    monkeypatch.setattr(builder, "load_state_dict_from_hf", failing)
    assert_one_line(
        "^could not get the weights of timm:test_resnet: URLError: .*no network.*; give --weights",
        lambda: load_model("timm:test_resnet"),
    )


def test_timm_weights_by_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = load_module("timm")
    trained, made = timm.create_model("test_resnet"), []

    def create(name: str, **options: object) -> nn.Module:
        made.append((name, options["pretrained"]))
        model: nn.Module = trained
        return model

    monkeypatch.setattr(timm, "create_model", create)
    for weights in ("r160_in1k", "DEFAULT", "test_resnet.r160_in1k"):
        load_model("timm:test_resnet", weights=weights)
    assert made == [(f"test_resnet{tag}", True) for tag in (".r160_in1k", "", ".r160_in1k")]
    assert_one_line(
        "^a9_in1k not found; .* weights that timm:test_resnet has: r160_in1k, DEFAULT$",
        lambda: load_model("timm:test_resnet", weights="a9_in1k"),
    )


@pytest.mark.parametrize(
    ("options", "crop", "resize"),
    [
        ({"img_size": "96"}, 96, 106),
        ({"img_size": "(96, 128)"}, (96, 128), 106),
        ({}, (224, 224), 248),
    ],
)
def test_another_input_size_of_the_network_is_that_of_its_images(
    options: dict[str, str], crop: Any, resize: int
) -> None:
    loaded = load_model("timm:vit_tiny_patch16_224", weights="random", options=options)
    assert isinstance(loaded.transform, Transform)
    assert (loaded.transform.crop, loaded.transform.resize) == (crop, resize)
    height, width = crop if isinstance(crop, tuple) else (crop, crop)
    loaded.model(torch.zeros(1, 3, height, width))


def test_a_network_for_grey_images_reads_grey_images() -> None:
    loaded = load_model("timm:test_resnet", weights="random", options={"in_chans": "1"})
    assert isinstance(loaded.transform, Transform)
    assert loaded.transform.channels == 1
    assert loaded.transform.mean == pytest.approx((0.449,), abs=0.1)


def test_timm_names_and_options() -> None:
    assert_one_line(
        r"^timm has no image classifier 'resnet1888': did you mean resnet18.*\?$",
        lambda: load_model("timm:resnet1888"),
    )
    assert_one_line(
        "^could not get the weights of timm:test_resnet.nope: RuntimeError: Invalid pretrained",
        lambda: load_model("timm:test_resnet.nope"),
    )
    assert_one_line(
        "^timm:test_resnet cannot be built with widht=2: TypeError: .*'widht'$",
        lambda: load_model("timm:test_resnet", weights="random", options={"widht": "2"}),
    )


def test_a_factory_that_returns_a_timm_network_has_its_transform(here: Path) -> None:
    Path("mine.py").write_text(
        "import timm\ndef mine():\n    return timm.create_model('test_resnet', num_classes=3)\n"
    )
    loaded = load_model("mine.py:mine")
    assert isinstance(loaded.transform, Transform)
    assert loaded.transform.source == "timm"


# --- Hugging Face ------------------------------------------------------------------------------

TINY = {
    "num_labels": 3,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 16,
}


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A folder as `save_pretrained` leaves it, and the network in it."""
    transformers = load_module("transformers")
    folder = tmp_path_factory.mktemp("hf") / "tiny-vit"

    def build() -> nn.Module:
        config = transformers.ViTConfig(
            **{name: value for name, value in TINY.items() if name != "num_labels"},
            id2label={0: "cat", 1: "dog", 2: "newt"},
        )
        model: nn.Module = transformers.ViTForImageClassification(config)
        processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
        model.save_pretrained(folder)  # type: ignore[operator]
        processor.save_pretrained(folder)
        return model

    return folder, with_torchvision(build)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for a network."""
    load_module("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
def test_hf_from_a_folder(vit: tuple[Path, nn.Module]) -> None:
    folder, trained = vit
    loaded = load_model(f"hf:{folder}")
    assert_same(loaded, trained)
    assert loaded.class_names == ("cat", "dog", "newt")
    assert isinstance(loaded.transform, Transform)
    assert loaded.transform.resize == (32, 32)
    assert loaded.transform.mean == (0.5, 0.5, 0.5)


@pytest.mark.usefixtures("offline")
def test_hf_with_weights_from_a_file(vit: tuple[Path, nn.Module], tmp_path: Path) -> None:
    folder, trained = vit
    # The names of layers in the folder's file are older than those of the network itself.
    as_saved = load_file(folder / "model.safetensors")
    assert as_saved.keys() != trained.state_dict().keys()
    torch.save({"model": {f"module.{n}": v for n, v in as_saved.items()}}, tmp_path / "a.pt")
    torch.save(trained.state_dict(), tmp_path / "b.pt")
    for file in (folder / "model.safetensors", tmp_path / "a.pt", tmp_path / "b.pt"):
        assert_same(load_model(f"hf:{folder}", weights=file), trained)

    torch.save(as_saved | {"extra": torch.ones(1)}, tmp_path / "extra.pt")
    assert_one_line(
        r"extra.pt does not fit the network: 1 unexpected \(extra\)",
        lambda: load_model(f"hf:{folder}", weights=tmp_path / "extra.pt"),
    )
    for name in ("classifier.weight", "classifier.bias"):
        del as_saved[name]
    torch.save(as_saved, tmp_path / "headless.pt")
    assert_one_line(
        r"headless.pt does not fit the network: 2 missing \(classifier.bias, classifier.weight\)",
        lambda: load_model(f"hf:{folder}", weights=tmp_path / "headless.pt"),
    )


@pytest.mark.usefixtures("offline")
def test_hf_half_precision_is_run_in_full(vit: tuple[Path, nn.Module], tmp_path: Path) -> None:
    folder, trained = vit
    half = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(half, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = (folder / "config.json").read_text()
    assert '"float32"' in config
    (tmp_path / "config.json").write_text(config.replace('"float32"', '"float16"'))
    loaded = load_model(f"hf:{tmp_path}")
    state = trained.state_dict()
    for name, value in loaded.model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[name].half().float())
    # Nothing in that folder says how images are made into inputs.
    assert loaded.transform is None
    assert re.search("does not say how its inputs are made: .*proces", loaded.transform_problem)


@pytest.mark.usefixtures("offline")
def test_hf_random_weights(vit: tuple[Path, nn.Module]) -> None:
    folder, trained = vit
    options = {"num_labels": "5"}
    first = load_model(f"hf:{folder}", weights="random", options=options)
    second = load_model(f"hf:{folder}", weights="random", options=options)
    assert_same(second, first.model)
    assert first.model.get_parameter("classifier.weight").shape == (5, 16)
    assert first.class_names is None
    assert first.fingerprint != fingerprint(trained)


@pytest.mark.usefixtures("offline")
def test_hf_names_and_options(vit: tuple[Path, nn.Module], tmp_path: Path) -> None:
    folder, _ = vit
    assert_one_line(
        "^could not get the config.json of hf:no/such-network: OSError: .*; give hf:FOLDER, a "
        "local folder that holds it$",
        lambda: load_model("hf:no/such-network"),
    )
    assert_one_line(
        "^could not get the config.json of hf:",
        lambda: load_model(f"hf:{tmp_path / 'absent'}"),
    )
    assert_one_line(
        "has no parameter num_label: its config has num_labels",
        lambda: load_model(f"hf:{folder}", options={"num_label": "5"}),
    )
    assert_one_line(
        r"classifier.bias is 3 in the file and 5 in the network, classifier.weight is 3 × 16 .*: "
        "the file has 3 classes, the network 5: --set num_labels=3$",
        lambda: load_model(f"hf:{folder}", options={"num_labels": "5"}),
    )


@pytest.mark.usefixtures("offline")
def test_hf_folders_that_hold_no_classifier(vit: tuple[Path, nn.Module], tmp_path: Path) -> None:
    folder, _ = vit
    state = load_file(folder / "model.safetensors")
    headless = {name: value for name, value in state.items() if "classifier" not in name}
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert_one_line(
        "^could not get the weights of hf:",
        lambda: load_model(f"hf:{tmp_path}"),
    )
    save_file(headless, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_one_line(
        r"does not fit the network: 2 missing \(classifier.bias, classifier.weight\)",
        lambda: load_model(f"hf:{tmp_path}"),
    )
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    assert_one_line(
        "cannot be built: ValueError: Unrecognized configuration class .*SamConfig.* …$",
        lambda: load_model(f"hf:{tmp_path}"),
    )


@pytest.mark.usefixtures("offline")
def test_hf_code_from_the_hub_is_never_run(vit: tuple[Path, nn.Module], tmp_path: Path) -> None:
    config = (vit[0] / "config.json").read_text().replace('"vit"', '"mine"')
    auto = '"auto_map": {"AutoConfig": "code.Mine", "AutoModelForImageClassification": "code.Net"},'
    (tmp_path / "config.json").write_text(config.replace("{", "{" + auto, 1))
    ran = tmp_path / "ran"
    (tmp_path / "code.py").write_text(f"open({str(ran)!r}, 'w')\n")
    assert_one_line("cannot be built: ValueError: ", lambda: load_model(f"hf:{tmp_path}"))
    assert not ran.exists()


@pytest.mark.usefixtures("offline")
def test_hf_does_not_print_what_the_error_says(
    vit: tuple[Path, nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(InputError):
            load_model(f"hf:{vit[0]}", options={"num_labels": "5"})
        assert "MISMATCH" not in caplog.text
        assert logger.level == level
        logger.warning("still heard")
        assert "still heard" in caplog.text
    finally:
        logger.removeHandler(caplog.handler)
