from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from command import penult
from penult.command import main
from penult.features.features import Features
from penult.features.saving import save_features
from penult.runs.run import Run

FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    penult_transform = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    def __init__(self, n_classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(12, n_classes)
    def forward(self, x):
        return self.fc(self.body(x).flatten(1))

def net(n_classes=3):
    torch.manual_seed(0)
    return Net(n_classes)

def normed():
    model = nn.Sequential(net(), nn.LayerNorm(3))
    model.penult_transform = Net.penult_transform
    return model
"""


def pictures(folder: Path, n: int = 6, classes: tuple[str, ...] = ("ant", "bee", "cat")) -> Path:
    generator = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network, `data` and `eval`, and it is the current one."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(FACTORY)
    pictures(Path("data"))
    pictures(Path("eval"), n=3)
    return tmp_path


def analyze_and_fit(*arguments: str) -> int:
    command = ("analyze", "net.py:net", "data", "--weights", "random", "--out", "run")
    return penult(*command, *arguments)


def analyze(*arguments: str) -> int:
    return analyze_and_fit("--no-fit", *arguments)


def test_analyze_writes_a_complete_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze_and_fit("--eval", "eval", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == Run.open("run").summary()
    assert document["n_samples"] == 18
    assert document["n_eval_samples"] == 9
    assert (document["n_classes"], document["n_features"]) == (3, 12)
    assert document["class_names"] == ["ant", "bee", "cat"]
    assert document["head"] == "fc"
    assert document["evaluated_on"] == "eval"
    assert set(document["influence"]) >= {"frequency", "mass", "contribution", "wanda", "random"}
    for by_size in document["influence"].values():
        assert list(by_size) == ["1", "2", "3", "5", "8", "10"]
        for k, found in by_size.items():
            assert set(found["classes"]) == {"ant", "bee", "cat"}
            assert all(len(kept) == int(k) for kept in found["classes"].values())
    run = Run.open("run")
    assert run.moments().n_samples == 18
    z, labels = run.evaluation().arrays()
    for k in (1, 10):
        sparse = run.head("wanda", k)
        accuracy = (sparse(z).argmax(1) == labels).double().mean()
        assert document["influence"]["wanda"][str(k)]["accuracy"] == pytest.approx(float(accuracy))
        kept = [found.tolist() for found in sparse.subspaces]
        assert kept == list(document["influence"]["wanda"][str(k)]["classes"].values())
    assert penult("show", "run", "--json") == 0
    assert json.loads(capsys.readouterr().out) == document


def test_without_evaluation_data_the_output_says_so(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze_and_fit() == 0
    assert "18 analysed samples (cross-fitted in 5 folds)" in capsys.readouterr().out
    assert Run.open("run").summary()["evaluated_on"] == "train"


def test_a_second_call_finds_the_run_and_another_network_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze() == 0
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*.*")}
    assert analyze() == 0
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*.*")} == before
    Path("net.py").write_text(FACTORY.replace("manual_seed(0)", "manual_seed(1)"))
    capsys.readouterr()
    assert analyze() == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert "holds an analysis that differs in its network" in error[0]
    assert error[0].endswith("choose another --out, or --overwrite to make the run again")
    assert analyze("--overwrite") == 0


def test_what_differs_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze() == 0
    for arguments, what in (
        (["--mean", "0,0,0", "--std", "1,1,1"], "transform"),
        (["--batch-size", "7"], "batch size"),
        (["--seed", "7"], "seed"),
        (["--eval", "eval"], "evaluation data"),
        (["--store", "float16"], "store"),
        (["--dtype", "bfloat16"], "dtype"),
        (["--labels", "predicted"], "labels"),
    ):
        capsys.readouterr()
        assert analyze(*arguments) == 2
        assert f"an analysis that differs in its {what} (" in capsys.readouterr().err
    pictures(Path("data/more"), 1, ("x",))
    assert analyze() == 2
    Path("data/ant/0.png").unlink()


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_with_the_same_bytes(here: Path) -> None:
    pictures(Path("many"), n=1500)
    command = [sys.executable, "-m", "penult", "analyze", "net.py:net", "many", "--eval", "eval"]
    command += ["--weights", "random", "--batch-size", "16", "--json", "--out"]
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*command, "whole"], check=True, **quiet)
    first = Path("cut/features/train/shard-00000.safetensors")
    process = subprocess.Popen([*command, "cut"], **quiet)
    while not first.exists() and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "killed before its end"
    assert not Path("cut/summary.json").exists()
    subprocess.run([*command, "cut"], check=True, **quiet)
    names = {p.relative_to("whole") for p in Path("whole").rglob("*") if p.is_file()}
    left = {p.relative_to("cut") for p in Path("cut").rglob("*") if p.is_file()}
    assert {name for name in left if name.suffix != ".tmp"} == names
    for name in names:
        assert ("cut" / name).read_bytes() == ("whole" / name).read_bytes(), name


def test_features_at_hand_need_no_network(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(90, 12, generator=generator)
    weight = torch.randn(3, 12, generator=generator)
    labels = (z @ weight.T).argmax(1)
    save_features("f.safetensors", Features.of(z, labels, weight, class_names=["a", "b", "c"]))
    assert penult("analyze", "f.safetensors", "--out", "run", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["dense"]["accuracy"], document["dense"]["train_accuracy"]) == (1, 1)
    assert document["class_names"] == ["a", "b", "c"]
    assert list(document["influence"]["mass"]) == ["1", "2", "3", "5", "8", "10"]
    restricted = torch.zeros_like(weight)
    for c, kept in enumerate(document["influence"]["magnitude"]["3"]["classes"].values()):
        expected = weight[c].abs().argsort(descending=True)[:3]
        assert kept == expected.tolist()
        restricted[c, kept] = weight[c, kept]
    accuracy = ((z @ restricted.T).argmax(1) == labels).double().mean()
    found = document["influence"]["magnitude"]["3"]["accuracy"]
    assert found == pytest.approx(float(accuracy))


def test_class_names_put_folders_in_the_order_of_the_logits(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("names.txt").write_text("cat\nbee\nant\n")
    assert analyze("--class-names", "names.txt", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["class_names"] == ["cat", "bee", "ant"]
    _, labels = Run.open("run").train().arrays()
    assert labels.tolist() == [2] * 6 + [1] * 6 + [0] * 6
    Path("names.json").write_text('["zebra", "bee", "ant"]')
    assert analyze("--class-names", "names.json", "--overwrite") == 2
    assert (
        "the data has classes that the network's 3 do not include: cat" in capsys.readouterr().err
    )


def test_predicted_labels_need_no_class_folders(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, path in enumerate(sorted(Path("data").rglob("*.png"))):
        path.rename(Path("data") / f"{i}.png")
    for name in ("ant", "bee", "cat"):
        Path("data", name).rmdir()
    assert analyze() == 2
    assert "--labels predicted" in capsys.readouterr().err
    assert analyze("--labels", "predicted", "--json") == 0
    assert json.loads(capsys.readouterr().out)["dense"]["accuracy"] == 1.0


def test_faulty_images_are_counted_and_shown(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/bee/3.png").write_bytes(b"no image")
    Path("data/cat/1.png").write_bytes(Path("data/cat/1.png").read_bytes()[:60])
    Image.new("L", (8, 8)).save("data/ant/grey.png")
    assert analyze() == 0
    shown = capsys.readouterr().out
    assert "2 samples of train left out, the first: bee/3.png" in shown
    assert "1 greyscale images of train converted" in shown
    assert Run.open("run").summary()["n_samples"] == 17
    assert analyze("--strict", "--out", "strict") == 2
    assert "bee/3.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.py:nett", "data"], "net"),
        (["net.py:net", "dat"], "dat is not there"),
        (["net.py:net"], "DATA is missing: net.py:net is no features file or folder"),
        (["net.py:net", "data", "--set", "n_classes"], "--set: expected key=value"),
        (["net.py:net", "data", "--set", "n_classes=4"], "3 classes (ant, bee, cat) and the netw"),
        (["net.py:normed", "data"], "--head"),
        (["net.py:net", "data", "--head", "body"], "body"),
        (["net.py:net", "data", "--device", "abacus"], "--device abacus cannot be used"),
        (
            ["net.py:net", "data", "--dtype", "int8"],
            "--dtype: expected one of float32, bfloat16",
        ),
        (
            ["net.py:net", "data", "--labels", "none"],
            "--labels: expected one of given, predicted, found 'none'",
        ),
        (["net.py:net", "data", "--batch-size", "0"], "batch size must be at least 1"),
        (["net.py:net", "data", "--batch-size", "x"], "batch-size"),
        (["net.py:net", "data", "--mean", "0,0,0"], "--mean and --std go together"),
        (["net.py:net", "data", "--mean", "a", "--std", "1"], "--mean: expected numbers"),
        (["net.py:net", "data", "--resize", "9"], "--resize needs --size"),
        (["net.py:net", "data", "--frequency-top", "a"], "--frequency-top: expected a number"),
        (
            ["net.py:net", "data", "--frequency-top", "13"],
            "a top is a number of features in [1, 12]",
        ),
        (["net.py:net", "data", "--class-names", "absent"], "--class-names absent cannot be read"),
        (
            ["net.py:net", "data", "--eval", "odd"],
            "the evaluation data has classes that the network",
        ),
        (["net.py:net", "data", "--nonsense"], "--nonsense"),
        (["net.py:net", "data", "--weights", "absent.pt"], "absent.pt"),
        (["net.py:net", "absent.safetensors"], "features need no network"),
        (["absent.safetensors", "--size", "4"], "--size is for images, and absent"),
        (["net.py:net", "data", "--size", "100000"], "resize must be at most 8192 pixels a side"),
        (["net.py:net", "data", "--seed", "-1"], "the seed must lie in [0, 2**63), found -1"),
        (["net.py:net", "two"], "the data has 2 classes (ant, bee) and the network 3: give --cla"),
        (["net.py:net", "data", "--set", "n_classes=2"], "the network only 2: give a network for"),
        (["absent.safetensors"], "absent.safetensors does not exist"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    pictures(Path("odd"), 1, ("dodo",))
    pictures(Path("two"), 1, ("ant", "bee"))
    of_features = "absent.safetensors" in arguments
    weights = [] if "--weights" in arguments or of_features else ["--weights", "random"]
    assert penult("analyze", *arguments, *weights, "--out", "run") == 2
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert len(lines) == 1, output.err
    assert lines[0].startswith("penult: error: ")
    assert message in lines[0]
    assert output.out == ""
    assert not Path("run/features").exists(), "before the long work"


def test_show_lists_what_is_asked_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze() == 0
    capsys.readouterr()
    assert penult("show", "run", "--score", "wanda", "-k", "3", "--class", "bee") == 0
    shown = capsys.readouterr().out
    kept = Run.open("run").summary()["influence"]["wanda"]["3"]["classes"]
    assert " ".join(f"{j:>4}" for j in kept["bee"]) in shown
    listed = shown[shown.index("Features that decide") :]
    assert "ant" not in listed
    for arguments, message in (
        (["run", "--score", "x"], "no score is called 'x'; there are frequency"),
        (["run", "-k", "4"], "the run holds no k = 4; it holds 1, 2, 3"),
        (["run", "--class", "x"], "no class is called 'x'"),
        (["data"], "data is no run folder"),
    ):
        assert penult("show", *arguments) == 2
        assert message in capsys.readouterr().err


def test_a_damaged_run_is_made_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze_and_fit("--eval", "eval") == 0
    whole = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    for name in (
        "summary.json",
        "influence.safetensors",
        "heads/mass-k005.safetensors",
        "features/train/shard-00000.safetensors",
    ):
        Path("run", name).unlink()
        assert analyze_and_fit("--eval", "eval") == 0
        assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == whole, name
    Path("run/run.json").write_text('{"format": "penult-run/2"}')
    capsys.readouterr()
    for command in (["show", "run"], ["analyze", "net.py:net", "data", "--out", "run"]):
        assert penult(*command, *(["--weights", "random"] if "data" in command else [])) == 2
        said = capsys.readouterr().err
        assert "run.json is damaged: " in said
        assert "--overwrite" in said, "the remedy"
    assert analyze_and_fit("--eval", "eval", "--overwrite") == 0
    assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == whole


def test_overwrite_leaves_files_that_are_not_the_runs(here: Path) -> None:
    assert analyze() == 0
    Path("run/precious.safetensors").touch()
    Path("run/features/mine").touch()
    assert analyze("--seed", "1", "--overwrite") == 0
    assert Path("run/precious.safetensors").exists()
    assert Path("run/features/mine").exists()


def test_strict_refuses_a_finished_run_that_left_images_out(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/bee/3.png").write_bytes(b"no image")
    assert analyze() == 0
    capsys.readouterr()
    assert analyze("--strict") == 2
    assert "bee/3.png" in capsys.readouterr().err


def test_what_the_network_prints_stays_out_of_the_document(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("net.py").write_text(
        FACTORY.replace(
            "def net(n_classes=3):", "print('hello')\n\ndef net(n_classes=3):\n    print('hello')"
        )
    )
    assert analyze("--json") == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["n_samples"] == 18
    assert "hello" in output.err


def test_one_faulty_image_among_the_first_does_not_stop_the_search_for_the_head(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8), (255, 255, 255)).save("data/ant/0.png")
    white = "        x = torch.where((x > 1.9).all((1, 2, 3), keepdim=True), torch.nan, x)\n"
    Path("net.py").write_text(
        FACTORY.replace("        return self.fc", white + "        return self.fc")
    )
    assert analyze("--json") == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["n_samples"] == 17
    assert "1 samples of train left out, the first: ant/0.png: feature 0 is nan" in output.err
    broken = "    model = Net(n_classes)\n    model.fc.weight.data[0] = torch.nan\n    return model"
    Path("net.py").write_text(FACTORY.replace("    return Net(n_classes)", broken))
    assert analyze("--overwrite") == 2
    assert "the network's weights are NaN or infinite in fc.weight" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "place", "after"),
    [
        (
            ("analyze", "net.py:net", "data"),
            "option_groups.load_model",
            "repeat the command to resume",
        ),
        (("fit", "f.safetensors", "--out", "o"), "fit.seconds_of", "nothing was written"),
        (("tune", "run", "-k", "5"), "app.run_tune", "repeat the command to resume it"),
        (("report", "run"), "pictures.open_run", "the run has all that it had before"),
        (("measure", "run"), "measure.open_run", "repeat the command"),
        (("show", "run"), "app.Run.open", "nothing was written"),
    ],
)
def test_an_interrupt_says_how_to_go_on(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    place: str,
    after: str,
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"penult.cli.{place}", interrupt)
    out = ["--out", "run"] if arguments[0] == "analyze" else []
    assert penult(*arguments, *out) == 130
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"penult: interrupted: {after}")


def test_evaluation_features_are_matched_by_class_name(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = torch.Generator().manual_seed(0)
    z, weight = torch.rand(60, 4, generator=generator), torch.randn(3, 4, generator=generator)
    labels = (z @ weight.T).argmax(1)
    save_features("f.safetensors", Features.of(z, labels, weight, class_names=["a", "b", "c"]))
    swapped = Features.of(z, 2 - labels, class_names=["c", "b", "a"])
    save_features("swapped.safetensors", swapped)
    command = ["analyze", "f.safetensors", "--json", "--out"]
    assert penult(*command, "run", "--eval", "swapped.safetensors") == 0
    assert json.loads(capsys.readouterr().out)["dense"]["accuracy"] == 1.0
    for name, other, message in (
        ("names", Features.of(z, labels, class_names=["a", "b", "x"]), "do not include: x"),
        ("head", Features.of(z, labels, -weight), "come with another head"),
        ("labels", Features.of(z, labels + 3), r"labels must lie in [0, 3), found"),
    ):
        save_features(f"{name}.safetensors", other)
        assert penult(*command, name, "--eval", f"{name}.safetensors") == 2
        assert message in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert penult("--version") == 0
    assert capsys.readouterr().out.startswith("penult 0.")
    assert penult("analyze", "-h") == 0
    assert "--frequency-top" in capsys.readouterr().out


def test_names_of_classes_are_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = ("[bold]x[-]", "\x1b[31mred", "n" * 200)
    pictures(Path("names"), 2, odd)
    assert penult("analyze", "net.py:net", "names", "--weights", "random", "--out", "run") == 0
    shown = capsys.readouterr().out
    assert "[bold]x[-]" in shown
    assert "\x1b[31mred" not in shown
    assert all(len(line) <= 100 for line in shown.splitlines()[:-1])


def test_a_checkpoint_with_code_in_it_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(nn.Linear(2, 2), "whole.pt")
    assert analyze("--weights", "whole.pt") == 2
    assert "--trust-checkpoint" in capsys.readouterr().err


def test_zips_are_read_and_those_that_climb_out_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile("data.zip", "w") as archive:
        for path in Path("data").rglob("*.png"):
            archive.write(path, path.relative_to("data"))
    command = ["analyze", "net.py:net", "--weights", "random", "--no-fit", "--json"]
    assert penult(*command, "data.zip", "--out", "zipped") == 0
    zipped = json.loads(capsys.readouterr().out)
    assert analyze("--json") == 0
    assert json.loads(capsys.readouterr().out) == zipped
    with zipfile.ZipFile("data.zip", "a") as archive:
        archive.write("data/ant/0.png", "../ant/evil.png")
    assert penult(*command, "data.zip", "--out", "other") == 2
    assert "../ant/evil.png" in capsys.readouterr().err


def test_demo_runs_offline(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert penult("demo", "--out", "demo") == 0
    shown = capsys.readouterr().out
    assert "Features that decide each class" in shown
    summary = Run.open("demo").summary()
    assert summary["n_samples"] + summary["n_eval_samples"] == 1797
    assert summary["dense"]["accuracy"] > 0.95
    frequency, random = (summary["influence"][name]["3"] for name in ("frequency", "random"))
    assert frequency["accuracy"] > random["accuracy"] + 0.2
    data = ["penult.demo:DigitsCNN", "digits:train", "--eval", "digits:test"]
    arguments = ["--weights", "demo/network.safetensors", "--out", "again", "--no-fit", "--json"]
    assert penult("analyze", *data, *arguments) == 0
    assert json.loads(capsys.readouterr().out)["influence"] == summary["influence"]


def test_layers_are_measured_by_one_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = ("net.py:net", "data", "--weights", "random")
    assert penult("measure", *network, "--layer", "nope") == 2
    assert "nope" in capsys.readouterr().err
    options = ("--layers", "all", "--eval", "eval", "--out", "layers", "--plots", "plots")
    assert penult("measure", *network, *options, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == "penult-layers/1"
    assert document["layers"]
    assert list(document["measures"]) == document["layers"]
    for name, measures in document["measures"].items():
        assert measures["layer"] == name
        assert measures["essentiality"] is None
        assert (measures["n_samples"], measures["n_eval_samples"]) == (18, 9)
    assert all(len(row) == len(document["layers"]) for row in document["rows"].values())
    assert (here / "plots" / "layers.png").is_file()
    assert penult("measure", *network, "--layer", document["layers"][0]) == 0
    assert document["layers"][0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "other"), "2 runs: expected one, or --compare"),
        (("run", "--layer", "x"), "--layer and --layers need MODEL and DATA, no run: found run"),
        (("a", "b", "--layer", "x", "--layers", "all"), "exclude each other"),
        (("a", "b", "--layers", "x"), "--layers: expected all, found 'x'"),
        (("run", "--batch-size", "3"), "--batch-size is for images"),
        (("run", "--fraction", "1.5"), r"must lie in \(0, 1\), found 1.5"),
    ],
)
def test_bad_measure_arguments(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert penult("measure", *arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_show_lists_the_features_of_fitted_heads(
    digits: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        penult("show", str(digits.folder), "--score", "curvature", "-k", "3", "--class", "7") == 0
    )
    page = capsys.readouterr().out
    (row,) = [line for line in page.splitlines() if line.startswith("7  ")]
    assert list(map(int, row.split()[7:])) == digits.head("curvature", 3).subspaces[7].tolist()


def test_an_interrupt_while_the_parts_are_loaded_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "penult.cli.app", Interrupted("penult.cli.app"))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert capsys.readouterr().err == "penult: interrupted: nothing was written\n"
