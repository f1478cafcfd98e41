"""From a text to a network's input: tokens, cut to what the network takes, padded in batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from penult.data.image import CUT, ImageFaultError, Label
from penult.data.inputs import Inputs
from penult.data.transform import Transform
from penult.errors import InputError
from penult.text import described

KIND = "tokens"
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
INPUTS = (IDS, MASK, TYPES)
UNLIMITED = 1 << 20  # lengths that stand for none: tokenizers without a limit name huge numbers
MOST_TOKENS = 4096  # of a text for a network without a limit of its own


@dataclass(frozen=True)
class Word:
    """A word of a text, or a part of one, as the network reads it.

    Attributes:
        text: as it stands in the text.
        start, end: where it stands there, in characters.
        tokens: positions of its tokens in the network's input.
    """

    text: str
    start: int
    end: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class TokenIds:
    """One text for the network: numbers by the name of the input.

    `noted` says what was done to it, see `noted_lines`.
    """

    values: Mapping[str, list[int]]
    label: Label
    noted: tuple[str, ...] = ()

    layout: ClassVar[tuple[str, ...]] = (KIND,)


@dataclass(frozen=True, eq=False)
class TokenTransform:
    """Turn texts into a network's input by its tokenizer: cut at the end, padded in batches.

    Padding reaches to the longest text of a batch and is masked.

    Attributes:
        tokenizer: of `transformers`.
        max_length: tokens of a text at most, the special ones included; the rest is cut off.
        names: the inputs that the network takes, of those that tokenizers give.
        source: where it comes from, for people; no part of the fingerprint.

    Raises:
        InputError: no text could be as short as `max_length`.
    """

    tokenizer: Any
    max_length: int
    names: tuple[str, ...] = INPUTS
    source: str = "tokenizer"

    samples: ClassVar[str] = "texts"

    def __post_init__(self) -> None:
        least = self.n_special + 1
        if self.max_length < least:
            raise InputError(
                f"texts of at most {self.max_length} tokens would hold no word, as "
                f"{self.n_special} of them are special: expected at least {least}"
            )

    @property
    def n_special(self) -> int:
        """Special tokens that are added to every text."""
        return int(self.tokenizer.num_special_tokens_to_add(pair=False))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that changes the network's input."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            # How the last text was cut and padded is kept there, too.
            state = json.loads(backend.to_str())
            known = {key: state[key] for key in state if key not in ("truncation", "padding")}
        else:
            known = {"vocabulary": self.tokenizer.get_vocab(), "class": str(type(self.tokenizer))}
        about = [known, self.max_length, list(self.names), self.tokenizer.padding_side]
        text = json.dumps(about, sort_keys=True)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What a run records: not the tokenizer itself, which comes with the network."""
        return {
            "kind": KIND,
            "max_length": self.max_length,
            "inputs": list(self.names),
            "source": self.source,
            "fingerprint": self.fingerprint,
        }

    def as_recorded(self, about: Mapping[str, Any]) -> TokenTransform:
        """The same tokenizer with a run's settings.

        Args:
            about: what `to_json` gave.

        Raises:
            InputError: it gives other tokens than the run's.
        """
        made = replace(self, max_length=int(about["max_length"]), names=tuple(about["inputs"]))
        if made.fingerprint != about["fingerprint"]:
            raise InputError("the tokenizer is no longer the one that the run was made with")
        return made

    def read(self, text: Any, label: Label, id: str) -> TokenIds:
        """The tokens of one text.

        Raises:
            ImageFaultError: it is no text, or an empty one.
        """
        if not isinstance(text, str):
            raise ImageFaultError(
                id, f"is a {type(text).__name__}, expected a text, as the network takes texts"
            )
        if not text.strip():
            raise ImageFaultError(id, "is empty: it holds no text")
        found, is_cut = self._encoded(text)
        noted = (f"{CUT}{self.max_length:,} tokens",) if is_cut else ()
        return TokenIds({name: list(found[name]) for name in self.names}, label, noted)

    def joined(self, texts: Sequence[TokenIds]) -> dict[str, Tensor]:
        """A batch: (n_samples, n_tokens) int64 for each input, padded to the longest."""
        longest = max((len(one.values[IDS]) for one in texts), default=0)
        left = self.tokenizer.padding_side == "left"
        batch = {}
        for name in self.names:
            rows = torch.full((len(texts), longest), self._pad(name))
            for row, one in zip(rows, texts, strict=True):
                values = torch.tensor(one.values[name])
                (row[longest - len(values) :] if left else row[: len(values)]).copy_(values)
            batch[name] = rows
        return batch

    def words(self, text: str) -> list[Word]:
        """The words of a text as far as the network reads it, in their order."""
        found, _ = self._encoded(text, return_offsets_mapping=self.tokenizer.is_fast)
        if not self.tokenizer.is_fast:
            return self._pieces(found[IDS])
        words: list[Word] = []
        last: int | None = None
        for token, (own, (start, end)) in enumerate(
            zip(found.word_ids(), found["offset_mapping"], strict=True)
        ):
            if own is None:
                last = None
                continue
            if own == last and words:
                start, tokens = words[-1].start, (*words.pop().tokens, token)
            else:
                start, tokens = start + _blank(text[start:end]), (token,)
            words.append(Word(text[start:end], start, end, tokens))
            last = own
        return words

    @property
    def blank(self) -> int:
        """The token that stands for no word: padding, or what hides a word, or is unknown."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.mask_token_id)
        return next((i for i in (*known, self.tokenizer.unk_token_id) if i is not None), 0)

    def _encoded(self, text: str, **how: Any) -> tuple[Any, bool]:
        """Tokens of a text, cut where there are too many, and whether it was."""
        try:
            # Not cut by the tokenizer itself, which does not tell.
            found = self.tokenizer(text, verbose=False, truncation=False, **how)
            if len(found[IDS]) <= self.max_length:
                return self._complete(found), False
            found = self.tokenizer(text, truncation=True, max_length=self.max_length, **how)
            return self._complete(found), True
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"the tokenizer fails on a text: {described(error)}") from error

    def _complete(self, found: Any) -> Any:
        """What a tokenizer gave, with the inputs that it leaves out: all of one kind, all read."""
        for name, value in ((MASK, 1), (TYPES, 0)):
            if name not in found:
                found[name] = [value] * len(found[IDS])
        return found

    def _pad(self, name: str) -> int:
        if name == IDS:
            return self.tokenizer.pad_token_id or 0
        return self.tokenizer.pad_token_type_id if name == TYPES else 0

    def _pieces(self, ids: Sequence[int]) -> list[Word]:
        """The tokens themselves, of a tokenizer that does not say where they stand."""
        special = set(self.tokenizer.all_special_ids)
        words, at = [], 0
        for token, number in enumerate(ids):
            if number not in special:
                piece = self.tokenizer.convert_ids_to_tokens(number)
                words.append(Word(piece, at, at + len(piece), (token,)))
                at += len(piece) + 1
        return words


Preparation = Transform | TokenTransform
"""How samples become a network's input: images by a `Transform`, texts by their tokens."""


def normalised(transform: Preparation, inputs: Inputs) -> Inputs:
    """A batch as the network takes it: images normalised, tokens as they are."""
    if isinstance(transform, Transform) and isinstance(inputs, Tensor):
        return transform.normalise(inputs)
    return inputs


def _blank(text: str) -> int:
    """Characters of white space at the start, which some tokenizers count to the word."""
    return len(text) - len(text.lstrip())
