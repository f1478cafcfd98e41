"""The user's own code: files and packages that are named by `file.py:name`, loaded and called."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from penult import extras, plotting
from penult.errors import InputError
from penult.extras import with_torchvision
from penult.plotting import with_matplotlib
from penult.text import described, nearest, some

# Frames of these files are penult's, not the user's.
_OWN = (__file__, extras.__file__, plotting.__file__)
T = TypeVar("T")
LIBRARIES = ("torchvision", "timm", "hf")  # what is before the colon in the name of a network
MOST_FILES = 1000  # of a user's code that are hashed
MOST_SOURCE = 10 << 20  # bytes of one of them


def load_object(spec: str, kind: str) -> Any:
    """Import what `file.py:name` or `package.module:name` names.

    The file's own folder, or the current one for a package, is importable meanwhile. A file that
    has not changed since is not run again. Its module stays in `sys.modules` under a name of its
    own, so that pickle and dataclasses work.

    Args:
        spec: where it is; relative files and packages start from the current folder.
        kind: what it is to be, for the errors: "factory", "function".

    Raises:
        InputError: the file, the module or the name in it is not there (names the nearest), or it
            fails while it is loaded (names file, line and cause).
    """
    where, _, name = spec.rpartition(":")
    if not where or not name:
        raise InputError(
            f"{spec!r} names no {kind}: expected file.py:{kind} or package.module:{kind}"
        )
    with _importable(_folder(where)):
        load = _load_file if _is_file(where) else _load_package
        module = _cured(lambda: load(where))
    try:
        return getattr(module, name)
    except AttributeError:
        raise InputError(f"{where} has no {kind} {name!r}: {_others(module, name, kind)}") from None


def call_object(spec: str, kind: str, arguments: Mapping[str, object] | None = None) -> Any:
    """Load what `spec` names, as `load_object` does, and call it with keyword `arguments`.

    Raises:
        InputError: it cannot be loaded or called, knows no such argument, lacks one, or fails
            (names file, line and cause).
    """
    function = load_object(spec, kind)
    if not callable(function):
        raise InputError(f"{spec} is no {kind}: expected a function, found {_kind_of(function)}")
    given = dict(arguments or {})
    _check_arguments(spec, function, given)
    where = spec.rpartition(":")[0]
    with _importable(_folder(where)):
        try:
            return _cured(lambda: function(**given))
        except InputError:
            raise
        # A user's file may fail in any way; SystemExit is what a script's option parsing ends in.
        except (Exception, SystemExit) as error:
            raise InputError(f"{spec} failed{_place(error, where)}: {described(error)}") from error


def _cured(action: Callable[[], T]) -> T:
    """Run the user's code, again if what failed was a library that penult can cure."""
    return with_matplotlib(lambda: with_torchvision(action))


def is_file_spec(spec: str) -> bool:
    """Whether `spec` is a `file.py:name`, rather than a name in a package or of a library."""
    where, _, name = spec.rpartition(":")
    return bool(name) and where.endswith(".py")


def code_digest(spec: str) -> str:
    """Hash of the source behind `file.py:name` or `package.module:name`, which is not run for it.

    It covers the file and what that imports, directly or not, from its own folder; for a package
    from the current folder, if it lies there, and the module alone if it is installed. Code that is
    nowhere to be found hashes as nothing, and so do names of libraries.
    """
    where = spec.rpartition(":")[0]
    digest = hashlib.blake2b(digest_size=16)
    start = Path(where).resolve() if _is_file(where) else _package_file(where)
    if start is None or not start.is_file():
        return digest.hexdigest()
    root = start.parent if _is_file(where) else Path.cwd().resolve()
    if start.is_relative_to(root) and (_is_file(where) or start in _modules(root, where)):
        sources = _with_imports(start, root)
    else:
        sources = {where: start.read_bytes()}
    for name, source in sorted(sources.items()):
        for part in (name.encode("utf-8", "surrogateescape"), source):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def _package_file(module: str) -> Path | None:
    """The file of a module, if it is loaded already or lies below the current folder."""
    if module in LIBRARIES:
        return None
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded:
        return Path(loaded).resolve()
    below = [file for file in _modules(Path.cwd().resolve(), module) if file.is_file()]
    return below[0] if below else None


def _modules(root: Path, module: str) -> tuple[Path, Path]:
    """The files that a module's name can mean below a folder."""
    place = root.joinpath(*module.split("."))
    return place.with_suffix(".py"), place / "__init__.py"


def _with_imports(start: Path, root: Path) -> dict[str, bytes]:
    """Places of a file and of what it imports from below `root`, by their path there."""
    found: dict[str, bytes] = {}
    waiting = [start]
    while waiting and len(found) < MOST_FILES:
        file = waiting.pop()
        name = file.relative_to(root).as_posix()
        if name not in found and file.stat().st_size <= MOST_SOURCE:
            found[name] = file.read_bytes()
            waiting += _imported(file, found[name], root)
    return found


def _imported(file: Path, source: bytes, root: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        modules: list[str] = []
        base = root
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = file.parents[min(node.level, len(file.parents)) - 1]
            inner = [alias.name for alias in node.names]
            of = f"{node.module}." if node.module else ""
            modules = [*([node.module] if node.module else []), *(of + name for name in inner)]
        for module in modules:
            parts = module.split(".")
            for n in range(1, len(parts) + 1):
                for one in _modules(base, ".".join(parts[:n])):
                    if one.is_file() and one.is_relative_to(root):
                        yield one


def parameters_of(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """Parameters that can be given by name; none where the function does not tell."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        return {}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: one for name, one in parameters.items() if one.kind in by_name}


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where or "\\" in where


def _folder(where: str) -> Path:
    return Path(where).resolve().parent if _is_file(where) else Path.cwd()


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # Only this entry: what the user's own code added to the path is meant to stay.
        if entry in sys.path:
            sys.path.remove(entry)


def _load_file(where: str) -> ModuleType:
    path = Path(where).resolve()
    if not path.is_file():
        raise InputError(f"{where} not found; expected a Python file")
    if path.suffix != ".py":
        raise InputError(f"{where} is no Python file; expected a name that ends in .py")
    source = path.read_bytes()
    digest = hashlib.blake2b(str(path).encode() + b"\0" + source, digest_size=8).hexdigest()
    name = f"penult_file_{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        # Compiled here and not by the loader, whose cache takes a file rewritten within the same
        # second for the old one.
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _load_error(where, error) from error
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_package(where: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name and f"{where}.".startswith(f"{error.name}."):
            raise InputError(
                f"no module named {error.name!r}: expected file.py or an importable package.module "
                f"(looked in {Path.cwd()} too)"
            ) from error
        raise _load_error(where, error) from error
    except (Exception, SystemExit) as error:
        raise _load_error(where, error) from error


def _load_error(where: str, error: BaseException) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(f"{where} cannot be loaded{_place(error, where)}: {described(error)}")


def _place(error: BaseException, where: str) -> str:
    """The line where `error` arose: of the user's own file if it is in the trace, else the last."""
    own = str(Path(where).resolve())
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        places = [(error.filename, error.lineno)]
    else:
        places = [
            (frame.filename, frame.lineno)
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename not in _OWN and not frame.filename.startswith("<") and frame.lineno
        ]
    if not places:
        return ""
    file, line = ([place for place in places if place[0] == own] or places)[-1]
    return f", line {line}" if file == own else f", {file} line {line}"


def _others(module: ModuleType, name: str, kind: str) -> str:
    """What else is there: the nearest names, or the first few that could be meant."""
    own = [
        key
        for key, value in vars(module).items()
        if (not key.startswith("_") and inspect.isroutine(value)) or inspect.isclass(value)
    ]
    close = nearest(name, own)
    if close:
        return f"did you mean {some(close)}?"
    here = [key for key in own if vars(module)[key].__module__ == module.__name__]
    return f"it has {some(here)}" if here else f"it defines no {kind}"


def _check_arguments(spec: str, function: Callable[..., object], given: dict[str, object]) -> None:
    parameters = parameters_of(function)
    try:
        signature = inspect.signature(function)
    except ValueError:
        return
    takes_any = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
    unknown = [] if takes_any else [name for name in given if name not in parameters]
    if unknown:
        takes = f"its parameters are {', '.join(parameters)}" if parameters else "it takes none"
        raise InputError(f"{spec} has no parameter {some(unknown)}: {takes}")
    needed = [
        name for name, one in parameters.items() if one.default is one.empty and name not in given
    ]
    if needed:
        raise InputError(f"{spec} needs {some(needed)}: give --set {needed[0]}=VALUE")


def _kind_of(value: object) -> str:
    return "a module" if isinstance(value, ModuleType) else f"{type(value).__name__} {value!r:.60}"
