"""Real servers of MLflow and TensorBoard on this machine: they show what was handed to them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from penult.trackers.registry import log_run
from planted import run_of

pytestmark = pytest.mark.slow
PATIENCE = 90


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


def read(address: str) -> bytes:
    with urlopen(address, timeout=20) as answer:
        found: bytes = answer.read()
    return found


@contextmanager
def served(arguments: list[str], address: str, folder: Path) -> Iterator[None]:
    with (folder / "said.txt").open("w") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            for _ in range(PATIENCE):
                assert server.poll() is None, (folder / "said.txt").read_text()
                with suppress(URLError, OSError):
                    read(address)
                    break
                time.sleep(1)
            yield
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # it has workers of its own
            server.wait(20)


@pytest.mark.skipif(find_spec("flask") is None, reason="the server of MLflow is not installed")
def test_a_server_of_mlflow_serves_the_page(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    run = run_of(tmp_path)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    arguments = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    with served([*arguments, *store], f"{address}/health", tmp_path):
        log_run(run, "mlflow", where=address)
        client = mlflow.MlflowClient(tracking_uri=address)
        experiment = client.get_experiment_by_name("penult")
        (found,) = client.search_runs([experiment.experiment_id])
        assert found.data.metrics["network/accuracy"] == run.summary()["dense"]["accuracy"]
        number = found.info.run_id
        at = f"{address}/get-artifact?path=report.html&run_uuid={number}"
        assert b"<!doctype html>" in read(at)


def test_a_server_of_tensorboard_shows_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = run_of(tmp_path)
    log_run(run, "tensorboard", where=str(tmp_path / "logs"))
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    arguments = [
        "tensorboard.main",
        "--logdir",
        "logs",
        "--port",
        str(port),
        "--load_fast",
        "false",
    ]
    with served(arguments, address, tmp_path):
        for _ in range(PATIENCE):
            tags = json.loads(read(f"{address}/data/plugin/scalars/tags"))
            if tags.get("run"):
                break
            time.sleep(1)
        assert "network/accuracy" in tags["run"]
        at = f"{address}/data/plugin/scalars/scalars?tag=network/accuracy&run=run"
        ((_, _, value),) = json.loads(read(at))
        assert value == pytest.approx(run.summary()["dense"]["accuracy"])
