"""Trace: a network as a graph of torch's own operations, for batches of any size."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.export.shipped_network import IMAGES, PIXELS
from penult.text import one_line

NOISY = ("torch", "torch.onnx", "onnxscript", "onnx_ir")
EXAMPLES = 2  # a batch of one would be taken for a size that never changes


def trace(
    network: nn.Module,
    inputs: Mapping[str, Tensor],
    fixed: int | None = None,
    most_tokens: int | None = None,
) -> torch.export.ExportedProgram:
    """A network as a program of `torch.export`.

    Args:
        network: from inputs by name to logits.
        inputs: some samples, by the names of the export.
        fixed: the only batch size that the program takes; any where None.
        most_tokens: of a text.

    Raises:
        InputError: it cannot be traced; says which operation and what to do instead.
    """
    example = examples_of(inputs, fixed or EXAMPLES)
    named = {IMAGES if name == PIXELS else name: v for name, v in example.items()}
    shapes: dict[str, Any] | None = None
    if fixed is None:
        shapes = {name: _free_axes(name, most_tokens) for name in named}
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(network, (), named, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # whatever the network's own code or torch makes of it
        raise InputError(_refusal(error, fixed)) from error


def examples_of(inputs: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    """The first samples, again from the start where there are fewer."""
    n = len(next(iter(inputs.values())))
    rows = torch.arange(size) % n
    return {name: values[rows].contiguous() for name, values in inputs.items()}


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters say to their makers."""
    loggers = [logging.getLogger(name) for name in (None, *NOISY)]
    levels = [one.level for one in loggers]
    try:
        for one in loggers:
            one.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _free_axes(name: str, most_tokens: int | None) -> dict[int, Any]:
    free: dict[int, Any] = {0: torch.export.Dim("batch")}
    if name not in (IMAGES, PIXELS):
        free[1] = torch.export.Dim("tokens", max=most_tokens)
    return free


def _refusal(error: Exception, fixed: int | None) -> str:
    text = str(error)
    operation = re.search(r"\b(?:aten|torch|torchvision|prims)[.:]+\w+(?:\.\w+)?", text)
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    operation = None if operation and operation[0].startswith("torch.export") else operation
    where = f" at {operation[0]}" if operation else ""
    if fixed is None and ("specialized" in text or "Constraints violated" in text):
        return (
            f"the network's code fixes the batch size{where} ({one_line(first, 160)}): give the "
            "size that it is to take with --batch-size, or export the head alone (--format head)"
        )
    return (
        f"the network cannot be traced{where} ({one_line(first, 160)}): change that part of its "
        "code, or export the head alone (--format head), which any program can apply to the "
        "features"
    )
