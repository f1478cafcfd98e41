from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from penult.errors import InputError
from penult.features import shards as module
from penult.features.features import Features
from penult.features.saving import save_features
from penult.features.shards import Block, write_shard
from penult.storage import write_tensors

FORMAT = {"format": "penult-features/1"}


def arrays(n: int = 10) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "features": torch.rand(n, 3, generator=generator),
        "labels": torch.arange(n) % 2,
        "weight": torch.randn(2, 3, generator=generator),
        "bias": torch.randn(2, generator=generator),
    }


def test_a_file_gives_what_was_saved(tmp_path: Path) -> None:
    given = arrays()
    made = Features.of(**given, class_names=["a", "b"])
    save_features(tmp_path / "f.safetensors", made)
    found = Features.open(tmp_path / "f.safetensors")
    assert (found.n_samples, found.n_features, found.n_classes) == (10, 3, 2)
    assert found.class_names == ("a", "b")
    z, labels = found.arrays()
    assert torch.equal(z, given["features"])
    assert torch.equal(labels, given["labels"])
    assert torch.equal(found.require_head().weight, given["weight"])
    assert torch.equal(found.require_head().bias, given["bias"])


def test_blocks_are_bounded_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_features(tmp_path / "f.safetensors", Features.of(**arrays()))
    monkeypatch.setattr(module.read_shard, "__defaults__", (4,))
    found = list(Features.open(tmp_path / "f.safetensors").blocks())
    assert [len(block.labels) for block in found] == [4, 4, 2]
    assert [name for block in found for name in block.ids] == [str(i) for i in range(10)]
    assert torch.equal(torch.cat([b.features for b in found]), arrays()["features"])


def test_half_precision_files_are_read_as_float32(tmp_path: Path) -> None:
    given = arrays()
    given["features"] = given["features"].half()
    write_tensors(tmp_path / "f.safetensors", given, FORMAT)
    z, _ = Features.open(tmp_path / "f.safetensors").arrays()
    assert z.dtype == torch.float32
    assert torch.equal(z, given["features"].float())


def test_dense_accuracy_uses_recorded_classes_where_there_are_any(tmp_path: Path) -> None:
    given = arrays()
    features = Features.of(**given)
    logits = given["features"] @ given["weight"].T + given["bias"]
    expected = (logits.argmax(1) == given["labels"]).double().mean()
    assert features.dense_accuracy() == pytest.approx(float(expected))
    block = Block(given["features"], given["labels"], given["labels"], [])
    recorded = Features([block], (10, 3), features.head, None)
    assert recorded.dense_accuracy() == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.full((10,), 2)}, r"labels must lie in \[0, 2\), found 2 at sample 0"),
        ({"labels": torch.full((10,), -1)}, r"found -1 at sample 0"),
        ({"labels": torch.zeros(9, dtype=torch.int64)}, r"integer labels of shape \(10,\)"),
        ({"labels": torch.zeros(10)}, "expected integer labels"),
        ({"features": torch.zeros(10)}, r"features of shape \(n_samples, n_features\)"),
        ({"features": torch.zeros(10, 3).long()}, "expected floating-point features"),
        ({"features": torch.zeros(10, 4)}, "n_features is 4 in the features and 3"),
        ({"features": torch.zeros(0, 3), "labels": torch.zeros(0).long()}, "no samples"),
        ({"bias": torch.zeros(3)}, r"expected a bias of shape \(2,\), found \(3,\)"),
        ({"weight": torch.full((2, 3), torch.nan)}, "weight or bias holds NaN"),
        ({"class_names": ["a"]}, "1 class names for 2 classes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Features.of(**(arrays() | change))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(value: float) -> None:
    given = arrays()
    given["features"][7, 2] = value
    with pytest.raises(InputError, match=f"feature 2 of sample 7 is {value}"):
        Features.of(**given)


def test_large_but_finite_features_pass() -> None:
    given = arrays() | {"features": torch.full((10, 3), 3e38)}
    assert Features.of(**given).n_samples == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.full((10,), 5)}, r"labels must lie in \[0, 2\), found 5 at sample 0"),
        ({"labels": torch.zeros(3).long()}, r"integer `labels` of shape \(10,\), found"),
        ({"features": torch.zeros(10, 3).long()}, "expected floating-point `features`"),
        ({"weight": torch.zeros(2, 5)}, "n_features is 3 in the features and 5 in the head"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, Tensor], message: str
) -> None:
    write_tensors(tmp_path / "f.safetensors", arrays() | change, FORMAT)
    with pytest.raises(InputError, match=message):
        Features.open(tmp_path / "f.safetensors")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    save_features(path, Features.of(**arrays()))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="no readable safetensors file"):
        Features.open(path)


def test_features_without_a_head_say_what_is_missing() -> None:
    given = arrays()
    features = Features.of(given["features"], given["labels"])
    assert features.n_classes == 2
    with pytest.raises(InputError, match="the features come without a head: add `weight`"):
        features.require_head()


def test_a_folder_that_is_unfinished_or_lacks_a_shard_is_refused(tmp_path: Path) -> None:
    given = arrays()
    block = Block(given["features"], given["labels"], None, [])
    write_shard(tmp_path / "shard-00000.safetensors", block, {})
    module.save_dense(tmp_path / "dense.safetensors", Features.of(**given).require_head())
    index = {
        "complete": False,
        "n_samples": 10,
        "n_features": 3,
        "class_names": ["a", "b"],
        "shards": [{"file": "shard-00000.safetensors"}, {"file": "shard-00001.safetensors"}],
    }
    module.write_index(tmp_path, index)
    with pytest.raises(InputError, match="is unfinished: run the command that writes it again"):
        Features.open(tmp_path)
    module.write_index(tmp_path, index | {"complete": True})
    with pytest.raises(InputError, match="names shard-00001.safetensors, which is not there"):
        Features.open(tmp_path)


def test_the_fingerprint_follows_the_samples() -> None:
    given = arrays()
    first = Features.of(**given).fingerprint()
    assert Features.of(**given).fingerprint() == first
    given["features"][0, 0] += 1
    assert Features.of(**given).fingerprint() != first


def test_ids_survive_files_views_and_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"Käse/{i:03d}.png" for i in range(10)]
    made = Features.of(**arrays(), ids=names)
    save_features(tmp_path / "f.safetensors", made)
    monkeypatch.setattr(module.read_shard, "__defaults__", (4,))
    found = Features.open(tmp_path / "f.safetensors")
    assert found.ids() == names
    assert [name for block in found for name in block.ids] == names
    odd = torch.arange(10) % 2 == 1
    assert found.subset(odd).ids() == names[1::2]
    assert [name for block in found.subset(odd) for name in block.ids] == names[1::2]
    assert made.fingerprint() != Features.of(**arrays()).fingerprint()


def test_samples_without_ids_are_called_by_their_row_over_all_shards(tmp_path: Path) -> None:
    made = Features.of(**arrays())
    for i in range(2):
        z, y = made.arrays()
        write_shard(tmp_path / f"shard-0000{i}.safetensors", Block(z, y, None, []), {})
    parts = sorted(tmp_path.iterdir())
    both = Features(parts, (20, 3), made.head, None)
    expected = [str(i) for i in range(20)]
    assert both.ids() == expected
    assert [name for block in both for name in block.ids] == expected


def test_the_ids_of_ten_thousand_samples_take_little_room(tmp_path: Path) -> None:
    n = 10_000
    z, y = torch.zeros(n, 3), torch.zeros(n, dtype=torch.int64)
    save_features(tmp_path / "plain.safetensors", Features.of(z, y))
    named = Features.of(z, y, ids=[f"train/{i:06d}.png" for i in range(n)])
    save_features(tmp_path / "named.safetensors", named)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("plain", "named")]
    assert sizes[1] - sizes[0] <= 22 * n  # the names, their quotes and a comma


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([str(i) for i in range(9)], "9 ids for 10 samples; expected one for each, or none"),
        (["a"] * 2 + [str(i) for i in range(8)], "2 samples have the id a; expected a different"),
    ],
)
def test_ids_that_name_no_single_sample_are_refused(
    ids: list[str], message: str, tmp_path: Path
) -> None:
    given = arrays()
    with pytest.raises(InputError, match=message):
        Features.of(**given, ids=ids)
    notes = {**FORMAT, "ids": json.dumps(ids)}
    write_tensors(tmp_path / "f.safetensors", given, notes)
    with pytest.raises(InputError, match=message):
        Features.open(tmp_path / "f.safetensors").ids()


def test_tables_and_arrays_that_may_not_be_written() -> None:
    pandas = pytest.importorskip("pandas")
    values = np.random.default_rng(0).normal(size=(12, 3))
    labels = np.arange(12) % 3
    shuffled = np.random.default_rng(1).permutation(12)
    frame = pandas.DataFrame(values, columns=list("xyz"), index=shuffled)
    column = pandas.Series(labels, index=shuffled)
    read_only = np.frombuffer(values.tobytes()).reshape(12, 3)
    for given in ((frame, column), (read_only, labels), (values.tolist(), labels.tolist())):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            z, y = Features.of(*given).arrays()
        assert np.allclose(z, values)
        assert y.tolist() == labels.tolist()


def test_what_float32_cannot_hold_is_said() -> None:
    values = np.random.default_rng(0).normal(size=(60, 4))
    labels = np.arange(60) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Features.of(values, labels)
        Features.of(values + 1000, labels)
        Features.of(np.ones((60, 4)) * 1e30, labels)
    far = values + np.array([0, 0, 1e8, 1e9])
    with pytest.warns(UserWarning, match=r"rounds feature 2 to steps of .* \(2 features are like"):
        Features.of(far, labels)
    with pytest.raises(InputError, match=r"feature 3 reaches 1e\+200, more than float32 holds"):
        Features.of(values * 0 + np.array([0, 1, 2, 1e200]), labels)


def test_arrays_of_any_order_in_memory_and_masked_ones() -> None:
    values = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    labels = np.arange(12) % 3
    for z, y in ((values[::-1], labels[::-1]), (values.astype(">f4"), labels.astype(">i8"))):
        found = Features.of(z, y).arrays()
        assert np.array_equal(found[0], z)
        assert found[1].tolist() == y.tolist()
    masked = np.ma.masked_less(values, 0)
    with pytest.raises(InputError, match="found a masked array: leave the masked samples out"):
        Features.of(masked, labels)
    plain = Features.of(np.ma.masked_array(values), labels).arrays()[0]
    assert np.array_equal(plain, values)


def test_labels_in_words() -> None:
    words = np.array(["dog", "cat", "dog"])
    z = torch.rand(3, 2)
    alone = Features.of(z, words)
    assert alone.class_names == ("cat", "dog")
    assert alone.arrays()[1].tolist() == [1, 0, 1]
    placed = Features.of(z, list(words), class_names=["dog", "emu", "cat"])
    assert placed.arrays()[1].tolist() == [0, 2, 0]
    with pytest.raises(InputError, match="the label of sample 1 is 'cat', expected one of dog"):
        Features.of(z, words, class_names=["dog", "emu"])


def test_one_logit_as_scikit_learn_has_it_is_two_classes() -> None:
    generator = np.random.default_rng(0)
    z, y = generator.normal(size=(40, 3)), np.arange(40) % 2
    weight, bias = generator.normal(size=(1, 3)), np.array([0.5])
    features = Features.of(z, y, weight, bias)
    head = features.require_head()
    assert (head.n_classes, head.n_features) == (2, 3)
    said = head(torch.as_tensor(z, dtype=torch.float32)).argmax(1).numpy()
    assert (said == (z @ weight[0] + bias > 0)).all()


def test_features_say_what_they_are() -> None:
    z, y = torch.zeros(4, 3), torch.tensor([0, 1, 2, 1])
    assert repr(Features.of(z, y)) == "<Features: n_samples=4, n_features=3>"
    with_head = Features.of(z, y, torch.zeros(5, 3))
    assert repr(with_head) == (
        "<Features: n_samples=4, n_features=3, n_classes=5, with the dense head>"
    )
    part = Features.of(z, y, class_names="abc").subset(y == 1)
    assert repr(part) == "<Features: n_samples=2, n_features=3, n_classes=3>"
