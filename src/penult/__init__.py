"""penult: which few penultimate features decide each class of a trained image classifier."""
