"""A made-up report of any size, for tests of the page that shows it."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

Picture = Callable[[int, int], str | None]  # class, number → data URI
Report = tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PEERS = (("frequency", 0.22), ("contribution", 0.2), ("random", 0.8))
KS = (1, 2, 3, 5, 8, 10, 15, 20, 32)


def data_uri(pixels: np.ndarray[Any, Any]) -> str:
    """A uint8 (h, w, 3) array as a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@functools.cache
def painted(side: int, n_distinct: int = 40, noise: int = 30) -> Picture:
    """Pictures that are told apart by a gradient of their class's colour and by noise."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:side, 0:side] / side
    made: list[str] = []
    for _ in range(n_distinct):
        colour = rng.integers(40, 216, 3)
        ramp = (x * rng.normal() + y * rng.normal())[..., None] * 60
        grain = rng.integers(-noise, noise + 1, (side, side, 3))
        made.append(data_uri(np.clip(colour + ramp + grain, 0, 255).astype(np.uint8)))
    return lambda c, number: made[(c * 7 + number) % n_distinct]


def map_of(values: np.ndarray[Any, Any]) -> str:
    """An int8 (h, w) array as the page wants it."""
    return base64.b64encode(values.astype(np.int8).tobytes()).decode()


@dataclass
class Maker:
    """Sizes of the report, and the dice that fill it."""

    n_classes: int = 10
    n_features: int = 64
    k: int = 5
    n_shots: int = 8
    grid: tuple[int, int] | None = (8, 8)
    names: Sequence[str] = NAMES
    picture: Picture | None = field(default_factory=lambda: painted(32))
    images_per_class: int = 12
    side: int = 32
    n_mistakes: int = 60
    ids: Callable[[int, int], str] = lambda c, number: f"class{c:03d}/image_{number:06d}.png"
    missing_every: int = 29

    def report(self) -> Report:
        """document, class_details, feature_details, images."""
        self.rng = np.random.default_rng(3)
        self.own = [
            [int(j) for j in self.rng.permutation(self.n_features)[: self.k]]
            for _ in range(self.n_classes)
        ]
        self.images = [self._image(c, i) for c in range(self.n_classes) for i in range(self._each)]
        classes = [self._class(c) for c in range(self.n_classes)]
        details = [self._class_detail(c) for c in range(self.n_classes)]
        readers: dict[int, list[int]] = {}
        for c, features in enumerate(self.own):
            for j in features:
                readers.setdefault(j, []).append(c)
        rows = [self._feature(j, readers.get(j, [])) for j in range(self.n_features)]
        feature_details = [
            self._feature_detail(j, readers.get(j, []), rows[j]) for j in range(self.n_features)
        ]
        document = self._document(classes, rows)
        return document, details, feature_details, self.images

    @property
    def _each(self) -> int:
        return self.images_per_class if self.picture else 0

    def _name(self, c: int) -> str:
        return self.names[c] if c < len(self.names) else f"class number {c}"

    def _image(self, c: int, number: int) -> dict[str, Any]:
        index = c * self._each + number
        gone = self.picture is None or index % self.missing_every == self.missing_every - 1
        src = None if gone or self.picture is None else self.picture(c, number)
        predicted = c if number % 6 else (c + 1) % self.n_classes
        return {"id": self.ids(c, number), "class": c, "predicted": predicted, "src": src}

    def _class(self, c: int) -> dict[str, Any]:
        dense = float(self.rng.uniform(0.83, 0.97))
        return {
            "name": self._name(c),
            "n_samples": int(self.rng.integers(800, 5001)),
            "n_eval": 1000,
            "dense": dense,
            "sparse": dense - float(self.rng.exponential(0.012)) + 0.004,
            "features": self.own[c],
            "confused": (c + 2) % self.n_classes if self.n_classes > 1 else None,
            "reason": float(self.rng.integers(2, 6)),
        }

    def _map(self, sign: float = 1.0) -> str | None:
        if self.grid is None:
            return None
        h, w = self.grid
        y, x = np.mgrid[0:h, 0:w]
        cy, cx = self.rng.uniform(0.25, 0.75, 2) * (h, w)
        size = 0.16 * max(h, w)
        blob = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2))
        cool = np.exp(-((y - h + cy) ** 2 + (x - w + cx) ** 2) / (2 * size**2))
        return map_of(sign * (127 * blob - 45 * cool))

    def _shots(self, classes: Sequence[int], top: float) -> list[list[Any]]:
        if not self._each:
            return []
        shots = []
        for place in range(self.n_shots):
            c = classes[place % len(classes)]
            index = c * self._each + (place * 5 + 1) % self._each
            shots.append([index, top * 0.93**place, self._map()])
        return shots

    def _class_detail(self, c: int) -> dict[str, Any]:
        shares = self.rng.dirichlet(np.arange(self.k, 0, -1) * 2.0)
        shares = -np.sort(-shares)
        others = [(c + step) % self.n_classes for step in (1, 2, 3)]
        features = []
        for place, j in enumerate(self.own[c]):
            weight = float(self.rng.uniform(0.4, 1.4)) * (-1 if place == 3 else 1)
            mean = float(self.rng.uniform(1.2, 2.4)) * (0.1 if place == 3 else 1)
            features.append(
                {
                    "feature": j,
                    "influence": float(shares[place] * 9),
                    "weight": weight,
                    "dense_weight": weight * 0.8,
                    "share": float(shares[place]),
                    "mean": mean,
                    "elsewhere": mean * float(self.rng.uniform(0.05, 0.4)),
                    "own": self._shots([c], 3.1),
                    "others": self._shots(others, 2.2),
                }
            )
        confusions = [
            {
                "class": d,
                "to": [int(n) for n in self.rng.integers(0, 60, 2)],
                "from": [int(n) for n in self.rng.integers(0, 60, 2)],
                "features": [
                    {"feature": j, "moves": float(self.rng.normal() * 2)}
                    for j in (*self.own[c][:3], *self.own[d][:3])
                ],
                "misled": [
                    {"feature": j, "moves": -float(self.rng.exponential(1.5))}
                    for j in self.own[c][: 2 * (place % 2)]
                ],
            }
            for place, d in enumerate(others, start=1)
            if d != c
        ]
        return {"features": features, "bias": -0.31, "evidence": 8.2, "confusions": confusions}

    def _feature(self, j: int, readers: Sequence[int]) -> dict[str, Any]:
        return {
            "readers": len(readers),
            "best": readers[0] if readers else j % self.n_classes,
            "mean": 0.0 if j == 11 else float(self.rng.gamma(2.0, 0.2)),
            "share": None if j == 11 else 0.012 if j == 17 else float(self.rng.uniform(0.1, 0.8)),
            "dead": j == 11,
            "flat": j in (11, 17),
            "twin": {20: 21, 21: 20}.get(j),
        }

    def _feature_detail(
        self, j: int, readers: Sequence[int], row: dict[str, Any]
    ) -> dict[str, Any]:
        best = [c % self.n_classes for c in (row["best"], j, j + 3)]
        shown: list[int | None] = [*dict.fromkeys([*readers[:8], *best]), None]
        high = 0.0 if row["dead"] else 3.6
        rows = []
        for place, c in enumerate(shown):
            centre = 9.0 if c is not None and place < 2 else 1.5
            values = np.abs(self.rng.normal(centre, 4.0, 1000))
            counts = np.histogram(values, bins=24, range=(0, 24))[0]
            mean = float(values.mean() / 24 * high)
            rows.append({"class": c, "n": 1000, "mean": mean, "counts": [int(n) for n in counts]})
        weights = (1.1, 0.8, 0.6, 0.3, -0.2, -0.5, -0.8, -0.9)
        dense = [[c, w] for c, w in enumerate(weights[: self.n_classes])]
        return {
            "readers": [
                {"class": c, "weight": 0.9 - 0.2 * i, "share": 0.4 / (i + 1)}
                for i, c in enumerate(readers[:12])
            ],
            "dense": dense,
            "shots": self._shots(best, 3.4),
            "correlation": 0.998 if row["twin"] is not None else None,
            "range": [0.0, high],
            "distribution": rows,
        }

    def _mistake(self, place: int) -> dict[str, Any]:
        kind = ("both", "only-dense", "only-sparse")[min(3 * place // self.n_mistakes, 2)]
        label = place % self.n_classes
        wrong = (label + 1 + place % 3) % self.n_classes
        dense = label if kind == "only-sparse" else wrong
        sparse = label if kind == "only-dense" else wrong
        return {
            "image": label * self._each + place % max(self._each, 1) if self._each else 0,
            "label": label,
            "dense": dense,
            "sparse": sparse,
            "kind": kind,
            "reasons": [
                self._reason(head, said, label if said != label else wrong)
                for head, said in (("dense", dense), ("sparse", sparse))
            ],
        }

    def _reason(self, head: str, winner: int, loser: int) -> dict[str, Any]:
        values = self.rng.normal(0.2, 0.9, 8 if head == "dense" else 5)
        values = values[np.argsort(-np.abs(values))]
        rest = 0.4 if head == "dense" else 0.0
        features = [
            [int(j), float(self.rng.gamma(2.0, 0.5)), float(value), self._map(np.sign(value))]
            for j, value in zip(self.rng.permutation(self.n_features), values, strict=False)
        ]
        return {
            "head": head,
            "for": winner,
            "against": loser,
            "gap": float(values[: len(features)].sum()) + rest - 0.12,
            "features": features,
            "rest": rest,
            "bias": -0.12,
        }

    def _document(
        self, classes: list[dict[str, Any]], features: list[dict[str, Any]]
    ) -> dict[str, Any]:
        dense, accuracy = 0.9173, 0.9131
        ks = [k for k in KS if k <= self.n_features]
        chosen = [[k, dense - 0.1 * k**-1.55] for k in ks]
        peers = [
            {
                "name": name,
                "chosen": False,
                "points": [[k, max(0.1, dense - loss * k**-0.9)] for k in ks],
            }
            for name, loss in PEERS
        ]
        sizes = {"dense": (9.4, 2.6, 41.0), "sparse": (3.2, 1.0, 9.2)}
        mistakes = [self._mistake(i) for i in range(self.n_mistakes if self.n_classes > 1 else 0)]
        missing = [image["id"] for image in self.images if image["src"] is None]
        return {
            "format": "penult-report/1",
            "title": "ResNet-20 on CIFAR-10",
            "about": {
                "network": "bench/cifar_resnet.py:resnet20",
                "layer": "linear",
                "run": "runs/resnet20",
                "n_classes": self.n_classes,
                "n_features": self.n_features,
                "n_samples": 50000,
                "n_eval_samples": 10000,
                "evaluated_on": "eval",
                "dense_accuracy": dense,
                "train_accuracy": 0.9912,
                "data": "test.zip",
                "versions": {"penult": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
            },
            "conclusion": [
                f"{self.k} of {self.n_features:,} features per class keep 91.31% of the images "
                "right, where the dense head gets 91.73%.",
                f"{classes[0]['name'][:40]} loses most; half of all predictions are settled by "
                "three features.",
            ],
            "head": {
                "select": "curvature",
                "refit": "softmax",
                "k": self.k,
                "accuracy": accuracy,
                "nnz": self.k * self.n_classes,
                "n_features_used": len({j for own in self.own for j in own}),
                "loss": dense - accuracy,
                "interval": [0.0018, 0.0066],
                "agreement": 0.9835,
                "why": "The smallest head whose loss is below one point with 95% confidence.",
            },
            "curve": {
                "dense": dense,
                "series": [{"name": "curvature", "chosen": True, "points": chosen}, *peers],
            },
            "classes": classes,
            "features": features,
            "reasons": {
                "n_samples": 2000,
                "exact": 0.9985,
                "n_features": self.n_features,
                "heads": [self._sizes(name, *shape) for name, shape in sizes.items()],
            },
            "pictures": {
                "maps": "mean" if self.grid and self.picture else None,
                "note": "A map is the layer's output before its mean over positions is taken: "
                "its mean is the feature."
                if self.picture
                else "The run was made from features alone, so there are no images to show.",
                "grid": list(self.grid) if self.grid else None,
                "side": self.side,
                "n_images": len(self.images),
                "n_missing": len(missing),
                "missing": missing[:20],
                "n_changed": 0,
            },
            "mistakes": {
                "n_samples": 10000,
                "n_only_sparse": 112,
                "n_only_dense": 70,
                "n_both": 757,
                "rows": mistakes if self._each else [],
            },
            "n_class_details": self.n_classes,
        }

    def _sizes(self, name: str, centre: float, spread: float, n_read: float) -> dict[str, Any]:
        sizes = np.clip(self.rng.normal(centre, spread, 2000).round(), 1, 64).astype(int)
        counts = [int(n) for n in np.bincount(sizes)]
        return {"name": name, "median": float(np.median(sizes)), "counts": counts, "n_read": n_read}
