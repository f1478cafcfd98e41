"""Explanation: why one image or text was called what it was, by the few features that carry it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from penult.errors import InputError
from penult.explain.choice import choose_head
from penult.explain.decision import SHOWN, Decision, outside
from penult.explain.drawing import draw
from penult.explain.given_classes import GivenClasses, one_class, to_explain
from penult.explain.looked_up import LookedUp, look_up
from penult.explain.looked_up_text import LookedUpText, look_up_text
from penult.explain.notebook import notebook_html
from penult.explain.reasons import Box, sufficient_reason
from penult.explain.terms import terms_of
from penult.explain.wording import summary
from penult.heads.sparse_head import SparseHead
from penult.network.head import Head
from penult.runs.reopen import Places, holds_texts
from penult.runs.run import Run
from penult.text import class_index

FORMAT = "penult-explanation/1"
CLASSES_LISTED = 5
LONGEST_NAME = 80
DENSE = "network's own (dense) head"


class _Asked(NamedTuple):
    """What of an explanation was asked for; see `Explanation.of`."""

    class_: str | int | None = None
    against: str | int | None = None
    k: int | None = None
    select: str | None = None
    dense: bool = False
    exact: bool = True
    maps: bool = True


class _Question(NamedTuple):
    """A decision to take apart: the heads, their classes, the sample's label, what is compared."""

    head: Head | SparseHead
    dense_head: Head | SparseHead
    class_names: Sequence[str]
    label: int | None
    of: int
    against: int | None


class Explanation(Decision):
    """One image's or text's decision taken apart, shown by a notebook, as a figure or as JSON.

    `Explanation.of` makes it; what it holds is said at `Decision`.
    """

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
        sources: Places | None = None,
        device: torch.device | str = "cpu",
    ) -> Explanation:
        """Explain one image, or one text.

        Args:
            run: a finished run, or its folder.
            image: a file, a PIL image, the name of an image in the run's data (such as
                `cat/0001.png`), or `train:17`, `eval:17`: the 17th sample of the run, from 0. Of a
                run of texts a text file, the name of a text, its number likewise, or a text of
                several words itself.
            class_: the class whose logit is explained; the predicted one where None. Of
                multi-label data each class is a decision of its own, yes where its logit is above
                0: where None, that with the largest logit (all of them: `Explanation.each`).
            against: another class: what separates the two is explained. Where neither class is
                named, a mistake is explained against the image's label, and of two classes one
                against the other, as only their difference decides.
            k, select: which of the run's sparse heads; see `choose_head`.
            dense: explain the network's own (dense) head instead.
            exact: find the smallest sufficient reason; otherwise a small one, quickly.
            maps: False leaves out the heat maps, and what the words of a text add.
            sources: where network and images are now, if not where the run found them.
            device: where the network runs.

        Raises:
            InputError: no such image, class or head; an image file of a run made from features.
        """
        asked = _Asked(class_, against, k, select, dense, exact, maps)
        return cls._each(run, image, asked, sources, device)[0]

    @classmethod
    def each(
        cls,
        run: Run | str | Path,
        image: str | Path | Image.Image,
        sources: Places | None = None,
        device: torch.device | str = "cpu",
        **asked: Any,
    ) -> list[Explanation]:
        """Explain all decisions on a sample; see `Explanation.of` for what it takes and raises.

        Of multi-label data where no class is named these are the classes that the head gives and
        those that the sample has, at most five; otherwise there is one decision.
        """
        return cls._each(run, image, _Asked(**asked), sources, device)

    @classmethod
    def _each(
        cls,
        run: Run | str | Path,
        image: str | Path | Image.Image,
        asked: _Asked,
        sources: Places | None,
        device: torch.device | str,
    ) -> list[Explanation]:
        run = run if isinstance(run, Run) else Run.open(run)
        names = run.summary()["class_names"]
        dense_head = run.train().require_head()
        if asked.against is not None and dense_head.multi_label:
            raise InputError(
                "--against compares two classes, and each class of multi-label data is decided by "
                "itself: leave it out, and say with --class which decision is meant"
            )
        found = None if asked.dense else choose_head(run, asked.k, asked.select)
        head: Head | SparseHead = dense_head if found is None else found.head
        of = None if asked.class_ is None else class_index(asked.class_, names)
        other = None if asked.against is None else class_index(asked.against, names)
        places, where = sources or Places(), torch.device(device)
        looked_up: LookedUp | LookedUpText
        if holds_texts(run):
            looked_up = look_up_text(run, image, places, where, asked.maps)
        else:
            looked_up = look_up(run, image, places, where, asked.maps)
        name = DENSE if found is None else f"sparse head ({found.name})"
        with torch.no_grad():
            logits = head(looked_up.features[None])[0]
        label = looked_up.label
        if dense_head.multi_label:
            own = None if isinstance(label, int) else label
            dense_logits = dense_head(looked_up.features[None])[0]
            classes = to_explain(logits, own) if of is None else [of]
            several = [GivenClasses(c, names, own, logits, dense_logits) for c in classes]
            return [
                cls._taken_apart(
                    run,
                    looked_up,
                    _Question(
                        one_class(head, given.of),
                        one_class(dense_head, given.of),
                        (f"not {names[given.of]}", names[given.of]),
                        None if own is None else int(given.of in own),
                        1,
                        None,
                    ),
                    name,
                    asked.exact,
                    given,
                )
                for given in several
            ]
        single = None if isinstance(label, tuple) else label
        if other is None:
            other = _rival(of, int(logits.argmax()), single, len(names))
        of = int(logits.argmax()) if of is None else of
        if of == other:
            raise InputError(
                f"the sample is explained as {names[of]}: expected another class to compare with"
            )
        question = _Question(head, dense_head, names, single, of, other)
        return [cls._taken_apart(run, looked_up, question, name, asked.exact, None)]

    @classmethod
    def _taken_apart(
        cls,
        run: Run,
        looked_up: LookedUp | LookedUpText,
        question: _Question,
        head_name: str,
        exact: bool,
        several: GivenClasses | None,
    ) -> Explanation:
        z, head, names = looked_up.features, question.head, question.class_names
        terms = terms_of(head, z, question.of, question.against)
        shown = [term.feature for term in terms.terms[:SHOWN]]
        moments = run.moments()
        box = Box(moments.low, moments.high)
        words = looked_up.words(shown, terms) if isinstance(looked_up, LookedUpText) else None
        heat = None if isinstance(looked_up, LookedUpText) else looked_up
        with torch.no_grad():
            logits, dense_logits = head(z[None])[0], question.dense_head(z[None])[0]
        return cls(
            looked_up.name,
            None if heat is None else heat.picture,
            names,
            question.label,
            head_name,
            head,
            z,
            terms,
            sufficient_reason(head, z, box, exact=exact, class_names=names),
            None if heat is None else heat.maps(shown),
            None if heat is None else heat.maps_kind,
            looked_up.note,
            logits,
            dense_logits,
            outside(terms, box),
            looked_up.text if isinstance(looked_up, LookedUpText) else None,
            words,
            several,
        )

    def __repr__(self) -> str:
        return f"<Explanation of {self.image} by the {self.head_name}: {summary(self)}>"

    def file_name(self) -> str:
        """A name for a file about it, without an extension: the image's, the class and the other.

        Letters, digits, dots and dashes only, and not very long, whatever the names hold.
        """
        other = self.terms.against
        kind = "dense" if self.head_name == DENSE else self.head_name.removeprefix("sparse head")
        of = self.terms.of if self.several is None else self.several.of
        parts = [self.image.rpartition(".")[0] or self.image, kind, str(of)]
        parts += [] if other is None else ["against", str(other)]
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(parts)).strip("-.")
        return plain[-LONGEST_NAME:]

    def document(self) -> dict[str, Any]:
        """As `penult explain --json` prints it."""
        names, terms = self.class_names, self.terms
        likely = self.logits.double().softmax(0)
        top = self.logits.topk(min(CLASSES_LISTED, len(names))).indices.tolist()
        maps = [] if self.maps is None else self.maps.tolist()
        effects = [] if self.words is None else self.words.features.tolist()
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
                    **({"words": effects[i]} if i < len(effects) else {}),
                }
                for i, term in enumerate(terms.terms)
            ],
            "maps": {"kind": self.maps_kind, "note": self.note},
            **({} if self.text is None else {"text": self.text, "words": self._words()}),
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
            **({} if self.several is None else self.several.document()),
        }

    def _words(self) -> list[dict[str, Any]]:
        """The words of a text, with what each adds to the decision."""
        if self.words is None:
            return []
        adds = self.words.decision.tolist()
        return [
            {"word": word.text, "start": word.start, "end": word.end, "adds": value}
            for word, value in zip(self.words.words, adds, strict=True)
        ]

    def figure(self) -> Any:
        """A matplotlib figure: the image and heat maps, or the text, and what each feature adds."""
        return draw(self)

    def _repr_html_(self) -> str:
        return notebook_html(self)


def _rival(of: int | None, predicted: int, label: int | None, n_classes: int) -> int | None:
    """The class that an explanation compares with where none was named."""
    if n_classes == 2:
        return 1 - (predicted if of is None else of)
    return label if of is None and label != predicted else None
