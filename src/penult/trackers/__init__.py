"""A run handed over to the trackers that teams use: MLflow, Weights & Biases, TensorBoard."""
