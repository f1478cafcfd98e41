"""Maps: where in an image a feature finds what it stands for.

Where a network averages positions into its features, feature j of an image has an exact map: the
(h, w) values whose mean is z_j. Times the weight of a class and divided by h · w, they add up to
the feature's contribution. Whether a network does so, and with which tensor, is found by watching
all that its operators read while it runs. Elsewhere `penult.explain.attribution` estimates maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from penult.errors import InputError
from penult.explain.attribution import AttributedMaps
from penult.explain.wanted import Wanted, check_images, check_wanted
from penult.network.calling import kind_of, layer_named
from penult.network.head import Head
from penult.network.linear_maps import close, wide
from penult.network.tap import FeatureTap
from penult.network.watch import run_hooked

Grid = tuple[int, int]
Place = tuple[int, int]

N_LOOKED_AT = 4
VARIES = 1e-2


class Maps(Protocol):
    """Makes the maps of single features of single images.

    Attributes:
        kind: "mean" for exact maps, "attribution" for estimated ones.
        note: how the maps are made, one sentence for readers.
    """

    @property
    def kind(self) -> Literal["mean", "attribution"]:
        """Exact or estimated."""

    @property
    def note(self) -> str:
        """How the maps are made, one sentence for readers."""

    def __call__(self, inputs: Tensor, wanted: Wanted) -> tuple[Tensor, list[Tensor]]:
        """Features of all samples, and the maps of some features of each.

        Args:
            inputs: (n_samples, c, height, width), normalised, on the network's device.
            wanted: for each sample, the features whose maps are made; may be none.

        Returns:
            Features (n_samples, n_features) as the head read them, and per sample its maps
            (len(wanted[i]), h, w); all float32, on the CPU.
        """


@overload
def open_maps(
    model: nn.Module, head: Head, example: Tensor, *, attribution: Literal[True] = True
) -> Maps: ...


@overload
def open_maps(
    model: nn.Module, head: Head, example: Tensor, *, attribution: bool
) -> Maps | None: ...


def open_maps(
    model: nn.Module, head: Head, example: Tensor, *, attribution: bool = True
) -> Maps | None:
    """Maps of a network's features: exact ones where it pools by a mean, else attributed ones.

    The network runs once, on a few images of the example and as many of noise, so that images of
    one colour cannot make another pooling look like a mean. Of all tensors that its operators
    read, the last whose mean over more than one position is the features, each feature by itself,
    holds the maps; at least half of its features that are not zero must vary over positions.

    Args:
        model: the network; left as it is.
        head: what `find_head` found in it.
        example: (n_samples, c, height, width) inputs as the network takes them, normalised.
        attribution: whether to attribute where there are no exact maps.

    Returns:
        The maps, or None where there are no exact ones and attribution is not wanted.

    Raises:
        InputError: an example that is no batch of images or that the network does not run on;
            attribution where Captum is not installed or no gradient reaches the images.
    """
    check_images(example)
    images = example[:N_LOOKED_AT]
    noise = torch.randn(
        images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32
    )
    found = _search(model, head, torch.cat([images, noise.to(images)]))
    if found is not None and found.varies:
        return MeanMaps(model, head, found)
    return AttributedMaps(model, head, images[:1]) if attribution else None


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (n, h, w) as large as the picture they lie over: (n, *size), bilinear.

    The outermost values belong to the middles of the outermost cells, as in the picture's pixels.
    """
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


@dataclass(frozen=True, eq=False)
class Found:
    """A tensor of a network's run whose mean over positions is the features.

    Attributes:
        place: number of the operator that read it, counted from the run's start, and of the tensor
            among those that this operator read.
        axis: of the channels.
        positions: sizes of the other axes after the samples'.
        varies: whether most features vary over positions in one of the samples.
        size: height and width of the inputs it was found with.
        grid: (h, w) of the maps.
    """

    place: Place
    axis: int
    positions: tuple[int, ...]
    varies: bool
    size: tuple[int, ...]
    grid: Grid


class MeanMaps:
    """Exact maps: each one's mean over positions is the feature's value, checked at every call.

    Args:
        model: the network.
        head: its head.
        found: the tensor that holds the maps.
    """

    kind: Literal["mean"] = "mean"
    note = (
        "Each map is what the network itself averages: the mean over its cells is the feature's "
        "value."
    )

    def __init__(self, model: nn.Module, head: Head, found: Found) -> None:
        self._model, self._head, self._found = model, head, found

    def __call__(self, inputs: Tensor, wanted: Wanted) -> tuple[Tensor, list[Tensor]]:
        """Features and maps, see `Maps`; (h, w) is that of the pooled tensor.

        Raises:
            InputError: `wanted` does not fit the inputs or names features that there are not; the
                network computes the features otherwise on these inputs than on the example.
        """
        check_wanted(inputs, wanted, self._head.n_features)
        features, maps = self._read(inputs, wanted)
        if maps is None:
            # Which operators run may hang on the number of samples, and the grid on the size.
            found = _search(self._model, self._head, inputs)
            if found is None:
                raise InputError(
                    "the features were the means of maps on the example, and on these inputs "
                    f"({kind_of(inputs)}) they are the means of no tensor in the network: "
                    "open the maps with inputs like these"
                )
            self._found = found
            features, maps = self._read(inputs, wanted)
        if maps is None:
            raise InputError(
                "the network runs other operators each time, even on the same inputs, so no tensor "
                "of it can be found again: make it repeatable first"
            )
        return features.to("cpu", torch.float32), maps

    def _read(self, inputs: Tensor, wanted: Wanted) -> tuple[Tensor, list[Tensor] | None]:
        """Features, and the maps at the known place if they are there and fit."""
        found, n_features = self._found, self._head.n_features
        means: list[Averages] = []
        maps: list[Tensor] = []

        def see(place: Place, values: Tensor) -> None:
            if place == found.place and found.axis in channel_axes(values, len(inputs), n_features):
                rows = _rows(values, found.axis)
                means.append(Averages.of(rows))
                for own, features in zip(rows, wanted, strict=True):
                    chosen = own[torch.tensor(features, dtype=torch.long, device=own.device)]
                    maps.append(chosen.to("cpu", torch.float32))

        features, _ = _watched(self._model, self._head, inputs, see)
        same_size = tuple(inputs.shape[2:]) == found.size
        if not same_size or not means or not means[0].give(features):
            return features, None
        return features, [own.reshape(-1, *found.grid) for own in maps]


@dataclass(frozen=True, eq=False)
class Averages:
    """What is kept of a tensor (n_samples, n_features, n_positions) that could hold maps.

    Attributes:
        mean: (n_samples, n_features), over positions.
        scale: (n_features,), mean over positions of the absolute values, in the largest sample.
        spread: (n_features,), largest minus smallest value, in the sample where that is largest.
    """

    mean: Tensor
    scale: Tensor
    spread: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Averages:
        """Of rows (n_samples, n_features, n_positions)."""
        values = wide(rows)
        spread = (rows.amax(2) - rows.amin(2)).amax(0)
        return cls(values.mean(2), values.abs().mean(2).amax(0), spread)

    def give(self, features: Tensor) -> bool:
        """Whether the means are the features, each one up to rounding of its own map's scale."""
        if features.shape != self.mean.shape:
            return False
        # In the features' own dtype, from which `close` knows how coarsely they are rounded.
        scale = self.scale.to(features).clamp_min(torch.finfo(features.dtype).tiny)
        one = torch.ones((), device=scale.device)
        return close(self.mean / scale, features / scale, scale=one)

    def varies(self) -> bool:
        """Whether at least half of the features that are not zero vary over positions."""
        alive = self.scale > 0
        varying = alive & (self.spread > VARIES * self.scale)
        return bool(alive.any()) and 2 * int(varying.sum()) >= int(alive.sum())


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, shows every tensor that an operator reads, just before the operator runs.

    What operators read, and not what they give: a tensor that was filled piece by piece is whole
    only then, and one that is changed in place later is still what it was.
    """

    def __init__(self, see: Callable[[Place, Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n_operators = 0
        self._see = see

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import its compiler, which takes seconds, though nothing is compiled."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for i, tensor in enumerate(_tensors(chain(args, kwargs.values()))):
            self._see((self.n_operators, i), tensor)
        self.n_operators += 1
        return func(*args, **kwargs)


def _search(model: nn.Module, head: Head, inputs: Tensor) -> Found | None:
    """The last tensor that a network reads whose mean over positions is its features."""
    candidates: list[tuple[Place, int, tuple[int, ...], Averages]] = []

    def see(place: Place, values: Tensor) -> None:
        for axis in channel_axes(values, len(inputs), head.n_features):
            positions = (*values.shape[1:axis], *values.shape[axis + 1 :])
            candidates.append((place, axis, positions, Averages.of(_rows(values, axis))))

    features, end = _watched(model, head, inputs, see)
    size = tuple(inputs.shape[2:])
    fitting = [c for c in candidates if c[0][0] < end and c[3].give(features)]
    # Tokens that were a grid before lie in its order; of others only their number is known.
    known = [p for _, _, p, _ in fitting if len(p) == 2 and 1 not in p]
    for place, axis, positions, averages in reversed(fitting):
        n_positions = torch.Size(positions).numel()
        shapes = [p for p in (positions, *reversed(known)) if p in known]
        same = [p for p in shapes if torch.Size(p).numel() == n_positions]
        grid = same[0] if same else token_grid(n_positions, size)
        if grid is not None:
            h, w = grid
            return Found(place, axis, positions, averages.varies(), size, (h, w))
    return None


def _watched(
    model: nn.Module, head: Head, inputs: Tensor, see: Callable[[Place, Tensor], None]
) -> tuple[Tensor, int]:
    """Run a network: its features, and how many operators had run when its head had read them."""
    reads = _Reads(see)
    end = 0

    def note(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal end
        end = reads.n_operators

    with ExitStack() as stack:
        # Before the tap's own hook, whose operators are none of the network's.
        handle = layer_named(model, head.name).register_forward_hook(note)
        stack.callback(handle.remove)
        tap = stack.enter_context(FeatureTap(model, head))
        stack.enter_context(reads)
        # A copy, as some networks change their inputs, which may have to be run again.
        run_hooked(model, inputs.clone(), {})
    return tap.features, end


def channel_axes(values: Tensor, n_samples: int, n_features: int) -> list[int]:
    """Axes of a tensor that can be the features', with one or two axes of positions besides."""
    if values.ndim not in (3, 4) or len(values) != n_samples or not values.is_floating_point():
        return []
    if values.layout != torch.strided or values.numel() <= n_samples * n_features:
        return []
    return [axis for axis in range(1, values.ndim) if values.shape[axis] == n_features]


def token_grid(n_tokens: int, size: Sequence[int]) -> Grid | None:
    """Rows and columns of square patches whose number is `n_tokens`, in an image of a size.

    The image is cut into patches of one side; a rest at its edges is dropped everywhere or padded
    everywhere. None where no side gives that number.
    """
    height, width = size
    fitting = []
    for rows in (r for r in range(1, n_tokens + 1) if n_tokens % r == 0):
        columns = n_tokens // rows
        # Sides between these cut off as many patches: side · n ≤ length < side · (n + 1).
        dropped = max(height / (rows + 1), width / (columns + 1))
        whole = min(height / rows, width / columns)
        padded = max(height / rows, width / columns)
        fewer = min(height / max(rows - 1, 1e-9), width / max(columns - 1, 1e-9))
        if dropped < whole or padded < fewer:
            fitting.append((abs(height * columns - width * rows), (rows, columns)))
    return min(fitting)[1] if fitting else None


def _rows(values: Tensor, axis: int) -> Tensor:
    """Values with their features on `axis` as (n_samples, n_features, n_positions)."""
    return values.detach().movedim(axis, 1).flatten(2)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
