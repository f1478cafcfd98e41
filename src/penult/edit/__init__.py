"""Edits of a head, their exact effects, shortcuts and verdicts."""
