"""TracedNetwork: the network that a format writes, traced, beside the network as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penult.export.choose_form import choose_form
from penult.export.cost import counted_cost, gathered_products
from penult.export.head_forms import HeadLayer, head_layer
from penult.export.proof import BATCH
from penult.export.shipment import Shipment
from penult.export.shipped_network import IMAGES, PIXELS
from penult.export.traced import EXAMPLES, trace
from penult.export.unread import Dropped, drop_unread, run_graph

SAME = 1e-5  # of the largest logit: how far dropping channels may move one
REASONS_SHOWN = 3


@dataclass(eq=False)
class TracedNetwork:
    """What a format writes.

    Attributes:
        program: from inputs to logits.
        before: the same of the network with its own head, where costs are compared.
        layer: the head in it.
        document: what `export.json` says of it.
        notes: sentences.
    """

    program: torch.export.ExportedProgram
    before: torch.export.ExportedProgram | None
    layer: HeadLayer
    document: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def counted(self, shipment: Shipment) -> dict[str, dict[str, int]]:
        """Parameters and multiplications before and after; nothing where they are not compared."""
        if self.before is None:
            return {}
        size = shipment.options.batch_size or EXAMPLES
        after = counted_cost(self.program, shipment.inputs, size)
        after["multiplications"] += gathered_products(self.layer)
        return {"before": counted_cost(self.before, shipment.inputs, size), "after": after}


def traced_network(shipment: Shipment, runtime: str) -> TracedNetwork:
    """The network with the head in its fastest form, smaller where that is asked for.

    Raises:
        InputError: it cannot be traced.
    """
    options = shipment.options
    made = _traced(shipment, runtime, drop=options.drop_unread)
    if options.cost:
        with shipment.whole(None) as network:
            made.before = _trace(shipment, network)
    return made


def _trace(shipment: Shipment, network: torch.nn.Module) -> torch.export.ExportedProgram:
    return trace(network, shipment.inputs, shipment.options.batch_size, shipment.most_tokens)


def _traced(shipment: Shipment, runtime: str, *, drop: bool) -> TracedNetwork:
    options, shipped = shipment.options, shipment.shipped
    drop = drop and len(shipped.read()) > 0
    form, about = choose_form(
        shipped,
        runtime,
        options.timed,
        opset=options.opset,
        form=options.form,
        drop=drop,
        measure=options.cost,
    )
    layer = head_layer(shipped, form, drop=drop)
    with shipment.whole(layer) as network:
        program = _trace(shipment, network)
    made = TracedNetwork(program, None, layer, {"head_form": about})
    if not drop:
        return made
    smaller, dropped = drop_unread(program)
    reason = _refusal(shipment, smaller, dropped)
    if reason is None:
        made.program = _trace(shipment, smaller)
        made.notes += _words(dropped)
    else:
        made = _traced(shipment, runtime, drop=False)
        made.notes.append(f"No channels were dropped: {reason}.")
    made.document["dropped"] = dropped.document()
    return made


def _refusal(shipment: Shipment, smaller: torch.fx.GraphModule, dropped: Dropped) -> str | None:
    """Why a smaller network is not taken."""
    if not dropped.layers and not dropped.positions:
        first = dropped.kept[0] if dropped.kept else None
        if first is None:
            return "every class reads what every layer gives"
        return f"at {first['at']}, {first['why']}"
    size = shipment.options.batch_size or BATCH
    whole = shipment.logits
    assert whole is not None
    found = _logits(smaller, shipment.inputs, size)
    far, largest = float((found - whole).abs().max()), float(whole.abs().max())
    if far <= SAME * largest:
        return None
    dropped.layers.clear()
    dropped.positions.clear()
    return f"the logits of the smaller network differ by {far:.2g}"


def _logits(module: torch.nn.Module, inputs: Mapping[str, Tensor], size: int) -> Tensor:
    n = len(next(iter(inputs.values())))
    found = []
    for start in range(0, n, size):
        rows = torch.arange(start, start + size).clamp(max=n - 1)
        part = {IMAGES if k == PIXELS else k: values[rows] for k, values in inputs.items()}
        found.append(run_graph(module, part))
    return torch.cat(found)[:n].float()


def _words(dropped: Dropped) -> list[str]:
    """Sentences on what was dropped and what was not."""
    said = [
        f"{one['layer']} has {one['after']:,} channels instead of {one['before']:,}."
        for one in dropped.layers
    ]
    if dropped.positions:
        one, more = dropped.positions[0], len(dropped.positions) - 1
        others = f" (and {more:,} others, named in export.json)" if more else ""
        whole = f"{one['before']:,}" if one["before"] is not None else "all"
        said.append(f"{one['layer']}{others}: computed at {one['after']:,} of {whole} positions.")
    seen = dict.fromkeys(
        f"{one['at']} keeps all of its channels: {one['why']}." for one in dropped.kept
    )
    reasons = list(seen)
    more = len(reasons) - REASONS_SHOWN
    said += reasons[:REASONS_SHOWN]
    if more > 0:
        said.append(f"So do {more:,} others, named in export.json.")
    return said


def before_file(folder: Path, name: str) -> Path:
    """Where the network as it was is written while it is compared; the export does not keep it."""
    return folder / f"before-{name}"
