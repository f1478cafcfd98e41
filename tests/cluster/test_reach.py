"""Why a cluster cannot be joined is said in one line, before anything is begun."""

from __future__ import annotations

import socket

import pytest

from penult.cluster import reach
from penult.cluster.reach import check_address
from penult.cluster.session import Place, check_place
from penult.errors import InputError


@pytest.mark.parametrize(
    "address",
    ["models.py:net", "http://h:1", "", "10.0.0.1", "h:123456", "h:99999", "h:0", "[::1]"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"expected nothing \(Ray on this machine\), auto, or the"):
        check_place(Place(address))


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"{address} cannot be reached .*within 1 seconds"):
            check_place(Place(address))
    with pytest.raises(InputError, match=rf"{address} cannot be reached \(Connection refused\)"):
        check_address(address)


def test_a_host_that_is_not_known_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", lost)
    with pytest.raises(InputError, match=r"nosuch:1 cannot be reached \(Name or service not known"):
        check_address("nosuch:1")


@pytest.mark.parametrize(
    ("prints", "said"),
    [
        (
            "ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: missing",
            "asks for the token of its head's ~/.ray/auth_token: .*with RAY_AUTH_MODE=token",
        ),
        (
            "RuntimeError: Ray version mismatch: cluster has Ray version 2.5.1 but local Ray "
            "version is 2.60.0",
            "runs Ray 2.5.1 and this process 2.60.0: install the same on all machines",
        ),
        ("first\nOSError: gone", r"cannot be reached \(OSError: gone\): start one with `ray start"),
    ],
)
def test_what_ray_says_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, prints: str, said: str
) -> None:
    script = f"import sys; print('begun'); print({prints!r}, file=sys.stderr); sys.exit(1)"
    monkeypatch.setattr(reach, "_HEALTH", script)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match=f"the cluster {address} {said}"):
            check_address(address)
