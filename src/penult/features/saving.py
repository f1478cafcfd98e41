"""Saving: features that fit in memory, as one file."""

from __future__ import annotations

import json
from pathlib import Path

from penult.features.features import Features
from penult.features.shards import FORMAT, packed, row_names
from penult.storage import write_tensors


def save_features(path: str | Path, features: Features) -> None:
    """Write features that fit in memory as one features file, with ids, head and class names."""
    z, y = features.arrays()
    tensors = {"features": z, "labels": y}
    metadata = {"format": FORMAT}
    ids = features.ids()
    if ids != row_names(0, len(ids)):
        metadata["ids"] = packed(ids)
    if features.head is not None:
        tensors |= {"weight": features.head.weight, "bias": features.head.bias}
    if features.multi_label:
        metadata["link"] = features.link
    if features.class_names is not None:
        metadata["class_names"] = json.dumps(features.class_names, ensure_ascii=False)
    write_tensors(Path(path), tensors, metadata)
