"""The command that serves the live page: `penult app`."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from penult.cli.console import progress_bars, tell, warn
from penult.cli.option_groups import MovedOptions
from penult.cli.spread import option, spread
from penult.extras import import_extra
from penult.heads.judge import OWN_LABELS
from penult.live.keys import is_loopback
from penult.runs.run import Run

Port = Annotated[
    int | None, option("Port to listen on, or the next free one; by default from 8642 on.")
]
Host = Annotated[
    str, option("Address to listen on; another than this machine's own lets others in.")
]
NoBrowser = Annotated[bool, option("Open no browser; the address is printed.", "--no-browser")]
Place = Annotated[
    Path, typer.Argument(help="Folder of a finished run, or a folder of runs.", metavar="RUN")
]


@spread
def live(
    run: Place,
    *,
    port: Port = None,
    host: Host = "127.0.0.1",
    no_browser: NoBrowser = False,
    moved: MovedOptions,
) -> None:
    """Serve the report of a run as a page with switches, on this machine, until Ctrl-C."""
    import_extra("uvicorn", "app")
    import_extra("starlette", "app")
    from penult.live.server import LiveServer  # what it needs may not be installed

    server = LiveServer(
        run, host=host, port=port, places=moved.sources(), device=str(moved.where())
    )
    if (run / "run.json").is_file() and Run.open(run).own_labels:
        warn(OWN_LABELS)
    with progress_bars("opening the run") as heard:
        server.read(heard("reading the run"))
    if server.taken is not None:
        warn(f"port {server.taken} is in use: taken is {server.keys.port}")
    if not is_loopback(host):
        warn(
            f"whoever reaches {host} and has the address can read the run, and write verdicts and "
            "edits into it; nothing is encrypted"
        )
    print(f"penult app: {server.address}", flush=True)
    tell("Ctrl-C ends it.")
    if not no_browser:
        threading.Thread(target=_open, args=(server.address,), daemon=True).start()
    server.serve()
    tell("The server has ended; verdicts and what was saved are kept.")


def _open(address: str) -> None:
    """Open a browser, where there is one; the address is printed anyway."""
    try:
        found = webbrowser.open(address)
    except webbrowser.Error:
        found = False
    if not found:
        tell("No browser could be opened: open the address in one.")
