from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from command import penult
from penult.features.features import Features
from penult.features.groups import Attribute
from penult.features.saving import save_features
from penult.heads.comparison import Comparison
from penult.measure.groups import accuracy_by_group, counts_by_group, hidden_losses


def drawn(n: int = 400, seed: int = 0) -> tuple[Comparison, Attribute]:
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=g)
    before = torch.where(torch.rand(n, generator=g) < 0.8, labels, 0)
    codes = torch.randint(-1, 2, (n,), generator=g)
    return Comparison(labels, before, before, 3), Attribute("sex", ("f", "m"), codes)


def test_accuracies_by_group_are_counted_as_by_hand() -> None:
    compared, attribute = drawn()
    found = accuracy_by_group(compared, attribute, ["a", "b", "c"])
    right = compared.before == compared.labels
    for row in found["groups"]:
        inside = compared.labels == "abc".index(row["class"])
        inside &= attribute.codes == attribute.values.index(row["value"])
        assert row["n_samples"] == int(inside.sum())
        assert row["accuracy"] == pytest.approx(float(right[inside].double().mean()))
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1] + 1e-12
    assert found["n_samples"] + found["n_without"] == 400
    assert found["worst"]["accuracy"] == min(row["accuracy"] for row in found["groups"])
    assert found["mean"] == pytest.approx(float(right[attribute.known].double().mean()))


def test_the_mean_by_training_weighs_each_group_as_often_as_it_was_trained_on() -> None:
    compared, attribute = drawn()
    weights = torch.zeros(6, dtype=torch.float64)
    weights[2], weights[5] = 3, 1  # class b with f, class c with m
    found = accuracy_by_group(compared, attribute, ["a", "b", "c"], weights)
    by_name = {(row["class"], row["value"]): row["accuracy"] for row in found["groups"]}
    expected = (3 * by_name["b", "f"] + by_name["c", "m"]) / 4
    assert found["mean_by_training"] == pytest.approx(expected)
    assert accuracy_by_group(compared, attribute, "abc")["mean_by_training"] is None


def test_groups_of_fewer_than_ten_are_shown_and_never_the_worst() -> None:
    labels = torch.tensor([0] * 9 + [1] * 10)
    before = torch.tensor([1] * 9 + [1] * 8 + [0] * 2)
    attribute = Attribute("sex", ("f",), torch.zeros(19, dtype=torch.int64))
    found = accuracy_by_group(Comparison(labels, before, before, 2), attribute, ["a", "b"])
    assert [row["class"] for row in found["groups"]] == ["b", "a"]
    assert found["worst"]["class"] == "b"
    assert found["groups"][1]["accuracy"] == 0.0
    assert found["groups"][1]["interval"][1] > 0.2
    few = Attribute("sex", ("f",), torch.where(labels == 0, 0, -1))
    assert accuracy_by_group(Comparison(labels, before, before, 2), few, "ab")["worst"] is None


def test_accuracies_by_value_are_those_over_all_classes() -> None:
    compared, attribute = drawn()
    found = accuracy_by_group(compared, attribute, ["a", "b", "c"])["by_value"]
    right = compared.before == compared.labels
    assert sorted(row["value"] for row in found) == ["f", "m"]
    for row in found:
        inside = attribute.codes == attribute.values.index(row["value"])
        assert row["n_samples"] == int(inside.sum())
        assert row["accuracy"] == pytest.approx(float(right[inside].double().mean()))
    assert found[0]["accuracy"] <= found[1]["accuracy"]


def lossy(n_lost: int, everywhere: float, seed: int = 1) -> tuple[Comparison, Attribute]:
    """2,000 samples of which a part is lost everywhere, and more in a group of 100."""
    labels = torch.zeros(2000, dtype=torch.int64)
    g = torch.Generator().manual_seed(seed)
    after = torch.where(torch.rand(2000, generator=g) < everywhere, 1, 0)
    after[:100] = (torch.arange(100) < n_lost).long()
    compared = Comparison(labels, torch.zeros_like(labels), after, 2)
    return compared, Attribute("sex", ("f", "m"), (torch.arange(2000) < 100).long())


def test_a_group_that_loses_more_than_twice_as_much_is_found_and_others_are_not() -> None:
    compared, attribute = lossy(25, 0.0)
    ((found,),) = hidden_losses([compared], [attribute], ["a", "b"])
    assert [(row["class"], row["value"], row["lost"]) for row in found] == [("a", "m", 25)]
    assert counts_by_group(compared, attribute)[1].n_samples == 100
    for one, attribute in (lossy(2, 0.0125), lossy(50, 0.3), lossy(2, 0.0)):
        assert hidden_losses([one], [attribute], ["a", "b"]) == [[[]]]


def test_the_more_heads_are_looked_at_the_surer_a_loss_must_be() -> None:
    one, attribute = lossy(10, 0.0)
    even, _ = lossy(0, 0.0)
    assert len(hidden_losses([one], [attribute], ["a", "b"])[0][0]) == 1
    assert hidden_losses([one, *[even] * 40], [attribute], ["a", "b"]) == [[[]]] * 41


def test_noise_hides_nothing_whatever_the_overall_loss() -> None:
    said = 0
    for seed in range(40):
        heads = [lossy(0, p, seed + 100 * i)[0] for i, p in enumerate((0.01, 0.1, 0.3))]
        codes = torch.randint(20, (2000,), generator=torch.Generator().manual_seed(seed))
        attribute = Attribute("place", tuple(map(str, range(20))), codes)
        said += any(rows for (rows,) in hidden_losses(heads, [attribute], ["a", "b"]))
    assert said <= 4


def features_run(folder: Path, n: int = 120) -> Path:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    z = torch.rand(n, 5, generator=g) + torch.eye(3, 5)[labels]
    weight = 4 * torch.eye(3, 5) - 1
    for part in ("train", "eval"):
        ids = [f"{part}/{i:03d}.png" for i in range(n)]
        made = Features.of(z, labels, weight, None, ["a", "b", "c"], ids)
        save_features(folder / f"{part}.safetensors", made)
        rows = [f"{part}/{i:03d}.png,{'fm'[i % 2]}" for i in range(n)]
        (folder / f"{part}.csv").write_text("\n".join(["id,sex", *rows]))
    return folder


def test_analyze_groups_show_and_measure_tell_the_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features_run(tmp_path)
    run = str(tmp_path / "run")
    both = (tmp_path / "train.csv").read_text().splitlines()
    both += [*(tmp_path / "eval.csv").read_text().splitlines()[1:], "other.png,f"]
    (tmp_path / "both.csv").write_text("\n".join(both))
    given = ["--groups", str(tmp_path / "both.csv"), "--out", run, "--no-fit"]
    train, held_out = (str(tmp_path / f"{part}.safetensors") for part in ("train", "eval"))
    assert penult("analyze", train, "--eval", held_out, *given) == 0
    out, err = capsys.readouterr()
    assert "Groups by sex: accuracy of the dense head on eval, worst first" in out
    assert "with the groups as frequent as in training" in out
    assert "Mean over the samples " in out
    assert "with a group" not in out
    assert "1 row names no sample of the run, the first: other.png" in err
    assert penult("show", run, "--json") == 0
    found = json.loads(capsys.readouterr().out)["groups"]["attributes"]["sex"]
    assert len(found["groups"]) == 6
    rows = (tmp_path / "eval.csv").read_text().splitlines()[:-2]
    (tmp_path / "few.csv").write_text("\n".join(rows))
    assert penult("groups", run, str(tmp_path / "few.csv")) == 0
    out, err = capsys.readouterr()
    assert "2 of the 120 samples of eval have no group, the first: eval/118.png, eval/119.p" in err
    assert "2 samples have no group." in out
    assert "Mean over the samples with a group " in out, "what is without counts in no mean"
    (tmp_path / "few.csv").write_text("\n".join(rows[:60]))
    assert penult("groups", run, str(tmp_path / "few.csv")) == 0
    err = capsys.readouterr().err
    first = ", ".join(f"eval/{i:03d}.png" for i in (59, 60, 61))
    assert f"61 of the 120 samples of eval have no group, the first: {first}; they are left" in err


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (["id,sex", "nobody,f"], [], "names no sample of"),
        (["row,sex", "0,f"], [], "names a sample of train and one of eval (1 rows do)"),
        (["id,sex", "eval/001.png,f"], ["--part", "test"], "--part: expected one of train, eval"),
        (["id,sex", "eval/001.png,f"], ["--bins", "sex"], "--bins: expected attribute=number"),
    ],
)
def test_groups_that_do_not_fit_the_run_end_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[str],
    options: list[str],
    message: str,
) -> None:
    features_run(tmp_path)
    run = str(tmp_path / "run")
    train, held_out = (str(tmp_path / f"{part}.safetensors") for part in ("train", "eval"))
    assert penult("analyze", train, "--eval", held_out, "--out", run, "--no-fit") == 0
    (tmp_path / "g.csv").write_text("\n".join(rows))
    assert penult("groups", run, str(tmp_path / "g.csv"), *options) == 2
    err = capsys.readouterr().err
    assert message in " ".join(err.split())
