"""Quantised: an ONNX model with weights and activations of 8 bits, by the run's samples."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penult.errors import InputError
from penult.export.onnx_graph import EXTRA, save
from penult.export.shipment import Shipment
from penult.export.traced import quiet
from penult.extras import import_extra
from penult.text import one_line

CALIBRATION = 128  # samples of the analysed data


class _QuantisingSamples:
    """Samples one by one, as onnxruntime asks for them."""

    def __init__(self, samples: Iterator[dict[str, Any]]) -> None:
        self._samples = samples

    def get_next(self) -> dict[str, Any] | None:
        """The next sample; None after the last."""
        return next(self._samples, None)


def quantised(model: Any, shipment: Shipment, folder: Path) -> Any:
    """A model whose weights and activations are 8-bit integers, scaled by what samples show.

    onnxruntime's static quantisation: each channel of a weight has a scale of its own, and each
    activation one between the least and the greatest value on samples of the analysed data.

    Args:
        model: of ONNX, with 32-bit floats.
        shipment: what is exported.
        folder: for files that the quantisation reads and writes, which are removed.

    Raises:
        InputError: onnxruntime cannot quantise it.
    """
    onnx = import_extra("onnx", EXTRA)
    import_extra("onnxruntime", EXTRA)
    library = importlib.import_module("onnxruntime.quantization")
    size = shipment.options.batch_size or 1
    inputs = shipment.calibration
    n = len(next(iter(inputs.values()))) // size * size
    batches = (
        {name: values[at : at + size].numpy() for name, values in inputs.items()}
        for at in range(0, n, size)
    )
    source, target = folder / "float.onnx", folder / "int8.onnx"
    save(model, source)
    try:
        with quiet():
            library.quantize_static(
                source,
                target,
                _QuantisingSamples(batches),
                quant_format=library.QuantFormat.QDQ,
                per_channel=True,
            )
    except Exception as error:  # the library has several of its own
        raise InputError(
            f"onnxruntime cannot quantise this network ({one_line(str(error), 160)}): export it "
            "without --int8"
        ) from error
    return onnx.load(target)
