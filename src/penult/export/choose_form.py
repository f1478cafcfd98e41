"""Choice of a form: the fastest for a head's sizes in a runtime, and never slower than dense."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.export.head_forms import DENSE, EXPLAINED, HeadLayer, forms_of, head_layer
from penult.export.onnx_graph import EXTRA, onnx_of, session_of
from penult.export.shipped_head import ShippedHead
from penult.export.timing import summary, take_turns
from penult.export.traced import quiet
from penult.extras import import_extra

SLOWER = 1.05  # times the dense form's seconds: within what timings differ by
Form = Callable[[Tensor], object]


def check_form(name: str | None) -> None:
    """Refuse what is no form."""
    if name is not None and name not in EXPLAINED:
        raise InputError(f"--form: expected one of {', '.join(EXPLAINED)}, found {name!r}")


def choose_form(
    shipped: ShippedHead,
    runtime: str,
    batch_sizes: tuple[int, ...],
    *,
    opset: int,
    form: str | None = None,
    drop: bool = False,
    measure: bool = True,
) -> tuple[str, dict[str, Any]]:
    """The form that a head is exported in, and what was measured.

    Args:
        shipped: the head.
        runtime: "onnxruntime" or "torch".
        batch_sizes: at which no form may be slower than the dense one.
        opset: of ONNX.
        form: one to take whatever is measured.
        measure: measure it even so, beside the dense form.
        drop: see `head_layer`.

    Raises:
        InputError: a form that this head cannot have.
    """
    known = forms_of(shipped, drop=drop)
    if form is not None:
        if form not in known:
            raise InputError(
                f"--form {form}: this head can be computed as {', '.join(known)} (its classes read "
                "too many features for another)"
            )
        if not measure:
            return form, {"form": form, "chosen": "as asked"}
        known = list(dict.fromkeys((DENSE, form)))
    elif len(known) == 1 and not measure:
        return DENSE, {"form": DENSE, "chosen": "no other form has fewer products"}
    layers = {name: head_layer(shipped, name, drop=drop) for name in known}
    runs = _in_onnxruntime(layers, opset) if runtime == "onnxruntime" else _in_torch(layers)
    rows: list[dict[str, Any]] = []
    generator = torch.Generator().manual_seed(0)
    for size in batch_sizes:
        z = torch.randn(size, shipped.head.n_features, generator=generator)
        seconds = take_turns({name: _bound(run, z) for name, run in runs.items()})
        forms = {name: summary(times) for name, times in seconds.items()}
        rows.append({"batch_size": size, "forms": forms})
    best = form or fastest([{n: f["median"] for n, f in row["forms"].items()} for row in rows])
    said = "the fastest of those that are nowhere slower than the dense form"
    if form is not None:
        said = "as asked"
    elif len(known) == 1:
        said = "no other form has fewer products"
    return best, {"form": best, "chosen": said, "runtime": runtime, "measured": rows}


def fastest(rows: list[dict[str, float]]) -> str:
    """The form with the least seconds over all batch sizes, of those nowhere slower than dense.

    Args:
        rows: seconds by form, one row for each batch size.
    """
    allowed = {
        name: sum(math.log(row[name] / row[DENSE]) for row in rows)
        for name in rows[0]
        if all(row[name] <= SLOWER * row[DENSE] for row in rows)
    }
    best = min(allowed, key=allowed.__getitem__)
    # What is no faster than the dense form on the whole has nothing to say for itself.
    return best if allowed[best] < len(rows) * math.log(1 / SLOWER) else DENSE


def _bound(run: Form, z: Tensor) -> Callable[[], object]:
    return lambda: run(z)


def _in_torch(layers: Mapping[str, HeadLayer]) -> dict[str, Form]:
    def bound(layer: HeadLayer) -> Form:
        def run(z: Tensor) -> object:
            with torch.no_grad():
                return layer(z)

        return run

    return {name: bound(layer) for name, layer in layers.items()}


def _in_onnxruntime(layers: Mapping[str, HeadLayer], opset: int) -> dict[str, Form]:
    # Written once and then taken apart: the exporter reads all that it knows anew each time.
    onnx = import_extra("onnx", EXTRA)
    together = _Forms(layers)
    with quiet(), torch.no_grad():
        program = torch.export.export(
            together,
            (torch.zeros(2, next(iter(layers.values())).n_features),),
            dynamic_shapes={"z": {0: torch.export.Dim("batch")}},
        )
    extractor = onnx.utils.Extractor(onnx_of(program, ["features"], opset, list(layers)))

    def bound(name: str) -> Form:
        session = session_of(extractor.extract_model(["features"], [name]).SerializeToString())
        return lambda z: session.run(None, {"features": z.numpy()})

    return {name: bound(name) for name in layers}


class _Forms(nn.Module):
    """The logits of several forms."""

    def __init__(self, layers: Mapping[str, HeadLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers.values())

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """One tensor (n_samples, n_classes) for each form."""
        return tuple(layer(z) for layer in self.layers)
