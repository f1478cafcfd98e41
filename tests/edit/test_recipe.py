from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from command import penult
from penult.edit.edit import Edit
from penult.edit.edited_run import EditedRun
from penult.edit.fine_tune import require_fine_tune
from penult.edit.recipe import Recipe
from penult.edit.verdicts import add_verdict, latest, shortcut_edits, verdicts_of
from penult.errors import InputError
from penult.features.features import Features
from penult.heads.bounded_head import BoundedHead
from penult.heads.sparse_head import SparseHead
from penult.network.replace import replace_head
from penult.runs.analyze import Options, analyze_features
from penult.runs.run import Run
from planted import drawn, run_of, saved
from small_run import NET, images_for


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_of(tmp_path_factory.mktemp("edited"))


EDITS = (
    Edit("off", feature=2, of="dog", reason="it is the grass"),
    Edit("cap", feature=4, at=0.5),
    Edit("off", direction=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5)),
)


def test_a_recipe_is_a_file_that_people_read(tmp_path: Path) -> None:
    recipe = Recipe(EDITS, note="Grass is no dog.")
    recipe.save(tmp_path / "r.json")
    text = (tmp_path / "r.json").read_text()
    line = '{"edit": "off", "feature": 2, "class": "dog", "reason": "it is the grass"}'
    assert line in text.splitlines()[4]
    assert Recipe.load(tmp_path / "r.json") == recipe
    (tmp_path / "by hand.json").write_text(
        json.dumps({"format": "penult-recipe/1", "edits": [{"edit": "off", "feature": 2}]})
    )
    assert Recipe.load(tmp_path / "by hand.json").edits == (Edit("off", feature=2),)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"format": "penult-recipe/2"}, "expected format penult-recipe/1"),
        ({"edits": [], "edit": 1}, "unknown key 'edit'"),
        ({}, "expected a list of edits under `edits`"),
        ({"edits": [{"feature": 1}]}, "edit 1: expected an object with the key `edit`"),
        (
            {"edits": [{"edit": "off", "feature": "x"}]},
            "edit 1: feature: expected a whole number, found 'x'",
        ),
        (
            {"edits": [{"edit": "off", "feature": True}]},
            "feature: expected a whole number, found True",
        ),
        ({"edits": [{"edit": "off", "fetaure": 1}]}, "edit 1: unknown key 'fetaure'"),
        ({"edits": [{"edit": "off", "direction": ["a"]}]}, "direction: expected finite numbers"),
    ],
)
def test_recipes_that_are_none_say_where(
    tmp_path: Path, document: dict[str, object], message: str
) -> None:
    text = json.dumps({"format": "penult-recipe/1", **document})
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Recipe.load(tmp_path / "r.json")


def test_a_recipe_can_be_made_again_and_gives_the_same_bits(run: Run, tmp_path: Path) -> None:
    made = EditedRun.of(run, Recipe(EDITS))
    made.save(tmp_path / "a")
    again = EditedRun.of(run, Recipe.load(tmp_path / "a" / "recipe.json"))
    again.save(tmp_path / "b")
    for name in ("head.safetensors", "recipe.json", "effect.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    head = BoundedHead.load(tmp_path / "a" / "head.safetensors")
    assert head.fingerprint() == made.edited.head.fingerprint()
    assert made.edited.undo(3).head.fingerprint() == made.start.fingerprint()


def test_a_recipe_of_another_head_or_one_that_was_applied_is_refused(
    run: Run, tmp_path: Path
) -> None:
    recipe = EditedRun.of(run, Recipe(EDITS[:1])).recipe
    other = run_of(tmp_path, seed=5)
    with pytest.raises(InputError, match="the recipe is for another head .hash given .*--made-for"):
        EditedRun.of(other, recipe)
    edited = EditedRun.of(run, recipe).edited.head
    z, labels = drawn().arrays()
    features = Features.of(z, labels, edited.weight, edited.bias, ["cat", "dog", "emu", "fox"])
    done = analyze_features(features, None, tmp_path / "done", Options(fit=False))
    with pytest.raises(InputError, match="has been applied to this head already"):
        EditedRun.of(done, recipe)
    features = Features.of(z, labels, edited.weight, edited.bias, ["cat", "dog", "emu", "gnu"])
    renamed = analyze_features(features, None, tmp_path / "renamed", Options(fit=False))
    with pytest.raises(InputError, match="the recipe is for 4 classes .cat, dog, emu …. and the"):
        EditedRun.of(renamed, recipe)


def test_a_recipe_is_taken_to_a_fine_tune_and_to_no_other_network(run: Run, tmp_path: Path) -> None:
    recipe = EditedRun.of(run, Recipe(EDITS[:1])).recipe
    old = drawn()
    z, labels = old.arrays()
    g = torch.Generator().manual_seed(3)
    moved = z + 0.3 * torch.randn(z.shape, generator=g)
    head = old.require_head()
    names = ["cat", "dog", "emu", "fox"]

    def other(z: torch.Tensor, name: str) -> Run:
        weight = head.weight + 0.1 * torch.randn(4, 7, generator=g)
        features = Features.of(z, labels, weight, head.bias, names)
        return analyze_features(features, None, tmp_path / name, Options(fit=False))

    made = EditedRun.of(other(moved, "tuned"), recipe, made_for=run)
    assert made.document["edits"][0]["feature"] == 2
    with pytest.raises(InputError, match="is no fine-tune of .* agree in their class means by"):
        EditedRun.of(other(moved[:, torch.randperm(7, generator=g)], "x"), recipe, made_for=run)
    swapped = moved.clone()
    swapped[:, [2, 3]] = moved[:, [3, 2]]
    with pytest.raises(InputError, match=r"features that the recipe edits are others .* 2 \("):
        require_fine_tune(run, other(swapped, "swapped"), [2])


def test_commands_edit_undo_and_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = str(tmp_path / "run"), tmp_path / "out"
    assert penult("analyze", *saved(tmp_path), "--out", run, "--no-fit") == 0
    capsys.readouterr()
    options = ["--off", "2:dog", "--cap", "4=0.5", "--scale", "1:cat=0.5", "--reason", "grass"]
    assert penult("edit", run, *options, "--out", str(out)) == 0
    shown = capsys.readouterr().out
    assert "feature 2 for dog off  (grass)" in shown
    assert "lost" in shown
    twice = ["--off", "2:dog", "--scale", "2:dog=3", "--json"]
    assert penult("edit", run, *twice) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [
        "edit 2 (feature 2 for dog times 3) changes nothing after the edits before it"
    ]
    recipe = str(out / "recipe.json")
    assert penult("edit", run, "--recipe", recipe, "--undo", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [edit["edit"] for edit in found["edits"]] == ["off"]
    assert penult("edit", run, "--recipe", recipe, "--undo", "3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["before"] == found["after"]
    assert found["overall"]["lost"] == found["overall"]["won"] == 0
    for arguments, message in (
        (["--recipe", recipe, "--undo", "4"], "the recipe has 3 edits, 4 cannot be undone"),
        ([], "nothing to edit"),
        (["--off", "cat"], "expected FEATURE or FEATURE:CLASS, such as 57:cat, found 'cat'"),
        (["--off", "9"], "there is no feature 9"),
        (["--off", "2:do"], "no class is called 'do': did you mean dog?"),
        (["--cap", "2:dog=x"], "expected a number after =, found 'x'"),
        (["--scale", "2"], "expected 2=NUMBER"),
        (["--refit", "balanced"], "expected balanced:ATTRIBUTE"),
        (["--refit", "all"], "--refit: expected one of probabilities, labels"),
        (["--direction-off", "cat"], "expected NUMBER:CLASS"),
        (["--off-shortcuts"], "has no verdict `shortcut`"),
        (["--off", "1", "--select", "curvature"], "--select needs -k"),
        (["--off", "1", "--out", recipe], "is a file: expected a folder"),
    ):
        assert penult("edit", run, *arguments) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_a_sparse_head_is_edited_and_stays_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert penult("analyze", *saved(tmp_path), "--out", str(run)) == 0
    before = Run.open(run).head("curvature", 3)
    c, j = int(before.subspaces.classes()[0]), int(before.indices[0])
    unread = next(i for i in range(7) if i not in before.subspaces[c].tolist())
    capsys.readouterr()
    pairs = ["--off", f"{j}:{c}", "--off", f"{unread}:{c}"]
    given = ["-k", "3", "--select", "curvature", "--out", str(out)]
    assert penult("edit", str(run), *pairs, *given) == 0
    assert f"does not read feature {unread} in this head" in capsys.readouterr().out
    after = SparseHead.load(out / "head.safetensors")
    assert j not in after.subspaces[c].tolist()
    assert len(after.indices) == len(before.indices) - 1
    recipe = ("--recipe", str(out / "recipe.json"))
    for given, message in (
        ([], "the recipe is for this run's sparse head of k = 3: give -k 3 --select curvature"),
        (["-k", "2"], "the recipe is for this run's sparse head of k = 3: give -k 3"),
    ):
        assert penult("edit", str(run), *recipe, *given) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert penult("edit", str(run), *recipe, "-k", "3") == 0
    dense = tmp_path / "dense"
    assert penult("edit", str(run), *pairs[:2], "--out", str(dense)) == 0
    assert penult("edit", str(run), "--recipe", str(dense / "recipe.json"), "-k", "3") == 2
    assert "is for the dense head of this run: leave -k out" in capsys.readouterr().err
    # A head that reads all features is the dense head.
    assert penult("fit", str(run), "-k", "7") == 0
    for given in ([], ["-k", "7"]):
        assert penult("edit", str(run), "--recipe", str(dense / "recipe.json"), *given) == 0


def test_verdicts_are_appended_and_taken_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path)
    folder = str(run.folder)
    assert penult("verdict", folder, "2:dog", "shortcut", "--note", "grass", "--who", "ann") == 0
    add_verdict(run, 3, None, "unsure", who="bob")
    add_verdict(run, 4, "fox", "shortcut", who="bob")
    add_verdict(run, 4, 3, "core", note="it is\nthe tail", who="ann")
    found = verdicts_of(run)
    assert [(v.pair, v.kind, v.who) for v in found] == [
        ("2:dog", "shortcut", "ann"),
        ("3", "unsure", "bob"),
        ("4:fox", "shortcut", "bob"),
        ("4:fox", "core", "ann"),
    ]
    assert latest(run)[4, "fox"].note == "it is·the tail"
    edit = Edit("off", feature=2, of="dog", reason="shortcut, says ann: grass")
    assert shortcut_edits(run) == [edit]
    capsys.readouterr()
    assert penult("edit", folder, "--off-shortcuts", "--json") == 0
    assert json.loads(capsys.readouterr().out)["edits"][0]["reason"] == edit.reason
    for arguments, message in (
        (["2:dog", "bad"], "expected a verdict of core, shortcut, label noise, unsure"),
        (["9:dog", "core"], "there is no feature 9"),
        (["2:dgo", "core"], "did you mean dog?"),
        (["dog", "core"], "expected FEATURE or FEATURE:CLASS"),
    ):
        assert penult("verdict", folder, *arguments) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    with (tmp_path / "run" / "verdicts.jsonl").open("a") as file:
        file.write('{"feature": 1')
    with pytest.raises(InputError, match="line 5 is no verdict"):
        verdicts_of(run)


def test_the_network_with_the_edited_head_gives_the_accuracy_that_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images_for(NET, tmp_path, monkeypatch)
    capsys.readouterr()
    options = ["--set-weight", "1:b=9", "--off", "2:a", "--json"]
    assert penult("edit", "run", *options, "--out", "mended") == 0
    told = json.loads(capsys.readouterr().out)["overall"]
    assert told["lost"] + told["won"] > 0
    weights = ["--weights", "mended/network.safetensors"]
    assert penult("analyze", "net.py:net", "data", *weights, "--out", "again") == 0
    again = Run.open("again")
    assert again.summary()["dense"]["accuracy"] == pytest.approx(told["after"])
    recipe = Recipe.load("mended/recipe.json")
    assert again.train().require_head().fingerprint() == recipe.gives


def test_a_head_with_bounds_is_put_in_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images_for(NET, tmp_path, monkeypatch)
    assert penult("edit", "run", "--cap", "1:b", "--out", "capped") == 0
    assert "network's weights are not written: a head with bounds" in capsys.readouterr().err
    assert not Path("capped/network.safetensors").exists()
    head = BoundedHead.load("capped/head.safetensors")
    z = Run.open("run").train().arrays()[0]
    module = head.module()
    assert torch.allclose(module(z), head(z), atol=1e-6)
    net: dict[str, object] = {}
    exec(NET, net)
    model = net["net"]()  # type: ignore[operator]
    images = torch.randn(2, 3, 12, 12)
    with replace_head(model, module, "head"):
        z = model.conv(images).relu().mean((2, 3))
        assert torch.allclose(model(images), head(z), atol=1e-5)
