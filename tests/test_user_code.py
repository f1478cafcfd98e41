from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from penult.errors import InputError
from penult.extras import import_extra
from penult.user_code import call_object, load_object

# A torchvision as it is where its operators do not fit: it asks for a schema that nothing declares.
# A part of it that stayed from the first attempt would be no attribute of the second.
BROKEN = """
import torchvision.extension
import torch
torchvision.extension.loaded = True
try:
    torch.ops.torchvision.nms
except AttributeError:
    raise RuntimeError("operator torchvision::nms does not exist")
"""
# transformers hides the reason behind an error of its own.
LAZY = """
def __getattr__(name):
    try:
        import torchvision
    except RuntimeError as error:
        raise ModuleNotFoundError(f"Could not import module {name!r}") from error
    return name
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_python(code: str, *, path: Path) -> str:
    """Run `code` in a fresh process that finds packages in `path` first; its standard output."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fake_torchvision(folder: Path, code: str) -> None:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(code)
    (package / "extension.py").write_text("")


def test_a_sound_torchvision_is_imported_and_nothing_else_happens(tmp_path: Path) -> None:
    fake_torchvision(tmp_path, "sound = True")
    (tmp_path / "plain.py").write_text("def answer():\n    return 42\n")
    output = run_python(
        "import sys, torch\n"
        "from penult.network.load import import_torchvision, load_object\n"
        f"print(load_object({str(tmp_path / 'plain.py')!r} + ':answer', 'function')())\n"
        "print('torchvision' in sys.modules)\n"
        "print(import_torchvision().sound, 'torchvision.extension' in sys.modules)\n"
        "print(hasattr(torch.ops.torchvision, 'nms'))\n",
        path=tmp_path,
    )
    assert output.split() == ["42", "False", "True", "False", "False"]


def test_a_torchvision_without_its_operators_is_cured_for_who_imports_it(tmp_path: Path) -> None:
    fake_torchvision(tmp_path, BROKEN)
    (tmp_path / "lazy.py").write_text(LAZY)
    (tmp_path / "direct.py").write_text("import torchvision\nimport lazy\nvalue = lazy.Network\n")
    (tmp_path / "late.py").write_text("def late():\n    import lazy\n    return lazy.Other\n")
    code = (
        "import sys, torch\n"
        "from penult.extras import import_torchvision\n"
        "from penult.user_code import call_object, load_object\n"
        "{first}\n"
        "print(import_torchvision() is sys.modules['torchvision'])\n"
        "print(hasattr(torch.ops.torchvision, 'nms'), hasattr(torch.ops.torchvision, 'qnms'))\n"
    )
    calls = {
        f"print(load_object({str(tmp_path / 'direct.py')!r} + ':value', 'object'))": "Network",
        f"print(call_object({str(tmp_path / 'late.py')!r} + ':late', 'function'))": "Other",
        "print(import_torchvision().__name__)": "torchvision",
    }
    for first, expected in calls.items():
        output = run_python(code.replace("{first}", first), path=tmp_path)
        assert output.split() == [expected, "True", "True", "True"]


def test_what_the_cure_does_not_mend_is_raised_as_it_is(tmp_path: Path) -> None:
    fake_torchvision(
        tmp_path, "print('try')\nraise RuntimeError('operator torchvision::nms does not exist')"
    )
    output = run_python(
        "from penult.network.load import import_torchvision\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        import_torchvision()\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n",
        path=tmp_path,
    )
    reason = "operator torchvision::nms does not exist"
    assert output.splitlines() == ["try", "try", reason, "try", reason]


def test_a_missing_extra_names_the_line_that_installs_it() -> None:
    with pytest.raises(
        InputError, match=r"no_such_library is needed .*: pip install 'penult\[vision\]'$"
    ):
        import_extra("no_such_library", "vision")


def test_a_library_that_lacks_a_part_of_its_own_is_not_called_missing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "half_there.py").write_text("import no_such_part")
    monkeypatch.syspath_prepend(here)
    with pytest.raises(ModuleNotFoundError, match="no_such_part"):
        import_extra("half_there", "vision")


def test_a_file_finds_its_siblings_and_the_path_is_as_before(here: Path) -> None:
    (here / "project").mkdir()
    (here / "project" / "sibling_of_net.py").write_text("WIDTH = 7\n")
    (here / "project" / "late_sibling_of_net.py").write_text("DEPTH = 3\n")
    (here / "project" / "net.py").write_text(
        "from sibling_of_net import WIDTH\n"
        "def both():\n"
        "    from late_sibling_of_net import DEPTH\n"
        "    return WIDTH, DEPTH\n"
    )
    before = list(sys.path)
    assert call_object("project/net.py:both", "function") == (7, 3)
    assert sys.path == before
    with pytest.raises(InputError):
        load_object("project/net.py:neither", "function")
    assert sys.path == before


def test_a_package_is_found_in_the_current_folder(here: Path) -> None:
    (here / "pack_of_models").mkdir()
    (here / "pack_of_models" / "nets.py").write_text("def one():\n    return 1\n")
    before = list(sys.path)
    assert call_object("pack_of_models.nets:one", "function") == 1
    assert sys.path == before


def test_a_file_loaded_twice_is_one_working_module(here: Path) -> None:
    (here / "point.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Point:\n"
        "    x: int\n"
    )
    first = load_object("point.py:Point", "class")
    second = load_object(str(here / "point.py:Point"), "class")
    assert first is second
    assert pickle.loads(pickle.dumps(first(3))) == first(3)

    (here / "point.py").write_text("Point = 'changed'\n")
    assert load_object("point.py:Point", "class") == "changed"
    assert pickle.loads(pickle.dumps(first(3))) == first(3)


def test_two_files_of_one_name_stay_apart(here: Path) -> None:
    for folder in ("a", "b"):
        (here / folder).mkdir()
        (here / folder / "net.py").write_text(f"name = {folder!r}\n")
    assert load_object("a/net.py:name", "object") == "a"
    assert load_object("b/net.py:name", "object") == "b"


def test_a_file_that_failed_is_run_again(here: Path) -> None:
    (here / "flag.py").write_text("from pathlib import Path\nvalue = Path('flag').read_text()\n")
    with pytest.raises(InputError, match=r"flag\.py cannot be loaded, line 2: FileNotFoundError"):
        load_object("flag.py:value", "object")
    Path("flag").write_text("up")
    assert load_object("flag.py:value", "object") == "up"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("net", r"^'net' names no factory: expected file.py:factory or package.module:factory$"),
        (":net", "':net' names no factory"),
        ("net.py:", "'net.py:' names no factory"),
        ("absent.py:net", "^absent.py not found; expected a Python file$"),
        ("folder.py:net", "^folder.py not found; expected a Python file$"),
        ("./net.txt:net", "^./net.txt is no Python file; expected a name that ends in .py$"),
        ("net.py:resnet2", r"^net.py has no factory 'resnet2': did you mean resnet32, resnet20\?$"),
        ("net.py:zzz", r"^net.py has no factory 'zzz': it has resnet20, resnet32$"),
        ("bare.py:zzz", "^bare.py has no factory 'zzz': it defines no factory$"),
        ("syntax.py:net", "^syntax.py cannot be loaded, line 2: SyntaxError: "),
        ("zero.py:net", "^zero.py cannot be loaded: (SyntaxError|ValueError): source code"),
        ("importing.py:net", "^importing.py cannot be loaded, line 3: ModuleNotFoundError: No mod"),
        ("script.py:net", "^script.py cannot be loaded, line 2: SystemExit: 2$"),
        ("no.such.module:net", "^no module named 'no': expected file.py or an importable package"),
        ("inner_importing:net", "inner_importing cannot be loaded, .*importing.py line 3: Module"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(here: Path, spec: str, message: str) -> None:
    (here / "net.txt").write_text("net = 1\n")
    (here / "folder.py").mkdir()
    (here / "net.py").write_text(
        "from pathlib import Path\ndef resnet20(): ...\ndef resnet32(): ...\n"
    )
    (here / "bare.py").write_text("x = 1\n")
    (here / "syntax.py").write_text("x = 1\ndef net(:\n")
    (here / "zero.py").write_bytes(b"x = 1\0")
    (here / "importing.py").write_text("\n\nimport no_such_package\n")
    (here / "script.py").write_text("import sys\nsys.exit(2)\n")
    (here / "inner_importing.py").write_text("from importing import net\n")
    with pytest.raises(InputError, match=message) as caught:
        load_object(spec, "factory")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("number", {}, "^net.py:number is no factory: expected a function, found int 3$"),
        ("net", {"widht": 1}, "net.py:net has no parameter widht: its parameters are width, depth"),
        ("none", {"a": 1, "b": 2}, "^net.py:none has no parameter a, b: it takes none$"),
        ("net", {}, "^net.py:net needs width: give --set width=VALUE$"),
        ("boom", {}, "^net.py:boom failed, line 8: RuntimeError: one two$"),
        ("leave", {}, "^net.py:leave failed, line 10: SystemExit: 3$"),
        ("own", {}, "^what the file itself says$"),
    ],
)
def test_what_cannot_be_called_is_said_in_one_line(
    here: Path, name: str, arguments: dict[str, object], message: str
) -> None:
    (here / "net.py").write_text(
        "from penult.errors import InputError\n"
        "number = 3\n"
        "def net(width, depth=1): ...\n"
        "def none(): ...\n"
        "def boom():\n"
        "    text = 'one'\n"
        "    # the line that counts\n"
        "    raise RuntimeError(text + '\\n   two')\n"
        "def leave():\n"
        "    raise SystemExit(3)\n"
        "def own():\n"
        "    raise InputError('what the file itself says')\n"
    )
    with pytest.raises(InputError, match=message) as caught:
        call_object(f"net.py:{name}", "factory", arguments)
    assert "\n" not in str(caught.value)


def test_arguments_reach_a_function_that_takes_any(here: Path) -> None:
    (here / "net.py").write_text("def any_of(**options):\n    return options\n")
    assert call_object("net.py:any_of", "function", {"a": 1}) == {"a": 1}


def test_a_class_is_a_factory(here: Path) -> None:
    (here / "net.py").write_text(
        "class Net:\n    def __init__(self, width=2):\n        self.width = width\n"
    )
    assert call_object("net.py:Net", "factory", {"width": 5}).width == 5
    with pytest.raises(InputError, match=r"net.py:Net has no parameter depth: .* are width$"):
        call_object("net.py:Net", "factory", {"depth": 5})


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline_"])
@pytest.mark.parametrize("where", ["outside", "inside", "in the function"])
def test_a_backend_that_is_not_there_breaks_neither_the_users_code_nor_plots(
    backend: str, where: str, tmp_path: Path
) -> None:
    first = f"import os; os.environ['MPLBACKEND'] = {backend!r}\n" if where != "outside" else ""
    plot, late = "import matplotlib.pyplot as plt", where == "in the function"
    make = f"def make():\n    {plot if late else 'pass'}\n    return 1\n"
    (tmp_path / "net.py").write_text(f"{first}{'' if late else plot}\n{make}")
    code = (
        "from pathlib import Path\n"
        "from penult.plotting import new_figure, plain_style, save_figure\n"
        "from penult.user_code import call_object\n"
        "assert call_object('net.py:make', 'factory') == 1\n"
        "with plain_style():\n    figure = new_figure(1, 1)\n"
        "save_figure(figure, Path('x.png'))\n"
    )
    environment = {**os.environ, **({"MPLBACKEND": backend} if where == "outside" else {})}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.png").stat().st_size > 0
