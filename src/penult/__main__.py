"""`python -m penult`: the same as the command `penult`."""

from penult.command import main

if __name__ == "__main__":
    main()
