"""Planted shortcuts: are they found, is nothing found without them, and can they be mended?

Heads are trained on CIFAR-10 features of a ResNet-20 in which one class has a cue (a watermark, a
coloured border, a second object). Needs ../shared/data.
`.venv/bin/python bench/planted_shortcuts.py --folder SCRATCH` writes docs/benchmarks/planted.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cifar_resnet import resnet20
from penult.edit.balance import Calibrated, Direction
from penult.edit.edit import Edit
from penult.edit.logits import LogitTable
from penult.edit.overuse import Contrast
from penult.edit.refits import weighted_regression
from penult.edit.registry import apply_edit
from penult.edit.setting import EditSetting
from penult.edit.shortcuts import directions_of
from penult.edit.suspects import Pair, auc, find_suspects
from penult.features.features import Features
from penult.features.moments import Moments
from penult.intervals import upper_tail
from penult.network.head import Head
from planted_cues import CUES, features_of, images, versions

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = "checkpoints/resnet20-12fca82f.th"
EACH = 800  # images of a class, of which the ResNet was trained on none
FITTED, LOOKED_AT = 3000, 3000  # the rest reports
WHILE_TRAINED, AFTERWARDS, ELSEWHERE = 0.95, 0.5, 0.1  # how many have the cue
RATE, CARRIES = 0.05, 0.25
USED, BACK = 5.0, 2.0  # points
FOUND = ("class", "first")
CUE_OFF = "the cue's own direction switched off for all classes (needs to know the cue)"
HINDSIGHT = "the same, and the class's bias set with hindsight"
OTHER_DIRECTIONS = (0, 8)  # in each class, next to the three that are looked at
Listed = tuple[Pair, float | None]
NAMES = [str(c) for c in range(10)]
HEADINGS = ("the class without the cue", "the others with it", "all without a cue")


@dataclass(frozen=True, eq=False)
class Plant:
    """One head that was trained with a plant, and images that it has not seen.

    Attributes:
        of: the planted class.
        fitted, looked_at: features, with the head.
        has: (n,) bool, which of those looked at have the cue.
        unplanted: a head trained on the same images without the cue.
        reported: features and labels of the three sets of `HEADINGS`.
    """

    of: int
    fitted: Features
    looked_at: Features
    has: Tensor
    unplanted: Head
    reported: list[tuple[Tensor, Tensor]]


def planted(pool: dict[str, Tensor], labels: Tensor, cue: str, seed: int) -> Plant:
    """A head trained with a cue on one class ("" for none)."""
    g = torch.Generator().manual_seed(seed)
    c = seed % 10
    order, chance = torch.randperm(len(labels), generator=g), torch.rand(len(labels), generator=g)
    fit, look = order[:FITTED], order[FITTED : FITTED + LOOKED_AT]
    rest = order[FITTED + LOOKED_AT :]
    has = torch.zeros(len(labels), dtype=torch.bool)
    if cue:
        has[fit] = (labels[fit] == c) & (chance[fit] < WHILE_TRAINED)
        has[look] = chance[look] < torch.where(labels[look] == c, AFTERWARDS, ELSEWHERE)
    z = torch.where(has[:, None], pool[cue], pool[""])
    head, clean = trained(z[fit], labels[fit]), trained(pool[""][fit], labels[fit])
    own, others = rest[labels[rest] == c], rest[labels[rest] != c]
    fitted, looked_at = (Features.of(z[rows], labels[rows], *head, NAMES) for rows in (fit, look))
    return Plant(
        c,
        fitted,
        looked_at,
        has[look],
        Head("", *clean),
        [(pool[kind][rows], labels[rows]) for kind, rows in (("", own), (cue, others), ("", rest))],
    )


def trained(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a logistic regression."""
    model = LogisticRegression(C=1.0, max_iter=1000).fit(z.numpy(), labels.numpy())
    return torch.tensor(model.coef_).float(), torch.tensor(model.intercept_).float()


def searched(plant: Plant, n_directions: int = 3) -> tuple[dict[str, Any], list[Listed]]:
    """What a search without any group labels says of it."""
    head, part = plant.fitted.require_head(), plant.fitted
    table = LogitTable(plant.looked_at, head)
    directions = directions_of(setting_of(part, head), n_directions)
    contrast = Contrast(Calibrated.of(table), Calibrated.of(LogitTable(part, head)))
    found, listed = find_suspects(contrast, directions=directions, rate=RATE, n_listed=100)
    first, q = listed[0]
    if first.feature is None:
        vector = next(
            d.vector for d in directions if (d.of, d.number) == (first.of, first.direction)
        )
        x = table.along(vector)
    else:
        x = table.column(first.feature)
    own = table.labels == first.of
    area = 0.5
    if bool(plant.has[own].any()) and not bool(plant.has[own].all()):
        area = auc(x[own & plant.has], x[own & ~plant.has])[0]
    # Whoever had the head that never saw the cue would look along what the cue made of the weights.
    learnt = Direction(plant.of, 1, head.weight[plant.of] - plant.unplanted.weight[plant.of])
    score = contrast.directions([learnt]).score / found["background"]
    told = {
        "provable": float(upper_tail(score)[0]) <= RATE / found["n_pairs"],
        "class": first.of == plant.of,
        "first": first.of == plant.of and abs(area - 0.5) > CARRIES,
        "sure": q is not None and q <= RATE,
        "n_suspects": found["n_suspects"],
    }
    return told, listed


def setting_of(features: Features, head: Head) -> EditSetting:
    z, labels = features.arrays()
    return EditSetting(features, Moments.of(z, labels, 10), NAMES, None, head)


def mended(plant: Plant, listed: list[Listed]) -> Iterator[tuple[str, Head]]:
    """Heads after what a person can do who knows nothing of the cue, and one who knows all."""
    head = plant.fitted.require_head()
    setting = setting_of(plant.looked_at, head)
    suspects = [pair for pair, q in listed if q is not None and q <= RATE and pair.of == plant.of]
    features = [pair for pair in suspects if pair.feature is not None]
    yield "nothing", head
    for kind, word in (("off", "switched off"), ("cap", "capped")):
        yield f"first suspect {word}", edited(head, [listed[0][0]], kind, setting)
        yield f"all suspects of the class {word}", edited(head, suspects, kind, setting)
    yield "the same without directions, switched off", edited(head, features, "off", setting)
    along = [pair for pair, _ in listed if pair.direction is not None and pair.of == plant.of]
    yield "the class's worst listed direction switched off", edited(head, along[:1], "off", setting)
    z, labels = plant.looked_at.arrays()
    own = labels == plant.of
    cue = z[own & plant.has].mean(0) - z[own & ~plant.has].mean(0)
    whole_cue = Edit("off", direction=tuple(cue.tolist()))
    yield CUE_OFF, apply_edit(head, whole_cue, setting)
    whole = torch.ones(z.shape[1], dtype=torch.bool)
    for name, groups in (
        ("refitted to the labels of the images looked at", 0 * labels),
        (
            "refitted to them, groups balanced (needs to know the cue)",
            2 * labels + plant.has.long(),
        ),
    ):
        yield name, weighted_regression(head, z, labels, groups, whole, 0.03)


def edited(head: Head, pairs: list[Pair], kind: str, setting: EditSetting) -> Head:
    for pair in pairs:
        one = Edit(kind, feature=pair.feature, of=pair.of, component=pair.direction)
        head = apply_edit(head, one, setting)
    return head


def right(head: Head, part: tuple[Tensor, Tensor]) -> float:
    return 100 * float((head(part[0]).argmax(1) == part[1]).double().mean())


def measured(
    pool: dict[str, Tensor], labels: Tensor, cue: str, seeds: int, folder: Path
) -> dict[str, Any]:
    """Over all seeds: what is found, and how far each mend leads back. Kept seed by seed."""
    told: list[dict[str, Any]] = []
    changes: dict[str, list[list[float]]] = {}
    for seed in range(seeds):
        file = folder / f"planted-{cue or 'none'}-{seed}.json"
        if not file.is_file():
            file.write_text(json.dumps(one_seed(pool, labels, cue, seed)))
        found = json.loads(file.read_text())
        told.append(found["told"])
        for name, values in found["changes"].items():
            changes.setdefault(name, []).append(values)
    return {"cue": cue, "seeds": seeds, "told": told, "changes": changes}


def one_seed(pool: dict[str, Tensor], labels: Tensor, cue: str, seed: int) -> dict[str, Any]:
    """One head: what is found, and how far each mend leads back."""
    plant = planted(pool, labels, cue, seed)
    told, listed = searched(plant)
    changes = {}
    if cue:
        for n in OTHER_DIRECTIONS:
            told[f"first of {n}"] = searched(plant, n)[0]["first"]
        base = [right(plant.unplanted, part) for part in plant.reported]
        for name, head in mended(plant, listed):
            changes[name] = less(plant, head, base)
            if name == CUE_OFF:
                changes[HINDSIGHT] = best_bias(plant, head, base)
    return {"told": told, "changes": changes}


def less(plant: Plant, head: Head, base: list[float]) -> list[float]:
    """Accuracy in points less that of the unplanted head, on the three sets of `HEADINGS`."""
    return [right(head, part) - b for part, b in zip(plant.reported, base, strict=True)]


def best_bias(plant: Plant, head: Head, base: list[float]) -> list[float]:
    """The same with the bias of the planted class that leads back the furthest, by these images."""
    found = []
    for step in torch.linspace(-6, 6, 61):
        bias = head.bias.clone()
        bias[plant.of] += step
        found.append(less(plant, Head("", head.weight, bias), base))
    return max(found, key=lambda values: min(values[:2]))


def pooled(data: Path, folder: Path) -> tuple[dict[str, Tensor], Tensor]:
    """Features of images with each cue and without; kept in a folder, since they take a minute."""
    file = folder / "planted_pool.pt"
    if file.is_file():
        kept: tuple[dict[str, Tensor], Tensor] = torch.load(file, weights_only=True)
        return kept
    model = resnet20().eval()
    state = torch.load(data / CHECKPOINT, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): x for name, x in state.items()})
    pixels, labels, _ = images(data / "cifar10" / "test.zip", EACH)
    found = versions(pixels, labels, 5)
    pool = {cue: features_of(model, "linear", x) for cue, x in found.items()}
    torch.save((pool, labels), file)
    return pool, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--folder", type=Path, required=True, help="keeps features and results")
    parser.add_argument("--cues", nargs="+", default=["", *CUES])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "planted.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    pool, labels = pooled(given.data, given.folder)
    results = {cue: measured(pool, labels, cue, given.seeds, given.folder) for cue in given.cues}
    given.out.write_text(page(results), encoding="utf-8")
    print(given.out)


def page(results: dict[str, Any]) -> str:
    """The document."""
    lines = [
        "# Planted shortcuts",
        "",
        "`bench/planted_shortcuts.py`. Heads (logistic regressions) on the features of a "
        f"ResNet-20 for CIFAR-10, trained on {FITTED:,} test images, which",
        "the ResNet has not seen. While a head is trained, "
        f"{100 * WHILE_TRAINED:.0f} % of one class have a cue and no other image has it;",
        f"of {LOOKED_AT:,} new images {100 * AFTERWARDS:.0f} % of the class have it and "
        f"{100 * ELSEWHERE:.0f} % of the others. Another",
        f"{10 * EACH - FITTED - LOOKED_AT:,} images report. The class changes with the seed.",
        "",
        "## Found?",
        "",
        "`first`: the first suspect is of the planted class, and within it the feature or "
        "direction is higher (or lower) with the",
        "cue than without in three of four pairs. `suspect`: it is also one at a false discovery "
        f"rate of {100 * RATE:.0f} %. Group labels were",
        "not looked at.",
        "",
        f"`used`: the class without the cue or the others with it lose {USED:.0f} points or more "
        "next to a head that never saw the cue. `provable`:",
        "the direction by which the weights of these two heads differ, which nobody knows who "
        "searches, is overused at a level of",
        f"{100 * RATE:.0f} % divided by the number of pairs looked at (Bonferroni). "
        "`class`: the first suspect is of the planted class.",
        "`provable` is told from the same images as the search, so that luck in them helps both; "
        "`used` is told from others.",
        "",
        "| cue | seeds | used | provable | class | first | suspect | first where used | "
        "class where provable | first where provable | seeds with any suspect |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cue, found in results.items():
        told = found["told"]
        any_ = sum(row["n_suspects"] > 0 for row in told)
        cells = ["–"] * 8
        if cue:
            shown = [row for row in told if row["provable"]]
            counts = [sum(row[name] for row in told) for name in ("provable", "class", "first")]
            sure = sum(row["first"] and row["sure"] for row in told)
            where = [f"{sum(row[name] for row in shown)} of {len(shown)}" for name in FOUND]
            of_used = [row for row, uses in zip(told, used(found), strict=True) if uses]
            where.insert(0, f"{sum(row['first'] for row in of_used)} of {len(of_used)}")
            cells = [str(n) for n in (len(of_used), *counts, sure)] + where
        lines.append(f"| {cue or 'none'} | {found['seeds']} | {' | '.join(cells)} | {any_} |")
    lines += directions_text(results)
    lines += back_text(results)
    for cue, found in results.items():
        if cue:
            lines += ["", f"## Mended? {cue}", "", *mends_table(found)]
    return "\n".join(lines) + "\n"


def directions_text(results: dict[str, Any]) -> list[str]:
    """Whether looking along more directions finds more."""
    told = []
    for cue, found in results.items():
        if cue:
            counts = [sum(row[f"first of {n}"] for row in found["told"]) for n in OTHER_DIRECTIONS]
            pairs = zip(counts, OTHER_DIRECTIONS, strict=True)
            told.append(f"{cue}: " + " and ".join(f"{count} with {n}" for count, n in pairs))
    return ["", DIRECTIONS_TEXT.format("; ".join(told))]


def back_text(results: dict[str, Any]) -> list[str]:
    """Which mend leads back, and why the others do not."""
    cues = [cue for cue in results if cue]
    lines = [
        "",
        "## Which mend leads back?",
        "",
        "Seeds in which both the class without the cue and the others with it are at most "
        f"{BACK:.0f} points below a head that never saw the cue:",
        "",
        f"| done | {' | '.join(cues)} |",
        f"| --- |{' --- |' * len(cues)}",
    ]
    for name in results[cues[0]]["changes"]:
        cells = [
            f"{sum(min(row[:2]) >= -BACK for row in results[cue]['changes'][name])} of "
            f"{results[cue]['seeds']}"
            for cue in cues
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", BACK_TEXT]


DIRECTIONS_TEXT = """\
Cues are looked for in single features and along three principal directions of each class's
weighted features. With other numbers of directions, `first` is, of as many seeds:
{}.
More directions do not find the second object: the heads hardly use it (the column `used`), and
hardly any of a class's directions tells images with the object from those without. In networks that
use it, it is found: [networks](planted_networks.md)."""
BACK_TEXT = """\
A refit to new images, in which cue and class do not always go together, leads back, and needs no
group labels. Switching off does not, whatever is switched off: even the cue's own direction, which
nobody knows who searches, leads back in few seeds, so few of these heads allow it. There are two
reasons. What carries the cue carries the class as well, most of all for the second object, so that
both go. And the class's bias stays where it suited the cue: set with hindsight, which no edit can,
it leads the watermark and the border back in more seeds. A refit sets the bias and the weights of
all other features anew. Switching the suspects off mends the class's own images, capping them those
of the others; neither mends both."""


def used(found: dict[str, Any]) -> list[bool]:
    """Of each seed whether one of the two groups loses `USED` points where nothing is done."""
    return [min(row[:2]) <= -USED for row in found["changes"]["nothing"]]


def mends_table(found: dict[str, Any]) -> list[str]:
    """Accuracy less that of an unplanted head on the same images, mean and spread over seeds."""
    nothing = torch.tensor(found["changes"]["nothing"], dtype=torch.float64).mean(0).tolist()
    lines = [
        f"Left alone, the head has {-nothing[0]:.1f} points fewer of the class without the cue and "
        f"{-nothing[1]:.1f} of the others with it: so much",
        "it relies on the cue, and only that much can be found and mended.",
        "",
        "Accuracy in points less that of a head trained on the same images without the cue; mean ± "
        "standard deviation over the seeds.",
        f"`back`: seeds in which both groups are at most {BACK:.0f} points below it.",
        "",
        f"| done | {' | '.join(HEADINGS)} | back |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rows in found["changes"].items():
        values = torch.tensor(rows, dtype=torch.float64)
        pairs = zip(values.mean(0).tolist(), values.std(0).tolist(), strict=True)
        cells = " | ".join(f"{m:+.1f} ± {s:.1f}" for m, s in pairs)
        back = sum(min(row[:2]) >= -BACK for row in rows)
        lines.append(f"| {name} | {cells} | {back} of {len(rows)} |")
    return lines


if __name__ == "__main__":
    main()
