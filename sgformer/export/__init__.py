"""ONNX export of a trained model, the exported classifier, and a model's costs."""
