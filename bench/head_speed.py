"""What a sparse head costs on a clock, beside the dense layer and the other forms it could take.

Random subspaces and weights, row-major features in, row-major logits with bias out, no gradient.
The forms of one size take turns in one process; of each round the median counts, of the rounds the
least, since other work on the machine can only add.

    python bench/head_speed.py --threads 1 --threads 2 --out docs/benchmarks
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from penult.heads.fast.choose import choose, summed
from penult.heads.fast.loops import machine
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces

SIZES = ((2048, 1000, 50), (2048, 1000, 10), (768, 21841, 10), (512, 100_000, 16), (64, 10, 5))
BATCHES = (1, 8, 32, 256, 1024)
FORMS = {
    "float32": "dense float32",
    "bfloat16": "dense bfloat16",
    "gather": "gather",
    "csr": "CSR × zᵀ",
    "bag": "`embedding_bag` over zᵀ",
    "ours": "`SparseHead`",
}
LARGEST = 64_000_000  # numbers: longer logits or gathered products are left out
SHORT = 0.05  # seconds: a slower form is timed once in a round
LONGEST = 4.0  # seconds: no further round after them, but three at least

Times = dict[str, float]


@dataclass(frozen=True)
class Row:
    """Seconds of every form at one size; `form` is the one that SparseHead takes."""

    n_features: int
    n_classes: int
    k: int
    batch: int
    n_threads: int
    form: str
    seconds: Times

    def speed_up(self, form: str) -> float:
        return self.seconds[form] / self.seconds["ours"]


def random_head(n_features: int, n_classes: int, k: int) -> SparseHead:
    generator = torch.Generator().manual_seed(0)
    kept = [torch.randperm(n_features, generator=generator)[:k] for _ in range(n_classes)]
    subspaces = Subspaces(torch.arange(n_classes + 1) * k, torch.cat(kept), n_features)
    values = torch.randn(n_classes * k, generator=generator)
    return SparseHead(subspaces, values, torch.randn(n_classes, generator=generator))


def forms(head: SparseHead, weight: Tensor, z: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Each form as a call; weights are prepared, only bfloat16 gets its input prepared too."""
    indptr, indices = head.indptr, head.indices
    values, bias = head.values.detach(), head.bias.detach()
    low_weight, low_bias, low_z = weight.bfloat16(), bias.bfloat16(), z.bfloat16()
    csr = torch.sparse_csr_tensor(indptr, indices, values, weight.shape)
    k = len(indices) // len(bias)
    found: dict[str, Callable[[], Tensor]] = {
        "float32": lambda: F.linear(z, weight, bias),
        "bfloat16": lambda: F.linear(low_z, low_weight, low_bias),
        "csr": lambda: torch.addmm(bias[:, None], csr, z.T).T.contiguous(),
        "bag": lambda: summed(z, indptr, indices, values, bias).contiguous(),
        "ours": lambda: head(z),
    }
    if len(z) * len(indices) <= LARGEST:
        found["gather"] = lambda: (z[:, indices] * values).view(len(z), -1, k).sum(2) + bias
    return found


def seconds(call: Callable[[], Tensor], budget: float) -> float:
    """Median of the calls that fit into the budget, at least three if a call is short."""
    start = time.perf_counter()
    call()
    times = [time.perf_counter() - start]
    n = 0 if times[0] > SHORT else min(200, max(2, int(budget / times[0])))
    for _ in range(n):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(head: SparseHead, weight: Tensor, batch: int, rounds: int, budget: float) -> Row:
    z = torch.randn(batch, head.n_features, generator=torch.Generator().manual_seed(1))
    calls = forms(head, weight, z)
    expected = calls["float32"]()
    torch.testing.assert_close(calls["ours"](), expected, atol=1e-3, rtol=1e-3)
    rows: list[Times] = []
    start = time.perf_counter()
    while len(rows) < 3 or (len(rows) < rounds and time.perf_counter() - start < LONGEST):
        rows.append({name: seconds(call, budget) for name, call in calls.items()})
    loops, n_threads = machine(), torch.get_num_threads()
    nnz = len(head.indices)
    choice = choose(batch, head.n_features, head.n_classes, nnz, n_threads, loops is not None)
    best = {name: min(row[name] for row in rows) for name in calls}
    k = nnz // head.n_classes
    return Row(head.n_features, head.n_classes, k, batch, n_threads, choice.form, best)


def targets(rows: list[Row]) -> list[tuple[str, bool, str]]:
    """What was to be reached, whether it was, and the speed-up where it was nearest to failing."""
    big, many = (2048, 1000), 21841

    def judge(what: str, form: str, least: float, of: list[Row]) -> tuple[str, bool, str]:
        worst = min(of, key=lambda row: row.speed_up(form))
        size = f"{worst.n_features} × {worst.n_classes}, k = {worst.k}, batch {worst.batch}"
        return what, worst.speed_up(form) >= least, f"{worst.speed_up(form):.1f} times at {size}"

    first = [row for row in rows if (row.n_features, row.n_classes) == big]
    sparse = [row for row in rows if row.n_classes >= 1000]
    return [
        judge(
            "2048 × 1000, k = 50, batch 256: at least 5 times faster than dense float32",
            "float32", 5, [row for row in first if row.k == 50 and row.batch == 256],
        ),
        judge(
            "2048 × 1000, k = 10, every batch: at least 8 times faster than dense float32",
            "float32", 8, [row for row in first if row.k == 10],
        ),
        judge(
            "2048 × 1000, batches up to 32: at least 8 times faster than dense float32",
            "float32", 8, [row for row in first if row.batch <= 32],
        ),
        judge(
            "21,841 classes, k = 10, every batch: at least 8 times faster than dense float32",
            "float32", 8, [row for row in rows if row.n_classes == many],
        ),
        judge(
            "batches up to 32, 1000 classes and more: faster than dense bfloat16",
            "bfloat16", 1, [row for row in sparse if row.batch <= 32],
        ),
        judge(
            "every batch, 1000 classes and more: faster than dense bfloat16 (the goal)",
            "bfloat16", 1, sparse,
        ),
    ]  # fmt: skip


def table(rows: list[Row]) -> str:
    head = [
        "n_features × n_classes, k",
        "batch",
        *FORMS.values(),
        "form",
        "× float32",
        "× bfloat16",
    ]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for row in rows:
        cells = [f"{row.n_features} × {row.n_classes}, k = {row.k}", str(row.batch)]
        least = min(row.seconds.values())
        for name in FORMS:
            if name not in row.seconds:
                cells.append("")
                continue
            text = f"{row.seconds[name] * 1e3:.3g}"
            cells.append(f"**{text}**" if row.seconds[name] == least else text)
        cells += [row.form, f"{row.speed_up('float32'):.1f}", f"{row.speed_up('bfloat16'):.1f}"]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    units = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{names[0] if names else platform.machine()} ({', '.join(units)})"


def page(rows: list[Row], build: float, rounds: int) -> str:
    """The benchmark's page, from its numbers alone."""
    parts = [
        "# What the head costs on a clock",
        "Written by `python bench/head_speed.py`. Milliseconds from row-major features to "
        "row-major logits with bias, no gradient, random subspaces; dense bfloat16 gets its "
        "features in bfloat16 already. The forms take turns in one process; each number is the "
        f"least of up to {rounds} medians, other work ran on the machine, and two threads suffer "
        "from it more than one. Bold: the fastest of the row. *form* is what `SparseHead` chose "
        "from the sizes alone (`penult.heads.fast.choose`): `rows` and `tiles` are compiled loops, "
        "`dense` is the dense product, taken where it wins.",
        f"{processor()}, {platform.system()}, torch {torch.__version__}, OMP_WAIT_POLICY="
        f"{os.environ.get('OMP_WAIT_POLICY', 'unset')}; building the compiled "
        f"loops, once in a process at the first call: {build:.2f} s.",
    ]
    for n_threads in sorted({row.n_threads for row in rows}):
        of = [row for row in rows if row.n_threads == n_threads]
        parts += [f"## {n_threads} thread{'s' if n_threads > 1 else ''}", table(of)]
        parts.append(
            "\n".join(
                f"- {'met' if met else '**missed**'}: {what}; least: {least}"
                for what, met, least in targets(of)
            )
        )
    lost = [row for row in rows if row.seconds["ours"] > 1.05 * min(row.seconds.values())]
    lines = []
    for row in lost:
        name = min(row.seconds, key=row.seconds.__getitem__)
        lines.append(
            f"- {row.n_features} × {row.n_classes}, k = {row.k}, batch {row.batch}, threads: "
            f"{row.n_threads}: {FORMS[name]} takes {row.speed_up(name):.2f} of our time"
        )
    parts += ["## Where another form was faster", "\n".join(lines) or "Nowhere by more than 5 %."]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, action="append", help="repeatable; default 1")
    parser.add_argument("--rounds", type=int, default=25, help="at most")
    parser.add_argument("--budget", type=float, default=0.005, help="seconds of a form in a round")
    parser.add_argument("--out", type=Path, help="folder for head_speed.md")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
    start = time.perf_counter()
    machine()
    build = time.perf_counter() - start
    rows: list[Row] = []
    with torch.no_grad():
        for size in SIZES:
            head = random_head(*size)
            weight = head.dense_weight().detach()
            for batch in BATCHES:
                if batch * head.n_classes > LARGEST:
                    continue
                for n_threads in options.threads or [1]:
                    torch.set_num_threads(n_threads)
                    rows.append(measure(head, weight, batch, options.rounds, options.budget))
                    print(table(rows[-1:]).splitlines()[-1], flush=True)
    text = page(rows, build, options.rounds)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "head_speed.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
