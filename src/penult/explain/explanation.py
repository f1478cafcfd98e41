"""Explanation: why one image was called what it was, by the few features that carry it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from penult.errors import InputError
from penult.explain.choice import Choice, choose_head
from penult.explain.looked_up import is_number, look_up
from penult.explain.overlay import data_uri, enlarged, overlay
from penult.explain.reasons import Box, Reason, sufficient_reason
from penult.explain.terms import Terms, terms_of
from penult.heads.sparse_head import SparseHead
from penult.network.head import Head
from penult.runs.reopen import Sources
from penult.runs.run import Run
from penult.text import one_line, some
from penult.user_code import nearest

FORMAT = "penult-explanation/1"
SHOWN = 6
CLASSES_LISTED = 5
LONGEST_NAME = 80
LONGEST_SHOWN = 48
BEYOND = 0.1  # of its range: how far a feature lies outside of it to be named


@dataclass(frozen=True)
class Outside:
    """A feature whose value lies outside of its range in the analysed data."""

    feature: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """One image's decision, taken apart.

    Attributes:
        image: name of the image.
        picture: what the network saw, or None where only its features are at hand.
        class_names: in the order of the logits.
        label: class that the data says it is, or None.
        head_name: which head is explained.
        head: the head itself.
        features: (n_features,) of the image.
        terms: the logit of the class, or its difference to another, feature by feature.
        reason: the smallest set of features that guarantees what the head predicts.
        maps: (n_shown, h, w), heat maps of the first terms, or None.
        maps_kind: "mean" where they are exact, "attribution" where estimated, None without.
        note: how the maps were made, or why there are none.
        logits, dense_logits: (n_classes,) of the explained head and of the dense one.
        outside: features that are read here and lie outside of their range in the analysed data,
            the farthest first.
    """

    image: str
    picture: Image.Image | None
    class_names: Sequence[str]
    label: int | None
    head_name: str
    head: Head | SparseHead
    features: Tensor
    terms: Terms
    reason: Reason
    maps: Tensor | None
    maps_kind: str | None
    note: str
    logits: Tensor = field(repr=False)
    dense_logits: Tensor = field(repr=False)
    outside: tuple[Outside, ...] = ()

    @classmethod
    def of(
        cls,
        run: Run | str | Path,
        image: str | Path | Image.Image,
        *,
        class_: str | int | None = None,
        against: str | int | None = None,
        k: int | None = None,
        select: str | None = None,
        dense: bool = False,
        exact: bool = True,
        maps: bool = True,
        sources: Sources | None = None,
        device: torch.device | str = "cpu",
    ) -> Explanation:
        """Explain one image.

        Args:
            run: a finished run, or its folder.
            image: a file, a PIL image, the name of an image in the run's data (such as
                `cat/0001.png`), or `train:17`, `eval:17`: the 17th sample of the run, from 0.
            class_: the class whose logit is explained; the predicted one where None.
            against: another class: what separates the two is explained.
            k, select: which of the run's sparse heads; see `choose_head`.
            dense: explain the dense head instead.
            exact: find the smallest sufficient reason; otherwise a small one, quickly.
            maps: False leaves out the heat maps.
            sources: where network and images are now, if not where the run found them.
            device: where the network runs.

        Raises:
            InputError: no such image, class or head; an image file of a run made from features.
        """
        run = run if isinstance(run, Run) else Run.open(run)
        train = run.train()
        names = run.summary()["class_names"]
        dense_head = train.require_head()
        found: Choice | None = None if dense else choose_head(run, k, select)
        head: Head | SparseHead = dense_head if found is None else found.head
        of = None if class_ is None else class_index(names, class_)
        other = None if against is None else class_index(names, against)
        looked_up = look_up(run, image, sources or Sources(), torch.device(device), maps)
        z = looked_up.features
        with torch.no_grad():
            logits = head(z[None])[0]
        predicted = int(logits.argmax())
        of = predicted if of is None else of
        if of == other:
            raise InputError(
                f"the image is explained as {names[of]}: expected another class to compare with"
            )
        terms = terms_of(head, z, of, other)
        shown = [term.feature for term in terms.terms[:SHOWN]]
        box = Box.of(train)
        return cls(
            looked_up.name,
            looked_up.picture,
            names,
            looked_up.label,
            "dense head" if found is None else f"sparse head ({found.name})",
            head,
            z,
            terms,
            sufficient_reason(head, z, box, exact=exact, class_names=names),
            looked_up.maps(shown),
            looked_up.maps_kind,
            looked_up.note,
            logits,
            dense_head(z[None])[0],
            _outside(terms, box),
        )

    @property
    def predicted(self) -> int:
        """Class that the explained head gives."""
        return int(self.logits.argmax())

    @property
    def dense_predicted(self) -> int:
        """Class that the dense head gives: the network's own."""
        return int(self.dense_logits.argmax())

    def probability(self, *, dense: bool = False) -> float:
        """Softmax probability of the predicted class, by the explained head or the dense one."""
        return float((self.dense_logits if dense else self.logits).double().softmax(0).max())

    def remarks(self) -> list[str]:
        """What to know before reading on: the heads differ, or the image is unlike the data."""
        found = []
        if self.dense_predicted != self.predicted:
            own, other = (
                short(self.class_names[c]) for c in (self.dense_predicted, self.predicted)
            )
            found.append(
                f"The network itself says {own}; this explains the {self.head_name}, which says "
                f"{other}. Explain the dense head to see why the network does (--dense)."
            )
        if self.outside:
            worst = self.outside[0]
            found.append(
                f"Unlike the analysed images: feature {worst.feature} is {worst.value:.3g}, and "
                f"{worst.low:.3g} to {worst.high:.3g} there"
                + (f" (and {len(self.outside) - 1} others)." if len(self.outside) > 1 else ".")
            )
        return found

    def reasoned(self) -> str:
        """The sufficient reason as a sentence."""
        reason = self.reason
        if not reason.valid:
            return "No set of features guarantees this class: two classes are level."
        n = len(reason.features)
        size = "the fewest that do" if reason.exact else f"at least {reason.bound} are needed"
        what = f"{n} of {reason.n_features} features guarantee{'s' if n == 1 else ''}"
        name = short(self.class_names[reason.predicted])
        return (
            f"{what} the prediction, {name}, whatever the others are within the ranges of the "
            f"data ({size}; features of rival classes count too)."
        )

    def sentence(self) -> str:
        """What is explained, and how it ends."""
        names, terms = self.class_names, self.terms
        if terms.against is None:
            return f"{names[terms.of]}: logit {terms.total:.3f}"
        side = "ahead of" if terms.total > 0 else "behind"
        return f"{names[terms.of]} {side} {names[terms.against]} by {abs(terms.total):.3f}"

    def file_name(self) -> str:
        """A name for a file about it, without an extension: the image's, the class and the other.

        Letters, digits, dots and dashes only, and not very long, whatever the names hold.
        """
        other = self.terms.against
        kind = self.head_name.removeprefix("sparse head").removesuffix("head")
        parts = [self.image.rpartition(".")[0] or self.image, kind, str(self.terms.of)]
        parts += [] if other is None else ["against", str(other)]
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(parts)).strip("-.")
        return plain[-LONGEST_NAME:]

    def document(self) -> dict[str, Any]:
        """As `penult explain --json` prints it."""
        names, terms = self.class_names, self.terms
        likely = self.logits.double().softmax(0)
        top = self.logits.topk(min(CLASSES_LISTED, len(names))).indices.tolist()
        maps = [] if self.maps is None else self.maps.tolist()
        return {
            "format": FORMAT,
            "image": self.image,
            "label": None if self.label is None else names[self.label],
            "head": self.head_name,
            "predicted": names[self.predicted],
            "dense_predicted": names[self.dense_predicted],
            "probability": self.probability(),
            "dense_probability": self.probability(dense=True),
            "class": names[terms.of],
            "against": None if terms.against is None else names[terms.against],
            "total": terms.total,
            "bias": terms.bias,
            "features": [
                {
                    "feature": term.feature,
                    "value": term.value,
                    "weight": term.weight,
                    "contribution": term.contribution,
                    "map": maps[i] if i < len(maps) else None,
                }
                for i, term in enumerate(terms.terms)
            ],
            "maps": {"kind": self.maps_kind, "note": self.note},
            "reason": self.reason.document(),
            "outside": [vars(found) for found in self.outside],
            "classes": [
                {
                    "class": names[c],
                    "logit": float(self.logits[c]),
                    "probability": float(likely[c]),
                }
                for c in top
            ],
        }

    def overlays(self) -> list[Image.Image]:
        """The picture with what each of the first features adds to the class, place by place.

        Warm where it speaks for the class, blue where against, on one scale for all.
        """
        if self.picture is None or self.maps is None:
            return []
        weights = torch.tensor([term.weight for term in self.terms.terms[: len(self.maps)]])
        adds = self.maps * weights[:, None, None].float()
        scale = float(adds.abs().max())
        return [overlay(self.picture, one, scale) for one in adds]

    def figure(self) -> Any:
        """A matplotlib figure: the image, its features' heat maps and what each adds."""
        from penult.explain.drawing import draw_explanation

        return draw_explanation(self)

    def _repr_html_(self) -> str:
        picture = ""
        if self.picture is not None:
            picture = f'<img alt="" src="{data_uri(enlarged(self.picture))}" height="96">'
        rows = []
        overlays = self.overlays()
        for i, term in enumerate(self.terms.terms[:SHOWN]):
            drawn = ""
            if i < len(overlays):
                uri = data_uri(overlays[i])
                drawn = f'<img alt="heat map of feature {term.feature}" src="{uri}" height="64">'
            rows.append(
                f"<tr><td>{drawn}</td><td>{term.feature}</td><td>{term.value:.3f}</td>"
                f"<td>{term.weight:+.3f}</td><td>{term.contribution:+.3f}</td></tr>"
            )
        if rest := self.terms.terms[SHOWN:]:
            adds = f"{self.terms.rest(SHOWN):+.3f}"
            rows.append(
                f"<tr><td></td><td>{len(rest)} others</td><td></td><td></td><td>{adds}</td></tr>"
            )
        rows.append(f"<tr><td></td><td>bias</td><td></td><td></td><td>{self.terms.bias:+.3f}</td>")
        label = "" if self.label is None else f" (labelled {escape(self.class_names[self.label])})"
        remarks = "".join(f"<p>{escape(remark)}</p>" for remark in self.remarks())
        return (
            f"<div><p><b>{escape(self.image)}</b>{label}: {escape(self.sentence())} "
            f"({escape(self.head_name)})</p>{remarks}{picture}<table><thead><tr><th></th><th>feature</th>"
            "<th>value</th><th>weight</th><th>contribution</th></tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
            f"<p>{escape(self.reasoned())}</p><p>{escape(self.note)}</p></div>"
        )


def short(name: str) -> str:
    """A name on one line of a picture or a terminal."""
    return one_line(name, LONGEST_SHOWN)


def _outside(terms: Terms, box: Box) -> tuple[Outside, ...]:
    """Features beyond their range by more than a tenth of it, the farthest first."""
    found = []
    for term in terms.terms:
        low, high = float(box.low[term.feature]), float(box.high[term.feature])
        beyond = max(low - term.value, term.value - high) / max(high - low, 1e-12)
        if beyond > BEYOND:
            found.append((beyond, Outside(term.feature, term.value, low, high)))
    found.sort(key=lambda pair: -pair[0])
    return tuple(outside for _, outside in found)


def class_index(names: Sequence[str], given: str | int) -> int:
    """Number of a class, from its name or its number.

    Raises:
        InputError: there is no such class; names the nearest.
    """
    if isinstance(given, str) and given in names:
        return list(names).index(given)
    if not isinstance(given, str) or is_number(given):
        number = int(given)
        if 0 <= number < len(names):
            return number
        raise InputError(f"classes are numbered from 0 to {len(names) - 1}, found {number}")
    near = nearest(given, list(names))
    hint = f"did you mean {some(near)}?" if near else f"there are {some(list(names))}"
    raise InputError(f"no class is called {given}: {hint}")
