"""Folders for transformers: its own loaders make the network and what it does to images again."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from command import penult
from penult import Run
from penult.data.transform import Transform
from penult.export.huggingface_processor import check_processor, save_processor, timm_settings
from penult.extras import import_extra, import_torchvision

for package in ("torchvision", "timm", "transformers"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

Analysed = Callable[..., Path]
NAMES = ("<b>a</b>|猫", "b", "c")
MOVED = (
    "--size",
    "32",
    "--mean",
    "0.5,0.4,0.3",
    "--std",
    "0.2,0.3,0.25",
)  # not what the library says


@pytest.fixture(scope="module")
def hf() -> Any:
    import_torchvision()
    return import_extra("transformers", "hf")


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Analysed:
    """The folder with `table.csv`, its images, and `run` of a network with random weights."""
    made: dict[tuple[str, ...], Path] = {}

    def analysed(*arguments: str) -> Path:
        if arguments in made:
            return made[arguments]
        folder = tmp_path_factory.mktemp("analysed")
        made[arguments] = folder
        pixels = np.random.default_rng(0).integers(0, 256, (60, 5, 7, 3), dtype=np.uint8)
        rows = ["path,label"]
        for i, image in enumerate(pixels):
            Image.fromarray(image).resize((70, 50)).save(folder / f"{i:02d}.png")
            rows.append(f"{i:02d}.png,{NAMES[i % 3]}")
        (folder / "table.csv").write_text("\n".join(rows), encoding="utf-8")
        with chdir(folder):
            random = ("--weights", "random", "--no-fit", "--out", "run")
            assert penult("analyze", arguments[0], "table.csv", *arguments[1:], *random) == 0
        return folder

    return analysed


def shipped(folder: Path, out: Path) -> dict[str, Any]:
    """What `export.json` says of the run's head with five features a class."""
    with chdir(folder):
        assert penult("export", "run", "-k", "5", "--format", "hf", "--out", str(out)) == 0
    document: dict[str, Any] = json.loads((out / "export.json").read_text(encoding="utf-8"))
    return document


def loaded_logits(
    hf: Any, folder: Path, out: Path, place: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of image files by what transformers loads, and by the definition of the head."""
    run = Run.open(place or folder / "run")
    document = json.loads((out / "export.json").read_text(encoding="utf-8"))
    head = run.head(document["head"]["select"], 5)
    z = run.train().arrays()[0].double().numpy()
    expected = z @ head.dense_weight().detach().double().numpy().T + head.bias.detach().numpy()
    network = hf.AutoModelForImageClassification.from_pretrained(out).eval()
    processor = hf.AutoImageProcessor.from_pretrained(out)
    found = []
    for name in run.train().ids():
        images = Image.open(folder / name).convert("RGB")
        with torch.no_grad():
            found.append(network(**processor(images, return_tensors="pt")).logits[0].numpy())
    return np.array(found), expected


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("timm:resnet10t", "--set", "num_classes=3", *MOVED), id="timm resnet"),
        *(
            pytest.param((name, "--set", "num_classes=3", *more), id=name, marks=pytest.mark.slow)
            for name, more in {
                "timm:mobilenetv3_small_050": ("--size", "64"),
                "timm:vit_tiny_patch16_224": ("--set", "img_size=64", "--set", "depth=2"),
                "timm:convnext_atto": ("--size", "32", "--resize", "40"),
                "timm:efficientnet_b0": ("--size", "64"),
                "torchvision:resnet18": ("--size", "64"),
                "torchvision:densenet121": ("--size", "64"),
            }.items()
        ),
    ],
)
def test_networks_of_timm_and_some_of_torchvision_are_loaded_with_their_images(
    arguments: tuple[str, ...], analysed: Analysed, hf: Any, tmp_path: Path
) -> None:
    folder, out = analysed(*arguments), tmp_path / "out"
    document = shipped(folder, out)
    assert document["notes"] == []
    found, expected = loaded_logits(hf, folder, out)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["label_names"] == sorted(NAMES)
    assert config["problem_type"] == "single_label_classification"
    assert {"url", "hf_hub_id", "file"}.isdisjoint(config["pretrained_cfg"])


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "penult.demo:DigitsCNN"])
def test_what_has_no_architecture_is_refused(
    name: str,
    analysed: Analysed,
    digits: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = digits.folder
    if "penult" not in name:
        run = analysed(name, "--set", "num_classes=3", "--size", "32") / "run"
    capsys.readouterr()
    with chdir(run.parent):
        arguments = ("-k", "5", "--format", "hf", "--out", str(tmp_path / "out"))
        assert penult("export", str(run), *arguments) == 2
    assert (
        f"neither has an architecture with the weights of {name}: export with --format onnx, torch "
        "or safetensors"
    ) in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("resize", "crop"),
    [(256, 224), (235, 224), (201, 176), (224, 224), (33, 32), ((64, 64), None), ((40, 60), None)],
)
def test_timm_prepares_images_as_its_settings_are_written(resize: Any, crop: Any) -> None:
    """By timm's own transform on an image whose sides differ."""
    timm_data = import_extra("timm", "vision").data
    transform = Transform(resize=resize, crop=crop, interpolation="bicubic")
    settings = timm_settings(transform)
    assert settings is not None
    config = timm_data.resolve_data_config(settings, verbose=False)
    theirs = timm_data.create_transform(**config, is_training=False)
    pixels = np.random.default_rng(0).integers(0, 256, (91, 143, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((500, 333))
    ours = transform.normalise(torch.tensor(transform.decode(image))[None])[0]
    assert (theirs(image) - ours).abs().max() < 1e-5


def test_no_settings_of_timm_for_what_it_does_not_do() -> None:
    assert timm_settings(Transform()) is None
    assert timm_settings(Transform(resize=80, crop=(32, 64))) is None


@pytest.mark.parametrize(
    "transform",
    [
        Transform(resize=256, crop=224),
        Transform(resize=(48, 64), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="nearest"),
        Transform(resize=40, crop=(32, 48), scale=1.0, mean=(127.0,) * 3, std=(64.0,) * 3),
        Transform(),
    ],
    ids=["resize and crop", "squeezed", "other numbers", "as it is"],
)
def test_a_processor_is_written_for_any_plain_preparation(
    transform: Transform, hf: Any, tmp_path: Path
) -> None:
    assert save_processor(transform, None, tmp_path) == []
    assert check_processor(tmp_path, transform) == []
    other = Transform(resize=250, crop=224, mean=(0.1, 0.2, 0.3))
    assert {"resize", "mean"} <= set(check_processor(tmp_path, other))


def test_what_no_processor_does_is_said(hf: Any, tmp_path: Path) -> None:
    said = save_processor(Transform(bgr=True, upright=True), None, tmp_path)
    assert said == [
        "channels in the order blue, green, red",
        "images turned as their EXIF orientation says",
    ]
    assert save_processor(Transform(mean=(0.5,), std=(0.5,)), None, tmp_path) == ["grey images"]
    assert list(tmp_path.iterdir()) == []


VIT = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def save_vit(hf: Any, folder: Path, n_classes: int) -> None:
    names = {i: f"class {i}" for i in range(n_classes)}
    config = hf.ViTConfig(**VIT, num_labels=n_classes, id2label=names)
    hf.ViTForImageClassification(config).save_pretrained(folder)
    hf.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)


def save_images(folder: Path, names: Sequence[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        place = folder / names[i % len(names)] / f"{i:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [(), ("--size", "20", "--resize", "24"), ("--mean", "0.1,0.2,0.3", "--std", "0.4,0.5,0.6")],
    ids=["its own", "another size", "other numbers"],
)
def test_the_processor_of_the_folder_does_what_the_run_did(
    more: tuple[str, ...], hf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network's own, and where the run was made with other options one that follows these."""
    monkeypatch.chdir(tmp_path)
    save_vit(hf, Path("net"), 3)
    save_images(Path("data"), ["class 0", "class 1", "class 2"])
    sized = ("--set", "image_size=20", "--weights", "random") if "--size" in more else ()
    arguments = ("analyze", "hf:net", "data", "--no-fit", "--out", "run", *more, *sized)
    assert penult(*arguments) == 0
    assert shipped(tmp_path, Path("out"))["notes"] == []
    found, expected = loaded_logits(hf, tmp_path / "data", Path("out"), tmp_path / "run")
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    settings = json.loads(Path("out/preprocessor_config.json").read_text())
    assert settings["image_processor_type"].startswith("CLIP" if more else "ViT")


@pytest.mark.slow
def test_some_of_the_classes_are_written_as_a_network_of_these(
    hf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_vit(hf, Path("net"), 6)
    save_images(Path("data"), ["class 4", "class 1", "class 2"])
    assert (
        penult("analyze", "hf:net", "data", "--classes", "present", "--no-fit", "--out", "run") == 0
    )
    assert shipped(tmp_path, Path("out"))["class_names"] == ["class 1", "class 2", "class 4"]
    weights = load_file("out/model.safetensors")
    assert weights["classifier.weight"].shape == (3, 16)
    found, expected = loaded_logits(hf, tmp_path / "data", Path("out"), tmp_path / "run")
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    config = json.loads(Path("out/config.json").read_text())
    assert config["id2label"] == {"0": "class 1", "1": "class 2", "2": "class 4"}
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert "The network had 6 outputs; those of the other classes were left out." in card


@pytest.mark.slow
def test_several_classes_of_an_image_stay_decisions_of_their_own(
    hf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_vit(hf, Path("net"), 3)
    save_images(Path("data"), ["all"])
    rows = [
        f"data/all/{i:02d}.png,{';'.join(f'class {c}' for c in {i % 3, i % 2})}" for i in range(60)
    ]
    Path("table.csv").write_text("\n".join(["path,label", *rows]))
    arguments = ("hf:net", "table.csv", "--multi-label", "--no-fit", "--out", "run")
    assert penult("analyze", *arguments) == 0
    assert shipped(tmp_path, Path("out"))["head"]["link"] == "sigmoid"
    config = json.loads(Path("out/config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    card = Path("out/README.md").read_text(encoding="utf-8")
    assert "(logits[0] > 0)" in card
    assert "60 samples of the run's analysed data, 180 decisions yes or no" in card


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Bert", "DistilBert"])
def test_a_classifier_of_texts_is_written_in_every_format(
    kind: str, hf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gives the same logits for texts shorter and longer than those it was proven on."""
    tokenizers = import_extra("tokenizers", "hf")
    monkeypatch.chdir(tmp_path)
    words = ["[PAD]", "[UNK]", *["the", "plot", "film", "was", "not", "very", "good", "bad"]]
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    own = tokenizers.Tokenizer(model)
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=own, unk_token="[UNK]", pad_token="[PAD]", model_max_length=32
    )
    tokenizer.save_pretrained("net")
    small: dict[str, Any] = {"vocab_size": len(words), "max_position_embeddings": 32}
    small |= (
        {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        }
        if kind == "Bert"
        else {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
    )
    config = getattr(hf, f"{kind}Config")(**small, num_labels=2)
    getattr(hf, f"{kind}ForSequenceClassification")(config).save_pretrained("net")
    rng = np.random.default_rng(0)
    rows = [f"{' '.join(rng.choice(words[2:], 3 + i % 6))},{'ab'[i % 2]}" for i in range(40)]
    Path("texts.csv").write_text("\n".join(["text,label", *rows]))
    assert penult("analyze", "hf:net", "texts.csv", "--no-fit", "--out", "run") == 0
    for name in ("onnx", "torch", "safetensors", "hf"):
        arguments = ("run", "-k", "5", "--format", name, "--timed", "1", "--no-cost")
        assert penult("export", *arguments, "--out", name) == 0
    network = hf.AutoModelForSequenceClassification.from_pretrained("hf").eval()
    prepare = hf.AutoTokenizer.from_pretrained("hf")
    session = import_extra("onnxruntime", "export").InferenceSession("onnx/network.onnx")
    assert session.get_inputs()[0].shape == ["batch", "tokens"]
    program = torch.export.load("torch/network.pt2").module()
    for texts in (["good"], ["the plot was bad"] * 3, ["film " * 32], ["good", "not very bad"]):
        inputs = dict(prepare(texts, return_tensors="pt", padding=True, truncation=True))
        names = [one.name for one in session.get_inputs()]
        given = {key: value for key, value in inputs.items() if key in names}
        with torch.no_grad():
            expected = network(**given).logits
            assert (program(**given) - expected).abs().max() < 1e-5
        found = session.run(None, {key: value.numpy() for key, value in given.items()})[0]
        assert np.abs(found - expected.numpy()).max() < 1e-5
