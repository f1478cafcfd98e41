"""An architecture exported to ONNX with a head that reads half of the features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from penult.export.cost import counted_cost
from penult.export.head_forms import head_layer
from penult.export.onnx_graph import OPSET, onnx_of, session_of
from penult.export.shipped_head import ShippedHead
from penult.export.shipped_network import ShippedNetwork, logits_in_batches
from penult.export.traced import trace
from penult.export.unread import Dropped, drop_unread, graph_of, run_graph
from penult.network.find import find_head
from penult.network.head import Head
from penult.network.replace import replace_head

SIDE, N_SAMPLES = 64, 3


@dataclass(frozen=True, eq=False)
class ExportedArchitecture:
    """An exported network beside the network with the same head in torch.

    Attributes:
        head: with zeros where no class reads a feature.
        read: the features that are read.
        in_torch: greatest difference of a logit, without what makes only unread channels, as a
            fraction of the largest logit.
        in_onnxruntime: the same of the ONNX file, for batches of another size than it was traced
            with.
        before, after: parameters and multiplications, see `counted_cost`.
        dropped: what was taken out.
    """

    head: Head
    read: list[int]
    in_torch: float
    in_onnxruntime: float
    before: dict[str, int]
    after: dict[str, int]
    dropped: Dropped

    def gone(self, what: str) -> int:
        """How many of the parameters or multiplications went."""
        return self.before[what] - self.after[what]


def half_read(head: Head) -> ShippedHead:
    """The head with other weights, zero for half of the features."""
    read = torch.randperm(head.n_features)[: head.n_features // 2]
    weight = torch.zeros_like(head.weight)
    weight[:, read] = torch.randn(head.n_classes, len(read)) / len(read) ** 0.5
    return ShippedHead(replace(head, weight=weight), None, {})


def exported(model: nn.Module) -> ExportedArchitecture:
    """Trace a network, drop what is unread, write ONNX, and run it."""
    torch.manual_seed(0)
    model.eval()
    for values in model.parameters():
        # The small weights that some libraries draw let the features of a deep network vanish, and
        # a norm that starts with zeros lets whole branches be unread.
        if values.ndim > 1:
            nn.init.xavier_uniform_(values)
        else:
            values.data += torch.rand_like(values) - 0.5
    x = {"images": torch.randn(N_SAMPLES, 3, SIDE, SIDE)}
    head = find_head(model, x["images"])
    shipped = half_read(head)
    with replace_head(model, head_layer(shipped, "dense"), head):
        expected = logits_in_batches(ShippedNetwork(model, head), x, N_SAMPLES)
    with replace_head(model, head_layer(shipped, "dense", drop=True), head):
        program = trace(ShippedNetwork(model, head), x)
    smaller, dropped = drop_unread(program)
    again = trace(smaller, x)
    session = session_of(onnx_of(again, list(x), OPSET).SerializeToString())
    found = [
        torch.from_numpy(session.run(None, {"images": part.numpy()})[0])
        for part in (x["images"][:1], x["images"])
    ]
    rows = torch.cat([expected[:1], expected])
    return ExportedArchitecture(
        head=replace(head, weight=shipped.head.weight),
        read=shipped.read().tolist(),
        in_torch=difference(run_graph(graph_of(again), x), expected),
        in_onnxruntime=difference(torch.cat(found), rows),
        before=counted_cost(program, x, N_SAMPLES),
        after=counted_cost(again, x, N_SAMPLES),
        dropped=dropped,
    )


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())
