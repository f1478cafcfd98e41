"""The live page in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from penult.extras import import_extra
from penult.runs.reopen import Places
from penult.runs.run import Run

if TYPE_CHECKING:
    from penult.live.server import LiveServer

HEIGHT = 800  # pixels of the frame


@dataclass(frozen=True, eq=False)
class LiveApp:
    """The live page of a run, shown by a notebook, or in a browser at its address.

    Attributes:
        server: answers until `stop`, or until Python ends.
        run: name of the run.
    """

    server: LiveServer
    run: str

    @property
    def address(self) -> str:
        """What a browser opens, with a token that lets it in."""
        return self.server.address

    def stop(self) -> None:
        """End the server."""
        self.server.stop()

    def __repr__(self) -> str:
        return f"<LiveApp: {self.address}; end it by .stop()>"

    def _repr_html_(self) -> str:
        return (
            f'<iframe src="{escape(self.server.framed_address(self.run), quote=True)}" '
            f'title="penult app" style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'
        )


def app(
    run: Run | str | Path,
    *,
    port: int | None = None,
    sources: Places | None = None,
    device: str = "cpu",
) -> LiveApp:
    """Serve the live page of a run from this process: its features can be switched there.

    The page is for this machine alone, and for who has its address.

    Args:
        run: a finished run, or its folder.
        port: to listen on; the first free one from 8642 where None.
        sources: where network and images are now, if not where the run found them.
        device: where the network runs.

    Returns:
        What a notebook shows.

    Raises:
        InputError: no finished run; the extra `app` is not installed.
    """
    import_extra("uvicorn", "app")
    import_extra("starlette", "app")
    from penult.live.server import LiveServer  # what it needs may not be installed

    folder = run.folder if isinstance(run, Run) else Run.open(run).folder
    server = LiveServer(folder, port=port, places=sources, device=device)
    server.read()
    server.start()
    return LiveApp(server, folder.resolve().name)
