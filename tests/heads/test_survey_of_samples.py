"""A survey in parts is the survey of the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from penult.heads.survey import SampleSurvey


def survey(z: Tensor, p: Tensor) -> SampleSurvey:
    found = SampleSurvey.of([(z, p, 0.5)])
    assert found is not None
    return found


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_parts_add_up_to_the_whole(offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, 90, generator=generator) + offset
    p = torch.randn(3, 90, generator=generator).softmax(0)
    edges = [(0, 10), (10, 11), (11, 60), (60, 90)]
    first, *others = (survey(z[:, a:b], p[:, a:b]) for a, b in edges)
    for other in others:
        first = first + other
    assert first.n_samples == 90
    assert first.entropy == 2.0
    assert torch.allclose(first.mean, z.double().mean(1), rtol=1e-12)
    assert torch.allclose(first.variance, z.double().var(1, correction=0), rtol=1e-9)
    assert torch.allclose(first.mass, p.double().sum(1))


def test_tiles_of_one_reading_share_their_origin() -> None:
    z = torch.arange(12.0).reshape(2, 6)
    tiles = [(z[:, :2], torch.ones(1, 2), 1.0), (z[:, 2:], torch.ones(1, 4), 2.0)]
    found = SampleSurvey.of(tiles)
    assert found is not None
    assert found.origin.tolist() == [0.5, 6.5]
    assert found.mean.tolist() == [2.5, 8.5]
    assert found.entropy == 3.0


def test_no_samples_have_no_survey() -> None:
    assert SampleSurvey.of([]) is None
