"""ONNX files as networks: the graph is cut at its features, and the logits stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penult.errors import InputError
from penult.export.traced import quiet
from penult.extras import import_extra
from penult.network.explicit import find_or_make_head
from penult.network.find import FeatureTap, find_head
from penult.network.load import load_model
from penult.network.onnx_file import OnnxNetwork

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

N_INPUTS, N_FEATURES, N_CLASSES = 6, 5, 3
KEPT = (np.int64, np.int8, np.uint8)
BY_TRACING: dict[str, Any] = {"dynamic_axes": {"images": {0: "n"}, "out": {0: "n"}}}
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
            value if value.dtype in KEPT else value.astype(np.float32), name
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
TURN = rng.standard_normal((N_FEATURES, N_FEATURES))
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


def rounded() -> Tail:
    """Weights of 8 bits, and the features and the logits between their own 8 bits."""
    scale = 2 * np.abs(W).max() / 255
    steps = np.rint(W / scale).astype(np.int8)
    nodes = [
        node("QuantizeLinear", "z fine", "z8"),
        node("DequantizeLinear", "z8 fine", "y"),
        node("DequantizeLinear", "w scale", "v"),
        node("Gemm", "y v b", "g", transB=1),
        node("QuantizeLinear", "g coarse middle", "q"),
        node("DequantizeLinear", "q coarse middle", "logits"),
    ]
    constants = {"w": steps, "scale": np.array(scale), "b": B, "fine": np.array(0.02)}
    middle = np.array(128, dtype=np.uint8)
    return nodes, {**constants, "coarse": np.array(0.2), "middle": middle}


def projected() -> Tail:
    """The features are themselves a product, of which some are gathered."""
    nodes = [node("MatMul", "z turn", "p"), node("Gather", "p at", "y", axis=1)]
    nodes += [node("Mul", "y w", "q"), node("ReduceSum", "q axes", "s", keepdims=0)]
    at = np.tile(READ, (N_CLASSES, 1))
    constants = {"w": W[:, READ], "b": B, "at": at, "axes": np.array([2]), "turn": TURN}
    return [*nodes, node("Add", "s b", "logits")], constants


@pytest.mark.parametrize(
    ("tail", "weight"),
    [
        (gemm, W),
        (product, W),
        (read, W_READ),
        (gathered, W_READ),
        (transposed, W_READ),
        (projected, W_READ),
    ],
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


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("Softmax", lambda y: torch.softmax(y, 1)),
        ("LogSoftmax", lambda y: torch.log_softmax(y, 1)),
        ("Sigmoid", torch.sigmoid),
    ],
)
def test_what_a_file_makes_of_its_logits_is_left_behind_them(
    kind: str, function: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    nodes = [node("Gemm", "z w b", "y", transB=1), node(kind, "y", "said")]
    path = written(tmp_path / "net.onnx", nodes, {"w": W, "b": B}, outputs=["said"])
    network = OnnxNetwork(path)
    assert np.allclose(network.head.weight.detach().numpy(), W, atol=1e-5)
    x = torch.randn(7, 1, 2, 3)
    with FeatureTap(network, find_or_make_head(network, x).head) as tap, torch.no_grad():
        found = network(x)
    session = import_extra("onnxruntime", "export").InferenceSession(path)
    assert np.allclose(found, session.run(None, {"images": x.numpy()})[0], atol=1e-5)
    assert torch.allclose(function(tap.logits), found, atol=1e-5)


def test_a_file_of_eight_bits_has_the_logits_before_they_are_rounded(tmp_path: Path) -> None:
    path = written(tmp_path / "net.onnx", *rounded())
    with pytest.warns(UserWarning, match="rounds its logits to 8 bits: they are taken as they are"):
        network = OnnxNetwork(path)
    step = 2 * np.abs(W).max() / 255
    assert np.abs(network.head.weight.detach().numpy() - W).max() <= step / 2 + 1e-6
    x = torch.randn(50, 1, 2, 3)
    session = import_extra("onnxruntime", "export").InferenceSession(path)
    expected = session.run(None, {"images": x.numpy()})[0]
    far = np.abs(network(x).detach().numpy() - expected)
    assert 0.05 < far.max() <= 0.1 + 1e-3  # half of the steps of 0.2 that the logits have


class Positions(torch.nn.Module):
    """Features at several positions: of their logits the mean is taken, or one."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(1, N_FEATURES, 1)
        self.place = place
        layer = (
            torch.nn.Conv2d(N_FEATURES, N_CLASSES, 1)
            if "maps" in place
            else torch.nn.Linear(N_FEATURES, N_CLASSES)
        )
        self.head = layer

    def vectors(self, x: torch.Tensor) -> torch.Tensor:
        """(n_samples, n_features), by the definition."""
        rows = self.body(x).relu().flatten(2)
        return rows[:, :, 0] if self.place == "first token" else rows.mean(2)  # type: ignore[no-any-return]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.body(x).relu()
        if self.place == "maps":
            return self.head(maps).mean((2, 3))  # type: ignore[no-any-return]
        if self.place == "pooled maps":
            return self.head(maps.mean((2, 3), keepdim=True)).flatten(1)  # type: ignore[no-any-return]
        tokens = self.head(maps.flatten(2).transpose(1, 2))
        return tokens[:, 0] if self.place == "first token" else tokens.mean(1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("dynamo", [False, True], ids=["by tracing", "by torch.export"])
@pytest.mark.parametrize("place", ["maps", "pooled maps", "first token", "tokens"])
def test_positions_become_one_vector(place: str, dynamo: bool, tmp_path: Path) -> None:
    """Files that torch writes of networks whose head reads more than one vector of a sample."""
    torch.manual_seed(0)
    model, path = Positions(place).eval(), tmp_path / "net.onnx"
    x = torch.randn(5, 1, 2, 3)
    with quiet():
        torch.onnx.export(
            model,
            (x,),
            path,
            input_names=["images"],
            output_names=["out"],
            dynamo=dynamo,
            **({"verbose": False, "dynamic_shapes": ({0: "n"},)} if dynamo else BY_TRACING),
        )
    network = OnnxNetwork(path)
    weight = model.head.weight.detach().flatten(1)
    assert torch.allclose(network.head.weight, weight, atol=1e-5)
    with FeatureTap(network, find_head(network, x)) as tap, torch.no_grad():
        assert torch.allclose(network(x), model(x), atol=1e-5)
        assert torch.allclose(tap.features, model.vectors(x), atol=1e-5)


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


def rectified() -> Tail:
    return [node("Gemm", "z w b", "y", transB=1), node("Relu", "y", "logits")], {"w": W, "b": B}


def normed() -> Tail:
    """Linear operations alone, in an order that makes them none: a product of two of them."""
    nodes = [node("Gemm", "z w b", "y", transB=1), node("Mul", "y y", "logits")]
    return nodes, {"w": W, "b": B}


def capped() -> Tail:
    nodes = [
        node("Gemm", "z w b", "y", transB=1),
        node("Relu", "y", "over"),
        node("Sub", "y over", "logits"),
    ]
    return nodes, {"w": W, "b": B}


def of_rows() -> Tail:
    """Each feature is a row of its own, so that an image has five rows of logits."""
    nodes = [node("Reshape", "z one", "r"), node("Gemm", "r w b", "logits", transB=1)]
    return nodes, {"one": np.array([-1, 1]), "w": W[:, :1].copy(), "b": B}


def after(kind: str, constants: dict[str, Any], **attributes: Any) -> Tail:
    """What is made of the logits by an operation that is linear, too."""
    names = " ".join(["y", *constants])
    nodes = [node("Gemm", "z w b", "y", transB=1), node(kind, names, "logits", **attributes)]
    return nodes, {"w": W, "b": B, **constants}


def squashed_twice() -> Tail:
    nodes, constants = after("Softmax", {})
    nodes[1].output[0] = "once"
    return [*nodes, node("Softmax", "once", "logits")], constants


FIRST, SECOND = np.array([0]), np.array([1])
FAULTS: dict[str, tuple[Tail, dict[str, Any], str]] = {
    "caps": (capped(), {}, "is made by Sub, no linear map"),
    "a rectifier": (rectified(), {}, "is made by Relu, no linear map"),
    "a norm of the logits": (normed(), {}, "its logits are no linear map of"),
    "rows of features": (of_rows(), {}, r"has the shape \(10, 1\) for 2 samples: expected one row"),
    "softmax twice": (squashed_twice(), {}, "is made by Softmax, no linear map"),
    "classes first": (after("Transpose", {}, perm=[1, 0]), {}, "expected a linear last layer"),
    "one sample": (after("Gather", {"at": FIRST}, axis=0), {}, "expected a linear last layer"),
    "their sum": (after("ReduceSum", {"at": SECOND}, keepdims=0), {}, "a linear last layer"),
    "another axis": (after("Unsqueeze", {"at": SECOND}), {}, "a linear last layer"),
    "texts": (gemm(), {"inputs": ["images", "input_ids"]}, "holds no tokenizer"),
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


def with_notes(path: Path, notes: dict[str, str]) -> Path:
    onnx = import_extra("onnx", "export")
    rng = np.random.default_rng(1)
    written(path, [node("MatMul", "z w", "logits")], {"w": rng.standard_normal((5, 3))})
    model = onnx.load(path)
    for key, value in notes.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)
    return path


def test_metadata_of_others_are_their_own(tmp_path: Path) -> None:
    """What they call preprocessing, class names or a head is no word of penult."""
    notes = {"preprocessing": '{"wat": 1}', "class_names": '["a"]', "head": '{"n_bounds": 2}'}
    about = OnnxNetwork(with_notes(tmp_path / "net.onnx", notes)).about
    assert (about.transform, about.class_names, about.n_bounds) == (None, None, 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('{"mean": "x"}', r"mean must be finite numbers, found 'x'"),
        ('{"wat": 1}', r"unknown settings of a transform: wat"),
    ],
)
def test_a_preprocessing_that_cannot_be_read_names_the_file(
    settings: str, said: str, tmp_path: Path
) -> None:
    notes = {"format": "penult-network/1", "preprocessing": settings}
    path = with_notes(tmp_path / "net.onnx", notes)
    with pytest.raises(InputError, match=rf"net\.onnx: its metadata say no preprocessing.*{said}"):
        OnnxNetwork(path)
