"""Link: what logits mean. Softmax: one class per sample. Sigmoid: each class by itself."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from penult.errors import InputError

SOFTMAX, SIGMOID = "softmax", "sigmoid"
LINKS = (SOFTMAX, SIGMOID)


def check_link(link: str) -> None:
    """Refuse what is no link."""
    if link not in LINKS:
        raise InputError(f"expected one of {', '.join(LINKS)} as the link, found {link!r:.60}")


def require_softmax(link: str, what: str) -> None:
    """Refuse logits that decide each class by itself, which `what` is not made for.

    Raises:
        InputError: samples can have several labels; says where it stands what there is for them.
    """
    if link == SIGMOID:
        raise InputError(
            f"{what} is for data with one class per sample, and these are multi-label (each "
            "class is decided by itself): see docs/data.md for what there is for them"
        )


def decided(logits: Tensor, link: str) -> Tensor:
    """What logits (n_samples, n_classes) decide.

    Returns:
        (n_samples,) int64, the class of the largest logit; for "sigmoid" (n_samples, n_classes)
        bool, the classes whose logit is above 0.
    """
    return logits > 0 if link == SIGMOID else logits.argmax(1)


def gives(logits: Tensor, c: int, link: str) -> Tensor:
    """Whether class c is given to each sample, (n_samples,) bool; see `decided`."""
    return logits[:, c] > 0 if link == SIGMOID else logits.argmax(1) == c


def probabilities(logits: Tensor, link: str, dim: int = 1) -> Tensor:
    """Probabilities of the classes, which lie along `dim`; the shape is that of the logits."""
    return logits.sigmoid() if link == SIGMOID else logits.softmax(dim)


def divergences(first: Tensor, second: Tensor, link: str) -> Tensor:
    """KL(first ‖ second) of the probabilities of logits (n_samples, n_classes), in nats.

    Returns:
        (n_samples,); for "sigmoid" the sum over the classes, each a decision of its own.
    """
    first, second = first.double(), second.double()
    if link == SIGMOID:
        p = first.sigmoid()
        yes = F.logsigmoid(first) - F.logsigmoid(second)
        no = F.logsigmoid(-first) - F.logsigmoid(-second)
        return (p * yes + (1 - p) * no).sum(1)
    log_p = first.log_softmax(1)
    return (log_p.exp() * (log_p - second.log_softmax(1))).sum(1)
