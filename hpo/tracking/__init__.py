"""Shows a search elsewhere: TensorBoard, MLflow, Weights & Biases, a command, a webhook."""
