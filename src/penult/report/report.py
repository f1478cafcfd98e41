"""Report: one page that anyone can open, made from a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from penult.errors import InputError
from penult.explain.choice import choose_head
from penult.explain.gallery import PictureOptions
from penult.progress import Begin
from penult.report.document import ReportData, build
from penult.report.page import render
from penult.runs.run import Run
from penult.storage import write_atomically
from penult.text import class_index

HEIGHT = 720  # pixels of the frame in a notebook


@dataclass(frozen=True, eq=False)
class Report:
    """The report of a run: shown by a notebook, or saved as one self-contained file.

    Attributes:
        data: all that it says, see `penult.report.document`.
        start: the view that opens first: "summary", "class/3", "feature/12" and so on.
    """

    data: ReportData = field(repr=False)
    start: str = "summary"

    @classmethod
    def of(
        cls,
        run: Run | str | Path,
        *,
        k: int | None = None,
        select: str | None = None,
        dense: bool = False,
        pictures: PictureOptions | None = None,
        effects: Mapping[str, dict[str, Any]] | None = None,
        begin: Begin | None = None,
    ) -> Report:
        """Make the report of a run: of the network's own head, and of a sparse one beside it.

        The run's small pictures are taken on the way and kept in its `examples` folder.

        Args:
            run: a finished run, or its folder.
            k, select: which of the run's sparse heads; see `choose_head`.
            dense: leave the sparse heads out.
            pictures: how many, and where images and network are now.
            effects: of edits that are shown besides those that lie in the run, by name; the first
                is opened.
            begin: called with the name of each stage that takes long; what it gives is called with
                how much is done and how much there is.

        Raises:
            InputError: no finished run, no such head.
        """
        if dense and (k is not None or select is not None):
            raise InputError("--dense leaves the sparse heads out: give it without -k and --select")
        run = run if isinstance(run, Run) else Run.open(run)
        choice = None if dense else choose_head(run, k, select)
        data = build(run, choice, pictures or PictureOptions(), effects, begin)
        return cls(data, "edit/0" if effects else "summary")

    def __repr__(self) -> str:
        return f"<Report: {self.document['title']}; save it by .save(path)>"

    @property
    def document(self) -> dict[str, Any]:
        """Summary, tables and mistakes, as JSON values."""
        return self.data.document

    def of_class(self, name: str | int) -> Report:
        """The same report, opened at a class, by its name or number."""
        names = [row["name"] for row in self.document["classes"]]
        return replace(self, start=f"class/{class_index(name, names)}")

    def of_feature(self, feature: int) -> Report:
        """The same report, opened at a feature."""
        n_features = len(self.document["features"])
        if not 0 <= feature < n_features:
            raise InputError(f"features are numbered from 0 to {n_features - 1}, found {feature}")
        return replace(self, start=f"feature/{feature}")

    def html(self) -> str:
        """The page."""
        data = self.data
        document = {**data.document, "start": self.start}
        return render(document, data.class_details, data.feature_details, data.images)

    def save(self, path: str | Path) -> None:
        """Write the page as one file."""
        html = self.html()
        write_atomically(
            Path(path), lambda file: file.write_text(html, encoding="utf-8", newline="\n")
        )

    def _repr_html_(self) -> str:
        # A frame of its own: the page's styles and keys stay out of the notebook.
        return (
            f'<iframe srcdoc="{escape(self.html(), quote=True)}" title="penult report" '
            f'style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'
        )
