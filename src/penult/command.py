"""The command `penult`: starts it so that an interrupt is heard while it still loads its parts."""

import sys


def main() -> None:
    """Run the command line; the first seconds, in which torch is imported, end in one line too."""
    try:
        from penult.cli.app import main as run
    except KeyboardInterrupt:
        print("penult: interrupted: nothing was written", file=sys.stderr)
        sys.exit(130)
    run()
