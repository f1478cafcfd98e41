"""Words: what each word of a text adds to its features and to the decision.

The method is integrated gradients (M. Sundararajan, A. Taly, Q. Yan, *Axiomatic attribution for
deep networks*, ICML 2017) by the vectors of the tokens, from Captum: on the way from the text with
every word blanked to the text itself. What the words add sums up to the feature's value less its
value for the blanked text, as exactly as the number of steps allows.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penult.data.inputs import on_device
from penult.data.tokens import IDS, TokenIds, TokenTransform, Word
from penult.errors import InputError
from penult.explain.gradients import differentiable
from penult.extras import import_extra
from penult.network.calling import first_tensor
from penult.network.head import Head
from penult.network.linear_maps import wide
from penult.network.watch import run_hooked
from penult.plotting import import_matplotlib
from penult.text import described

N_STEPS = 32
MOST_TOKENS_AT_ONCE = 4096
NOTE = (
    "What a word adds is an estimate by integrated gradients (Captum): the words' numbers sum up "
    "to about the value less its value for the same text with every word blanked."
)


@dataclass(frozen=True, eq=False)
class WordEffects:
    """What each word of a text adds.

    Attributes:
        text: the whole of it.
        words: those that the network reads, in their order.
        decision: (n_words,) what each adds to the logit, or to the difference of two.
        features: (n_shown, n_words) what each adds to the value of some features.
        end: where the network stops reading, in characters; the text's length where it does not.
    """

    text: str
    words: tuple[Word, ...]
    decision: Tensor
    features: Tensor
    end: int

    def strengths(self) -> list[float]:
        """What each word adds to the decision, as a part of the most that one does: in [-1, 1]."""
        most = float(self.decision.abs().max()) if len(self.words) else 0.0
        return (self.decision / (most or 1.0)).tolist()

    def top(self, values: Tensor, n: int) -> list[tuple[str, float]]:
        """The words that add most, with what they add; a word that occurs twice counts together."""
        sums: dict[str, float] = {}
        for word, value in zip(self.words, values.tolist(), strict=True):
            sums[word.text] = sums.get(word.text, 0.0) + value
        return sorted(sums.items(), key=lambda pair: -abs(pair[1]))[:n]

    def parts(self) -> Iterator[tuple[str, float]]:
        """The text in pieces, each with its strength: words, and what stands between them."""
        at = 0
        for word, strength in zip(self.words, self.strengths(), strict=True):
            if self.text[word.start : word.end] != word.text:  # of tokens without a place
                yield f"{word.text} ", strength
                continue
            if word.start > at:
                yield self.text[at : word.start], 0.0
            yield word.text, strength
            at = word.end
        if at and at < len(self.text):
            yield self.text[at:], 0.0


class WordAttribution:
    """Attributes features of a network to the words of a text.

    Args:
        model: the network; left as it is.
        head: its head.
        transform: its tokenizer.

    Raises:
        InputError: Captum is not installed.
    """

    def __init__(self, model: nn.Module, head: Head, transform: TokenTransform) -> None:
        import_matplotlib()  # which Captum imports
        import_extra("captum", "attribution")
        self._method = importlib.import_module("captum.attr").LayerIntegratedGradients
        self._model, self._head, self._transform = model, head, transform

    def __call__(
        self, text: str, features: Sequence[int], weights: Tensor, device: torch.device
    ) -> WordEffects:
        """What each word adds to some features, and to a weighted sum of all.

        Takes `N_STEPS` runs forward and back for each feature and for the sum.

        Args:
            text: the text.
            features: their numbers.
            weights: (n_features,) of the sum.
            device: the network's.

        Raises:
            InputError: no layer reads the tokens, or a gradient is NaN or infinite.
        """
        words = tuple(self._transform.words(text))
        inputs = on_device(self._transform.joined([self._read(text)]), device)
        assert not isinstance(inputs, Tensor)
        layer = self._embedding(inputs)
        ids, others = inputs[IDS], {k: v for k, v in inputs.items() if k != IDS}
        blanked = ids.clone()
        for token in {token for word in words for token in word.tokens}:
            blanked[:, token] = self._transform.blank
        chosen = torch.tensor([*features], dtype=torch.int64, device=device)
        weights = weights.to(device, torch.float32)
        size = max(1, MOST_TOKENS_AT_ONCE // ids.shape[1])
        found = []
        try:
            with differentiable(self._model, self._head) as read:

                def forward(tokens: Tensor, *rest: Tensor) -> Tensor:
                    z = read({IDS: tokens, **dict(zip(others, rest, strict=True))}).float()
                    return torch.cat([z[:, chosen], (z @ weights)[:, None]], 1)

                method = self._method(forward, layer)
                for target in range(len(features) + 1):
                    given: Tensor = method.attribute(
                        ids,
                        baselines=blanked,
                        target=target,
                        additional_forward_args=tuple(others.values()),
                        n_steps=N_STEPS,
                        internal_batch_size=size,
                    )
                    found.append(wide(given.detach())[0].sum(-1).float().cpu())
        except RuntimeError as error:
            raise InputError(
                f"the features cannot be attributed to the words: {described(error)}"
            ) from error
        return self._gathered(text, words, torch.stack(found))

    def _gathered(self, text: str, words: tuple[Word, ...], values: Tensor) -> WordEffects:
        if not bool(values.isfinite().all()):
            raise InputError("a gradient by the words is NaN or infinite")
        summed = torch.stack([values[:, list(word.tokens)].sum(1) for word in words], 1)
        end = len(text) if not words or not self._is_cut(text) else words[-1].end
        return WordEffects(text, words, summed[-1], summed[:-1], end)

    def _read(self, text: str) -> TokenIds:
        return self._transform.read(text, -1, "the text")

    def _is_cut(self, text: str) -> bool:
        return bool(self._read(text).noted)

    def _embedding(self, inputs: dict[str, Tensor]) -> nn.Module:
        """The layer that turns the tokens into vectors: the first that reads their numbers."""
        found: list[nn.Module] = []

        def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            x = first_tensor(args, kwargs)
            if x is not None and x.shape == inputs[IDS].shape and bool((x == inputs[IDS]).all()):
                found.append(module)

        tables = [m for m in self._model.modules() if isinstance(m, nn.Embedding)]
        run_hooked(self._model, inputs, dict.fromkeys(tables, (None, note)))
        if not found:
            raise InputError("no embedding of the network reads the tokens' numbers")
        return found[0]
