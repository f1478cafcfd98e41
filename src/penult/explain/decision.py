"""Decision: one sample's decision taken apart, as data for pictures, pages and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from penult.explain.given_classes import GivenClasses
from penult.explain.overlay import overlay
from penult.explain.reasons import Box, Reason
from penult.explain.terms import Terms
from penult.explain.words import WordEffects
from penult.heads.sparse_head import SparseHead
from penult.network.head import Head

SHOWN = 6
BEYOND = 0.1  # of its range: how far a feature lies outside of it to be named


@dataclass(frozen=True)
class Outside:
    """A feature whose value lies outside of its range in the analysed data."""

    feature: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Decision:
    """One image's decision, or a text's, taken apart.

    Attributes:
        image: name of the image, or of the text.
        picture: what the network saw, or None where only its features are known.
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
        logits, dense_logits: (n_classes,) of the explained head and of the network's own.
        outside: features that are read here and lie outside of their range in the analysed data,
            the farthest first.
        text: what the network read; None for an image, and where it is not at hand.
        words: what each word adds to the decision and to the features of the first terms, or None.
        several: all decisions on a sample of multi-label data, of which this is one, between two
            classes: not to give the class, and to give it; None where a sample has one class.
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
    text: str | None = None
    words: WordEffects | None = None
    several: GivenClasses | None = None

    @property
    def kind(self) -> str:
        """What the sample is: "image" or "text"."""
        return "image" if self.text is None else "text"

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


def outside(terms: Terms, box: Box) -> tuple[Outside, ...]:
    """Features beyond their range by more than a tenth of it, the farthest first."""
    found = []
    for term in terms.terms:
        low, high = float(box.low[term.feature]), float(box.high[term.feature])
        beyond = max(low - term.value, term.value - high) / max(high - low, 1e-12)
        if beyond > BEYOND:
            found.append((beyond, Outside(term.feature, term.value, low, high)))
    found.sort(key=lambda pair: -pair[0])
    return tuple(one for _, one in found)
