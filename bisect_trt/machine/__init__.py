"""This room knows this machine: what is installed on it, and processes of ours that may die.

It knows how a process starts, what it may hold, and how onnx's native code is asked. What a model or a
target is does not come in.
"""
