"""What others take out of a network whose head reads only some features.

Torch-Pruning takes all channels that are coupled with an unread feature. The gradient says which
parameters no logit depends on: more than these nobody can drop without a change of the logits.
"""

from __future__ import annotations

import copy
import importlib
import io
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from penult.network.head import Head

LOOKS = 3  # batches of noise: what no logit of any of them depends on is taken for unneeded
MOST_SECONDS = 20  # that Torch-Pruning may take: it follows some graphs without end
FLAT_SOMEWHERE = {"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "hardswish", "hardsigmoid"}


@dataclass(frozen=True)
class TorchPruned:
    """A network that Torch-Pruning has made smaller.

    Attributes:
        gone: parameters that went, without the head's own; None where it stopped.
        difference: greatest of a logit, as a fraction of the largest; None where it does not run.
        error: why it stopped, or why the smaller network does not run.
    """

    gone: int | None
    difference: float | None
    error: str = ""


def torch_pruned(model: nn.Module, head: Head, read: list[int], images: Tensor) -> TorchPruned:
    """Take the unread features out of the head's inputs, and all that Torch-Pruning couples.

    Args:
        model: in evaluation mode, with zeros in its head where a class reads nothing; not changed.
        head: where its head is.
        read: the features that are read.
        images: (n_samples, 3, height, width).
    """
    pruning = importlib.import_module("torch_pruning")
    expected = _logits(model, images)
    model = copy.deepcopy(model)
    layer = model.get_submodule(head.name)
    unread = sorted(set(range(head.n_features)) - set(read))
    linear = isinstance(layer, nn.Linear)
    prune = pruning.prune_linear_in_channels if linear else pruning.prune_conv_in_channels
    before = n_parameters(model)
    try:
        with _quickly(), torch.enable_grad():
            graph = pruning.DependencyGraph().build_dependency(
                model, example_inputs=images, output_transform=_tensor
            )
            graph.get_pruning_group(layer, prune, idxs=unread).prune()
    except Exception as error:  # of any kind: it runs the network's own code
        return TorchPruned(None, None, _line(error))
    gone = before - n_parameters(model) - head.n_classes * len(unread)
    try:
        found = _logits(model, images)
    except Exception as error:
        return TorchPruned(gone, None, _line(error))
    return TorchPruned(gone, float((found - expected).abs().max() / expected.abs().max()))


@contextmanager
def _quickly() -> Iterator[None]:
    """Within `MOST_SECONDS`, and without a word."""

    def stop(*signals: object) -> None:
        raise TimeoutError(f"it takes more than {MOST_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(MOST_SECONDS)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class _NowhereFlat(TorchFunctionMode):
    """Activations that are flat somewhere replaced by one that is not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in FLAT_SOMEWHERE:
            return args[0] + torch.tanh(args[0])
        return func(*args, **(kwargs or {}))


def n_unneeded(model: nn.Module, head: str, size: tuple[int, ...]) -> int:
    """Parameters below the head of which no logit depends, whatever the image.

    A number of a filter counts where none at its positions is needed: beyond a small map's edge
    there is nothing to read.

    Args:
        model: with zeros in its head where a class reads nothing.
        head: the name of a layer whose own parameters are not counted.
        size: of some images.
    """
    own = set(model.get_submodule(head).parameters())
    needed: dict[nn.Parameter, Tensor] = {}
    for _ in range(LOOKS):
        for p in model.parameters():
            p.requires_grad_(True).grad = None
        with torch.enable_grad(), _NowhereFlat():
            found = _tensor(model(torch.randn(size)))
            loss = (found * torch.randn_like(found)).sum()
            # Some networks keep what they have computed from their parameters for the next call.
            loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
        for p in model.parameters():
            if p.grad is not None and p not in own:
                moved = p.grad != 0
                if p.ndim > 2:
                    moved = moved.flatten(2).any(2).view(*p.shape[:2], *[1] * (p.ndim - 2))
                needed[p] = needed.get(p, torch.zeros_like(p, dtype=torch.bool)) | moved
    return sum(int((~seen).sum()) for seen in needed.values())


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return _tensor(model(images))


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _tensor(output: Any) -> Tensor:
    """What a network of Hugging Face gives is no tensor."""
    logits: Tensor = getattr(output, "logits", output)
    return logits


def _line(error: Exception) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:90]
