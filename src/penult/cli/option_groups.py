"""Groups of options that several commands share: where each is declared, and what it means.

A group is a dataclass; a command that has a parameter of its type gets all of its options
(`penult.cli.spread`). What only one or two commands take stands in `penult.cli.options`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch

from penult.cli.options import Device, EvalSpec, TrustCheckpoint
from penult.cli.spread import OptionGroup, option
from penult.cli.values import (
    DTYPES,
    columns_of,
    device_of,
    layers_of,
    numbers_of,
    pairs_of,
    workers_of,
)
from penult.data.class_list import ClassList, class_list
from penult.data.forms import DataOptions
from penult.data.library_transforms import assumed_for
from penult.data.source import Pass
from penult.data.tables import is_table
from penult.data.tar_images import is_pattern
from penult.data.tokens import Preparation, TokenTransform
from penult.data.transform import INTERPOLATIONS
from penult.errors import InputError
from penult.features.layers import Names
from penult.network.load import LoadedModel, load_model
from penult.runs.reopen import Places


@dataclass(frozen=True)
class NetworkOptions(OptionGroup):
    """The network: its weights, its arguments, its final layer."""

    title: ClassVar[str] = "The network"

    weights: Annotated[
        str | None,
        option(
            "Checkpoint file; the name of a library's weights, such as IMAGENET1K_V1 or DEFAULT; "
            "or `random` for random weights."
        ),
    ] = None
    weights_key: Annotated[
        str | None,
        option("Which set of weights to take if the file holds several, such as state_dict_ema."),
    ] = None
    set_: Annotated[
        list[str] | None,
        option("key=value: an argument of the factory; may be given several times.", "--set"),
    ] = None
    trust_checkpoint: TrustCheckpoint = False
    head: Annotated[
        str | None, option("Name of the final linear layer, if it is not found by itself.")
    ] = None

    def load(self, model: str) -> LoadedModel:
        """The network that MODEL names."""
        return load_model(
            model,
            weights=self.weights,
            options=pairs_of(list(self.set_ or [])),
            trust_checkpoint=self.trust_checkpoint,
            weights_key=self.weights_key,
        )

    def about(self, model: str) -> dict[str, Any]:
        """What a run keeps of how the network was named."""
        key = {} if self.weights_key is None else {"weights_key": self.weights_key}
        return {"spec": model, "weights": self.weights, "set": list(self.set_ or []), **key}


FOR_TEXTS = ("labels", "label_column", "text_column", "limit", "class_names", "classes", "strict")


@dataclass(frozen=True)
class ImageOptions(OptionGroup):
    """The images or texts: their labels, and how they are prepared for the network."""

    title: ClassVar[str] = "The images or texts"

    labels: Annotated[
        Literal["given", "predicted"],
        option("`given`: the data's own labels; `predicted`: the classes that the network says."),
    ] = "given"
    image_column: Annotated[
        str | None,
        option("Column of a table that holds the images, if it is not found by itself."),
    ] = None
    label_column: Annotated[
        str | None,
        option("Column of a table that holds the labels, if it is not found by itself."),
    ] = None
    text_column: Annotated[
        str | None,
        option("Column of a table that holds the texts, if it is not found by itself."),
    ] = None
    label_columns: Annotated[
        str | None,
        option(
            "Columns of a table that hold 0 or 1, one for each class and called like it: a,b,c."
        ),
    ] = None
    multi_label: Annotated[
        bool | None,
        option(
            "Whether a sample may have several labels and each class is decided by itself, by a "
            "sigmoid; by default told by the labels.",
            "--multi-label/--single-label",
        ),
    ] = None
    limit: Annotated[
        int | None,
        option("Take so many samples at most: spread evenly, or the first of a stream."),
    ] = None
    class_names: Annotated[
        str | None,
        option(
            "File with the class names in the order of the logits (text or JSON), or with what "
            "the class folders are to be called; or `natural` for folders in the order 1, 2, 10."
        ),
    ] = None
    classes: Annotated[
        str | None,
        option(
            "Only these of the network's classes: `present` for those that have images, names "
            "between commas, or a file of names."
        ),
    ] = None
    size: Annotated[
        int | None,
        option("Side of the network's input in pixels: resize, then crop the centre."),
    ] = None
    resize: Annotated[
        int | None, option("Shorter side before the crop to --size; by default the same as --size.")
    ] = None
    interpolation: Annotated[
        str | None, option("How images are resized.", choices=INTERPOLATIONS)
    ] = None
    mean: Annotated[str | None, option("Mean of each channel in [0, 1]: R,G,B or one number.")] = (
        None
    )
    std: Annotated[
        str | None, option("Standard deviation of each channel: R,G,B or one number.")
    ] = None
    upright: Annotated[
        bool, option("Turn photographs as their EXIF orientation says.", "--upright")
    ] = False
    strict: Annotated[bool, option("Stop at the first image that cannot be used.", "--strict")] = (
        False
    )

    def reading(self, data: str, texts: bool = False) -> DataOptions:
        """How DATA are read, images or texts; the columns are for tables."""
        if is_table(Path(data)) or is_pattern(data):
            return DataOptions(
                self.image_column,
                self.label_column,
                self.text_column,
                self.limit,
                texts,
                columns_of(self.label_columns),
                self.multi_label,
            )
        return DataOptions(limit=self.limit, texts=texts, multi_label=self.multi_label)

    def names(self) -> ClassList | None:
        """What `--class-names` says."""
        return None if self.class_names is None else class_list(self.class_names)

    def transform(self, loaded: LoadedModel) -> Preparation:
        """What the network's library says, changed by the options; else ImageNet's values."""
        transform = loaded.transform
        if isinstance(transform, TokenTransform):
            self.refuse(f"is for images, and {loaded.spec} takes texts", but=FOR_TEXTS)
            return transform
        if transform is None:
            transform = assumed_for(loaded.model)
            if self.mean is None:
                warnings.warn(
                    f"{loaded.transform_problem}: taking mean {transform.mean} and std "
                    f"{transform.std} (--mean, --std)",
                    stacklevel=2,
                )
        changes: dict[str, Any] = {"upright": True} if self.upright else {}
        if self.resize is not None and self.size is None:
            raise InputError("--resize needs --size, the side of the crop after it")
        if self.size is not None:
            changes |= {"crop": self.size, "resize": self.resize or self.size}
        if self.interpolation is not None:
            if self.size is None and transform.resize is None:
                raise InputError("--interpolation needs --size: images keep their size")
            changes["interpolation"] = self.interpolation
        if (self.mean is None) != (self.std is None):
            raise InputError("--mean and --std go together")
        if self.mean is not None and self.std is not None:
            changes["mean"] = numbers_of("--mean", self.mean)
            changes["std"] = numbers_of("--std", self.std)
        return replace(transform, **changes)


@dataclass(frozen=True)
class PassOptions(OptionGroup):
    """The pass over the images: how the network is run."""

    title: ClassVar[str] = "The pass over the images"

    batch_size: Annotated[int, option("Images in one forward pass.")] = 256
    workers: Annotated[
        int | None,
        option("Processes that decode images; by default none on the CPU, else up to 8."),
    ] = None
    device: Device = "auto"
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], option("Precision in which the network runs.")
    ] = "float32"
    store: Annotated[
        Literal["float32", "float16"], option("Precision in which features are stored.")
    ] = "float32"

    def how(self, where: torch.device, images: ImageOptions) -> Pass:
        """What the library calls it."""
        return Pass(
            self.batch_size,
            workers_of(self.workers, where),
            DTYPES[self.dtype],
            DTYPES[self.store],
            images.labels,
            images.strict,
        )


@dataclass(frozen=True)
class ReopenedOptions(OptionGroup):
    """Where the network of a run is now, and what code may be run for it."""

    title: ClassVar[str] = "Opening the run's network again"

    weights: Annotated[str | None, option("The run's checkpoint, if it has moved.")] = None
    network: Annotated[
        str | None,
        option(
            "The run's network, named as for `analyze`; needed if it is code that is not run only "
            "because the run names it."
        ),
    ] = None
    set_: Annotated[
        list[str] | None,
        option("key=value: an argument of --network; may be given several times.", "--set"),
    ] = None
    trust_checkpoint: TrustCheckpoint = False
    trust_run: Annotated[
        bool,
        option(
            "Run whatever code the run names for its network and data. Give it only for runs "
            "whose makers you trust.",
            "--trust-run",
        ),
    ] = False

    def sources(self) -> Places:
        """What the library calls it."""
        if self.set_ and self.network is None:
            raise InputError("--set gives --network its arguments, and there is no --network")
        return Places(
            weights=self.weights,
            trust_checkpoint=self.trust_checkpoint,
            network=self.network,
            options=tuple(self.set_ or ()),
            trust_run=self.trust_run,
        )


@dataclass(frozen=True)
class MovedOptions(ReopenedOptions):
    """Where the network and the images of a run are now."""

    title: ClassVar[str] = "Opening the run's network and images again"

    data: Annotated[str | None, option("The run's images, if they have moved.")] = None
    eval_: Annotated[
        str | None, option("The run's evaluation data, if it has moved.", "--eval")
    ] = None
    device: Device = "auto"

    def sources(self) -> Places:
        """What the library calls it."""
        return replace(super().sources(), data=self.data, evaluation=self.eval_)

    def where(self) -> torch.device:
        """The device of `--device`."""
        return device_of(self.device)


@dataclass(frozen=True)
class ExplainedOptions(OptionGroup):
    """Which of a run's heads is explained, and whether with heat maps."""

    title: ClassVar[str] = "The head that is explained"

    k: Annotated[
        int | None,
        option(
            "Features per class of the head; by default the smallest head that loses less than "
            "half a point of accuracy with 95 % confidence.",
            "-k",
        ),
    ] = None
    select: Annotated[
        str | None,
        option("How that head's features were chosen; by default as in the fitted path."),
    ] = None
    dense: Annotated[
        bool,
        option("Explain the network's own (dense) head instead of a sparse one.", "--dense"),
    ] = False
    no_maps: Annotated[
        bool, option("Leave out the heat maps, for which the network has to run.", "--no-maps")
    ] = False


@dataclass(frozen=True)
class LayerOptions(OptionGroup):
    """Which layers of a network are measured."""

    title: ClassVar[str] = "Layers of a network"

    layer: Annotated[
        list[str] | None, option("Name of a layer; may be given several times.", "--layer")
    ] = None
    layers: Annotated[str | None, option("`all`: the output of every block.", "--layers")] = None
    eval_: EvalSpec = None
    out: Annotated[
        Path | None,
        option("Folder for the layers' features; an interrupted pass is resumed there."),
    ] = None

    @property
    def asked(self) -> bool:
        """Whether layers are measured, not a run."""
        return self.layer is not None or self.layers is not None

    def names(self) -> Names:
        """The layers that are named."""
        return layers_of(self.layer, self.layers)
