"""ONNX files as networks: onnxruntime makes the features, and one linear layer the logits."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penult.data.transform import Transform
from penult.errors import InputError
from penult.extras import import_extra
from penult.text import described, some

ENDING = ".onnx"
# Operations between the features and the logits of a linear map.
PRODUCTS = {"Gemm", "MatMul", "Einsum"}
LINEAR = {
    *PRODUCTS,
    *("Add", "Mul", "ReduceSum", "Transpose", "Gather", "Reshape", "Squeeze", "Unsqueeze"),
    *("Identity", "Cast", "DequantizeLinear", "QuantizeLinear"),
}
BEFORE_PRODUCT = {"Gather", "Transpose"}  # of a product with only the features that are read
TOLERANCE = 1e-4
MOST_NUMBERS = 2**26  # of the logits of one batch while the weights are found


@dataclass(frozen=True)
class OnnxAbout:
    """What an ONNX file says of itself, where penult wrote it.

    Attributes:
        transform: how its images are made.
        class_names: in the order of the logits.
    """

    transform: Transform | None
    class_names: tuple[str, ...] | None


class OnnxNetwork(nn.Module):
    """A network whose features onnxruntime computes.

    The graph is cut where its last linear map reads its input; what comes after is found to be
    linear by running it, and becomes the layer `head`.

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
        constants = {one.name for one in model.graph.initializer}
        inputs = [one for one in model.graph.input if one.name not in constants]
        if len(inputs) != 1:
            raise InputError(
                f"{path} takes the inputs {some([one.name for one in inputs])}: expected one, of "
                "images"
            )
        self._input = inputs[0].name
        number = inputs[0].type.tensor_type.elem_type
        if number != onnx.TensorProto.FLOAT:
            raise InputError(
                f"{path} takes {onnx.TensorProto.DataType.Name(number)} values: expected images "
                "as 32-bit floats; export it without --preprocessing"
            )
        first = inputs[0].type.tensor_type.shape.dim[0]
        self._fixed = int(first.dim_value) or None
        logits = _logits_of(path, model)
        cut = _cut(path, model, logits)
        extractor = onnx.utils.Extractor(model)
        try:
            self._body = _session(extractor.extract_model([self._input], [cut]))
            tail = _session(extractor.extract_model([cut], [logits]))
        except Exception as error:  # both libraries have several of their own
            raise InputError(f"{path} cannot be run: {described(error)}") from error
        example = self._features(self._zeros(inputs[0]))
        weight, bias = _linear(path, tail, example.shape[1], cut, self._fixed)
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n_samples, n_classes)."""
        features = self._features(images.detach().cpu().float()).to(images.device)
        logits: Tensor = self.head(features)
        return logits

    def extra_repr(self) -> str:
        """The file's hash, so that another file is another network."""
        return f"onnx={self._digest}"

    def _features(self, images: Tensor) -> Tensor:
        """(n_samples, n_features)."""
        features = _run(self._body, self._input, images.numpy(), self._fixed)
        return torch.from_numpy(features.astype(np.float32))

    def _zeros(self, value: Any) -> Tensor:
        """One image, of the size that the file names."""
        sizes = [place.dim_value or 1 for place in value.type.tensor_type.shape.dim]
        return torch.zeros(1, *sizes[1:])


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
    try:
        names = json.loads(notes.get("class_names", "null"))
        settings = json.loads(notes.get("preprocessing", "null"))
    except ValueError:
        names = settings = None
    transform = None
    if isinstance(settings, Mapping):
        transform = Transform.from_json({k: v for k, v in settings.items() if k != "inside"})
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return OnnxAbout(transform, tuple(names) if texts else None)


def _logits_of(path: Path, model: Any) -> str:
    outputs = [one.name for one in model.graph.output]
    if "logits" in outputs:
        return "logits"
    if len(outputs) != 1:
        raise InputError(f"{path} gives {some(outputs)}: expected one output, or one named logits")
    return str(outputs[0])


def _cut(path: Path, model: Any, logits: str) -> str:
    """The vector that the last linear map reads."""
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {one.name for one in model.graph.initializer}
    constants |= {n for n, node in makers.items() if node.op_type == "Constant"}
    value, product, last = logits, False, None
    while value in makers:
        node = makers[value]
        if node.op_type not in (BEFORE_PRODUCT if product else LINEAR):
            break
        inputs = list(dict.fromkeys(one for one in node.input if one and one not in constants))
        if len(inputs) != 1:
            break
        product = product or node.op_type in PRODUCTS
        value, last = inputs[0], node
    if last is None:
        raise InputError(
            f"{path}: its output {logits} is made by {makers[logits].op_type}, no linear map: "
            "expected logits, before any softmax"
        )
    return str(value)


def _run(session: Any, name: str, values: Any, fixed: int | None) -> Any:
    """What a graph gives, in batches of the size that it takes; the last is filled up."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    size = fixed or max(1, len(values))
    found = []
    for start in range(0, len(values), size):
        rows = np.minimum(np.arange(start, start + size), len(values) - 1)
        found.append(session.run(None, {name: values[rows]})[0])
    return np.concatenate(found)[: len(values)]


def _linear(
    path: Path, tail: Any, n_features: int, name: str, fixed: int | None
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a graph that is linear, found by what it makes of single features."""

    def run(z: Any) -> Any:
        return _run(tail, name, z, fixed)

    bias = run(np.zeros((1, n_features)))[0]
    rows = max(1, MOST_NUMBERS // max(1, len(bias)))
    weight = np.concatenate(
        [
            run(np.eye(n_features)[start : start + rows]) - bias
            for start in range(0, n_features, rows)
        ]
    ).T
    z = np.random.default_rng(0).standard_normal((4, n_features)) * 3
    expected, found = z @ weight.T + bias, run(z)
    if not np.abs(expected - found).max() <= TOLERANCE * np.abs(expected).max():
        raise InputError(
            f"{path}: its logits are no linear map of {name}, such as those of a head with caps or "
            "of 8 bits: expected a linear last layer"
        )
    return torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy())


def _session(model: Any) -> Any:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
