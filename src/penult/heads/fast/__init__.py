"""Fast heads: the forms in which a sparse head computes its logits, and their compiled loops."""
