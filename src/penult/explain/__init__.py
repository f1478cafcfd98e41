"""Explain: what each feature looks at, why one image was called what it was, and what would do."""
