"""Two sides compared: what is planted is found, the same twice gives nothing, sums are exact."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from command import penult
from penult.diff.alignment import Alignment
from penult.diff.compare import compare_sides
from penult.diff.evidence import _what
from penult.diff.flips import SideReading
from penult.diff.gate import Rule, check_rules, judge_rules, read_gate
from penult.diff.shared import Shared
from penult.diff.side import Side
from penult.diff.text import _code, fails, in_words, markdown, rested_on, ruled, samples_said
from penult.errors import InputError
from penult.features.features import Features
from penult.features.saving import save_features
from penult.intervals import exact_interval, holm, paired_interval, score_interval, sign_test
from penult.runs.analyze import Options, analyze_features
from small_run import NET, images_for

N, D, C = 600, 12, 4
NAMES = ("cat", "dog", "fox", "owl")
GROUPS = "id,light\n" + "".join(f"{i:04d},{'night' if i % 3 == 0 else 'day'}\n" for i in range(N))


def made(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels and a head that is right on most of them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N) % C
    weight = torch.randn(C, D, generator=generator)
    z = 0.6 * weight[labels] + torch.randn(N, D, generator=generator)
    return z, labels, weight


def run_of(
    folder: Path,
    z: Tensor,
    labels: Tensor,
    weight: Tensor,
    names: tuple[str, ...] = NAMES,
    ids: list[str] | None = None,
) -> Path:
    ids = [f"{i:04d}" for i in range(len(z))] if ids is None else ids
    features = Features.of(z, labels, weight, class_names=names, ids=ids)
    analyze_features(features, features, folder, Options(fit=False))
    return folder


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = run_of(tmp_path_factory.mktemp("old") / "run", *made())
    (folder.parent / "groups.csv").write_text(GROUPS)
    assert penult("groups", str(folder), str(folder.parent / "groups.csv"), "--part", "eval") == 0
    return folder


def document(old: Path | str, new: Path | str) -> dict[str, Any]:
    return compare_sides(Side.read(str(old)), Side.read(str(new)))


def test_the_same_twice_gives_no_finding(old: Path, tmp_path: Path) -> None:
    for other in (old, run_of(tmp_path / "again", *made())):
        found = document(old, other)
        assert found["verdict"] == f"Nothing changed: both give the same class to all {N} samples."
        assert found["evidence"]["classes"] == []
        assert found["flips"]["n_changed"] == 0
        assert not any(row["sure"] for row in found["classes"])
        assert found["matched"]["partner"] == list(range(D))
        assert found["matched"]["cka"] == pytest.approx(1, abs=1e-5)
        assert found["probabilities"]["kl"] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("seed", range(20))
def test_features_in_another_order_are_found_again(seed: int, tmp_path: Path) -> None:
    """A permuted network is the same network: nothing flips, and no evidence changes."""
    z, labels, weight = made(seed)
    order = torch.randperm(D, generator=torch.Generator().manual_seed(seed + 100))
    first = run_of(tmp_path / "a", z, labels, weight)
    second = run_of(tmp_path / "b", z[:, order], labels, weight[:, order])
    found = document(first, second)
    partner = torch.tensor(found["matched"]["partner"])
    assert found["matched"]["how"] == "assignment"
    assert torch.equal(order[partner], torch.arange(D))
    assert found["flips"]["n_changed"] == 0
    assert found["evidence"]["classes"] == []


@pytest.mark.parametrize("seed", range(20))
def test_a_broken_class_is_named_first(seed: int, tmp_path: Path) -> None:
    """The new head takes no notice of what speaks for one class."""
    z, labels, weight = made(seed)
    c = seed % C
    broken = weight.clone()
    broken[c] *= 0.2
    first = run_of(tmp_path / "a", z, labels, weight)
    found = document(first, run_of(tmp_path / "b", z, labels, broken))
    assert found["classes"][0]["class"] == NAMES[c]
    assert found["classes"][0]["sure"]
    assert f"With 95 % confidence worse: {NAMES[c]}" in found["verdict"]
    naive = ((z @ weight.T).argmax(1) == labels) & ((z @ broken.T).argmax(1) != labels)
    assert found["flips"]["negative"]["n_samples"] == int(naive.sum())


@pytest.mark.parametrize("seed", range(20))
def test_a_new_shortcut_is_the_evidence_that_changed_most(seed: int, tmp_path: Path) -> None:
    z, labels, weight = made(seed)
    c, j = seed % C, seed % D
    weight[:, j] = 0
    with_cue = weight.clone()
    z = z.clone()
    z[labels == c, j] += 3
    with_cue[c, j] = 2.0
    first = run_of(tmp_path / "a", z, labels, weight)
    found = document(first, run_of(tmp_path / "b", z, labels, with_cue))
    (row, *_) = found["evidence"]["classes"]
    assert row["class"] == NAMES[c]
    assert (row["features"][0]["old"], row["features"][0]["what"]) == (j, "came")


def test_what_moved_a_flip_adds_up_to_the_change_of_the_lead(old: Path, tmp_path: Path) -> None:
    z, labels, weight = made()
    generator = torch.Generator().manual_seed(5)
    other = weight + 0.4 * torch.randn(C, D, generator=generator)
    sides = Side.read(str(old)), Side.read(str(run_of(tmp_path / "b", z, labels, other)))
    shared = Shared.of(*sides)
    rows = torch.arange(20)
    of, against = labels[rows], (labels[rows] + 1) % C
    before = SideReading.of(sides[0], shared.old_rows, shared.old_places, C)
    after = SideReading.of(sides[1], shared.new_rows, shared.new_places, C)
    moved = after.margins(rows, of, against).sum(1) - before.margins(rows, of, against).sum(1)
    centred = z.double() - z.double().mean(0)
    naive = centred[rows] @ (other.double() - weight.double()).T
    expected = naive.gather(1, of[:, None]) - naive.gather(1, against[:, None])
    torch.testing.assert_close(moved, expected[:, 0], rtol=1e-9, atol=1e-9)


def test_the_features_of_a_flip_are_those_that_changed_the_lead_most(
    old: Path, tmp_path: Path
) -> None:
    z, labels, weight = made()
    other = weight + 0.5 * torch.randn(C, D, generator=torch.Generator().manual_seed(6))
    flips = document(old, run_of(tmp_path / "b", z, labels, other))["flips"]
    assert flips["negative"]["samples"]
    centred = z.double() - z.double().mean(0)
    assert flips["positive"]["samples"]
    for row, called in [
        *((row, "after") for row in flips["negative"]["samples"]),
        *((row, "before") for row in flips["positive"]["samples"]),
    ]:
        i, right, wrong = row["row_new"], NAMES.index(row["label"]), NAMES.index(row[called])
        leads = [(w[right] - w[wrong]).double() * centred[i] for w in (weight, other)]
        changed = (leads[1] - leads[0]).abs()
        expected = changed.argsort(descending=True)[:3].tolist()
        assert [part["new"] for part in row["features"]] == expected, row["id"]


def test_a_capped_head_is_told_with_what_its_bounds_take(old: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "edit"
    assert penult("edit", str(old), "--cap", "3:dog", "--off", "1", "--out", str(recipe)) == 0
    sides = Side.read(str(old)), Side.read(f"{old}@{recipe}/recipe.json")
    shared = Shared.of(*sides)
    after = SideReading.of(sides[1], shared.new_rows, shared.new_places, C)
    rows, of = torch.arange(N), torch.full((N,), 1)
    against = torch.full((N,), 2)
    z = sides[1].rows(rows)
    logits = sides[1].head(z.double())
    lead = logits[:, 1] - logits[:, 2]
    parts = after.margins(rows, of, against).sum(1)
    torch.testing.assert_close(parts - parts.mean(), lead - lead.mean(), rtol=1e-6, atol=1e-6)
    own = torch.stack([lead[shared.labels == c].mean() - lead.mean() for c in range(C)])
    totals = after.totals(shared) / shared.counts[:, None]
    mine = torch.zeros(C, dtype=torch.float64)
    for c in range(C):
        chosen = shared.labels == c
        mine[c] = logits[chosen, c].mean() - logits[:, c].mean()
    torch.testing.assert_close(totals.sum(1), mine, rtol=1e-6, atol=1e-6)
    assert own.isfinite().all()


def test_samples_are_matched_by_name_and_the_rest_counted(old: Path, tmp_path: Path) -> None:
    z, labels, weight = made()
    chosen = torch.arange(N - 1, 99, -1)
    ids = [f"{i:04d}" for i in chosen.tolist()]
    ids[:5] = [f"new-{i}" for i in range(5)]
    other = run_of(tmp_path / "b", z[chosen], labels[chosen], weight, ids=ids)
    found = document(old, other)["samples"]
    assert (found["n_samples"], found["only_old"], found["only_new"]) == (N - 105, 105, 5)
    assert document(old, other)["flips"]["n_changed"] == 0


def test_renamed_images_are_matched_by_their_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other names on the new side, one picture there twice, one changed, one under its name."""
    folder = images_for(NET, tmp_path, monkeypatch)
    for i, file in enumerate(sorted((folder / "data").rglob("*.png"))):
        new = file.parent if i == 0 else file.parent / f"moved-{i:02d}.png"
        place = folder / "renamed" / new.relative_to(folder / "data")
        place = place / file.name if i == 0 else place
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
        if i == 5:
            shutil.copy(file, place.with_stem("twice"))
        if i == 7:
            Image.fromarray(np.zeros((12, 12, 3), dtype=np.uint8)).save(place)
    arguments = ["analyze", "net.py:net", "renamed", "--weights", "random", "--no-fit"]
    assert penult(*arguments, "--out", "new") == 0
    capsys.readouterr()
    assert penult("diff", "run", "new", "--json") == 0
    found = json.loads(capsys.readouterr().out)["samples"]
    assert found["n_samples"] == 28
    assert found["renamed"] == 27
    assert (found["only_old"], found["only_new"]) == (2, 3)
    shutil.rmtree("data")
    assert penult("diff", "run", "new", "--json") == 0, "one sample still has its name"
    found = json.loads(capsys.readouterr().out)["samples"]
    assert (found["n_samples"], found["renamed"]) == (1, 0)


def test_classes_are_matched_by_name(old: Path, tmp_path: Path) -> None:
    """Another order, one class gone and one new: what both know is compared."""
    z, labels, weight = made()
    order = torch.tensor([2, 0, 3])  # fox, cat, owl
    keep = labels != 1
    place = torch.full((C,), -1)
    place[order] = torch.arange(3)
    names = ("fox", "cat", "owl")
    other = run_of(
        tmp_path / "b",
        z[keep],
        place[labels[keep]],
        weight[order],
        names,
        [f"{i:04d}" for i in keep.nonzero()[:, 0].tolist()],
    )
    found = document(old, other)
    assert found["samples"]["classes_only_old"] == ["dog"]
    assert found["samples"]["n_samples"] == int(keep.sum())
    first = (z @ weight.T).argmax(1)[keep]
    second = order[(z @ weight[order].T).argmax(1)][keep]
    assert found["flips"]["n_changed"] == int((first != second).sum())
    assert found["overall"]["after"] == pytest.approx(
        float((second == labels[keep]).double().mean())
    )
    assert found["probabilities"]["kl"] is None


def test_samples_of_classes_that_one_side_does_not_know_are_left_out(
    old: Path, tmp_path: Path
) -> None:
    """The new side has a fifth class, the old side cannot be right on its samples."""
    z, labels, weight = made()
    more = labels.clone()
    more[:40] = C
    wider = torch.cat([weight, torch.zeros(1, D)])
    names = (*NAMES, "yak")
    found = document(old, run_of(tmp_path / "b", z, more, wider, names))
    assert found["samples"]["left_out"] == {"yak": 40}
    assert found["samples"]["n_samples"] == N - 40
    assert found["samples"]["classes_only_new"] == ["yak"]
    assert samples_said(found["samples"])[1:3] == [
        "40 samples are of classes that only one has, and left out",
        "1 class is only in the second: yak",
    ]
    right = (z @ wider.T).argmax(1) == more
    assert found["overall"]["after"] == pytest.approx(float(right[40:].double().mean()))


def test_no_sample_or_class_in_common_is_refused(old: Path, tmp_path: Path) -> None:
    z, labels, weight = made()
    ids = [f"x{i}" for i in range(N)]
    with pytest.raises(InputError, match="share no sample: the first is called 0000 in the one"):
        document(old, run_of(tmp_path / "b", z, labels, weight, ids=ids))
    with pytest.raises(InputError, match="share no class: cat, dog, fox, owl and a, b, c, d"):
        document(old, run_of(tmp_path / "c", z, labels, weight, ("a", "b", "c", "d")))
    numbered = tmp_path / "n.safetensors"
    save_features(numbered, Features.of(z, labels, weight, class_names=NAMES))
    plain = Features.open(numbered)
    analyze_features(plain, plain, tmp_path / "numbers", Options(fit=False))
    with pytest.raises(InputError, match="have no names, only row numbers"):
        document(old, tmp_path / "numbers")


def test_samples_without_names_are_the_same_rows_or_none(tmp_path: Path) -> None:
    z, labels, weight = made()
    sides = {}
    for name, n, shift in (("all", N, 0), ("fewer", N - 4, 0), ("others", N, 1)):
        file = tmp_path / f"{name}.safetensors"
        save_features(file, Features.of(z[:n], (labels[:n] + shift) % C, weight, class_names=NAMES))
        features = Features.open(file)
        analyze_features(features, features, tmp_path / name, Options(fit=False))
        sides[name] = tmp_path / name
    with pytest.raises(InputError, match="all has 600 samples and .* 596, all without names"):
        document(sides["all"], sides["fewer"])
    with pytest.raises(InputError, match="have no names, and their labels differ by row"):
        document(sides["all"], sides["others"])
    assert document(sides["all"], sides["all"])["samples"]["n_samples"] == N


def test_a_class_may_be_called_any(tmp_path: Path) -> None:
    z, labels, weight = made()
    broken = weight.clone()
    broken[1] *= 0.1
    names = ("any", "dog", "fox", "owl")
    first = run_of(tmp_path / "a", z, labels, weight, names)
    found = document(first, run_of(tmp_path / "b", z, labels, broken, names))
    rules = [Rule.read(rule) for rule in ("class.any < -2", 'class."any" < -10', "class.dog < -2")]
    check_rules(rules, names, {})
    rows = judge_rules(rules, found)
    assert [row["whose"] for row in rows] == [["dog"], ["any"], ["dog"]]
    assert [row["verdict"] for row in rows] == ["fails", "passes", "fails"]


def test_a_side_that_is_none_says_what_is_expected(old: Path) -> None:
    for text, message in {
        "nowhere": "nowhere is no run folder: expected RUN, RUN@dense",
        f"{old}@k9999": "no head of k = 9999; .*: a class reads from 1 to all 12 features",
        f"{old}@k0": "no head of k = 0; .*: a class reads from 1 to all 12 features",
        f"{old}@k7": "no head of k = 7; .*: add it with penult fit .* -k 7",
        f"{old}@no.json": "no.json is neither a head nor a recipe that exists",
    }.items():
        with pytest.raises(InputError, match=message):
            Side.read(text)


def judged(
    old: Path, new: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, str, str]:
    """Exit status, verdict and words of the rule on shortcuts that are back."""
    capsys.readouterr()
    rule = ("--fail-if", "shortcut.returned", *more)
    status = penult("diff", str(old), str(new), *rule, "--json")
    (row,) = json.loads(capsys.readouterr().out)["gate"]
    return status, row["verdict"], ruled(row)


def test_no_shortcut_is_back_only_where_somebody_has_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without verdicts nothing can be back, so that nothing is known; likewise without a match."""
    z, labels, weight = made()
    weight[:, 3] = 0
    with_cue = weight.clone()
    z[labels == 1, 3] += 3
    with_cue[1, 3] = 2.0
    first = run_of(tmp_path / "a", z, labels, weight)
    second = run_of(tmp_path / "b", z, labels, with_cue)
    status, verdict, said = judged(first, second, capsys)
    assert (status, verdict) == (0, "cannot be told")
    assert f"nobody has judged a feature of {first} yet" in said
    assert judged(first, second, capsys, "--strict")[0] == 3
    assert penult("verdict", str(second), "3:dog", "shortcut") == 0
    assert judged(first, second, capsys)[1] == "cannot be told", "those of the first count"
    assert penult("verdict", str(first), "0:cat", "core") == 0
    status, verdict, said = judged(first, second, capsys, "--strict")
    assert (status, verdict) == (0, "passes")
    assert "1 verdict so far, none of a shortcut" in said
    assert penult("verdict", str(first), "3", "shortcut") == 0
    status, verdict, said = judged(first, second, capsys)
    assert (status, verdict) == (3, "fails")
    assert "1 shortcut is back: 3:dog" in said
    assert penult("verdict", str(first), "3:dog", "core") == 0
    assert judged(first, second, capsys)[1] == "passes", "what is said of a class comes first"
    assert penult("verdict", str(first), "3:dog", "shortcut") == 0
    assert "1 shortcut is back: 3:dog" in judged(first, second, capsys)[2], "told once"
    other = z.clone()
    other[:, 3] = torch.randn(N, generator=torch.Generator().manual_seed(1))
    third = run_of(tmp_path / "c", other, labels, weight)
    status, verdict, said = judged(first, third, capsys)
    assert (status, verdict) == (0, "cannot be told")
    assert "2 of 2 shortcuts cannot be followed: the new side has no feature like it" in said


def test_a_verdict_on_no_feature_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that a person wrote may hold any number."""
    first = run_of(tmp_path / "a", *made())
    for feature in (-1, D):
        line = {"format": "penult-verdicts/1", "feature": feature, "class": "cat"}
        line |= {"verdict": "shortcut", "who": "", "when": "", "note": ""}
        (first / "verdicts.jsonl").write_text(json.dumps(line) + "\n")
        assert judged(first, first, capsys)[1] == "cannot be told"


def test_groups_that_only_one_side_has_are_told_of_both(old: Path, tmp_path: Path) -> None:
    """The old side knows the light, the new one the place."""
    new = run_of(tmp_path / "b", *made())
    rows = "".join(f"{i:04d},{'in' if i % 2 else 'out'}\n" for i in range(N))
    (tmp_path / "place.csv").write_text(f"id,place\n{rows}")
    assert penult("groups", str(new), str(tmp_path / "place.csv"), "--part", "eval") == 0
    found = document(old, new)["groups"]
    counts = {
        name: {row["value"]: row["n_samples"] for row in rows} for name, rows in found.items()
    }
    assert counts == {
        "light": {"night": N // 3, "day": N - N // 3},
        "place": {"in": 300, "out": 300},
    }
    rules = ("--fail-if", "group.light=day < -1", "--fail-if", "group.place=in < -1")
    assert penult("diff", str(old), str(new), *rules) == 0


def test_sizes_of_a_run_are_sides(tmp_path: Path) -> None:
    z, labels, weight = made()
    features = Features.of(z, labels, weight, class_names=NAMES)
    analyze_features(features, features, tmp_path / "run")
    found = document(tmp_path / "run", f"{tmp_path / 'run'}@k2")
    assert found["new"]["nnz"] <= 2 * C < found["old"]["nnz"]
    head = Side.read(f"{tmp_path / 'run'}@k2").head
    naive = (z @ head.weight.T + head.bias).argmax(1)
    assert found["overall"]["after"] == pytest.approx(float((naive == labels).double().mean()))


def test_calibration_is_that_of_a_naive_count(old: Path) -> None:
    z, labels, weight = made()
    p = (z @ weight.T).double().softmax(1)
    top, classes = p.max(1)
    right = (classes == labels).double().numpy()
    bins = np.minimum((top.numpy() * 15).astype(int), 14)
    expected = sum(
        abs(right[bins == b].mean() - top.numpy()[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    )
    found = document(old, old)["probabilities"]["old"]
    assert found["calibration_error"] == pytest.approx(expected, abs=1e-6)
    log_loss = -p.log().gather(1, labels[:, None]).mean()
    assert found["log_loss"] == pytest.approx(float(log_loss), abs=1e-6)


def test_a_shortcut_that_was_judged_and_is_back_is_told(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    z, labels, weight = made()
    without = weight.clone()
    without[1, 4] = 0
    mended = run_of(tmp_path / "mended", z, labels, without)
    assert penult("verdict", str(mended), "4:dog", "shortcut", "--note", "the watermark") == 0
    back = weight.clone()
    back[1, 4] = 8.0
    again = run_of(tmp_path / "again", z, labels, back)
    found = document(mended, again)
    (row,) = found["evidence"]["returned"]
    assert (row["feature"], row["class"], row["note"]) == (4, "dog", "the watermark")
    assert "Features judged shortcuts are back: 4 of dog" in found["verdict"]
    assert judge_rules([Rule.read("shortcut.returned")], found)[0]["verdict"] == "fails"
    pages = {name: tmp_path / f"diff.{name}" for name in ("md", "html", "xml")}
    files = ["--markdown", str(pages["md"]), "--report", str(pages["html"])]
    rule = ["--fail-if", "shortcut.returned", "--junit", str(pages["xml"])]
    capsys.readouterr()
    assert penult("diff", str(mended), str(again), *files, *rule) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "Features judged shortcuts are back: 4 of dog" in said
    assert "4, judged shortcut, came" in said
    assert "1 shortcut is back: 4:dog" in said
    for name, text in {
        name: page.read_text(encoding="utf-8") for name, page in pages.items()
    }.items():
        assert "4 of dog" in text or "4:dog" in text, name
    assert "the watermark" in pages["html"].read_text(encoding="utf-8")
    assert document(mended, mended)["evidence"]["returned"] == []
    assert penult("verdict", str(again), "4:dog", "shortcut") == 0
    assert document(again, again)["evidence"]["returned"] == [], "it was used before, too"


def test_the_command_exits_with_3_where_a_rule_fails(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    z, labels, weight = made()
    broken = weight.clone()
    broken[2] *= 0.1
    new = run_of(tmp_path / "new", z, labels, broken, ("cat", "dog", "fox", "owl"))
    assert penult("diff", str(old), str(old), "--fail-if", "accuracy < -0.5") == 0
    rules = ["accuracy < -0.5", "class.any < -2", "class.owl < -90", "group.light=night < -1"]
    arguments = [part for rule in rules for part in ("--fail-if", rule)]
    files = ["--markdown", "diff.md", "--junit", "diff.xml"]
    capsys.readouterr()
    assert penult("diff", str(old), str(new), *arguments, *files, "--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert [row["verdict"] for row in found["gate"]] == ["fails", "fails", "passes", "fails"]
    assert found["gate"][1]["whose"][0] == "fox"
    suite = ElementTree.parse("diff.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("4", "3")
    text = Path("diff.md").read_text(encoding="utf-8")
    assert "❌ | `accuracy < -0.5`" in text
    assert text.count("<details>") == text.count("</details>") == 1
    assert penult("diff", str(old), str(new)) == 0
    page = capsys.readouterr().out
    assert "Worse: " in page
    assert "By light: " in page
    Path("penult-gate.toml").write_text('fail_if = ["negative_flips > 1%"]\nstrict = true\n')
    assert penult("diff", str(old), str(new), "--gate", "penult-gate.toml") == 3
    unsure = ("diff", str(old), str(old), "--fail-if", "negative_flips > 0%")
    assert penult(*unsure) == 0
    assert "--strict" not in capsys.readouterr().err
    assert penult(*unsure, "--strict") == 3
    said = capsys.readouterr().err
    assert "--strict: the gate fails, since it cannot be told of 1 rule" in said
    capsys.readouterr()
    assert penult("diff", str(old), str(new), "--fail-if", "class.any < -2") == 3
    assert "fails: class fox " in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fail-if", "accuracy -0.5"), "expected < or > at position 10, found '-0.5'"),
        (("--fail-if", "accuracy = 3"), "expected < or > at position 10, found '= 3'"),
        (("--fail-if", "accuracy => 3"), "expected < or > at position 10, found '=> 3'"),
        (("--fail-if", "accuracy"), "expected < or > at position 9, found its end"),
        (("--fail-if", "class.a b ≤ -3"), "expected < or > at position 11, found '≤ -3'"),
        (("--fail-if", "group.light=night -3"), "expected < or > at position 19, found '-3'"),
        (("--fail-if", "group.light=3"), "expected < or > at position 14, found its end"),
        (("--fail-if", "class.a < b < lots"), "expected a number at position 15, found 'lots'"),
        (("--fail-if", "accuracy < -1 or > 2"), "after the number, found 'or > 2' at position 15"),
        (("--fail-if", " "), "expected a rule such as `accuracy < -0.5`, found none"),
        (("--fail-if", "shortcuts.returned"), "did you mean shortcut.returned?"),
        (("--fail-if", f"class.{'é' * 9999} < -1"), "no class is called 'ééé"),
        (("--gate", "deep.toml"), "deep.toml cannot be read as TOML: RecursionError"),
        (("--gate", "number.toml"), "number.toml: expected a list of texts under `fail_if`"),
        (("--gate", "text.toml"), "text.toml: expected a list of texts under `fail_if`"),
        (("--gate", "strict.toml"), "expected true or false under `strict`, found 'yes'"),
        (("--fail-if", "accuracy < lots"), "expected a number at position 12, found 'lots'"),
        (("--fail-if", "< 3"), "expected what the rule is about at position 1"),
        (("--fail-if", "acuracy < -1"), "did you mean accuracy?"),
        (("--fail-if", "class.cta < -1"), "no class is called 'cta': did you mean cat?"),
        (("--fail-if", "group.light=nigth < -1"), "did you mean light=night"),
        (("--fail-if", "accuracy < -1%"), "expected points of accuracy without %"),
        (("--fail-if", "negative_flips > 0.01"), "with its sign: `negative_flips > 1%`"),
        (("--fail-if", "negative_flips > 300%"), "expected a rate from 0 to 100 %, found 300"),
        (("--fail-if", "accuracy < 91"), "unless it rises by 91 points; `accuracy < -0.5` fails"),
        (("--fail-if", "class.cat > -50"), "about changes, not about accuracies"),
        (("--fail-if", 'class."any" < -1'), "no class is called 'any'"),
        (("--strict",), "--strict is about rules"),
        (("--gate", "gate.toml"), "gate.toml: unknown key 'fail'; expected fail_if, strict"),
        (("--gate", "none.toml"), "none.toml is no file: expected a file of rules"),
        (("--gate", "."), ". is no file: expected a file of rules"),
        (("--gate", "empty.toml"), "empty.toml holds no rule"),
        (("--fail-if", "accuracy < -1e9"), "after the number, found 'e9' at position 14"),
        (("--fail-if", "class.any < −2 points"), "found 'points' at position 16"),
        (("--fail-if", "accuracy < -0,5"), "found ',5' at position 14"),
        (("--fail-if", "accuracy < nan"), "expected a number at position 12, found 'nan'"),
        (("--fail-if", "accuracy < " + "9" * 400), "from -100 to 100 points, found 9999"),
        (("--fail-if", "class.cat < -101"), "from -100 to 100 points, found -101"),
        (("--fail-if", "shortcut.returned > 1"), "shortcut.returned takes no limit"),
        (("--markdown", "notes", "--junit", "./notes"), "is given twice"),
        (("--gate", "good.toml", "--markdown", "good.toml"), "is given twice"),
        (("--markdown", "run.json"), "expected a name that ends in .md, .markdown or .txt"),
        (("--junit", "junit.md"), "expected a name that ends in .xml"),
        (("--markdown", "."), ". is a folder: expected the name of a Markdown file"),
    ],
)
def test_bad_rules_are_one_line(
    old: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gate.toml").write_text("fail = 3\n")
    Path("empty.toml").touch()
    Path("good.toml").write_text('fail_if = ["accuracy < -1"]\n')
    Path("deep.toml").write_text(f"fail_if = {'[' * 5000}{']' * 5000}\n")
    Path("number.toml").write_text("fail_if = [1]\n")
    Path("text.toml").write_text("fail_if = 'accuracy < -1'\n")
    Path("strict.toml").write_text("fail_if = ['accuracy < -1']\nstrict = 'yes'\n")
    assert penult("diff", str(old), str(old), *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert len(line) < 700


def test_a_file_of_rules_may_have_a_mark_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "penult-gate.toml"
    file.write_bytes(b"\xef\xbb\xbf# rules\r\nfail_if = [\r\n  'accuracy < -1', # a point\r\n]\r\n")
    assert read_gate(file) == ([Rule.read("accuracy < -1")], False)


def test_any_name_can_stand_in_a_rule() -> None:
    """Quotes around a name are taken off, but for those that belong to it."""
    still = {"n_samples": 1000, "lost": 0, "won": 0, "loss": 0.0}
    names = ("any", '"any"', "", " a ", "a < 3", "b\nc", '"', "shortcut.returned", '""')
    classes = [{"class": name, **still} for name in names]
    groups = {"a=b": [{"value": "c=d", **still}], "e": [{"value": "any", **still}]}
    document = {"classes": classes, "groups": groups}
    asked = {f'class."{name}" < -1': name for name in names}
    asked |= {"class.a < 3 < -1": "a < 3", "class.b\nc < -1": "b\nc", 'class." < -1': '"'}
    asked |= {"group.a=b=c=d < -1": "a=b=c=d", 'group."e=any" < -1': "e=any"}
    rules = [Rule.read(text) for text in asked]
    check_rules(rules, names, {"a=b": ["c=d"], "e": ["any"]})
    found = [row["whose"] for row in judge_rules(rules, document)]
    assert found == [[name] for name in asked.values()]
    (every,) = judge_rules([Rule.read("class.any < -1")], document)
    assert len(every["whose"]) == len(names)


def test_files_beside_it_replace_nothing_of_a_run(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.read_bytes() for file in old.rglob("*") if file.is_file()}
    for name in ("run.json", "verdicts.jsonl", "features/eval/index.json", "features/summary.md"):
        assert penult("diff", str(old), str(old), "--markdown", str(old / name)) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert penult("diff", str(old), f"{old}@") == 2
    assert "names nothing after the @: expected RUN" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in old.rglob("*") if file.is_file()} == before
    assert penult("diff", str(old), str(old), "--markdown", str(old / "summary.md")) == 0
    assert (old / "summary.md").read_text(encoding="utf-8").startswith("### ")
    (old / "summary.md").unlink()


def test_numbers_of_rules_are_read_as_people_write_them() -> None:
    for text in (".5 %", "0.5%", "+0.50%", "0.5 %"):
        assert Rule.read(f"negative_flips > {text}").limit == pytest.approx(0.005)
    for text in ("-2", "−2", "-2.", "-2.0"):
        assert Rule.read(f"class.a < b < {text}") == Rule(
            f"class.a < b < {text}", "class.a < b", "<", -0.02
        )


def test_a_single_sample_is_compared(old: Path, tmp_path: Path) -> None:
    z, labels, weight = made()
    one = run_of(tmp_path / "one", z[:1], labels[:1], weight)
    found = document(one, one)
    assert found["verdict"] == "Nothing changed: both give the same class to the only sample."
    found = document(old, one)
    assert samples_said(found["samples"]) == [
        "Compared on 1 sample that both have",
        "599 samples are in only the first and left out",
    ]
    assert judge_rules([Rule.read("accuracy < -1")], found)[0]["verdict"].startswith("not enough")


def test_strict_fails_what_cannot_be_told_and_only_that() -> None:
    rows = [{"verdict": text} for text in ("fails", "not enough samples to tell", "passes")]
    assert [fails(row, False) for row in rows] == [True, False, False]
    assert [fails(row, True) for row in rows] == [True, True, False]


def test_what_changed_for_sure_is_corrected_for_all_looks(old: Path, tmp_path: Path) -> None:
    z, labels, weight = made()
    other = weight + 0.3 * torch.randn(C, D, generator=torch.Generator().manual_seed(8))
    rows = document(old, run_of(tmp_path / "b", z, labels, other))["classes"]
    adjusted = holm([sign_test(row["lost"], row["won"]) for row in rows])
    assert [row["p_adjusted"] for row in rows] == pytest.approx(adjusted)
    assert [row["sure"] for row in rows] == [p <= 0.05 for p in adjusted]


def test_classes_in_another_order_are_no_change(old: Path, tmp_path: Path) -> None:
    z, labels, weight = made()
    order = torch.tensor([2, 0, 3, 1])
    names = tuple(NAMES[c] for c in order.tolist())
    found = document(old, run_of(tmp_path / "b", z, order.argsort()[labels], weight[order], names))
    assert found["flips"]["n_changed"] == 0
    assert found["probabilities"]["kl"] == pytest.approx(0, abs=1e-7)
    assert found["evidence"]["classes"] == []
    assert found["probabilities"]["old"] == pytest.approx(found["probabilities"]["new"])


def test_groups_of_the_one_side_hold_for_samples_in_another_order(
    old: Path, tmp_path: Path
) -> None:
    z, labels, weight = made()
    turned = torch.arange(N - 1, -1, -1)
    ids = [f"{i:04d}" for i in turned.tolist()]
    new = run_of(tmp_path / "b", z[turned], labels[turned], weight, ids=ids)
    right = (z @ weight.T).argmax(1) == labels
    night = torch.arange(N) % 3 == 0
    for sides in ((old, new), (new, old)):
        rows = {row["value"]: row for row in document(*sides)["groups"]["light"]}
        assert rows["night"]["n_samples"] == int(night.sum())
        assert rows["night"]["before"] == pytest.approx(float(right[night].double().mean()))


def test_what_became_of_a_feature_is_told_by_its_shares() -> None:
    for was, now, word in (
        (0.2, -0.2, "turned its sign"),
        (-0.1, 0.3, "turned its sign"),
        (0.2, 0.4, "counts more"),
        (-0.2, -0.4, "counts more"),
        (0.4, 0.2, "counts less"),
        (0.0, 0.2, "came"),
        (0.2, 0.0, "went"),
    ):
        assert _what(was, now) == word


def test_a_rule_about_any_of_many_classes_asks_for_more() -> None:
    """What one class alone would prove may be chance where ten are looked at."""
    still = {"n_samples": 1000, "lost": 0, "won": 0, "loss": 0.0}
    worse = {"class": "a", "n_samples": 1000, "lost": 40, "won": 15, "loss": 0.025}
    found = {"classes": [worse, *({"class": str(c), **still} for c in range(9))]}
    rules = [Rule.read("class.a < -1"), Rule.read("class.any < -1")]
    verdicts = [row["verdict"] for row in judge_rules(rules, found)]
    assert verdicts == ["fails", "not enough samples to tell"]


def test_no_change_has_no_sign() -> None:
    found = {"overall": {"n_samples": 40, "lost": 1, "won": 1, "loss": 0.0}}
    (row,) = judge_rules([Rule.read("accuracy < -90")], found)
    assert ruled(row).startswith("passes: all samples +0.00 points (-")


def test_names_give_markdown_and_xml_no_orders(tmp_path: Path) -> None:
    z, labels, weight = made()
    names = ("<script>", "a|b", "`c`", "@d\n# e")
    broken = weight.clone()
    broken[0] *= 0.1
    first = run_of(tmp_path / "a", z, labels, weight, names)
    found = document(first, run_of(tmp_path / "b", z, labels, broken, names))
    found["gate"] = judge_rules([Rule.read("class.any < -2")], found)
    text = markdown(found)
    assert "<script>" not in text
    assert "\n# e" not in text
    assert "| a|b |" not in text


NASTY = ("\x1b[31m\x07", "b\r\nc\x00", "\u202ee\u2067", "😀 " + "é" * 10_000)


def test_what_is_said_has_no_orders_and_no_end_of_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names with control characters, line ends, writing from the right, and of 10,000 letters."""
    z, labels, weight = made()
    broken = weight.clone()
    broken[1] *= 0.05
    first = run_of(tmp_path / "a", z, labels, weight, NASTY)
    second = run_of(tmp_path / "b", z, labels, broken, NASTY)
    assert penult("verdict", str(first), "0", "core") == 0
    capsys.readouterr()
    files = ("--markdown", str(tmp_path / "o.md"), "--junit", str(tmp_path / "o.xml"))
    rules = [f"class.{name} < -1" for name in NASTY] + ["class.any < -1", "shortcut.returned"]
    gate = [part for rule in rules for part in ("--fail-if", rule)]
    status = penult("diff", str(first), str(second), *gate, *files)
    assert status == 3
    page = capsys.readouterr().out
    text = (tmp_path / "o.md").read_text(encoding="utf-8")
    suite = ElementTree.parse(tmp_path / "o.xml").getroot()
    verdict = str(suite.findtext("system-out"))
    for said in (page, text, verdict):
        assert all(c.isprintable() or c in "\n\u00a0" for c in said)
        assert "é" * 201 not in said
    assert "b··c·" in verdict
    assert "wrong now, " in verdict
    assert verdict.split("wrong now, ")[1].split()[0] in text, "the verdict is whole"
    assert text.count("wrong now, ") == 1
    assert [case.get("name") for case in suite.iter("testcase")][2] == "class.·e· < -1"


def test_long_sentences_are_whole_in_markdown(old: Path, tmp_path: Path) -> None:
    z, labels, weight = made()
    broken = weight.clone()
    broken[2] *= 0.1
    found = document(old, run_of(tmp_path / "b", z, labels, broken))
    assert len(found["verdict"]) > 200
    assert found["verdict"].replace(" %", "\u00a0%") in markdown(found)


def test_classes_in_another_writing_are_the_same(old: Path, tmp_path: Path) -> None:
    """Other case, blanks or form of Unicode; what two names fold to is left alone."""
    z, labels, weight = made()
    first = run_of(tmp_path / "a", z, labels, weight, ("café au lait", "Dog", "a", "b"))
    second = run_of(tmp_path / "b", z, labels, weight, ("Cafe\u0301_au_lait ", "dog", "A", "B"))
    assert penult("verdict", str(first), "3:Dog", "shortcut") == 0
    found = document(first, second)
    assert found["samples"]["n_samples"] == N
    assert found["flips"]["n_changed"] == 0
    assert found["evidence"]["judged"] == {"n_verdicts": 1, "n_shortcuts": 1, "n_lost": 0}
    (said,) = (text for text in samples_said(found["samples"]) if "written" in text)
    assert said.startswith("4 classes are written in another way: café au lait → Cafe")
    rules = [Rule.read(text) for text in ("class.Dog < -1", "class.CAFÉ AU LAIT < -1")]
    check_rules(rules, second_names := ["Cafe\u0301_au_lait ", "dog", "A", "B"], {})
    whose = [row["whose"] for row in judge_rules(rules, found)]
    assert whose == [["dog"], [second_names[0]]]
    third = run_of(tmp_path / "c", z, labels, weight, ("café au lait", "Dog", "a", "A"))
    samples = document(third, second)["samples"]
    assert samples["classes_rewritten"] == {"café au lait": "Cafe\u0301_au_lait ", "Dog": "dog"}
    assert (samples["classes_only_old"], samples["classes_only_new"]) == (["a"], ["B"])
    two = run_of(tmp_path / "d", z, labels, weight, ("fox", "owl", "sea lion", "Sea_lion"))
    one = run_of(tmp_path / "e", z, labels, weight, ("fox", "owl", "SEA LION", "sea cow"))
    for sides in ((two, one), (one, two)):
        assert document(*sides)["samples"]["classes_rewritten"] == {}, "nobody knows which"


def test_logits_that_are_no_numbers_leave_probabilities_open(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features and weights that are numbers may make logits that are too large for one."""
    z, labels, weight = made()
    huge = run_of(tmp_path / "b", z * 1e20, labels, weight * 1e20)
    capsys.readouterr()
    assert penult("diff", str(old), str(huge), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["probabilities"]["new"].values()) == {None}
    assert found["probabilities"]["old"]["confidence"] > 0.5
    assert found["probabilities"]["kl"] is None
    assert found["matched"]["cka"] == pytest.approx(1, abs=1e-4), "whatever the scale"
    assert penult("diff", str(old), str(huge)) == 0
    assert "mean confidence (%)" in capsys.readouterr().out


def test_a_class_without_a_name_is_called_so(tmp_path: Path) -> None:
    z, labels, weight = made()
    broken = weight.clone()
    broken[0] *= 0.1
    names = ("", "dog", "fox", "owl")
    first = run_of(tmp_path / "a", z, labels, weight, names)
    found = document(first, run_of(tmp_path / "b", z, labels, broken, names))
    assert "With 95 % confidence worse: (no name)." in found["verdict"]
    assert "| (no name) | 150 |" in markdown(found)
    (row,) = judge_rules([Rule.read('class."" < -1')], found)
    assert ruled(row).startswith("fails: class (no name) -")


def test_a_rule_with_marks_of_code_is_whole_in_markdown() -> None:
    for name, shown in (
        ("a|b", "<code>class.a\\|b &lt; -1</code>"),
        ("a`b", "<code>class.a\\`b &lt; -1</code>"),
        ("a\\|b", "<code>class.a\\\\\\|b &lt; -1</code>"),
        ("a", "`class.a < -1`"),
    ):
        assert _code(f"class.{name} < -1") == shown


def test_a_rule_says_so_when_samples_cannot_tell() -> None:
    found = {
        "overall": {"n_samples": 40, "lost": 3, "won": 1, "loss": 0.05},
        "samples": {"n_samples": 40},
        "flips": {"negative": {"n_samples": 3, "rate": 0.075}},
    }
    rules = ["accuracy < -2", "accuracy < -50", "accuracy < 15", "negative_flips > 10%"]
    verdicts = [row["verdict"] for row in judge_rules([Rule.read(rule) for rule in rules], found)]
    assert verdicts == [
        "not enough samples to tell",
        "passes",
        "fails",
        "not enough samples to tell",
    ]


def test_small_classes_and_rare_flips_prove_nothing(old: Path, tmp_path: Path) -> None:
    """All ten of a class lost, among a thousand such classes; one flip of thirty samples."""
    still = {"n_samples": 10, "lost": 0, "won": 0, "loss": 0.0}
    worse = {"class": "a", "n_samples": 10, "lost": 10, "won": 0, "loss": 1.0}
    found = {
        "classes": [worse, *({"class": str(c), **still} for c in range(999))],
        "overall": {"n_samples": 100, "lost": 0, "won": 0, "loss": 0.0},
        "samples": {"n_samples": 30},
        "flips": {"negative": {"n_samples": 1, "rate": 1 / 30}},
    }
    rules = ["class.any < -2", "negative_flips > 0.5%", "accuracy < -2", "accuracy < -4"]
    verdicts = [row["verdict"] for row in judge_rules([Rule.read(rule) for rule in rules], found)]
    assert verdicts == [*["not enough samples to tell"] * 3, "passes"]
    z, labels, weight = made()
    broken = weight.clone()
    broken[1] *= 0.2
    told = document(old, run_of(tmp_path / "b", z, labels, broken))
    for row in (told["overall"], *told["classes"], *told["groups"]["light"]):
        ends = score_interval(row["lost"], row["won"], row["n_samples"])
        assert row["interval"] == pytest.approx(ends)
    negative = told["flips"]["negative"]
    assert negative["interval"] == pytest.approx(exact_interval(negative["n_samples"], N))


def test_the_gate_errs_as_rarely_as_it_says() -> None:
    """No true change: a rule with limit 0 fails in at most 5 %; twice the limit is caught."""
    draw = np.random.default_rng(0)
    n, wrong = 1000, [0, 0]
    rule = Rule.read("accuracy < -1")
    for loss, at in ((0.01, 0), (0.045, 1)):
        for _ in range(400):
            lost, won = draw.multinomial(n, [0.02 + loss, 0.02, 0.96 - loss])[:2]
            counts = {"n_samples": n, "lost": int(lost), "won": int(won), "loss": (lost - won) / n}
            verdict = judge_rules([rule], {"overall": counts})[0]["verdict"]
            wrong[at] += (verdict == "fails") if at == 0 else (verdict != "fails")
    assert wrong[0] <= 0.05 * 400 + 3 * (400 * 0.05 * 0.95) ** 0.5
    assert wrong[1] <= 0.05 * 400 + 3 * (400 * 0.05 * 0.95) ** 0.5


def test_holm_is_that_of_a_naive_definition() -> None:
    draw = np.random.default_rng(1)
    for n in (0, 1, 2, 7, 30):
        p = draw.random(n).tolist()
        naive = [
            max(min(1.0, p[j] * (n - sum(q < p[j] for q in p))) for j in range(n) if p[j] <= p[i])
            for i in range(n)
        ]
        assert holm(p) == pytest.approx(naive)
    assert paired_interval(0, 0, 10)[0] < 0 < paired_interval(0, 0, 10)[1]


def test_unlike_networks_share_no_feature() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(2000, 8, generator=generator) for _ in range(2))

    class Fixed:
        def __init__(self, z: Tensor, name: str) -> None:
            self.z, self.run, self.head = z, type("R", (), {"folder": Path(name)})(), z

        def rows(self, rows: Tensor) -> Tensor:
            return self.z[rows]

    rows = torch.arange(2000)
    shared = type("S", (), {"n_samples": 2000, "old_rows": rows, "new_rows": rows})()
    found = Alignment.of(Fixed(first, "a"), Fixed(second, "b"), shared)  # type: ignore[arg-type]
    assert found.n_matched == 0
    x, y = first.double() - first.double().mean(0), second.double() - second.double().mean(0)
    cka = (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
    assert found.cka == pytest.approx(float(cka), rel=1e-4)


def test_all_forms_tell_the_same_numbers(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Terminal, Markdown, JUnit and the page against the document, however they set a minus."""
    z, labels, weight = made()
    other = weight + 0.3 * torch.randn(C, D, generator=torch.Generator().manual_seed(9))
    other[3] *= 0.5
    new = run_of(tmp_path / "b", z, labels, other)
    files = [tmp_path / f"o.{ending}" for ending in ("md", "xml", "html")]
    given = [str(file) for file in files]
    rules = ["accuracy < -1", "class.any < -3", "group.any < -1", "negative_flips > 2%"]
    gate = [part for rule in rules for part in ("--fail-if", rule)]
    outputs = ("--markdown", given[0], "--junit", given[1], "--report", given[2], "--no-maps")
    capsys.readouterr()
    penult("diff", str(old), str(new), *gate, *outputs)
    terminal = capsys.readouterr().out
    penult("diff", str(old), str(new), *gate, "--json")
    found = json.loads(capsys.readouterr().out)
    page = files[2].read_text(encoding="utf-8").split("<main", 1)[1]
    html = re.sub("<[^>]+>", " ", page)
    pages = [terminal, *(file.read_text(encoding="utf-8") for file in files[:2]), html]
    texts = [
        " ".join(page.replace("−", "-").replace("\u00a0", " ").split()).replace(" %", "%")
        for page in pages
    ]

    def change(row: dict[str, Any]) -> str:
        return " to ".join(f"{-100 * end:+z.2f}" for end in reversed(row["interval"]))

    for row in found["gate"]:
        ends = (100 * end for end in row["interval"])
        rate = row["what"] == "negative_flips"
        wanted = " to ".join(f"{end:.2f}" if rate else f"{end:+z.2f}" for end in ends)
        value = 100 * row["value"]
        wanted = f"{f'{value:.2f}%' if rate else f'{value:+z.2f} points'} ({wanted})"
        assert all(wanted in text for text in texts), row["rule"]
    moved = [row for row in found["classes"] if row["lost"] or row["won"]]
    assert len(moved) == C
    rows = [found["overall"], *moved, *found["groups"]["light"]]
    for row in rows:
        for wanted in (f"{100 * row['before']:.2f}", f"{100 * row['after']:.2f}", change(row)):
            assert all(wanted in text for text in (texts[0], texts[1], texts[3])), wanted
    for kind in ("negative", "positive"):
        part = found["flips"][kind]
        assert all(str(part["n_samples"]) in text for text in texts)
        for value in (part["rate"], *part["interval"]):
            assert all(f"{100 * value:.2f}" in text for text in (texts[0], texts[3]))


def test_of_unlike_networks_it_is_told_what_each_rests_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing "came" or "went" where no feature has a partner: all of them would have."""
    z, labels, weight = made()
    other, _, turned = made(seed=1)
    first = run_of(tmp_path / "a", z, labels, weight)
    second = run_of(tmp_path / "b", other[torch.randperm(N)], labels, turned)
    found = document(first, second)
    assert not found["evidence"]["comparable"]
    row = found["evidence"]["classes"][0]
    before, now = (in_words(part) for part in rested_on(row))
    assert {one["old"] for one in row["features"]} >= {j for j, _ in rested_on(row)[0]}
    for _, share in (*rested_on(row)[0], *rested_on(row)[1]):
        assert abs(share) >= 0.005
    text = markdown(found)
    assert f"| {row['class']} | {before} | {now} |" in text
    capsys.readouterr()
    assert penult("diff", str(first), str(second)) == 0
    page = " ".join(capsys.readouterr().out.split())
    for said in (text, page):
        assert "came (" not in said
        assert "went (" not in said
        assert "changed by" not in said
        assert "cannot be compared feature by feature" in " ".join(said.split())
    assert in_words([]) == "none by as much as 1\u00a0%"


def exported(
    run: Path, name: str, side: Side, sizes: tuple[int, int], ms: tuple[float, float]
) -> None:
    """What `penult export` keeps of an export of a side, as far as it is read."""
    folder = run / "exported" / name
    folder.mkdir(parents=True)
    cost: dict[str, Any] = {"seconds": {"torch": {"1": {}}}}
    for which, size, seconds in zip(("before", "after"), sizes, ms, strict=True):
        cost[which] = {"bytes": size}
        times = {"median": seconds / 1000, "interval": [0.0, 1.0], "n": 9}
        cost["seconds"]["torch"]["1"][which] = times
    document = {
        "format": "penult-export/1",
        "what": {"format": "torch"},
        "head": {"fingerprint": side.head.fingerprint()},
        "cost": cost,
    }
    (folder / "export.json").write_text(json.dumps(document))


def test_size_and_speed_are_told_where_exports_have_measured_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    z, labels, weight = made()
    features = Features.of(z, labels, weight, class_names=NAMES)
    run = tmp_path / "run"
    analyze_features(features, features, run)
    assert document(run, f"{run}@k2")["exports"] == []
    exported(run, "two", Side.read(f"{run}@k2"), (3000, 2000), (2.0, 1.0))
    exported(run, "three", Side.read(f"{run}@k3"), (3000, 2500), (2.0, 1.5))
    (run / "exported" / "broken").mkdir()
    (run / "exported" / "broken" / "export.json").write_text("{}")
    (row,) = document(f"{run}@k3", f"{run}@k2")["exports"]
    assert row["bytes"] == {"old": 2500, "new": 2000}
    assert (row["seconds"][0]["old"]["median"], row["together"]) == (0.0015, False)
    (row,) = document(run, f"{run}@k2")["exports"]
    assert row["bytes"] == {"old": 3000, "new": 2000}
    assert document(run, f"{run}@k1")["exports"] == [], "k = 1 was not exported"
    capsys.readouterr()
    assert penult("diff", f"{run}@k3", f"{run}@k2") == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "bytes as torch 2,500 2,000" in page
    assert "ms for 1 (torch, not measured side by side) 1.5 1" in page
