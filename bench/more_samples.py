"""What more samples bring to sparse heads: unlabelled ones, and views of the same images.

Fits heads to few samples of two networks, alone and with further ones, measures them on the
evaluation samples, and writes the table. What networks give is kept in --work; interrupted, the
same command goes on.

    python bench/more_samples.py ../shared/data --work runs/more --out docs/benchmarks
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from penult.data.image import ImageData
from penult.data.open import open_data
from penult.data.source import ImageSource, Pass
from penult.data.transform import Transform
from penult.features.collect import network_shards, usable_head
from penult.features.features import Features
from penult.features.saving import save_features
from penult.heads.path import fit_path
from penult.heads.plan import Plan
from penult.network.head import Head
from penult.network.load import load_model
from penult.runs.reopen import Chosen
from penult.runs.views import ViewSource

HERE = Path(__file__).parent
KS = (2, 5, 10, 20)
KINDS = ("flip", "crop")  # that `penult analyze --views` finds these networks to survive


@dataclass
class Case:
    """One way to fit the heads of one network.

    Attributes:
        name: of the network and the samples.
        what: which samples the heads are fitted to.
        fit, evaluation: the samples.
        also, views: further samples.
    """

    name: str
    what: str
    fit: Features
    evaluation: Features
    also: Features | None = None
    views: Sequence[Features] = ()

    def row(self) -> list[str]:
        """Its line of the table."""
        started = time.perf_counter()
        path = fit_path(self.fit, self.evaluation, Plan(KS), also=self.also, views=self.views)
        seconds = time.perf_counter() - started
        found = {row["k"]: row for row in path.document()["path"]}
        cells = [
            f"{100 * found[k]['accuracy']:.2f} / {100 * found[k]['agreement']:.2f} / "
            f"{found[k]['kl']:.3f}"
            for k in KS
        ]
        return [self.what, *cells, f"{seconds:.1f}"]


class Passes:
    """Features of some images through one network: as they are, and in views.

    Args:
        network: what `load_model` takes.
        weights: its checkpoint.
        images: all of them.
        positions: which are taken.
        transform: preprocessing; the network's own where None.
        work: where features are kept.
    """

    def __init__(
        self,
        network: str,
        weights: Path | None,
        images: ImageData,
        positions: torch.Tensor,
        transform: Transform | None,
        work: Path,
    ) -> None:
        loaded = load_model(network, weights=weights)
        self.model = loaded.model
        self.transform = transform or loaded.transform or Transform()
        labels = torch.as_tensor(images.labels)[positions]
        self.images = Chosen(images, positions, labels)
        self.head: Head = usable_head(
            self.model, ImageSource(self.images, self.transform, Pass(batch_size=4))
        )
        self.work = work

    def plain(self) -> Features:
        """The images as they are."""
        return self._kept("plain", ImageSource(self.images, self.transform, Pass()))

    def view(self, i: int) -> Features:
        """A view of each."""
        source = ViewSource(self.images, self.transform, Pass(), KINDS, f"0 {i}")
        return self._kept(f"view-{i}", source)

    def _kept(self, name: str, source: ImageSource) -> Features:
        file = self.work / f"{name}.safetensors"
        if not file.exists():
            self.work.mkdir(parents=True, exist_ok=True)
            shards = network_shards(self.model, source, self.head, Pass())
            blocks = [block for block, _ in shards(0)]
            made = Features.of(
                torch.cat([block.features for block in blocks]),
                torch.cat([block.labels for block in blocks]),
                self.head.weight,
                self.head.bias,
                ids=[name for block in blocks for name in block.ids],
            )
            save_features(file, made)
        return Features.open(file)


def resnet_cases(shared: Path, work: Path) -> Iterator[Case]:
    """ResNet-20: 500 of its 50,000 training images, the others unlabelled, and views."""
    train = Features.open(shared / "features" / "resnet20_train.safetensors")
    evaluation = Features.open(shared / "features" / "resnet20_eval.safetensors")
    chosen = torch.zeros(train.n_samples, dtype=torch.bool)
    chosen[::100] = True
    passes = Passes(
        f"{HERE / 'cifar_resnet.py'}:resnet20",
        shared / "checkpoints" / "resnet20-12fca82f.th",
        open_data(shared / "cifar10" / "train.zip"),
        chosen.nonzero()[:, 0],
        Transform(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        work / "resnet20",
    )
    name, few = "ResNet-20, 500 training images", passes.plain()
    yield Case(name, "500 images alone", few, evaluation)
    for n in (1, 4, 16):
        views = [passes.view(i) for i in range(1, n + 1)]
        yield Case(
            name, f"and {n} view{'s' * (n > 1)} (`--views {n}`)", few, evaluation, views=views
        )
    others = train.subset(~chosen)
    for n in (1_000, 5_000, others.n_samples):
        part = torch.zeros(others.n_samples, dtype=torch.bool)
        part[torch.arange(n) * others.n_samples // n] = True
        also = others.subset(part)
        yield Case(name, f"and {n:,} unlabelled images (`--also`)", few, evaluation, also)


def mobilenet_cases(shared: Path, work: Path) -> Iterator[Case]:
    """MobileNetV2 on 1,000 classes: half of the fit samples, and the other half unlabelled."""
    fit = Features.open(shared / "features" / "mobilenet_v2_fit.safetensors")
    evaluation = Features.open(shared / "features" / "mobilenet_v2_eval.safetensors")
    half = torch.arange(fit.n_samples) % 2 == 0
    name = f"MobileNetV2, 1,000 classes, {int(half.sum()):,} images"
    few = fit.subset(half)
    yield Case(name, f"{few.n_samples:,} images alone", few, evaluation)
    also = fit.subset(~half)
    more = f"and {also.n_samples:,} unlabelled images (`--also`)"
    yield Case(name, more, few, evaluation, also)


def page(rows: dict[str, list[list[str]]], dense: dict[str, float]) -> str:
    """The document."""
    lines = [
        "# What more samples bring",
        "",
        "Sparse heads follow the network's own probabilities, so that further samples need no",
        "labels. Each cell holds, on evaluation samples that no head was fitted to: accuracy (%) /",
        "agreement with the network (%) / mean divergence of the probabilities (KL, in nats).",
        "",
        "    python bench/more_samples.py ../shared/data --work runs/more --out docs/benchmarks",
    ]
    for name, found in rows.items():
        lines += ["", f"## {name}", "", f"The network itself: {100 * dense[name]:.2f} %.", ""]
        lines += ["| fitted to | " + " | ".join(f"k = {k}" for k in KS) + " | seconds |"]
        lines += ["| --- |" + " --- |" * (len(KS) + 1)]
        lines += ["| " + " | ".join(row) + " |" for row in found]
    lines += [
        "",
        "Seconds are those of the fit, without the passes through the network. Measured with "
        f"torch {torch.__version__} on {os.cpu_count()} {platform.machine()} cores,",
        f"{torch.get_num_threads()} thread, beside other work, so that times are rough.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given: Any = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[list[str]]] = {}
    dense: dict[str, float] = {}
    for cases in (resnet_cases, mobilenet_cases):
        for case in cases(given.shared, given.work):
            dense[case.name] = case.evaluation.dense_accuracy(case.fit.require_head())
            rows.setdefault(case.name, []).append(case.row())
            print(case.name, rows[case.name][-1], flush=True)
            (given.out / "more_samples.md").write_text(page(rows, dense), encoding="utf-8")


if __name__ == "__main__":
    main()
