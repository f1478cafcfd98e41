"""All that touches a torch network: find its head, watch it, replace it; every edit reversible.

The head is found by running the network and watching, never by a list of names: it is the layer
whose output, shifted by noise, shifts the network's logits by just that noise.
"""

from __future__ import annotations

import dataclasses
import warnings

import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.network.calling import Example, call_model, device_of, evaluating, layer_named
from penult.network.head import Head, HeadNotFound
from penult.network.linear_maps import LinearMap, close, reduction
from penult.network.no_head import likely_reduce, reason, squashed
from penult.network.replace import Replacement, replace_head
from penult.network.tap import FeatureTap
from penult.network.watch import LinearLayer, NoiseRun, Watch, alike
from penult.text import some

__all__ = [
    "Example",
    "FeatureTap",
    "Head",
    "HeadNotFound",
    "Replacement",
    "call_model",
    "device_of",
    "evaluating",
    "find_head",
    "replace_head",
]

_HINT = "say which layer is meant (--head NAME on the command line, name= in Python)"


def find_head(
    model: nn.Module,
    example: Example,
    *,
    name: str | None = None,
    n_classes: int | None = None,
) -> Head:
    """Find the last linear map of a network, the one whose output is the network's logits.

    Runs the network a few times on the example, in evaluation mode and without gradients, and
    leaves it as it was. Any layer with a weight matrix of its own can be the head: linear layers,
    1 × 1 convolutions before or after pooling, custom ones.

    Args:
        model: the network.
        example: a small batch as the network takes it: a tensor (n_samples, ...), a mapping of
            keyword inputs, or a tuple of inputs.
        name: dotted name of the layer to use, also where its output is not the logits (the head is
            then not `verified`, and its own output is taken as the logits).
        n_classes: of the data, which decides between several outputs with heads of their own.

    Raises:
        HeadNotFound: no layer's output is the logits, or `name` is no linear map that ran.
        InputError: the network does not run on the example, or runs differently every time.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a torch.nn.Module, found {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("a TorchScript network cannot be watched: give the module it was made of")
    if isinstance(getattr(model, "_orig_mod", None), nn.Module):
        raise InputError(
            "a compiled network cannot be watched: give the module it was made of (model._orig_mod)"
        )
    watch = Watch(model, example)
    return _last(watch, n_classes) if name is None else _named(watch, name)


def _last(watch: Watch, n_classes: int | None) -> Head:
    """The head that the network's own output proves."""
    if not watch.targets:
        found = some(watch.outputs, 3) or "no tensor"
        raise _not_found(watch, f"the network gives no logits (n_samples, n_classes), but {found}")
    proofs = [_proof(watch, i) for i in range(len(watch.targets))]
    heads: list[tuple[LinearLayer, NoiseRun, int]] = []
    for target, proof in enumerate(proofs):
        if proof is None:
            continue
        layer, trial = proof
        others = [i for i, other in enumerate(proofs) if other and other[0] is not layer]
        # What feeds another output that has a head of its own is a hidden layer.
        moved = watch.trial(layer, alone=True).targets if others else []
        if all(alike(moved[i], watch.targets[i]) for i in others):
            heads.append((layer, trial, target))
    if heads:
        return _verified(watch, *_meant(heads, n_classes))
    raise _not_found(watch, reason(watch), squashed(watch))


def _meant(
    heads: list[tuple[LinearLayer, NoiseRun, int]], n_classes: int | None
) -> tuple[LinearLayer, NoiseRun, int]:
    """The head with the data's number of classes (one logit is two), else the first."""
    fits = {n_classes, 1 if n_classes == 2 else n_classes}
    in_order = sorted(heads, key=lambda one: (one[0].n_classes not in fits, one[0].n_classes < 2))
    layers = list(dict.fromkeys(layer for layer, _, _ in in_order))
    if len(layers) > 1:
        why = f", as the data has {n_classes} classes" if layers[0].n_classes in fits else ""
        warnings.warn(
            f"the network has {len(layers)} heads: {layers[0]} is taken{why}, not "
            f"{some([str(layer) for layer in layers[1:]])} (--head NAME takes another)",
            stacklevel=2,
        )
    return in_order[0]


def _named(watch: Watch, name: str) -> Head:
    """The head that a user names."""
    module = layer_named(watch.model, name)
    kind = type(module).__name__
    if module not in watch.ran:
        raise _not_found(watch, f"layer {name} ({kind}) did not run on the example")
    if module not in watch.layers:
        raise _not_found(watch, f"layer {name} is no linear map ({kind})")
    layer = dataclasses.replace(watch.layers[module], name=name)
    trial = watch.trial(layer)
    if trial.map is None:
        raise _not_found(watch, f"layer {name} ({kind}) is not linear in its input")
    for target, values in enumerate(trial.targets):
        if reduction(trial.shifted, values) is not None:
            return _verified(watch, layer, trial, target)
    return _head(name, trial.map, likely_reduce(watch, layer))


def _proof(watch: Watch, target: int) -> tuple[LinearLayer, NoiseRun] | None:
    """The layer whose output is a target, with the run that proves it."""
    for layer in watch.equal_to(watch.targets[target]):
        trial = watch.trial(layer)
        if trial.map is not None and reduction(trial.shifted, trial.targets[target]) is not None:
            return layer, trial
    return None


def _verified(watch: Watch, layer: LinearLayer, trial: NoiseRun, target: int) -> Head:
    """The head of a proof, run once more without noise to compare what it computes."""
    reduce = reduction(trial.shifted, trial.targets[target])
    assert trial.map is not None
    assert reduce is not None
    head = _head(layer.name, trial.map, reduce)
    with FeatureTap(watch.model, head) as tap:
        logits = watch.run()[target]
    terms = Head(head.name, head.weight.abs(), head.bias.abs())(tap.features.abs())
    # The head's weights are float32, the network rounds as coarsely as its layer's dtype.
    dtype = torch.float32 if logits.dtype == torch.float64 else tap.logits.dtype
    verified = close(head(tap.features).to(dtype), logits, scale=terms, products=True)
    return dataclasses.replace(head, verified=verified)


def _head(name: str, found: LinearMap, reduce: str) -> Head:
    return Head(name, _copy(found.weight), _copy(found.bias), reduce)


def _copy(values: Tensor) -> Tensor:
    return values.to("cpu", torch.float32, copy=True).contiguous()


def _not_found(watch: Watch, why: str, squashed: tuple[str, str] | None = None) -> HeadNotFound:
    hint = f": {_HINT}" if watch.layers and ": give" not in why else ""
    return HeadNotFound(f"{why}{hint}; {watch.listing()}", squashed)
