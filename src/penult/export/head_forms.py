"""Forms in which a head can be computed by the operations that every runtime has.

Which is the fastest depends on the sizes and on the runtime, so it is measured (`choose_form.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penult.export.shipped_head import ShippedHead
from penult.heads.bounded_head import BoundedHead

DENSE = "dense"
BLOCK = 8  # classes
PIECE = 40_000  # features that `blocks` gathers at once: those of 32 samples stay in a large cache
MOST_PADDED = 0.5  # of the dense head's numbers, that a form may hold where classes are filled up


class DenseForm(nn.Module):
    """One product with the dense matrix, zeros included."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())

    def forward(self, z: Tensor) -> Tensor:
        """Logits (n_samples, n_classes) of features (n_samples, n_features)."""
        return F.linear(z, self.weight, self.bias)


class GatherForm(nn.Module):
    """Gather each class's features, multiply, sum."""

    indices: Tensor

    def __init__(self, indices: Tensor, values: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("indices", indices.reshape(-1))
        self.values, self.bias = nn.Parameter(values.clone()), nn.Parameter(bias.clone())

    def forward(self, z: Tensor) -> Tensor:
        """Logits (n_samples, n_classes) of features (n_samples, n_features)."""
        kept = z.index_select(1, self.indices).unflatten(1, self.values.shape)  # type: ignore[no-untyped-call]
        logits: Tensor = (kept * self.values).sum(2) + self.bias
        return logits


class RowsForm(nn.Module):
    """The same on the transposed features: what is gathered is contiguous over a batch."""

    indices: Tensor

    def __init__(self, indices: Tensor, values: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("indices", indices.T.contiguous())
        self.values = nn.Parameter(values.T.contiguous()[:, :, None])
        self.bias = nn.Parameter(bias.clone())

    def forward(self, z: Tensor) -> Tensor:
        """Logits (n_samples, n_classes) of features (n_samples, n_features)."""
        return (F.embedding(self.indices, z.t()) * self.values).sum(0).t() + self.bias


class BlocksForm(nn.Module):
    """Classes in blocks of `BLOCK`: for each block one product with the features that it reads.

    The blocks are worked off in pieces, so that what is gathered is multiplied while it is still in
    the processor's cache: all at once are slower for large heads and batches.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        filled = F.pad(weight, (0, 0, 0, -len(weight) % BLOCK)).unflatten(0, (-1, BLOCK))  # type: ignore[no-untyped-call]
        read = (filled != 0).any(1)
        most = max(1, int(read.sum(1).max()))
        # Stable, so that the features that are read come first, in rising order.
        indices = (~read).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
        values = filled.gather(2, indices[:, None].expand(-1, BLOCK, -1))
        at_once = max(1, PIECE // most)
        for number, piece in enumerate(indices.split(at_once)):
            self.register_buffer(f"indices{number}", piece)
        self.values = nn.ParameterList(nn.Parameter(piece) for piece in values.split(at_once))
        self.bias = nn.Parameter(bias.clone())

    def forward(self, z: Tensor) -> Tensor:
        """Logits (n_samples, n_classes) of features (n_samples, n_features)."""
        features = z.t()
        pieces = [
            (values @ F.embedding(self.get_buffer(f"indices{number}"), features)).flatten(0, 1)
            for number, values in enumerate(self.values)
        ]
        return torch.cat(pieces)[: len(self.bias)].t() + self.bias


PADDED: dict[str, Callable[[Tensor, Tensor, Tensor], nn.Module]] = {
    "gather": GatherForm,
    "rows": RowsForm,
}
EXPLAINED = {
    DENSE: "one product with the dense matrix, zeros included",
    "read": "one product with the columns of the features that some class reads",
    "gather": "each class's features gathered, multiplied and summed",
    "rows": "the same on the transposed features",
    "blocks": "one small matrix product for every eight classes",
}


class BoundedForm(nn.Module):
    """A head with bounds: a form of its linear part, and what exceeds the bounds taken away."""

    def __init__(self, form: nn.Module, head: BoundedHead) -> None:
        super().__init__()
        self.form = form
        self.excess = DenseForm(head.directions, -head.bounds)
        self.taken = DenseForm(head.scales, torch.zeros(head.n_classes))

    def forward(self, z: Tensor) -> Tensor:
        """Logits (n_samples, n_classes) of features (n_samples, n_features)."""
        logits: Tensor = self.form(z) - self.taken(F.relu(self.excess(z)))
        return logits


class HeadLayer(nn.Module):
    """A form in the place of a network's layer: inputs (..., n_features) of any number of axes.

    Args:
        form: maps (n_samples, n_features) to (n_samples, n_classes), or as many features as `read`
            names.
        size: (n_classes, n_features).
        read: the only features that the form takes, rising; None for all.
        mean: the network averages the layer's outputs over positions, and the form is not linear:
            give each position the logits of the mean.
    """

    read: Tensor | None

    def __init__(
        self,
        form: nn.Module,
        size: tuple[int, int],
        read: Tensor | None = None,
        mean: bool = False,
    ) -> None:
        super().__init__()
        self.n_classes, self.n_features = size
        self.register_buffer("read", read)
        self.form, self._mean = form, mean

    def forward(self, z: Tensor) -> Tensor:
        """Logits (..., n_classes)."""
        if z.dtype != torch.float32:
            z = z.float()
        if self.read is not None:
            # Before the positions become rows: channels are dropped as far as their axis is known.
            z = z.index_select(-1, self.read)
        if z.dim() == 2:
            logits: Tensor = self.form(z)
            return logits
        if self._mean:
            mean: Tensor = self.form(z.flatten(1, -2).mean(1))
            around = [1] * (z.dim() - 2)
            return mean.reshape(-1, *around, self.n_classes).expand(*z.shape[:-1], self.n_classes)
        logits = self.form(z.flatten(0, -2))
        return logits.reshape(*z.shape[:-1], self.n_classes)


def head_layer(shipped: ShippedHead, form: str, *, drop: bool = False) -> HeadLayer:
    """A head in one of its forms.

    Args:
        shipped: the head.
        form: of `forms_of(shipped)`.
        drop: first take the features that are read out of the others, so that what makes the
            others can be dropped.
    """
    head, read = shipped.head, shipped.read()
    size = (head.n_classes, head.n_features)
    weight, bounded = head.weight, head if isinstance(head, BoundedHead) else None
    select = drop or form == "read"
    if select:
        weight = weight[:, read]
        bounded = bounded and _columns(bounded, read)
    made: nn.Module
    if form in PADDED:
        made = PADDED[form](*_padded(weight), head.bias)
    elif form == "blocks":
        made = BlocksForm(weight, head.bias)
    else:
        made = DenseForm(weight, head.bias)
    if bounded is not None and bounded.n_bounds:
        made = BoundedForm(made, bounded)
    mean = bounded is not None and head.reduce == "mean"
    layer = HeadLayer(made, size, read if select else None, mean)
    return layer.eval().requires_grad_(False)


def forms_of(shipped: ShippedHead, *, drop: bool = False) -> list[str]:
    """The forms that can be faster than the dense one for a head of this kind."""
    weight = shipped.head.weight
    found = [DENSE]
    n_read = len(shipped.read())
    if not n_read:
        return found
    if n_read < weight.shape[1] and not drop:
        found.append("read")
    most = int((weight != 0).sum(1).max())
    if 0 < most * len(weight) <= MOST_PADDED * weight.numel():
        found += PADDED
    blocks = BlocksForm(weight, shipped.head.bias).values
    if 0 < sum(piece.numel() for piece in blocks) <= MOST_PADDED * weight.numel():
        found.append("blocks")
    return found


def _padded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and values (n_classes, most) of what is not zero; zeros where a class has fewer."""
    kept = weight != 0
    most = max(1, int(kept.sum(1).max()))
    # Stable, so that the kept ones come first, in rising order.
    order = (~kept).to(torch.int8).argsort(dim=1, stable=True)[:, :most]
    return order, weight.gather(1, order)


def _columns(head: BoundedHead, read: Tensor) -> BoundedHead:
    directions, weight = head.directions[:, read], head.weight[:, read]
    return BoundedHead(
        *(head.name, weight, head.bias, head.reduce, head.verified),
        *(directions, head.bounds, head.scales),
        kept=head.kept,
        n_outputs=head.n_outputs,
        link=head.link,
    )
