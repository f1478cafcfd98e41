"""Where results may lie: a place that a user names replaces nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from command import penult
from small_run import NET, images_for


def contents(folder: Path) -> dict[str, str]:
    """A hash of every file, by its name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return images_for(NET, tmp_path, monkeypatch)


ENDING = "expected a name that ends in .html or .htm"
OWN = "where the run keeps its own"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("report run --out run/run.json", ENDING),
        ("report run --out run/summary.json", ENDING),
        ("report run --out run/features/train/index.json", ENDING),
        ("report run --out page.safetensors", ENDING),
        ("report run --out page", ENDING),
        ("report run --out run/features/page.html", OWN),
        ("edit run --off 1 --report run/run.json", ENDING),
        ("edit run --off 1 --report run/heads/page.html", OWN),
        ("edit run --off 1 --out run", "run is a run: choose another folder"),
        ("edit run --off 1 --out run/heads", OWN),
        ("edit run --off 1 --out run/tuned/curvature-k005", OWN),
        ("edit run --off 1 --out run/features/train", OWN),
        ("edit run --off 1 --out run/edited", "such as run/edited/NAME"),
        ("edit run --off 1 --out link/new", OWN),
        ("mend run --groups a --out run/explained/x", OWN),
        ("show run --csv run/edited/tables", OWN),
        ("show run --csv run", "run is a run"),
        ("measure run --plots run/examples", OWN),
        ("fit run/features/train -k 1 --out run/heads", OWN),
        ("analyze net.py:net data --weights random --out run/heads/new", OWN),
        ("demo --out run/features", OWN),
        ("measure net.py:net data --weights random --layer conv --out run/groups", OWN),
        ("explain run a/00.png --out run/examples/a.png", OWN),
        ("explain run a/00.png --out data/a/00.png", "belongs to the data of run"),
        ("explain run a/00.png --out copy/a/03.png", "belongs to the data of run"),
    ],
)
def test_nothing_else_is_replaced(
    command: str, said: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "link").symlink_to(root / "run" / "heads")
    other = root / "copy" / "a" / "03.png"
    other.parent.mkdir(parents=True)
    other.write_bytes((root / "data" / "a" / "03.png").read_bytes())
    before = contents(root)
    assert penult(*command.split()) == 2
    error = capsys.readouterr().err
    assert said in " ".join(error.split())
    assert contents(root) == before


def test_tables_do_not_replace_the_table_of_the_data(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"data/{name}/{i:02d}.png,{name}" for i, name in enumerate("abc")] * 1
    (root / "classes.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    command = ("analyze", "net.py:net", "classes.csv", "--weights", "random", "--no-fit")
    assert penult(*command, "--out", "listed") == 0
    before = contents(root)
    assert penult("show", "listed", "--csv", ".") == 2
    assert "classes.csv belongs to the data of listed" in capsys.readouterr().err
    assert contents(root) == before


def test_places_that_are_free(root: Path) -> None:
    for command, made in (
        ("edit run --off 1 --out run/edited/one", "run/edited/one/recipe.json"),
        ("edit run --off 1 --out other", "other/head.safetensors"),
        ("edit run --off 1 --report PAGE.HTML", "PAGE.HTML"),
        ("report run --images 1 --no-maps --out run/mine.html", "run/mine.html"),
        ("explain run a/00.png --no-maps --out run/explained/mine.png", "run/explained/mine.png"),
        ("explain run a/00.png --no-maps --out why.png", "why.png"),
        ("explain run a/00.png --no-maps --out why.png", "why.png"),
        ("show run --csv run/tables", "run/tables/classes.csv"),
    ):
        assert penult(*command.split()) == 0, command
        assert (root / made).is_file()


def test_an_edit_is_not_replaced_by_another(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = ("edit", "run", "--off", "1", "--reason", "a")
    out = ("--out", "run/edited/one")
    assert penult(*first, *out) == 0
    before = contents(root)
    for other in (("--off", "2"), ("--off", "1", "--reason", "b"), ("--off", "1", "-k", "2")):
        assert penult("edit", "run", *other, *out) == 2
        assert "run/edited/one holds another edit" in " ".join(capsys.readouterr().err.split())
        assert contents(root) == before
    assert penult(*first, *out) == 0
    assert contents(root) == before
    recipe = ("--recipe", "run/edited/one/recipe.json")
    assert penult("edit", "run", *recipe, "--off", "2", *out) == 0
    assert 'feature": 2' in (root / "run/edited/one/recipe.json").read_text()
    assert penult("edit", "run", *recipe, "--undo", "1", *out) == 0
    assert contents(root) == before


def test_an_edit_does_not_replace_weights(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "weights").mkdir()
    (root / "weights" / "network.safetensors").write_bytes(b"mine")
    assert penult("edit", "run", "--off", "1", "--out", "weights") == 2
    assert "weights holds another network.safetensors" in capsys.readouterr().err
    assert contents(root / "weights").keys() == {"network.safetensors"}
