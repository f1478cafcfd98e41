"""A finished run is given again only where network and data still give the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from command import penult
from penult.features.shards import read_shard, write_shard
from penult.runs.run import Run

HELPER = """
def shown(x):
    return x
"""
NET = """
import sys
sys.path.insert(0, "elsewhere")
import helper_of_recheck as helper
from torch import nn

class Net(nn.Module):
    penult_transform = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    def __init__(self, batchwise=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6, track_running_stats=not batchwise)
        self.head = nn.Linear(6, 3)
    def forward(self, x):
        return self.head(self.norm(self.conv(helper.shown(x))).relu().mean((2, 3)))

def net():
    import torch
    torch.manual_seed(0)
    return Net()
"""
DATA = """
import json
from pathlib import Path
from PIL import Image
class Pictures:
    def __init__(self):
        self.rows = json.loads(Path("labels.json").read_text())
    def __len__(self):
        return len(self.rows)
    def __getitem__(self, i):
        with Image.open(f"pictures/{i}.png") as image:
            return image.copy(), self.rows[i]
def data():
    return Pictures()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("elsewhere").mkdir()
    Path("elsewhere/helper_of_recheck.py").write_text(HELPER)
    Path("net.py").write_text(NET)
    Path("data.py").write_text(DATA)
    Path("pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(f"pictures/{i}.png")
    Path("labels.json").write_text(json.dumps([i % 3 for i in range(40)]))
    return tmp_path


def analyze() -> int:
    command = ["analyze", "net.py:net", "data.py:data", "--weights", "random", "--no-fit"]
    return penult(*command, "--batch-size", "16", "--out", "run")


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert analyze() == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    assert "--overwrite" in said[0]
    return said[0]


def test_changes_are_noticed(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert analyze() == 0
    assert analyze() == 0, "nothing has changed"
    labels = Path("labels.json").read_text()
    Path("labels.json").write_text(json.dumps([(i + 1) % 3 for i in range(40)]))
    assert "differs in its data (" in refused(capsys)
    Path("labels.json").write_text(labels)
    kept = [Path(f"pictures/{i}.png").read_bytes() for i in range(40)]
    for i in range(40):
        with Image.open(f"pictures/{i}.png") as image:
            inverted = Image.fromarray(255 - np.asarray(image))
        inverted.save(f"pictures/{i}.png")
    assert "differs in its data (" in refused(capsys)
    for i, content in enumerate(kept):
        Path(f"pictures/{i}.png").write_bytes(content)
    assert analyze() == 0
    code = Path("net.py").read_text()
    Path("net.py").write_text(code.replace(".relu()", ".relu().sqrt()"))
    assert "differs in its network code (" in refused(capsys)
    Path("net.py").write_text(code)
    assert analyze() == 0
    # What no hash of the network's own code covers: a module that comes from elsewhere.
    import helper_of_recheck  # type: ignore[import-not-found]

    monkeypatch.setattr(helper_of_recheck, "shown", lambda x: -x)
    said = refused(capsys)
    assert "is no longer what the network and the data give: it holds other features of" in said


def test_a_label_that_only_the_samples_tell(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the fingerprint has not looked at a sample, the comparison may."""
    assert analyze() == 0
    shard = next(Path("run/features/train").glob("shard-*"))
    block = next(read_shard(shard, rows=None))
    block.labels = (block.labels + 1) % 3
    write_shard(shard, block, {"faults": json.dumps({"n_faults": 0, "named": [], "converted": {}})})
    said = refused(capsys)
    assert "labels have changed, the first that of" in said


@pytest.mark.filterwarnings("ignore:the network's features of an image depend")
def test_a_network_that_looks_at_whole_batches_is_compared_by_whole_batches(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = Path("net.py").read_text().replace("return Net()", "return Net(batchwise=True)")
    Path("net.py").write_text(code)
    assert analyze() == 0
    first = Run.open("run").train().arrays()[0]
    assert analyze() == 0
    assert torch.equal(Run.open("run").train().arrays()[0], first)
