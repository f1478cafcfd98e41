"""Unpickling: what a trusted checkpoint holds, with stand-ins for classes that are gone."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from torch import Tensor


class _Gone(type):
    """Kind of classes that cannot be found: what they had, methods too, is not there either."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn


class StandIn(dict[Any, Any], metaclass=_Gone):
    """An object whose class cannot be found; what was saved of it is in its attributes and items.

    Training scripts save their own classes beside the weights; nothing but tensors is read here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.arguments = args

    def __setstate__(self, state: Any) -> None:
        # Objects with slots give a pair of mappings.
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, Mapping):
                self.__dict__.update(part)

    def append(self, value: Any) -> None:
        """A list's element."""
        self[len(self)] = value

    def extend(self, values: Any) -> None:
        """A list's elements."""
        for value in values:
            self.append(value)


def pickle_with_stand_ins(scripts: Mapping[str, ModuleType]) -> Any:
    """What `torch.load` takes as `pickle_module`: unknown classes become `StandIn`.

    Args:
        scripts: modules in which a class is looked for that its own module does not have, such as
            the training script's `__main__`.
    """

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            try:
                return super().find_class(module, name)
            except (ImportError, AttributeError):
                for script in scripts.values():
                    if module in ("__main__", script.__name__) and hasattr(script, name):
                        return getattr(script, name)
                return _Gone(name.rpartition(".")[2], (StandIn,), {"__module__": module})

    return SimpleNamespace(Unpickler=Unpickler, load=pickle.load, __name__="pickle")


def user_modules(folder: Path | None) -> dict[str, ModuleType]:
    """The files of a folder that the user's own command has loaded so far."""
    loaded = {name: m for name, m in sys.modules.items() if name.startswith("penult_file_")}
    return {
        name: module
        for name, module in loaded.items()
        if folder is not None and Path(str(module.__file__)).parent == folder.resolve()
    }


def tensors_of_parts(module: Any, start: str = "") -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a network's state where its class or its parts' are stand-ins."""
    own = vars(module)
    for kind in ("_parameters", "_buffers"):
        for name, value in (own.get(kind) or {}).items():
            if isinstance(value, Tensor):
                yield start + name, value
    for name, part in (own.get("_modules") or {}).items():
        if part is not None:
            yield from tensors_of_parts(part, f"{start}{name}.")
