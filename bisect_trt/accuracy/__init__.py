"""This room says whether two tensors agree.

It knows arrays, tolerances and metrics. What a model, a target or a file is does not come in.
"""
