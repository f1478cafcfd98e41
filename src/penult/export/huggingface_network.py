"""The network that the format `hf` writes: one of transformers, or in its wrapper for timm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penult.data.tokens import TokenTransform
from penult.errors import InputError
from penult.export.shipment import Shipment
from penult.export.traced import quiet
from penult.extras import import_extra, with_torchvision
from penult.network.head import Head
from penult.network.link import SIGMOID
from penult.network.load import literal
from penult.runs.trust import options_of

IMAGES, TEXTS = "AutoModelForImageClassification", "AutoModelForSequenceClassification"
OTHERS = "export with --format onnx, torch or safetensors"
EARLIEST_WRAPPER = "4.49"  # of transformers, with a wrapper for timm
# What timm's configuration says of a network, besides its first weights.
STRUCTURE = (
    "architecture",
    "classifier",
    "first_conv",
    "input_size",
    "fixed_input_size",
    "pool_size",
    "interpolation",
    "crop_pct",
    "crop_mode",
    "mean",
    "std",
)


def loader_of(shipment: Shipment) -> str:
    """The class of transformers that loads the network again."""
    return TEXTS if isinstance(shipment.samples.transform, TokenTransform) else IMAGES


def require_architecture(shipment: Shipment) -> None:
    """Refuse a network that transformers has no architecture for, before any work.

    Raises:
        InputError: says why, and which formats can hold it.
    """
    with torch.device("meta"):
        _settings_of(shipment)


def pretrained(shipment: Shipment) -> Any:
    """The shipment's network as transformers saves and loads it, with the run's classes.

    Raises:
        InputError: transformers has no architecture for it.
    """
    network, names = shipment.network, shipment.class_names
    assert network is not None
    transformers = import_extra("transformers", "hf")
    head = shipment.shipped.head
    if isinstance(network, transformers.PreTrainedModel):
        made: Any = network
        if head.kept is not None:
            made = _with_fewer_classes(network, head)
    else:
        made = _wrapped(shipment)
    # Set one by one: the number of labels follows from them.
    made.config.id2label = dict(enumerate(names))
    made.config.label2id = {name: number for number, name in enumerate(names)}
    sigmoid = head.link == SIGMOID
    made.config.problem_type = (
        "multi_label_classification" if sigmoid else "single_label_classification"
    )
    return made.eval()


def _settings_of(shipment: Shipment) -> Any:
    """Settings of the architecture in transformers; of timm's wrapper where the network is timm's.

    Raises:
        InputError: there is none.
    """
    transformers = import_extra("transformers", "hf")
    network = shipment.network
    assert network is not None
    if isinstance(network, transformers.PreTrainedModel):
        _require_loader(transformers, network, loader_of(shipment))
        return network.config
    name, options = _timm_name(shipment, network)
    if not hasattr(transformers, "TimmWrapperForImageClassification"):
        raise InputError(
            f"--format hf writes networks of timm for transformers {EARLIEST_WRAPPER} and later, "
            f"found {transformers.__version__}: install a later one, or {OTHERS}"
        )
    config = transformers.TimmWrapperConfig(
        architecture=name, num_labels=len(shipment.class_names), model_args=options or None
    )
    _require_same_weights(shipment, config, network)
    return config


def _require_loader(transformers: Any, network: Any, loader: str) -> None:
    """Refuse a class that transformers' loader does not make of the network's settings."""
    known = getattr(transformers, loader)._model_mapping
    config = type(network.config)
    made = known[config] if config in known else ()  # noqa: SIM401 - it makes what it gives
    if type(network) not in (made if isinstance(made, tuple) else (made,)):
        raise InputError(
            f"--format hf: {loader} of transformers does not load networks of the class "
            f"{type(network).__name__}: {OTHERS}"
        )


def _timm_name(shipment: Shipment, network: nn.Module) -> tuple[str, dict[str, Any]]:
    """The name by which timm builds a network like this one, and options besides its classes."""
    about = shipment.run.about["network"]
    spec = str(about["spec"])
    library, _, name = spec.partition(":")
    options = {key: literal(text) for key, text in options_of(about).items()}
    config = getattr(network, "pretrained_cfg", None)
    if isinstance(config, Mapping) and config.get("architecture"):
        # A factory's arguments are its own; those of timm's are not known then.
        kept = options if library == "timm" else {}
        return str(config["architecture"]), _besides_classes(kept)
    timm = with_torchvision(lambda: import_extra("timm", "vision"))
    if library == "torchvision" and timm.is_model(name) and not _besides_classes(options):
        return name, {}
    what = f"{spec} ({type(network).__name__})" if library.endswith(".py") else spec
    raise InputError(
        f"--format hf is for networks of transformers and timm, and neither has an architecture "
        f"with the weights of {what}: {OTHERS}"
    )


def _besides_classes(options: Mapping[str, Any]) -> dict[str, Any]:
    ours = ("num_classes", "pretrained", "weights", "progress")
    return {key: value for key, value in options.items() if key not in ours}


def _require_same_weights(shipment: Shipment, config: Any, network: nn.Module) -> None:
    """Refuse a network whose weights have other names or sizes than in timm's architecture."""
    transformers = import_extra("transformers", "hf")
    spec = shipment.run.about["network"]["spec"]
    try:
        with quiet(), torch.device("meta"):
            made = with_torchvision(lambda: transformers.TimmWrapperForImageClassification(config))
    except Exception as error:  # whatever timm makes of the name and the options
        raise InputError(
            f"--format hf: timm does not build {config.architecture} again: {OTHERS}"
        ) from error
    expected = {key: value.shape for key, value in made.timm_model.state_dict().items()}
    found = _kept_rows(network, shipment.shipped.head)
    different = next(
        (name for name in [*found, *expected] if _shape(found, name) != expected.get(name)), None
    )
    if different is not None:
        raise InputError(
            f"--format hf is for networks of transformers and timm, and the weights of {spec} are "
            f"not those of timm's {config.architecture} (the first that differs is {different}): "
            f"{OTHERS}"
        )


def _shape(state: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None


def _wrapped(shipment: Shipment) -> Any:
    """A network of timm in transformers' wrapper."""
    transformers = import_extra("transformers", "hf")
    network = shipment.network
    assert network is not None
    config = _settings_of(shipment)
    known = getattr(network, "pretrained_cfg", None) or {}
    # Neither where its first weights came from, which these are not, nor places on this computer.
    config.pretrained_cfg = {key: known[key] for key in STRUCTURE if key in known}
    made = transformers.TimmWrapperForImageClassification(config)
    made.timm_model.load_state_dict(_kept_rows(network, shipment.shipped.head))
    return made


def _with_fewer_classes(network: Any, head: Head) -> Any:
    """A network of transformers with those outputs alone that the run keeps."""
    config = type(network.config).from_dict(network.config.to_dict())
    config.num_labels = head.n_classes
    made = type(network)(config)
    made.load_state_dict(_kept_rows(network, head))
    return made


def _kept_rows(network: nn.Module, head: Head) -> dict[str, Tensor]:
    """The weights of a network, of its last layer only the rows of classes that the run keeps."""
    state: dict[str, Tensor] = dict(network.state_dict())
    if head.kept is None:
        return state
    rows = list(head.kept)
    layer = dict(network.named_modules())[head.name]
    for name, values in layer.named_parameters(recurse=False):
        if values.shape[:1] == (head.layer_classes,):
            state[f"{head.name}.{name}"] = values.detach()[rows]
    return state
