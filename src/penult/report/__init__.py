"""The report: one HTML page, complete in itself, on the features that decide each class."""
