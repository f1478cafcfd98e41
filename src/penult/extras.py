"""Optional libraries: imported where they are used, cured where they are broken."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

import torch

from penult.errors import missing_extra

T = TypeVar("T")

_NO_OPERATORS = "operator torchvision::nms does not exist"


_schemas: list[torch.library.Library] = []


def import_extra(package: str, extra: str) -> ModuleType:
    """Import an optional library.

    Raises:
        InputError: it is not installed; the message has the line that installs `penult[extra]`.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise missing_extra(package, extra) from None
        raise


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators do not fit the installed torch.

    Such a torchvision (built for CUDA, next to a torch for CPU) dies while it is imported, though
    its networks need none of these operators. Only then the schemas that it asks for are declared
    and it is imported again. A sound installation is imported and nothing else happens.

    Raises:
        InputError: torchvision is not installed; the message says how to install it.
    """
    return with_torchvision(lambda: import_extra("torchvision", "vision"))


def with_torchvision(action: Callable[[], T]) -> T:
    """Run `action`, and once more with torchvision cured if it died of its missing operators.

    Lets a user's file, timm or transformers import torchvision as they like, at no cost for those
    that do not. `action` may run twice, so it must leave nothing behind when it fails.
    """
    try:
        return action()
    except Exception as error:
        if _schemas or not _misses_operators(error):
            raise
    _declare_operators()
    return action()


def _misses_operators(error: BaseException) -> bool:
    """Whether torchvision's missing operators stand anywhere behind `error`."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is None or id(link) in seen:
            continue
        if isinstance(link, RuntimeError) and _NO_OPERATORS in str(link):
            return True
        seen.add(id(link))
        pending += [link.__cause__, link.__context__]
    return False


def _declare_operators() -> None:
    """Declare the operators without which torchvision refuses to be imported."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    # A library that is garbage collected takes its schemas along.
    _schemas.append(library)
