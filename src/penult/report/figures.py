"""Figures of the summary: where lines, dots and bars stand, for the template to draw as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penult.features.groups import FEWEST_RANKED
from penult.report.conclusion import surely_lost

MOST_ROWS, MOST_COLUMNS = 40, 80
_LABEL = 15.0
GUTTER = 150.0  # of the matrix: room for the names of its rows
_MATRIX = 1224.0 - GUTTER  # pixels over which the matrix spreads its columns


def curve(
    document: Mapping[str, Any], width: float, height: float, *, labelled: bool = True
) -> dict[str, Any]:
    """Accuracy against features per class: lines over log k, with the dense head as a level.

    The axis spans what matters, the chosen series and what comes near it; `clipped` says that
    lower points were left out.

    Args:
        document: with `curve` and `head`.
        width: of the drawing, pixels.
        height: of the drawing, pixels.
        labelled: leave room at the right for the names of the lines, moved apart.
    """
    dense = document["curve"]["dense"]
    head = document["head"] or {"k": 1, "accuracy": dense}
    series = [line for line in document["curve"]["series"] if line["points"]]
    ks = sorted({k for line in series for k, _ in line["points"] if k > 0} | {max(head["k"], 1)})
    left, top, bottom = 46.0, 26.0, 38.0
    right = width - (164.0 if labelled else 14.0)
    low, high, step = _accuracy_axis(series, dense, head["accuracy"])
    first, last = math.log(ks[0]), math.log(ks[-1])
    spread = (last - first) or 1.0

    def x(k: float) -> float:
        where = (math.log(max(k, ks[0])) - first) / spread if last > first else 0.5
        return round(left + 10 + where * (right - left - 20), 2)

    def y(accuracy: float) -> float:
        return round(height - bottom - (accuracy - low) / (high - low) * (height - top - bottom), 2)

    lines = _lines(series, x, y, low)
    level = min(max(y(dense), top), height - bottom)
    _place_labels(lines, level, top - 8, height - bottom)
    return {
        "width": width,
        "height": height,
        "left": left,
        "right": right,
        "top": top,
        "bottom": height - bottom,
        "lines": lines,
        "dense": {"y": y(dense), "label_y": level, "accuracy": dense},
        "chosen": {
            "x": x(head["k"]),
            "y": y(head["accuracy"]),
            "inside": document["head"] is not None and head["accuracy"] >= low,
        },
        "x_ticks": _spaced([(x(k), k) for k in ks], 24.0),
        "y_ticks": [
            {"y": y(low + i * step), "value": low + i * step}
            for i in range(round((high - low) / step) + 1)
        ],
        "clipped": any(not p["inside"] for line in lines for p in line["points"]),
        "low": low,
        "labelled": labelled,
    }


def _lines(
    series: Sequence[Mapping[str, Any]],
    x: Callable[[float], float],
    y: Callable[[float], float],
    low: float,
) -> list[dict[str, Any]]:
    """Each series' points, path and tone (0: the chosen one), the chosen one last, on top."""
    lines, n_peers = [], 0
    for line in series:
        n_peers += not line["chosen"]
        points = [
            {"x": x(k), "y": y(a), "k": k, "accuracy": a, "inside": a >= low}
            for k, a in sorted(line["points"])
        ]
        lines.append(
            {
                "name": line["name"],
                "chosen": line["chosen"],
                "tone": 0 if line["chosen"] else 1 + (n_peers - 1) % 6,
                "points": points,
                "path": "M" + "L".join(f"{p['x']} {p['y']}" for p in points),
                "end": points[-1],
            }
        )
    return sorted(lines, key=lambda line: bool(line["chosen"]))


def _accuracy_axis(
    series: Sequence[Mapping[str, Any]], dense: float, accuracy: float
) -> tuple[float, float, float]:
    """(low, high, step) of the accuracy axis, in round numbers, the chosen series filling much."""
    chosen = [a for line in series if line["chosen"] for _, a in line["points"]] or [accuracy]
    everything = [a for line in series for _, a in line["points"]] + [dense, accuracy]
    top = max(everything)
    room = max(2.2 * (top - min(chosen)), top - accuracy, 0.02)
    floor = max(min(everything), top - room)
    step = next(s for s in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if (top - floor) / s <= 6)
    low = min(math.floor(floor / step + 1e-9) * step, floor)  # 6 × 0.05 is more than 0.3
    high = min(math.ceil(top / step - 1e-9) * step, 1.0)
    return max(low, 0.0), max(high, low + step), step


def _place_labels(lines: list[dict[str, Any]], dense_y: float, top: float, bottom: float) -> None:
    """Set each line's `label_y`: beside its end, but no two labels nearer than a line of text.

    The level of the dense head keeps its own label; the others go above or below it.
    """
    ranked = sorted(lines, key=lambda line: (round(line["end"]["y"]), not line["chosen"]))
    room_above, room_below = (int(room / _LABEL) for room in (dense_y - top, bottom - dense_y))
    wanted = sum(line["end"]["y"] <= dense_y - _LABEL for line in ranked)
    n_above = min(max(wanted, len(ranked) - room_below), room_above)
    above = _apart([line["end"]["y"] for line in ranked[:n_above]], top, dense_y - _LABEL)
    below = _apart([line["end"]["y"] for line in ranked[n_above:]], dense_y + _LABEL, bottom)
    for line, place in zip(ranked, above + below, strict=True):
        line["label_y"] = round(place, 2)


def _apart(wishes: list[float], top: float, bottom: float) -> list[float]:
    """Places as near to the wishes, ascending, as lines of text between two heights can stand."""
    places: list[float] = []
    for wish in wishes:
        places.append(max(wish, places[-1] + _LABEL if places else top))
    for i in reversed(range(len(places))):
        limit = places[i + 1] - _LABEL if i + 1 < len(places) else bottom
        places[i] = min(places[i], limit)
    return places


def _spaced(ticks: list[tuple[float, int]], gap: float) -> list[dict[str, float]]:
    """Those ticks that stand at least `gap` apart, the last one among them."""
    kept: list[tuple[float, int]] = []
    for place, value in reversed(ticks):
        if not kept or kept[-1][0] - place >= gap:
            kept.append((place, value))
    return [{"x": place, "value": value} for place, value in reversed(kept)]


def reason_bars(document: Mapping[str, Any], most_bars: int = 48) -> dict[str, Any] | None:
    """Sizes of sufficient reasons as shares of the samples, a row of bars for each head.

    Sizes share one axis; where there are more than `most_bars`, neighbours are put together. The
    few samples beyond the size that holds 99.5 % of them all are put into the last bar.
    """
    reasons = document["reasons"]
    if reasons is None or not any(sum(head["counts"]) for head in reasons["heads"]):
        return None
    last = max(_quantile(head["counts"], 0.995) for head in reasons["heads"])
    width = _round_up((last + 1) / most_bars)
    n_bars = -(-(last + 1) // width)
    rows = []
    for head in reasons["heads"]:
        total = max(sum(head["counts"]), 1)
        shares = [0.0] * n_bars
        for size, n in enumerate(head["counts"]):
            shares[min(size // width, n_bars - 1)] += n / total
        rows.append({**head, "total": sum(head["counts"]), "shares": shares})
    tallest = max(max(row["shares"]) for row in rows)
    for row in rows:
        row["bars"] = [
            {
                "low": i * width,
                "high": (i + 1) * width - 1,
                "share": share,
                "height": round(share / tallest, 4),
                "more": i == n_bars - 1 and len(row["counts"]) > n_bars * width,
            }
            for i, share in enumerate(row["shares"])
        ]
        row["median_at"] = round(min((row["median"] / width + 0.5) / n_bars, 1.0), 4)
    every = _round_up(n_bars * width / 10) // width or 1
    ticks = [{"at": i, "value": i * width} for i in range(0, n_bars, every)]
    return {"rows": rows, "n_bars": n_bars, "width": width, "ticks": ticks}


def _round_up(value: float) -> int:
    """The next number of 1, 2, 5, 10, 20, 50, 100, …"""
    steps = (int(m * 10**power) for power in range(12) for m in (1, 2, 5))
    return next(step for step in steps if step >= value)


def _quantile(counts: Sequence[int], fraction: float) -> int:
    seen, total = 0, sum(counts)
    for size, n in enumerate(counts):
        seen += n
        if seen >= fraction * total:
            return size
    return max(len(counts) - 1, 0)


def matrix(
    document: Mapping[str, Any], class_details: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Which class reads which feature: a dot for each, its area the share of evidence.

    Of the sparse head where one is explained, else the network's strongest features. Classes are
    those with images, if there are any. None where that would be more than `MOST_ROWS` classes or
    `MOST_COLUMNS` features. Features stand in the order of the classes that read them most, so
    that a class's own lie together.
    """
    classes = document["classes"]
    sparse = document["head"] is not None
    which, share, weight = (
        ("kept", "sparse_share", "sparse_weight") if sparse else ("features", "share", "weight")
    )
    filled = [c for c, row in enumerate(classes) if row["n_samples"] + row["n_eval"] > 0]
    rows = filled or list(range(len(classes)))
    first: dict[int, tuple[int, int]] = {}
    for rank in range(max((len(classes[c][which]) for c in rows), default=0)):
        for c in rows:
            if rank < len(classes[c][which]):
                first.setdefault(classes[c][which][rank], (c, rank))
    if not first or len(rows) > MOST_ROWS or len(first) > MOST_COLUMNS:
        return None
    columns = sorted(first, key=lambda j: first[j])
    place = {j: i for i, j in enumerate(columns)}
    dots = [
        {
            "row": at,
            "column": place[item["feature"]],
            "feature": item["feature"],
            "class": c,
            "share": item[share],
            "weight": item[weight],
        }
        for at, c in enumerate(rows)
        for item in class_details[c]["features"]
        if item["kept"] or not sparse
    ]
    largest = max((dot["share"] or 0.0 for dot in dots), default=0.0) or 1.0
    for dot in dots:
        dot["size"] = round(math.sqrt((dot["share"] or 0.0) / largest), 4)
    step = min(max(_MATRIX / len(columns), 20.0), 40.0)
    return {
        "columns": columns,
        "rows": rows,
        "dots": dots,
        "step": round(step, 2),
        "gutter": GUTTER,
    }


def worst_classes(document: Mapping[str, Any], most: int = 8) -> dict[str, Any] | None:
    """The classes that lose most from the dense to the sparse head, on one axis of accuracy.

    Only classes that lose are among the `rows`, at most `most`, those first that are most surely
    among the losers (`surely_lost`). Classes of fewer than `FEWEST_RANKED` images are left out:
    `n_few` counts them. `n_others` counts those that do not lose, 0 where there may be more losers
    than rows. None where no class is known in both heads.
    """
    if document["head"] is None:
        return None
    known = [
        (row["dense"] - row["sparse"], c)
        for c, row in enumerate(document["classes"])
        if row["dense"] is not None and row["sparse"] is not None
    ]
    if not known:
        return None
    classes = document["classes"]
    enough = [item for item in known if classes[item[1]]["n_eval"] >= FEWEST_RANKED]
    losers = [item for item in enough if item[0] > 0]
    n_few = len(known) - len(enough)
    if not losers:
        return {
            "rows": [],
            "ticks": [],
            "n_others": len(enough),
            "n_few": n_few,
            "fewest": FEWEST_RANKED,
        }
    worst = sorted(losers, key=lambda item: (-surely_lost(classes[item[1]]), item[1]))[:most]
    values = [classes[c][head] for _, c in worst for head in ("dense", "sparse")]
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.25) if (max(values) - min(values)) / s <= 4.5)
    low = max(math.floor(min(values) / step - 0.2) * step, 0.0)
    high = min(math.ceil(max(values) / step + 0.2) * step, 1.0)

    def at(accuracy: float) -> float:
        return round(float(100 * (accuracy - low) / (high - low)), 3)

    rows = [
        {
            "class": c,
            "loss": loss,
            "n": classes[c]["n_eval"],
            "dense": at(classes[c]["dense"]),
            "sparse": at(classes[c]["sparse"]),
        }
        for loss, c in worst
    ]
    ticks = [low + i * step for i in range(round((high - low) / step) + 1)]
    return {
        "rows": rows,
        "ticks": [{"at": at(value), "value": value} for value in ticks],
        "n_others": len(enough) - len(losers) if len(losers) <= most else 0,
        "n_few": n_few,
        "fewest": FEWEST_RANKED,
    }
