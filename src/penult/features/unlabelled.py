"""Unlabelled features: further samples of the same network, whose labels are not read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.features import Features
from penult.features.shards import FORMAT
from penult.network.head import Head, head_of
from penult.network.link import decided
from penult.storage import read_json, read_tensors

# What the features of a network depend on beside the images, as a folder of shards records it.
SAME = {"network": "network", "transform": "preprocessing of the images", "dtype": "precision"}


def open_unlabelled(path: str | Path, reference: Features) -> Features:
    """Features of a file or folder, as samples of the same network as `reference`.

    Their labels, if they have any, are not read: the network's own classes stand in their place.

    Args:
        path: a features file, which may lack `labels`, or a folder of shards.
        reference: features with their head.

    Raises:
        InputError: another n_features; another head; another network or preprocessing of the
            images, where both are folders that record them.
    """
    path, head = Path(path), reference.require_head()
    if path.is_file():
        only = ("features", "weight", "bias")
        tensors, _ = read_tensors(path, FORMAT, ("features",), only=only)
        z, weight = tensors["features"].float(), tensors.get("weight")
        own = None if weight is None else head_of(weight, tensors.get("bias"), head.link)
        _check(path, z.shape[-1], own, reference)
        return Features.of(z, decided(head(z), head.link), multi_label=head.multi_label)
    found = Features.open(path)
    _check(path, found.n_features, found.head, reference)
    known, recorded = (_identity(folder) for folder in (reference.folder, path))
    for key, name in SAME.items():
        if key in known and key in recorded and known[key] != recorded[key]:
            raise InputError(
                f"{path} (--also) was made with another {name} than the features: expected "
                "features of the same network, made in the same way"
            )
    return found


def apart_from(also: Features, judges: Features) -> Features | None:
    """What of unlabelled features is not among those that judge heads; None where nothing is left.

    A sample is the same if its features are, bit by bit.
    """
    known = torch.cat([_marks(block.features) for block in judges.blocks()])
    marks = torch.cat([_marks(block.features) for block in also.blocks()])
    fresh = ~torch.isin(marks, known)
    n_same = int((~fresh).sum())
    if not n_same:
        return also
    warnings.warn(
        f"{n_same:,} of the {len(fresh):,} unlabelled samples (--also) are among those that heads "
        "are judged on: they are left out",
        stacklevel=3,
    )
    return also.subset(fresh) if n_same < len(fresh) else None


def _marks(z: Tensor) -> Tensor:
    """A number for each sample, which samples of other features do not have."""
    generator = torch.Generator().manual_seed(0)
    bits = z.contiguous().view(torch.int32).long()
    factors = torch.randint(1, 2**62, (bits.shape[1],), generator=generator) | 1
    # Integers wrap around, so that the sum is the same in whatever order it is added up.
    return (bits * factors).sum(1)


def _check(path: Path, n_features: int, own: Head | None, reference: Features) -> None:
    if n_features != reference.n_features:
        raise InputError(
            f"n_features is {reference.n_features} in the features and {n_features} in {path} "
            "(--also): expected features of the same network"
        )
    head = reference.require_head()
    if own is not None and not (
        torch.equal(own.weight, head.weight) and torch.equal(own.bias, head.bias)
    ):
        raise InputError(
            f"{path} (--also) comes with another head than the features: expected features of the "
            "same network"
        )


def _identity(folder: Path | None) -> dict[str, Any]:
    """What a folder of shards records of how it was made; nothing of a file."""
    if folder is None:
        return {}
    found = read_json(folder / "index.json", FORMAT).get("identity")
    return found if isinstance(found, dict) else {}
