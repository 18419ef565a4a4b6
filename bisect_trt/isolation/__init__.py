"""Processes of our own that may die: how they start, what they may hold, and onnx's native code in one."""
