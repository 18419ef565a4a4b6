"""This room says what is right: ONNX Runtime, a framework, saved outputs, a program of the user.

A reference gives values and never judges. Its libraries are imported in workers only.
"""
