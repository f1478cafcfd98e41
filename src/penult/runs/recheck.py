"""Recheck: whether a finished run is still what its network and its data give."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

from penult.data.dataset import CHANGES
from penult.data.image import ImageFaultError
from penult.data.source import ImageSource
from penult.errors import InputError
from penult.features.collect import network_shards
from penult.features.features import Features
from penult.network.head import Head
from penult.progress import Progress
from penult.runs.reopen import Chosen, matched_images
from penult.runs.run import Run

SAMPLED = 16  # images that are passed through the network again
# Difference of two feature vectors by their length, up to which they are the same: of another
# machine or batch, and where half precision is stored or computed with.
CLOSE, CLOSE_HALF = 1e-3, 3e-2


def recheck(
    run: Run,
    part: str,
    model: nn.Module,
    head: Head,
    source: ImageSource,
    progress: Callable[[str], Progress] | None = None,
) -> None:
    """Compare a few images, drawn anew each time, with what a finished run holds of them.

    Hashes of the weights, the code and the data tell most changes. This one tells what they do not
    see: code that is imported from elsewhere, another version of a library, pictures or labels
    that only some samples show.

    Args:
        run: a finished one.
        part: "train" or "eval".
        model, head: the network.
        source: the images, as the run would read them now.
        progress: called with the name of a phase; gives the function that hears of its progress.

    Raises:
        InputError: they differ (names the first).
    """
    if CHANGES in source.data.notes:
        return  # no two looks at these images are the same
    features = run.train() if part == "train" else run.evaluation()
    images = matched_images(source.data, features)
    rows = torch.tensor(sorted(random.sample(range(len(images)), min(SAMPLED, len(images)))))
    kept, labels = _rows(features, rows), features.labels()
    heard = progress(f"comparing {part} with the run") if progress else None
    if source.how.given:
        _check_labels(run, source, images, labels, rows)
    chosen = ImageSource(images.part(rows), source.transform, source.how)
    off = _differing(run, _features(model, head, chosen), kept)
    if not bool(off.any()):
        if heard is not None:
            heard(len(rows), len(rows))
        return
    # A network may look at a whole batch: only the same batch can say that it is another.
    row = rows[int(off.nonzero()[0, 0])]
    position = images.positions[int(row)]
    first = position // source.how.batch_size * source.how.batch_size
    batch = [i for i, at in enumerate(images.positions) if 0 <= at - first < source.how.batch_size]
    whole = torch.tensor(batch)
    chosen = ImageSource(images.part(whole), source.transform, source.how)
    off = _differing(run, _features(model, head, chosen), _rows(features, whole))
    if bool(off[whole == row].any()):
        raise InputError(
            f"{run.folder} is no longer what the network and the data give: it holds other "
            f"features of {images.id(int(row))}, so the network's code or the images have changed; "
            "choose another --out, or --overwrite to make the run again"
        )


def _check_labels(
    run: Run, source: ImageSource, images: Chosen, labels: Tensor, rows: Tensor
) -> None:
    """All labels where the data list them, else those of the rows."""
    positions = images.positions
    if source.data.labels is not None:
        now = torch.as_tensor(source.data.labels)[torch.as_tensor(positions)]
        changed = (now != labels).reshape(len(labels), -1).any(1)
        other = changed.nonzero()[:, 0].tolist()
    else:
        other = [row for row in rows.tolist() if not _is(source, positions[row], labels[row])]
    if other:
        raise InputError(
            f"{run.folder} is no longer what the data give: {len(other):,} labels have changed, "
            f"the first that of {images.id(other[0])}; choose another --out, or --overwrite to "
            "make the run again"
        )


def _is(source: ImageSource, position: int, label: Tensor) -> bool:
    """Whether a sample still has its label, or its row of classes."""
    try:
        return bool((torch.as_tensor(source.data.sample(position)[1]) == label).all())
    except ImageFaultError:
        return False


def _features(model: nn.Module, head: Head, source: ImageSource) -> Tensor:
    """Features of images; NaN for those that cannot be read any more."""
    found = torch.full((len(source.data), head.n_features), torch.nan, dtype=torch.float32)
    place = {source.data.id(i): i for i in range(len(source.data))}
    for block, _ in network_shards(model, source, head, source.how)(0):
        found[torch.tensor([place[name] for name in block.ids], dtype=torch.int64)] = block.features
    return found


def _rows(features: Features, rows: Tensor) -> Tensor:
    """Some of the stored features."""
    found, start = [], 0
    for part in features.mapped():
        own = rows[(rows >= start) & (rows < start + len(part))] - start
        found.append(part[own].float())
        start += len(part)
    return torch.cat(found)


def _differing(run: Run, now: Tensor, kept: Tensor) -> Tensor:
    """Which samples (n,) bool have other features now."""
    identity = run.about["identity"]
    full = identity.get("dtype") == identity.get("store") == "float32"
    length = kept.norm(dim=1).clamp(min=1e-12)
    close: Tensor = (now - kept).norm(dim=1) <= (CLOSE if full else CLOSE_HALF) * length
    return ~close
