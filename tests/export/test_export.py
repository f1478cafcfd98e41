"""Exports: equal to the network where penult is not installed, or refused without a trace."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import site
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from command import penult
from penult import Run
from penult.data.transform import Transform
from penult.export.proof import MismatchError, compared
from penult.export.samples import features_for_proof
from penult.export.unread import drop_unread
from penult.extras import import_extra
from penult.features.features import Features
from penult.runs.analyze import Options, analyze_features
from small_run import NET, images_for

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

FORMATS = ("onnx", "torch", "safetensors", "head")


@pytest.fixture(scope="module")
def exports(digits: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's network with five features a class, in every format."""
    folder = tmp_path_factory.mktemp("exports")
    for name in FORMATS:
        form = ["--form", "rows", "--no-cost"] if name in ("onnx", "torch") else []
        arguments = ("-k", "5", "--format", name, "--timed", "1", *form)
        assert penult("export", str(digits.folder), *arguments, "--out", str(folder / name)) == 0
    return folder


def of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    return found


def naive(run: Run, n: int) -> np.ndarray:
    """Logits of the run's head by the definition, class by class and feature by feature."""
    head = load_file(next((run.folder / "heads").glob("curvature-k005.safetensors")))
    z = features_for_proof(run, n).features.numpy().astype(np.float64)
    found = np.tile(head["bias"].astype(np.float64), (len(z), 1))
    for c in range(len(head["bias"])):
        for at in range(head["indptr"][c], head["indptr"][c + 1]):
            found[:, c] += head["values"][at] * z[:, head["indices"][at]]
    return found


def test_an_environment_without_penult_gives_the_logits_of_the_definition(
    exports: Path, digits: Run, tmp_path: Path
) -> None:
    from penult.export.samples import samples_for_proof
    from penult.runs.reopen import Places

    samples = samples_for_proof(digits, 300, Places())
    assert isinstance(samples.inputs, torch.Tensor)
    np.save(exports / "images.npy", samples.inputs.numpy())
    np.save(exports / "features.npy", samples.features.numpy())
    packages = tmp_path / "packages"
    packages.mkdir()
    for place in site.getsitepackages():
        for one in Path(place).iterdir():
            if "penult" not in one.name and not (packages / one.name).exists():
                (packages / one.name).symlink_to(one)
    script = Path(__file__).with_name("without_penult.py")
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    subprocess.run(
        [sys.executable, "-S", "-P", str(script), str(exports)], check=True, env=environment
    )
    expected = naive(digits, 300)
    for name in ("onnx", "torch", "head", "head_torch"):
        found = np.load(exports / f"{name}.npy")
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max(), name


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_says_what_it_is_and_how_it_was_proven(exports: Path, name: str) -> None:
    document = of(exports / name)
    proof = document["proof"]
    assert proof["n_samples"] >= 256
    assert proof["agreement"] == 1
    assert proof["greatest_difference"] <= 1e-4 * proof["largest_logit"]
    assert document["head"]["n_weights"] <= 50
    files = {path.name for path in (exports / name).iterdir()} - {"export.json"}
    assert files == set(document["files"])
    for file, about in document["files"].items():
        content = (exports / name / file).read_bytes()
        assert about == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_weights_fit_the_original_architecture_and_only_the_head_is_another(
    exports: Path, digits: Run
) -> None:
    from penult.demo import DigitsCNN

    network = DigitsCNN()
    weights = load_file(exports / "safetensors" / "network.safetensors")
    network.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    before = load_file(digits.folder / "network.safetensors")
    changed = {name for name in before if not np.array_equal(before[name], weights[name])}
    assert changed == {"head.weight", "head.bias"}
    assert (weights["head.weight"] != 0).sum(1).max() <= 5


def test_onnx_takes_any_batch_and_names_its_classes(exports: Path) -> None:
    onnx = import_extra("onnx", "export")
    ort = import_extra("onnxruntime", "export")
    path = exports / "onnx" / "network.onnx"
    model = onnx.load(path)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(notes["class_names"]) == [str(digit) for digit in range(10)]
    assert json.loads(notes["preprocessing"])["mean"] == [0.5]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert str(Path(__file__).resolve().parents[2]) not in str(model)  # no paths of this machine
    session = ort.InferenceSession(path)
    for n in (1, 3, 40):
        x = np.zeros((n, 1, 8, 8), dtype=np.float32)
        assert session.run(["logits"], {"images": x})[0].shape == (n, 10)


def test_a_program_of_torch_holds_no_pickled_sample(exports: Path) -> None:
    import zipfile

    with zipfile.ZipFile(exports / "torch" / "network.pt2") as file:
        samples = [one.file_size for one in file.infolist() if "sample_inputs" in one.filename]
        assert not any(samples)
        assert not [one for one in file.namelist() if one.endswith(".pkl")]


def test_caps_and_preprocessing_are_inside(
    digits: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited, out = tmp_path / "edited", tmp_path / "out"
    assert penult("edit", str(digits.folder), "--cap", "3:5=0.1", "--out", str(edited)) == 0
    arguments = ("--recipe", str(edited / "recipe.json"), "--format", "onnx", "--form", "dense")
    more = ("--preprocessing", "--no-cost", "--timed", "1", "--out", str(out))
    assert penult("export", str(digits.folder), *arguments, *more) == 0
    head = load_file(edited / "head.safetensors")
    z = features_for_proof(digits, 50).features.numpy()
    excess = np.maximum(0, z @ head["directions"].T - head["bounds"])
    expected = z @ head["weight"].T + head["bias"] - excess @ head["scales"].T
    assert excess.max() > 0
    from penult.export.samples import samples_for_proof
    from penult.runs.reopen import Places

    pixels = samples_for_proof(digits, 50, Places()).pixels
    assert pixels is not None
    session = import_extra("onnxruntime", "export").InferenceSession(out / "network.onnx")
    found = session.run(["logits"], {"pixels": pixels.numpy()})[0]
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    capsys.readouterr()
    other = ("--head", str(edited / "head.safetensors"), "--format", "safetensors")
    assert penult("export", str(digits.folder), *other, "--out", str(tmp_path / "no")) == 2
    assert "a head with caps is no linear layer" in capsys.readouterr().err


def test_a_recipe_of_a_sparse_head_asks_for_its_size(
    digits: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = tmp_path / "edited"
    kept = digits.head("curvature", 5).subspaces[3]
    off = ("-k", "5", "--select", "curvature", "--off", f"{int(kept[0])}:3")
    assert penult("edit", str(digits.folder), *off, "--out", str(edited)) == 0
    capsys.readouterr()
    arguments = ("--recipe", str(edited / "recipe.json"), "--format", "head")
    out = ("--out", str(tmp_path / "out"))
    assert penult("export", str(digits.folder), *arguments, *out) == 2
    said = capsys.readouterr().err
    assert "edits the run's sparse head of k = 5, and no -k is given: expected -k 5 --sel" in said
    sized = ("-k", "5", "--select", "curvature")
    assert penult("export", str(digits.folder), *arguments, *sized, *out) == 0
    head = load_file(tmp_path / "out" / "head.safetensors")
    row = slice(head["indptr"][3], head["indptr"][4])
    assert int(kept[0]) not in head["indices"][row].tolist()
    assert "recipe" in of(tmp_path / "out")["head"]


def test_a_mismatch_is_an_error_and_leaves_nothing_behind(
    digits: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from penult.export import programs
    from penult.export.head_forms import HeadLayer, head_layer

    def wrong(*arguments: Any, **options: Any) -> HeadLayer:
        made = head_layer(*arguments, **options)
        made.form.bias.data[3] += 0.01  # type: ignore[operator, index]
        return made

    monkeypatch.setattr(programs, "head_layer", wrong)
    arguments = ("-k", "5", "--format", "torch", "--form", "dense", "--no-cost")
    assert penult("export", str(digits.folder), *arguments, "--out", str(tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert "the export's logits differ from the network's by up to 0.01" in said
    assert list(tmp_path.iterdir()) == []


class OpenVinoStub:
    """What the export calls of OpenVINO, by onnxruntime; by itself it computes in 16 bits."""

    __version__ = "1.2.3"

    def __init__(self, wrong: float) -> None:
        self.wrong = wrong
        self.Core = lambda: self

    def compile_model(self, file: str, device: str, exact: dict[str, Any]) -> Any:
        session = import_extra("onnxruntime", "export").InferenceSession(file)
        off = self.wrong if exact["INFERENCE_PRECISION_HINT"] == "f32" else 1.0
        return lambda inputs: [session.run(None, inputs)[0] + off]


@pytest.mark.parametrize("wrong", [0.0, 0.5], ids=["equal", "with other logits"])
def test_openvino_is_compared_where_it_is_installed(
    wrong: float, digits: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fresh process of OpenVINO is this one here, with a stand-in for the library."""
    from penult.export import export, fresh_process, onnx_format
    from penult.export.proof import FreshRun, Trial, run_fresh

    def run_here(trial: Trial, inputs: dict[str, torch.Tensor]) -> FreshRun:
        if trial.runtime != "openvino":
            return run_fresh(trial, inputs)
        run, versions = fresh_process.openvino({"files": [str(trial.files[0])], "threads": 1})
        arrays = {name: values.numpy() for name, values in inputs.items()}
        found = fresh_process.logits_of(run, arrays, 32, fixed=False)
        return FreshRun(torch.from_numpy(found), versions, {})

    monkeypatch.setitem(sys.modules, "openvino", OpenVinoStub(wrong))
    monkeypatch.setattr(export, "run_fresh", run_here)
    monkeypatch.setattr(onnx_format, "find_spec", lambda name: name)
    out = tmp_path / "out"
    arguments = ("-k", "5", "--format", "onnx", "--form", "dense", "--no-cost", "--timed", "1")
    assert penult("export", str(digits.folder), *arguments, "--out", str(out)) == 0
    document = of(out)
    if wrong:
        (note,) = document["notes"]
        assert re.match(r"Nothing is promised for openvino: .* differ .* by up to 0\.5, .*", note)
        assert "openvino" not in document["cost"]["seconds"]
    else:
        assert document["notes"] == []
        assert document["proof"]["openvino"]["greatest_difference"] < 1e-4
        assert document["proof"]["versions"]["openvino"] == "1.2.3"


@pytest.mark.parametrize(
    "more", [("--preprocessing",), pytest.param(("--int8",), marks=pytest.mark.slow)]
)
def test_what_is_inside_a_shipped_network_is_read_back(
    more: tuple[str, ...], digits: Run, tmp_path: Path
) -> None:
    from penult.network.find import FeatureTap, find_head
    from penult.network.load import load_model

    out = tmp_path / "out"
    arguments = ("-k", "5", "--format", "onnx", "--form", "dense", "--no-cost", "--timed", "1")
    assert penult("export", str(digits.folder), *arguments, *more, "--out", str(out)) == 0
    from penult.data.source import ImageSource, Pass
    from penult.runs.reopen import reopen_images

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*rounds its logits to 8 bits")
        loaded = load_model(str(out / "network.onnx"))
    images = reopen_images(digits, "evaluation")
    assert isinstance(loaded.transform, Transform)
    source = ImageSource(images, loaded.transform, Pass(batch_size=len(images)))
    x = source.inputs(next(iter(source.batches(0))), torch.device("cpu"))
    with FeatureTap(loaded.model, find_head(loaded.model, x)) as tap, torch.no_grad():
        loaded.model(x)
    z = digits.evaluation().arrays()[0].float()
    far = (tap.features - z).abs().max() / z.abs().max()
    assert far < (1e-5 if more == ("--preprocessing",) else 0.1)


def test_differences_are_measured_against_the_largest_logit() -> None:
    reference = torch.tensor([[100.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1, 0])
    near = reference + torch.tensor([[0.009, 0.0], [0.0, 0.0], [0.0, 0.0]])
    document = compared(reference, near, labels, "softmax", 1e-4)
    assert document["greatest_difference"] == pytest.approx(0.009, rel=1e-2)
    assert document["accuracy"]["export"] == pytest.approx(2 / 3)
    with pytest.raises(MismatchError, match=r"differ from the network's by up to 0\.02"):
        compared(reference, reference + 0.02, labels, "softmax", 1e-4)
    with pytest.raises(MismatchError, match=r"by up to nan"):
        compared(reference, reference * torch.nan, labels, "softmax", 1e-4)
    with pytest.raises(MismatchError, match=r"gives \(3, 1\) logits, expected \(3, 2\)"):
        compared(reference, reference[:, :1], labels, "softmax", 1e-4)


Refused = tuple[tuple[str, ...], str]
REFUSED: dict[str, Refused] = {
    "fewer channels in the same architecture": (
        ("--format", "safetensors", "-k", "5", "--drop-unread"),
        "--drop-unread changes the network's structure",
    ),
    "8 bits elsewhere": (("--format", "torch", "-k", "5", "--int8"), "--int8 is for --format onnx"),
    "no head": (("--format", "head"), "which head? Expected -k NUMBER, --recipe FILE or --head"),
    "two heads": (
        ("--format", "head", "--head", "x.safetensors", "-k", "5"),
        "--head and -k both name a head",
    ),
    "no such size": (("--format", "head", "-k", "7"), "the run holds no head of k = 7"),
    "no such format": (("--format", "tflite", "-k", "5"), "--format: expected one of onnx"),
    "a select alone": (
        ("--format", "head", "--recipe", "x", "--select", "mass"),
        "--select needs -k",
    ),
    "an opset of the future": (
        ("--format", "onnx", "-k", "5", "--opset", "99"),
        "--opset 99: the exporter and the installed onnxruntime",
    ),
    "no opset": (("--format", "onnx", "-k", "5", "--opset", "0"), "--opset 0: the exporter and"),
    "one huge batch": (
        ("--format", "torch", "-k", "5", "--batch-size", "100000"),
        "--batch-size: expected 1 to 4,096, found 100000",
    ),
    "an opset of the past": (("--format", "onnx", "-k", "5", "--opset", "9"), "know opsets 18 to"),
    "an opset in vain": (
        ("--format", "torch", "-k", "5", "--opset", "20"),
        "--opset is for --format onnx, found --format torch: leave it out",
    ),
    "one batch size of a head": (
        ("--format", "head", "-k", "5", "--batch-size", "4"),
        "--batch-size 4: a head alone takes any batch",
    ),
    "a form in vain": (
        ("--format", "safetensors", "-k", "5", "--form", "rows"),
        "--form changes the network's structure",
    ),
    "no such form": (("--format", "torch", "-k", "5", "--form", "x"), "--form: expected one of"),
    "no samples": (("--format", "head", "-k", "5", "--samples", "0"), "--samples: expected 1"),
    "no times": (("--format", "head", "-k", "5", "--timed", "1,x"), "--timed: expected numbers"),
    "an endless batch": (
        ("--format", "head", "-k", "5", "--timed", "99999999999"),
        "--timed: expected numbers from 1 to 4,096",
    ),
    "no tuned head": (("--format", "head", "-k", "5", "--tuned", "head"), "tune.json"),
    "no such tuning": (
        ("--format", "head", "-k", "5", "--tuned", "x"),
        "--tuned: expected one of network, head",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_refused_in_one_line(
    case: str, digits: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = REFUSED[case]
    out = tmp_path / "out"
    assert penult("export", str(digits.folder), *arguments, "--out", str(out)) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert len(said.strip().splitlines()) == 1
    assert not out.exists()


def test_other_things_in_the_folder_stay(
    exports: Path, digits: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(out: Path, *more: str) -> str:
        arguments = ("-k", "5", "--format", "head", "--out", str(out), *more)
        assert penult("export", str(digits.folder), *arguments) == 2
        return capsys.readouterr().err

    (tmp_path / "thesis.tex").write_text("mine")
    assert "holds something else: choose another folder" in refused(tmp_path)
    assert "holds an export already (head)" in refused(exports / "head")
    (exports / "head" / "notes.txt").write_text("mine")
    assert "holds notes.txt, which no export wrote" in refused(exports / "head", "--overwrite")
    (exports / "head" / "notes.txt").unlink()
    assert "is a run: choose another folder" in refused(digits.folder)
    assert "where the run keeps its own" in refused(digits.folder / "heads" / "x")
    again = ("-k", "5", "--format", "head", "--out", str(exports / "head"), "--overwrite")
    assert penult("export", str(digits.folder), *again) == 0


def test_heads_that_do_not_fit_are_refused(
    digits: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from penult import SparseHead, Subspaces

    def refused(head: SparseHead, names: list[str] | None = None) -> str:
        file = tmp_path / "one.safetensors"
        head.save(file, names)
        arguments = ("--head", str(file), "--format", "head", "--out", str(tmp_path / "out"))
        assert penult("export", str(digits.folder), *arguments) == 2
        return capsys.readouterr().err

    own = digits.head("curvature", 5)
    nan = SparseHead(own.subspaces, own.values.detach() * torch.nan, own.bias)
    assert "holds NaN or infinite values" in refused(nan)
    other = Subspaces.of([[0]] * 3, 8)
    small = SparseHead(other, torch.ones(3), torch.zeros(3))
    assert "is for n_classes = 3, n_features = 8; the run's head" in refused(small)
    assert "names other classes than the run" in refused(own, list("abcdefghij"))
    file = tmp_path / "features.safetensors"
    file.write_bytes((digits.folder / "influence.safetensors").read_bytes())
    arguments = ("--head", str(file), "--format", "head", "--out", str(tmp_path / "out"))
    assert penult("export", str(digits.folder), *arguments) == 2
    assert "expected a head file (penult-head/1" in capsys.readouterr().err


def test_a_missing_extra_is_said_before_any_work(
    digits: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Absent:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "onnxruntime":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    arguments = ("-k", "5", "--format", "onnx", "--out", str(tmp_path / "out"))
    assert penult("export", str(digits.folder), *arguments) == 2
    assert "pip install 'penult[export]'" in capsys.readouterr().err


CHOOSES = NET.replace("return self.head(", "if x.sum() > 1e9: return x\n        return self.head(")
FIXED = NET.replace("x).relu()", "x).relu().reshape(int(x.shape[0]), 6, *x.shape[2:])")
FIXED = FIXED.replace("return self.head(", "assert x.shape[0] != 77\n        return self.head(")
LEAVES = NET.replace(
    "self.conv(x).relu()", "torch.from_numpy(self.conv(x).relu().detach().numpy())"
)
RARE = NET.replace("self.conv(x).relu()", "torch.special.bessel_j0(self.conv(x))")
TORCH = "import torch\n"
CANNOT = {
    "chooses by values": (
        CHOOSES,
        "torch",
        r"cannot be traced at net\.py, line \d+ \(if x\.sum\(\) > 1e9: return x\): what its code "
        r"does there depends on values .* torch\.where or torch\.cond, or export the head alone",
    ),
    "leaves torch": (
        TORCH + LEAVES,
        "torch",
        r"at net\.py, line \d+ \(return self\.head\(torch\.from_numpy.*\) \(\.numpy\(\) is "
        r"not supported .*\): change that part of its code",
    ),
    "fixes the batch": (
        FIXED,
        "torch",
        r"the network's code fixes the batch size.*: give the size that it is to take with "
        r"--batch-size",
    ),
    "an operation that ONNX lacks": (
        TORCH + RARE,
        "onnx",
        r"cannot become ONNX \(ONNX has no operation for \S*bessel_j0\): export it with --format "
        r"torch",
    ),
    "is gone": (NET.replace("class Net", "class Other"), "torch", r"net\.py"),
}


@pytest.mark.parametrize("case", CANNOT)
def test_networks_that_cannot_be_exported_are_refused_in_one_line(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    net, name, expected = CANNOT[case]
    images_for(net if "Other" not in net else NET, tmp_path, monkeypatch)
    if "Other" in net:
        (tmp_path / "net.py").write_text(net)
    capsys.readouterr()
    arguments = ("-k", "2", "--format", name, "--form", "dense", "--no-cost", "--out", "out")
    assert penult("export", "run", *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert re.search(expected, lines[-1])
    assert not [line for line in lines[:-1] if not re.match(r"[\w' ]+:( [\d,of ]+,)? \d+ s$", line)]
    assert not (tmp_path / "out").exists()


def test_images_that_are_gone_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images_for(NET, tmp_path, monkeypatch)
    (tmp_path / "data").rename(tmp_path / "moved")
    capsys.readouterr()
    arguments = ("-k", "2", "--format", "torch", "--form", "dense", "--timed", "1", "--out", "out")
    assert penult("export", "run", *arguments) == 2
    assert "the images of run cannot be opened" in capsys.readouterr().err
    assert penult("export", "run", *arguments, "--data", "moved") == 0
    assert of(tmp_path / "out")["proof"]["n_samples"] == 30


def test_a_run_of_features_ships_its_head_alone(
    digits: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert penult("analyze", str(digits.train_folder), "--out", run, "--no-fit") == 0
    capsys.readouterr()
    arguments = ("-k", "5", "--timed", "1", "--out", str(tmp_path / "out"))
    for name in ("torch", "hf"):
        assert penult("export", run, *arguments, "--format", name) == 2
        said = capsys.readouterr().err
        assert "was made from features, so there is no network to export" in said
    assert penult("export", run, *arguments, "--format", "head") == 0
    page = (tmp_path / "out" / "head.md").read_text(encoding="utf-8")
    assert "come from a features file" in page


def test_a_smaller_network_costs_less_and_gives_the_same_logits(
    digits: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("-k", "5", "--format", "torch", "--drop-unread", "--form", "dense")
    assert penult("export", str(digits.folder), *arguments, "--timed", "1", "--out", str(out)) == 0
    document = of(out)
    n_read = document["head"]["n_read"]
    layer = {"layer": "last.0 (conv2d)", "before": 64, "after": n_read}
    assert document["what"]["dropped"] == {"layers": [layer], "positions": [], "kept": []}
    before, after = document["cost"]["before"], document["cost"]["after"]
    # The last convolution reads 32 channels by 3 × 3; batch norm has two numbers for each channel.
    gone = (64 - n_read) * (3 * 3 * 32 + 2 + 10)
    assert before["parameters"] - after["parameters"] == gone
    assert before["multiplications"] > after["multiplications"]
    row = document["cost"]["seconds"]["torch"]["1"]
    assert row["before"]["interval"][0] <= row["before"]["median"] <= row["before"]["interval"][1]
    assert row["speed_up"] == pytest.approx(row["before"]["median"] / row["after"]["median"])


def test_a_smaller_network_of_other_logits_is_not_taken(
    digits: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(program: torch.export.ExportedProgram) -> Any:
        module, dropped = drop_unread(program)
        with torch.no_grad():
            next(p for p in module.parameters() if p.ndim == 4).mul_(1.001)
        return module, dropped

    monkeypatch.setattr("penult.export.programs.drop_unread", spoilt)
    out = tmp_path / "out"
    arguments = ("-k", "5", "--format", "torch", "--drop-unread", "--form", "dense")
    assert penult("export", str(digits.folder), *arguments, "--timed", "1", "--out", str(out)) == 0
    document = of(out)
    assert document["what"]["dropped"]["layers"] == []
    (note,) = [one for one in document["notes"] if one.startswith("No channels were dropped")]
    assert "the logits of the smaller network differ by" in note
    cost = document["cost"]
    assert cost["before"]["parameters"] == cost["after"]["parameters"]


@pytest.mark.slow
def test_eight_bits_are_measured(digits: Run, tmp_path: Path) -> None:
    onnx, out = import_extra("onnx", "export"), tmp_path / "out"
    arguments = ("-k", "5", "--format", "onnx", "--int8", "--form", "dense", "--no-cost")
    assert penult("export", str(digits.folder), *arguments, "--timed", "1", "--out", str(out)) == 0
    document = of(out)
    assert "tolerance" not in document["proof"]
    assert document["proof"]["greatest_difference"] > 0
    low, high = document["proof"]["accuracy"]["lost_interval"]
    assert low <= document["proof"]["accuracy"]["lost"] <= high
    graph = onnx.load(out / "network.onnx").graph
    kinds = {one.data_type for one in graph.initializer if len(one.dims) > 1}
    assert kinds == {onnx.TensorProto.INT8}
    assert [path.name for path in out.iterdir() if path.suffix == ".onnx"] == ["network.onnx"]


@pytest.mark.filterwarnings("default:no heat maps")
def test_a_shipped_network_is_looked_at_again(
    exports: Path, digits: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The features of the file are those that its head reads, and its accuracy is the head's."""
    network, run = str(exports / "onnx" / "network.onnx"), str(tmp_path / "run")
    data = ("digits:train", "--eval", "digits:test", "--no-fit")
    assert penult("analyze", network, *data, "--out", run) == 0
    assert "penult: error" not in capsys.readouterr().err
    again = Run.open(run)
    weight = digits.head("curvature", 5).dense_weight().detach()
    assert torch.allclose(again.train().require_head().weight, weight, atol=1e-4)
    assert again.summary()["class_names"] == digits.summary()["class_names"]
    assert penult("explain", run, "eval:3", "--out", str(tmp_path / "reasons.png")) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "There are no heat maps: onnxruntime computes the features of an ONNX file, and" in said
    # Opened once more by the run's own word: a file of ONNX runs no code.
    arguments = ("-k", "5", "--format", "head", "--timed", "1")
    assert penult("export", run, *arguments, "--out", str(tmp_path / "again")) == 0
    capsys.readouterr()
    whole = ("-k", "5", "--format", "onnx", "--out", str(tmp_path / "whole"))
    assert penult("export", run, *whole) == 2
    assert "is of an ONNX file, which torch cannot trace: export the" in capsys.readouterr().err
    assert penult("tune", run, "-k", "5") == 2
    assert "is of an ONNX file, whose weights cannot be trained: give" in capsys.readouterr().err


def test_names_with_markup_are_text_in_the_page_of_a_head(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    z, weight = (torch.randn(n, 6, generator=generator) for n in (40, 2))
    names = ["<b>a</b>|b", "[c](javascript:d)"]
    features = Features.of(z, torch.arange(40) % 2, weight, class_names=names)
    run = analyze_features(features, None, tmp_path / "run", Options(fit=False))
    out = tmp_path / "out"
    arguments = ("-k", "2", "--format", "head", "--timed", "1", "--out", str(out))
    assert penult("export", str(run.folder), *arguments) == 0
    page = (out / "head.md").read_text(encoding="utf-8")
    assert "On 40 samples of the run's analysed data (all intervals are of 95 % conf" in page
    assert "| &lt;b&gt;a&lt;/b&gt;\\|b |" in page
    assert "<b>" not in page
    assert "[c](" not in page


def test_a_shipped_head_with_caps_is_not_looked_at_again(
    digits: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = import_extra("onnx", "export")
    edited, out = tmp_path / "edited", tmp_path / "out"
    caps = ("--cap", "3:5=0.1", "--cap", "7:2=0.1")
    assert penult("edit", str(digits.folder), *caps, "--out", str(edited)) == 0
    arguments = ("--recipe", str(edited / "recipe.json"), "--format", "onnx", "--form", "dense")
    more = ("--no-cost", "--timed", "1", "--out", str(out))
    assert penult("export", str(digits.folder), *arguments, *more) == 0
    path = out / "network.onnx"

    def refused() -> str:
        capsys.readouterr()
        run = str(tmp_path / "run")
        assert penult("analyze", str(path), "digits:train", "--no-fit", "--out", run) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    said = refused()
    assert "network.onnx has a head with caps (2), which is no linear map of its features" in said
    assert "analyse the network that it was made from" in said
    # Whatever wrote it and says nothing: what is found is said.
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    assert "its output logits is made by Sub, no linear map: expected logits" in refused()


def test_nothing_is_said_of_a_tuned_network_by_features_of_the_one_before(
    digits: Run, tmp_path: Path
) -> None:
    from penult.export.model_card import model_card
    from penult.export.shipment import ExportOptions, Shipment
    from penult.export.shipped_head import shipped_head

    shutil.copytree(digits.folder, tmp_path / "run")
    run, out = str(tmp_path / "run"), tmp_path / "out"
    assert penult("tune", run, "-k", "5", "--epochs", "1") == 0
    arguments = ("-k", "5", "--tuned", "network", "--format", "head", "--timed", "1")
    assert penult("export", run, *arguments, "--out", str(out)) == 0
    document = of(out)
    assert "accuracy" not in document["proof"]
    assert document["notes"] == [
        "No accuracy is given: the run holds features of the network before it was tuned."
    ]
    opened = Run.open(run)
    samples = features_for_proof(opened, 100)
    right = torch.nn.functional.one_hot(samples.labels, 10).float()
    made = shipped_head(opened, k=5, tuned="network")
    card = model_card(Shipment(opened, made, samples, ExportOptions("hf"), logits=right))
    assert "On 100 samples of the run's evaluation data, spread evenly over them" in card
    assert "| this one | 100.00 % |" in card
    assert "The rest of the network was trained further together with this layer." in card
