"""Networks: loaded from a name or a file, their head found, watched and replaced."""
