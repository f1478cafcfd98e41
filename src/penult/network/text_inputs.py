"""Inputs of networks that read texts: their tokenizer, how long a text may be, and padding."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from penult.data.batches import prepared
from penult.data.image import ImageData, ImageFaultError
from penult.data.inputs import Inputs, on_device
from penult.data.tokens import (
    IDS,
    INPUTS,
    MASK,
    MOST_TOKENS,
    TYPES,
    UNLIMITED,
    TokenIds,
    TokenTransform,
)
from penult.errors import InputError
from penult.network.calling import device_of
from penult.network.watch import DoesNotRun, logits_of, run_hooked, tensors_of

LOOKED_AT = 16  # texts on which it is tried whether padding matters
PADDED = 1e-3  # of the largest logit: what padding may change


def token_transform(model: nn.Module, tokenizer: Any, spec: str) -> TokenTransform:
    """A network's tokenizer, with the inputs and the longest text that the network takes.

    Args:
        model: the network.
        tokenizer: of `transformers`.
        spec: what the user named the network by, for errors.

    Raises:
        InputError: it is no such tokenizer, or has no words.
    """
    if not callable(tokenizer) or not hasattr(tokenizer, "num_special_tokens_to_add"):
        raise InputError(
            f"the tokenizer of {spec} is a {type(tokenizer).__name__}: expected one of "
            "transformers, such as PreTrainedTokenizerFast(tokenizer_object=…)"
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise InputError(
            f"{spec} has no tokenizer (one without any words was found): save the network's own "
            "beside its weights, by tokenizer.save_pretrained(FOLDER)"
        )
    known = _n_known(model)
    highest = max(tokenizer.get_vocab().values())
    if known is not None and highest >= known:
        raise InputError(
            f"the tokenizer of {spec} gives tokens up to number {highest:,}, and the network knows "
            f"only {known:,}: expected the network's own tokenizer"
        )
    return TokenTransform(tokenizer, _longest(model, tokenizer), _names(model, tokenizer, spec))


def fitted_tokens(
    model: nn.Module, texts: ImageData, transform: TokenTransform
) -> tuple[TokenTransform, bool]:
    """The transform with texts as long as the network takes; whether texts must run alone.

    Args:
        model: the network, on its device.
        texts: some of them are tried.
        transform: its tokenizer.

    Raises:
        InputError: the network does not run on the texts.
    """
    device = device_of(model)
    found = _some(texts, transform)
    lengths = [len(one.values[IDS]) for one in found]
    short, long = found[lengths.index(min(lengths))], found[lengths.index(max(lengths))]
    try:
        alone = [_logits(model, transform.joined([one]), device) for one in (short, long)]
    except DoesNotRun as error:
        transform = _shortened(model, transform, long, device, error)
        return fitted_tokens(model, texts, transform)
    if short is long or min(lengths) == max(lengths):
        return transform, False
    try:
        both = _logits(model, transform.joined([short, long]), device)
        apart = torch.cat(alone)
        same = bool((both - apart).abs().max() <= PADDED * apart.abs().max())
    except (DoesNotRun, RuntimeError):
        same = False
    if not same:
        warnings.warn(
            "what the network says of a text changes with the padding beside it: --batch-size is 1",
            stacklevel=2,
        )
    return transform, not same


def _names(model: nn.Module, tokenizer: Any, spec: str) -> tuple[str, ...]:
    """The inputs that a network takes of those that its tokenizer gives."""
    try:
        parameters = inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return INPUTS
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if IDS not in parameters and not takes_any:
        raise InputError(
            f"{spec} takes {', '.join(parameters) or 'nothing'}, expected a network of texts that "
            f"takes {IDS}, and {MASK} where it is to leave out the padding"
        )
    given = tokenizer.model_input_names
    return tuple(
        name
        for name in INPUTS
        if name == IDS
        or (name in parameters and (name != TYPES or name in given))
        or (IDS not in parameters and takes_any and name in given)
    )


def _n_known(model: nn.Module) -> int | None:
    """How many tokens a network of `transformers` knows."""
    try:
        found: Any = model.get_input_embeddings()  # type: ignore[operator]
        return int(found.num_embeddings)
    except (AttributeError, NotImplementedError, TypeError):
        return None


def _longest(model: nn.Module, tokenizer: Any) -> int:
    """Tokens of the longest text that a network takes, as tokenizer, settings and layers say."""
    config = getattr(model, "config", None)
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings"):
            # Where padding has a position of its own, counting starts after it.
            taken = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - taken)
    known = [int(n) for n in limits if isinstance(n, int | float) and 0 < n < UNLIMITED]
    return min(known, default=MOST_TOKENS)


def _some(texts: ImageData, transform: TokenTransform) -> list[TokenIds]:
    found: list[TokenIds] = []
    for index in range(len(texts)):
        try:
            one = prepared(texts, transform, index)
        except ImageFaultError:
            continue
        assert isinstance(one, TokenIds)
        found.append(one)
        if len(found) == LOOKED_AT:
            break
    if not found:
        raise InputError("none of the texts can be used")
    return found


def _logits(model: nn.Module, inputs: Inputs, device: torch.device) -> Tensor:
    outputs = run_hooked(model, on_device(inputs, device), {})
    found = logits_of(list(tensors_of(outputs)))
    if not found:
        raise DoesNotRun("the network gives no logits (n_samples, n_classes)")
    return found[0].float().cpu()


def _shortened(
    model: nn.Module,
    transform: TokenTransform,
    long: TokenIds,
    device: torch.device,
    error: DoesNotRun,
) -> TokenTransform:
    """The transform cut to the longest beginning of a text on which the network runs.

    Raises:
        DoesNotRun: it runs on none.
    """

    def runs(n: int) -> bool:
        # One token again and again, as it is the length that is tried.
        part = {name: values[:1] * n for name, values in long.values.items()}
        try:
            _logits(model, transform.joined([TokenIds(part, -1)]), device)
        except DoesNotRun:
            return False
        return True

    low, high = transform.n_special + 1, len(long.values[IDS])
    if high <= low or runs(high) or not runs(low):
        raise error
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if runs(middle) else (low, middle)
    return replace(transform, max_length=low)
