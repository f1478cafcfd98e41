"""Arguments of the command line: what they are called, what they say, what their text means."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from penult.data.transform import Transform, assumed_for
from penult.errors import InputError
from penult.features.influence import Top
from penult.features.layers import Names
from penult.network.load import LoadedModel


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help)


ModelSpec = Annotated[
    str,
    typer.Argument(
        help="file.py:factory, package.module:factory, torchvision:NAME, timm:NAME or hf:NAME; "
        "or a features file or folder, then without DATA."
    ),
]
DataSpec = Annotated[
    str | None,
    typer.Argument(
        help="Folder or zip of class folders, `digits`, or file.py:function that returns a "
        "map-style data set of (image, label)."
    ),
]
Out = Annotated[Path, _option("The run folder; an interrupted run goes on there.")]
EvalSpec = Annotated[str | None, _option("Data on which accuracies are measured.", "--eval")]
Weights = Annotated[str | None, _option("Checkpoint file, or `random` for random weights.")]
Settings = Annotated[
    list[str] | None, _option("key=value for the factory; may be given again.", "--set")
]
TrustCheckpoint = Annotated[
    bool,
    _option("Unpickle a checkpoint that is not only tensors: runs its code.", "--trust-checkpoint"),
]
HeadName = Annotated[str | None, _option("Name of the final linear layer, where it is not found.")]
Labels = Annotated[str, _option("`given`, or `predicted`: the network's own classes as labels.")]
ClassNames = Annotated[
    Path | None, _option("Class names in the order of the logits: a JSON list or one per line.")
]
Size = Annotated[int | None, _option("Side of the network's input: resize, then centre crop.")]
Resize = Annotated[
    int | None, _option("Shorter side before the crop to --size; as --size where not given.")
]
Interpolation = Annotated[str | None, _option("nearest, bilinear, bicubic, lanczos and so on.")]
Mean = Annotated[str | None, _option("Mean per channel in [0, 1]: R,G,B or one number.")]
Std = Annotated[str | None, _option("Standard deviation per channel: R,G,B or one number.")]
BatchSize = Annotated[int, _option("Images in one forward pass.")]
Workers = Annotated[
    int | None, _option("Processes that decode images; by default none on the CPU, up to 8 else.")
]
Device = Annotated[
    str, _option("auto, cpu, cuda, cuda:1 and so on; auto takes CUDA where there is one.")
]
Dtype = Annotated[str, _option("float32, bfloat16 or float16, for the network.")]
Store = Annotated[str, _option("float32 or float16, for the features on the disk.")]
FrequencyTop = Annotated[
    str | None,
    _option(
        "What a sample takes in the `frequency` score: a number of features, or a fraction of its "
        "activation; as many as the subspace keeps where not given."
    ),
]
Strict = Annotated[bool, _option("Stop at the first image that cannot be used.", "--strict")]
LayerNames = Annotated[list[str] | None, _option("Name of a layer; may be given again.", "--layer")]
AllLayers = Annotated[str | None, _option("`all`: the output of every block.", "--layers")]
LayersOut = Annotated[
    Path | None, _option("Folder for the layers' features; an interrupted pass goes on there.")
]
Seed = Annotated[int, _option("Seed of the random control.")]
Overwrite = Annotated[bool, _option("Replace a run of something else in --out.", "--overwrite")]
NoFit = Annotated[bool, _option("Leave out the path of refitted sparse heads.", "--no-fit")]
AsJson = Annotated[
    bool, _option("Print one JSON document to standard output, nothing else.", "--json")
]
FeaturesPath = Annotated[
    Path, typer.Argument(help="A features file, a folder of shards, or a run's features/train.")
]
Folder = Annotated[Path, _option("Folder for the heads.")]
EvalFeatures = Annotated[
    Path | None, _option("Features on which accuracies are measured.", "--eval")
]
Sizes = Annotated[str, _option("Features per class: numbers, or ranges like 1-20.", "-k")]
Selection = Annotated[
    str,
    _option("How features are chosen: curvature, moments, or a score.", "--select"),
]
Budget = Annotated[str, _option("What k is: what each class gets, or the mean over the classes.")]
Refit = Annotated[str, _option("How weights are fitted: softmax, least-squares or none.")]
FitLabels = Annotated[
    bool, _option("Refit to the labels, not to the dense head's probabilities.", "--labels")
]
MaxFeatures = Annotated[int | None, _option("Different features for all classes together.")]
Tolerance = Annotated[
    float | None,
    _option("Pick the smallest head that surely loses at most this fraction of accuracy."),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.")]
Measured = Annotated[
    list[str],
    typer.Argument(
        help="A run folder; with --compare two or more; with --layer or --layers MODEL and DATA.",
        metavar="RUN... | MODEL DATA",
    ),
]
Compare = Annotated[bool, _option("Line up several runs.", "--compare")]
Plots = Annotated[Path | None, _option("Write the plots there.", "--plots")]
Fractions = Annotated[
    list[float] | None,
    _option("Fraction of the activation, for Ψ; may be given again.", "--fraction"),
]
SetSize = Annotated[int, _option("Features per class of the sets that are compared.", "-k")]
Lost = Annotated[float, _option("Accuracy that the smallest decision may lose.", "--tolerance")]
MeasureSeed = Annotated[int, _option("Seed of all that is drawn.", "--seed")]
Score = Annotated[
    str,
    _option("Whose features are listed: an influence score, or curvature for the fitted heads."),
]
K = Annotated[int | None, _option("Features per class that are listed.", "-k")]
Classes = Annotated[list[str] | None, _option("List this class; may be given again.", "--class")]
HeadSize = Annotated[int, _option("Features per class of the head.", "-k")]
Select = Annotated[
    str | None, _option("Which of the run's heads; the best on the analysed data where not given.")
]
HeadOnly = Annotated[
    bool, _option("Tune the head on the run's features and leave the network.", "--head-only")
]
Epochs = Annotated[int | None, _option("Passes over the images: 3, or more where they are few.")]
StepSize = Annotated[int, _option("Images in one step.", "--batch-size")]
Rate = Annotated[
    float | None,
    _option(
        "How far a parameter moves in a step at most, as a fraction of its tensor's size; by the "
        "number of steps where not given."
    ),
]
Loss = Annotated[
    str, _option("`distill`: the dense network's probabilities; `labels`: the labels.")
]
Augment = Annotated[
    str, _option("auto, none or some of flip,crop; auto: what the network's accuracy survives.")
]
TrainDtype = Annotated[str, _option("float32 or bfloat16, for the network.", "--dtype")]
MovedData = Annotated[str | None, _option("The run's DATA, where it is elsewhere now.", "--data")]
MovedEval = Annotated[str | None, _option("Likewise its --eval.", "--eval")]
MovedWeights = Annotated[str | None, _option("Likewise its --weights.", "--weights")]
TuneSeed = Annotated[int, _option("Seed of the split, the order and the augmentation.", "--seed")]
ReplaceTuned = Annotated[bool, _option("Replace what was tuned with other options.", "--overwrite")]
ReportK = Annotated[
    int | None,
    _option(
        "Features per class of the head; the smallest that surely loses less than half a point "
        "where not given.",
        "-k",
    ),
]
ReportSelect = Annotated[
    str | None, _option("Which of the run's heads; the fitted path where not given.", "--select")
]
Images = Annotated[
    int | None, _option("Images in each list; 8, or fewer where there are very many lists.")
]
NoMaps = Annotated[
    bool, _option("Leave out the heat maps, for which the network runs.", "--no-maps")
]
Page = Annotated[Path | None, _option("The page; RUN/report.html where not given.")]
RetakePictures = Annotated[
    bool, _option("Take the pictures again although the run has them.", "--overwrite")
]
ImageName = Annotated[
    str,
    typer.Argument(
        help="An image file, the name of an image in the run's data, or eval:NUMBER, train:NUMBER.",
        metavar="IMAGE",
    ),
]
ExplainedClass = Annotated[
    str | None,
    _option("Explain this class's logit; the predicted class's where not given.", "--class"),
]
Against = Annotated[
    str | None, _option("Explain what separates the class from this one, by name or number.")
]
DenseHead = Annotated[bool, _option("Explain the dense head, not a sparse one.", "--dense")]
Fast = Annotated[bool, _option("A small sufficient reason, quickly, not the smallest.", "--fast")]
PictureFile = Annotated[
    Path | None,
    _option("The picture, FILE.png or FILE.svg; a PNG in RUN/explained where not given."),
]


def device_of(name: str) -> torch.device:
    """The device of `--device`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used: {reason}") from error
    return device


def workers_of(asked: int | None, device: torch.device) -> int:
    """How many processes decode images."""
    if asked is not None:
        return asked
    # On the CPU the network itself keeps all cores busy.
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)


MOST_SIZES = 10_000


def sizes_of(text: str) -> tuple[int, ...]:
    """The sizes of `-k 1,2,5-8`."""
    sizes: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InputError(f"-k: expected numbers or ranges like 1,2,5-8, found {text!r}")
        start, stop = int(first), int(last or first)
        if stop < start or stop - start > MOST_SIZES:
            raise InputError(
                f"-k: expected rising ranges of up to {MOST_SIZES} numbers, found {part.strip()}"
            )
        sizes += range(start, stop + 1)
    return tuple(sizes)


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype of a name."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise InputError(f"expected one of {', '.join(known)}, found {name!r}")
    return known[name]


def top_of(text: str | None) -> Top | None:
    """What a sample takes in the `frequency` score."""
    if text is None:
        return None
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise InputError(
            f"--frequency-top: expected a number of features or a fraction, found {text!r}"
        ) from None


def pairs_of(texts: list[str]) -> dict[str, str]:
    """The arguments of `--set`."""
    for text in texts:
        if "=" not in text:
            raise InputError(f"--set: expected key=value, found {text!r}")
    return dict(text.split("=", 1) for text in texts)


def layers_of(names: list[str] | None, every: str | None) -> Names:
    """The layers of `--layer` or `--layers`."""
    if every is None:
        if not names:
            raise InputError("give --layer NAME, once or more, or --layers all for every block")
        return names
    if every != "all":
        raise InputError(f"--layers: expected all, found {every!r}; one layer is --layer {every}")
    if names:
        raise InputError("--layer and --layers all exclude each other")
    return "all"


def names_of(path: Path | None) -> list[str] | None:
    """The class names in a file."""
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--class-names {path} cannot be read: {error}") from error
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise InputError(f"--class-names {path} is no JSON list: {error}") from error
        if not all(isinstance(name, str) for name in found):
            raise InputError(f"--class-names {path}: expected a JSON list of strings")
        return list(found)
    return [line.strip() for line in text.splitlines() if line.strip()]


def transform_of(
    loaded: LoadedModel,
    size: int | None,
    resize: int | None,
    mean: str | None,
    std: str | None,
    interpolation: str | None,
) -> Transform:
    """What the network's library says, changed by the options; ImageNet's values without either."""
    transform = loaded.transform
    if transform is None:
        transform = assumed_for(loaded.model)
        if mean is None:
            warnings.warn(
                f"{loaded.transform_problem}: taking mean {transform.mean} and std "
                f"{transform.std} (--mean, --std)",
                stacklevel=2,
            )
    changes: dict[str, Any] = {}
    if resize is not None and size is None:
        raise InputError("--resize needs --size, the side of the crop after it")
    if size is not None:
        changes |= {"crop": size, "resize": resize or size}
    if interpolation is not None:
        if size is None and transform.resize is None:
            raise InputError("--interpolation needs --size: images keep their size")
        changes["interpolation"] = interpolation
    if (mean is None) != (std is None):
        raise InputError("--mean and --std go together")
    if mean is not None and std is not None:
        changes |= {"mean": _numbers("--mean", mean), "std": _numbers("--std", std)}
    return replace(transform, **changes)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option}: expected numbers like 0.5,0.5,0.5, found {text!r}") from None


def require_defaults(context: typer.Context, features: str, allowed: Collection[str]) -> None:
    """Refuse options that say how images are read: features are there already."""
    for name in context.params:
        source = context.get_parameter_source(name)
        given_one = source is not None and source.name == "COMMANDLINE"
        if given_one and name not in allowed:
            option = name.strip("_").replace("_", "-")
            raise InputError(f"--{option} is for images, and {features} holds features")
