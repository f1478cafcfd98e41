"""SparseHead: one small subspace per class in place of the dense final layer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.features.features import Features
from penult.heads.fast.choose import Inference, plain, summed, traced, tracing
from penult.heads.subspaces import Subspaces
from penult.network.link import decided
from penult.storage import read_tensors, write_tensors

FORMAT = "penult-head/1"
LONGEST_NUMBER = 9  # digits of n_features in a file that may come from anybody


class SparseHead(nn.Module):
    """Linear head whose class c reads only its features S_c: `logit_c = Σ_{j∈S_c} v_cj z_j + b_c`.

    A drop-in for the final linear layer: maps (..., n_features) to (..., n_classes). `values`
    (nnz,) and `bias` (n_classes,) are parameters with exact gradients; the subspaces are buffers,
    to be changed by torch's own operations (what is written through `.data` or NumPy is not seen).
    Features must be finite: where the dense product is taken, zero times infinity is NaN.

    Args:
        subspaces: which features each class keeps; sizes may differ, also be 0.
        values: (nnz,) weights in the order of `subspaces.indices`.
        bias: (n_classes,).
        layer: dotted name of the layer this head replaces, where known.
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["n_classes", "subspaces"]

    if TYPE_CHECKING:  # torch.jit.script reads annotations of classes, and no words
        indptr: Tensor
        indices: Tensor

    def __init__(self, subspaces: Subspaces, values: Tensor, bias: Tensor, layer: str = "") -> None:
        super().__init__()
        if values.shape != (subspaces.nnz,):
            raise InputError(
                f"expected {subspaces.nnz} values, one per kept feature, "
                f"found {tuple(values.shape)}"
            )
        if bias.shape != (subspaces.n_classes,):
            raise InputError(
                f"expected a bias of shape ({subspaces.n_classes},), found {tuple(bias.shape)}"
            )
        self.n_features = subspaces.n_features
        self.layer = layer
        self.register_buffer("indptr", subspaces.indptr.clone())
        self.register_buffer("indices", subspaces.indices.clone())
        self.values = nn.Parameter(values.detach().clone())
        self.bias = nn.Parameter(bias.detach().clone())
        self._inference = Inference()
        self._k = _fewest_and_most(self.indptr)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self._k = _fewest_and_most(self.indptr)

    @classmethod
    def from_dense(
        cls, weight: Tensor, bias: Tensor | None, subspaces: Subspaces, layer: str = ""
    ) -> SparseHead:
        """Keep the dense weights on the subspaces: weight (n_classes, n_features), bias or None."""
        if weight.shape != (subspaces.n_classes, subspaces.n_features):
            raise InputError(
                f"expected a weight of shape ({subspaces.n_classes}, {subspaces.n_features}) "
                f"(n_classes, n_features), found {tuple(weight.shape)}"
            )
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        values = weight[subspaces.classes().to(weight.device), subspaces.indices.to(weight.device)]
        return cls(subspaces, values, bias, layer)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.bias)

    @property
    def subspaces(self) -> Subspaces:
        """Which features each class keeps."""
        return Subspaces(self.indptr.cpu(), self.indices.cpu(), self.n_features)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (..., n_classes) of features (..., n_features)."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._scripted(features)
        else:  # what follows a return is compiled as well
            return self._logits(features)

    def _scripted(self, features: Tensor) -> Tensor:
        """As TorchScript computes them: by its own few operations."""
        z = features.reshape(-1, self.n_features)
        logits = summed(z, self.indptr, self.indices, self.values, self.bias)
        return logits.reshape(features.shape[:-1] + (logits.shape[-1],))  # noqa: RUF005

    def _logits(self, features: Tensor) -> Tensor:
        traces = tracing()
        if not traces and not torch.compiler.is_compiling():
            # Straight from the module's own dictionaries: a small layer waits for each look-up.
            found = self._inference.again(features, self._buffers, self._parameters)
            if found is not None:
                return found
        if not traces and features.shape[-1] != self.n_features:
            raise InputError(
                f"expected features of shape (..., {self.n_features}), "
                f"found {tuple(features.shape)}"
            )
        z = features if features.dim() == 2 else features.reshape(-1, self.n_features)
        indptr, indices, values, bias = self.indptr, self.indices, self.values, self.bias
        if traces or torch.compiler.is_compiling():
            # torch 2.6 cannot tell an export from a compilation; exporting is then the safe guess.
            exports = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
            if traces or exports():
                logits = traced(z, indptr, indices, values, bias, self._k)
            else:
                logits = summed(z, indptr, indices, values, bias)
        elif plain(z, values, bias):
            logits = self._inference.logits(z, indptr, indices, values, bias)
        else:
            logits = summed(z, indptr, indices, values, bias)
        if features.dim() == 2:
            return logits
        return logits.reshape(*features.shape[:-1], logits.shape[-1])

    def dense_weight(self) -> Tensor:
        """The same head as a dense weight (n_classes, n_features), zero outside the subspaces."""
        weight = self.values.new_zeros(self.n_classes, self.n_features)
        classes = torch.repeat_interleave(
            torch.arange(self.n_classes, device=weight.device), self.indptr.diff()
        )
        return weight.index_put((classes, self.indices), self.values)

    def extra_repr(self) -> str:
        """Sizes, for printing the module."""
        return f"n_features={self.n_features}, n_classes={self.n_classes}, nnz={len(self.indices)}"

    def save(
        self,
        path: str | Path,
        class_names: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write a head file (safetensors, format `penult-head/1`); `metadata`: further strings."""
        tensors = {
            "indptr": self.indptr,
            "indices": self.indices,
            "values": self.values.float(),
            "bias": self.bias.float(),
        }
        notes = {"format": FORMAT, "n_features": str(self.n_features), "layer": self.layer}
        if class_names is not None:
            notes["class_names"] = json.dumps(list(class_names), ensure_ascii=False)
        write_tensors(Path(path), tensors, {**(metadata or {}), **notes})

    @classmethod
    def load(cls, path: str | Path) -> SparseHead:
        """Read a head file.

        Raises:
            InputError: absent, truncated or no head file, or subspaces that do not fit together.
        """
        needed = ("indptr", "indices", "values", "bias")
        tensors, metadata = read_tensors(Path(path), FORMAT, needed)
        text = metadata.get("n_features", "")
        if not text.isdecimal() or len(text) > LONGEST_NUMBER:
            raise InputError(
                f"{path}: expected a number as n_features, found {text[:40] or 'none'}"
            )
        subspaces = Subspaces(tensors["indptr"], tensors["indices"], int(text))
        return cls(subspaces, tensors["values"], tensors["bias"], metadata.get("layer", ""))


def _fewest_and_most(indptr: Tensor) -> tuple[int, int]:
    """Features of the class with the fewest and of that with the most, as a graph can hold them."""
    sizes = indptr.diff()
    return (int(sizes.min()), int(sizes.max())) if len(sizes) else (0, 0)


def accuracies(heads: Sequence[Callable[[Tensor], Tensor]], features: Features) -> list[float]:
    """Fraction of samples that each head classifies right, in one pass over the features.

    Of multi-label data the fraction of the decisions, one for each sample and class.

    Args:
        heads: each maps features (n_samples, n_features) to logits (n_samples, n_classes).
        features: with labels.
    """
    n_correct = [0] * len(heads)
    with torch.no_grad():
        for z, labels in features.blocks():
            for i, head in enumerate(heads):
                n_correct[i] += int((decided(head(z), features.link) == labels).sum())
    n_each = features.n_classes if features.multi_label else 1
    return [n / (features.n_samples * n_each) for n in n_correct]
