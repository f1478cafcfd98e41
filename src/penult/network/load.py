"""Networks from what a user can name: a factory in a file, torchvision, timm, Hugging Face."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from penult.data.transform import Transform, from_hf, from_timm, from_torchvision
from penult.errors import InputError
from penult.extras import import_extra, import_torchvision, with_torchvision
from penult.network.checkpoint import Shapes, check_fit, find_state, load_weights, read_checkpoint
from penult.text import described as one_line
from penult.text import some
from penult.user_code import call_object, load_object, nearest, parameters_of

__all__ = [
    "LoadedModel",
    "fingerprint",
    "import_torchvision",
    "load_model",
    "load_object",
    "with_torchvision",
]

RANDOM = "random"
_NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


@dataclass
class LoadedModel:
    """A network ready to be analysed, and what its library says about it.

    Attributes:
        model: in evaluation mode, on the CPU.
        spec: what the user named it by.
        fingerprint: hash of its weights and structure.
        transform: the preprocessing that its library prescribes; None where none is known.
        transform_problem: why `transform` is None, for the error of whoever needs one.
        class_names: in the order of the logits, where the library knows them.
    """

    model: nn.Module
    spec: str
    fingerprint: str
    transform: Transform | None
    transform_problem: str
    class_names: tuple[str, ...] | None


@dataclass
class _Built:
    """What a library or a factory made of a name."""

    model: nn.Module
    class_option: str | None
    loaded: bool = False
    prescribed: Callable[[], Transform] | None = None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Request:
    """What the user asked for: pretrained weights, those in `content` of `file`, or random ones."""

    spec: str
    name: str
    options: Mapping[str, object]
    pretrained: bool
    file: Path | None
    content: Any


def load_model(
    spec: str,
    *,
    weights: str | Path | None = None,
    options: Mapping[str, object] = _NO_OPTIONS,
    trust_checkpoint: bool = False,
) -> LoadedModel:
    """Load the network that `spec` names, with its weights.

    Args:
        spec: `file.py:factory`, `package.module:factory`, `torchvision:NAME`, `timm:NAME` or
            `hf:NAME` (`hf:FOLDER` for a local one). A factory is called with `options` and returns
            a `torch.nn.Module`; the attribute `penult_transform` of that module, a dict with the
            fields of `Transform`, says how its inputs are made.
        weights: a checkpoint file; "random" for the weights that the network is built with, drawn
            with a fixed seed; None for the pretrained ones of the library, or of the factory.
        options: arguments of the factory or of the library. Text that is a Python literal becomes
            what it says (`10`, `0.5`, `None`; `true` and `false` too), all other text stays text.
        trust_checkpoint: let a checkpoint that is not only weights run its code.

    Raises:
        InputError: anything of this is not there, fails or does not fit; always in one line.
    """
    library, colon, name = spec.partition(":")
    if not colon:
        raise InputError(
            f"{spec!r} names no network: expected file.py:factory, package.module:factory, "
            "torchvision:NAME, timm:NAME or hf:NAME"
        )
    file = None if weights is None or str(weights) == RANDOM else Path(weights)
    request = _Request(
        spec=spec,
        name=name,
        options={key: _literal(text) for key, text in options.items()},
        pretrained=weights is None,
        file=file,
        content=_read(file, trust_checkpoint),
    )
    build = _LIBRARIES.get(library, _build_from_factory)

    def load() -> _Built:
        with _seeded():
            return build(request)

    built = with_torchvision(load)
    if file is not None and not built.loaded:
        load_weights(built.model, request.content, file, built.class_option)
    _check_has_values(built.model, spec)
    model = built.model.cpu().eval()
    transform, problem = _transform_of(built, spec)
    return LoadedModel(
        model=model,
        spec=spec,
        fingerprint=fingerprint(model),
        transform=transform,
        transform_problem=problem,
        class_names=built.class_names,
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


def _read(file: Path | None, trust: bool) -> Any:
    if file is None:
        return None
    # A trusted file can hold whole networks, torchvision's among them.
    return with_torchvision(lambda: read_checkpoint(file, trust=trust))


def _build_from_factory(request: _Request) -> _Built:
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
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{request.spec} must return a torch.nn.Module, it returned {type(model).__name__}"
        )
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    about_classes = [name for name in parameters if "class" in name.lower()]
    return _Built(
        model=model,
        class_option=about_classes[0] if about_classes else None,
        prescribed=_prescribed_by_attribute(model),
    )


def _build_from_torchvision(request: _Request) -> _Built:
    models = import_torchvision().models
    known = models.list_models(module=models)
    if request.name not in known:
        raise _unknown(request, known)
    default = models.get_model_weights(request.name).DEFAULT
    wanted = default if request.pretrained else None
    with _library_errors(request):
        model = models.get_model(request.name, weights=wanted, **request.options)
    return _Built(
        model=model,
        class_option="num_classes",
        prescribed=lambda: from_torchvision(default),
        class_names=tuple(default.meta["categories"]) if request.pretrained else None,
    )


def _build_from_timm(request: _Request) -> _Built:
    timm = import_extra("timm", "vision")
    # A name with a colon (hf-hub:, local-dir:) is not of timm's own list.
    if ":" not in request.name and not timm.is_model(request.name):
        raise _unknown(request, timm.list_models())
    with _library_errors(request):
        model = timm.create_model(request.name, pretrained=request.pretrained, **request.options)
    trained = model.pretrained_cfg.get("num_classes")
    wanted = request.options.get("num_classes", trained)
    if request.pretrained and wanted != trained:
        raise InputError(
            f"{request.spec} was trained on {trained} classes, with num_classes={wanted} its last "
            "layer is random: give --weights FILE"
        )
    return _Built(model=model, class_option="num_classes", prescribed=lambda: from_timm(model))


def _build_from_hf(request: _Request) -> _Built:
    transformers = import_extra("transformers", "hf")
    auto = transformers.AutoModelForImageClassification
    processors = transformers.AutoImageProcessor
    # Off without asking: the library would otherwise wait for an answer at the terminal.
    local = {"trust_remote_code": False}
    with _library_errors(request, "config.json", "give hf:FOLDER, a local folder that holds it"):
        config, unused = transformers.AutoConfig.from_pretrained(
            request.name, return_unused_kwargs=True, **local, **request.options
        )
    unused.pop("trust_remote_code", None)
    if unused:
        settings = ["num_labels", *config.to_dict()]
        raise InputError(
            f"{request.spec} has no parameter {some(list(unused))}: its config has "
            f"{some(nearest(next(iter(unused)), settings) or settings)}"
        )
    with _library_errors(request), _quiet(transformers):
        if request.pretrained:
            model, report = auto.from_pretrained(
                request.name,
                config=config,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **local,
            )
        else:
            model, report = auto.from_config(config, **local), {}
            if request.file is not None:
                state = find_state(request.content, model.state_dict(), request.file)
                # Names of layers change between releases; only the library knows how.
                model, report = type(model).from_pretrained(
                    None,
                    config=config,
                    state_dict=state,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                )
    if report:
        where = request.file or Path(request.name)
        _check_report(where, report, extra_fits=request.pretrained)
    labels = [config.id2label[index] for index in sorted(config.id2label)]
    named = labels != [f"LABEL_{index}" for index in range(len(labels))]
    return _Built(
        # Half precision is how weights are stored, not how the network is meant to be run.
        model=model.float(),
        class_option="num_labels",
        loaded=True,
        prescribed=lambda: from_hf(processors.from_pretrained(request.name, **local)),
        class_names=tuple(labels) if named else None,
    )


def _prescribed_by_attribute(model: nn.Module) -> Callable[[], Transform] | None:
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


def _transform_of(built: _Built, spec: str) -> tuple[Transform | None, str]:
    """The prescribed transform, or why there is none: options can still say how inputs are made."""
    if built.prescribed is None:
        return None, f"{spec} does not say how its inputs are made"
    try:
        return with_torchvision(built.prescribed), ""
    except (InputError, OSError, ValueError, ImportError) as error:
        return None, f"{spec} does not say how its inputs are made: {one_line(error)}"


@contextmanager
def _library_errors(
    request: _Request,
    wanted: str = "weights",
    advice: str = "give --weights FILE, or --weights random for random weights",
) -> Iterator[None]:
    """One line where a library fails to build a network or to get its weights."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # Libraries answer wrong arguments with exactly these; failed downloads are subclasses.
        if type(error) in (TypeError, ValueError, AssertionError):
            given = some([f"{name}={value!r}" for name, value in request.options.items()])
            with_options = f" with {given}" if given else ""
            advice = ""
            if request.pretrained and given and type(error) is ValueError:
                advice = " (of the pretrained weights; give --weights FILE for others)"
            raise InputError(
                f"{request.spec} cannot be built{with_options}: {one_line(error)}{advice}"
            ) from error
        raise InputError(
            f"could not get the {wanted} of {request.spec}: {one_line(error)}; {advice}"
        ) from error


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep transformers from printing a table of what does not fit; the error says it."""
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def _seeded() -> Iterator[None]:
    """Random weights are the same in every process, so that a run can be resumed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _literal(text: object) -> object:
    if not isinstance(text, str):
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


def _unknown(request: _Request, known: list[str]) -> InputError:
    library = request.spec.partition(":")[0]
    close = nearest(request.name, known)
    meant = f"did you mean {some(close)}?" if close else f"it has {some(known, 3)}"
    return InputError(f"{library} has no image classifier {request.name!r}: {meant}")


def _check_report(path: Path, report: Mapping[str, Any], *, extra_fits: bool) -> None:
    """Check what transformers says it could not place; its own folders may hold further heads."""
    different = [
        Shapes(name, tuple(found), tuple(expected))
        for name, found, expected in sorted(report["mismatched_keys"])
    ]
    check_fit(
        path,
        sorted(report["missing_keys"]),
        [] if extra_fits else sorted(report["unexpected_keys"]),
        different,
        "num_labels",
    )


def _check_has_values(model: nn.Module, spec: str) -> None:
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor) and (is_lazy(value) or value.is_meta):
            raise InputError(
                f"{spec} has no values for {name}: run a lazy layer once in the factory, and build "
                "no layer on the meta device"
            )


_LIBRARIES: Mapping[str, Callable[[_Request], _Built]] = MappingProxyType(
    {"torchvision": _build_from_torchvision, "timm": _build_from_timm, "hf": _build_from_hf}
)
