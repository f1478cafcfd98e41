"""Reach: whether a running cluster answers at its address, and what else keeps one from joining."""

from __future__ import annotations

import re
import socket
import subprocess
import sys

from penult.errors import InputError
from penult.text import one_line

PATIENCE = 10.0  # seconds in which a cluster has to answer
_ADDRESS = re.compile(r"(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
# Ray answers in a process of its own, since its library waits long for whom it cannot reach. What
# is printed tells when the library is imported, which takes long on a busy machine.
_HEALTH = "from ray.scripts.scripts import main; print('begun', flush=True); main()"
_VERSIONS = re.compile(r"cluster has Ray version (\S+) but local Ray version is (\S+)")


def check_address(address: str) -> None:
    """Refuse the address of a cluster that cannot be joined.

    Raises:
        InputError: it is none; nobody answers there within 10 seconds; the cluster asks for a
            token, or has another version of Ray.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 2**16:
        raise InputError(
            f"--cluster: expected nothing (Ray on this machine), auto, or the HOST:PORT of a "
            f"running cluster, found {address!r}"
        )
    try:
        place = found["host"].strip("[]"), int(found["port"])
        socket.create_connection(place, PATIENCE).close()
    except TimeoutError:
        raise unreachable(address, f"nobody answered within {PATIENCE:g} seconds") from None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise unreachable(address, one_line(reason, 200)) from None
    said = _health(address)
    if said is None:
        return
    if "AuthToken" in said or "AuthenticationError" in said:
        raise InputError(
            f"the cluster {address} asks for the token of its head's ~/.ray/auth_token: copy the "
            "file here, or set RAY_AUTH_TOKEN, and repeat the command with RAY_AUTH_MODE=token"
        )
    if versions := _VERSIONS.search(said):
        there, here = versions.groups()
        raise InputError(
            f"the cluster {address} runs Ray {there} and this process {here}: install the same on "
            "all machines"
        )
    raise unreachable(address, said)


def unreachable(address: str, reason: str) -> InputError:
    """Nobody can be joined there."""
    return InputError(
        f"the cluster {address} cannot be reached ({reason}): start one with `ray start --head` "
        "and give its HOST:PORT, or give --cluster alone for workers on this machine"
    )


def _health(address: str) -> str | None:
    """What Ray says against a cluster, in one line; None where it is well."""
    command = [sys.executable, "-c", _HEALTH, "health-check", "--address", address]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            _, said = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"nobody answered within {PATIENCE:g} seconds"
    lines = [line for line in said.splitlines() if line.strip()]
    return None if process.returncode == 0 else one_line(lines[-1] if lines else "no reason", 300)
