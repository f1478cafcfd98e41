from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import penult.demo
import penult.runs.tune.training
from penult.cli.app import main
from penult.data.augmentation import augmentations_of, augmented, crop, flip, harmless
from penult.data.open import open_data
from penult.errors import InputError
from penult.features.features import Features
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces
from penult.network.load import load_model
from penult.progress import Progress
from penult.runs.analyze import analyze_features, analyze_network
from penult.runs.reopen import Places, reopen_images, reopen_network
from penult.runs.run import Run
from penult.runs.trust import remember
from penult.runs.tune import folder
from penult.runs.tune.folder import Tuned
from penult.runs.tune.training import Training, TrainingPlan
from penult.runs.tune.tune import split, tune
from penult.storage import read_json, write_json
from penult.user_code import code_digest

QUICK = TrainingPlan(epochs=1, augment=())


@pytest.fixture(scope="module")
def demo_run(shared_folder: Callable[..., Path]) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(penult.demo, "EPOCHS", 3)
        return shared_folder("briefly trained", penult.demo.demo)


@pytest.fixture
def run(demo_run: Path, tmp_path: Path) -> Run:
    """A copy of its own of the digits run."""
    shutil.copytree(demo_run, tmp_path / "run")
    return Run.open(tmp_path / "run")


def hashes(folder: Path) -> dict[str, bytes]:
    found = [p for p in folder.rglob("*") if p.is_file() and "tuned" not in p.parts]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found if p.name != ".lock"}


def rebuilt(run: Run, source: str) -> Run:
    """The run as if the digits network had come from a factory of other source."""
    Path("net.py").write_text(source)
    about = read_json(run.folder / "run.json")
    loaded = load_model("net.py:net", weights=run.folder / "network.safetensors")
    code = code_digest("net.py:net")
    about["network"] |= {"spec": "net.py:net", "fingerprint": loaded.fingerprint, "code": code}
    remember("net.py:net")
    write_json(run.folder / "run.json", about)
    return Run.open(run.folder)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).double().mean())


def digits(part: int) -> tuple[Tensor, Tensor]:
    """Images and labels straight from scikit-learn, prepared by hand."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    rows = range(len(found.target))
    parts = train_test_split(rows, test_size=0.2, random_state=0, stratify=found.target)
    chosen = sorted(parts[part])
    grey = torch.from_numpy(found.images[chosen]).mul(255 / 16).round() / 255
    images = ((grey - 0.5) / 0.5).float()[:, None]
    return images, torch.from_numpy(found.target[chosen]).long()


def test_training_repairs_what_too_few_features_lost(run: Run) -> None:
    untouched = hashes(run.folder)
    tuned = tune(run, 2, select="random", recipe=TrainingPlan(epochs=4))
    found = tuned.document
    assert found["before"]["accuracy"] < 0.6, "a bad start"
    assert found["after"]["accuracy"] > found["refitted"]["accuracy"] + 0.05
    assert hashes(run.folder) == untouched, "the run itself is as it was"
    assert not (tuned.folder / "checkpoint.safetensors").exists()
    losses = [epoch["loss"] for epoch in found["epochs"]]
    assert losses[-1] < losses[0]
    best = found["epochs"][found["best_epoch"] - 1]["held_out"]
    assert best == max(epoch["held_out"] for epoch in found["epochs"]) == found["after"]["held_out"]
    assert tuned.head().subspaces.indices.equal(run.head("random", 2).subspaces.indices)
    # What was reported is what the files give, on images prepared by hand.
    images, labels = digits(1)
    network = tuned.network()
    assert isinstance(network.head, SparseHead)
    assert accuracy(network, images, labels) == pytest.approx(found["after"]["accuracy"])
    dense = load_model("penult.demo:DigitsCNN", weights=tuned.folder / "network.safetensors").model
    assert found["head_in_network"]
    with torch.no_grad():
        assert torch.allclose(dense(images), network(images), atol=1e-4)
    again = tune(run, 2, select="random", recipe=TrainingPlan(epochs=4))
    assert again.document == found, "what is done is not done again"
    assert Tuned.open(run, 2, "random").document == found


def test_the_fitted_head_is_taken_else_the_best_on_the_analysed_data(run: Run) -> None:
    z, labels = run.train().arrays()
    found: dict[str, float] = {}
    # The network may know these data by heart: that must not speak against the fitted head.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder, "accuracies", lambda heads, _: [1.0, *[0.0] * (len(heads) - 1)])
        assert folder.selection(run, 5, None) == "curvature"
    for path in (run.folder / "heads").glob("curvature-*"):
        path.unlink()
    for path in (run.folder / "heads").glob("*-k005.safetensors"):
        found[path.name.split("-")[0]] = accuracy(SparseHead.load(path), z, labels)
    document = tune(run, 5, head_only=True).document
    assert found[document["select"]] == max(found.values())


def test_the_head_alone_ends_at_the_optimum(run: Run) -> None:
    shutil.rmtree(run.folder / "heads")
    z, labels = run.train().arrays()
    dense = run.train().require_head()
    generator = torch.Generator().manual_seed(0)
    kept = [torch.randperm(64, generator=generator)[:3].tolist() for _ in range(10)]
    sparse = SparseHead.from_dense(dense.weight, dense.bias, Subspaces.of(kept, 64), "head")
    sparse.save(run.head_file("drawn", 3))
    recipe = TrainingPlan(seed=3)
    tuned = tune(run, 3, head_only=True, recipe=recipe)
    rows, held = split(labels, 3)
    heat = recipe.temperature

    def loss(head: SparseHead) -> Tensor:
        x = z[rows].double()
        weight = head.dense_weight().double()
        target = F.linear(x, dense.weight.double(), dense.bias.double()) / heat
        logits = F.linear(x, weight, head.bias.double()) / heat
        return heat**2 * F.kl_div(logits.log_softmax(1), target.softmax(1), reduction="batchmean")

    def slope(head: SparseHead) -> float:
        """Largest gradient, each feature in its standard deviations."""
        by_value, by_bias = torch.autograd.grad(loss(head), (head.values, head.bias))
        scaled = by_value / z[rows].std(0)[head.indices].clamp(min=1e-6)
        return float(torch.cat([scaled, by_bias]).abs().max())

    after = tuned.head()
    assert loss(after).item() < loss(sparse).item()
    assert slope(after) < 0.01 * slope(sparse)
    found = tuned.document
    assert found["before"]["held_out"] == pytest.approx(accuracy(sparse, z[held], labels[held]))
    assert found["after"]["held_out"] == pytest.approx(accuracy(after, z[held], labels[held]))
    assert "epochs" not in found
    assert not (tuned.folder / "network.safetensors").exists()
    assert isinstance(tuned.network().head, SparseHead)


def test_a_killed_tuning_ends_with_the_same_bits(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = rebuilt(run, DROPOUT)
    recipe = TrainingPlan(epochs=2, augment=("flip", "crop"), loss="labels")
    whole = tune(run, 3, select="frequency", recipe=recipe)
    shutil.copytree(run.folder, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "tuned")
    cut = Run.open(tmp_path / "cut")
    monkeypatch.setattr(penult.runs.tune.training, "CHECKPOINT_SECONDS", 0.0)
    for stop in (3, 13):  # within an epoch of 10 steps, the first and the second

        def heard(name: str, stop: int = stop) -> Progress:
            def tell(done: int, total: int) -> None:
                if done == stop * recipe.batch_size:
                    raise KeyboardInterrupt

            return tell

        with pytest.raises(KeyboardInterrupt):
            tune(cut, 3, select="frequency", recipe=recipe, progress=heard)
        with pytest.raises(InputError, match="is unfinished: run the same command again"):
            Tuned.open(cut, 3, "frequency")
        with safe_open(
            tmp_path / "cut/tuned/frequency-k003/checkpoint.safetensors", framework="pt"
        ) as file:
            progress = json.loads(file.metadata()["progress"])
        assert progress["epoch"] * 10 + progress["batch"] == stop - 1, "the step before was kept"
    resumed = tune(cut, 3, select="frequency", recipe=recipe)
    assert resumed.document["files"] == whole.document["files"]
    assert resumed.document["after"] == whole.document["after"]
    for one, other in zip(resumed.document["epochs"], whole.document["epochs"], strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}


DROPOUT = """
from torch import nn
from penult.demo import DigitsCNN

def net():
    network = DigitsCNN()
    network.last.append(nn.Dropout(0.3))
    return network
"""


def test_a_checkpoint_of_something_else_is_not_gone_on_with(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def heard(name: str) -> Progress:
        def tell(done: int, total: int) -> None:
            if done > 4 * 128:
                raise KeyboardInterrupt

        return tell

    other = replace(QUICK, seed=1)
    whole = tune(run, 5, select="mass", recipe=other).document
    shutil.rmtree(run.folder / "tuned")
    monkeypatch.setattr(penult.runs.tune.training, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        tune(run, 5, select="mass", recipe=QUICK, progress=heard)
    (run.folder / "tuned" / "mass-k005" / "tune.json").unlink()
    assert tune(run, 5, select="mass", recipe=other).document["files"] == whole["files"]


@pytest.mark.slow
def test_kill_9_leaves_something_to_go_on_with(run: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(run.folder)]
    checkpoint = run.folder / "tuned" / "wanda-k005" / "checkpoint.safetensors"
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert checkpoint.exists()
    resumed = tune(run, 5, select="wanda", recipe=QUICK).document
    shutil.rmtree(run.folder / "tuned")
    assert tune(run, 5, select="wanda", recipe=QUICK).document["files"] == resumed["files"]
    afresh = tune(run, 5, select="wanda", recipe=replace(QUICK, seed=1), overwrite=True).document
    assert afresh["files"] != resumed["files"], "the seed matters"


KILLED = """
import sys, torch
import penult.demo
import penult.runs.tune.training
from penult.runs.tune.training import TrainingPlan
from penult.runs.tune.tune import tune
torch.set_num_threads(1)
penult.runs.tune.training.CHECKPOINT_SECONDS = 0.0
tune(sys.argv[1], 5, select="wanda", recipe=TrainingPlan(epochs=1, augment=()))
"""


def test_other_options_are_refused_and_overwrite_replaces(run: Run) -> None:
    tune(run, 5, select="mass", recipe=QUICK, head_only=True)
    folder = run.folder / "tuned" / "mass-k005-head"
    before = (folder / "head.safetensors").read_bytes()
    other = replace(QUICK, loss="labels")
    for recipe, what in (
        (replace(QUICK, epochs=2), r"another epochs \(1; now 2\)"),
        (other, r"another loss \(distill; now labels\)"),
    ):
        with pytest.raises(InputError, match=rf"{what}: give the same options .*--overwrite"):
            tune(run, 5, select="mass", recipe=recipe, head_only=True)
    assert (folder / "head.safetensors").read_bytes() == before
    tune(run, 5, select="mass", recipe=other, head_only=True, overwrite=True)
    assert read_json(folder / "tune.json")["identity"]["loss"] == "labels"
    assert (folder / "head.safetensors").read_bytes() != before


def test_the_lock_keeps_a_second_tuning_out(run: Run) -> None:
    folder = run.folder / "tuned" / "mass-k005-head"
    folder.mkdir(parents=True)
    with (
        FileLock(folder / ".lock"),
        pytest.raises(InputError, match="another process is tuning in .*: wait for it to end"),
    ):
        tune(run, 5, select="mass", head_only=True)


def test_heads_that_are_not_there(run: Run) -> None:
    with pytest.raises(InputError, match=r"holds no head of k = 4; it holds k = 1, 2, 3, 5, 8"):
        tune(run, 4)
    with pytest.raises(InputError, match=r"holds no head 'best' of k = 5; it holds .*frequency"):
        tune(run, 5, select="best")
    with pytest.raises(InputError, match="no run folder"):
        tune(run.folder / "heads", 5)


def test_a_run_of_features_tunes_the_head_alone(tmp_path: Path, demo_run: Path) -> None:
    z, labels = Run.open(demo_run).train().arrays()
    dense = Run.open(demo_run).train().require_head()
    run = analyze_features(Features.of(z, labels, dense.weight, dense.bias), None, tmp_path / "run")
    with pytest.raises(
        InputError, match=r"made from features .* tune the head alone with --head-o"
    ):
        tune(run, 5)
    assert tune(run, 5, head_only=True).document["evaluated_on"] == "train"
    with pytest.raises(InputError, match="was made from features: it names no network"):
        reopen_network(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"weights": "gone.safetensors"}}, "gone.safetensors"),
        ({"network": {"spec": "penult.demo:Gone"}}, "Gone"),
        (
            {"network": {"fingerprint": "0"}},
            "is no longer the network of .*own checkpoint with --weights",
        ),
        (
            {"data": {"kind": "arrays"}},
            r"cannot be opened \(the run does not say where they are\): give --data",
        ),
        ({"data": {"path": "gone"}}, r"cannot be opened \(gone is not there.*: give --data"),
        ({"data": {"fingerprint": "0"}}, "digits:train no longer holds the images of .*--data"),
        ({"evaluation": {"fingerprint": "0"}}, "digits:test no longer holds the images .*--eval"),
    ],
)
def test_network_or_images_that_are_gone(run: Run, change: dict[str, Any], message: str) -> None:
    about = read_json(run.folder / "run.json")
    for part, values in change.items():
        about[part] |= values
    write_json(run.folder / "run.json", about)
    with pytest.raises(InputError, match=message):
        tune(run.folder, 5, recipe=QUICK)


def test_what_has_moved_can_be_named(run: Run, tmp_path: Path) -> None:
    about = read_json(run.folder / "run.json")
    about["network"]["weights"] = "gone.safetensors"
    about["data"]["path"] = "gone"
    write_json(run.folder / "run.json", about)
    (run.folder / "network.safetensors").rename(tmp_path / "moved.safetensors")
    sources = Places(data="digits:train", weights=tmp_path / "moved.safetensors")
    tuned = tune(run.folder, 5, recipe=QUICK, sources=sources)
    assert tuned.document["complete"]
    with pytest.raises(InputError, match="digits:test no longer holds the images"):
        tune(run.folder, 8, recipe=QUICK, sources=replace(sources, data="digits:test"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, found 0"),
        ({"batch_size": 1}, "batch size must be at least 2, found 1"),
        ({"rate": 0.0}, r"rate is a fraction above 0 and below 1, found 0\.0"),
        ({"loss": "mse"}, "loss must be one of distill, labels, found 'mse'"),
        ({"temperature": float("nan")}, "temperature must be above 0 and finite, found nan"),
        ({"dtype": torch.float16}, "trained in float32 or bfloat16, found float16"),
    ],
)
def test_recipes_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingPlan(**options)


def test_small_data_get_more_epochs() -> None:
    assert TrainingPlan().n_epochs(390) == 3
    assert TrainingPlan().n_epochs(10) == 20
    assert TrainingPlan(epochs=2).n_epochs(10) == 2


def test_the_rate_follows_the_number_of_steps() -> None:
    assert TrainingPlan().rate_over(1) == TrainingPlan().rate_over(100) == pytest.approx(0.01)
    assert TrainingPlan().rate_over(10_000) == pytest.approx(0.001)
    assert TrainingPlan(rate=0.5).rate_over(10_000) == 0.5


def test_a_network_that_is_scaled_is_trained_alike(run: Run, tmp_path: Path) -> None:
    # The first convolution a thousand times larger, undone by the BatchNorm after it.
    weights = load_file(run.folder / "network.safetensors")
    weights["stem.0.weight"] *= 1000
    weights["stem.1.running_mean"] *= 1000
    weights["stem.1.running_var"] *= 1000**2
    save_file(weights, tmp_path / "scaled.safetensors")
    plain = tune(run, 3, select="frequency", recipe=QUICK).document
    loaded = load_model("penult.demo:DigitsCNN", weights=tmp_path / "scaled.safetensors")
    about = read_json(run.folder / "run.json")
    about["network"]["fingerprint"] = loaded.fingerprint
    write_json(run.folder / "run.json", about)
    sources = Places(weights=tmp_path / "scaled.safetensors")
    shutil.rmtree(run.folder / "tuned")
    scaled = tune(run.folder, 3, select="frequency", recipe=QUICK, sources=sources).document
    assert scaled["epochs"][0]["loss"] == pytest.approx(plain["epochs"][0]["loss"], rel=0.05)
    assert scaled["after"]["accuracy"] == pytest.approx(plain["after"]["accuracy"], abs=0.02)


def test_frozen_parameters_are_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = rebuilt(run, FROZEN)
    with pytest.warns(UserWarning, match=r"network itself freezes stem\.0\.weight: not trained"):
        tuned = tune(run, 5, recipe=QUICK)
    assert tuned.document["frozen"] == ["stem.0.weight"]
    before = load_file(run.folder / "network.safetensors")
    after = load_file(tuned.folder / "network.safetensors")
    same = {name for name in before if before[name].equal(after[name])}
    assert same == {"stem.0.weight"}, "everything else is trained"


FROZEN = """
from penult.demo import DigitsCNN

def net():
    network = DigitsCNN()
    network.stem[0].weight.requires_grad_(False)
    return network
"""


def test_bfloat16_trains(run: Run) -> None:
    recipe = TrainingPlan(epochs=1, dtype=torch.bfloat16, augment=())
    found = tune(run, 8, select="frequency", recipe=recipe).document
    assert found["after"]["accuracy"] > 0.9
    tensors = load_file(run.folder / "tuned" / "frequency-k008" / "network.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float32, torch.int64}


def test_a_rate_that_is_too_large_is_found_out(run: Run) -> None:
    with pytest.warns(UserWarning, match="on held-out images tuning made the head worse"):
        tuned = tune(run, 5, recipe=replace(QUICK, rate=0.5)).document
    assert tuned["after"]["held_out"] < tuned["before"]["held_out"]


def test_a_loss_that_is_not_finite_stops(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Training, "_loss", lambda self, logits, *rest: logits.sum() * torch.nan)
    with pytest.raises(InputError, match="the loss became nan in epoch 1: give a smaller --rate"):
        tune(run, 5, recipe=QUICK)


def test_digits_are_neither_mirrored_nor_cropped(run: Run) -> None:
    document = tune(run, 5, recipe=TrainingPlan(epochs=1)).document
    assert document["augment"] == []
    assert document["augment_accuracy"]["flip"] < 0.9


def test_split_holds_out_a_tenth_of_each_class() -> None:
    labels = torch.arange(10).repeat_interleave(torch.arange(0, 200, 20))
    kept, held = split(labels, 0)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert labels[held].bincount(minlength=10).tolist() == [2 * c for c in range(10)]
    assert split(labels, 0)[1].equal(held)
    assert not split(labels, 1)[1].equal(held)
    many = torch.arange(100).repeat_interleave(1000)
    assert len(split(many, 0)[1]) == 5000
    assert len(split(torch.tensor([0, 0, 1]), 0)[1]) == 1
    with pytest.raises(InputError, match="too few samples to train on .*: found 3"):
        split(torch.tensor([0, 1, 2]), 0)


def test_flip_mirrors_whole_images() -> None:
    images = torch.arange(64.0).reshape(8, 2, 2, 2)
    found = augmented(images, ("flip",), torch.Generator().manual_seed(0))
    mirrored = [bool(one.equal(other.flip(-1))) for one, other in zip(found, images, strict=True)]
    kept = [bool(one.equal(other)) for one, other in zip(found, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 0 < sum(mirrored) < 8
    assert flip(images, torch.Generator().manual_seed(0)).equal(found)


def test_crop_shifts_by_at_most_an_eighth() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(40, 3, 16, 24, generator=generator)
    found = augmented(images, ("crop",), torch.Generator().manual_seed(1))
    assert found.is_contiguous()
    seen = set()
    for one, other in zip(found, images, strict=True):
        padded = F.pad(other[None], (3, 3, 2, 2), mode="reflect")[0]
        places = [
            (y, x)
            for y in range(5)
            for x in range(7)
            if padded[:, y : y + 16, x : x + 24].equal(one)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 15
    tiny = torch.randn(3, 1, 1, 2)
    assert crop(tiny, generator).shape == tiny.shape


def test_augmentations_are_named() -> None:
    assert augmentations_of("auto") is None
    assert augmentations_of("none") == ()
    assert augmentations_of("crop,flip") == ("crop", "flip")
    with pytest.raises(InputError, match="some of flip, crop as augment, found 'rotate'"):
        augmentations_of("crop,rotate")


def test_harm_is_seen_overall_and_in_one_class() -> None:
    labels = torch.arange(50).repeat_interleave(20)
    right = torch.ones(1000, dtype=torch.bool)
    few = right.clone()
    few[::60] = False  # 17 of 1000, spread
    assert harmless(right, few, labels)
    many = right.clone()
    many[::30] = False
    assert not harmless(right, many, labels)
    one = right.clone()
    one[:5] = False  # 5 of 20 in one class, 0.5 % overall
    assert not harmless(right, one, labels)
    assert harmless(right, right, torch.tensor([0] * 999 + [7]))


def test_the_command_line_prints_a_page_or_one_document(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def penult_tune(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["penult", "tune", str(run.folder), *arguments])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    quick = ("-k", "5", "--select", "wanda", "--epochs", "1", "--augment", "none")
    assert penult_tune(*quick, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == read_json(run.folder / "tuned" / "wanda-k005" / "tune.json")
    assert penult_tune(*quick) == 0
    shown = capsys.readouterr().out
    for part in ("before", "refitted", "after"):
        assert f"{100 * document[part]['accuracy']:.2f}" in shown
    assert "Epochs    1, best 1; augmentation: none" in shown
    assert penult_tune("-k", "5", "--head-only") == 0
    assert "Tuned     the head alone" in capsys.readouterr().out
    for arguments, message in (
        (("-k", "4"), "the run holds no head of k = 4"),
        (("-k", "5", "--loss", "mse"), "loss must be one of distill, labels"),
        (("-k", "5", "--augment", "spin"), "expected auto, none or some of flip, crop"),
        ((*quick, "--seed", "1"), "another seed (0; now 1): give the same options"),
        ((*quick, "--data", "digits:test", "--overwrite", "--seed", "1"), "no longer holds"),
    ):
        assert penult_tune(*arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("penult: error: ")
        assert message in lines[0]


def test_images_that_the_run_left_out_are_left_out_again(demo_run: Path, tmp_path: Path) -> None:
    data = open_data("digits:test")
    for i in range(30):
        folder = tmp_path / "data" / str(i % 3)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(data.load(i))).save(folder / f"{i:02d}.png")
    for name in ("0/03.png", "1/28.png"):
        (tmp_path / "data" / name).write_bytes(b"no image")
    model = load_model("penult.demo:DigitsCNN", weights=demo_run / "network.safetensors").model
    images = open_data(tmp_path / "data")
    run = analyze_network(
        model,
        Run.open(demo_run).train().require_head(),
        images,
        None,
        tmp_path / "run",
        transform=penult.demo.TRANSFORM,
        class_names=[str(i) for i in range(10)],
        network={"spec": "", "weights": None, "set": [], "fingerprint": ""},
    )
    found = reopen_images(run, "data")
    wanted = [images.id(i) for i in range(30) if images.id(i) not in ("0/03.png", "1/28.png")]
    assert [found.id(i) for i in range(len(found))] == wanted
    assert np.asarray(found.load(3)).tolist() == np.asarray(data.load(12)).tolist()
    assert found.labels is not None
    assert found.labels.tolist() == [int(name[0]) for name in wanted]
    part = found.part(torch.tensor([20, 3]))
    assert [part.id(0), part.id(1)] == [wanted[20], wanted[3]]
