"""Trace: a network as a graph of torch's own operations, for batches of any size."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.export.shipped_network import IMAGES, PIXELS
from penult.text import one_line

# Folders of code that traces, or is put around the network; what is in no file counts as theirs.
TRACERS = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
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
    before = logging.root.manager.disable
    try:
        logging.disable(logging.CRITICAL)
        with warnings.catch_warnings(), redirect_stderr(_OfOthers(sys.stderr)):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _OfOthers:
    """A stream without what this thread prints; progress is told by another one."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._own = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Write text of other threads."""
        if threading.get_ident() == self._own:
            return len(text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _free_axes(name: str, most_tokens: int | None) -> dict[int, Any]:
    free: dict[int, Any] = {0: torch.export.Dim("batch")}
    if name not in (IMAGES, PIXELS):
        free[1] = torch.export.Dim("tokens", max=most_tokens)
    return free


def _refusal(error: Exception, fixed: int | None) -> str:
    text = str(error)
    where = _where(error)
    if fixed is None and ("specialized" in text or "Constraints violated" in text):
        return (
            f"the network's code fixes the batch size{where}: give the size that it is to take "
            "with --batch-size, or export the head alone (--format head)"
        )
    if "data-dependent" in text:
        return (
            f"the network cannot be traced{where}: what its code does there depends on values that "
            "are not known before it runs; write it with torch.where or torch.cond, or export the "
            "head alone (--format head), which any program can apply to the features"
        )
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return (
        f"the network cannot be traced{where} ({one_line(first, 160)}): change that part of its "
        "code, or export the head alone (--format head), which any program can apply to the "
        "features"
    )


def _where(error: Exception) -> str:
    """The innermost line of the network's own code, or of its library's, at which tracing ended."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(TRACERS)]
    if not own:
        return ""
    code = f" ({one_line(own[-1].line, 80)})" if own[-1].line else ""
    return f" at {Path(own[-1].filename).name}, line {own[-1].lineno}{code}"
