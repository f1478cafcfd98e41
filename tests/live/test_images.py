"""Pictures of a run's samples, from whatever holds them, asked for by many at once."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import penult
from penult import Run
from penult.errors import InputError
from penult.live.images import ImageShelf
from penult.live.samples import SampleTable
from penult.runs.reopen import Places
from small_run import NET, images_for

N, SIDE = 30, 12


def as_folder(folder: Path) -> str:
    return "data"


def as_zip(folder: Path) -> str:
    return str(shutil.make_archive(str(folder / "packed"), "zip", folder, "data"))


def as_tar(folder: Path) -> str:
    return str(shutil.make_archive(str(folder / "packed"), "tar", folder, "data"))


@pytest.mark.parametrize("form", [as_folder, as_zip, as_tar])
def test_many_threads_get_the_pictures_that_one_gets(
    form: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images_for(NET, tmp_path, monkeypatch)
    data = form(tmp_path)
    assert penult("analyze", "net.py:net", data, "--weights", "random", "--out", "other") == 0
    run = Run.open("other")
    table = SampleTable(run)
    alone = ImageShelf(run, table, Places())
    expected = [alone.picture("train", n) for n in range(N)]
    for n, raw in enumerate(expected):
        pixels = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))
        name = table.part("train").name(n)
        original = np.asarray(
            Image.open(tmp_path / "data" / name.removeprefix("data/")).convert("RGB")
        )
        assert np.array_equal(pixels, original), name

    together = ImageShelf(run, table, Places())
    found: dict[tuple[int, int], bytes | str] = {}

    def ask(thread: int) -> None:
        for n in np.random.default_rng(thread).permutation(N).tolist():
            try:
                found[thread, n] = together.picture("train", n)
            except Exception as error:
                found[thread, n] = str(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(made == expected[n] for (_, n), made in found.items())
    assert len(found) == 8 * N


def test_a_side_bounds_a_picture_and_none_is_larger_than_its_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images_for(NET, tmp_path, monkeypatch)
    run = Run.open("run")
    shelf = ImageShelf(run, SampleTable(run), Places())
    for asked in (0, 16, 10**9):
        assert Image.open(io.BytesIO(shelf.picture("train", 0, asked))).size == (SIDE, SIDE)
    with pytest.raises(InputError, match="train has 30 samples, found number 30"):
        shelf.picture("train", 30)
    with pytest.raises(InputError, match="no part 'eval': expected train"):
        shelf.picture("eval", 0)
    shutil.rmtree("data")
    with pytest.raises(InputError, match="no longer where the run found it|can no longer be read"):
        shelf.picture("train", 3)
