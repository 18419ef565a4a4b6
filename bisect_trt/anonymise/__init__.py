"""This room finds and removes what must not be handed over.

Secrets are what a model tells of its owner: names, texts, weights, values, paths. What makes a model
simple does not come in: that is `reduction.simplify`.
"""
