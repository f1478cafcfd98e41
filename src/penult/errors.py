"""The errors a user reads: one line that says what, what was found and how to mend it."""

from __future__ import annotations


class InputError(ValueError):
    """The user's input is at fault; the command line prints the message alone and exits with 2."""


class NotWrittenError(InputError):
    """A file or folder cannot be written: a full or read-only disk, or one of somebody else."""


def missing_extra(package: str, extra: str) -> InputError:
    """Error for an optional `package` that is not installed, with the line that installs it."""
    return InputError(
        f"{package} is needed here and not installed: pip install 'penult[{extra}]'",
    )
