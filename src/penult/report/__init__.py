"""The report: one self-contained HTML page on which features decide each class, and with what images."""
