"""Networks and weights of all kinds through the command line, and opened again from the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command import penult
from penult.network.explicit import ExplicitHead
from penult.runs.reopen import reopen_network
from penult.runs.run import Run

FACTORY = """
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    penult_transform = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    def __init__(self, n_classes=2):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(8, n_classes)
    def forward(self, x):
        return self.fc(self.body(x).squeeze())

class Cosine(Net):
    def forward(self, x):
        z = self.body(x).flatten(1)
        return 20 * F.normalize(z) @ F.normalize(self.fc.weight).T

class Two(Net):
    def __init__(self):
        super().__init__()
        self.colour = nn.Linear(8, 5)
    def forward(self, x):
        z = self.body(x).flatten(1)
        return {"colour": self.colour(z), "kind": self.fc(z)}

def net(): return Net()
def one(): return Net(1)
def mlp(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with networks and `data` of two classes, nine images in all; the current one."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(FACTORY)
    generator = np.random.default_rng(0)
    for name, n in (("ant", 4), ("bee", 5)):
        Path("data", name).mkdir(parents=True)
        for i in range(n):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path("data", name, f"{i}.png"))
    return tmp_path


def analyze(name: str, *arguments: str) -> int:
    return penult("analyze", f"net.py:{name}", "data", "--no-fit", "--out", "run", *arguments)


def network_of(run: str = "run") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(run, "run.json").read_text())["network"]
    return found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("one", "gives one logit: it is analysed as two classes"),
        ("Cosine", "linear in the output of body.2 divided by its length"),
    ],
)
def test_a_head_that_was_made_is_made_again_when_the_run_is_opened(
    name: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze(name, "--weights", "random") == 0
    assert said in " ".join(capsys.readouterr().err.split())
    run = Run.open("run")
    network, head = reopen_network(run), run.train().require_head()
    assert isinstance(network, ExplicitHead)
    assert head.n_classes == 2
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        inner = network.network(x)
        inner = torch.cat([torch.zeros(3, 1), inner], 1) if name == "one" else inner
        torch.testing.assert_close(network(x), inner, rtol=1e-3, atol=1e-4)
    assert penult("explain", "run", "train:2") == 0


@pytest.mark.filterwarnings("always")
def test_the_head_with_the_datas_classes_is_taken(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze("Two", "--weights", "random") == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "2 heads: fc (2, 8) is taken, as the data has 2 classes, not colour (5, 8)" in err


def test_a_batch_of_one_image_whose_axis_is_squeezed_away(here: Path) -> None:
    assert analyze("net", "--weights", "random", "--batch-size", "4") == 0
    assert Run.open("run").train().n_samples == 9


@pytest.mark.filterwarnings("always")
def test_grey_images_for_a_network_that_takes_them(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze("mlp", "--weights", "random") == 0
    assert "takes grey images" in " ".join(capsys.readouterr().err.split())
    assert penult("explain", "run", "train:2") == 0


def test_the_chosen_set_of_weights_is_that_of_the_run(here: Path) -> None:
    from torch import nn

    def state(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        parts = nn.ModuleDict({"body": nn.Sequential(nn.Conv2d(3, 8, 3)), "fc": nn.Linear(8, 2)})
        return parts.state_dict()

    torch.save({"model": state(1), "ema": state(2)}, "both.pt")
    assert analyze("net", "--weights", "both.pt", "--weights-key", "ema") == 0
    assert network_of()["weights_key"] == "ema"
    opened: Any = reopen_network(Run.open("run"))
    assert torch.equal(opened.fc.weight, state(2)["fc.weight"])
    assert analyze("net", "--weights", "both.pt", "--weights-key", "emma") == 2
