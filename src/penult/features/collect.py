"""The one pass over the data: penultimate features of a network, streamed to shards or memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from penult.data.inputs import Inputs, changed, n_samples_of, one_by_one
from penult.data.open import Batch
from penult.data.source import BatchSource, ImageSource, LoaderSource, Pass, examples, source_of
from penult.data.tokens import Preparation
from penult.data.transform import Transform
from penult.errors import InputError
from penult.features.features import Features
from penult.features.shard_folder import Faults, ShardFolder, Shards, ShardsFrom
from penult.features.shards import Block, require_finite
from penult.network.batch_dependence import batch_dependence
from penult.network.calling import autocast, call_model, device_of, evaluating, kind_of
from penult.network.explicit import FoundHead, find_or_make_head
from penult.network.find import find_head
from penult.network.head import Head, NotFiniteError
from penult.network.link import SIGMOID, decided
from penult.network.load import fingerprint
from penult.network.preparation import preparation_doubt
from penult.network.tap import FeatureTap
from penult.progress import Progress
from penult.text import described, some

EXAMPLES_TRIED = 8
FEW = 4  # images on which a network has run before, when its head was found

T = TypeVar("T")


class Tap(Protocol):
    """What is kept of each run of the network, inside a context: see `FeatureTap`."""

    @property
    def features(self) -> Tensor:
        """(n_samples, n_features) of the last run."""

    @property
    def logits(self) -> Tensor:
        """(n_samples, n_classes) of the last run."""

    @property
    def n_features(self) -> int:
        """How many features a sample has."""

    def feature(self, j: int) -> str:
        """What messages call a feature."""

    def __enter__(self) -> Self:
        """Begin to watch."""

    def __exit__(self, *error: Any) -> None:
        """Take the hooks away."""


def collect(
    model: nn.Module,
    data: Any,
    head: Head | None = None,
    *,
    transform: Preparation | None = None,
    how: Pass | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Features:
    """Run a network once over labelled images and keep its penultimate features.

    The network stays where it is (device) and as it is (weights, training flags).

    Args:
        model: the network.
        data: what `open_data` takes (a folder or zip of class folders, a data set of (image,
            label), arrays), or a DataLoader of (images, labels) batches ready for the network.
        head: its final linear map; found by `find_head` on the first batch where not given.
        transform: preprocessing of images; required where `data` holds undecoded images, and for
            texts, see `TokenTransform`.
        how: batch size, workers, dtypes and so on.
        out: folder for shards; a pass that was interrupted goes on there. In memory without.
        progress: called with (samples done, samples in all) after every batch.

    Raises:
        InputError: no head, labels out of range, non-finite features (names the image), no
            readable image, a folder that holds something else, a full disk.
    """
    how = how or Pass()
    source = source_of(data, transform, how)
    if head is None:
        head = usable_head(model, source)
    if source.multi_label:
        head = replace(head, link=SIGMOID)
    for said in doubts(model, source, head, how).values():
        warnings.warn(said, stacklevel=2)
    shards = network_shards(model, source, head, how, progress)
    if out is not None:
        identity = {
            "network": fingerprint(model),
            "head": head.fingerprint(),
            "data": source.fingerprint,
            **how.identity(),
        }
        folder = ShardFolder(Path(out), head, source.class_names, how.store, identity)
        if isinstance(source, LoaderSource):
            source.marks = folder.marks()
        folder.fill(shards)
        return Features.open(out)
    parts = [block for block, _ in shards(0)]
    n_samples = sum(len(block.labels) for block in parts)
    return Features(parts, (n_samples, head.n_features), head, source.class_names)


def usable_head(model: nn.Module, source: BatchSource) -> Head:
    """Find the head on the first images for which the network's logits are finite.

    Raises:
        HeadNotFound: see `find_head`.
        InputError: the logits are finite for none of the first images; names a weight that is not.
    """
    return _on_first_images(model, source, partial(find_head, model))


def usable_network(
    model: nn.Module, source: BatchSource, name: str | None = None, n_classes: int | None = None
) -> FoundHead:
    """Find the head as `usable_head` does, or make one: see `find_or_make_head`."""
    find = partial(find_or_make_head, model, name=name, n_classes=n_classes)
    return _on_first_images(model, source, find)


def _on_first_images(model: nn.Module, source: BatchSource, find: Callable[[Inputs], T]) -> T:
    """What is found on the first images for which the network's logits are finite."""
    device = device_of(model)
    for inputs in islice(examples(source, device), EXAMPLES_TRIED):
        for example in (inputs, *one_by_one(inputs)):
            with suppress(NotFiniteError):
                return find(example)
    bad = [n for n, p in model.named_parameters() if not bool(p.isfinite().all())]
    if bad:
        raise InputError(f"the network's weights are NaN or infinite in {some(bad)}")
    raise InputError("the network gives NaN or infinite logits on each of the first images")


def doubts(model: nn.Module, source: BatchSource, head: Head, how: Pass) -> dict[str, str]:
    """What a person should know of a network and its images before the pass, by subject.

    Looks at a few images only: whether their features depend on their batch ("batch"), and whether
    they seem to be prepared as in the network's training ("preparation").
    """
    device, found = device_of(model), {}
    few = source
    if isinstance(source, ImageSource):
        few = replace(source, how=replace(how, batch_size=min(how.batch_size, FEW), workers=0))
    for inputs in islice(examples(few, device, FEW), 1 if how.batch_size > 1 else 0):
        found["batch"] = batch_dependence(model, head, inputs)
    one_label = how.given and not source.multi_label
    if isinstance(source, ImageSource) and isinstance(source.transform, Transform) and one_label:
        found["preparation"] = preparation_doubt(
            model,
            head,
            source.data,
            source.transform,
            dtype=how.dtype,
            batch_size=min(how.batch_size, FEW),
        )
    return {subject: said for subject, said in found.items() if said}


def network_shards(
    model: nn.Module,
    source: BatchSource,
    head: Head,
    how: Pass,
    progress: Progress | None = None,
    tap: Tap | None = None,
) -> ShardsFrom:
    """Blocks of a network's features over images, one for each shard from a given one on.

    The features are those that the head reads, or those of another `tap`.
    """
    watched = tap or FeatureTap(model, head)

    def shards(first: int, stop: int | None = None) -> Shards:
        return _forward(model, source, head, watched, how, (first, stop), progress)

    return shards


def features_shards(features: Features) -> ShardsFrom:
    """Blocks of features at hand, one for each shard from a given one on."""
    return lambda first, stop=None: (
        (block, Faults()) for block in islice(features.blocks(), first, stop)
    )


def _forward(
    model: nn.Module,
    source: BatchSource,
    head: Head,
    tap: Tap,
    how: Pass,
    shards: tuple[int, int | None],
    progress: Progress | None,
) -> Shards:
    device = device_of(model)
    start = shards[0] * how.batches_per_shard
    stop = None if shards[1] is None else shards[1] * how.batches_per_shard
    done = min(start * how.batch_size, source.n_samples)
    blocks: list[Block] = []
    faults = Faults()
    with evaluating(model), tap:
        for number, batch in enumerate(source.batches(start, stop), start + 1):
            if batch.ids:
                # Not around the whole loop: these modes would leak to the consumer at each yield.
                with torch.no_grad(), autocast(device, how.dtype):
                    _run(model, source.inputs(batch, device), how)
                block, unusable = _block(tap, batch, head, how)
                blocks.append(block)
                faults.add(unusable)
            faults.add(Faults.of(batch))
            done += len(batch.ids) + len(batch.faults)
            if progress is not None:
                progress(done, source.n_samples)
            if number % how.batches_per_shard == 0:
                yield _join(blocks, tap, head), faults
                blocks, faults = [], Faults()
    if blocks or faults.n_faults:
        yield _join(blocks, tap, head), faults


def _run(model: nn.Module, inputs: Inputs, how: Pass) -> None:
    """Run a network on a batch; a smaller one that it refuses goes again, filled up by itself."""
    try:
        call_model(model, inputs)
    # A network may raise anything on a batch; it is said in one line, or a small one is filled up.
    except Exception as error:
        n = n_samples_of(inputs)
        if n == how.batch_size:
            raise _does_not_run(inputs, error) from error
        rows = torch.arange(how.batch_size) % n
        try:
            call_model(model, changed(inputs, lambda values: values[rows.to(values.device)]))
        except Exception:  # what it said of the batch itself is the cause
            raise _does_not_run(inputs, error) from error


def _does_not_run(inputs: Inputs, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    what = f"the network does not run on a batch of {kind_of(inputs)}: {described(error)}"
    if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error):
        what += "; give a smaller --batch-size"
    return InputError(what)


def _block(tap: Tap, batch: Batch, head: Head, how: Pass) -> tuple[Block, Faults]:
    """Features of a batch; samples with a NaN or infinite one are left out as faults."""
    n = len(batch.labels)  # the network may have been given more, see `_run`
    predicted = decided(tap.logits[:n], head.link).cpu()
    labels = batch.labels if how.given else predicted
    block = Block(tap.features[:n].float().cpu(), labels, predicted, batch.ids)
    if how.strict:
        require_finite(block, tap.feature)
    faults = Faults()
    finite = block.features.isfinite()
    if not bool(finite.all()):
        block, faults = _without(block, finite, tap)
    labels = block.labels
    if labels.ndim == 2 or head.multi_label:
        if labels.shape[1:] != (head.n_classes,) or not head.multi_label:
            raise InputError(
                f"expected {'multi-hot labels of' if head.multi_label else 'one label of the'} "
                f"{head.n_classes} classes for each sample, found labels of shape "
                f"{tuple(labels.shape)}"
            )
        return block, faults
    bad = (labels < 0) | (labels >= head.n_classes)
    if bool(bad.any()):
        i = int(bad.nonzero()[0, 0])
        raise InputError(
            f"labels must lie in [0, {head.n_classes}) for the {head.n_classes} classes of the "
            f"head, found {int(labels[i])} for {block.ids[i]}"
        )
    return block, faults


def _without(block: Block, finite: Tensor, tap: Tap) -> tuple[Block, Faults]:
    """The finite samples of a block, and the others as faults that name a feature."""
    good = finite.all(1)
    faults = Faults()
    for i in (~good).nonzero()[:, 0].tolist():
        j = int((~finite[i]).nonzero()[0, 0])
        reason = f"{tap.feature(j)} is {float(block.features[i, j])}"
        faults.add(Faults(1, [(block.ids[i], reason)]))
    return block.where(good), faults


def _join(blocks: list[Block], tap: Tap, head: Head) -> Block:
    if not blocks:
        none = torch.empty(0, dtype=torch.int64)
        if head.multi_label:
            none = torch.empty(0, head.n_classes, dtype=torch.bool)
        return Block(torch.empty(0, tap.n_features, dtype=torch.float32), none, none, [])
    return Block(
        torch.cat([b.features for b in blocks]),
        torch.cat([b.labels for b in blocks]),
        torch.cat([b.predicted for b in blocks if b.predicted is not None]),
        [name for b in blocks for name in b.ids],
    )
