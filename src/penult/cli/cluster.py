"""The option `--cluster`: what it may be followed by, and what it puts in place of one process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from penult.cli.console import Begin, tell
from penult.cli.subject import Subject
from penult.cluster.fitting import cluster_reader
from penult.cluster.passing import cluster_fill
from penult.cluster.session import Place, check_place
from penult.errors import InputError
from penult.heads.reading import PassReader
from penult.runs.filling import Fill


def place_of(address: str | None, device: str = "cpu", exchange: str | None = None) -> Place | None:
    """Where the workers of `--cluster` are; None without it.

    Raises:
        InputError: they cannot be reached, see `check_place`.
    """
    if address is None:
        if exchange is not None:
            raise InputError("--exchange is for the workers of a cluster: give --cluster too")
        return None
    if exchange is not None and "://" not in exchange:
        exchange = str(Path(exchange).absolute())
    place = Place(address, device=device, exchange=exchange)
    check_place(place)
    return place


def reader_at(place: Place | None) -> AbstractContextManager[PassReader | None]:
    """What makes the passes of a fit: this process, or the workers of a cluster."""
    return nullcontext() if place is None else cluster_reader(place, tell)


def filler(
    place: Place | None, opens: Callable[[], Subject], subject: Subject, heard: Begin
) -> AbstractContextManager[Fill | None]:
    """What passes the images through the network: this process, or the workers of a cluster."""
    if place is None:
        return nullcontext()
    return cluster_fill(place, opens, subject, heard, tell)


def with_address(arguments: list[str]) -> list[str]:
    """Arguments in which `--cluster` has an address, which typer always wants."""
    followed = zip(arguments, [*arguments[1:], "-"], strict=True)
    return [
        f"{one}=local" if one == "--cluster" and after.startswith("-") else one
        for one, after in followed
    ]
