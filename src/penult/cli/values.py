"""What the text of an option means: devices, sizes, pairs, names."""

from __future__ import annotations

import os
import re

import torch

from penult.errors import InputError
from penult.features.influence import Top
from penult.features.layers import Names

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MOST_SIZES = 10_000
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


LONGEST_REASON = 80  # characters; PyTorch's longer ones are lists of what it was built with


def device_of(name: str) -> torch.device:
    """The device of `--device`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        because = f" ({reason})" if len(reason) <= LONGEST_REASON and "::" not in reason else ""
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        there += ["mps"] * torch.backends.mps.is_available()
        raise InputError(
            f"--device {name} cannot be used{because}: expected auto or {' or '.join(there)}"
        ) from error
    return device


def workers_of(asked: int | None, device: torch.device) -> int:
    """How many processes decode images."""
    if asked is not None:
        return asked
    # On the CPU the network itself keeps all cores busy.
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)


def sizes_of(text: str) -> tuple[int, ...]:
    """The sizes of `-k 1,2,5-8`."""
    sizes: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InputError(f"-k: expected numbers or ranges like 1,2,5-8, found {text!r}")
        start, stop = int(first), int(last or first)
        if stop < start or stop - start > MOST_SIZES:
            raise InputError(
                f"-k: expected rising ranges of up to {MOST_SIZES} numbers, found {part.strip()}"
            )
        sizes += range(start, stop + 1)
    return tuple(sizes)


def seconds_of(text: str | None) -> float | None:
    """The seconds of `--time-limit 90s`, `10m`, `1.5h` or `90`; None where it is not given."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([smh]?)", text.strip())
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not seconds > 0:
        raise InputError(
            f"--time-limit: expected a time above 0 like 90s, 10m, 1.5h or 90, found {text!r}"
        )
    return seconds


def top_of(text: str | None) -> Top | None:
    """What a sample takes in the `frequency` score."""
    if text is None:
        return None
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise InputError(
            f"--frequency-top: expected a number of features or a fraction, found {text!r}"
        ) from None


def pairs_of(texts: list[str]) -> dict[str, str]:
    """The arguments of `--set`."""
    for text in texts:
        if "=" not in text:
            raise InputError(f"--set: expected key=value, found {text!r}")
    return dict(text.split("=", 1) for text in texts)


def layers_of(names: list[str] | None, every: str | None) -> Names:
    """The layers of `--layer` or `--layers`."""
    if every is None:
        if not names:
            raise InputError("give --layer NAME, once or more, or --layers all for every block")
        return names
    if every != "all":
        raise InputError(f"--layers: expected all, found {every!r}; one layer is --layer {every}")
    if names:
        raise InputError("--layer and --layers all exclude each other")
    return "all"


def numbers_of(option: str, text: str) -> tuple[float, ...]:
    """The numbers of `--mean` and `--std`."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option}: expected numbers like 0.5,0.5,0.5, found {text!r}") from None


def columns_of(text: str | None) -> tuple[str, ...] | None:
    """The columns of `--label-columns a,b,c`."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())
