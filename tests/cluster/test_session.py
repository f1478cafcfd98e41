"""What cannot be joined is said in one line, before anything is begun."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from command import penult
from penult.cli.cluster import with_address
from penult.cluster import session
from penult.cluster.session import Place, Resources, check_place, own_versions, refuse_versions
from penult.errors import InputError


def test_what_follows_the_option_is_the_address() -> None:
    for given, expected in (
        (["a", "--cluster"], ["a", "--cluster=local"]),
        (["--cluster", "--out", "run"], ["--cluster=local", "--out", "run"]),
        (["--cluster", "h:1", "--out", "r"], ["--cluster", "h:1", "--out", "r"]),
        (["--cluster=auto"], ["--cluster=auto"]),
        (["a", "--out", "r"], ["a", "--out", "r"]),
    ):
        assert with_address(given) == expected


def test_nothing_to_join_on_this_machine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr("ray.init", none)
    with (
        pytest.raises(InputError, match=r"auto cannot be reached \(Could not find any running Ray"),
        session.connected(Place("auto")),
    ):
        pass


def test_without_ray_the_line_that_installs_it_is_said(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ("analyze", "models.py:net", "photos", "--out", "run", "--cluster")
    assert penult(*command) == 2
    assert "pip install 'penult[cluster]'" in capsys.readouterr().err
    assert not (work / "run").exists()


def test_one_device_for_all_workers_is_refused() -> None:
    with pytest.raises(
        InputError, match="cuda:1 is one device, .* gets its own: give --device cuda"
    ):
        check_place(Place(device="cuda:1"))


@pytest.mark.parametrize(
    ("name", "found", "said"),
    [
        ("torch", "1.13.1", r"node far has another version of torch \(1.13.1\) than this process"),
        ("penult", "9.9", r"another version of penult \(9.9\)"),
        ("the code of penult", "0123", r"another version of the code of penult \(0123\)"),
        ("penult", None, "node far has no penult: install it there"),
    ],
)
def test_nodes_with_other_versions_are_refused_by_name(
    name: str, found: str | None, said: str
) -> None:
    there = {**session._versions_there()(), "host": "far"}
    refuse_versions(own_versions(), there)
    with pytest.raises(InputError, match=said):
        refuse_versions(own_versions(), {**there, name: found})


def test_workers_get_what_the_cluster_has() -> None:
    gpus = {"CPU": 32.0, "GPU": 4.0, "node:10.0.0.1": 1.0, "node:10.0.0.2": 1.0}
    assert Resources.of(gpus, Place("h:1")) == Resources(4, {"num_cpus": 1, "num_gpus": 1}, 2)
    assert Resources.of(gpus, Place("h:1", device="cpu")) == Resources(32, {"num_cpus": 1}, 2)
    assert Resources.of({"CPU": 2.0}, Place("h:1", 1)) == Resources(1, {"num_cpus": 2}, 1)
    with pytest.raises(InputError, match="cluster h:1 has no GPU; leave --device out"):
        Resources.of({"CPU": 2.0}, Place("h:1", device="cuda"))
    with pytest.raises(InputError, match=r"offers no CPU to workers: .*ray start --num-cpus"):
        Resources.of({"node:10.0.0.1": 1.0}, Place("h:1"))
