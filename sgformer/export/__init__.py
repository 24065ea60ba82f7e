"""From a trained model to ONNX, and what a model costs."""
