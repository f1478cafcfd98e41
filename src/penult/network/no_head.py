"""Why a network has no head: what becomes of the outputs of its last linear layers, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from penult.network.linear_maps import close, reduced, reduction, wide
from penult.network.reparametrised import is_quantised
from penult.network.watch import LinearLayer, NoiseRun, Watch, alike
from penult.text import some

_MOST_TRIALS = 16
_OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda t: t,
    "softmax": lambda t: t.softmax(-1),
    "log_softmax": lambda t: t.log_softmax(-1),
    "sigmoid": torch.sigmoid,
    "ReLU": F.relu,
    "tanh": torch.tanh,
    "GELU": F.gelu,
    "exp": torch.exp,
    "division by its length": lambda t: F.normalize(t, dim=-1),
}

_SQUASHING = ("softmax", "log_softmax", "sigmoid")


def reason(watch: Watch) -> str:
    """Why no layer's output is the first of the network's outputs."""
    quantised = [
        name for name, m in watch.model.named_modules() if m in watch.ran and is_quantised(m)
    ]
    if quantised and not watch.fitting(watch.targets[0].shape[1]):
        return (
            f"layer {quantised[-1]} is quantised: it rounds what it reads, so that no linear map "
            "gives its logits exactly; give the float network that was quantised"
        )
    before = watch.targets[0]
    shares: dict[LinearLayer, float] = {}
    reaching: list[LinearLayer] = []
    for layer in watch.fitting(before.shape[1])[::-1][:_MOST_TRIALS]:
        trial = watch.trial(layer, alone=True)
        after = trial.targets[0]
        direct = reduction(trial.shifted, after) is not None
        if direct and watch.trial(layer).map is None:
            kind = type(layer.module).__name__
            return f"the logits come from {layer}, a {kind} that is not linear in its input"
        follows = _operation(trial.shifted, after)
        if follows is not None and not direct:
            return f"the last linear layer, {layer}, is followed by {follows[0]}"
        share = _share(trial, after - before)
        if share is not None:
            shares[layer] = share[0]
        elif not alike(before, after):
            reaching.append(layer)
    if shares:
        return _mixture(shares)
    n_classes = before.shape[1]
    bare = _bare(watch, n_classes)
    wider = _wider(watch)
    made_of = _made_of(watch, wider) if wider else None
    if made_of:
        return made_of
    in_order = [*watch.layers.values()]
    if wider and reaching and in_order.index(wider) > in_order.index(reaching[0]):
        reaching = []
    if reaching:
        found = f"{reaching[0]} is followed by something that is not linear"
    else:
        logits = f"{n_classes} logits" if n_classes > 1 else "one logit"
        found = f"no linear layer gives the {logits}"
        if wider and not bare:
            found += f", which something else makes of the {wider.n_classes} outputs of {wider}"
    return found + (f"; {some(bare)} would fit but belongs to no layer that ran" if bare else "")


def squashed(watch: Watch) -> tuple[str, str] | None:
    """The last linear layer and what its outputs go through, where the same class is meant after.

    Returns:
        name of the layer, and one of `_SQUASHING`; None where it is something else.
    """
    for layer in watch.fitting(watch.targets[0].shape[1])[-1:]:
        trial = watch.trial(layer, alone=True)
        follows = _operation(trial.shifted, trial.targets[0])
        if follows is not None and follows[0] in _SQUASHING:
            return layer.name, follows[0]
    return None


def likely_reduce(watch: Watch, layer: LinearLayer) -> str:
    """How to reduce the positions of a layer whose output is not the logits."""
    trial = watch.trial(layer, alone=True)
    if trial.shifted.shape[1] == 1:
        return "none"
    for before, after in zip(watch.targets, trial.targets, strict=True):
        if after.shape[1] == layer.n_classes:
            found = _operation(trial.shifted, after) or _share(trial, after - before)
            return found[1] if found else "mean"
    return "mean"


def _operation(values: Tensor, target: Tensor) -> tuple[str, str] | None:
    """What turns rows into `target`, in words, and how it reduces the positions."""
    values = wide(values)
    for name, apply in _OPERATIONS.items():
        done = apply(values)
        direct = reduction(done, target)
        if direct == "none":
            return name, direct
        then = f"{name} and " if name else ""
        if direct is not None:
            over = "the mean over positions" if direct == "mean" else direct.replace(":", " ")
            return then + over, direct
        for words, result in (
            (f"{then}the sum over positions", done.sum(1)),
            (f"{then}the maximum over positions", done.amax(1)),
            (f"the mean over positions and {name}", apply(values.mean(1))),
        ):
            if close(result, target):
                return words, "mean"
    return None


def _share(trial: NoiseRun, change: Tensor) -> tuple[float, str] | None:
    """By what factor, and reduced how, the layer's noise came out at the end, if linearly."""
    n_positions = trial.noise.shape[1]
    positions = [f"position:{i}" for i in range(n_positions)]
    for reduce in ["none"] if n_positions == 1 else ["mean", *positions]:
        noise = reduced(trial.noise, reduce)
        if noise.shape != change.shape:
            return None
        factor = float((wide(noise) * wide(change)).sum() / wide(noise).square().sum())
        same = close(change, factor * noise, scale=trial.shifted.abs(), products=True)
        if same and abs(factor) > 0.02:
            return factor, reduce
    return None


def _mixture(shares: Mapping[LinearLayer, float]) -> str:
    """How the logits are put together from the outputs of layers, in words."""
    layers, factors = list(shares)[::-1], list(shares.values())[::-1]
    n = len(layers)
    if n > 1:
        usual = {"mean": 1 / n, "sum": 1.0}
        fits = [word for word, f in usual.items() if all(abs(g - f) < 0.05 * f for g in factors)]
        names = " and ".join(map(str, layers))
        return f"the logits are the {fits[0] if fits else 'weighted sum'} of {n} layers, {names}"
    layer, factor = layers[0], factors[0]
    if layer.calls > 1:
        return f"the logits mix the {layer.calls} outputs of {layer}, which runs that often"
    if abs(factor - 1) < 0.05:
        return f"something is added to the output of {layer}"
    return f"the output of {layer} is multiplied by {factor:.3g}"


def _wider(watch: Watch) -> LinearLayer | None:
    """The last layer with more outputs than there are logits that the logits depend on."""
    n_classes = watch.targets[0].shape[1]
    layers = [layer for layer in watch.layers.values() if layer.n_classes > n_classes]
    for layer in layers[::-1][:_MOST_TRIALS]:
        if not alike(watch.trial(layer, alone=True).targets[0], watch.targets[0]):
            return layer
    return None


def _made_of(watch: Watch, layer: LinearLayer) -> str | None:
    """How the logits are made of the outputs of a wider layer, in words."""
    trial = watch.trial(layer, alone=True)
    target = wide(trial.targets[0])
    n_positions, n_outputs = trial.shifted.shape[1:]
    for reduce in ["none"] if n_positions == 1 else ["mean", "position:0"]:
        outputs = reduced(wide(trial.shifted), reduce)
        kept = _columns(outputs, target)
        if kept is not None:
            return (
                f"the logits are {_numbers(kept)} of the {n_outputs} outputs of {layer}, cut out "
                "after it: give a network whose last layer has these outputs only, with their "
                "rows of its weight and bias"
            )
        for words, result in _joined(outputs, target.shape[1]):
            if close(result, target):
                return f"the logits are {words} of the {n_outputs} outputs of {layer}"
    return None


def _columns(outputs: Tensor, target: Tensor) -> Tensor | None:
    """Which of the outputs (n_samples, n_outputs) the target's columns are, if they all are."""
    errors = [(outputs - one[:, None]).abs().amax(0) for one in target.to(outputs.device).T]
    nearest = torch.stack([error.argmin() for error in errors])
    return nearest if close(outputs[:, nearest], target) else None


def _numbers(kept: Tensor) -> str:
    """Columns in words: a range where they are one."""
    first, last = int(kept[0]), int(kept[-1])
    if kept.tolist() == list(range(first, last + 1)):
        return f"numbers {first} to {last}" if last > first else f"number {first}"
    return f"numbers {some([str(one) for one in kept.tolist()], 4)}"


def _joined(outputs: Tensor, n_classes: int) -> Iterator[tuple[str, Tensor]]:
    """What is usually made of several outputs per class, in words."""
    n_parts, rest = divmod(outputs.shape[1], n_classes)
    if rest:
        return
    apart = outputs.reshape(-1, n_parts, n_classes)
    beside = outputs.reshape(-1, n_classes, n_parts).transpose(1, 2)
    for parts, where in ((apart, "parts"), (beside, "neighbours")):
        yield f"the sum of {n_parts} {where}", parts.sum(1)
        yield f"the mean of {n_parts} {where}", parts.mean(1)
        yield f"the maximum of {n_parts} {where}", parts.amax(1)
    if n_parts == 2:
        yield "the gated linear unit (GLU)", F.glu(outputs)


def _bare(watch: Watch, n_classes: int) -> list[str]:
    """Parameters that could be the head's weight but were used in no linear layer."""
    ran = [layer.name for layer in watch.layers.values()]
    return [
        f"parameter {name} {tuple(values.shape)}"
        for name, values in watch.model.named_parameters()
        if n_classes in values.shape
        and values.squeeze().ndim == 2
        and not any(name.startswith(f"{layer}.") for layer in ran)
    ]
