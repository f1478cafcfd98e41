"""Kills: commands cut off at random instants, repeated, end in the bytes of an undisturbed run.

`python bench/kills.py --kills 50` kills each command that often and writes
docs/benchmarks/kills.md. A command runs in a fork of this process, so that the time before it does
anything, in which a kill proves nothing, is short.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from penult.cli.app import main as penult
from penult.features.features import Features
from penult.features.saving import save_features

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks" / "kills.md"
TRIES = 20
ANALYZE = "analyze train.safetensors --eval eval.safetensors --out run"
COMMANDS = {
    "analyze": ANALYZE,
    "fit": "fit train.safetensors --eval eval.safetensors -k 1,2,3 --out heads",
    "tune": "tune run -k 2 --head-only",
    "report": "report run",
}
BEFORE = {"tune": ("analyze",), "report": ("analyze",)}


@dataclass
class Outcome:
    """What kills of one command came to.

    Attributes:
        n_killed: how many of the kills met the command before it ended.
        seconds: what it takes undisturbed.
        different: names of files that are not those of the undisturbed run, or what was said.
    """

    n_killed: int
    seconds: float
    different: list[str]


def features(folder: Path, n_samples: int = 600, n_features: int = 24, n_classes: int = 4) -> None:
    """Write features of planted classes, for training and for evaluation."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(n_classes, n_features, generator=generator)
    for name in ("train", "eval"):
        labels = torch.arange(n_samples) % n_classes
        noise = torch.randn(n_samples, n_features, generator=generator)
        z = (noise + weight[labels]).relu()
        made = Features.of(z, labels, weight, class_names=list("abcd")[:n_classes])
        save_features(folder / f"{name}.safetensors", made)


def begin(folder: Path, command: str) -> int:
    """Start a command in a fork of this process; gives the number of the process."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.chdir(folder)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        sys.argv = ["penult", *command.split()]
        penult()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        os._exit(status)


def status_of(process: int) -> int:
    """How a process ended; minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def whole(folder: Path, command: str) -> float:
    """Run a command to its end; gives the seconds that it took."""
    begun = time.monotonic()
    status = status_of(begin(folder, command))
    if status:
        raise RuntimeError(f"penult {command} ended with {status}")
    return time.monotonic() - begun


def contents(folder: Path) -> dict[str, Any]:
    """All files of a folder; of JSON what it says, but for the seconds that things took."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".lock":
            name, raw = path.relative_to(folder).as_posix(), path.read_bytes()
            found[name] = _untimed(json.loads(raw)) if name.endswith(".json") else raw
    return found


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _untimed(v) for k, v in value.items() if "seconds" not in k}
    return [_untimed(one) for one in value] if isinstance(value, list) else value


def kill(name: str, n_kills: int, seed: int = 0, say: Callable[[str], None] = print) -> Outcome:
    """Kill a command at random instants; each time repeat it until it is done, and compare."""
    chosen = random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as place:
        start, calm = Path(place) / "start", Path(place) / "calm"
        start.mkdir()
        features(start)
        for before in BEFORE.get(name, ()):
            whole(start, COMMANDS[before])
        shutil.copytree(start, calm)
        seconds = whole(calm, COMMANDS[name])
        expected = contents(calm)
        outcome = Outcome(0, seconds, [])
        for number in range(n_kills):
            folder = Path(place) / f"kill{number}"
            shutil.copytree(start, folder)
            process = begin(folder, COMMANDS[name])
            time.sleep(chosen.uniform(0, seconds))
            os.kill(process, signal.SIGKILL)
            outcome.n_killed += status_of(process) == -signal.SIGKILL
            try:
                whole(folder, COMMANDS[name])
                found = contents(folder)
                outcome.different += [
                    f"kill {number}: {file}"
                    for file in sorted(expected.keys() | found.keys())
                    if expected.get(file) != found.get(file)
                ]
            except RuntimeError as error:
                outcome.different.append(f"kill {number}: {error}")
            shutil.rmtree(folder)
            say(f"{name}: {number + 1} of {n_kills}, {len(outcome.different)} differences")
    return outcome


def two_writers(name: str) -> list[str]:
    """Start a command twice at once, then once more; gives the files that differ from one run's."""
    with tempfile.TemporaryDirectory() as place:
        start, calm = Path(place) / "start", Path(place) / "calm"
        start.mkdir()
        features(start)
        for before in BEFORE.get(name, ()):
            whole(start, COMMANDS[before])
        shutil.copytree(start, calm)
        whole(calm, COMMANDS[name])
        both = [begin(start, COMMANDS[name]) for _ in range(2)]
        for process in both:
            status_of(process)
        whole(start, COMMANDS[name])
        expected, found = contents(calm), contents(start)
        return [f for f in expected.keys() | found.keys() if expected.get(f) != found.get(f)]


def page(outcomes: dict[str, Outcome], n_kills: int, both: dict[str, list[str]]) -> str:
    """The Markdown page."""
    rows = [
        f"| `{name}` | {one.seconds:.1f} | {n_kills} | {one.n_killed} | {len(one.different)} | "
        f"{len(both[name])} |"
        for name, one in outcomes.items()
    ]
    return "\n".join(
        [
            "# Kills: a command that is cut off loses nothing",
            "",
            "Each command was killed (SIGKILL) at random instants between its start and the time",
            "that it takes undisturbed, and was then repeated. The table counts the files of all",
            "repetitions that are not, byte by byte, those of an undisturbed run; of JSON files,",
            "the seconds that something took are left out. The last column counts such files when",
            "the command was started twice at once. Written by "
            f"`python bench/kills.py --kills {n_kills}`.",
            "",
            "| command | seconds undisturbed | kills | before its end | files that differ | "
            "after two at once |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Kill all commands and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    outcomes = {name: kill(name, given.kills, given.seed) for name in COMMANDS}
    both = {name: two_writers(name) for name in COMMANDS}
    for name, one in outcomes.items():
        print(name, *one.different, "two at once:", *both[name], sep="\n  ")
    PAGE.write_text(page(outcomes, given.kills, both))


if __name__ == "__main__":
    main()
