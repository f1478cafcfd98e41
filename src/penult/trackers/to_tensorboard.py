"""TensorBoard: a run as one of its event folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from penult.errors import InputError
from penult.extras import import_extra
from penult.trackers.record import Record

FOLDER = "runs"  # TensorBoard's own usual place


def to_tensorboard(record: Record, where: str | None, project: str | None) -> str:
    """Write a record where `tensorboard --logdir` shows it.

    It shows numbers, text and pictures; a page it cannot, so that this lies beside the events.

    Args:
        record: of a run.
        where: folder of all runs; `runs` if None.
        project: a folder within it.

    Returns:
        Where it is.

    Raises:
        InputError: TensorBoard is not installed; a file is in the place of the folder.
    """
    import_extra("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter  # needs tensorboard

    folder = Path(where or FOLDER) / (project or "") / record.name
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: expected a folder for the events of TensorBoard")
    writer = SummaryWriter(str(folder))
    try:
        for name, value in record.numbers.items():
            writer.add_scalar(name, value, 0)
        for name, points in record.by_k.items():
            for k, value in points:
                writer.add_scalar(name, value, k)
        shown = "\n".join(f"- {key}: {value}" for key, value in record.parameters.items())
        note = f"The page is `{folder / record.page.name}`: TensorBoard shows no HTML."
        writer.add_text("summary", f"{record.text}\n\n{shown}\n\n{note}", 0)
        for plot in record.plots:
            with Image.open(plot) as image:
                pixels = np.asarray(image.convert("RGB"))
            writer.add_image(plot.stem, pixels, 0, dataformats="HWC")
    finally:
        writer.close()
    shutil.copy(record.page, folder / record.page.name)
    return f"{folder} (tensorboard --logdir {where or FOLDER})"
