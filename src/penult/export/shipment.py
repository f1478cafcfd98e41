"""Shipment: what an export is made of: the network, the head, the samples, the options."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penult.data.tokens import TokenTransform
from penult.data.transform import Transform
from penult.errors import InputError
from penult.export.head_forms import DENSE, head_layer
from penult.export.onnx_graph import OPSET
from penult.export.proof import TOLERANCE, Trial
from penult.export.samples import FEWEST, ProofSamples
from penult.export.shipped_head import ShippedHead
from penult.export.shipped_network import ShippedNetwork, inputs_by_name
from penult.network.onnx_file import OnnxNetwork
from penult.network.replace import replace_head
from penult.runs.reopen import Places, load_as, network_of, reopen_network
from penult.runs.run import Run

NARROW = (torch.float16, torch.bfloat16)
IN_HALF = 1e-2  # bfloat16 has eight bits of precision


@dataclass(frozen=True)
class ExportOptions:
    """What an export is to be.

    Attributes:
        format: of `formats.FORMATS`.
        preprocessing: put scaling and normalising into the network, which then takes pixels.
        opset: of ONNX.
        batch_size: the only one that the export takes; any where None.
        form: how the head is computed; the fastest where None.
        n_samples: of the run, on which the export is compared.
        timed: batch sizes at which it is timed.
        drop_unread: take out what makes only features that no class reads.
        int8: quantise weights and activations to 8 bits, for ONNX.
        cost: compare what it costs with the network as it was.
    """

    format: str
    preprocessing: bool = False
    opset: int = OPSET
    batch_size: int | None = None
    form: str | None = None
    n_samples: int = FEWEST
    timed: tuple[int, ...] = (1, 8, 32)
    drop_unread: bool = False
    int8: bool = False
    cost: bool = True


@dataclass(frozen=True, eq=False)
class Shipment:
    """What an export is made of.

    Attributes:
        run: whose network it is.
        shipped: the head.
        samples: on which the export is compared.
        options: what is asked for.
        network: in evaluation mode, with its own head; None where only the head is exported.
        fitting: samples of the analysed data, by which activations are scaled to 8 bits.
        logits: of the network with the head on the samples, (n_samples, n_classes) float32; None
            before they are computed.
    """

    run: Run
    shipped: ShippedHead
    samples: ProofSamples
    options: ExportOptions
    network: nn.Module | None = None
    fitting: ProofSamples | None = None
    logits: Tensor | None = None

    @property
    def class_names(self) -> list[str]:
        """In the order of the logits."""
        return list(self.run.summary()["class_names"])

    @property
    def normalise(self) -> Transform | None:
        """What is put into the network before it."""
        transform = self.samples.transform
        if not self.options.preprocessing:
            return None
        assert isinstance(transform, Transform)
        return transform

    @property
    def tolerance(self) -> float:
        """How far a logit may be from the network's, of the largest: more in half precision."""
        network = self.network
        narrow = network is not None and any(p.dtype in NARROW for p in network.parameters())
        return IN_HALF if narrow else TOLERANCE

    @property
    def most_tokens(self) -> int | None:
        """The tokens of the longest text that the network takes; None for images."""
        transform = self.samples.transform
        return transform.max_length if isinstance(transform, TokenTransform) else None

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What the export takes, by name: samples of the run."""
        return self._inputs(self.samples)

    @property
    def calibration(self) -> dict[str, Tensor]:
        """The same of samples of the analysed data."""
        assert self.fitting is not None
        return self._inputs(self.fitting)

    def _inputs(self, samples: ProofSamples) -> dict[str, Tensor]:
        if self.options.preprocessing:
            assert samples.pixels is not None
            return inputs_by_name(samples.pixels, pixels=True)
        assert samples.inputs is not None
        return inputs_by_name(samples.inputs)

    @contextmanager
    def whole(self, layer: nn.Module | None) -> Iterator[ShippedNetwork]:
        """The network from inputs to logits with a layer in its head's place; its own where None.

        On leaving, the network's own layer is back.
        """
        assert self.network is not None
        own = self.run.train().require_head()
        if layer is None:
            yield ShippedNetwork(self.network, own, self.normalise)
            return
        with replace_head(self.network, layer, own):
            yield ShippedNetwork(self.network, own, self.normalise)

    @contextmanager
    def reference(self) -> Iterator[ShippedNetwork]:
        """The network with the head in its plainest form: what every export must equal."""
        with self.whole(head_layer(self.shipped, DENSE)) as network:
            yield network


@dataclass(frozen=True, eq=False)
class Written:
    """What a format wrote, and how it is loaded again.

    Attributes:
        files: in the folder.
        trial: how the fresh process loads and runs it.
        inputs: what it takes, by name.
        document: what `export.json` says of it.
        exact: whether the export is meant to give the network's logits.
        notes: sentences for whoever reads the result.
        cost: parameters and so on "before" and "after", where they were counted.
        others: further runtimes that are compared and timed.
    """

    files: list[Path]
    trial: Trial
    inputs: dict[str, Tensor]
    document: dict[str, Any] = field(default_factory=dict)
    exact: bool = True
    notes: list[str] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    others: list[Trial] = field(default_factory=list)


@dataclass(frozen=True)
class ExportFormat:
    """A format.

    Attributes:
        write: writes a shipment into a folder.
        explained: what it is, for the help and the docs.
        whole: whether it holds the network, so that the run's network and samples are needed.
        check: refuses options that it cannot have, before any work.
        fits: refuses a head that it cannot hold, likewise.
        takes: refuses a network that it cannot hold, before its logits are computed.
    """

    write: Callable[[Shipment, Path], Written]
    explained: str
    whole: bool = True
    check: Callable[[ExportOptions], None] = lambda options: None
    fits: Callable[[ShippedHead, Run], None] = lambda shipped, run: None
    takes: Callable[[Shipment], None] = lambda shipment: None


def require_float(options: ExportOptions) -> None:
    """Refuse 8 bits in a format that does not have them."""
    if options.int8:
        raise InputError(
            f"--int8 is for --format onnx, found --format {options.format}: give --format onnx"
        )


def open_network(run: Run, shipped: ShippedHead, places: Places) -> nn.Module:
    """The run's network, or the tuned one that a tuned head belongs to.

    Raises:
        InputError: a run of features; a network that is gone or no longer the same.
    """
    if "network" not in run.about:
        raise InputError(
            f"{run.folder} was made from features, so there is no network to export: export the "
            "head alone with --format head"
        )
    network_of(run)
    tuned = shipped.tuned
    if tuned is None or tuned.document["head_only"]:
        model = reopen_network(run, places)
        if isinstance(model, OnnxNetwork):
            raise InputError(
                f"{run.folder} is of an ONNX file, which torch cannot trace: export the head alone "
                "with --format head, or export from the network that the file was made from"
            )
        return model
    return load_as(run, tuned.folder / "network.safetensors", places).model.eval()
