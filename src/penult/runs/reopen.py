"""Reopen: the network and the images that a run was made from, and proof that they are the same."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penult.data.forms import DataOptions
from penult.data.image import ImageData, Label, Loaded
from penult.data.open import DIGITS, archive_of, open_data
from penult.data.some_images import SomeImages
from penult.data.tar_images import shard_paths
from penult.data.tokens import KIND, TokenTransform
from penult.errors import InputError
from penult.features.features import Features
from penult.network.explicit import ExplicitHead, Reading
from penult.network.load import RANDOM, LoadedModel, load_model
from penult.runs.run import Run
from penult.runs.trust import UntrustedError, options_of, require_trusted

OPTIONS = {"data": "--data", "evaluation": "--eval"}
NAMES = {"data": "data", "evaluation": "evaluation data"}


@dataclass(frozen=True)
class Places:
    """Where a run's network and images are now, as the user says, and what code may be run.

    Attributes:
        data, evaluation: what `open_data` takes; None for what the run names.
        weights: checkpoint of the network.
        trust_checkpoint: let a checkpoint that is not only weights run its code.
        network: what `load_model` takes; None for what the run names.
        options: of that network, `key=value`.
        trust_run: run whatever code the run names, see `penult.runs.trust`.
    """

    data: Any = None
    evaluation: Any = None
    weights: str | Path | None = None
    trust_checkpoint: bool = False
    network: str | None = None
    options: Sequence[str] = ()
    trust_run: bool = False


class Chosen(SomeImages):
    """Some samples of other data, in an order and with labels of their own.

    Args:
        data: the samples.
        positions: (n_samples,) which of them.
        labels: (n_samples,) int64.
    """

    def __init__(self, data: ImageData, positions: Tensor, labels: Tensor) -> None:
        super().__init__(data, positions.numpy())
        self.labelled, self.class_names, self.notes = True, None, ()
        self.named_by_folders = False
        self.labels = labels.numpy()

    def sample(self, index: int) -> tuple[Loaded, Label]:
        """The image of a sample and its label, which is that given here."""
        return ImageData.sample(self, index)

    def describe(self) -> dict[str, Any]:
        """Kind and number of samples."""
        return {"kind": "chosen", "n_samples": len(self)}

    @property
    def positions(self) -> list[int]:
        """Where each sample is in the other data."""
        found: list[int] = self._positions.tolist()
        return found

    def part(self, rows: Tensor) -> Chosen:
        """Some of these samples, (n,) int64, in that order."""
        labels = torch.as_tensor(self.labels)
        return Chosen(self._data, torch.from_numpy(self._positions)[rows], labels[rows])


def reopen_network(run: Run, places: Places | None = None) -> nn.Module:
    """The network of a run, on the CPU and in evaluation mode.

    Args:
        run: made from a network.
        places: where it is now, if not where the run found it (its checkpoint: from the current
            folder, or in the run folder).

    Raises:
        InputError: a run of features; a network that is gone or no longer the same; code that is
            not to be run.
    """
    return reopen_loaded(run, places).model


def reopen_loaded(run: Run, places: Places | None = None) -> LoadedModel:
    """The network of a run with what its library says about it, see `reopen_network`."""
    places = places or Places()
    about = network_of(run)
    found = load_as(
        run,
        places.weights or _weights(run, about["weights"]),
        places,
        weights_key=about.get("weights_key"),
    )
    if found.fingerprint != about["fingerprint"]:
        raise InputError(
            f"{found.spec} is no longer the network of {run.folder}: its weights or its "
            "structure have changed; give the run's own checkpoint with --weights, or analyse anew"
        )
    return found


def holds_texts(run: Run) -> bool:
    """Whether a run was made from texts."""
    return bool(run.about.get("transform", {}).get("kind") == KIND)


def reopen_texts(run: Run, places: Places | None = None) -> tuple[nn.Module, TokenTransform]:
    """The network of a run of texts, and its tokenizer; see `reopen_network`.

    Raises:
        InputError: likewise; a tokenizer that is no longer the same.
    """
    found = reopen_loaded(run, places)
    if not isinstance(found.transform, TokenTransform):
        raise InputError(f"{found.spec} has no tokenizer any more: expected the run's network")
    return found.model, found.transform.as_recorded(run.about["transform"])


def load_as(
    run: Run,
    weights: str | Path | None,
    places: Places | None = None,
    *,
    weights_key: str | None = None,
) -> LoadedModel:
    """The network that a run names, with other weights; with the run's head where it was made."""
    places = places or Places()
    about = network_of(run)
    if places.network is not None:
        spec, options = places.network, options_of({"set": list(places.options)})
    else:
        options = options_of(about)
        spec = require_trusted(
            run.folder,
            "network",
            str(about["spec"]),
            [f"{key}={value}" for key, value in options.items()],
            about.get("code"),
            remedy="--network",
            trust=places.trust_run,
        )
    loaded = load_model(
        spec,
        weights=weights,
        options=options,
        trust_checkpoint=places.trust_checkpoint,
        weights_key=weights_key,
    )
    if "reading" in about:
        head = run.train().require_head()
        reading = Reading.from_json(about["reading"])
        loaded.model = ExplicitHead(loaded.model, reading, head.weight, head.bias)
    return loaded


def dtype_of_run(run: Run) -> torch.dtype:
    """The precision in which the run's network was run."""
    name = run.about["identity"].get("dtype", "float32")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        if str(dtype) == f"torch.{name}":
            return dtype
    raise InputError(f"{run.folder}/run.json is damaged: no precision is called {name!r:.60}")


def network_of(run: Run) -> Mapping[str, Any]:
    """What `run.json` says of the network."""
    if "network" not in run.about:
        raise InputError(f"{run.folder} was made from features: it names no network")
    found: Mapping[str, Any] = run.about["network"]
    return found


def reopen_images(run: Run, part: str, places: Places | None = None) -> Chosen:
    """The images of a run that its features were made from, with the labels of these.

    Args:
        run: made from images.
        part: "data", or "evaluation": the analysed data where the run has no other.
        places: where they are now, if not where the run found them.

    Raises:
        InputError: the images are gone or no longer the same, the run does not say where they
            were, or names code that is not to be run.
    """
    if run.about["evaluation"] is None:
        part = "data"
    about = run.about[part]
    option = OPTIONS[part]
    try:
        where = _place(run, part, places or Places())
        if where is None:
            raise InputError("the run does not say where they are")
        labelled = run.about["identity"]["labels"] == "given"
        data = open_data(where, labelled=labelled, options=_options(about))
    except UntrustedError:
        raise
    except InputError as error:
        raise InputError(
            f"the images of {run.folder} cannot be opened ({error}): give {option}"
        ) from error
    features = run.train() if part == "data" else run.evaluation()
    if data.fingerprint != about["fingerprint"]:
        raise InputError(
            f"{where} no longer holds the images of {run.folder}: {_changed(data, features)}; "
            f"give the run's own with {option}, or analyse anew"
        )
    return matched_images(data, features)


def _changed(data: ImageData, features: Features) -> str:
    """What differs between images and those that features were made from, in words."""
    there, known = {data.id(i) for i in range(len(data))}, features.ids()
    gone = [name for name in known if name not in there]
    if not gone:
        return "files or labels have changed since"
    are = "is" if len(gone) == 1 else "are"
    return f"{len(gone):,} of {len(known):,} {are} gone, the first: {gone[0]}"


def images_of(run: Run, part: str, places: Places | None = None) -> ImageData | None:
    """The images of a run as far as they are still there; whether they are the same is unchecked.

    Args:
        run: made from images.
        part: "data" or "evaluation".
        places: where they are now, if not where the run found them.

    Returns:
        None where nothing can be opened, or the run has no such part. It is said where the run
        names code that is not to be run.

    Raises:
        InputError: what the user names cannot be opened, or is for a part that the run does not
            have.
    """
    places = places or Places()
    given = places.data if part == "data" else places.evaluation
    if run.about[part] is None:
        if given is not None:
            raise InputError(f"{run.folder} has no {part} data that could be elsewhere: {given}")
        return None
    labelled = run.about["identity"]["labels"] == "given"
    if given is not None:
        return open_data(given, labelled=labelled, options=_options(run.about[part]))
    try:
        where = _place(run, part, places)
    except UntrustedError as error:
        warnings.warn(f"no images: {error}", stacklevel=2)
        return None
    except InputError:
        return None
    for with_labels in dict.fromkeys((labelled, False)):
        # Classes that are gone may leave a folder that is no folder of classes any more.
        with suppress(InputError):
            if where is None:
                return None
            return open_data(where, labelled=with_labels, options=_options(run.about[part]))
    return None


def matched_images(data: ImageData, features: Features) -> Chosen:
    """The samples that are in the features: the run may have left out faulty ones."""
    positions: list[int] = []
    labels: list[Tensor] = []
    at = 0
    for block in features.blocks():
        labels.append(block.labels)
        for name in block.ids:
            while at < len(data) and data.id(at) != name:
                at += 1
            if at == len(data):
                raise InputError(f"sample {name} of the features is not among the images")
            positions.append(at)
            at += 1
    return Chosen(data, torch.tensor(positions), torch.cat(labels))


def _place(run: Run, part: str, places: Places) -> Any:
    """What opens the images: as the user says, else as the run does; None where it does not.

    Raises:
        InputError: the run names code that is not to be run.
    """
    given = places.data if part == "data" else places.evaluation
    if given is not None:
        return given
    about = run.about[part]
    if "path" in about:
        path = Path(str(about["path"]))
        # Only as a file or folder: what is neither could be taken for the name of a function.
        if not path.exists() and archive_of(path) is None:
            raise InputError(f"{path} is not there")
        return path
    if "shards" in about:
        shards = str(about["shards"])
        shard_paths(shards)  # as files only
        return shards
    if str(about["kind"]) in DIGITS:
        return str(about["kind"])
    source = about.get("source")
    if not isinstance(source, str) or ":" not in source:
        return None
    return require_trusted(
        run.folder,
        NAMES[part],
        source,
        (),
        about.get("code"),
        remedy=OPTIONS[part],
        trust=places.trust_run,
    )


def _options(about: Mapping[str, Any]) -> DataOptions:
    """How a run read its data."""
    found = about.get("options")
    return DataOptions.from_json(found if isinstance(found, Mapping) else {})


def _weights(run: Run, weights: str | None) -> str | Path | None:
    """A run's checkpoint: as named from the current folder, else in the run folder."""
    if weights is None or weights == RANDOM or Path(weights).exists():
        return weights
    beside = run.folder / weights
    return beside if beside.exists() else weights
