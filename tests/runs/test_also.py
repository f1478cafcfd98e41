"""Further samples that heads are fitted to: unlabelled ones, and views of the analysed images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from command import penult
from penult.data.image import ImageData
from penult.data.open import open_data
from penult.data.source import Pass
from penult.data.transform import Transform
from penult.features.features import Features
from penult.features.saving import save_features
from penult.features.unlabelled import open_unlabelled
from penult.heads.path import fit_path
from penult.heads.plan import Plan
from penult.runs.run import Run
from penult.runs.views import ViewSource
from small_run import NET


def entangled(n: int, seed: int, d: int = 30) -> Features:
    """Samples of a dense head that needs all features; the labels are its own."""
    weight = torch.randn(5, d, generator=torch.Generator().manual_seed(7))
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return Features.of(z, (z @ weight.T).argmax(1), weight)


def pictures(folder: Path, n: int, seed: int) -> Path:
    """Images of three classes, which differ by their mean colour: a mirror changes nothing."""
    draw = np.random.default_rng(seed)
    for c, name in enumerate("abc"):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = draw.integers(0, 120, (12, 12, 3))
            pixels[..., c] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    pictures(Path("data"), 8, 0)
    pictures(Path("eval"), 8, 1)
    pictures(Path("more"), 20, 2)
    for i, path in enumerate(sorted(Path("more").rglob("*.png"))):
        path.rename(Path("more") / f"{i}.png")
    for name in "abc":
        Path("more", name).rmdir()
    return tmp_path


def analyze(*arguments: str, out: str = "run") -> int:
    command = ["analyze", "net.py:net", "data", "--eval", "eval", "--weights", "random"]
    return penult(*command, "--out", out, *arguments)


def test_unlabelled_images_are_fitted_to_and_counted_nowhere_else(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze(out="alone") == 0
    assert analyze("--also", "more") == 0
    assert "Fitted    to these and 60 unlabelled samples" in capsys.readouterr().out
    alone, run = Run.open("alone").summary(), Run.open("run").summary()
    assert run["n_also"] == 60
    for key in ("n_samples", "class_counts", "influence", "dense", "judge"):
        assert run[key] == alone[key], key
    assert [row["k"] for row in run["path"]] == [row["k"] for row in alone["path"]]
    assert [row["kl"] for row in run["path"]] != [row["kl"] for row in alone["path"]]
    about = json.loads(Path("run/run.json").read_text())
    assert about["also"]["n_samples"] == 60
    assert about["identity"]["also"] == about["also"]["fingerprint"]
    assert analyze("--also", "data") == 2
    assert "holds an analysis that differs in its also" in capsys.readouterr().err
    assert analyze() == 2
    assert "holds an analysis that differs in its also" in capsys.readouterr().err
    shutil.rmtree("run/features/also")
    assert analyze("--also", "more") == 0
    assert Path("run/features/also/index.json").is_file()


def test_views_are_fitted_to_as_far_as_the_network_survives_them(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze("--views", "2", "--labels", "predicted") == 0
    run = Run.open("run")
    found = run.summary()["views"]
    assert "flip" in found["kinds"]
    assert set(found["accuracy"]) == {"flip", "crop"}
    assert run.about["identity"]["views"] == 2
    first, second = (view.arrays()[0] for view in run.views())
    plain = run.train().arrays()[0]
    assert first.shape == plain.shape
    assert not torch.equal(first, plain)
    assert not torch.equal(first, second)
    assert [view.ids() for view in run.views()] == [run.train().ids()] * 2
    assert "2 further views of the images (flip" in capsys.readouterr().out
    before = Path("run/features/view-02/shard-00000.safetensors").read_bytes()
    Path("run/features/view-02/shard-00000.safetensors").unlink()
    assert analyze("--views", "2", "--labels", "predicted") == 0
    assert Path("run/features/view-02/shard-00000.safetensors").read_bytes() == before
    assert analyze("--views", "-1", out="other") == 2
    assert "views must lie in [0, 99], found -1" in capsys.readouterr().err


def test_a_view_does_not_depend_on_where_a_pass_was_gone_on_with(here: Path) -> None:
    data: ImageData = open_data("data")
    source = ViewSource(data, Transform(), Pass(batch_size=5), ("flip", "crop"), "0 1")
    whole = [source.inputs(batch, torch.device("cpu")) for batch in source.batches(0)]
    later = [source.inputs(batch, torch.device("cpu")) for batch in source.batches(2)]
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], later, strict=True))


def test_a_fold_that_judges_is_seen_in_no_view() -> None:
    """Where the views of judged samples are left out, a view that equals its sample adds little."""
    features = entangled(60, 0)
    ids = [f"s{i}" for i in range(60)]
    z, labels = features.arrays()
    named = Features.of(z, labels, features.require_head().weight, ids=ids)
    seen: list[set[str]] = []

    class Watched(Features):
        def subset(self, keep: torch.Tensor) -> Features:
            seen.append(
                {name for name, kept in zip(self.ids(), keep.tolist(), strict=True) if kept}
            )
            return super().subset(keep)

    view = Features.of(z + 1e-3, labels, ids=ids)
    view.__class__ = Watched
    path = fit_path(named, None, Plan((3,)), n_folds=5, views=[view])
    assert path.judge.kind == "cross-fit"
    assert [len(part) for part in seen] == [48] * 5
    judged = [set(ids) - part for part in seen]
    assert set.union(*judged) == set(ids)
    assert sum(map(len, judged)) == 60


def test_unlabelled_samples_that_judge_are_left_out() -> None:
    features, held_out = entangled(60, 0), entangled(500, 1)
    with pytest.warns(UserWarning, match="500 of the 500 unlabelled samples .* are left out"):
        path = fit_path(features, held_out, Plan((3,)), also=held_out)
    alone = fit_path(features, held_out, Plan((3,)))
    assert torch.equal(path[3].values, alone[3].values)
    z = torch.cat([held_out.arrays()[0][:100], entangled(900, 2).arrays()[0]])
    mixed = Features.of(z, torch.zeros(1000, dtype=torch.int64))
    with pytest.warns(UserWarning, match="100 of the 1,000 unlabelled samples"):
        path = fit_path(features, held_out, Plan((3,)), also=mixed)
    assert path.document()["n_also"] == 900


def test_unlabelled_features_of_something_else_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    features = entangled(80, 0)
    save_features("train.safetensors", features)
    save_features("eval.safetensors", entangled(300, 1))
    save_features("small.safetensors", entangled(80, 2, d=8))
    z, labels = entangled(80, 3).arrays()
    save_features("other.safetensors", Features.of(z, labels, torch.rand(5, 30)))
    save_features("more.safetensors", Features.of(z, torch.zeros(80, dtype=torch.int64)))
    for name, said in (
        ("small", "n_features is 30 in the features and 8 in small.safetensors (--also)"),
        ("other", "other.safetensors (--also) comes with another head than the features"),
    ):
        for command in ("fit", "analyze"):
            arguments = ["train.safetensors", "--also", f"{name}.safetensors", "--out", "out"]
            assert penult(command, *arguments) == 2
            assert said in capsys.readouterr().err
            assert not Path("out").exists()
    arguments = ["train.safetensors", "--eval", "eval.safetensors", "--also", "more.safetensors"]
    assert penult("analyze", *arguments, "--out", "run") == 0
    run = Run.open("run")
    also = run.also()
    assert also is not None
    assert also.labels().tolist() == features.require_head()(z).argmax(1).tolist()
    assert run.summary()["n_samples"] == 80
    assert penult("analyze", "train.safetensors", "--views", "1", "--out", "x") == 2
    assert "views are passes over images, and these are features" in capsys.readouterr().err


def test_features_of_another_preprocessing_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze("--no-fit") == 0
    assert analyze("--no-fit", "--mean", "0,0,0", "--std", "1,1,1", out="other") == 0
    capsys.readouterr()
    arguments = ["fit", "run/features/train", "--also", "other/features/train", "--out", "heads"]
    assert penult(*arguments) == 2
    said = "was made with another preprocessing of the images than the features"
    assert said in capsys.readouterr().err
    features = Features.open("run/features/train")
    assert open_unlabelled("run/features/eval", features).n_samples == 24
