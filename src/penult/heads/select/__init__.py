"""Selection: which features each class keeps, by moments or by the curvature of the softmax."""
