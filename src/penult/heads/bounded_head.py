"""BoundedHead: a linear head from which what exceeds a bound along a direction is taken away."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penult.errors import InputError
from penult.network.head import Head
from penult.network.linear_maps import wide
from penult.network.link import SOFTMAX
from penult.storage import read_tensors, write_tensors

FORMAT = "penult-bounded-head/1"


@dataclass(frozen=True, eq=False)
class BoundedHead(Head):
    """A head with bounds: `logits = W z + b − S relu(V z − t)`.

    Up to its bound a direction counts as in the linear head; what exceeds it is taken away. So a
    feature that is only misleading where it is very high can be tamed without being lost
    (Neuhaus et al. 2023, *Spurious Features Everywhere*: SpuFix).

    Args:
        directions: V (n_bounds, n_features); a unit vector for a single feature.
        bounds: t (n_bounds,).
        scales: S (n_classes, n_bounds); W[c, j] takes feature j of class c away altogether.
    """

    directions: Tensor = field(default_factory=lambda: torch.zeros(0, 0), repr=False)
    bounds: Tensor = field(default_factory=lambda: torch.zeros(0), repr=False)
    scales: Tensor = field(default_factory=lambda: torch.zeros(0, 0), repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        n = len(self.bounds)
        expected = ((n, self.n_features), (n,), (self.n_classes, n))
        found = tuple(tuple(t.shape) for t in (self.directions, self.bounds, self.scales))
        if found != expected:
            raise InputError(
                "expected directions (n_bounds, n_features), bounds (n_bounds,) and scales "
                f"(n_classes, n_bounds), found {', '.join(map(str, found))}"
            )

    @property
    def n_bounds(self) -> int:
        """Number of bounds."""
        return len(self.bounds)

    def fingerprint(self) -> str:
        """Name, and a hash of all that decides the logits."""
        if not self.n_bounds:
            return super().fingerprint()
        digest = hashlib.blake2b(digest_size=8)
        for tensor in (self.weight, self.bias, self.directions, self.bounds, self.scales):
            digest.update(tensor.contiguous().numpy().tobytes())
        link = f" {self.link}" if self.multi_label else ""
        return f"{self.name or 'given'} {digest.hexdigest()}{link}"

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (n_samples, n_classes) of features (n_samples, n_features), at least float32."""
        z = wide(features)
        logits = F.linear(z, self.weight.to(z), self.bias.to(z))
        if not self.n_bounds:
            return logits
        excess = F.relu(F.linear(z, self.directions.to(z), -self.bounds.to(z)))
        return logits - F.linear(excess, self.scales.to(z))

    def module(self) -> BoundedLinear:
        """The same head as a layer, to be put in a network with `replace_head`."""
        return BoundedLinear(self)

    def save(self, path: str | Path, class_names: Sequence[str] | None = None) -> None:
        """Write a head file of format `penult-bounded-head/1`."""
        notes = {"format": FORMAT, "layer": self.name, "reduce": self.reduce}
        notes["verified"] = json.dumps(self.verified)
        if class_names is not None:
            notes["class_names"] = json.dumps(list(class_names), ensure_ascii=False)
        if self.kept is not None:
            notes |= {"kept": json.dumps(self.kept), "n_outputs": str(self.n_outputs)}
        if self.multi_label:
            notes["link"] = self.link
        names = ("weight", "bias", "directions", "bounds", "scales")
        write_tensors(Path(path), {name: getattr(self, name) for name in names}, notes)

    @classmethod
    def load(cls, path: str | Path) -> BoundedHead:
        """Read a head file.

        Raises:
            InputError: absent, truncated, of another format, or tensors that do not fit together.
        """
        names = ("weight", "bias", "directions", "bounds", "scales")
        tensors, notes = read_tensors(Path(path), FORMAT, names)
        kept = tuple(map(int, json.loads(notes["kept"]))) if "kept" in notes else None
        return cls(
            notes.get("layer", ""),
            tensors["weight"],
            tensors["bias"],
            notes.get("reduce", "none"),
            json.loads(notes.get("verified", "false")),
            *(tensors[name] for name in names[2:]),
            kept=kept,
            n_outputs=None if kept is None else int(notes["n_outputs"]),
            link=notes.get("link", SOFTMAX),
        )


class BoundedLinear(nn.Module):
    """A layer for (..., n_features) that gives the logits of a `BoundedHead`.

    Made of two linear layers and a rectifier, so that every exporter knows it.
    """

    def __init__(self, head: BoundedHead) -> None:
        super().__init__()
        self.n_classes, self.n_features = head.n_classes, head.n_features
        self.layer = head.name
        self.linear = _layer(head.weight, head.bias)
        self.excess = _layer(head.directions, -head.bounds)
        self.taken = _layer(head.scales, None)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (..., n_classes)."""
        logits: Tensor = self.linear(features)
        if not self.excess.out_features:
            return logits
        taken: Tensor = self.taken(F.relu(self.excess(features)))
        return logits - taken


def bounded(head: Head) -> BoundedHead:
    """The same head with no bounds yet."""
    if isinstance(head, BoundedHead):
        return head
    none = head.weight.new_zeros
    return BoundedHead(
        *(head.name, head.weight, head.bias, head.reduce, head.verified),
        *(none(0, head.n_features), none(0), none(head.n_classes, 0)),
        kept=head.kept,
        n_outputs=head.n_outputs,
        link=head.link,
    )


def simplest(head: BoundedHead) -> Head:
    """Without bounds that take nothing away; a plain `Head` where none is left."""
    used = (head.scales != 0).any(0)
    if not bool(used.any()):
        return linear_part(head)
    if bool(used.all()):
        return head
    return replace(
        head,
        directions=head.directions[used],
        bounds=head.bounds[used],
        scales=head.scales[:, used].contiguous(),
    )


def linear_part(head: Head) -> Head:
    """The head without any bounds, of the same layer and the same of its classes."""
    given = (head.name, head.weight, head.bias, head.reduce, head.verified)
    return Head(*given, kept=head.kept, n_outputs=head.n_outputs, link=head.link)


def _layer(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], max(1, weight.shape[0]), bias is not None)
    layer.out_features = weight.shape[0]
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer
