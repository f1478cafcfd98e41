"""A network run on an example: its layers that could be linear, and what noise in one does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.network.calling import Example, call_model, evaluating, first_tensor, kind_of
from penult.network.head import NotFiniteError
from penult.network.linear_maps import (
    LinearMap,
    close,
    linear_map,
    possible_weights,
    reduction,
    rows,
)
from penult.text import some


class DoesNotRun(InputError):  # noqa: N818
    """A network fails on the example."""


Hooks = tuple[Callable[..., Any] | None, Callable[..., Any]]


@dataclass(frozen=True, eq=False)
class LinearLayer:
    """A module that ran and, judged by shapes, could be linear."""

    name: str
    module: nn.Module
    n_classes: int
    n_features: int
    calls: int

    def __str__(self) -> str:
        return f"{self.name or 'the network itself'} ({self.n_classes}, {self.n_features})"


@dataclass(frozen=True, eq=False)
class NoiseRun:
    """One run in which noise was added to the output of a layer's last call.

    Args:
        map: the linear map that took the layer from its input to its output, if one did.
        noise: what was added, (n_samples, n_positions, n_classes).
        shifted: output and noise, the same shape.
        targets: what could be logits in the network's output.
    """

    map: LinearMap | None
    noise: Tensor
    shifted: Tensor
    targets: list[Tensor]


class Watch:
    """A network, an example, and what is seen when the one runs on the other.

    Attributes:
        ran: the modules that ran.
        layers: those that could be linear, in the order of their first call.
        outputs: dtype and shape of what the network gave.
        targets: those of them that can be logits, (n_samples, n_classes).

    Raises:
        InputError: the network does not run on the example, or differently every time.
    """

    def __init__(self, model: nn.Module, example: Example) -> None:
        self.model, self.example = model, example
        self.ran: set[nn.Module] = set()
        self.layers: dict[nn.Module, LinearLayer] = {}
        found = self._run(self._watchers())
        self.outputs = [kind_of(values) for values in found]
        self.targets = logits_of(found)
        if not all(bool(target.isfinite().all()) for target in self.targets):
            raise NotFiniteError("the network gives NaN or infinite logits on the example")
        if not all(map(alike, self.targets, self.run())):
            raise InputError(
                "the network is random in evaluation mode: two runs on the same example differ; "
                "make it repeatable first (dropout or noise that ignores the training flag?)"
            )

    def run(self, hooks: Mapping[nn.Module, Hooks] | None = None) -> list[Tensor]:
        """Targets of one more run, with hooks before (or None) and after some modules."""
        return logits_of(self._run(hooks or {}))

    def equal_to(self, target: Tensor) -> list[LinearLayer]:
        """Layers whose output equals a target, the last first; not yet a proof."""
        equal: list[LinearLayer] = []

        def compare(layer: LinearLayer) -> Hooks:
            def after(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
                x = first_tensor(args, kwargs)
                assert x is not None
                axis, _ = possible_weights(module, x, output)
                if reduction(rows(output, axis), target) is not None:
                    equal.append(layer)

            return None, after

        self.run({layer.module: compare(layer) for layer in self.fitting(target.shape[1])})
        return list(dict.fromkeys(reversed(equal)))

    def fitting(self, n_classes: int) -> list[LinearLayer]:
        """Layers with so many classes, in the order of their first call."""
        return [layer for layer in self.layers.values() if layer.n_classes == n_classes]

    def trial(self, layer: LinearLayer, *, alone: bool = False) -> NoiseRun:
        """Run with noise added to the output of the layer's last call.

        Unless `alone`, its input gets noise too, so that the map is tried on other inputs than the
        example's, and so does every output of a layer as wide, so that none of them can have a
        part in the logits that happens to be zero on the example.
        """
        generator = torch.Generator().manual_seed(0)
        calls = 0
        seen: list[tuple[LinearMap | None, Tensor, Tensor]] = []

        def shake(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
            return output + _noise(output, generator)

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            nonlocal calls
            calls += 1
            x = first_tensor(args, kwargs)
            if alone or calls < layer.calls or x is None:
                return None
            y = x + _noise(x, generator)
            swapped = tuple(y if v is x else v for v in args)
            return swapped, {key: y if v is x else v for key, v in kwargs.items()}

        def after(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
            if calls < layer.calls:
                return None if alone else output + _noise(output, generator)
            x = first_tensor(args, kwargs)
            assert x is not None
            axis, _ = possible_weights(module, x, output)
            shifted = output + _noise(output, generator)
            noise = rows(shifted - output, axis)
            seen.append((linear_map(module, x, output), noise, rows(shifted, axis).clone()))
            return shifted

        others = [] if alone else self.fitting(layer.n_classes)
        hooks: dict[nn.Module, Hooks] = {other.module: (None, shake) for other in others}
        targets = self.run({**hooks, layer.module: (before, after)})
        return NoiseRun(*seen[0], targets)

    def listing(self) -> str:
        """The layers that could be meant, those with the logits' number of classes first."""
        n_classes = {target.shape[1] for target in self.targets}
        last_first = [*self.layers.values()][::-1]
        layers = sorted(last_first, key=lambda layer: layer.n_classes not in n_classes)
        names = some([str(layer) for layer in layers])
        return f"linear layers that ran: {names}" if layers else "no linear layer ran"

    def _watchers(self) -> dict[nn.Module, Hooks]:
        def watch(name: str) -> Hooks:
            def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
                self.ran.add(module)
                x = first_tensor(args, kwargs)
                if x is None or not isinstance(output, Tensor):
                    return
                _, weights = possible_weights(module, x, output)
                if weights:
                    old = self.layers.get(module)
                    n_classes, n_features = weights[0].shape
                    calls = old.calls + 1 if old else 1
                    self.layers[module] = LinearLayer(name, module, n_classes, n_features, calls)

            return None, after

        modules = self.model.named_modules()
        return {m: watch(name) for name, m in modules if not isinstance(m, torch.jit.ScriptModule)}

    def _run(self, hooks: Mapping[nn.Module, Hooks]) -> list[Tensor]:
        return list(tensors_of(run_hooked(self.model, self.example, hooks)))


def run_hooked(model: nn.Module, example: Example, hooks: Mapping[nn.Module, Hooks]) -> Any:
    """Output of a network in evaluation mode, with hooks before (or None) and after some modules.

    Raises:
        InputError: the network does not run on the example.
    """
    handles = []
    try:
        for module, (before, after) in hooks.items():
            if before is not None:
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True))
        with evaluating(model), torch.no_grad():
            return call_model(model, example)
    except InputError:
        raise
    except Exception as error:
        first, *_ = str(error).strip().splitlines() or [""]
        raise DoesNotRun(
            f"the network does not run on the example ({_described(example)}): "
            f"{type(error).__name__}: {first}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def alike(a: Tensor, b: Tensor) -> bool:
    """Whether two runs of a network gave the same, up to what devices add in differing order."""
    return close(a, b, products=True)


def tensors_of(output: Any) -> Iterator[Tensor]:
    """The floating tensors of a network's output, its `logits` alone where it names some."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        yield from tensors_of(output.get("logits", list(output.values())))
    elif isinstance(output, (tuple, list)):
        for part in output:
            yield from tensors_of(part)
    elif dataclasses.is_dataclass(output):
        yield from tensors_of(vars(output))


def logits_of(tensors: list[Tensor]) -> list[Tensor]:
    """Those that can be logits, as (n_samples, n_classes); one number per sample is one logit."""
    lengths = {len(values) for values in tensors if values.ndim >= 2}
    found = []
    for values in tensors:
        if values.ndim == 1 and len(values) and (not lengths or len(values) in lengths):
            found.append(values[:, None])
        elif values.ndim >= 2 and len(values) and values[0].numel() == max(values.shape[1:]) > 0:
            found.append(values.flatten(1))
    return found


def _noise(values: Tensor, generator: torch.Generator) -> Tensor:
    """Noise as large as the values."""
    noise = torch.randn(values.shape, generator=generator)
    return noise.to(values) * (float(values.abs().max()) or 1.0)


def _described(example: Example) -> str:
    if isinstance(example, Mapping):
        return some([f"{key}: {kind_of(value)}" for key, value in example.items()])
    return some([kind_of(v) for v in ([example] if isinstance(example, Tensor) else example)])
