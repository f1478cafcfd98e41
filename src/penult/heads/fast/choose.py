"""The forms in which a sparse head computes its logits, and the choice of the fastest.

Where a gradient, a graph or another device is asked for, plain torch operations do it (`summed`,
`traced`). Else, on a CPU, `Inference` takes the form that `choose` expects to be the fastest for
the sizes at hand: compiled loops (`loops.py`, with the extra `fast`), torch operations, or
for small or hardly sparse layers the dense product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from penult.errors import InputError
from penult.heads.fast.loops import (
    ROWS,
    TILES,
    Machine,
    arguments,
    copied,
    has_threads,
    machine,
    may_have_machine,
    scratch_bytes,
)

DENSE, BAG, GATHER = TORCH_FORMS = "dense", "bag", "gather"
KINDS = (Tensor, torch.nn.Parameter)
TYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_FEATURES = 1 << 16  # the loops read indices of 16 bits
THREAD_WORK = 60_000.0  # nanoseconds of work that are worth waking a further thread


def summed(z: Tensor, indptr: Tensor, indices: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Logits with exact gradients, on any device: each class sums a few rows of zᵀ.

    Contiguous reads, and no (n_samples, nnz) array in between.

    Args:
        z: (n_samples, n_features); its dtype is that of the logits (n_samples, n_classes).
        indptr: (n_classes + 1,).
        indices: (nnz,).
        values: (nnz,).
        bias: (n_classes,).
    """
    sums = F.embedding_bag(
        indices,
        z.T.contiguous(),
        indptr,
        mode="sum",
        per_sample_weights=values.to(z.dtype),
        include_last_offset=True,
    )
    return sums.T + bias.to(z.dtype)


def traced(
    z: Tensor, indptr: Tensor, indices: Tensor, values: Tensor, bias: Tensor, k: tuple[int, int]
) -> Tensor:
    """Logits by operations that every exchange format knows; arguments as for `summed`.

    Args:
        k: features of the class with the fewest and of that with the most; where they differ,
            classes with fewer are filled up by zeros.
    """
    values, bias = values.to(z.dtype), bias.to(z.dtype)
    fewest, most = k
    if most == 0:
        return z[:, :0].sum(1, keepdim=True) + bias
    if fewest < most:
        at = indptr[:-1, None] + torch.arange(most, device=indptr.device)
        kept = at < indptr[1:, None]
        at = torch.where(kept, at, 0).reshape(-1)
        indices = indices[at]
        values = torch.where(kept.reshape(-1), values[at], 0)
    kept_z = torch.index_select(z, 1, indices)
    parts: Tensor = kept_z.unflatten(1, (-1, most))  # type: ignore[no-untyped-call]
    return (parts * values.view(-1, most)).sum(2) + bias


def tracing() -> bool:
    """Whether `torch.jit.trace` looks on: sizes are then no numbers to compare."""
    # What torch.jit.is_tracing asks, without its detours: every call of a head asks it.
    found: object = torch._C._get_tracing_state()
    return found is not None


def plain(*tensors: Tensor) -> bool:
    """Whether a loop may read the tensors' memory: CPU, eager, and nobody asks for a gradient."""
    for tensor in tensors:
        if (
            type(tensor) not in KINDS
            or not tensor.is_cpu
            or tensor.layout is not torch.strided
            or tensor.dtype not in TYPES
            or (tensor.requires_grad and torch.is_grad_enabled())
            or forward_ad.unpack_dual(tensor)[1] is not None  # type: ignore[no-untyped-call]
        ):
            return False
    return eager()


def eager() -> bool:
    """Whether tensors are what they seem: vmap, fake and proxy tensors have no memory."""
    functorch: object = torch._C._functorch.peek_interpreter_stack()
    return functorch is None and torch._C._len_torch_dispatch_stack() == 0


# Nanoseconds of one thread, measured where docs/benchmarks/head_speed.md was; only ratios matter.
CALL_DENSE, CALL_LOOP, CALL_GATHER, CALL_BAG = 4500.0, 7000.0, 8000.0, 10000.0
READ_DENSE, MULTIPLY_DENSE, NARROWEST_DENSE = 0.06, 0.02, 32  # per weight; per product; classes
PAIR_ROWS, CLASS_ROWS = 0.26, 2.5  # per sample
PAIR_TILES = {8: 0.66, 16: 0.68, 32: 1.1}  # per tile
TRANSPOSE = 0.13  # per feature and per logit of a sample
PAIR_GATHER = 0.9
PAIR_BAG, SAMPLE_BAG, TRANSPOSE_BAG = 0.9, 0.065, 1.2  # per pair; per pair and sample; per feature


@dataclass(frozen=True)
class Choice:
    """How to compute one batch: the form, and for the compiled loops how to share the work."""

    form: str
    width: int = 0  # samples in a tile
    chunk: int = 0  # classes in a task
    n_threads: int = 1


@lru_cache(maxsize=4096)
def choose(
    n_samples: int, n_features: int, n_classes: int, nnz: int, n_threads: int, compiled: bool
) -> Choice:
    """The form expected to be the fastest.

    The costs are the loads, products and calls counted from the sizes, times what each took where
    they were measured. The machine's state plays no part: the same sizes always take the same form.

    Args:
        n_samples: samples in the batch.
        n_features: features of the dense layer.
        n_classes: classes.
        nnz: kept (class, feature) pairs.
        n_threads: threads that may share the work.
        compiled: whether the compiled loops are there.
    """
    products = n_samples * max(n_classes, NARROWEST_DENSE) * n_features
    costs = {
        Choice(DENSE): CALL_DENSE + READ_DENSE * n_features * n_classes + MULTIPLY_DENSE * products
    }
    if not compiled or n_features > MAX_FEATURES:
        pair = PAIR_BAG + SAMPLE_BAG * n_samples
        costs[Choice(BAG)] = CALL_BAG + TRANSPOSE_BAG * n_samples * n_features + pair * nnz
        if n_samples == 1:
            costs[Choice(GATHER)] = CALL_GATHER + PAIR_GATHER * nnz
    else:
        costs |= _loops(n_samples, n_features, n_classes, nnz, 1)
        useful = min(n_threads, 1 + int(min(costs.values()) / THREAD_WORK))
        if useful > 1 and min(costs, key=costs.__getitem__).form != DENSE:
            costs = _loops(n_samples, n_features, n_classes, nnz, useful)
    return min(costs, key=costs.__getitem__)


def _loops(
    n_samples: int, n_features: int, n_classes: int, nnz: int, n_threads: int
) -> dict[Choice, float]:
    """Costs of the compiled loops, summed over the threads."""
    n_chunks = 4 * n_threads if n_threads > 1 else 1
    rows = Choice(ROWS, 0, -(-n_classes // n_chunks), n_threads)
    costs = {rows: CALL_LOOP + n_samples * (PAIR_ROWS * nnz + CLASS_ROWS * n_classes)}
    for width, (lanes, _) in TILES.items():
        if min(n_features, n_classes) < lanes:
            continue
        n_tiles = -(-n_samples // width)
        # Fewer tiles than threads: threads share a tile's classes, and each transposes it anew.
        n_chunks = -(-n_threads // n_tiles)
        chunk = -(-n_classes // (n_chunks * 16)) * 16
        n_tasks = n_tiles * n_chunks
        idle = -(-n_tasks // n_threads) * n_threads / n_tasks
        transposes = TRANSPOSE * width * (n_features * n_chunks + n_classes)
        task = n_tiles * (transposes + PAIR_TILES[width] * nnz)
        costs[Choice(f"tiles{width}", width, chunk, n_threads)] = CALL_LOOP + task * idle
    return costs


@dataclass(frozen=True)
class Layout:
    """The subspaces as the loops read them: copies, checked, so that no index leads astray."""

    sources: tuple[Tensor, Tensor]
    versions: tuple[int, int]
    places: tuple[int, int]  # where they lay: `.data` gives a tensor other memory
    indptr: Tensor
    indices: Tensor
    k: int | None  # features of every class, None where classes differ

    @classmethod
    def of(cls, indptr: Tensor, indices: Tensor, n_features: int) -> Layout:
        """Copies of `indptr` and `indices`.

        Raises:
            InputError: they are no subspaces of n_features features.
        """
        sizes = indptr.diff()
        if len(indptr) and (int(indptr[0]) != 0 or int(indptr[-1]) != len(indices)):
            raise InputError(
                f"expected indptr from 0 to {len(indices)} (nnz), "
                f"found {int(indptr[0])} … {int(indptr[-1])}"
            )
        if bool((sizes < 0).any()):
            raise InputError("indptr must never decrease")
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < n_features:
            raise InputError(
                f"feature indices must lie in [0, {n_features}), found "
                f"{int(indices.min())} … {int(indices.max())}"
            )
        narrow = torch.uint16 if n_features <= MAX_FEATURES else torch.int64
        uniform = len(sizes) > 0 and bool((sizes == sizes[0]).all())
        return cls(
            (indptr, indices),
            (indptr._version, indices._version),
            (indptr.data_ptr(), indices.data_ptr()),
            indptr.to(torch.int64, copy=True).contiguous(),
            indices.to(narrow, copy=True).contiguous(),
            int(sizes[0]) if uniform else None,
        )

    def holds(self, indptr: Tensor, indices: Tensor) -> bool:
        """Whether these are the tensors it was made of, unchanged since.

        A single index that is written through `.data` or NumPy goes unseen.
        """
        return (
            indptr is self.sources[0]
            and indices is self.sources[1]
            and indptr._version == self.versions[0]
            and indices._version == self.versions[1]
            and indptr.data_ptr() == self.places[0]
            and indices.data_ptr() == self.places[1]
        )


class Inference:
    """Logits of one sparse head where no gradient is asked for, in the fastest form.

    Keeps what can be kept between calls: the subspaces as the loops read them, for as long as the
    buffers are unchanged; for the dense form the dense weight, for as long as the values are equal;
    and the last call's arguments, since most calls are like the one before. A copy or a pickle of
    it starts empty.
    """

    def __init__(self) -> None:
        self._layout: Layout | None = None
        self._dense: tuple[Layout, Tensor, Tensor] | None = None
        self._last: Prepared | None = None

    def __reduce__(self) -> tuple[type[Inference], tuple[()]]:
        return Inference, ()

    def again(
        self, z: Tensor, buffers: Mapping[str, Any], parameters: Mapping[str, Any]
    ) -> Tensor | None:
        """Logits by the last call's form and arguments; None where this call is not like it.

        Args:
            z: anything.
            buffers: the head's, `indptr` and `indices` among them.
            parameters: the head's, `values` and `bias` among them.
        """
        last = self._last
        if last is None or not last.holds(z, buffers, parameters):
            return None
        return last.run(z)

    def logits(
        self, z: Tensor, indptr: Tensor, indices: Tensor, values: Tensor, bias: Tensor
    ) -> Tensor:
        """Logits (n_samples, n_classes) in the dtype of z, computed in float32.

        Args:
            z: (n_samples, n_features), `plain`.
            indptr: (n_classes + 1,) int64.
            indices: (nnz,) int64.
            values: (nnz,), `plain`.
            bias: (n_classes,), `plain`.

        Raises:
            InputError: `indptr` and `indices` are no subspaces of n_features features.
        """
        n_samples, n_features = z.shape
        if indptr.is_inference() or indices.is_inference() or not n_samples or not len(bias):
            # Tensors of inference mode do not tell when they change.
            return summed(z, indptr, indices, values, bias)
        layout = self._layout
        if layout is None or not layout.holds(indptr, indices):
            self._layout = layout = Layout.of(indptr, indices, n_features)
        n_threads = torch.get_num_threads()
        sizes = n_samples, n_features, len(bias), len(values)
        compiled = may_have_machine()
        choice = choose(*sizes, n_threads if compiled and has_threads() else 1, compiled)
        # Built only where a loop is wanted: building takes longer than many a process computes.
        loops = machine() if compiled and choice.form not in TORCH_FORMS else None
        if compiled and choice.form not in TORCH_FORMS and loops is None:
            choice = choose(*sizes, 1, False)
        if choice.form == BAG or (choice.form == GATHER and layout.k is None):
            return summed(z, indptr, indices, values, bias)
        z32, values32, bias32 = _read(z), _read(values), _read(bias)
        if choice.form == GATHER:
            products = z32.index_select(1, indices) * values32
            logits = products.view(n_samples, len(bias), layout.k or 0).sum(2) + bias32
        else:
            dense = self._weight(layout, values32, n_features) if choice.form == DENSE else None
            ready = Prepared(loops, choice, z32, layout, (values32, bias32), dense, n_threads)
            if values32 is values and bias32 is bias:
                self._last = ready
            logits = ready.run(z32)
        return logits if z.dtype is torch.float32 else logits.to(z.dtype)

    def _weight(self, layout: Layout, values: Tensor, n_features: int) -> tuple[Tensor, Tensor]:
        """What values were and their dense weight, kept for as long as they are equal to that."""
        if self._dense is not None:
            made_for, made_of, weight = self._dense
            # TwoSides, not asked for their version: `.data` and NumPy change values silently.
            if made_for is layout and torch.equal(made_of, values):
                return made_of, weight
        sizes = layout.indptr.diff()
        weight = values.new_zeros(len(sizes), n_features)
        classes = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
        weight[classes, layout.indices.long()] = values
        self._dense = (layout, values.clone(), weight)
        return self._dense[1:]


def _read(tensor: Tensor) -> Tensor:
    """As contiguous float32; the tensor itself, which costs nothing, where it is."""
    if tensor.dtype is torch.float32 and tensor.is_contiguous():
        return tensor
    return tensor.float().contiguous()


class Prepared:
    """One call of a compiled loop or of the dense product: all but the samples and the logits.

    Args:
        loops: the compiled loops, if there are any.
        choice: which form, and how the work is shared.
        z: (n_samples, n_features), contiguous float32.
        layout: the subspaces.
        weights: values (nnz,) and bias (n_classes,), contiguous float32.
        dense: for the dense product, what the values were and the weight made of them.
        n_threads: torch's, when the choice was made.
    """

    def __init__(
        self,
        loops: Machine | None,
        choice: Choice,
        z: Tensor,
        layout: Layout,
        weights: tuple[Tensor, Tensor],
        dense: tuple[Tensor, Tensor] | None,
        n_threads: int,
    ) -> None:
        n_samples, n_features = z.shape
        values, bias = weights
        n_classes = len(layout.indptr) - 1
        if (len(values), len(bias)) != (len(layout.indices), n_classes):
            raise InputError(
                f"expected {len(layout.indices)} values and a bias of {n_classes}, "
                f"found {len(values)} and {len(bias)}"
            )
        self._loops, self._choice, self._layout = loops, choice, layout
        self._shape, self._logits_shape = z.shape, (n_samples, n_classes)
        self._values, self._bias, self._n_threads = values, bias, n_threads
        self._values_at, self._bias_at = values.data_ptr(), bias.data_ptr()
        size = scratch_bytes(choice.width, n_features) if choice.width else 0
        self._scratch = size * choice.n_threads + 64 if choice.width else 0
        self._dense = dense
        self._arguments = arguments(
            n_samples=n_samples,
            n_features=n_features,
            n_classes=n_classes,
            indptr=layout.indptr.data_ptr(),
            indices=layout.indices.data_ptr(),
            values=self._values_at,
            bias=self._bias_at,
            scratch_bytes=size,
            chunk=choice.chunk,
        )

    def holds(self, z: Tensor, buffers: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
        """Whether a call with these tensors is this one, but for what the samples are."""
        values, bias = parameters.get("values"), parameters.get("bias")
        # In the order of what differs most often; each costs a tenth of a microsecond.
        return (
            type(z) is Tensor
            and z.shape == self._shape
            and z.dtype is torch.float32
            and z.is_cpu
            and z.layout is torch.strided
            and z.is_contiguous()
            and values is self._values
            and bias is self._bias
            and values.data_ptr() == self._values_at
            and bias.data_ptr() == self._bias_at
            and values.dtype is torch.float32
            and bias.dtype is torch.float32
            and values.shape == self._layout.indices.shape
            and values.is_contiguous()
            and bias.is_contiguous()
            and bias.shape[0] == self._logits_shape[1]
            and not (
                torch.is_grad_enabled()
                and (z.requires_grad or values.requires_grad or bias.requires_grad)
            )
            and self._layout.holds(buffers["indptr"], buffers["indices"])
            and torch.get_num_threads() == self._n_threads
            and forward_ad._current_level < 0
            and eager()
            and (self._dense is None or torch.equal(values, self._dense[0]))
        )

    def run(self, z: Tensor) -> Tensor:
        """Logits (n_samples, n_classes) of samples as they were prepared for."""
        if self._dense is not None:
            return F.linear(z, self._dense[1], self._bias)
        assert self._loops is not None
        # Whatever the default dtype and device are: the loops write float32, to main memory.
        logits = torch.empty(self._logits_shape, dtype=torch.float32, device="cpu")
        start = 0
        if self._scratch:
            scratch = torch.empty(self._scratch, dtype=torch.uint8, device="cpu")
            start = (scratch.data_ptr() + 63) // 64 * 64
        own = copied(self._arguments, z.data_ptr(), logits.data_ptr(), start)
        self._loops.run(self._choice.form, own, self._choice.n_threads)
        return logits
