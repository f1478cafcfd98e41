"""ONNX files as networks: onnxruntime makes the features, and one linear layer the logits."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penult.data.transform import Transform
from penult.errors import InputError
from penult.extras import import_extra
from penult.network.onnx_cut import cut_of, ends_of
from penult.text import described, some

ENDING = ".onnx"
FORMAT = "penult-network/1"  # of files that penult wrote, in their metadata
SQUASHED: dict[str, type[nn.Module]] = {
    "softmax": nn.Softmax,
    "log_softmax": nn.LogSoftmax,
    "sigmoid": nn.Sigmoid,
}
EXAMPLES = 2  # images, so that what has one row for each is told from what has more


@dataclass(frozen=True)
class OnnxAbout:
    """What an ONNX file says of itself, where penult wrote it.

    Attributes:
        transform: how its images are made.
        class_names: in the order of the logits.
        takes_pixels: whether it scales and normalises images itself.
        n_bounds: of its head with caps.
    """

    transform: Transform | None
    class_names: tuple[str, ...] | None
    takes_pixels: bool = False
    n_bounds: int = 0


class OnnxNetwork(nn.Module):
    """A network whose features onnxruntime computes.

    The graph is cut where its last linear map reads its input; what comes after is found to be
    linear by running it, and becomes the layer `head`. A softmax or a sigmoid at its end stays
    behind it. Logits that the file rounds to 8 bits are taken as they are before.

    Args:
        path: the file.

    Raises:
        InputError: absent, no readable ONNX file, several inputs, or logits that are no linear map
            of a vector.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        onnx = import_extra("onnx", "export")
        import_extra("onnxruntime", "export")
        self._digest = _digest(path)
        model = _read(onnx, path)
        self.about = _about(path, model)
        if self.about.n_bounds:
            raise InputError(
                f"{path} has a head with caps ({self.about.n_bounds}), which is no linear map of "
                "its features: analyse the network that it was made from, or export it without caps"
            )
        source = _input_of(onnx, path, model)
        number = source.type.tensor_type.elem_type
        self._takes_pixels = number == onnx.TensorProto.UINT8
        _check_number(onnx, path, number, self.about)
        first = source.type.tensor_type.shape.dim[0]
        fixed = int(first.dim_value) or None
        ends = ends_of(path, model, _logits_of(path, model))
        if ends.rounded:
            warnings.warn(
                f"{path} rounds its logits to 8 bits: they are taken as they are before",
                stacklevel=2,
            )
        sizes = [place.dim_value or 1 for place in source.type.tensor_type.shape.dim[1:]]
        example = np.random.default_rng(0).integers(0, 2, (EXAMPLES, *sizes))
        self._cut = cut_of(path, model, source.name, ends.logits, example, fixed)
        n_classes, n_features = self._cut.weight.shape
        self.head = nn.Linear(n_features, n_classes)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(self._cut.weight.copy()))
            self.head.bias.copy_(torch.from_numpy(self._cut.bias.copy()))
        if ends.squashed:
            kind = SQUASHED[ends.squashed]
            self.squash = kind() if kind is nn.Sigmoid else kind(1)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n_samples, n_classes), or what the file makes of them."""
        logits: Tensor = self.head(self._features(images.detach().cpu().float()).to(images.device))
        if hasattr(self, "squash"):
            logits = self.squash(logits)
        return logits

    def extra_repr(self) -> str:
        """The file's hash, so that another file is another network."""
        return f"onnx={self._digest}"

    def _features(self, images: Tensor) -> Tensor:
        """(n_samples, n_features)."""
        values = images.numpy()
        if self._takes_pixels:
            values = np.moveaxis(values, 1, 3).round().clip(0, 255)
        return torch.from_numpy(self._cut.features(values))


def _input_of(onnx: Any, path: Path, model: Any) -> Any:
    """The one input of a graph."""
    constants = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in constants]
    names = [one.name for one in inputs]
    if "input_ids" in names:
        raise InputError(
            f"{path} takes the inputs {some(names)}, those of texts, and an ONNX file holds no "
            "tokenizer: analyse the network that it was made from"
        )
    if len(inputs) != 1:
        raise InputError(f"{path} takes the inputs {some(names)}: expected one, of images")
    return inputs[0]


def _check_number(onnx: Any, path: Path, number: int, about: OnnxAbout) -> None:
    kinds = onnx.TensorProto
    if number in (kinds.FLOAT, kinds.FLOAT16) or (number == kinds.UINT8 and about.takes_pixels):
        return
    raise InputError(
        f"{path} takes {kinds.DataType.Name(number)} values: expected images as floats, or as "
        "`penult export --preprocessing` writes them"
    )


def _digest(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path} does not exist" if not path.exists() else f"{path} is no file")
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _read(onnx: Any, path: Path) -> Any:
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # of the parser, the checker and the file system
        raise InputError(f"{path} is no readable ONNX file: {described(error)}") from error


def _about(path: Path, model: Any) -> OnnxAbout:
    """What penult's own files say; of others nothing is known."""
    notes = {entry.key: entry.value for entry in model.metadata_props}
    if notes.get("format") != FORMAT:  # what others call preprocessing is not known
        return OnnxAbout(None, None)
    names, settings, head = (
        _read_note(notes, key) for key in ("class_names", "preprocessing", "head")
    )
    transform, inside = None, False
    if isinstance(settings, Mapping) and "kind" not in settings:
        try:
            transform = Transform.from_json({k: v for k, v in settings.items() if k != "inside"})
        except InputError as error:
            raise InputError(
                f"{path}: its metadata say no preprocessing that can be read ({error}): expected a "
                "file as `penult export` wrote it"
            ) from error
        inside = bool(settings.get("inside"))
    if inside and transform is not None:
        zero, one = (0.0,) * transform.channels, (1.0,) * transform.channels
        transform = replace(transform, mean=zero, std=one, scale=1.0, bgr=False)
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    bounds = head.get("n_bounds") if isinstance(head, Mapping) else 0
    return OnnxAbout(
        transform,
        tuple(names) if texts else None,
        inside,
        bounds if isinstance(bounds, int) else 0,
    )


def _read_note(notes: Mapping[str, str], key: str) -> Any:
    """What an entry of the metadata holds; None where it is not there, or no JSON."""
    try:
        return json.loads(notes.get(key, "null"))
    except ValueError:
        return None


def _logits_of(path: Path, model: Any) -> str:
    outputs = [one.name for one in model.graph.output]
    if "logits" in outputs:
        return "logits"
    if len(outputs) != 1:
        raise InputError(f"{path} gives {some(outputs)}: expected one output, or one named logits")
    return str(outputs[0])
