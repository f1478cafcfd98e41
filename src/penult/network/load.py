"""Networks from what a user can name: a factory in a file, torchvision, timm, Hugging Face."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from penult.data.library_transforms import from_timm
from penult.data.tokens import Preparation
from penult.data.transform import Transform
from penult.errors import InputError
from penult.extras import import_torchvision, with_torchvision
from penult.network.checkpoint import read_checkpoint
from penult.network.libraries import LIBRARIES, Built, Request, adapted, weights_in_options
from penult.network.onnx_file import ENDING, OnnxNetwork
from penult.network.state import load_weights
from penult.network.text_inputs import token_transform
from penult.network.wrappers import in_single_precision, unwrapped
from penult.text import described as one_line
from penult.text import some
from penult.user_code import call_object, load_object, parameters_of

__all__ = [
    "LoadedModel",
    "fingerprint",
    "import_torchvision",
    "load_model",
    "load_object",
    "with_torchvision",
]

RANDOM = "random"
_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".th", ".tar", ".pkl", ".safetensors", ".json")
_NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


@dataclass
class LoadedModel:
    """A network ready to be analysed, and what its library says about it.

    Attributes:
        model: in evaluation mode, on the CPU.
        spec: what the user named it by.
        fingerprint: hash of its weights and structure.
        transform: the preprocessing that its library prescribes, of texts its tokenizer; None where
            none is known.
        transform_problem: why `transform` is None, for the error of whoever needs one.
        class_names: in the order of the logits, where the library knows them.
    """

    model: nn.Module
    spec: str
    fingerprint: str
    transform: Preparation | None
    transform_problem: str
    class_names: tuple[str, ...] | None


def load_model(
    spec: str,
    *,
    weights: str | Path | None = None,
    options: Mapping[str, object] = _NO_OPTIONS,
    trust_checkpoint: bool = False,
    weights_key: str | None = None,
) -> LoadedModel:
    """Load the network that `spec` names, with its weights.

    Args:
        spec: `file.py:factory`, `package.module:factory`, `torchvision:NAME`, `timm:NAME`,
            `hf:NAME` (`hf:FOLDER` for a local one), or an ONNX file, `NETWORK.onnx`. A factory is
            called with `options` and returns a `torch.nn.Module`; the attribute `penult_transform`
            of that module, a dict with the fields of `Transform`, says how its inputs are made. For
            texts the factory returns (module, tokenizer), or a module with the attribute
            `penult_tokenizer`.
        weights: a checkpoint file; the name of a library's weights (`IMAGENET1K_V1`, `DEFAULT`, a
            tag of timm's); "random" for the weights that the network is built with, drawn with a
            fixed seed; None for the pretrained ones of the library, or of the factory.
        options: arguments of the factory or of the library. Text that is a Python literal becomes
            what it says (`10`, `0.5`, `None`; `true` and `false` too), all other text stays text.
        trust_checkpoint: let a checkpoint that is not only weights run its code.
        weights_key: dotted name of the set of weights to take, where the file holds several.

    Raises:
        InputError: anything of this is not there, fails or does not fit; always in one line.
    """
    if spec.endswith(ENDING):
        return _load_onnx(spec, weights, options)
    library, colon, name = spec.partition(":")
    if not colon:
        raise InputError(
            f"{spec!r} names no network: expected file.py:factory, package.module:factory, "
            "torchvision:NAME, timm:NAME, hf:NAME or a file that ends in .onnx"
        )
    given = {key: literal(text) for key, text in options.items()}
    if library in LIBRARIES:
        weights, given = weights_in_options(spec, weights, given)
    if weights is not None and "://" in str(weights):
        raise InputError(
            f"--weights {weights} is an address, and penult reads files: download it, then give "
            "the file"
        )
    named = str(weights) if library in LIBRARIES and _is_name(weights) else None
    file = None if weights is None or named or str(weights) == RANDOM else Path(weights)
    request = Request(
        spec=spec,
        name=name,
        options=given,
        pretrained=weights is None or named is not None,
        named=named,
        file=file,
        content=_read(file, trust_checkpoint, None if library in LIBRARIES else spec),
        key=weights_key,
    )
    if weights_key is not None and file is None:
        raise InputError(f"--weights-key {weights_key} needs --weights FILE, in which it is")
    build = LIBRARIES.get(library, _build_from_factory)

    def load() -> Built:
        with _seeded():
            return build(request)

    built = with_torchvision(load)
    built.model = unwrapped(built.model)
    if file is not None and not built.loaded:
        load_weights(built.model, request.content, file, built.class_option, key=weights_key)
    _check_has_values(built.model, spec)
    model = in_single_precision(built.model.cpu().eval())
    transform, problem = _transform_of(built, spec)
    if isinstance(transform, Transform) and library in LIBRARIES:
        transform = adapted(transform, model, given)
    return LoadedModel(
        model=model,
        spec=spec,
        fingerprint=fingerprint(model),
        transform=transform,
        transform_problem=problem,
        class_names=built.class_names,
    )


def _load_onnx(spec: str, weights: str | Path | None, options: Mapping[str, object]) -> LoadedModel:
    """The network of an ONNX file, which holds its own weights."""
    if weights is not None or options:
        option = "--weights" if weights is not None else "--set"
        raise InputError(f"{spec} holds a whole network: expected no {option}")
    model = OnnxNetwork(Path(spec))
    problem = f"{spec} does not say how its inputs are made"
    return LoadedModel(
        model=model,
        spec=spec,
        fingerprint=fingerprint(model),
        transform=model.about.transform,
        transform_problem="" if model.about.transform is not None else problem,
        class_names=model.about.class_names,
    )


def fingerprint(model: nn.Module) -> str:
    """Hash of a network's weights (names, types, shapes, bytes) and of its printed structure."""
    digest = hashlib.blake2b(digest_size=16)
    # Functions are printed with the address they happen to have in this process.
    digest.update(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model)).encode())
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            flat = value.detach().cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().data)
        else:
            digest.update(f"{name} {value!r}".encode())
    return digest.hexdigest()


def _is_name(weights: str | Path | None) -> bool:
    """Whether text names a library's weights: no file is there, and it does not look like one."""
    if weights is None or isinstance(weights, Path) or weights == RANDOM:
        return False
    return re.fullmatch(r"[\w.]+", weights) is not None and not (
        Path(weights).exists() or Path(weights).suffix.lower() in _SUFFIXES
    )


def _read(file: Path | None, trust: bool, factory: str | None) -> Any:
    if file is None:
        return None
    folder = None
    if trust and factory is not None and file.exists():
        # Classes of the user's own files: these are loaded first, and their folder is searched.
        where = factory.rpartition(":")[0]
        folder = Path(where).resolve().parent if where.endswith(".py") else Path.cwd()
        with suppress(InputError):
            load_object(factory, "factory")
    # A trusted file can hold whole networks, torchvision's among them.
    return with_torchvision(lambda: read_checkpoint(file, trust=trust, importable=folder))


def _build_from_factory(request: Request) -> Built:
    factory = load_object(request.spec, "factory")
    if isinstance(factory, nn.Module):
        if request.options:
            raise InputError(
                f"{request.spec} is a network already, it takes no {some(list(request.options))}"
            )
        model: Any = factory
        parameters: Collection[str] = ()
    else:
        # Once more, since the file draws only the first time that it is loaded.
        with _seeded():
            model = call_object(request.spec, "factory", request.options)
        parameters = parameters_of(factory)
    tokenizer = None
    if isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], nn.Module):
        model, tokenizer = model
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{request.spec} must return a torch.nn.Module, it returned {type(model).__name__}"
        )
    model = unwrapped(model)
    if tokenizer is None:
        tokenizer = getattr(model, "penult_tokenizer", None)
    about_classes = [name for name in parameters if "class" in name.lower()]
    return Built(
        model=model,
        class_option=about_classes[0] if about_classes else None,
        prescribed=(
            _prescribed_by_attribute(model)
            if tokenizer is None
            else _as_it_is(token_transform(model, tokenizer, request.spec))
        ),
    )


def _as_it_is(transform: Preparation) -> Callable[[], Preparation]:
    return lambda: transform


def _prescribed_by_attribute(model: nn.Module) -> Callable[[], Preparation] | None:
    settings = getattr(model, "penult_transform", None)
    if isinstance(settings, Transform):
        return lambda: settings
    if isinstance(settings, Mapping):
        return lambda: Transform.from_json(settings)
    if settings is not None:
        raise InputError(
            "penult_transform of a network must be a dict with the fields of Transform, found "
            f"{type(settings).__name__}"
        )
    # timm's networks carry their preprocessing wherever they are built.
    if isinstance(getattr(model, "pretrained_cfg", None), Mapping):
        return lambda: from_timm(model)
    return None


def _transform_of(built: Built, spec: str) -> tuple[Preparation | None, str]:
    """The prescribed transform, or why there is none: options can still say how inputs are made."""
    if built.prescribed is None:
        return None, f"{spec} does not say how its inputs are made"
    try:
        return with_torchvision(built.prescribed), ""
    except (InputError, OSError, ValueError, ImportError) as error:
        return None, f"{spec} does not say how its inputs are made: {one_line(error)}"


@contextmanager
def _seeded() -> Iterator[None]:
    """Random weights are the same in every process, so that a run can be resumed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def literal(text: object) -> object:
    if not isinstance(text, str):
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


def _check_has_values(model: nn.Module, spec: str) -> None:
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor) and (is_lazy(value) or value.is_meta):
            raise InputError(
                f"{spec} has no values for {name}: run a lazy layer once in the factory, and build "
                "no layer on the meta device"
            )
