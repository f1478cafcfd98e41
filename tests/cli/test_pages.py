"""The page of `penult show`: what it lists by itself, and what it says of single classes."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

from penult.cli.pages import best_score, summary_page
from penult.errors import InputError
from penult.features.features import Features
from penult.intervals import accuracy_interval
from penult.runs.analyze import Options, analyze_features
from penult.runs.run import Run

N_CLASSES = 30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Thirty classes, five without samples, the last of the others always mistaken."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(N_CLASSES, 20, generator=generator)
    labels = torch.arange(5, N_CLASSES).repeat_interleave(8)
    z = means[labels]
    z[labels == N_CLASSES - 1] = means[5]
    names = [f"class[{c}]" for c in range(N_CLASSES)]
    features = Features.of(z, labels, means, -(means**2).sum(1) / 2, names)
    return analyze_features(features, None, tmp_path_factory.mktemp("run"), Options(fit=False))


def printed(run: Run, width: int = 120, **options: object) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(summary_page(run.summary(), **options))  # type: ignore[arg-type]
    return console.export_text()


def test_the_score_that_does_best_is_shown() -> None:
    found = {
        "frequency": {"2": {"accuracy": 0.5}, "5": {"accuracy": 0.9}},
        "mass": {"2": {"accuracy": 0.6}, "5": {"accuracy": 0.9}},
    }
    assert [best_score(found, k) for k in (2, 5)] == ["mass", "frequency"]
    with pytest.raises(InputError, match="the run holds no k = 3; it holds 2, 5"):
        best_score(found, 3)


def test_the_page_says_what_accuracy_is_worth(run: Run) -> None:
    page = printed(run)
    low, high = (100 * end for end in accuracy_interval(192, 200))
    assert f"Dense     96.00 % right, 95 % interval {low:.2f} to {high:.2f}" in page
    assert "Baseline  4.00 % right by always saying class[5]" in page
    assert "200 analysed samples (cross-fitted in 5 folds)" in page
    assert "Warning   there are no evaluation samples" in page


def test_the_weakest_classes_come_with_n_and_interval(run: Run) -> None:
    page = printed(run)
    weakest = page[page.index("Weakest classes") :].splitlines()
    assert weakest[2].split() == ["class[29]", "8", "0.00", "0.00", "to", "32.44"]
    listed = page[page.index("Features that decide") :].splitlines()
    assert listed[2].startswith("class[5]"), "classes without samples come last"
    asked = printed(run, only=["class[29]", "class[0]"])
    assert "Weakest" not in asked
    rows = asked[asked.index("Features that decide") :].splitlines()
    assert rows[2].split()[:6] == ["class[29]", "8", "8", "0.00", "0.00", "to"]
    assert rows[3].split()[:3] == ["class[0]", "0", "0"]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_number_or_name_is_cut_in_a_narrow_terminal(run: Run, width: int) -> None:
    page = printed(run, width)
    assert "…" not in page.replace("… and", "")
    found = run.summary()["influence"]
    words = page.split()
    for name, row in found.items():
        assert name in words, f"{name} is cut at {width} columns"
        for size in row.values():
            assert f"{100 * size['accuracy']:.2f}" in words
