"""Reports of real runs, which tests may change before the page is made of them."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from penult.features.features import Features
from penult.report.document import ReportData
from penult.report.report import Report
from penult.runs.analyze import Options, analyze_features

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
Parts = tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]
Made = Callable[[], Parts]


def parts_of(data: ReportData) -> Parts:
    """Document, details of classes and features, and images, to be changed at will."""
    return copy.deepcopy((data.document, data.class_details, data.feature_details, data.images))


def picture(side: int) -> str:
    """A picture as the page holds it."""
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def map_of(values: np.ndarray[Any, Any]) -> str:
    """An int8 (h, w) array as the page wants it."""
    return base64.b64encode(values.astype(np.int8).tobytes()).decode()


def named(data: ReportData) -> Parts:
    """The parts of a report of ten classes, called by names that sort and search better."""
    parts = parts_of(data)
    for row, name in zip(parts[0]["classes"], NAMES, strict=True):
        row["name"] = name
    return parts


def noisy_report(folder: Path) -> ReportData:
    """A report without pictures: many mistakes, and features that a reader is warned of.

    Feature 11 is dead, 17 flat, 20 and 21 are twins; 40 moves class 0 and is in no sparse head.
    """
    generator = torch.Generator().manual_seed(3)
    head = torch.rand(10, 48, generator=generator) / 4
    head[torch.arange(10), torch.arange(10)] += 2
    head[0, 40] += 0.2

    def part(n: int) -> Features:
        labels = torch.arange(n) % 10
        z = torch.rand(n, 48, generator=generator)
        z[torch.arange(n), labels] += 1.5
        z[:, 21] = 2 * z[:, 20]
        z[:, 11] = 0
        z[labels == 0, 40] += 3
        moved = torch.rand(n, generator=generator) < 0.25
        labels[moved] = torch.randint(10, (int(moved.sum()),), generator=generator)
        return Features.of(z, labels, head, class_names=list(NAMES))

    run = analyze_features(part(900), part(1200), folder / "run", Options(fit=False))
    return Report.of(run, k=1, select="magnitude").data
