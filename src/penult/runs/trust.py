"""Trust: whether code that a run names may be run.

A run folder is data, and may come from anybody. The rule: of what a run names, penult runs only

1. networks of well-known libraries (`torchvision:NAME`, `timm:NAME`, `hf:NAME` on the hub, with
   plain options), ONNX files (their operations are onnxruntime's own), data sets of the Hugging
   Face hub (`hf:NAME`), and its own demo;
2. a function of a Python file that this user has named in a penult command on this computer, with
   the same options, where neither the file nor what it imports from its folder has changed since;
   likewise `hf:FOLDER` with the same settings and tokenizer in the folder, of which none is code;
3. anything, with `--trust-run`.

What is named on the command line itself (`--network`, `--data`, `--eval`) is the user's own word.
That a file was named is kept outside of all runs, in the user's state folder, so that no run can
vouch for itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from penult.errors import InputError
from penult.storage import write_atomically
from penult.user_code import code_digest, is_file_spec


class UntrustedError(InputError):
    """A run names code that is not to be run."""


SETTINGS = (".json", ".txt", ".model", ".py", ".jinja")
OWN = frozenset({"penult.demo:DigitsCNN"})
_NAMES = {
    "torchvision": re.compile(r"\w+"),
    "timm": re.compile(r"[\w.\-]+"),
    "hf": re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?"),
}
_PLAIN_VALUE = re.compile(r"-?\d{1,9}|-?\d{0,9}\.\d{1,12}(e-?\d{1,2})?|\w{1,40}")
# Options by which a library would read, fetch or write something else than its own network.
_REACHING = re.compile(
    r"path|file|dir|url|cfg|config|hub|cache|code|weights|checkpoint|repo|token|prox|revision|"
    r"folder|pretrained|state|map|_$|^_"
)
_named: dict[str, list[str]] = {}


def remember(spec: str, options: Sequence[str] = ()) -> None:
    """Keep in mind that the user has named this code or folder with these `--set` options."""
    if is_file_spec(spec):
        file, _, name = spec.rpartition(":")
        place, key = str(Path(file).resolve()), _key(name, options, code_digest(spec))
    elif (folder := _network_folder(spec)) is not None:
        place, key = str(folder.resolve()), _key("hf:", options, _settings_digest(folder))
    else:
        return
    known = _places(key)
    if place in known:
        return
    _named[key] = [*known, place]
    # Where nothing can be kept, this process remembers, and later ones ask for --trust-run.
    with suppress(InputError, OSError):
        text = "".join(f"{one}\n" for one in _named[key])
        write_atomically(_folder() / key, lambda made: made.write_text(text, encoding="utf-8"))


def require_trusted(
    run: Path,
    what: str,
    spec: str,
    options: Sequence[str],
    code: object,
    *,
    remedy: str,
    trust: bool,
) -> str:
    """What to load in place of `spec`, a name that a run gives; see the module for the rule.

    Args:
        run: the run's folder, for the error.
        what: "network", "data" or "evaluation data".
        spec: what the run names.
        options: what the run gives it, `key=value`.
        code: the digest of the code that the run records.
        remedy: the option by which the user names it.
        trust: whether the user trusts the run.

    Raises:
        UntrustedError: it is not to be run.
    """
    known = _well_known(spec, options) if what == "network" else _on_the_hub(spec)
    if trust or known:
        return spec
    why = "this is neither a name that a known library opens nor code that you have named"
    if is_file_spec(spec):
        file, _, name = spec.rpartition(":")
        digest = code_digest(spec)
        if not Path(file).is_file():
            why = f"{file} is not there"
        elif digest != code:
            why = f"{file}, or a file that it imports, is not the one that the run was made with"
        elif str(Path(file).resolve()) not in _places(_key(name, options, digest)):
            why = "you have not named this file in a penult command on this computer"
        else:
            return spec
    elif what == "network" and (folder := _network_folder(spec)) is not None:
        if str(folder.resolve()) in _places(_key("hf:", options, _settings_digest(folder))):
            return spec
        why = "you have not named this folder, as it is now, in a penult command on this computer"
    shown = " ".join(["", *(f"--set {option}" for option in options)]) if options else ""
    raise UntrustedError(
        f"the {what} of {run} is the code {spec}{shown}, which is not run: {why}; name it yourself "
        f"with {remedy}, or give --trust-run if you trust whoever made the run"
    )


def _well_known(spec: str, options: Sequence[str]) -> bool:
    library, _, name = spec.partition(":")
    if spec in OWN:
        return not options
    # A graph of onnxruntime's own operations runs no other code.
    if spec.endswith(".onnx") and ":" not in spec:
        return not options
    if library not in _NAMES or not _NAMES[library].fullmatch(name):
        return False
    # A folder of that name is a network of whoever made the folder.
    if library == "hf" and Path(name).exists():
        return False
    pairs = [option.partition("=") for option in options]
    return all(
        # Of `weights` a library takes the name of its own; what is a file holds only tensors.
        (key == "weights" or not _REACHING.search(key.lower())) and _PLAIN_VALUE.fullmatch(value)
        for key, _, value in pairs
    )


def _on_the_hub(spec: str) -> bool:
    """Whether this is a data set of the Hugging Face hub, which runs no code when it is opened."""
    library, _, rest = spec.partition(":")
    name, _, split = rest.partition(":")
    plain = _NAMES["hf"].fullmatch(name) and re.fullmatch(r"[\w.\-]*", split)
    return library == "hf" and bool(plain) and not Path(name).exists()


def _network_folder(spec: str) -> Path | None:
    """The folder of a network of `transformers` on this computer, `hf:FOLDER`."""
    library, _, name = spec.partition(":")
    return Path(name) if library == "hf" and name and Path(name).is_dir() else None


def _settings_digest(folder: Path) -> str:
    """Hash of a network's settings and tokenizer; its weights are compared when they are read."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in SETTINGS:
            content = hashlib.blake2b(file.read_bytes(), digest_size=16).digest()
            digest.update(file.name.encode("utf-8", "surrogateescape") + b"\0" + content)
    return digest.hexdigest()


def _places(key: str) -> list[str]:
    """Files that the user has named, of this content, name and options."""
    kept = _folder() / key
    try:
        lines = kept.read_text(encoding="utf-8").splitlines() if kept.is_file() else []
    except (OSError, UnicodeDecodeError):
        lines = []
    return list(dict.fromkeys([*_named.get(key, []), *filter(None, lines)]))


def _key(name: str, options: Sequence[str], code: str) -> str:
    text = json.dumps([name, sorted(options), code])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _folder() -> Path:
    """Where it is kept which code the user has named: the user's own, never a run's."""
    home = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(home or Path.home() / ".local" / "state") / "penult" / "named"


def options_of(about: Mapping[str, object]) -> dict[str, str]:
    """The `--set` options that a run records.

    Raises:
        InputError: they are no list of `key=value`.
    """
    found = about.get("set", [])
    if not isinstance(found, list) or not all(isinstance(x, str) and "=" in x for x in found):
        raise InputError(f"run.json is damaged: expected key=value options, found {found!r:.80}")
    return dict(text.split("=", 1) for text in found)
