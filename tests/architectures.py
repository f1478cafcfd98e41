"""Small networks of torchvision, timm and transformers, with random weights, and their heads."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from penult.network.load import import_torchvision

for package in ("torchvision", "timm", "transformers"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)
# First, since timm and transformers import it too.
import_torchvision()
models = importlib.import_module("torchvision.models")
timm = importlib.import_module("timm")
hf = importlib.import_module("transformers")

N_CLASSES = 7
Build = Callable[[], Any]


def tv(name: str, **options: Any) -> Build:
    return partial(getattr(models, name), num_classes=N_CLASSES, **options)


def tm(name: str, **options: Any) -> Build:
    return partial(timm.create_model, name, num_classes=N_CLASSES, **options)


def tf(name: str, options: Mapping[str, Any], task: str = "ForImageClassification") -> Build:
    def build() -> Any:
        config = getattr(hf, f"{name}Config")(num_labels=N_CLASSES, **options)
        return getattr(hf, name + task)(config)

    return build


TV_VIT = {"patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
TV_SWIN = {
    "patch_size": [4, 4],
    "embed_dim": 24,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": [7, 7],
}
TF_VIT = {
    "image_size": 64,
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
TF_SWIN = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
TF_STAGES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
TF_RESNET = {"embedding_size": 8, **TF_STAGES}
TF_SEGFORMER = {"num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16, **TF_STAGES}
TF_MOBILEVIT = {
    "image_size": 64,
    "hidden_sizes": [16, 24, 32],
    "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 32],
    "num_attention_heads": 2,
}
TF_LEVIT = {
    "image_size": 64,
    "hidden_sizes": [16, 24, 32],
    "num_attention_heads": [2, 2, 2],
    "depths": [1, 1, 1],
    "key_dim": [4, 4, 4],
}

FOUND: dict[str, tuple[Build, str]] = {
    "tv resnet18": (tv("resnet18"), "fc"),
    "tv vgg11": (tv("vgg11"), "classifier.6"),
    "tv mobilenet_v2": (tv("mobilenet_v2"), "classifier.1"),
    "tv mobilenet_v3_small": (tv("mobilenet_v3_small"), "classifier.3"),
    "tv densenet121": (tv("densenet121"), "classifier"),
    "tv regnet_x_400mf": (tv("regnet_x_400mf"), "fc"),
    "tv shufflenet_v2": (tv("shufflenet_v2_x0_5"), "fc"),
    "tv mnasnet": (tv("mnasnet0_5"), "classifier.1"),
    "tv efficientnet_b0": (tv("efficientnet_b0"), "classifier.1"),
    "tv convnext_tiny": (tv("convnext_tiny"), "classifier.2"),
    "tv swin": (tv("SwinTransformer", **TV_SWIN), "head"),
    "tv googlenet": (tv("googlenet", init_weights=False), "fc"),
    "tv vision transformer": (tv("VisionTransformer", image_size=64, **TV_VIT), "heads.head"),
    "timm dpn": (tm("dpn48b"), "classifier"),
    "timm resnetv2": (
        tm("resnetv2_50", layers=(1, 1, 1, 1), channels=(32, 64, 64, 64)),
        "head.fc",
    ),
    "timm levit": (tm("levit_128s", img_size=64, distilled=False), "head.linear"),
    "timm mixer": (tm("mixer_s32_224", img_size=64), "head"),
    "timm maxvit": (tm("maxvit_pico_rw_256", img_size=64), "head.fc"),
    "timm deit": (tm("deit_tiny_patch16_224", img_size=64, depth=2), "head"),
    "timm vit, mean of tokens": (
        tm("vit_tiny_patch16_224", img_size=64, depth=2, global_pool="avg"),
        "head",
    ),
    "timm cait": (tm("cait_xxs24_224", img_size=64, depth=2), "head"),
    "timm xcit": (tm("xcit_nano_12_p16_224", img_size=64), "head"),
    "timm mobilenetv4": (tm("mobilenetv4_conv_small"), "classifier"),
    "timm ghostnet": (tm("ghostnet_050"), "classifier"),
    "timm mambaout": (tm("mambaout_femto"), "head.fc"),
    "hf ViT": (tf("ViT", TF_VIT), "classifier"),
    "hf DeiT": (tf("DeiT", TF_VIT), "classifier"),
    "hf BEiT": (tf("Beit", TF_VIT), "classifier"),
    "hf Dinov2": (tf("Dinov2", TF_VIT), "classifier"),
    "hf Swin": (tf("Swin", TF_SWIN), "classifier"),
    "hf ConvNext": (tf("ConvNext", TF_STAGES), "classifier"),
    "hf ResNet": (tf("ResNet", TF_RESNET), "classifier.1"),
    "hf MobileViT": (tf("MobileViT", TF_MOBILEVIT), "classifier"),
    "hf SegFormer": (tf("Segformer", TF_SEGFORMER), "classifier"),
    "hf LeViT": (tf("Levit", TF_LEVIT), "classifier.linear"),
    "hf PoolFormer": (tf("PoolFormer", TF_STAGES), "classifier"),
}

NOT_FOUND: dict[str, tuple[Build, str]] = {
    "tv squeezenet": (
        tv("squeezenet1_1"),
        r"classifier.1 \(7, 512\), is followed by ReLU and the mean over positions: say which",
    ),
    "tv segmentation": (
        partial(
            models.segmentation.lraspp_mobilenet_v3_large,
            weights_backbone=None,
            num_classes=N_CLASSES,
        ),
        r"gives no logits \(n_samples, n_classes\), but float32 \(2, 7, 64, 64\): say which layer",
    ),
    "timm deit distilled": (
        tm("deit_tiny_distilled_patch16_224", img_size=64, depth=2),
        r"the mean of 2 layers, head \(7, 192\) and head_dist \(7, 192\): say which layer",
    ),
    "timm levit distilled": (
        tm("levit_128s", img_size=64),
        r"the mean of 2 layers, head.linear \(7, 384\) and head_dist.linear \(7, 384\): say",
    ),
    "timm efficientformer": (
        tm("efficientformer_l1"),
        r"the mean of 2 layers, head \(7, 448\) and head_dist \(7, 448\): say which layer",
    ),
    "timm volo": (
        tm("volo_d1_224", img_size=64),
        r"something is added to the output of head \(7, 384\): say which layer",
    ),
    "hf DeiT with teacher": (
        tf("DeiT", TF_VIT, "ForImageClassificationWithTeacher"),
        r"2 layers, cls_classifier \(7, 32\) and distillation_classifier \(7, 32\): say which",
    ),
    "hf ViT without a head": (
        tf("ViT", TF_VIT, "Model"),
        r"pooler.dense \(32, 32\), is followed by tanh: say which layer",
    ),
    "hf SegFormer, segmentation": (
        tf("Segformer", TF_SEGFORMER, "ForSemanticSegmentation"),
        r"gives no logits \(n_samples, n_classes\), but float32 \(2, 7, 16, 16\): say which",
    ),
}

LARGER = {"timm efficientformer": 224}
