"""Curvature of the distillation loss, whole or class by class, and its approximate inverse."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penult.heads.refit.distillation import Distillation, Support
from penult.heads.refit.lbfgs import Map

# Above this many weights, classes are taken one by one instead of together: `JOINT_WORK` then
# leaves fewer than 20 samples a weight, and the curvature is mostly chance.
JOINT_LIMIT = 300
# Samples × weights² that are worth one preconditioner of all classes together.
JOINT_WORK = 5e8
# Samples × weights that are worth one of single classes.
BLOCK_WORK = 2e8
# Part of a variance that is rounding in the float32 products of many samples.
JITTER = 1e-5


@dataclass(frozen=True, eq=False)
class Point:
    """A head at which the curvature is taken: its support, values (nnz,) and bias (n_classes,)."""

    support: Support
    values: Tensor
    bias: Tensor


def preconditioner(loss: Distillation, point: Point, ridge: float) -> Map:
    """Inverse of the Hessian at a head, in standardised coordinates (values, then biases).

    With few weights the whole Hessian; with many only the blocks of single classes, from a part of
    the samples. The curvature is taken midway between the head and the targets: it then sees the
    samples that the head is wrong and sure about, whose own curvature is 0, and Newton's step does
    not overshoot.
    """
    n = len(point.values) + len(point.bias)
    if n <= JOINT_LIMIT:
        hessian = joint_hessian(loss, point, loss.temperature, JOINT_WORK, torch.float32)
        hessian.diagonal().mul_(1 + JITTER).add_(ridge)
        factor = torch.linalg.cholesky(hessian)
        return lambda g: torch.cholesky_solve(g[:, None], factor)[:, 0]
    blocks, places = _blocks(loss, point)
    floor = ridge + 1e-2 * loss.class_mass.clamp(min=0.1 / loss.n_classes)
    blocks.diagonal(dim1=1, dim2=2).mul_(1 + 1e-3).add_(floor[:, None])
    factors = torch.linalg.cholesky(blocks)

    def solve(g: Tensor) -> Tensor:
        padded = torch.cat([g, g.new_zeros(1)])[places]
        solved = torch.cholesky_solve(padded[:, :, None], factors)[:, :, 0]
        out = g.new_zeros(n + 1)
        out[places.reshape(-1)] = solved.reshape(-1)
        return out[:n]

    return solve


def _stride(n_samples: int, work_per_sample: float, limit: float) -> int:
    return max(1, round(n_samples * work_per_sample / limit))


def joint_hessian(
    loss: Distillation, point: Point, temperature: float, work: float, dtype: torch.dtype
) -> Tensor:
    """Hessian of the mean cross-entropy by all weights and biases together, (n, n) float64.

    In standardised coordinates: feature less its mean, in units of its deviation. `work` bounds
    samples × n²; beyond it only every so many samples are read. `dtype` is that of the products.
    """
    support, n_classes = point.support, len(point.bias)
    n_values = len(point.values)
    classes = torch.cat([support.classes, torch.arange(n_classes, device=support.classes.device)])
    ends = support.indptr.tolist()
    members = [
        torch.tensor([*range(ends[c], ends[c + 1]), n_values + c], device=classes.device)
        for c in range(n_classes)
    ]
    n = len(classes)
    across = torch.zeros(n, n, dtype=torch.float64, device=classes.device)
    within = [across.new_zeros(len(own), len(own)) for own in members]
    n_samples = 0
    for tile in loss.strided(_stride(loss.n_samples, n * n, work)):
        p = loss.midway(support, point.values, point.bias, tile, temperature)
        z = loss.standardised(tile)[support.indices].to(dtype)
        z = torch.cat([z, z.new_ones(n_classes, z.shape[1])])
        weighted = p.to(dtype)[classes] * z
        across -= weighted @ weighted.T
        # 1 − p is taken in float64: the difference of the two products would lose it.
        rest = (p * (1 - p)).to(dtype)
        for c, own in enumerate(members):
            x = z[own]
            within[c] += (x * rest[c]) @ x.T
        n_samples += z.shape[1]
    for own, block in zip(members, within, strict=True):
        across[own[:, None], own] = block
    return across / n_samples


def _blocks(loss: Distillation, point: Point) -> tuple[Tensor, Tensor]:
    """Blocks of each class, (n_classes, k + 1, k + 1) float64, and where their variables lie.

    Classes with fewer features are padded with variables that nothing reads. Where few samples
    weigh on a class its block is mostly chance, and is drawn towards what a class of its mass has
    on average if its features were independent.
    """
    support, device = point.support, point.values.device
    n_values, n_classes = len(point.values), len(point.bias)
    sizes = support.indptr.diff()
    k = int(sizes.max())
    slots = torch.arange(k, device=device)
    inside = slots < sizes[:, None]
    places = torch.where(inside, support.indptr[:-1, None] + slots, n_values + n_classes)
    own = n_values + torch.arange(n_classes, device=device)
    features = torch.zeros(n_classes, k, dtype=torch.int64, device=device)
    features[inside] = support.indices
    blocks = torch.zeros(n_classes, k + 1, k + 1, dtype=torch.float64, device=device)
    stride = _stride(loss.n_samples, n_classes * (k + 1), BLOCK_WORK)
    n_samples = 0
    total = torch.zeros(2, n_classes, dtype=torch.float64, device=device)
    for tile in loss.strided(stride):
        p = loss.midway(support, point.values, point.bias, tile, loss.temperature)
        spread = (p * (1 - p)).float()
        total += torch.stack([spread.sum(1), spread.square().sum(1)])
        z = loss.standardised(tile)
        n_samples += z.shape[1]
        group = max(1, 2**21 // ((k + 1) * z.shape[1]))
        for c in range(0, n_classes, group):
            part = slice(c, c + group)
            x = z[features[part]] * inside[part, :, None]
            x = torch.cat([x, x.new_ones(len(x), 1, z.shape[1])], 1)
            blocks[part] += (x * spread[part, None]) @ x.transpose(1, 2)
    n_effective = total[0] ** 2 / total[1].clamp(min=1e-300)
    trust = (n_effective / (n_effective + k + 1))[:, None]
    # A class that few samples weigh on is nearly flat but for their directions: what it has on
    # average falls short of what it has there.
    few = 1 + (k + 1) / (loss.class_mass * loss.n_samples).clamp(min=0.1)
    usual = loss.class_mass * few * total[0].sum() / n_samples
    blocks *= trust[:, :, None] / n_samples
    blocks.diagonal(dim1=1, dim2=2).add_((1 - trust) * usual[:, None])
    blocks.diagonal(dim1=1, dim2=2)[:, :k].add_((~inside).double())
    return blocks, torch.cat([places, own[:, None]], 1)
