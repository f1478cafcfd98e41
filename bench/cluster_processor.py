"""Processor seconds of this process and of all that it has begun, Ray's processes too."""

from __future__ import annotations

from collections import Counter

import psutil


def processor() -> dict[int, tuple[str, float]]:
    """Of each process that lives: what it is, and its seconds so far."""
    this, found = psutil.Process(), {}
    for one in (this, *this.children(recursive=True)):
        try:
            times, command = one.cpu_times(), " ".join(one.cmdline())
        except psutil.Error:
            continue
        found[one.pid] = (_kind(one == this, command), times.user + times.system)
    return found


def _kind(is_this: bool, command: str) -> str:
    if is_this:
        return "command"
    own = "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::SharedTally"
    return "workers" if "ray::" in command and not command.startswith(own) else "Ray"


def by_kind(before: dict[int, tuple[str, float]]) -> Counter[str]:
    """Seconds since then of the command, of its workers, and of Ray's own processes."""
    found: Counter[str] = Counter()
    for pid, (kind, seconds) in processor().items():
        found[kind] += seconds - before.get(pid, (kind, 0.0))[1]  # type: ignore[assignment]
    return found


def spent(before: dict[int, tuple[str, float]]) -> float:
    """Seconds since then of all of them."""
    return sum(by_kind(before).values())
