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
from torch import Tensor, nn

from penult.data.image import is_turned
from penult.data.transform import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATIONS,
    Transform,
    assumed_for,
    from_hf,
    from_timm,
    from_torchvision,
)
from penult.errors import InputError
from penult.extras import import_torchvision, with_torchvision

torchvision = import_torchvision()


def noise(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """An image whose every pixel differs from its neighbours, so that a shift by one shows."""
    generator = np.random.default_rng(seed)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))


def smooth(height: int, width: int) -> Image.Image:
    """A photograph's worth of detail: noise at a quarter of the size, enlarged."""
    return noise(height // 4, width // 4).resize((width, height), Image.Resampling.BICUBIC)


def apply(transform: Transform, image: Image.Image) -> Tensor:
    return transform.normalise(torch.tensor(transform.decode(image))[None])[0]


def levels(transform: Transform, a: Tensor, b: Tensor) -> Tensor:
    """Difference of two normalised images in levels of the 8-bit image."""
    return (a - b).abs() * torch.tensor(transform.std).view(-1, 1, 1) / transform.scale


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


# What the libraries say


def test_from_torchvision_weights() -> None:
    weights = torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1
    transform = from_torchvision(weights)
    assert (transform.resize, transform.crop, transform.interpolation) == (256, 224, "bicubic")
    assert transform.source == "torchvision weights"
    for height, width in ((301, 400), (400, 301), (100, 90)):
        image = noise(height, width)
        torch.testing.assert_close(
            apply(transform, image), weights.transforms()(image), rtol=0, atol=1e-6
        )


def test_from_torchvision_by_name_takes_the_default_weights() -> None:
    default = torchvision.models.ResNet50_Weights.DEFAULT
    assert from_torchvision("resnet50") == from_torchvision(default)
    assert from_torchvision("resnet50").resize == 232


def test_every_torchvision_classifier_has_a_transform() -> None:
    models = torchvision.models
    names = models.list_models(module=models)
    assert len(names) > 70
    for name in names:
        for weights in models.get_model_weights(name):
            assert isinstance(from_torchvision(weights), Transform)


def test_from_torchvision_refuses_what_is_no_classifier() -> None:
    weights = torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT
    with pytest.raises(
        InputError, match=r"is not for image classification \(it has no resize_size"
    ):
        from_torchvision(weights)
    with pytest.raises(InputError, match="torchvision has no weights for 'resnet500'"):
        from_torchvision("resnet500")


def timm_model(**changes: Any) -> tuple[nn.Module, dict[str, Any]]:
    timm = with_torchvision(lambda: __import__("timm"))
    model = timm.create_model("test_resnet", pretrained=False, pretrained_cfg_overlay=changes)
    return model, timm.data.resolve_data_config(model=model)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"crop_pct": 0.875, "input_size": (3, 96, 96), "interpolation": "bilinear"},
        {"crop_pct": 1.15, "input_size": (3, 64, 64)},
        {"crop_pct": 0.9, "crop_mode": "squash", "input_size": (3, 64, 48)},
    ],
)
def test_from_timm_equals_timms_own_transform(changes: dict[str, Any]) -> None:
    model, config = timm_model(**changes)
    from timm.data import create_transform

    theirs = create_transform(**config, is_training=False)
    transform = from_timm(model)
    assert transform.source == "timm"
    for height, width in ((151, 200), (200, 151), (40, 33)):
        image = noise(height, width)
        torch.testing.assert_close(apply(transform, image), theirs(image), rtol=0, atol=1e-6)


def test_from_timm_refuses_what_it_cannot_express() -> None:
    model, _ = timm_model(crop_mode="border")
    with pytest.raises(InputError, match=r"crop mode 'border' at .* is not supported: give --size"):
        from_timm(model)
    with pytest.raises(InputError, match=r"Linear has no pretrained_cfg: it is no model of timm's"):
        from_timm(nn.Linear(1, 1))


HF_PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("ViTImageProcessor", {}),
    ("ViTImageProcessorPil", {"do_normalize": False}),
    ("DeiTImageProcessor", {}),
    (
        "CLIPImageProcessorPil",
        {"size": {"shortest_edge": 96}, "crop_size": {"height": 65, "width": 70}},
    ),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 96}}),
    ("ConvNextImageProcessorPil", {}),
    ("LevitImageProcessorPil", {}),
    ("PoolFormerImageProcessor", {}),
    ("MobileViTImageProcessorPil", {}),
    ("MobileNetV2ImageProcessor", {"do_center_crop": False}),
    ("EfficientNetImageProcessor", {"rescale_offset": True, "rescale_factor": 1 / 127.5}),
    (
        "BeitImageProcessorPil",
        {"do_rescale": False, "image_mean": [99.0] * 3, "image_std": [50.0] * 3},
    ),
]


@pytest.mark.parametrize(("name", "options"), HF_PROCESSORS)
def test_from_hf_equals_the_processor(name: str, options: dict[str, Any]) -> None:
    transformers = with_torchvision(lambda: __import__("transformers"))
    processor = with_torchvision(lambda: getattr(transformers, name))(**options)
    transform = from_hf(processor)
    for height, width in ((301, 404), (403, 302)):
        image = smooth(height, width)
        theirs = torch.as_tensor(processor(images=image, return_tensors="np")["pixel_values"][0])
        ours = apply(transform, image)
        assert ours.shape == theirs.shape
        difference = levels(transform, ours, theirs)
        # Hugging Face's torch backend rounds inside of its resize where PIL does not.
        limit = 0.01 if name.endswith("Pil") else 3.01
        assert difference.max() <= limit
        assert difference.mean() <= limit / 8


def test_from_hf_reads_saved_settings() -> None:
    settings_of_a_file = {
        "image_processor_type": "MobileViTImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 288},
        "do_center_crop": True,
        "crop_size": {"height": 256, "width": 256},
        "do_flip_channel_order": True,
        "do_normalize": None,
        "rescale_factor": 0.5,
        "resample": 3,
    }
    assert from_hf(settings_of_a_file) == Transform(
        resize=288,
        crop=(256, 256),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        interpolation="bicubic",
        scale=0.5,
        bgr=True,
        crop_rounding="down",
        source="hf processor",
    )


def test_from_hf_of_a_wrapped_timm_model() -> None:
    class Wrapper:
        data_config = timm_model()[1]

    transform = from_hf(Wrapper())
    assert transform.source == "hf processor (timm)"
    assert transform.resize == from_timm(timm_model()[0]).resize


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 224}, "size is 224, which Hugging Face reads differently from class to class"),
        ({"size": {"longest_edge": 9}}, r"size \{'longest_edge': 9\} is not supported"),
        ({"do_normalize": True}, "settings lack image_mean: give --size, --mean and --std"),
        ({"do_normalize": True, "image_mean": [0.5], "image_std": 1}, "3 values each, found 1"),
        (
            {"do_center_crop": True, "crop_size": {"side": 9}},
            "crop_size must have a height and a w",
        ),
        (
            {"image_processor_type": "PoolFormerImageProcessor", "size": {"shortest_edge": 9}},
            "settings lack crop_pct",
        ),
    ],
)
def test_from_hf_refuses_settings_it_cannot_express(changes: dict[str, Any], message: str) -> None:
    base: dict[str, Any] = {"do_resize": True, "size": {"height": 8, "width": 8}}
    with pytest.raises(InputError, match=message):
        from_hf({**base, **changes})


@pytest.mark.parametrize("name", ["PerceiverImageProcessorPil", "TextNetImageProcessorPil"])
def test_from_hf_notices_a_processor_that_does_something_else(name: str) -> None:
    transformers = with_torchvision(lambda: __import__("transformers"))
    processor = with_torchvision(lambda: getattr(transformers, name))()
    with pytest.raises(InputError, match=f"what {name} does to an image is not supported"):
        from_hf(processor)


def test_from_hf_notices_other_pixels_of_the_same_shape() -> None:
    transformers = with_torchvision(lambda: __import__("transformers"))
    processor = with_torchvision(lambda: transformers.ViTImageProcessorPil)()

    class Mirror:
        to_dict = processor.to_dict

        def __call__(self, images: Image.Image, return_tensors: str) -> Any:
            mirrored = images.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            return processor(images=mirrored, return_tensors=return_tensors)

    with pytest.raises(InputError, match="what Mirror does to an image is not supported"):
        from_hf(Mirror())


# As a value


@pytest.mark.parametrize(("channels", "mean"), [(1, (0.0,)), (3, IMAGENET_MEAN)])
def test_what_is_assumed_of_a_silent_network(channels: int, mean: tuple[float, ...]) -> None:
    assert assumed_for(nn.Sequential(nn.Conv2d(channels, 2, 3))).mean == mean


def test_assumed_without_a_convolution() -> None:
    assert assumed_for(nn.Linear(2, 2)).mean == IMAGENET_MEAN


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
