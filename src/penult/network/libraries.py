"""Libraries: networks, weights, preprocessing of torchvision, timm and Hugging Face by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from penult.data.library_transforms import from_hf, from_timm, from_torchvision
from penult.data.tokens import Preparation
from penult.data.transform import Size, Transform
from penult.errors import InputError
from penult.extras import import_extra, import_torchvision
from penult.network.state import Shapes, check_fit
from penult.network.text_inputs import token_transform
from penult.network.weight_sets import find_state
from penult.text import described as one_line
from penult.text import nearest, some

# What people call the weights that a library gives without being asked.
_DEFAULTS = frozenset({"DEFAULT", "PRETRAINED", "TRUE"})


@dataclass
class Built:
    """What a library or a factory made of a name."""

    model: nn.Module
    class_option: str | None
    loaded: bool = False
    prescribed: Callable[[], Preparation] | None = None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Request:
    """What the user asked for: pretrained weights, those in `content` of `file`, or random ones.

    `named` are pretrained weights by the name that the library gives them, `key` is the set of
    weights in the file.
    """

    spec: str
    name: str
    options: Mapping[str, object]
    pretrained: bool
    named: str | None
    file: Path | None
    content: Any
    key: str | None


def _build_from_torchvision(request: Request) -> Built:
    models = import_torchvision().models
    known = models.list_models(module=models)
    if request.name not in known:
        raise _unknown(request, known)
    described = _torchvision_weights(request, models.get_model_weights(request.name))
    wanted = described if request.pretrained else None
    with _library_errors(request):
        model = models.get_model(request.name, weights=wanted, **request.options)
    return Built(
        model=model,
        class_option="num_classes",
        prescribed=lambda: from_torchvision(described),
        class_names=tuple(described.meta["categories"]) if request.pretrained else None,
    )


def _torchvision_weights(request: Request, weights: Any) -> Any:
    """The member of torchvision's weights enum that the user names, the default one without."""
    name = (request.named or "DEFAULT").rpartition(".")[2].upper()
    if name in _DEFAULTS:
        return weights.DEFAULT
    if name not in weights.__members__:
        known = [member.name for member in weights]
        raise _no_such_weights(request, known)
    return weights[name]


def _build_from_timm(request: Request) -> Built:
    timm = import_extra("timm", "vision")
    # A name with a colon (hf-hub:, local-dir:) is not of timm's own list.
    if ":" not in request.name and not timm.is_model(request.name):
        raise _unknown(request, timm.list_models())
    name = request.name
    if request.named is not None and request.named.upper() not in _DEFAULTS:
        base = name.partition(".")[0]
        name = f"{base}.{request.named.removeprefix(f'{base}.')}"
        known = timm.list_pretrained(f"{base}.*")
        if name not in known:
            raise _no_such_weights(request, [one.partition(".")[2] for one in known])
    with _library_errors(request):
        model = timm.create_model(name, pretrained=request.pretrained, **request.options)
    trained = model.pretrained_cfg.get("num_classes")
    wanted = request.options.get("num_classes", trained)
    if request.pretrained and wanted != trained:
        raise InputError(
            f"{request.spec} was trained on {trained} classes, with num_classes={wanted} its last "
            "layer is random: give --weights FILE"
        )
    return Built(model=model, class_option="num_classes", prescribed=lambda: from_timm(model))


def _build_from_hf(request: Request) -> Built:
    transformers = import_extra("transformers", "hf")
    if request.named is not None and request.named.upper() not in _DEFAULTS:
        raise _no_such_weights(request, [])
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
    texts = _reads_texts(transformers, config)
    auto = transformers.AutoModelForImageClassification
    if texts:
        auto = transformers.AutoModelForSequenceClassification
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
                state = find_state(
                    request.content, model.state_dict(), request.file, key=request.key
                )
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
    # Half precision is how weights are stored, not how the network is meant to be run.
    model = model.float()
    if texts:
        prepare = _tokens_of(transformers, request, model)
    else:
        processors = transformers.AutoImageProcessor
        prepare = lambda: from_hf(processors.from_pretrained(request.name, **local))  # noqa: E731
    return Built(
        model=model,
        class_option="num_labels",
        loaded=True,
        prescribed=prepare,
        class_names=tuple(labels) if named else None,
    )


def _reads_texts(transformers: Any, config: Any) -> bool:
    """Whether a network of `transformers` classifies texts, not images, as its settings say."""
    named = [str(name) for name in config.architectures or ()]
    if any("ImageClassification" in name for name in named):
        return False
    if any("SequenceClassification" in name for name in named):
        return True
    images = transformers.AutoModelForImageClassification._model_mapping
    texts = transformers.AutoModelForSequenceClassification._model_mapping
    return type(config) in texts and type(config) not in images


def _tokens_of(transformers: Any, request: Request, model: nn.Module) -> Callable[[], Preparation]:
    """The tokenizer that lies with a network; asked for at once, as nothing can stand in for it."""
    with _quiet(transformers):
        try:
            found = transformers.AutoTokenizer.from_pretrained(
                request.name, trust_remote_code=False
            )
        except Exception as error:  # the library raises whatever a missing file leads it to
            raise InputError(
                f"{request.spec} has no tokenizer that can be read ({one_line(error)}): save the "
                "network's own beside its weights, by tokenizer.save_pretrained(FOLDER)"
            ) from error
    transform = token_transform(model, found, request.spec)
    return lambda: transform


@contextmanager
def _library_errors(
    request: Request,
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
    """Keep transformers from printing bars, and a table of what does not fit; the error says it."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def weights_in_options(
    spec: str, weights: str | Path | None, options: dict[str, object]
) -> tuple[str | Path | None, dict[str, object]]:
    """Weights that the user names by `--set weights=` or `--set pretrained=`, as `--weights`.

    Raises:
        InputError: they say something else than `--weights`.
    """
    left = dict(options)
    for name in ("weights", "pretrained"):
        if name not in left or (name == "weights" and spec.startswith("hf:")):
            continue
        value = left.pop(name)
        none = value in (None, False) or str(value).lower() in ("none", "random")
        # Weights of one's own are loaded into a network that is built without any.
        if none and weights is not None:
            continue
        said = "random" if none else "DEFAULT" if value is True else str(value)
        if weights not in (None, said):
            raise InputError(
                f"--set {name}={value} and --weights {weights} exclude each other: leave one out"
            )
        weights = said
    return weights, left


def adapted(transform: Transform, model: nn.Module, options: Mapping[str, object]) -> Transform:
    """A library's preprocessing for a network built with another input size or for grey images."""
    for name in ("img_size", "image_size", "input_size"):
        if (size := _side_of(options.get(name))) is None or transform.crop is None:
            continue
        old = transform.crop if isinstance(transform.crop, int) else transform.crop[0]
        new = size if isinstance(size, int) else size[0]
        shorter = transform.resize
        if isinstance(shorter, int):
            shorter = max(new, round(shorter * new / old))
        elif shorter is not None:
            shorter = size if isinstance(size, tuple) else (size, size)
        transform = replace(transform, crop=size, resize=shorter)
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels == 1 and transform.channels == 3:
        transform = grey(transform)
    return transform


def grey(transform: Transform) -> Transform:
    """The same preprocessing of grey images: with the mean of the channels' values."""
    if transform.source == "assumed":
        return replace(transform, mean=(0.0,), std=(1.0,), bgr=False)
    mean, std = sum(transform.mean) / 3, sum(transform.std) / 3
    return replace(transform, mean=(mean,), std=(std,), bgr=False)


def _side_of(value: object) -> Size | None:
    """An input size among a library's options: a side, (height, width), or those with channels."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, list | tuple) and len(value) in (2, 3):
        height, width = value[-2:]
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return None


def _no_such_weights(request: Request, known: list[str]) -> InputError:
    names = some([*known, "DEFAULT"], 8)
    return InputError(
        f"{request.named} not found; expected a checkpoint file, or weights that {request.spec} "
        f"has: {names}"
    )


def _unknown(request: Request, known: list[str]) -> InputError:
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


LIBRARIES: Mapping[str, Callable[[Request], Built]] = MappingProxyType(
    {"torchvision": _build_from_torchvision, "timm": _build_from_timm, "hf": _build_from_hf}
)
