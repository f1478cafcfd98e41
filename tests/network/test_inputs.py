"""What images a network takes: grey, of a size, one at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penult.data.open import ImageData, open_data
from penult.data.transform import Transform
from penult.errors import InputError
from penult.network.inputs import fitted_transform


def data(side: int = 8) -> ImageData:
    pixels = np.random.default_rng(0).integers(0, 256, (6, side, side, 3), dtype=np.uint8)
    return open_data((pixels, np.arange(6) % 2))


def mlp(n_inputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(n_inputs, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.fixture(autouse=True)
def no_other_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_what_runs_is_left_as_it_is() -> None:
    transform = Transform(crop=8)
    assert fitted_transform(mlp(192), data(), transform) == (transform, False)


@pytest.mark.parametrize(
    "model",
    [mlp(64), nn.Sequential(nn.Upsample(16), nn.Conv2d(1, 4, 3), nn.Flatten(), nn.LazyLinear(2))],
)
def test_a_network_for_grey_images_gets_them(model: nn.Module) -> None:
    model(torch.zeros(1, 1, 8, 8))
    with pytest.warns(
        UserWarning, match=r"takes grey images: .* mean 0 and std 1 \(--mean, --std\)"
    ):
        transform, _ = fitted_transform(model, data(), Transform(source="assumed"))
    assert (transform.mean, transform.std) == ((0.0,), (1.0,))
    known = Transform(mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.3), bgr=True)
    with pytest.warns(UserWarning, match="mean 0.4 and std 0.2"):
        transform, _ = fitted_transform(model, data(), known)
    assert transform.mean == pytest.approx((0.4,))


def test_what_the_user_said_of_the_channels_is_kept() -> None:
    with pytest.raises(InputError, match="does on 1 × 8 × 8: give --size 8 --mean 0 --std 1, or"):
        fitted_transform(mlp(64), data(), Transform(), fixed=True)


@pytest.mark.parametrize(("channels", "side"), [(3, 12), (1, 28), (3, 32), (1, 5)])
def test_another_size_is_named_and_works(channels: int, side: int) -> None:
    model = mlp(channels * side * side)
    with pytest.raises(
        InputError, match=rf"it does on {channels} × {side} × {side}: give --size {side}"
    ):
        fitted_transform(model, data(), Transform())
    mean, std = (0.0,) * channels, (1.0,) * channels
    remedied = Transform(crop=side, resize=side, mean=mean, std=std)
    assert fitted_transform(model, data(), remedied, fixed=True) == (remedied, False)


def test_one_image_at_a_time() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(192, 2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.fc(x.reshape(1, 192))
            return found

    with pytest.warns(UserWarning, match="takes one image at a time: --batch-size is 1"):
        _, alone = fitted_transform(Alone(), data(), Transform())
    assert alone


def test_a_network_that_never_runs_is_said_as_it_says_it() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise OSError("no such luck")

    with pytest.raises(InputError, match=r"does not run on the example .*: OSError: no such luck$"):
        fitted_transform(Broken(), data(), Transform())


@pytest.mark.parametrize("size", [16, 2, 100])
def test_a_network_for_one_size_of_batches_is_refused_with_the_way_out(size: int) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(192, 2)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(x.view(size, -1))
            if x.numel() != size * 192:
                raise RuntimeError("shape is invalid")
            return logits

    with pytest.raises(InputError, match=rf"runs on {size} images at once.*x\.flatten\(1\)"):
        fitted_transform(Fixed(), data(), Transform(crop=8))
