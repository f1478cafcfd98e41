"""The model card: every number by its definition, and names from data that give it no orders."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt

from command import penult
from penult import Run
from penult.data.transform import Transform
from penult.export.model_card import model_card
from penult.export.samples import features_for_proof
from penult.export.shipment import ExportOptions, Shipment
from penult.export.shipped_head import shipped_head
from penult.intervals import accuracy_interval
from small_run import NET, images_for

REASON = "a `watermark`\n```\n<script>alert(1)</script> | [x](javascript:y)"
VALUES = ("<i>day</i>", "night|`x`")


def card_of(run: Run, recipe: Path | None = None) -> str:
    made = shipped_head(run, k=3, select="magnitude", recipe=recipe)
    transform = Transform.from_json(run.about["transform"])
    samples = replace(features_for_proof(run, 256), transform=transform)
    return model_card(Shipment(run, made, samples, ExportOptions("hf")))


def rows_of(card: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    after = card.split(f"{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", after, re.MULTILINE)
    assert table is not None
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    images_for(NET, tmp_path, monkeypatch)
    run = Run.open("run")
    rows = [f"{name},{VALUES[i % 2]}" for i, name in enumerate(run.train().ids())]
    Path("groups.csv").write_text("\n".join(["id,<b>time</b>", *rows]))
    assert penult("groups", "run", "groups.csv") == 0
    return Run.open("run")


def test_accuracies_are_those_of_the_definition(run: Run) -> None:
    card = card_of(run)
    z, labels = run.train().arrays()
    head = run.head("magnitude", 3)
    with torch.no_grad():
        right = (z.float() @ head.dense_weight().T + head.bias).argmax(1) == labels
    was = run.train().require_head()(z.float()).argmax(1) == labels

    def cells(of: torch.Tensor) -> list[str]:
        n, now, before = int(of.sum()), int(right[of].sum()), int(was[of].sum())
        low, high = accuracy_interval(now, n)
        interval = f"{100 * low:.2f} to {100 * high:.2f} %"
        return [str(n), f"{100 * before / n:.2f} %", f"{100 * now / n:.2f} %", interval]

    assert rows_of(card, "### By class") == [
        [name, *cells(labels == c)] for c, name in enumerate("abc")
    ]
    every = torch.ones(len(labels), dtype=torch.bool)
    _, after = rows_of(card, "## Accuracy")
    assert after[1:] == [cells(every)[2], cells(every)[3]]
    at = torch.arange(len(labels)) % 2
    groups = rows_of(card, "### By class and &lt;b&gt;time&lt;/b&gt;")
    assert [row[1:] for row in groups] == [
        cells((labels == c) & (at == value)) for c in range(3) for value in range(2)
    ]


def test_what_was_done_and_its_limits_are_said(run: Run) -> None:
    card = card_of(run)
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: image-classification\n")
    assert "# net.py:net, with 3 features for each class" in card
    assert "It tells 3 classes apart by 6 features" in card
    assert "Each class now reads 3 of them, all classes together" in card
    assert "multiply the 8-bit values by 1/255, subtract 0.5, 0.5, 0.5 and divide" in card
    assert "measured on the data that the features were chosen by" in card
    assert "3 classes of 3 have fewer than 30 samples" in card
    assert "Nothing was measured for groups" not in card
    assert str(Path.cwd()) not in card


def test_names_and_reasons_of_others_are_text(run: Run) -> None:
    recipe = {
        "format": "penult-recipe/1",
        "note": "mend <img src=x onerror=y>",
        "edits": [{"edit": "off", "feature": 1, "class": "a", "reason": REASON}],
    }
    Path("recipe.json").write_text(json.dumps(recipe))
    card = card_of(run, Path("recipe.json"))
    page = MarkdownIt("commonmark").enable("table").render(card.split("---\n", 2)[2])
    # HTML of its own are the folds alone; what is in the block of code is escaped.
    found = set(re.findall(r"<(\w+)", page))
    assert found.isdisjoint({"script", "img", "b", "i", "a"})
    block = re.search(r'<code class="language-json">(.*?)</code>', page, re.DOTALL)
    assert block is not None
    assert "&lt;script&gt;alert(1)" in block[1]
    assert "feature 1 for a off: a" in page
