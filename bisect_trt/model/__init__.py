"""This room knows what a model is: how it is read, indexed, stored, cut, edited and fed.

Nothing here knows a target or a reference, and nothing runs a model.
"""
