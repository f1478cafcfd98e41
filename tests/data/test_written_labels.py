"""Labels written as text: digits are numbers, in whatever form they come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from penult.data.image import ImageData
from penult.data.open import batches, open_data
from penult.data.transform import Transform
from penult.errors import InputError
from penult.features.features import Features

LABELS = np.random.default_rng(0).permutation(np.arange(24) % 12)
PIXELS = np.random.default_rng(1).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
PLAIN = Transform(mean=(0.5,), std=(0.5,), source="test")
WRITINGS: dict[str, Callable[[int], str]] = {
    "digits": str,
    "floats": lambda y: f"{y}.0",
    "spaces": lambda y: f" {y} ",
    "zeros": lambda y: f"{y:02d}",
}


class Items:
    """A map-style data set, which lists its labels or not."""

    def __init__(self, labels: list[str], listed: bool) -> None:
        self.own = labels
        if listed:
            self.targets = labels

    def __len__(self) -> int:
        return len(self.own)

    def __getitem__(self, index: int) -> tuple[Any, str]:
        return Image.fromarray(PIXELS[index]), self.own[index]


def table(words: list[str], root: Path, parquet: bool) -> ImageData:
    for i, image in enumerate(PIXELS):
        Image.fromarray(image).save(root / f"{i}.png")
    names = [f"{i}.png" for i in range(len(words))]
    if parquet:
        pq.write_table(pa.table({"image": names, "label": words}), root / "all.parquet")
        return open_data(str(root / "all.parquet"))
    rows = "".join(f"{name},{word}\n" for name, word in zip(names, words, strict=True))
    (root / "all.csv").write_text("image,label\n" + rows)
    return open_data(str(root / "all.csv"))


def hugging_face(words: list[str], root: Path) -> ImageData:
    datasets = pytest.importorskip("datasets")
    images = [Image.fromarray(image) for image in PIXELS]
    return open_data(datasets.Dataset.from_dict({"image": images, "label": words}))


FORMS: dict[str, Callable[[list[str], Path], ImageData]] = {
    "csv": lambda words, root: table(words, root, False),
    "parquet": lambda words, root: table(words, root, True),
    "items": lambda words, _: open_data(Items(words, False)),
    "listed": lambda words, _: open_data(Items(words, True)),
    "arrays": lambda words, _: open_data({"images": PIXELS, "labels": np.array(words)}),
    "hf": hugging_face,
}


@pytest.mark.parametrize("writing", WRITINGS)
@pytest.mark.parametrize("form", FORMS)
def test_digits_in_text_are_numbers(form: str, writing: str, tmp_path: Path) -> None:
    data = FORMS[form]([WRITINGS[writing](y) for y in LABELS], tmp_path)
    read = torch.cat([batch.labels for batch in batches(data, PLAIN, batch_size=5)])
    assert read.tolist() == LABELS.tolist()


@pytest.mark.parametrize("kind", [np.array, list, tuple, lambda x: np.array(x, dtype=object)])
@pytest.mark.parametrize("writing", WRITINGS)
def test_digits_in_text_count_the_rows_of_weight(writing: str, kind: Any) -> None:
    words = kind([WRITINGS[writing](y) for y in LABELS])
    weight = np.eye(12, dtype=np.float32)
    features = Features.of(weight[LABELS], words, weight, np.zeros(12))
    assert features.arrays()[1].tolist() == LABELS.tolist()


def test_several_digits_in_one_text_are_numbers() -> None:
    z = torch.zeros(3, 2)
    several = Features.of(z, [["0", "10"], ["2"], ["10", " 2 "]], multi_label=True)
    rows = torch.zeros(3, 11, dtype=torch.bool)
    rows[[0, 0, 1, 2, 2], [0, 10, 2, 10, 2]] = True
    assert torch.equal(several.arrays()[1], rows)


def test_digits_that_are_the_names_of_classes_are_names() -> None:
    names = ["10", "1", "2"]
    found = Features.of(torch.zeros(3, 2), ["1", "10", "2"], class_names=names)
    assert found.arrays()[1].tolist() == [1, 0, 2]
    with pytest.raises(InputError, match="sample 0 is '0', expected one of 10, 1, 2"):
        Features.of(torch.zeros(1, 2), ["0"], class_names=names)
    numbered = Features.of(torch.zeros(2, 2), ["1", "0"], class_names=["cat", "dog"])
    assert numbered.arrays()[1].tolist() == [1, 0]


def test_text_of_broken_numbers_is_refused() -> None:
    with pytest.raises(InputError, match=r"sample 1 is 0\.5, expected a class: a whole number"):
        Features.of(torch.zeros(2, 2), ["1", "0.5"])
