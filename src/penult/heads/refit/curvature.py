"""An approximate inverse of the curvature of a refit's objective, class by class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from penult.heads.refit.lbfgs import Map
from penult.heads.refit.loss import Objective
from penult.heads.samples import Samples

# Samples × weights that are worth one preconditioner; and these times the weights of a class.
WORK, MOST_WORK = 2e8, 4e10
# Samples that are read for it at most: it need only be near.
MOST_READ = 8192
# Numbers of the blocks of all classes up to which they are taken whole; beyond, see `_low_rank`.
MOST_NUMBERS = 2**25
# Directions in which they are then taken, at most.
RANK = 64
# Part of a variance that is rounding in the float32 products of many samples.
JITTER = 1e-3


def preconditioner(objective: Objective, values: Tensor, bias: Tensor) -> Map:
    """Inverse of the blocks of single classes of the Hessian, in standardised coordinates.

    Large blocks are not taken whole, see `_low_rank`.

    The curvature is taken midway between the head and the targets: it then sees the samples that
    the head is wrong and sure about, whose own curvature is 0; Newton's step does not overshoot.
    Where few samples weigh on a class its block is mostly chance, and is drawn towards what a class
    of its mass has on average if its features were independent.

    Args:
        objective: of the fit.
        values: (nnz,), where the curvature is taken.
        bias: (n_classes,).
    """
    samples, support = objective.samples, objective.support
    inside = support.slots[1]
    n_classes, k = inside.shape
    if n_classes * (k + 1) ** 2 > MOST_NUMBERS:
        return _low_rank(objective, values, bias)
    x, spread = _spreads(objective, values, bias)
    trust, usual = _trusted(samples, spread, k, k)
    blocks = _blocks(objective, x, spread)
    blocks *= trust[:, None, None]
    floor = objective.ridge + 1e-2 * samples.class_mass.clamp(min=0.1 / n_classes)
    diagonal = blocks.diagonal(dim1=1, dim2=2)
    diagonal.mul_(1 + JITTER).add_(((1 - trust) * usual + floor)[:, None])
    if objective.pull:
        blocks += objective.pull / samples.n_rivals * objective.towards_dense.blocks
    diagonal[:, :k].add_((~inside).double())
    factors = torch.linalg.cholesky(blocks)
    places = _places(inside)
    n = len(values) + len(bias)

    def solve(g: Tensor) -> Tensor:
        padded = torch.cat([g, g.new_zeros(1)])[places]
        solved = torch.cholesky_solve(padded[:, :, None], factors)[:, :, 0]
        out = g.new_zeros(n + 1)
        out[places.reshape(-1)] = solved.reshape(-1)
        return out[:n]

    return solve


def _places(inside: Tensor) -> Tensor:
    """Where the variables of each class lie, (n_classes, k + 1); those that it lacks at the end."""
    n_classes, n_values = len(inside), int(inside.sum())
    places = torch.full(inside.shape, n_values + n_classes, device=inside.device)
    places[inside] = torch.arange(n_values, device=inside.device)
    own = n_values + torch.arange(n_classes, device=inside.device)
    return torch.cat([places, own[:, None]], 1)


def _spreads(objective: Objective, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Some samples (n_features, n) and p (1 − p) of each class (n_classes, n), midway."""
    samples, support = objective.samples, objective.support
    few = samples.few
    width = support.slots[1].shape[1] + 1
    worth = min(WORK, MOST_WORK / width) / (samples.n_classes * width)
    part = few.part(min(max(256, int(worth)), MOST_READ))
    x, spreads = [], []
    for tile in part.tiles():
        own = support.logits(tile.features, values.float()).double() + bias.double()[:, None]
        p = samples.probabilities(own.div_(samples.temperature))
        p = p.add_(samples.targets(tile)).div_(2)
        spreads.append((p * (1 - p)).float())
        x.append(samples.standardised(tile))
    return torch.cat(x, 1), torch.cat(spreads, 1)


def _trusted(samples: Samples, spread: Tensor, k: int, rank: int) -> tuple[Tensor, Tensor]:
    """How far the curvature of each class is more than chance; and what a class of its mass has on
    average, both (n_classes,).

    Args:
        samples: of the fit.
        spread: (n_classes, n), see `_spreads`.
        k: features of a class.
        rank: directions in which its curvature is taken.
    """
    total, squares = spread.double().sum(1), spread.double().square().sum(1)
    n_effective = total**2 / squares.clamp(min=1e-300)
    trust = n_effective / (n_effective + rank + 1)
    # A class that few samples weigh on is nearly flat but for their directions: what it has on
    # average falls short of what it has there.
    few = 1 + (k + 1) / (samples.class_mass * samples.n_samples).clamp(min=0.1)
    return trust, samples.class_mass * few * total.sum() / spread.shape[1]


def _blocks(objective: Objective, x: Tensor, spread: Tensor) -> Tensor:
    """Blocks of each class, (n_classes, k + 1, k + 1) float64."""
    features, inside = objective.support.slots
    n_classes, k = inside.shape
    blocks = torch.zeros(n_classes, k + 1, k + 1, dtype=torch.float64, device=x.device)
    group = max(1, 2**21 // ((k + 1) * x.shape[1]))
    for c in range(0, n_classes, group):
        part = slice(c, c + group)
        own = x[features[part]] * inside[part, :, None]
        own = torch.cat([own, own.new_ones(len(own), 1, own.shape[2])], 1)
        blocks[part] = ((own * spread[part, None]) @ own.transpose(1, 2)).double()
    return blocks.div_(x.shape[1])


def _low_rank(objective: Objective, values: Tensor, bias: Tensor) -> Map:
    """The same for large blocks, whose cost does not grow with the square of k.

    Every block is taken whole in the few directions in which features vary most together, and as a
    diagonal in what these leave. Its inverse follows from that of a small matrix for each class
    (Woodbury), whichever features the class keeps.
    """
    samples, support = objective.samples, objective.support
    x, spread = _spreads(objective, values, bias)
    n_classes, n = spread.shape
    at = samples.few.coordinates
    second, (spectrum, directions) = at.second_moments, at.main_directions
    rank = max(1, min(RANK, samples.n_features, math.isqrt(MOST_NUMBERS // n_classes)))
    basis = second.new_zeros(len(second), rank + 1)  # these directions, and the constant
    basis[:-1, :-1], basis[-1, -1] = directions[:, -rank:], 1
    spectrum = torch.cat([spectrum[-rank:], second.new_ones(1)])
    trust, usual = _trusted(samples, spread, len(values) // n_classes, rank)
    ones = x.new_ones(1, n)
    within = _moments(torch.cat([basis[:-1, :-1].T.float() @ x, ones]), spread)
    within *= trust[:, None, None]
    own = (spread @ torch.cat([x.square(), ones]).T).double() / n
    squares = (basis[:, :, None] * basis[:, None]).flatten(1).float()
    rest = own * trust[:, None] - within.flatten(1).float() @ squares.T
    floor = objective.ridge + 1e-2 * samples.class_mass.clamp(min=0.1 / n_classes)
    rest = rest.clamp(min=0) + JITTER * own + ((1 - trust) * usual + floor)[:, None]
    if objective.pull:
        share = objective.pull / samples.n_rivals
        within += share * spectrum.diag()
        left = second.diagonal() - (basis.square() * spectrum).sum(1)
        rest += share * left.clamp(min=JITTER)

    def wide(of_values: Tensor, of_bias: Tensor) -> Tensor:
        found = own.new_zeros(own.shape)
        found[support.classes, support.indices], found[:, -1] = of_values, of_bias
        return found

    inverse = wide(1 / rest[support.classes, support.indices], 1 / rest[:, -1])
    seen = (inverse.float() @ squares).double().reshape(within.shape)
    within.diagonal(dim1=1, dim2=2).add_(JITTER * floor[:, None])
    root = torch.linalg.cholesky(within)
    inner = root.transpose(1, 2) @ seen @ root
    inner.diagonal(dim1=1, dim2=2).add_(1)
    # L (1 + L' B' D⁻¹ B L)⁻¹ L', for the block D + B L L' B'.
    back = root @ torch.cholesky_solve(root.transpose(1, 2), torch.linalg.cholesky(inner))

    def solve(g: Tensor) -> Tensor:
        scaled = wide(g[: len(values)], g[len(values) :]) * inverse
        shared = (back @ (scaled @ basis)[:, :, None])[:, :, 0]
        scaled -= inverse * (shared @ basis.T)
        return torch.cat([scaled[support.classes, support.indices], scaled[:, -1]])

    return solve


def _moments(y: Tensor, spread: Tensor) -> Tensor:
    """Second moments of y (m, n) as each class weighs them, (n_classes, m, m) float64."""
    m, n = y.shape
    sums = torch.zeros(len(spread), m * m, dtype=torch.float64, device=y.device)
    size = max(1, 2**23 // m**2)
    for start in range(0, n, size):
        own = y[:, start : start + size]
        products = (own[:, None] * own).flatten(0, 1)
        sums += spread[:, start : start + size] @ products.T
    return sums.div_(n).reshape(len(spread), m, m)
