"""Layers: the outputs of any layers of a network, one vector per sample, in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import torch
from torch import Tensor, nn

from penult.data.source import LoaderSource, Pass, examples, source_of
from penult.data.tokens import Preparation, TokenTransform
from penult.errors import InputError
from penult.features.collect import doubts, network_shards, usable_head
from penult.features.features import Features
from penult.features.shard_folder import ShardFolder, ShardsFrom, require_space
from penult.network.blocks import Trace, find_blocks, first_output, pools
from penult.network.calling import Example, device_of, first_tensor, kind_of
from penult.network.head import Head
from penult.network.load import fingerprint
from penult.network.tap import FeatureTap
from penult.progress import Progress
from penult.text import nearest, some

__all__ = ["Layer", "LayerTap", "collect_layers", "find_blocks", "find_layers"]

Names = str | Sequence[str]


@dataclass(frozen=True)
class Layer:
    """A layer whose output is measured.

    Attributes:
        name: dotted name of the module.
        n_features: its channels; positions (pixels, tokens) are averaged.
        axis: of the channels in its output, 1 or -1.
    """

    name: str
    n_features: int
    axis: int

    def pooled(self, given: Any, n_samples: int) -> Tensor:
        """(n_samples, n_features), at least float32: the mean of an output over its positions.

        Raises:
            InputError: the output is no feature map, token sequence or vector of this layer's size.
        """
        output = first_output(given)
        if output is None or not pools(output, n_samples):
            raise InputError(_unfit(self.name, given, n_samples))
        if output.shape[self.axis] != self.n_features:
            raise InputError(
                f"layer {self.name} gave {self.n_features} features on the first images, and now "
                f"gives {kind_of(output)}"
            )
        values = output.detach()
        wide = torch.promote_types(values.dtype, torch.float32)
        if values.ndim == 2:
            # A copy: the network may go on to change its own in place.
            return values.to(wide, copy=True)
        positions = [i for i in range(1, values.ndim) if i != self.axis % values.ndim]
        return values.mean(positions, dtype=wide)


class LayerTap:
    """Watch the outputs of some layers and the head's logits; the network is not changed.

    A context manager as `FeatureTap`: `features` are those of all layers side by side,
    (n_samples, sum of their n_features). Outputs are pooled at once, on the network's device. Of a
    layer that runs several times, the last output counts.

    Args:
        model: the network.
        head: what `find_head` found in it.
        layers: from `find_layers`.
    """

    def __init__(self, model: nn.Module, head: Head, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self._model = model
        self._head = FeatureTap(model, head)
        self._stack = ExitStack()
        self._n_samples = 0
        self._pooled: dict[str, Tensor] = {}

    @property
    def features(self) -> Tensor:
        """(n_samples, n_features) of the last run, the layers in their order."""
        for layer in self.layers:
            if layer.name not in self._pooled:
                raise InputError(f"layer {layer.name} did not run in the network's last run")
        return torch.cat([self._pooled[layer.name] for layer in self.layers], 1)

    @property
    def logits(self) -> Tensor:
        """(n_samples, n_classes) of the last run."""
        return self._head.logits

    @property
    def n_features(self) -> int:
        """Features of all layers together."""
        return sum(layer.n_features for layer in self.layers)

    def feature(self, j: int) -> str:
        """What messages call a feature: its number in its layer."""
        for layer in self.layers:
            if j < layer.n_features:
                return f"feature {j} of layer {layer.name}"
            j -= layer.n_features
        raise IndexError(j)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._head)
            begin = self._model.register_forward_pre_hook(self._begin, with_kwargs=True)
            stack.callback(begin.remove)
            modules = dict(self._model.named_modules(remove_duplicate=False))
            for layer in self.layers:
                handle = modules[layer.name].register_forward_hook(self._reader(layer))
                stack.callback(handle.remove)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = first_tensor(args, kwargs)
        self._n_samples = 0 if first is None else len(first)
        self._pooled = {}

    def _reader(self, layer: Layer) -> Any:
        def read(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._pooled[layer.name] = layer.pooled(output, self._n_samples)

        return read


def find_layers(model: nn.Module, example: Example, names: Names = "all") -> list[Layer]:
    """Layers by name, or all blocks, in the order in which they give their outputs.

    Runs the network once. Channels are on the axis where the convolutions and linear maps up to
    the layer have them.

    Args:
        model: the network.
        example: a small batch as the network takes it.
        names: a dotted name or several, or "all" for the blocks of `find_blocks`.

    Raises:
        InputError: no such layer (names the nearest), one that does not run, one whose output is
            no feature map, token sequence or vector.
    """
    if names == "all":
        names = find_blocks(model, example)
    elif isinstance(names, str):
        names = [names]
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    _require_names(modules, names)
    trace = Trace(model, example)
    order = {module: i for i, module in enumerate(trace.calls)}
    found: dict[str, tuple[int, Layer]] = {}
    for name in names:
        call = trace.calls.get(modules[name])
        kind = type(modules[name]).__name__
        if call is None:
            raise InputError(f"layer {name} ({kind}) does not run when the network does")
        if call.output is None or not pools(call.output, trace.n_samples):
            raise InputError(_unfit(name, call.given, trace.n_samples))
        layer = Layer(name, call.output.shape[call.axis], call.axis)
        found[name] = order[modules[name]], layer
    return [layer for _, layer in sorted(found.values(), key=lambda pair: pair[0])]


def collect_layers(
    model: nn.Module,
    data: Any,
    layers: Names,
    folder: str | Path,
    head: Head | None = None,
    *,
    transform: Preparation | None = None,
    how: Pass | None = None,
    class_names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Features]:
    """Run a network once over images and keep the outputs of several layers as features.

    A feature map (n_samples, n_features, height, width), or with its channels last, becomes its
    mean over positions, a token sequence (n_samples, n_tokens, n_features) its mean over tokens;
    vectors stay as they are. Each layer gets a folder of its own, with shards as `collect` writes
    them but no dense head. All have the same samples in the same order: one with a NaN or infinite
    feature in any layer is left out of all. A pass that was interrupted goes on; layers that are
    there already, from the same network and data, are not collected again.

    Args:
        model: the network; it stays where it is and as it is.
        data: as for `collect`.
        layers: a dotted name or several, or "all" for every block, see `find_blocks`.
        folder: for the layers' folders.
        head: the network's final linear map, which gives the predicted classes; found by
            `find_head` where None.
        transform: preprocessing of images, or of texts, which then run one at a time.
        how: batch size, dtypes and so on.
        class_names: in the order of the logits; the data's where None.
        progress: called with (samples done, samples in all) after every batch.

    Returns:
        Features by name, in the order in which the layers give their outputs.

    Raises:
        InputError: see `find_layers` and `collect`.
    """
    how, folder = how or Pass(), Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: expected a folder for the layers")
    if isinstance(transform, TokenTransform):
        # Positions are averaged, and beside a longer text some of them would be padding.
        how = replace(how, batch_size=1)
    source = source_of(data, transform, how)
    if head is None:
        head = usable_head(model, source)
    (example,) = islice(examples(source, device_of(model), 2), 1)
    tap = LayerTap(model, head, find_layers(model, example, layers))
    for said in doubts(model, source, head, how).values():
        warnings.warn(said, stacklevel=2)
    folder.mkdir(parents=True, exist_ok=True)
    widths = [layer.n_features for layer in tap.layers]
    require_space(folder, source.n_samples, widths, how.store)
    identity = {
        "network": fingerprint(model),
        "head": head.fingerprint(),
        "data": source.fingerprint,
        **how.identity(),
    }
    folders = {
        layer.name: ShardFolder(
            folder / quote(layer.name, safe=""),
            head,
            class_names or source.class_names,
            how.store,
            {**identity, "layer": layer.name},
            layer.n_features,
        )
        for layer in tap.layers
    }
    if isinstance(source, LoaderSource):
        source.marks = next(iter(folders.values())).marks()
    _fill([*folders.values()], tap, network_shards(model, source, head, how, progress, tap))
    return {name: Features.open(shards.folder) for name, shards in folders.items()}


def _fill(folders: Sequence[ShardFolder], tap: LayerTap, source: ShardsFrom) -> None:
    """Write the shards of all layers that are not there yet."""
    complete = [folder.claim() for folder in folders]
    n_shards = _in_common(folders)
    if all(complete) and n_shards == max(folder.n_shards for folder in folders):
        return
    for folder in folders:
        folder.keep(n_shards)
    widths = [layer.n_features for layer in tap.layers]
    with closing(source(n_shards)) as shards:
        for block, faults in shards:
            columns = block.features.split_with_sizes(widths, 1)
            for folder, features in zip(folders, columns, strict=True):
                folder.write(replace(block, features=features), faults)
    for folder in folders:
        folder.finish()


def _in_common(folders: Sequence[ShardFolder]) -> int:
    """How many shards all folders have, with the same samples left out.

    Layers that were collected in different passes may differ in what was left out.
    """
    n_shards = min(folder.n_shards for folder in folders)
    for shard in range(n_shards):
        first, *others = (folder.faults_of(shard) for folder in folders)
        if any(faults != first for faults in others):
            return shard
    return n_shards


def _require_names(modules: dict[str, nn.Module], names: Sequence[str]) -> None:
    if not names:
        raise InputError("no layer is named: expected names, or `all` for every block")
    unknown = [name for name in dict.fromkeys(names) if not name or name not in modules]
    if not unknown:
        return
    known = [name for name in modules if name]
    said = []
    for name in unknown:
        near = nearest(name, known)
        hint = f"the nearest names are {some(near)}" if near else f"it has {some(known)}"
        said.append(f"{name or '(no name)'}: {hint}")
    raise InputError(f"the network has no layer {'; no layer '.join(said)}")


def _unfit(name: str, given: Any, n_samples: int) -> str:
    found = kind_of(given)
    if type(given) in (tuple, list):
        found += f" of {some([kind_of(part) for part in given]) or 'nothing'}"
    return (
        f"layer {name} gives no feature map, token sequence or vector for each of {n_samples} "
        f"samples, but {found}: name a layer inside or after it"
    )
