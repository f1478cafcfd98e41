"""Distillation: the loss of a sparse head against the dense one, over samples that are streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from penult.errors import InputError
from penult.heads.subspaces import Subspaces

Blocks = Iterable[Iterable[Tensor]]
Gradient = Callable[[Tensor], Tensor]
MEMORY_LIMIT = 2 << 30


@dataclass(frozen=True, eq=False)
class Tile:
    """Some samples, one per column.

    Attributes:
        features: (n_features, n).
        targets: probabilities (n_classes, n), or None where they are not kept.
        labels: (n,) int64.
    """

    features: Tensor
    targets: Tensor | None
    labels: Tensor

    def n_bytes(self) -> int:
        """Memory of the features and the targets that are kept."""
        kept = 0 if self.targets is None else self.targets.numel()
        return 4 * (self.features.numel() + kept)


class Support:
    """Subspaces as the linear maps that fit one uses: logits and their gradient.

    Few features per class are summed row by row of zᵀ; many are cheaper as a dense product with
    zeros. Both give the same numbers.
    """

    # Multiplications that a dense product does in the time of one in a sum over few rows.
    DENSE_ADVANTAGE = 6
    # Weights up to which calls, not multiplications, take the time.
    DENSE_BELOW = 4096

    def __init__(self, subspaces: Subspaces, device: torch.device) -> None:
        self.subspaces = subspaces
        self.device = device
        self.indptr = subspaces.indptr.to(device)
        self.indices = subspaces.indices.to(device)
        self.classes = subspaces.classes().to(device)
        self.shape = (subspaces.n_classes, subspaces.n_features)
        n_weights = self.shape[0] * self.shape[1]
        self.dense = n_weights <= max(self.DENSE_BELOW, self.DENSE_ADVANTAGE * subspaces.nnz)

    def matrix(self, values: Tensor) -> Tensor:
        """The values as a dense (n_classes, n_features) weight."""
        weight = values.new_zeros(self.shape)
        weight[self.classes, self.indices] = values
        return weight

    def logits(self, features: Tensor, values: Tensor) -> Tensor:
        """Logits without bias (n_classes, n) of features (n_features, n)."""
        if self.dense:
            return self.matrix(values) @ features
        return F.embedding_bag(
            self.indices,
            features,
            self.indptr,
            mode="sum",
            per_sample_weights=values,
            include_last_offset=True,
        )

    def forward(self, features: Tensor, values: Tensor) -> tuple[Tensor, Gradient]:
        """Logits without bias, and how errors of them (n_classes, n) become errors of the values.

        The gradient of a kept pair is Σ over samples of error × feature.
        """
        if self.dense:
            weight = self.matrix(values)
            return weight @ features, lambda e: (e @ features.T)[self.classes, self.indices]
        leaf = values.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.logits(features, leaf)
        return logits.detach(), lambda errors: torch.autograd.grad(logits, leaf, errors)[0]


class Distillation:
    """The loss that `refit_softmax` minimises: T² · mean KL(dense ‖ sparse), a convex function.

    Probabilities of both heads are softened by the temperature T. With `labels`, the target is the
    label instead of the dense head's probabilities, and the loss is the cross-entropy.

    The samples are read once at the start. Features and targets stay in memory, transposed, where
    they fit in `memory_limit`. Otherwise the features alone, where these fit, or nothing, and every
    evaluation reads the blocks again. It then does without the targets, whose part of the loss is
    linear and is summed up once for each support: a sparse head's own logits cost far less than the
    dense ones.

    Args:
        blocks: iterable several times; gives features (n, n_features) and labels (n,) int64.
        weight: (n_classes, n_features) of the dense head.
        bias: (n_classes,) of the dense head.
        temperature: > 0.
        labels: fit the labels.
        memory_limit: bytes.

    Attributes:
        n_samples: number of samples.
        mean: (n_features,) float64.
        std: (n_features,) float64; 1 for a constant feature.
        constant: (n_features,) bool.
        class_mass: (n_classes,) float64, mean target probability of each class.
        target_entropy: mean entropy of the targets in nats.
        keeps_targets: whether the targets are in memory.

    Raises:
        InputError: sizes that do not fit, NaN, blocks that can be read only once, no samples.
    """

    def __init__(
        self,
        blocks: Blocks,
        weight: Tensor,
        bias: Tensor,
        *,
        temperature: float = 1.0,
        labels: bool = False,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        check_dense_head(weight, bias)
        check_temperature(temperature)
        if isinstance(blocks, Iterator):
            raise InputError(
                "the blocks of features can be read only once: give a list of (features, labels) "
                "pairs, or an object that can be iterated again"
            )
        self.weight = weight.detach().float()
        self.bias = bias.detach().float()
        self.temperature = temperature
        self.labels = labels
        self._blocks = blocks
        self._cache: list[Tile] | None = None
        self._memory_limit = memory_limit
        self._survey()

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.weight.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.weight.shape[1]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(n_samples, n_features, n_classes)."""
        return self.n_samples, self.n_features, self.n_classes

    def _survey(self) -> None:
        """Read the samples once: count, mean, deviation, class mass, entropy; keep what fits."""
        kept: list[Tile] | None = []
        n, held, with_targets = 0, 0, True
        origin = sums = squares = mass = entropy = torch.zeros(())
        for read in self._read():
            z, targets = read.features.double(), self.targets(read)
            if n == 0:
                origin = z.mean(1)
                sums, squares = torch.zeros_like(origin), torch.zeros_like(origin)
                mass = torch.zeros(self.n_classes, dtype=torch.float64, device=z.device)
                entropy = torch.zeros((), dtype=torch.float64, device=z.device)
            z -= origin[:, None]
            sums += z.sum(1)
            squares += z.square().sum(1)
            mass += targets.sum(1, dtype=torch.float64)
            entropy += torch.special.entr(targets).sum(0).sum(dtype=torch.float64)
            n += z.shape[1]
            if kept is None:
                continue
            tile = replace(read, targets=targets) if with_targets else read
            kept.append(tile)
            held += tile.n_bytes()
            if with_targets and held > self._memory_limit:
                with_targets = False
                kept = [replace(tile, targets=None) for tile in kept]
                held = sum(tile.n_bytes() for tile in kept)
            if held > self._memory_limit:
                kept = None
        if n == 0:
            raise InputError("there are no samples to fit the head to")
        variance = squares / n - (sums / n) ** 2
        self.n_samples = n
        self.mean = origin + sums / n
        # Features are float32: a spread below its last bits is noise.
        self.constant = variance <= (1e-6 * self.mean) ** 2
        self.std = torch.where(self.constant, 1.0, variance.clamp(min=0).sqrt())
        self.class_mass = mass / n
        # The loss, per T², below which no head can come.
        self.target_entropy = float(entropy) / n
        self.keeps_targets = with_targets and kept is not None
        self._cache = kept

    def _read(self) -> Iterator[Tile]:
        size = 2**20 // max(self.n_classes, self.n_features, 1)
        size = min(max(size, 256), 8192)
        device = self.weight.device
        for features, labels in self._blocks:
            if features.ndim != 2 or features.shape[1] != self.n_features:
                raise InputError(
                    f"expected features of shape (n_samples, {self.n_features}) for this head, "
                    f"found {tuple(features.shape)}"
                )
            if labels.shape != features.shape[:1]:
                raise InputError(
                    f"expected labels of shape ({len(features)},) for these features, "
                    f"found {tuple(labels.shape)}"
                )
            for start in range(0, len(features), size):
                z = features[start : start + size].to(device, torch.float32).T.contiguous()
                if not bool(z.isfinite().all()):
                    raise InputError("the features hold NaN or infinite values")
                yield Tile(z, None, labels[start : start + size].to(device))

    def targets(self, tile: Tile) -> Tensor:
        """Target probabilities of a tile (n_classes, n), kept or not."""
        if tile.targets is not None:
            return tile.targets
        if not self.labels:
            return self.dense_logits(tile.features).div_(self.temperature).softmax(0)
        if int(tile.labels.min()) < 0 or int(tile.labels.max()) >= self.n_classes:
            raise InputError(
                f"labels must lie in [0, {self.n_classes}) to be fitted, "
                f"found {int(tile.labels.min())} … {int(tile.labels.max())}"
            )
        shape = self.n_classes, tile.features.shape[1]
        targets = torch.zeros(shape, device=tile.features.device)
        return targets.scatter_(0, tile.labels[None], 1.0)

    def tiles(self) -> Iterator[Tile]:
        """The samples, from memory or read again."""
        return self._read() if self._cache is None else iter(self._cache)

    def strided(self, stride: int) -> Iterator[Tile]:
        """Every `stride`-th sample."""
        part = slice(None, None, stride)
        for tile in self.tiles():
            if stride == 1:
                yield tile
            else:
                targets = None if tile.targets is None else tile.targets[:, part].contiguous()
                yield Tile(tile.features[:, part].contiguous(), targets, tile.labels[part])

    def every(self, stride: int) -> Distillation:
        """The same loss over every `stride`-th sample, in memory with its targets."""
        part = copy(self)
        part.__dict__.pop("sample", None)
        tiles = (replace(tile, targets=self.targets(tile)) for tile in self.strided(stride))
        part._cache, part.keeps_targets = list(tiles), True
        part.n_samples = sum(tile.features.shape[1] for tile in part._cache)
        entropy = sum(
            float(torch.special.entr(self.targets(tile)).sum(0).sum(dtype=torch.float64))
            for tile in part._cache
        )
        part.target_entropy = entropy / part.n_samples
        return part

    @cached_property
    def sample(self) -> Distillation:
        """The same loss over an eighth of the samples, or as many as fit into the memory limit."""
        size = 4 * self.n_samples * (self.n_classes + self.n_features)
        return self.every(max(8, -(-size // self._memory_limit)))

    def matched(self, support: Support) -> tuple[Tensor, Tensor]:
        """Σ target × feature of every kept pair, and Σ target of every class, float64.

        The part of the loss that is linear in values and bias. Only where targets are not kept:
        the difference of two large sums has fewer exact digits than the sum of differences.
        """
        by_value = torch.zeros(support.subspaces.nnz, dtype=torch.float64, device=support.device)
        none = torch.zeros(support.subspaces.nnz, device=support.device)
        for tile in self.tiles():
            by_value += support.forward(tile.features, none)[1](self.targets(tile))
        return by_value, self.class_mass * self.n_samples

    def evaluate(
        self,
        support: Support,
        values: Tensor,
        bias: Tensor,
        matched: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[float, Tensor, Tensor]:
        """Loss and its gradients by values (nnz,) and bias (n_classes,), in float64.

        Args:
            support: of the head.
            values: (nnz,).
            bias: (n_classes,).
            matched: `self.matched(support)`; else every tile's targets are taken.
        """
        loss = 0.0
        by_value = torch.zeros(len(values), dtype=torch.float64, device=values.device)
        by_bias = torch.zeros(len(bias), dtype=torch.float64, device=bias.device)
        low, low_bias = values.float(), bias.float()[:, None] / self.temperature
        low = low / self.temperature
        for tile in self.tiles():
            logits, gradient = support.forward(tile.features, low)
            logits += low_bias
            largest = logits.amax(0)
            logits -= largest
            if matched is None:
                targets = self.targets(tile)
                loss -= float((logits * targets).sum(0).sum(dtype=torch.float64))
            else:
                loss += float(largest.sum(dtype=torch.float64))
            errors = logits.exp_()
            total = errors.sum(0)
            loss += float(total.log().sum(dtype=torch.float64))
            errors /= total
            if matched is None:
                errors -= targets
            by_value += gradient(errors)
            by_bias += errors.sum(1)
        if matched is not None:
            by_value -= matched[0]
            by_bias -= matched[1]
            loss -= float(low.double() @ matched[0] + low_bias[:, 0].double() @ matched[1])
        scale = self.temperature / self.n_samples
        loss = self.temperature**2 * (loss / self.n_samples - self.target_entropy)
        return loss, by_value * scale, by_bias * scale

    def midway(
        self, support: Support, values: Tensor, bias: Tensor, tile: Tile, temperature: float
    ) -> Tensor:
        """Mean of a sparse head's probabilities and the targets, (n_classes, n) float64.

        At a temperature that is not the loss's own, the targets are the dense head's.
        """
        own = support.logits(tile.features, values.float()).double() + bias.double()[:, None]
        if temperature == self.temperature:
            targets = self.targets(tile)
        else:
            targets = self.dense_logits(tile.features).div_(temperature).softmax(0)
        return own.div_(temperature).softmax(0).add_(targets).div_(2)

    def dense_logits(self, features: Tensor) -> Tensor:
        """Logits of the dense head (n_classes, n) for features (n_features, n)."""
        return torch.addmm(self.bias[:, None], self.weight, features)

    def standardised(self, tile: Tile) -> Tensor:
        """Features of a tile less their mean, in units of their deviation, (n_features, n)."""
        return (tile.features - self.mean.float()[:, None]) / self.std.float()[:, None]


def check_dense_head(weight: Tensor, bias: Tensor) -> None:
    """Refuse a dense head whose shapes do not fit or that holds NaN or infinite values."""
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise InputError(
            "expected a weight of shape (n_classes, n_features) and a bias of shape (n_classes,), "
            f"found {tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    if not (bool(weight.isfinite().all()) and bool(bias.isfinite().all())):
        raise InputError("the dense head's weight or bias holds NaN or infinite values")


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not a number above 0."""
    if not 0 < temperature < float("inf"):
        raise InputError(f"the temperature must be a number above 0, found {temperature}")
