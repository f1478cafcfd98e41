from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from noise import noise
from penult.data.library_transforms import assumed_for, from_hf, from_timm, from_torchvision
from penult.data.transform import (
    IMAGENET_MEAN,
    Transform,
)
from penult.errors import InputError
from penult.extras import import_torchvision, with_torchvision

torchvision = import_torchvision()


def smooth(height: int, width: int) -> Image.Image:
    """A photograph's worth of detail: noise at a quarter of the size, enlarged."""
    return noise(height // 4, width // 4).resize((width, height), Image.Resampling.BICUBIC)


def apply(transform: Transform, image: Image.Image) -> Tensor:
    return transform.normalise(torch.tensor(transform.decode(image))[None])[0]


def levels(transform: Transform, a: Tensor, b: Tensor) -> Tensor:
    """Difference of two normalised images in levels of the 8-bit image."""
    return (a - b).abs() * torch.tensor(transform.std).view(-1, 1, 1) / transform.scale


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
