"""ONNX files as networks: the graph is cut at its features, and the logits stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penult.errors import InputError
from penult.extras import import_extra
from penult.network.find import find_head
from penult.network.load import load_model
from penult.network.onnx_file import OnnxNetwork

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package)

N_INPUTS, N_FEATURES, N_CLASSES = 6, 5, 3
Tail = tuple[list[Any], dict[str, Any]]


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    helper = import_extra("onnx", "export").helper
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def written(path: Path, nodes: list[Any], constants: dict[str, Any], **about: Any) -> Path:
    """A file: images (n, 1, 2, 3), features `z` by a product and a rectifier, and then `nodes`."""
    onnx = import_extra("onnx", "export")
    helper, number = onnx.helper, about.get("number", onnx.TensorProto.FLOAT)
    rng = np.random.default_rng(0)
    body = [
        node("Flatten", "images", "flat"),
        node("MatMul", "flat mixing", "mixed"),
        node("Relu", "mixed", "z"),
    ]
    constants = {"mixing": rng.standard_normal((N_INPUTS, N_FEATURES)), **constants}
    names = about.get("inputs", ["images"])
    sizes = [about.get("batch", "n"), 1, 2, 3]
    inputs = [helper.make_tensor_value_info(name, number, sizes) for name in names]
    outputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", N_CLASSES])
        for name in about.get("outputs", ["logits"])
    ]
    held = [
        onnx.numpy_helper.from_array(
            value if value.dtype == np.int64 else value.astype(np.float32), name
        )
        for name, value in constants.items()
    ]
    graph = helper.make_graph([*body, *nodes], "graph", inputs, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, path)
    return path


rng = np.random.default_rng(1)
W, B = rng.standard_normal((N_CLASSES, N_FEATURES)), rng.standard_normal(N_CLASSES)
READ = np.array([0, 2, 3])
W_READ = np.where(np.isin(np.arange(N_FEATURES), READ), W, 0)


def gemm() -> Tail:
    return [node("Gemm", "z w b", "logits", transB=1)], {"w": W, "b": B}


def product() -> Tail:
    nodes = [node("MatMul", "z w", "p"), node("Add", "b p", "logits")]
    return nodes, {"w": W.T.copy(), "b": B}


def read() -> Tail:
    nodes = [node("Gather", "z at", "y", axis=1), node("Gemm", "y w b", "logits", transB=1)]
    return nodes, {"w": W_READ[:, READ], "b": B, "at": READ}


def gathered() -> Tail:
    nodes = [
        node("Gather", "z at", "y", axis=1),
        node("Mul", "y w", "p"),
        node("ReduceSum", "p axes", "s", keepdims=0),
        node("Add", "s b", "logits"),
    ]
    at = np.tile(READ, (N_CLASSES, 1))
    return nodes, {"w": W[:, READ], "b": B, "at": at, "axes": np.array([2])}


def transposed() -> Tail:
    nodes = [
        node("Transpose", "z", "t", perm=[1, 0]),
        node("Gather", "t at", "y", axis=0),
        node("Mul", "y w", "p"),
        node("ReduceSum", "p axes", "s", keepdims=0),
        node("Transpose", "s", "u", perm=[1, 0]),
        node("Add", "u b", "logits"),
    ]
    at = np.tile(READ[:, None], (1, N_CLASSES))
    return nodes, {"w": W[:, READ].T[:, :, None].copy(), "b": B, "at": at, "axes": np.array([0])}


@pytest.mark.parametrize(
    ("tail", "weight"),
    [(gemm, W), (product, W), (read, W_READ), (gathered, W_READ), (transposed, W_READ)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_is_cut_at_its_features(
    tail: Callable[[], Tail], weight: np.ndarray, tmp_path: Path
) -> None:
    path = written(tmp_path / "net.onnx", *tail())
    network = OnnxNetwork(path)
    assert np.allclose(network.head.weight.detach().numpy(), weight, atol=1e-5)
    assert np.allclose(network.head.bias.detach().numpy(), B, atol=1e-5)
    x = torch.randn(7, 1, 2, 3)
    session = import_extra("onnxruntime", "export").InferenceSession(path)
    expected = session.run(None, {"images": x.numpy()})[0]
    assert np.allclose(network(x).detach().numpy(), expected, atol=1e-5)
    assert find_head(network, x).name == "head"


def test_a_file_with_one_batch_size_takes_any(tmp_path: Path) -> None:
    free = OnnxNetwork(written(tmp_path / "free.onnx", *gemm()))
    fixed = OnnxNetwork(written(tmp_path / "fixed.onnx", *gemm(), batch=4))
    x = torch.randn(7, 1, 2, 3)
    assert torch.allclose(free(x), fixed(x), atol=1e-6)


def test_another_file_is_another_network(tmp_path: Path) -> None:
    first = load_model(str(written(tmp_path / "a.onnx", *gemm())))
    nodes, constants = gemm()
    constants["mixing"] = np.ones((N_INPUTS, N_FEATURES))
    second = load_model(str(written(tmp_path / "b.onnx", nodes, constants)))
    again = load_model(str(tmp_path / "a.onnx"))
    assert torch.equal(first.model.head.weight, second.model.head.weight)  # type: ignore[arg-type, union-attr]
    assert first.fingerprint == again.fingerprint != second.fingerprint
    assert "does not say how its inputs are made" in first.transform_problem


def squashed() -> Tail:
    nodes = [node("Gemm", "z w b", "y", transB=1), node("Softmax", "y", "logits")]
    return nodes, {"w": W, "b": B}


def capped() -> Tail:
    nodes = [
        node("Gemm", "z w b", "y", transB=1),
        node("Relu", "y", "over"),
        node("Sub", "y over", "logits"),
    ]
    return nodes, {"w": W, "b": B}


def quantised() -> Tail:
    nodes = [
        node("Gemm", "z w b", "y", transB=1),
        node("QuantizeLinear", "y size", "q"),
        node("DequantizeLinear", "q size", "logits"),
    ]
    return nodes, {"w": W, "b": B, "size": np.array(0.5)}


FAULTS: dict[str, tuple[Tail, dict[str, Any], str]] = {
    "softmax": (squashed(), {}, "is made by Softmax, no linear map"),
    "caps": (capped(), {}, "is made by Sub, no linear map"),
    "8 bits": (quantised(), {}, "its logits are no linear map of"),
    "two inputs": (gemm(), {"inputs": ["images", "more"]}, "takes the inputs images, more"),
    "pixels": (gemm(), {"number": 2}, "is no readable ONNX file|takes UINT8 values"),
    "two outputs": (gemm(), {"outputs": ["z", "mixed"]}, "gives z, mixed: expected one output"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_files_that_cannot_be_used_say_why(case: str, tmp_path: Path) -> None:
    (nodes, constants), about, expected = FAULTS[case]
    path = written(tmp_path / "net.onnx", nodes, constants, **about)
    with pytest.raises(InputError, match=expected):
        OnnxNetwork(path)


def test_files_that_are_none_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.onnx does not exist"):
        load_model(str(tmp_path / "none.onnx"))
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(InputError, match=r"text\.onnx is no readable ONNX file"):
        load_model(str(tmp_path / "text.onnx"))
    path = written(tmp_path / "net.onnx", *gemm())
    with pytest.raises(InputError, match="holds a whole network: expected no --weights"):
        load_model(str(path), weights="x.pt")
