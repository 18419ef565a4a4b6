"""This room knows who is on trial.

A target takes a candidate and gives tensors or failures. Each heavy library is imported by one module, in
workers only.
"""
