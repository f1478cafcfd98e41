"""Samples: what heads are fitted to, read once, standardised, and kept in memory where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from penult.errors import InputError
from penult.heads.survey import SampleSurvey
from penult.network.link import SIGMOID, SOFTMAX, check_link, probabilities

Blocks = Iterable[Iterable[Tensor]]
Sums = tuple[Tensor, ...]
MEMORY_LIMIT = 2 << 30
# What is chosen and fitted first reads this many samples, or so many logits if these are more.
FEW_SAMPLES, FEW_LOGITS = 8192, 1_250_000
# Beyond this no probability is left to be told from 0 or 1, and sums of squares overflow.
LARGEST_LOGIT = 1e12


@dataclass(frozen=True, eq=False)
class Tile:
    """Some samples, one per column.

    Attributes:
        features: (n_features, n).
        targets: probabilities (n_classes, n), or None where they are not kept.
        labels: (n,) int64, or (n, n_classes) bool.
    """

    features: Tensor
    targets: Tensor | None
    labels: Tensor

    def n_bytes(self) -> int:
        """Memory of the features and the targets that are kept."""
        kept = 0 if self.targets is None else self.targets.numel()
        return 4 * (self.features.numel() + kept)

    def at(self, columns: Tensor) -> Tile:
        """Some of the samples."""
        targets = None if self.targets is None else self.targets[:, columns].contiguous()
        return Tile(self.features[:, columns].contiguous(), targets, self.labels[columns])


@dataclass(frozen=True, eq=False)
class Standardised:
    """Samples in the coordinates in which heads are chosen.

    Attributes:
        x: (n_features + 1, n_samples), features less their mean in units of their deviation; the
            last row is constant, 1.
        weight: (n_classes, n_features + 1) float64, the dense head's in these coordinates; with
            softmax less the mean over the classes, since it ignores what is common to all.
        link: what the logits mean.
    """

    x: Tensor
    weight: Tensor
    link: str = SOFTMAX
    _totals: dict[float, Tensor] = field(default_factory=dict, repr=False)

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return self.x.shape[1]

    @cached_property
    def logits(self) -> Tensor:
        """The dense head's centred logits, (n_classes, n_samples)."""
        return self.weight.float() @ self.x

    def log_total(self, temperature: float) -> Tensor:
        """Logarithm of Σ exp(logit / temperature) over the classes, (n_samples,)."""
        if temperature in self._totals:
            return self._totals[temperature]
        total = self.x.new_full((self.n_samples,), -torch.inf)
        for part in torch.split(self.weight.float(), max(1, 2**24 // self.n_samples)):
            logits = (part @ self.x).div_(temperature)
            total = torch.logaddexp(total, logits.logsumexp(0))
        self._totals[temperature] = total
        return total

    @cached_property
    def second_moments(self) -> Tensor:
        """Mean of x xᵀ, (n_features + 1, n_features + 1) float64, as far as the samples show it.

        Features that are alike in a few samples may be alike by chance: their covariances are
        drawn towards 0 by the part of them that is chance, on average (Schäfer and Strimmer 2005,
        equation 10). With many samples the part is nearly 0.
        """
        found = (self.x @ self.x.T).double() / self.n_samples
        inner = found[:-1, :-1]
        squares = self.x[:-1].double().square()
        own = squares.square().sum(1) / self.n_samples - inner.diagonal().square()
        chance = squares.sum(0).square().mean() - inner.square().sum() - own.sum()
        apart = inner.square().sum() - inner.diagonal().square().sum()
        part = chance / max(1, self.n_samples - 1) / apart.clamp(min=1e-300)
        shrunk = inner * (1 - part.clamp(0, 1))
        shrunk.diagonal().copy_(inner.diagonal())
        found[:-1, :-1] = shrunk
        return found

    @cached_property
    def main_directions(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (n_features,) of the features' second moments, the largest last, and
        eigenvectors (n_features, n_features), one per column.
        """
        values, vectors = torch.linalg.eigh(self.second_moments[:-1, :-1])
        return values, vectors


class Samples:
    """Features that are streamed, and the probabilities that heads are fitted to.

    The samples are read once at the start. Features and targets stay in memory, transposed, where
    they fit in `memory_limit`. Otherwise the features alone, where these fit, or nothing, and every
    pass reads the blocks again.

    Args:
        blocks: iterable several times; gives features (n, n_features) and labels (n,) int64.
        weight: (n_classes, n_features) of the dense head.
        bias: (n_classes,) of the dense head.
        temperature: > 0; softens the targets.
        labels: the targets are the labels instead of the dense head's probabilities.
        link: what the logits mean, see `penult.network.link`.
        memory_limit: bytes.
        survey: of the samples, where they have been read already; then none are kept in memory.

    Attributes:
        n_samples: number of samples.
        survey: what the first reading found.
        mean: (n_features,) float64.
        std: (n_features,) float64; 1 for a constant feature.
        constant: (n_features,) bool.
        class_mass: (n_classes,) float64, mean target probability of each class.
        target_entropy: mean entropy of the targets in nats.
        keeps_targets: whether the targets are in memory.

    Raises:
        InputError: sizes that do not fit, NaN, blocks that can be read only once, no samples,
            features or logits beyond the range of float32.
    """

    def __init__(
        self,
        blocks: Blocks,
        weight: Tensor,
        bias: Tensor,
        *,
        temperature: float = 1.0,
        labels: bool = False,
        link: str = SOFTMAX,
        memory_limit: int = MEMORY_LIMIT,
        survey: SampleSurvey | None = None,
    ) -> None:
        check_dense_head(weight, bias)
        check_link(link)
        if not 0 < temperature < float("inf"):
            raise InputError(f"the temperature must be a number above 0, found {temperature}")
        if isinstance(blocks, Iterator):
            raise InputError(
                "the blocks of features can be read only once: give a list of (features, labels) "
                "pairs, or an object that can be iterated again"
            )
        self.weight = weight.detach().float()
        self.bias = bias.detach().float()
        self.temperature = temperature
        self.labels = labels
        self.link = link
        self._blocks = blocks
        self._cache: list[Tile] | None = None
        self.keeps_targets = False
        self._take(self._surveyed(memory_limit) if survey is None else survey)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.weight.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.weight.shape[1]

    @property
    def n_rivals(self) -> int:
        """How many classes share out one probability: all, or with sigmoid a class and none."""
        return 2 if self.link == SIGMOID else self.n_classes

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of logits (n_classes, n), as the link has it."""
        return probabilities(logits, self.link, dim=0)

    def entropy(self, targets: Tensor) -> Tensor:
        """Sum of the entropies of targets (n_classes, n), in nats, float64."""
        total: Tensor = torch.special.entr(targets).sum(0).sum(dtype=torch.float64)
        if self.link == SIGMOID:
            total += torch.special.entr(1 - targets).sum(0).sum(dtype=torch.float64)
        return total

    def _surveyed(self, memory_limit: int) -> SampleSurvey:
        """Read the samples once, and keep what fits in memory."""
        kept: list[Tile] | None = []
        held, with_targets = 0, True

        def read() -> Iterator[tuple[Tensor, Tensor, float]]:
            nonlocal kept, held, with_targets
            for tile in self._read():
                targets = self.targets(tile)
                yield tile.features, targets, float(self.entropy(targets))
                if kept is None:
                    continue
                tile = replace(tile, targets=targets) if with_targets else tile
                kept.append(tile)
                held += tile.n_bytes()
                if with_targets and held > memory_limit:
                    with_targets = False
                    kept = [replace(tile, targets=None) for tile in kept]
                    held = sum(tile.n_bytes() for tile in kept)
                if held > memory_limit:
                    kept = None

        found = SampleSurvey.of(read())
        if found is None:
            raise InputError("there are no samples to fit the head to")
        self._cache, self.keeps_targets = kept, with_targets and kept is not None
        return found

    def _take(self, survey: SampleSurvey) -> None:
        """Take over what a survey has found."""
        n, self.survey = survey.n_samples, survey
        self.n_samples, self.mean, variance = n, survey.mean, survey.variance
        # Features are float32: a spread below its last bits is noise.
        self.constant = variance <= (1e-6 * self.mean) ** 2
        self.std = torch.where(self.constant, 1.0, variance.clamp(min=0).sqrt())
        reach = float((self.weight.double().abs() @ (self.mean.abs() + self.std)).max())
        if not reach <= LARGEST_LOGIT:
            raise InputError(
                f"the dense head's logits reach about {reach:.0e} on these features: expected at "
                f"most {LARGEST_LOGIT:.0e}; is the weight that of a network for these features?"
            )
        self.class_mass = survey.mass / n
        # The loss, per T², below which no head can come.
        self.target_entropy = survey.entropy / n

    def total(self, passing: Callable[[Samples], Sums]) -> Sums:
        """What a pass over all samples adds up, such as the sums of a loss.

        Args:
            passing: reads the tiles of some samples; the tensors that it gives for parts of the
                samples add up to those of the whole.
        """
        return passing(self)

    def _tile_size(self) -> int:
        """Samples of a tile; sums over rows take a third of the time where they are even."""
        size = 2**20 // max(self.n_classes, self.n_features, 1)
        return min(max(size, 256), 8192) // 64 * 64

    def _read(self) -> Iterator[Tile]:
        size, device = self._tile_size(), self.weight.device
        for features, labels in self._blocks:
            if features.ndim != 2 or features.shape[1] != self.n_features:
                raise InputError(
                    f"expected features of shape (n_samples, {self.n_features}) for this head, "
                    f"found {tuple(features.shape)}"
                )
            several = (self.n_classes,) if self.link == SIGMOID else ()
            if labels.shape != (expected := (len(features), *several)):
                raise InputError(
                    f"expected labels of shape {expected} for these features, "
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
            return self.probabilities(self.dense_logits(tile.features).div_(self.temperature))
        if self.link == SIGMOID:
            return tile.labels.T.float().contiguous()
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

    def dense_logits(self, features: Tensor) -> Tensor:
        """Logits of the dense head (n_classes, n) for features (n_features, n)."""
        return torch.addmm(self.bias[:, None], self.weight, features)

    def standardised(self, tile: Tile) -> Tensor:
        """Features of a tile less their mean, in units of their deviation, (n_features, n)."""
        return (tile.features - self.mean.float()[:, None]) / self.std.float()[:, None]

    def part(self, n: int) -> Samples:
        """`n` of the samples, in memory with their targets; all of them where n is no less.

        One of every run of neighbours, drawn by a fixed seed: samples that are sorted by class, or
        that take turns by class, give every class its share.
        """
        if n >= self.n_samples:
            return self
        edges = torch.arange(n + 1) * self.n_samples // n
        drawn = torch.rand(n, generator=torch.Generator().manual_seed(0))
        chosen = edges[:-1] + (drawn * edges.diff()).long()
        tiles = _cut(self.taken(chosen), self._tile_size())
        part = copy(self)
        part.__dict__.pop("few", None)
        part.__dict__.pop("coordinates", None)
        part._cache, part.keeps_targets, part.n_samples = tiles, True, n
        entropy = sum(float(self.entropy(self.targets(tile))) for tile in tiles)
        part.target_entropy = entropy / n
        return part

    def taken(self, chosen: Tensor) -> list[Tile]:
        """Some samples in tiles, with their targets.

        Args:
            chosen: (n,) int64, their numbers, rising.
        """
        tiles, start = [], 0
        for tile in self.tiles():
            stop = start + len(tile.labels)
            columns = chosen[(chosen >= start) & (chosen < stop)] - start
            start = stop
            if len(columns):
                tile = tile.at(columns.to(tile.labels.device))
                tiles.append(replace(tile, targets=self.targets(tile)))
        return tiles

    @cached_property
    def few(self) -> Samples:
        """The samples that a selection reads: enough to choose by, and no more."""
        return self.part(n_few(self.n_classes))

    @cached_property
    def coordinates(self) -> Standardised:
        """These samples, all at once, in the coordinates in which heads are chosen."""
        tiles = [self.standardised(tile) for tile in self.tiles()]
        x = torch.cat([torch.cat(tiles, 1), tiles[0].new_ones(1, self.n_samples)])
        weight, bias = self.weight.double(), self.bias.double()
        level = bias + weight @ self.mean
        scaled = torch.cat([weight * self.std.masked_fill(self.constant, 0), level[:, None]], 1)
        common = scaled.mean(0) if self.link == SOFTMAX else 0
        return Standardised(x, scaled - common, self.link)


def _cut(tiles: list[Tile], size: int) -> list[Tile]:
    """The same samples, with their targets, in tiles of a size."""
    features = torch.split(torch.cat([tile.features for tile in tiles], 1), size, 1)
    kept = torch.cat([tile.targets for tile in tiles if tile.targets is not None], 1)
    labels = torch.split(torch.cat([tile.labels for tile in tiles]), size)
    parts = zip(features, torch.split(kept, size, 1), labels, strict=True)
    return [Tile(z.contiguous(), p.contiguous(), own) for z, p, own in parts]


def n_few(n_classes: int) -> int:
    """How many samples a selection reads at most."""
    return max(FEW_SAMPLES, FEW_LOGITS // n_classes)


def check_dense_head(weight: Tensor, bias: Tensor) -> None:
    """Refuse a dense head whose shapes do not fit or that holds NaN or infinite values."""
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise InputError(
            "expected a weight of shape (n_classes, n_features) and a bias of shape (n_classes,), "
            f"found {tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    if not (bool(weight.isfinite().all()) and bool(bias.isfinite().all())):
        raise InputError("the dense head's weight or bias holds NaN or infinite values")
