from __future__ import annotations

import io
import resource
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from noise import noise
from penult.data.image import is_turned
from penult.data.transform import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATIONS,
    Transform,
)
from penult.errors import InputError
from penult.extras import import_torchvision

torchvision = import_torchvision()


# Geometry and arithmetic against torchvision


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    resize=st.none() | st.integers(1, 60) | st.tuples(st.integers(1, 60), st.integers(1, 60)),
    crop=st.none() | st.integers(1, 60) | st.tuples(st.integers(1, 60), st.integers(1, 60)),
    interpolation=st.sampled_from(INTERPOLATIONS),
    mode=st.sampled_from(["RGB", "L"]),
)
def test_decode_equals_torchvision_to_the_pixel(
    height: int,
    width: int,
    resize: int | tuple[int, int] | None,
    crop: int | tuple[int, int] | None,
    interpolation: str,
    mode: str,
) -> None:
    v1 = torchvision.transforms
    image = noise(height, width, mode)
    values = (0.5,) * (3 if mode == "RGB" else 1)
    expected = image
    if resize is not None:
        modes = {one.value: one for one in v1.InterpolationMode}
        expected = v1.Resize(resize, modes[interpolation])(expected)
    if crop is not None:
        expected = v1.CenterCrop(crop)(expected)

    found = Transform(resize, crop, values, values, interpolation).decode(image)

    wanted = np.asarray(expected)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, wanted[:, :, None] if mode == "L" else wanted)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_normalise_equals_totensor_and_normalize(mode: str) -> None:
    v1 = torchvision.transforms
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if mode == "RGB" else ((0.13,), (0.31,))
    images = [noise(9, 7, mode, seed) for seed in range(5)]
    steps = v1.Compose([v1.ToTensor(), v1.Normalize(mean, std)])
    transform = Transform(mean=mean, std=std)

    batch = torch.stack([torch.tensor(transform.decode(image)) for image in images])
    found = transform.normalise(batch)

    assert found.dtype == torch.float32
    assert found.is_contiguous()
    torch.testing.assert_close(found, torch.stack(list(map(steps, images))), rtol=0, atol=1e-6)


def test_normalise_leaves_floats_as_they_are() -> None:
    ready = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    assert torch.equal(Transform().normalise(ready), ready.float())


def test_normalise_does_not_change_its_input() -> None:
    batch = torch.full((1, 2, 2, 3), 7, dtype=torch.uint8)
    Transform(bgr=True).normalise(batch)
    assert torch.equal(batch, torch.full((1, 2, 2, 3), 7, dtype=torch.uint8))


def test_bgr_reverses_the_channels() -> None:
    red = torch.tensor([[[[200, 0, 0]]]], dtype=torch.uint8)
    transform = Transform(mean=(0, 0, 0), std=(1, 1, 1), scale=1.0, bgr=True)
    assert transform.normalise(red).flatten().tolist() == [0, 0, 200]


@pytest.mark.parametrize("rounding", ["even", "down"])
def test_an_odd_margin_is_rounded_as_asked(rounding: str) -> None:
    row = np.arange(8, dtype=np.uint8)[None, :].repeat(8, 0)
    transform = Transform(crop=5, mean=(0.5,), std=(0.5,), crop_rounding=rounding)
    # A margin of 3 leaves 1.5 on each side: half to even is 2, down is 1.
    first = {"even": 2, "down": 1}[rounding]
    assert transform.decode(Image.fromarray(row))[0, :, 0].tolist() == list(range(first, first + 5))


def test_json_round_trip_and_fingerprint() -> None:
    transform = Transform((20, 30), 16, (0.5,), (0.25,), "lanczos", 1.0, source="here")
    written = transform.to_json()
    assert written["resize"] == [20, 30]
    assert Transform.from_json(written) == transform
    assert Transform.from_json({}) == Transform()
    assert Transform(source="a").fingerprint == Transform(source="b").fingerprint
    others = [
        Transform(resize=20),
        Transform(crop=20),
        Transform(mean=(0.1, 0.2, 0.3)),
        Transform(std=(0.1, 0.2, 0.3)),
        Transform(interpolation="bicubic"),
        Transform(scale=1.0),
        Transform(bgr=True),
        Transform(crop_rounding="down"),
    ]
    assert len({one.fingerprint for one in [*others, Transform()]}) == len(others) + 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize": 0}, "resize must be a side or .* found 0"),
        ({"crop": (3, -1)}, r"crop must be a side .* found \(3, -1\)"),
        ({"crop": [8]}, r"crop must be a side .* found \(8,\)"),
        ({"mean": [0.5, 0.5]}, "need 1 value each .* or 3 .*, found 2 and 3"),
        ({"std": [0.5, 0.5, 0.0]}, "std and scale must be above 0"),
        ({"scale": -1.0}, "std and scale must be above 0"),
        ({"mean": [0.5, float("nan"), 0.5]}, "mean must be finite numbers"),
        ({"mean": "0.5"}, "mean must be finite numbers, found '0.5'"),
        ({"interpolation": "cubic"}, "interpolation must be one of nearest, bilinear, .* 'cubic'"),
        ({"crop_rounding": "up"}, "crop_rounding must be one of even, down, found 'up'"),
        ({"mean": [0.5], "std": [0.5], "bgr": True}, "bgr needs 3 values"),
        ({"sise": 3}, "unknown settings of a transform: sise; known: bgr, crop"),
    ],
)
def test_values_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Transform.from_json(fields)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(1, 3000), (3000, 2), (40, 9000), (7000, 500)])
def test_only_the_crop_of_a_strip_is_resampled(
    size: tuple[int, int], interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = noise(size[1], size[0])
    for crop in (64, (80, 40), 200):
        transform = Transform(resize=96, crop=crop, interpolation=interpolation)
        whole = transform.decode(image)
        monkeypatch.setattr("penult.data.transform.MAX_RESIZED", 1)
        # Pillow may resample the other way round first, and rounds and clips in between.
        assert np.abs(transform.decode(image).astype(int) - whole).mean() < 0.5
        monkeypatch.undo()


def test_an_extreme_shape_stays_small() -> None:
    image = Image.new("RGB", (1, 3000), (9, 8, 7))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = Transform(resize=256, crop=224).decode(image)
    assert (found == (9, 8, 7)).all()
    assert found.shape == (224, 224, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
    reason = Transform(resize=256).refusal(image)
    assert reason is not None
    assert "of 1 × 3000 pixels would be resized to 256 × 768,000: its shape is too long" in reason
    assert Transform(resize=256, crop=224).refusal(image) is None
    assert Transform(resize=256).refusal(Image.new("RGB", (4000, 3000))) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_if_asked(orientation: int) -> None:
    upright = Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3))
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright.save(stream, "PNG", exif=exif)
    image = Image.open(stream)
    expected = ImageOps.exif_transpose(image)
    assert np.array_equal(Transform(upright=True).decode(image), np.asarray(expected))
    assert np.array_equal(Transform().decode(Image.open(stream)), np.asarray(upright))
    assert Transform(upright=True).fingerprint != Transform().fingerprint
    assert is_turned(Image.open(stream)) == (orientation > 1)
