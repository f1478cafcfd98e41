from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from penult.data.chosen_classes import ClassImages, chosen_classes
from penult.data.classes import ClassPlaces, align_classes
from penult.data.open import ArrayImages, batches, open_data
from penult.data.source import Pass
from penult.data.transform import Transform
from penult.errors import InputError
from penult.features.collect import collect
from penult.network.find import find_head
from penult.runs.analyze import Options, analyze_network
from penult.runs.run import Run

RAW = Transform(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
NAMES = ("ant", "bee", "cat", "dog", "emu", "fox")
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 7), nn.ReLU(), nn.Linear(7, 6)).eval()


def images(labels: list[int]) -> ArrayImages:
    return ArrayImages(PIXELS[: len(labels)], labels, NAMES)


def test_which_classes(tmp_path: Path) -> None:
    places = ClassPlaces(NAMES, {"n02120079": 5})
    data, held_out = images([1, 4, 4, 1]), images([4, 2])
    assert chosen_classes("present", places, data, None) == (1, 4)
    assert chosen_classes("present", places, data, held_out) == (1, 2, 4)
    assert chosen_classes("dog, Ant,n02120079,4", places) == (0, 3, 4, 5)
    (tmp_path / "some.txt").write_text("fox\nbee\n")
    assert chosen_classes(str(tmp_path / "some.txt"), places) == (1, 5)
    with pytest.raises(InputError, match="the network has no class 'cot': did you mean cat"):
        chosen_classes("ant,cot", places)
    with pytest.raises(InputError, match="expected two classes at least, found 1"):
        chosen_classes("ant,ant", places)
    unknown = open_data([(PIXELS[0], 0), (PIXELS[1], 1)])
    with pytest.raises(InputError, match="present needs images whose labels are known"):
        chosen_classes("present", places, unknown)


def test_images_of_other_classes_are_left_out_and_said() -> None:
    data = ClassImages(images([1, 0, 4, 3, 1]), (1, 4), NAMES)
    assert data.class_names == ("bee", "emu")
    (batch,) = batches(data, RAW, batch_size=9)
    assert batch.ids == ["0", "2", "4"]
    assert batch.labels.tolist() == [0, 1, 0]
    assert data.describe()["n_samples"] == 3
    assert data.notes == ("2 images of other classes than --classes are left out",)
    with pytest.raises(InputError, match="no image is of the classes cat, dog"):
        ClassImages(images([1, 1]), (2, 3), NAMES)


def test_labels_that_are_known_only_when_loaded() -> None:
    items: list[Any] = [(PIXELS[i], i % 3) for i in range(6)]
    data = ClassImages(open_data(items), (0, 2), NAMES)
    (batch,) = batches(data, RAW, batch_size=9)
    assert batch.labels.tolist() == [0, 1, 0, 1]
    assert [fault.reason for fault in batch.faults] == [
        "is of the class bee, not among --classes"
    ] * 2


def test_the_logits_are_those_of_the_kept_classes() -> None:
    model, data = network(), images([1, 4, 5, 1, 4, 5])
    kept = (1, 4, 5)
    whole = find_head(model, torch.rand(2, 3, 4, 4))
    head = whole.restricted(kept)
    assert (head.n_classes, head.layer_classes) == (3, 6)
    assert head.restricted([0, 2]).kept == (1, 5)
    assert whole.restricted(range(6)) is whole
    found = collect(model, ClassImages(data, kept, NAMES), head, transform=RAW)
    everything = collect(model, data, whole, transform=RAW)
    (block,), (full,) = found.blocks(), everything.blocks()
    assert torch.equal(block.features, full.features)
    logits = whole(full.features)[:, list(kept)]
    torch.testing.assert_close(head(block.features), logits)  # of another shape, to rounding
    assert block.predicted is not None
    assert torch.equal(block.predicted, logits.argmax(1))


def test_a_run_remembers_the_classes(tmp_path: Path) -> None:
    model, data = network(), images([1, 4, 5, 1, 4, 5, 1, 4, 5, 1])
    align_classes(6, data)
    head = find_head(model, torch.rand(2, 3, 4, 4)).restricted((1, 4, 5))
    run = analyze_network(
        model,
        head,
        ClassImages(data, (1, 4, 5), NAMES),
        None,
        tmp_path / "run",
        transform=RAW,
        class_names=("bee", "emu", "fox"),
        network={"spec": "x.py:net", "fingerprint": "f"},
        how=Pass(),
        options=Options(fit=False),
    )
    again = Run.open(tmp_path / "run")
    assert again.train().require_head().kept == (1, 4, 5)
    assert again.train().require_head().layer_classes == 6
    assert (run.summary()["n_classes"], run.summary()["n_outputs"]) == (3, 6)
    assert run.about["head"]["kept"] == [1, 4, 5]
    # Accuracy is among these classes.
    z = torch.cat([block.features for block in again.train().blocks()])
    right = (head(z).argmax(1) == torch.tensor([0, 1, 2] * 3 + [0])).double().mean()
    assert run.summary()["dense"]["accuracy"] == pytest.approx(float(right))
