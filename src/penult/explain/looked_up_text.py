"""Look up a text: the one that a user names, its features in the run's network, and its words."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penult.data.inputs import on_device
from penult.data.tokens import TokenTransform
from penult.errors import InputError
from penult.explain.gallery import TOLERANCE
from penult.explain.looked_up import Label, by_name, features_of, label_of
from penult.explain.terms import Terms
from penult.explain.words import NOTE, WordAttribution, WordEffects
from penult.network.calling import autocast, evaluating, kind_of
from penult.network.head import Head
from penult.runs.reopen import Places, dtype_of_run, reopen_texts
from penult.runs.run import Run

MOST_BYTES = 1 << 24  # of a file with a text


@dataclass(eq=False)
class LookedUpText:
    """One text.

    Attributes:
        name: of the text.
        label: class that the data says it is, or classes of multi-label data, or None.
        text: itself, or None where it is not at hand.
        features: (n_features,) float32.
        note: how it is said what words add, or why it is not.
    """

    name: str
    label: Label
    text: str | None
    features: Tensor
    note: str
    _attribution: WordAttribution | None = None
    _context: tuple[nn.Module, torch.dtype, torch.device] | None = None

    def words(self, features: Sequence[int], terms: Terms) -> WordEffects | None:
        """What each word adds to some features and to the decision."""
        if self._attribution is None or self._context is None or self.text is None:
            return None
        model, dtype, device = self._context
        weights = torch.zeros(len(self.features), dtype=torch.float64)
        for term in terms.terms:
            weights[term.feature] = term.weight
        try:
            with evaluating(model), autocast(device, dtype):
                found = self._attribution(self.text, features, weights, device)
        except InputError as error:
            self.without_words(error)
            return None
        self.note = NOTE
        return found

    def without_words(self, error: InputError) -> None:
        """Say why it is not known what the words add."""
        warnings.warn(f"words are not marked: {error}", stacklevel=3)
        self.note = f"It is not known what the words add: {error}."


def look_up_text(
    run: Run, given: Any, sources: Places, device: torch.device, words: bool
) -> LookedUpText:
    """Find a text and its features; see `Explanation.of` for what may be `given`.

    Raises:
        InputError: there is no such text, or it cannot be used.
    """
    if not isinstance(given, str | Path):
        raise InputError(
            f"{run.folder} is a run of texts: expected a text, the name of one in the run's data, "
            f"or eval:NUMBER, found {kind_of(given)}"
        )
    text, name, stored = _found(run, str(given), sources)
    label = label_of(run, stored)
    if text is None:
        note = (
            "The text cannot be read where the run found it (say with --data or --eval where it is "
            "now): these are the features that the run holds."
        )
        return LookedUpText(name, label, None, stored.features[0], note)
    try:
        model, transform = reopen_texts(run, sources)
    except InputError as error:
        if stored is None:
            raise
        made = LookedUpText(name, label, text, stored.features[0], "")
        made.without_words(error)
        return made
    model = model.to(device)
    dtype, head = dtype_of_run(run), run.train().require_head()
    z = _features(model, head, transform, text, name, dtype, device)
    if stored is not None and (z - stored.features[0]).abs().max() > TOLERANCE * z.abs().max():
        raise InputError(
            f"{name} is no longer the text that was analysed: the network gives it other features"
        )
    made = LookedUpText(name, label, text, z, "What the words add was left out.")
    if words:
        try:
            made._attribution = WordAttribution(model, head, transform)
        except InputError as error:
            made.without_words(error)
        made._context = (model, dtype, device)
    return made


def _features(
    model: nn.Module,
    head: Head,
    transform: TokenTransform,
    text: str,
    name: str,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    batch = transform.joined([transform.read(text, -1, name)])
    return features_of(model, head, on_device(batch, device), dtype, device)


def _found(run: Run, given: str, sources: Places) -> tuple[str | None, str, Any]:
    """The text, its name, and its sample in the run's features."""
    try:
        place, name, stored = by_name(run, given, sources, "text")
    except InputError:
        if os.path.isfile(given):  # noqa: PTH113 - a Path raises where a name is too long
            return _of_file(Path(given)), Path(given).name, None
        if len(given.split()) > 1:
            return given, "the text", None
        raise
    loaded = None if place is None else place[0].load(place[1])
    return loaded if isinstance(loaded, str) else None, name, stored


def _of_file(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} is larger than 16 MiB: expected one text")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from error
