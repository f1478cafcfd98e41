"""Attributed maps: estimates of what a feature looks at where the network has no exact map.

The method is integrated gradients (M. Sundararajan, A. Taly, Q. Yan, *Axiomatic attribution for
deep networks*, ICML 2017), from Captum. Of the methods that need nothing but gradients, it is one
whose maps add up: to the feature's value less that for the baseline, as exact maps add up to the
value. Methods with a rule for each kind of layer would have to know all layers of the network.
"""

from __future__ import annotations

import importlib
from typing import Literal

import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.explain.gradients import differentiable
from penult.explain.wanted import Wanted, check_wanted
from penult.extras import import_extra
from penult.network.head import Head
from penult.network.linear_maps import wide
from penult.network.onnx_file import OnnxNetwork
from penult.network.tap import FeatureTap
from penult.network.watch import run_hooked
from penult.plotting import import_matplotlib
from penult.text import described as one_line

N_CELLS = 7
N_STEPS = 16
BATCH_PIXELS = 400_000
MAX_BATCH = 64


class AttributedMaps:
    """Maps that attribute a feature's value to the cells of the image by integrated gradients.

    The path runs in `N_STEPS` steps from an image of zeros, which is one of the mean colour where
    the transform normalises by the mean. Pixels are summed over channels and over the cells of a
    grid, at most `N_CELLS` × `N_CELLS`, each fading into the next: on ResNet-20 for CIFAR-10, where
    exact maps are there to compare with, so coarse a map correlates with them at 0.49, the pixels
    themselves, gathered in 14 × 14 cells, at 0.10.

    A map's mean over its cells is about z_j(image) − z_j(zeros); of trained networks, the more
    closely the smoother they are (on that ResNet-20 to 4 % in the median).

    Args:
        model: the network; left as it is.
        head: its head.
        example: (n_samples, c, height, width) images to try whether gradients reach them.

    Raises:
        InputError: Captum is not installed, or no gradient reaches the images.
    """

    kind: Literal["attribution"] = "attribution"
    note = (
        "Each map is an estimate by integrated gradients (Captum): the mean over its cells is about"
        " the feature's value less its value for a blank image."
    )

    def __init__(self, model: nn.Module, head: Head, example: Tensor) -> None:
        if any(isinstance(module, OnnxNetwork) for module in model.modules()):
            raise InputError(
                "onnxruntime computes the features of an ONNX file, and no gradient goes through "
                "it; a run of the network that the file was made from has heat maps"
            )
        import_matplotlib()  # which Captum imports
        import_extra("captum", "attribution")
        self._method = importlib.import_module("captum.attr").IntegratedGradients
        self._model, self._head = model, head
        self._require_gradient(example[:1])

    def __call__(self, inputs: Tensor, wanted: Wanted) -> tuple[Tensor, list[Tensor]]:
        """Features and maps, see `penult.explain.maps.Maps`.

        Takes `N_STEPS` runs forward and back for each wanted map, in batches of bounded size.

        Raises:
            InputError: `wanted` does not fit the inputs or names features that there are not; a
                gradient is NaN or infinite.
        """
        check_wanted(inputs, wanted, self._head.n_features)
        with FeatureTap(self._model, self._head) as tap:
            run_hooked(self._model, inputs.clone(), {})
            features = tap.features.to("cpu", torch.float32)
        height, width = inputs.shape[2:]
        size = max(1, min(MAX_BATCH, BATCH_PIXELS // (height * width)))
        pairs = [(i, j) for i, own in enumerate(wanted) for j in own]
        parts = [
            self._attributed(inputs, pairs[start : start + size], size)
            for start in range(0, len(pairs), size)
        ]
        maps = (
            torch.cat(parts)
            if parts
            else torch.zeros(0, *cells(height, width), dtype=torch.float32)
        )
        return features, list(torch.split(maps, [len(own) for own in wanted]))

    def _attributed(self, inputs: Tensor, pairs: list[tuple[int, int]], size: int) -> Tensor:
        """Maps (len(pairs), h, w) of features of samples, `size` runs of the network at a time."""
        samples, features = zip(*pairs, strict=True)
        with differentiable(self._model, self._head) as forward:
            # A copy made here is no inference tensor even where the caller's is one.
            images = inputs.detach()[list(samples)].clone()
            given: Tensor = self._method(forward).attribute(
                images,
                baselines=0.0,
                target=torch.tensor(features, device=inputs.device),
                n_steps=N_STEPS,
                internal_batch_size=size,
            )
        maps = cell_sums(wide(given.detach()).sum(1))
        if not bool(maps.isfinite().all()):
            broken = features[int((~maps.isfinite()).flatten(1).any(1).nonzero()[0])]
            raise InputError(
                f"the gradient of feature {broken} by the image is NaN or infinite, so its value "
                "cannot be attributed: leave the maps out"
            )
        return maps.to("cpu", torch.float32)

    def _require_gradient(self, images: Tensor) -> None:
        try:
            with differentiable(self._model, self._head) as forward:
                x = images.detach().clone().requires_grad_()
                total = forward(x).sum()
                found = torch.autograd.grad(total, x, allow_unused=True) if total.grad_fn else ()
        except RuntimeError as error:
            raise InputError(
                f"the features cannot be attributed to the images: {one_line(error)}"
            ) from error
        if not any(isinstance(gradient, Tensor) for gradient in found):
            raise InputError(
                "the features cannot be attributed to the images, as no gradient reaches them, "
                "which is so where a network runs under no_grad or rounds its values"
            )


def cells(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the grid that an image is cut into: nearly square cells, few enough."""
    side = max(height, width, N_CELLS) / N_CELLS
    return max(1, round(height / side)), max(1, round(width / side))


def cell_sums(pixels: Tensor) -> Tensor:
    """Pixels (n, height, width) gathered in cells (n, h, w), scaled so that their mean is the sum.

    Cells are equally large and fade into their neighbours, so that the noise of single pixels
    averages out; each pixel is shared out whole.
    """
    height, width = pixels.shape[1:]
    h, w = cells(height, width)
    gathered = _shares(height, h).to(pixels) @ pixels @ _shares(width, w).to(pixels).T
    return gathered * (h * w)


def _shares(n_pixels: int, n_cells: int) -> Tensor:
    """(n_cells, n_pixels): the part of each pixel that each cell gets; columns sum to 1."""
    left = torch.arange(n_pixels, dtype=torch.float64)
    edges = torch.arange(n_cells + 1, dtype=torch.float64)[:, None] * n_pixels / n_cells
    inside = torch.minimum(left + 1, edges[1:]) - torch.maximum(left, edges[:-1])
    own = inside.clamp_min(0)
    # What would fade out of the image stays in its outermost cells.
    before, after = torch.cat([own[:1], own[:-1]]), torch.cat([own[1:], own[-1:]])
    return (before + 2 * own + after) / 4
