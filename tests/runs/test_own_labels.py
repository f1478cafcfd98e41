"""A run without labels: the network's own classes stand in, and every command says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from browsing import Open
from command import penult
from penult import Run
from penult.heads.judge import CROSS_FIT, EVALUATION, OWN_LABELS, Judge
from penult.report.report import Report
from small_run import images_for

# Says which of three colours an image has most of, so that each class is said of some.
NET = """
import torch
from torch import nn

class Net(nn.Module):
    penult_transform = {"mean": [0.5, 0.5, 0.5], "std": [0.02, 0.02, 0.02]}

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1)
        self.head = nn.Linear(6, 3)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3).repeat(2, 1)[..., None, None])
            self.head.weight.copy_(torch.eye(3).repeat(1, 2))

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))

def net():
    return Net()
"""

SAID = "the labels are the network's own classes (--labels predicted)"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    images_for(NET, tmp_path, monkeypatch)
    command = ("analyze", "net.py:net", "data", "--weights", "random", "--eval", "data")
    assert penult(*command, "--labels", "predicted", "--out", "own") == 0
    return tmp_path


def test_each_command_says_whose_the_labels_are(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert penult("show", "own") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for command in (
        ("show", "own", "--json"),
        ("fit", "own", "-k", "2"),
        ("measure", "own"),
        ("shortcuts", "own"),
        ("edit", "own", "--off", "1"),
        ("explain", "own", "eval:1", "--no-maps"),
        ("report", "own", "--no-maps", "--images", "1"),
    ):
        assert penult(*command) == 0
        told = capsys.readouterr()
        assert SAID in " ".join((told.err + told.out).split()), command
    assert SAID in shown
    assert "how often it is right is not known: its classes are the labels" in shown
    assert "Agreement with the network (%) with k features" in shown
    assert "network right" not in shown
    assert "Baseline" not in shown
    assert penult("show", "run") == 0  # the same images with their own labels
    assert SAID not in " ".join(capsys.readouterr().out.split())


def test_a_report_says_it_on_every_view(own: Path, visit: Open) -> None:
    report = Report.of(Run.open("own"), pictures=None)
    report.save("page.html")
    page = visit(Path("page.html").read_text(encoding="utf-8"))
    for seen in page.tour(["summary", "classes", "class/0", "features", "mistakes"]):
        assert "The labels are the network's own classes" in seen["text"], seen["route"]
    numbers = page.text("#summary-view .numbers")
    assert "Agreement" in numbers
    assert "right, by" not in numbers
    conclusion = " ".join(report.document["conclusion"])
    assert "nothing can be said of how often it is right" in conclusion
    assert "% of the 30" not in conclusion


def test_the_judge_says_it_beside_what_else_must_be_said() -> None:
    judge = Judge(EVALUATION, 40, own_labels=True)
    assert judge.warning == OWN_LABELS
    assert judge.samples == "40 evaluation samples with the network's own classes as labels"
    folded = Judge(CROSS_FIT, 40, 5, own_labels=True)
    assert folded.warning is not None
    assert folded.warning.startswith(OWN_LABELS + "; there are no evaluation samples")
    assert Judge.read(json.loads(json.dumps(folded.document()))) == folded
    assert Judge(EVALUATION, 40).warning is None
