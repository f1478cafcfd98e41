"""An approximate inverse of the curvature of a refit's objective, class by class."""

from __future__ import annotations

import torch
from torch import Tensor

from penult.heads.refit.lbfgs import Map
from penult.heads.refit.loss import Objective

# Samples × weights that are worth one preconditioner; and these times the weights of a class.
WORK, MOST_WORK = 2e8, 4e10
# Samples that are read for it at most: it need only be near.
MOST_READ = 8192
# Numbers of the blocks of all classes up to which they are taken whole; beyond, their diagonals.
MOST_NUMBERS = 2**26
# Part of a variance that is rounding in the float32 products of many samples.
JITTER = 1e-3


def preconditioner(objective: Objective, values: Tensor, bias: Tensor) -> Map:
    """Inverse of the blocks of single classes of the Hessian, in standardised coordinates.

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
        return _diagonal(objective, values, bias)
    blocks, trust, usual = _blocks(objective, values, bias)
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


def _blocks(objective: Objective, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Blocks of each class (n_classes, k + 1, k + 1) float64; how far each is more than chance; and
    what a class of its mass has on average, both (n_classes,).
    """
    samples = objective.samples
    features, inside = objective.support.slots
    n_classes, k = inside.shape
    x, spread = _spreads(objective, values, bias)
    blocks = torch.zeros(n_classes, k + 1, k + 1, dtype=torch.float64, device=x.device)
    group = max(1, 2**21 // ((k + 1) * x.shape[1]))
    for c in range(0, n_classes, group):
        part = slice(c, c + group)
        own = x[features[part]] * inside[part, :, None]
        own = torch.cat([own, own.new_ones(len(own), 1, own.shape[2])], 1)
        blocks[part] = ((own * spread[part, None]) @ own.transpose(1, 2)).double()
    blocks /= x.shape[1]
    total, squares = spread.double().sum(1), spread.double().square().sum(1)
    n_effective = total**2 / squares.clamp(min=1e-300)
    trust = n_effective / (n_effective + k + 1)
    # A class that few samples weigh on is nearly flat but for their directions: what it has on
    # average falls short of what it has there.
    few = 1 + (k + 1) / (samples.class_mass * samples.n_samples).clamp(min=0.1)
    return blocks, trust, samples.class_mass * few * total.sum() / x.shape[1]


def _diagonal(objective: Objective, values: Tensor, bias: Tensor) -> Map:
    """Only the diagonal of the curvature, where blocks would be too large."""
    support, samples = objective.support, objective.samples
    x, spread = _spreads(objective, values, bias)
    n_classes = samples.n_classes
    by_value = (spread @ x.square().T / x.shape[1])[support.classes, support.indices]
    by_bias = spread.mean(1)
    floor = objective.ridge + 1e-2 * samples.class_mass.clamp(min=0.1 / n_classes)
    diagonal = torch.cat([by_value, by_bias]).double() + objective.pull / samples.n_rivals
    diagonal += torch.cat([floor[support.classes], floor])
    return lambda g: g / diagonal
