"""A worker whose network is not that of the command says so, and does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from penult.cluster.job import PassJob, opened
from penult.errors import InputError
from penult.network.head import Head, head_of
from penult.user_code import code_digest


@dataclass
class Station:
    head: Head
    network_about: Mapping[str, Any]


def test_a_worker_compares_what_it_opens_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def net(): ...\n")
    spec = f"{tmp_path / 'net.py'}:net"
    head = head_of(torch.eye(3), torch.zeros(3))
    begun: list[int] = []

    def opens() -> Any:
        begun.append(1)
        return Station(head, {"fingerprint": "n", "spec": spec})

    same = PassJob(
        "k", opens, tmp_path, "n", head.fingerprint(), code_digest(spec), {}, torch.float32
    )
    opened(same)
    opened(same)
    assert len(begun) == 1, "a network is loaded once"
    for other, said in (
        (replace(same, network="x"), "its network has other weights than that of the command"),
        (replace(same, head="x"), "it finds another final layer in the network than the command"),
        (replace(same, code="x"), "its network has other code than that of the command"),
    ):
        with pytest.raises(InputError, match=said):
            opened(replace(other, key=said))
