"""Session: Ray started on this machine or a running cluster joined, its workers checked."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from penult.cluster.deaths import put_into_words
from penult.cluster.exchange import Exchange
from penult.cluster.reach import check_address, unreachable
from penult.errors import InputError
from penult.extras import import_extra
from penult.text import described, one_line

LOCAL = "local"
# Bytes of the object store of a Ray that is started here: sums that wait to be merged.
STORE = 512 << 20
LONGEST_PLACE = 40  # characters of a temporary folder in which sockets still can be made


@dataclass(frozen=True)
class Place:
    """Where the workers are.

    Attributes:
        address: "local" to start Ray on this machine, "auto" for the cluster that runs on it, or
            HOST:PORT.
        n_workers: how many there are at most; where None, one for each GPU or CPU core.
        device: "cpu" to leave GPUs alone.
        exchange: address of storage through which workers and the command hand files over, see
            `Exchange`; None where they share a file system.
    """

    address: str = LOCAL
    n_workers: int | None = None
    device: str = "auto"
    exchange: str | None = None

    @property
    def local(self) -> bool:
        """Whether Ray is started for this command alone."""
        return self.address == LOCAL


def check_place(place: Place) -> None:
    """Refuse, before anything is begun, a cluster that cannot be joined.

    Raises:
        InputError: Ray is not installed; no such address; nobody answers there within 10 seconds; a
            worker cannot be given the device that is asked for; the exchange cannot be used.
    """
    import_extra("ray", "cluster")
    if ":" in place.device:
        raise InputError(
            f"--device {place.device} is one device, and each worker of a cluster gets its own: "
            f"give --device {place.device.split(':')[0]}"
        )
    if place.exchange is not None:
        Exchange(place.exchange).check()
    if place.local or place.address == "auto":
        return
    check_address(place.address)


@contextmanager
def connected(place: Place, say: Callable[[str], None] | None = None) -> Iterator[Resources]:
    """Hold Ray's processes, or a connection to them, and end all that was begun there.

    Args:
        place: where they are.
        say: hears of workers and machines that die meanwhile.

    Yields:
        what one worker takes, and how many there are.

    Raises:
        InputError: see `check_place`; a node has another version of penult, torch or Python.
    """
    ray = import_extra("ray", "cluster")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else a task that a GPU is not asked for loses sight of all of them, and Ray warns of it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if place.local:  # else other programs would go before the workers, as never before the command
        os.environ.setdefault("RAY_worker_niceness", "0")
    scratch: str | None = None
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    held = ExitStack()
    try:
        if place.local:
            n_gpus = 0 if place.device == "cpu" else torch.cuda.device_count()
            scratch = _scratch()
            try:
                ray.init(
                    address=LOCAL,
                    num_cpus=max(place.n_workers or _n_cores(), n_gpus),
                    num_gpus=n_gpus,
                    include_dashboard=False,
                    object_store_memory=STORE,
                    _temp_dir=scratch,
                    **quiet,
                )
            except OSError as error:
                raise InputError(
                    f"Ray cannot be started on this machine ({one_line(described(error), 300)}): "
                    f"it needs to write into {scratch} and into the folder .ray of your home"
                ) from error
        else:
            try:
                ray.init(address=place.address, **quiet)
            except (ConnectionError, RuntimeError) as error:
                said = one_line(" ".join(str(error).split()), 300)
                if "ersion mismatch" in said:
                    raise InputError(
                        f"the cluster {place.address} has other versions than this process "
                        f"({said}): install the same on all machines"
                    ) from error
                raise unreachable(place.address, said) from error
        check_versions(ray)
        held.enter_context(put_into_words(say))
        yield Resources.of(ray.cluster_resources(), place)
    finally:
        with undisturbed():
            ray.shutdown()
            held.close()
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hear no further interrupt while Ray's processes are ended, which must not be left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _scratch() -> str:
    found = tempfile.mkdtemp(prefix="penult-ray-")
    if len(found) > LONGEST_PLACE and Path("/tmp").is_dir():
        Path(found).rmdir()
        found = tempfile.mkdtemp(prefix="penult-ray-", dir="/tmp")
    return found


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Resources:
    """What the workers are made of.

    Attributes:
        n_workers: that run at once.
        options: of each of their tasks, as Ray takes them.
        n_nodes: machines.
    """

    n_workers: int
    options: Mapping[str, float]
    n_nodes: int = 1

    @classmethod
    def of(cls, found: Mapping[str, float], place: Place) -> Resources:
        """What a cluster of such resources offers.

        Raises:
            InputError: it has no CPU, or no GPU where one is asked for.
        """
        n_gpus = 0 if place.device == "cpu" else int(found.get("GPU", 0))
        n_cpus = int(found.get("CPU", 0))
        if place.device == "cuda" and not n_gpus:
            raise InputError(
                f"--device cuda: the cluster {place.address} has no GPU; leave --device out"
            )
        if not n_cpus:
            raise InputError(
                f"the cluster {place.address} offers no CPU to workers: start its nodes with "
                "`ray start --num-cpus N`"
            )
        there = min(n_gpus, n_cpus) if n_gpus else n_cpus
        n_workers = min(there, place.n_workers or there)
        # With fewer workers than there is room for, each takes more of it.
        share = {"num_cpus": 1.0} if n_workers == there else {"num_cpus": n_cpus // n_workers}
        if n_gpus:
            share |= {"num_gpus": 1.0}
        n_nodes = sum(1 for name in found if re.fullmatch(r"node:[\d.:a-fA-F]+", name))
        return cls(n_workers, share, max(1, n_nodes))


def own_versions() -> dict[str, str]:
    """What has to be the same on all nodes, by name, with the version here."""
    return {
        "Python": ".".join(map(str, sys.version_info[:2])),
        "torch": version("torch").split("+")[0],
        "penult": version("penult"),
        "the code of penult": _digest(Path(__file__).resolve().parents[1]),
    }


def _digest(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _versions_there() -> Callable[[], dict[str, Any]]:
    """A function that Ray hands over by its code, since the node may have no penult."""

    def versions() -> dict[str, Any]:
        import hashlib
        import importlib.util
        import socket
        import sys
        from importlib.metadata import PackageNotFoundError, version
        from pathlib import Path

        found: dict[str, Any] = {"host": socket.gethostname()}
        found["Python"] = ".".join(map(str, sys.version_info[:2]))
        for name in ("torch", "penult"):
            try:
                found[name] = version(name).split("+")[0]
            except PackageNotFoundError:
                found[name] = None
        spec = importlib.util.find_spec("penult")
        if spec is not None and spec.origin is not None:
            digest = hashlib.blake2b(digest_size=6)
            folder = Path(spec.origin).resolve().parent
            for path in sorted(folder.rglob("*.py")):
                digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
            found["the code of penult"] = digest.hexdigest()
        return found

    return versions


def check_versions(ray: Any) -> None:
    """Refuse a cluster with a node whose penult, torch or Python is not the one of this process.

    Raises:
        InputError: names the node, and both versions.
    """
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    ask = ray.remote(num_cpus=0)(_versions_there())
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    asked = [ask.options(scheduling_strategy=strategy(node, soft=True)).remote() for node in nodes]
    for found in ray.get(asked):
        refuse_versions(own_versions(), found)


def refuse_versions(own: Mapping[str, str], found: Mapping[str, Any]) -> None:
    """Refuse a node that differs.

    Args:
        own: see `own_versions`.
        found: the same of a node, with its "host".

    Raises:
        InputError: it does.
    """
    for name, expected in own.items():
        there = found.get(name)
        if there == expected:
            continue
        if there is None:
            raise InputError(f"the node {found['host']} has no {name}: install it there")
        raise InputError(
            f"the node {found['host']} has another version of {name} ({there}) than this process "
            f"({expected}): install the same on all nodes"
        )
