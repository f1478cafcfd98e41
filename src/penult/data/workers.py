"""Workers: processes that decode images, also where they have little memory to share."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from penult.errors import InputError

T = TypeVar("T")

SHARED = Path("/dev/shm")
PREFETCHED = 2  # batches that a worker has ready, as torch has it by default
LEFT = 16 << 20  # bytes of shared memory that are left to others


def roomy(n_bytes: int, workers: int) -> bool:
    """Whether the batches of all workers fit into the shared memory by which torch hands them over.

    Containers often have 64 MB of it. torch waits for ever for a batch that does not fit.

    Args:
        n_bytes: of the images of one batch.
        workers: how many processes decode.
    """
    if not SHARED.is_dir():  # a system that shares memory in another way
        return True
    try:
        free = shutil.disk_usage(SHARED).free
    except OSError:
        return False
    return (workers * PREFETCHED + 1) * n_bytes + LEFT <= free


def as_it_is(batch: T) -> T:
    """Hand a batch over with its tensors in shared memory."""
    return batch


def through_pipe(batch: T) -> T:
    """Hand a batch over as plain arrays, which go through the pipe between the processes."""
    return _changed(batch, Tensor, lambda values: values.numpy())


def read_by(loader: DataLoader[T]) -> Iterator[T]:
    """What a loader's workers read, with tensors in the place of arrays; or this process alone.

    Raises:
        InputError: a worker died; says what may help.
    """
    try:
        if loader.num_workers:
            torch.multiprocessing.Queue()  # else torch complains once more of what it began
        found = iter(loader)
    except (OSError, ImportError) as error:
        # No semaphores, or no more processes: a strict container.
        warnings.warn(
            f"{loader.num_workers} workers cannot be started ({error}): images are decoded by one "
            "process",
            stacklevel=3,
        )
        alone: DataLoader[T] = DataLoader(
            loader.dataset,
            batch_size=None,
            sampler=loader.sampler,
            collate_fn=as_it_is,
            generator=torch.Generator(),
        )
        found = iter(alone)
    while True:
        try:
            batch = next(found)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise InputError(
                f"a process that decodes images died ({str(error).splitlines()[0]}): it may have "
                "run out of memory, or of shared memory (docker run --shm-size); give fewer "
                "--workers, or --workers 0"
            ) from error
        yield _as_tensors(batch)


def _as_tensors(batch: T) -> T:
    return _changed(batch, np.ndarray, torch.from_numpy)


def _changed(batch: T, kind: type, change: Callable[[Any], Any]) -> T:
    """A batch whose values of a kind, also those in mappings, are changed in one way."""
    changes: dict[str, Any] = {}
    for one in fields(batch):  # type: ignore[arg-type]  # a `Batch`, whose module imports this
        value = getattr(batch, one.name)
        if isinstance(value, kind):
            changes[one.name] = change(value)
        elif isinstance(value, dict) and any(isinstance(part, kind) for part in value.values()):
            changes[one.name] = {name: change(part) for name, part in value.items()}
    return replace(batch, **changes) if changes else batch  # type: ignore[type-var]
