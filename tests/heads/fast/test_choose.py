from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

from penult.errors import InputError
from penult.heads.fast import choose as kernels
from penult.heads.fast import loops
from penult.heads.fast.choose import BAG, DENSE, GATHER, Choice, choose, plain
from penult.heads.fast.loops import ROWS, TILES, arguments, copied, machine, scratch_bytes
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces

pytest.importorskip("llvmlite")


def random_head(seed: int, n_features: int, sizes: list[int]) -> SparseHead:
    generator = torch.Generator().manual_seed(seed)
    kept = [torch.randperm(n_features, generator=generator)[:k].tolist() for k in sizes]
    values = torch.randn(sum(sizes), generator=generator)
    bias = torch.randn(len(sizes), generator=generator)
    return SparseHead(Subspaces.of(kept, n_features), values, bias)


def random_samples(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 1))


def naive_logits(head: SparseHead, z: Tensor) -> Tensor:
    """Float64, one class after the other, by the definition."""
    logits = head.bias.detach().double().repeat(len(z), 1)
    starts, values = head.indptr.tolist(), head.values.detach().double()
    for c in range(head.n_classes):
        for at in range(starts[c], starts[c + 1]):
            logits[:, c] += values[at] * z[:, int(head.indices[at])].double()
    return logits


def force(monkeypatch: pytest.MonkeyPatch, choice: Choice) -> None:
    monkeypatch.setattr(kernels, "choose", lambda *_: choice)


def forms(head: SparseHead, n_threads: int) -> Iterator[Choice]:
    yield Choice(DENSE)
    yield Choice(BAG)
    yield Choice(ROWS, 0, max(1, head.n_classes // 3), n_threads)
    for width, (lanes, _) in TILES.items():
        if min(head.n_features, head.n_classes) >= lanes:
            for chunk in (16, 16 * head.n_classes):
                yield Choice(f"tiles{width}", width, chunk, n_threads)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n_samples=st.integers(0, 70),
    n_features=st.integers(1, 70),
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    n_threads=st.integers(1, 3),
)
def test_every_form_equals_a_loop(
    seed: int, n_samples: int, n_features: int, sizes: list[int], n_threads: int
) -> None:
    head = random_head(seed, n_features, [min(k, n_features) for k in sizes])
    z = random_samples(seed, n_samples, n_features)
    expected = naive_logits(head, z).float()
    for choice in forms(head, n_threads):
        with pytest.MonkeyPatch.context() as monkeypatch, torch.no_grad():
            force(monkeypatch, choice)
            torch.testing.assert_close(head(z), expected, atol=1e-4, rtol=1e-4, msg=str(choice))


@pytest.mark.parametrize("n_samples", [1, 2, 8, 9, 16, 17, 31, 32, 33, 64, 65, 100])
def test_tiles_that_are_not_full_write_nothing_beside_the_logits(n_samples: int) -> None:
    head = random_head(0, 37, [5] * 45)
    z, built = random_samples(0, n_samples, 37), machine()
    assert built is not None
    expected = naive_logits(head, z).float()
    for width in TILES:
        margin = 64
        logits = torch.full((margin + n_samples * 45 + margin,), 7.0)
        indices = head.indices.to(torch.uint16)
        size = scratch_bytes(width, 37)
        scratch = torch.full((size + 64 + 64,), 9, dtype=torch.uint8)
        start = (scratch.data_ptr() + 63) // 64 * 64
        prepared = arguments(
            n_samples=n_samples, n_features=37, n_classes=45, scratch_bytes=size, chunk=48,
            indptr=head.indptr.data_ptr(), indices=indices.data_ptr(),
            values=head.values.data_ptr(), bias=head.bias.data_ptr(),
        )  # fmt: skip
        own = copied(prepared, z.data_ptr(), logits[margin:].data_ptr(), start)
        built.run(f"tiles{width}", own, 1)
        assert bool((logits[:margin] == 7).all())
        assert bool((logits[-margin:] == 7).all())
        assert bool((scratch[start - scratch.data_ptr() + size :] == 9).all())
        torch.testing.assert_close(
            logits[margin:-margin].view(n_samples, 45), expected, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("k", [0, 3])
def test_without_llvmlite_the_logits_are_the_same(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = [random_head(1, 40, [k] * 50), random_head(2, 40, [k] * 49 + [40])]
    samples = [random_samples(1, n, 40) for n in (1, 5, 40)]
    with torch.no_grad():
        fast = [head(z) for head in heads for z in samples]
        asked: list[str] = []
        monkeypatch.setattr("importlib.util.find_spec", lambda name: asked.append(name))
        monkeypatch.setattr(loops, "_built", [])
        loops._installed.cache_clear()
        assert machine() is None
        assert asked == ["llvmlite"]
        slow = [head(z) for head in heads for z in samples]
        force(monkeypatch, Choice(GATHER))
        gathered = [head(samples[0]) for head in heads]
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gathered, [slow[0], slow[3]], atol=1e-5, rtol=1e-5)
    loops._installed.cache_clear()


@pytest.mark.parametrize(
    "error",
    [
        ImportError("DLL load failed"),
        OSError("libllvmlite.so: undefined symbol"),
        AttributeError("module 'llvmlite.binding' has no attribute 'create_mcjit_compiler'"),
        RuntimeError("Target 'wasm' not found"),
    ],
)
def test_a_broken_llvmlite_costs_one_warning(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise error

    head, z = random_head(1, 400, [9] * 500), random_samples(1, 40, 400)
    with torch.no_grad():
        expected = head(z)
        monkeypatch.setattr(loops, "_built", [])
        monkeypatch.setattr(loops, "Machine", fails)
        with pytest.warns(UserWarning, match=f"llvmlite cannot be used .*{type(error).__name__}"):
            found = copy.deepcopy(head)(z)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = copy.deepcopy(head)(z[:7])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again, expected[:7], atol=1e-5, rtol=1e-5)


def test_a_small_head_builds_no_loops() -> None:
    code = (
        "import sys, torch; from penult.heads.sparse_head import SparseHead; "
        "from penult.heads.subspaces import Subspaces; "
        "head = SparseHead.from_dense(torch.ones(10, 64), None, Subspaces.of([[1]] * 10, 64));"
        "\nwith torch.no_grad(): head(torch.ones(1, 64)); sys.exit('llvmlite' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_penult_does_not_load_llvm() -> None:
    code = "import sys, penult.heads.sparse_head; sys.exit('llvmlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_not_contiguous_and_leading_axes() -> None:
    head = random_head(3, 24, [4] * 20)
    wide = random_samples(3, 6, 5, 48)
    with torch.no_grad():
        for z in (
            wide[..., ::2],
            wide[..., :24],
            wide[:, 0, :24].T.contiguous().T,
            wide[0, 0, :24],
        ):
            expected = naive_logits(head, z.reshape(-1, 24)).float().reshape(*z.shape[:-1], 20)
            torch.testing.assert_close(head(z), expected, atol=1e-5, rtol=1e-5)
        assert head(torch.zeros(0, 24)).shape == (0, 20)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_float32(dtype: torch.dtype) -> None:
    head = random_head(4, 200, [100] * 30)
    z = random_samples(4, 40, 200).to(dtype)
    with torch.no_grad():
        logits = head(z)
        assert logits.dtype == dtype
        assert torch.equal(logits, head(z.float()).to(dtype))
        low = copy.deepcopy(head).to(dtype)
        expected = naive_logits(low, z)
        torch.testing.assert_close(low(z).double(), expected, atol=0.0, rtol=2.0**-7)


def test_double_precision_stays_double() -> None:
    head = random_head(5, 30, [3] * 20).double()
    z = random_samples(5, 10, 30).double()
    with torch.no_grad():
        torch.testing.assert_close(head(z), naive_logits(head, z))


@pytest.mark.parametrize("sizes", [[5] * 20, [20] * 20])
def test_changed_weights_are_seen(sizes: list[int]) -> None:
    head = random_head(6, 20, sizes)
    z = random_samples(6, 3, 20)

    def check() -> None:
        with torch.no_grad():
            torch.testing.assert_close(head(z), naive_logits(head, z).float(), atol=1e-4, rtol=1e-4)

    check()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
    head(z).square().sum().backward()
    optimizer.step()
    check()
    head.values.data.mul_(-2.0)
    check()
    head.values.detach().numpy()[:] += 1.0
    check()
    head.load_state_dict(random_head(7, 20, sizes).state_dict())
    check()
    head.load_state_dict(random_head(8, 20, sizes).state_dict(), assign=True)
    check()
    with torch.inference_mode():
        head.values.mul_(3.0)
    check()


def test_changed_subspaces_are_seen_and_bad_ones_refused() -> None:
    head = random_head(9, 40, [4] * 20)
    z = random_samples(9, 12, 40)
    with torch.no_grad():
        head(z)
        state = random_head(10, 40, [8] * 10 + [0] * 10).state_dict()
        head.load_state_dict(state)
        torch.testing.assert_close(head(z), naive_logits(head, z).float(), atol=1e-5, rtol=1e-5)
        head.indices[3] = 40
        with pytest.raises(InputError, match=r"must lie in \[0, 40\), found 0 … 40"):
            head(z)
        head.indices[3] = 0
        head.indptr[-1] += 1
        with pytest.raises(InputError, match=r"expected indptr from 0 to 80 \(nnz\), found 0 … 81"):
            head(z)
        head.indptr[-1] -= 1
        head.indptr[5] = 80
        with pytest.raises(InputError, match="indptr must never decrease"):
            head(z)


def test_copies_and_pickles_are_independent() -> None:
    head = random_head(11, 40, [4] * 20)
    z = random_samples(11, 6, 40)
    with torch.no_grad():
        logits = head(z)
        for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
            assert torch.equal(other(z), logits)
            other.values.mul_(2.0)
            other.indices.copy_(random_head(12, 40, [4] * 20).indices)
            torch.testing.assert_close(
                other(z), naive_logits(other, z).float(), atol=1e-5, rtol=1e-5
            )
        assert torch.equal(head(z), logits)
    assert list(head.state_dict()) == ["values", "bias", "indptr", "indices"]


def test_a_call_like_the_last_one_sees_every_change() -> None:
    """The arguments that are kept from call to call are kept only while they hold."""
    head = random_head(3, 40, [5] * 64)
    z = random_samples(3, 1, 40)

    def check(z: Tensor = z) -> None:
        torch.testing.assert_close(head(z), naive_logits(head, z).float(), atol=1e-4, rtol=1e-4)

    with torch.no_grad():
        for _ in range(2):
            check()
        assert head._inference.again(z, head._buffers, head._parameters) is not None
        head.values.data = head.values.data * 2  # another place
        check()
        head.values.data.mul_(3)  # in place, without a new version
        check()
        head.bias.data = torch.zeros(64)
        check()
        wide = torch.randn(2, 2 * 5 * 64)
        head.values.data = wide[0, : 5 * 64]
        check()
        head.values.data = wide[0, ::2]  # the same place, other strides
        check()
        head.indices.data = head.indices.flip(0).contiguous()
        check()
        check(z[:, torch.randperm(40)].T.contiguous().T)  # other strides
        check(random_samples(4, 3, 40))
        head.indices.copy_((head.indices + 1) % 40)
        check()
        head.values = torch.nn.Parameter(torch.ones(5 * 64))
        check()
        head.double()
        assert head(z.double()).dtype is torch.float64
        head.float()
        check()
    assert head(z).requires_grad
    assert head._inference.again(z, head._buffers, head._parameters) is None
    with torch.no_grad(), forward_ad.dual_level():
        dual = forward_ad.make_dual(z, torch.ones_like(z))  # type: ignore[no-untyped-call]
        assert head._inference.again(dual, head._buffers, head._parameters) is None


@pytest.mark.parametrize("n", [1, 8, 64])
@pytest.mark.parametrize("name", ["values", "bias"])
def test_the_same_place_with_other_strides_is_seen(name: str, n: int) -> None:
    head, z = random_head(5, 512, [5] * 100), random_samples(5, n, 512)
    size = len(getattr(head, name))
    wide = torch.randn(2 * size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for part in (wide[:size], wide[::2]):
            getattr(head, name).data = part
            for _ in range(2):
                expected = naive_logits(head, z).float()
                torch.testing.assert_close(head(z), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 8, 64])
def test_default_dtype_and_device_are_not_followed(n: int) -> None:
    head, z = random_head(4, 512, [5] * 100), random_samples(4, n, 512)
    expected = naive_logits(head, z).float()
    try:
        with torch.no_grad():
            head(z)
            for dtype in (torch.float64, torch.float16):
                torch.set_default_dtype(dtype)
                found = head(z)
                assert found.dtype is torch.float32
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
            torch.set_default_dtype(torch.float32)
            with torch.device("meta"):
                torch.testing.assert_close(head(z), expected, atol=1e-4, rtol=1e-4)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_subspace_made_in_inference_mode() -> None:
    with torch.inference_mode():
        head = random_head(13, 40, [4] * 20)
        z = random_samples(13, 6, 40)
        first = head(z)
        head.indices.copy_(random_head(14, 40, [4] * 20).indices)
        second = head(z)
        torch.testing.assert_close(second, naive_logits(head, z).float(), atol=1e-5, rtol=1e-5)
    assert not torch.equal(first, second)


def test_threads_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    head = random_head(15, 100, [30] * 333)
    z = random_samples(15, 150, 100)
    with torch.no_grad():
        for choice in forms(head, 1):
            if choice.form in (DENSE, BAG):
                continue
            force(monkeypatch, choice)
            one = head(z)
            for n_threads in (2, 3, 2):
                force(monkeypatch, Choice(choice.form, choice.width, choice.chunk, n_threads))
                assert torch.equal(head(z), one)


def test_callers_in_several_threads() -> None:
    head = random_head(16, 100, [30] * 300)
    z = random_samples(16, 40, 100)
    with torch.no_grad():
        expected = head(z)
    same: list[bool] = []

    def call() -> None:
        with torch.no_grad():
            same.append(all(torch.equal(head(z), expected) for _ in range(20)))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert same == [True] * 4


def test_gradients_use_torch_and_agree() -> None:
    head = random_head(17, 40, [6] * 30)
    z = random_samples(17, 20, 40)
    with torch.no_grad():
        fast = head(z)
    logits = head(z)
    assert logits.requires_grad
    torch.testing.assert_close(logits.detach(), fast, atol=1e-5, rtol=1e-5)
    head.requires_grad_(False)
    assert not head(z).requires_grad
    z.requires_grad_()
    head(z).sum().backward()
    torch.testing.assert_close(z.grad, head.dense_weight().sum(0).expand(20, 40))


def test_what_no_memory_holds_takes_torch() -> None:
    head = random_head(18, 40, [6] * 30).requires_grad_(False)
    z = random_samples(18, 5, 40)
    assert plain(z, head.values)
    mapped = torch.func.vmap(lambda x: head.dense_weight() @ x + head.bias)(z)
    torch.testing.assert_close(head(z), mapped, atol=1e-5, rtol=1e-5)
    seen: list[bool] = []

    def look(x: Tensor) -> Tensor:
        seen.append(plain(x))
        return x * 2

    torch.func.vmap(look)(z)
    with forward_ad.dual_level():
        look(forward_ad.make_dual(z, z))  # type: ignore[no-untyped-call]
    look(z.double())
    look(z.to_sparse())
    look(z.to("meta"))
    assert seen == [False] * 5


@pytest.mark.parametrize("sizes", [[6] * 30, [0, 3, 9] * 10, [0] * 4])
def test_export_and_trace(sizes: list[int]) -> None:
    head = random_head(19, 40, sizes).eval()
    z = random_samples(19, 5, 40)
    expected = naive_logits(head, z).float()
    batch = torch.export.Dim("batch")
    program = torch.export.export(head, (z,), dynamic_shapes=({0: batch},))
    operators = {str(node.target) for node in program.graph.nodes}
    assert not any("embedding_bag" in name for name in operators)
    traced = torch.jit.trace(head, z)  # type: ignore[no-untyped-call]
    for other in (program.module(), traced):
        torch.testing.assert_close(other(z), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            other(z.repeat(3, 1)), expected.repeat(3, 1), atol=1e-5, rtol=1e-5
        )


def test_export_after_other_subspaces_are_loaded() -> None:
    head = random_head(20, 40, [4] * 20)
    head.load_state_dict(random_head(21, 40, [8] * 10 + [0] * 10).state_dict())
    z = random_samples(20, 5, 40)
    program = torch.export.export(head, (z,))
    torch.testing.assert_close(
        program.module()(z), naive_logits(head, z).float(), atol=1e-5, rtol=1e-5
    )


def test_the_choice_follows_the_sizes() -> None:
    assert choose(1, 64, 10, 50, 2, True).form == DENSE
    assert choose(256, 512, 512, 512 * 512, 2, True).form == DENSE
    assert choose(1, 2048, 1000, 50_000, 1, True).form == ROWS
    assert choose(256, 2048, 1000, 50_000, 1, True) == Choice("tiles32", 32, 1008, 1)
    assert choose(256, 2048, 1000, 50_000, 2, True) == Choice("tiles32", 32, 1008, 2)
    assert choose(64, 2048, 1000, 50_000, 4, True).n_threads < 4
    assert choose(32, 4096, 1000, 50_000, 2, True) == Choice("tiles16", 16, 1008, 2)
    assert choose(8, 768, 21841, 218_410, 2, True) == Choice("tiles8", 8, 10928, 2)
    assert choose(256, 70_000, 1000, 50_000, 2, True).form == BAG
    assert choose(1, 2048, 1000, 50_000, 1, False).form == GATHER
    assert choose(32, 2048, 1000, 50_000, 1, False).form == BAG
    assert choose(32, 64, 10, 50, 1, False).form == DENSE
