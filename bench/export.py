"""What an exported network costs beside the network as it was, in onnxruntime.

Networks with real weights get heads that are fitted to their stored features; networks with random
weights get random heads. All heads read at most 256 different features; what makes only the others
is dropped. The network as it was and the export take turns in one process.

    python bench/export.py ../shared/data --out docs/benchmarks

In parts that are added up: `--part heads --kept parts.json`, then `--network resnet20 --part
networks --kept parts.json`, and so on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penult import Features, Plan, find_head, fit_path, open_data
from penult.data.source import ImageSource, Pass
from penult.data.transform import Transform
from penult.export.choose_form import choose_form
from penult.export.cost import counted_cost, gathered_products, timed
from penult.export.head_forms import head_layer
from penult.export.onnx_graph import OPSET, onnx_of, save
from penult.export.proof import Trial, compared, run_fresh
from penult.export.shipped_head import ShippedHead
from penult.export.shipped_network import ShippedNetwork, logits_in_batches
from penult.export.traced import trace
from penult.export.unread import drop_unread
from penult.extras import import_extra, import_torchvision
from penult.network.head import Head
from penult.network.load import load_model
from penult.network.replace import replace_head

HERE = Path(__file__).parent
BATCHES = (1, 8)
MOST_FEATURES, K = 256, 10
HEADS = (
    (64, 10, 5, 64),
    (1280, 1000, 10, 1280),
    (2048, 1000, 10, 2048),
    (2048, 1000, 10, 256),
    (768, 21841, 10, 768),
    (768, 21841, 3, 768),
)
IMAGES = 64
LIMIT = (
    "What the limit is: onnxruntime takes about 8 ns for each number that a sparse form gathers, "
    "and several threads share a dense product better than a gather. With 768 × 21,841 and k = 10 "
    "a sparse form gathers up to 218,410 numbers for each sample: it wins by nearly two with one "
    "thread, and with two threads for one sample; for batches of 8 and 32 little is won there. "
    "With k = 3 a sparse form wins everywhere. A form that wins for large batches is not taken if "
    "it is slower for one sample (1,280 × 1,000; 2,048 × 1,000 with two threads): name the sizes "
    "that you use by `--timed`. With 64 × 10 a call costs more than the product. The arithmetic is "
    "not the limit: a sparse product, of SciPy for example, takes about a tenth of the dense one's "
    "time for 768 × 21,841; onnxruntime has such a product too and refuses weights that are stored "
    "in the file (its issue 31730)."
)


@dataclass
class Subject:
    """A network with a head, images for it and perhaps their labels."""

    name: str
    model: nn.Module
    own: Head
    weight: Tensor
    bias: Tensor
    images: Tensor
    labels: Tensor


def real(shared: Path, name: str) -> Subject:
    """A network with real weights, a head fitted to its features, and real images."""
    if name.startswith("resnet"):
        checkpoint = next((shared / "checkpoints").glob(f"{name}-*.th"))
        loaded = load_model(f"{HERE / 'cifar_resnet.py'}:{name}", weights=checkpoint)
        data, features = shared / "cifar10" / "test.zip", f"{name}_train.safetensors"
        transform, most, k = Transform(), None, 5
    else:
        loaded = load_model(f"{shared / 'imagenet' / 'networks.py'}:{name}")
        data, features = shared / "imagenet" / "eval.zip", f"{name}_fit.safetensors"
        assert isinstance(loaded.transform, Transform)
        transform, most, k = loaded.transform, MOST_FEATURES, 5
    path = fit_path(
        Features.open(shared / "features" / features), plan=Plan(ks=(k,), max_features=most)
    )
    head = path.steps[0].head
    images, labels = images_of(data, transform)
    own = find_head(loaded.model, images[:4])
    weight, bias = head.dense_weight().detach(), head.bias.detach()
    return Subject(name, loaded.model, own, weight, bias, images, labels)


def images_of(data: Path, transform: Transform) -> tuple[Tensor, Tensor]:
    source = ImageSource(open_data(str(data)), transform, Pass(batch_size=IMAGES))
    batch = next(iter(source.batches(0)))
    images = source.inputs(batch, torch.device("cpu"))
    assert isinstance(images, Tensor)
    return images.contiguous(), batch.labels


def random(name: str, build: Callable[[], nn.Module]) -> Subject:
    """A network with random weights, a head of random subspaces, and noise for images."""
    torch.manual_seed(0)
    model = build().eval()
    images = torch.randn(IMAGES, 3, 224, 224)
    own = find_head(model, images[:2])
    weight = random_weight(own.n_features, own.n_classes, K, MOST_FEATURES)
    return Subject(name, model, own, weight, own.bias, images, torch.full((IMAGES,), -1))


def random_weight(n_features: int, n_classes: int, k: int, most: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    pool = torch.randperm(n_features, generator=generator)[:most]
    kept = torch.rand(n_classes, len(pool), generator=generator).argsort(1)[:, :k]
    values = torch.randn(n_classes, k, generator=generator) / n_features**0.5
    return torch.zeros(n_classes, n_features).scatter_(1, pool[kept], values)


def measured(subject: Subject, folder: Path) -> dict[str, Any]:
    """Everything about one network."""
    own, images = subject.own, {"images": subject.images}
    shipped = ShippedHead(replace(own, weight=subject.weight, bias=subject.bias), None, {})
    form, _ = choose_form(shipped, "onnxruntime", BATCHES, opset=OPSET, drop=True)
    layer = head_layer(shipped, form, drop=True)
    with replace_head(subject.model, head_layer(shipped, "dense"), own):
        reference = logits_in_batches(ShippedNetwork(subject.model, own), images, 8)
    whole = trace(ShippedNetwork(subject.model, own), images)
    with replace_head(subject.model, layer, own):
        module, dropped = drop_unread(trace(ShippedNetwork(subject.model, own), images))
    program = trace(module, images) if dropped.layers or dropped.positions else None
    if program is None:
        form, _ = choose_form(shipped, "onnxruntime", BATCHES, opset=OPSET)
        layer = head_layer(shipped, form)
        with replace_head(subject.model, layer, own):
            program = trace(ShippedNetwork(subject.model, own), images)
    before = save(onnx_of(whole, ["images"], OPSET), folder / "before.onnx")
    after = save(onnx_of(program, ["images"], OPSET), folder / "after.onnx")
    fresh = run_fresh(Trial("onnx", after, timed=BATCHES, before=before), images)
    proof = compared(reference, fresh.logits, subject.labels, own.link, 1e-4)
    cost = {"before": counted_cost(whole, images, 2), "after": counted_cost(program, images, 2)}
    cost["after"]["multiplications"] += gathered_products(layer)
    cost["before"]["bytes"], cost["after"]["bytes"] = (
        sum(file.stat().st_size for file in files) for files in (before, after)
    )
    return {
        "name": subject.name,
        "form": form,
        "read": len(shipped.read()),
        "features": own.n_features,
        "dropped": dropped.document(),
        "proof": proof,
        "cost": cost,
        "seconds": timed(fresh.seconds),
    }


def heads() -> list[dict[str, Any]]:
    """All forms of heads of some sizes, by one thread and by all that torch has."""
    rows, most_threads = [], torch.get_num_threads()
    for n_features, n_classes, k, most in HEADS:
        weight = random_weight(n_features, n_classes, k, most)
        shipped = ShippedHead(Head("", weight, torch.zeros(n_classes)), None, {})
        for threads in sorted({1, most_threads}):
            torch.set_num_threads(threads)
            _, about = choose_form(shipped, "onnxruntime", (1, 8, 32), opset=OPSET)
            rows.append({"sizes": [n_features, n_classes, k, most], "threads": threads, **about})
            print(rows[-1]["sizes"], threads, about["form"], flush=True)
    return rows


def subjects(shared: Path) -> dict[str, Callable[[], Subject]]:
    models = import_torchvision().models
    timm = import_extra("timm", "vision")
    found: dict[str, Callable[[], Subject]] = {
        name: partial(real, shared, name) for name in ("resnet20", "resnet56", "mobilenet_v2")
    }
    random_ones: dict[str, Callable[[], nn.Module]] = {
        "ResNet-50": models.resnet50,
        "ConvNeXt-tiny": models.convnext_tiny,
        "ViT-small": lambda: timm.create_model("vit_small_patch16_224"),
        "EfficientNet-B0": models.efficientnet_b0,
        "MobileNetV3-small": models.mobilenet_v3_small,
    }
    return {**found, **{name: partial(random, name, build) for name, build in random_ones.items()}}


def less(before: float, after: float) -> str:
    return f"{100 * (1 - after / before):.1f} %"


def said(dropped: dict[str, Any]) -> str:
    smaller = [f"{d['layer']} {d['before']:,} → {d['after']:,}" for d in dropped["layers"]]
    smaller += [
        f"{d['layer']} at {d['after']:,} of {d['before']:,} positions" for d in dropped["positions"]
    ]
    return ", ".join(smaller) or f"nothing: {dropped['kept'][0]['why']}"


def report(rows: list[dict[str, Any]], forms: list[dict[str, Any]]) -> str:
    lines = [
        "# Exports: what a network with a sparse head costs in onnxruntime",
        "",
        "Made by `python bench/export.py ../shared/data --out docs/benchmarks` on "
        f"{platform.machine()}, {torch.get_num_threads()} threads, {os.cpu_count()} cores that "
        "other work shared. Before is the network with its own dense head; both take turns in one "
        "process, so that other work meets both, and medians with 95 % intervals are shown.",
        "",
        "ResNet-20, ResNet-56 and MobileNetV2 have trained weights and heads of five features a "
        "class, fitted to their features; the others have random weights and random heads of ten "
        f"features a class. All read at most {MOST_FEATURES} different features.",
        "",
        "| network | features read | parameters | multiplications | file | ms, batch 1 | speed-up "
        "| ms, batch 8 | speed-up | largest difference of a logit (of the largest logit) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        before, after = row["cost"]["before"], row["cost"]["after"]
        cells = [row["name"], f"{row['read']:,} of {row['features']:,}"]
        cells += [
            f"{before[key]:,} → {after[key]:,} (−{less(before[key], after[key])})"
            for key in ("parameters", "multiplications")
        ]
        cells.append(f"{before['bytes'] / 1e6:.1f} → {after['bytes'] / 1e6:.1f} MB")
        for size in BATCHES:
            times = row["seconds"][str(size)]
            cells.append(" → ".join(milliseconds(times[side]) for side in ("before", "after")))
            cells.append(f"{times['speed_up']:.2f}")
        proof = row["proof"]
        cells.append(f"{proof['greatest_difference'] / proof['largest_logit']:.1e}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "What was dropped, and the form of the head:", ""]
    lines += [f"- {row['name']}: {said(row['dropped'])}; `{row['form']}`" for row in rows]
    lines += [
        "",
        "## The head alone",
        "",
        "Microseconds of a batch in onnxruntime, median; the form that is taken in bold. It is the "
        "fastest of those that are nowhere more than 5 % slower than `dense`.",
        "",
        "| features × classes, k (different features) | threads | batch | dense | read | gather "
        "| rows | blocks | speed-up |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in forms:
        n_features, n_classes, k, most = row["sizes"]
        for one in row["measured"]:
            times = {name: 1e6 * form["median"] for name, form in one["forms"].items()}
            cells = [f"{n_features:,} × {n_classes:,}, {k} ({min(most, n_features):,})"]
            cells += [str(row["threads"]), str(one["batch_size"])]
            for name in ("dense", "read", "gather", "rows", "blocks"):
                text = f"{times[name]:,.0f}" if name in times else ""
                cells.append(f"**{text}**" if name == row["form"] else text)
            cells.append(f"{times['dense'] / times[row['form']]:.1f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", LIMIT]) + "\n"


def milliseconds(times: dict[str, Any]) -> str:
    low, high = (f"{1e3 * value:.3g}" for value in times["interval"])
    return f"{1e3 * times['median']:.3g} ({low}–{high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder with imagenet/ and checkpoints/")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks")
    parser.add_argument("--network", action="append", help="one of them; by default all")
    parser.add_argument("--part", choices=("heads", "networks"), help="by default both")
    parser.add_argument("--kept", type=Path, help="JSON file that adds the parts up, run by run")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"heads": [], "networks": {}}
    if arguments.kept is not None and arguments.kept.exists():
        found = json.loads(arguments.kept.read_text(encoding="utf-8"))

    def keep() -> None:
        if arguments.kept is not None:
            arguments.kept.write_text(json.dumps(found), encoding="utf-8")
        rows = [found["networks"][name] for name in known if name in found["networks"]]
        text = report(rows, found["heads"])
        (arguments.out / "export.md").write_text(text, encoding="utf-8")

    known = subjects(arguments.shared)
    if arguments.part != "networks":
        found["heads"] = heads()
        keep()
    if arguments.part != "heads":
        for name in arguments.network or known:
            with tempfile.TemporaryDirectory() as folder:
                found["networks"][name] = measured(known[name](), Path(folder))
            print(found["networks"][name], flush=True)
            keep()


if __name__ == "__main__":
    main()
