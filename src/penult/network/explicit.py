"""Explicit head: one linear map for logits that several layers, or none, compute from a vector."""

from __future__ import annotations

import warnings
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
_MOST_POINTS = 12
_LATEST = 40
_MOST_OUTPUTS = 50_000


@dataclass(frozen=True)
class Reading:
    """Which vector of a network its logits are linear in.

    Attributes:
        layer: dotted name of a module.
        side: "input" or "output" of the module.
        normalised: divided by its length.
        reduce: "none", or "mean" over the positions of maps or tokens.
    """

    layer: str
    side: str
    normalised: bool = False
    reduce: str = "none"

    def __str__(self) -> str:
        vector = f"the {self.side} of {self.layer or 'the network'}"
        if self.reduce == "mean":
            vector = f"the mean of {vector} over its positions"
        return f"{vector} divided by its length" if self.normalised else vector

    def of(self, values: Tensor) -> Tensor:
        """(n_samples, n_features) of what the module read or gave."""
        if values.ndim == 1:  # one image alone, whose axis of samples was squeezed away
            values = values[None]
        if self.reduce == "mean":
            rows = values.flatten(2).mean(2) if values.ndim == 4 else values.mean(1)
        else:
            rows = values.flatten(1)
        return F.normalize(rows, dim=1) if self.normalised else rows

    def spread(self, vector: Tensor, values: Tensor) -> Tensor:
        """What the module would read or give if each sample had one vector, (1, n_features)."""
        if values.ndim == 4:
            return vector[:, :, None, None].expand(values.shape)
        return (
            vector[:, None].expand(values.shape) if values.ndim == 3 else vector.expand_as(values)
        )

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Reading:
        """Of what `to_json` gave."""
        return cls(
            str(fields["layer"]),
            str(fields["side"]),
            bool(fields["normalised"]),
            str(fields["reduce"]),
        )


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
        logits: Tensor = self.head(self.reading.of(seen[-1]).float())
        return logits


@dataclass(frozen=True)
class FoundHead:
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
) -> FoundHead:
    """Find a network's head; where no single layer is it, make one if the logits allow it.

    Logits that are linear in a vector of the network (of features divided by their length as
    cosine heads have it, through an adapter, from several layers together) are given by an explicit
    head whose weights are those of all that follows. One logit becomes two classes, the first with
    the logit 0. Both are checked on other vectors than the example's. Of a network that ends in a
    softmax or a sigmoid, the logits are what the last layer gives before it.

    Args:
        model, example, name, n_classes: see `find_head`.

    Raises:
        HeadNotFound: see `find_head`.
    """
    said = ""
    try:
        head = find_head(model, example, name=name, n_classes=n_classes)
    except HeadNotFound as error:
        found = _from_logits(model, example, name, n_classes)
        if found is not None:
            return found
        if error.squashed is None:
            raise
        layer, by = error.squashed
        said = f"the network ends in {by}: what {layer} gives before it is taken as the logits"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what becomes of the logits is said here
            head = replace(find_head(model, example, name=layer), verified=True)
    if head.n_classes > 1 or head.reduce != "none":
        return FoundHead(model, head, said=said)
    reading = Reading(head.name, "input")
    return _made(model, reading, head.weight, head.bias, head.verified)


def _from_logits(
    model: nn.Module, example: Example, name: str | None, n_classes: int | None
) -> FoundHead | None:
    points = _points(model, example, name)
    short: FoundHead | None = None
    for index, target in enumerate(_in_order(logits_of(_run(model, example)), n_classes)):
        probe = _Probe(model, example, n_classes, index)
        if target.shape[1] * len(target) > _MOST_OUTPUTS:
            continue
        for reading, own in points:
            for one in (reading, replace(reading, normalised=True)):
                map_ = probe.linear_map(one, own)
                if map_ is None or not _holds_alone(probe, model, example, one, map_):
                    continue
                made = _made(model, one, *map_, verified=True)
                if map_[0].shape[1] > target.shape[1]:
                    return made
                # Perhaps the logits themselves, of which the network makes others.
                short = short or made
    return short


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
) -> FoundHead:
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
    return FoundHead(network, Head(NAME, w, b, verified=verified), reading, said)


class _Probe:
    """A network whose logits are tried on vectors of one's own choice."""

    def __init__(
        self, model: nn.Module, example: Example, n_classes: int | None, index: int
    ) -> None:
        self.model, self.example = model, example
        self._n_classes, self._index = n_classes, index

    def logits(self, reading: Reading, values: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits with other values in the place of what the network's module reads or gives."""
        handle = _hook(self.model, reading, None, values)
        try:
            with evaluating(self.model):
                return self.of(call_model(self.model, self.example))
        finally:
            handle.remove()

    def of(self, output: Any) -> Tensor:
        """The logits that are meant, of the network's output."""
        targets = _in_order(logits_of([*tensors_of(output)]), self._n_classes)
        return targets[self._index]

    def linear_map(self, reading: Reading, own: Tensor) -> tuple[Tensor, Tensor] | None:
        """Weight and bias by which the logits follow from a vector, if they do.

        Args:
            reading: the vector.
            own: what the module reads or gives on the example.
        """
        try:
            with torch.no_grad():
                if not self._plausible(reading, own):
                    return None
            weight, bias = self._jacobian(reading, own)
            with torch.no_grad():
                return (weight, bias) if self._holds(reading, own, weight, bias) else None
        # A network may fail in any way on values that it never had.
        except (RuntimeError, IndexError, ValueError, AssertionError, TypeError):
            return None

    def _at(self, reading: Reading, vector: Tensor) -> Tensor:
        return self.logits(reading, lambda values: reading.spread(vector, values))

    def _vector(self, reading: Reading, own: Tensor, seed: int) -> Tensor:
        return _noise(replace(reading, normalised=False).of(own)[:1], seed)

    def _plausible(self, reading: Reading, own: Tensor) -> bool:
        """Whether the logits depend on the vector alone, and are affine in it, on a few."""
        a, b = self._vector(reading, own, 1), self._vector(reading, own, 2)
        at_a = self._at(reading, a)
        if not close(at_a, at_a[:1].expand_as(at_a), products=True):
            return False
        if reading.normalised:
            return close(self._at(reading, 3 * a), at_a, products=True)
        at_b, between = self._at(reading, b), self._at(reading, (a + b) / 2)
        scale = torch.maximum(at_a.abs(), at_b.abs())
        return close(between, (at_a + at_b) / 2, scale=scale, products=True)

    def _jacobian(self, reading: Reading, own: Tensor) -> tuple[Tensor, Tensor]:
        """The affine map's weight and bias, from derivatives at one vector."""
        start = self._vector(reading, own, 3).requires_grad_(True)
        with torch.enable_grad():
            logits = self._at(reading, start)[0]
            grads = [torch.autograd.grad(one, start, retain_graph=True)[0][0] for one in logits]
        slope, at, values = torch.stack(grads).detach(), start.detach()[0], logits.detach()
        if not reading.normalised:
            return slope, values - slope @ at
        with torch.no_grad():
            bias = (values + self._at(reading, -at[None])[0]) / 2
        # The derivative along the vector is 0; what it hides is the logit itself.
        unit = at / at.norm()
        return slope * at.norm() + torch.outer(values - bias, unit), bias

    def _holds(self, reading: Reading, own: Tensor, weight: Tensor, bias: Tensor) -> bool:
        size = weight.abs().amax(1, keepdim=True)
        # A logit that is one number of the vector is the logit itself, or a factor of it.
        if bool((weight.abs() > 1e-6 * size).sum(1).le(1).all()):
            return False
        for values in (own, _noise(own, 4)):
            found = self.logits(reading, lambda _, v=values: v)  # type: ignore[misc]
            z = wide(reading.of(values))
            expected = F.linear(z, wide(weight), wide(bias)).to(found.dtype)
            scale = F.linear(z.abs(), wide(weight).abs(), wide(bias).abs())
            if not close(found, expected, scale=scale, products=True):
                return False
        return True


def _noise(like: Tensor, seed: int) -> Tensor:
    """Noise as large as the values."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(like.shape, generator=generator).to(like)
    return noise * (float(like.square().mean().sqrt()) or 1.0)


def _points(model: nn.Module, example: Example, name: str | None) -> list[tuple[Reading, Tensor]]:
    """Vectors of a network, one per sample, the last first, with what its modules read or gave."""
    found: list[tuple[Reading, Tensor]] = []
    calls: dict[str, int] = {}

    def note(name: str) -> Any:
        def add(side: str, values: Any) -> None:
            if isinstance(values, Tensor) and (reduce := _reduce(values)):
                found.append((Reading(name, side, reduce=reduce), values.detach().clone()))

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            add("input", first_tensor(args, kwargs))

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            add("output", output)

        return before, after

    inner = {m: note(name) for name, m in model.named_modules() if name}
    scripted = {m for m in inner if isinstance(m, torch.jit.ScriptModule)}
    run_hooked(model, example, {m: hooks for m, hooks in inner.items() if m not in scripted})
    once = [point for point in found if calls[point[0].layer] == 1]
    if name is not None:
        return [p for p in once if (p[0].layer, p[0].side) == (name, "input")]
    # The first place of a vector is the one that all that read it later depend on.
    distinct: list[tuple[Reading, Tensor]] = []
    for reading, values in once[-_LATEST:]:
        if not any(v.shape == values.shape and torch.equal(v, values) for _, v in distinct):
            distinct.append((reading, values))
    return distinct[::-1][:_MOST_POINTS]


def _reduce(values: Tensor) -> str | None:
    """How values become one vector per sample, None where they cannot."""
    if not values.is_floating_point() or values.ndim < 2 or not values.numel():
        return None
    if values[0].numel() == max(values.shape[1:]):
        return "none" if values[0].numel() > 1 else None
    return "mean" if values.ndim in (3, 4) else None


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
