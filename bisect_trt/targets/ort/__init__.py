"""Here any execution provider of ONNX Runtime is a target, without a fallback to the CPU's."""
