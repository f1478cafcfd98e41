"""Networks whose features of an image change with the images beside it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penult.network.batch_dependence import batch_dependence
from penult.network.find import find_head


class Net(nn.Module):
    """A network whose features go through `change`, which may look at the whole batch."""

    def __init__(self, change: Callable[[Tensor], Tensor], norm: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3), norm or nn.Identity(), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.fc = nn.Linear(6, 4)
        self._change = change

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self._change(self.body(x).flatten(1)))
        return logits


def inputs(n: int = 6) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def said_of(model: nn.Module) -> str | None:
    return batch_dependence(model, find_head(model.eval(), inputs()), inputs())


@pytest.mark.parametrize(
    "change",
    [
        lambda z: z - z.mean(0),
        lambda z: F.batch_norm(z, None, None, training=True),
        lambda z: z + 0.1 * z.cumsum(0),
        lambda z: z + 0.1 * z.roll(1, 0),
        lambda z: z + 0.1 * torch.softmax(z @ z.T, 1) @ z,
        lambda z: z / z.norm(),
    ],
    ids=["centred", "batch norm", "running sum", "neighbour", "attention", "norm"],
)
def test_features_that_depend_on_the_batch_are_noticed(
    change: Callable[[Tensor], Tensor],
) -> None:
    said = said_of(Net(change))
    assert said is not None
    assert said.startswith("the network's features of an image depend on the other images of its")
    assert "--batch-size 1" in said


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_the_layer_that_has_no_statistics_is_named(kind: type[nn.Module]) -> None:
    said = said_of(Net(lambda z: z, kind(6, track_running_stats=False)))
    assert f"({kind.__name__} body.1 has no running statistics)" in (said or "")


@pytest.mark.parametrize(
    "norm", [None, nn.BatchNorm2d(6), nn.InstanceNorm2d(6), nn.GroupNorm(2, 6)], ids=str
)
def test_nothing_is_said_of_other_networks(norm: nn.Module | None) -> None:
    model = Net(lambda z: z, norm).train()
    model(inputs())  # statistics of their own
    assert said_of(model) is None


def test_a_single_image_tells_nothing() -> None:
    model = Net(lambda z: z - z.mean(0)).eval()
    assert batch_dependence(model, find_head(model, inputs()), inputs(1)) is None
