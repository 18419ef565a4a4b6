"""This room finds the nodes that must stay in FP32 when the rest of a model runs in a lower precision.

It has a search of its own, as it looks for a smallest set that passes. What reduces a failure does not
come in.
"""
