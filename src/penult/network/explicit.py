"""Explicit head: one linear map for logits that several layers, or none, compute from a vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penult.network.calling import Example, call_model, evaluating, first_tensor, layer_named
from penult.network.find import find_head
from penult.network.head import Head, HeadNotFound, two_classes
from penult.network.linear_maps import close, wide
from penult.network.watch import logits_of, run_hooked, tensors_of

NAME = "head"
_MOST_POINTS = 24
_MOST_OUTPUTS = 50_000


@dataclass(frozen=True)
class Reading:
    """Which vector of a network its logits are linear in.

    Attributes:
        layer: dotted name of a module.
        side: "input" or "output" of the module.
        normalised: divided by its length.
    """

    layer: str
    side: str
    normalised: bool = False

    def __str__(self) -> str:
        vector = f"the {self.side} of {self.layer or 'the network'}"
        return f"{vector} divided by its length" if self.normalised else vector

    def of(self, values: Tensor) -> Tensor:
        """(n_samples, n_features) of what the module read or gave."""
        rows = values.flatten(1)
        return F.normalize(rows, dim=1) if self.normalised else rows

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Reading:
        """Of what `to_json` gave."""
        return cls(str(fields["layer"]), str(fields["side"]), bool(fields["normalised"]))


class ExplicitHead(nn.Module):
    """A network that gives its logits by one linear layer `head` of a vector inside it.

    The network runs as it is; what it makes of the vector itself is not used.

    Args:
        network: the network.
        reading: which vector.
        weight: (n_classes, n_features).
        bias: (n_classes,).
    """

    def __init__(self, network: nn.Module, reading: Reading, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.network = network
        self.reading = reading
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        self.head.requires_grad_(True)
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)
        self.train(network.training)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Logits (n_samples, n_classes)."""
        seen: list[Tensor] = []
        handle = _hook(self.network, self.reading, seen.append)
        try:
            self.network(*args, **kwargs)
        finally:
            handle.remove()
        logits: Tensor = self.head(self.reading.of(seen[-1]).to(self.head.weight.dtype))
        return logits


@dataclass(frozen=True)
class Found:
    """A network whose head is known.

    Attributes:
        network: as it was given, or as an `ExplicitHead`.
        head: its final linear map.
        reading: of the explicit head, None without.
        said: what was done, for a person; "" where nothing was.
    """

    network: nn.Module
    head: Head
    reading: Reading | None = None
    said: str = ""


def find_or_make_head(
    model: nn.Module, example: Example, *, name: str | None = None, n_classes: int | None = None
) -> Found:
    """Find a network's head; where no single layer is it, make one if the logits allow it.

    Logits that are linear in a vector of the network (of features divided by their length as
    cosine heads have it, through an adapter, from several layers together) are given by an explicit
    head whose weights are those of all that follows. One logit becomes two classes, the first with
    the logit 0. Both are checked on other vectors than the example's.

    Args:
        model, example, name, n_classes: see `find_head`.

    Raises:
        HeadNotFound: see `find_head`.
    """
    try:
        head = find_head(model, example, name=name, n_classes=n_classes)
    except HeadNotFound:
        found = _from_logits(model, example, name, n_classes)
        if found is None:
            raise
        return found
    if head.n_classes > 1 or head.reduce != "none":
        return Found(model, head)
    reading = Reading(head.name, "input")
    return _made(model, reading, head.weight, head.bias, head.verified)


def _from_logits(
    model: nn.Module, example: Example, name: str | None, n_classes: int | None
) -> Found | None:
    for index, target in enumerate(_in_order(logits_of(_run(model, example)), n_classes)):
        probe = _Probe(model, example, n_classes, index)
        if target.shape[1] * len(target) > _MOST_OUTPUTS:
            continue
        for reading in _points(model, example):
            if name is not None and (reading.layer, reading.side) != (name, "input"):
                continue
            for one in (reading, replace(reading, normalised=True)):
                map_ = probe.linear_map(one)
                if map_ is not None and _holds_alone(probe, model, example, one, map_):
                    return _made(model, one, *map_, verified=True)
    return None


def _holds_alone(
    probe: _Probe,
    model: nn.Module,
    example: Example,
    reading: Reading,
    map_: tuple[Tensor, Tensor],
) -> bool:
    """Whether the map gives the logits of other batches too: it may hide what a batch shares."""
    if not isinstance(example, Tensor) or len(example) < 2:
        return True
    network = ExplicitHead(model, reading, *map_).to(example.device)
    for part in (example[:-1], example[-1:]):
        try:
            with torch.no_grad(), evaluating(network):
                expected = probe.of(model(part))
                found = network(part)
        # Not every network takes one image alone.
        except (RuntimeError, IndexError, ValueError, AssertionError):
            continue
        size = float(expected.abs().max())
        if not close(found, expected.reshape(found.shape), scale=found.abs() + size, products=True):
            return False
    return True


def _made(
    model: nn.Module,
    reading: Reading,
    weight: Tensor,
    bias: Tensor,
    verified: bool,
) -> Found:
    said = (
        f"no single layer gives the logits, but they are linear in {reading}: this is taken as the "
        "features, and all that follows as one head"
    )
    if len(weight) == 1:
        weight, bias = two_classes(weight, bias)
        said = (
            "the network gives one logit: it is analysed as two classes, the first with the logit 0"
        )
    parameter = next(model.parameters(), weight)
    network = ExplicitHead(model, reading, weight, bias).to(parameter.device)
    w, b = (t.detach().to("cpu", torch.float32).contiguous() for t in (weight, bias))
    return Found(network, Head(NAME, w, b, verified=verified), reading, said)


class _Probe:
    """A network whose logits are tried on vectors of one's own choice."""

    def __init__(
        self, model: nn.Module, example: Example, n_classes: int | None, index: int
    ) -> None:
        self.model, self.example = model, example
        self._n_classes, self._index = n_classes, index

    def logits(self, reading: Reading, vectors: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Logits with other vectors in the place of the network's own."""
        handle = None
        if vectors is not None:
            handle = _hook(self.model, replace(reading, normalised=False), None, vectors)
        try:
            with evaluating(self.model):
                output = call_model(self.model, self.example)
        finally:
            if handle is not None:
                handle.remove()
        return self.of(output)

    def of(self, output: Any) -> Tensor:
        """The logits that are meant, of the network's output."""
        targets = _in_order(logits_of([*tensors_of(output)]), self._n_classes)
        return targets[self._index]

    def linear_map(self, reading: Reading) -> tuple[Tensor, Tensor] | None:
        """Weight and bias by which the logits follow from a vector, if they do."""
        try:
            with torch.no_grad():
                own = self._own(reading)
                if own is None or not self._plausible(reading, own):
                    return None
            weight, bias = self._jacobian(reading, own)
            with torch.no_grad():
                return (weight, bias) if self._holds(reading, own, weight, bias) else None
        # A network may fail in any way on vectors that it never had.
        except (RuntimeError, IndexError, ValueError, AssertionError, TypeError):
            return None

    def _own(self, reading: Reading) -> Tensor | None:
        seen: list[Tensor] = []
        handle = _hook(self.model, replace(reading, normalised=False), seen.append)
        try:
            self.logits(reading, None)
        finally:
            handle.remove()
        return seen[0].flatten(1).clone() if len(seen) == 1 else None

    def _noise(self, like: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(like.shape, generator=generator).to(like)
        return noise * (float(like.square().mean().sqrt()) or 1.0)

    def _plausible(self, reading: Reading, own: Tensor) -> bool:
        """Whether the logits depend on the vector alone, and are affine in it, on a few."""
        a, b = self._noise(own[:1], 1), self._noise(own[:1], 2)
        at_a = self.logits(reading, lambda z: a.expand_as(z.flatten(1)).view_as(z))
        if not close(at_a, at_a[:1].expand_as(at_a), products=True):
            return False
        middle = 3 * a if reading.normalised else (a + b) / 2
        at_b = self.logits(reading, lambda z: b.expand_as(z.flatten(1)).view_as(z))
        between = self.logits(reading, lambda z: middle.expand_as(z.flatten(1)).view_as(z))
        expected = at_a if reading.normalised else (at_a + at_b) / 2
        scale = torch.maximum(at_a.abs(), at_b.abs())
        return close(between, expected, scale=scale, products=True) and not close(at_a, at_b)

    def _jacobian(self, reading: Reading, own: Tensor) -> tuple[Tensor, Tensor]:
        """The affine map's weight and bias, from derivatives at one vector."""
        start = self._noise(own[:1], 3).requires_grad_(True)
        with torch.enable_grad():
            logits = self.logits(reading, lambda z: start.expand_as(z.flatten(1)).view_as(z))[0]
            grads = [torch.autograd.grad(logit, start, retain_graph=True)[0][0] for logit in logits]
        slope, at, values = torch.stack(grads).detach(), start.detach()[0], logits.detach()
        if not reading.normalised:
            return slope, values - slope @ at
        with torch.no_grad():
            opposite = self.logits(reading, lambda z: -at.expand_as(z.flatten(1)).view_as(z))[0]
        bias = (values + opposite) / 2
        # The derivative along the vector is 0; what it hides is the logit itself.
        unit = at / at.norm()
        return slope * at.norm() + torch.outer(values - bias, unit), bias

    def _holds(self, reading: Reading, own: Tensor, weight: Tensor, bias: Tensor) -> bool:
        size = weight.abs().amax(1, keepdim=True)
        # A logit that is one number of the vector is the logit itself, or a factor of it.
        if bool((weight.abs() > 1e-6 * size).sum(1).le(1).all()):
            return False
        for vectors in (own, self._noise(own, 4)):
            found = self.logits(reading, lambda z, v=vectors: v.view_as(z))  # type: ignore[misc]
            z = wide(reading.of(vectors))
            expected = F.linear(z, wide(weight), wide(bias)).to(found.dtype)
            scale = F.linear(z.abs(), wide(weight).abs(), wide(bias).abs())
            if not close(found, expected, scale=scale, products=True):
                return False
        return True


def _points(model: nn.Module, example: Example) -> list[Reading]:
    """Vectors of a network, one per sample, the last first; of modules that run once."""
    found: list[tuple[Reading, int]] = []
    calls: dict[str, int] = {}

    def note(name: str) -> Any:
        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            values = first_tensor(args, kwargs)
            if _is_vector(values):
                found.append((Reading(name, "input"), id(values)))

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and _is_vector(output):
                found.append((Reading(name, "output"), id(output)))

        return before, after

    inner = {m: note(name) for name, m in model.named_modules() if name}
    scripted = {m for m in inner if isinstance(m, torch.jit.ScriptModule)}
    run_hooked(model, example, {m: hooks for m, hooks in inner.items() if m not in scripted})
    once = [reading for reading, _ in found if calls[reading.layer] == 1]
    return once[::-1][:_MOST_POINTS]


def _is_vector(values: Tensor | None) -> bool:
    if values is None or values.ndim < 2 or not values.is_floating_point() or not len(values):
        return False
    return values[0].numel() == max(values.shape[1:]) > 1


def _hook(
    model: nn.Module,
    reading: Reading,
    note: Callable[[Tensor], None] | None = None,
    change: Callable[[Tensor], Tensor] | None = None,
) -> Any:
    """Note the vector of a reading at each run, or put another in its place."""
    layer = layer_named(model, reading.layer)

    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        values = first_tensor(args, kwargs)
        assert values is not None
        if note is not None:
            note(values)
        if change is None:
            return None
        new = change(values)
        swapped = tuple(new if v is values else v for v in args)
        return swapped, {key: new if v is values else v for key, v in kwargs.items()}

    def after(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
        if note is not None:
            note(output)
        return None if change is None else change(output)

    if reading.side == "input":
        return layer.register_forward_pre_hook(before, with_kwargs=True)
    return layer.register_forward_hook(after, with_kwargs=True)


def _run(model: nn.Module, example: Example) -> list[Tensor]:
    return [*tensors_of(run_hooked(model, example, {}))]


def _in_order(targets: list[Tensor], n_classes: int | None) -> list[Tensor]:
    """Those with the asked number of classes first (one logit is two), then the widest kinds."""
    wanted = {n_classes, 1 if n_classes == 2 else n_classes}
    return sorted(targets, key=lambda t: (t.shape[1] not in wanted, t.shape[1] == 1))
