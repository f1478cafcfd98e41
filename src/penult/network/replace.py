"""Another head in the place of a network's own, and back again, bit for bit."""

from __future__ import annotations

from typing import Self

from torch import nn

from penult.errors import InputError
from penult.network.calling import layer_named, tensor_device
from penult.network.head import Head
from penult.network.linear_maps import (
    ChannelsFirst,
    channels_first,
    declared_size,
    possible_sizes,
    single_layer,
)
from penult.text import some


class Replacement:
    """A head put in the place of a network's own, from `replace_head`.

    As a context manager it restores the network on leaving, also after an error; without `with`, it
    stays until `restore`. What is done to the network meanwhile (moved, cast, trained) is not done
    to the layer that waits outside.
    """

    def __init__(self, model: nn.Module, name: str, new: nn.Module) -> None:
        self.name = name
        self.original = layer_named(model, name)
        self._new = ChannelsFirst(new) if channels_first(self.original) else new
        # A layer may be registered under several names; `named_modules` would show one of them.
        self._slots = [
            (parent, key)
            for parent in model.modules()
            for key, child in parent._modules.items()
            if child is self.original
        ]
        self._active = True
        self._put(self._new)

    def restore(self) -> None:
        """Put the network's own layer back, the very same object; nothing where it is back already.

        Raises:
            InputError: the layer was replaced by something else since.
        """
        if not self._active:
            return
        if any(parent._modules[key] is not self._new for parent, key in self._slots):
            raise InputError(
                f"layer {self.name} was replaced again since: restore the later replacement first"
            )
        self._put(self.original)
        self._active = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()

    def _put(self, module: nn.Module) -> None:
        for parent, key in self._slots:
            parent.register_module(key, module)


def replace_head(model: nn.Module, new: nn.Module, at: Head | str | None = None) -> Replacement:
    """Put `new` in the place of a network's final layer, at once; reversible.

    `with replace_head(model, sparse): ...` restores the network on leaving: the very same layer
    object is back, untouched. Without `with` the replacement stays until its `restore()`.

    Args:
        model: the network.
        new: maps (..., n_features) to (..., n_classes); its parameters become the network's. In the
            place of a 1 × 1 convolution it is wrapped to read its channels first. It is not moved:
            put it on the network's device.
        at: the layer's head or dotted name; where None, `new.layer`, otherwise the only layer of
            the same size.

    Raises:
        InputError: no such layer, several that fit, another size or another device.
    """
    size = declared_size(new)
    if at is None:
        layer = getattr(new, "layer", None)
        at = layer if layer and isinstance(layer, str) else _only_layer(model, size)
    name, head = (at.name, at) if isinstance(at, Head) else (at, None)
    old = layer_named(model, name)
    if old is model:
        raise InputError(
            "the network itself is the linear layer and cannot be replaced inside itself: "
            "use the new head in its place"
        )
    sizes = {(head.n_classes, head.n_features)} if head else possible_sizes(old)
    if size is not None and size not in sizes:
        found = " or ".join(f"{f} features to {c} classes" for c, f in sorted(sizes))
        raise InputError(
            f"the new head maps {size[1]} features to {size[0]} classes, layer {name} "
            + (f"maps {found}" if sizes else f"is no linear map ({type(old).__name__})")
        )
    here, there = tensor_device(new), tensor_device(old)
    if here is not None and there is not None and here != there:
        raise InputError(
            f"the new head is on {here}, layer {name} on {there}: move it with .to('{there}')"
        )
    return Replacement(model, name, new)


def _only_layer(model: nn.Module, size: tuple[int, int] | None) -> str:
    if size is None:
        raise InputError(
            "the new head does not say its size (n_classes, n_features): "
            "say which layer it replaces with at="
        )
    fitting: list[str] = []
    other: list[str] = []
    for name, module in model.named_modules():
        sizes = possible_sizes(module) if name and single_layer(module) else set()
        (fitting if size in sizes else other if sizes else []).append(name)
    if len(fitting) == 1:
        return fitting[0]
    wanted = f"from {size[1]} features to {size[0]} classes"
    raise InputError(
        f"{len(fitting) or 'no'} layers map {wanted}, as the new head does: "
        f"say which one it replaces with at=, one of {some((fitting or other)[::-1])}"
    )
