"""Here precisions are emulated on the CPU: every tensor of a model is rounded in a graph for ONNX Runtime."""
