"""The command line, run in this process."""

from __future__ import annotations

import sys

import pytest

from penult.cli.app import main


def penult(*arguments: str) -> int:
    """Exit status of the command, run in this process."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["penult", *arguments])
            main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
