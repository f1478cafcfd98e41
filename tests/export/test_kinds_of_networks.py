"""Networks in half precision, that give more than logits, or more classes than the run keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from command import penult
from penult import Run
from penult.export.proof import compared
from penult.extras import import_extra
from small_run import NET, images_for

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

LAST = "return self.head(self.conv(x).relu().mean((2, 3)))"
LOGITS = LAST.removeprefix("return ")
HALF = NET.replace("self.conv(x)", "self.conv(x.half())").replace(
    "return Net()", "return Net().half()"
)
CAST = NET.replace(LAST, f"with torch.autocast('cpu', torch.bfloat16): {LAST}")
CAST = CAST.replace("from torch import nn", "import torch\nfrom torch import nn")
DICTIONARY = NET.replace(LAST, f"return {{'aux': x.mean(), 'logits': {LOGITS}}}")
SEVERAL = NET.replace(LAST, f"return {LOGITS}, self.conv(x)")


def shipped(name: str, *more: str) -> dict[str, Any]:
    form = () if name == "safetensors" else ("--form", "dense")
    timed = ("--no-cost", "--timed", "1", "--out", name)
    assert penult("export", "run", "-k", "2", "--format", name, *form, *timed, *more) == 0
    document: dict[str, Any] = json.loads(Path(name, "export.json").read_text(encoding="utf-8"))
    return document


def logits_of(run: Run, document: dict[str, Any]) -> np.ndarray:
    """By the definition, from the features that the run holds."""
    head = run.head(document["head"]["select"], 2)
    z = run.evaluation().arrays()[0].double().numpy()
    found: np.ndarray = z @ head.dense_weight().detach().numpy().T + head.bias.detach().numpy()
    return found


def test_half_precision_stays_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images_for(HALF, tmp_path, monkeypatch)
    document = shipped("onnx")
    assert document["proof"]["tolerance"] == 1e-2
    session = import_extra("onnxruntime", "export").InferenceSession("onnx/network.onnx")
    (logits,) = session.get_outputs()
    assert (logits.name, logits.type) == ("logits", "tensor(float)")
    document = shipped("safetensors")
    weights = load_file("safetensors/network.safetensors")
    assert {values.dtype for values in weights.values()} == {np.dtype(np.float16)}
    expected = logits_of(Run.open("run"), document)
    assert document["proof"]["greatest_difference"] <= 1e-2 * np.abs(expected).max()


def test_bfloat16_is_for_torch_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images_for(CAST, tmp_path, monkeypatch)
    assert shipped("torch")["proof"]["agreement"] == 1
    capsys.readouterr()
    arguments = ("-k", "2", "--format", "onnx", "--form", "dense", "--no-cost", "--out", "onnx")
    assert penult("export", "run", *arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        "the network computes in bfloat16 (at conv2d), which onnxruntime does not on a CPU" in said
    )
    assert "export it with --format torch" in said
    assert not Path("onnx").exists()


@pytest.mark.parametrize("net", [DICTIONARY, SEVERAL], ids=["a dictionary", "a tuple"])
@pytest.mark.parametrize("name", ["onnx", pytest.param("safetensors", marks=pytest.mark.slow)])
def test_only_logits_come_out(
    net: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images_for(net, tmp_path, monkeypatch)
    proof = shipped(name)["proof"]
    assert proof["greatest_difference"] <= 1e-4 * proof["largest_logit"]
    if name == "onnx":
        model = import_extra("onnx", "export").load("onnx/network.onnx")
        assert [one.name for one in model.graph.output] == ["logits"]


def test_outputs_that_the_run_does_not_keep_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images_for(NET, tmp_path, monkeypatch)
    Path("net.py").write_text(NET.replace("nn.Linear(6, 3)", "nn.Linear(6, 5)"))
    Path("names.txt").write_text("b\nx\na\ny\nc\n")
    kept = ("--classes", "present", "--class-names", "names.txt", "--weights", "random")
    assert penult("analyze", "net.py:net", "data", *kept, "--out", "run", "--overwrite") == 0
    document = shipped("safetensors")
    assert document["what"]["kept"] == [0, 2, 4]
    assert document["class_names"] == ["b", "a", "c"]
    assert document["notes"] == [
        "The file holds all 5 outputs of the network; the run keeps 3 of them, and the others have "
        "the weights that they had."
    ]
    weight = load_file("safetensors/network.safetensors")["head.weight"]
    assert (weight != 0).sum(1).tolist() == [2, 6, 2, 6, 2]
    document = shipped("onnx")
    images = np.zeros((1, 3, 12, 12), dtype=np.float32)
    session = import_extra("onnxruntime", "export").InferenceSession("onnx/network.onnx")
    assert session.run(None, {"images": images})[0].shape == (1, 3)


def test_decisions_of_one_sample_are_not_taken_for_independent() -> None:
    """Ten classes that are always right or wrong together tell no more than one."""
    generator = torch.Generator().manual_seed(0)
    right = torch.rand(100, generator=generator) < 0.8
    labels = torch.ones(100, 10, dtype=torch.bool)
    logits = torch.where(right, 1.0, -1.0)[:, None].expand(100, 10)
    found = compared(logits, logits, labels, "sigmoid", 1e-4)["accuracy"]["interval"]
    one = compared(logits[:, :1], logits[:, :1], labels[:, :1], "sigmoid", 1e-4)
    assert found == pytest.approx(one["accuracy"]["interval"])
