"""Suspects of two runs: which are new and which gone, under whatever numbers the features have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from command import penult
from penult.diff.compare import compare_sides
from penult.diff.side import Side
from penult.edit.shortcuts import find_shortcuts
from penult.features.features import Features
from penult.runs.analyze import Options, analyze_features
from penult.runs.run import Run
from planted import NAMES, drawn
from watermark import PLANTED, watermarked

N_FEATURES = 7


def looked_at(folder: Path, order: torch.Tensor | None = None) -> Path:
    """A run in which suspects were looked for, with its features in another order."""
    parts = []
    for features in (drawn(), drawn(n=240)):
        z, labels = features.arrays()
        head = features.require_head()
        chosen = torch.arange(N_FEATURES) if order is None else order
        weight, ids = head.weight[:, chosen], features.ids()
        parts.append(Features.of(z[:, chosen], labels, weight, head.bias, NAMES, ids))
    run = analyze_features(parts[0], parts[1], folder, Options(fit=False))
    find_shortcuts(run, n_listed=1000)
    return folder


def suspected(folder: Path, pairs: set[tuple[str, int]]) -> None:
    """Let these pairs alone be the suspects that were found in a run."""
    file = folder / "shortcuts.json"
    document = json.loads(file.read_text())
    listed = {(row["class"], row["feature"]) for row in document["pairs"]}
    assert pairs <= listed, f"these are not looked at: {pairs - listed}"
    for row in document["pairs"]:
        row["overuse"]["suspect"] = (row["class"], row["feature"]) in pairs
    document["n_suspects"] = len(pairs)
    file.write_text(json.dumps(document))


def found(old: Path | str, new: Path | str) -> dict[str, Any]:
    return compare_sides(Side.read(str(old)), Side.read(str(new)))


def pairs_looked_at(folder: Path) -> list[tuple[str, int]]:
    document = json.loads((folder / "shortcuts.json").read_text())
    return [
        (row["class"], row["feature"]) for row in document["pairs"] if row["feature"] is not None
    ]


@pytest.mark.parametrize("seed", range(3))
def test_suspects_are_matched_under_other_numbers(tmp_path: Path, seed: int) -> None:
    order = torch.randperm(N_FEATURES, generator=torch.Generator().manual_seed(seed))
    place = {int(j): i for i, j in enumerate(order.tolist())}
    old, new = looked_at(tmp_path / "old"), looked_at(tmp_path / "new", order)
    known = pairs_looked_at(old)
    also = {(c, int(order[j])) for c, j in pairs_looked_at(new)}
    stays, gone, came = [pair for pair in known if pair in also][:3]
    suspected(old, {stays, gone})
    suspected(new, {(c, place[j]) for c, j in (stays, came)})
    document = found(old, new)
    suspects = document["suspects"]
    assert [(row["class"], row["old"]) for row in suspects["new"]] == [came]
    assert [(row["class"], row["new"]) for row in suspects["new"]] == [(came[0], place[came[1]])]
    assert [(row["class"], row["old"]) for row in suspects["gone"]] == [gone]
    assert suspects["n_stayed"] == 1
    assert f"were not before: {place[came[1]]} of {came[0]}." in document["verdict"]


def test_a_suspect_of_a_class_is_not_that_of_another(tmp_path: Path) -> None:
    old, new = looked_at(tmp_path / "old"), looked_at(tmp_path / "new")
    known = pairs_looked_at(old)
    first = next((c, j) for c, j in known if sum(k == j for _, k in known) > 1)
    second = next((c, j) for c, j in known if j == first[1] and c != first[0])
    suspected(old, {first})
    suspected(new, {second})
    suspects = found(old, new)["suspects"]
    assert [row["class"] for row in suspects["new"]] == [second[0]]
    assert [row["class"] for row in suspects["gone"]] == [first[0]]


def test_a_feature_that_is_switched_off_is_no_suspect_any_more(tmp_path: Path) -> None:
    old = looked_at(tmp_path / "old")
    first, second = pairs_looked_at(old)[:2]
    suspected(old, {first, second})
    edit = tmp_path / "edit"
    pair = f"{first[1]}:{first[0]}"
    assert penult("edit", str(old), "--off", pair, "--out", str(edit)) == 0
    suspects = found(old, f"{old}@{edit}/recipe.json")["suspects"]
    assert [(row["class"], row["old"]) for row in suspects["gone"]] == [first]
    assert (suspects["n_new"], suspects["n_stayed"]) == (0, 1)


def test_a_suspect_of_little_weight_stays_one(tmp_path: Path) -> None:
    """Another feature is edited: how little a class rests on a suspect does not make it go."""
    old = looked_at(tmp_path / "old")
    pairs = pairs_looked_at(old)
    other = pairs[0]
    suspected(old, set(pairs))
    edit = tmp_path / "edit"
    arguments = ["--off", f"{other[1]}:{other[0]}", "--out", str(edit)]
    assert penult("edit", str(old), *arguments) == 0
    suspects = found(old, f"{old}@{edit}/recipe.json")["suspects"]
    assert (suspects["n_gone"], suspects["n_stayed"]) == (1, len(pairs) - 1)


def test_nobody_has_looked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = looked_at(tmp_path / "old"), looked_at(tmp_path / "new")
    (new / "shortcuts.json").unlink()
    capsys.readouterr()
    assert penult("diff", str(old), str(new)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Nobody has looked for suspects in" in said
    assert "penult shortcuts" in said
    assert found(old, new)["suspects"]["new"] is None
    for text in ("{", '{"format": "penult-shortcuts/3"}', '{"format": "penult-shortcuts/1"}', "[]"):
        (new / "shortcuts.json").write_text(text)
        assert "suspects are left out" in found(old, new)["suspects"]["notes"][0]


def test_suspects_of_another_head_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    old, new = looked_at(tmp_path / "old"), looked_at(tmp_path / "new")
    document = json.loads((new / "shortcuts.json").read_text())
    (new / "shortcuts.json").write_text(json.dumps({**document, "head": "blake2b 00"}))
    suspects = found(old, new)["suspects"]
    assert suspects["new"] is None
    assert "are of another head or of other samples" in suspects["notes"][0]


def test_a_shortcut_planted_in_the_new_network_is_a_new_suspect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All the way: networks trained without the frame and with it, what is said in every form."""
    for name, plant in (("old", False), ("new", True)):
        made = watermarked(0, plant=plant)
        features = made.train, made.evaluation
        find_shortcuts(analyze_features(*features, tmp_path / name, Options(fit=False)))
    old, new = tmp_path / "old", tmp_path / "new"
    (first, *_) = (rows := found(old, new)["suspects"]["new"])
    planted = Run.open(new).summary()["class_names"][PLANTED]
    assert planted in [row["class"] for row in rows]
    judged = f"{first['new']}:{first['class']}"
    assert penult("verdict", str(new), judged, "shortcut", "--note", "the frame") == 0
    capsys.readouterr()
    markdown = tmp_path / "diff.md"
    assert penult("diff", str(old), str(new), "--markdown", str(markdown)) == 0
    page = " ".join(capsys.readouterr().out.split())
    named = f"{first['new']} of {first['class']}, judged shortcut"
    assert named in page
    assert named in markdown.read_text(encoding="utf-8").replace("\\", "")
