"""Where the graph of an ONNX file is cut: at the vector of which its logits are a linear map."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from penult.errors import InputError
from penult.text import described

Numbers = NDArray[np.float32]

# Operations between the features and the logits of a linear map.
PRODUCTS = {"Gemm", "MatMul", "Einsum", "Conv"}
PLACING = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast"}
MEANS = {"ReduceMean", "GlobalAveragePool", "AveragePool"}
LINEAR = {*PRODUCTS, *PLACING, *MEANS, "Add", "Mul", "ReduceSum", "Gather", "Slice"}
BEFORE_PRODUCT = {"Gather", "Transpose"}  # of a product with only the features that are read
ROUNDING = {"QuantizeLinear", "DequantizeLinear"}
# What follows the logits and does not change which class is meant.
SQUASHING = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
TOLERANCE = {"tensor(float16)": 1e-2}  # of the largest logit
FINE = 1e-4
NUMBERS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
MOST_NUMBERS = 2**26  # of the logits of one batch while the weights are found


class NotLinearError(InputError):
    """The logits are no linear map of what the graph holds there."""


@dataclass(frozen=True)
class Ends:
    """The last values of a graph.

    Attributes:
        logits: name of the value that is linear in the features.
        squashed: what is made of it afterwards, "softmax", "log_softmax", "sigmoid" or "".
        rounded: whether it is rounded to 8 bits afterwards.
    """

    logits: str
    squashed: str = ""
    rounded: bool = False


@dataclass(frozen=True, eq=False)
class Session:
    """A part of a graph, run in batches of the size that it takes.

    Attributes:
        run: of onnxruntime.
        name: of the input.
        kind: of its numbers, as onnxruntime says it.
        fixed: the only batch size; any where None.
        path: of the file, for messages.
    """

    run: Any
    name: str
    kind: str
    fixed: int | None
    path: Path

    @classmethod
    def of(cls, model: Any, fixed: int | None, path: Path) -> Session:
        """A session on the CPU, with as many threads as torch has."""
        onnxruntime = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        made = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        entry = made.get_inputs()[0]
        return cls(made, entry.name, entry.type, fixed, path)

    def __call__(self, values: Any) -> Numbers:
        """What the part gives, (n_samples, ...) float32; the last batch is filled up.

        Raises:
            NotLinearError: it does not give as many rows as it is given.
        """
        values = np.ascontiguousarray(values, dtype=NUMBERS.get(self.kind, np.float32))
        size = self.fixed or max(1, len(values))
        found = []
        for start in range(0, len(values), size):
            rows = np.minimum(np.arange(start, start + size), len(values) - 1)
            found.append(self.run.run(None, {self.name: values[rows]})[0])
            if found[-1].shape[:1] != (size,):
                raise NotLinearError(
                    f"{self.path}: what is made of its {self.name} has the shape "
                    f"{found[-1].shape} for {size} samples: expected one row of logits for each"
                )
        together: Numbers = np.concatenate(found)[: len(values)].astype(np.float32)
        return together


@dataclass(frozen=True, eq=False)
class Cut:
    """A graph in two parts: from images to features, and the linear map of these.

    Attributes:
        body: what gives the features, (n_samples, ...).
        axis: of the features in it.
        place: of its positions: "none" where there is one vector, "mean", or the number of one.
        weight: (n_classes, n_features).
        bias: (n_classes,).
    """

    body: Session
    axis: int
    place: str
    weight: Numbers = field(repr=False)
    bias: Numbers = field(repr=False)

    def features(self, images: Any) -> Numbers:
        """(n_samples, n_features)."""
        return _reduced(self.body(images), self.axis, self.place)


def ends_of(path: Path, model: Any, output: str) -> Ends:
    """What of a graph is the logits, without what is made of them afterwards."""
    makers = _makers(model)
    value, squashed, rounded = output, "", False
    while value in makers:
        node = makers[value]
        if node.op_type in SQUASHING and not squashed:
            squashed = SQUASHING[node.op_type]
        elif node.op_type in ROUNDING:
            rounded = True
        elif node.op_type != "Identity":
            break
        value = node.input[0]
    if squashed or rounded:
        return Ends(value, squashed, rounded)
    return Ends(output)


def cut_of(
    path: Path, model: Any, source: str, logits: str, example: Any, fixed: int | None
) -> Cut:
    """Cut a graph where its last linear map reads its input.

    Args:
        path: of the file, for messages.
        model: the graph.
        source: name of its input.
        logits: name of its logits.
        example: two or more images.
        fixed: the only batch size.

    Raises:
        InputError: the logits are no linear map of any vector.
    """
    names = list(_candidates(model, logits))
    if not names:
        made = _makers(model).get(logits)
        by = made.op_type if made is not None else "no operation"
        raise InputError(
            f"{path}: its output {logits} is made by {by}, no linear map: expected logits, before "
            "anything that is made of them"
        )
    extractor = importlib.import_module("onnx").utils.Extractor(model)
    reason: NotLinearError | None = None
    for name in names:
        try:
            body = Session.of(extractor.extract_model([source], [name]), fixed, path)
            tail = Session.of(extractor.extract_model([name], [logits]), fixed, path)
            return _linear(path, body, tail, name, body(example))
        except NotLinearError as error:
            reason = reason or error
        except Exception as error:  # both libraries have several of their own
            raise InputError(f"{path} cannot be run: {described(error)}") from error
    assert reason is not None
    raise reason


def _makers(model: Any) -> dict[str, Any]:
    return {name: node for node in model.graph.node for name in node.output}


def _constants(model: Any) -> set[str]:
    """Values that are the same whatever goes in, such as weights that are scaled from 8 bits."""
    found = {one.name for one in model.graph.initializer}
    for node in model.graph.node:  # in the order in which they are computed
        if all(name in found for name in node.input if name):
            found.update(node.output)
    return found


def _candidates(model: Any, logits: str) -> Iterator[str]:
    """Values that may be the features, the likeliest first.

    Backwards from the logits through a linear map to what its product reads, and as far beyond as
    the features that are read are taken out of all. Last what lies beyond a change of shape.
    """
    makers, constants = _makers(model), _constants(model)
    near: list[str] = []
    far: list[str] = []
    value, product, summed, reshaped = logits, False, False, False
    while value in makers:
        node = makers[value]
        if node.op_type not in (BEFORE_PRODUCT | PLACING if product else LINEAR):
            break
        inputs = list(dict.fromkeys(one for one in node.input if one and one not in constants))
        if len(inputs) != 1:
            break
        reshaped = reshaped or (product and node.op_type not in BEFORE_PRODUCT)
        # Some features gathered, multiplied and summed are a product too.
        summed = summed or node.op_type == "ReduceSum"
        product = product or node.op_type in PRODUCTS or (summed and node.op_type == "Gather")
        value = inputs[0]
        (far if reshaped else near).append(value)
    yield from reversed(near)
    yield from reversed(far)


def _linear(path: Path, body: Session, tail: Session, name: str, seen: Numbers) -> Cut:
    """The linear map of a value, found by what it makes of single features.

    Each feature has the same number at all positions, so that the weights are found whatever is
    made of the positions; which of them counts is tried on noise.

    Args:
        seen: the value, of several images.

    Raises:
        NotLinearError: there is none.
    """
    refused = NotLinearError(
        f"{path}: its logits are no linear map of {name}, such as those of a head with caps: "
        "expected a linear last layer"
    )
    drawn = np.random.default_rng(0).standard_normal((4, *seen.shape[1:]))
    noise = (3 * drawn).astype(np.float32)
    tolerance = TOLERANCE.get(tail.kind, FINE)
    for axis in dict.fromkeys((seen.ndim - 1, 1)) if seen.ndim > 1 else ():
        try:
            weight, bias = _map_of(tail, seen, axis)
            expected = tail(noise)
        except Exception:  # a shape that the rest of the graph does not take
            continue
        if expected.ndim != 2:
            continue
        for place in _places(seen, axis):
            found = _reduced(noise, axis, place) @ weight.T + bias
            if np.abs(found - expected).max() <= tolerance * np.abs(expected).max():
                return Cut(body, axis, place, weight, bias)
    raise refused


def _map_of(tail: Session, seen: Numbers, axis: int) -> tuple[Numbers, Numbers]:
    n_features = seen.shape[axis]
    around = [1] * seen.ndim
    around[axis] = n_features

    def run(z: Any) -> Numbers:
        rows = z.reshape(len(z), *around[1:])
        return tail(np.broadcast_to(rows, (len(z), *seen.shape[1:])))

    bias = run(np.zeros((1, n_features)))[0]
    numbers = max(1, bias.size, seen[0].size)
    size = max(1, MOST_NUMBERS // numbers)
    parts = [
        run(np.eye(n_features)[start : start + size]) - bias for start in range(0, n_features, size)
    ]
    return np.concatenate(parts).T, bias


def _places(seen: Numbers, axis: int) -> Sequence[str]:
    positions = seen[0].size // max(1, seen.shape[axis])
    if seen.ndim == 2:
        return ("none",)
    return ("mean", *dict.fromkeys(("0", str(positions - 1))))


def _reduced(values: Numbers, axis: int, place: str) -> Numbers:
    """(n_samples, n_features)."""
    if place == "none":
        return values
    rows = np.moveaxis(values, axis, -1).reshape(len(values), -1, values.shape[axis])
    reduced: Numbers = rows.mean(1) if place == "mean" else rows[:, int(place)]
    return reduced
